from .image import (
    coverage_of as coverage_of,
    warn_of_missing_blocks as warn_of_missing_blocks,
)
from .series import list_series as list_series, write_series as write_series
from .store import (
    OmeZarrStore as OmeZarrStore,
    halve as halve,
    level_shapes as level_shapes,
    peek as peek,
)
