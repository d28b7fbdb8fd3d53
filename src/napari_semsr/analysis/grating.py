"""Pixel size, skew and distortion from the picture of a known grating.

A grating is a phase: ``2 pi k . u(x)``, with the wave vector ``k`` in cycles per pixel
and the field's distortion in ``u`` (`napari_semsr.core.distort`). The picture is
multiplied by the conjugate of that wave and smoothed over little more than a period,
which leaves the phase by which it differs here and there; brightness that varies
slowly, other orders and the other direction of a lattice average out. Wave vectors and
distortion are fitted to these phases from the middle of the field outwards, so that no
period is lost, and their scatter about the fit gives the errors.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import fft, ndimage

from napari_semsr.core import (
    MOST_DISTORTION,
    Calibration,
    FloatArray,
    Options,
    RegistrationError,
    distort,
    rim_displacement,
)

_SMOOTH = (
    0.8  # periods; a Gaussian so wide leaves e^-12 of the mean and of other orders
)
_LEAST_PERIODS = 8.0  # across the field; chosen: fewer are too few to tell a grating
_LIT = 0.1  # of the brightest place; chosen: a round field is dark outside its circle
# A peak stands for a grating where it is so many times above the spectrum around it,
# and for the second direction of a lattice where it has such a share of the highest.
# Chosen: noise reaches 4 in a spectrum of a million values.
_PEAK = 6.0
_SECOND = 0.25
_ORDERS = 24  # highest peaks that are looked at; chosen: a lattice has 12 low orders
_PARALLEL = 0.4  # sine of the angle below which two peaks are orders of one direction
_AGREE = (
    0.75  # mean length of the phases' unit vectors; 0.9 where they scatter by 26 deg
)
_WIDENING = (0.5, 0.75, 1.0, 1.5, 1.5)  # of the rim's radius, fit after fit
_OBLIQUE = 0.93  # sine of the angle between two waves: 1 if square, 0.87 if hexagonal
_ROWS = 96  # of phases at most, and columns; chosen: more of a large picture add little
_COVERED = 0.9  # of the smoothing; chosen: less is led by the border of the field


class CalibrateOptions(Options):
    """What is known of a grating."""

    pitch_nm: float = Field(gt=0, description="period of the grating in nm")
    pitch_sd_nm: float = Field(
        default=0.0, ge=0, description="standard deviation of that period in nm"
    )
    lattice: Literal["auto", "lines", "square", "hexagonal"] = Field(
        default="auto",
        description="what repeats: lines, or dots on a square or hexagonal lattice",
    )


def measure_grating(image: NDArray[Any], options: CalibrateOptions) -> Calibration:
    """Measure a microscope by a grating.

    Parameters
    ----------
    image : (Y, X) numpy.ndarray
        Its picture; NaN where there is none.
    options : CalibrateOptions
        What is known of it.

    Returns
    -------
    Calibration
        With standard deviations.

    Raises
    ------
    RegistrationError
        If the picture does not show one.

    Examples
    --------
    >>> import numpy as np
    >>> lines = np.sin(2 * np.pi * np.arange(256) / 12.5) * np.ones((256, 1))
    >>> found = measure_grating(lines, CalibrateOptions(pitch_nm=250))
    >>> round(found.pixel_size_nm[1], 3), abs(found.distortion) < 1e-4
    (20.0, True)
    """
    plane, lit = _prepared(image)
    waves = _waves(plane, options.lattice)
    periods = float(np.hypot(*waves[0]) * min(plane.shape))
    if periods < _LEAST_PERIODS:
        msg = (
            f"A grating must show at least {_LEAST_PERIODS:g} periods across the "
            f"field, got {periods:.1f}: choose a finer one."
        )
        raise RegistrationError(msg)
    fit = _Fit(waves, np.zeros(len(waves)), 0.0)
    for widening in _WIDENING:
        fit = _refined(plane, lit, fit, widening)
    if not fit.agreement > _AGREE:
        raise RegistrationError(_NONE)
    return _described(fit, plane.shape, options, periods)


_NONE = (
    "No grating is seen: the picture must show evenly spaced lines or dots over most "
    "of its field; take one in focus, with nothing else in it."
)


@dataclass(frozen=True, slots=True)
class _Fit:
    """A wave for each direction, and one distortion."""

    waves: FloatArray  # (D, 2) Cycles per pixel
    phases: FloatArray  # (D,) At the middle of the field, in radians
    distortion: float
    # (3 D + 1, 3 D + 1) Of phases, waves and distortion as they are listed in a step
    covariance: FloatArray | None = None
    residual: float = float("nan")  # RMS of the phases about it, in radians
    agreement: float = 0.0  # Mean length of the sum of all phases' unit vectors


def _prepared(image: NDArray[Any]) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Picture with its level taken off, and where it is lit."""
    known = np.isfinite(image)
    if not known.any():
        raise RegistrationError(_NONE)
    plane = np.where(known, image, 0).astype(np.float64)
    low = float(np.quantile(plane[known], 0.005))
    plane = np.where(known, plane - low, 0)
    level = _level(plane, known)
    lit = known & (level > _LIT * level[known].max())
    return np.where(lit, plane - _level(plane, lit), 0), lit


def _level(plane: FloatArray, known: NDArray[np.bool_]) -> FloatArray:
    """Mean brightness around each place, of what is known."""
    wide = max(3, min(plane.shape) // 6)
    both = [plane * known, known.astype(np.float64)]
    for _ in range(2):
        both = [ndimage.uniform_filter(part, wide, mode="constant") for part in both]
    return np.asarray(both[0] / np.maximum(both[1], 1e-6))


def _spectrum(plane: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Amplitudes of half a spectrum, and cycles per pixel along y and x."""
    window = np.outer(*(np.hanning(side + 2)[1:-1] for side in plane.shape))
    power = np.abs(fft.rfft2(plane * window)) ** 2
    y, x = np.meshgrid(
        fft.fftfreq(plane.shape[0]), fft.rfftfreq(plane.shape[1]), indexing="ij"
    )
    return np.sqrt(ndimage.gaussian_filter(power, 1.0, mode="wrap")), y, x


def _waves(plane: FloatArray, lattice: str) -> FloatArray:
    """Shortest wave vectors of what repeats, (1, 2) or (2, 2)."""
    amplitude, y, x = _spectrum(plane)
    radius = np.hypot(y, x) * min(plane.shape)
    peaks = amplitude == ndimage.maximum_filter(amplitude, 7, mode="wrap")
    peaks &= (radius > _LEAST_PERIODS / 2) & (radius < 0.45 * min(plane.shape))
    rows, columns = np.nonzero(peaks)
    heights = amplitude[rows, columns]
    order = np.argsort(-heights)[:_ORDERS]
    found = []
    for row, column in zip(rows[order], columns[order], strict=True):
        around = np.abs(radius / radius[row, column] - 1) < 0.2
        if amplitude[row, column] > _PEAK * np.median(amplitude[around]):
            found.append((amplitude[row, column], y[row, column], x[row, column]))
    if not found:
        raise RegistrationError(_NONE)
    table = np.array(found)
    table = table[table[:, 0] > _SECOND * table[:, 0].max()]
    vectors = table[np.argsort(np.hypot(table[:, 1], table[:, 2])), 1:]
    first = vectors[0]
    across = [
        wave
        for wave in vectors[1:]
        if abs(first[0] * wave[1] - first[1] * wave[0])
        > _PARALLEL * np.hypot(*first) * np.hypot(*wave)
    ]
    if lattice == "lines" or (lattice == "auto" and not across):
        return _centred(plane, first[None])
    if not across:
        msg = (
            "The grating shows lines in one direction alone, but a lattice of dots is "
            "asked for: give --lattice lines."
        )
        raise RegistrationError(msg)
    return _centred(plane, np.stack([first, across[0]]))


def _centred(plane: FloatArray, waves: FloatArray) -> FloatArray:
    """Wave vectors at the middle of the field, where distortion changes them least."""
    rows, columns = plane.shape
    middle = plane[rows // 4 : rows - rows // 4, columns // 4 : columns - columns // 4]
    middle = middle * np.outer(*(np.hanning(side + 2)[1:-1] for side in middle.shape))
    y, x = (np.arange(side) for side in middle.shape)
    better = []
    for wave in waves:
        reach = max(0.1 * float(np.hypot(*wave)), 1.5 / min(plane.shape))
        steps = np.linspace(-reach, reach, 2 * int(4 * reach * min(plane.shape)) + 1)
        down = np.exp(-2j * np.pi * np.outer(wave[0] + steps, y))
        along = np.exp(-2j * np.pi * np.outer(x, wave[1] + steps))
        best = np.argmax(np.abs(down @ middle @ along))
        row, column = np.unravel_index(best, (len(steps), len(steps)))
        better.append((wave[0] + steps[row], wave[1] + steps[column]))
    return np.array(better)


def _refined(
    plane: FloatArray, lit: NDArray[np.bool_], fit: _Fit, widening: float
) -> _Fit:
    """Fit waves and distortion to the phases within some radius."""
    shape = plane.shape
    grid = np.indices(shape, np.float64)
    middle = np.array([(side - 1) / 2 for side in shape])
    even = np.stack(distort(grid[0], grid[1], shape, fit.distortion))
    even -= middle[:, None, None]
    stretch = np.stack(rim_displacement(grid[0], grid[1], shape)) * min(shape) / 2
    width = _SMOOTH / float(np.hypot(*fit.waves.T).min())
    step = max(1, round(width), -(-max(shape) // _ROWS))
    at = [np.arange(step // 2, side, step) for side in shape]
    smooth = [
        _gaussians(side, places, width) for side, places in zip(shape, at, strict=True)
    ]
    cover = smooth[0] @ lit @ smooth[1].T
    down, along = at[0][:, None], at[1]
    radius = np.hypot(*(grid[:, down, along] - middle[:, None, None])) / (
        min(shape) / 2
    )
    chosen = (cover > _COVERED) & lit[down, along] & (radius < widening)
    count = len(fit.waves)
    rows, left, weight = [], [], []
    for which, (wave, phase) in enumerate(zip(fit.waves, fit.phases, strict=True)):
        angle = 2 * np.pi * np.tensordot(wave, even, 1) + phase
        away = smooth[0] @ (plane * np.exp(-1j * angle)) @ smooth[1].T
        seen = (away / np.maximum(cover, 1e-6))[chosen]
        own = np.zeros((3 * count + 1, len(seen)))
        own[3 * which] = 1
        own[3 * which + 1 : 3 * which + 3] = 2 * np.pi * even[:, down, along][:, chosen]
        own[-1] = 2 * np.pi * np.tensordot(wave, stretch[:, down, along][:, chosen], 1)
        rows.append(own)
        left.append(np.angle(seen))
        weight.append(np.abs(seen) ** 2 / max(np.median(np.abs(seen)) ** 2, 1e-30))
    seen = np.concatenate(left), np.concatenate(weight)
    return _solved(fit, np.hstack(rows), *seen, (width, step))


def _gaussians(side: int, places: NDArray[np.int64], width: float) -> FloatArray:
    """Weights that smooth a line of pixels at some of its places, (P, side)."""
    away = (np.arange(side) - places[:, None]) / width
    weights = np.exp(-0.5 * away**2)
    return np.asarray(weights / (width * np.sqrt(2 * np.pi)))


def _solved(
    fit: _Fit,
    design: FloatArray,
    left: FloatArray,
    weight: FloatArray,
    grain: tuple[float, int],
) -> _Fit:
    """Take the step that leaves the phases least, robustly."""
    free = len(design)
    # so many phases share the noise of one: a Gaussian covers 4 pi times its square
    shared = max(1.0, 4 * np.pi * grain[0] ** 2 / grain[1] ** 2)
    if len(left) < free + 2:
        raise RegistrationError(_NONE)
    weight = np.minimum(weight, 2.0)
    rest = left
    for _ in range(4):
        scale = max(3 * 1.4826 * float(np.median(np.abs(rest))), 1e-9)
        robust = weight / (1 + (rest / scale) ** 2)
        normal = (design * robust) @ design.T
        normal += 1e-12 * np.diag(np.diag(normal) + 1e-30)
        step = np.linalg.solve(normal, (design * robust) @ left)
        rest = left - step @ design
    variance = float(np.average(rest**2, weights=robust))
    lost = min(free * shared / len(left), 0.8)
    variance /= 1 - lost
    inverse = np.linalg.inv(normal)
    spread = inverse @ ((design * robust**2) @ design.T) @ inverse * variance * shared
    parts = step[:-1].reshape(-1, 3)
    return replace(
        fit,
        phases=fit.phases + parts[:, 0],
        waves=fit.waves + parts[:, 1:],
        distortion=float(
            np.clip(fit.distortion + step[-1], -MOST_DISTORTION, MOST_DISTORTION)
        ),
        covariance=spread,
        residual=float(np.sqrt(variance)),
        agreement=float(np.abs(np.exp(1j * rest).mean())),
    )


def _described(
    fit: _Fit, shape: tuple[int, ...], options: CalibrateOptions, periods: float
) -> Calibration:
    """Turn wave vectors into pixel sizes."""
    if fit.covariance is None:  # only for the type: the last fit has one
        raise RegistrationError(_NONE)
    lattice = _lattice(fit.waves, options.lattice)
    count = len(fit.waves)
    places = np.array([[3 * n + 1, 3 * n + 2] for n in range(count)]).ravel()
    covariance = fit.covariance[np.ix_(places, places)]
    values = _sizes(fit.waves, lattice, options.pitch_nm)
    slopes = []
    for index in range(2 * count):
        moved = fit.waves.copy().ravel()
        small = 1e-6 * float(np.abs(moved).max())
        moved[index] += small
        changed = _sizes(moved.reshape(-1, 2), lattice, options.pitch_nm)
        slopes.append((changed - values) / small)
    slope = np.array(slopes)
    variance = np.einsum("ia,ij,ja->a", slope, covariance, slope)
    share = options.pitch_sd_nm / options.pitch_nm
    variance[:2] += (values[:2] * share) ** 2
    spread = np.sqrt(np.maximum(variance, 0))
    first = fit.waves[0]
    lines = lattice == "lines"
    return Calibration(
        pixel_size_nm=(float(values[0]), float(values[1])),
        pixel_size_sd_nm=(float(spread[0]), float(spread[1])),
        skew=None if lines else float(values[2]),
        skew_sd=None if lines else float(spread[2]),
        distortion=fit.distortion,
        distortion_sd=float(np.sqrt(fit.covariance[-1, -1])),
        rotation_deg=float(np.degrees(np.arctan2(first[0], first[1]))),
        lattice=lattice,
        pitch_nm=options.pitch_nm,
        periods=periods,
        residual_nm=fit.residual / (2 * np.pi) * options.pitch_nm,
        shape=(int(shape[0]), int(shape[1])),
    )


def _lattice(waves: FloatArray, asked: str) -> Literal["lines", "square", "hexagonal"]:
    """Tell what repeats by the angle between its wave vectors."""
    if len(waves) == 1:
        return "lines"
    if asked == "square" or asked == "hexagonal":
        return asked  # type: ignore[return-value]
    one, two = waves
    sine = abs(one[0] * two[1] - one[1] * two[0]) / np.hypot(*one) / np.hypot(*two)
    return "square" if sine > _OBLIQUE else "hexagonal"


def _sizes(waves: FloatArray, lattice: str, pitch_nm: float) -> FloatArray:
    """Pixel sizes along y and x in nm, and skew in degrees."""
    if lattice == "lines":
        size = pitch_nm * float(np.hypot(*waves[0]))
        return np.array([size, size, 0.0])
    one, two = waves
    if lattice == "square":
        metric = np.eye(2) / pitch_nm**2
    else:
        two = two if one @ two > 0 else -two
        metric = np.array([[1, 0.5], [0.5, 1]]) * 4 / (3 * pitch_nm**2)
    both = np.stack([one, two])
    squares = both.T @ np.linalg.inv(metric) @ both
    y, x = np.sqrt(np.diag(squares))
    return np.array([y, x, 90 - np.degrees(np.arccos(squares[0, 1] / (y * x)))])
