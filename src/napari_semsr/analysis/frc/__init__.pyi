from .correlation import (
    beside_pixels as beside_pixels,
    check_grids as check_grids,
    finite_array as finite_array,
)
from .validity import (
    Reason as Reason,
    is_periodic as is_periodic,
)
