from .correlation import finite_array as finite_array
