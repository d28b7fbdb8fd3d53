from .correlation import (
    check_same_grid as check_same_grid,
    describe_nyquist_ratio as describe_nyquist_ratio,
    read_finite_array as read_finite_array,
)
from .validity import (
    Reason as Reason,
    is_periodic as is_periodic,
)
