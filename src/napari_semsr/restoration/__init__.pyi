from .filters import (
    Taps as Taps,
    smoothing_taps as smoothing_taps,
)
from .method import (
    RestoredTile as RestoredTile,
    RestoreOptions as RestoreOptions,
    Restorer as Restorer,
    choose as choose,
)
from .psf import parse_psf as parse_psf
