"""Palettes and inverted scales: what a stored number means as a grey value."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["apply_palette", "invert_white"]


def apply_palette(data: Any, colormap: NDArray[Any]) -> Any:
    """Look the stored indices up.

    Parameters
    ----------
    data : (Y, X) numpy.ndarray or dask.array.Array of int
        Indices.
    colormap : (3, N) numpy.ndarray of uint16
        Red, green and blue of each index, 65535 is full.

    Returns
    -------
    (Y, X) or (Y, X, 3) numpy.ndarray or dask.array.Array
        Grey when the palette is grey, in 8 bits unless the palette needs 16; indices
        that are their own grey value come back as they are.
    """
    table = np.asarray(colormap, dtype=np.uint16)
    ramp = np.arange(table.shape[1])
    grey = bool(np.all(table == table[0]))
    wide = bool(np.any((table % 257 != 0) & (table % 256 != 0)))
    small = table if wide else (table >> 8).astype(np.uint8)
    if grey and np.array_equal(small[0], ramp):
        return data
    lut = small[0] if grey else np.ascontiguousarray(small.T)
    if isinstance(data, np.ndarray):
        return lut[data]
    if grey:
        return data.map_blocks(_look_up, lut, dtype=lut.dtype)
    return data.map_blocks(
        _look_up, lut, dtype=lut.dtype, chunks=(*data.chunks, (3,)), new_axis=2
    )


def _look_up(block: NDArray[Any], lut: NDArray[Any]) -> NDArray[Any]:
    """Index a table with one block."""
    return np.asarray(lut[block])


def invert_white(data: Any, bits: int) -> Any:
    """Turn a scale whose zero is white into one whose zero is black.

    Parameters
    ----------
    data : numpy.ndarray or dask.array.Array
        Unsigned integers or booleans are turned; anything else has no white.
    bits : int
        Bits of a stored sample.

    Returns
    -------
    numpy.ndarray or dask.array.Array
        Same type.
    """
    kind = np.dtype(data.dtype).kind
    if kind == "b":
        return ~data
    if kind != "u":
        return data
    return data.dtype.type(2**bits - 1) - data
