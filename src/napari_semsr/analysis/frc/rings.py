"""Ring sums of many blocks, using one batched real FFT and one matrix product.

For a pair of windowed blocks with transforms ``A`` and ``B`` the three sums on which
every Fourier ring correlation is based are Σ Re(A B*), Σ |A|² and Σ |B|² over each ring
of the full plane. Rings beyond the Nyquist frequency, in the corners of the plane, are
kept: they distinguish shared noise from signal. `plan_geometry` prepares what depends
on the shape alone; `Geometry.sum_rings` transforms the blocks and sums their spectra;
`RingSums.correlation` is the curve.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft, sparse

from napari_semsr import core

# Samples of a half-plane up to which rings are summed by a matrix; chosen: that of 512
# px (131 584 samples, about 1 MB) is worth caching, and larger images are not processed
# in batches.
_LARGEST = 150_000
TINY = 1e-30  # chosen, far below any power: makes 0 / 0 equal 0

# A strongest sample within this ring is not a lobe of a grating: the window spreads the
# zero frequency and shading over the first rings; chosen.
_CENTRE = 3

# Lowest frequency at which stripes are searched, cycles per pixel: no optical signal is
# left above it; chosen as for shared noise in `validity`.
LINE_BAND = 0.42

# Pixels of a batch of blocks: 1 MB of float32 stays in the cache of a core; chosen. The
# transform of a block of as many uses all cores, as it comes alone.
BATCH_PX = 1 << 18


@dataclass(frozen=True, slots=True)
class Geometry:
    """Data that depend only on a block's shape, pixel pitch and window."""

    rings: core.Rings  # Rings of the block's Fourier plane
    tukey: float  # Tapered share of the window
    window: core.Float32Array  # (Y, X) The window, with a mean square of one
    # (K,) Independent complex samples in each ring: half of all samples, times the
    # share that the window leaves, (Σw²)² / (n Σw⁴)
    effective: core.FloatArray
    # (K, Y (X // 2 + 1)) Matrix whose product with a flat half-plane is its ring sums;
    # None for large images, which are summed directly. A sparse matrix is faster here
    # than a dense one, and does not compete for the threads of BLAS
    projection: sparse.csr_array | None

    @property
    def relative_frequency(self) -> core.FloatArray:
        """Ring frequencies, scaled so that the smaller Nyquist frequency is 0.5."""
        return self.rings.frequency * (0.5 / self.rings.nyquist)

    def transform(self, stack: core.Float32Array) -> NDArray[np.complex64]:
        """Window blocks (B, Y, X) and take their real FFT, (B, Y, X // 2 + 1)."""
        workers = core.count_available_cores() if stack[0].size >= BATCH_PX else 1
        return np.asarray(fft.rfft2(stack * self.window, axes=(1, 2), workers=workers))

    def project(self, planes: core.Float32Array) -> core.FloatArray:
        """Sum half-planes (B, Y, X // 2 + 1) over every ring, (B, K)."""
        if self.projection is None:
            return np.stack([self.rings.sum_rings(plane) for plane in planes])
        sums = self.projection @ planes.reshape(planes.shape[0], -1).T
        return np.ascontiguousarray(sums.T, dtype=np.float64)

    def phase_ramp(self, shift: core.FloatPair) -> NDArray[np.complex64]:
        """Return the phase factor (Y, X // 2 + 1) of a shift by ``(y, x)`` pixels."""
        rows = np.fft.fftfreq(self.rings.shape[0])[:, None]
        columns = np.fft.rfftfreq(self.rings.shape[1])[None, :]
        turns = rows * shift[0] + columns * shift[1]
        return np.exp(-2j * np.pi * turns).astype(np.complex64)

    def sum_rings(
        self,
        first: core.Float32Array,
        second: core.Float32Array,
        phase: NDArray[np.complex64] | None = None,
    ) -> "RingSums":
        """Compute the ring sums of a batch of block pairs.

        `first`, `second` (B, Y, X); `phase` (Y, X // 2 + 1), factor that moves the
        second block to the grid of the first.
        """
        a, b = self.transform(first), self.transform(second)
        if phase is not None:
            b *= phase
        planes = np.empty((3, *a.shape), np.float32)
        cross, power_a, power_b = planes
        spare = np.empty(a.shape, np.float32)
        for target, p, q in ((cross, a, b), (power_a, a, a), (power_b, b, b)):
            np.multiply(p.real, q.real, out=target)
            np.multiply(p.imag, q.imag, out=spare)
            target += spare
        sums = self.project(planes.reshape(-1, *a.shape[1:]))
        sums = sums.reshape(3, len(a), -1)
        flat = cross.reshape(cross.shape[0], -1)
        place = flat.argmax(axis=1)
        peak = flat[np.arange(len(flat)), place].astype(np.float64)
        peak[self.rings.index.ravel()[place] <= _CENTRE] = 0
        rows, half = cross.shape[1:]
        x_end = np.s_[:, 0, int(2 * LINE_BAND * (half - 1)) :]
        y_end = np.s_[:, int(LINE_BAND * rows) : rows // 2 + 1, 0]
        lines = []  # correlations near the end of each frequency axis
        for end in (x_end, y_end):
            c, p, q = (plane[end].sum(axis=1, dtype=np.float64) for plane in planes)
            lines.append(c / np.sqrt(np.maximum(p * q, TINY)))
        peak /= np.maximum(np.abs(sums[0]).sum(axis=1), TINY)
        return RingSums(sums[0], sums[1], sums[2], peak, np.stack(lines, axis=1))


@dataclass(frozen=True)
class RingSums:
    """Ring sums of a batch of block pairs."""

    cross: core.FloatArray  # (B, K) Σ Re(A B*)
    power_a: core.FloatArray  # (B, K) Σ |A|²
    power_b: core.FloatArray  # (B, K) Σ |B|²
    # (B,) Share of the cross-power in its strongest sample; 0 if that is within three
    # rings of the zero frequency
    peak: core.FloatArray
    # (B, 2) Correlation on the two frequency axes (horizontal, vertical) between 0.42
    # and 0.5 cycles per pixel, where stripes due to a detector appear
    lines: core.FloatArray

    @cached_property
    def correlation(self) -> core.FloatArray:
        """Fourier ring correlation ``(B, K)``; 0 if a ring has no power."""
        power = np.sqrt(self.power_a * self.power_b)
        ratio = self.cross / np.maximum(power, TINY)
        return np.clip(ratio, -1.0, 1.0)

    def pool(self) -> "RingSums":
        """Accumulate the ring sums over all block pairs."""
        cross, power_a, power_b = (
            each.sum(axis=0, keepdims=True)
            for each in (self.cross, self.power_a, self.power_b)
        )
        lines = self.lines.mean(axis=0, keepdims=True)
        return RingSums(cross, power_a, power_b, self.peak.max(keepdims=True), lines)

    def __add__(self, other: "RingSums") -> "RingSums":
        """Add the ring sums of two measurements."""
        return RingSums(
            self.cross + other.cross,
            self.power_a + other.power_a,
            self.power_b + other.power_b,
            np.maximum(self.peak, other.peak),
            (self.lines + other.lines) / 2,
        )


@lru_cache(maxsize=6)
def plan_geometry(shape: core.IntPair, pitch: core.FloatPair, tukey: float) -> Geometry:
    """Prepare the geometry of blocks of a given shape and relative pitch ``(y, x)``."""
    rings = core.create_rings(shape, pitch)
    plane = core.tukey_window_2d(shape, tukey)
    plane /= np.sqrt(np.mean(plane**2))
    window_power = 1 / float(np.mean(plane**4))
    projection = None
    if rings.index.size <= _LARGEST:
        data = rings.multiplicity.ravel().astype(np.float32)
        places = rings.index.ravel(), np.arange(rings.index.size)
        shape_of_sums = rings.frequency.size, rings.index.size
        projection = sparse.csr_array((data, places), shape=shape_of_sums)
    effective = rings.samples / 2 * window_power
    return Geometry(rings, tukey, plane.astype(np.float32), effective, projection)
