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
from napari_semsr.core.fourier import tukey

__all__ = ["NODES_PER_RING", "mix_rings"]

NODES_PER_RING = 4
"""Radial nodes per ring."""

_FINE = 2
_MARGIN = 2

_REACH_SMALL = 16
_REACH_LARGE = 8
_SMALL = 160
_SAMPLES_SMALL, _SAMPLES_LARGE = 24, 8

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


def _choose(index: NDArray[np.int32], ring: int, most: int) -> NDArray[np.intp]:
    """Choose a spread of half-plane samples that stand for a ring."""
    places: NDArray[np.intp] = np.argwhere(index == ring)
    if len(places) > most:
        take = np.linspace(0, len(places) - 1, most).round().astype(int)
        places = places[take]
    return places


_CACHE: dict[tuple[object, ...], tuple[Float64Array, Float64Array]] = {}


def mix_rings(geometry: Geometry) -> tuple[Float64Array, Float64Array]:
    """Matrix from spectral density at radial nodes to mean ring density.

    Parameters
    ----------
    geometry : Geometry
        Rings and window of a block.

    Returns
    -------
    (complete, I) numpy.ndarray
        Rows sum to about 1; row 0 is all 0.
    (I,) numpy.ndarray
        Frequencies of the nodes, cycles per mean pixel.
    """
    rings = geometry.rings
    key = (rings.shape, rings.pitch, geometry.tukey)
    if key not in _CACHE:
        if len(_CACHE) >= 8:
            _CACHE.clear()
        _CACHE[key] = _compute(geometry)
    return _CACHE[key]


def _compute(geometry: Geometry) -> tuple[Float64Array, Float64Array]:
    """Sum the kernel over the radial nodes for a few samples of every ring."""
    rings = geometry.rings
    rows, columns = rings.shape
    small = min(rings.shape) <= _SMALL
    reach = _REACH_SMALL if small else _REACH_LARGE
    most = _SAMPLES_SMALL if small else _SAMPLES_LARGE
    reach = min(reach, min(rings.shape) // 2)
    axes = (_Axis(rows, geometry.tukey, reach), _Axis(columns, geometry.tukey, reach))
    spacing = rings.bin_width / NODES_PER_RING
    count = (rings.complete + _MARGIN) * NODES_PER_RING
    steps = (1 / (rows * rings.pitch[0]), 1 / (columns * rings.pitch[1]))
    matrix = np.zeros((rings.complete, count))
    norm = float(rows * columns * _FINE**2)
    scale = np.mean(tukey(rows, geometry.tukey) ** 2)
    scale *= np.mean(tukey(columns, geometry.tukey) ** 2)
    norm *= rows * columns * float(scale)
    for ring in range(1, rings.complete):
        places = _choose(rings.index, ring, most)
        for y, x in places:
            row = y - rows if y > rows // 2 else y
            wy, dy, own_y, fy = axes[0].near(int(row), reach)
            wx, dx, own_x, fx = axes[1].near(int(x), reach)
            kernel = np.outer(wy, wx) - own_y * own_x * np.outer(dy, dx)
            radius = np.hypot(fy[:, None] * steps[0], fx[None, :] * steps[1])
            node = np.minimum(np.rint(radius / spacing), count - 1).astype(int)
            matrix[ring] += np.bincount(
                node.ravel(), weights=(kernel**2).ravel(), minlength=count
            )
        matrix[ring] /= len(places) * norm
    nodes: Float64Array = np.arange(count, dtype=np.float64) * spacing
    return matrix, nodes
