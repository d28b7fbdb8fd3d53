from .image import (
    read_coverage as read_coverage,
    warn_about_missing_blocks as warn_about_missing_blocks,
)
from .series import list_series as list_series
from .store import (
    OmeZarrStore as OmeZarrStore,
    compute_pyramid_shapes as compute_pyramid_shapes,
    downsample_block as downsample_block,
    read_store_state as read_store_state,
)
