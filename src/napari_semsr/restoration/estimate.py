"""What a field's own spectrum tells of its blur and its noise.

The radially averaged power of an image is modelled as::

    P(f) = A f**-p |H(f)|**2 + N

with a power law for the sample, the transfer function ``H`` of the blur, and white
noise of variance ``N``; ``f`` is in cycles per pixel. With ``H`` known, ``A``, ``p``
and ``N`` are fitted; else a Gaussian's width too. The fit needs a few blocks only.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from napari_semsr.core import Box, FloatArray, finite_mean, read_box

# What is read; chosen: at most 16 blocks, a million pixels, settle a radial mean.
_BLOCK = 256
_SMALLEST = 32
_ACROSS = 4  # at most so many blocks along each axis
_SKIPPED = 3  # rings that the window smears

# Where the fit looks; chosen: exponents around 2.4, where it starts, since exponent and
# blur can stand for each other; blurs of up to 8 px, from starts of every width.
_EXPONENTS = (1.8, 3.2)
_WIDEST_PX = 8.0
_STARTS = (0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True, slots=True)
class Grain:
    """A model of an image's spectrum."""

    amplitude: float  # ``A`` of the sample's power law
    exponent: float  # ``p``
    noise: float  # Variance of the white noise, in squared grey levels
    sigma_px: float | None = None  # Of the Gaussian blur; None where it was known

    def noise_to_signal(self, frequency: FloatArray) -> FloatArray:
        """Ratio of the noise's power to the sample's; `frequency`: cycles per pixel."""
        return np.asarray(self.noise / self.amplitude * frequency**self.exponent)


@dataclass(frozen=True, slots=True)
class RadialPower:
    """Radially averaged power of a field."""

    frequency: FloatArray  # (N,) Cycles per pixel
    power: FloatArray  # (N,) Mean squared amplitude; white noise gives its variance
    weight: FloatArray  # (N,) Number of samples of a ring
    side: int  # Side of the blocks
    least: float  # Variance that rounding alone gives

    @classmethod
    def of(cls, blocks: list[FloatArray], dtype: np.dtype[Any]) -> Self:
        """Average the power of blocks over rings; `blocks` (N, N)."""
        side = blocks[0].shape[0]
        line = np.hanning(side + 2)[1:-1]
        window = np.outer(line, line)
        power = np.zeros((side, side))
        for block in blocks:
            centred = block - float((block * window).sum() / window.sum())
            power += np.abs(np.fft.fft2(centred * window)) ** 2
        power /= len(blocks) * float((window**2).sum())
        ring, count = _ring_index(side)
        sums = np.bincount(ring, power.ravel())[: count.size] / np.maximum(count, 1)
        least = 1 / 12 if dtype.kind in "iub" else 0.0
        return cls(np.arange(count.size) / side, sums, count, side, least)

    def transfer(self, kernel: FloatArray) -> FloatArray:
        """Average the squared transfer function of a kernel over the rings.

        `kernel` (N, M); gives (N,).
        """
        side = max(self.side, *kernel.shape)
        power = np.abs(np.fft.fft2(kernel, (side, side))) ** 2
        ring, count = _ring_index(side)
        sums = np.bincount(ring, power.ravel())[: count.size] / count
        centres = np.arange(count.size) / side
        return np.asarray(np.interp(self.frequency, centres, sums))

    def fit(self, kernel: FloatArray | None = None) -> Grain:
        """Fit the model; `kernel` (N, M)."""
        keep = np.arange(self.frequency.size) >= _SKIPPED
        f, power = self.frequency[keep], np.maximum(self.power[keep], 1e-300)
        said, share = np.log(power), np.sqrt(f)
        known = np.zeros_like(f)
        if kernel is not None:
            known = np.log(np.maximum(self.transfer(kernel)[keep], 1e-30))
        floor = np.log(max(self.least, float(power.max()) * 1e-14))

        def residual(p: FloatArray) -> FloatArray:
            gauss = known if p.size == 3 else -4 * np.pi**2 * p[3] ** 2 * f**2
            model = np.logaddexp(p[0] - p[1] * np.log(f) + gauss, p[2])
            return np.asarray((model - said) * share)

        low = [-300.0, _EXPONENTS[0], floor - 1e-9, 0.0]
        high = [300.0, _EXPONENTS[1], max(said.max(), floor) + 1, _WIDEST_PX]
        first = said[0] + 2.4 * np.log(f[0])
        quiet = float(np.clip(said.min(), low[2] + 1e-9, high[2] - 1e-9))
        start = [first, 2.4, quiet]
        # a width that nothing depends on would lead the fit astray
        starts = [[*start, s] for s in _STARTS] if kernel is None else [start]
        fits = [
            optimize.least_squares(residual, p, bounds=(low[: len(p)], high[: len(p)]))
            for p in starts
        ]
        best = min(fits, key=lambda found: float(found.cost)).x
        width = float(best[3]) if kernel is None else None
        return Grain(
            float(np.exp(best[0])), float(best[1]), float(np.exp(best[2])), width
        )


def sample_blocks(data: Any) -> list[FloatArray]:
    """Read a few square blocks, spread evenly over a field.

    `data` (Y, X); gives (N, N), grey values, reflected beyond the border of a small
    field; pixels that are not finite have the field's mean.
    """
    rows, columns = (int(n) for n in data.shape)
    side = min(_BLOCK, max(_SMALLEST, min(rows, columns)))
    mean: float | None = None
    blocks = []
    for y in _corners(rows, side):
        for x in _corners(columns, side):
            block = read_box(data, Box.of((side, side), (y, x))).astype(float)
            missing = ~np.isfinite(block)
            if missing.any():
                mean = finite_mean(data) if mean is None else mean
                block[missing] = mean
            blocks.append(block)
    return blocks


def _corners(size: int, side: int) -> list[int]:
    """Evenly spread corners of one axis."""
    count = min(_ACROSS, max(1, round(size / side)))
    return [int(v) for v in np.rint(np.linspace(0, max(size - side, 0), count))]


def _ring_index(side: int) -> tuple[NDArray[np.intp], FloatArray]:
    """Ring of every sample of a square spectrum, and how many samples rings have."""
    f = np.fft.fftfreq(side) * side
    ring = np.rint(np.hypot(f[:, None], f[None, :])).astype(np.intp).ravel()
    return ring, np.bincount(ring)[: side // 2].astype(float)
