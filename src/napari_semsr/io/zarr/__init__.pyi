from .image import (
    read_coverage as read_coverage,
    warn_about_missing_blocks as warn_about_missing_blocks,
)
from .series import list_series as list_series, write_series as write_series
from .store import (
    OmeZarrStore as OmeZarrStore,
    halve as halve,
    level_shapes as level_shapes,
    read_store_state as read_store_state,
)
