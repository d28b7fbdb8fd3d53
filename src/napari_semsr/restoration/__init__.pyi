from .linear import fit_linear_filter as fit_linear_filter
from .method import (
    RestoreOptions as RestoreOptions,
    Restorer as Restorer,
    choose as choose,
)
from .psf import parse_psf as parse_psf
