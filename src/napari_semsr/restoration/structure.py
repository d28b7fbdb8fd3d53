"""Test for structure in an area from which a blur can be estimated.

The blur of a background is only the correlation of its noise. Two properties
distinguish structure from a gradient under stationary noise with any correlation:

- its power has lines, as of a grating or lattice, or falls from the coarsest
  frequencies on by more than that of noise that is correlated over 2 % of a block or
  over a Gaussian of 4 px, and stays above the noise beyond;
- its contrast varies across the block, or its bands are skewed, peaked or flat, by
  more than in Gaussian fields of the same spectrum (surrogates with random phases
  [1]_). White noise is filtered out before, so that it does not hide them.

The largest deviation, in standard deviations of the surrogates, is compared with the
distribution of the largest deviation in surrogates (Gumbel), at a false-alarm rate of
one in a thousand. Properties of noise are allowed for: counts are skewed, grey steps
flatten the distribution, and a median filter makes fine bands peaked. Dust grains, few
and far above the noise, are removed first.

.. [1] J. Theiler et al., Physica D 58, 77 (1992), doi:10.1016/0167-2789(92)90102-S.
.. [2] L. Moisan, J. Math. Imaging Vis. 39, 161 (2011), doi:10.1007/s10851-010-0227-1.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage
from scipy.special import ndtri, stdtrit

from napari_semsr.core import FloatArray, Job, Progress, reshape_into_blocks

# longest correlation assumed for noise: share of a block's side, and px of a Gaussian
_ALIKE, _ALIKE_PX = 0.02, 4.0
_ABOVE = 3.0  # times the power of the finest rings; above it, structure is visible
# power over the median of neighbouring frequencies: noise of 256 x 256 px reaches it
# once in a million blocks, as its power is exponentially distributed
_LINE, _NEARBY = 35.0, 9
_DUST, _FAR = 0.03, 5.0  # largest share of pixels; robust deviations from the median
_CELLS = 8  # cells along each side of a block, in which contrast is measured
_BY_CHANCE = 1e-3  # share of backgrounds that may pass
_SURROGATES = 16, 64  # the second number if the first is not conclusive; chosen: 1 s

MEASURING = Progress(0, 0, "measuring blur and noise")
"""Progress between the steps of measuring a field."""


def has_structure(blocks: list[FloatArray]) -> Job[bool]:
    """Check whether blocks (N, N) of an image show more than noise and a gradient.

    True for blocks below 64 px, which are too small for the test.
    """
    if max(float(np.ptp(block)) for block in blocks) == 0:
        return False
    # side of blocks; smaller ones have too few samples
    if blocks[0].shape[0] < 64:
        return True
    plain = []
    for block in blocks:
        yield MEASURING
        # without the best-fitting second-order surface
        terms = _evaluate_surface_terms(block.shape[0])
        fit = np.linalg.lstsq(terms, block.ravel(), rcond=None)[0]
        even = np.asarray(block - (terms @ fit).reshape(block.shape))
        # a few pixels far from the median are dust; if more, they belong to the image
        soft = ndimage.gaussian_filter(even, 1.0)
        off = np.abs(soft - np.median(soft))
        spread = np.median(off) / 0.6745
        far = ndimage.binary_dilation(off > _FAR * spread, iterations=3)
        if spread and 0 < far.mean() <= _DUST:
            even = np.where(far, np.median(even), even)
        plain.append(even)
    if _is_spectrum_steep_or_periodic(plain):
        return True
    blocks_by_contrast = sorted(range(len(plain)), key=lambda n: -float(plain[n].std()))
    # blocks compared with surrogates, those with most contrast
    blocks_by_contrast = blocks_by_contrast[:4]
    grey_steps = [0.0]
    for block in blocks:
        values = np.unique(block)
        # maximum grey levels of masks and drawings
        if 8 < values.size < block.size / 4:
            grey_steps.append(float(np.diff(values).min()))
    bare, levels = ([item[n] for n in blocks_by_contrast] for item in (plain, blocks))
    rounding = max(grey_steps) ** 2 / 12
    return (yield from _differs_from_surrogates(bare, levels, rounding))


def _is_spectrum_steep_or_periodic(blocks: list[FloatArray]) -> bool:
    """Check whether the spectrum has lines or falls steeply at the coarsest rings."""
    side = blocks[0].shape[0]
    window = np.outer(*[np.hanning(side + 2)[1:-1]] * 2)
    power = np.mean([np.abs(np.fft.fft2(b * window)) ** 2 for b in blocks], axis=0)
    f = np.fft.fftfreq(side) * side
    ring = np.rint(np.hypot(f[:, None], f[None])).astype(int)
    # stripes fill a row or a column
    sizes = (_NEARBY, _NEARBY), (2 * _NEARBY, 1), (1, 2 * _NEARBY)
    nearby = [ndimage.median_filter(power, size, mode="wrap") for size in sizes]
    usual = np.maximum.reduce(nearby)
    beyond_gradient = (ring > _NEARBY) & (ring < side // 2)
    if (power > _LINE * usual + 1e-12 * power.max())[beyond_gradient].any():
        return True
    rings = ((3, 6), (6, 11), (12, 21), (max(22, 3 * side // 8), side // 2))
    low, middle, high, floor = (
        float(power[(ring >= first) & (ring < last)].mean()) for first, last in rings
    )
    correlation = max(_ALIKE, _ALIKE_PX / side)
    level = np.exp(4 * np.pi**2 * correlation**2 * (8.4**2 - 4.3**2))
    # the first two octaves have 20 and 66 independent samples under the window
    # standard deviations of a ratio of power; 3 of 100 000 by chance
    chance = np.exp(4.0 * np.sqrt((1 / 20 + 1 / 66) / len(blocks)))
    return (
        low > level * chance * middle
        # fall of power per octave: a power law of at least 1.2
        and middle > 2.3 * high
        and high > _ABOVE * floor
    )


def _differs_from_surrogates(
    blocks: list[FloatArray], levels: list[FloatArray], rounding: float
) -> Job[bool]:
    """Check whether bands differ from those of phase-randomised surrogates.

    `levels`: the blocks with their gradient, since shot noise grows with them;
    `rounding`: variance due to grey steps.
    """
    side = blocks[0].shape[0]
    y, x = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)
    square = -2 * np.pi**2 * (y**2 + x**2)
    mask = ((y != 0) & (x != 0)) * 1.0  # the axes contain stripes
    slopes = [_create_regressors(level) for level in levels]
    spectra = [_compute_periodic_spectrum(block) for block in blocks]
    power = np.mean([np.abs(s) ** 2 for s in spectra], axis=0)
    above = mask * _estimate_signal_fraction(power * mask, rounding * side**2)
    if not above.any():  # white noise, or no contrast
        return False
    scales = (0.7, 1.4, 2.8)  # px
    bands = [np.exp(square * s**2) - np.exp(square * (2 * s) ** 2) for s in scales]
    bands = [mask, *(above * band for band in bands), above]

    own = _compute_moments(spectra, slopes, bands[1:])
    skewness = abs(_compute_moments(spectra, slopes, bands[:1])[0, 1])
    # skewness that remains in a band of linearly filtered independent counts
    tips = [np.fft.irfft2(np.sqrt(power) * band, (side, side)) for band in bands]
    sums = ([(h**power).sum() for power in (2, 3, 4)] for h in tips)
    left = np.array([(third / two**1.5, four / two**2) for two, third, four in sums])
    # a skewness of 1 is that of one count per pixel, the lowest assumed dose
    counts = 1.3 * min(skewness / left[0, 0], 1.0) * left[1:]
    # above it in the finest band; a 5 x 5 median leaves 0.3
    counts[0, 1] = max(counts[0, 1], 0.5)
    rng = np.random.default_rng(0)
    surrogates: list[FloatArray] = []
    for draws in _SURROGATES:
        while len(surrogates) < draws:
            yield MEASURING
            phases = [fft.rfft2(rng.standard_normal((side, side))) for _ in blocks]
            each = zip(spectra, phases, strict=True)
            random = [np.abs(s) * p / np.abs(p) for s, p in each]
            surrogates.append(_compute_moments(random, slopes, bands[1:]))
        mean, error = np.mean(surrogates, axis=0), np.std(surrogates, axis=0, ddof=1)
        error[0, 3] = 1.0  # no finer band
        away = own - mean
        z = max(
            float((away[:, 0] / error[:, 0]).max()),
            float(((np.abs(away[:, 1]) - counts[:, 0]) / error[:, 1]).max()),
            float(((away[:, 2] - counts[:, 1]) / error[:, 2]).max()),
            # reduction of the fourth moment by rounding to a few steps
            float(((-away[:, 2] - 0.15) / error[:, 2]).max()),
            # correlation of bands due to grey steps and medians
            float(((np.abs(away[:, 3]) - 0.04) / error[:, 3]).max()),
        )
        scatter = (np.array(surrogates) - mean) / error
        scatter[..., 1:] = np.abs(scatter[..., 1:])
        largest = scatter.max((1, 2))
        usual, width = float(largest.mean()), float(largest.std(ddof=1))
        if z > usual + _compute_gumbel_tail(draws) * width:
            return True
        if z < usual + width:
            return False
    return False


def _compute_moments(
    spectra: list[NDArray[np.complex128]],
    slopes: list[FloatArray],
    bands: list[FloatArray],
) -> FloatArray:
    """Measure bands of blocks: contrast, skewness, peakedness, correlation; (K, 4).

    The last is the correlation with the power of the band before, which at edges is
    highest where a coarser band passes through zero.
    """
    side = spectra[0].shape[0]
    cell = side // _CELLS
    moments = []
    finer: FloatArray | None = None
    for band in bands:
        rest, even = [], []
        for spectrum, terms in zip(spectra, slopes, strict=True):
            values = fft.irfft2(spectrum * band, (side, side))
            cells = reshape_into_blocks(values, cell)
            energy = (cells**2).mean((1, 3)).ravel()
            logs = np.log(np.maximum(energy, 1e-12 * energy.max() + 1e-300))
            smooth = terms @ (terms.T @ logs)
            rest.append(logs - smooth)
            usual = np.exp(-smooth / 2).reshape(_CELLS, 1, _CELLS, 1)
            even.append(cells * usual)
        order = np.sort(np.concatenate(rest))
        quarter = len(order) // 4
        z = np.array(even).ravel()
        z -= z.mean()
        z /= max(float(z.std()), 1e-150)
        square = z * z
        spread = float(np.vdot(square, square)) / z.size - 1
        together = 0.0
        if finer is not None:
            covariance = float(np.vdot(square, finer)) / z.size - float(finer.mean())
            together = covariance / np.sqrt(max(spread * float(finer.var()), 1e-300))
        moments.append(
            (
                order[-quarter] - order[quarter],
                float(np.vdot(square, z)) / z.size,
                spread - 2,
                together,
            )
        )
        plane = square.reshape(-1, _CELLS * cell, _CELLS * cell)
        finer = ndimage.uniform_filter(plane, (1, 3, 3)).ravel()
    return np.array(moments)


def _compute_gumbel_tail(draws: int) -> float:
    """Return how many standard deviations a maximum rarely exceeds.

    The few draws are taken into account as for Student's t.
    """
    share = _BY_CHANCE / len(_SURROGATES)
    beyond = np.sqrt(6) / np.pi * (-np.log(-np.log1p(-share)) - np.euler_gamma)
    unsure = stdtrit(draws - 1, 1 - share) / ndtri(1 - share)
    return float(beyond * unsure * np.sqrt(1 + 1 / draws))


def _estimate_signal_fraction(power: FloatArray, rounding: float) -> FloatArray:
    """Estimate the fraction of power (N, N/2 + 1) in rings that is not white noise."""
    side = len(power)
    y, x = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)
    ring = np.rint(np.hypot(y, x) * side).astype(int)
    samples = np.bincount(ring.ravel(), (power > 0).ravel())
    mean = np.bincount(ring.ravel(), power.ravel()) / np.maximum(samples, 1)
    mean = ndimage.gaussian_filter1d(mean, 1.0)
    floor = max(float(mean[3 * side // 8 : side // 2].mean()), _ABOVE * rounding)
    # times the noise floor, from which a ring is used
    share = np.clip(1 - 1.2 * floor / np.maximum(mean, 1e-300), 0, 1)
    # share of the power; below, rings contain only rounding errors
    share[mean <= 1e-14 * mean.max()] = 0
    return np.asarray(share[ring])


def _compute_periodic_spectrum(block: FloatArray) -> NDArray[np.complex128]:
    """Return the spectrum of a block's periodic component [2]_."""
    jumps = np.zeros_like(block)
    for values, away in ((block, jumps), (block.T, jumps.T)):
        away[0] += values[-1] - values[0]
        away[-1] += values[0] - values[-1]
    y, x = np.fft.fftfreq(len(block))[:, None], np.fft.rfftfreq(len(block))
    curve = 2 * np.cos(2 * np.pi * y) + 2 * np.cos(2 * np.pi * x) - 4
    curve[0, 0] = np.inf
    return np.asarray(np.fft.rfft2(block) - np.fft.rfft2(jumps) / curve)


def _create_regressors(block: FloatArray) -> FloatArray:
    """Return regressors of the noise contrast, (64, 7): a surface and the mean."""
    mean = reshape_into_blocks(block, len(block) // _CELLS).mean((1, 3)).ravel()
    level = np.log(np.maximum(mean - block.min(), 1e-3 * np.ptp(block) + 1e-300))
    terms = np.column_stack([_evaluate_surface_terms(_CELLS), level])
    return np.asarray(np.linalg.qr(terms)[0])


def _evaluate_surface_terms(side: int) -> FloatArray:
    """Evaluate the terms of a second-order surface (side², 6) on a square."""
    line = np.linspace(-1, 1, side)
    y, x = (grid.ravel() for grid in np.meshgrid(line, line, indexing="ij"))
    return np.stack([np.ones_like(x), y, x, x * x, x * y, y * y], axis=1)
