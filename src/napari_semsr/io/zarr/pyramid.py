"""Coarser levels of an image: means of two by two pixels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def level_shapes(
    shape: tuple[int, int], *, smallest: int = 256
) -> list[tuple[int, int]]:
    """Plan the levels of a pyramid.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the finest level.
    smallest : int, default=256
        Halving goes on while the longer side exceeds this.

    Returns
    -------
    list of tuple of int
        Shape of every level, the finest first; odd sides round up.
    """
    shapes = [shape]
    while max(shapes[-1]) > max(smallest, 1):
        rows, columns = shapes[-1]
        shapes.append(((rows + 1) // 2, (columns + 1) // 2))
    return shapes


def level_origin(
    origin: tuple[float, float], scale: tuple[float, float], level: int
) -> tuple[float, float]:
    """Centre ``(y, x)`` of the first pixel of a level; `origin` is the finest level's.

    It is the centre of the ``2**level`` pixels that it averages.
    """
    shift = (2**level - 1) / 2
    return origin[0] + shift * scale[0], origin[1] + shift * scale[1]


def halve(block: NDArray[Any]) -> NDArray[Any]:
    """Average two by two pixels.

    NaN pixels are left out of the mean; a pixel made of NaN only stays NaN. At odd
    sides the last row or column is averaged with itself.

    Parameters
    ----------
    block : (Y, X) numpy.ndarray
        Any real or boolean type.

    Returns
    -------
    (ceil(Y / 2), ceil(X / 2)) numpy.ndarray
        Same type; integers are rounded, booleans decided by the majority.
    """
    rows, columns = block.shape
    padded = np.pad(block, ((0, rows % 2), (0, columns % 2)), mode="edge")
    work = np.float32 if block.dtype.itemsize < 4 or block.dtype == "f4" else np.float64
    shape = padded.shape[0] // 2, padded.shape[1] // 2
    total, count = np.zeros(shape, work), np.zeros(shape, np.uint8)
    with np.errstate(invalid="ignore", over="ignore"):
        for quarter in (padded[i::2, j::2] for i in (0, 1) for j in (0, 1)):
            known = ~np.isnan(quarter) if block.dtype.kind == "f" else True
            np.add(total, quarter, out=total, where=known, casting="unsafe")
            count += known
        mean = np.divide(
            total, count, out=np.full(shape, np.nan, work), where=count > 0
        )
        if block.dtype.kind == "b":
            return np.asarray(mean >= 0.5)
        if block.dtype.kind in "ui":
            np.rint(mean, out=mean)
        return np.asarray(mean.astype(block.dtype))
