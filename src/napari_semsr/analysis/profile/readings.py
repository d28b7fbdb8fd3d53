"""Readings of a profile: widths of lines, the width of an edge, pairs of lines.

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
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import scipy  # the submodules are loaded lazily
from scipy import ndimage

from napari_semsr.analysis.profile.fits import (
    EDGE_10_90,
    GAUSSIAN_FWHM,
    Estimate,
    ModelFit,
    akaike_weight,
    average_estimates,
    estimate,
    fit_edge,
    fit_lines,
    fwhm_of,
    size_of,
)
from napari_semsr.analysis.profile.line import Profile
from napari_semsr.core import (
    LEVELS,
    OVEREXPOSED_SHARE,
    ROUNDING,
    BoolArray,
    FloatArray,
    FloatPair,
    ReadError,
    clipped_level,
    equal_level,
    is_white,
    record_quantity,
)

RAYLEIGH_DIP = 0.264
"""Dip between two Airy discs at Rayleigh's distance: 1 - 0.736 (Born & Wolf, 8.6.3)."""
_MAD = 1.4826  # standard deviation of a Gaussian over its median absolute deviation
_OUT = 6.0  # sigma of the noise: both extremes of 1000 samples are within; chosen
_SURER = 2.0  # times that for lines of the other kind, as two tests are made; chosen
_SMOOTHEST = 1 / 8  # of the line's length: broader peaks have no surroundings; chosen
_REACH = 2.5  # FWHM on either side: the surroundings of a line; 1e-8 of it is beyond
_ONE_FIT = 6  # maximum of lines fitted together: time grows with the cube; chosen
_MOST = 60  # maximum of lines, the highest; chosen: a longer list is not read
_ENDS = 0.1  # of the line: parts whose means are the levels of an edge; chosen
_STEP = 0.5  # least step of an edge, over the range; chosen
# Range of the fit on either side of an edge, over its blur, and in px. Chosen: long
# enough for the slope of the sides; with 4 and 8 px widths scatter more.
_EDGE_REACH, _MIN_REACH_PX = 6.0, 12.0
_MIN_BOX = 0.5  # of the blur: smaller boxes look like a Gaussian; chosen
_TURNS = 3  # fits of a group, as widths change the range; chosen: two are usual
_CONVERGENCE = 0.2  # relative change of a width; chosen: below, the fit hardly changes
_CURVE_SAMPLES = 2000  # maximum samples of a model's curve; chosen: enough for a plot
_FINE = 200  # samples between two lines when searching their saddle; chosen
_MAX_SD = 1.0  # of a width: widths with a larger error are discarded; chosen
# Share of the lowest line below which background is visible: lines as wide as 0.4 of
# their period leave 1.3 % between them; chosen, as fits of a sine leave 2 to 12 %
_BARE = 0.02
_CLEAR = 2.0  # FWHM beyond an outer line from which it is background: 2e-5 is left
_FLAT = 1e-9  # of the largest grey level; chosen: smaller variation is rounding
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
_STEPS = 0.5  # grey levels: more noise than that of rounding, which is 0.29

Verdict = Literal["resolved", "not resolved", "undecided"]


@dataclass(frozen=True, slots=True)
class LineReading:
    """A line: a peak of the profile, or a dip if dark; lengths in px."""

    model: str  # "gaussian" or "box"; "none" if no fit was found
    place: Estimate | None  # None if no fit was found
    fwhm: Estimate | None
    plain_place: float
    plain_fwhm: float | None  # between half-maximum crossings; None without two
    height: float  # above the background, negative for a dark line

    @property
    def at(self) -> float:
        """Position by the fit, otherwise the plain one."""
        return self.place.value if self.place else self.plain_place


@dataclass(frozen=True, slots=True)
class EdgeReading:
    """An edge; lengths in px."""

    place: Estimate | None
    width: Estimate | None  # from 10 to 90 %
    plain_width: float | None
    step: float  # level after the edge minus level before


@dataclass(frozen=True, slots=True)
class PairReading:
    """Two neighbouring lines; lengths in px, dips as shares of the lower line."""

    first: int  # of the lines, from 0
    distance: Estimate | None  # None if one of them has no fit
    plain_distance: float
    dip: Estimate | None
    plain_dip: float
    rayleigh: Verdict
    sparrow: Verdict
    reason: str | None  # Reason why the dip, or also the distance, is unknown


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """Lines, edge and pairs measured in a profile."""

    lines: tuple[LineReading, ...]  # In order along the line, like the pairs
    pairs: tuple[PairReading, ...]
    edge: EdgeReading | None
    dark: Annotated[bool, record_quantity("Dark")]
    # Standard deviation of one pixel, and grey level of the surroundings
    noise: Annotated[float, record_quantity("Noise s.d.", LEVELS)]
    background: Annotated[float, record_quantity("Background", LEVELS)]
    level: float  # grey level of the highest line or of the upper end
    reason: str | None  # Reason why there is neither line nor edge
    # Positions and values, (K,) each, of the fitted models
    curves: tuple[tuple[FloatArray, FloatArray], ...]

    @property
    def main(self) -> LineReading | None:
        """The highest line."""
        return max(self.lines, key=lambda one: abs(one.height), default=None)


@dataclass(frozen=True, slots=True, eq=False)
class _Features:
    """A curve, inverted for dark lines, and its peaks."""

    place: FloatArray
    level: FloatArray  # NaN in gaps, inverted if lines are dark
    without_gaps: FloatArray  # gaps interpolated linearly
    smooth: FloatArray
    smooth_px: float
    peaks: tuple[int, ...]
    base: float
    step_px: float
    turned_over: bool


def measure_profile(
    profile: Profile,
    *,
    polarity: Literal["auto", "bright", "dark"] = "auto",
    prominence: float = 0.1,
    pixel: Literal["area", "point"] = "area",
) -> Readings:
    """Measure line widths, edge and pairs of a profile, or state why there are none.

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
    if not finite.size or np.ptp(finite) <= _FLAT * largest:
        description = f"{finite[0]:g} everywhere" if finite.size else "no known pixel"
        msg = (
            f"A profile must vary to be measured, got {description}; draw the line "
            "across"
        )
        raise ReadError(
            f"{msg} a structure.",
            code="no-structure" if finite.size else "no-finite-values",
        )
    noise = _noise(profile)
    dark = polarity == "dark" or (polarity == "auto" and _is_dark(profile))
    features = _find(profile, noise, dark=dark, prominence=prominence)
    step = _step(profile, features, noise)
    if polarity == "auto" and step is None and (dark or not features.peaks):
        # a line wider than half of the profile is mistaken for the background
        other = _find(profile, _SURER * noise, dark=not dark, prominence=prominence)
        if other.peaks and not (features.peaks and _is_dark_line(features, other)):
            features, dark = other, not dark
    _require_unclipped(profile, features, step)
    area = profile.spread_px if pixel == "area" else 0.0
    sign = -1.0 if dark else 1.0
    if step is not None:
        return _read_edge(profile, features, step, noise, area)
    if not features.peaks:
        base, top = sign * features.base, sign * float(features.smooth.max())
        reason = "no line or edge is distinguishable from noise"
        return Readings((), (), None, dark, noise, base, top, reason, ())
    owners = _fit_groups(profile, features, area, sign)
    lines = _read_lines(owners, features, sign)
    pairs = _read_pairs(owners, lines, features)
    groups = dict.fromkeys(group for group, _ in owners if group is not None)
    curves = tuple(group.model_curve() for group in groups)
    top = sign * max(float(features.smooth[peak]) for peak in features.peaks)
    base = sign * features.base
    return Readings(lines, pairs, None, dark, noise, base, top, None, curves)


def _noise(profile: Profile) -> float:
    """Estimate the standard deviation of a pixel by second differences."""
    order = np.argsort(profile.place_px, kind="stable")
    values = profile.value[order]
    if len(values) < 3:
        return 0.0
    bends = values[2:] - 2 * values[1:-1] + values[:-2]
    return float(_MAD * np.median(np.abs(bends)) / math.sqrt(6))


def _is_dark(profile: Profile) -> bool:
    """Check whether most of a profile is closer to its maximum than to its minimum."""
    finite = profile.intensity[np.isfinite(profile.intensity)]
    low, middle, high = np.percentile(finite, (2, 50, 98))
    return bool(high - middle < middle - low)


def _is_dark_line(dark: _Features, bright: _Features) -> bool:
    """Decide whether a profile with both kinds crosses dark lines, not bright ones.

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
    if (
        deepest > _CLEARLY_DARK * heights[highest]
        and min(flanks) < _FLANK * steps.max()
    ):
        return True
    above = smooth > (smooth.min() + smooth.max()) / 2
    if not (above[0] and above[-1]):
        return False
    changes = np.flatnonzero(np.diff(above)) + 1
    lengths = np.diff([0, *changes, len(above)])[::2]  # lengths of bright stretches
    return bool(lengths.max() in (lengths[0], lengths[-1]))


# Clipped lines and edges.


def _require_unclipped(
    profile: Profile, features: _Features, step: FloatPair | None
) -> None:
    """Raise an error for clipped lines and edges, or a clipped background."""
    at, bright = profile.place_px, not features.turned_over
    level = np.interp(at, features.place, features.without_gaps)
    if step is not None:
        middle = sum(step) / 2 if bright else -sum(step) / 2
        for side, white in (level > middle, bright), (level < middle, not bright):
            name = f"{'bright' if white else 'dark'} side of the edge"
            _refuse_clipped(profile, features, side, _CLIPPED_SIDE, name, white=white)
        return
    unit = "nm" if profile.calibrated else "px"
    for peak in features.peaks:
        ends = _ends(features, features.smooth, peak)
        if ends is None:
            place, width = _rough(features, peak)
            ends = place - width / 2, place + width / 2
        line = (at >= ends[0]) & (at <= ends[1])
        name = f"line at {sum(ends) / 2 * profile.per_px:.4g} {unit}"
        _refuse_clipped(profile, features, line, OVEREXPOSED_SHARE, name, white=bright)
        reach = _REACH * (ends[1] - ends[0])
        quarter = (3 * features.base + features.smooth[peak]) / 4
        ground = (at >= ends[0] - reach) & (at <= ends[1] + reach) & (level < quarter)
        name = f"background of the {name}"
        _refuse_clipped(
            profile, features, ground, _CLIPPED_SIDE, name, white=not bright
        )


def _refuse_clipped(
    profile: Profile,
    features: _Features,
    part: BoolArray,
    share: float,
    name: str,
    *,
    white: bool,
) -> None:
    """Raise an error if too many pixels of a part are clipped at white or black."""
    values = profile.value[part]
    if not values.size:
        return
    level = float(values.max() if white else values.min())
    is_clipped = white and is_white(level, profile.dtype, profile.bits)
    count = np.count_nonzero(equal_level(values, level))
    if np.ptp(values) and not (is_clipped and count > share * len(values)):
        found_level = clipped_level(values, white=white, share=share)
        if found_level is None:
            return
        level, is_clipped = found_level, False
    is_clipped = is_clipped or _varies_elsewhere(profile, level)
    if not (is_clipped or _ends_in_corner(profile, level, white=white)):
        return
    clipped_share = np.mean(equal_level(values, level))
    end, remedy = ("greatest", "less") if white else ("least", "more")
    msg = (
        f"A profile must not be clipped, but {clipped_share:.0%} of the pixels of the "
        f"{name} have the {end} grey value, {level:g}, so that the width is unknown: "
        f"acquire the image with {remedy} light, or draw the line elsewhere."
    )
    raise ReadError(msg, code="clipped")


def _varies_elsewhere(profile: Profile, level: float) -> bool:
    """Check for noise outside the pixels that have one grey value."""
    apart = np.where(equal_level(profile.intensity, level), np.nan, profile.intensity)
    bends = np.diff(apart, 2)
    turns = bends[1:] * bends[:-1]
    turns = turns[np.isfinite(turns)]
    if len(turns) < _FEWEST or np.mean(turns < 0) <= _ALTERNATE:
        return False
    values = profile.value[~equal_level(profile.value, level)]
    whole = bool((values == np.rint(values)).all())
    rough = float(np.median(np.abs(bends[np.isfinite(bends)]))) * _MAD / math.sqrt(6)
    noise = rough * math.sqrt(profile.lines)
    return noise > (_STEPS if whole else ROUNDING * abs(level))


def _ends_in_corner(profile: Profile, level: float, *, white: bool) -> bool:
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
    at = equal_level(curve, level)
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


def _find(
    profile: Profile, noise: float, *, dark: bool, prominence: float
) -> _Features:
    """Find peaks; smoothing is doubled until one exceeds the noise."""
    place = profile.distance_px
    level = -profile.intensity if dark else profile.intensity.copy()
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
        if len(peaks) or 2 * width > _SMOOTHEST * profile.length_px:
            break
        width *= 2
    if len(peaks) > _MOST:
        highest = np.argsort(about["prominences"])[-_MOST:]
        peaks = np.sort(peaks[highest])
    # level of the surroundings: median of the values below the centre of the range
    base = np.median(smooth[smooth <= (smooth.min() + smooth.max()) / 2])
    peak_places = tuple(int(peak) for peak in peaks if not gaps[peak])
    return _Features(
        place, level, without_gaps, smooth, width, peak_places, float(base), step, dark
    )


def _crossing(
    place: FloatArray, level: FloatArray, start: int, half: float, way: int
) -> float | None:
    """Find where a curve first falls to a level on one side of a sample."""
    end = len(level) if way > 0 else -1
    for i in range(start + way, end, way):
        if not math.isfinite(level[i]):
            return None
        if level[i] <= half:
            before = i - way
            share = (level[before] - half) / (level[before] - level[i])
            return float(place[before] + share * (place[i] - place[before]))
    return None


def _width_at_half(
    place: FloatArray, level: FloatArray, peak: int, base: float
) -> tuple[float | None, float | None]:
    """Find the half-maximum crossings on both sides of a peak."""
    if level[peak] <= base:  # possible in the unsmoothed curve
        return None, None
    half = (float(level[peak]) + base) / 2
    left = _crossing(place, level, peak, half, -1)
    return left, _crossing(place, level, peak, half, 1)


def _ends(features: _Features, level: FloatArray, peak: int) -> FloatPair | None:
    """Find a line's half-maximum crossings, unless another line is between them."""
    left, right = _width_at_half(features.place, level, peak, features.base)
    if left is None or right is None:
        return None
    others = [float(features.place[other]) for other in features.peaks if other != peak]
    is_merged = any(left <= other <= right for other in others)
    return None if is_merged else (left, right)


def _rough(features: _Features, peak: int) -> FloatPair:
    """Estimate a line's position and width on a curve smoothed by a quarter of it.

    The peak of a broad line may be a bump anywhere on it: its centre is used.
    """
    width = features.smooth_px
    place, rough = float(features.place[peak]), 0.0
    ends: FloatPair | None = None
    for _ in range(3):
        sharper = ends
        smooth = ndimage.gaussian_filter1d(
            features.without_gaps, width / features.step_px, mode="nearest"
        )
        ends = _ends(features, smooth, peak)
        if sharper is not None and ends is None:  # smoothing hides them
            break
        left, right = _width_at_half(features.place, smooth, peak, features.base)
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
    blur = GAUSSIAN_FWHM * width
    return place, max(math.sqrt(max(rough**2 - blur**2, 0.0)), rough / 3, 1.0)


# Groups of lines that are fitted together.


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Neighbouring lines fitted together, and their range."""

    start: float
    end: float
    fit: ModelFit  # the better model; its positions are relative to `start`
    other: ModelFit | None = None  # the other model, if it is plausible

    @property
    def shows_background(self) -> bool:
        """Whether background is visible at both ends, or clearly at one of them."""
        ends = np.array([0, self.end - self.start])
        left = np.abs(self.fit.curve(ends, background=False)).max()
        lines = self.fit.lines
        if left < _BARE * np.abs(lines[:, 0]).min():
            return True
        outer = lines[[0, -1]]
        beyond = np.abs(outer[:, 1] - ends) / [_width(line) for line in outer]
        return bool(beyond.max() > _CLEAR)

    def place_of(self, number: int) -> Estimate:
        at = self.fit.place(number)
        return self.fit.estimate(lambda p: float(p[at]) + self.start)

    def fwhm_of(self, number: int) -> Estimate | None:
        """Return a line's full width at half maximum; None if unknown."""
        width = _fwhm(self.fit, number)
        if self.other is not None:
            other = _fwhm(self.other, number)
            weight = akaike_weight(self.fit, self.other)
            width = average_estimates(width, other, weight, self.fit.freedom)
        return width if width.sd <= _MAX_SD * width.value else None

    def model_curve(self) -> tuple[FloatArray, FloatArray]:
        """Sample the model at ten positions per pixel, at most 2000."""
        count = min(_CURVE_SAMPLES, int(10 * (self.end - self.start)) + 2)
        places = np.linspace(0, self.end - self.start, count)
        return places + self.start, self.fit.curve(places)


def _fwhm(fit: ModelFit, number: int) -> Estimate:
    line = slice(fit.place(number) - 1, fit.place(number + 1) - 1)
    return fit.estimate(lambda p: _width(p[line]), positive=True)


def _width(line: FloatArray) -> float:
    return fwhm_of(*(size_of(log) for log in line[2:]))


_Owner = tuple[_Group | None, int]  # the fit of a line, and its index in it


def _fit_groups(
    profile: Profile, features: _Features, area: float, sign: float
) -> list[_Owner]:
    """Fit lines with overlapping surroundings together."""
    places, widths = zip(
        *(_rough(features, peak) for peak in features.peaks), strict=True
    )
    groups = [[0]]
    for number in range(1, len(places)):
        gap = places[number] - places[number - 1]
        near = gap <= _REACH * (widths[number - 1] + widths[number]) / 2
        if near and len(groups[-1]) < _ONE_FIT:
            groups[-1].append(number)
        else:
            groups.append([number])
    owners: list[_Owner] = []
    for group in groups:
        begin = [(places[number], widths[number]) for number in group]
        fit = _fit_group(profile, features, begin, group, area, sign)
        owners += [(fit, number) for number in range(len(group))]
    return owners


def _fit_group(
    profile: Profile,
    features: _Features,
    begin: Sequence[FloatPair],
    numbers: Sequence[int],
    area: float,
    sign: float,
) -> _Group | None:
    """Fit a group of lines, and repeat this if its surroundings change."""
    peaks = [features.peaks[number] for number in numbers]
    places, widths = (list(part) for part in zip(*begin, strict=True))
    heights = [sign * float(features.smooth[peak] - features.base) for peak in peaks]
    best = None
    for _ in range(_TURNS):
        low, high = _surroundings(features, numbers, places, widths)
        inside = (profile.place_px >= low) & (profile.place_px <= high)
        at, values = profile.place_px[inside] - low, profile.value[inside]
        sigmas = np.divide(widths, GAUSSIAN_FWHM)
        start = np.column_stack([heights, np.subtract(places, low), sigmas])
        models = _models(at, values, start, area, high - low)
        if not models:
            break
        best = _Group(low, high, *models)
        read = [best.fwhm_of(number) for number in range(len(peaks))]
        widths_told = [
            width if one is None else one.value
            for one, width in zip(read, widths, strict=True)
        ]
        change = float(np.abs(np.log(np.divide(widths_told, widths))).max())
        if change < _CONVERGENCE:
            break
        widths = widths_told
    return best


def _surroundings(
    features: _Features,
    numbers: Sequence[int],
    places: Sequence[float],
    widths: Sequence[float],
) -> tuple[float, float]:
    """Return the fit range of a group of lines, up to the saddles next to it."""
    low = min(p - _REACH * w for p, w in zip(places, widths, strict=True))
    high = max(p + _REACH * w for p, w in zip(places, widths, strict=True))
    low = max(low, _foot(features, features.peaks[numbers[0]], -1))
    high = min(high, _foot(features, features.peaks[numbers[-1]], 1))
    if numbers[0] > 0:
        low = max(low, _saddle(features, numbers[0] - 1))
    if numbers[-1] + 1 < len(features.peaks):
        high = min(high, _saddle(features, numbers[-1]))
    return max(low, 0.0), min(high, float(features.place[-1]))


def _foot(features: _Features, peak: int, way: int) -> float:
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


def _saddle(features: _Features, first: int) -> float:
    """Find the lowest point between a peak and the next."""
    one, two = features.peaks[first], features.peaks[first + 1]
    return float(features.place[one + int(np.argmin(features.smooth[one : two + 1]))])


def _models(
    at: FloatArray, values: FloatArray, begin: FloatArray, area: float, length: float
) -> list[ModelFit]:
    """Fit Gaussians and boxes, the better model first."""
    # start from a box of the same FWHM with steep sides
    width = begin[:, 2] * GAUSSIAN_FWHM
    boxes = np.column_stack([begin[:, :2], width / 6, width])
    bell, box = (fit_lines(at, values, start, area) for start in (begin, boxes))
    fits = [fit for fit in (bell, box) if fit and _sound(fit, begin, length)]
    fits = [fit for fit in fits if fit is not box or _is_box(fit)]
    return sorted(fits, key=lambda fit: fit.criterion)


def _is_box(fit: ModelFit) -> bool:
    """Check that every box is distinguishable from its blur."""
    return all(
        size_of(line[3]) > _MIN_BOX * math.hypot(size_of(line[2]), fit.area_px)
        for line in fit.lines
    )


def _sound(fit: ModelFit, begin: FloatArray, length: float) -> bool:
    """Check that every line kept its sign and is in the fit range."""
    return all(
        line[0] * start[0] > 0
        and 0 <= line[1] <= length
        and abs(line[1] - start[1]) <= GAUSSIAN_FWHM * start[2] / 2
        for line, start in zip(fit.lines, begin, strict=True)
    )


# Limits of a line's fitted FWHM among others over its plain width: wide overlapping
# lines have the same curve as narrow ones with a flat background between them; chosen.
# A much smaller FWHM is that of a part of the line; pixels and interpolation add less
# than _BLUR_PX.
_MAX_WIDER = 1.5
_BLUR_PX = 2.0


def _read_lines(
    owners: Sequence[_Owner], features: _Features, sign: float
) -> tuple[LineReading, ...]:
    """Measure every line by the fit and by plain crossings."""
    read = []
    place: Estimate | None
    fwhm: Estimate | None
    for (group, number), peak in zip(owners, features.peaks, strict=True):
        at = float(features.place[peak])
        height = sign * float(features.smooth[peak] - features.base)
        model, place, fwhm = "none", None, None
        if group is not None:
            model, place = group.fit.shape, group.place_of(number)
            fwhm, height = group.fwhm_of(number), float(group.fit.lines[number, 0])
        ends = _ends(features, features.level, peak)
        plain = None if ends is None else ends[1] - ends[0]
        if group is not None and fwhm and plain and fwhm.value > _MAX_WIDER * plain:
            alone = len(group.fit.lines) == 1 and group.shows_background
            fwhm = fwhm if alone else None
        if fwhm and plain and math.hypot(_MAX_WIDER * fwhm.value, _BLUR_PX) < plain:
            fwhm = None
        read.append(LineReading(model, place, fwhm, at, plain, height))
    return tuple(read)


# Pairs.


def _read_pairs(
    owners: Sequence[_Owner], lines: Sequence[LineReading], features: _Features
) -> tuple[PairReading, ...]:
    pairs = []
    distance: Estimate | None
    dip: Estimate | None
    for first, ((one, at), (two, _)) in enumerate(itertools.pairwise(owners)):
        distance = dip = reason = None
        if one is None or two is None:
            reason = "one of the two lines has no fit"
        elif one is two:
            distance, dip = _distance(one, at), _dip(one, at)
        else:
            left, right = one.place_of(at), two.place_of(0)
            apart = right.value - left.value
            distance = estimate(apart, math.hypot(left.sd, right.sd))
            dip = _far_dip(one, at, two)
        sparrow = _verdict(dip, 0.0)  # which needs no background
        bare = [group.shows_background for group in (one, two) if group]
        if reason is None and not all(bare):
            dip = None
            reason = "no background is visible next to the lines; draw a longer line"
        start, end = features.peaks[first : first + 2]
        lower = min(features.level[start], features.level[end]) - features.base
        valley = max(features.level[start : end + 1].min() - features.base, 0.0)
        # relative to the lower line; 1 is down to the background
        plain = float(1 - valley / lower) if lower > 0 else math.nan
        verdicts = _verdict(dip, RAYLEIGH_DIP), sparrow, reason
        plainly = lines[first + 1].plain_place - lines[first].plain_place
        pairs.append(PairReading(first, distance, plainly, dip, plain, *verdicts))
    return tuple(pairs)


def _distance(group: _Group, first: int) -> Estimate:
    at, other = group.fit.place(first), group.fit.place(first + 1)
    return group.fit.estimate(lambda p: float(p[other] - p[at]))


def _dip(group: _Group, first: int) -> Estimate:
    """Estimate the dip between two lines of one fit, relative to the lower one."""
    at, other = group.fit.place(first), group.fit.place(first + 1)

    def dip(p: FloatArray) -> float:
        places = np.linspace(p[at], p[other], _FINE + 1)
        level = np.abs(group.fit.curve(places, p, background=False))
        # the peaks of the sum are slightly closer to each other than the lines
        lowest = int(np.argmin(level[1:-1])) + 1
        lower = min(level[: lowest + 1].max(), level[lowest:].max())
        return 1 - float(level[lowest] / lower)

    return group.fit.estimate(dip)


def _far_dip(one: _Group, last: int, two: _Group) -> Estimate:
    """Compute the dip between lines of two fits, which hardly overlap."""
    ends = one.place_of(last).value, two.place_of(0).value
    places = np.linspace(*ends, _FINE + 1)
    levels = [
        np.abs(group.fit.curve(places - group.start, background=False))
        for group in (one, two)
    ]
    level = levels[0] + levels[1]
    lower = min(level[0], level[-1])
    noise = [group.fit.noise / math.sqrt(group.fit.pixels) for group in (one, two)]
    return estimate(1 - float(level.min() / lower), math.hypot(*noise) / float(lower))


def _verdict(dip: Estimate | None, least: float) -> Verdict:
    """Decide on a dip: its whole interval must be on one side of the threshold."""
    if dip is None or dip.low <= least < dip.high:
        return "undecided"
    return "resolved" if dip.low > least else "not resolved"


# Edges.


def _step(profile: Profile, features: _Features, noise: float) -> FloatPair | None:
    """Return the levels before and after an edge; None if there is no edge."""
    level = -features.without_gaps if features.turned_over else features.without_gaps
    count = max(2, round(_ENDS * len(level)))
    before, after = float(level[:count].mean()), float(level[-count:].mean())
    step, span = abs(after - before), float(np.ptp(features.smooth))
    left = noise / math.sqrt(profile.lines * count)
    if step < _STEP * span or step < _OUT * left:
        return None
    for slope in (features.smooth, -features.smooth):
        if len(scipy.signal.find_peaks(slope, prominence=_STEP * step)[0]):
            return None
    return before, after


def _read_edge(
    profile: Profile, features: _Features, levels: FloatPair, noise: float, area: float
) -> Readings:
    before, after = levels
    step = after - before
    sign = -1.0 if features.turned_over else 1.0
    level, smooth = sign * features.level, sign * features.smooth
    middle = _crosses(features.place, (smooth - before) / step, 0.5, None)
    place = features.place[-1] / 2 if middle is None else middle

    def width_of(curve: FloatArray) -> float | None:
        tenth, most = (
            _crosses(features.place, (curve - before) / step, k, place)
            for k in (0.1, 0.9)
        )
        return None if tenth is None or most is None else abs(most - tenth)

    rough, plain = width_of(smooth), width_of(level)
    sigma = (2.0 if rough is None else rough) / EDGE_10_90
    fits = _fit_edge(profile, (before, step, place, max(sigma, 0.5)), area)
    low, high = sorted(levels)
    if not fits:
        edge = EdgeReading(None, None, plain, step)
        return Readings((), (), edge, False, noise, low, high, None, ())
    fit, width = fits[0], _edge_width(fits)
    at = fit.estimate(lambda p: float(p[2]))
    sure = width if width.sd <= _MAX_SD * width.value else None
    places = np.linspace(
        0, features.place[-1], min(_CURVE_SAMPLES, 10 * len(features.place))
    )
    edge = EdgeReading(at, sure, plain, float(fit.parameters[1]))
    curves = ((places, fit.curve(places)),)
    return Readings((), (), edge, False, noise, low, high, None, curves)


def _fit_edge(
    profile: Profile, begin: tuple[float, float, float, float], area: float
) -> list[ModelFit]:
    """Fit an edge in its neighbourhood, so that distant structures do not widen it.

    Returns the models with level and with sloping sides, the better one first.
    """
    places, values = profile.place_px, profile.value
    before, step, place, sigma = begin
    starts = np.geomspace(1, max(sigma, 1), 1 + math.ceil(math.log2(max(sigma, 1))))
    starts_tried: list[tuple[float, ...]]
    starts_tried = [(before, step, place, one, 0.0) for one in starts.tolist()]
    best: list[ModelFit] = []
    near = np.ones(len(places), bool)
    for _ in range(1 + _TURNS):
        fits = [fit_edge(places[near], values[near], one, area) for one in starts_tried]
        sound = [
            fit for fit in fits if fit is not None and fit.parameters[1] * step > 0
        ]
        if not sound:
            break
        former, best = best, sorted(sound, key=lambda fit: fit.criterion)
        low, rise, place, log, *slope = best[0].parameters.tolist()
        if former and abs(former[0].parameters[3] - log) < _CONVERGENCE:
            break
        sigma = size_of(log)
        reach = max(_EDGE_REACH * math.hypot(sigma, area), _MIN_REACH_PX)
        near = np.abs(places - place) <= reach
        starts_tried = [
            (low, rise, place, sigma),
            (low, rise, place, sigma, *(slope or [0])),
        ]
    return best


def _edge_width(fits: Sequence[ModelFit]) -> Estimate:
    """Estimate the 10 to 90 % width by both models of an edge."""
    best, *others = (
        fit.estimate(lambda p: EDGE_10_90 * size_of(p[3]), positive=True)
        for fit in fits[:2]
    )
    if not others:
        return best
    weight = akaike_weight(fits[0], fits[1])
    return average_estimates(best, others[0], weight, fits[0].freedom)


def _crosses(
    place: FloatArray, share: FloatArray, least: float, near: float | None
) -> float | None:
    """Find where an edge crosses a level: at its centre, or nearest to `near`."""
    up = np.flatnonzero((share[:-1] < least) & (share[1:] >= least))
    if not up.size:
        return None
    k = (least - share[up]) / (share[up + 1] - share[up])
    at = place[up] + k * (place[up + 1] - place[up])
    return float(at[len(at) // 2 if near is None else np.argmin(np.abs(at - near))])
