"""Array and tuple types used in signatures."""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Float32Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
IntPair = tuple[int, int]
FloatPair = tuple[float, float]
