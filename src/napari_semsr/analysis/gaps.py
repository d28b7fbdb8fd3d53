"""Gaps between neighbouring particles, counted as by de Haan et al.

1. *Background* is the median of the pixels below Otsu's threshold; it is subtracted. If
   the darkest levels form a curved surface, that is subtracted first.
2. *Particles* are found on the reference if there is one, else on the image, after a
   Gaussian of 3/4 of the *blur*, but at least 1 px: regions 4.5 standard deviations
   (noise and texture) above the background are split where the grey level falls below
   80 % of either side, outlined at half of their height, and split at waists. Then
   fainter ones are found in the remainder, and those in noise after Gaussians 2 and 4
   times as wide. The blur is the median sigma of the outlines of the first regions, at
   least 1 px: all lengths in pixels follow it.
3. *Neighbours* are particles without another particle between their centres, and not
   further apart than a share of their mean diameter.
4. The grey levels from centre to centre, averaged over three lines one blur apart,
   have a *peak* in either particle. Pairs whose lower peak is under 80 % of the higher
   are excluded and counted.
5. There is a *gap* where the minimum between the peaks is below 60 % of the higher one;
   its *width* is between the points where the grey level falls below 80 % of it. It
   is excluded and counted if it would cross an object: if its minimum is on a particle,
   if it ends well within one, if a bright region is on the line between them, or if a
   rise in it exceeds a tenth of the higher peak. Between labels it ends at 50 %, where
   they end.

With a reference, its gaps are searched in the image along the same lines: they are
*found* or *missed*. Gaps between particles found on the image are then searched in the
reference: those that it does not show are *invented*.
"""

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import numpy as np
import scipy  # the submodules are loaded lazily
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, spatial
from skimage import filters, measure, morphology, segmentation

from napari_semsr import core
from napari_semsr.analysis.frc import check_same_grid, read_finite_array

# The two shares are de Haan's (2019, cited below); how to find particles is not
# described there; it is chosen here (docs/gaps.md).
_EDGE = 0.8  # where a gap begins and ends; also the lower limit of the lower peak
# Narrowest Gaussian for finding particles, over the blur of their edges and at least a
# pixel, and the widths of all over that; chosen: outlines move little
_SMOOTH, _SCALES = 0.75, (1.0, 2.0, 4.0)
# Standard deviations of the smoothed background, noise and texture: exceeded by three
# of a million pixels of white noise
_MIN_APART = 4.5
_CLEAR = 1.8  # times that: the outline, at half of the height, is then at 4 sigma
# Contrast of the faintest particles over that of the bright ones without noise; chosen:
# five grey levels of 8 bits
_FAINTEST = 0.02
_OUTLINE = 0.5  # outline of a particle, over its height
# Depth of a waist that separates two particles, over the smaller half width, and over
# the width of the Gaussian; chosen: equal discs with centres 0.44 of the sum of radii
# apart
_WAIST, _ROUGH = 0.9, 0.5
# How far a gap may extend into a particle, over the blur of the edges, and share of its
# length on the line; chosen
_DEEPEST_BLURS, _DEEPEST = 3.0, 0.1
_NEXT = np.s_[:-1], np.s_[1:]  # pixels and their neighbours along an axis
# Parts along each axis for finding a slope of the background, percentile of low levels,
# weight of levels above; chosen
_SLOPE_PARTS, _LOW, _ABOVE, _ROUNDS = 16, 5.0, 0.01, 20
# Share of the parts that agree with the slope: 0.9 and more for a sloping background
# with up to 250 particles, 0.3 and less if the background is level or hidden; chosen
# between
_FOLLOW, _FOLLOWS = 0.6, 0.1  # agreement: within this share of the slope; chosen
# Share of the surroundings darker than a particle; chosen: next to another particle a
# third may be brighter, and around the rim of a brighter one nearly half
_MAX_AROUND = 2 / 3
_PARTS = 8  # parts of a field along each axis, in which particles are counted
# Width of a particle's falling edge, over its blur: 98 % of its height
_RIM = 2
_STEP_PX = 0.25  # widths are interpolated between these points
_MAX_PARTS = 2  # average objects per label; chosen: grey levels have more
# A clear particle shares less than this part of its outline with others, and fills
# more than this share of the ellipse of its moments (a square 0.955, a triangle 0.83)
_MAX_SHARED, _MIN_FILL = 0.5, 0.95
_SHAPES = "eccentricity", "axis_major_length", "axis_minor_length"
# Over the blur of edges; averaging them reduces noise to a third of its power
_LINES = (-1.0, 0.0, 1.0)


# Statistics of many gaps: histogram, fitted Gaussian, and 95 % intervals.

LEVEL = 0.95  # confidence level of all intervals
# Another seed changes a bound by 1 to 2 % of the interval (benchmarks/gap_intervals.py)
_RESAMPLES = 4000
_SEED = 0
_REFITS = 200  # for a standard error precise to 5 %: 1 / sqrt(2 n)
_ROUND = (1.0, 2.0, 2.5, 5.0, 10.0)  # bin widths that are round numbers
_MAX_BINS = 1000


@dataclass(frozen=True, slots=True)
class WidthFit:
    """Gaussian fitted to a histogram of widths, in the units of the histogram."""

    mean: float
    # Standard error, from fits to resampled gaps
    error: float
    sigma: float
    height: float  # gaps per bin

    def evaluate(self, widths: ArrayLike) -> core.FloatArray:
        """Evaluate the Gaussian at the given widths, in gaps per bin."""
        return _evaluate_gaussian(
            np.asarray(widths, dtype=float), self.height, self.mean, self.sigma
        )


@dataclass(frozen=True, slots=True)
class WidthHistogram:
    """Histogram of gap widths."""

    edges: tuple[float, ...]  # of the bins, one more than there are counts
    counts: tuple[int, ...]  # gaps in each bin
    beyond: int  # gaps wider than the last edge
    fit: WidthFit | None  # None if there are too few gaps or the fit fails


def choose_bin_edges(
    widths: Iterable[float], bin_width: float | None = None
) -> core.FloatArray:
    """Choose the bin edges of a histogram, from 0 to Tukey's outer fence.

    Their width is `bin_width`, by default that of Freedman and Diaconis [1]_, rounded.

    .. [1] D. Freedman and P. Diaconis, Z. Wahrscheinlichkeitstheorie 57, 453 (1981),
       doi:10.1007/BF01025868.
    """
    values = np.array(list(widths), dtype=float)
    if not values.size:
        return np.array([0.0, bin_width or 1.0])
    low, high = np.quantile(values, [0.25, 0.75])
    # Tukey's outer fence, in quartile ranges above the third quartile
    last = min(float(values.max()), float(high + 3.0 * (high - low)))
    step = bin_width
    if step is None:
        step = 2 * float(high - low) / values.size ** (1 / 3)
        # rounding makes a bin narrower by less than half
        wanted_step = step if step > 2 * last / _MAX_BINS else last / 10 or 1.0
        power = 10.0 ** math.floor(math.log10(wanted_step))
        step = power * min(_ROUND, key=lambda n: abs(math.log(wanted_step / power / n)))
    count = math.floor(last / step) + 1
    if count > _MAX_BINS:
        msg = (
            f"bin_width must yield at most {_MAX_BINS} bins, but {step:g} is too small "
            f"for gaps up to {last:.4g} wide; use wider bins."
        )
        raise core.OptionError(msg, code="out-of-range")
    return np.arange(count + 1, dtype=float) * step


def compute_width_histogram(
    widths: Iterable[float], edges: ArrayLike
) -> WidthHistogram:
    """Histogram the widths and fit a Gaussian by ordinary least squares.

    Widths have a long tail, unlike a Gaussian: the mean of the fit is that of the peak.
    """
    values, at = np.array(list(widths), dtype=float), np.asarray(edges, dtype=float)
    counts, _ = np.histogram(values, at)
    return WidthHistogram(
        tuple(at.tolist()),
        tuple(counts.tolist()),
        int(np.count_nonzero(values > at[-1])),
        _fit_histogram(values[values <= at[-1]], counts, at),
    )


def _fit_histogram(
    places: core.FloatArray, counts: NDArray[np.integer], edges: core.FloatArray
) -> WidthFit | None:
    # fewer gaps do not determine a fit of three parameters
    if counts.sum() < 8 or counts.size <= 3:
        return None
    middle, step = (edges[:-1] + edges[1:]) / 2, float(edges[1] - edges[0])
    start = (float(counts.max()), float(np.median(places)), float(places.std()))
    best = _fit_gaussian(middle, counts, (*start[:2], max(start[2], step)))
    if best is None or not 0 <= best[1] <= edges[-1]:
        return None
    rng, means = np.random.default_rng(_SEED), []
    for counts_drawn in rng.multinomial(counts.sum(), counts / counts.sum(), _REFITS):
        again = _fit_gaussian(middle, counts_drawn, best)
        if again is not None:
            means.append(again[1])
    # a peak missing in many resampled histograms is not significant
    if len(means) < _REFITS / 2:
        return None
    # half of the central 68 %: robust to single outlying fits
    low, high = np.quantile(means, [0.16, 0.84])
    height, mean, sigma = best
    return WidthFit(mean, float(high - low) / 2, abs(sigma), height)


def _fit_gaussian(
    middle: core.FloatArray,
    counts: NDArray[np.integer],
    start: tuple[float, float, float],
) -> tuple[float, float, float] | None:
    """Fit height, mean and sigma of a Gaussian; None if the fit does not converge."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the covariance, which is not used
            best, _ = scipy.optimize.curve_fit(
                _evaluate_gaussian,
                middle,
                counts,
                start,
                jac=_compute_gaussian_derivatives,
            )
    except RuntimeError:
        return None
    height, mean, sigma = (float(value) for value in best)
    return (height, mean, sigma) if math.isfinite(mean) else None


def _evaluate_gaussian(
    x: core.FloatArray, height: float, mean: float, sigma: float
) -> core.FloatArray:
    return np.asarray(height * np.exp(-0.5 * ((x - mean) / sigma) ** 2))


def _compute_gaussian_derivatives(
    x: core.FloatArray, height: float, mean: float, sigma: float
) -> core.FloatArray:
    away = (x - mean) / sigma
    shape = np.exp(-0.5 * away**2)
    rise = height * shape * away / sigma
    return np.stack([shape, rise, rise * away], axis=1)


def compute_fraction_interval(part: int, whole: int) -> core.FloatPair | None:
    """Return the 95 % Wilson interval of a fraction; None if the total is 0.

    .. [1] E. B. Wilson, J. Am. Stat. Assoc. 22, 209 (1927), doi:10.2307/2276774.
    """
    if whole < 1:
        return None
    from scipy.stats import binomtest  # slow to import

    ends = binomtest(part, whole).proportion_ci(LEVEL, method="wilson")
    return float(ends.low), float(ends.high)


def compute_mean_interval(
    values: ArrayLike, *, seed: int = _SEED
) -> core.FloatPair | None:
    """Return the studentised bootstrap 95 % CI of a mean; None for too few values.

    Values are resampled 4000 times from a fixed seed, so the result is reproducible.
    Each resampled mean is divided by its own standard error, so that skewed values,
    such as absolute errors, get an asymmetric interval.

    .. [1] B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap (1993),
       section 12.5.
    """
    finite_values = np.asarray(values, dtype=float)
    count = finite_values.size
    # with fewer values, resamples often have no spread
    if count < 5:
        return None
    mean = float(finite_values.mean())
    error = float(finite_values.std(ddof=1)) / math.sqrt(count)
    if error <= 1e-9 * abs(mean):  # all values are equal
        return mean, mean
    rng = np.random.default_rng(seed)
    # resampled values held in memory
    step = max(1, (1 << 22) // count)
    ratios = []
    for first in range(0, _RESAMPLES, step):
        rows = min(step, _RESAMPLES - first)
        resamples = finite_values[rng.integers(0, count, (rows, count))]
        errors = resamples.std(axis=1, ddof=1) / math.sqrt(count)
        spread = errors > 1e-9 * error  # otherwise all values of a resample are equal
        ratios.append((resamples[spread].mean(axis=1) - mean) / errors[spread])
    ends = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    low, high = np.quantile(np.concatenate(ratios), ends).tolist()
    return mean - high * error, mean - low * error


class GapOptions(core.Options):
    """Options for finding particles, and for selecting pairs of them."""

    dark: bool = core.option(
        False,
        "Particles are dark",
        "Particles are darker than their surroundings.",
    )
    min_diameter_px: float = core.option(  # chosen: smaller ones are noise
        4.0,
        "Min. diameter",
        "Minimum diameter; smaller particles are ignored.",
        unit="px",
        gt=0,
    )
    labels: bool = core.option(
        False,
        "Label image",
        "Treat the image as a label image with background 0, or as a mask whose "
        "connected components are the particles.",
    )
    # chosen: a space wider than one diameter is not a gap
    reach: float = core.option(
        1.0,
        "Reach",
        "Maximum distance between the outlines of neighbouring particles, relative to "
        "their mean diameter.",
        unit="diameters",
        step=0.1,
        gt=0,
    )
    bin_width: float | None = core.option(
        None,
        "Bin width",
        "Histogram bin width in nm, or in px without a pixel size; by default, the "
        "rounded Freedman-Diaconis bin width.",
        gt=0,
    )


GapKind = Literal["found", "missed", "invented"]


@dataclass(frozen=True, slots=True)
class Particle:
    """Particle in the reference or, without a reference, in the image."""

    place_px: core.FloatPair  # Position of the centre, ``(y, x)``
    diameter_px: float  # of a disc of the same area
    diameter_nm: float | None
    whole: bool  # False if it may be cut off by the image's border
    area_px: float  # in pixels of mean size
    label: int  # in the label image
    eccentricity: float  # of the ellipse of the same second moments


@dataclass(frozen=True, slots=True)
class Gap:
    """Gap in the reference, or in the image if invented or without a reference."""

    place_px: core.FloatPair  # Position of the centre, ``(y, x)``
    place_nm: core.FloatPair | None  # The same relative to the image's origin
    ends_px: tuple[core.FloatPair, core.FloatPair]  # Its start and end
    # Its width in the image; None if it is missed or has fewer than two ends
    width_px: float | None
    width_nm: float | None
    # Its width in the reference; None without a reference
    reference_px: float | None
    reference_nm: float | None
    kind: GapKind

    @property
    def detected(self) -> bool:
        """Whether the image shows this gap."""
        return self.kind != "missed"


def _create_mean_properties(
    key: str, label: str, get: Callable[["Gaps", str], core.FloatArray], **more: object
) -> tuple[property, property, property, property]:
    """Create the properties of a mean length and its 95 % interval, in nm and in px."""

    def compute_mean(gaps: "Gaps", unit: str) -> float | None:
        values = get(gaps, unit)
        return float(values.mean()) if values.size else None

    def compute_interval(gaps: "Gaps", unit: str) -> core.FloatPair | None:
        return gaps.compute_interval(get(gaps, unit), unit)

    ends = f"{key}_interval"
    end_settings = {"shown": False, "tabled": False}
    how: dict[str, object] = {"form": ".3g", "interval": f"{ends}_{{unit}}", **more}
    nm, px = core.create_length_properties(compute_mean, key, label, **how)
    return (
        nm,
        px,
        *core.create_length_properties(compute_interval, ends, label, **end_settings),
    )


def _compute_median_diameter(gaps: "Gaps", unit: str) -> float | None:
    """Return the median diameter of the particles."""
    diameters = gaps.get_diameters(unit)
    return float(np.median(diameters)) if diameters.size else None


_NOT_STORED = {"json": False}


@dataclass(frozen=True, slots=True)
class Gaps:
    """Gaps between the particles of a field."""

    particles: Annotated[int, core.Quantity("Particles")]
    pairs: Annotated[int, core.declare_quantity("Pairs")]
    # Pairs of neighbours excluded for their unequal peaks
    excluded: Annotated[int, core.declare_quantity("Excluded")]
    # Gaps of the reference or, without one, of the image
    found_gaps: tuple[Gap, ...] = field(metadata=_NOT_STORED)
    # Background grey level that was subtracted
    background: Annotated[float, core.declare_quantity("Background", core.LEVELS)]
    reference_background: Annotated[
        float | None, core.declare_quantity("Background, reference", core.LEVELS)
    ]
    sizes: tuple[Particle, ...] = field(default=(), metadata=_NOT_STORED)
    # Gaps of the image that the reference does not show
    invented_gaps: tuple[Gap, ...] = field(default=(), metadata=_NOT_STORED)
    # Gaps between particles found on the image; None without a reference
    own: int | None = field(default=None, metadata=_NOT_STORED)
    # Relative standard deviation of the pixel size, included in all intervals in nm
    size_error: float = field(default=0.0, metadata=_NOT_STORED)
    # For all intervals: number of resamplings and their seed
    resamples: Annotated[int, core.declare_quantity("Resamplings")] = _RESAMPLES
    seed: Annotated[int, core.declare_quantity("Their seed")] = _SEED
    # Pairs excluded because their gaps would cross an object
    across: Annotated[int, core.declare_quantity("Across an object")] = 0
    # All bright regions: particles, and regions too small for one
    bright: Annotated[int, core.declare_quantity("Bright regions")] = 0
    # Share of the field covered by particles, and share of its 64 parts with a particle
    covered: Annotated[float, core.declare_quantity("Covered by particles")] = 0.0
    populated: Annotated[float, core.declare_quantity("Parts with particles")] = 0.0
    # Share of particles, by diameter, that are round or convex and isolated; None for
    # label images
    clear: Annotated[float | None, core.declare_quantity("Clearly outlined")] = None
    # (Y, X) Number of each pixel's particle, 0 elsewhere
    labels: NDArray[np.integer] | None = field(
        default=None, compare=False, metadata=_NOT_STORED
    )
    # Measured pixels ``(y0, x0, y1, x1)`` of an image with gaps
    box: Annotated[core.BoxEnds | None, core.declare_quantity("Box", "px")] = None

    measured_in = property(core.describe_measured_box)

    (
        mean_diameter_nm,
        mean_diameter_px,
        mean_diameter_interval_nm,
        mean_diameter_interval_px,
    ) = _create_mean_properties(
        "mean_diameter", "Mean diameter", lambda gaps, unit: gaps.get_diameters(unit)
    )
    median_diameter_nm, median_diameter_px = core.create_length_properties(
        _compute_median_diameter, "median_diameter", "Median diameter", form=".3g"
    )

    def move_to_image(self, box: core.Box, shape: core.IntPair) -> "Gaps":
        """Return the result of a box in pixels of its image of a `shape`."""

        def move(place: core.FloatPair) -> core.FloatPair:
            return place[0] + box.y0, place[1] + box.x0

        found, invented = (
            tuple(
                replace(gap, place_px=move(gap.place_px), ends_px=(move(a), move(b)))
                for gap in gaps
                for a, b in [gap.ends_px]
            )
            for gaps in (self.found_gaps, self.invented_gaps)
        )
        sizes = tuple(replace(one, place_px=move(one.place_px)) for one in self.sizes)
        labels = np.zeros(shape, np.asarray(self.labels).dtype)
        labels[box.slices] = self.labels
        changed = replace(self, found_gaps=found, invented_gaps=invented, sizes=sizes)
        return replace(changed, labels=labels, box=box.ends)

    @property
    def cut(self) -> Annotated[int, core.Quantity("Cut by the border", form="d")]:
        """Number of particles that the border cuts, which have no size."""
        return sum(not one.whole for one in self.sizes)

    @property
    def neighbours(self) -> Annotated[str, core.Quantity("Neighbours", tabled=False)]:
        """Numbers of examined and excluded particle pairs, as text."""
        reasons = (
            f"{self.excluded} for unequal brightness" if self.excluded else "",
            f"{self.across} with an object in the gap" if self.across else "",
        )
        left_out = ", ".join(filter(None, reasons))
        return f"{self.pairs}{f' ({left_out} left out)' if left_out else ''}"

    @property
    def count_text(self) -> Annotated[str, core.Quantity("Counted", tabled=False)]:
        """Number of particles and their fraction of the field, as text."""
        smaller = self.bright - self.particles
        of = f" of {self.bright} regions" if smaller else ""
        return (
            f"{self.particles} particles{of}, distributed over "
            f"{100 * self.populated:.0f} % of the field and covering "
            f"{100 * self.covered:.0f} % of its area"
        )

    @property
    def gaps(
        self,
    ) -> Annotated[int, core.Quantity("Gaps", form="d", verdict="verdict", large=True)]:
        """Count the gaps in the reference or, without a reference, in the image."""
        return len(self.found_gaps)

    @property
    def detected(self) -> Annotated[int, core.Quantity("Detected", shown=False)]:
        """Number of gaps that the image shows."""
        return sum(gap.detected for gap in self.found_gaps)

    @property
    def detection_text(
        self,
    ) -> Annotated[str | None, core.Quantity("Seen", tabled=False)]:
        """Number of reference gaps that the image shows, as text."""
        alone = self.reference_background is None
        return None if alone else f"{self.detected} of {self.gaps}"

    @property
    def verdict(self) -> str:
        """Assessment of the number of gaps."""
        if self.reference_background is None:
            return "of this image only: errors need a reference image"
        return f"{self.detection_text} seen, {len(self.invented_gaps)} invented"

    @property
    def undetected_fraction(
        self,
    ) -> Annotated[
        float | None,
        core.Quantity("Not seen", form=".1%", interval="undetected_interval"),
    ]:
        """Fraction of reference gaps that the image does not show."""
        if self.reference_background is None or not self.found_gaps:
            return None
        return 1 - self.detected / len(self.found_gaps)

    @property
    def undetected_interval(
        self,
    ) -> Annotated[
        core.FloatPair | None,
        core.Quantity("Its interval", shown=False, column="undetected"),
    ]:
        """95 % Wilson interval of the undetected fraction."""
        if self.reference_background is None:
            return None
        count = len(self.found_gaps)
        return compute_fraction_interval(count - self.detected, count)

    @property
    def invented_fraction(
        self,
    ) -> Annotated[
        float | None,
        core.Quantity(
            "Invented share of its gaps", form=".1%", interval="invented_interval"
        ),
    ]:
        """Fraction of image gaps that the reference does not show."""
        return len(self.invented_gaps) / self.own if self.own else None

    @property
    def invented_interval(
        self,
    ) -> Annotated[
        core.FloatPair | None, core.Quantity("Its interval", shown=False, tabled=False)
    ]:
        """95 % Wilson interval of the undetected fraction."""
        return compute_fraction_interval(len(self.invented_gaps), self.own or 0)

    mean_width_nm, mean_width_px, mean_width_interval_nm, mean_width_interval_px = (
        _create_mean_properties(
            "mean_width", "Mean width", lambda gaps, unit: gaps.get_widths(unit)[0]
        )
    )
    (
        mean_reference_width_nm,
        mean_reference_width_px,
        mean_reference_width_interval_nm,
        mean_reference_width_interval_px,
    ) = _create_mean_properties(
        "mean_reference_width",
        "Mean width, reference",
        lambda gaps, unit: gaps.get_widths(unit)[1],
        tabled=False,
    )
    (
        mean_width_error_nm,
        mean_width_error_px,
        mean_width_error_interval_nm,
        mean_width_error_interval_px,
    ) = _create_mean_properties(
        "mean_width_error",
        "Mean width error",
        lambda gaps, unit: np.abs(gaps.compute_width_errors(unit)),
    )
    (
        mean_signed_width_error_nm,
        mean_signed_width_error_px,
        mean_signed_width_error_interval_nm,
        mean_signed_width_error_interval_px,
    ) = _create_mean_properties(
        "mean_signed_width_error",
        "Signed error",
        lambda gaps, unit: gaps.compute_width_errors(unit),
    )

    def compute_width_errors(self, unit: str) -> core.FloatArray:
        """Return width differences (N,), image minus reference, in px or nm.

        One for each gap that both show; empty if there is none or the unit is unknown.
        """
        return _collect_known(
            _compute_width_error(gap, unit) for gap in self.found_gaps
        )

    def compute_interval(
        self, values: core.FloatArray, unit: str
    ) -> core.FloatPair | None:
        """Return the 95 % interval of a mean length or mean length difference.

        In nm it includes the pixel size's error. None for fewer than five; see
        `compute_mean_interval`.
        """
        read = compute_mean_interval(values)
        if read is None or unit != "nm":
            return read
        return core.widen_interval(float(np.mean(values)), read, self.size_error)

    def get_widths(self, unit: str) -> tuple[core.FloatArray, core.FloatArray]:
        """Return the known widths (N,) in the image and in the reference."""
        image, reference = (
            _collect_known(getattr(gap, f"{name}_{unit}") for gap in self.found_gaps)
            for name in ("width", "reference")
        )
        return image, reference

    def compute_histograms(
        self, unit: str, bin_width: float | None = None
    ) -> tuple[WidthHistogram, WidthHistogram | None]:
        """Compute width histograms with common bins for image and reference.

        Without a `bin_width` see `choose_bin_edges`. Only the reference's gaps are
        counted, not those the image invents. In nm the error of a Gaussian's mean
        includes that of the pixel size.
        """
        image, reference = self.get_widths(unit)
        widths = [image] if self.reference_background is None else [image, reference]
        edges = choose_bin_edges(np.concatenate(widths), bin_width)
        share = self.size_error if unit == "nm" else 0.0
        histograms = []
        for each in widths:
            one = compute_width_histogram(each, edges)
            fit = one.fit
            if fit is not None:
                fit = replace(fit, error=math.hypot(fit.error, share * fit.mean))
            histograms.append(replace(one, fit=fit))
        first, *others = histograms
        return first, others[0] if others else None

    def get_diameters(self, unit: str) -> core.FloatArray:
        """Return the diameters (N,) of particles that do not touch the border.

        Empty if there are none or the unit is unknown.
        """
        return _collect_known(
            getattr(one, f"diameter_{unit}") for one in self.sizes if one.whole
        )

    def create_table(self) -> dict[str, list[float | str | None]]:
        """Return table columns with one row per gap, invented gaps last.

        Kind, position of the centre, width in the reference and in the image, and their
        difference, in px and nm; None if there is none.
        """
        gaps = (*self.found_gaps, *self.invented_gaps)
        columns: dict[str, list[float | str | None]] = {
            "kind": [gap.kind for gap in gaps]
        }
        for unit in ("px", "nm"):
            places = [getattr(gap, f"place_{unit}") or (None, None) for gap in gaps]
            columns[f"y_{unit}"] = [place[0] for place in places]
            columns[f"x_{unit}"] = [place[1] for place in places]
        for unit in ("px", "nm"):
            columns[f"reference_width_{unit}"] = [
                getattr(gap, f"reference_{unit}") for gap in gaps
            ]
            columns[f"width_{unit}"] = [getattr(gap, f"width_{unit}") for gap in gaps]
            columns[f"error_{unit}"] = [_compute_width_error(gap, unit) for gap in gaps]
        return columns


def _compute_width_error(gap: Gap, unit: str) -> float | None:
    """Compute the width difference, image minus reference; None if unknown."""
    width, other = getattr(gap, f"width_{unit}"), getattr(gap, f"reference_{unit}")
    return None if width is None or other is None else float(width - other)


def _collect_known(values: Iterable[float | None]) -> core.FloatArray:
    return np.array([value for value in values if value is not None], dtype=float)


@dataclass(frozen=True, slots=True)
class _PairLine:
    """Line between the centres of two particles."""

    start: core.FloatArray
    stop: core.FloatArray
    inside: tuple[core.BoolArray, core.BoolArray]
    crosses: bool  # whether a bright region that is not a particle lies between

    @property
    def length(self) -> float:
        return float(np.hypot(*(self.stop - self.start)))


@dataclass(frozen=True, slots=True)
class _Dip:
    """Minimum of a profile between two peaks."""

    equal: bool
    deep: bool
    ends: core.FloatPair | None  # in steps along the line
    across: bool = False  # whether it crosses an object


def measure_gaps(
    image: core.Micrograph,
    reference: core.Micrograph | None = None,
    *,
    options: GapOptions | None = None,
) -> core.Job[Gaps]:
    """Count and measure the gaps between particles [1]_.

    The reference is an image of the same field on the same grid.

    .. [1] K. de Haan et al., Sci. Rep. 9, 12050 (2019), doi:10.1038/s41598-019-48444-2.
    """
    settings = options or GapOptions()
    # measured: growth of peak memory, 2048 x 2048 px
    core.require_memory(image.name, image.shape, 60.0 if settings.labels else 140.0)
    pitch = np.array(core.compute_relative_pitch(image.scale))
    guide_background = own = None
    if reference is not None:
        check_same_grid(image, reference)
        if settings.labels:
            msg = "A label image shows no gaps of a reference: omit the reference."
            raise core.OptionError(msg, code="options-contradict")
    if settings.labels:  # which have no blur, and end where they end
        regions, count, bright, numbers = _read_labels(image, settings)
        guide = values = (regions > 0).astype(np.float64)
        background, blur, end = 0.0, 1.0, _OUTLINE
    else:
        values, background = _subtract_background(image, dark=settings.dark)
        guide, end = values, _EDGE
        if reference is not None:
            guide, guide_background = _subtract_background(
                reference, dark=settings.dark
            )
        labelled = yield from _label_particles(guide, settings, pitch)
        regions, count, bright, blur = labelled
        numbers = np.arange(count + 1)
    lines = _connect_neighbours(regions, count, settings, pitch)
    labels = np.where(regions <= count, regions, 0)
    yield core.Progress(0, 0, f"measuring gaps between {count} particles")
    other = None if reference is None else values
    gaps, left_out, across = _find_gaps(guide, other, lines, image, blur, end)
    sizes, clear = _measure_particles(labels, numbers, image, blur)
    back: list[Gap] = []
    if reference is not None:  # gaps of the image are searched in the reference
        regions, number, _, blur = yield from _label_particles(values, settings, pitch)
        links = _connect_neighbours(regions, number, settings, pitch)
        back, _, _ = _find_gaps(values, guide, links, image, blur, end)
        own = len(back)
    return Gaps(
        particles=count,
        pairs=len(lines),
        excluded=left_out,
        across=across,
        bright=bright,
        covered=float(np.mean(labels > 0)),
        populated=_compute_populated_fraction(labels),
        found_gaps=tuple(gaps),
        background=background,
        reference_background=guide_background,
        sizes=sizes,
        clear=None if settings.labels else clear,
        labels=numbers[labels].astype(np.min_scalar_type(int(numbers.max())).str),
        invented_gaps=tuple(_mark_invented(gap) for gap in back if not gap.detected),
        own=own,
        size_error=core.compute_length_error(image),
    )


def _mark_invented(gap: Gap) -> Gap:
    """Return a gap of the image for which the reference was searched."""
    width_px, width_nm = gap.reference_px, gap.reference_nm
    gap = replace(gap, reference_px=None, reference_nm=None, kind="invented")
    return replace(gap, width_px=width_px, width_nm=width_nm)


def _read_labels(
    image: core.Micrograph, options: GapOptions
) -> tuple[NDArray[np.int32], int, int, NDArray[np.integer]]:
    """Relabel the objects of a label image, or the connected components of a mask.

    Returns labels (Y, X), the number of particles and that of all objects, as
    `_label_particles` does, and the number in the image of each particle.
    """
    values = np.nan_to_num(image.array(), nan=0, posinf=0, neginf=0)
    if options.dark and len(np.unique(values)) == 2:  # a mask of dark particles
        values = values == values.min()
    with_zero = np.append(np.zeros(1, values.dtype), values)
    own, labels = np.unique(with_zero, return_inverse=True)
    labels = labels[1:].reshape(values.shape)
    parts, count = measure.label(labels, connectivity=2, return_num=True)
    integer = own[0] == 0 and np.array_equal(own, np.rint(own))
    integer = integer and int(own[-1]) <= np.iinfo(np.uint64).max
    if own.size == 2 and count > 1 and integer:  # a mask
        labels, own = parts, np.arange(count + 1)
    elif not integer or count > _MAX_PARTS * (own.size - 1):
        msg = (
            "A label image must have an integer label for each object and 0 "
            f"elsewhere, but {image.name} has grey levels; omit `labels` to find "
            "particles."
        )
        raise core.ShapeError(msg, code="not-labels")
    least = np.pi / 4 * options.min_diameter_px**2
    regions, large, total = _number_by_size(
        labels.astype(np.int32), own.size - 1, least
    )
    numbers = np.zeros(total + 1, np.uint64)
    numbers[regions] = own[labels]
    return regions, large, total, numbers[: large + 1]


def _find_gaps(
    guide: core.FloatArray,
    other: core.FloatArray | None,
    lines: list[_PairLine],
    image: core.Micrograph,
    blur: float,
    end: float,
) -> tuple[list[Gap], int, int]:
    """Find the gaps in one image, and measure them in another.

    Also returns the numbers of lines excluded for unequal peaks, and because their gaps
    would cross an object.
    """
    gaps, left_out, across = [], 0, 0
    side = _count_cell_pixels(blur, core.compute_relative_pitch(image.scale))
    noise = _measure_cell_noise(guide, side) / math.sqrt(len(_LINES))
    cells = [ndimage.uniform_filter(i, side) for i in (guide, other) if i is not None]
    for line in lines:
        dip = _measure_dip(cells[0], line, noise, blur, end)
        left_out += not dip.equal
        if not (dip.equal and dip.deep and dip.ends):
            continue
        if dip.across or line.crosses:
            across += 1
            continue
        shown_dip = dip
        if other is not None:
            shown_dip = _measure_dip(cells[1], line, noise, blur, end)
        gaps.append(_create_gap(line, shown_dip, None if other is None else dip, image))
    return gaps, left_out, across


def _compute_populated_fraction(labels: NDArray[np.int32]) -> float:
    """Compute the fraction of equal field sections that contain a particle."""
    rows, columns = (
        np.arange(size) * min(size, _PARTS) // size for size in labels.shape
    )
    part = rows[:, None] * _PARTS + columns
    return len(np.unique(part[labels > 0])) / len(np.unique(part))


def _measure_particles(
    labels: NDArray[np.int32],
    numbers: NDArray[np.integer],
    image: core.Micrograph,
    blur: float,
) -> tuple[tuple[Particle, ...], float | None]:
    """Measure particles; also return the share of those that are clearly outlined.

    Missing pixels cut particles like the border.
    """
    count = len(numbers) - 1
    if not count:
        return (), None
    centres, area = _compute_centres(labels, count)
    missing = ~np.isfinite(image.array())
    rim = ndimage.binary_dilation(missing, np.ones((3, 3)), border_value=1)
    whole = ~np.isin(np.arange(1, count + 1), labels[rim])
    diameter = 2 * np.sqrt(area / np.pi)
    nm = image.mean_pixel_size_nm  # geometric: its square is the area of a pixel
    pitch = core.compute_relative_pitch(image.scale)
    shapes = measure.regionprops_table(labels, properties=_SHAPES, spacing=pitch)
    ellipses = np.pi / 4 * shapes["axis_major_length"] * shapes["axis_minor_length"]
    # the level between two edges within their blur is no minimum that counts as a gap:
    # share of each outline that is near another particle
    outline = segmentation.find_boundaries(labels, connectivity=2, mode="inner")
    window = [2 * near + 1 for near in _count_cell_pixels(blur, pitch)]
    others = np.where(labels > 0, labels, np.iinfo(labels.dtype).max)
    contact = ndimage.maximum_filter(labels, window) != labels
    contact |= ndimage.minimum_filter(others, window) != labels
    length, touching = (
        np.bincount(labels[mask], minlength=count + 1)[1:]
        for mask in (outline, outline & contact)
    )
    shared = touching / np.maximum(length, 1)
    clear = (shared < _MAX_SHARED) & (area > _MIN_FILL * ellipses)
    columns = centres, diameter, whole, area, numbers[1:], shapes["eccentricity"]
    particles = tuple(
        Particle((y, x), size, None if nm is None else size * nm, *others)
        for (y, x), size, *others in zip(
            *(column.tolist() for column in columns), strict=True
        )
    )
    inside = float(diameter[whole].sum())
    return particles, float(diameter[whole & clear].sum()) / inside if inside else None


def _compute_centres(
    labels: NDArray[np.int32], count: int
) -> tuple[core.FloatArray, core.FloatArray]:
    """Return the centres and areas of particles, in px."""
    numbers = np.arange(1, count + 1)
    centres = np.array(ndimage.center_of_mass(labels > 0, labels, numbers))
    area = np.bincount(labels.ravel(), minlength=count + 1)[1 : count + 1].astype(float)
    return centres, area


def _subtract_background(
    image: core.Micrograph, *, dark: bool
) -> tuple[core.FloatArray, float]:
    """Subtract the background; return the difference and the background."""
    values = read_finite_array(image)
    upright = _flatten_background(-values if dark else values)
    low, high = float(upright.min()), float(upright.max())
    level = low
    if high > low:
        level = float(np.median(upright[upright <= filters.threshold_otsu(upright)]))
    return upright - level, -level if dark else level


def _flatten_background(values: core.FloatArray) -> core.FloatArray:
    """Level a sloping or curved background, keeping its mean.

    A second-order polynomial is fitted to the low grey levels of the parts of the
    field, from below. Values are unchanged if it hardly varies, or if few parts agree
    with it: then it is not the background.
    """
    smooth = ndimage.gaussian_filter(values, 1.0)  # single noisy pixels are not low
    places, levels = [], []
    for rows in np.array_split(np.arange(values.shape[0]), _SLOPE_PARTS):
        for columns in np.array_split(np.arange(values.shape[1]), _SLOPE_PARTS):
            if rows.size and columns.size:
                part = smooth[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
                levels.append(float(np.percentile(part, _LOW)))
                places.append((rows.mean(), columns.mean()))
    low = np.array(levels)
    terms = _evaluate_polynomial_terms(np.array(places).T, values.shape)
    weight, best = np.ones(low.size), np.zeros(terms.shape[1])
    for _ in range(_ROUNDS):
        root = np.sqrt(weight)
        best = np.linalg.lstsq(terms * root[:, None], low * root, rcond=None)[0]
        weight = np.where(low > terms @ best, _ABOVE, 1.0)
    rows, columns = np.ogrid[: values.shape[0], : values.shape[1]]
    parts = (np.stack(np.broadcast_arrays(row[None], columns)) for row in rows)
    ground = np.concatenate(
        [_evaluate_polynomial_terms(part, values.shape) @ best for part in parts]
    )
    span = float(np.ptp(ground))
    follow = np.mean(np.abs(low - terms @ best) < _FOLLOWS * span)
    if not span or follow < _FOLLOW:
        return values
    level = values - ground
    bright = level > filters.threshold_otsu(level)
    apart = float(np.median(level[bright]) - np.median(level[~bright]))
    # of the contrast; chosen: at 0.3 outlines shift by half a pixel
    return level + float(ground.mean()) if span > 0.2 * apart else values


def _evaluate_polynomial_terms(
    places: core.FloatArray, shape: core.IntPair
) -> core.FloatArray:
    """Evaluate the terms of a second-order polynomial at rows and columns (2, ...)."""
    y, x = (place / side - 0.5 for place, side in zip(places, shape, strict=True))
    return np.stack([np.ones_like(y), y, x, y * y, x * y, x * x], axis=-1)


def _label_particles(
    values: core.FloatArray,
    options: GapOptions,
    pitch: core.FloatArray,
) -> core.Job[tuple[NDArray[np.int32], int, int, float]]:
    """Label particles from 1 upwards, then bright regions too small to be particles.

    Returns labels (Y, X), the number of particles, that of all bright regions, and the
    blur of edges, which is measured on the first regions; the search starts again with
    it. Each particle is outlined after the narrowest Gaussian in which its outline is
    above the noise; the remainder is searched again until nothing more is found.
    Gaussians and rims are as wide along both axes of oblong pixels, with the relative
    `pitch`.
    """
    noise, blur, is_measured = core.estimate_noise_level(values), 1.0, False
    labels, total, contrast, level = np.zeros(values.shape, np.int32), 0, 0.0, 0.0
    scales = [*_SCALES]
    while scales:
        done_count, blur_pitch = len(_SCALES) - len(scales), pitch / blur
        step = core.Progress(
            done_count, len(_SCALES), f"finding particles: {total} found"
        )
        yield step
        scale, covered_labels = scales[0] * max(_SMOOTH * blur, 1), labels > 0
        plain = smooth = ndimage.gaussian_filter(values, scale / pitch)
        if total:
            covered_labels = _cover_rims(covered_labels, blur_pitch)
            smooth = ndimage.gaussian_filter(
                np.where(covered_labels, level, values), scale / pitch
            )
        if covered_labels.all():
            break
        quiet = noise / (2 * np.sqrt(np.pi) * scale)
        height, level, contrast, least = _compute_heights(
            smooth, covered_labels, quiet, contrast
        )
        if not contrast > least:
            break
        clear = _CLEAR * _MIN_APART * quiet if len(scales) > 1 else 0.0
        mask, basins, share = _outline_regions(height, least, max(least, clear), blur)
        yield step
        mask &= ~covered_labels
        if not is_measured and mask.any():
            blur = _measure_blur(height, mask, share, scale, pitch)
            is_measured = True
            if blur > 1:
                side = _count_cell_pixels(blur, pitch)
                noise = _measure_cell_noise(values, side) * math.sqrt(math.prod(side))
                scales, contrast = [*_SCALES], 0.0
                continue
        parts, count = _label_parts(mask, np.where(mask, basins, 0), share, scale)
        if total:
            parts, count = _keep_bright_parts(
                plain, parts, count, labels, least / 2, blur_pitch
            )
        labels += np.where(parts, parts + total, 0).astype(np.int32)
        labels = _fill_enclosed_regions(labels)
        total += count
        if not count or len(scales) < len(_SCALES):
            scales.pop(0)
    smallest = np.pi / 4 * options.min_diameter_px**2
    return *_number_by_size(labels, total, smallest), blur


def _compute_heights(
    smooth: core.FloatArray, covered: core.BoolArray, quiet: float, contrast: float
) -> tuple[core.FloatArray, float, float, float]:
    """Compute the heights above the background, 0 where it is covered.

    Also returns the background, the contrast if it is not known, and the least height.
    """
    level, spread = _estimate_background(smooth[~covered], quiet)
    height = np.where(covered, 0.0, smooth - level)
    if not contrast and np.ptp(height) > 0:
        threshold = filters.threshold_otsu(height)
        contrast = float(np.median(height[height > threshold]))
    # of the contrast: largest threshold due to texture; chosen
    texture = min(_MIN_APART * spread, 0.1 * contrast)
    least = max(_MIN_APART * quiet, _FAINTEST * contrast, texture)
    return height, level, contrast, least


def _outline_regions(
    height: core.FloatArray, least: float, lowest: float, blur: float
) -> tuple[core.BoolArray, NDArray[np.int32], core.FloatArray]:
    """Outline regions at half of their height, those of a height of `lowest` or more.

    Returns their mask, the basins of `_find_basins`, and each pixel's share of the
    height of its basin.
    """
    basins, own = _find_basins(height, least)
    own[own < lowest] = np.inf  # also that of the background
    share = height / own[basins]
    # those that hardly exceed the threshold belong to fainter particles, which are
    # outlined at their own height
    mask = ndimage.binary_opening(share > _OUTLINE, iterations=round(blur))
    regions, count = measure.label(np.where(mask, basins, 0), return_num=True)
    middle = _compute_label_quantiles(share, regions, count, 0.5)
    # of the height: least median of a region as bright as its particle
    mask = np.concatenate([[False], middle > 0.75])[regions]
    # holes due to texture do not reach the background level
    holes, count = ndimage.label(ndimage.binary_fill_holes(mask) & ~mask)
    level = -_find_label_maxima(-share, holes, count)
    mask |= np.concatenate([[False], level > _EDGE * _OUTLINE])[holes]
    return mask, basins, share


def _measure_blur(
    height: core.FloatArray,
    mask: core.BoolArray,
    share: core.FloatArray,
    scale: float,
    pitch: core.FloatArray,
) -> float:
    """Measure the blur of particles' edges: its median sigma in px, at least 1.

    From the slopes of the heights where regions end at half of their particle's, less
    the Gaussian of `scale` px. Half of the outline is at least as sharp.
    """
    rim = mask & ~ndimage.binary_erosion(mask, border_value=1) & (share > 0)
    if not rim.any():
        return 1.0
    slopes = np.hypot(*(np.gradient(height, axis=i)[rim] / pitch[i] for i in (0, 1)))
    # slope of an edge of height 1 is 1 / (sqrt(2 pi) sigma)
    slope = float(np.median(slopes * share[rim] / height[rim]))
    square = 1 / (2 * math.pi * slope**2) if slope > 0 else 0.0
    return math.sqrt(max(square - scale**2, 1.0))


def _count_cell_pixels(blur: float, pitch: ArrayLike) -> core.IntPair:
    """Return the numbers of pixels along both axes within the blur of an edge."""
    y, x = np.maximum(1, np.rint(blur / np.asarray(pitch))).astype(int).tolist()
    return y, x


def _measure_cell_noise(values: core.FloatArray, side: core.IntPair) -> float:
    """Estimate the noise of means over cells of `side` pixels."""
    cells = ndimage.uniform_filter(values, side)[:: side[0], :: side[1]]
    return core.estimate_noise_level(cells)


def _cover_rims(mask: core.BoolArray, pitch: core.FloatArray) -> core.BoolArray:
    """Dilate a mask by a diamond that is at least as wide as rims along both axes.

    `pitch`: of the pixels, over the blur of edges.
    """
    reach = np.ceil(_RIM / pitch)
    y, x = (np.abs(np.arange(-far, far + 1)) / far for far in reach)
    return np.asarray(ndimage.binary_dilation(mask, np.add.outer(y, x) <= 1))


def _number_by_size(
    labels: NDArray[np.int32], total: int, least: float
) -> tuple[NDArray[np.int32], int, int]:
    """Relabel regions, those above a minimum area first; count both groups."""
    area = np.bincount(labels.ravel(), minlength=total + 1)
    area[0] = 0
    large = area >= least
    small = (area > 0) & ~large
    number = np.where(large, np.cumsum(large), large.sum() + np.cumsum(small))
    number[area == 0] = 0
    return number[labels].astype(np.int32), int(large.sum()), int((area > 0).sum())


def _keep_bright_parts(
    smooth: core.FloatArray,
    parts: NDArray[np.int32],
    count: int,
    labels: NDArray[np.int32],
    least: float,
    pitch: core.FloatArray,
) -> tuple[NDArray[np.int32], int]:
    """Keep regions brighter than their surroundings and than the skirts of particles.

    `labels` are those of the particles; others of the `parts` are rims.
    """
    if not count:
        return parts, 0
    surroundings = segmentation.expand_labels(parts, _RIM + 1, spacing=tuple(pitch))
    surroundings[parts > 0] = 0
    around = _compute_label_quantiles(smooth, surroundings, count, _MAX_AROUND)
    inner = _compute_label_quantiles(smooth, parts, count, 0.5)
    # A skirt never rises outwards and is alike on most sides: a pixel of the nearest
    # particle's skirt has the median of those at the same distance, or the lowest one
    # of those closer.
    distance, nearest = ndimage.distance_transform_edt(
        labels == 0, sampling=pitch / pitch.min(), return_indices=True
    )
    most = int(np.rint(distance.max())) + 1
    rings = np.rint(distance).astype(np.int64)
    rings += np.int64(most) * labels[tuple(nearest)]
    del distance, nearest
    numbers, places = np.unique(rings, return_inverse=True)
    ring = (places + 1).reshape(labels.shape).astype(np.int32)
    del rings, places, surroundings
    levels = _compute_label_quantiles(smooth, ring, numbers.size, 0.5)
    owners = np.flatnonzero(np.diff(numbers // most)) + 1
    lowest = map(np.minimum.accumulate, np.split(levels, owners))
    above = smooth - np.concatenate([[0.0], *lowest])[ring]
    above = _compute_label_quantiles(above, parts, count, 0.5)
    is_kept = np.concatenate([[False], np.minimum(inner - around, above) > least])
    return np.where(is_kept, np.cumsum(is_kept), 0)[parts], int(is_kept.sum())


def _sort_pixels_by_label(
    values: core.FloatArray, labels: NDArray[np.int32]
) -> tuple[NDArray[np.intp], core.FloatArray]:
    """Sort labelled pixels by label, then by value."""
    inside = labels > 0
    pixels = np.empty(np.count_nonzero(inside), complex)
    pixels.real, pixels.imag = labels[inside], values[inside]
    pixels.sort()  # by both parts; takes a third of the time of np.lexsort
    return pixels.real.astype(np.intp), pixels.imag


def _find_label_maxima(
    values: core.FloatArray, labels: NDArray[np.int32], count: int
) -> core.FloatArray:
    """Return the maximum of each label from 1 to `count`; -inf for empty labels."""
    highest = np.full(count + 1, -np.inf)
    np.maximum.at(highest, labels.ravel(), values.ravel())  # ndimage would sort all
    return highest[1:]


def _compute_label_quantiles(
    values: core.FloatArray, labels: NDArray[np.int32], count: int, share: float
) -> core.FloatArray:
    """Return a quantile of each label from 1 to `count`; -inf for empty labels."""
    numbers, levels = _sort_pixels_by_label(values, labels)
    size = np.bincount(numbers, minlength=count + 1)[1:]
    place = np.cumsum(size) - size + share * np.maximum(size - 1, 0)
    levels = np.append(levels, 0.0)  # so that a last label without values has an index
    low, part = np.floor(place).astype(int), place % 1
    high = np.minimum(low + (part > 0), levels.size - 1)
    quantiles = (1 - part) * levels[low] + part * levels[high]
    return np.where(size > 0, quantiles, -np.inf)


def _estimate_background(values: core.FloatArray, noise: float) -> core.FloatPair:
    """Estimate the background level and the spread of darker grey levels.

    The level is the mode below Otsu's threshold: the shortest half of the values is
    taken three times. Texture of the background counts as noise.
    """
    below = np.sort(values, axis=None)
    if below.size and below[-1] > below[0]:
        below = below[below <= filters.threshold_otsu(below)]
    ground = below
    # halvings: the mode is that of an eighth of the pixels; chosen
    for _ in range(3 if ground.size > 1 else 0):
        half = max(ground.size // 2, 1)
        start = int(np.argmin(ground[half:] - ground[: ground.size - half]))
        ground = ground[start : start + half + 1]
    level = min(float(np.median(ground)), float(np.median(below)))
    darker = level - below[below < level]
    # standard deviation over median absolute deviation, of a Gaussian
    spread = 1.4826 * float(np.median(darker)) if darker.size else 0.0
    return level, max(noise, spread)


def _find_basins(
    height: core.FloatArray, least: float
) -> tuple[NDArray[np.int32], core.FloatArray]:
    """Split a height map into basins at saddles well below both peaks.

    Returns labels (Y, X), and for each label the height of its particle: the median of
    the levels above half of its peak.
    """
    tops = morphology.local_maxima(height) & (height >= least)
    basins, count = _label_basins(height, tops, height > 0)
    while True:
        numbers, levels = _sort_pixels_by_label(height, basins)
        ends = np.cumsum(np.bincount(numbers, minlength=count + 1))[1:]
        own = levels[ends - 1]
        # iterations until the median of the levels above half of it is stable
        for _ in range(3):  # the height must not depend on a few bright spots
            upper = levels > own[numbers - 1] / 2
            size = np.bincount(numbers[upper], minlength=count + 1)[1:]
            own = (levels[ends - 1 - size // 2] + levels[ends - (size + 1) // 2]) / 2
        joined_basins, left = _merge_basins(height, basins, own, size, _EDGE, least)
        if left == count:
            return basins, np.concatenate([[0.0], own])
        basins, count = joined_basins[basins], left


def _label_basins(
    values: core.FloatArray, tops: core.BoolArray, mask: core.BoolArray
) -> tuple[NDArray[np.int32], int]:
    """Label the watershed basin of each maximum."""
    seeds, count = ndimage.label(tops, structure=np.ones((3, 3)))
    return segmentation.watershed(-values, seeds, mask=mask), int(count)


def _merge_basins(
    values: core.FloatArray,
    basins: NDArray[np.int32],
    own: core.FloatArray,
    weight: core.RealArray,
    ratio: float,
    least: float,
) -> tuple[NDArray[np.int32], int]:
    """Merge neighbouring basins whose saddle is not clearly below the lower peak.

    `own` and `weight` (N,) are level and size of each basin; joined basins have the
    level of the larger one. Returns the new number of each label, and their count.
    """
    pairs, saddles = [], []
    for axis in (0, 1):
        one, other = (np.moveaxis(basins, axis, 0)[part] for part in _NEXT)
        low = np.minimum(*(np.moveaxis(values, axis, 0)[part] for part in _NEXT))
        border = (one != other) & (one > 0) & (other > 0)
        pairs.append(np.sort(np.stack([one[border], other[border]], axis=1), axis=1))
        saddles.append(low[border])
    at, saddle = np.concatenate(pairs), np.concatenate(saddles)
    at, place = np.unique(at, axis=0, return_inverse=True)
    highest = np.full(len(at), -np.inf)
    np.maximum.at(highest, place.ravel(), saddle)
    root, level, size = np.arange(own.size + 1), [0.0, *own], [0, *weight]

    def find_root(number: int) -> int:
        while root[number] != number:
            root[number] = number = root[root[number]]
        return number

    for number in np.argsort(-highest, kind="stable"):
        first, second = find_root(int(at[number, 0])), find_root(int(at[number, 1]))
        if first == second:
            continue
        lower = min(level[first], level[second])
        if highest[number] >= ratio * lower or lower - highest[number] < least:
            smaller, larger = sorted((first, second), key=size.__getitem__)
            root[smaller] = larger
    ends = np.array([find_root(number) for number in range(own.size + 1)])
    left, new_labels = np.unique(ends, return_inverse=True)
    return new_labels.astype(np.int32), left.size - 1


def _label_parts(
    mask: core.BoolArray,
    basins: NDArray[np.int32],
    share: core.FloatArray,
    scale: float,
) -> tuple[NDArray[np.int32], int]:
    """Label the regions of a mask, split at narrow necks and between basins.

    Outlines lie between pixels, where the `share` of the height is half, and distances
    are smoothed: in whole pixels, each step of an oblique edge would be a neck.
    """
    border = segmentation.find_boundaries(
        basins, mode="inner"
    ) & ndimage.binary_erosion(basins > 0, np.ones((3, 3)))
    inner = mask & ~border
    distance, nearest = ndimage.distance_transform_edt(inner, return_indices=True)
    outer = nearest[:, inner]
    step = np.rint((np.argwhere(inner).T - outer) / distance[inner]).astype(int)
    low, high = share[tuple(outer)], share[tuple(outer + step)]
    crossed = (low < _OUTLINE) & (high > _OUTLINE)
    beyond = (_OUTLINE - low[crossed]) / (high - low)[crossed]
    distance[inner] -= np.bincount(np.flatnonzero(crossed), beyond, crossed.size)
    del nearest, outer, step, low, high, crossed  # before the most memory is needed
    distance = ndimage.gaussian_filter(distance, _SMOOTH * scale)
    parts, count = _label_basins(
        distance, morphology.local_maxima(distance) & mask, mask
    )
    peak = _find_label_maxima(distance, parts, count)
    joined_parts, count = _merge_basins(
        distance, parts, peak, peak, _WAIST, _ROUGH * scale
    )
    return joined_parts[parts], count


def _fill_enclosed_regions(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Fill regions enclosed by a single particle."""
    holes, count = ndimage.label(labels == 0)
    rim = np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]])
    last = np.iinfo(labels.dtype).max
    high = ndimage.maximum_filter(labels, 3)
    low = ndimage.minimum_filter(np.where(labels > 0, labels, last), 3)
    owner = np.zeros(count + 1, labels.dtype)
    owner[1:] = _find_label_maxima(high.astype(float), holes, count)
    owner[1:][owner[1:] != -_find_label_maxima(-low.astype(float), holes, count)] = 0
    owner[rim] = 0
    return np.where(holes > 0, owner[holes], labels)


def _connect_neighbours(
    labels: NDArray[np.int32], count: int, options: GapOptions, pitch: core.FloatArray
) -> list[_PairLine]:
    """Connect neighbouring particles by lines; `pitch`: relative pixel pitch."""
    if count < 2:
        return []
    centres, area = _compute_centres(labels, count)
    diameter = 2 * np.sqrt(area / np.pi)
    # Pairs whose outlines may be within both search distances, in mean pixels. Each is
    # searched from its wider particle, so that one wide particle is not paired with all
    # others.
    inside = (labels > 0) & (labels <= count)
    owners, even = labels[inside] - 1, centres * pitch
    off = np.hypot(*(np.argwhere(inside) * pitch - even[owners]).T)
    rims = _find_label_maxima(off, owners + 1, count)
    wide = rims + options.reach * diameter / 2 + 1.0  # half a pixel at either outline
    neighbours = spatial.cKDTree(even).query_ball_point(even, 2 * wide)
    first = np.repeat(np.arange(count), [len(others) for others in neighbours])
    pairs = np.column_stack([first, np.concatenate(neighbours)]).astype(np.int64)
    one, other = pairs.T
    apart = np.hypot(*(even[one] - even[other]).T)
    furthest = (1 + options.reach) * diameter.max()
    near = (one != other) & (apart <= np.minimum(wide[one] + wide[other], furthest))
    lines = []
    for a, b in np.unique(np.sort(pairs[near], axis=1), axis=0):
        ends = int(a) + 1, int(b) + 1
        places = _compute_line_points(centres[a], centres[b])
        labels_passed = ndimage.map_coordinates(labels, places, order=0, mode="nearest")
        others = set(np.unique(labels_passed)) - {0, *ends}
        within = labels_passed == ends[0], labels_passed == ends[1]
        if min(others, default=count + 1) <= count or not all(map(np.any, within)):
            continue  # another particle is between them
        # labels above `count` are bright regions that are too small for a particle
        line = _PairLine(centres[a], centres[b], within, bool(others))
        step = _STEP_PX * np.hypot(*((line.stop - line.start) * pitch)) / line.length
        between = step * np.count_nonzero(~(line.inside[0] | line.inside[1]))
        if between <= options.reach * (diameter[a] + diameter[b]) / 2:
            lines.append(line)
    return lines


def _compute_line_points(
    start: core.FloatArray, stop: core.FloatArray, aside: float = 0.0
) -> core.FloatArray:
    """Return points along a line, optionally shifted sideways."""
    along = stop - start
    length = max(float(np.hypot(*along)), 1e-9)
    count = int(np.ceil(length / _STEP_PX)) + 1
    across = np.array([-along[1], along[0]]) / length
    share = np.linspace(0, 1, count)
    return np.asarray((start + aside * across)[:, None] + along[:, None] * share)


def _measure_dip(
    values: core.FloatArray, line: _PairLine, noise: float, blur: float, end: float
) -> _Dip:
    """Measure the minimum between two particles; it ends at a share of the higher."""
    points = [_compute_line_points(line.start, line.stop, k * blur) for k in _LINES]
    levels = ndimage.map_coordinates(
        values, np.concatenate(points, axis=1), order=1, mode="nearest"
    )
    profile = levels.reshape(len(_LINES), -1).mean(axis=0)
    first, second = (
        int(np.argmax(np.where(inside, profile, -np.inf))) for inside in line.inside
    )
    lower, higher = sorted((profile[first], profile[second]))
    equal = bool(higher > 0 and lower >= _EDGE * higher)
    if second - first < 2 or higher <= 0:
        return _Dip(equal, False, None)
    bottom = first + int(np.argmin(profile[first : second + 1]))
    # a minimum below this share of the higher peak is a gap
    if not profile[bottom] < 0.6 * higher:
        return _Dip(equal, False, None)
    level = end * higher
    left = _find_crossing(profile[first : bottom + 1][::-1], level)
    right = _find_crossing(profile[bottom : second + 1], level)
    if left is None or right is None:
        return _Dip(equal, True, None)
    # of the higher peak, and 8 sigma of noise: an object in a gap; chosen
    ends, rise = (bottom - left, bottom + right), max(0.1 * higher, 8 * noise)
    across = _crosses_object(profile, line, bottom, ends, rise, blur)
    return _Dip(equal, True, ends, across)


def _crosses_object(
    profile: core.FloatArray,
    line: _PairLine,
    bottom: int,
    ends: core.FloatPair,
    rise: float,
    blur: float,
) -> bool:
    """Check whether the line between two ends crosses an object instead of a gap.

    `rise` is the largest rise of grey levels within a gap.
    """
    rim = _RIM * blur / _STEP_PX
    first = np.flatnonzero(line.inside[0])[-1] - rim  # within their edges
    second = np.flatnonzero(line.inside[1])[0] + rim
    if not first <= bottom <= second:
        return True
    depths = first - ends[0], ends[1] - second
    for inside, depth in zip(line.inside, depths, strict=True):
        share = _DEEPEST * np.count_nonzero(inside)
        if depth + rim > max(_DEEPEST_BLURS * blur / _STEP_PX, share):
            return True  # an end is well within a particle
    between = profile[math.ceil(ends[0]) : math.floor(ends[1]) + 1]
    lowest = np.maximum(  # the higher one of both sides
        np.minimum.accumulate(between), np.minimum.accumulate(between[::-1])[::-1]
    )
    return bool((between - lowest).max(initial=0.0) > rise)


def _find_crossing(rising: core.FloatArray, level: float) -> float | None:
    """Find where a profile that starts below a level first reaches that level."""
    above = np.flatnonzero(rising >= level)
    if not above.size or above[0] == 0:
        return None
    high = int(above[0])
    low = rising[high - 1]
    return float(high - 1 + (level - low) / (rising[high] - low))


def _create_gap(
    line: _PairLine, image_dip: _Dip, reference_dip: _Dip | None, image: core.Micrograph
) -> Gap:
    count = line.inside[0].size
    step = line.length / max(count - 1, 1)
    along = (line.stop - line.start) / max(line.length, 1e-9)
    ends = (reference_dip or image_dip).ends or (0.0, float(count - 1))
    edges = [line.start + along * step * end for end in ends]
    place = (edges[0] + edges[1]) / 2
    nm_per_px = in_plane = None
    if image.pixel_size_nm is not None:
        size = np.array(image.pixel_size_nm)
        nm_per_px = float(np.hypot(*(along * size)))
        in_plane = _to_float_pair(image.origin + place * size)
    dips = (dip.ends if dip else None for dip in (image_dip, reference_dip))
    widths = [None if ends is None else (ends[1] - ends[0]) * step for ends in dips]
    in_nm = [w * nm_per_px if w is not None and nm_per_px else None for w in widths]
    return Gap(
        place_px=_to_float_pair(place),
        place_nm=in_plane,
        ends_px=(_to_float_pair(edges[0]), _to_float_pair(edges[1])),
        width_px=widths[0],
        width_nm=in_nm[0],
        reference_px=widths[1],
        reference_nm=in_nm[1],
        kind="found" if image_dip.deep else "missed",
    )


def _to_float_pair(place: core.FloatArray) -> core.FloatPair:
    return float(place[0]), float(place[1])
