"""Pixel size, skew and distortion, measured from an image of a known grating.

A grating is a phase: ``2 pi k . u(x)``, with the wave vector ``k`` in cycles per pixel
and the field's distortion in ``u`` (`napari_semsr.core.distort_positions`). The image
is multiplied by the conjugate of that wave and smoothed over little more than a period,
which leaves the local phase difference; slowly varying brightness, other orders and the
other direction of a lattice are averaged out. Wave vectors and distortion are fitted to
these phases from the centre of the field outwards, so that no period is lost, and their
scatter about the fit gives the errors.

A distortion with a centre off the field's centre adds second-order terms. These are
fitted freely first; if they are significant and explained by a centre, the centre is
fitted instead. A tilt of the grating also adds such terms.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import numpy as np
import scipy  # the submodules are loaded lazily
from pydantic import model_validator

from napari_semsr import core

_SMOOTH = 0.8  # periods; such a Gaussian reduces the mean and other orders to e^-12
_MIN_PERIODS = 8.0  # periods across the field; chosen: fewer may be chance
# A peak belongs to a grating if it exceeds the spectrum around it by this factor, and
# to the second direction of a lattice if it has this share of the highest. Chosen:
# noise reaches 4 in a spectrum of a million values.
_PEAK = 6.0
_SECOND = 0.25
# Squared periods across the field up to which the peaks of a lattice fill each other's
# surroundings: three of 20 values among 1.26 times the square. Chosen: a fifth of the
# surroundings always remains free
_FILL_PERIODS, _BARE = 48.0, 0.2
# of the amplitude of its second or third order; chosen: aliases of sharp lines are less
_WHOLE = 0.04
# tolerance for one wave as a multiple of another, in samples of the spectrum per order;
# chosen: noise moves the weakest accepted peak by 0.1
_MEET = 0.35
_WIDENING = (0.5, 0.75, 1.0, 1.5, 1.5)  # radius of each fit, over that of the rim
_BEYOND_DOUBT = 4.0  # standard deviations, as for the distortion of a scan
# Of the rim's radius; chosen: farther out, it is not determined by the distortion
_FARTHEST = 0.3
# Displacements along y and x, in yy, yx, xx over the rim's squared radius, due to a
# move of the centre along y and x at a distortion of one.
_OFF_CENTRE = np.array([[[-3, 0, -1], [0, -2, 0]], [[0, -2, 0], [-1, 0, -3]]], float)
_OBLIQUE = 0.93  # sine of the angle between two waves: 1 if square, 0.87 if hexagonal
# Largest skew in degrees, and ratio of a pixel's sides; chosen: larger values are due
# to another pair of the lattice's orders
_MAX_SKEW = 15.0
_MAX_OBLONG = 1.3


class CalibrateOptions(core.Options):
    """Known properties of a grating or of a printed scale bar."""

    bar: bool | str | float = core.option(
        False,
        "",
        "find the printed scale bar instead of a grating; with the length on its "
        "label, such as '50 um', it yields the pixel size",
        metavar="LENGTH",
    )
    pitch_nm: float | None = core.option(None, "", "period of the grating in nm", gt=0)
    pitch_sd_nm: float = core.option(
        0.0, "", "standard deviation of that period in nm", ge=0
    )
    lattice: Literal["auto", "lines", "square", "hexagonal"] = core.option(
        "auto",
        "",
        "pattern of the grating: lines, or dots on a square or hexagonal lattice",
    )

    @model_validator(mode="after")
    def _check_grating_or_bar(self) -> Self:
        """Require a period for a grating and no grating options for a bar."""
        of_grating = [name for name in self.model_fields_set if name != "bar"]
        if self.bar is not False and of_grating:
            option_names = ", ".join(f"`{name}`" for name in sorted(of_grating))
            msg = (
                f"Grating options do not apply to a printed bar: omit {option_names} "
                "or `bar`"
            )
            raise ValueError(core.Message(msg, "option-without-effect"))
        if self.bar is False and self.pitch_nm is None:
            msg = "pitch_nm must be given"
            raise ValueError(core.Message(msg, "missing-value"))
        return self

    @property
    def period_nm(self) -> float:
        """Period of the grating in nm; NaN for a bar."""
        return math.nan if self.pitch_nm is None else self.pitch_nm


def measure_grating(
    image: core.RealArray, options: CalibrateOptions
) -> core.Calibration:
    """Calibrate a microscope from a grating image (Y, X); missing pixels are NaN."""
    finite = np.isfinite(image)
    if not finite.any():
        raise core.RegistrationError(_NONE, code="no-finite-values")
    plane = np.where(finite, image, 0).astype(np.float64)
    low = float(np.quantile(plane[finite], 0.005))
    plane = np.where(finite, plane - low, 0)
    level = _compute_local_mean(plane, finite)
    # of the brightest area; chosen: a round field is dark outside its circle
    in_light = finite & (level > 0.1 * level[finite].max())
    plane = np.where(in_light, plane - _compute_local_mean(plane, in_light), 0)
    del finite, level
    waves = _find_wave_vectors(plane, options.lattice)
    periods = float(np.hypot(*waves[0]) * min(plane.shape))
    if periods < _MIN_PERIODS:
        msg = (
            f"The image must show at least {_MIN_PERIODS:g} grating periods across the "
            f"field, got {periods:.1f}; use a finer grating."
        )
        raise core.RegistrationError(msg, code="too-few-periods")
    fit = _GratingFit(waves, np.zeros(len(waves)), 0.0)
    for widening in _WIDENING:
        # least radius over that of the rim; chosen: less hardly constrains
        fit = replace(fit, free="lean" if widening >= 0.75 else "none")
        fit = _refine_fit(plane, in_light, fit, widening)
    fit = _choose_distortion_model(fit, plane.shape)
    # fits with the final parameters; chosen: the second changes little
    for _ in range(2):
        fit = _refine_fit(plane, in_light, fit, _WIDENING[-1])
    # mean length of the phases' unit vectors; 0.9 if they scatter by 26 deg
    if not fit.agreement > 0.75:
        raise core.RegistrationError(_NONE, code="no-structure")
    return _create_calibration(fit, plane.shape, options, periods)


_NONE = (
    "No grating found: the image must show evenly spaced lines or dots over most of "
    "its field; use an in-focus image that shows only the grating."
)


@dataclass(frozen=True, slots=True)
class _GratingFit:
    """Wave fitted in each direction, with a common distortion."""

    waves: core.FloatArray  # (D, 2) Cycles per pixel
    phases: core.FloatArray  # (D,) At the centre of the field, in radians
    distortion: float
    centre: core.FloatArray = field(default_factory=lambda: np.zeros(2))  # In px
    # (W, 3) Second-order terms in px at the rim: along each direction, of yy, yx and xx
    lean: core.FloatArray = field(default_factory=lambda: np.zeros((1, 3)))
    # Covariance of phases, waves, distortion and other free parameters, in that order
    covariance: core.FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    residual: float = float("nan")  # RMS of the phase residuals, in radians
    agreement: float = 0.0  # Mean length of the sum of all phases' unit vectors
    # Parameters fitted in addition to waves and distortion
    free: Literal["none", "lean", "centre"] = "none"

    @property
    def directions(self) -> core.FloatArray:
        """Directions along which the waves measure displacement, (W, 2)."""
        if len(self.waves) > 1:
            return np.eye(2)
        return np.asarray(self.waves / np.hypot(*self.waves[0]))


def _compute_local_mean(
    plane: core.FloatArray, finite: core.BoolArray
) -> core.FloatArray:
    """Compute the local mean of the pixels in a mask."""
    wide = max(3, min(plane.shape) // 6)
    both = [plane * finite, finite.astype(np.float64)]
    for _ in range(2):
        both = [
            scipy.ndimage.uniform_filter(part, wide, mode="constant") for part in both
        ]
    return np.asarray(both[0] / np.maximum(both[1], 1e-6))


_Spectrum = tuple[core.FloatArray, core.FloatArray, core.FloatArray]


def _find_wave_vectors(plane: core.FloatArray, lattice: str) -> core.FloatArray:
    """Find the shortest wave vectors of the pattern, (1, 2) or (2, 2)."""
    window = np.outer(*(np.hanning(side + 2)[1:-1] for side in plane.shape))
    power = np.abs(scipy.fft.rfft2(plane * window)) ** 2
    amplitude = np.sqrt(scipy.ndimage.gaussian_filter(power, 1.0, mode="wrap"))
    del window, power
    sides = scipy.fft.fftfreq(plane.shape[0]), scipy.fft.rfftfreq(plane.shape[1])
    y, x = np.meshgrid(*sides, indexing="ij")
    radius = np.hypot(y, x) * min(plane.shape)
    peaks = amplitude == scipy.ndimage.maximum_filter(amplitude, 7, mode="wrap")
    peaks &= (radius > _MIN_PERIODS / 2) & (radius < 0.45 * min(plane.shape))
    rows, columns = np.nonzero(peaks)
    heights = amplitude[rows, columns]
    # number of highest peaks used; chosen: a lattice has 12 low orders
    order = np.argsort(-heights)[:24]
    waves_found = []
    for row, column in zip(rows[order], columns[order], strict=True):
        around = np.abs(radius / radius[row, column] - 1) < 0.2
        bare = max(1 - _FILL_PERIODS / radius[row, column] ** 2, _BARE)
        if amplitude[row, column] > _PEAK * np.quantile(amplitude[around], bare / 2):
            waves_found.append((amplitude[row, column], y[row, column], x[row, column]))
    if not waves_found:
        raise core.RegistrationError(_NONE, code="no-structure")
    table = np.array(waves_found)
    table = table[table[:, 0] > _SECOND * table[:, 0].max()]
    highest = _refine_peak(plane, table[0, 1:])
    vectors = table[np.argsort(np.hypot(table[:, 1], table[:, 2])), 1:]
    # for an alias or hum longer than the grating, the highest peak is not an order
    for left in range(len(vectors)):
        waves = _choose_wave_vectors(plane, vectors[left:], lattice, (amplitude, y, x))
        base = np.array([_refine_peak(plane, wave) for wave in waves])
        orders = np.round(np.linalg.lstsq(base.T, highest, rcond=None)[0])
        off = (highest - orders @ base) * plane.shape
        if np.hypot(*off) < _MEET * max(1.0, np.abs(orders).sum()):
            break
    return waves


def _choose_wave_vectors(
    plane: core.FloatArray, vectors: core.FloatArray, lattice: str, spectrum: _Spectrum
) -> core.FloatArray:
    """Choose the fundamental wave and, for a lattice, a second wave across it."""
    first = _find_fundamental_wave(plane, vectors[0], spectrum)
    across = [
        wave
        for wave in vectors[1:]
        if abs(first[0] * wave[1] - first[1] * wave[0])
        # sine of the angle below which two peaks are orders of one direction
        > 0.4 * np.hypot(*first) * np.hypot(*wave)
    ]
    if lattice == "lines" or (lattice == "auto" and not across):
        return _estimate_central_waves(plane, first[None])
    if not across:
        msg = (
            "The grating shows lines in only one direction, not a lattice of dots; set "
            "`lattice=lines`."
        )
        raise core.RegistrationError(msg, code="lattice-mismatch")
    # the sum of two orders may be a peak even if one of them is not
    second = across[0] - np.round(across[0] @ first / (first @ first)) * first
    return _estimate_central_waves(plane, np.stack([first, second]))


def _find_fundamental_wave(
    plane: core.FloatArray, wave: core.FloatArray, spectrum: _Spectrum
) -> core.FloatArray:
    """Find the fundamental of a second- or third-order wave.

    For equal lines and gaps with bright edges the second order is by far the strongest;
    for few lines the third is the first far enough from the zero frequency.
    """
    amplitude, y, x = spectrum
    radius, shape = np.hypot(y, x), plane.shape
    own = amplitude[np.hypot((y - wave[0]) * shape[0], (x - wave[1]) * shape[1]) < 2]
    for order in (3, 2):
        whole = wave / order
        away = np.hypot((y - whole[0]) * shape[0], (x - whole[1]) * shape[1])
        around = np.abs(radius / np.hypot(*whole) - 1) < 0.2
        least = max(_PEAK * np.median(amplitude[around]), _WHOLE * own.max())
        top = amplitude[away < 2].max(initial=0.0)
        if not top > least or top < amplitude[away < 4].max(initial=0.0):
            continue
        off = _refine_peak(plane, whole) - _refine_peak(plane, wave) / order
        # raises an error later; an alias is weaker
        few = top > own.max() and np.hypot(*whole) * min(shape) < _MIN_PERIODS
        if few or np.hypot(*off * shape) < _MEET:
            return np.asarray(whole)
    return wave


def _estimate_central_waves(
    plane: core.FloatArray, waves: core.FloatArray
) -> core.FloatArray:
    """Estimate wave vectors at the centre of the field, where distortion is least."""
    rows, columns = plane.shape
    middle = plane[rows // 4 : rows - rows // 4, columns // 4 : columns - columns // 4]
    least = 1.5 / min(plane.shape)
    each = [(wave, max(0.1 * float(np.hypot(*wave)), least)) for wave in waves]
    return np.array([_refine_peak(middle, wave, reach) for wave, reach in each])


def _refine_peak(
    plane: core.FloatArray, wave: core.FloatArray, reach: float | None = None
) -> core.FloatArray:
    """Find the highest peak of a spectrum near a wave, with subpixel precision."""
    reach = reach or 1.5 / min(plane.shape)
    plane = plane * np.outer(*(np.hanning(side + 2)[1:-1] for side in plane.shape))
    y, x = (np.arange(side) for side in plane.shape)
    steps = np.linspace(-reach, reach, 2 * int(8 * reach * min(plane.shape)) + 1)
    down = np.exp(-2j * np.pi * np.outer(wave[0] + steps, y))
    along = np.exp(-2j * np.pi * np.outer(x, wave[1] + steps))
    best = np.argmax(np.abs(down @ plane @ along))
    row, column = np.unravel_index(best, (len(steps), len(steps)))
    return np.array([wave[0] + steps[row], wave[1] + steps[column]])


def _choose_distortion_model(fit: _GratingFit, shape: core.IntPair) -> _GratingFit:
    """Choose between no second-order terms, a shifted centre, and free terms."""
    lean, none = fit.lean.ravel(), replace(fit, lean=0 * fit.lean, free="none")
    certain = np.linalg.inv(fit.covariance[-len(lean) :, -len(lean) :])
    chance = 2 * scipy.special.ndtr(-_BEYOND_DOUBT)
    if lean @ certain @ lean < scipy.special.chdtri(len(lean), chance):
        return none
    # (terms, 2) Effect of moving the centre along y and x
    moves = [(fit.directions @ part).ravel() for part in _OFF_CENTRE]
    by_centre = np.stack(moves, axis=1)
    pull = by_centre.T @ certain
    shift = np.linalg.solve(pull @ by_centre, pull @ lean)
    left = lean - by_centre @ shift
    is_explained = left @ certain @ left < scipy.special.chdtri(len(left) - 2, chance)
    error = np.sqrt(fit.covariance[3 * len(fit.waves), 3 * len(fit.waves)])
    rim = min(shape) / 2
    near = np.hypot(*shift) < abs(fit.distortion) * _FARTHEST * rim
    if not is_explained or not near or abs(fit.distortion) < _BEYOND_DOUBT * error:
        return fit
    centre = shift / fit.distortion
    # from here on waves are those at the centre, where the scale differs
    scale = np.eye(2) * (1 + fit.distortion * centre @ centre / rim**2)
    scale += 2 * fit.distortion * np.outer(centre, centre) / rim**2
    waves = fit.waves @ np.linalg.inv(scale)
    start = fit.distortion * (centre @ centre) / rim**2 * centre
    phases = fit.phases + 2 * np.pi * waves @ start
    return replace(none, waves=waves, phases=phases, centre=centre, free="centre")


def _get_field_centre(places: core.FloatArray, shape: core.IntPair) -> core.FloatArray:
    """Return the centre of the field in a shape that broadcasts with `places`."""
    middle = (np.array(shape) - 1) / 2
    return np.asarray(middle.reshape(2, *[1] * (places.ndim - 1)))


def _compute_second_order_terms(
    away: core.FloatArray, shape: core.IntPair
) -> core.FloatArray:
    """Compute yy, yx and xx divided by the squared radius of the rim, (3, …)."""
    y, x = away / (min(shape) / 2)
    return np.stack([y * y, y * x, x * x])


def _position_derivatives(
    places: core.FloatArray, fit: _GratingFit, shape: core.IntPair
) -> core.FloatArray:
    """Compute derivatives (…, 2, N) of positions (2, N) by each shared parameter."""
    (y, x), (rows, columns) = fit.centre, places
    moves = core.compute_radial_displacement(rows, columns, shape, centre=(y, x))
    rim = np.stack(moves) * (min(shape) / 2)
    if fit.free == "none":
        return rim[None]
    off = _get_field_centre(places, shape) + fit.centre[:, None]
    terms = _compute_second_order_terms(places - off, shape)
    if fit.free == "centre":
        more = fit.distortion * np.einsum("jat,tn->jan", _OFF_CENTRE, terms)
    else:
        more = np.einsum("wa,tn->wtan", fit.directions, terms)
        more = more.reshape(-1, *places.shape)
    return np.concatenate([rim[None], more])


def _refine_fit(
    plane: core.FloatArray, in_light: core.BoolArray, fit: _GratingFit, widening: float
) -> _GratingFit:
    """Fit waves and distortion to the phases within a given radius."""
    shape = plane.shape
    grid = np.indices(shape, np.float64)
    away = grid - _get_field_centre(grid, shape)
    y, x = fit.centre
    # undistorted pixel positions (2, …) relative to the field's centre
    ys, xs = grid
    even = np.stack(
        core.distort_positions(ys, xs, shape, fit.distortion, centre=(y, x))
    )
    even -= _get_field_centre(grid, shape)
    if fit.lean.any():
        terms = _compute_second_order_terms(away, shape)
        even += np.tensordot(fit.directions.T @ fit.lean, terms, 1)
        del terms
    width = _SMOOTH / float(np.hypot(*fit.waves.T).min())
    # maximum rows and columns of phases; chosen: more add little
    step = max(1, round(width), -(-max(shape) // 96))
    at = [np.arange(step // 2, side, step) for side in shape]
    scale = width * np.sqrt(2 * np.pi)
    smooth = [
        np.exp(-0.5 * ((np.arange(side) - places[:, None]) / width) ** 2) / scale
        for side, places in zip(shape, at, strict=True)
    ]
    cover = smooth[0] @ in_light @ smooth[1].T
    down, along = at[0][:, None], at[1]
    radius = np.hypot(*away[:, down, along]) / (min(shape) / 2)
    # share of the smoothing kernel in the field; chosen: less is biased
    in_fit = (cover > 0.9) & in_light[down, along] & (radius < widening)
    moves = _position_derivatives(grid[:, down, along][:, in_fit], fit, shape)
    count = len(fit.waves)
    rows, left, weight = [], [], []
    for which, (wave, phase) in enumerate(zip(fit.waves, fit.phases, strict=True)):
        angle = 2 * np.pi * np.tensordot(wave, even, 1) + phase
        away = smooth[0] @ (plane * np.exp(-1j * angle)) @ smooth[1].T
        residuals = (away / np.maximum(cover, 1e-6))[in_fit]
        own = np.zeros((3 * count + len(moves), len(residuals)))
        own[3 * which] = 1
        own[3 * which + 1 : 3 * which + 3] = 2 * np.pi * even[:, down, along][:, in_fit]
        own[3 * count :] = 2 * np.pi * np.einsum("a,jap->jp", wave, moves)
        rows.append(own)
        start = np.angle(residuals.sum())  # so that no residual is near the phase jump
        left.append(np.angle(residuals * np.exp(-1j * start)) + start)
        power = np.abs(residuals) ** 2
        weight.append(power / max(np.median(np.abs(residuals)) ** 2, 1e-30))
    residuals = np.concatenate(left), np.concatenate(weight)
    return _update_fit(fit, np.hstack(rows), *residuals, (width, step))


def _update_fit(
    fit: _GratingFit,
    design: core.FloatArray,
    left: core.FloatArray,
    weight: core.FloatArray,
    grain: tuple[float, int],
) -> _GratingFit:
    """Take a robust least-squares step for the phases."""
    unknowns = len(design)
    # neighbouring phases share noise: a Gaussian covers an area of 4 pi sigma squared
    variance_ratio = max(1.0, 4 * np.pi * grain[0] ** 2 / grain[1] ** 2)
    if len(left) < unknowns + 2:
        raise core.RegistrationError(_NONE, code="no-structure")
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
    lost_share = min(unknowns * variance_ratio / len(left), 0.8)
    variance /= 1 - lost_share
    inverse = np.linalg.inv(normal)
    scatter = inverse @ ((design * robust**2) @ design.T) @ inverse
    shared_from = 3 * len(fit.waves)
    parts, more = step[:shared_from].reshape(-1, 3), step[shared_from:]
    distortion = np.clip(
        fit.distortion + more[0], -core.MAX_DISTORTION, core.MAX_DISTORTION
    )
    return replace(
        fit,
        phases=fit.phases + parts[:, 0],
        waves=fit.waves + parts[:, 1:],
        distortion=float(distortion),
        centre=fit.centre + more[1:] if fit.free == "centre" else fit.centre,
        lean=fit.lean + more[1:].reshape(-1, 3) if fit.free == "lean" else fit.lean,
        covariance=scatter * variance * variance_ratio,
        residual=float(np.sqrt(variance)),
        agreement=float(np.abs(np.exp(1j * rest).mean())),
    )


def _create_calibration(
    fit: _GratingFit, shape: core.IntPair, options: CalibrateOptions, periods: float
) -> core.Calibration:
    """Convert fitted wave vectors into a calibration."""
    lattice = _identify_lattice(fit.waves, options.lattice)
    count = len(fit.waves)
    places = np.array([[3 * n + 1, 3 * n + 2] for n in range(count)]).ravel()
    covariance = fit.covariance[np.ix_(places, places)]
    values = _compute_pixel_sizes(fit.waves, lattice, options.period_nm)
    changes = []
    for index in range(2 * count):
        trial_waves = fit.waves.copy()
        small = 1e-6 * float(np.abs(trial_waves).max())
        trial_waves.flat[index] += small
        after = _compute_pixel_sizes(trial_waves, lattice, options.period_nm)
        changes.append((after - values) / small)
    change = np.array(changes)
    variance = np.einsum("ia,ij,ja->a", change, covariance, change)
    share = options.pitch_sd_nm / options.period_nm
    variance[:2] += (values[:2] * share) ** 2
    spread = np.sqrt(np.maximum(variance, 0))
    centre, error = fit.centre, np.sqrt(np.diag(fit.covariance)[-2:])
    around = np.linspace(0, np.pi, 90)
    rim = np.stack([np.sin(around), np.cos(around)]) * (min(shape) / 2)
    uneven = fit.lean @ _compute_second_order_terms(rim, shape)
    first, lines, has_centre = fit.waves[0], lattice == "lines", fit.free == "centre"
    return core.Calibration(
        pixel_size_nm=(float(values[0]), float(values[1])),
        pixel_size_sd_nm=(float(spread[0]), float(spread[1])),
        skew=None if lines else float(values[2]),
        skew_sd=None if lines else float(spread[2]),
        distortion=fit.distortion,
        distortion_sd=float(np.sqrt(fit.covariance[3 * count, 3 * count])),
        rotation_deg=float(np.degrees(np.arctan2(first[0], first[1]))),
        lattice=lattice,
        pitch_nm=options.period_nm,
        periods=periods,
        residual_nm=fit.residual / (2 * np.pi) * options.period_nm,
        shape=shape,
        centre_px=(float(centre[0]), float(centre[1])) if has_centre else None,
        centre_sd_px=(float(error[0]), float(error[1])) if has_centre else None,
        uneven_px=float(np.hypot.reduce(uneven).max()) or None,
    )


def _identify_lattice(
    waves: core.FloatArray, lattice: Literal["auto", "lines", "square", "hexagonal"]
) -> Literal["lines", "square", "hexagonal"]:
    """Identify the lattice by the angle between its wave vectors.

    Raises an error if the directions are implausible for the lattice.
    """
    if len(waves) == 1:
        return "lines"
    lengths = np.hypot(*waves.T)
    sine = abs(np.linalg.det(waves)) / lengths.prod()
    if lattice not in ("square", "hexagonal"):
        lattice = "square" if sine > _OBLIQUE else "hexagonal"
    usual = 90 if lattice == "square" else 60
    off = abs(np.degrees(np.arcsin(min(sine, 1.0))) - usual)
    if off > _MAX_SKEW or lengths.max() > _MAX_OBLONG * lengths.min():
        msg = (
            f"The image does not show a {lattice} lattice: its directions deviate by "
            f"{off:.0f} degrees, and its periods have a ratio of 1 to "
            f"{lengths.max() / lengths.min():.2f}. Use an image with less noise, or "
            "set `lattice`."
        )
        raise core.RegistrationError(msg, code="lattice-mismatch")
    return lattice


def _compute_pixel_sizes(
    waves: core.FloatArray, lattice: str, pitch_nm: float
) -> core.FloatArray:
    """Compute the pixel sizes along y and x in nm, and the skew in degrees."""
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
