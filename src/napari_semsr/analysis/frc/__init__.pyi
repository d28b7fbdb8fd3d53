from .correlation import finite_array as finite_array
from .validity import Reason as Reason
