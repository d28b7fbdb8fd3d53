"""Fourier ring correlation of two images, or of the halves of one image.

The resolution is the inverse of the frequency at which the correlation falls below a
threshold. Each result states its method, or why there is no resolution. `measure_frc`

1. plans: checks grids and options, and the histories for shared noise (`FrcPlan`);
2. crops both images to their overlap, or splits the counts of one;
3. correlates them (`napari_semsr.analysis.frc.blocks.correlate_blocks`);
4. tests their noise if the histories are inconclusive;
5. converts the crossing into a length with its interval.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from napari_semsr import core
from napari_semsr.analysis import light
from napari_semsr.analysis.frc import validity
from napari_semsr.analysis.frc.blocks import (
    NYQUIST_SHARE,
    Measurement,
    correlate_blocks,
)
from napari_semsr.analysis.frc.crossing import Criterion, Estimator

_Stack = NDArray[np.floating]
_ELECTRON = "e\N{SUPERSCRIPT MINUS}"

# Measured: growth of peak memory, for one image, or two, of 4000 x 4000 px
_BYTES_PER_PX, _BYTES_OF_TWO = 40.0, 59.0


class FrcOptions(core.Options):
    """Options for Fourier ring correlation."""

    criterion: Criterion = core.option(
        "1/7",
        "Criterion",
        "Correlation threshold below which detail is not considered resolved.",
        choices={
            "1/7 (fixed)": "1/7",
            "half-bit": "half-bit",
            f"3 {core.SIGMA}": "3-sigma",
        },
    )
    estimator: Estimator | None = core.option(
        None,
        "Estimator",
        "Crossing estimator: exact (the default) models the effect of the window on "
        "small blocks, and plain interpolates between rings.",
        group=core.MORE,
    )
    # In blocks of 64 px the error of the plain estimate was 9.8 % (median RMSE on
    # simulated pairs); with 0.25 it was 10.8 %, with a Hann window 10.7 %
    tukey: float = Field(
        default=0.5, ge=0, le=1, description="Tapered fraction of the window."
    )
    reference: bool = core.option(
        False,
        "Second is noise-free",
        "Treat the second image as a nearly noise-free reference, with a threshold "
        "of the square root of 1/7.",
        group=core.MORE,
    )
    cut_off_nm: light.CutOff = None
    split: Literal["diagonal", "binomial"] = core.option(
        "diagonal",
        "One image is split by",
        "How to split a single image: by pixels (assumes white noise), or by counts "
        "(assumes Poisson noise, calibrated by the next three options).",
        choices={"pixels (diagonal)": "diagonal", "counts (binomial)": "binomial"},
        group=core.MORE,
    )
    gain: float = core.option(
        1.0,
        "Gain",
        "Electrons or photons per grey level, for splitting by counts.",
        unit=f"{_ELECTRON}/grey level",
        gt=0,
        group=core.MORE,
    )
    offset: float = core.option(
        0.0,
        "Offset",
        "Grey level at zero counts, for splitting by counts.",
        unit="grey level",
        group=core.MORE,
    )
    read_noise: float = core.option(
        0.0,
        "Read noise",
        "Read noise per pixel in electrons, for splitting by counts.",
        unit=_ELECTRON,
        ge=0,
        group=core.MORE,
    )
    allow_self: bool = core.option(
        False,
        "Both may be from one acquisition",
        "Also accept images from the same acquisition or derived from each other; "
        "the result is then repeatability, not resolution.",
        group=core.MORE,
    )

    @model_validator(mode="after")
    def _check_consistency(self) -> "FrcOptions":
        calibration = self.gain, self.offset, self.read_noise
        if self.split != "binomial" and calibration != (1.0, 0.0, 0.0):
            msg = (
                "only the binomial split uses gain, offset and read noise; choose it "
                "too (`split=binomial`)"
            )
            raise ValueError(core.Message(msg, "option-without-effect"))
        if self.reference and self.criterion != "1/7":
            msg = "a noise-free reference needs the criterion 1/7"
            raise ValueError(core.Message(msg, "options-contradict"))
        return self


_RESOLUTION = core.Quantity("Resolution", "nm", also="resolution_px",
    interval="interval_nm", reason="why", verdict="verdict", large=True)  # fmt: skip
_ENDS = core.Quantity("95 % interval", column="resolution_nm", shown=False)
_MEAN = core.Quantity("Mean FRC below it", form=".3f")


@dataclass(frozen=True, slots=True)
class FrcResult:
    """Correlation curve and the resolution derived from it.

    The resolution is the inverse of the crossing, in mean pixels and in nm; the
    interval in nm includes the error of the pixel size. `method` is text for citation.
    The curve is given for rings up to Nyquist, without ring 0: centres in cycles per
    mean pixel, correlation, threshold, FFT samples in the full plane. `shape` is that
    of the transform, after the second image was moved by `shift_px`. `cut_off_nm` is
    the optical cut-off, from an option or the history of all images; with a noise-free
    reference, the mean correlation below and above it is given.
    """

    resolution_px: Annotated[
        float | None, replace(_RESOLUTION, unit="px", also="", interval="interval_px")
    ]
    resolution_nm: Annotated[float | None, _RESOLUTION]
    interval_px: Annotated[
        core.FloatPair | None, replace(_ENDS, column="resolution_px")
    ]
    interval_nm: Annotated[core.FloatPair | None, _ENDS]
    criterion: Annotated[Criterion, core.Quantity("Criterion")]
    estimator: Estimator
    method: Annotated[str, core.Quantity("Method")]
    reason: Annotated[validity.Reason | None, core.Quantity("Reason", shown=False)]
    frequency_per_px: core.FloatArray
    correlation: core.FloatArray
    threshold: core.FloatArray
    samples: core.FloatArray
    tukey: float
    shape: core.IntPair
    shift_px: Annotated[core.FloatPair | None, core.Quantity("Moved", shown=False)] = (
        None
    )
    reference: bool = False
    cut_off_nm: Annotated[float | None, core.Quantity("Optical cut-off", "nm")] = None
    correlation_below: Annotated[float | None, _MEAN] = None
    correlation_above: Annotated[
        float | None, replace(_MEAN, label="Mean FRC above it")
    ] = None
    # Measured pixels ``(y0, x0, y1, x1)`` of an image with gaps
    box: Annotated[core.BoxEnds | None, core.declare_quantity("Box", "px")] = None

    measured_in = property(core.describe_measured_box)

    @property
    def why(self) -> Annotated[str | None, core.declare_quantity("Why")]:
        """Reason for the missing resolution, as text."""
        return self.reason and f"{self.reason}: {validity.REASON_TEXTS[self.reason]}"

    @property
    def doubt(self) -> Annotated[str | None, core.Quantity("Doubt", tabled=False)]:
        """Reason to doubt the resolution, if any."""
        return None if self.resolution_px is None else self.why

    @property
    def verdict(self) -> str:
        """Assessment of the resolution."""
        if self.doubt:
            return "doubtful"
        beyond = light.format_cut_off_note(self.resolution_nm, self.cut_off_nm)
        return beyond or describe_nyquist_ratio(self.resolution_px)

    @property
    def cut_off_warning(self) -> str:
        """Warning if the resolution is finer than the optical cut-off, else empty."""
        found_nm = self.resolution_nm, self.interval_nm
        return light.format_cut_off_warning(
            *found_nm, self.cut_off_nm, reference=self.reference
        )


def measure_frc(
    a: core.Micrograph,
    b: core.Micrograph | None = None,
    options: FrcOptions | None = None,
    *,
    whole: core.Micrograph | None = None,
    shift_px: core.FloatPair | None = None,
) -> FrcResult:
    """Measure the resolution of one or two exposures by Fourier ring correlation.

    Parameters
    ----------
    a : Micrograph
        First image.
    b : Micrograph, optional
        Second, independent image of the same field on the same grid; without it, `a`
        is split into diagonal halves, or its counts into two.
    options : FrcOptions, optional
        Criterion, estimator, window, split.
    whole : Micrograph, optional
        Mosaic of which `a` and `b` are halves with independent noise, in its units;
        the resolution is then that of `whole`.
    shift_px : tuple of float, optional
        ``(y, x)`` by which `b` must be moved to match `a`: both are cropped to their
        overlap in whole pixels, and the remaining shift is a phase factor.
    """
    options = options or FrcOptions()
    plan = FrcPlan.from_images(a, b, options, whole, shift_px)
    bytes_each = _BYTES_PER_PX if plan.single else _BYTES_OF_TWO
    bytes_each += 0 if whole is None else _BYTES_OF_TWO - _BYTES_PER_PX
    core.require_memory(a.name, a.shape, bytes_each)
    plan, a, b = plan.prepare(a, b)
    first, second, third = (
        None if image is None else read_finite_array(image)[None]
        for image in (a, b, whole)
    )
    first = cast("core.FloatArray", first)
    outcome = plan.correlate(first, second, third)
    code = int(outcome.code[0])
    reason = validity.REASONS[code - 1] if code else None
    plan = plan.check_shared_noise(
        reason, outcome.correlation[0], first[0], None if second is None else second[0]
    )
    if plan.is_refused and reason != "identical":
        reason = "not-independent"
    frequency = None if reason else float(outcome.crossing[0])
    spread = float(outcome.spread[0])
    pixels = None if frequency is None else 1 / frequency
    nm = plan.size_source.mean_pixel_size_nm
    error = core.compute_length_error(plan.size_source)
    result = FrcResult(
        resolution_px=pixels,
        resolution_nm=None if pixels is None or nm is None else pixels * nm,
        interval_px=_compute_length_interval(pixels, 1.0, spread),
        interval_nm=_compute_length_interval(pixels, nm, math.hypot(spread, error)),
        criterion=options.criterion,
        estimator=options.estimator or "exact",
        method=plan.describe_method(under_lens=bool(outcome.under_lens[0])),
        reason=reason,
        frequency_per_px=outcome.frequency,
        correlation=outcome.correlation[0],
        threshold=outcome.threshold,
        samples=outcome.samples,
        tukey=options.tukey,
        shape=a.shape,
        shift_px=shift_px,
        reference=options.reference,
        cut_off_nm=plan.cut_off_nm,
    )
    if not options.reference or plan.cut_off_frequency is None:
        return result
    below_end = outcome.frequency <= plan.cut_off_frequency
    below, above = (
        float(part.mean()) if part.size else None
        for part in (result.correlation[below_end], result.correlation[~below_end])
    )
    return replace(result, correlation_below=below, correlation_above=above)


# Correlation at the finest rings above which all noise is shared, not just a pattern
# common to two exposures; chosen
_ALL_NOISE = 0.9


@dataclass(frozen=True, slots=True)
class FrcPlan:
    """Plan of a correlation: options, split, shift and cut-off."""

    options: FrcOptions
    single: bool  # One image is split
    halves: bool  # The images are halves of a third, whose resolution is measured
    self_made: bool  # One is made from the other, or both from one
    tests_noise: bool  # Whether to test their noise as well as their histories
    # The first image with a pixel size, otherwise the first
    size_source: core.Micrograph
    is_thinned: bool = False  # The images are halves of the counts of one image
    shift: core.FloatPair | None = None  # Shift of the second image, px
    cut_off_nm: float | None = None  # Optical cut-off of all images

    @classmethod
    def from_images(
        cls,
        a: core.Micrograph,
        b: core.Micrograph | None,
        options: FrcOptions,
        whole: core.Micrograph | None = None,
        shift: core.FloatPair | None = None,
    ) -> Self:
        """Plan a correlation; raise an error if the images are unsuitable."""
        from_one_image = options.split == "binomial"
        if from_one_image and b is not None:
            msg = "A binomial split requires a single image of counts, got two images."
            raise core.OptionError(msg, code="options-contradict")
        if b is not None:
            check_same_grid(a, b)
        if whole is not None:
            check_same_grid(a, whole)
        what = "A noise-free reference must be a second image, got"
        if options.reference and whole is not None:
            msg = f"{what} two halves of a mosaic."
            raise core.OptionError(msg, code="options-contradict")
        if options.reference and b is None:
            raise core.OptionError(f"{what} only one.", code="second-image-missing")
        is_alone = b is None and whole is None
        first = a if a.pixel_size_nm is not None or b is None else b
        first = first if whole is None else whole
        optical = [a if whole is None else whole]
        reason = validity.is_noise_dependent(a, b, reference=options.reference)
        tests_noise = False
        if whole is None and b is not None:
            optical += [] if options.reference else [b]
            tests_noise = not reason and not validity.is_noise_independent(a, b)
        return cls(
            options,
            single=is_alone and not from_one_image,
            halves=whole is not None,
            self_made=reason,
            tests_noise=tests_noise,
            size_source=first,
            is_thinned=is_alone and from_one_image,
            shift=shift if whole is None else None,
            cut_off_nm=find_common_cut_off(optical, first, options),
        )

    @property
    def is_refused(self) -> bool:
        """Whether the resolution is withheld because the images are not independent."""
        return self.self_made and not self.options.allow_self

    @property
    def residual_shift(self) -> core.FloatPair | None:
        """Remaining subpixel shift of the second image."""
        if self.shift is None:
            return None
        y, x = self.shift
        return y - round(y), x - round(x)

    def prepare(
        self, a: core.Micrograph, b: core.Micrograph | None
    ) -> tuple[Self, core.Micrograph, core.Micrograph | None]:
        """Return the images to correlate, cropped to the overlap or split by counts."""
        if self.is_thinned:
            return self, *thin_counts(a, self.options)
        if b is None or self.shift is None:
            return self, a, b
        first, second = crop_to_overlap(a, b, self.shift)
        sized_image = first if first.pixel_size_nm is not None else second
        return replace(self, size_source=sized_image), first, second

    @property
    def pitch(self) -> core.FloatPair:
        """Relative pixel pitch ``(y, x)``."""
        return core.compute_relative_pitch(self.size_source.scale)

    @property
    def finest_px(self) -> float:
        """Finest measurable resolution in mean pixels; that of one image is coarser."""
        period = 2 * max(self.pitch)
        return 2 * period / NYQUIST_SHARE if self.single else period

    @property
    def cut_off_frequency(self) -> float | None:
        """Cut-off frequency in cycles per mean pixel."""
        nm, end = self.size_source.mean_pixel_size_nm, self.cut_off_nm
        return None if nm is None or end is None else nm / end

    def describe_method(self, *, under_lens: bool) -> str:
        """Describe the correlation method in one line, for citation."""
        options = self.options
        what = (
            "single-image FRC (diagonal split, white noise assumed)"
            if self.single
            else "mosaic-halves (FRC of two halves of the frames with common "
            "positions, for all frames)"
            if self.halves
            else "single-image FRC (binomial split, Poisson noise of counts: gain "
            f"{options.gain:g}, offset {options.offset:g}, read noise "
            f"{options.read_noise:g})"
            if self.is_thinned
            else "two-image FRC against a noise-free reference"
            if options.reference
            else "two-image FRC"
        )
        level = "√(1/7)" if options.reference else options.criterion
        plain = options.estimator == "plain"
        how = "first crossing of the rings" if plain else "likelihood fit"
        if under_lens:
            how += f" with ideal optics of cut-off {self.cut_off_nm:.4g} nm"
        line = f"{what}, threshold {level}, {how}, Tukey window {options.tukey:g}"
        if self.shift is not None:
            y, x = self.shift
            line += f"; second image aligned by a shift of ({y:.2f}, {x:.2f}) px"
        if self.self_made:
            line += "; noise not independent: repeatability, not resolution"
        return line

    def check_shared_noise(
        self,
        reason: str | None,
        correlation: core.FloatArray,
        a: core.ReadableArray,
        b: core.ReadableArray | None,
    ) -> Self:
        """Test images (Y, X) for shared noise if their histories are inconclusive.

        `reason` and `correlation` (K,) are the results so far. Noise that two exposures
        share partly is correlated noise; a reference may agree with an image of white
        texture up to the highest frequency.
        """
        if b is None or not self.tests_noise:
            return self
        against = self.options.reference
        shares_noise = False
        is_known = reason in (None, "undetermined")
        if is_known or (reason == "beyond-nyquist" and not against):
            shares_noise = validity.has_unexplained_correlation(
                a, b, self.residual_shift, reference=against
            )
        elif reason == "correlated-noise":
            # of the eight finest rings, chosen
            shares_noise = float(correlation[-8:].mean()) > _ALL_NOISE
        return replace(self, self_made=shares_noise)

    def correlate(
        self, first: _Stack, second: _Stack | None, whole: _Stack | None = None
    ) -> Measurement:
        """Correlate a batch of blocks; `first`, `second`, `whole` (B, Y, X)."""
        options = self.options
        return correlate_blocks(
            first,
            second,
            whole=whole,
            is_thinned=self.is_thinned,
            shift=self.residual_shift,
            pitch=self.pitch,
            tukey=options.tukey,
            criterion=options.criterion,
            estimator=options.estimator or "exact",
            reference=options.reference,
            end=self.cut_off_frequency,
        )


# Requirements for correlating two images: grids, pixel sizes.


def check_same_grid(a: core.Micrograph, b: core.Micrograph) -> None:
    """Check that two images share a grid, and warn if their origins differ."""
    if a.shape != b.shape:
        msg = (
            f"Both images must have the same shape, got {a.shape[0]}x{a.shape[1]} px "
            f"and {b.shape[0]}x{b.shape[1]} px; resample them to the same grid "
            "(`crop()`)."
        )
        raise core.ShapeError(msg, code="sizes-differ")
    if a.unit != b.unit:
        return
    ratios = [p / q for p, q in zip(a.scale, b.scale, strict=True)]
    # chosen: files round values; one pixel in a field of 1000
    off = any(abs(math.log(ratio)) > 1e-3 for ratio in ratios)
    if off and a.unit == "nm":
        msg = (
            f"Both images must have the same pixel size, got "
            f"{core.format_pixel_size(a.pixel_size_nm)} and "
            f"{core.format_pixel_size(b.pixel_size_nm)}; resample one of them or "
            "correct its calibration."
        )
        raise core.OptionError(msg, code="pixel-sizes-differ")
    away = [p - q for p, q in zip(a.origin, b.origin, strict=True)]
    if any(abs(v) > p / 2 for v, p in zip(away, a.scale, strict=True)):
        y, x = (core.format_number(abs(v)) for v in away)
        core.warn(
            f"The origins of {a.name} and {b.name} differ by {y} and {x} {a.unit} "
            "(y, x); the images are nevertheless compared pixel by pixel.",
            "origins-differ",
        )


def find_common_cut_off(
    images: Sequence[core.Micrograph],
    sized_image: core.Micrograph,
    options: FrcOptions,
) -> float | None:
    """Return the cut-off in nm from the options, or else from the image histories.

    None if the histories have none or differ, or if no pixel size is known.
    """
    stated_nm, has_size = options.cut_off_nm, sized_image.pixel_size_nm is not None
    if stated_nm is not None and not has_size:
        msg = (
            f"The cut-off of {stated_nm:g} nm requires images with a pixel size, but "
            "none is known; set `pixel_size_nm`."
        )
        raise core.OptionError(msg, code="pixel-size-missing")
    cut_offs = {light.find_cut_off(image, stated_nm) for image in images}
    return cut_offs.pop() if has_size and len(cut_offs) == 1 else None


# Splitting an image of counts into two of half the dose, by binomial thinning.
#
# Poisson-distributed counts are divided into two halves by tossing a coin for each
# count: both halves are again Poisson distributed, with half of the mean, and
# independent. Read noise is not a count: its halves would share its sign. So a normal
# deviate of the same power is added to one half and subtracted from the other, which
# makes their noise uncorrelated: for a mean of m counts with read noise of variance R²,
# both halves have the variance m/2 + R²/2 and the covariance 0.

_ROWS = 256  # rows whose counts are split at once; chosen


def thin_counts(
    image: core.Micrograph, options: FrcOptions
) -> tuple[core.Micrograph, core.Micrograph]:
    """Split counts into two images of half the dose, in electrons, preserving NaN."""
    exact = np.issubdtype(image.dtype, np.integer)
    # grey levels of several electrons round the number of electrons
    rounding_variance = max(0.0, options.gain**2 - 1) / 12 if exact else 0.0
    spread = np.sqrt(options.read_noise**2 + rounding_variance)
    halves = np.empty((2, *image.shape), np.float32)
    # arbitrary, but fixed: measurements must be reproducible
    rng = np.random.default_rng(0)
    below, total, number = 0.0, 0.0, 0
    for y in range(0, image.shape[0], _ROWS):
        rows = np.s_[y : y + _ROWS]
        grey = np.asarray(image.data[rows], dtype=np.float64)
        electrons = (grey - options.offset) * options.gain
        finite = np.isfinite(electrons)
        total += float(electrons.sum(where=finite))
        below += float(np.minimum(electrons, 0).sum(where=finite))
        number += int(np.count_nonzero(finite))
        electrons[~finite] = np.nan
        # largest count that the generator accepts
        whole = np.clip(np.nan_to_num(np.rint(electrons)), 0, 2.0**62)
        heads = rng.binomial(whole.astype(np.int64), 0.5)
        # also for negative values, the total power of both is that of the mean
        power = np.maximum(spread**2 + np.nan_to_num(electrons - whole), 0)
        own = rng.standard_normal(electrons.shape) * np.sqrt(power) / 2
        half = heads - whole / 2 + own
        halves[:, rows] = electrons / 2 + half, electrons / 2 - half
    # the negative part of pure noise of mean 0 has the mean -0.4 R
    # standard errors of a mean; chosen: not by chance
    lowest = -0.4 * spread * number - 5.0 * spread * np.sqrt(number)
    if number and (total < 0 or below < lowest - 0.5):
        msg = (
            f"Counts must not be negative, but {image.name} averages "
            f"{total / number:.4g} electrons per pixel, including {below / number:.4g} "
            "electrons from negative counts; check `offset`, `gain` and `read_noise`."
        )
        raise core.OptionError(msg, code="counts-negative")
    first, second = halves
    return image.replace(data=first), image.replace(data=second)


def crop_to_overlap(
    a: core.Micrograph, b: core.Micrograph, shift: core.FloatPair
) -> tuple[core.Micrograph, core.Micrograph]:
    """Crop two images to their overlap after moving `b` by whole pixels."""
    y, x = round(shift[0]), round(shift[1])
    there = core.Box.from_shape(b.shape).move((y, x))
    overlap = core.Box.from_shape(a.shape).intersection(there)
    if min(overlap.shape) < 1:
        msg = f"The images do not overlap after registration (shift {shift} px)."
        raise core.ShapeError(msg, code="no-overlap")
    first, second = (
        image.replace(
            data=image.data[part.slices],
            origin=core.Grid.from_image(image).box_origin(overlap),
        )
        for image, part in ((a, overlap), (b, overlap.move((-y, -x))))
    )
    return first, second


def read_finite_array(m: core.Micrograph) -> core.FloatArray:
    """Read an image (Y, X) in double precision; raise an error for missing pixels."""
    data = m.array().astype(np.float64)
    missing = data.size - int(np.count_nonzero(np.isfinite(data)))
    if missing:
        msg = (
            f"A whole-image measurement requires finite pixels, but {missing} pixels "
            f"of {m.name} are NaN or infinite; crop to a gap-free area "
            "(`crop(gap_free=True)`)."
        )
        raise core.ReadError(msg, code="pixels-missing")
    return data


def _compute_length_interval(
    pixels: float | None, size: float | None, spread: float
) -> core.FloatPair | None:
    """Compute the 95 % interval of a length from the standard error of its log."""
    if pixels is None or size is None:
        return None
    reach = math.exp(core.Z95 * spread)
    return pixels * size / reach, pixels * size * reach


_FINEST_PX = 2.0  # shortest period in pixels (Nyquist)


def describe_nyquist_ratio(resolution_px: float | None) -> str:
    """Describe a resolution relative to the finest detail that the pixels can show.

    Empty without a resolution.
    """
    if resolution_px is None:
        return ""
    times = resolution_px / _FINEST_PX
    # above this multiple of it, smaller pixels hardly help; chosen
    if times <= 1.1:
        return "the finest that these pixels can show: smaller pixels may show more"
    return f"{times:.2g} times the finest detail of these pixels"
