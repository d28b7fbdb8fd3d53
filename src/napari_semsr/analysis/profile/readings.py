"""Readings of a profile: widths of lines, the width of an edge, pairs of lines.

1. *Noise*: the median absolute second difference of the band's pixels in their order
   along the line.
2. *Lines* are peaks of the curve (or dips of a dark one), smoothed by 1 px and, while
   none stands out of the noise, by twice as much each time.
3. *An edge* is what leads from one level to another without lines.
4. Lines nearer than their surroundings reach are fitted together, each as a Gaussian or,
   where that is beyond doubt the better model, as a blurred box.
5. *Plain* readings are crossings of the curve itself.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage, signal

from napari_semsr.analysis.profile.fits import (
    EDGE_10_90,
    GAUSSIAN_FWHM,
    Estimate,
    Fit,
    estimate,
    fit_edge,
    fit_lines,
    fwhm_of,
)
from napari_semsr.analysis.profile.line import Profile
from napari_semsr.core import FloatArray, ReadError

RAYLEIGH_DIP = 0.264
"""Dip between two Airy discs at Rayleigh's distance: 1 - 0.736 (Born & Wolf, 8.6.3)."""
_MAD = 1.4826  # standard deviation of a Gaussian over its median absolute deviation
_OUT = 6.0  # deviations of the noise: both extremes of 1000 samples lie within; chosen
_SMOOTHEST = 1 / 8  # of the line's length: broader lines show no surroundings; chosen
_REACH = 2.5  # FWHM on either side of a line are its surroundings: 1e-8 of it is beyond
_ONE_FIT = 6  # lines fitted together: the time grows with the cube; chosen
_MOST = 60  # lines that are read, the highest; chosen: a longer list is not looked at
_ENDS = 0.1  # of the line at either end, whose means are the levels of an edge; chosen
_STEP = 0.5  # of the range from end to end is an edge; chosen
_SURER = 6.0  # of the criterion: strong evidence for a box (Kass & Raftery 1995)
_LEAST_BOX = 0.5  # of the blur: a smaller box is seen as a Gaussian; chosen
_FINE = 200  # places between two lines where their saddle is looked for; chosen
_MOST_SD = 1.0  # of a width: what is less sure is no width; chosen
_FLAT = 1e-9  # of the largest grey level; chosen: constant but for rounding

Verdict = Literal["resolved", "not resolved", "undecided"]


@dataclass(frozen=True, slots=True)
class LineReading:
    """One line: a peak of the profile, or a dip of a dark one; lengths in px."""

    model: str  # "gaussian" or "box"; "none" where no fit was found
    place: Estimate
    fwhm: Estimate | None
    plain_place: float
    plain_fwhm: float | None  # between half-maximum crossings; None without two
    height: float  # above the background, negative of a dark line


@dataclass(frozen=True, slots=True)
class EdgeReading:
    """An edge; lengths in px."""

    place: Estimate | None
    width: Estimate | None  # from 10 to 90 %
    plain_width: float | None
    step: float  # level after the edge less level before


@dataclass(frozen=True, slots=True)
class PairReading:
    """Two neighbouring lines; lengths in px, dips as shares of the lower line."""

    first: int  # of the lines, from 0
    distance: Estimate
    plain_distance: float
    dip: Estimate | None
    plain_dip: float
    rayleigh: Verdict
    sparrow: Verdict


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """What a profile says.

    Attributes
    ----------
    lines : tuple of LineReading
        In the order of the line.
    pairs : tuple of PairReading
        Neighbours among them.
    edge : EdgeReading or None
        An edge, where the profile is one.
    dark : bool
        Whether lines are darker than what lies around.
    noise : float
        Standard deviation of one pixel.
    background, level : float
        Grey level of the surroundings, and of the highest line or the upper end.
    reason : str or None
        Why there is neither line nor edge.
    curves : tuple of tuple
        Places and values ``(K,)`` of the models that were fitted.
    """

    lines: tuple[LineReading, ...]
    pairs: tuple[PairReading, ...]
    edge: EdgeReading | None
    dark: bool
    noise: float
    background: float
    level: float
    reason: str | None
    curves: tuple[tuple[FloatArray, FloatArray], ...]

    @property
    def main(self) -> LineReading | None:
        """The highest line."""
        return max(self.lines, key=lambda one: abs(one.height), default=None)


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """A curve without gaps, the same way up for dark lines, and its peaks."""

    place: FloatArray
    level: FloatArray  # finite, turned over where lines are dark
    smooth: FloatArray
    smooth_px: float
    peaks: tuple[int, ...]
    base: float
    step_px: float


def measure_profile(
    profile: Profile,
    *,
    polarity: Literal["auto", "bright", "dark"] = "auto",
    prominence: float = 0.1,
    pixel: Literal["area", "point"] = "area",
) -> Readings:
    """Read widths, edge and pairs off a profile.

    Parameters
    ----------
    profile : Profile
        Grey levels along a line.
    polarity : {"auto", "bright", "dark"}, default="auto"
        Whether lines are brighter or darker than what lies around.
    prominence : float, default=0.1
        Least rise of a line above its surroundings, over the profile's range.
    pixel : {"area", "point"}, default="area"
        Whether a pixel averages over its area, which fits take off widths.

    Returns
    -------
    Readings
        Lines, pairs, edge; none of them with a reason.

    Raises
    ------
    ReadError
        If the profile does not vary.

    References
    ----------
    M. Born, E. Wolf, Principles of Optics, 7th ed., 8.6.3 (Rayleigh's distance).
    """
    known = profile.intensity[np.isfinite(profile.intensity)]
    largest = float(np.abs(known).max(initial=0.0))
    if not known.size or np.ptp(known) <= _FLAT * largest:
        got = f"{known[0]:g} all along" if known.size else "no value at all"
        msg = f"A profile must vary to be measured, got {got}; lay the line across"
        raise ReadError(f"{msg} a structure.")
    noise = _noise(profile)
    dark = polarity == "dark" or (polarity == "auto" and _is_dark(profile))
    found = _find(profile, noise, dark=dark, prominence=prominence)
    area = profile.spread_px if pixel == "area" else 0.0
    sign = -1.0 if dark else 1.0
    step = _step(profile, found)
    if step is not None:
        return _read_edge(profile, found, step, noise, area)
    if not found.peaks:
        reason = "no line or edge stands out of the noise"
        return _nothing(found, noise, reason, dark=dark)
    fits = _fit_groups(profile, found, area, sign)
    lines = tuple(one for fit in fits for one in fit.read(found, sign))
    pairs = _read_pairs(fits, lines, found)
    curves = tuple(fit.drawn() for fit in fits if fit.fit is not None)
    top = sign * max(float(found.smooth[peak]) for peak in found.peaks)
    base = sign * found.base
    return Readings(lines, pairs, None, dark, noise, base, top, None, curves)


def _nothing(found: _Found, noise: float, reason: str, *, dark: bool) -> Readings:
    sign = -1.0 if dark else 1.0
    top = sign * float(found.smooth.max())
    return Readings((), (), None, dark, noise, sign * found.base, top, reason, ())


def _noise(profile: Profile) -> float:
    """Standard deviation of a pixel, by second differences along the line."""
    order = np.argsort(profile.place_px, kind="stable")
    values = profile.value[order]
    if len(values) < 3:
        return 0.0
    bends = values[2:] - 2 * values[1:-1] + values[:-2]
    return float(_MAD * np.median(np.abs(bends)) / math.sqrt(6))


def _is_dark(profile: Profile) -> bool:
    """Whether most of a profile is nearer to its highest than to its lowest levels."""
    known = profile.intensity[np.isfinite(profile.intensity)]
    low, middle, high = np.percentile(known, (2, 50, 98))
    return bool(high - middle < middle - low)


def _find(profile: Profile, noise: float, *, dark: bool, prominence: float) -> _Found:
    """Find peaks; smoothing doubles until one stands out of the noise."""
    place = profile.distance_px
    level = -profile.intensity if dark else profile.intensity.copy()
    gaps = ~np.isfinite(level)
    level = level.copy()
    level[gaps] = np.interp(place[gaps], place[~gaps], level[~gaps])
    step = profile.length_px / max(1, len(place) - 1)
    width, peaks = 1.0, np.empty(0, int)
    while True:
        smooth = ndimage.gaussian_filter1d(level, width / step, mode="nearest")
        # what is left of white noise after a Gaussian
        left = noise / math.sqrt(profile.lines * 2 * math.sqrt(math.pi) * width)
        least = max(prominence * float(np.ptp(smooth)), _OUT * left)
        peaks, about = signal.find_peaks(smooth, prominence=max(least, 1e-300))
        if len(peaks) or 2 * width > _SMOOTHEST * profile.length_px:
            break
        width *= 2
    if len(peaks) > _MOST:
        highest = np.argsort(about["prominences"])[-_MOST:]
        peaks = np.sort(peaks[highest])
    base = _base(smooth)
    kept = tuple(int(peak) for peak in peaks if not gaps[peak])
    return _Found(place, level, smooth, width, kept, base, step)


def _base(smooth: FloatArray) -> float:
    """Level of the surroundings: median of what is below the middle of the range."""
    middle = (float(smooth.min()) + float(smooth.max())) / 2
    return float(np.median(smooth[smooth <= middle]))


def _crossing(
    place: FloatArray, level: FloatArray, start: int, half: float, way: int
) -> float | None:
    """Where a curve first falls to a level on one side of a sample."""
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
    """Half-maximum crossings on both sides of a peak."""
    half = (level[peak] + base) / 2
    sides = [_crossing(place, level, peak, half, way) for way in (-1, 1)]
    return sides[0], sides[1]


def _rough_width(found: _Found, peak: int) -> float:
    """Width of a peak to begin with, of a curve that is smoothed by a quarter of it."""
    width = found.smooth_px
    rough = 0.0
    for _ in range(3):
        smooth = ndimage.gaussian_filter1d(
            found.level, width / found.step_px, mode="nearest"
        )
        left, right = _width_at_half(found.place, smooth, peak, found.base)
        middle = float(found.place[peak])
        sides = [abs(side - middle) for side in (left, right) if side is not None]
        rough = 2 * min(sides) if sides else found.place[-1] / 4
        if rough <= 4 * width:
            break
        width = rough / 4
    blur = GAUSSIAN_FWHM * width
    return max(math.sqrt(max(rough**2 - blur**2, 0.0)), rough / 3, 1.0)


# Lines that are fitted together.


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Neighbouring peaks, their fit, and where it was made."""

    peaks: tuple[int, ...]
    widths: tuple[float, ...]
    start: float
    end: float
    fit: Fit | None  # places are counted from `start`

    def place_of(self, number: int) -> Estimate:
        """Where a line lies."""
        fit = self.fit
        assert fit is not None
        at = 3 + number * (4 if fit.shape == "box" else 3)
        return fit.estimate(lambda p: float(p[at]) + self.start)

    def fwhm_of(self, number: int) -> Estimate | None:
        """How wide a line is; None where nobody knows."""
        fit = self.fit
        assert fit is not None
        count = 4 if fit.shape == "box" else 3
        at = 4 + number * count

        def width(p: FloatArray) -> float:
            box = math.exp(min(p[at + 1], 12)) if count == 4 else 0.0
            return fwhm_of(math.exp(min(p[at], 12)), box)

        found = fit.estimate(width, positive=True)
        return found if found.sd <= _MOST_SD * found.value else None

    def height_of(self, number: int) -> float:
        """How far a line rises above the background."""
        assert self.fit is not None
        return float(self.fit.line(number)[0])

    def read(self, found: _Found, sign: float) -> list[LineReading]:
        """Give the lines of the group."""
        read = []
        for number, peak in enumerate(self.peaks):
            sides = _width_at_half(found.place, found.level, peak, found.base)
            left, right = sides if self._apart(found, peak, sides) else (None, None)
            plain = None if left is None or right is None else right - left
            at = float(found.place[peak])
            if self.fit is None:
                read.append(
                    LineReading(
                        "none",
                        estimate(at, math.inf),
                        None,
                        at,
                        plain,
                        sign * float(found.smooth[peak] - found.base),
                    )
                )
                continue
            read.append(
                LineReading(
                    self.fit.shape,
                    self.place_of(number),
                    self.fwhm_of(number),
                    at,
                    plain,
                    self.height_of(number),
                )
            )
        return read

    @staticmethod
    def _apart(
        found: _Found, peak: int, sides: tuple[float | None, float | None]
    ) -> bool:
        """Whether half maximum is crossed before the next line begins."""
        left, right = sides
        if left is None or right is None:
            return False
        others = [float(found.place[other]) for other in found.peaks if other != peak]
        return not any(left <= other <= right for other in others)

    def drawn(self) -> tuple[FloatArray, FloatArray]:
        """Places and values of the model, ten to a pixel up to 2000."""
        assert self.fit is not None
        count = min(2000, int(10 * (self.end - self.start)) + 2)
        places = np.linspace(0, self.end - self.start, count)
        return places + self.start, self.fit.curve(places)


def _fit_groups(
    profile: Profile, found: _Found, area: float, sign: float
) -> list[_Group]:
    """Fit lines whose surroundings meet together."""
    widths = [_rough_width(found, peak) for peak in found.peaks]
    groups: list[list[int]] = []
    for number, peak in enumerate(found.peaks):
        before = groups[-1][-1] if groups else None
        gap = math.inf if before is None else found.place[peak] - found.place[found.peaks[before]]
        near = before is not None and gap <= _REACH * (widths[before] + widths[number]) / 2
        if near and len(groups[-1]) < _ONE_FIT:
            groups[-1].append(number)
        else:
            groups.append([number])
    return [
        _fit_group(profile, found, [widths[n] for n in group], group, area, sign)
        for group in groups
    ]


def _fit_group(
    profile: Profile,
    found: _Found,
    widths: Sequence[float],
    numbers: Sequence[int],
    area: float,
    sign: float,
) -> _Group:
    """Fit a group of lines, again where its surroundings turn out to be others."""
    peaks = tuple(found.peaks[number] for number in numbers)
    places = [float(found.place[peak]) for peak in peaks]
    heights = [sign * float(found.smooth[peak] - found.base) for peak in peaks]
    best = None
    for _ in range(3):
        low, high = _surroundings(found, numbers, places, widths)
        inside = (profile.place_px >= low) & (profile.place_px <= high)
        at, values = profile.place_px[inside] - low, profile.value[inside]
        begin = np.array(
            [
                (height, place - low, width / GAUSSIAN_FWHM)
                for height, place, width in zip(heights, places, widths, strict=True)
            ]
        )
        fit = _better(at, values, begin, area)
        if fit is None or not _sound(fit, begin, high - low):
            break
        best = _Group(peaks, tuple(widths), low, high, fit)
        read = [best.fwhm_of(number) for number in range(len(peaks))]
        fitted = [
            width if one is None else one.value
            for one, width in zip(read, widths, strict=True)
        ]
        near = [abs(math.log(a / b)) < 0.2 for a, b in zip(fitted, widths, strict=True)]
        if all(near):
            break
        widths = fitted
    if best is None:
        low, high = _surroundings(found, numbers, places, widths)
        return _Group(peaks, tuple(widths), low, high, None)
    return best


def _surroundings(
    found: _Found,
    numbers: Sequence[int],
    places: Sequence[float],
    widths: Sequence[float],
) -> tuple[float, float]:
    """Where a group of lines is fitted: up to the saddle to the next line."""
    low = min(p - _REACH * w for p, w in zip(places, widths, strict=True))
    high = max(p + _REACH * w for p, w in zip(places, widths, strict=True))
    if numbers[0] > 0:
        low = max(low, _saddle(found, numbers[0] - 1)[0])
    if numbers[-1] + 1 < len(found.peaks):
        high = min(high, _saddle(found, numbers[-1])[0])
    return max(low, 0.0), min(high, float(found.place[-1]))


def _saddle(found: _Found, first: int) -> tuple[float, float]:
    """Place and level of the lowest point between a peak and the next."""
    one, two = found.peaks[first], found.peaks[first + 1]
    lowest = one + int(np.argmin(found.smooth[one : two + 1]))
    return float(found.place[lowest]), float(found.smooth[lowest])


def _better(
    at: FloatArray, values: FloatArray, begin: FloatArray, area: float
) -> Fit | None:
    """Fit Gaussians, and boxes where those are better beyond doubt."""
    bell = fit_lines(at, values, begin, area)
    # a blurred box is wider at half maximum than its Gaussian, and steeper
    width = begin[:, 2] * GAUSSIAN_FWHM
    boxes = np.column_stack([begin[:, :2], width / 6, width])
    box = fit_lines(at, values, boxes, area)
    if box is None or not _is_box(box):
        return bell
    if bell is not None and box.criterion > bell.criterion - _SURER:
        return bell
    return box


def _is_box(fit: Fit) -> bool:
    """Whether every box is told from its blur."""
    lines = fit.parameters[2:].reshape(-1, 4)
    both = np.hypot(np.exp(np.clip(lines[:, 2], -9, 9)), fit.area_px)
    return bool(np.all(np.exp(np.clip(lines[:, 3], -9, 9)) > _LEAST_BOX * both))


def _sound(fit: Fit, begin: FloatArray, length: float) -> bool:
    """Whether every line kept its side and lies where it was fitted."""
    lines = [fit.line(number) for number in range(len(begin))]
    return all(
        line[0] * start[0] > 0 and 0 <= line[1] <= length
        for line, start in zip(lines, begin, strict=True)
    )


# Pairs.


def _read_pairs(
    groups: Sequence[_Group], lines: Sequence[LineReading], found: _Found
) -> tuple[PairReading, ...]:
    """Read distance and dip of neighbours."""
    owner = [(group, place) for group in groups for place in range(len(group.peaks))]
    pairs = []
    for first, ((one, at), (two, _)) in enumerate(itertools.pairwise(owner)):
        a, b = lines[first], lines[first + 1]
        lower = min(found.level[found.peaks[first]], found.level[found.peaks[first + 1]])
        span = slice(found.peaks[first], found.peaks[first + 1] + 1)
        valley = float(found.level[span].min())
        plain_dip = (lower - valley) / max(lower - found.base, 1e-300)
        dip = None
        if one is two and one.fit is not None:
            distance = _distance(one.fit, at)
            dip = _dip(one.fit, at)
        else:
            apart = b.place.value - a.place.value
            distance = estimate(apart, math.hypot(a.place.sd, b.place.sd))
            dip = None if one is two else _far_dip(one, two)
        pairs.append(
            PairReading(
                first,
                distance,
                b.plain_place - a.plain_place,
                dip,
                float(plain_dip),
                _verdict(dip, RAYLEIGH_DIP),
                _verdict(dip, 0.0),
            )
        )
    return tuple(pairs)


def _distance(fit: Fit, first: int) -> Estimate:
    """Distance of two lines of one fit."""
    count = 4 if fit.shape == "box" else 3
    at = 3 + first * count
    return fit.estimate(lambda p: float(p[at + count] - p[at]))


def _dip(fit: Fit, first: int) -> Estimate:
    """Dip between two lines of one fit, over the lower of both."""
    count = 4 if fit.shape == "box" else 3
    at = 3 + first * count

    def dip(p: FloatArray) -> float:
        one, two = sorted((p[at], p[at + count]))
        changed = Fit(
            fit.shape, p, fit.covariance, 0.0, 0.0, fit.pixels, fit.area_px
        )
        places = np.linspace(one, two, _FINE + 1)
        level = np.abs(changed.curve(places, background=False))
        # peaks of the sum lie a little nearer to each other than the lines
        lowest = int(np.argmin(level[1:-1])) + 1
        tops = level[: lowest + 1].max(), level[lowest:].max()
        return 1 - float(level[lowest] / min(tops))

    return fit.estimate(dip)


def _far_dip(one: _Group, two: _Group) -> Estimate | None:
    """Dip between lines of two fits: what both leave of their levels in the middle."""
    if one.fit is None or two.fit is None:
        return None
    sides = []
    for group, number in ((one, len(one.peaks) - 1), (two, 0)):
        fit = group.fit
        assert fit is not None
        sides.append((group, fit, float(fit.line(number)[1]) + group.start))
    places = np.linspace(sides[0][2], sides[1][2], _FINE + 1)
    level = sum(
        np.abs(fit.curve(places - group.start, background=False))
        for group, fit, _ in sides
    )
    lowest = int(np.argmin(level))
    lower = min(level[0], level[-1])
    sd = math.hypot(*(fit.noise / math.sqrt(fit.pixels) for _, fit, _ in sides))
    return estimate(1 - float(level[lowest] / lower), sd / float(lower))


def _verdict(dip: Estimate | None, least: float) -> Verdict:
    """Judge a dip: its whole interval must lie on one side."""
    if dip is None or least >= dip.low and least < dip.high:
        return "undecided"
    return "resolved" if dip.low > least else "not resolved"


# Edges.


def _step(profile: Profile, found: _Found) -> tuple[float, float] | None:
    """Levels before and after an edge, turned as the curve; None without one."""
    count = max(2, round(_ENDS * len(found.level)))
    before, after = found.level[:count].mean(), found.level[-count:].mean()
    step, span = abs(after - before), float(np.ptp(found.smooth))
    left = profile_noise(profile)
    if step < _STEP * span or step < _OUT * left:
        return None
    for turned in (found.smooth, -found.smooth):
        if len(signal.find_peaks(turned, prominence=_STEP * step)[0]):
            return None
    return float(before), float(after)


def profile_noise(profile: Profile) -> float:
    """Standard deviation of a level of an edge: the mean of a tenth of the samples."""
    count = max(2, round(_ENDS * len(profile.distance_px)))
    return _noise(profile) / math.sqrt(profile.lines * count)


def _read_edge(
    profile: Profile,
    found: _Found,
    levels: tuple[float, float],
    noise: float,
    area: float,
) -> Readings:
    """Read the width of an edge."""
    known = np.isfinite(profile.intensity)
    intensity = np.interp(found.place, found.place[known], profile.intensity[known])
    smooth = ndimage.gaussian_filter1d(
        intensity, found.smooth_px / found.step_px, mode="nearest"
    )
    count = max(2, round(_ENDS * len(smooth)))
    before, after = float(intensity[:count].mean()), float(intensity[-count:].mean())
    middle = _rises(found.place, smooth, before, after, 0.5)
    low, high = (_rises(found.place, smooth, before, after, k) for k in (0.16, 0.84))
    place = found.place[-1] / 2 if middle is None else middle
    rough = 1.0 if low is None or high is None else max(abs(high - low) / 2, 0.5)
    fit = fit_edge(
        profile.place_px, profile.value, (before, after - before, place, rough), area
    )
    tenth, most = (_rises(found.place, intensity, before, after, k) for k in (0.1, 0.9))
    plain = None if tenth is None or most is None else abs(most - tenth)
    at = width = None
    curves: tuple[tuple[FloatArray, FloatArray], ...] = ()
    step = after - before
    if fit is not None and fit.parameters[1] * step > 0:
        at = fit.estimate(lambda p: float(p[2]))
        width = fit.estimate(
            lambda p: EDGE_10_90 * math.exp(min(p[3], 12)), positive=True
        )
        width = width if width.sd <= _MOST_SD * width.value else None
        places = np.linspace(0, found.place[-1], min(2000, 10 * len(found.place)))
        curves = ((places, fit.curve(places)),)
        step = float(fit.parameters[1])
    edge = EdgeReading(at, width, plain, step)
    low_end, high_end = sorted((before, after))
    return Readings((), (), edge, False, noise, low_end, high_end, None, curves)


def _rises(
    place: FloatArray, level: FloatArray, before: float, after: float, share: float
) -> float | None:
    """Where an edge has come so far: beyond the last sample below that share."""
    way = (level - before) / (after - before)
    below = np.flatnonzero(way[:-1] < share)
    below = below[way[below + 1] >= share]
    if not below.size:
        return None
    i = int(below[len(below) // 2])
    k = (share - way[i]) / (way[i + 1] - way[i])
    return float(place[i] + k * (place[i + 1] - place[i]))
