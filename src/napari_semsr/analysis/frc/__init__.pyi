from .correlation import (
    check_grids as check_grids,
    compare_with_nyquist as compare_with_nyquist,
    read_finite_array as read_finite_array,
)
from .validity import (
    Reason as Reason,
    is_periodic as is_periodic,
)
