from .czi import is_czi as is_czi
from .frames import (
    natural_key as natural_key,
    open_frames as open_frames,
)
