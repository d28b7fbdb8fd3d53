"""Array and tuple types used in signatures."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Float32Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
IntPair = tuple[int, int]
BoxEnds = tuple[int, int, int, int]
FloatPair = tuple[float, float]
RealArray = NDArray[np.integer | np.floating | np.bool_]
JsonObject = dict[str, Any]  # its values are checked where they are used


class ReadableArray(Protocol):
    """Sliceable array (Y, X) from NumPy, dask, Zarr or HDF5."""

    @property
    def shape(self) -> IntPair:
        """Shape of the image, (rows, columns)."""

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Data type of the values."""

    def __getitem__(self, index: tuple[slice, slice], /) -> Any:
        """Read a slice, lazily for dask arrays."""
