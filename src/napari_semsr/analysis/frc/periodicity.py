"""Pure gratings and lattices: correlation without a resolution.

A grating correlates perfectly in the few places of the Fourier plane where its lines
are, and says nothing anywhere else: rings between them hold noise, and the crossing of
such a curve is meaningless. Two things together tell it from an ordinary image. Most of
the coherent power sits in a few isolated lobes; and in the rings that look correlated,
hardly any samples agree in phase when each counts alike, whatever its power.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from napari_semsr.core import (
    BoolArray,
    Float32Array,
    FloatArray,
    IntPair,
    Rings,
    plan_rings,
)

# Chosen; how many drawn gratings and ordinary images are told rightly is measured by
# `benchmarks/frc_accuracy.py` (traps), with the goal of 99 %.
_LOBES = 8  # enough for a lattice and its first harmonics, each with its mirror image
_LOBE_SHARE = 0.5  # of the coherent power that a grating has at least in its lobes
_ISOLATION = 0.03  # of a lobe's height that its surroundings stay below
_CROWD = 90  # percentile of the surroundings: another lobe may lie in them
_AGREEMENT = 0.65  # between ordinary images, 0.8 to 1, and gratings, near 0

# Sizes, px; chosen: from 192 the lobe of the steep window, four bins to each side, is
# narrow enough; of fields beyond 1024 the middle tells as much and costs less.
_LARGE = 192
_LARGEST = 1024
_TINY = 1e-30  # chosen, far below any power: keeps 0 / 0 a 0

# Blackman and Harris's minimum of four terms, side lobes of -92 dB, and Hann's: F. J.
# Harris, Proc. IEEE 66, 51 (1978), doi:10.1109/PROC.1978.10837.
_COSINES_STEEP = (0.35875, 0.48829, 0.14128, 0.01168)
_COSINES_HANN = (0.5, 0.5)


@dataclass(frozen=True, slots=True)
class Texture:
    """How a pair's coherent power is spread over the Fourier plane."""

    lobe_share: FloatArray  # (B,) Coherent power in the strongest isolated lobes
    # (B,) Mean phase agreement of single samples over mean correlation, in the rings
    # that are correlated: about 0.8 to 1 for ordinary images, near 0 for gratings
    agreement: FloatArray


@dataclass(frozen=True, slots=True)
class _Plane:
    """What the test needs to know of one shape."""

    window: Float32Array
    rings: Rings
    reach: int
    index: NDArray[np.int32]
    core: tuple[NDArray[np.intp], NDArray[np.intp]]
    halo: tuple[NDArray[np.intp], NDArray[np.intp]]


def _cosine_window(size: int, terms: tuple[float, ...]) -> FloatArray:
    """Sum of cosines; its lobe is as many bins to each side as it has terms."""
    place = 2 * np.pi * (np.arange(size) + 0.5) / size
    signs = (-1.0) ** np.arange(len(terms))
    window: FloatArray = sum(
        (
            s * c * np.cos(k * place)
            for k, (s, c) in enumerate(zip(signs, terms, strict=True))
        ),
        start=np.zeros(size),
    )
    return window


@lru_cache(maxsize=4)
def _plan(shape: IntPair) -> _Plane:
    """Window, rings and the neighbourhood of a lobe."""
    terms = _COSINES_STEEP if min(shape) >= _LARGE else _COSINES_HANN
    window = np.outer(*(_cosine_window(size, terms) for size in shape))
    rings = plan_rings(shape)
    rows = np.rint(np.abs(np.fft.fftfreq(shape[0])) * min(shape))
    columns = np.rint(np.abs(np.fft.fftfreq(shape[1])) * min(shape))
    index = np.rint(np.hypot(rows[:, None], columns[None, :])).astype(np.int32)
    reach = len(terms)
    grid = np.arange(-2 * reach, 2 * reach + 1)
    dy, dx = np.meshgrid(grid, grid, indexing="ij")
    distance = np.hypot(dy, dx)
    core = distance <= reach
    halo = (distance > reach + 0.5) & (distance <= 2 * reach)
    return _Plane(
        window.astype(np.float32),
        rings,
        reach,
        index,
        (dy[core], dx[core]),
        (dy[halo], dx[halo]),
    )


@lru_cache(maxsize=4)
def _half_shift(shape: IntPair) -> NDArray[np.complex64]:
    """Phase ramp that takes off half a pixel on both axes."""
    rows, columns = (np.fft.fftfreq(size) for size in shape)
    return np.exp(-1j * np.pi * (rows[:, None] + columns[None, :])).astype(np.complex64)


def _ring_sums(plane: Float32Array, index: NDArray[np.int32]) -> FloatArray:
    """Sum a batch of full planes over rings of rounded radius."""
    count = int(index.max()) + 1
    flat = index.ravel()
    return np.stack(
        [np.bincount(flat, weights=p.ravel(), minlength=count) for p in plane]
    )


def _isolated_share(cross: Float32Array, plan: _Plane) -> FloatArray:
    """Share of the coherent power that lies in the strongest isolated lobes."""
    batch, rows, columns = cross.shape
    total = np.maximum(cross.sum(axis=(1, 2), dtype=np.float64), _TINY)
    remaining = cross.copy()
    share = np.zeros(batch)
    every = np.arange(batch)[:, None]
    crowd = _CROWD * plan.halo[0].size // 100
    for _ in range(_LOBES):
        place = remaining.reshape(batch, -1).argmax(axis=1)
        y, x = np.divmod(place, columns)
        peak = remaining[every[:, 0], y, x].astype(np.float64)
        around = (
            (y[:, None] + plan.halo[0]) % rows,
            (x[:, None] + plan.halo[1]) % columns,
        )
        near = np.abs(cross[every, around[0], around[1]])
        level = np.partition(near, crowd, axis=1)[:, crowd]
        inside = (
            (y[:, None] + plan.core[0]) % rows,
            (x[:, None] + plan.core[1]) % columns,
        )
        mirrored = (-inside[0]) % rows, (-inside[1]) % columns
        power = remaining[every, inside[0], inside[1]].sum(axis=1, dtype=np.float64)
        clear = plan.index[y, x] > plan.reach + 1
        share += np.where(clear & (level < _ISOLATION * peak), 2 * power, 0.0)
        remaining[every, inside[0], inside[1]] = 0
        remaining[every, mirrored[0], mirrored[1]] = 0
    shares: FloatArray = share / total
    return shares


def describe_texture(
    first: Float32Array,
    second: Float32Array,
    *,
    diagonal: bool = False,
) -> Texture:
    """Measure how a batch of pairs spreads its coherent power.

    `first`, `second` (B, Y, X); `diagonal`: the pair are diagonal halves of one image:
    the second lies half a pixel further on both axes.
    """
    rows, columns = first.shape[1:]
    if max(rows, columns) > _LARGEST:
        y0, x0 = max(rows - _LARGEST, 0) // 2, max(columns - _LARGEST, 0) // 2
        part = np.s_[:, y0 : y0 + _LARGEST, x0 : x0 + _LARGEST]
        first, second = first[part], second[part]
    plan = _plan((first.shape[1], first.shape[2]))
    a = fft.fft2(first * plan.window, axes=(1, 2))
    b = fft.fft2(second * plan.window, axes=(1, 2))
    if diagonal:
        b *= _half_shift((first.shape[1], first.shape[2]))
    size_a, size_b = np.abs(a), np.abs(b)
    cross = a.real * b.real + a.imag * b.imag
    cosine = cross / np.maximum(size_a * size_b, _TINY)
    cross[:, plan.index <= 1] = 0
    power = np.sqrt(
        _ring_sums(size_a**2, plan.index) * _ring_sums(size_b**2, plan.index)
    )
    correlation = _ring_sums(cross, plan.index) / np.maximum(power, _TINY)
    count = np.bincount(plan.index.ravel()).astype(float)
    agreement = _ring_sums(cosine, plan.index) / count
    kept = 0.3 if plan.reach == len(_COSINES_HANN) else 0.25
    telling = correlation > np.maximum(0.2, 4 / np.sqrt(2 * kept * count / 2))
    telling[:, :2] = False
    weight = np.where(telling, count, 0.0)
    ratio = (weight * agreement).sum(axis=1) / np.maximum(
        (weight * correlation).sum(axis=1), _TINY
    )
    return Texture(
        _isolated_share(cross, plan), np.where(weight.any(axis=1), ratio, 1.0)
    )


def is_periodic(
    first: Float32Array,
    second: Float32Array,
    *,
    diagonal: bool = False,
) -> BoolArray:
    """Tell gratings and lattices from images that have a resolution.

    `first`, `second` (B, Y, X); `diagonal`: the pair are diagonal halves of one image:
    the second lies half a pixel further on both axes; gives (B,).
    """
    texture = describe_texture(first, second, diagonal=diagonal)
    periodic: BoolArray = (texture.lobe_share > _LOBE_SHARE) & (
        texture.agreement < _AGREEMENT
    )
    return periodic
