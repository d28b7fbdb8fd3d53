"""How far one image lies from where its origin says: a translation, and its doubt.

Both images lie on one grid. They are band-passed (shading and the finest noise say
nothing of the place) and windowed; the phase correlation [1]_ is looked at within the
search alone, and its best place is refined on the overlap by an upsampled Fourier
transform [2]_. Contrast may be inverted: only the size of the correlation counts.

Three figures tell how sure the shift is. The runner-up is the correlation coefficient
at the next best place, over that at the best: near 1 on a lattice, where a whole period
more fits as well. Each quarter of the field is searched on its own; the shift is
believed where at least three of the four find the same place, and their spread is its
standard error. It knows nothing of what moves all quarters alike, such as shadows.

.. [1] C. D. Kuglin, D. C. Hines, Proc. IEEE Conf. Cybernetics and Society, 163 (1975).
.. [2] M. Guizar-Sicairos et al., Opt. Lett. 33, 156 (2008), doi:10.1364/OL.33.000156.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from napari_semsr.core import (
    Box,
    FloatArray,
    FloatPair,
    IntPair,
    RegistrationError,
    ShapeError,
    window_plane,
)

_LEAST_PX = 64  # side of a field; chosen: its quarters, 32 px, can hold some structure

# The band: finer is noise, coarser is shading; chosen.
_FINE_PX, _COARSE_PX = 2.0, 16.0
_TAPER = 0.25  # of a window; chosen: enough that borders do not correlate
_FLOOR = 1e-3  # of the largest cross power; chosen: weaker frequencies are noise
_FLAT = 1e-9  # of the grey values; chosen: rounding alone
_UPSAMPLING = 50  # to 0.02 px; chosen: finer than the standard error of most shifts

# When a shift is believed; chosen.
_NEAR_PX = 2.0  # quarters, and the finer search, that find the same place
_APART_PX = 12  # peaks of one structure are not two places
_ENOUGH = 3  # of 4 quarters: one may be empty or damaged
# height of a second peak over the first that makes a shift ambiguous; chosen
_ALIKE = 0.8


@dataclass(frozen=True, slots=True)
class Shift:
    """A translation between two images on one grid."""

    shift_px: FloatPair  # By which the moving image must be moved to lie on the fixed
    error_px: float  # Standard error from the quarters of the field, the longer axis
    quarters: int  # Of the field that find this place by themselves, of four
    # Correlation at the next best place over that at the best, without sign
    runner_up: float
    # Pearson's r of the band-passed images when moved; below 0 with inverted contrast
    correlation: float

    @property
    def is_ambiguous(self) -> bool:
        """Whether another place fits about as well, as on a lattice."""
        return self.runner_up > _ALIKE


def find_shift(fixed: NDArray[Any], moving: NDArray[Any], *, reach: int) -> Shift:
    """Find the translation that brings one image (Y, X) onto another of its shape.

    Each side has 64 px or more, and NaN stands where nothing is known; `reach` is the
    largest shift along each axis that is looked for, in pixels.

    Raises
    ------
    RegistrationError
        If there is no structure, or no shift can be believed.
    """
    _check(fixed.shape, moving.shape, reach)
    first, second = _band_pass(fixed), _band_pass(moving)
    if not (first.any() and second.any()):
        msg = "A shift is found by structure, but one of both images shows none there."
        raise RegistrationError(msg, code="no-structure")
    coarse, other = _peaks(first, second, reach)
    rest = _rest(*_overlap_parts(first, second, coarse))
    shift = np.array(coarse) + rest
    if np.abs(coarse).max() >= reach:
        msg = (
            f"The best shift lies beyond the search of {reach} px; search further "
            "(`search`), or check origins and pixel sizes."
        )
        raise RegistrationError(msg, code="beyond-search")
    places = []
    found_twice = np.abs(rest).max() <= _NEAR_PX  # else the finer search contradicts
    rows, columns = (n // 2 for n in first.shape)
    quarters = [(y, x) for y in (0, rows) for x in (0, columns)]
    for y, x in quarters if found_twice else ():
        part = slice(y, y + rows), slice(x, x + columns)
        one, two = first[part], second[part]
        own, _ = _peaks(one, two, reach)
        place = np.array(own) + _rest(*_overlap_parts(one, two, own))
        if np.hypot(*(place - shift)) < _NEAR_PX:
            places.append(place)
    if len(places) < _ENOUGH:
        msg = (
            f"No shift within {reach} px can be believed: {len(places)} of 4 quarters "
            "of the common area find the one of the whole; the images may show "
            "different places, too little, or a lattice. Check origins and pixel sizes."
        )
        raise RegistrationError(msg)
    error = np.std(places, axis=0, ddof=1).max() / np.sqrt(len(places))
    fit, next_fit = (_coefficient(first, second, at) for at in (coarse, other))
    return Shift(
        shift_px=(float(shift[0]), float(shift[1])),
        error_px=float(error),
        quarters=len(places),
        runner_up=abs(next_fit / fit) if fit else 1.0,
        correlation=fit,
    )


def _check(fixed: tuple[int, ...], moving: tuple[int, ...], reach: int) -> None:
    if fixed != moving:
        msg = f"Both images must have one shape, got {fixed} and {moving}."
        raise ShapeError(msg, code="sizes-differ")
    need = max(_LEAST_PX, 4 * (reach + 1))
    if min(fixed) < need:
        smaller = min(fixed) >= _LEAST_PX
        remedy = "search less far (`search`)"
        if not smaller:
            remedy = f"no search does with less than {_LEAST_PX} px"
        msg = (
            f"A search of {reach} px needs a common area of {need} px or more on each "
            f"side, got {fixed[0]} x {fixed[1]} px: {remedy}."
        )
        raise ShapeError(msg, code="image-too-small")


def _band_pass(image: NDArray[Any]) -> FloatArray:
    """Band-pass an image; 0 where nothing is known."""
    values = np.asarray(image, dtype=np.float64)
    finite = np.isfinite(values)
    mean = float(values[finite].mean()) if finite.any() else 0.0
    without_gaps = np.where(finite, values, mean)
    fine = ndimage.gaussian_filter(without_gaps, _FINE_PX, mode="nearest")
    coarse = ndimage.gaussian_filter(without_gaps, _COARSE_PX, mode="nearest")
    band = np.where(finite, fine - coarse, 0.0)
    flat = np.abs(band).max() <= _FLAT * np.abs(without_gaps).max()
    return np.zeros_like(band) if flat else band


def _window(part: FloatArray) -> FloatArray:
    """Take off the mean and let the borders fade."""
    window = window_plane((part.shape[0], part.shape[1]), _TAPER)
    return np.asarray((part - part.mean()) * window)


def _peaks(
    fixed: FloatArray, moving: FloatArray, reach: int
) -> tuple[IntPair, IntPair]:
    """Best whole shift within reach by phase, and the next best by plain product."""
    cross = fft.rfft2(_window(fixed)) * np.conj(fft.rfft2(_window(moving)))
    power = np.abs(cross)
    floor = max(_FLOOR * float(power.max()), np.finfo(np.float64).tiny)
    lags = np.arange(-reach, reach + 1)
    window = np.ix_(lags % fixed.shape[0], lags % fixed.shape[1])
    by_phase, plain = (
        np.abs(fft.irfft2(plane, s=fixed.shape)[window])
        for plane in (cross / np.maximum(power, floor), cross)
    )
    row, column = _highest(by_phase)
    plain[
        max(0, row - _APART_PX) : row + _APART_PX + 1,
        max(0, column - _APART_PX) : column + _APART_PX + 1,
    ] = 0
    other = _highest(plain)
    return (row - reach, column - reach), (other[0] - reach, other[1] - reach)


def _highest(surface: FloatArray) -> IntPair:
    row, column = np.unravel_index(int(surface.argmax()), surface.shape)
    return int(row), int(column)


def _coefficient(fixed: FloatArray, moving: FloatArray, shift: IntPair) -> float:
    """Pearson's r of two images after a whole shift; 0 where one is flat."""
    one, two = _overlap_parts(fixed, moving, shift)
    one, two = one - one.mean(), two - two.mean()
    power = float(np.vdot(one, one)) * float(np.vdot(two, two))
    return float(np.vdot(one, two)) / np.sqrt(power) if power > 0 else 0.0


def _overlap_parts(
    fixed: FloatArray, moving: FloatArray, shift: IntPair
) -> tuple[FloatArray, FloatArray]:
    """Parts of two images that lie on each other after a whole shift."""
    rows, columns = fixed.shape
    moved_box = Box.of((rows, columns), shift)
    common = moved_box.intersection(Box.of((rows, columns)))
    return fixed[common.slices], moving[common.within(moved_box).slices]


def _rest(fixed: FloatArray, moving: FloatArray) -> FloatArray:
    """Shift that is left between two images, to a fiftieth of a pixel."""
    from skimage.registration import phase_cross_correlation

    if not (fixed.any() and moving.any()):
        return np.full(2, np.inf)
    shift, _, _ = phase_cross_correlation(
        _window(fixed),
        _window(moving),
        upsample_factor=_UPSAMPLING,
        normalization=None,
    )
    return np.asarray(shift, dtype=np.float64)
