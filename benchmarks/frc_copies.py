"""How often ring correlation refuses two exposures, or an image and a copy of it.

Pairs of random textures, sizes and noise: two exposures of one object, which must not
be refused, and the first beside a filtered or denoised copy of it in 8 bits without a
history, which should be. Run ``python benchmarks/frc_copies.py --pairs 120``.
"""

import argparse
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import ndimage
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

from napari_semsr.analysis import measure_frc
from napari_semsr.core import FloatArray, Micrograph

FIRST_SEED = 5000  # of pairs on which nothing was chosen


def _scale(image: FloatArray) -> FloatArray:
    return (image - image.mean()) / image.std()


def _grains(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> Any:
    blobs = ndimage.gaussian_filter(rng.normal(size=shape), 3 * scale) > 0
    return ndimage.gaussian_filter(blobs.astype(float), rng.uniform(0.5, 3))


def _balls(rng: np.random.Generator, shape: tuple[int, int], _: float) -> Any:
    image = np.zeros(shape)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    for _ in range(rng.integers(10, 60)):
        y, x = rng.uniform((0, 0), shape)
        squared = ((rows - y) ** 2 + (columns - x) ** 2) / rng.uniform(4, 30) ** 2
        image = np.maximum(image, np.sqrt(np.clip(1 - squared, 0, 1)))
    return ndimage.gaussian_filter(image, rng.uniform(0.5, 2))


def _fractal(rng: np.random.Generator, shape: tuple[int, int], _: float) -> Any:
    y, x = np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])
    frequency = np.maximum(np.hypot(y, x), 1 / shape[0])
    white = np.fft.fft2(rng.normal(size=shape))
    return np.fft.ifft2(white / frequency ** rng.uniform(1, 2.5)).real


def _two_sizes(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> Any:
    fine = ndimage.gaussian_filter(rng.normal(size=shape), 0.6)
    return ndimage.gaussian_filter(rng.normal(size=shape), scale) + 0.3 * fine


def _smooth(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> Any:
    return ndimage.gaussian_filter(rng.normal(size=shape), scale)


TEXTURES = _smooth, _fractal, _grains, _balls, _two_sizes


def expose(seed: int) -> tuple[FloatArray, FloatArray, bool]:
    """Simulate two exposures (Y, X), and say whether they are raw."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(160, 640)), int(rng.integers(160, 640)))
    texture = TEXTURES[seed % len(TEXTURES)](rng, shape, rng.uniform(0.6, 4))
    truth = 110 + rng.uniform(10, 45) * _scale(texture)
    sd, kind = np.exp(rng.uniform(*np.log((2, 50)))), rng.integers(5)
    ratio, filtered = rng.choice([1, 1, 1, 0.1, 0.4]), rng.integers(6)
    width, amount = rng.uniform(0.3, 1), rng.uniform(0.3, 1.5)
    images = []
    for deviation in (sd, sd * ratio):
        noise = rng.normal(size=shape)
        if kind == 1:  # counts
            noise *= np.sqrt(np.clip(truth, 1, None) / 110)
        elif kind == 2:  # a slow detector
            noise = 1.5 * ndimage.gaussian_filter1d(noise, width, axis=1)
        elif kind == 3:  # rows of unlike brightness
            noise += 0.3 * rng.normal(size=(shape[0], 1))
        image = truth + deviation * noise
        if filtered == 0:
            image = ndimage.gaussian_filter(image, width)
        elif filtered == 1:
            image += amount * (image - ndimage.gaussian_filter(image, width))
        images.append(image if filtered % 2 else np.clip(np.rint(image), 0, 255))
    return images[0], images[1], bool(filtered > 1)


def _by_range(denoise: Callable[[FloatArray], Any], image: FloatArray) -> FloatArray:
    low, high = np.percentile(image, (1, 99))
    return np.asarray(denoise((image - low) / (high - low)) * (high - low) + low)


COPIES: dict[str, Callable[[FloatArray], Any]] = {
    **{
        f"Gaussian {width}": lambda image, width=width: ndimage.gaussian_filter(
            image, width
        )
        for width in (0.7, 1.0, 1.5, 2.0, 3.0)
    },
    "median 3": lambda image: ndimage.median_filter(image, 3),
    "median 5": lambda image: ndimage.median_filter(image, 5),
    "mean 3": lambda image: ndimage.uniform_filter(image, 3),
    "sharpened": lambda image: 2.5 * image - 1.5 * ndimage.gaussian_filter(image, 1.5),
    "gain": lambda image: 0.6 * image + 20,
    "shifted": lambda image: ndimage.shift(image, (0.3, 0.6), order=1, mode="nearest"),
    "total variation": lambda image: _by_range(
        lambda scaled: denoise_tv_chambolle(scaled, 0.3), image
    ),
    "non-local means": lambda image: denoise_nl_means(
        image, 5, 6, h=np.std(image - ndimage.median_filter(image, 3)), fast_mode=True
    ),
}


def _outcome(one: FloatArray, other: FloatArray) -> tuple[str, float | None]:
    found = measure_frc(Micrograph(one), Micrograph(other))
    if found.resolution_px is not None:
        return "number", found.resolution_px
    refused = found.reason == "not-independent"
    return "not-independent" if refused else "other reason", None


def main() -> None:
    """Print a row for exposures and one for copies, of raw images and of filtered."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=120)
    asked = parser.parse_args()
    rows: dict[str, Counter[str]] = {}
    names = list(COPIES)
    for number in range(asked.pairs):
        first, second, raw = expose(FIRST_SEED + number)
        copy = COPIES[names[number % len(names)]](first)
        kind = "raw" if raw else "filtered"
        found, true = _outcome(first, second)
        rows.setdefault(f"exposures, {kind}", Counter())[found] += 1
        counts = rows.setdefault(f"copies, {kind}", Counter())
        found, length = _outcome(first, np.clip(np.rint(copy), 0, 255))
        counts[found] += 1
        finer = length is not None and true is not None and length < 0.97 * true
        counts["number finer than that of the exposures"] += finer
    for name, counts in sorted(rows.items()):
        print(name, dict(counts), flush=True)


if __name__ == "__main__":
    main()
