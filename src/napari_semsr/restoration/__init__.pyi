from .linear import (
    LinearFit as LinearFit,
    fit_linear_filter as fit_linear_filter,
    fit_place_filter as fit_place_filter,
)
from .method import (
    RestoreOptions as RestoreOptions,
    Restorer as Restorer,
    choose as choose,
)
from .psf import parse_psf as parse_psf
