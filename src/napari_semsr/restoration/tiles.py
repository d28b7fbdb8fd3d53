"""A field of any size through a restoration, tile by tile in bounded memory."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_semsr.core import (
    Box,
    Float32Array,
    IntPair,
    Tile,
    TilePlan,
    finite_mean,
    plan_tiles,
    read_box,
)
from napari_semsr.restoration.method import Restorer

_TILE = 512  # px; chosen: with the largest halo still below 10 MB of doubles
_PROBE = 48  # px; chosen: the tolerance is measured at the cost of one small tile


@dataclass(frozen=True, slots=True)
class RestoredTile:
    """One restored tile.

    Attributes
    ----------
    tile : Tile
        Where it belongs.
    values : (Y, X) numpy.ndarray of float32
        Grey values of its core; NaN where the input had none.
    """

    tile: Tile
    values: Float32Array


def plan_field(shape: IntPair, restorer: Restorer, tile: int | None) -> TilePlan:
    """Cut a field into tiles.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns.
    restorer : Restorer
        Tells the halo.
    tile : int, optional
        Side of a tile.

    Returns
    -------
    TilePlan
        Its cores partition the field.
    """
    core = min(tile or _TILE, max(shape))
    return plan_tiles(shape, core=core, halo=restorer.halo)


def _mean_of(data: Any) -> float:
    """Give what missing pixels are filled with; only floats can miss any."""
    return finite_mean(data) if np.dtype(data.dtype).kind == "f" else 0.0


def _restored(
    data: Any, box: Box, restorer: Restorer, mean: float, halo: int
) -> Float32Array:
    """Restore a box of a field; beyond its border the field is reflected."""
    window = read_box(data, box.grow(halo))
    if window.dtype.kind != "f":
        return restorer.apply(window, halo).astype(np.float32)
    missing = ~np.isfinite(window)
    if missing.any():
        window = np.where(missing, mean, window)
    made = restorer.apply(window, halo).astype(np.float32)
    rows, columns = box.shape
    made[missing[halo : halo + rows, halo : halo + columns]] = np.nan
    return made


def restore_tiles(
    data: Any,
    plan: TilePlan,
    restorer: Restorer,
    places: Collection[IntPair] | None = None,
) -> Iterator[RestoredTile]:
    """Restore a field tile by tile.

    Parameters
    ----------
    data : (Y, X) numpy.ndarray or dask.array.Array
        The field.
    plan : TilePlan
        From `plan_field`.
    restorer : Restorer
        From `choose`, for this field.
    places : collection of tuple of int, optional
        Rows and columns of the tiles wanted; all when not given.

    Yields
    ------
    RestoredTile
        A tile.
    """
    mean = _mean_of(data)
    wanted = [tile.index for tile in plan] if places is None else places
    for row, column in wanted:
        tile = plan.tile(row, column)
        yield RestoredTile(
            tile, _restored(data, tile.core, restorer, mean, restorer.halo)
        )


def measure_tolerance(data: Any, plan: TilePlan, restorer: Restorer) -> float:
    """Measure what a cut-off halo costs, in the middle of the field.

    Parameters
    ----------
    data : (Y, X) numpy.ndarray or dask.array.Array
        The field.
    plan : TilePlan
        Its tiles.
    restorer : Restorer
        The restoration.

    Returns
    -------
    float
        Largest difference between a corner of a tile and the same pixels with as much
        halo as the method looks far, over the field's range; 0 where tiles are exact.
    """
    span = restorer.high - restorer.low
    if restorer.exact or span <= 0:
        return 0.0
    row, column = (n // 2 for n in plan.grid)
    core = plan.tile(row, column).core
    side = min(_PROBE, *core.shape)
    box = Box.of((side, side), core.corner)
    mean = _mean_of(data)
    near = _restored(data, box, restorer, mean, restorer.halo)
    far = _restored(data, box, restorer, mean, min(restorer.reach, 3 * restorer.halo))
    gap = np.abs(near.astype(float) - far)
    return float(np.nanmax(gap, initial=0.0)) / span
