"""What seeing an image through a transform costs of its resolution.

Run: ``python benchmarks/registered_frc.py [SEEDS]``. Fields of several spectra, whose
truth is known between the pixels as well, are imaged with white noise, turned, scaled
and moved by parts of a pixel onto a grid of one pixel size (`WarpedImage`), and
correlated with the truth on that grid; the yardstick is the correlation of the
untouched image with the truth on its own grid. Printed is the resolution found over
that of the untouched image, in the same unit: the median over the seeds.
"""

import itertools
import sys
from collections.abc import Callable, Iterator
from statistics import median

import numpy as np
from scipy import fft, ndimage

from napari_semsr.analysis import FrcOptions, measure_frc
from napari_semsr.core import (
    Affine,
    Box,
    FloatArray,
    Grid,
    Micrograph,
    WarpedImage,
    parse_pixel_size,
)

SIDE, FIELD = 512, 1000  # px of the grid, and of what surrounds it
FINER = 4  # samples of the truth along a pixel: splines through them are exact to 1e-4
MIDDLE = ((FIELD - SIDE) / 2, (FIELD - SIDE) / 2)
CENTRE = (FIELD / 2, FIELD / 2)
# power of the amplitude's fall, blur in px, noise over signal (standard deviations)
SPECTRA = {
    "flat, blurred 1 px": (0.0, 1.0),
    "1/f": (1.0, 0.0),
    "1/f, blurred 0.7 px": (1.0, 0.7),
    "1/f^1.5, blurred 1 px": (1.5, 1.0),
}
NOISE = (0.3, 1.0, 2.5)
TURNS = (0, 10, 30, 45)
SCALES = (0.8, 0.9, 1.0, 1.1, 1.25)
SHIFT = (0.5, 0.5)
MIN_PX = 2.3  # a grid shows no resolution below two pixels; chosen: a little more


def draw(
    power: float, blur: float, rng: np.random.Generator
) -> tuple[FloatArray, Callable[[float], FloatArray]]:
    """Draw a truth, and give it without what is finer than some waves in a pixel."""
    side = FIELD * FINER
    fy, fx = np.meshgrid(
        fft.fftfreq(side, 1 / FINER), fft.rfftfreq(side, 1 / FINER), indexing="ij"
    )
    f = np.hypot(fy, fx)
    spectrum = fft.rfft2(rng.standard_normal((side, side)))
    spectrum *= np.where(f > 0, np.maximum(f, 1 / FIELD) ** -power, 0)
    spectrum *= np.exp(-2 * (np.pi * blur * f) ** 2) * (f < 0.5)
    spectrum /= fft.irfft2(spectrum).std()

    def limited(limit: float) -> FloatArray:
        values = fft.irfft2(spectrum * (f < limit))
        found: FloatArray = ndimage.spline_filter(values, 5, mode="grid-wrap")
        return found

    return limited(0.5), limited


def sampled(truth: FloatArray, places: FloatArray) -> FloatArray:
    """Sample a truth at places (..., 2) in pixels, from the border of the field."""
    at = np.moveaxis(places * FINER - 0.5, -1, 0)
    found: FloatArray = ndimage.map_coordinates(
        truth, at, order=5, mode="grid-wrap", prefilter=False
    )
    return found


def centres(grid: Grid) -> FloatArray:
    """Centres (Y, X, 2) of the pixels of a grid."""
    at = np.moveaxis(np.indices(grid.shape), 0, -1)
    return np.asarray((at + 0.5) * grid.pitch + grid.corner, dtype=np.float64)


def resolution(image: FloatArray, truth: FloatArray) -> float:
    """Resolution in pixels of an image, against what is free of noise."""
    size = parse_pixel_size(1.0)
    found = measure_frc(
        Micrograph(image, size), Micrograph(truth, size), FrcOptions(reference=True)
    )
    return found.resolution_px or np.nan


def ratios_of(
    spectrum: str, rng: np.random.Generator
) -> Iterator[tuple[float, int, float, float]]:
    """Give noise, turn, scale, and resolution over that of the untouched image."""
    truth, limited = draw(*SPECTRA[spectrum], rng)
    clean = sampled(truth, centres(Grid((FIELD, FIELD), (1.0, 1.0), (0, 0))))
    noise = rng.standard_normal(clean.shape)
    grid = Grid((SIDE, SIDE), (1.0, 1.0), MIDDLE)
    part = Box.from_shape(grid.shape, (int(MIDDLE[0]), int(MIDDLE[1])))
    for scale, turn in itertools.product(SCALES, TURNS):
        if turn == TURNS[0]:  # a coarse grid cannot hold all of it
            held = limited(0.5 * scale) if scale < 1 else truth
        to = Affine.create_similarity(turn, scale=scale, about=CENTRE, shift=SHIFT)
        seen = sampled(held, to.inverse()(centres(grid)))
        for level in NOISE:
            noisy = clean + level * noise
            own = resolution(noisy[part.slices], clean[part.slices])
            if own * scale > MIN_PX:
                image = Micrograph(noisy, parse_pixel_size(1.0), origin=(0.5, 0.5))
                made = WarpedImage(image, grid, to).read()
                yield level, turn, scale, resolution(made, seen) / (own * scale)


def main(seeds: int) -> None:
    """Print a table for each spectrum and noise."""
    for spectrum in SPECTRA:
        found: dict[tuple[float, int, float], list[float]] = {}
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            for level, turn, scale, ratio in ratios_of(spectrum, rng):
                found.setdefault((level, turn, scale), []).append(ratio)
        for level in sorted({key[0] for key in found}):
            print(f"\n{spectrum}, noise {level}; scale", *SCALES)
            for turn in TURNS:
                cells = (found.get((level, turn, scale), [np.nan]) for scale in SCALES)
                print(f"{turn:4d}", *(f"{median(cell):7.4f}" for cell in cells))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
