from .correlation import finite_array as finite_array
from .rings import available_cores as available_cores
