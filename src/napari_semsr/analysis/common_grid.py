"""Comparison of two images on the grid of the coarser pixels, block by block.

The finer image is averaged over the area of each coarse pixel.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr import core

_GAP = 1e-9  # share of a pixel's area that may be missing: rounding


def find_common_grid(
    first: core.Grid, second: core.Grid
) -> tuple[core.Grid, core.Box | None]:
    """Return the coarser of two image grids, and the overlap on that grid.

    With equal pixel sizes, the grid of the first is used. The overlap is in pixels of
    that grid; None if the images do not overlap.
    """
    coarser = any(b > 1.01 * a for a, b in zip(first.pitch, second.pitch, strict=True))
    grid, other = (second, first) if coarser else (first, second)
    return grid, grid.covered_box(other)


def split_into_blocks(field: core.Box, most: int | None, side: int) -> list[core.Box]:
    """Split a field into blocks row by row; return at most `most`, evenly spaced.

    Blocks at the far borders may be smaller than `side` pixels.
    """
    boxes = [
        core.Box(y, min(y + side, field.y1), x, min(x + side, field.x1))
        for y in range(field.y0, field.y1, side)
        for x in range(field.x0, field.x1, side)
    ]
    if most is None or len(boxes) <= most:
        return boxes
    places = np.linspace(0, len(boxes) - 1, most)
    return [boxes[round(float(place))] for place in places]


def read_resampled(
    image: core.Micrograph, lies: core.Grid, grid: core.Grid, box: core.Box
) -> core.FloatArray:
    """Read a box of a coarser grid by averaging image pixels.

    Returns means over the areas of the coarse pixels; NaN if much of a pixel is
    missing.
    """
    inner = grid.to_box(lies)
    if inner is not None:
        return core.read_box(image.data, box.move(inner.corner)).astype(np.float64)
    spans, edges = [], []
    for axis, (start, stop) in enumerate(((box.y0, box.y1), (box.x0, box.x1))):
        corner = (grid.corner[axis] - lies.corner[axis]) / lies.pitch[axis]
        ratio = grid.pitch[axis] / lies.pitch[axis]
        places = corner + np.arange(start, stop + 1) * ratio
        first = max(0, int(np.floor(places[0])))
        last = min(lies.shape[axis], int(np.ceil(places[-1])))
        spans.append((first, last))
        edges.append(np.clip(places - first, 0, last - first))
    values = core.read_box(image.data, core.Box(*spans[0], *spans[1])).astype(
        np.float64
    )
    finite = np.isfinite(values)
    if finite.all():
        return _compute_area_means(values, edges)
    means = _compute_area_means(np.where(finite, values, 0.0), edges)
    means[_compute_area_means(finite.astype(np.float64), edges) < 1 - _GAP] = np.nan
    return means


def compute_block_means(image: core.RealArray, side: int) -> NDArray[Any]:
    """Average an image (Y, X) over square blocks, ignoring incomplete ones."""
    return np.asarray(core.reshape_into_blocks(image, side).mean(axis=(1, 3)))


def _compute_area_means(
    values: core.FloatArray, edges: list[core.FloatArray]
) -> core.FloatArray:
    """Average values over the cells between edges, one axis at a time."""
    for axis, places in enumerate(edges):
        first, side = round(places[0]), round(places[1] - places[0])
        even = first + side * np.arange(len(places))
        if np.abs(places - even).max() < _GAP:  # whole pixels: six times as fast
            lines = np.moveaxis(values, axis, 0)[first : even[-1]]
            total = sum(lines[n::side] for n in range(1, side)) + lines[::side]
            values = np.moveaxis(total / side, 0, axis)
            continue
        sums = np.insert(np.cumsum(values, axis=axis), 0, 0.0, axis=axis)
        whole = np.minimum(places.astype(int), values.shape[axis] - 1)
        shape = (-1, 1) if axis == 0 else (1, -1)
        rest = (places - whole).reshape(shape)
        at = sums.take(whole, axis=axis) + rest * values.take(whole, axis=axis)
        values = np.diff(at, axis=axis) / np.diff(places).reshape(shape)
    return values
