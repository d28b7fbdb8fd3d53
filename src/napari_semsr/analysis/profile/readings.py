"""Profile readings: line widths, edge width and line pairs.

1. *Noise*: the median absolute second difference of the band's pixels, in order along
   the line.
2. *Lines* are peaks of the curve (or dips of a dark one), smoothed by 1 px; smoothing
   is doubled until a peak exceeds the noise.
3. *An edge* is a step from one level to another without lines.
4. Lines with overlapping surroundings are fitted together, as Gaussians and as blurred
   boxes; widths are the mean of both with Akaike weights.
5. *Plain* readings are crossings of the curve itself.

Lines that are clipped, or on a clipped background, and edges with a clipped side are
refused: the half maximum is unknown. Clipped pixels have one common grey value that is
white, or although there is noise elsewhere, or at which a gentle flank ends.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
import scipy  # the submodules are loaded lazily
from scipy import ndimage

from napari_semsr import core
from napari_semsr.analysis.profile import fits
from napari_semsr.analysis.profile.line import Profile

RAYLEIGH_DIP = 0.264
"""Dip between two Airy discs at the Rayleigh distance: 1 - 0.736 (Born & Wolf, 8.6.3).
"""
_MAD = 1.4826  # standard deviation of a Gaussian over its median absolute deviation
_OUT = 6.0  # sigma of the noise: both extremes of 1000 samples are within; chosen
_REACH = 2.5  # FWHM on either side: the surroundings of a line; 1e-8 of it is beyond
_MOST = 60  # maximum of lines, the highest; chosen: a longer list is not read
_STEP = 0.5  # least step of an edge, over the range; chosen
# Range of the fit on either side of an edge, over its blur, and in px. Chosen: long
# enough for the slope of the sides; with 4 and 8 px widths scatter more.
_EDGE_REACH, _MIN_REACH_PX = 6.0, 12.0
_TURNS = 3  # fits of a group, as widths change the range; chosen: two are usual
_CONVERGENCE = 0.2  # relative change of a width; chosen: below, the fit hardly changes
_CURVE_SAMPLES = 2000  # maximum samples of a model's curve; chosen: enough for a plot
_FINE = 200  # samples between two lines when searching their saddle; chosen
# Share of the lowest line below which background is visible: lines as wide as 0.4 of
# their period leave 1.3 % between them; chosen, as fits of a sine leave 2 to 12 %
_BARE = 0.02
# Ratio of the prominences of dark and bright lines above which the dark ones are
# measured; chosen: a gap between objects on an even background is at most as deep as
# these are high, and a dark line on a background that slopes by half of its depth is
# twice as deep
_CLEARLY_DARK = 1.5
# Share of the steepest step of the profile; chosen: spheres have two thirds even if the
# gap is 1.5 times as deep, a sloping background has almost none
_FLANK = 1 / 3
# Share of the steepest step of a flank; chosen: a Gaussian clipped at 98 % of its
# height ends with a third of it, a blurred bar with almost none
_CORNER = 0.3
_GENTLE_PX = 3  # least samples of a flank with a corner; chosen: sharp bars have fewer
# Share of neighbouring second differences with opposite signs, and least number;
# chosen: 73 % in white noise
_ALTERNATE, _FEWEST = 0.5, 3
# Share of the pixels of a level side, or of the background: if fewer are clipped, its
# mean changes by less than a fifth of the noise's standard deviation
_CLIPPED_SIDE = 0.3

Verdict = Literal["resolved", "not resolved", "undecided"]


@dataclass(frozen=True, slots=True)
class LineReading:
    """A line in the profile, either a peak or a dark dip; lengths in px."""

    model: str  # "gaussian" or "box"; "none" if no fit was found
    place: fits.Estimate | None  # None if no fit determines it, as for the width
    fwhm: fits.Estimate | None
    plain_place: float
    plain_fwhm: float | None  # between half-maximum crossings; None without two
    height: float  # above the background, negative for a dark line

    @property
    def position(self) -> float:
        """Fitted position, or the peak position without a fit."""
        return self.place.value if self.place else self.plain_place


@dataclass(frozen=True, slots=True)
class EdgeReading:
    """An edge in the profile; lengths in px."""

    place: fits.Estimate | None
    width: fits.Estimate | None  # from 10 to 90 %
    plain_width: float | None
    step: float  # level after the edge minus level before


@dataclass(frozen=True, slots=True)
class PairReading:
    """Two neighbouring lines; lengths in px, dips relative to the lower line."""

    first: int  # of the lines, from 0
    distance: fits.Estimate | None  # None if no fit determines it, as for the dip
    plain_distance: float
    dip: fits.Estimate | None
    plain_dip: float
    rayleigh: Verdict
    sparrow: Verdict
    reason: str | None  # Reason why the dip, or also the distance, is unknown


@dataclass(frozen=True, slots=True, eq=False)
class ProfileReadings:
    """Lines, edge and pairs measured in a profile."""

    lines: tuple[LineReading, ...]  # In order along the line, like the pairs
    pairs: tuple[PairReading, ...]
    edge: EdgeReading | None
    dark: Annotated[bool, core.declare_quantity("Dark")]
    # Standard deviation of one pixel, and grey level of the surroundings
    noise: Annotated[float, core.declare_quantity("Noise s.d.", core.LEVELS)]
    background: Annotated[float, core.declare_quantity("Background", core.LEVELS)]
    level: float  # grey level of the highest line or of the upper end
    reason: str | None  # Reason why there is neither line nor edge
    # Positions and values, (K,) each, of the fitted models
    curves: tuple[tuple[core.FloatArray, core.FloatArray], ...]

    @property
    def highest_line(self) -> LineReading | None:
        """Highest line; None if there are no lines."""
        return max(self.lines, key=lambda one: abs(one.height), default=None)


@dataclass(frozen=True, slots=True, eq=False)
class _CurveFeatures:
    """A curve, inverted for dark lines, and its peaks."""

    place: core.FloatArray
    level: core.FloatArray  # NaN in gaps, inverted if lines are dark
    without_gaps: core.FloatArray  # gaps interpolated linearly
    smooth: core.FloatArray
    smooth_px: float
    peaks: tuple[int, ...]
    base: float
    step_px: float
    sign: float  # -1 if inverted
    is_hidden: bool  # Whether all peaks are at missing pixels


def measure_profile(
    profile: Profile,
    *,
    polarity: Literal["auto", "bright", "dark"] = "auto",
    prominence: float = 0.1,
    pixel: Literal["area", "point"] = "area",
) -> ProfileReadings:
    """Measure the lines, edge and line pairs of a profile, or explain their absence.

    `prominence` is the minimum rise of a line above its surroundings, over the
    profile's range. A pixel averages over its area, for which fits correct, or is a
    point.

    Raises a `ReadError` for a constant curve, and for a line or an edge that is clipped
    (overexposed, or cut at black).

    References
    ----------
    M. Born, E. Wolf, Principles of Optics, 7th ed., 8.6.3 (Rayleigh's distance).
    """
    finite = profile.intensity[np.isfinite(profile.intensity)]
    largest = float(np.abs(finite).max(initial=0.0))
    # of the largest grey level; chosen: smaller variation is rounding
    if not finite.size or np.ptp(finite) <= 1e-13 * largest:
        description = f"{finite[0]:g} everywhere" if finite.size else "no known pixel"
        msg = (
            f"A profile must show some contrast to be measured, got {description}; "
            "draw the line across a structure."
        )
        raise core.ReadError(
            msg, code="no-structure" if finite.size else "no-finite-values"
        )
    order = np.argsort(profile.place_px, kind="stable")
    values = profile.value[order]
    noise = 0.0  # standard deviation of a pixel, from second differences
    if len(values) >= 3:
        bends = values[2:] - 2 * values[1:-1] + values[:-2]
        noise = float(_MAD * np.median(np.abs(bends)) / math.sqrt(6))
    features, step = _choose_features(profile, noise, polarity, prominence)
    _check_profile_clipping(profile, features, step)
    if pixel == "point":
        profile = replace(profile, spread_px=0.0)
    if step is not None:
        return _measure_edge(profile, features, step, noise)
    lines: tuple[LineReading, ...] = ()
    pairs: tuple[PairReading, ...] = ()
    curves: tuple[tuple[core.FloatArray, core.FloatArray], ...] = ()
    top, reason = float(features.smooth.max()), None
    if features.peaks:
        owners = _fit_groups(profile, features)
        lines = _measure_lines(owners, features)
        pairs = _measure_pairs(owners, lines, features)
        groups = dict.fromkeys(group for group, _ in owners if group is not None)
        curves = tuple(group.sample_model() for group in groups)
        top = max(float(features.smooth[peak]) for peak in features.peaks)
    elif features.is_hidden:
        reason = "pixels are missing at the peak of a line; draw the line elsewhere"
    elif np.ptp(features.smooth) > _OUT * noise / math.sqrt(profile.lines):
        reason = "no whole line and no edge between two levels; draw a longer line"
    else:
        reason = "no line or edge is distinguishable from noise"
    levels = noise, features.sign * features.base, features.sign * top
    dark = features.sign < 0
    return ProfileReadings(lines, pairs, None, dark, *levels, reason, curves)


def _choose_features(
    profile: Profile,
    noise: float,
    polarity: Literal["auto", "bright", "dark"],
    prominence: float,
) -> tuple[_CurveFeatures, core.FloatPair | None]:
    """Find bright or dark peaks; also return the levels of an edge, if there is one."""
    find = partial(_find_features, profile, prominence=prominence)
    low, middle, high = np.nanpercentile(profile.intensity, (2, 50, 98))
    is_mostly_bright = bool(high - middle < middle - low)
    dark = polarity == "dark" or (polarity == "auto" and is_mostly_bright)
    features = find(noise, dark=dark)
    step = _find_step(profile, features, noise)
    if polarity == "auto" and step is None and (dark or not features.peaks):
        # a line wider than half of the profile is mistaken for the background; twice
        # the noise as two tests are made, chosen
        other = find(2.0 * noise, dark=not dark)
        if other.peaks and not (
            features.peaks and _crosses_dark_lines(features, other)
        ):
            features = other
    return features, step


def _crosses_dark_lines(dark: _CurveFeatures, bright: _CurveFeatures) -> bool:
    """Check whether a profile with both kinds of lines crosses the dark ones.

    A gap between bright objects, or next to one, is as deep as these are high, or
    deeper if the background is uneven. So dark lines are those that are far deeper than
    bright structures without a flank on one side (a sloping background), or those on a
    bright background: both ends of the profile are bright, and one of them belongs to
    its longest bright stretch.
    """
    smooth = bright.smooth
    heights, left, right = scipy.signal.peak_prominences(smooth, bright.peaks)
    deepest = float(scipy.signal.peak_prominences(dark.smooth, dark.peaks)[0].max())
    highest = int(np.argmax(heights))
    peak, start, end = bright.peaks[highest], left[highest], right[highest]
    steps = np.abs(np.diff(smooth))
    flanks = steps[start:peak].max(initial=0.0), steps[peak:end].max(initial=0.0)
    is_deeper = deepest > _CLEARLY_DARK * heights[highest]
    if is_deeper and min(flanks) < _FLANK * steps.max():
        return True
    above = smooth > (smooth.min() + smooth.max()) / 2
    if not (above[0] and above[-1]):
        return False
    changes = np.flatnonzero(np.diff(above)) + 1
    lengths = np.diff([0, *changes, len(above)])[::2]  # lengths of bright stretches
    return bool(lengths.max() in (lengths[0], lengths[-1]))


# Clipped lines and edges.


def _check_profile_clipping(
    profile: Profile, features: _CurveFeatures, step: core.FloatPair | None
) -> None:
    """Raise an error if a line, an edge or the background is clipped."""
    at, bright = profile.place_px, features.sign > 0
    level = np.interp(at, features.place, features.without_gaps)
    if step is not None:
        middle = sum(step) / 2 if bright else -sum(step) / 2
        for side, white in (level > middle, bright), (level < middle, not bright):
            name = f"{'bright' if white else 'dark'} side of the edge"
            _check_section_clipping(profile, side, _CLIPPED_SIDE, name, white=white)
        return
    unit = "nm" if profile.is_calibrated else "px"
    for peak in features.peaks:
        ends = _find_line_ends(features, features.smooth, peak)
        if ends is None:
            place, width = _estimate_position_and_width(features, peak)
            ends = place - width / 2, place + width / 2
        line = (at >= ends[0]) & (at <= ends[1])
        name = f"line at {sum(ends) / 2 * profile.per_px:.4g} {unit}"
        share = core.OVEREXPOSED_SHARE
        _check_section_clipping(profile, line, share, name, white=bright)
        reach = _REACH * (ends[1] - ends[0])
        quarter = (3 * features.base + features.smooth[peak]) / 4
        ground = (at >= ends[0] - reach) & (at <= ends[1] + reach) & (level < quarter)
        name = f"background of the {name}"
        _check_section_clipping(profile, ground, _CLIPPED_SIDE, name, white=not bright)


def _check_section_clipping(
    profile: Profile,
    part: core.BoolArray,
    share: float,
    name: str,
    *,
    white: bool,
) -> None:
    """Raise an error if too many pixels of a section are clipped to white or black."""
    values = profile.value[part]
    if not values.size:
        return
    level = float(values.max() if white else values.min())
    is_clipped = white and core.is_white(level, profile.dtype, profile.bits)
    count = np.count_nonzero(core.mark_equal_values(values, level))
    if np.ptp(values) and not (is_clipped and count > share * len(values)):
        found_level = core.find_clipped_level(values, white=white, share=share)
        if found_level is None:
            return
        level, is_clipped = found_level, False
    is_clipped = is_clipped or _has_noise_elsewhere(profile, level)
    if not (is_clipped or _has_abrupt_plateau(profile, level, white=white)):
        return
    clipped_share = np.mean(core.mark_equal_values(values, level))
    end, remedy = ("greatest", "less") if white else ("least", "more")
    msg = (
        "The width cannot be measured because the profile is clipped: "
        f"{100 * clipped_share:.0f} % of the pixels in the {name} have the {end} grey "
        f"value, {level:g}. Acquire the image with {remedy} light, or draw the line "
        "elsewhere."
    )
    raise core.ReadError(msg, code="clipped")


def _has_noise_elsewhere(profile: Profile, level: float) -> bool:
    """Check for noise outside the pixels with a given grey value."""
    is_level = core.mark_equal_values(profile.intensity, level)
    bends = np.diff(np.where(is_level, np.nan, profile.intensity), 2)
    turns = bends[1:] * bends[:-1]
    turns = turns[np.isfinite(turns)]
    if len(turns) < _FEWEST or np.mean(turns < 0) <= _ALTERNATE:
        return False
    values = profile.value[~core.mark_equal_values(profile.value, level)]
    whole = bool((values == np.rint(values)).all())
    rough = float(np.median(np.abs(bends[np.isfinite(bends)]))) * _MAD / math.sqrt(6)
    noise = rough * math.sqrt(profile.lines)
    # grey levels: more noise than that of rounding, which is 0.29
    return noise > (0.5 if whole else core.ROUNDING * abs(level))


def _has_abrupt_plateau(profile: Profile, level: float, *, white: bool) -> bool:
    """Check whether gentle flanks end abruptly at a grey value.

    Uses the highest pixels at each position, or the lowest if `white` is false, since
    only a part of the band may be clipped; differences due to rounding are averaged.
    """
    order = np.argsort(profile.place_px, kind="stable")
    place = np.rint(profile.place_px[order])
    starts = np.flatnonzero(np.diff(place, prepend=-np.inf))
    extreme = np.maximum if white else np.minimum
    values = profile.value[order]
    curve = extreme.reduceat(values, starts)
    if (values == np.rint(values)).all():
        mean = np.add.reduceat(values, starts) / np.diff([*starts, len(values)])
        curve = np.where(np.abs(curve - mean) <= 1, mean, curve)
    at = core.mark_equal_values(curve, level)
    rise = np.abs(np.diff(curve))
    rise[np.diff(place[starts]) > 1] = np.nan  # there is no flank across a gap
    steepest = float(np.nanmax(rise, initial=0.0))
    for side, steps in (at, rise), (at[::-1], rise[::-1]):
        ends = side[:-1] & ~side[1:] & np.isfinite(steps)
        for first in np.flatnonzero(ends) + 1:  # beyond the plateau
            flank = steps[first : first + _GENTLE_PX]
            if len(flank) == _GENTLE_PX and flank.min() > _CORNER * steepest:
                return True
    return False


def _find_features(
    profile: Profile, noise: float, *, dark: bool, prominence: float
) -> _CurveFeatures:
    """Find peaks, doubling the smoothing until one exceeds the noise."""
    place, sign = profile.distance_px, -1.0 if dark else 1.0
    level = sign * profile.intensity
    gaps = ~np.isfinite(level)
    without_gaps = np.interp(place, place[~gaps], level[~gaps])
    step = profile.length_px / max(1, len(place) - 1)
    width, peaks = 1.0, np.empty(0, int)
    while True:
        smooth = ndimage.gaussian_filter1d(without_gaps, width / step, mode="nearest")
        # share of white noise that remains after a Gaussian
        left = noise / math.sqrt(profile.lines * 2 * math.sqrt(math.pi) * width)
        least = max(prominence * float(np.ptp(smooth)), _OUT * left)
        peaks, about = scipy.signal.find_peaks(smooth, prominence=max(least, 1e-300))
        # of the line's length: broader peaks have no surroundings; chosen
        if len(peaks) or 2 * width > (1 / 8) * profile.length_px:
            break
        width *= 2
    if len(peaks) > _MOST:
        highest = np.argsort(about["prominences"])[-_MOST:]
        peaks = np.sort(peaks[highest])
    # level of the surroundings: median of the values below the centre of the range
    base = float(np.median(smooth[smooth <= (smooth.min() + smooth.max()) / 2]))
    known = tuple(int(peak) for peak in peaks if not gaps[peak])
    is_hidden = len(peaks) > 0 and not known
    return _CurveFeatures(
        place, level, without_gaps, smooth, width, known, base, step, sign, is_hidden
    )


def _find_crossing(
    place: core.FloatArray, level: core.FloatArray, start: int, half: float, way: int
) -> float | None:
    """Find where a curve first falls to a level on one side of a given sample."""
    at, values = place[start::way], level[start::way]
    ends = 1 + np.flatnonzero(~(values[1:] > half))
    if not ends.size or not math.isfinite(values[ends[0]]):
        return None
    before, after = ends[0] - 1, ends[0]
    share = (values[before] - half) / (values[before] - values[after])
    return float(at[before] + share * (at[after] - at[before]))


def _find_half_maximum(
    place: core.FloatArray, level: core.FloatArray, peak: int, base: float
) -> tuple[float | None, float | None]:
    """Find the half-maximum crossings on both sides of a peak."""
    if level[peak] <= base:  # possible in the unsmoothed curve
        return None, None
    half = (float(level[peak]) + base) / 2
    left = _find_crossing(place, level, peak, half, -1)
    return left, _find_crossing(place, level, peak, half, 1)


def _find_line_ends(
    features: _CurveFeatures, level: core.FloatArray, peak: int
) -> core.FloatPair | None:
    """Find a line's half-maximum crossings, unless another line is between them."""
    left, right = _find_half_maximum(features.place, level, peak, features.base)
    if left is None or right is None:
        return None
    others = [float(features.place[other]) for other in features.peaks if other != peak]
    is_merged = any(left <= other <= right for other in others)
    return None if is_merged else (left, right)


def _estimate_position_and_width(features: _CurveFeatures, peak: int) -> core.FloatPair:
    """Estimate the position and width of a line on a smoothed curve.

    The peak of a broad line may be a bump anywhere on it: its centre is used.
    """
    width = features.smooth_px
    place, rough = float(features.place[peak]), 0.0
    ends: core.FloatPair | None = None
    for _ in range(3):
        sharper = ends
        sigma = width / features.step_px
        smooth = ndimage.gaussian_filter1d(features.without_gaps, sigma, mode="nearest")
        ends = _find_line_ends(features, smooth, peak)
        if sharper is not None and ends is None:  # smoothing hides them
            break
        left, right = _find_half_maximum(features.place, smooth, peak, features.base)
        middle = float(features.place[peak])
        sides = [abs(side - middle) for side in (left, right) if side is not None]
        rough = 2 * min(sides) if sides else features.place[-1] / 4
        place = middle
        if ends is not None:
            between = smooth[(features.place >= ends[0]) & (features.place <= ends[1])]
            # mostly closer to the peak than to its half: not the rim of a broader
            # structure
            if np.median(between) > (3 * smooth[peak] + features.base) / 4:
                place, rough = sum(ends) / 2, ends[1] - ends[0]
        if rough <= 4 * width:
            break
        width = rough / 4
    blur = fits.GAUSSIAN_FWHM * width
    return place, max(math.sqrt(max(rough**2 - blur**2, 0.0)), rough / 3, 1.0)


# Groups of lines that are fitted together.


@dataclass(frozen=True, slots=True, eq=False)
class _LineGroup:
    """Neighbouring lines that are fitted together, and their fit range."""

    start: float
    end: float
    fit: fits.ModelFit  # the better model; its positions are relative to `start`
    other: fits.ModelFit | None = None  # the other model, if it is plausible

    @property
    def has_background(self) -> bool:
        """Whether background is visible at both ends, or clearly at one end."""
        ends = np.array([0, self.end - self.start])
        left = np.abs(self.fit.evaluate(ends, background=False)).max()
        lines = self.fit.line_parameters
        if left < _BARE * np.abs(lines[:, 0]).min():
            return True
        outer = lines[[0, -1]]
        widths = [_compute_line_fwhm(line) for line in outer]
        # FWHM beyond an outer line from which it is background: 2e-5 is left
        return bool((np.abs(outer[:, 1] - ends) / widths).max() > 2.0)

    def estimate_position(self, number: int) -> fits.Estimate | None:
        """Return a line's position; None if it is not known to the line's width."""
        at = self.fit.get_position_index(number)
        place = self.fit.estimate(lambda p: float(p[at]) + self.start)
        width = _compute_line_fwhm(self.fit.line_parameters[number])
        return _keep_determined(place, width)

    def estimate_fwhm(self, number: int) -> fits.Estimate | None:
        """Return a line's full width at half maximum; None if unknown."""
        models = [self.fit] if self.other is None else [self.fit, self.other]
        widths = [_estimate_fwhm(fit, number) for fit in models]
        return _keep_determined(fits.average_estimates(models, widths))

    def sample_model(self) -> tuple[core.FloatArray, core.FloatArray]:
        """Sample the model at ten positions per pixel, at most 2000."""
        count = min(_CURVE_SAMPLES, int(10 * (self.end - self.start)) + 2)
        places = np.linspace(0, self.end - self.start, count)
        return places + self.start, self.fit.evaluate(places)


def _keep_determined(
    estimate: fits.Estimate, scale: float | None = None
) -> fits.Estimate | None:
    """Return an estimate; None if its interval is wider than it, or than a scale."""
    ends = estimate.low, estimate.high
    scale = estimate.value if scale is None else scale
    return estimate if core.is_determined(ends, scale) else None


def _estimate_fwhm(fit: fits.ModelFit, number: int) -> fits.Estimate:
    first, end = (fit.get_position_index(k) - 1 for k in (number, number + 1))
    return fit.estimate(lambda p: _compute_line_fwhm(p[first:end]), positive=True)


def _compute_line_fwhm(line: core.FloatArray) -> float:
    return fits.compute_fwhm(*(fits.convert_log_width(log) for log in line[2:]))


_Owner = tuple[_LineGroup | None, int]  # the fit of a line, and its index in it


def _fit_groups(profile: Profile, features: _CurveFeatures) -> list[_Owner]:
    """Fit lines with overlapping surroundings together."""
    rough = (_estimate_position_and_width(features, peak) for peak in features.peaks)
    places, widths = zip(*rough, strict=True)
    groups = [[0]]
    for number in range(1, len(places)):
        gap = places[number] - places[number - 1]
        near = gap <= _REACH * (widths[number - 1] + widths[number]) / 2
        # maximum of lines fitted together: time grows with the cube; chosen
        if near and len(groups[-1]) < 6:
            groups[-1].append(number)
        else:
            groups.append([number])
    owners: list[_Owner] = []
    for group in groups:
        fit = _fit_group(profile, features, group, np.array([places, widths])[:, group])
        owners += [(fit, number) for number in range(len(group))]
    return owners


def _fit_group(
    profile: Profile,
    features: _CurveFeatures,
    numbers: Sequence[int],
    begin: core.FloatArray,
) -> _LineGroup | None:
    """Fit a group of lines, and refit it if its surroundings change."""
    peaks = [features.peaks[number] for number in numbers]
    places, widths = begin.tolist()
    heights = features.sign * (features.smooth[peaks] - features.base)
    best = None
    for _ in range(_TURNS):
        # up to the adjacent saddles
        low = min(p - _REACH * w for p, w in zip(places, widths, strict=True))
        high = max(p + _REACH * w for p, w in zip(places, widths, strict=True))
        low = max(low, _find_adjacent_minimum(features, peaks[0], -1))
        high = min(high, _find_adjacent_minimum(features, peaks[-1], 1))
        if numbers[0] > 0:
            low = max(low, _find_saddle(features, numbers[0] - 1))
        if numbers[-1] + 1 < len(features.peaks):
            high = min(high, _find_saddle(features, numbers[-1]))
        low, high = max(low, 0.0), min(high, float(features.place[-1]))
        inside = (profile.place_px >= low) & (profile.place_px <= high)
        at, values = profile.place_px[inside] - low, profile.value[inside]
        sigmas = np.divide(widths, fits.GAUSSIAN_FWHM)
        start = np.column_stack([heights, np.subtract(places, low), sigmas])
        models = _fit_models(at, values, start, profile.spread_px, high - low)
        if not models:
            break
        best = _LineGroup(low, high, *models)
        read = [best.estimate_fwhm(number) for number in range(len(peaks))]
        fitted_widths = [
            width if one is None else one.value
            for one, width in zip(read, widths, strict=True)
        ]
        change = float(np.abs(np.log(np.divide(fitted_widths, widths))).max())
        if change < _CONVERGENCE:
            break
        widths = fitted_widths
    return best


def _find_adjacent_minimum(features: _CurveFeatures, peak: int, way: int) -> float:
    """Find the lowest point on one side of a line, before the curve rises again.

    If that is above half of the line's height, the profile may end on an object, which
    has no peak and is not background.
    """
    side = features.smooth[peak:] if way > 0 else features.smooth[peak::-1]
    share = (side - features.base) / (features.smooth[peak] - features.base)
    has_fallen = np.logical_or.accumulate(share < 0.25)
    again = np.flatnonzero(has_fallen & (share > 0.5))
    if not again.size:
        return math.inf * way
    return float(features.place[peak + way * int(np.argmin(side[: again[0]]))])


def _find_saddle(features: _CurveFeatures, first: int) -> float:
    """Find the lowest point between two adjacent peaks."""
    one, two = features.peaks[first], features.peaks[first + 1]
    return float(features.place[one + int(np.argmin(features.smooth[one : two + 1]))])


def _fit_models(
    at: core.FloatArray,
    values: core.FloatArray,
    begin: core.FloatArray,
    area: float,
    length: float,
) -> list[fits.ModelFit]:
    """Fit Gaussian and box models, and return the better model first."""
    # start from a box of the same FWHM with steep sides
    width = begin[:, 2] * fits.GAUSSIAN_FWHM
    boxes = np.column_stack([begin[:, :2], width / 6, width])
    bell, box = (fits.fit_lines(at, values, start, area) for start in (begin, boxes))
    # every line must have kept its sign and be in the fit range, and every box must be
    # distinguishable from its blur
    candidates = [
        fit
        for fit in (bell, box)
        if fit
        and all(
            line[0] * start[0] > 0
            and 0 <= line[1] <= length
            and abs(line[1] - start[1]) <= fits.GAUSSIAN_FWHM * start[2] / 2
            and (
                fit is bell
                or fits.convert_log_width(line[3])
                # of the blur: smaller boxes look like a Gaussian; chosen
                > 0.5 * math.hypot(fits.convert_log_width(line[2]), fit.area_px)
            )
            for line, start in zip(fit.line_parameters, begin, strict=True)
        )
    ]
    return sorted(candidates, key=lambda fit: fit.akaike_criterion)


# Limits of a line's fitted FWHM among others over its plain width: wide overlapping
# lines have the same curve as narrow ones with a flat background between them; chosen.
# A much smaller FWHM is that of a part of the line; pixels and interpolation add less
# than _BLUR_PX.
_MAX_WIDER = 1.5
_BLUR_PX = 2.0


def _measure_lines(
    owners: Sequence[_Owner], features: _CurveFeatures
) -> tuple[LineReading, ...]:
    """Measure every line by its fit and its half-maximum crossings."""
    read = []
    place: fits.Estimate | None
    fwhm: fits.Estimate | None
    for (group, number), peak in zip(owners, features.peaks, strict=True):
        at = float(features.place[peak])
        height = features.sign * float(features.smooth[peak] - features.base)
        model, place, fwhm = "none", None, None
        if group is not None:
            model, place = group.fit.shape, group.estimate_position(number)
            fwhm = group.estimate_fwhm(number)
            height = float(group.fit.line_parameters[number, 0])
        ends = _find_line_ends(features, features.level, peak)
        plain = None if ends is None else ends[1] - ends[0]
        if group is not None and fwhm and plain and fwhm.value > _MAX_WIDER * plain:
            alone = len(group.fit.line_parameters) == 1 and group.has_background
            fwhm = fwhm if alone else None
        if fwhm and plain and math.hypot(_MAX_WIDER * fwhm.value, _BLUR_PX) < plain:
            fwhm = None
        read.append(LineReading(model, place, fwhm, at, plain, height))
    return tuple(read)


# Pairs.


def _measure_pairs(
    owners: Sequence[_Owner], lines: Sequence[LineReading], features: _CurveFeatures
) -> tuple[PairReading, ...]:
    pairs = []
    distance: fits.Estimate | None
    dip: fits.Estimate | None
    for first, ((one, at), (two, _)) in enumerate(itertools.pairwise(owners)):
        distance = dip = reason = None
        left, right = lines[first].place, lines[first + 1].place
        if one is None or two is None or left is None or right is None:
            reason = "one of the two lines has no fit"
        elif one is two:
            distance, dip = _estimate_pair(one, at)
        else:
            apart = right.value - left.value
            distance = fits.create_estimate(apart, math.hypot(left.sd, right.sd))
            # lines that hardly overlap: the sum of their separate fits
            course = np.linspace(left.value, right.value, _FINE + 1)
            levels = [
                np.abs(group.fit.evaluate(course - group.start, background=False))
                for group in (one, two)
            ]
            level = levels[0] + levels[1]
            low = float(min(level[0], level[-1]))
            noise = [g.fit.noise / math.sqrt(g.fit.pixels) for g in (one, two)]
            error = math.hypot(*noise) / low
            dip = fits.create_estimate(1 - float(level.min() / low), error)
        distance = distance and _keep_determined(distance)
        dip = dip and _keep_determined(dip, 1.0)
        if reason is None and not (distance and dip):
            reason = "the fit does not determine the distance or the dip"
        sparrow = _classify_dip(dip, 0.0)  # which needs no background
        bare = [group.has_background for group in (one, two) if group]
        if reason is None and not all(bare):
            dip = None
            reason = "no background is visible next to the lines; draw a longer line"
        start, end = features.peaks[first : first + 2]
        lower = min(features.level[start], features.level[end]) - features.base
        valley = max(features.level[start : end + 1].min() - features.base, 0.0)
        # relative to the lower line; 1 is down to the background
        plain = float(1 - valley / lower) if lower > 0 else math.nan
        verdicts = _classify_dip(dip, RAYLEIGH_DIP), sparrow, reason
        plainly = lines[first + 1].plain_place - lines[first].plain_place
        pairs.append(PairReading(first, distance, plainly, dip, plain, *verdicts))
    return tuple(pairs)


def _estimate_pair(
    group: _LineGroup, first: int
) -> tuple[fits.Estimate, fits.Estimate]:
    """Estimate the distance of two lines of a fit, and the dip between them.

    The dip is relative to the lower line.
    """
    at, other = map(group.fit.get_position_index, (first, first + 1))

    def compute_dip(p: core.FloatArray) -> float:
        places = np.linspace(p[at], p[other], _FINE + 1)
        level = np.abs(group.fit.evaluate(places, p, background=False))
        # the peaks of the sum are slightly closer to each other than the lines
        lowest = int(np.argmin(level[1:-1])) + 1
        lower = min(level[: lowest + 1].max(), level[lowest:].max())
        return 1 - float(level[lowest] / lower)

    distance = group.fit.estimate(lambda p: float(p[other] - p[at]))
    return distance, group.fit.estimate(compute_dip)


def _classify_dip(dip: fits.Estimate | None, least: float) -> Verdict:
    """Classify a dip by comparing its interval with a threshold."""
    if dip is None or dip.low <= least < dip.high:
        return "undecided"
    return "resolved" if dip.low > least else "not resolved"


# Edges.


def _find_step(
    profile: Profile, features: _CurveFeatures, noise: float
) -> core.FloatPair | None:
    """Return the levels before and after an edge; None if there is no edge."""
    level = features.sign * features.without_gaps
    # of the line: parts whose means are the levels of an edge; chosen
    count = max(2, round(0.1 * len(level)))
    before, after = float(level[:count].mean()), float(level[-count:].mean())
    step, span = abs(after - before), float(np.ptp(features.smooth))
    left = noise / math.sqrt(profile.lines * count)
    if step < _STEP * span or step < _OUT * left:
        return None
    # Share of the step that the curve, averaged like the levels, has risen by: a ramp
    # rises everywhere, and the end of a line rises within the part of one level.
    mean = ndimage.uniform_filter1d(level, count, mode="nearest")
    risen = (mean - before) / (after - before)
    is_ramp = np.mean(np.abs(risen - 0.5) < _STEP / 2) > _STEP / 2
    if is_ramp or risen[:count].max() > 0.5 or risen[-count:].min() < 0.5:
        return None
    for slope in (features.smooth, -features.smooth):
        if len(scipy.signal.find_peaks(slope, prominence=_STEP * step)[0]):
            return None
    return before, after


def _measure_edge(
    profile: Profile,
    features: _CurveFeatures,
    levels: core.FloatPair,
    noise: float,
) -> ProfileReadings:
    before, after = levels
    step = after - before
    level, smooth = features.sign * features.level, features.sign * features.smooth
    middle = _find_level_crossing(features.place, (smooth - before) / step, 0.5, None)
    place = features.place[-1] / 2 if middle is None else middle

    def compute_width(curve: core.FloatArray) -> float | None:
        tenth, most = (
            _find_level_crossing(features.place, (curve - before) / step, k, place)
            for k in (0.1, 0.9)
        )
        return None if tenth is None or most is None else abs(most - tenth)

    rough, plain = compute_width(smooth), compute_width(level)
    sigma = (2.0 if rough is None else rough) / fits.EDGE_10_90
    candidates = _fit_edge(profile, (before, step, place, max(sigma, 0.5)))
    low, high = sorted(levels)
    widths = [
        one.estimate(
            lambda p: fits.EDGE_10_90 * fits.convert_log_width(p[3]), positive=True
        )
        for one in candidates[:2]
    ]
    if not widths or widths[0].value > features.place[-1]:
        edge = EdgeReading(None, None, plain, step)
        return ProfileReadings((), (), edge, False, noise, low, high, None, ())
    fit, width = candidates[0], fits.average_estimates(candidates[:2], widths)
    at = _keep_determined(fit.estimate(lambda p: float(p[2])), width.value)
    count = min(_CURVE_SAMPLES, 10 * len(features.place))
    places = np.linspace(0, features.place[-1], count)
    edge = EdgeReading(at, _keep_determined(width), plain, float(fit.parameters[1]))
    curves = ((places, fit.evaluate(places)),)
    return ProfileReadings((), (), edge, False, noise, low, high, None, curves)


def _fit_edge(
    profile: Profile, begin: tuple[float, float, float, float]
) -> list[fits.ModelFit]:
    """Fit an edge in its neighbourhood, so that distant structures do not widen it.

    Returns the models with level and with sloping sides, the better one first.
    """
    places, values, area = profile.place_px, profile.value, profile.spread_px
    before, step, place, sigma = begin
    starts = np.geomspace(1, max(sigma, 1), 1 + math.ceil(math.log2(max(sigma, 1))))
    starts_tried: list[tuple[float, ...]]
    starts_tried = [(before, step, place, one, 0.0) for one in starts.tolist()]
    best: list[fits.ModelFit] = []
    near = np.ones(len(places), bool)
    for _ in range(1 + _TURNS):
        candidates = (
            fits.fit_edge(places[near], values[near], one, area) for one in starts_tried
        )
        sound = [fit for fit in candidates if fit and fit.parameters[1] * step > 0]
        if not sound:
            break
        former, best = best, sorted(sound, key=lambda fit: fit.akaike_criterion)
        low, rise, place, log, *slope = best[0].parameters.tolist()
        if former and abs(former[0].parameters[3] - log) < _CONVERGENCE:
            break
        sigma = fits.convert_log_width(log)
        reach = max(_EDGE_REACH * math.hypot(sigma, area), _MIN_REACH_PX)
        near = np.abs(places - place) <= reach
        level_start = (low, rise, place, sigma)
        starts_tried = [level_start, (*level_start, *(slope or [0]))]
    return best


def _find_level_crossing(
    place: core.FloatArray, share: core.FloatArray, least: float, near: float | None
) -> float | None:
    """Find where an edge crosses a level: at its centre, or nearest to `near`."""
    up = np.flatnonzero((share[:-1] < least) & (share[1:] >= least))
    if not up.size:
        return None
    k = (least - share[up]) / (share[up + 1] - share[up])
    at = place[up] + k * (place[up + 1] - place[up])
    return float(at[len(at) // 2 if near is None else np.argmin(np.abs(at - near))])
