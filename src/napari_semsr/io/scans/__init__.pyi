from .czi import is_czi as is_czi
from .frames import (
    HEIGHTS as HEIGHTS,
    grid_corners as grid_corners,
    natural_key as natural_key,
    open_frames as open_frames,
)
