"""Images, pairs and measurements as one page, with a JSON file of every number."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from napari_semsr.analysis import (
    measure_decorrelation,
    measure_histogram,
    measure_metrics,
    measure_spectrum,
)
from napari_semsr.core import (
    Box,
    Figure,
    Grid,
    InputRecord,
    Job,
    Micrograph,
    OptionError,
    Options,
    Progress,
    Provenance,
    SemsrError,
    ShapeError,
    option,
    read_box,
    software_versions,
)
from napari_semsr.io import ReadOptions, suggest_databar
from napari_semsr.jobs.crop import cut_gaps
from napari_semsr.jobs.images import (
    Image,
    Result,
    check_not_input,
    collect_warnings,
    jsonable,
    name_of,
    open_image,
    paths_of,
    record_input,
)
from napari_semsr.jobs.leakage import LEARNT
from napari_semsr.jobs.measure import (
    ALONE,
    ERROR_MAP,
    FRC as FRC_VERB,
    ErrorMapReport,
    FrcJobOptions,
    find_halves,
)
from napari_semsr.jobs.report.methods import tell_methods
from napari_semsr.jobs.report.numbers import (
    AS_THEY_ARE,
    DECORRELATION,
    EMD,
    ERRORS,
    FRC,
    MATCHED,
    SHARPNESS,
    Measured,
    Number,
    decorrelation_number,
    emd_number,
    error_numbers,
    frc_number,
    grey_numbers,
    map_numbers,
    metric_numbers,
    sharpness_numbers,
)
from napari_semsr.jobs.report.records import StoredNumbers, is_record, read_record
from napari_semsr.jobs.verb import ImageIn, Output, Run, Verb
from napari_semsr.reporting import NO_VALUE, write_numbers

T = TypeVar("T")

_MOST = 40  # images; chosen: a page of 20 MB still opens at once
_PAIR = "::"
_NUMBERS = ".json"
_TOLD = ("images", "pairs", "files")
_OF_FILES = ("name", "digest", "verb", "content")
_MIDDLE_PX = 4096  # side of what is measured of a larger image; chosen: 2 GB at most
_MOST_STEPS = 40  # of a history on the page; chosen: two thirds of a sheet
Where = str | os.PathLike[str]
Input = Image | tuple[Image, Image]
"""An image, a JSON file of a measuring verb, or a pair: reference, and what is
compared with it; as text ``A::B``."""


class ReportOptions(Options):
    """What a report says."""

    title: str = option(
        "Report on images", "Title", "Title of the page.", max_length=200
    )
    criterion: Literal["1/7", "half-bit", "3-sigma"] = option(
        "1/7", "Threshold", "Threshold of Fourier ring correlation."
    )
    greys: Literal["common", "own"] = option(
        "common",
        "Grey scale",
        "One grey scale for images that are alike, or each its own.",
    )


@dataclass(frozen=True, slots=True)
class PanelFindings:
    """What a panel found, as it shows it."""

    title: str
    origin: tuple[str, ...]  # what it was found of
    rows: tuple[tuple[str, str], ...]  # names, and values with their units
    plot: bytes | None = None  # a PNG


@dataclass(slots=True)
class Picture:
    """An image of a report, and what was measured of it."""

    label: str
    image: Micrograph
    record: InputRecord
    size_from: str
    path: str | None
    measured: Measured = field(default_factory=Measured)
    box: Box | None = None  # what was measured, where that is not all

    @property
    def is_map(self) -> bool:
        """Whether its values are no grey levels, but what was measured somewhere."""
        return self.image.quantity is not None

    @property
    def networks(self) -> list[tuple[str, str]]:
        """Names and digests of the networks that had a hand in it."""
        made = _history(self.image.provenance)
        found = {m.model_digest: m.model_name or "unnamed model" for m in made}
        return [(name, digest) for digest, name in found.items() if digest]

    @property
    def steps(self) -> list[dict[str, str]]:
        """What made it, the first step first."""
        rows: list[dict[str, str]] = []
        for made in _history(self.image.provenance):
            step = _step_told(made)
            rows += [] if step in rows else [step]
            if len(rows) == _MOST_STEPS:
                break
        return rows


def _history(made: Provenance | None) -> Iterator[Provenance]:
    """Go through what made an image, the first step first."""
    if made is not None:
        for item in made.inputs:
            yield from _history(item.provenance)
        yield made


def _step_told(made: Provenance) -> dict[str, str]:
    """Write a step of a history as a row."""
    named = [item.name for item in made.inputs]
    more = f" and {len(named) - 3} more" if len(named) > 3 else ""
    return {
        "step": made.job,
        "of": ", ".join(named[:3]) + more or NO_VALUE,
        "network": made.model_name or NO_VALUE,
        "options": _told_options(made.options),
        "version": made.versions.get("napari-semsr", NO_VALUE),
        "when": made.created.replace("T", " ").removesuffix("+00:00"),
    }


@dataclass(slots=True)
class Pair:
    """Two images of a report, and what was measured between them."""

    reference: Picture
    compared: Picture
    measured: Measured = field(default_factory=Measured)
    map: Micrograph | None = None  # errors

    @property
    def label(self) -> str:
        """Names of both."""
        return f"{self.compared.label} against {self.reference.label}"


@dataclass(frozen=True, slots=True)
class ReportParts:
    """What a report tells of."""

    pictures: list[Picture]
    pairs: list[Pair]
    records: list[StoredNumbers]
    found: Sequence[PanelFindings]


@dataclass(frozen=True, slots=True)
class ReportMade(Result):
    """A page that was written, its numbers, and sentences for a Methods section."""

    path: str
    numbers: str  # JSON file with every number
    images: tuple[str, ...]
    pairs: tuple[str, ...]
    files: tuple[str, ...]
    refused: int  # numbers that there are not, each with its reason on the page
    methods: tuple[str, ...]
    references: tuple[str, ...]
    seconds: float

    def figures(self) -> dict[str, Figure]:
        """Say what the page tells of."""
        told = {name: ", ".join(getattr(self, name)) for name in _TOLD}
        if self.refused:
            told["refused"] = f"{self.refused}, each with its reason on the page"
        told = {"numbers": self.numbers, **told}
        return {name.capitalize(): Figure(text) for name, text in told.items() if text}


def _report(run: Run[ReportOptions]) -> Job[ReportMade]:
    """Measure images and pairs, and write a page of all that is known of them.

    `found` is what a panel found; of a pair the first image is the reference.
    """
    from napari_semsr.jobs.report.page import write_report

    started = time.monotonic()
    inputs, found = run.given["inputs"], run.named.get("found", ())
    if isinstance(inputs, (str, os.PathLike, Micrograph)):
        inputs = [inputs]
    chosen, reading = run.options, run.opening
    images, files = _sorted(inputs, found)
    given = [part for one in images for part in one]
    page, numbers = run.place, run.place.with_suffix(_NUMBERS)
    for place in (page, numbers):
        check_not_input(place, [*paths_of(*given), *files])
    records = [read_record(path) for path in files]
    opened = yield from _open_all(given, reading)
    each = list(opened.values())
    pairs = [_paired(*(opened[_key(i)] for i in one)) for one in images if one[1:]]
    total = len(each) + len(pairs)
    for number, item in enumerate(each):
        done = Progress(number, total, f"measuring {item.label}")
        yield from _measure(item, chosen, done)
    for number, pair in enumerate(pairs, len(each)):
        done = Progress(number, total, f"comparing {pair.label}")
        yield from _compare(pair, chosen, done)
    parts = ReportParts(each, pairs, records, found)
    methods, references = tell_methods(parts)
    yield Progress(0, 0, "drawing the report")
    named = (InputRecord(role="json", name=r.name, digest=r.digest) for r in records)
    made = yield from run.history(inputs=[*(item.record for item in each), *named])
    measured = [*(item.measured for item in each), *(pair.measured for pair in pairs)]
    result = ReportMade(
        path=str(page),
        numbers=str(numbers),
        images=tuple(item.label for item in each),
        pairs=tuple(item.label for item in pairs),
        files=tuple(item.name for item in records),
        refused=sum(len(item.refused) for item in measured),
        methods=methods,
        references=references,
        seconds=round(time.monotonic() - started, 2),
    )
    yield from write_report(page, result, chosen, parts, made)
    write_numbers(numbers, _every_number(result, chosen, parts, made))
    return replace(result, seconds=round(time.monotonic() - started, 2))


# What is given.


def _sorted(
    inputs: Sequence[Input], found: Sequence[PanelFindings]
) -> tuple[list[tuple[Image, ...]], list[Path]]:
    """Tell images and pairs, which are tuples of two, from JSON files."""
    images: list[tuple[Image, ...]] = []
    files: list[Path] = []
    for item in inputs:
        one = _pair_of(item) if isinstance(item, (str, os.PathLike)) else item
        if isinstance(one, tuple):
            images.append(_checked(one))
        elif isinstance(one, Micrograph):
            images.append((one,))
        elif is_record(Path(one)):
            files.append(Path(one))
        else:
            images.append((one,))
    count = len({_key(part) for one in images for part in one})
    if not (images or files or found):
        msg = "A report must have at least one image, pair or JSON file, got none."
        raise OptionError(msg)
    if count > _MOST:
        msg = (
            f"A report must have at most {_MOST} images, got {count}; write several "
            "reports."
        )
        raise OptionError(msg)
    return images, files


def _pair_of(item: Where) -> Input:
    """Split ``A::B``, unless a file has that very name."""
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
    if len(there) == 1:  # names may hold the mark themselves
        return there[0]
    if len(cuts) != 1 or len(words) != 2:
        msg = f"A pair must be two images as A::B, got {text}."
        raise OptionError(msg)
    return cuts[0]


def _checked(pair: tuple[Image, ...]) -> tuple[Image, ...]:
    """Refuse a pair that is none."""
    if len(pair) != 2 or _key(pair[0]) == _key(pair[1]):
        names = " and ".join(map(name_of, pair))
        msg = f"A pair must be two different images, got {names}."
        raise OptionError(msg)
    for path in paths_of(*pair):
        if is_record(path):
            msg = f"A pair must be two images, got the JSON file {path.name}."
            raise OptionError(msg)
    return pair


def _key(image: Image) -> object:
    """Tell one image from another."""
    return id(image) if isinstance(image, Micrograph) else Path(image).resolve()


def _open_all(given: Sequence[Image], reading: ReadOptions) -> Job[dict[Any, Picture]]:
    """Open and record each image once."""
    found: dict[Any, Picture] = {}
    for image in {_key(image): image for image in given}.values():
        yield Progress(0, 0, f"reading {name_of(image)}")
        opened = open_image(image, reading)
        record = yield from record_input(image, opened, reading)
        path = None if isinstance(image, Micrograph) else os.fspath(image)
        found[_key(image)] = Picture(
            label=opened.name,
            image=opened,
            record=record,
            size_from=_size_from(opened, reading, is_file=path is not None),
            path=path,
        )
    _tell_apart(list(found.values()))
    return found


def _tell_apart(pictures: list[Picture]) -> None:
    """Give images of one name names that differ: with their suffix, folder, number."""
    ways: tuple[Callable[[int, Picture], str], ...] = (
        lambda _, item: Path(item.path).name if item.path else item.label,
        lambda _, item: (
            "/".join(Path(item.path).parts[-2:]) if item.path else item.label
        ),
        lambda number, item: f"{item.label} ({number + 1})",
    )
    for way in ways:
        labels = [item.label for item in pictures]
        for number, item in enumerate(pictures):
            if labels.count(item.label) > 1:
                item.label = way(number, item)


def _size_from(image: Micrograph, reading: ReadOptions, *, is_file: bool) -> str:
    """Say where a pixel size comes from."""
    if image.pixel_size_nm is None:
        return "not known"
    if reading.pixel_size_nm is not None:
        known = reading.pixel_size_sd_nm is not None
        return "from a calibration" if known else "given when the report was made"
    step = _stating(image.provenance)
    if step is not None:
        known = step[1].get("pixel_size_sd_nm") is not None
        return f"{'from a calibration' if known else 'given'} in its step {step[0]}"
    vendor = image.metadata.get("vendor")
    if vendor:
        return f"from the metadata of the {vendor} microscope"
    if image.provenance is not None:
        return f"handed on by its step {image.provenance.job}"
    kind = image.metadata.get("format")
    return f"from the {kind} metadata" if is_file and kind else "as it was opened"


def _stating(made: Provenance | None) -> tuple[str, dict[str, Any]] | None:
    """Find the last step of a history in which a pixel size was stated."""
    while made is not None:
        options = {**made.options, **(made.options.get("reading") or {})}
        if options.get("pixel_size_nm") is not None:
            return made.job, options
        before = (item.provenance for item in made.inputs if item.provenance)
        made = next(before, None)
    return None


def _told_options(options: dict[str, Any]) -> str:
    """Write the options of a step that say something, in a line."""
    flat = options | (options.get("reading") or {})
    told = [
        f"{name} {value}"
        for name, value in flat.items()
        if isinstance(value, (bool, int, float, str)) and value != "" and name != LEARNT
    ]
    return ", ".join(told) or NO_VALUE


def _paired(reference: Picture, compared: Picture) -> Pair:
    """Put two images together; what a network made is held against what was taken."""
    if reference.networks and not compared.networks:
        reference, compared = compared, reference
    if reference.image.shape > compared.image.shape:
        reference, compared = compared, reference
    (high, wide), (rows, columns) = reference.image.shape, compared.image.shape
    factor = rows // high
    if factor < 1 or (rows, columns) != (factor * high, factor * wide):
        msg = (
            f"Both images of a pair must have the same size, or one so many "
            f"times the pixels, got {reference.label} with {high} x {wide} px and "
            f"{compared.label} with {rows} x {columns} px; bring them onto one grid "
            "with semsr crop --like or semsr register."
        )
        raise ShapeError(msg)
    return Pair(reference, compared)


# What is measured.


def _middle(shape: tuple[int, int], side: int = _MIDDLE_PX) -> Box:
    """Choose what of a large field is measured."""
    rows, columns = (min(n, side) for n in shape)
    y, x = (shape[0] - rows) // 2, (shape[1] - columns) // 2
    return Box(y, y + rows, x, x + columns)


def _part(image: Micrograph, box: Box) -> Micrograph:
    """Read a part into memory."""
    return image.replace(
        data=read_box(image.data, box),
        origin=Grid.of(image).centre(box),
        look=image.look,
    )


def _tried(
    measured: Measured,
    names: Sequence[str],
    make: Callable[[], Job[T]],
    key: str = "",
    say: Callable[[T], Sequence[Number]] = lambda _: (),
    part: Callable[[T], Any] = lambda found: found,
) -> Job[T | None]:
    """Measure something; what is refused is noted with its reason.

    The result, or a `part` of it, is kept by its `key`, numbers as `say` gives them.
    """
    try:
        found = yield from collect_warnings(make(), measured.notes)
    except SemsrError as error:
        measured.refuse(names, error)
        return None
    if key:
        measured.results[key] = part(found)
    measured.numbers += say(found)
    return found


def _tried_frc(
    measured: Measured, image: Micrograph, make: Callable[[], Job[Any]]
) -> Job[Any]:
    """Measure a ring correlation, told in the pixels of an image."""
    how: Any = {
        "say": lambda found: [frc_number(found.result, image, found.note)],
        "part": lambda found: found.result,
    }
    return (yield from _tried(measured, (FRC,), make, "frc", **how))


def _step(done: Progress, what: str) -> Progress:
    """Say what is measured of an image."""
    return replace(done, message=f"{done.message}: {what}")


def _now(make: Callable[[], T], step: Progress) -> Callable[[], Job[T]]:
    """Make a job of one step."""

    def job() -> Job[T]:
        yield step
        return make()

    return job


def _measure(item: Picture, options: ReportOptions, done: Progress) -> Job[None]:
    """Measure an image by itself."""
    measured, image = item.measured, item.image
    step = partial(_step, done)
    box = _middle(image.shape)
    if box.shape != image.shape:
        item.box = box
        measured.notes.append(
            f"Measured in the middle {box.shape[0]} x {box.shape[1]} px of "
            f"{image.shape[0]} x {image.shape[1]} px."
        )
    yield step("grey levels")
    part = _part(image, box)
    if item.is_map:
        measured.numbers += map_numbers(part)
        return
    measured.numbers += grey_numbers(part)
    _tell_databar(item, part)
    whole = yield from _tried(measured, (FRC, DECORRELATION), lambda: cut_gaps(part))
    if whole is None:
        return
    (full,), gap_free = whole
    if gap_free is not None:
        item.box = Box.of(gap_free.shape, (box.y0 + gap_free.y0, box.x0 + gap_free.x0))
        measured.notes.append(
            f"Resolution, spectrum and sharpness are measured in the largest rectangle "
            f"without a gap, {gap_free.shape[0]} x {gap_free.shape[1]} px."
        )
    yield step("Fourier ring correlation")
    yield from _measure_frc(item, part, full, box, options)
    yield step("decorrelation")
    yield from _tried(
        measured,
        (DECORRELATION,),
        lambda: measure_decorrelation(full),
        "decorrelation",
        lambda found: [decorrelation_number(found, image)],
    )
    sharp = _now(lambda: measure_metrics(full), step("sharpness"))
    yield from _tried(measured, SHARPNESS, sharp, "metrics", sharpness_numbers)
    counted = _now(lambda: measure_histogram(part), step("histogram"))
    yield from _tried(measured, ("Histogram",), counted, "histogram")
    power = _now(lambda: measure_spectrum(full).radial, step("spectrum"))
    yield from _tried(measured, ("Spectrum",), power, "spectrum")


def _tell_databar(item: Picture, part: Micrograph) -> None:
    """Warn of what looks like a data bar, in a file that does not tell of one."""
    image = item.image
    if item.path is None or image.provenance is not None or item.box is not None:
        return
    rows = 0
    if not image.metadata.get("databar_rows_cropped"):
        rows = suggest_databar(part.array())
    if rows:
        item.measured.notes.append(
            f"The lowest {rows} rows of {item.label} look like a data bar and are "
            f"measured with it; leave them away (--databar-rows {rows})."
        )


def _measure_frc(
    item: Picture,
    part: Micrograph,
    full: Micrograph,
    box: Box,
    options: ReportOptions,
) -> Job[None]:
    """Measure the resolution, by the halves of a mosaic where they lie beside it."""
    halves, note, place = None, None, item.path or item.image.path
    if place is not None:
        halves, note = find_halves(Path(place), item.image)
    parts = None
    if halves is not None:
        parts = _part(halves[0], box), _part(halves[1], box)
    source = full if parts is None else part
    measured = item.measured
    chosen = FrcJobOptions(criterion=options.criterion)
    correlate = partial(FRC_VERB.job, source, halves=parts, options=chosen)
    found = yield from _tried_frc(measured, item.image, correlate)
    if found is None:
        return
    if parts is not None:
        measured.results["halves"] = [half.name for half in parts]
    if note is not None:
        measured.notes.append(f"{note} {ALONE}")
    number = measured.number(FRC)
    if item.networks and number is not None and number.value is not None:
        name = item.networks[-1][0]
        measured.notes.append(
            f"{item.label} was made by the network {name}: resolution and cut-off of "
            "it alone tell how fine the network draws, not what was resolved."
        )


def _compare(pair: Pair, options: ReportOptions, done: Progress) -> Job[None]:
    """Measure one image against another."""
    measured = pair.measured
    step = partial(_step, done)
    first, second = pair.reference.image, pair.compared.image
    if first.shape == second.shape:
        box = _middle(first.shape)
        if box.shape != first.shape:
            measured.notes.append(
                f"Compared in the middle {box.shape[0]} x {box.shape[1]} px."
            )
        first, second = _part(first, box), _part(second, box)
    parts = first, second
    if first.shape == second.shape:
        every = (*AS_THEY_ARE, FRC)
        cut = yield from _tried(measured, every, lambda: cut_gaps(first, second))
        parts = (first, second) if cut is None else (cut[0][0], cut[0][1])
    how: dict[str, Any] = {}
    for names in (AS_THEY_ARE, MATCHED):
        near = partial(measure_metrics, parts[1], parts[0], **how)
        key, say = how.get("match", "as they are"), partial(metric_numbers, names=names)
        job = _now(near, step("PSNR and SSIM"))
        yield from _tried(measured, names, job, f"metrics {key}", say)
        how["match"] = "affine"
    counted = _now(lambda: measure_histogram(second, first), step("greys"))
    distance: Any = {"say": lambda found: [emd_number(found)]}
    yield from _tried(measured, (EMD,), counted, "histogram", **distance)
    yield step("Fourier ring correlation")
    yield from _correlate(pair, parts, options)
    yield step("error map")
    map_errors = partial(ERROR_MAP.job, first, second)
    how = {"say": error_numbers, "part": ErrorMapReport.to_json}
    errors = yield from _tried(measured, ERRORS, map_errors, "error_map", **how)
    pair.map = None if errors is None else errors.map
    measured.notes[:] = dict.fromkeys(measured.notes)


def _correlate(
    pair: Pair, parts: tuple[Micrograph, Micrograph], options: ReportOptions
) -> Job[None]:
    """Measure up to which frequency both agree."""
    chosen = FrcJobOptions(criterion=options.criterion)
    calibrated = next((part for part in parts if part.pixel_size_nm), parts[0])
    correlate = partial(FRC_VERB.job, *parts, options=chosen)
    found = yield from _tried_frc(pair.measured, calibrated, correlate)
    if found is not None and found.found_shift_px is not None:
        shift = _shift(found.found_shift_px, found.found_shift_sd_px)
        pair.measured.numbers.append(shift)


def _shift(found: tuple[float, float], error: float | None) -> Number:
    """Say by how much the compared image was found to lie off."""
    told = f"({found[0]:+.2f}, {found[1]:+.2f}) px".replace("-", "\N{MINUS SIGN}")
    sure = "" if error is None else f" ± {error:.2f} px"
    return Number(
        "Shift, down and right", told + sure, method="found by cross-correlation"
    )


# Every number.


def _every_number(
    result: ReportMade, options: ReportOptions, parts: ReportParts, made: Provenance
) -> dict[str, Any]:
    """Compose the JSON file."""
    version = software_versions()["napari-semsr"]

    def told(measured: Measured, *inputs: Picture) -> dict[str, Any]:
        how = {"version": version, "inputs": [item.record.digest for item in inputs]}
        return {
            "numbers": [item.to_json() | how for item in measured.numbers],
            "results": jsonable(measured.results),
            "notes": measured.notes,
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
                "pixel_size_nm": jsonable(item.image.pixel_size_nm),
                "pixel_size_sd_nm": jsonable(item.image.pixel_size_sd_nm),
                "pixel_size_from": item.size_from,
                "measured_box_px": None
                if item.box is None
                else [item.box.y0, item.box.x0, item.box.y1, item.box.x1],
                "networks": [{"name": n, "digest": d} for n, d in item.networks],
                "provenance": jsonable(item.image.provenance),
                **told(item.measured, item),
            }
            for item in parts.pictures
        ],
        "pairs": [
            {
                "reference": pair.reference.label,
                "compared": pair.compared.label,
                **told(pair.measured, pair.reference, pair.compared),
            }
            for pair in parts.pairs
        ],
        "files": [
            {
                name: getattr(item, name)
                for name in ("name", "digest", "verb", "content")
            }
            for item in parts.records
        ],
        "found": [
            {"title": f.title, "of": list(f.origin), "numbers": dict(f.rows)}
            for f in parts.found
        ],
        "methods": list(result.methods),
        "references": list(result.references),
        "provenance": jsonable(made),
    }


REPORT = Verb(
    "report",
    (
        ImageIn(
            "inputs",
            "images and stores, JSON that a measuring verb wrote, and pairs as A::B, "
            "of which A is the reference",
            metavar="INPUT",
            many=True,
            pairs=True,
        ),
    ),
    ReportOptions,
    ReportMade,
    _report,
    title="report",
    output=Output(
        "the page, .html; every number goes beside it as .json",
        ending=".html",
        is_image=False,
        beside=(_NUMBERS,),
    ),
    opens=False,
    example="""
    >>> import json
    >>> import tempfile
    >>> import numpy as np
    >>> import napari_semsr as semsr
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
