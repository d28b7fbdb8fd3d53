from .linear import (
    LinearFit as LinearFit,
    fit_linear_filter as fit_linear_filter,
)
from .method import (
    RestoreOptions as RestoreOptions,
    Restorer as Restorer,
    prepare_restoration as prepare_restoration,
)
from .psf import parse_psf as parse_psf
