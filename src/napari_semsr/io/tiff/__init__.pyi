from .read import LARGEST_PRINTED_NM as LARGEST_PRINTED_NM
from .vendors import (
    LARGEST_NM as LARGEST_NM,
    SMALLEST_NM as SMALLEST_NM,
    pixel_size as pixel_size,
    read_sidecar as read_sidecar,
    to_nm as to_nm,
    unit_nm as unit_nm,
)
