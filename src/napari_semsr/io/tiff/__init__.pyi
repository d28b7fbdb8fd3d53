from .read import (
    is_grey as is_grey,
    list_set_files as list_set_files,
    read_stage_positions as read_stage_positions,
)
