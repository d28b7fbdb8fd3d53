"""Create a report page on images and measurements, with a JSON file of its values."""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from napari_semsr.analysis import MetricsOptions
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
    map_progress,
    option,
    warn,
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
    find_halves,
)
from napari_semsr.jobs.plan import Plan, Results, create_call, execute
from napari_semsr.jobs.report.records import (
    Measurements,
    Number,
    RecordSummary,
    declare_keys,
    describe_record,
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

_MOST = 40  # images; chosen: a page of 20 MB still opens at once
_PAIR = "::"
_AGAINST = " against "
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
        return f"{self.other.label}{_AGAINST}{self.reference.label}"


@dataclass(frozen=True, slots=True)
class ReportContents:
    """Contents of a report."""

    pictures: list[ReportImage]
    pairs: list[ImagePair]
    records: list[RecordSummary]
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
    findings, settings, reading = (
        run.parameters.get("found", ()),
        run.options,
        run.opening,
    )
    images, files = _separate_inputs(run.image_inputs["inputs"], findings)
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


# Measurements: a plan of calls for each image and each pair. Images are placeholders;
# the `whole` ones have no gaps.

_GREYS = ("mean", "sd", "lowest", "highest", "missing_percent", "saturated_percent")
_SHARPNESS = ("average_gradient", "contrast", "spatial_frequency", "data_range")
_SIMILARITY = ("psnr_db", "ssim", "nrmse")
_VALUES: dict[str, dict[str, str]] = {
    "metrics": dict.fromkeys((*_GREYS, *_SHARPNESS), ""),
    "frc": {"resolution_nm": ", FRC", "found_shift_px": ""},
    "decorrelation": {"resolution_nm": ", decorrelation"},
    "spectrum": {},
    "metrics as they are": dict.fromkeys((*_SIMILARITY, "emd"), ""),
    "metrics affine": {
        **dict.fromkeys(_SIMILARITY, ", grey levels fitted"),
        **dict.fromkeys(("psnr_below_db", "psnr_above_db"), ""),
    },
    "error_map": dict.fromkeys(("rse", "rsp", "sigma_nm", "alpha", "beta"), ""),
}
"""Keys of each call's record that are shown, with a suffix of their labels."""
_NOT_ALWAYS = ("found_shift_px", "psnr_below_db", "psnr_above_db")  # of such images


def create_image_plan(options: ReportOptions, *, has_halves: bool = False) -> Plan:
    """Return the plan that measures an image, with a mosaic's halves if it has them."""
    frc_inputs = (
        {"a": "image", "halves": "halves"} if has_halves else {"a": "whole image"}
    )
    whole = {"image": "whole image"}
    calls = (
        create_call("metrics", "metrics", {"image": "image"}),
        create_call("frc", "frc", frc_inputs, options=options),
        create_call("decorrelation", "decorrelation", whole),
        create_call("spectrum", "spectrum", whole),
    )
    return Plan(calls=calls)


def create_pair_plan(options: ReportOptions) -> Plan:
    """Return the plan that compares an image with its reference."""
    images = {"image": "whole image", "reference": "whole reference"}
    frc_inputs = {"a": "whole reference", "b": "whole image"}
    map_inputs = {"reference": "reference", "enhanced": "image"}
    affine = MetricsOptions(match="affine")
    calls = (
        create_call("metrics as they are", "metrics", images),
        create_call("metrics affine", "metrics", images, options=affine),
        create_call("frc", "frc", frc_inputs, options=options),
        create_call("error_map", "error-map", map_inputs),
    )
    return Plan(calls=calls)


def _execute_calls(
    measures: Measurements, plan: Plan, values: dict[str, Any], progress: Progress
) -> Job[Results]:
    """Run each call of a plan; if one fails, its values get the reason."""
    results = Results(None, Path(), values)  # no call writes a file

    def add_label(step: Progress) -> Progress:
        return replace(progress, message=f"{progress.message}: {step.message}")

    for call in plan.calls:
        job = execute(Plan(calls=(call,)), results.folder, results)
        suffixes = _VALUES[call.name]
        try:
            yield from map_progress(job, add_label)
        except SemsrError as error:
            labels = {key: q.label for key, q in declare_keys(call.verb).items()}
            names = [
                f"{labels[k]}{suffixes[k]}" for k in suffixes if k not in _NOT_ALWAYS
            ]
            names = names or [call.name.capitalize()]
            numbers = [Number(name, None, reason=str(error)) for name in names]
            measurement = RecordSummary(call.name, call.verb, numbers)
        else:
            record = results.results[call.name].to_json()
            record["warnings"] = [*results.warnings]
            measurement = describe_record(call.name, call.verb, record, suffixes)
        for sentence in results.warnings:
            if get_error_code(sentence) != "made-by-network":  # the page marks it
                warn(sentence)
        measures.notes += measurement.notes or results.warnings
        measures.calls.append(measurement)
    measures.notes[:] = dict.fromkeys(measures.notes)
    return results


def _measure_image(
    item: ReportImage, options: ReportOptions, progress: Progress
) -> Job[None]:
    yield progress
    measures, box = item.measures, get_central_box(item.image.shape, _MIDDLE_PX)
    part = crop_to_box(item.image, box).replace(name=item.label)
    if box.shape != item.image.shape:
        item.box = box
        sentence = (
            f"Measured in the central {box.shape[0]} x {box.shape[1]} px of "
            f"{item.image.shape[0]} x {item.image.shape[1]} px."
        )
        measures.notes.append(Message(sentence, "measured-in-part"))
    if item.is_map:
        measures.calls.append(RecordSummary("map", "", create_map_numbers(part)))
        return
    if item.path is not None and item.box is None:
        note = create_databar_note(item.label, part)
        measures.notes += [note] if note else []
    whole, gap_free = part, None
    with suppress(ShapeError):  # otherwise each call states why it fails
        (whole,), gap_free = yield from crop_to_gap_free_box(part)
    if gap_free is not None:
        item.box = Box.from_shape(
            gap_free.shape, (box.y0 + gap_free.y0, box.x0 + gap_free.x0)
        )
        sentence = (
            "Resolution and spectrum are measured in the largest rectangle without "
            f"gaps, {gap_free.shape[0]} x {gap_free.shape[1]} px."
        )
        measures.notes.append(Message(sentence, "measured-in-part"))
    values: dict[str, Any] = {"image": part, "whole image": whole}
    halves, note, place = None, None, item.path or item.image.path
    if place is not None:
        halves, note = find_halves(Path(place), item.image)
    if halves is not None:
        values["halves"] = tuple(crop_to_box(half, box) for half in halves)
    if note is not None:
        measures.notes.append(Message(f"{note} {ALONE}", get_error_code(note)))
    plan = create_image_plan(options, has_halves=halves is not None)
    yield from _execute_calls(measures, plan, values, progress)


def create_map_numbers(image: Micrograph) -> list[Number]:
    """Return the median and the spread of a map, in its own unit."""
    data = image.array().astype(np.float64)
    finite = data[np.isfinite(data)]
    unit = (image.quantity or "").partition("(")[2].rstrip(")")
    ends = np.percentile(finite, (10, 50, 90)).tolist() if finite.size else None
    median = Number(
        "Median of the map",
        ends and ends[1],
        unit,
        interval=ends and (ends[0], ends[2]),
        within="10 to 90 % of the positions",
        method=f"of {finite.size} positions with a value",
    )
    share = 100 * (1 - finite.size / data.size)
    missing = Number("Without a value", share, "% of the positions", method="counted")
    return [median, missing]


def _compare_pair(
    pair: ImagePair, options: ReportOptions, progress: Progress
) -> Job[None]:
    yield progress
    items, measures = (pair.reference, pair.other), pair.measures
    images = yield from append_image_records(
        (items[0].image, items[1].image), (items[0].record, items[1].record)
    )
    first, second = (
        image.replace(name=item.label)
        for image, item in zip(images, items, strict=True)
    )
    parts: tuple[Micrograph, ...] = (first, second)
    if first.shape == second.shape:
        box = get_central_box(first.shape, _MIDDLE_PX)
        if box.shape != first.shape:
            sentence = f"Compared in the central {box.shape[0]} x {box.shape[1]} px."
            measures.notes.append(Message(sentence, "measured-in-part"))
        parts = first, second = crop_to_box(first, box), crop_to_box(second, box)
        with suppress(ShapeError):  # otherwise each call states why it fails
            parts, _ = yield from crop_to_gap_free_box(first, second)
    values = {"reference": first, "image": second}
    values |= {"whole reference": parts[0], "whole image": parts[1]}
    plan = create_pair_plan(options)
    results = yield from _execute_calls(measures, plan, values, progress)
    errors = results.results.get("error_map")
    pair.map = None if errors is None else errors.map


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
            "results": {c.name: c.content for c in measures.calls if c.content},
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
        *_describe_measurements(parts, cites),
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


_OF_SPLIT = (("diagonal", "koho"), ("binomial", "rieger"))
_SENTENCES = {  # with the place of citation and images, and papers
    "frc": (
        "The resolution by Fourier ring correlation{} was computed",
        "nieuwenhuizen banterle",
    ),
    "frc-map": ("Maps of local Fourier ring correlation{} were made", "nieuwenhuizen"),
    "decorrelation": (
        "The cut-off by decorrelation analysis{} was computed",
        "descloux",
    ),
    "spectrum": (
        "Power spectra{} were windowed (Tukey) and averaged over spatial frequency",
        "",
    ),
    "error-map": (
        "Error maps{} were made (RSE: root mean square difference, RSP: correlation)",
        "culley",
    ),
    "metrics": (
        (
            "PSNR, SSIM (11 x 11 Gaussian window, K₁ = 0.01, K₂ = 0.03), NRMSE and "
            "distance of grey levels{} were computed"
        ),
        "wang",
    ),
    "gaps": ("Gaps between particles{} were measured", "de-haan"),
    "profile": ("Line profiles{} were measured", ""),
    "calibrate": ("The pixel size{} was measured on a grating of known pitch", ""),
    "register": ("The registration{} was computed", ""),
    "judge": ("Networks{} were compared with an SEM image of the same area", "wang"),
}
_OF_SHARPNESS = (
    "The average gradient (mean of √((Δx² + Δy²)/2)), the contrast (mean squared "
    "difference of neighbouring pixels) and the spatial frequency (square root of the "
    "summed mean squared differences along rows and columns){}, of grey levels scaled "
    "to 255 over the data range, were computed"
)
_OF_MAPS = {
    "near": "found by correlation of orientation fields, near the stated pixel sizes",
    "full": "found by correlation of orientation fields, at all rotations",
    "landmarks": "from landmarks",
    "stored": "by a stored transform",
}


def _describe_measurements(
    parts: "ReportContents", cites: _CitationList
) -> Iterable[str]:
    """Describe what each command measured of images, pairs and stored records."""
    items: list[ReportImage | ImagePair] = [*parts.pictures, *parts.pairs]
    entries = [(item.label, call) for item in items for call in item.measures.calls]
    entries += [(" and ".join(item.images), item) for item in parts.records]
    groups: dict[tuple[object, ...], list[tuple[str, RecordSummary]]] = {}
    for label, item in entries:
        kind = bool(item.digest), _AGAINST in label, item.content.get("match")
        groups.setdefault((item.verb, *kind), []).append((label, item))
    verbs = dict.fromkeys((*_SENTENCES, *(item.verb for _, item in entries)))
    for verb in verbs:
        for group in (group for key, group in groups.items() if key[0] == verb):
            if any(item.content for _, item in group):  # not all failed
                yield _format_method_sentence(verb, group, cites)


def _format_method_sentence(
    verb: str, group: Sequence[tuple[str, RecordSummary]], cites: _CitationList
) -> str:
    """Return the sentence on a command, with reasons for images without a value."""
    words, names = _SENTENCES.get(verb, (f"{verb.capitalize()}{{}} was computed", ""))
    if verb == "metrics" and not any(item.has_value("psnr_db") for _, item in group):
        words, names = _OF_SHARPNESS, "gao"
    labels = dict.fromkeys(label for label, item in group if label and item.content)
    methods: dict[str, dict[str, None]] = {}  # and the images of each
    reasons: dict[str, dict[str, None]] = {}
    for label, item in group:
        search = _OF_MAPS.get(str(item.content.get("searched")), "")
        method = str(item.content.get("method") or search)
        for part in filter(None, method.split("; ")):
            methods.setdefault(part, {})[label] = None
        if item.numbers and item.numbers[0].reason:
            reason = item.numbers[0].reason.rstrip(".")
            reasons.setdefault(reason, {})[label] = None
    text = "; ".join(
        method if len(of) >= len(labels) else f"{method} ({_join_names(of)})"
        for method, of in methods.items()
    )
    papers = [*names.split(), *(paper for word, paper in _OF_SPLIT if word in text)]
    if any(item.content.get("criterion", "1/7") != "1/7" for _, item in group):
        papers.append("van-heel")
    subject = f" {cites(*papers)}" if papers else ""
    subject += f" of {_join_names(labels)}" if labels else ""
    if group[0][1].digest:
        subject += f", stored in {_join_names(item.name for _, item in group)},"
    sentence = f"{words.format(subject)} with semsr {verb}"
    sentences = [f"{sentence}: {text}." if text else f"{sentence}."]
    sentences += (
        f"No value is given for {_join_names(of)} ({reason})."
        for reason, of in reasons.items()
    )
    return " ".join(sentences)


def _join_names(each: Iterable[str]) -> str:
    names = [*each]
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
        plots = _plot_measurements(item.measures.calls, [item.label])
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
        plots = _plot_measurements(pair.measures.calls, names)
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
    ranges = {i.measures.get_content("metrics").get("data_range") for i in pictures}
    lede = [f"{len(n)} {one if len(n) == 1 else many}" for n, one, many in counts if n]
    write_page(
        path,
        Path(__file__).with_name("report.html"),
        title=options.title,
        result=result,
        lede=", ".join(lede) + ".",
        images=rows_shown,
        pairs=comparisons,
        records=[(item, _plot_measurements([item])) for item in parts.records],
        found=parts.findings,
        small=_draw_gallery(pictures, plates, groups) if len(pictures) > 1 else [],
        greys=_describe_grey_scales(pictures, groups),
        tables=list(_create_tables(pictures)),
        has_unequal_ranges=len(ranges - {None}) > 1,
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


def _plot_measurements(
    measurements: Iterable[RecordSummary], names: Sequence[str] = ("image", "reference")
) -> list[tuple[str, bytes]]:
    """Plot the curves of measurements; `names` are the image names."""
    plots = (
        curve.create_plot(item.content.get, names)
        for item in measurements
        for curve in get_curves(item.verb)
    )
    each = {plot.title: plot for plot in plots if plot is not None}  # once
    return [(title, draw_plot_png(plot, _PLOT)) for title, plot in each.items()]


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
    (curve,) = get_curves("frc")
    each = (
        (item, curve.create_plot(item.measures.get_content("frc").get))
        for item in pictures
    )
    plots = {item.label: plot for item, plot in each if plot is not None}
    sizes = {item.image.pixel_size_nm for item in pictures if item.label in plots}
    if not 1 < len(plots) <= _CURVES or len(sizes) > 1:
        return None
    lines = tuple(
        replace(plot.lines[0], label=label, mark=None) for label, plot in plots.items()
    )
    return draw_plot_png(replace(next(iter(plots.values())), lines=lines))


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
