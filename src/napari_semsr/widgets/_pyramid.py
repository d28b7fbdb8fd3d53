"""Coarse levels of a large image that has none, so that the viewer need not read all.

napari computes every chunk of a single-scale lazy layer when it is added. With coarse
levels made beforehand, in the thread, it reads only what is looked at.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import Job, Progress

__all__ = ["FACTOR", "coarse_levels"]

FACTOR = 4
_STRIP_PX = 1 << 24
_SMALL = 2048


def _shrink(part: NDArray[Any]) -> NDArray[Any]:
    """Mean of blocks of `FACTOR` by `FACTOR` pixels, in the image's own type."""
    rows, columns = (n // FACTOR for n in part.shape)
    cut = part[: rows * FACTOR, : columns * FACTOR]
    blocks = cut.reshape(rows, FACTOR, columns, FACTOR)
    mean = blocks.mean(axis=(1, 3), dtype=np.float64)
    if part.dtype.kind in "iu":
        mean = np.rint(mean)
    shrunk: NDArray[Any] = mean.astype(part.dtype)
    return shrunk


def coarse_levels(micrograph: Micrograph) -> Job[list[Micrograph]]:
    """Shrink a lazy image strip by strip.

    Parameters
    ----------
    micrograph : Micrograph
        A large lazy image.

    Returns
    -------
    list of Micrograph
        Levels in memory, each `FACTOR` times coarser, down to about 2048 px.

    Yields
    ------
    Progress
        One step for each strip.
    """
    rows, columns = micrograph.shape
    step = max(1, _STRIP_PX // (columns * FACTOR)) * FACTOR
    starts = range(0, rows - rows % FACTOR, step)
    strips = []
    for number, start in enumerate(starts):
        yield Progress(number, len(starts), f"making an overview of {micrograph.name}")
        part = micrograph.data[start : min(start + step, rows)]
        # Without callbacks: napari's dask cache is not made for two threads.
        strips.append(_shrink(np.asarray(part.compute(callbacks=()))))
    levels = [np.concatenate(strips)]
    while max(levels[-1].shape) > _SMALL and min(levels[-1].shape) >= FACTOR:
        levels.append(_shrink(levels[-1]))
    return [micrograph.replace(data=level) for level in levels]
