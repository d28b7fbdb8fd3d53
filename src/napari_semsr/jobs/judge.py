"""Compare an optical image and its enhanced versions with an SEM image of its area.

The optical image is registered once, onto the pixels of the unchanged SEM image.
Networks and the linear filter are applied to the optical image on its own pixels; their
results are resampled by the same map.
"""

import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, ClassVar, TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.analysis import (
    REASON_TEXTS,
    BandGain,
    CutOff,
    FrcResult,
    Metrics,
    compute_band_gain,
    compute_psnr_gain,
    measure_agreement,
    measure_frc,
    measure_metrics,
    sum_section_errors,
)
from napari_semsr.core import (
    DB,
    FLAT,
    Affine,
    Box,
    Elastic,
    Figure,
    Float32Array,
    FloatArray,
    Grid,
    GridImage,
    Job,
    Message,
    Micrograph,
    OptionError,
    Progress,
    Provenance,
    Quantity,
    ShapeError,
    WarpedImage,
    add_threshold_line,
    crop_to_box,
    declare_quantity,
    fill_gaps,
    format_rounded,
    format_shape,
    get_error_code,
    get_figures,
    get_quantities,
    get_value,
    option,
    read_box,
    warn,
)
from napari_semsr.inference import EnhanceOptions
from napari_semsr.jobs.check_record import LINEAR
from napari_semsr.jobs.crop import CropOptions, find_shared_gap_free_box
from napari_semsr.jobs.images import (
    Image,
    Result,
    compose_provenance,
    create_input_record,
    get_image_name,
    get_image_paths,
    open_image,
    to_json_value,
    write_pixels,
)
from napari_semsr.jobs.leakage import warn_if_trained_on
from napari_semsr.jobs.measure import FRC
from napari_semsr.jobs.plan import (
    CallOutput,
    File,
    Plan,
    Results,
    create_call,
    execute,
)
from napari_semsr.jobs.register import (
    COSTLY_PX,
    LANDMARKS_IN,
    TRANSFORM_IN,
    Registered,
    RegisterOptions,
    check_pixel_sizes,
    describe_registration,
)
from napari_semsr.jobs.verb import FileInput, ImageInput, OptionGroup, Output, Run, Verb
from napari_semsr.models import (
    DEFAULT_MODEL,
    MODELS_BY_INSTRUMENT,
    MOSAIC_MODEL,
    find_model,
)
from napari_semsr.registration import Registration
from napari_semsr.reporting import (
    choose_grey_limits,
    draw_image_png,
    draw_plot_png,
    format_difference,
    list_provenance,
    write_json,
    write_page,
)
from napari_semsr.restoration import fit_linear_filter

INPUT = "input"
"""Name of the unprocessed image; the other baseline is `LINEAR`."""

_NUMBERS = ".json"
_NONE = "none"  # instead of a network

_MIN_PX = 64  # as in the demonstration: smaller areas have too few rings
_MARGIN_PX = 32  # chosen: the context margin of splines and of the linear filter
_BORDER = 17  # points along each side of an area, to test the map; chosen: fast
_UNCONFIRMED_SHARE = (
    0.1  # share of patches; chosen: beyond, the map affects the figures
)
# codes of an enhancement's notes by which its metrics are no measure of the model
_DOUBTFUL_NOTES = ("pixel-size-unsuitable", "pixel-size-missing", "not-resampled")

# The linear filter.
_TAPS = 21  # as in training's comparison, and in the benchmarks of restoration
_PATCH = 64  # pixels; chosen: 15 MB at once
_PLACES = 1 << 16  # samples; chosen: 150 per tap, which costs 0.03 dB, takes seconds
_PER_TAP = 100  # fewest samples; chosen: overfitting the noise costs 0.04 dB
_MIN_TAPS = 3


class JudgeOptions(RegisterOptions):
    """Options for the registration, and the data range of the metrics."""

    data_range: float | None = option(
        None,
        "Grey range",
        "span of the grey values for PSNR and SSIM; by default by the bit depth that "
        "the SEM image states, otherwise 255 for 8-bit, 65535 for 16-bit, or the range "
        "of its values",
        gt=0,
    )
    cut_off_nm: CutOff = None


_GAIN = Quantity("Over the input", DB, "+.2f", sd="psnr_gain_sd_db")


class EvaluatedArea(TypedDict):
    """Evaluated area of the SEM image, with the reliability of its registration."""

    box_px: list[int]
    shape: Annotated[list[int], Quantity("Shape", "px")]
    pixel_size_nm: Annotated[list[float], Quantity("Pixel size", "nm", ".6g")]
    pixel_size_sd_nm: list[float] | None
    origin_nm: list[float]
    of_sem: Annotated[float, Quantity("Share of the SEM image", form=".0%")]
    patches: Annotated[int, Quantity("Patches", form="d")]
    unreliable_patches: Annotated[int, Quantity("Unreliable patches", form="d")]


@dataclass(frozen=True, slots=True)
class ComparedImage(Result):
    """Image compared with the SEM image: input, linear filter or network output.

    `metrics` are computed after the best gain and offset; `frc` assumes that the SEM
    image is free of noise. Errors of PSNR are by the jackknife over 16 parts; errors
    that both images share cancel out in that of the gain over the input. `light` is the
    gain below and above the optical cut-off; `model` describes the network.
    """

    ROWS: ClassVar = (  # columns of the tables
        *("psnr_db", "psnr_gain_db", "gain_below_db", "gain_above_db"),
        *("ssim", "resolution_nm"),
    )

    name: str = field(metadata={"json": False})
    metrics: Metrics = field(metadata=FLAT)
    frc: FrcResult = field(metadata=FLAT)
    psnr_sd_db: float | None
    psnr_gain_db: Annotated[float | None, _GAIN] = None
    psnr_gain_sd_db: float | None = None
    model: dict[str, Any] | None = None
    light: BandGain = field(default_factory=BandGain, metadata=FLAT)

    def figures(self) -> Iterator[tuple[str, Figure]]:
        """Yield the displayed values by name."""
        quantities = get_quantities(type(self))
        for name in self.ROWS[:-1]:
            quantity, value, error = quantities[name][0], get_value(self, name), ""
            if value is None and quantity.sd:
                continue
            if quantity.unit == DB:
                sd = get_value(self, name.replace("_db", "_sd_db"))
                error = f"± {'not known' if sd is None else f'{sd:.2f}'}"
            yield quantity.label, Figure(value, quantity.unit, quantity.form, error)
        ends = self.frc.interval_nm
        between = "" if ends is None else f"({' to '.join(map(format_rounded, ends))})"
        length = Figure(self.frc.resolution_nm, "nm", ".3g", between)
        reason = REASON_TEXTS.get(self.frc.reason or "", "its interval is unknown")
        yield "Agrees down to", length if ends else Figure(f"none: {reason}")


@dataclass(frozen=True, slots=True)
class Judged(Result):
    """Agreement of an image and its enhanced versions with an SEM image.

    `registration` has the keys of `Registered`; `area` is the evaluated part of the SEM
    image, ``box_px`` its rows and columns; `sem_alone` is the resolution of the SEM
    image alone, which limits the comparison.
    """

    output: str
    numbers: str
    optical: str
    sem: str
    registration: Annotated[
        dict[str, Any], declare_quantity("Registration", keys=Registered)
    ]
    area: Annotated[EvaluatedArea, declare_quantity("Area", keys=EvaluatedArea)]
    sem_alone: Annotated[FrcResult, declare_quantity("SEM alone", keys=FrcResult)]
    baselines: Annotated[
        dict[str, ComparedImage], declare_quantity("Baselines", keys=ComparedImage)
    ]
    models: Annotated[
        dict[str, ComparedImage], declare_quantity("Models", keys=ComparedImage)
    ]
    warnings: tuple[str, ...]
    seconds: float
    provenance: Provenance

    @property
    def pictures(self) -> list[ComparedImage]:
        """All compared images in table order, baselines first."""
        return [*self.baselines.values(), *self.models.values()]

    def figures(self) -> dict[str, Figure]:
        """Return the displayed values of all compared images."""
        off, shape = self.registration, format_shape(self.area["shape"])
        error_figure = Figure("not known")
        if off["error_nm"] is not None:
            px = f"= {off['error_px']:.2g} px"
            error_figure = Figure(off["error_nm"], "nm", ".3g", px)
        rows = {"Expected error of the map": error_figure}
        rows["Evaluated"] = Figure(f"{shape} of {self.sem}")
        for item in self.pictures[:1]:  # one range for all
            rows["Data range"] = get_figures(item.metrics)["Data range"]
        for item in self.pictures:
            rows |= {f"{name}, {item.name}": one for name, one in item.figures()}
        gains = {k: row.psnr_gain_db for k, row in self.models.items()}
        known_gains = {k: gain for k, gain in gains.items() if gain is not None}
        if known_gains:
            best = max(known_gains, key=lambda name: known_gains[name])
            label, gain = f"Over the input, {best}", known_gains[best]
            verdict = "nearer to the SEM image than the input"
            if gain <= 0:
                by = f"{abs(gain):.3g} dB"
                verdict = f"further from the SEM image than the input, by {by}"
            rows[label] = replace(rows[label], verdict=verdict, large=True)
        return rows


def _judge_image(run: Run[JudgeOptions]) -> Job[Judged]:
    """Register an image to an SEM image of its area, enhance it, and evaluate both.

    `translate` adapts instructions on the page to commands or panels. If no map is
    reliable, nothing is written.
    """
    start, page = time.monotonic(), run.required_target
    yield Progress(0, 0, "checking")
    with TemporaryDirectory(dir=page.parent, prefix=f".{page.name}.") as folder:
        (result, pictures), warnings = yield from run.run_with_warnings(
            _measure_models(run, Path(folder))
        )
    seconds = round(time.monotonic() - start, 2)
    result = replace(result, warnings=warnings, seconds=seconds)
    write_report(page, result, pictures)
    write_json(Path(result.numbers), {"kind": "judge", **result.to_json()})
    return result


def _measure_models(
    run: Run[JudgeOptions], folder: Path
) -> Job[tuple[Judged, "ReportImages"]]:
    """Execute the plan in a folder, and measure and draw all compared images."""
    page = run.required_target
    optical, sem, models = (
        run.image_inputs["optical"],
        run.image_inputs["sem"],
        run.parameters["models"],
    )
    opening, fixed_opening = run.opening, run.get_read_options("fixed")
    _check_distinct_images(optical, sem)
    models_by_name = (
        None if models is None else _find_models([m for m in models if m != _NONE])
    )
    source = open_image(optical, opening).replace(name=get_image_name(optical))
    fixed_image = open_image(sem, fixed_opening).replace(name=get_image_name(sem))
    check_pixel_sizes(moving=source, fixed=fixed_image)
    files = {role: run.parameters[role] for role in ("landmarks", "transform")}
    results = Results(None, folder, {**run.image_inputs, **files})
    images = {"moving": "optical", "fixed": "sem"}
    readings: Any = {"opening": opening, "fixed_opening": fixed_opening}
    call = create_call(
        "registration",
        "register",
        {**images, **{role: role for role in files}},
        options=run.options,
        **readings,
    )
    yield from execute(Plan(calls=(call,)), folder, results)
    results.repeat_warnings()
    registration: Registered = results.results[call.name]
    placed_image = registration.image
    assert placed_image is not None  # noqa: S101 - returned if not written
    _warn_about_inputs(source, fixed_image)
    box = yield from _find_common_area(placed_image, fixed_image, source)
    record = create_input_record(sem, fixed_image, fixed_opening)
    part = crop_to_box(fixed_image, box).replace(
        provenance=compose_provenance("crop", {}, record)
    )
    table = _ComparisonTable(part, run, ReportImages(part))
    lens = _AreaResampler(
        registration.registration.transform, Grid.from_image(table.sem)
    )
    if models_by_name is None:
        name = MODELS_BY_INSTRUMENT.get(source.instrument or "", MOSAIC_MODEL)
        models_by_name = _find_models([name])
    box_needed = lens.find_required_box(
        source, _get_context_margin_nm(models_by_name.values(), source)
    )
    plan = _create_area_plan(run, box_needed, models_by_name)
    yield from execute(plan, folder, results)
    yield from _fill_comparison_table(table, lens, results, source.name, models_by_name)
    yield Progress(0, 0, "writing the report")
    area = _create_area_record(registration, table.sem, box, fixed_image)
    _warn_about_map(area, registration.registration)
    history, enhancing = placed_image.provenance, run.parameters.get("enhancing")
    options = {
        **run.options.model_dump(mode="json"),
        "enhancing": enhancing and enhancing.model_dump(mode="json"),
        "reading": [one.model_dump(mode="json") for one in (opening, fixed_opening)],
    }
    result = Judged(
        output=str(page),
        numbers=str(page.with_suffix(_NUMBERS)),
        optical=source.name,
        sem=fixed_image.name,
        registration=describe_registration(registration.registration),
        area=area,
        sem_alone=measure_frc(table.sem),
        baselines={k: row for k, row in table.rows.items() if row.model is None},
        models={k: row for k, row in table.rows.items() if row.model is not None},
        warnings=(),
        seconds=0.0,
        provenance=compose_provenance(
            "judge", options, *(history.inputs if history else ()), record
        ),
    )
    return result, table.pictures


def _create_area_plan(
    run: Run[JudgeOptions], box: tuple[int, int, int, int], models: Mapping[str, Path]
) -> Plan:
    """Return the plan that crops the optical image and enhances the result."""
    cutting = create_call(
        INPUT,
        "crop",
        {"image": "optical"},
        {"output": f"{INPUT}.ome.zarr"},
        options=CropOptions(box=box),
        opening=run.opening,
    )
    enhancements = (
        create_call(
            name,
            "enhance",
            {"image": CallOutput(call=INPUT), "model": File(path=str(path))},
            {"output": f"{number}.ome.zarr"},
            options=run.parameters.get("enhancing"),
        )
        for number, (name, path) in enumerate(models.items())
    )
    return Plan(calls=(cutting, *enhancements))


def _fill_comparison_table(
    table: "_ComparisonTable",
    lens: "_AreaResampler",
    results: Results,
    name: str,
    models: dict[str, Path],
) -> Job[None]:
    """Measure the input, and the results computed from it."""
    from napari_semsr.models import read_card

    yield Progress(0, 0, "measuring the input")
    before = results.results[INPUT].output
    input_image = open_image(before).replace(name=name)
    table.add_image(INPUT, lens.resample(input_image))
    halves = yield from _fit_half_filters(input_image, table.sem, lens.transform)
    if halves is None:
        warn(
            f"The area is too small to fit the {LINEAR} to one half.",
            "image-too-small",
        )
    else:
        after = results.folder / "linear.ome.zarr"
        yield from write_pixels(halves, input_image, after, message="filtering into")
        yield Progress(0, 0, f"measuring the {LINEAR}")
        table.add_image(LINEAR, lens.resample(open_image(after)))
    translate = table.run.parameters.get("translate", str)
    for model, path in models.items():
        yield Progress(0, 0, f"measuring the result of {model}")
        results.repeat_warnings(model)
        enhanced_file = results.results[model]
        enhanced_image = open_image(enhanced_file.output)
        seen_image = lens.resample(enhanced_image).replace(name=f"{name} by {model}")
        card, report = read_card(path), enhanced_file.report
        for note in report.notes:
            if get_error_code(note) in _DOUBTFUL_NOTES:
                warn(note)
        model_facts = {
            "name": card.name,
            "digest": enhanced_file.provenance.model_digest,
            "description": card.description,
            "limits": card.limits,
            "device": report.device,
            "precision": report.precision,
            "seconds": report.seconds,
            "notes": [
                Message(translate(note), get_error_code(note)) for note in report.notes
            ],
        }
        table.add_image(model, seen_image, model_facts)


# Inputs and area of the comparison.


def _check_distinct_images(optical: Image, sem: Image) -> None:
    """Check that the two images are from different files."""
    paths = {path.resolve() for path in get_image_paths(optical, sem)}
    both = all(not isinstance(image, Micrograph) for image in (optical, sem))
    if both and len(paths) == 1:
        msg = (
            f"{get_image_name(optical)} cannot be compared with itself: pass an SEM "
            "image of the same area as the second image."
        )
        raise OptionError(msg, code="second-image-missing")


def _find_models(models: Sequence[str | os.PathLike[str]]) -> dict[str, Path]:
    """Find the model files without duplicates, keyed by unique name."""
    paths = list(dict.fromkeys(find_model(model) for model in models))
    stems = [path.stem for path in paths] + [INPUT, LINEAR] * 2  # names of other rows
    return {
        path.stem if stems.count(path.stem) == 1 else str(path): path for path in paths
    }


def _get_context_margin_nm(models: Iterable[Path], source: Micrograph) -> float:
    """Return the largest context margin of the models in nm."""
    from napari_semsr.models import read_card

    own = max(source.scale)
    cards = [read_card(path) for path in models]
    return max(
        (c.receptive_field * max(own, *(c.pixel_size_nm or (own,))) for c in cards),
        default=0.0,
    )


def _find_common_area(
    seen_image: Micrograph, sem: Micrograph, source: Micrograph
) -> Job[Box]:
    """Find a rectangle of the SEM image that is gap-free in both images."""
    grid = Grid.from_image(sem)
    box = yield from find_shared_gap_free_box(
        [GridImage.from_image(seen_image, grid), GridImage.from_image(sem, grid)]
    )
    if box is not None:
        # next to gaps, another pixel size excludes a pixel more or less
        inset = math.ceil(2 * max(source.scale) / min(sem.scale))
        rows, columns = sem.shape
        box = Box(
            box.y0 + inset * (box.y0 > 0),
            box.y1 - inset * (box.y1 < rows),
            box.x0 + inset * (box.x0 > 0),
            box.x1 - inset * (box.x1 < columns),
        )
    if box is None or min(box.shape) < _MIN_PX:
        has = "none" if box is None else f"{box.shape[0]} x {box.shape[1]} px"
        msg = (
            f"The comparison requires a gap-free overlap of {source.name} and "
            f"{sem.name} of at least {_MIN_PX} SEM pixels on each side, got {has}: use "
            "images with a larger overlap."
        )
        raise ShapeError(msg, code="overlap-too-small")
    return box


def _create_area_record(
    registration: Registered, part: Micrograph, box: Box, sem: Micrograph
) -> EvaluatedArea:
    """Describe the evaluated area and the reliability of its registration."""
    residuals, grid = registration.registration.residuals, Grid.from_image(part)
    at = residuals.places_nm
    here = ((at >= grid.corner) & (at <= grid.end)).all(axis=1)
    return {
        "box_px": [box.y0, box.x0, box.y1, box.x1],
        "shape": list(part.shape),
        "pixel_size_nm": list(part.scale),
        "pixel_size_sd_nm": to_json_value(sem.pixel_size_sd_nm),
        "origin_nm": list(part.origin),
        "of_sem": part.shape[0] * part.shape[1] / (sem.shape[0] * sem.shape[1]),
        "patches": int(here.sum()),
        "unreliable_patches": int((here & ~residuals.reliable).sum()),
    }


def _warn_about_map(area: EvaluatedArea, registration: Registration) -> None:
    """Warn about unconfirmed points in the area and a large registration error."""
    some, all_of_them = area["unreliable_patches"], area["patches"]
    if some > _UNCONFIRMED_SHARE * all_of_them:
        text = (
            f"The registration is unconfirmed at {some} of {all_of_them} points of the "
            "evaluated area: the metrics are too low there."
        )
        bending_note = (
            ""
            if registration.model == "elastic"
            else " An elastic map can follow distortions."
        )
        warn(text + bending_note, "map-unconfirmed")
    if registration.error_px >= COSTLY_PX:
        warn(
            f"The expected registration error is {registration.error_px:.2g} px: it "
            "lowers all metrics, but the metrics of a network trained on pairs with "
            "the same registration may be too high.",
            "map-imprecise",
        )


def _warn_about_inputs(source: Micrograph, sem: Micrograph) -> None:
    """Warn if the input was made by a network or the images seem to be swapped."""
    if source.instrument == "sem" and sem.instrument != "sem":
        warn(
            f"{source.name} has the metadata of an electron microscope, but "
            f"{sem.name} does not: check whether the images are swapped.",
            "images-exchanged",
        )
    network = source.provenance and source.provenance.last_network()
    if network:
        warn(
            f"{source.name} was made by the network {network[0]}: the input of this "
            "comparison is not a measured image.",
            "made-by-network",
        )


# Resampling onto the SEM image.


@dataclass(frozen=True, slots=True)
class _AreaResampler:
    """Resampler of the optical image onto the evaluated area."""

    transform: Affine | Elastic  # from the optical image to the SEM image
    grid: Grid  # of the area

    def find_required_box(
        self, source: Micrograph, reach_nm: float
    ) -> tuple[int, int, int, int]:
        """Return the box of the optical image that contains all required data."""
        share = np.linspace(0, 1, _BORDER)
        edge = np.concatenate([[(s, 0.0), (s, 1.0), (0.0, s), (1.0, s)] for s in share])
        corner, end = np.array(self.grid.corner), np.array(self.grid.end)
        places = self.transform.inverse()(corner + edge * (end - corner))
        at = (places - Grid.from_image(source).corner) / source.scale
        margin = _MARGIN_PX + reach_nm / np.array(source.scale)
        low = np.maximum(np.floor(at.min(axis=0) - margin), 0).astype(int)
        high = np.minimum(np.ceil(at.max(axis=0) + margin), source.shape).astype(int)
        return int(low[0]), int(low[1]), int(high[0]), int(high[1])

    def resample(self, image: Micrograph) -> Micrograph:
        """Resample the optical image, or a result, to the grid of the SEM image."""
        data = WarpedImage(image, self.grid, self.transform).read()
        return image.replace(
            data=data.astype(np.float32),
            pixel_size_nm=self.grid.pitch,
            origin=self.grid.box_origin(Box.from_shape(self.grid.shape)),
        )


# Measured values.


@dataclass(slots=True)
class _ComparisonTable:
    """Table of compared images; the images themselves are only stored as PNG."""

    sem: Micrograph  # the evaluated area
    run: Run[JudgeOptions]
    pictures: "ReportImages"
    rows: dict[str, ComparedImage] = field(default_factory=dict)
    _input: FloatArray | None = None

    def add_image(
        self, name: str, picture: Micrograph, model: dict[str, Any] | None = None
    ) -> None:
        """Measure and draw one image."""
        sem, options = self.sem, self.run.options
        metrics = measure_metrics(
            picture,
            sem,
            data_range=options.data_range,
            match="affine",
            cut_off_nm=options.cut_off_nm,
        )
        grey = picture.array() * np.float32(metrics.gain) + np.float32(metrics.offset)
        matched_image = picture.replace(data=grey).with_size_error(sem.pixel_size_sd_nm)
        errors = sum_section_errors(grey, sem.array())
        first = self._input
        self._input = errors if first is None else first
        gain = (None, None) if first is None else compute_psnr_gain(errors, first)
        before = next(iter(self.rows.values()), None)
        light = (
            BandGain() if before is None else compute_band_gain(metrics, before.metrics)
        )
        self.rows[name] = ComparedImage(
            name,
            metrics,
            measure_agreement(matched_image, sem, cut_off_nm=options.cut_off_nm),
            compute_psnr_gain(errors, np.ones_like(errors))[1],  # of the PSNR itself
            *gain,
            model,
            light,
        )
        if model is not None and light.is_only_above_cut_off:
            warn(
                f"{name} improves the image only above the optical cut-off (periods "
                f"below {metrics.cut_off_nm:.4g} nm): detail there was predicted "
                "from training samples, not observed.",
                "gain-beyond-optics",
            )
        warn_if_trained_on([(picture, picture), (sem, sem)])
        self.pictures.add_image(name, grey)


# The best linear filter, fitted on one half and applied to the other.


@dataclass(frozen=True, slots=True)
class _CrossFilteredImage:
    """Image with each half filtered by a kernel fitted to the other half."""

    image: Micrograph
    axis: int
    middle: int  # start of the second half
    filters: tuple[tuple[Float32Array, float], ...]  # kernel and offset of each half

    @property
    def grid(self) -> Grid:
        """Pixel grid of the image."""
        return Grid.from_image(self.image)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the grey values."""
        return np.dtype(np.float32)

    def read(self, box: Box | None = None) -> NDArray[Any]:
        """Filter a box, keeping gaps."""
        box = box or Box.from_shape(self.image.shape)
        # wider than the kernel, to reach the nearest known pixel
        reach = math.ceil((1 + math.sqrt(2)) * (_TAPS // 2))
        wide = box.grow(reach).intersection(Box.from_shape(self.image.shape))
        block = np.asarray(read_box(self.image.data, wide), dtype=np.float32)
        finite = np.isfinite(block)
        without_gaps = block if finite.all() else np.zeros_like(block)
        if finite.any() and not finite.all():
            without_gaps = fill_gaps(block, finite)
        inner = box.relative_to(wide).slices
        first, second = (
            (ndimage.correlate(without_gaps, kernel, mode="reflect") + offset)[inner]
            for kernel, offset in self.filters
        )
        at = np.arange(*((box.y0, box.y1) if self.axis == 0 else (box.x0, box.x1)))
        late = at >= self.middle
        halves = np.where(late[:, None] if self.axis == 0 else late, second, first)
        return np.where(finite[inner], halves, np.nan).astype(np.float32)


def _fit_half_filters(
    image: Micrograph, sem: Micrograph, transform: Affine | Elastic
) -> Job[_CrossFilteredImage | None]:
    """Fit a filter to each half of an image; return None if the area is too small."""
    axis = int(np.argmax(image.shape))
    middle = image.shape[axis] // 2
    ends = [(0, middle), (middle, image.shape[axis])]
    target = WarpedImage(sem, Grid.from_image(image), transform.inverse())
    filters = []
    for number, (start, stop) in enumerate(ends, 1):
        yield Progress(number - 1, len(ends), f"fitting the {LINEAR}")
        rows, columns = image.shape
        half = Box(start, stop, 0, columns) if axis == 0 else Box(0, rows, start, stop)
        pairs = list(_crop_patches(image, target, half))
        finite = [np.isfinite(patch) & np.isfinite(truth) for patch, truth in pairs]
        places = int(sum(both.sum() for both in finite))
        taps = min(_TAPS, math.isqrt(places // _PER_TAP), min(half.shape) // 3)
        taps = (taps - 1) // 2 * 2 + 1
        if taps < _MIN_TAPS:
            return None
        kernel = fit_linear_filter(pairs, taps)[0]
        sums = [
            sum(
                float(p[side][both].sum())
                for p, both in zip(pairs, finite, strict=True)
            )
            for side in (0, 1)
        ]
        filters.append((kernel, (sums[1] - float(kernel.sum()) * sums[0]) / places))
    return _CrossFilteredImage(image, axis, middle, (filters[1], filters[0]))


def _crop_patches(
    image: Micrograph, target: WarpedImage, half: Box
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield patches spread over one half, with their target values."""
    side = min(_PATCH, *half.shape)
    step = max(side - _TAPS + 1, side // 2)
    rows, columns = (
        np.linspace(start, stop - side, -(-(stop - start - side) // step) + 1)
        for start, stop in ((half.y0, half.y1), (half.x0, half.x1))
    )
    corners = [(int(y), int(x)) for y in rows for x in columns]
    most = max(1, _PLACES // step**2)
    indices = np.linspace(0, len(corners) - 1, min(most, len(corners)))
    for index in indices.round().astype(int).tolist():
        box = Box.from_shape((side, side), corners[index])
        patch = np.asarray(read_box(image.data, box), dtype=np.float64)
        yield patch, np.asarray(target.read(box), dtype=np.float64)


# Figures and sentences of the page. Their text is in its template.

_DETAIL_PX = 160  # side of a detail on the SEM image; chosen: pixels can be seen
_DETAILS = ((0.33, 0.25), (0.67, 0.75))  # fixed places, so that none is cherry-picked
_SEM = "SEM image"


class ReportImages:
    """PNG images of an area and its details, in grey levels of the SEM image."""

    def __init__(self, sem: Micrograph) -> None:
        self.sem, self.limits = sem, choose_grey_limits(sem.array())
        self.wholes: dict[str, bytes] = {}
        self.details: list[dict[str, bytes]] = [{} for _ in _DETAILS]

    def add_image(self, name: str, grey: NDArray[Any]) -> None:
        """Draw an image with grey levels matched to the SEM image."""
        look: Any = {"limits": self.limits}
        pixel, shape = self.sem.pixel_size_nm, grey.shape
        self.wholes[name] = draw_image_png(grey, pixel, width_px=640, **look)
        side = min(_DETAIL_PX, *shape)
        for detail, (y, x) in zip(self.details, _DETAILS, strict=True):
            corner = round(y * (shape[0] - side)), round(x * (shape[1] - side))
            part = grey[Box.from_shape((side, side), corner).slices]
            detail[name] = draw_image_png(part, pixel, width_px=400, **look)


def write_report(path: Path, result: "Judged", pictures: ReportImages) -> None:
    """Write the report page."""
    pictures.add_image(_SEM, pictures.sem.array())
    pixel = float(np.sqrt(np.prod(result.area["pixel_size_nm"])))
    lines = add_threshold_line(
        [row.frc.create_line(row.name) for row in result.pictures]
    )
    history, models = result.provenance, result.models.items()
    digests = [
        *((item.name, item.digest) for item in history.inputs),
        *((f"the model {k}", (row.model or {}).get("digest")) for k, row in models),
    ]
    write_page(
        path,
        Path(__file__).with_name("judge.html"),
        result=result,
        headline=[(f"{k}, PSNR", _format_gain(row)) for k, row in models],
        verdict=_describe_gains(result),
        wholes=pictures.wholes,
        details=pictures.details,
        detail_px=_DETAIL_PX,
        curves=draw_plot_png(
            FRC.curves[0].combine(
                [one.convert_to_per_um(pixel) for one in lines], has_size=True
            )
        ),
        provenance=list_provenance(history.options, digests),
    )


def _describe_gains(result: "Judged") -> list[str]:
    """Describe the gains in sentences."""
    linear = next(iter(list(result.baselines.values())[1:]), None)
    sentences = []
    for name, row in result.models.items():
        gain_text = (
            f"{name} brings the input {_format_gain(row)} closer to the SEM image"
        )
        if (row.psnr_gain_db or 0.0) <= 0:
            gain_text = (
                f"{name} does not improve the image: its PSNR differs from the PSNR of "
                f"the input by {_format_gain(row)}"
            )
        if linear is not None and linear.psnr_gain_db is not None:
            gain_text += f"; the best linear filter gains {_format_gain(linear)}"
        sentences.append(f"{gain_text}.")
    off = result.registration
    if sentences and off["error_nm"] is not None:
        sentences.append(
            "The expected registration error of the two images is "
            f"{format_rounded(off['error_nm'])} nm ({off['error_px']:.2g} px)."
        )
    return sentences


def _format_gain(row: "ComparedImage") -> str:
    """Format a gain with its standard error."""
    return f"{format_difference((row.psnr_gain_db, row.psnr_gain_sd_db))} {DB}"


JUDGE = Verb(
    "judge",
    (
        ImageInput("optical", "the optical image, such as a mosaic", side="moving"),
        ImageInput("sem", "the SEM image of the same area", label="SEM", side="fixed"),
    ),
    JudgeOptions,
    Judged,
    _judge_image,
    title="registration and measures",
    files=(
        FileInput(
            "models",
            "names or files of the models that enhance OPTICAL, or none to omit "
            f"models; default: {MOSAIC_MODEL}, or {DEFAULT_MODEL} for an SEM image",
            flag="--models",
            metavar="MODEL",
            many=True,
            takes_name=True,
        ),
        LANDMARKS_IN,
        TRANSFORM_IN,
    ),
    output=Output(
        "path of the page; all values are written next to it as .json",
        metavar="REPORT.html",
        ending=".html",
        beside=(_NUMBERS,),
    ),
    opens=False,
    groups=(OptionGroup("enhancing", "networks", EnhanceOptions, ("dtype", "batch")),),
    example="""
    >>> from napari_semsr.registration import Landmarks
    >>> image = semsr.Micrograph(np.random.default_rng(0).random((96, 96)), (10, 10))
    >>> places = np.array([[0.0, 0.0], [0.0, 900.0], [900.0, 0.0], [900.0, 900.0]])
    >>> marks = {"landmarks": Landmarks(places, places), "landmarks_only": True}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = f"{folder}/page.html"
    ...     found = semsr.judge(image, image, page, models=(), **marks)
    >>> list(found.baselines), found.area["shape"]
    (['input', 'linear filter'], [96, 96])
    """,
)
