from .correlation import (
    check_grids as check_grids,
    compare_with_pixels as compare_with_pixels,
    finite_array as finite_array,
)
from .validity import (
    Reason as Reason,
    is_periodic as is_periodic,
)
