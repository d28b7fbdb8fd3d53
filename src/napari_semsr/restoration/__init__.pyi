from .filters import (
    Taps as Taps,
    smoothing_taps as smoothing_taps,
)
from .method import (
    RestoreOptions as RestoreOptions,
    Restorer as Restorer,
    choose as choose,
)
from .psf import parse_psf as parse_psf
from .tiles import (
    RestoredTile as RestoredTile,
    measure_tolerance as measure_tolerance,
    plan_field as plan_field,
    restore_tiles as restore_tiles,
)
