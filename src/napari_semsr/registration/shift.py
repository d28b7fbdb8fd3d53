"""Translation between two images with known origins, and its uncertainty.

Both images are on one grid. They are band-passed (shading and the finest noise do not
help) and windowed; the maximum of the phase correlation [1]_ within the search range is
refined on the overlap by an upsampled Fourier transform [2]_. Contrast may be inverted:
only the magnitude of the correlation counts.

Three figures describe the reliability. The runner-up is the correlation coefficient
at the next best position, relative to the best: near 1 on a lattice, where a shift by a
period fits as well. Each quarter of the field is searched separately; the shift is
accepted if at least three of the four find the same shift, and their scatter is its
standard error. It does not include errors common to all quarters, such as shadows.

.. [1] C. D. Kuglin, D. C. Hines, Proc. IEEE Conf. Cybernetics and Society, 163 (1975).
.. [2] M. Guizar-Sicairos et al., Opt. Lett. 33, 156 (2008), doi:10.1364/OL.33.000156.
"""

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

from napari_semsr import core

_MIN_PX = 64  # side of a field; chosen: its quarters, 32 px, can hold some structure


# Criteria for accepting a shift; chosen.
_NEAR_PX = 2.0  # tolerance between quarters, and of the finer search
_APART_PX = 12  # least distance between two peaks
# height of a second peak over the first that makes a shift ambiguous; chosen
_ALIKE = 0.8


@dataclass(frozen=True, slots=True)
class Shift:
    """Translation between two images on one grid."""

    shift_px: core.FloatPair  # ``(y, x)`` to move the moving image onto the fixed one
    error_px: float  # standard error from the quarters of the field, the larger axis
    quarters: int  # of the field's four, those that find this shift on their own
    # magnitude of the correlation at the next best position over that at the best
    runner_up: float
    # Pearson's r of the band-passed images after the shift; negative if inverted
    correlation: float

    @property
    def is_ambiguous(self) -> bool:
        """Whether another shift fits about as well, as for a periodic pattern."""
        return self.runner_up > _ALIKE


def find_shift(fixed: core.RealArray, moving: core.RealArray, *, reach: int) -> Shift:
    """Find the translation between two images (Y, X) of the same shape.

    Each side has 64 px or more, and missing pixels are NaN; `reach` is the
    largest shift along each axis in pixels.

    Raises
    ------
    RegistrationError
        If there is no structure, or no reliable shift.
    """
    _check_shapes(fixed.shape, moving.shape, reach)
    first, second = _apply_band_pass(fixed), _apply_band_pass(moving)
    if not (first.any() and second.any()):
        msg = (
            "One of the images has no structure in the common area: use images with "
            "edges."
        )
        raise core.RegistrationError(msg, code="no-structure")
    coarse, other = _find_peaks(first, second, reach)
    rest = _measure_residual_shift(*_crop_overlap(first, second, coarse))
    shift = np.array(coarse) + rest
    if np.abs(coarse).max() >= reach:
        msg = (
            f"The best shift is outside the search range of {reach} px: increase the "
            "range (`search`), or check origins and pixel sizes."
        )
        raise core.RegistrationError(msg, code="beyond-search")
    places = []
    is_confirmed = np.abs(rest).max() <= _NEAR_PX  # by the finer search
    rows, columns = (n // 2 for n in first.shape)
    quarters = [(y, x) for y in (0, rows) for x in (0, columns)]
    for y, x in quarters if is_confirmed else ():
        part = slice(y, y + rows), slice(x, x + columns)
        one, two = first[part], second[part]
        own, _ = _find_peaks(one, two, reach)
        place = np.array(own) + _measure_residual_shift(*_crop_overlap(one, two, own))
        if np.hypot(*(place - shift)) < _NEAR_PX:
            places.append(place)
    # chosen: one of the four quarters may be empty or damaged
    if len(places) < 3:
        msg = (
            f"No reliable shift within {reach} px: only {len(places)} of 4 quarters of "
            "the common area agree with the whole area; the images may show different "
            "areas, too little structure, or a periodic pattern. Check origins and "
            "pixel sizes."
        )
        raise core.RegistrationError(msg, code="shift-unconfirmed")
    error = np.std(places, axis=0, ddof=1).max() / np.sqrt(len(places))
    fit, next_fit = (_compute_correlation(first, second, at) for at in (coarse, other))
    return Shift(
        shift_px=(float(shift[0]), float(shift[1])),
        error_px=float(error),
        quarters=len(places),
        runner_up=abs(next_fit / fit) if fit else 1.0,
        correlation=fit,
    )


def find_far_shift(
    fixed: core.RealArray, moving: core.RealArray
) -> tuple[core.IntPair, float, bool]:
    """Find the whole-pixel shift of up to half the field that correlates best.

    Also returns by how much it correlates better than no shift, in standard deviations
    over all shifts, and whether another shift correlates about as well.
    """
    first, second = (_apply_window(_apply_band_pass(one)) for one in (fixed, moving))
    plane = fft.rfft2(first) * np.conj(fft.rfft2(second))
    surface = np.abs(fft.fftshift(fft.irfft2(plane, s=first.shape)))
    rows, columns = (n // 2 for n in surface.shape)
    y, x = _find_maximum(surface)
    best, at_zero = float(surface[y, x]), float(surface[rows, columns])
    excess = (best - at_zero) / max(float(surface.std()), np.finfo(np.float64).tiny)
    near = tuple(slice(max(0, at - _APART_PX), at + _APART_PX + 1) for at in (y, x))
    surface[near] = 0
    return (y - rows, x - columns), excess, float(surface.max()) > _ALIKE * best


def _check_shapes(fixed: tuple[int, ...], moving: tuple[int, ...], reach: int) -> None:
    if fixed != moving:
        shapes = f"{core.format_shape(fixed)} and {core.format_shape(moving)}"
        msg = f"Both images must have the same shape, got {shapes}."
        raise core.ShapeError(msg, code="sizes-differ")
    need = max(_MIN_PX, 4 * (reach + 1))
    if min(fixed) < need:
        remedy = "reduce the range (`search`)"
        if min(fixed) < _MIN_PX:
            remedy = f"at least {_MIN_PX} px are required for any search range"
        msg = (
            f"A search range of {reach} px needs a common area of at least {need} px "
            f"on each side, got {fixed[0]} x {fixed[1]} px: {remedy}."
        )
        raise core.ShapeError(msg, code="image-too-small")


def _apply_band_pass(image: core.RealArray) -> core.FloatArray:
    """Band-pass filter an image; missing pixels become 0."""
    values = np.asarray(image, dtype=np.float64)
    finite = np.isfinite(values)
    mean = float(values[finite].mean()) if finite.any() else 0.0
    without_gaps = np.where(finite, values, mean)
    # chosen: finer is noise, coarser is shading
    fine = ndimage.gaussian_filter(without_gaps, 2.0, mode="nearest")
    coarse = ndimage.gaussian_filter(without_gaps, 16.0, mode="nearest")
    band = np.where(finite, fine - coarse, 0.0)
    # chosen: rounding errors of doubles
    flat = np.abs(band).max() <= 1e-13 * np.abs(without_gaps).max()
    return np.zeros_like(band) if flat else band


def _apply_window(part: core.FloatArray) -> core.FloatArray:
    """Subtract the mean and taper the image towards its borders."""
    # chosen: borders do not correlate
    window = core.tukey_window_2d((part.shape[0], part.shape[1]), 0.25)
    return np.asarray((part - part.mean()) * window)


def _find_peaks(
    fixed: core.FloatArray, moving: core.FloatArray, reach: int
) -> tuple[core.IntPair, core.IntPair]:
    """Return the best and second-best integer shifts by phase correlation."""
    cross = fft.rfft2(_apply_window(fixed)) * np.conj(fft.rfft2(_apply_window(moving)))
    power = np.abs(cross)
    # chosen: weaker frequencies than that share of the largest cross power are noise
    floor = max(1e-3 * float(power.max()), np.finfo(np.float64).tiny)
    lags = np.arange(-reach, reach + 1)
    window = np.ix_(lags % fixed.shape[0], lags % fixed.shape[1])
    by_phase, plain = (
        np.abs(fft.irfft2(plane, s=fixed.shape)[window])
        for plane in (cross / np.maximum(power, floor), cross)
    )
    row, column = _find_maximum(by_phase)
    peak = row, column
    near = tuple(slice(max(0, at - _APART_PX), at + _APART_PX + 1) for at in peak)
    plain[near] = 0
    other = _find_maximum(plain)
    return (row - reach, column - reach), (other[0] - reach, other[1] - reach)


def _find_maximum(surface: core.FloatArray) -> core.IntPair:
    row, column = np.unravel_index(int(surface.argmax()), surface.shape)
    return int(row), int(column)


def _compute_correlation(
    fixed: core.FloatArray, moving: core.FloatArray, shift: core.IntPair
) -> float:
    """Return the Pearson correlation of two shifted images; 0 if one is constant."""
    one, two = _crop_overlap(fixed, moving, shift)
    one, two = one - one.mean(), two - two.mean()
    power = float(np.vdot(one, one)) * float(np.vdot(two, two))
    return float(np.vdot(one, two)) / np.sqrt(power) if power > 0 else 0.0


def _crop_overlap(
    fixed: core.FloatArray, moving: core.FloatArray, shift: core.IntPair
) -> tuple[core.FloatArray, core.FloatArray]:
    """Return the overlapping parts of two images after an integer shift."""
    rows, columns = fixed.shape
    moved_box = core.Box.from_shape((rows, columns), shift)
    common = moved_box.intersection(core.Box.from_shape((rows, columns)))
    return fixed[common.slices], moving[common.relative_to(moved_box).slices]


def _measure_residual_shift(
    fixed: core.FloatArray, moving: core.FloatArray
) -> core.FloatArray:
    """Measure the residual shift between two images to a fiftieth of a pixel."""
    from skimage.registration import phase_cross_correlation

    if not (fixed.any() and moving.any()):
        return np.full(2, np.inf)
    # chosen: 0.02 px is finer than the standard error of most shifts
    shift, _, _ = phase_cross_correlation(
        _apply_window(fixed),
        _apply_window(moving),
        upsample_factor=50,
        normalization=None,
    )
    return np.asarray(shift, dtype=np.float64)
