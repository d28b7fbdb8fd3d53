"""Whether an area shows structure, from which a blur can be estimated.

The blur of background is that of its noise: how far neighbouring pixels are alike.
Three properties tell structure from a gradient under stationary Gaussian noise,
whatever the noise's correlation:

- its power has lines, as of a grating or lattice, or falls from the coarsest
  frequencies on by more than that of noise that is correlated over 2 % of a block or
  over a Gaussian of 4 px, and stays above the noise beyond;
- edges are of all scales at the same place, while bands of Gaussian noise are
  independent of each other;
- its contrast differs from place to place, or its bands are skewed or peaked, by more
  than in Gaussian fields of the same spectrum (surrogates with random phases [1]_).
  Skewed pixels, as counts are, keep less of that the wider a filter is.

Grains of dust, few and far beyond the noise, are left out first.

.. [1] J. Theiler et al., Physica D 58, 77 (1992), doi:10.1016/0167-2789(92)90102-S.
.. [2] L. Moisan, J. Math. Imaging Vis. 39, 161 (2011), doi:10.1007/s10851-010-0227-1.
"""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.core import FloatArray

# the longest correlation that noise is given: of a block's side, and px of a Gaussian
_ALIKE, _ALIKE_PX = 0.02, 4.0
_SURE = 4.0  # standard deviations of a ratio of power; 3 of 100 000 by chance
_STEEP = 2.3  # from one octave to the next: a power law of at least 1.2
_ABOVE = 3.0  # times the power of the finest rings, by which structure is seen
# of power, over the median of neighbours: noise of 256 x 256 px has such a frequency
# once in a million blocks, exponentially distributed as its power is
_LINE, _BESIDE = 35.0, 9
_DUST, _FAR = 0.03, 5.0  # share of pixels at most; robust deviations from the median
_BANDS = tuple((2.0**-n, 2.0 ** (1 - n)) for n in range(6, 1, -1))  # cycles per pixel
_LEAST_PX = 64  # side of blocks; of smaller ones too few samples tell anything
_SEEN = 1e-5  # share of the power below which a band holds rounding alone
_TOGETHER, _BEYOND = 0.04, 5.0  # least correlation of two bands, and over its error
_CELLS = 8  # along each side of a block, in which contrast is measured
_SURROGATES = 16
# of their deviations: once in a million, by Student's t of 15; the fourth moment of few
# grains is skewed, and is beyond it more often
_BY_CHANCE = 8.0
_LEFT = 1.3  # times the skewness that filtered pixels keep
_FLAT = 0.15  # of a fourth moment below a normal one, which rounding to a few steps has
_MOST_BLOCKS = 4  # that are compared with surrogates; chosen: within a second
_FEW_LEVELS = 8  # of masks and drawings
_SCALES = (0.7, 1.4, 2.8)  # px, of the bands in which contrast is measured


def has_structure(blocks: list[FloatArray]) -> bool:
    """Tell whether blocks (N, N) of an image show more than noise and a gradient.

    Of blocks too small to tell it is assumed.
    """
    if blocks[0].shape[0] < _LEAST_PX:
        return True
    rounding = max(_grey_step(block) for block in blocks) ** 2 / 12
    plain = [_without_dust(_without_gradient(block)) for block in blocks]
    return (
        _is_steep_or_periodic(plain)
        or _is_coherent(plain, rounding)
        or _is_no_gaussian_field(plain, blocks)
    )


def _without_gradient(block: FloatArray) -> FloatArray:
    """Take off the surface of second order that fits a block best."""
    line = np.linspace(-1, 1, block.shape[0])
    y, x = (grid.ravel() for grid in np.meshgrid(line, line, indexing="ij"))
    terms = np.stack([np.ones_like(x), y, x, x * x, x * y, y * y], axis=1)
    fit = np.linalg.lstsq(terms, block.ravel(), rcond=None)[0]
    return np.asarray(block - (terms @ fit).reshape(block.shape))


def _without_dust(block: FloatArray) -> FloatArray:
    """Put the median in place of few pixels that are far from it, and of those beside.

    Where they are more than a few, they are what the image shows.
    """
    soft = ndimage.gaussian_filter(block, 1.0)
    middle = np.median(soft)
    spread = np.median(np.abs(soft - middle)) / 0.6745
    far = ndimage.binary_dilation(np.abs(soft - middle) > _FAR * spread, iterations=3)
    if not spread or not 0 < far.mean() <= _DUST:
        return block
    return np.where(far, np.median(block), block)


def _is_steep_or_periodic(blocks: list[FloatArray]) -> bool:
    """Whether power has lines, or falls from the coarsest rings on."""
    side = blocks[0].shape[0]
    window = np.outer(*[np.hanning(side + 2)[1:-1]] * 2)
    power = np.mean([np.abs(np.fft.fft2(b * window)) ** 2 for b in blocks], axis=0)
    f = np.fft.fftfreq(side) * side
    ring = np.rint(np.hypot(f[:, None], f[None])).astype(int)
    usual = np.maximum.reduce(
        [
            ndimage.median_filter(power, size, mode="wrap")
            for size in ((_BESIDE, _BESIDE), (2 * _BESIDE, 1), (1, 2 * _BESIDE))
        ]
    )  # noise of lines fills a row or a column
    beyond_gradient = (ring > _BESIDE) & (ring < side // 2)
    if (power > _LINE * usual + 1e-12 * power.max())[beyond_gradient].any():
        return True
    rings = ((3, 6), (6, 11), (12, 21), (max(22, 3 * side // 8), side // 2))
    low, middle, high, floor = (
        float(power[(ring >= first) & (ring < last)].mean()) for first, last in rings
    )
    correlation = max(_ALIKE, _ALIKE_PX / side)
    level = np.exp(4 * np.pi**2 * correlation**2 * (8.4**2 - 4.3**2))
    # 20 and 66 independent samples under the window in the first two octaves
    chance = np.exp(_SURE * np.sqrt((1 / 20 + 1 / 66) / len(blocks)))
    return (
        low > level * chance * middle
        and middle > _STEEP * high
        and high > _ABOVE * floor
    )


def _grey_step(block: FloatArray) -> float:
    """Find the step between grey values; 0 where nearly all or few differ."""
    values = np.unique(block)
    is_rounded = _FEW_LEVELS < values.size < block.size / 4
    return float(np.diff(values).min()) if is_rounded else 0.0


def _is_coherent(blocks: list[FloatArray], rounding: float) -> bool:
    """Whether contrast in one band of frequencies lies where that of the next does."""
    found: list[list[float]] = [[] for _ in _BANDS[1:]]
    for block in blocks:
        side = block.shape[0]
        wide = np.pad(block, side // 8, mode="reflect")
        spectrum = np.fft.rfft2(wide)
        y, x = np.fft.fftfreq(wide.shape[0])[:, None], np.fft.rfftfreq(wide.shape[0])
        octave = np.log2(np.maximum(np.hypot(y, x), 1e-9))
        inner = slice(side // 8 + side // 16, -(side // 8 + side // 16))
        energies = []
        for start, end in _BANDS:
            at = np.clip(
                2 * (octave - np.log2(start)) / np.log2(end / start) - 1, -1, 1
            )
            part = np.fft.irfft2(spectrum * np.cos(np.pi * at / 2) ** 2, wide.shape)
            energies.append(part**2)
        total = sum(float(e[inner, inner].mean()) for e in energies)
        for number, (coarse, fine) in enumerate(pairwise(energies)):
            # rounding to grey steps goes along with slopes, in noise too
            least = max(_SEEN * total, _ABOVE * rounding)
            if float(fine[inner, inner].mean()) > least:
                width = 0.175 / _BANDS[number][0]
                one, other = (_logs(e, width)[inner, inner] for e in (coarse, fine))
                found[number] += _cell_correlations(one, other, int(8 * width))
    for values in map(np.array, found):
        if len(values) >= _CELLS:
            middle = float(np.median(values))
            error = 1.2533 * float(values.std()) / np.sqrt(len(values))
            if middle > max(_TOGETHER, _BEYOND * error):
                return True
    return False


def _logs(energy: FloatArray, width: float) -> FloatArray:
    soft = ndimage.gaussian_filter(energy, width)
    return np.asarray(np.log(np.maximum(soft, 1e-12 * soft.max() + 1e-300)))


def _cell_correlations(one: FloatArray, other: FloatArray, cell: int) -> list[float]:
    """Correlate two maps in cells, less a plane in each."""
    cell = min(max(cell, 16), 64)
    line = np.linspace(-1, 1, cell)
    found = []
    for y in range(0, one.shape[0] - cell + 1, cell):
        for x in range(0, one.shape[1] - cell + 1, cell):
            parts = []
            for values in (one, other):
                part = values[y : y + cell, x : x + cell]
                part = part - part.mean()
                tilts = (part * line[:, None]).mean(), (part * line).mean()
                plane = tilts[0] * line[:, None] + tilts[1] * line
                parts.append(part - plane / (line**2).mean())
            norm = np.sqrt(float((parts[0] ** 2).mean() * (parts[1] ** 2).mean()))
            found.append(float((parts[0] * parts[1]).mean()) / max(norm, 1e-300))
    return found


def _is_no_gaussian_field(blocks: list[FloatArray], levels: list[FloatArray]) -> bool:
    """Whether bands differ from fields of random phases, by contrast or by skewness.

    `levels`: the blocks with their gradient, since noise of counts grows with them.
    """
    step = -(-len(blocks) // _MOST_BLOCKS)
    blocks, levels = blocks[::step], levels[::step]
    side = blocks[0].shape[0]
    y, x = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)
    square = -2 * np.pi**2 * (y**2 + x**2)
    shown = (y != 0) & (x != 0)  # noise of lines has the rest
    bands = [np.exp(square * s**2) - np.exp(square * (2 * s) ** 2) for s in _SCALES]
    bands = [shown * 1.0, *(shown * band for band in bands)]
    slopes = [_slopes(level) for level in levels]
    spectra = [_periodic_spectrum(block) for block in blocks]

    def measure(spectra: list[NDArray[Any]]) -> NDArray[np.float64]:
        found = []
        for band in bands:
            rest, even = [], []
            for spectrum, terms in zip(spectra, slopes, strict=True):
                values = np.fft.irfft2(spectrum * band, (side, side))
                energy = _in_cells(values**2)
                logs = np.log(np.maximum(energy, 1e-12 * energy.max() + 1e-300))
                smooth = terms @ (terms.T @ logs)
                rest.append(logs - smooth)
                cell = side // _CELLS
                usual = np.exp(smooth / 2).reshape(_CELLS, _CELLS).repeat(cell, 0)
                cut = values[: cell * _CELLS, : cell * _CELLS]
                even.append((cut / usual.repeat(cell, 1)).ravel())
            low, high = np.quantile(np.concatenate(rest), [0.25, 0.75])
            z = np.concatenate(even)
            z = (z - z.mean()) / max(float(z.std()), 1e-300)
            found.append((high - low, (z**3).mean(), (z**4).mean() - 3))
        return np.array(found)

    # of linear filters of independent pixels, what is left of their skewness in a band
    power = np.mean([np.abs(s) ** 2 for s in spectra], axis=0)
    tips = [np.fft.irfft2(np.sqrt(power) * band, (side, side)) for band in bands]
    left = [
        ((h**3).sum() / (h**2).sum() ** 1.5, (h**4).sum() / (h**2).sum() ** 2)
        for h in tips
    ]
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(_SURROGATES):
        phases = [np.fft.rfft2(rng.standard_normal((side, side))) for _ in blocks]
        surrogates = zip(spectra, phases, strict=True)
        drawn.append(measure([np.abs(s) * p / np.abs(p) for s, p in surrogates]))
    own, mean = measure(spectra), np.mean(drawn, axis=0)
    error = _BY_CHANCE * np.std(drawn, axis=0, ddof=1)
    expected = np.abs(own[0, 1:] * np.array(left) / np.array(left[0]))
    away = own - mean
    return bool(
        (away[1:, 0] > error[1:, 0]).any()
        or (np.abs(away[1:, 1]) > error[1:, 1] + _LEFT * expected[1:, 0]).any()
        or (away[1:, 2] > error[1:, 2] + _LEFT * expected[1:, 1]).any()
        or (away[:, 2] < -error[:, 2] - _FLAT).any()
    )


def _periodic_spectrum(block: FloatArray) -> NDArray[np.complex128]:
    """Transform a block less the smooth part by which opposite borders differ [2]_."""
    jumps = np.zeros_like(block)
    for values, away in ((block, jumps), (block.T, jumps.T)):
        away[0] += values[-1] - values[0]
        away[-1] += values[0] - values[-1]
    y, x = np.fft.fftfreq(len(block))[:, None], np.fft.rfftfreq(len(block))
    curve = 2 * np.cos(2 * np.pi * y) + 2 * np.cos(2 * np.pi * x) - 4
    curve[0, 0] = np.inf
    return np.asarray(np.fft.rfft2(block) - np.fft.rfft2(jumps) / curve)


def _in_cells(values: FloatArray) -> FloatArray:
    """Average a block in its 8 x 8 cells; gives (64,)."""
    cell = values.shape[0] // _CELLS
    cut = values[: cell * _CELLS, : cell * _CELLS]
    return np.asarray(cut.reshape(_CELLS, cell, _CELLS, cell).mean((1, 3)).ravel())


def _slopes(block: FloatArray) -> FloatArray:
    """Give what contrast of noise may follow, a surface and the mean; (64, 7)."""
    line = np.linspace(-1, 1, _CELLS)
    y, x = (grid.ravel() for grid in np.meshgrid(line, line, indexing="ij"))
    mean = _in_cells(block)
    level = np.log(np.maximum(mean - block.min(), 1e-3 * np.ptp(block) + 1e-300))
    terms = np.stack([np.ones_like(x), y, x, y * y, x * y, x * x, level], axis=1)
    return np.asarray(np.linalg.qr(terms)[0])
