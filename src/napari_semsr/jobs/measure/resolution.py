"""Resolution measurement jobs: FRC, FRC maps, decorrelation and power spectra.

`frc` and `frc_map` find the halves of a single mosaic, record both images, search for
their shift, correlate, and report. What they share is below them in this order;
`decorrelation` and `spectrum` follow. Options are declared where they are read:
`register` here, those of a correlation in `napari_semsr.analysis.frc.correlation`, and
those of a map, which has the others too, in `napari_semsr.analysis.frc.map`.
"""

import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np

from napari_semsr import analysis, core, io
from napari_semsr.jobs import images, verb
from napari_semsr.jobs.crop import crop_to_gap_free_box
from napari_semsr.jobs.measure.offset import Offset, measure_offset
from napari_semsr.jobs.stitch import HALF

Halves = tuple[core.Micrograph, core.Micrograph]
ALONE = "It was measured as a single image."
"""Sentence appended to the reason for not using the halves of a mosaic."""


# Fourier ring correlation of one or two images or files.

_REGISTER = "Register the second image"
_BEFORE = (
    "Register the second image to the first with subpixel accuracy before measuring, "
    "if the measured shift is reliable."
)


with warnings.catch_warnings():  # shadows an attribute of `type`
    warnings.simplefilter("ignore", UserWarning)

    class FrcJobOptions(analysis.FrcOptions):
        """Options for registering and correlating one or two images."""

        register: bool = core.option(True, _REGISTER, _BEFORE)

    class FrcMapJobOptions(analysis.FrcMapOptions):
        """Options for registering two images and mapping their local correlation."""

        register: bool = core.option(True, _REGISTER, _BEFORE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _CorrelationReport(images.ImageMeasurement):
    """Correlation of a single image, or of two images of one area.

    `found_shift_px` is the measured shift of the second image, if requested; the result
    has the shift that was applied. `note` states why a mosaic's halves were not used,
    or why the images were not registered.
    """

    note: Annotated[str | None, core.Quantity("Note", tabled=False)]
    found_shift_px: Annotated[
        core.FloatPair | None,
        core.declare_quantity(
            *("Shift, down and right", "px", "+.2f"),
            sd="found_shift_sd_px",
            method="",
        ),
    ]
    found_shift_sd_px: Annotated[
        float | None, core.declare_quantity("Found shift, s.d.", "px")
    ]

    @property
    def second_off(
        self,
    ) -> Annotated[str | None, core.Quantity("Shift of second image", tabled=False)]:
        """Shift of the second image, and whether it was corrected."""
        if self.found_shift_px is None or self.found_shift_sd_px is None:
            return None
        y, x = self.found_shift_px
        is_moved = getattr(self, "result").shift_px is not None  # noqa: B009 - of each
        return (
            f"({y:.2f}, {x:.2f}) \N{PLUS-MINUS SIGN} {self.found_shift_sd_px:.2f} px, "
            f"{'corrected' if is_moved else 'not corrected'}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FrcReport(_CorrelationReport):
    """Fourier ring correlation of one or two images, or of a mosaic's halves."""

    halves: tuple[str, ...] | None  # their names
    result: analysis.FrcResult = field(metadata=core.FLAT)


_HALVES = (
    "an image; a single mosaic is measured with the halves that `stitch(halves=True)` "
    "wrote next to it, and any other single image "
)
_FIRST = verb.ImageInput(column="image", also=("a",))
_SECOND = verb.ImageInput(
    help="a second, independent image of the same field",
    column="second",
    also=("b", "reference"),
)


@verb.command(
    title="measurement",
    makes_table=True,
    curves=(
        core.CurveDeclaration(
            "Fourier ring correlation",
            "frequency_per_px",
            "correlation",
            "",
            "correlation",
            labels=("FRC",),
            ylim=(-0.2, 1.05),
            threshold="threshold",
            mark="resolution",
        ),
    ),
    value="result",
    gives=analysis.FrcResult,
)
def frc(
    run: verb.Run[FrcJobOptions],
    a: Annotated[core.Micrograph, replace(_FIRST, help=f"{_HALVES}is split")],
    b: Annotated[core.Micrograph | None, _SECOND] = None,
    *,
    options: FrcJobOptions,
    halves: Halves | None = None,
) -> core.Job[FrcReport]:
    """Measure resolution by Fourier ring correlation.

    Examples
    --------
    >>> from scipy.ndimage import gaussian_filter
    >>> rng = np.random.default_rng(0)
    >>> truth = 4 * gaussian_filter(rng.normal(size=(128, 128)), sigma=2)
    >>> first, second = (truth + rng.normal(0, 0.3, truth.shape) for _ in "ab")
    >>> found = semsr.frc(first, second, pixel_size_nm=5)
    >>> found.criterion, round(found.resolution_nm)
    ('1/7', 24)
    """
    sized_image = images.get_calibrated_image(a, b)
    if b is not None:
        run.warn_if_trained_on()
    halves, note = _get_mosaic_halves(run, a, halves, alone=b is None)
    a, b = yield from _record_images(run, a, b)
    box: core.Box | None = None
    if halves is not None:
        (a, one, other), box = yield from crop_to_gap_free_box(a, *halves)
    elif b is None:
        (a,), box = yield from crop_to_gap_free_box(a)
    elif a.shape == b.shape:
        (a, b), box = yield from crop_to_gap_free_box(a, b)
    offset = _find_offset(a, b, options)
    yield core.Progress(1, 2, "correlating")
    if halves is None:
        result = analysis.measure_frc(a, b, options, shift_px=offset.shift)
    else:
        result = analysis.measure_frc(one, other, options, whole=a)
    result = replace(result, box=None if box is None else box.ends)
    end_nm = result.cut_off_nm or analysis.find_cut_off(sized_image)
    beyond = replace(result, cut_off_nm=end_nm).cut_off_warning
    return FrcReport(
        images=run.image_names,
        **verb.get_pixel_size_fields(sized_image),
        halves=None if halves is None else (one.name, other.name),
        result=result,
        note=_compose_note(offset, note, beyond),
        found_shift_px=offset.shift_px,
        found_shift_sd_px=offset.error_px,
    )


# FRC map of one or two images, written as an image in nm.


_MEDIAN = core.Quantity("Median", "nm", also="median_px", interval="median_interval_nm",
    reason="why", verdict="verdict", large=True)  # fmt: skip
_P10 = core.Quantity("10th percentile", "nm", also="p10_px")
_P90 = replace(_P10, label="90th percentile", also="p90_px")


@dataclass(frozen=True, slots=True, kw_only=True)
class FrcMapReport(_CorrelationReport):
    """Local resolution of one or two images, with block statistics and failures.

    `median_interval` includes the noise of the blocks and, in nm, the error of the
    pixel size; `reasons` count blocks; `field_reason` is set if both images share noise
    in all blocks pooled.
    """

    output: str | None
    unit: str
    shape: core.IntPair
    p10_nm: Annotated[float | None, _P10]
    p10_px: Annotated[float | None, replace(_P10, unit="px", also="")]
    median_nm: Annotated[float | None, _MEDIAN]
    median_px: Annotated[
        float | None,
        replace(_MEDIAN, unit="px", also="", interval="median_interval_px"),
    ]
    p90_nm: Annotated[float | None, _P90]
    p90_px: Annotated[float | None, replace(_P90, unit="px", also="")]
    median_interval_nm: Annotated[
        core.FloatPair | None, core.declare_quantity("Between")
    ]
    median_interval_px: Annotated[
        core.FloatPair | None, core.declare_quantity("Between")
    ]
    blocks: Annotated[int, core.Quantity("Blocks", shown=False)]
    failed: Annotated[
        int, core.Quantity("Failed", "", "d", column="blocks_without_crossing")
    ]
    reasons: Annotated[dict[str, int], core.declare_quantity("Failed")]
    block: Annotated[int, core.Quantity("Block", "px", column="block_px", shown=False)]
    step: int
    field_reason: Annotated[str | None, core.Quantity("In all blocks together")]
    method: Annotated[str, core.Quantity("Method")]
    shift_px: Annotated[core.FloatPair | None, core.Quantity("Moved", shown=False)]
    cut_off_nm: Annotated[float | None, core.Quantity("Optical cut-off", "nm")]
    result: analysis.FrcMap = field(metadata={"json": False})

    @property
    def reason(self) -> Annotated[str | None, core.Quantity("Reason", shown=False)]:
        """The most frequent reason for failure, if all blocks failed."""
        reasons = self.reasons if self.median_px is None else {}
        return max(reasons, key=lambda name: reasons[name], default=None)

    @property
    def why(self) -> Annotated[str | None, core.declare_quantity("Why")]:
        """The most frequent reason for failure as text, if all blocks failed."""
        return self.reason and f"mostly: {analysis.REASON_TEXTS[self.reason]}"

    @property
    def verdict(self) -> str:
        """Assessment of the median resolution."""
        finer = self.reasons.get("beyond-nyquist", 0)
        if self.median_px is not None and 2 * finer > self.blocks:
            text = analysis.REASON_TEXTS["beyond-nyquist"]
            return f"not of most blocks: {finer} of {self.blocks} are {text}"
        beyond = analysis.format_cut_off_note(self.median_nm, self.cut_off_nm)
        return beyond or analysis.describe_nyquist_ratio(self.median_px)

    def figures(self) -> dict[str, core.Figure]:
        """Return the figures of the map, with the number of failed blocks by reason."""
        rows = core.get_declared_figures(self)
        rows["Failed"] = replace(rows["Failed"], note=f"of {self.blocks} blocks")
        for name, count in self.reasons.items():
            if count:
                why = analysis.REASON_TEXTS[name]
                rows[f"Failed, {name}"] = core.Figure(count, "", "d", why)
        return rows


# Fields of the report that are copied from the map.
_COPIED = (
    *("p10_nm", "median_nm", "p90_nm", "blocks", "failed", "block", "step"),
    *("field_reason", "method", "shift_px", "cut_off_nm"),
)


@verb.command(
    title="measurement", makes_table=True, value="result", gives=analysis.FrcMap
)
def frc_map(
    run: verb.Run[FrcMapJobOptions],
    a: Annotated[
        core.Micrograph, replace(_FIRST, help=f"{_HALVES}has its blocks split")
    ],
    b: Annotated[core.Micrograph | None, _SECOND] = None,
    output: Annotated[Path | None, verb.MAP_OUT] = None,
    *,
    options: FrcMapJobOptions,
    halves: Halves | None = None,
) -> core.Job[FrcMapReport]:
    """Map the resolution block by block.

    Examples
    --------
    >>> from scipy.ndimage import gaussian_filter
    >>> rng = np.random.default_rng(0)
    >>> truth = 4 * gaussian_filter(rng.normal(size=(128, 128)), sigma=2)
    >>> first, second = (truth + rng.normal(0, 0.3, truth.shape) for _ in "ab")
    >>> found = semsr.frc_map(first, second, block=64, step=32, pixel_size_nm=5)
    >>> found.map.shape, round(float(np.nanmedian(found.map.data))), found.unit
    ((3, 3), 24, 'nm')
    """
    run.roles = {"a": "image", "b": "image"}
    sized_image = images.get_calibrated_image(a, b)
    halves, note = _get_mosaic_halves(run, a, halves, alone=b is None)
    a, b = yield from _record_images(run, a, b)
    offset = _find_offset(a, b, options)
    records = []
    if halves is None:
        mapping = analysis.measure_frc_map(a, b, options, shift_px=offset.shift)
        result = yield from mapping
    else:
        result = yield from analysis.measure_frc_map(*halves, options, whole=a)
        note = _describe_coverage(result) or note
        for half in halves:
            job = images.record_input(half, half, run.opening, role="half")
            records.append((yield from job))
    if b is not None:
        run.warn_if_trained_on()
    history = yield from run.compose_history(inputs=records)
    values = result.map.array()
    look = core.DisplaySettings(
        limits=core.contrast_limits(values, 1, 99),
        colormap="viridis",
        colour_bar=bool(np.isfinite(values).any()),
    )
    result = replace(result, map=result.map.replace(provenance=history, look=look))
    run.write_image(result.map)
    interval_nm = result.median_interval if result.unit == "nm" else None
    end_nm = result.cut_off_nm or analysis.find_cut_off(sized_image)
    found_nm = (result.median_nm, interval_nm)
    what = f"median of the map of {run.image_names[0]}"
    beyond = analysis.format_cut_off_warning(
        *found_nm, end_nm, reference=options.reference, what=what
    )
    pixel = sized_image.mean_pixel_size_nm or 1.0
    p10_px, median_px, p90_px = (
        None if value is None else value / pixel
        for value in map(result.percentile, (10, 50, 90))
    )
    ends = replace(result, size_error=0.0).median_interval  # no error in px
    return FrcMapReport(
        images=run.image_names,
        **verb.get_pixel_size_fields(sized_image),
        output=run.output,
        unit=result.unit,
        shape=result.map.shape,
        **{name: getattr(result, name) for name in _COPIED},
        p10_px=p10_px,
        median_px=median_px,
        p90_px=p90_px,
        median_interval_nm=interval_nm,
        median_interval_px=ends and (ends[0] / pixel, ends[1] / pixel),
        reasons=dict(result.reason_counts),
        note=_compose_note(offset, note, beyond),
        found_shift_px=offset.shift_px,
        found_shift_sd_px=offset.error_px,
        result=result,
    )


def _describe_coverage(result: analysis.FrcMap) -> str | None:
    """Return a note on blocks that both halves do not cover; None if there are none."""
    count, blocks = result.incomplete, result.blocks
    if not count:
        return None
    note = f"{count} of {blocks} blocks are not covered by both halves"
    less = ": use smaller blocks, or scan with more overlap."
    return f"{note}{'.' if count < blocks else less}"


# The halves of a mosaic, stored next to it.


def _get_mosaic_halves(
    run: verb.Run[FrcJobOptions] | verb.Run[FrcMapJobOptions],
    first: core.Micrograph,
    halves: Halves | None,
    *,
    alone: bool,
) -> tuple[Halves | None, str | None]:
    """Return the halves of a single mosaic, or the reason why they are missing."""
    image = run.image_inputs["a"]
    if (
        not alone
        or halves is not None
        or isinstance(image, core.Micrograph)
        or run.options.split != "diagonal"
    ):
        return halves, None
    halves, note = find_halves(Path(image), first)
    if note is not None:
        core.warn(note := core.Message(f"{note} {ALONE}", core.get_error_code(note)))
    return halves, note


def find_halves(
    mosaic: Path, mosaic_image: core.Micrograph
) -> tuple[Halves | None, core.Message | None]:
    """Find the halves of a mosaic, or return the reason if they are missing."""
    paths = io.get_half_paths(mosaic)
    there = [path for path in paths if path.exists()]
    history = mosaic_image.provenance
    if not there and (history is None or history.defining_step().job != "stitch"):
        return None, None
    fault = (
        "has no halves next to it; stitch with `halves` to measure its resolution"
        if not there
        else f"has {there[0].name} next to it, but not the other half"
    )
    if len(there) == len(paths):
        try:
            halves = io.read(paths[0]), io.read(paths[1])
            fault = _find_mismatch(mosaic, mosaic_image, halves)
        except (core.SemsrError, OSError) as error:
            fault = f"has halves next to it that cannot be read ({error})"
        if not fault:
            first, second = (
                mosaic_image.replace(data=half.data, name=half.name, look=half.look)
                for half in halves
            )
            return (first, second), None
    return None, core.Message(f"The mosaic {mosaic.name} {fault}.", "halves-missing")


def _find_mismatch(mosaic: Path, mosaic_image: core.Micrograph, halves: Halves) -> str:
    """Return the reason why halves do not match the mosaic; empty if they do."""
    if mosaic.suffix.lower() == ".png":
        return "is a PNG, whose grey values differ from those of its halves"
    mosaic_stored = io.read(mosaic)
    for half in halves:
        grids = [
            (item.shape, item.scale, item.origin) for item in (mosaic_stored, half)
        ]
        if grids[0] != grids[1] or mosaic_image.shape != half.shape:
            return "has halves next to it on another grid"
    own_recipe = _get_stitch_recipe(mosaic_stored.provenance)
    if any(
        own_recipe is None or _get_stitch_recipe(half.provenance) != own_recipe
        for half in halves
    ):
        return (
            "has halves next to it that were made from other frames or options; "
            "stitch it again with `halves`"
        )
    return ""


def _get_stitch_recipe(history: core.Provenance | None) -> dict[str, object] | None:
    """Return the record shared by a mosaic and its halves; None for other images."""
    if history is None or history.defining_step().job != "stitch":
        return None
    recipe = history.defining_step().reproducible_record()
    recipe["options"].pop(HALF, None)
    return recipe


def _record_images(
    run: verb.Run[verb.O], first: core.Micrograph, second: core.Micrograph | None
) -> core.Job[tuple[core.Micrograph, core.Micrograph | None]]:
    """Record both images, to detect a common history."""
    if second is None or first.provenance is second.provenance is None:
        return first, second
    records = (yield from run.record_image("a")), (yield from run.record_image("b"))
    return (yield from images.append_image_records((first, second), records))


# Shift of the second image relative to the first.

_STILL = core.Message(
    "The images share noise, such as a detector pattern, that did not move with the "
    "sample.",
    "not-independent",
)


def _find_offset(
    first: core.Micrograph,
    second: core.Micrograph | None,
    settings: "FrcJobOptions | FrcMapJobOptions",
) -> Offset:
    """Find the shift of the second image, if requested."""
    if second is None or not settings.register or first.shape != second.shape:
        return Offset()
    offset = measure_offset(first, second)
    if offset.far_px is not None:
        y, x = offset.far_px
        msg = (
            f"{second.name} fits {first.name} better if moved by about ({y}, {x}) px, "
            "but not in all parts: register the images first (`register()`), or "
            "measure them as they are (`register=False`)."
        )
        raise core.RegistrationError(msg, code="images-shifted")
    if offset.shift is None or settings.reference:
        return offset
    if not analysis.has_shared_noise(first.data, second.data, offset.shift):
        return offset
    return replace(offset, is_moved=False, doubt=_STILL)


def _compose_note(offset: Offset, note: str | None, beyond: str) -> str | None:
    """Join what is to be noted; warn of a resolution finer than the optical cut-off."""
    if beyond:
        core.warn(beyond, "finer-than-optics")
    doubt = offset.doubt and f"The images were not registered. {offset.doubt}"
    return " ".join(filter(None, (doubt, note, beyond))) or None


# The cut-off of one image or file by decorrelation analysis.


@dataclass(frozen=True, slots=True, kw_only=True)
class DecorrelationReport(images.PixelSizeResult):
    """Cut-off of an image by decorrelation analysis."""

    image: str
    result: analysis.Decorrelation = field(metadata=core.FLAT)


@verb.command(
    title="measurement",
    makes_table=True,
    curves=(
        core.CurveDeclaration(
            "Decorrelation analysis",
            "frequency_per_px",
            ("correlation", "filtered"),
            "",
            "decorrelation d(r)",
            labels=("unfiltered", "filtered"),
            mark="resolution",
        ),
    ),
    value="result",
    gives=analysis.Decorrelation,
)
def decorrelation(
    run: verb.Run[analysis.DecorrelationOptions],
    image: Annotated[core.Micrograph, verb.ImageInput(help="an image")],
    *,
    options: analysis.DecorrelationOptions,
) -> core.Job[DecorrelationReport]:
    """Measure the cut-off of one image by decorrelation analysis.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> plane = np.fft.fft2(rng.normal(size=(256, 256)))
    >>> plane[np.hypot(*np.meshgrid(*2 * [np.fft.fftfreq(256)])) > 1 / 4] = 0
    >>> image = np.fft.ifft2(plane).real + rng.normal(0, 0.05, plane.shape)
    >>> found = semsr.decorrelation(image, pixel_size_nm=5)
    >>> round(found.resolution_px, 1), round(found.resolution_nm)
    (4.0, 20)
    """
    size = verb.get_pixel_size_fields(images.get_calibrated_image(image, None))
    box = None
    if options.block is None:  # otherwise blocks with gaps are left out
        (image,), box = yield from crop_to_gap_free_box(image)
    result = yield from analysis.measure_decorrelation(image, options)
    result = replace(result, box=None if box is None else box.ends)
    network = image.provenance and image.provenance.last_network()
    if network:
        core.warn(
            f"{image.name} was made by the network {network[0]}, so decorrelation "
            "describes the network's output, not the acquired resolution; measure the "
            "original image, or compare two images (`frc()`, `error_map()`).",
            "made-by-network",
        )
    return DecorrelationReport(**size, image=run.image_names[0], result=result)


# The power spectrum of an image or file: radial curve and centred plane.


def _create_frequency_property(share: float, unit: str, also: str = "") -> property:
    """Create a property for the frequency below which a fraction of the power is."""

    def get_frequency(report: "SpectrumReport") -> float | None:
        frequency = getattr(report.radial, f"frequency_per_{unit}")
        power = np.cumsum(report.radial.power * report.radial.samples)
        if frequency is None or not len(power) or power[-1] <= 0:
            return None
        # outer edge of each ring
        ends = np.asarray(frequency) + frequency[0] / 2
        ends, power = np.r_[frequency[0] / 2, ends], np.r_[0.0, power]
        return float(np.interp(share * power[-1], power, ends))

    part = "Half" if share == 0.5 else f"{100 * share:.0f} %"
    per = "µm⁻¹" if unit == "um" else "px⁻¹"
    quantity = core.Quantity(f"{part} of the power below", per, also=also)
    get_frequency.__annotations__["return"] = Annotated[float | None, quantity]
    return property(get_frequency)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectrumReport(images.PixelSizeResult):
    """Power spectrum of an image: its radial mean over spatial frequency."""

    image: Annotated[str, core.Quantity("Image", tabled=False)]
    frequency_per_px: list[float]
    power: list[float]
    frequency_per_um: list[float] | None
    centred: Annotated[str | None, core.Quantity("2-D spectrum", tabled=False)]
    table: Annotated[str | None, core.Quantity("Radial curve", tabled=False)]
    radial: analysis.RadialSpectrum = field(metadata={"json": False})
    # log10 of the centred power
    plane: core.Micrograph = field(metadata={"json": False})
    # Measured pixels ``(y0, x0, y1, x1)`` of an image with gaps
    box: Annotated[core.BoxEnds | None, core.declare_quantity("Box", "px")] = None

    measured_in = property(core.describe_measured_box)
    frequency_50_per_um = _create_frequency_property(
        0.5, "um", also="frequency_50_per_px"
    )
    frequency_90_per_um = _create_frequency_property(
        0.9, "um", also="frequency_90_per_px"
    )
    frequency_50_per_px = _create_frequency_property(0.5, "px")
    frequency_90_per_px = _create_frequency_property(0.9, "px")


@verb.command(
    title="measurement",
    makes_table=True,
    curves=(
        core.CurveDeclaration(
            "Radial power spectrum",
            "frequency_per_px",
            "power",
            "",
            "power (grey levels² px²)",
            log=True,
        ),
    ),
)
def spectrum(
    run: verb.Run[analysis.SpectrumOptions],
    image: Annotated[core.Micrograph, verb.ImageInput(help="an image")],
    output: Annotated[
        Path | None,
        verb.Output(
            "an image file for the centred 2-D spectrum, or .csv for the radial curve",
            ending=None,
            also=(".csv",),
        ),
    ] = None,
    *,
    options: analysis.SpectrumOptions,
) -> core.Job[SpectrumReport]:
    """Compute the radially averaged and the 2-D power spectrum.

    Examples
    --------
    >>> lines = np.tile(np.sin(2 * np.pi * np.arange(64) / 8), (64, 1))
    >>> found = semsr.spectrum(lines, pixel_size_nm=5)
    >>> found.frequency_per_px[int(np.argmax(found.power))]
    0.125
    """
    (image,), box = yield from crop_to_gap_free_box(image)
    yield core.Progress(1, 3, "transforming")
    spectrum, target = analysis.measure_spectrum(image, options), output
    yield core.Progress(2, 3, "writing")
    as_table = target is not None and target.suffix.lower() == ".csv"
    names = "frequency_per_px", "frequency_per_um", "power"
    columns = {name: getattr(spectrum.radial, name) for name in names}
    if target is not None and as_table:  # with values in µm⁻¹ if calibrated
        empty = [""] * len(spectrum.radial.power)
        cells = (
            empty if column is None else [f"{value:.8g}" for value in column]
            for column in columns.values()
        )
        io.write_csv(target, [names, *zip(*cells, strict=True)])
    elif target is not None:
        look = create_spectrum_display(spectrum.image.data)
        history = yield from run.compose_history()
        run.write_image(spectrum.image.replace(provenance=history, look=look))
    return SpectrumReport(
        **verb.get_pixel_size_fields(image),
        image=run.image_names[0],
        **images.to_json_value(columns),
        centred=None if as_table else run.output,
        table=run.output if as_table else None,
        radial=spectrum.radial,
        plane=spectrum.image,
        box=None if box is None else box.ends,
    )


def create_spectrum_display(plane: core.RealArray) -> core.DisplaySettings:
    """Return the display settings of a centred spectrum."""
    return core.DisplaySettings(
        limits=core.contrast_limits(plane, 25, 99.95), colormap="magma"
    )
