from .linear import fit_linear_filter as fit_linear_filter
from .method import (
    RestoredTile as RestoredTile,
    RestoreOptions as RestoreOptions,
    Restorer as Restorer,
    Taps as Taps,
    choose as choose,
    smoothing_taps as smoothing_taps,
)
from .psf import parse_psf as parse_psf
