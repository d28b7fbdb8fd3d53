"""Gaps between neighbouring particles, as de Haan et al. count them.

1. *Background* is the median of the pixels below Otsu's threshold; it is taken off.
2. *Particles* are found on the reference, where there is one, else on the image: pixels
   above Otsu's threshold after a Gaussian of 1 px, parted where their distance to the
   outside has a waist.
3. *Neighbours* are particles whose centres see each other past all others, no further
   apart than a share of their mean diameter.
4. The grey levels from centre to centre, averaged over three lines 1 px apart, have a
   *peak* in either particle. Pairs whose lower peak is under 80 % of the higher are
   left out and counted.
5. There is a *gap* where the minimum between the peaks is below 60 % of the higher one;
   its *width* lies between the points where the grey level falls below 80 % of it.

With a reference, its gaps are looked for in the image along the same lines: they are
*found* or *missed*. The image's own gaps, of particles found on it, are then looked for
in the reference: those that it does not show are *invented*.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage, spatial
from skimage import filters, morphology, segmentation

from napari_semsr.analysis.gap_statistics import (
    WidthHistogram,
    count_widths,
    mean_interval,
    share_interval,
    width_edges,
)
from napari_semsr.core import (
    BoolArray,
    FloatArray,
    FloatPair,
    IntPair,
    Micrograph,
    Options,
    ReadError,
    ShapeError,
    length_error,
    widened,
)

# The two shares are de Haan's (2019, cited below); how particles are found is not told
# there, and chosen here (docs/gaps.md).
_DEEP = 0.6  # a minimum below this share of the higher peak is a gap
_EDGE = 0.8  # where a gap begins and ends; also the least lower peak
_SMOOTH_PX = 1.0  # takes single noisy pixels out of outlines
_WAIST_PX = 1.0  # depth of a waist that parts two particles
_STEP_PX = 0.25  # widths are interpolated between these points
_LINES = (-1.0, 0.0, 1.0)  # averaging them quietens noise to a third of its power


class GapOptions(Options):
    """Which pairs of particles are looked at."""

    dark: bool = Field(default=False, description="particles are darker than the rest")
    # 4 px and one diameter are chosen: less is noise, and further apart is no gap
    min_diameter_px: float = Field(
        default=4.0, gt=0, description="smaller particles are left out"
    )
    reach: float = Field(
        default=1.0,
        gt=0,
        description="largest distance of neighbours, outline to outline, over their "
        "mean diameter",
    )
    bin_width: float | None = Field(
        default=None,
        gt=0,
        description="width of the histogram's bins in nm, in px without a pixel size; "
        "by itself that of Freedman and Diaconis, rounded",
    )


GapKind = Literal["found", "missed", "invented"]


@dataclass(frozen=True, slots=True)
class Particle:
    """One particle, of the reference where there is one."""

    place_px: FloatPair  # Its centre, ``(y, x)``
    diameter_px: float  # of a disc of its area
    diameter_nm: float | None
    whole: bool  # False where the image's border may cut it


@dataclass(frozen=True, slots=True)
class Gap:
    """One gap of the reference or, where it is invented or alone, of the image."""

    place_px: FloatPair  # Its middle, ``(y, x)``
    place_nm: FloatPair | None  # The same from the image's origin
    ends_px: tuple[FloatPair, FloatPair]  # Where it begins and ends
    # Its width in the image; None where it is not seen or has no two ends
    width_px: float | None
    width_nm: float | None
    # Its width in the reference; None without one
    reference_px: float | None
    reference_nm: float | None
    kind: GapKind

    @property
    def detected(self) -> bool:
        """Whether the image shows it."""
        return self.kind != "missed"

    def width_error(self, unit: str) -> float | None:
        """Give the width in the image less that in the reference.

        Parameters
        ----------
        unit : {"px", "nm"}
            Unit of the widths.

        Returns
        -------
        float or None
            None where either is not known.
        """
        width = getattr(self, f"width_{unit}")
        known = getattr(self, f"reference_{unit}")
        return None if width is None or known is None else float(width - known)


@dataclass(frozen=True, slots=True)
class Gaps:
    """Gaps of a field.

    Attributes
    ----------
    particles, pairs : int
        Particles, and neighbours among them.
    excluded : int
        Pairs left out for their unequal peaks.
    found : tuple of Gap
        The gaps of the reference or, without one, of the image.
    background : float
        Grey level that was taken off the image.
    reference_background : float or None
        The same of the reference.
    sizes : tuple of Particle
        The particles, one by one.
    invented : tuple of Gap
        Gaps of the image that the reference does not show.
    own : int or None
        Gaps between particles found on the image; None without a reference.
    size_error : float
        Relative standard deviation of the pixel size, which is in all intervals in nm.
    """

    particles: int
    pairs: int
    excluded: int
    found: tuple[Gap, ...]
    background: float
    reference_background: float | None
    sizes: tuple[Particle, ...] = ()
    invented: tuple[Gap, ...] = ()
    own: int | None = None
    size_error: float = 0.0

    @property
    def detected(self) -> int:
        """Gaps that the image shows."""
        return sum(gap.detected for gap in self.found)

    @property
    def undetected_fraction(self) -> float | None:
        """Share of the reference's gaps that the image does not show."""
        if self.reference_background is None or not self.found:
            return None
        return 1 - self.detected / len(self.found)

    @property
    def undetected_interval(self) -> FloatPair | None:
        """Wilson's 95 % interval of that share."""
        if self.reference_background is None:
            return None
        return share_interval(len(self.found) - self.detected, len(self.found))

    @property
    def invented_fraction(self) -> float | None:
        """Share of the image's own gaps that the reference does not show."""
        return len(self.invented) / self.own if self.own else None

    @property
    def invented_interval(self) -> FloatPair | None:
        """Wilson's 95 % interval of that share."""
        return share_interval(len(self.invented), self.own or 0)

    def width_errors(self, unit: str) -> FloatArray:
        """Give the widths in the image less those in the reference.

        Parameters
        ----------
        unit : {"px", "nm"}
            Unit of the widths.

        Returns
        -------
        (N,) numpy.ndarray
            One for each gap that both show; empty where none, or no unit, is known.
        """
        errors = [gap.width_error(unit) for gap in self.found]
        return np.array([error for error in errors if error is not None], dtype=float)

    def error_intervals(self, unit: str) -> tuple[FloatPair | None, FloatPair | None]:
        """Give 95 % intervals of the mean absolute and the mean signed error of width.

        Parameters
        ----------
        unit : {"px", "nm"}
            Unit of the widths.

        Returns
        -------
        tuple
            Two, each None of fewer than five gaps; see `mean_interval`.
        """
        errors = self.width_errors(unit)
        return self.interval_of(np.abs(errors), unit), self.interval_of(errors, unit)

    def interval_of(self, values: FloatArray, unit: str) -> FloatPair | None:
        """Give the 95 % interval of the mean of lengths, or of differences of lengths.

        Parameters
        ----------
        values : (N,) numpy.ndarray
            Widths, their errors or diameters.
        unit : {"px", "nm"}
            Their unit; in nm the pixel size's error is added.

        Returns
        -------
        tuple of float or None
            None of fewer than five values; see `mean_interval`.
        """
        read = mean_interval(values)
        if read is None or unit != "nm":
            return read
        return widened(float(np.mean(values)), read, self.size_error)

    def widths(self, unit: str) -> tuple[FloatArray, FloatArray]:
        """Give the widths in the image, and those in the reference.

        Parameters
        ----------
        unit : {"px", "nm"}
            Unit of the widths.

        Returns
        -------
        tuple of (N,) numpy.ndarray
            Those that are known; none of a reference where there is none.
        """
        names = f"width_{unit}", f"reference_{unit}"
        image, reference = (
            np.array(_known(getattr(gap, name) for gap in self.found), dtype=float)
            for name in names
        )
        return image, reference

    def histograms(
        self, unit: str, bin_width: float | None = None
    ) -> tuple[WidthHistogram, WidthHistogram | None]:
        """Count the widths in bins, those of image and reference in the same.

        Parameters
        ----------
        unit : {"px", "nm"}
            Unit of the widths.
        bin_width : float, optional
            Width of a bin, else see `width_edges`.

        Returns
        -------
        tuple of WidthHistogram
            Of the image, and of the reference or None. The reference's gaps are
            counted alone: none that the image invents. In nm the error of a Gaussian's
            mean has that of the pixel size in it.
        """
        image, reference = self.widths(unit)
        widths = [image] if self.reference_background is None else [image, reference]
        edges = width_edges(np.concatenate(widths), bin_width)
        share = self.size_error if unit == "nm" else 0.0
        first, *second = (_doubted(count_widths(each, edges), share) for each in widths)
        return first, second[0] if second else None

    def diameters(self, unit: str) -> FloatArray:
        """Give the diameters of particles that the border does not cut.

        Parameters
        ----------
        unit : {"px", "nm"}
            Unit of the diameters.

        Returns
        -------
        (N,) numpy.ndarray
            Empty where none, or no unit, is known.
        """
        whole = (getattr(one, f"diameter_{unit}") for one in self.sizes if one.whole)
        return np.array(_known(whole), dtype=float)

    def table(self) -> dict[str, list[Any]]:
        """Give one row for each gap, as columns.

        Returns
        -------
        dict
            Kind, place of the middle, width in the reference and in the image, and
            their difference, in px and nm; None where there is none. Gaps that are
            invented come last.
        """
        gaps = (*self.found, *self.invented)
        columns: dict[str, list[Any]] = {"kind": [gap.kind for gap in gaps]}
        for unit in ("px", "nm"):
            places = [getattr(gap, f"place_{unit}") or (None, None) for gap in gaps]
            columns[f"y_{unit}"] = [place[0] for place in places]
            columns[f"x_{unit}"] = [place[1] for place in places]
        for unit in ("px", "nm"):
            columns[f"reference_width_{unit}"] = [
                getattr(gap, f"reference_{unit}") for gap in gaps
            ]
            columns[f"width_{unit}"] = [getattr(gap, f"width_{unit}") for gap in gaps]
            columns[f"error_{unit}"] = [gap.width_error(unit) for gap in gaps]
        return columns


def _doubted(counted: WidthHistogram, share: float) -> WidthHistogram:
    """Add the pixel size's error to that of the Gaussian's mean."""
    fit = counted.fit
    if fit is None:
        return counted
    error = math.hypot(fit.error, share * fit.mean)
    return replace(counted, fit=replace(fit, error=error))


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


@dataclass(frozen=True, slots=True)
class _Line:
    """From the centre of one particle to that of another."""

    start: FloatArray
    stop: FloatArray
    inside: tuple[BoolArray, BoolArray]

    @property
    def length(self) -> float:
        """Length in pixels."""
        return float(np.hypot(*(self.stop - self.start)))


@dataclass(frozen=True, slots=True)
class _Dip:
    """What a profile shows between two peaks."""

    equal: bool
    deep: bool
    ends: FloatPair | None  # in steps along the line


def measure_gaps(
    image: Micrograph,
    reference: Micrograph | None = None,
    *,
    options: GapOptions | None = None,
) -> Gaps:
    """Count and measure the gaps between particles.

    Parameters
    ----------
    image : Micrograph
        An image of particles.
    reference : Micrograph, optional
        A better image of the same field, on the same grid.
    options : GapOptions, optional
        Which pairs count.

    Returns
    -------
    Gaps
        The gaps, in the order of their particles.

    Raises
    ------
    ShapeError
        If the shapes differ.
    ReadError
        If pixels are not finite.

    References
    ----------
    .. [1] K. de Haan et al., Sci. Rep. 9, 12050 (2019),
       doi:10.1038/s41598-019-48444-2.
    """
    chosen = options or GapOptions()
    if reference is not None and reference.shape != image.shape:
        msg = (
            f"Image and reference must have the same shape, got {image.shape} and "
            f"{reference.shape}; bring them onto one grid with semsr crop."
        )
        raise ShapeError(msg)
    values, background = _above_background(image, dark=chosen.dark)
    guide, guide_background = values, None
    if reference is not None:
        guide, guide_background = _above_background(reference, dark=chosen.dark)
    labels, count = _particles(guide, chosen)
    lines = _lines(labels, count, chosen)
    found, excluded = _gaps(guide, None if reference is None else values, lines, image)
    invented, own = [], None
    if reference is not None:
        other, number = _particles(values, chosen)
        back, _ = _gaps(values, guide, _lines(other, number, chosen), image)
        own = len(back)
        invented = [_as_invented(gap) for gap in back if not gap.detected]
    return Gaps(
        particles=count,
        pairs=len(lines),
        excluded=excluded,
        found=tuple(found),
        background=background,
        reference_background=guide_background,
        sizes=_sizes(labels, count, image),
        invented=tuple(invented),
        own=own,
        size_error=length_error(image),
    )


def _gaps(
    guide: FloatArray,
    other: FloatArray | None,
    lines: list[_Line],
    image: Micrograph,
) -> tuple[list[Gap], int]:
    """Find the gaps of one image, and look for them in another.

    The number is that of lines that were left out for their unequal peaks.
    """
    found, excluded = [], 0
    for line in lines:
        seen = _dip(guide, line)
        excluded += not seen.equal
        if not (seen.equal and seen.deep and seen.ends):
            continue
        shown = seen if other is None else _dip(other, line)
        found.append(_gap(line, shown, None if other is None else seen, image))
    return found, excluded


def _as_invented(gap: Gap) -> Gap:
    """Turn a gap of the image that the reference misses the right way round."""
    return replace(
        gap,
        width_px=gap.reference_px,
        width_nm=gap.reference_nm,
        reference_px=None,
        reference_nm=None,
        kind="invented",
    )


def _sizes(
    labels: NDArray[np.int32], count: int, image: Micrograph
) -> tuple[Particle, ...]:
    """Measure the particles."""
    if not count:
        return ()
    centres, area = _centres(labels, count)
    rim = (labels[0], labels[-1], labels[:, 0], labels[:, -1])
    cut = np.isin(np.arange(1, count + 1), np.concatenate(rim))
    diameter = 2 * np.sqrt(area / np.pi)
    nm = image.mean_pixel_size_nm  # whose square is the area of a pixel
    return tuple(
        Particle((y, x), size, None if nm is None else size * nm, not part)
        for (y, x), size, part in zip(
            centres.tolist(), diameter.tolist(), cut.tolist(), strict=True
        )
    )


def _centres(labels: NDArray[np.int32], count: int) -> tuple[FloatArray, FloatArray]:
    """Centres and areas of particles, in px."""
    numbers = np.arange(1, count + 1)
    centres = np.array(ndimage.center_of_mass(labels > 0, labels, numbers))
    area = np.bincount(labels.ravel(), minlength=count + 1)[1:].astype(float)
    return centres, area


def _above_background(image: Micrograph, *, dark: bool) -> tuple[FloatArray, float]:
    """Grey levels above the background, and the background."""
    values = image.array().astype(float)
    if not np.isfinite(values).all():
        missing = values.size - int(np.count_nonzero(np.isfinite(values)))
        msg = (
            f"Gaps need finite pixels, got {missing} NaN or infinite in {image.name}; "
            "cut them off (semsr crop --gap-free)."
        )
        raise ReadError(msg)
    turned = -values if dark else values
    low, high = float(turned.min()), float(turned.max())
    level = low
    if high > low:
        level = float(np.median(turned[turned <= filters.threshold_otsu(turned)]))
    return turned - level, -level if dark else level


def _particles(
    values: FloatArray, options: GapOptions
) -> tuple[NDArray[np.int32], int]:
    """Label particles from 1 upwards."""
    smooth = ndimage.gaussian_filter(values, _SMOOTH_PX)
    if smooth.max() <= smooth.min():
        return np.zeros(values.shape, np.int32), 0
    mask = smooth > filters.threshold_otsu(smooth)
    depth = ndimage.distance_transform_edt(mask)
    tops = morphology.h_maxima(depth, _WAIST_PX)
    seeds, _ = ndimage.label(tops, structure=np.ones((3, 3)))
    parts = segmentation.watershed(-depth, seeds, mask=mask)
    area = np.bincount(parts.ravel())
    large = area >= np.pi / 4 * options.min_diameter_px**2
    large[0] = False
    renumbered = np.where(large, np.cumsum(large), 0)
    return renumbered[parts].astype(np.int32), int(large.sum())


def _lines(labels: NDArray[np.int32], count: int, options: GapOptions) -> list[_Line]:
    """Join the centres of neighbours."""
    if count < 2:
        return []
    centres, area = _centres(labels, count)
    diameter = 2 * np.sqrt(area / np.pi)
    furthest = float((1 + options.reach) * diameter.max())
    pairs = spatial.cKDTree(centres).query_pairs(furthest, output_type="ndarray")
    found = []
    for a, b in pairs[np.lexsort(pairs.T[::-1])]:
        line = _line(labels, centres[a], centres[b], (int(a) + 1, int(b) + 1))
        if line is None:
            continue
        between = _STEP_PX * np.count_nonzero(~(line.inside[0] | line.inside[1]))
        if between <= options.reach * (diameter[a] + diameter[b]) / 2:
            found.append(line)
    return found


def _line(
    labels: NDArray[np.int32],
    start: FloatArray,
    stop: FloatArray,
    ends: IntPair,
) -> _Line | None:
    """Join two centres; None where another particle lies between."""
    passed = ndimage.map_coordinates(
        labels, _points(start, stop), order=0, mode="nearest"
    )
    if not set(np.unique(passed)) <= {0, *ends}:
        return None
    inside = passed == ends[0], passed == ends[1]
    if not (inside[0].any() and inside[1].any()):
        return None
    return _Line(start, stop, inside)


def _points(start: FloatArray, stop: FloatArray, aside: float = 0.0) -> FloatArray:
    """Points along a line, shifted aside by some pixels."""
    along = stop - start
    length = max(float(np.hypot(*along)), 1e-9)
    count = int(np.ceil(length / _STEP_PX)) + 1
    across = np.array([-along[1], along[0]]) / length
    share = np.linspace(0, 1, count)
    return np.asarray((start + aside * across)[:, None] + along[:, None] * share)


def _dip(values: FloatArray, line: _Line) -> _Dip:
    """Look at the grey levels between two particles."""
    points = [_points(line.start, line.stop, aside) for aside in _LINES]
    levels = ndimage.map_coordinates(
        values, np.concatenate(points, axis=1), order=1, mode="nearest"
    )
    profile = levels.reshape(len(_LINES), -1).mean(axis=0)
    first, second = (
        int(np.argmax(np.where(inside, profile, -np.inf))) for inside in line.inside
    )
    higher = max(profile[first], profile[second])
    lower = min(profile[first], profile[second])
    equal = bool(higher > 0 and lower >= _EDGE * higher)
    if second - first < 2 or higher <= 0:
        return _Dip(equal, False, None)
    bottom = first + int(np.argmin(profile[first : second + 1]))
    deep = bool(profile[bottom] < _DEEP * higher)
    if not deep:
        return _Dip(equal, False, None)
    level = _EDGE * higher
    left = _crossing(profile[first : bottom + 1][::-1], level)
    right = _crossing(profile[bottom : second + 1], level)
    ends = None if left is None or right is None else (bottom - left, bottom + right)
    return _Dip(equal, deep, ends)


def _crossing(rising: FloatArray, level: float) -> float | None:
    """Find where a profile that starts below a level first reaches it."""
    above = np.flatnonzero(rising >= level)
    if not above.size or above[0] == 0:
        return None
    high = int(above[0])
    low = rising[high - 1]
    return float(high - 1 + (level - low) / (rising[high] - low))


def _gap(line: _Line, shown: _Dip, known: _Dip | None, image: Micrograph) -> Gap:
    """Put a gap into numbers."""
    count = line.inside[0].size
    step = line.length / max(count - 1, 1)
    along = (line.stop - line.start) / max(line.length, 1e-9)
    nm_per_px = None
    if image.pixel_size_nm is not None:
        nm_per_px = float(np.hypot(*(along * np.array(image.pixel_size_nm))))
    widths = [
        None if dip is None or dip.ends is None else (dip.ends[1] - dip.ends[0]) * step
        for dip in (shown, known)
    ]
    in_nm = [
        None if width is None or nm_per_px is None else width * nm_per_px
        for width in widths
    ]
    ends = (known or shown).ends or (0.0, float(count - 1))
    edges = [line.start + along * step * end for end in ends]
    place = (edges[0] + edges[1]) / 2
    in_plane = None
    if image.pixel_size_nm is not None:
        in_plane = _pair(image.origin + place * np.array(image.pixel_size_nm))
    return Gap(
        place_px=_pair(place),
        place_nm=in_plane,
        ends_px=(_pair(edges[0]), _pair(edges[1])),
        width_px=widths[0],
        width_nm=in_nm[0],
        reference_px=widths[1],
        reference_nm=in_nm[1],
        kind="found" if shown.deep else "missed",
    )


def _pair(place: FloatArray) -> FloatPair:
    return float(place[0]), float(place[1])
