from .correlation import (
    beside_pixels as beside_pixels,
    finite_array as finite_array,
)
from .validity import Reason as Reason
