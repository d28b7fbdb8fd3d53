"""Job inputs and outputs: open images, check output paths, convert results to JSON."""

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import numpy as np
from pydantic import BaseModel

from napari_semsr import core, io
from napari_semsr.analysis import Falloff, split_into_blocks

if TYPE_CHECKING:
    import dask.array as da

T = TypeVar("T")

Image = core.Micrograph | str | os.PathLike[str]
"""Input of a job: an image in memory, or its path."""


def open_image(
    image: Image | io.Source,
    options: io.ReadOptions | None = None,
    *,
    blank: bool = False,
) -> core.Micrograph:
    """Open the input of a job, or read a file that is already open."""
    options = options or io.ReadOptions()
    if isinstance(image, core.Micrograph):
        image_opened = _apply_read_options(image, options)
    else:
        source = image if isinstance(image, io.Source) else open_source(image)
        path, image_opened = source.path, source.read(options)
        if path.is_dir():
            io.warn_about_missing_blocks(path, options.series or 0, options.level)
        count = image_opened.metadata.get("series", 1)
        own, which = io.count_series(image_opened.metadata, count)
        if own == 1 and options.dataset is None:  # its record may name an ancestor
            name = core.escape_invisible_characters(io.remove_suffixes(path.name))
            image_opened = image_opened.replace(name=name)
        if own > 1 and options.series is None:
            core.warn(
                f"{path.name} contains {own} images, and {which} is used. To use "
                f"another, set series to a number from 0 to {count - 1}.",
                "several-images",
            )
    if image_opened.dtype.kind == "f":  # infinite and huge grey values become NaN
        before, own_name = image_opened.data, image_opened.name
        mask, kind = core.mask_fill_values, image_opened.dtype
        if image_opened.is_lazy:
            data = before.map_blocks(mask, own_name, dtype=kind)
        else:
            data = mask(before, own_name)
        if data is not before:
            look, place = image_opened.look, image_opened.path
            image_opened = image_opened.replace(data=data, look=look, path=place)
        if blank or not core.is_empty(image_opened.data):
            return image_opened
        name = get_image_name(image.path if isinstance(image, io.Source) else image)
        msg = f"{name} has no finite pixels: check that the file is complete."
        raise core.ReadError(msg, code="no-finite-values")
    return image_opened


def require_all_pixels(image: core.Micrograph) -> None:
    """Raise an error if an image has missing pixels."""
    grey = image.array()
    missing = grey.size - int(np.count_nonzero(np.isfinite(grey)))
    if missing:
        msg = (
            f"{image.name} has {missing} missing pixels (NaN or infinite); crop it to "
            "a gap-free area (`crop(gap_free=True)`)."
        )
        raise core.OptionError(msg, code="pixels-missing")


def open_source(image: str | os.PathLike[str]) -> io.Source:
    """Open an image file for reading and for recording its digest."""
    path = Path(image)
    if not io.path_exists(path):
        raise io.create_missing_file_error(path)
    return io.Source.from_path(path)


_IN_FILES = ("series", "level", "channel", "time", "z", "plane", "dataset")


def _apply_read_options(
    image: core.Micrograph, options: io.ReadOptions
) -> core.Micrograph:
    """Apply reading options to an image in memory."""
    for name in _IN_FILES:
        if getattr(options, name):
            msg = (
                f"{image.name} is a single image in memory and has no {name}: omit "
                f"{name}, or pass the path of its file."
            )
            raise core.OptionError(msg, code="option-without-effect")
    rows, before = options.databar_rows, image.metadata.get(io.CUT_KEY, 0)
    if rows is not None and rows != before:
        rows_left, has = image.shape[0] - rows, f"{image.shape[0]} rows"
        if before or rows_left < 1:
            has += f", after {before} rows of data bar were removed" if before else ""
            msg = (
                f"{image.name} has {has}, so a data bar of {rows} rows cannot be "
                "removed: omit databar_rows, or pass the path of its file."
            )
            raise core.OptionError(msg, code="out-of-range")
        facts = {**image.metadata, io.CUT_KEY: rows}
        data, look, path = image.data[:rows_left], image.look, image.path
        image = image.replace(data=data, look=look, path=path, metadata=facts)
    if options.pixel_size_nm is None:
        return image
    return image.calibrate(options.pixel_size_nm, options.pixel_size_sd_nm)


def correct_pixel_sizes(
    images: Sequence[core.Micrograph], options: io.ReadOptions
) -> list[core.Micrograph]:
    """Correct the pixel sizes of images opened with the same user-defined size.

    If the images state different spacings, each size is scaled by its spacing: a result
    with twice the pixels has half the size.
    """
    size, spacings = options.pixel_size_nm, {image.spacing_px for image in images}
    if size is None or len(spacings) < 2:
        return list(images)
    return [one.with_pixel_size(np.multiply(size, one.spacing_px)) for one in images]


def create_databar_note(
    name: str, image: core.Micrograph, reach: float | None = None
) -> core.Message | None:
    """Return a note if an image seems to contain an unrecorded data bar.

    Only the first `reach` rows are searched, or all.
    """
    has_answer = image.provenance is not None or image.metadata.get(io.CUT_KEY)
    rows = 0 if has_answer else io.detect_databar(image.data, reach)
    rows = int(rows * image.metadata.get(io.LEVEL_KEY, 1))
    if not rows:
        return None
    return core.Message(
        f"The bottom {rows} rows of {name} look like a data bar but are treated as "
        f"part of the image: remove them (`databar_rows={rows}`).",
        "databar-suspected",
    )


_FEW_LEVELS = 16  # a sixteenth of the range is the noise of a fast scan


def create_grey_level_note(
    image: core.Micrograph, dtype: str | None
) -> core.Message | None:
    """Return a note if an integer dtype leaves too few grey levels."""
    if dtype is None or np.dtype(dtype).kind == "f" or image.dtype.kind != "f":
        return None
    low, high = core.contrast_limits(image.data)
    if high - low >= _FEW_LEVELS:
        return None
    return core.Message(
        f"{dtype} stores only integers, but the grey values of {image.name} range "
        f"from {low:.3g} to {high:.3g}: omit the dtype, or write a "
        "contrast-stretched .png without it.",
        "values-rounded",
    )


def get_image_name(image: Image) -> str:
    """Return the name of an image for messages and records."""
    return image.name if isinstance(image, core.Micrograph) else Path(image).name


def create_input_record(
    image: Image | io.Source,
    image_opened: core.Micrograph,
    options: io.ReadOptions | None = None,
    *,
    role: str = "image",
) -> core.InputRecord:
    """Create the provenance record of an input, in one step."""
    return core.run(record_input(image, image_opened, options, role=role))


def record_input(
    image: Image | io.Source,
    image_opened: core.Micrograph,
    options: io.ReadOptions | None = None,
    *,
    role: str = "image",
) -> core.Job[core.InputRecord]:
    """Create the provenance record of an input, in steps if the input is large."""
    if isinstance(image, core.Micrograph):
        digest = yield from digest_values(image_opened)
    elif isinstance(image, io.Source):
        digest = yield from image.compute_digest()
        digest += _format_selection(options or io.ReadOptions())
        image = image.path
    else:
        digest = yield from digest_image(Path(image), options)
    path = image.path if isinstance(image, core.Micrograph) else get_record_path(image)
    return core.InputRecord(
        role=role,
        name=get_image_name(image),
        digest=digest,
        provenance=image_opened.provenance,
        path=path,
    )


def append_image_records(
    images: tuple[core.Micrograph, core.Micrograph],
    records: tuple[core.InputRecord, core.InputRecord],
) -> core.Job[tuple[core.Micrograph, core.Micrograph]]:
    """Append the record of each image to its history, before any cropping.

    This lets `measure_frc` find that one image was made from the other. A history has
    the digest of a file or that of its grey values.
    """
    histories = [one.provenance for one in images]
    first, second = (one and one.reproducible_record() for one in histories)
    if first == second:
        return images
    apart = records[0].path != records[1].path  # otherwise possibly planes of one stack
    recorded = []
    for image, record in zip(images, records, strict=True):
        values = yield from digest_values(image)
        digests = {values} - {record.digest}
        path = Path(record.path) if record.path and apart else None
        if values == record.digest and path is not None and path.exists():
            digests.add((yield from io.digest_image_file(path)))
        more = [
            core.InputRecord(role="image", name=record.name, digest=digest)
            for digest in sorted(digests)
        ]
        history = compose_provenance("crop", {}, record, *more)
        recorded.append(image.replace(provenance=history))
    return recorded[0], recorded[1]


def digest_image(path: Path, options: io.ReadOptions | None = None) -> core.Job[str]:
    """Compute the digest of an input file, including the image selection."""
    digest = yield from io.digest_image_file(path)
    return digest + _format_selection(options or io.ReadOptions())


def record_file(path: str | os.PathLike[str], role: str) -> core.InputRecord:
    """Record an auxiliary file, such as a table, blur kernel, transform or model."""
    place = Path(path)
    digest = core.digest_path(place)
    return core.InputRecord(
        role=role, name=place.name, digest=digest, path=get_record_path(place)
    )


_MOVING = "register", "stitch"  # jobs that move pixels


def collect_digests(
    record: core.InputRecord, *, in_place: bool = False
) -> Iterator[str]:
    """Yield the digests of an image and of all images that it was made from.

    `in_place`: only images with the same content at the same position, in nm.
    """
    history = record.provenance
    if record.digest is not None:
        yield record.digest
    is_moved = history is not None and (
        history.job in _MOVING or history.options.get("shift_px")
    )
    if history is not None and not (in_place and is_moved):
        for item in history.inputs:
            yield from collect_digests(item, in_place=in_place)


def get_record_path(path: str | os.PathLike[str]) -> str:
    """Return a file path in the format used in records."""
    return Path(path).absolute().as_posix()


def create_stack_record(
    record: core.InputRecord, options: io.ReadOptions
) -> core.InputRecord:
    """Create the record of a fully read stack from the record of one plane."""
    whole = (record.digest or "").partition("#")[0] + _format_selection(options)
    return record.model_copy(update={"digest": whole})


def compose_provenance(
    job: str,
    options: dict[str, object],
    *inputs: core.InputRecord,
    guides: Iterable[core.InputRecord] = (),
    part: str | None = None,
) -> core.Provenance:
    """Compose the provenance of an output, with the current versions and device."""
    return core.Provenance(
        job=job,
        options=options,
        inputs=inputs,
        guides=tuple(guides),
        part=part,
        versions=core.get_software_versions(),
        device=f"cpu: {core.get_processor_name()}",
        threads=core.count_available_cores(),
    )


def compose_derived_provenance(
    job: str, options: dict[str, object], **images: core.Micrograph
) -> core.Provenance:
    """Compose the provenance of a result without reading the image files."""
    inputs = [
        core.InputRecord(
            role=role, name=image.name, provenance=image.provenance, path=image.path
        )
        for role, image in images.items()
    ]
    return compose_provenance(job, options, *inputs)


def _format_selection(options: io.ReadOptions) -> str:
    """Format the selection of an image in a file; empty for the first image.

    The first is omitted, as in older records.
    """
    values = {name: getattr(options, name) for name in _IN_FILES if name != "level"}
    values["series"] = options.series or None
    texts = [f"{name}={value}" for name, value in values.items() if value is not None]
    return "#" + ",".join(texts) if texts else ""


class ValueDigest:
    """Digest of the grey values of an image, which are added in bands of rows."""

    def __init__(self, image: core.Micrograph) -> None:
        self._digest = hashlib.sha256(f"{image.shape}{image.dtype.str}".encode())

    def add_rows(self, rows: core.RealArray) -> None:
        """Add the next rows (Y, X)."""
        pixels = np.ascontiguousarray(rows).reshape(-1)
        self._digest.update(pixels.view(np.uint8).data)

    def __str__(self) -> str:
        return f"sha256:{self._digest.hexdigest()}"


def digest_values(micrograph: core.Micrograph) -> core.Job[str]:
    """Compute the digest of grey values, one band of rows per step."""
    digest, data = ValueDigest(micrograph), micrograph.data
    step = max(1, (1 << 22) // micrograph.shape[1])
    if micrograph.is_lazy and step < data.chunks[0][0] <= 4 * step:
        step = int(data.chunks[0][0])  # so no chunk is read twice
    end, columns = micrograph.shape
    for row in range(0, end, step):
        rows = core.read_box(data, core.Box(row, min(row + step, end), 0, columns))
        digest.add_rows(rows)
        if row + step < end:
            doing = f"recording the input {micrograph.name}"
            yield core.Progress(row + step, end, doing)
    return str(digest)


def get_calibrated_image(
    first: core.Micrograph, second: core.Micrograph | None
) -> core.Micrograph:
    """Return the first image with a pixel size; warn if an image has none."""
    images = [first] if second is None else [first, second]
    sized_image = next((one for one in images if one.pixel_size_nm is not None), None)
    bare_image = next((one for one in images if one.pixel_size_nm is None), None)
    if bare_image is not None:
        what = "results are not in nm; set it (`pixel_size_nm`)"
        if sized_image is not None:
            size = f"the pixel size of {sized_image.name}"
            what = f"{size} is used; check that it applies"
        message = f"{bare_image.name} has no pixel size, so {what}."
        core.warn(message, "pixel-size-missing")
    return first if sized_image is None else sized_image


def collect_warnings(job: core.Job[T], sentences: list[str]) -> core.Job[T]:
    """Run a job and collect its warnings, while still showing them."""
    with closing(job):
        while True:
            sentences_heard: list[str] = []
            try:
                with core.capture_warnings(sentences_heard.append):
                    step = next(job)
            except StopIteration as end:
                result: T = end.value
                return result
            finally:
                for text in sentences_heard:
                    core.warn(text)
                    sentences.append(text)
            yield step


# Results of jobs, as JSON without NaN.


def to_json_value(value: object) -> Any:
    """Convert a value to JSON types."""
    if isinstance(value, (np.ndarray, np.generic)):
        return to_json_value(value.tolist())
    if isinstance(value, BaseModel):
        return to_json_value(value.model_dump())
    if is_dataclass(value) and not isinstance(value, type):
        record: dict[str, object] = {}
        for item in fields(value):
            inner = getattr(value, item.name)
            if item.metadata.get("flat"):
                record |= to_json_value(inner) or {}  # None if nothing was found
            elif item.metadata.get("json", True):
                record[item.name] = to_json_value(inner)
        return record
    if isinstance(value, Mapping):
        return {str(key): to_json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_json_value(item) for item in value]
    return _convert_scalar(value)


def _convert_scalar(value: object) -> object:
    """Convert a scalar to JSON types."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return value if value is None or isinstance(value, (int, str)) else str(value)


@dataclass(frozen=True, slots=True)
class Result:
    """Base class of job results."""

    def tables(self) -> Mapping[str, Mapping[str, Sequence[object]]]:
        """Return tables of the result by title, each with columns by header."""
        return {}

    def to_json(self) -> dict[str, Any]:
        """Return the record that a command prints: fields and declared properties."""
        record: dict[str, Any] = to_json_value(self)
        for name in core.get_stored_names(type(self)):
            if name not in record:
                record[name] = to_json_value(core.get_value(self, name))
        if "pixel_size_sd_nm" in record:
            size, error = record["pixel_size_nm"], record["pixel_size_sd_nm"]
            record["pixel_size_basis"] = core.get_size_basis(size, error)
        return record


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelSizeResult(Result):
    """Measurements of one or more images with the same pixel size."""

    pixel_size_nm: Annotated[
        core.FloatPair | None, core.Quantity("Pixel size", shown=False)
    ]
    pixel_size_sd_nm: core.FloatPair | None

    @property
    def pixel_size(self) -> Annotated[str, core.Quantity("Pixel size", tabled=False)]:
        """Pixel size with its uncertainty, as text."""
        return core.describe_pixel_size(self.pixel_size_nm, self.pixel_size_sd_nm)

    @property
    def pixel_size_basis(
        self,
    ) -> Annotated[str, core.declare_quantity("Basis of the pixel size")]:
        """Basis of the pixel size (recorded or calibrated), or None if unknown."""
        return core.get_size_basis(self.pixel_size_nm, self.pixel_size_sd_nm)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMeasurement(PixelSizeResult):
    """Measurements of images."""

    images: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageResult(Result):
    """Output image: its path, or the image itself if it was not written."""

    output: str | None
    shape: tuple[int, ...]  # rows and columns; planes before them for a stack
    dtype: Annotated[str, core.Quantity("Type")]
    pixel_size_nm: core.FloatPair | None
    pixel_size_sd_nm: core.FloatPair | None
    clipped: int = 0  # pixels clipped to the data type
    image: core.Micrograph | None = field(default=None, metadata={"json": False})

    @property
    def pixel_size(self) -> Annotated[str, core.Quantity("Pixel size")]:
        """Pixel size with its uncertainty, as text."""
        return core.describe_pixel_size(self.pixel_size_nm, self.pixel_size_sd_nm)

    @property
    def clipped_pixels(self) -> Annotated[int | None, core.Quantity("Clipped pixels")]:
        """Clipped pixels, if any."""
        return self.clipped or None


SIZES = ("pixel_size_nm", "pixel_size_sd_nm", "pixel_size_basis")
"""Keys of the pixel-size fields in a record."""


# Checks of output paths, made before any work.


def check_image_target(
    output: str | os.PathLike[str],
    *,
    inputs: Iterable[str | os.PathLike[str]] = (),
    overwrite: bool = False,
    resume: bool = False,
    also: Sequence[str] = (),
) -> Path:
    """Raise an error if an image cannot be written to an output path.

    A store that is written tile by tile may be resumed. The error names the suffixes
    that the caller accepts `also`.
    """
    path = Path(output)
    check_output_not_input(path, inputs)
    if not (resume and path.exists() and io.get_output_format(path) == "ome-zarr"):
        _check_parent_folder(path)
        io.get_output_format(path, also)
        io.check_target(path, overwrite=overwrite)
    return path


@dataclass(frozen=True, slots=True)
class OverwritePolicy:
    """Policy for existing and unfinished outputs."""

    overwrite: bool = False
    resume: bool = False  # resume an interrupted run
    keep: bool = False  # keep finished parts if this run fails or stops

    def find_resumable_store(self, target: Path) -> Path | None:
        """Return the store that a later run can resume, or None if none is kept."""
        keeps = self.keep or self.resume
        return io.get_output_store_path(target, resume=self.resume) if keeps else None

    def get_write_options(self, place: Path, target: Path) -> dict[str, bool]:
        """Return the options for a writer; a hidden path can always be overwritten."""
        return {"overwrite": self.overwrite or place != target, "resume": self.resume}

    def open_store(
        self, about: core.Micrograph, place: Path, target: Path, **how: Any
    ) -> io.OmeZarrStore:
        """Create the store of an output, or open the store to resume.

        An error names the output, not the hidden store next to it.
        """
        how |= self.get_write_options(place, target)
        with io.name_output_in_errors(place, target):
            return io.create_image_store(about, place, **how)


KEEP_PARTS = OverwritePolicy(keep=True)
"""An existing output is an error, and a run that stops keeps its finished parts."""


REPLACING = OverwritePolicy(overwrite=True)
"""Policy that overwrites existing files."""


def check_target_file(
    output: str | os.PathLike[str],
    *,
    suffixes: Sequence[str],
    inputs: Iterable[str | os.PathLike[str]] = (),
    overwrite: bool = False,
) -> Path:
    """Raise an error if a file cannot be written to an output path."""
    path = Path(output)
    if not path.name.lower().endswith(tuple(suffixes)):
        suffixes_text = core.format_alternatives(suffixes)
        msg = f"The output must end in {suffixes_text}, got {path.name}."
        raise core.WriteError(msg, code="suffix-unknown")
    check_output_not_input(path, inputs)
    _check_parent_folder(path)
    if path.is_dir():
        msg = f"{path} is a folder; set a file name."
        raise core.WriteError(msg, code="output-is-folder")
    if path.exists() and not overwrite:
        raise io.create_existing_file_error(path)
    return path


def check_target_folder(
    output: str | os.PathLike[str], *, empty: bool = True, parents: bool = False
) -> Path:
    """Raise an error if an output folder is not empty or cannot be created."""
    path = Path(output)
    if path.name in ("", ".."):  # hidden names next to it are derived from its name
        path = _resolve_path(path)
    first = path
    while parents and not first.absolute().parent.exists():
        first = first.absolute().parent
    _check_parent_folder(first)
    if path.exists() and not path.is_dir():
        msg = f"{path} is a file; choose a folder."
        raise core.WriteError(msg, code="output-is-file")
    if path.is_dir() and core.list_folder(path) and empty:
        msg = f"The folder {path} is not empty; choose another or set `overwrite`."
        raise core.WriteError(msg, code="output-exists")
    return path


def check_output_not_input(
    path: Path, inputs: Iterable[str | os.PathLike[str]]
) -> None:
    """Raise an error if an output is also an input."""
    for item in inputs:
        source, target = _resolve_path(Path(item)), _resolve_path(path)
        if source == target:
            msg = f"The output {path} is also the input; choose another name."
            raise core.WriteError(msg, code="output-is-input")
        if source.suffix == ".zarr" and source in target.parents:
            msg = f"The output {path} is inside the input {item}; choose another path."
            raise core.WriteError(msg, code="output-is-input")


def _resolve_path(path: Path) -> Path:
    """Resolve symbolic links, leaving circular ones unchanged."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return path.absolute()


def check_outputs_differ(target: Path, other: Path) -> None:
    """Raise an error if two outputs have the same or nested paths."""
    one, two = _resolve_path(target), _resolve_path(other)
    if one == two or one in two.parents or two in one.parents:
        msg = (
            f"Two outputs must have different, non-nested paths, got {target} and "
            f"{other}: choose another path for one of them."
        )
        raise core.WriteError(msg, code="outputs-coincide")


def _check_parent_folder(path: Path) -> None:
    """Raise an error if a folder is missing or read-only."""
    parent = path.absolute().parent
    if parent.exists() and not parent.is_dir():
        msg = f"{parent} is a file, not a folder; choose another folder."
        raise core.WriteError(msg, code="output-is-file")
    if not parent.is_dir():
        msg = f"The folder {parent} does not exist; create it first."
        raise core.WriteError(msg, code="folder-missing")
    if not os.access(parent, os.W_OK):
        msg = f"The folder {parent} is not writable; choose another folder."
        raise core.WriteError(msg, code="no-permission")


def write_positions(
    path: Path,
    places: Mapping[str, Iterable[float] | None],
    unit: str = "px",
    *,
    append: bool = False,
) -> None:
    """Write top-left corners ``(y, x)``, one row per frame, with empty cells for None.

    In pixels, a file with suffix ``.txt`` has the format of Fiji's stitching. `append`:
    add the rows to those of the file, which has this unit.
    """
    if path.suffix.lower() == ".txt":
        io.write_fiji_positions(path, places)
        return
    rows = [
        [name, *(("", "") if corner is None else (f"{v:.6f}" for v in corner))]
        for name, corner in places.items()
    ]
    header = [] if append else [["frame", f"y_{unit}", f"x_{unit}"]]
    io.write_csv(path, header + rows, append=append)


# Write images that are computed on demand.


class _PixelView:
    """Array-like view of a pixel source, read by slices."""

    ndim = 2

    def __init__(self, pixels: "core.GridImage | core.WarpedImage") -> None:
        self.shape, self.dtype = pixels.grid.shape, pixels.dtype
        self._read = pixels.read

    def __getitem__(self, index: tuple[slice, slice]) -> core.RealArray:
        spans = [item.indices(n)[:2] for item, n in zip(index, self.shape, strict=True)]
        return self._read(core.Box(*spans[0], *spans[1]))


def create_lazy_array(
    pixels: "core.GridImage | core.WarpedImage", chunk: int
) -> "da.Array":
    """Create a dask array of pixels that are computed on demand."""
    import dask.array as da

    meta = np.empty((0, 0), pixels.dtype)
    view, how = _PixelView(pixels), {"name": False, "asarray": False}
    array: da.Array = da.from_array(view, chunk, meta=meta, **how)
    return array


def write_pixels(
    area: "core.GridImage | core.WarpedImage",
    about: core.Micrograph,
    target: Path,
    dtype: np.dtype[np.generic] | None = None,
    *,
    message: str = "cutting",
    existing: OverwritePolicy | None = None,
) -> core.Job[io.WrittenOutput[int]]:
    """Compute pixels block by block and write them; `result` counts clipped pixels.

    `about` provides name, calibration and history; its data are not read.
    """
    return _write_computed(
        partial(core.map_parallel, area.read),
        about,
        target,
        f"{message} {about.name}",
        existing or OverwritePolicy(),
        shape=area.grid.shape,
        dtype=area.dtype if dtype is None else dtype,
    )


_BLOCK = 1024  # side in pixels of a block to map at once; chosen: 20 MB
_Compute = Callable[[list[core.Box]], Iterator[core.RealArray]]


def write_map(
    blocks: _Compute, about: core.Micrograph, target: Path | None
) -> core.Job[core.Micrograph | None]:
    """Write a map block by block, or return it if no target is given.

    `blocks` computes boxes in order; `about` provides only metadata.
    """
    if target is None:
        values = np.empty(about.shape, np.float32)
        boxes = split_into_blocks(core.Box.from_shape(about.shape), None, _BLOCK)
        parts = zip(boxes, blocks(boxes), strict=True)
        for done_count, (box, part) in enumerate(parts, 1):
            values[box.slices] = part
            yield core.Progress(done_count, len(boxes), "mapping the errors")
        return about.replace(data=values, look=about.look)
    # no shards, which are larger, so memory does not depend on the size
    how = {"dtype": np.float32, "chunk": _BLOCK}
    policy, message = OverwritePolicy(), "mapping the errors"
    yield from _write_computed(blocks, about, target, message, policy, **how)
    return None


def _write_computed(
    compute: _Compute,
    about: core.Micrograph,
    target: Path,
    message: str,
    existing: OverwritePolicy,
    **how: Any,
) -> core.Job[io.WrittenOutput[int]]:
    """Write boxes that are computed in order, completely or not at all."""
    return io.write_blocks(
        target,
        lambda place: existing.open_store(about, place, target, **how),
        lambda store: store.fill(compute(store.pending_boxes()), message),
        kept_store=existing.find_resumable_store(target),
    )


def create_focus_warning(image: core.Micrograph) -> core.Message | None:
    """Return a warning if a scan is out of focus by more than the depth of focus."""
    falloff = Falloff.from_image(image)
    if falloff is None or not falloff.is_out_of_focus():
        return None
    return core.Message(
        f"{image.name} has less fine detail than light shows at sharp edges, as if out "
        "of focus by more than the depth of focus: scan the sample in focus, or at "
        "several heights (a focal series), which Stitch combines into one mosaic.",
        "out-of-focus",
    )
