"""Fourier ring correlation of two images, or of one image with itself split.

The resolution is the inverse of the frequency at which the correlation falls below a
threshold. Each result says how it was made, and when there is none, why.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, Self, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from napari_semsr.analysis.frc.blocks import Measurement, measure
from napari_semsr.analysis.frc.crossing import CRITERIA, Criterion, Estimator, Question
from napari_semsr.analysis.frc.thinning import Counts, thin
from napari_semsr.analysis.frc.validity import Reason
from napari_semsr.analysis.light import CutOff, find_cut_off
from napari_semsr.core import (
    Z95,
    FloatArray,
    FloatPair,
    IntPair,
    Micrograph,
    OptionError,
    Options,
    ReadError,
    ShapeError,
    length_error,
    mean_pitch,
    require_memory,
)

_Stack = NDArray[np.floating]

# Measured: growth of the peak in a process, an image, or two, of 4000 x 4000 px
_BYTES_PER_PX, _BYTES_OF_TWO = 40.0, 59.0


class FrcOptions(Options):
    """How to read a Fourier ring correlation."""

    criterion: Criterion = Field(
        default="1/7", description="Threshold of the correlation."
    )
    estimator: Estimator | None = Field(
        default=None,
        description="Ring by ring (plain) or likelihood fit (exact, the default).",
    )
    # In blocks of 64 px the plain curve was off by 9.8 % (median RMSE, measured on
    # drawn pairs); with 0.25 by 10.8 %, with a Hann window by 10.7 %
    tukey: float = Field(
        default=0.5, ge=0, le=1, description="Tapered share of the window."
    )
    reference: bool = Field(
        default=False, description="The second image is nearly free of noise."
    )
    cut_off_nm: CutOff = None
    allow_self: bool = Field(
        default=False,
        description="Give the number for images that a network made from one "
        "acquisition: repeatability, not resolution.",
    )
    split: Literal["diagonal", "binomial"] = Field(
        default="diagonal",
        description="How one image is split: its pixels (white noise assumed), or its "
        "counts (Poisson noise assumed, calibrated by the next three).",
    )
    gain: float = Field(
        default=1.0, gt=0, description="Electrons or photons to a grey level."
    )
    offset: float = Field(default=0.0, description="Grey level of no count.")
    read_noise: float = Field(
        default=0.0, ge=0, description="Read noise of a pixel, in electrons."
    )

    @model_validator(mode="after")
    def _calibration_needs_counts(self) -> "FrcOptions":
        if self.split != "binomial" and self.counts != Counts():
            msg = (
                "the binomial split alone uses gain, offset and read noise; choose it "
                "too (--split binomial)"
            )
            raise ValueError(msg)
        return self

    @property
    def counts(self) -> Counts:
        """What grey levels stand for."""
        return Counts(self.gain, self.offset, self.read_noise)

    @model_validator(mode="after")
    def _reference_goes_with(self) -> "FrcOptions":
        if self.reference and self.criterion != "1/7":
            msg = "a noise-free reference needs the criterion 1/7"
            raise ValueError(msg)
        if self.cut_off_nm is not None and not self.reference:
            msg = (
                "cut_off_nm is where a comparison with a noise-free reference is "
                "split; choose that too (--reference)"
            )
            raise ValueError(msg)
        return self


@dataclass(frozen=True, slots=True)
class FrcResult:
    """A correlation curve and the resolution read from it.

    Attributes
    ----------
    resolution_px, resolution_nm : float or None
        Inverse of the crossing, in mean pixels and nm; None without a crossing, and
        in nm without a pixel size.
    interval_px, interval_nm : tuple of float or None
        95 % interval of the resolution; in nm with the error of the pixel size, where
        a calibration told it.
    criterion : str
        Threshold: ``1/7``, ``half-bit`` or ``3-sigma``.
    estimator : str
        ``plain`` or ``exact``.
    method : str
        What was done, in words, for people to quote.
    reason : str or None
        Why there is no resolution; None when there is one.
    frequency_per_px : (K,) numpy.ndarray
        Centres of the rings up to Nyquist, cycles per mean pixel; ring 0 left out.
    correlation, threshold : (K,) numpy.ndarray
        Measured correlation and what it is held against.
    samples : (K,) numpy.ndarray
        FFT samples of each ring in the full plane.
    tukey : float
        Tapered share of the window.
    shape : tuple of int
        Rows and columns that were transformed.
    shift_px : tuple of float or None
        ``(y, x)`` by which the second image was moved; None where it was not.
    reference : bool
        Whether the second image counted as free of noise.
    cut_off_nm : float or None
        Shortest period that the light carried, where the curve is split; None without
        a noise-free reference, pixel size or known cut-off.
    correlation_below, correlation_above : float or None
        Mean of the curve below and above the cut-off in frequency; None where no ring
        is.
    """

    resolution_px: float | None
    resolution_nm: float | None
    interval_px: FloatPair | None
    interval_nm: FloatPair | None
    criterion: Criterion
    estimator: Estimator
    method: str
    reason: Reason | None
    frequency_per_px: FloatArray
    correlation: FloatArray
    threshold: FloatArray
    samples: FloatArray
    tukey: float
    shape: IntPair
    shift_px: FloatPair | None = None
    reference: bool = False
    cut_off_nm: float | None = None
    correlation_below: float | None = None
    correlation_above: float | None = None

    @property
    def beyond_cut_off(self) -> str:
        """A sentence where the resolution is finer than all that the light carried."""
        found, end = self.resolution_nm, self.cut_off_nm
        if found is None or end is None or found >= end:
            return ""
        return (
            f"The resolution lies beyond the optical cut-off of {end:.4g} nm: light "
            "carried nothing that fine, so that what agrees there was guessed, or the "
            "cut-off is another."
        )

    @property
    def thresholds(self) -> dict[Criterion, FloatArray]:
        """Threshold of every criterion that may be asked for, (K,) each."""
        asked = (self.criterion,) if self.reference else CRITERIA
        return {
            one: Question(one, self.estimator, self.reference, single=False).threshold(
                self.samples
            )
            for one in asked
        }


# Whether two images may be correlated at all: grids, pixel sizes, provenance.

_PIXEL_TOLERANCE = 1e-3  # chosen: files round; a pixel in a field of 1000


def check_grids(a: Micrograph, b: Micrograph) -> None:
    """Refuse two images that do not share one grid."""
    if a.shape != b.shape:
        msg = (
            f"Both images must have the same shape, got {a.shape[0]}x{a.shape[1]} px "
            f"and {b.shape[0]}x{b.shape[1]} px; bring them onto one grid (semsr crop)."
        )
        raise ShapeError(msg)
    if a.pixel_size_nm is None or b.pixel_size_nm is None:
        return
    ratios = [p / q for p, q in zip(a.pixel_size_nm, b.pixel_size_nm, strict=True)]
    if any(abs(math.log(ratio)) > _PIXEL_TOLERANCE for ratio in ratios):
        msg = (
            f"Both images must have the same pixel size, got {a.pixel_size_nm} nm and "
            f"{b.pixel_size_nm} nm; resample one of them or correct its calibration."
        )
        raise OptionError(msg)


def not_independent(a: Micrograph, b: Micrograph | None) -> bool:
    """Tell from provenance whether networks made both images from one acquisition."""
    if a.provenance is None or not a.provenance.networks():
        return False
    if b is None:
        return True
    if b.provenance is None or not b.provenance.networks():
        return False
    return b is a or bool(a.provenance.sources() & b.provenance.sources())


def laid_over(
    a: Micrograph, b: Micrograph, shift: FloatPair
) -> tuple[Micrograph, Micrograph]:
    """Cut two images to what they share once `b` is moved by the whole pixels."""
    ours, theirs = [], []
    for size, way in zip(a.shape, shift, strict=True):
        move = round(way)
        ours.append(slice(max(0, move), min(size, size + move)))
        theirs.append(slice(max(0, -move), min(size, size - move)))
    if any(cut.stop <= cut.start for cut in ours):
        msg = f"Images must overlap once registered, got a shift of {shift} px."
        raise ShapeError(msg)
    cut = []
    for image, part in ((a, ours), (b, theirs)):
        rows, columns = (
            start + kept.start * pitch
            for start, kept, pitch in zip(image.origin, ours, image.scale, strict=True)
        )
        data = image.data[tuple(part)]
        cut.append(image.replace(data=data, origin=(rows, columns)))
    return cut[0], cut[1]


@dataclass(frozen=True, slots=True)
class FrcPlan:
    """What is decided before anything is correlated."""

    options: FrcOptions
    single: bool  # One image is split
    halves: bool  # The images are halves of a third one, which is measured
    self_made: bool  # A network made both images from one acquisition
    calibrated: Micrograph  # The first image that has a pixel size, else the first
    thinned: bool = False  # The images share the counts of one
    shift: FloatPair | None = None  # By which the second image is moved, px

    @classmethod
    def of(
        cls,
        a: Micrograph,
        b: Micrograph | None,
        options: FrcOptions,
        whole: Micrograph | None = None,
        shift: FloatPair | None = None,
    ) -> Self:
        """Refuse images that cannot be correlated so."""
        thinned = options.split == "binomial"
        if thinned and b is not None:
            msg = "A binomial split needs one image of counts, got two images."
            raise OptionError(msg)
        if b is not None:
            check_grids(a, b)
        if whole is not None:
            check_grids(a, whole)
            if options.reference:
                msg = "A noise-free reference needs a second image, got two halves."
                raise OptionError(msg)
            return cls(options, False, True, not_independent(a, b), whole)
        if b is None and options.reference:
            msg = "A noise-free reference needs a second image, got one image."
            raise OptionError(msg)
        first = a if a.pixel_size_nm is not None or b is None else b
        single = b is None and not thinned
        made = not_independent(a, b)
        return cls(options, single, False, made, first, thinned, shift)

    @property
    def refused(self) -> bool:
        """Whether no resolution is given, as images are not independent."""
        return self.self_made and not self.options.allow_self

    @property
    def rest(self) -> FloatPair | None:
        """Parts of a pixel by which the second image still has to be moved."""
        if self.shift is None:
            return None
        y, x = self.shift
        return y - round(y), x - round(x)

    def prepare(
        self, a: Micrograph, b: Micrograph | None
    ) -> tuple[Self, Micrograph, Micrograph | None]:
        """Give what is correlated: images cut to what they share, or counts split."""
        if self.thinned:
            return self, *thin(a, self.options.counts)
        if b is None or self.shift is None:
            return self, a, b
        first, second = laid_over(a, b, self.shift)
        known = first if first.pixel_size_nm is not None else second
        return replace(self, calibrated=known), first, second

    @property
    def pitch(self) -> FloatPair:
        """Relative pixel pitch ``(y, x)``."""
        return mean_pitch(self.calibrated.scale)

    @property
    def method(self) -> str:
        """How a correlation is made, in one line for people to quote."""
        options = self.options
        what = (
            "single-image FRC (diagonal split, white noise assumed)"
            if self.single
            else "mosaic-halves (FRC of half the frames against the others, positions "
            "shared, for all)"
            if self.halves
            else f"single-image FRC (binomial split, Poisson noise of {options.counts})"
            if self.thinned
            else "two-image FRC against a noise-free reference"
            if options.reference
            else "two-image FRC"
        )
        level = "√(1/7)" if options.reference else options.criterion
        plain = options.estimator == "plain"
        how = "first crossing of the rings" if plain else "likelihood fit"
        line = f"{what}, threshold {level}, {how}, Tukey window {options.tukey:g}"
        if self.shift is not None:
            y, x = self.shift
            line += f"; second image moved by ({y:.2f}, {x:.2f}) px before"
        if self.self_made:
            line += "; images made from one acquisition by a network: repeatability, "
            line += "not resolution"
        return line

    def measure(
        self, first: _Stack, second: _Stack | None, whole: _Stack | None = None
    ) -> Measurement:
        """Correlate a batch of blocks; `first`, `second`, `whole` (B, Y, X)."""
        options = self.options
        return measure(
            first,
            second,
            whole=whole,
            thinned=self.thinned,
            shift=self.rest,
            pitch=self.pitch,
            tukey=options.tukey,
            criterion=options.criterion,
            estimator=options.estimator or "exact",
            reference=options.reference,
        )


def finite_array(m: Micrograph) -> FloatArray:
    """Read a whole image (Y, X) in double precision and refuse missing pixels."""
    data = m.array().astype(np.float64)
    missing = data.size - int(np.count_nonzero(np.isfinite(data)))
    if missing:
        msg = (
            f"A whole-image measure needs finite pixels, got {missing} NaN or infinite "
            f"pixels in {m.name}; cut them off, or measure by blocks (an FRC "
            "map)."
        )
        raise ReadError(msg)
    return data


def measure_frc(
    a: Micrograph,
    b: Micrograph | None = None,
    options: FrcOptions | None = None,
    *,
    whole: Micrograph | None = None,
    shift_px: FloatPair | None = None,
) -> FrcResult:
    """Measure the resolution of two exposures, or of one, by ring correlation.

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
        ``(y, x)`` by which `b` must be moved to lie on `a`: both are cut to what they
        share by whole pixels, and the rest is a phase.

    Returns
    -------
    FrcResult
        Curve, resolution with its interval, method, and the reason when there is none.

    Raises
    ------
    ShapeError
        If the shapes differ.
    OptionError
        If pixel sizes differ or options contradict each other.
    ReadError
        If a pixel is NaN or infinite.
    """
    plan = FrcPlan.of(a, b, options or FrcOptions(), whole, shift_px)
    options = plan.options
    bytes_each = _BYTES_PER_PX if plan.single else _BYTES_OF_TWO
    bytes_each += 0 if whole is None else _BYTES_OF_TWO - _BYTES_PER_PX
    require_memory(a.name, a.shape, bytes_each)
    plan, a, b = plan.prepare(a, b)
    first, second, third = (
        None if image is None else finite_array(image)[None] for image in (a, b, whole)
    )
    outcome = plan.measure(cast("FloatArray", first), second, third)
    reason = "not-independent" if plan.refused else outcome.reasons[0]
    frequency = None if reason else float(outcome.crossing[0])
    spread = float(outcome.spread[0])
    pixels = None if frequency is None else 1 / frequency
    nm, error = plan.calibrated.mean_pixel_size_nm, length_error(plan.calibrated)
    result = FrcResult(
        resolution_px=pixels,
        resolution_nm=None if pixels is None or nm is None else pixels * nm,
        interval_px=_interval(pixels, 1.0, spread),
        interval_nm=_interval(pixels, nm, math.hypot(spread, error)),
        criterion=options.criterion,
        estimator=options.estimator or "exact",
        method=plan.method,
        reason=reason,
        frequency_per_px=outcome.frequency,
        correlation=outcome.correlation[0],
        threshold=outcome.threshold,
        samples=outcome.samples,
        tukey=options.tukey,
        shape=a.shape,
        shift_px=shift_px,
        reference=options.reference,
    )
    end = find_cut_off(a, options.cut_off_nm)
    if not options.reference or end is None or nm is None:
        return result
    carried = outcome.frequency <= nm / end
    below, above = (
        float(kept.mean()) if kept.size else None
        for kept in (result.correlation[carried], result.correlation[~carried])
    )
    return replace(
        result, cut_off_nm=end, correlation_below=below, correlation_above=above
    )


def _interval(
    pixels: float | None, size: float | None, spread: float
) -> FloatPair | None:
    """95 % interval of a length, whose logarithm has some standard deviation."""
    if pixels is None or size is None:
        return None
    reach = math.exp(Z95 * spread)
    return pixels * size / reach, pixels * size * reach


def measure_agreement(
    image: Micrograph, reference: Micrograph, *, cut_off_nm: float | None = None
) -> FrcResult:
    """Measure down to what length an image agrees with a much better one.

    The usual fit is local, and may find no crossing for a curve that dips and comes
    back; the rings' first crossing is taken then.

    Parameters
    ----------
    image : Micrograph
        What is judged.
    reference : Micrograph
        On the same grid; it counts as free of noise.
    cut_off_nm : float, optional
        Shortest period that the light carried; by default what the image's history
        tells.

    Returns
    -------
    FrcResult
        Resolution, or the reason why there is none.
    """
    options = FrcOptions(reference=True, cut_off_nm=cut_off_nm)
    found = measure_frc(image, reference, options)
    if found.reason != "beyond-nyquist":
        return found
    plain = measure_frc(image, reference, options.replace(estimator="plain"))
    return plain if plain.reason is None else found
