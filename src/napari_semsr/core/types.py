"""The array and tuple types that signatures share."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Float32Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
IntPair = tuple[int, int]
FloatPair = tuple[float, float]
RealArray = NDArray[np.integer | np.floating | np.bool_]


class ReadableArray(Protocol):
    """An array of NumPy, dask, Zarr or HDF5 that is read by slices."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Type of the values."""

    @property
    def ndim(self) -> int:
        """Number of axes."""

    def __getitem__(self, index: tuple[slice, ...], /) -> Any:
        """Read a part, which dask leaves to be computed."""
