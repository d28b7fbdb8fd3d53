"""Create a report page on images and measurements, with a JSON file of its values."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from napari_semsr.analysis import (
    Decorrelation,
    Metrics,
    compute_radial_spectrum,
    measure_decorrelation,
    measure_histogram,
    measure_metrics,
)
from napari_semsr.core import (
    Box,
    Figure,
    InputRecord,
    Job,
    Message,
    Micrograph,
    OptionError,
    Options,
    Progress,
    Provenance,
    SemsrError,
    ShapeError,
    crop_to_box,
    format_pixel_size,
    format_shape,
    get_central_box,
    get_error_code,
    get_software_versions,
    option,
)
from napari_semsr.io import ReadOptions
from napari_semsr.jobs.crop import crop_to_gap_free_box
from napari_semsr.jobs.figure import (
    FigureOptions,
    create_plate_image,
    unify_display_settings,
)
from napari_semsr.jobs.images import (
    Image,
    Result,
    append_image_records,
    check_output_not_input,
    collect_warnings,
    correct_pixel_sizes,
    create_databar_note,
    get_image_name,
    get_image_paths,
    open_image,
    record_input,
    to_json_value,
)
from napari_semsr.jobs.leakage import TRAINED_ON
from napari_semsr.jobs.measure import (
    ALONE,
    ERROR_MAP,
    FRC as FRC_VERB,
    ErrorMapReport,
    FrcJobOptions,
    find_halves,
)
from napari_semsr.jobs.report.numbers import (
    AS_THEY_ARE,
    DATA_RANGE,
    DECORRELATION,
    EMD,
    ERRORS,
    FRC,
    MATCHED_NAMES,
    SHARPNESS,
    Measurements,
    Number,
    create_decorrelation_number,
    create_emd_numbers,
    create_error_numbers,
    create_frc_number,
    create_grey_numbers,
    create_map_numbers,
    create_metric_numbers,
    create_sharpness_numbers,
)
from napari_semsr.jobs.report.records import (
    StoredNumbers,
    get_curves,
    is_record_file,
    read_record,
)
from napari_semsr.jobs.verb import ImageInput, Output, Run, Verb
from napari_semsr.reporting import (
    NO_VALUE,
    TIMES,
    FigureImage,
    describe_scale_bars,
    draw_plate,
    draw_plot_png,
    format_value,
    list_provenance,
    write_json,
    write_page,
)

T = TypeVar("T")

_MOST = 40  # images; chosen: a page of 20 MB still opens at once
_PAIR = "::"
_NUMBERS = ".json"
_INPUT_KINDS = ("images", "pairs", "files")
_MIDDLE_PX = 4096  # side of the measured centre of a larger image; chosen: 2 GB at most
_MAX_STEPS = 40  # lines of a history on the page; chosen: two thirds of a sheet
Where = str | os.PathLike[str]
Input = Image | tuple[Image, Image]
"""An image, a JSON file of a measuring command, or a pair of a reference and the image
compared with it; as text ``A::B``.
"""


class ReportOptions(Options):
    """Options for a report."""

    title: str = option(
        "Report on images", "Title", "Title of the page.", max_length=200
    )
    criterion: Literal["1/7", "half-bit", "3-sigma"] = option(
        "1/7", "Threshold", "Threshold criterion for Fourier ring correlation."
    )
    greys: Literal["common", "own"] = option(
        "common",
        "Grey scale",
        "Share one grey scale among similar images, or scale each image separately.",
    )


@dataclass(frozen=True, slots=True)
class PanelFindings:
    """Results of a panel, as displayed in the panel."""

    title: str
    origin: tuple[str, ...]  # names of the images
    rows: tuple[tuple[str, str], ...]  # names, and values with their units
    plot: bytes | None = None  # a PNG


@dataclass(slots=True)
class ReportImage:
    """Image in a report, with its measurements."""

    label: str
    image: Micrograph
    record: InputRecord
    size_from: str
    path: str | None
    measures: Measurements = field(default_factory=Measurements)
    box: Box | None = None  # the part measured, if not the whole image

    @property
    def is_map(self) -> bool:
        """Whether the image is a map of local measurements instead of grey levels."""
        return self.image.quantity is not None

    @property
    def networks(self) -> list[tuple[str, str]]:
        """Names and digests of the networks in the history of the image."""
        histories = _iterate_steps(self.image.provenance)
        networks_found = {
            m.model_digest: m.model_name or "unnamed model" for m in histories
        }
        return [(name, digest) for digest, name in networks_found.items() if digest]

    @property
    def steps(self) -> list[dict[str, str]]:
        """Processing steps in order, without repetition."""
        rows: list[dict[str, str]] = []
        for step in _iterate_steps(self.image.provenance):
            input_names = [item.name for item in step.inputs]
            more = f" and {len(input_names) - 3} more" if len(input_names) > 3 else ""
            flat = step.options | (step.options.get("reading") or {})
            options = [
                f"{name} {value}"
                for name, value in flat.items()
                if isinstance(value, bool | int | float | str)
                and value != ""
                and name != TRAINED_ON
            ]
            row = {
                "step": step.job,
                "of": ", ".join(input_names[:3]) + more or NO_VALUE,
                "network": step.model_name or NO_VALUE,
                "options": ", ".join(options) or NO_VALUE,
                "version": step.versions.get("napari-semsr", NO_VALUE),
                "when": step.created.replace("T", " ").removesuffix("+00:00"),
            }
            rows += [] if row in rows else [row]
            if len(rows) == _MAX_STEPS:
                break
        return rows


def _iterate_steps(history: Provenance | None) -> Iterator[Provenance]:
    """Iterate over the processing steps of an image in order."""
    if history is not None:
        for item in history.inputs:
            yield from _iterate_steps(item.provenance)
        yield history


@dataclass(slots=True)
class ImagePair:
    """Pair of images in a report, with the measurements that compare them."""

    reference: ReportImage
    other: ReportImage
    measures: Measurements = field(default_factory=Measurements)
    map: Micrograph | None = None  # error map

    @property
    def label(self) -> str:
        """Names of both images."""
        return f"{self.other.label} against {self.reference.label}"


@dataclass(frozen=True, slots=True)
class ReportContents:
    """Contents of a report."""

    pictures: list[ReportImage]
    pairs: list[ImagePair]
    records: list[StoredNumbers]
    findings: Sequence[PanelFindings]


@dataclass(frozen=True, slots=True)
class ReportMade(Result):
    """Report page with its values, and sentences for a Methods section."""

    path: str
    numbers: str  # JSON file with all values
    images: tuple[str, ...]
    pairs: tuple[str, ...]
    files: tuple[str, ...]
    refused: int  # values that could not be measured; the page states why
    methods: tuple[str, ...]
    references: tuple[str, ...]
    seconds: float

    def figures(self) -> dict[str, Figure]:
        """Return the contents of the page: images, pairs, files and refused values."""
        all_figures = {name: ", ".join(getattr(self, name)) for name in _INPUT_KINDS}
        if self.refused:
            all_figures["refused"] = f"{self.refused}, with reasons on the page"
        all_figures = {"numbers": self.numbers, **all_figures}
        return {
            name.capitalize(): Figure(text)
            for name, text in all_figures.items()
            if text
        }


def _create_report(run: Run[ReportOptions]) -> Job[ReportMade]:
    """Measure images and pairs, and write a report page.

    `findings` are the results of panels; the first image of a pair is the reference.
    """
    start = time.monotonic()
    inputs, findings = run.image_inputs["inputs"], run.parameters.get("found", ())
    if isinstance(inputs, (str, os.PathLike, Micrograph)):
        inputs = [inputs]
    settings, reading = run.options, run.opening
    images, files = _separate_inputs(inputs, findings)
    images_given = [part for one in images for part in one]
    page, numbers = run.required_target, run.required_target.with_suffix(_NUMBERS)
    for place in (page, numbers):
        check_output_not_input(place, [*get_image_paths(*images_given), *files])
    records = [read_record(path) for path in files]
    pictures = yield from _open_images(images_given, reading)
    each = list(pictures.values())
    pairs = [
        _create_pair(*(pictures[_get_image_key(i)] for i in one))
        for one in images
        if one[1:]
    ]
    total = len(each) + len(pairs)
    for number, item in enumerate(each):
        progress = Progress(number, total, f"measuring {item.label}")
        yield from _measure_image(item, settings, progress)
    for number, pair in enumerate(pairs, len(each)):
        progress = Progress(number, total, f"comparing {pair.label}")
        yield from _compare_pair(pair, settings, progress)
    parts = ReportContents(each, pairs, records, findings)
    methods, references = describe_methods(parts)
    yield Progress(0, 0, "drawing the report")
    json_records = (
        InputRecord(role="json", name=r.name, digest=r.digest) for r in records
    )
    history = yield from run.compose_history(
        inputs=[*(item.record for item in each), *json_records]
    )
    measures = [*(item.measures for item in each), *(pair.measures for pair in pairs)]
    result = ReportMade(
        path=str(page),
        numbers=str(numbers),
        images=tuple(item.label for item in each),
        pairs=tuple(item.label for item in pairs),
        files=tuple(item.name for item in records),
        refused=sum(len(item.refusals) for item in measures),
        methods=methods,
        references=references,
        seconds=round(time.monotonic() - start, 2),
    )
    yield from write_report(page, result, settings, parts, history)
    write_json(numbers, _create_record(result, settings, parts, history))
    return replace(result, seconds=round(time.monotonic() - start, 2))


# Inputs.


def _separate_inputs(
    inputs: Sequence[Input], findings: Sequence[PanelFindings]
) -> tuple[list[tuple[Image, ...]], list[Path]]:
    """Separate images and pairs (tuples of two) from JSON files."""
    images: list[tuple[Image, ...]] = []
    files: list[Path] = []
    for item in inputs:
        one = _split_pair(item) if isinstance(item, (str, os.PathLike)) else item
        if isinstance(one, tuple):
            images.append(_check_pair(one))
        elif isinstance(one, Micrograph):
            images.append((one,))
        elif is_record_file(Path(one)):
            files.append(Path(one))
        else:
            images.append((one,))
    count = len({_get_image_key(part) for one in images for part in one})
    if not (images or files or findings):
        msg = "A report must have at least one image, pair or JSON file, got none."
        raise OptionError(msg, code="missing-value")
    if count > _MOST:
        msg = (
            f"A report must have at most {_MOST} images, got {count}; split the images "
            "into several reports."
        )
        raise OptionError(msg, code="out-of-range")
    return images, files


def _split_pair(item: Where) -> Input:
    """Split ``A::B`` into a pair, unless a file has exactly that name."""
    text = os.fspath(item)
    if _PAIR not in text or Path(text).exists():
        return item
    words = text.split(_PAIR)
    cuts = [
        (_PAIR.join(words[:number]), _PAIR.join(words[number:]))
        for number in range(1, len(words))
    ]
    cuts = [cut for cut in cuts if all(part.strip() for part in cut)]
    there = [cut for cut in cuts if all(Path(part).exists() for part in cut)]
    if len(there) == 1:  # a name may contain the separator
        return there[0]
    if len(cuts) != 1 or len(words) != 2:
        msg = f"A pair must be given as two images A::B, got {text}."
        raise OptionError(msg, code="wrong-type")
    return cuts[0]


def _check_pair(pair: tuple[Image, ...]) -> tuple[Image, ...]:
    """Check that a pair consists of two different images."""
    if len(pair) != 2 or _get_image_key(pair[0]) == _get_image_key(pair[1]):
        names = " and ".join(map(get_image_name, pair))
        msg = f"A pair must be two different images, got {names}."
        raise OptionError(msg, code="same-image")
    for path in get_image_paths(*pair):
        if is_record_file(path):
            msg = f"A pair must be two images, got the JSON file {path.name}."
            raise OptionError(msg, code="wrong-type")
    return pair


def _get_image_key(image: Image) -> object:
    """Return a key that identifies an image."""
    return id(image) if isinstance(image, Micrograph) else Path(image).resolve()


def _open_images(
    images: Sequence[Image], reading: ReadOptions
) -> Job[dict[Any, ReportImage]]:
    """Open and record each image once."""
    pictures: dict[Any, ReportImage] = {}
    for image in {_get_image_key(image): image for image in images}.values():
        yield Progress(0, 0, f"reading {get_image_name(image)}")
        image_opened = open_image(image, reading)
        record = yield from record_input(image, image_opened, reading)
        path = None if isinstance(image, Micrograph) else os.fspath(image)
        pictures[_get_image_key(image)] = ReportImage(
            image_opened.name, image_opened, record, "", path
        )
    alike = correct_pixel_sizes([item.image for item in pictures.values()], reading)
    when = "" if reading.pixel_size_nm is None else " when the report was created"
    for item, sized_image in zip(pictures.values(), alike, strict=True):
        size_text = sized_image.pixel_size_nm and f"{sized_image.pixel_size_from}{when}"
        item.image, item.size_from = sized_image, size_text or "not known"
    for parts in (1, 2, 0):  # equal names are distinguished by suffix, folder or number
        labels = [item.label for item in pictures.values()]
        for number, item in enumerate(pictures.values(), 1):
            if labels.count(item.label) > 1 and not parts:
                item.label = f"{item.label} ({number})"
            elif labels.count(item.label) > 1 and item.path:
                item.label = "/".join(Path(item.path).parts[-parts:])
    return pictures


def _create_pair(reference: ReportImage, other: ReportImage) -> ImagePair:
    """Pair two images, using the acquired image as reference for a network output."""
    if reference.networks and not other.networks:
        reference, other = other, reference
    if reference.image.shape > other.image.shape:
        reference, other = other, reference
    (high, wide), (rows, columns) = reference.image.shape, other.image.shape
    factor = rows // high
    if factor < 1 or (rows, columns) != (factor * high, factor * wide):
        msg = (
            "Both images of a pair must have the same size, or one size must be an "
            f"integer multiple of the other, got {reference.label} with {high} x "
            f"{wide} px and {other.label} with {rows} x {columns} px; resample them to "
            "a common grid with `crop(like=…)` or `register()`."
        )
        raise ShapeError(msg, code="sizes-differ")
    return ImagePair(reference, other)


# Measurements.


def _try_measurement(
    measures: Measurements,
    names: Sequence[str],
    job: Job[T],
    key: str = "",
    say: Callable[[T], Sequence[Number]] = lambda _: (),
    part: Callable[[T], Any] = lambda result: result,
) -> Job[T | None]:
    """Run a measurement; record the reason if it fails.

    The result, or a `part` of it, is stored under `key`, with the values from `say`.
    """
    try:
        result = yield from collect_warnings(job, measures.notes)
    except SemsrError as error:
        measures.add_failures(names, error)
        return None
    if key:
        measures.results[key] = part(result)
    measures.numbers += say(result)
    return result


def _try_frc_measurement(
    measures: Measurements,
    image: Micrograph,
    options: ReportOptions,
    *values: Any,
    **how: Any,
) -> Job[Any]:
    """Try to measure the FRC, with lengths based on the pixel size of an image."""
    frc_options = FrcJobOptions(criterion=options.criterion)
    return (
        yield from _try_measurement(
            measures,
            (FRC,),
            FRC_VERB.job(*values, options=frc_options, **how),
            "frc",
            lambda report: [create_frc_number(report.result, image, report.note)],
            lambda report: report.result,
        )
    )


def _wrap_function_as_job(make: Callable[..., T], *values: Any, **how: Any) -> Job[T]:
    """Wrap a function without progress steps as a job."""
    yield from ()
    return make(*values, **how)


def _add_step_name(progress: Progress, what: str) -> Progress:
    """Append the name of the current measurement to a progress message."""
    return replace(progress, message=f"{progress.message}: {what}")


def _measure_image(
    item: ReportImage, options: ReportOptions, progress: Progress
) -> Job[None]:
    measures, image = item.measures, item.image
    box = get_central_box(image.shape, _MIDDLE_PX)
    if box.shape != image.shape:
        item.box = box
        sentence = (
            f"Measured in the central {box.shape[0]} x {box.shape[1]} px of "
            f"{image.shape[0]} x {image.shape[1]} px."
        )
        measures.notes.append(Message(sentence, "measured-in-part"))
    yield _add_step_name(progress, "grey levels")
    part = crop_to_box(image, box)
    if item.is_map:
        measures.numbers += create_map_numbers(part)
        return
    measures.numbers += create_grey_numbers(part)
    if item.path is not None and item.box is None:
        note = create_databar_note(item.label, part)
        measures.notes += [note] if note else []
    whole = yield from _try_measurement(
        measures, (FRC, DECORRELATION), crop_to_gap_free_box(part)
    )
    if whole is None:
        return
    (full,), gap_free = whole
    if gap_free is not None:
        item.box = Box.from_shape(
            gap_free.shape, (box.y0 + gap_free.y0, box.x0 + gap_free.x0)
        )
        sentence = (
            f"Resolution, spectrum and sharpness are measured in the largest rectangle "
            f"without gaps, {gap_free.shape[0]} x {gap_free.shape[1]} px."
        )
        measures.notes.append(Message(sentence, "measured-in-part"))
    yield _add_step_name(progress, "Fourier ring correlation")
    yield from _measure_frc(item, part, full, box, options)

    def create_cut_off_numbers(result: Decorrelation) -> Sequence[Number]:
        return [create_decorrelation_number(result, image)]

    each: tuple[tuple[Any, ...], ...] = (  # names, job, key, numbers
        (
            (DECORRELATION,),
            measure_decorrelation(full),
            "decorrelation",
            create_cut_off_numbers,
        ),
        (
            SHARPNESS,
            _wrap_function_as_job(measure_metrics, full),
            "metrics",
            create_sharpness_numbers,
        ),
        (("Histogram",), _wrap_function_as_job(measure_histogram, part), "histogram"),
        (
            ("Spectrum",),
            _wrap_function_as_job(compute_radial_spectrum, full),
            "spectrum",
        ),
    )
    for names, job, key, *say in each:
        yield _add_step_name(progress, "sharpness" if key == "metrics" else key)
        yield from _try_measurement(measures, names, job, key, *say)


def _measure_frc(
    item: ReportImage,
    part: Micrograph,
    full: Micrograph,
    box: Box,
    options: ReportOptions,
) -> Job[None]:
    """Measure the resolution, using a mosaic's halves if they are stored next to it."""
    halves, note, place = None, None, item.path or item.image.path
    if place is not None:
        halves, note = find_halves(Path(place), item.image)
    parts = halves and (crop_to_box(halves[0], box), crop_to_box(halves[1], box))
    measures, source = item.measures, full if parts is None else part
    how: Any = (measures, item.image, options, source)
    result = yield from _try_frc_measurement(*how, halves=parts)
    if result is None:
        return
    if parts is not None:
        measures.results["halves"] = [half.name for half in parts]
    if note is not None:
        measures.notes.append(Message(f"{note} {ALONE}", get_error_code(note)))
    number = measures.find_number(FRC)
    if item.networks and number is not None and number.value is not None:
        name = item.networks[-1][0]
        sentence = (
            f"{item.label} was made by the network {name}: its resolution and cut-off "
            "describe the network's output, not the acquired resolution."
        )
        measures.notes.append(Message(sentence, "made-by-network"))


def _compare_pair(
    pair: ImagePair, options: ReportOptions, progress: Progress
) -> Job[None]:
    measures = pair.measures
    first, second = yield from append_image_records(
        (pair.reference.image, pair.other.image),
        (pair.reference.record, pair.other.record),
    )
    if first.shape == second.shape:
        box = get_central_box(first.shape, _MIDDLE_PX)
        if box.shape != first.shape:
            sentence = f"Compared in the central {box.shape[0]} x {box.shape[1]} px."
            measures.notes.append(Message(sentence, "measured-in-part"))
        first, second = crop_to_box(first, box), crop_to_box(second, box)
    parts = first, second
    if first.shape == second.shape:
        every = (*AS_THEY_ARE, FRC)
        cut = yield from _try_measurement(
            measures, every, crop_to_gap_free_box(first, second)
        )
        parts = (first, second) if cut is None else (cut[0][0], cut[0][1])
    yield _add_step_name(progress, "PSNR and SSIM")
    for names, match in ((AS_THEY_ARE, None), (MATCHED_NAMES, "affine")):
        near = _wrap_function_as_job(measure_metrics, parts[1], parts[0], match=match)
        key = f"metrics {match or 'as they are'}"
        yield from _try_measurement(measures, names, near, key, create_metric_numbers)
    histogram_job = _wrap_function_as_job(measure_histogram, second, first)
    yield from _try_measurement(
        measures, (EMD,), histogram_job, "histogram", create_emd_numbers
    )
    yield _add_step_name(progress, "Fourier ring correlation")
    sized_part = next((part for part in parts if part.pixel_size_nm), parts[0])
    result = yield from _try_frc_measurement(measures, sized_part, options, *parts)
    if result is not None and result.found_shift_px is not None:
        (y, x), error = result.found_shift_px, result.found_shift_sd_px
        shift = f"({y:+.2f}, {x:+.2f}) px".replace("-", "\N{MINUS SIGN}")
        shift += "" if error is None else f" ± {error:.2f} px"
        method = "found by cross-correlation"
        measures.numbers.append(Number("Shift, down and right", shift, method=method))
    yield _add_step_name(progress, "error map")
    map_errors = ERROR_MAP.job(first, second)
    how: Any = {"say": create_error_numbers, "part": ErrorMapReport.to_json}
    errors = yield from _try_measurement(
        measures, ERRORS, map_errors, "error_map", **how
    )
    pair.map = None if errors is None else errors.map
    measures.notes[:] = dict.fromkeys(measures.notes)


# All values.


def _create_record(
    result: ReportMade,
    options: ReportOptions,
    parts: ReportContents,
    history: Provenance,
) -> dict[str, Any]:
    version = get_software_versions()["napari-semsr"]

    def create_measure_record(
        measures: Measurements, *inputs: ReportImage
    ) -> dict[str, Any]:
        how = {"version": version, "inputs": [item.record.digest for item in inputs]}
        return {
            "numbers": [item.to_json() | how for item in measures.numbers],
            "results": to_json_value(measures.results),
            "notes": measures.notes,
        }

    return {
        "kind": "report",
        "title": options.title,
        "page": result.path,
        "images": [
            {
                "name": item.label,
                "path": item.path,
                "digest": item.record.digest,
                "shape": list(item.image.shape),
                "dtype": str(item.image.dtype),
                "pixel_size_nm": to_json_value(item.image.pixel_size_nm),
                "pixel_size_sd_nm": to_json_value(item.image.pixel_size_sd_nm),
                "pixel_size_from": item.size_from,
                "measured_box_px": None
                if item.box is None
                else [item.box.y0, item.box.x0, item.box.y1, item.box.x1],
                "networks": [{"name": n, "digest": d} for n, d in item.networks],
                "provenance": to_json_value(item.image.provenance),
                **create_measure_record(item.measures, item),
            }
            for item in parts.pictures
        ],
        "pairs": [
            {
                "reference": pair.reference.label,
                "compared": pair.other.label,
                **create_measure_record(pair.measures, pair.reference, pair.other),
            }
            for pair in parts.pairs
        ],
        "files": [
            {n: getattr(item, n) for n in ("name", "digest", "verb", "content")}
            for item in parts.records
        ],
        "found": [
            {"title": f.title, "of": list(f.origin), "numbers": dict(f.rows)}
            for f in parts.findings
        ],
        "methods": list(result.methods),
        "references": list(result.references),
        "provenance": to_json_value(history),
    }


# Sentences for a Methods section, with the papers they cite.

REFERENCES = {
    "nieuwenhuizen": "R. P. J. Nieuwenhuizen et al., Measuring image resolution in "
    "optical nanoscopy, Nat. Methods 10, 557 (2013), doi:10.1038/nmeth.2448.",
    "banterle": "N. Banterle, K. H. Bui, E. A. Lemke, M. Beck, Fourier ring "
    "correlation as a resolution criterion for super-resolution microscopy, "
    "J. Struct. Biol. 183, 363 (2013), doi:10.1016/j.jsb.2013.05.004.",
    "koho": "S. Koho et al., Fourier ring correlation simplifies image restoration in "
    "fluorescence microscopy, Nat. Commun. 10, 3103 (2019), "
    "doi:10.1038/s41467-019-11024-z.",
    "van-heel": "M. van Heel, M. Schatz, Fourier shell correlation threshold criteria, "
    "J. Struct. Biol. 151, 250 (2005), doi:10.1016/j.jsb.2005.05.009.",
    "rieger": "B. Rieger, I. Droste, F. Gerritsma, T. ten Brink, S. Stallinga, Opt. "
    "Express 32, 21767 (2024).",
    "descloux": "A. Descloux, K. S. Grußmayer, A. Radenovic, Parameter-free image "
    "resolution estimation based on decorrelation analysis, Nat. Methods 16, 918 "
    "(2019), doi:10.1038/s41592-019-0515-7.",
    "culley": "S. Culley et al., Quantitative mapping and minimization of "
    "super-resolution optical imaging artifacts, Nat. Methods 15, 263 (2018), "
    "doi:10.1038/nmeth.4605.",
    "wang": "Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, Image quality "
    "assessment: from error visibility to structural similarity, IEEE Trans. Image "
    "Process. 13, 600 (2004), doi:10.1109/TIP.2003.819861.",
    "de-haan": "K. de Haan, Z. S. Ballard, Y. Rivenson, Y. Wu, A. Ozcan, Resolution "
    "enhancement in scanning electron microscopy using deep learning, Sci. Rep. 9, "
    "12050 (2019), doi:10.1038/s41598-019-48444-2.",
    "gao": "X. Gao et al., Sci. Rep. 14 (2024), doi:10.1038/s41598-024-57056-4.",
}
"""Papers that describe the methods."""


@dataclass(slots=True)
class _CitationList:
    """Numbered list of papers in the order of citation."""

    keys: list[str] = field(default_factory=list)

    def __call__(self, *keys: str) -> str:
        self.keys += [key for key in keys if key not in self.keys]
        return f"[{', '.join(str(self.keys.index(key) + 1) for key in keys)}]"

    def list_references(self) -> tuple[str, ...]:
        return tuple(
            f"[{number}] {REFERENCES[key]}"
            for number, key in enumerate(self.keys, start=1)
        )


def describe_methods(
    parts: "ReportContents",
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Describe the measurements; return sentences and references."""
    cites, versions = _CitationList(), get_software_versions()
    names = {"python": "Python", "numpy": "NumPy", "scipy": "SciPy"}
    others = ", ".join(
        f"{label} {versions[n]}" for n, label in names.items() if n in versions
    )
    sentences = [
        f"{item.label} was made by the network {name} ({digest})."
        for item in parts.pictures
        for name, digest in item.networks
    ]
    if sentences:
        sentences.append(
            "The output of a network is an estimate. A resolution measured from the "
            "output alone describes the output, not the sample."
        )
    paragraphs = [
        (
            f"Images were measured with napari-semsr {versions['napari-semsr']} "
            f"({others})."
        ),
        *_describe_pixel_sizes(parts.pictures),
        *([" ".join(sentences)] if sentences else ()),
        *_describe_single_images(parts.pictures, cites),
        *_describe_comparisons(parts.pairs, cites),
        *_describe_files(parts.records, cites),
    ]
    return tuple(paragraphs), cites.list_references()


def _describe_pixel_sizes(pictures: "Sequence[ReportImage]") -> Iterable[str]:
    """Describe pixel sizes and their origin, grouping images of equal size."""
    sizes_told: dict[str, list[str]] = {}
    for item in pictures:
        if item.is_map:
            continue
        size_text = "not known, so lengths are in pixels"
        if item.image.pixel_size_nm is not None:
            size_text = f"{_format_pixel_size(item.image)}, {item.size_from}"
        sizes_told.setdefault(size_text, []).append(item.label)
    if sizes_told:
        sizes = (
            f"The pixel size of {_join_names(names)} is {size_text}."
            for size_text, names in sizes_told.items()
        )
        yield " ".join(sizes)


def _describe_single_images(
    pictures: "Sequence[ReportImage]", cites: _CitationList
) -> Iterable[str]:
    """Describe the measurements of single images."""
    of_halves = [item for item in pictures if "halves" in item.measures.results]
    split = [item for item in pictures if item not in of_halves]
    for group, how in (
        (of_halves, "of two mosaics, each from half of the frames of one scan"),
        (split, "of their diagonally split pixels"),
    ):
        items = [item for item in group if item.measures.find_number(FRC)]
        if not items:
            continue
        papers = _cite_frc_papers(items, cites)
        paper = cites("koho") if group is split else ""
        start = "The resolution of single images is the Fourier ring correlation "
        yield _format_method_sentence(
            f"{start}{papers} {how} {paper}".rstrip(), FRC, items
        )
    items = [item for item in pictures if item.measures.find_number(DECORRELATION)]
    if items:
        start = "The cut-off of single images is that of decorrelation analysis "
        yield _format_method_sentence(start + cites("descloux"), DECORRELATION, items)
    items = [item for item in pictures if "spectrum" in item.measures.results]
    if items:
        yield (
            "Power spectra were averaged over rings of spatial frequency, after "
            "subtracting the mean and applying a Tukey window."
        )
    if _has_value(pictures, SHARPNESS):
        yield (
            "The average gradient is the mean of √((Δx² + Δy²)/2), the contrast is the "
            "mean squared difference of neighbouring pixels, and the spatial frequency "
            "is the square root of the sum of the mean squared differences along rows "
            f"and columns {cites('gao')}, with grey levels scaled to 255 over the data "
            "range."
        )


def _cite_frc_papers(
    items: "Sequence[ReportImage | ImagePair]", cites: _CitationList
) -> str:
    numbers = [item.measures.find_number(FRC) for item in items]
    has_fixed_threshold = all(
        item is None or "1/7" in item.threshold for item in numbers
    )
    papers = ("nieuwenhuizen", "banterle")
    return cites(*papers) if has_fixed_threshold else cites(*papers, "van-heel")


def _format_method_sentence(
    start: str, name: str, items: "Sequence[ReportImage | ImagePair]"
) -> str:
    """Return the sentence on a method, with reasons for images without a value."""
    labelled_numbers = [(item.label, item.measures.find_number(name)) for item in items]
    methods: dict[str, None] = {}
    extras: dict[str, list[str]] = {}
    for label, number in labelled_numbers:
        if number is not None and number.method:
            first, *rest = number.method.split("; ")
            methods[first] = None
            for extra in rest:
                extras.setdefault(extra, []).append(label)
    methods_text = [
        *methods,
        *(f"{extra} ({_join_names(of)})" for extra, of in extras.items()),
    ]
    sentence = f"{start}: {'; '.join(methods_text)}." if methods_text else f"{start}."
    reasons: dict[str, list[str]] = {}
    for label, number in labelled_numbers:
        if number is not None and number.reason:
            reasons.setdefault(number.reason.rstrip("."), []).append(label)
    for reason, labels in reasons.items():
        sentence += f" No value is given for {_join_names(labels)} ({reason})."
    return sentence


def _describe_comparisons(
    pairs: "Sequence[ImagePair]", cites: _CitationList
) -> Iterable[str]:
    """Describe the measurements that compare two images."""
    items = [item for item in pairs if item.measures.find_number(FRC)]
    if items:
        start = (
            "The resolution of pairs is the Fourier ring correlation of both images "
        )
        yield _format_method_sentence(
            start + _cite_frc_papers(items, cites), FRC, items
        )
    is_fitted = _has_value(pairs, MATCHED_NAMES)
    if is_fitted or _has_value(pairs, AS_THEY_ARE):
        after = (
            "both unchanged and after the gain and offset that best match the image "
            "to its reference"
        )
        ranges = (
            (f"{format_value(x.data_range)} ({x.data_range_basis})", pair.label)
            for pair in pairs
            for x in pair.measures.results.values()
            if isinstance(x, Metrics)
        )
        labels: dict[str, dict[str, None]] = {}
        for span, label in ranges:
            labels.setdefault(span, {})[label] = None
        spans = (f"{span} for {_join_names(list(of))}" for span, of in labels.items())
        yield (
            f"Pairs were compared by PSNR, SSIM {cites('wang')} (11 x 11 Gaussian "
            "window, K₁ = 0.01, K₂ = 0.03) and NRMSE, with grey levels "
            f"{(after if is_fitted else 'unchanged')}. The data range is "
            f"{'; '.join(spans)}."
        )
    if _has_value(pairs, (EMD,)):
        yield "Grey levels were compared by the earth mover's distance."
    items_with_map = [item for item in pairs if _has_value([item], ERRORS)]
    if items_with_map:
        shifts = {
            x.label: x.measures.results["error_map"]["shift_px"] for x in items_with_map
        }
        names = [name for name, shift in shifts.items() if any(shift)]
        of = f" ({_join_names(names)})" if len(names) < len(items_with_map) else ""
        shift_text = f"registered with subpixel accuracy{of}, " if names else ""
        yield (
            f"For error maps {cites('culley')}, the enhanced image was "
            f"{shift_text}blurred with a Gaussian and fitted to the reference by gain "
            "and offset. RSE is the remaining root mean square difference, and RSP is "
            "Pearson's correlation coefficient."
        )


_OF_SPLIT = (("diagonal", ("koho",)), ("binomial", ("rieger",)))
_OF_RECORDS = {
    "frc": ("Fourier ring correlation", ("nieuwenhuizen", "banterle")),
    "frc-map": ("Maps of local Fourier ring correlation", ("nieuwenhuizen",)),
    "decorrelation": ("Decorrelation analysis", ("descloux",)),
    "spectrum": ("Power spectra, averaged over rings,", ()),
    "error-map": ("Error maps", ("culley",)),
    "metrics": ("PSNR, SSIM and NRMSE", ("wang",)),
    "gaps": ("Gaps between particles", ("de-haan",)),
    "profile": ("Line profiles", ()),
    "histogram": ("Histograms of grey levels", ()),
    "calibrate": ("The pixel size from a grating of known pitch", ()),
    "register": ("Registration", ()),
    "judge": ("Networks compared with an SEM image of the same area", ("wang",)),
}
_OF_MAPS = {
    "near": "found by correlation of orientation fields, near the stated pixel sizes",
    "full": "found by correlation of orientation fields, at all rotations",
    "landmarks": "from landmarks",
    "stored": "by a stored transform",
}


def _describe_files(
    records: "Sequence[StoredNumbers]", cites: _CitationList
) -> Iterable[str]:
    """Describe the measurements read from files."""
    verbs = {item.verb for item in records}
    for verb in (*_OF_RECORDS, *sorted(verbs - {*_OF_RECORDS})):
        records_read = [item for item in records if item.verb == verb]
        if not records_read:
            continue
        words, papers = _OF_RECORDS.get(verb, (verb.capitalize(), ()))
        methods = dict.fromkeys(
            n.method for item in records_read for n in item.numbers if n.method
        )
        searches = (str(item.content.get("searched")) for item in records_read)
        methods |= dict.fromkeys(_OF_MAPS[way] for way in searches if way in _OF_MAPS)
        methods_text = " ".join(methods)
        papers = (
            *papers,
            *next((p for word, p in _OF_SPLIT if word in methods_text), ()),
        )
        if verb == "metrics" and not any(
            item.has_value("psnr_db") for item in records_read
        ):
            words, papers = "Average gradient, contrast and spatial frequency", ("gao",)
        paper = f" {cites(*papers)}" if papers else ""
        how = f": {'; '.join(methods)}" if methods else ""
        of = dict.fromkeys(name for item in records_read for name in item.images)
        images = f" of {_join_names(list(of))}" if of else ""
        yield (
            f"{words}{paper}{images}, computed with semsr {verb}{how}, as stored in "
            f"{_join_names([item.name for item in records_read])}."
        )


def _has_value(
    items: "Sequence[ReportImage | ImagePair]", names: Sequence[str]
) -> bool:
    """Return whether any of these values was measured for an image or pair."""
    numbers = [number for item in items for number in item.measures.numbers]
    return any(one.name in names and one.value is not None for one in numbers)


def _join_names(names: Sequence[str]) -> str:
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


# Figures and tables of the page. Their text is in its template.

_WHOLE = FigureOptions(width_mm=100, dpi=195)  # chosen: text is 7 points high here
_SHEET_MM = 200.0  # chosen: fits on A4 with title and margins
_STRIP_MM = 3.0  # chosen: smallest width of an image
_SMALL = FigureOptions(width_mm=62, dpi=140)  # chosen: three in a row
_PLOT = (560, 340)  # px; chosen: two in a row
_COLUMNS = 4  # images in a table; chosen: as many as fit on a page
_CURVES = 5  # curves in a plot: the number of colours


def write_report(
    path: Path,
    result: "ReportMade",
    options: "ReportOptions",
    parts: "ReportContents",
    history: Provenance,
) -> Job[None]:
    """Draw images and plots, and write the page."""
    pictures, pairs = parts.pictures, parts.pairs
    total = len(pictures) + len(pairs) + 1
    rows_shown: list[tuple[Any, ...]] = []
    plates: list[FigureImage] = []
    for number, item in enumerate(pictures):
        yield Progress(number, total, f"drawing {item.label}")
        plate = yield from create_plate_image(item.image, item.image, _WHOLE, 1)
        plots = list(_plot_measurements(item.measures, item.image, [item.label]))
        low, high = map(format_value, plate.limits)
        (bar,) = describe_scale_bars([plate])
        bar_text = f"B{bar[1:]}; shown" if bar else "Shown"
        caption = f"{bar_text} from {low} to {high}."
        rows_shown.append(
            (
                item,
                _draw_plate(plate, _WHOLE),
                caption,
                list(_list_image_facts(item)),
                plots,
            )
        )
        small = yield from create_plate_image(item.image, item.image, _SMALL, 1)
        plates.append(small)
    comparisons = []
    for number, pair in enumerate(pairs):
        yield Progress(len(pictures) + number, total, f"drawing {pair.label}")
        errors = None
        if pair.map is not None:
            plate = yield from create_plate_image(pair.map, pair.map, _WHOLE, 1)
            errors = _draw_plate(plate, _WHOLE)
        names = [pair.other.label, pair.reference.label]
        plots = list(_plot_measurements(pair.measures, pair.reference.image, names))
        comparisons.append((pair, errors, plots))
    yield Progress(total - 1, total, "writing the page")
    groups = [{number} for number in range(len(plates))]
    if options.greys == "common":
        groups = _group_by_contrast(plates)
    counts = (
        (pictures, "image", "images"),
        (pairs, "pair", "pairs"),
        (parts.records, "file of measurements", "files of measurements"),
        (parts.findings, "result of a panel", "results of a panel"),
    )
    ranges = (item.measures.find_number(DATA_RANGE) for item in pictures)
    lede = [f"{len(n)} {one if len(n) == 1 else many}" for n, one, many in counts if n]
    write_page(
        path,
        Path(__file__).with_name("report.html"),
        title=options.title,
        result=result,
        lede=", ".join(lede) + ".",
        images=rows_shown,
        pairs=comparisons,
        records=[
            (item, list(_plot_curves(item.verb, item.content)))
            for item in parts.records
        ],
        found=parts.findings,
        small=_draw_gallery(pictures, plates, groups) if len(pictures) > 1 else [],
        greys=_describe_grey_scales(pictures, groups),
        tables=list(_create_tables(pictures)),
        has_unequal_ranges=len({one.value for one in ranges if one is not None}) > 1,
        curves=_plot_all_correlations(pictures),
        provenance=list_provenance(history.options),
        when=history.created.replace("T", " ").removesuffix("+00:00") + " UTC",
        numbers=Path(result.numbers).name,
    )


# Images.


def _draw_plate(plate: FigureImage, options: FigureOptions) -> bytes:
    """Draw an image with its scale bar, narrower if it would not fit on a page."""
    high, wide = plate.size
    fitting = max(_SHEET_MM * wide / high, _STRIP_MM)
    width = min(options.width_mm, fitting)
    size: Any = {"width_mm": width, "dpi": options.dpi}
    return draw_plate([plate], kind="png", **size).data


def _group_by_contrast(plates: Sequence[FigureImage]) -> list[set[int]]:
    """Group images whose median grey levels are within each other's contrast range."""

    def is_similar(one: FigureImage, other: FigureImage) -> bool:
        if one.unit is not None or other.unit is not None:
            return False
        middle = float(np.nanmedian(one.values))
        return other.limits[0] < middle < other.limits[1]

    groups: list[set[int]] = []
    for number, plate in enumerate(plates):
        for group in groups:
            members = [plates[i] for i in group]
            if all(is_similar(plate, m) and is_similar(m, plate) for m in members):
                group.add(number)
                break
        else:
            groups.append({number})
    return groups


def _draw_gallery(
    pictures: "Sequence[ReportImage]",
    plates: Sequence[FigureImage],
    groups: Sequence[set[int]],
) -> list[tuple[str, bytes]]:
    """Draw thumbnails of all images, sharing a grey scale among similar ones."""
    plates_shown: dict[int, FigureImage] = {}
    for group in map(sorted, groups):
        alike = unify_display_settings([plates[i] for i in group])
        plates_shown |= dict(zip(group, alike, strict=True))
    return [
        (item.label, _draw_plate(plates_shown[i], _SMALL))
        for i, item in enumerate(pictures)
    ]


def _describe_grey_scales(
    pictures: "Sequence[ReportImage]", groups: Sequence[set[int]]
) -> str:
    many = [group for group in groups if len(group) > 1]
    if not many:
        return "Each image has its own grey scale."
    if len(many) == len(groups) == 1:
        return "All images share one grey scale."
    texts = [", ".join(pictures[i].label for i in sorted(group)) for group in many]
    return (
        f"Images sharing a grey scale: {'; '.join(texts)}. Each other image has its "
        "own grey scale."
    )


# Facts about an image, a pair, a file.


def _list_image_facts(item: "ReportImage") -> Iterator[tuple[str, object]]:
    """List the facts about an image and its exposure."""
    image = item.image
    yield "Size", f"{format_shape(image.shape)}, {image.dtype}"
    yield "Pixel size", _format_pixel_size(image)
    yield "Calibration", item.size_from
    wide = image.pixel_size_nm
    if wide is not None:
        y, x = (n * p / 1000 for n, p in zip(image.shape, wide, strict=True))
        yield "Field", f"{format_value(y)} {TIMES} {format_value(x)} µm"
    if item.path is not None:
        yield "File", Path(item.path).name
    yield "Digest", item.record.digest
    for name, digest in item.networks:
        yield f"Network {name}", digest
    for name, key, factor, unit in _INSTRUMENT:  # recorded by the microscope
        value = image.metadata.get(key)
        try:
            if value and factor is not None:
                yield name, f"{float(value) * factor:.4g} {unit}"
            elif value:
                yield name, str(value)
        except ValueError:
            continue


_INSTRUMENT = (
    ("Voltage", "EBeam.HV", 1e-3, "kV"),
    ("Voltage", "AP_ACTUALKV", None, ""),
    ("Working distance", "EBeam.WD", 1e3, "mm"),
    ("Working distance", "AP_WD", None, ""),
    ("Magnification", "AP_MAG", None, ""),
    ("Detector", "DP_DETECTOR_TYPE", None, ""),
    ("Dwell time", "Scan.Dwelltime", 1e6, "µs"),
)
"""Metadata entries shown in a legend: FEI writes SI units, Zeiss other units."""


def _format_pixel_size(image: Micrograph) -> str:
    size, error = image.pixel_size_nm, image.pixel_size_sd_nm
    if size is None:
        return "not known: lengths are in px"
    return format_pixel_size(size, error) + ("" if error is None else " (s.d.)")


# Plots of measurements.

_PLOT_VERBS = ("frc", "decorrelation", "spectrum", "histogram")


def _plot_measurements(
    measures: Measurements, image: Micrograph, names: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    """Plot the measurements of an image or a pair."""
    size = {"pixel_size_nm": image.pixel_size_nm}
    for verb in _PLOT_VERBS:
        if verb in measures.results:
            yield from _plot_curves(
                verb, to_json_value(measures.results[verb]) | size, names
            )


def _plot_curves(
    verb: str, content: Mapping[str, Any], names: Sequence[str] = ("image", "reference")
) -> Iterator[tuple[str, bytes]]:
    """Plot the curves of a command's JSON result; `names` are the image names."""
    for curve in get_curves(verb):
        plot = curve.create_plot(content.get, names)
        if plot is not None:
            yield plot.title, draw_plot_png(plot, _PLOT)


# Comparisons of all images.


def _create_tables(
    pictures: "Sequence[ReportImage]",
) -> Iterator[tuple[list[str], list[tuple[str, list[str]]]]]:
    """Tabulate images side by side; yield headers and named rows for each table."""
    names = list(
        dict.fromkeys(n.name for item in pictures for n in item.measures.numbers)
    )
    for first in range(0, len(pictures), _COLUMNS):
        part = pictures[first : first + _COLUMNS]
        rows: list[tuple[str, list[str]]] = [
            ("Size", [format_shape(item.image.shape) for item in part]),
            (
                "Pixel size",
                [_format_pixel_size(item.image).partition(":")[0] for item in part],
            ),
        ]
        if any(item.networks for item in pictures):
            network_names = [
                ", ".join(n for n, _ in item.networks) or NO_VALUE for item in part
            ]
            rows.append(("Made by the network", network_names))
        for name in names:
            numbers = [item.measures.find_number(name) for item in part]
            if any(one is not None for one in numbers):
                rows.append((name, [_format_cell(one) for one in numbers]))
        yield [item.label for item in part], rows


def _format_cell(number: Number | None) -> str:
    """Format a value with its interval, or the reason if there is none."""
    if number is None:
        return NO_VALUE
    if number.reason and number.value is None:
        word, rest, _ = number.reason.partition(":")
        return f"refused: {word}" if rest else "refused"
    if number.interval is None or number.within != "95 %":
        return number.text
    return f"{number.text}; {number.interval_text}"


def _plot_all_correlations(pictures: "Sequence[ReportImage]") -> bytes | None:
    """Plot the ring correlations of all images, if they share one pixel size."""
    items = [item for item in pictures if "frc" in item.measures.results]
    sizes = {item.image.pixel_size_nm for item in items}
    if not 1 < len(items) <= _CURVES or len(sizes) > 1:
        return None
    pixel = items[0].image.mean_pixel_size_nm
    lines = (
        item.measures.results["frc"].create_line(item.label, with_crossing=False)
        for item in items
    )
    over = [line.convert_to_per_um(pixel) for line in lines]
    return draw_plot_png(FRC_VERB.curves[0].combine(over, has_size=pixel is not None))


REPORT = Verb(
    "report",
    (
        ImageInput(
            "inputs",
            "images and stores, JSON files of measuring commands, and pairs as A::B, "
            "where A is the reference",
            metavar="INPUT",
            many=True,
            pairs=True,
        ),
    ),
    ReportOptions,
    ReportMade,
    _create_report,
    title="report",
    output=Output(
        "the page, .html; all values are written next to it as .json",
        ending=".html",
        beside=(_NUMBERS,),
    ),
    opens=False,
    example="""
    >>> grey = np.random.default_rng(0).random((96, 96))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     image = semsr.Micrograph(grey, (5, 5), "A")
    ...     made = semsr.report([image], f"{folder}/page.html")
    ...     with open(made.numbers, encoding="utf-8") as stream:
    ...         told = json.load(stream)["images"][0]["numbers"]
    >>> told[0]["name"], round(told[0]["value"], 2)
    ('Mean grey level', 0.5)
    >>> made.references[-1][:40]
    '[5] X. Gao et al., Sci. Rep. 14 (2024), '
    """,
)
