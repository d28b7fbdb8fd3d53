"""What a window does to the spectrum of a small block: leakage between rings.

The expected power of a windowed, mean-free block at frequency k is the true spectral
density smeared by a kernel that depends on the window and the block alone,

    E |F(k)|² = ∫ S(f) |W(k - f) - W(k) D(f)|² df,

with W the transform of the window and D that of the block's own outline (the second
term is the mean that was taken off). For a density that depends on radius only, ring
means of the smeared density are linear in the density at a set of radial nodes: a
matrix, worked out once for each block size.
"""

import numpy as np
from numpy.typing import NDArray

from napari_semsr.analysis.ring_sums import Geometry
from napari_semsr.core.fourier import Rings, tukey

__all__ = ["NODES_PER_RING", "mix_rings"]

NODES_PER_RING = 4
"""Radial nodes per ring."""

_FINE = 2
_MARGIN = 2

_REACH_SMALL = 16
_REACH_LARGE = 8
_SMALL = 160
_WHOLE = 24
_ANGLES = 6
_KEPT = 8

Float64Array = NDArray[np.float64]


def _response(weights: Float64Array, offset: Float64Array) -> Float64Array:
    """Transform of a symmetric window about its middle, at offsets in bins."""
    size = weights.size
    place = np.arange(size) - (size - 1) / 2
    phase = np.outer(offset, place) * (2 * np.pi / size)
    response: Float64Array = np.cos(phase) @ weights
    return response


class _Axis:
    """Responses of one axis, tabulated on the kernel's grid of fractions of a bin."""

    def __init__(self, size: int, taper: float, reach: int) -> None:
        self.size = size
        limit = size // 2 + reach + 1
        grid = np.arange(-limit * _FINE, limit * _FINE + 1)
        self.zero = limit * _FINE
        self.window = _response(tukey(size, taper), grid / _FINE)
        self.outline = _response(np.ones(size), grid / _FINE) / size

    def near(
        self, place: int, reach: int
    ) -> tuple[Float64Array, Float64Array, float, Float64Array]:
        """Window and outline around one sample, and where they were taken (bins)."""
        shift = np.arange(-reach * _FINE, reach * _FINE + 1)
        at = place * _FINE + shift
        return (
            self.window[self.zero - shift],
            self.outline[self.zero + at],
            float(self.window[self.zero + place * _FINE]),
            at / _FINE,
        )


def _choose(rings: Rings, ring: int) -> tuple[NDArray[np.intp], Float64Array]:
    """Choose samples ``(n, 2)`` that stand for a ring, and how much each counts.

    The kernel is the same in all four quadrants, so one is enough. Small rings are
    taken whole, large ones at evenly spread angles.
    """
    sides = [
        n * p * rings.bin_width for n, p in zip(rings.shape, rings.pitch, strict=True)
    ]
    if ring <= _WHOLE:
        limits = [int((ring + 1) * side) + 1 for side in sides]
        quadrant = rings.index[: limits[0], : limits[1]]
        quadrant = quadrant[: rings.shape[0] // 2 + 1]
        places: NDArray[np.intp] = np.argwhere(quadrant == ring)
        weight = np.prod(np.where(places == 0, 1.0, 2.0), axis=1)
    else:
        angle = (np.arange(_ANGLES) + 0.5) * (np.pi / 2 / _ANGLES)
        circle = np.stack([np.sin(angle) * sides[0], np.cos(angle) * sides[1]], axis=1)
        places = np.rint(ring * circle).astype(np.intp)
        weight = np.ones(len(places))
    return places, weight / weight.sum()


_CACHE: dict[tuple[object, ...], tuple[Float64Array, Float64Array]] = {}


def mix_rings(
    geometry: Geometry, first: int = 1, last: int | None = None
) -> tuple[Float64Array, Float64Array]:
    """Matrix from spectral density at radial nodes to mean ring density.

    Parameters
    ----------
    geometry : Geometry
        Rings and window of a block.
    first, last : int, optional
        Range of rings that are wanted; all up to Nyquist by default.

    Returns
    -------
    (last - first, I) numpy.ndarray
        Rows sum to about 1.
    (I,) numpy.ndarray
        Frequencies of the nodes, cycles per mean pixel.
    """
    complete = geometry.rings.complete
    last = complete if last is None else last
    if complete > _SMALL // 2 + 1:
        return _compute(geometry, first, last)
    key = (geometry.rings.shape, geometry.rings.pitch, geometry.tukey)
    if key not in _CACHE:
        if len(_CACHE) >= _KEPT:
            _CACHE.clear()
        _CACHE[key] = _compute(geometry, 1, complete)
    matrix, nodes = _CACHE[key]
    used = min((last + _MARGIN) * NODES_PER_RING, nodes.size)
    return matrix[first - 1 : last - 1, :used], nodes[:used]


def _compute(
    geometry: Geometry, first: int, last: int
) -> tuple[Float64Array, Float64Array]:
    """Sum the kernel over the radial nodes for a few samples of every ring."""
    rings = geometry.rings
    rows, columns = rings.shape
    reach = _REACH_SMALL if min(rings.shape) <= _SMALL else _REACH_LARGE
    reach = min(reach, min(rings.shape) // 2)
    axes = (_Axis(rows, geometry.tukey, reach), _Axis(columns, geometry.tukey, reach))
    spacing = rings.bin_width / NODES_PER_RING
    lowest = max(0, (first - reach) * NODES_PER_RING)
    count = (last + _MARGIN) * NODES_PER_RING - lowest
    steps = (1 / (rows * rings.pitch[0]), 1 / (columns * rings.pitch[1]))
    matrix = np.zeros((last - first, count))
    norm = float((rows * columns * _FINE) ** 2)
    norm *= float(np.mean(tukey(rows, geometry.tukey) ** 2))
    norm *= float(np.mean(tukey(columns, geometry.tukey) ** 2))
    for ring in range(first, last):
        for (y, x), share in zip(*_choose(rings, ring), strict=True):
            wy, dy, own_y, fy = axes[0].near(int(y), reach)
            wx, dx, own_x, fx = axes[1].near(int(x), reach)
            kernel = np.outer(wy, wx) - own_y * own_x * np.outer(dy, dx)
            radius = np.hypot(fy[:, None] * steps[0], fx[None, :] * steps[1])
            node = np.rint(radius / spacing).astype(int) - lowest
            matrix[ring - first] += share * np.bincount(
                np.clip(node, 0, count - 1).ravel(),
                weights=(kernel**2).ravel(),
                minlength=count,
            )
    nodes = (lowest + np.arange(count, dtype=np.float64)) * spacing
    return matrix / norm, nodes
