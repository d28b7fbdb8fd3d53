"""Whether an area shows structure, from which a blur can be estimated.

The blur of background is that of its noise: how far neighbouring pixels are alike.
Three properties tell structure from a gradient under stationary Gaussian noise,
whatever the noise's correlation:

- its power has lines, as of a grating or lattice, or falls steeply from the coarsest
  frequencies on, where noise that is correlated over less than 2 % of a block is level,
  and stays above the noise beyond, or stands far above white noise at periods of 6 to
  12 px: noise that is correlated so far has no white floor but that of its grey steps;
- edges are of all scales at the same place, while bands of Gaussian noise are
  independent of each other;
- its contrast differs from place to place by more than in Gaussian fields of the same
  spectrum (surrogates with random phases [1]_).

Grains of dust, few and far beyond the noise, are left out first.

.. [1] J. Theiler et al., Physica D 58, 77 (1992), doi:10.1016/0167-2789(92)90102-S.
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
_SURROGATES = 12
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
        or _is_uneven(plain, blocks)
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


def _is_uneven(blocks: list[FloatArray], levels: list[FloatArray]) -> bool:
    """Whether contrast differs between places more than in fields of random phases.

    `levels`: the blocks with their gradient, since noise of counts grows with them.
    """
    step = -(-len(blocks) // _MOST_BLOCKS)
    blocks, levels = blocks[::step], levels[::step]
    side = blocks[0].shape[0]
    y, x = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)
    square = -2 * np.pi**2 * (y**2 + x**2)
    bands = [np.exp(square * s**2) - np.exp(square * (2 * s) ** 2) for s in _SCALES]
    # what noise of lines has; edges beyond it are left to the other bands
    bands = [np.where((y == 0) | (x == 0), 0, band) for band in bands]
    slopes = [_slopes(level) for level in levels]
    spectra = [np.fft.rfft2(block) for block in blocks]

    def unevenness(spectra: list[NDArray[Any]]) -> NDArray[np.float64]:
        found = []
        for band in bands:
            rest = []
            for spectrum, terms in zip(spectra, slopes, strict=True):
                energy = _in_cells(np.fft.irfft2(spectrum * band, (side, side)) ** 2)
                logs = np.log(np.maximum(energy, 1e-12 * energy.max() + 1e-300))
                rest.append(logs - terms @ (terms.T @ logs))
            low, high = np.quantile(np.concatenate(rest), [0.25, 0.75])
            found.append(high - low)
        return np.array(found)

    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(_SURROGATES):
        phases = [np.fft.rfft2(rng.standard_normal((side, side))) for _ in blocks]
        drawn.append(
            unevenness(
                [
                    np.abs(s) * p / np.abs(p)
                    for s, p in zip(spectra, phases, strict=True)
                ]
            )
        )
    spread = np.array(drawn)
    limit = spread.mean(axis=0) + 2 * _BEYOND * spread.std(axis=0, ddof=1)
    return bool((unevenness(spectra) > limit).any())


def _in_cells(values: FloatArray) -> FloatArray:
    """Average a block in its 8 x 8 cells; gives (64,)."""
    cell = values.shape[0] // _CELLS
    cut = values[: cell * _CELLS, : cell * _CELLS]
    return np.asarray(cut.reshape(_CELLS, cell, _CELLS, cell).mean((1, 3)).ravel())


def _slopes(block: FloatArray) -> FloatArray:
    """What contrast of noise may follow: a smooth surface, and the mean; (64, 7)."""
    line = np.linspace(-1, 1, _CELLS)
    y, x = (grid.ravel() for grid in np.meshgrid(line, line, indexing="ij"))
    mean = _in_cells(block)
    level = np.log(np.maximum(mean - block.min(), 1e-3 * np.ptp(block) + 1e-300))
    terms = np.stack([np.ones_like(x), y, x, y * y, x * y, x * x, level], axis=1)
    return np.asarray(np.linalg.qr(terms)[0])
