"""Detection of images that show the same area and must be in the same set.

Images are compared downsampled, without shading and at unit contrast, independent of
format, bit depth, gain and brightness, in all eight orientations used for training.
The shift is found by phase correlation. Images show the same area if they correlate
with this shift over enough area and far better than with any other; lattices, which
correlate at many shifts, only if they agree nearly everywhere.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from napari_semsr import core

# Chosen on scans of one area and of several by one microscope.
_SIDE = 128  # px of the largest image after downsampling
_LEAST = 16  # px that two images must share along each axis
_SHADING_PX, _SMOOTH_PX = 8.0, 1.0
_ALIKE = 0.5  # correlation where both overlap
_EQUAL = 0.98  # of images that agree nearly everywhere
_RIVAL = 0.8  # of the best correlation: upper limit for other shifts
_CERTAIN = 10.0  # s.d.; unrelated ones of 2800 pairs of real images reach 8.4
_WHITENING = 0.7  # exponent of the spectrum in the normalisation
_PEAKS = 3  # peaks of a phase correlation to try
_NEAR = 6  # px, width of a peak


@dataclass(frozen=True, slots=True)
class ImageMatch:
    """Two images that show the same area."""

    first: int
    second: int
    congruent: bool  # whether pixels at the same index show the same


def find_matching_images(
    images: Sequence[core.Micrograph], what: str
) -> core.Job[list[ImageMatch]]:
    """Find pairs of images that show the same area, at least partly."""
    if len(images) < 2:
        return []
    shrink = max(1, -(-max(max(one.shape) for one in images) // _SIDE))
    small: list[core.FloatArray] = []
    message = f"comparing {what} images with one another"
    for number, image in enumerate(images):
        yield core.Progress(number, len(images), message)
        values = _downsample_image(image.array(), shrink)
        # without pixel noise and shading, and of unit standard deviation
        smooth = ndimage.gaussian_filter(values, _SMOOTH_PX)
        smooth = smooth - ndimage.gaussian_filter(values, _SHADING_PX)
        spread = np.median(np.abs(smooth)) * 1.5
        smooth = np.clip(smooth, -4 * spread, 4 * spread)
        small.append(smooth / max(float(smooth.std()), 1e-300))
    side = fft.next_fast_len(2 * max(max(one.shape) for one in small), real=True)
    spectra = [_compute_spectrum(one, side) for one in small]
    matches = []
    for second in range(1, len(images)):
        yield core.Progress(second, len(images), message)
        for turn in range(8):
            flipped_image = small[second] if turn < 4 else small[second][::-1]
            turned_image = np.rot90(flipped_image, turn % 4)
            spectrum = np.conj(_compute_spectrum(turned_image, side))
            turned = turned_image, spectrum
            for first in range(second):
                own = small[first], spectra[first]
                shift = _find_common_shift(own, turned, side)
                if shift is not None:
                    same = shift == (0, 0) and turn == 0
                    same = same and _are_pixels_aligned(images[first], images[second])
                    matches.append(ImageMatch(first, second, same))
    return matches


@dataclass(frozen=True, slots=True)
class ImageGroups:
    """Images grouped by area."""

    numbers: tuple[int, ...]  # for each image: index of the first of its group
    congruent: frozenset[int]  # groups whose images match pixel by pixel

    @classmethod
    def from_matches(cls, count: int, matches: Sequence[ImageMatch]) -> Self:
        """Group images that match directly or via other images."""

        def link_images(matches: Iterable[ImageMatch]) -> list[int]:
            numbers = list(range(count))
            for match in matches:
                pair = {numbers[match.first], numbers[match.second]}
                numbers = [min(pair) if n in pair else n for n in numbers]
            return numbers

        numbers = link_images(matches)
        # all are congruent if a chain of congruent matches connects them
        chain = link_images(match for match in matches if match.congruent)
        apart = {n for n, link in zip(numbers, chain, strict=True) if link != n}
        return cls(tuple(numbers), frozenset(set(numbers) - apart))

    def list_names(self, images: Sequence[str]) -> list[list[str]]:
        """Return the image names of each group with two or more images."""
        names_by_group: dict[int, list[str]] = {}
        for number, name in zip(self.numbers, images, strict=True):
            names_by_group.setdefault(number, []).append(name)
        return [group for group in names_by_group.values() if len(group) > 1]


def _downsample_image(values: core.RealArray, shrink: int) -> core.FloatArray:
    """Average over blocks, replacing missing pixels with the mean of the others."""
    field = np.asarray(values, float)
    finite = np.isfinite(field)
    if not finite.all():
        field = np.where(finite, field, field[finite].mean() if finite.any() else 0.0)
    rows, columns = (max(1, n // shrink) for n in field.shape)
    if min(rows, columns) == 1 or shrink == 1:
        return field[: rows * shrink, : columns * shrink]
    return np.asarray(core.reshape_into_blocks(field, shrink).mean((1, 3)))


def _are_pixels_aligned(first: core.Micrograph, second: core.Micrograph) -> bool:
    """Return whether two images correlate better unshifted than shifted by a pixel."""
    if first.shape != second.shape:
        return False
    a, b = (_downsample_image(one.array(), 1) for one in (first, second))
    here, *correlations_moved = (
        abs(_correlate_overlap(a, b, shift))
        for shift in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))
    )
    return here >= max(correlations_moved)


def _compute_spectrum(values: core.FloatArray, side: int) -> NDArray[np.complex64]:
    window = np.outer(*(np.hanning(n + 2)[1:-1] ** 0.5 for n in values.shape))
    tapered_image = (values * window).astype(np.float32)
    return np.asarray(fft.rfft2(tapered_image, (side, side)))


def _find_common_shift(
    first: tuple[core.FloatArray, NDArray[np.complex64]],
    second: tuple[core.FloatArray, NDArray[np.complex64]],
    side: int,
) -> core.IntPair | None:
    """Find the shift at which two small images show the same area; None if absent."""
    a, b = first[0], second[0]
    if a.shape == b.shape and abs(_correlate_overlap(a, b, (0, 0))) > _EQUAL:
        return 0, 0
    product = first[1] * second[1]
    size = np.abs(product)
    flat = np.maximum(size, 1e-6 * max(float(size.max()), 1e-30)) ** _WHITENING
    peaks = np.abs(fft.irfft2(product / flat, (side, side)))
    one, two = (np.square(np.abs(values), dtype=float) for _, values in (first, second))
    joint = (one * two).sum() / max(one.sum() * two.sum(), 1e-300)
    # correlated pixels: the variance of a correlation times its number of pixels
    cell = side**2 * joint / 2
    trials: list[tuple[float, core.IntPair]] = []
    for _ in range(_PEAKS):
        y, x = (int(n) for n in np.unravel_index(int(peaks.argmax()), peaks.shape))
        shift = y - side * (y > side // 2), x - side * (x > side // 2)
        trials.append((abs(_correlate_overlap(a, b, shift)), shift))
        rows, columns = (np.arange(n - _NEAR, n + _NEAR + 1) % side for n in (y, x))
        peaks[np.ix_(rows, columns)] = 0
    (best, shift), (rival, _) = sorted(trials, reverse=True)[:2]
    common_area = math.prod(
        min(m, n + step) - max(0, step)
        for m, n, step in zip(a.shape, b.shape, shift, strict=True)
    )
    if not cell:  # one is uniform
        return None
    certain = math.atanh(min(best, 1 - 1e-9)) * math.sqrt(max(common_area, 0) / cell)
    is_match = best > _ALIKE and rival < _RIVAL * best and certain > _CERTAIN
    return shift if is_match else None


def _correlate_overlap(
    a: core.FloatArray, b: core.FloatArray, shift: core.IntPair
) -> float:
    """Correlate the overlap of two shifted images; 0 if the overlap is too small."""
    parts = []
    for axis, step in enumerate(shift):
        start, stop = max(0, step), min(a.shape[axis], b.shape[axis] + step)
        if stop - start < _LEAST:
            return 0.0
        parts.append((slice(start, stop), slice(start - step, stop - step)))
    first, second = zip(*parts, strict=True)
    one, other = a[first] - a[first].mean(), b[second] - b[second].mean()
    size = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum() / size) if size else 0.0
