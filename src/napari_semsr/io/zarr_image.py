"""Lazy reading of OME-Zarr 0.1 to 0.5, and writing of images, series, live mosaics."""

import math
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any, Literal
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import DTypeLike

from napari_semsr import core
from napari_semsr.io import files, read_image, zarr_store as stores
from napari_semsr.io.zarr_store import OmeZarrStore

if TYPE_CHECKING:
    import zarr

    from napari_semsr.io.zarr_store import ZarrArray

_CHUNK = 512  # side of a chunk; chosen
_CHUNKS_PER_SHARD = 4  # chunks in a shard, along an axis; chosen
_SHARDED_FROM = 8 * _CHUNK
_MAX_BLOCKS = 1 << 20  # chosen: 500k x 500k px in chunks of 512
_MAX_INNER = 1 << 16  # chunks of a shard; chosen: 4096 x 4096 px in chunks of 16
_LARGEST_BLOCK = 1 << 29  # bytes; chosen: a frame of 16k x 16k px of 16 bits in one
_VERSIONS = ("0.1", "0.2", "0.3", "0.4", "0.5")
_LONGEST_WORD = 40  # letters; chosen: no unit or version has more
_NO_UNITS = ("", "pixel", "pixels", "px")
# pixels of a coarser level; levels of odd sides are rounded up or down
_ROUNDING_PX = 1


def create_image_store(
    about: core.Micrograph,
    place: Path,
    *,
    shape: core.IntPair | None = None,
    dtype: DTypeLike | None = None,
    **how: Any,
) -> OmeZarrStore:
    """Create an empty store for an image, in chunks of 512 px.

    Name, calibration and history are those of `about`, and so are shape and type by
    default. `how` sets other chunks, version, overwrite or resume, as for
    `create_store`.
    """
    record = files.create_image_record(about)
    rows, columns = shape or about.shape
    large = min(rows, columns) > _SHARDED_FROM and "chunk" not in how
    shards = {"chunks_per_shard": _CHUNKS_PER_SHARD if large else 1}
    names = ("name", "pixel_size_nm", "origin", "spacing_px", "provenance", "look")
    facts = {name: getattr(record, name) for name in (*names, core.BITS_KEY)}
    return stores.create_store(
        place,
        shape=(rows, columns),
        dtype=dtype or about.dtype,
        **{"chunk": _CHUNK, **shards, **facts, **how},
    )


def write_image_to_store(
    store: OmeZarrStore, image: core.Micrograph, message: str
) -> core.Job[int]:
    """Fill a store with an image and its coverage.

    Returns the number of pixels outside the range of the store's type.
    """
    blocks = (image.data[box.slices] for box in store.pending_boxes())
    clipped_count = yield from store.fill(blocks, message)
    counts = read_coverage(image)
    if counts is not None:
        label = store.add_label(files.COVERAGE)
        for place in np.ndindex(*store.done_marks.shape):
            box = store.box(*place)
            label[box.slices] = np.asarray(counts.data[box.slices])
        store.finish_label(files.COVERAGE, label)
    return clipped_count


def read_coverage(image: core.Micrograph) -> core.Micrograph | None:
    """Read the coverage of a mosaic (number of frames per pixel) from its folder."""
    if image.path is None:
        return None
    place = files.get_label_path(Path(image.path), files.COVERAGE)
    if not matches(place, b""):
        return None
    counts = raw_image(place, read_image.ReadOptions()).data
    if counts.shape != image.shape:
        return None
    return image.replace(data=counts, name=f"{image.name} {files.COVERAGE}")


def write(image: core.Micrograph, path: Path) -> None:
    """Write an image as a complete OME-Zarr 0.5 pyramid.

    The store is created next to the target and renamed when it is complete.
    """
    with files.replace_atomically(path) as place:
        store = create_image_store(image, place)
        with store.release_lock_on_exit():
            core.run(write_image_to_store(store, image, f"writing {path.name}"))
            deque(store.finish(), maxlen=0)


_HINT = "choose the folder that ends in .ome.zarr and holds the image"


@dataclass(frozen=True, slots=True)
class _MultiscaleImage:
    """A multiscale image in a store."""

    group: "zarr.Group"
    metadata: core.JsonObject
    version: str
    count: int
    # Index of the image among those that the store lists, and their groups
    listed: Mapping[str, object] = field(default_factory=dict)


def matches(path: Path, head: bytes) -> bool:
    """Return whether a folder is a zarr store by its metadata files."""
    marks = (path / mark for mark in files.ZARR_MARKS)
    return not head and path.is_dir() and any(mark.is_file() for mark in marks)


def raw_image(path: Path, options: read_image.ReadOptions) -> read_image.RawImage:
    """Read the selected image, level and plane."""
    import zarr

    with files.convert_decoding_errors(path, "OME-Zarr"):
        node = zarr.open(core.FolderStore(path, read_only=True), mode="r")
        if isinstance(node, zarr.Array):
            msg = f"{path} is a bare zarr array, not an OME-Zarr image: {_HINT}."
            raise core.ReadError(msg, code="no-image")
        image = _find_image(path, node, options.series or 0)
        own = stores.get_package_attributes(image.group)
        if own.get("complete") is False:
            msg = f"The run that wrote {path} was interrupted: resume it (`resume`)."
            raise core.IncompleteError(msg)
        warnings: list[str] = []
        record = files.Record.from_dict(own.get(files.RECORD_KEY), warnings)
        level = _read_level(path, image, record, options)
        return replace(level, warnings=tuple(warnings))


def warn_about_missing_blocks(path: Path, series: int = 0, level: int = 0) -> None:
    """Warn if block files of a store are missing, as after an incomplete copy.

    Does nothing unless the path is an OME-Zarr image. All levels are checked if their
    numbers of blocks were recorded, otherwise only the level that is read.
    """
    if not matches(path, b""):
        return
    try:
        import zarr

        group = zarr.open_group(core.FolderStore(path, read_only=True), mode="r")
        image = _find_image(path, group, series)
        whole = stores.get_recorded_block_count(image.group)
        numbers: Sequence[int] = [level]
        remedy = "copy it again, unless it was written like this."
        if whole is not None:
            numbers = range(len(_get_level_metadata(path, image)))
            remedy = "only a part was copied, copy it again."
        levels = [_open_level_array(path, image, each) for each in numbers]
        blocks_there = sum(stores.count_blocks(path, each) for each in levels)
        if whole is None:
            whole = sum(_count_expected_blocks(path, each) for each in levels)
    except Exception:  # noqa: BLE001 - `read` reports what is wrong with a store
        return
    if blocks_there < whole:
        fill = levels[0].fill_value
        value = "0, since it states no fill value"
        if fill is not None:
            value = core.shorten_value(np.asarray(fill).item())
        core.warn(
            f"{whole - blocks_there} of {whole} blocks of {path.name} have no file and "
            f"are read as {value}: {remedy}",
            "blocks-missing",
        )


def get_ome_attributes(group: "zarr.Group") -> tuple[core.JsonObject, str]:
    """Return the OME attributes and version of a group in either layout."""
    attributes = dict(group.attrs)
    ome, version = attributes.get("ome"), "0.4"
    if isinstance(ome, dict):
        return ome, _format_value(ome.get("version", "0.5"))
    if scales := _get_multiscales(attributes):
        version = _format_value(scales[0].get("version", version))
    return attributes, version


def _format_value(value: object) -> str:
    """Format a store value for a message."""
    return core.escape_invisible_characters(str(value))[:_LONGEST_WORD]


def _get_multiscales(attributes: core.JsonObject) -> list[core.JsonObject]:
    """Return the metadata of multiscale images in a group; empty if invalid."""
    entries = attributes.get("multiscales")
    entries = entries if isinstance(entries, list) else []
    return list(entries) if all(isinstance(one, dict) for one in entries) else []


def _find_image(path: Path, group: "zarr.Group", series: int) -> _MultiscaleImage:
    """Find a multiscale image in a group or among the images that it lists."""
    import zarr

    store = group.store
    # opened again without its consolidated metadata
    group = zarr.open_group(store, path=group.path, mode="r")
    attributes, version = get_ome_attributes(group)
    scales = _get_multiscales(attributes)
    if scales:
        number = files.choose_index(path, "series", series, len(scales))
        return _MultiscaleImage(group, scales[number], version, len(scales))
    if "plate" in attributes or "well" in attributes:
        msg = f"{path} is a plate or well of many images: choose the path of one field."
        raise core.ReadError(msg, code="several-images")
    if isinstance(attributes.get(files.LABELS), list):
        labels = core.shorten_value(attributes[files.LABELS])
        msg = f"{path} is a group of label images: choose the path of one of {labels}."
        raise core.ReadError(msg, code="several-images")
    names = list_image_groups(path, group)
    number = files.choose_index(path, "series", series, len(names)) if names else 0
    child = group.get(names[number]) if names else None
    if not isinstance(child, zarr.Group):
        msg = f"{path} is a zarr group without OME-Zarr metadata: {_HINT}."
        raise core.ReadError(msg, code="no-image")
    listed = read_image.create_series_record(number, names)
    return replace(_find_image(path, child, 0), count=len(names), listed=listed)


def list_image_groups(path: Path, group: "zarr.Group") -> list[str]:
    """List the images of a group as its group ``OME`` does, else by number."""
    import zarr

    index, names = group.get("OME"), None
    if isinstance(index, zarr.Group):
        names = get_ome_attributes(index)[0].get("series")
    if names is None:
        return sorted((n for n, _ in group.groups() if n.isdigit()), key=int)
    listed = [str(name) for name in (names if isinstance(names, list) else [names])]
    folder = path / group.path
    for name in listed:
        if not _is_inside(name) or not (folder / name).is_dir():
            what = f"lists {name!r} under OME/series, which is not inside the store"
            msg = f"{path} {what}: copy it again, or open one of its images."
            raise core.ReadError(msg, code="metadata-damaged")
    return listed


def _is_inside(name: str) -> bool:
    """Return whether the path of a part does not lead out of a store."""
    place = PureWindowsPath(name)  # understands the separators of all systems
    return bool(place.parts) and not place.anchor and ".." not in place.parts


def _get_level_metadata(path: Path, image: _MultiscaleImage) -> list[core.JsonObject]:
    """Return the metadata of the pyramid levels of an image, finest first."""
    datasets = image.metadata.get("datasets")
    levels = datasets if isinstance(datasets, list) else []
    if not levels or not all(isinstance(one, dict) and "path" in one for one in levels):
        got = core.shorten_value(datasets)
        msg = f"{path} must list its levels and their paths under datasets, got {got}."
        raise core.ReadError(msg, code="metadata-damaged")
    return levels


def _open_level_array(path: Path, image: _MultiscaleImage, level: int) -> "ZarrArray":
    """Open the array of a level inside the store."""
    import zarr

    name = str(_get_level_metadata(path, image)[level]["path"])
    if not _is_inside(name):
        msg = f"{path} must have level {level} inside the store, got path {name!r}."
        raise core.ReadError(msg, code="outside-folder")
    array = image.group.get(name)
    if not isinstance(array, zarr.Array):
        msg = f"{path} lacks {name!r}, the array of level {level}: copy it again."
        raise core.ReadError(msg, code="plane-missing")
    metadata = array.metadata
    if metadata.zarr_format == 2 and not any(stores.find_blocks(path, array)):
        # some writers name blocks otherwise than they state
        separators: list[Literal[".", "/"]] = [".", "/"]
        separators.remove(metadata.dimension_separator)
        named = replace(metadata, dimension_separator=separators[0])
        other = zarr.Array(zarr.AsyncArray(named, array.store_path))
        array = other if any(stores.find_blocks(path, other)) else array
    return array


def _get_axes(path: Path, image: _MultiscaleImage, ndim: int) -> list[core.JsonObject]:
    """Return the axes of an image and check that the last two are y and x."""
    axes_stated = image.metadata.get("axes")
    systems = image.metadata.get("coordinateSystems")  # since 0.6, levels first
    if axes_stated is None and ndim == 5:  # before 0.3 the axes were always these
        axes_stated = list("tczyx")
    elif axes_stated is None and isinstance(systems, list) and systems:
        axes_stated = systems[0].get("axes") if isinstance(systems[0], dict) else None
    axes_listed = axes_stated if isinstance(axes_stated, list) else []
    axes = [a if isinstance(a, dict) else {"name": a} for a in axes_listed]
    names = [str(a.get("name", "")).lower() for a in axes]
    if len(names) != ndim or names[-2:] != ["y", "x"] or len({*names}) < ndim:
        got = core.shorten_value(names)
        msg = f"{path} must have {ndim} different axes that end in y, x, got {got}"
        msg += ": write it again with these."
        raise core.ReadError(msg, code="axis-missing")
    return [{**a, "name": n} for a, n in zip(axes, names, strict=True)]


@dataclass(frozen=True, slots=True)
class _LevelTransform:
    """Position and scale of a level, ``(y, x)`` in the units of its axes."""

    scale: core.FloatPair | None = None  # None if not stated or not supported
    shift: core.FloatPair = (0.0, 0.0)
    doubts: tuple[str, ...] = ()  # Why the scale is unknown
    place_doubts: tuple[str, ...] = ()  # Why the shift is unknown


def _read_level_transform(
    image: _MultiscaleImage, dataset: core.JsonObject, ndim: int
) -> _LevelTransform:
    """Read scale and translation of a level, combined with those of the image."""
    own = dataset.get("coordinateTransformations")
    common = image.metadata.get("coordinateTransformations")
    place = _LevelTransform()
    if "coordinateSystems" in image.metadata and common:
        sentence = "Additional coordinate systems of the image are ignored."
        further = core.Message(sentence, "coordinates-ignored")
        place, common = replace(place, place_doubts=(further,)), None
    name = f"level {dataset['path']}"
    steps: deque[Any] = deque()
    for one in (own, common):
        steps.extend(one if isinstance(one, list) else [one] * bool(one))
    while steps:
        step = steps.popleft()
        kind = step.get("type") if isinstance(step, dict) else None
        if kind == "sequence" and isinstance(step.get("transformations"), list):
            steps.extendleft(reversed(step["transformations"]))
        elif kind in ("scale", "translation"):
            place = _apply_transform(place, name, step, ndim)
        elif kind != "identity":
            what = core.shorten_value(kind if isinstance(kind, str) else step)
            text = f"The transformation {what} of {name} is not supported: its position"
            text += " is unknown, as is the pixel size unless you set it."
            doubt = core.Message(text, "transform-unsupported")
            doubts = (*place.doubts, doubt)
            place_doubts = (*place.place_doubts, doubt)
            place = replace(place, doubts=doubts, place_doubts=place_doubts)
    return place


def _apply_transform(
    place: _LevelTransform, name: str, step: core.JsonObject, ndim: int
) -> _LevelTransform:
    """Apply a scale or translation given as one number per axis."""
    kind = step["type"]
    values: Any = step.get(kind)
    numbers: tuple[float, ...] | None = None
    is_list = isinstance(values, list) and len(values) == ndim
    if is_list and all(type(value) in (int, float) for value in values):
        with suppress(OverflowError):  # which is a doubt below
            numbers = tuple(float(value) for value in values[-2:])
    if numbers is None or not all(map(math.isfinite, numbers)):
        got = core.shorten_value(step.get(kind, dict(step)))
        what = f"The {kind} of {name} must be {ndim} numbers"
        if kind == "scale":
            doubts = (*place.doubts, read_image.create_size_warning(what, got))
            return replace(place, doubts=doubts)
        text = f"{what}, got {got}: the position is left unknown."
        doubt = core.Message(text, "place-unknown")
        return replace(place, place_doubts=(*place.place_doubts, doubt))
    (y, x), (down, across) = numbers, place.shift
    if kind == "translation":
        return replace(place, shift=(down + y, across + x))
    before = place.scale or (1.0, 1.0)
    scale = (before[0] * y, before[1] * x)
    return replace(place, scale=scale, shift=(down * y, across * x))


def _read_level(
    path: Path,
    image: _MultiscaleImage,
    record: files.Record | None,
    options: read_image.ReadOptions,
) -> read_image.RawImage:
    """Read a level with its metadata."""
    datasets = _get_level_metadata(path, image)
    level = files.choose_index(path, "level", options.level, len(datasets))
    array = _open_level_array(path, image, level)
    axes = _get_axes(path, image, array.ndim)
    outer = [str(a["name"]) for a in axes[:-2]]
    choices, index = read_image.choose_plane(path, options, outer, array.shape[:-2])
    channel = index[outer.index("c")] if "c" in outer else 0
    place = _read_level_transform(image, datasets[level], array.ndim)
    ratio, place = _compute_level_ratio(path, image, level, array, place)
    size, origin, spacing, doubts = _compute_calibration(axes, place, ratio, record)
    if record is not None and doubts:
        record = replace(record, pixel_size_nm=None)
    if image.version not in _VERSIONS:
        range_text = f"(supported: {_VERSIONS[0]} to {_VERSIONS[-1]})"
        text = f"OME-Zarr {image.version} is not fully supported {range_text}: check"
        doubt = core.Message(f"{text} the pixel size.", "other-version")
        doubts = (*doubts, doubt)
    return read_image.RawImage(
        format=f"OME-Zarr {image.version}",
        data=_create_lazy_array(path, array, index),
        pixel_size_nm=size,
        coarser=ratio,
        levels=len(datasets),
        series=image.count,
        record=record,
        origin=origin,
        spacing_px=spacing,
        name=str(image.metadata.get("name") or "") or None,
        look=_read_display_settings(image, channel),
        metadata={"chunks": list(array.chunks[-2:]), **image.listed},
        doubts=doubts,
        place_doubts=place.place_doubts,
        **choices,
    )


def _read_display_settings(
    image: _MultiscaleImage, channel: int
) -> core.DisplaySettings | None:
    """Read the contrast limits and colour of a channel from OMERO metadata."""
    attributes, _ = get_ome_attributes(image.group)
    try:
        about = attributes["omero"]["channels"][channel]
        limits = float(about["window"]["start"]), float(about["window"]["end"])
        hue = str(about.get("color") or "FFFFFF").lower()
        colormap = "gray" if int(hue, 16) == 0xFFFFFF else f"#{hue:0>6}"
        return core.DisplaySettings(limits=limits, colormap=colormap)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
        return None  # grey values do not depend on it


def _create_lazy_array(
    path: Path, array: "ZarrArray", index: tuple[int, ...]
) -> read_image.Pixels:
    """Return a dask array with one block for each chunk (or shard)."""
    import dask.array as da
    from dask.base import tokenize

    inner = math.prod(array.shards or ()) // max(1, math.prod(array.chunks))
    if inner > _MAX_INNER:
        msg = f"its shards have {inner} chunks, more than {_MAX_INNER}"
        raise ValueError(msg)
    stamp = _get_creation_stamp(path, array)
    name = f"zarr-{tokenize(str(path.resolve()), array.path, stamp)}"
    chunks = array.shards or array.chunks
    _count_expected_blocks(path, array)
    blocks = _CheckedArray(path, array, stamp)
    return da.from_array(blocks, chunks=chunks, name=name, inline_array=True)[index]


def _count_expected_blocks(path: Path, array: "ZarrArray") -> int:
    """Count all blocks; raise `ReadError` if they are too many or too large."""
    whole = list(zip(array.shards or array.chunks, array.shape, strict=True))
    counts = [-(-n // part) for part, n in whole]
    if sum(counts) > _MAX_BLOCKS or math.prod(counts[-2:]) > _MAX_BLOCKS:
        msg = f"{path} has over {_MAX_BLOCKS} blocks in a plane: use larger chunks."
        raise core.ReadError(msg, code="too-many-blocks")
    size = max(math.prod(min(each) for each in whole), math.prod(array.chunks))
    size *= array.dtype.itemsize
    if size > _LARGEST_BLOCK:
        msg = f"{path} has blocks of {size >> 20} MiB: convert it with smaller chunks."
        raise core.ReadError(msg, code="blocks-too-large")
    return math.prod(counts)


def _get_creation_stamp(path: Path, array: "ZarrArray") -> tuple[int, ...] | None:
    """Return a stamp that changes when an array is recreated; None if it is gone."""
    for name in ("zarr.json", ".zarray"):
        with suppress(OSError):
            return files.read_file_state(path / array.path / name)
    return None


@dataclass(frozen=True, slots=True)
class _CheckedArray:
    """An array that raises `ReadError` for damaged blocks.

    An array that has replaced it meanwhile is not read: missing blocks would be read
    as zeros.
    """

    path: Path
    array: "ZarrArray"
    # None in another process, where it may differ
    file_state: tuple[int, ...] | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return _CheckedArray, (self.path, self.array)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return self.array.dtype

    @property
    def ndim(self) -> int:
        return self.array.ndim

    def __getitem__(self, index: Any) -> core.RealArray:
        with files.convert_decoding_errors(self.path, "OME-Zarr"):
            try:
                values = np.asarray(self.array[index])
            except (MemoryError, core.SemsrError):
                raise
            except Exception as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                self._check_unchanged()
                # the file of the first block
                chunks = self.array.shards or self.array.chunks
                starts = [n.start or 0 if isinstance(n, slice) else n for n in index]
                block = tuple(n // c for n, c in zip(starts, chunks, strict=True))
                file_name = self.array.metadata.encode_chunk_key(block)
                msg = f"block {self.array.path}/{file_name}: {reason}"
                raise ValueError(msg) from error
        # checked after reading, since it may be removed meanwhile
        self._check_unchanged()
        return values

    def _check_unchanged(self) -> None:
        stamp = self.file_state and _get_creation_stamp(self.path, self.array)
        if stamp != self.file_state:
            msg = f"{self.path} was replaced or moved: open it again."
            raise core.ReadError(msg, code="content-changed")


def _compute_calibration(
    axes: Sequence[Mapping[str, object]],
    place: _LevelTransform,
    ratio: core.FloatPair,
    record: files.Record | None,
) -> tuple[core.PixelSize | None, core.FloatPair, core.FloatPair, tuple[str, ...]]:
    """Return the pixel size, origin and spacing of a level, with any doubts."""
    units = [_format_value(a.get("unit") or "") for a in axes[-2:]]
    unitless = all(unit.lower() in _NO_UNITS for unit in units)
    if place.scale is None or place.doubts:
        doubts = place.doubts
        if not (unitless or doubts):
            text = f"No scale is given for {units[0]!r} and {units[1]!r}"
            text += ": the pixel size is unknown."
            doubts = (core.Message(text, "pixel-size-missing"),)
        return None, (0.0, 0.0), ratio, doubts
    (y, x), (down, across) = place.scale, place.shift
    scales = zip((y, x), units, strict=True)
    lengths = [read_image.convert_to_nm(step, unit) for step, unit in scales]
    size = read_image.create_pixel_size(lengths)
    if size is not None:
        grow = [n / s for n, s in zip(size, (y, x), strict=True)]
        return size, (down * grow[0], across * grow[1]), (1.0, 1.0), ()
    if record is not None and unitless:
        return None, (down, across), (y, x), ()
    # without a unit the scale of a foreign store only distinguishes its levels
    if unitless and (y, x) == ratio:
        return None, (0.0, 0.0), ratio, ()
    pairs = zip((y, x), units, strict=True)
    got = " and ".join(f"{s:g} {u or 'without a unit'}" for s, u in pairs)
    what = "The scale of y and x must be lengths above 0"
    doubt = read_image.create_size_warning(what, got)
    return None, (0.0, 0.0), ratio, (doubt,)


def _compute_level_ratio(
    path: Path,
    image: _MultiscaleImage,
    level: int,
    array: "ZarrArray",
    place: _LevelTransform,
) -> tuple[core.FloatPair, _LevelTransform]:
    """Return the number of level-0 rows and columns per pixel of a level.

    They follow from its scale unless its shape contradicts them, which puts the scale
    in doubt.
    """
    if level == 0:
        return (1.0, 1.0), place
    finest = _open_level_array(path, image, 0)
    first = _get_level_metadata(path, image)[0]
    whole = _read_level_transform(image, first, finest.ndim).scale or (0.0, 0.0)
    ratios = []
    doubts = place.doubts
    for axis in (0, 1):
        fine, coarse = finest.shape[axis - 2], array.shape[axis - 2]
        step = place.scale and whole[axis] and place.scale[axis] / whole[axis]
        if step and step > 0 and abs(fine / step - coarse) <= _ROUNDING_PX:
            ratios.append(step)
            continue
        ratio = fine / max(1, coarse)
        even = max(1, round(ratio))
        fits = abs(fine / even - coarse) <= _ROUNDING_PX
        ratios.append(float(even) if fits else ratio)
        if step and not doubts:
            got = f"{coarse} of {fine} {('rows', 'columns')[axis]}"
            text = f"Level {level}, {step:g} times coarser by its scale, has {got}"
            sentence = f"{text}: its pixel size is left unknown."
            doubts = (core.Message(sentence, "pixel-size-contradicts"),)
    return (ratios[0], ratios[1]), replace(place, doubts=doubts)


# Several images in one OME-Zarr 0.5 store, in the bioformats2raw layout.
#
# Each image is a numbered group, and the group ``OME`` lists them, in JSON and in the
# XML that napari-ome-zarr and Bio-Formats read. An image of classes is a label image of
# the first image on its grid; without such an image it has a number, too.

_LAYOUT = "bioformats2raw.layout"
_ORDER = "order"  # in our attributes of an image: its index among the layers


def _choose_groups(images: Sequence[core.Micrograph]) -> list[str]:
    """Choose the group of each image: ``0``, ``1``, or ``0/labels/particles``."""
    places: dict[int, str] = {}
    labels = [i for i, image in enumerate(images) if image.look and image.look.classes]
    parents = [i for i in range(len(images)) if i not in labels]
    for index in [*parents, *labels]:
        place = str(sum(files.LABELS not in other for other in places.values()))
        grid = core.Grid.from_image(images[index])
        for parent in parents if index in labels else ():
            if core.Grid.from_image(images[parent]) == grid:
                name = files.create_file_stem(images[index].name)
                stem = place = f"{places[parent]}/{files.LABELS}/{name}"
                while place in places.values():
                    place = f"{stem}-{index}"
                break
        places[index] = place
    return [places[index] for index in range(len(images))]


def write_series(images: Sequence[core.Micrograph], path: Path) -> core.Job[list[Path]]:
    """Write images into one store, overwriting any existing one.

    Parameters
    ----------
    images : sequence of Micrograph
        Grey values (Y, X), or classes, which have colours in their `look`.
    path : Path
        Folder that ends in ``.ome.zarr``.

    Returns
    -------
    list of Path
        Path of each image in the store.

    Raises
    ------
    WriteError
        If the store cannot be written.
    """
    import zarr

    places = _choose_groups(images)
    with files.replace_atomically(path) as folder:
        root = zarr.create_group(
            core.FolderStore(folder), attributes={"ome": {"version": "0.5", _LAYOUT: 3}}
        )
        # A label image comes after the image that it belongs to.
        is_label = [files.LABELS in place for place in places]
        for index in sorted(range(len(images)), key=is_label.__getitem__):
            image, place = images[index], folder / places[index]
            if is_label[index]:
                stores.register_label(root[places[index].split("/")[0]], place.name)  # type: ignore[arg-type]
            store = create_image_store(image, place)
            with store.release_lock_on_exit():
                message = f"writing {path.name}: {image.name}"
                yield from write_image_to_store(store, image, message)
                yield from store.finish()
            store.write_note(_ORDER, index)
        image_indices = [i for i in range(len(images)) if not is_label[i]]
        series = {"version": "0.5", "series": [places[i] for i in image_indices]}
        root.create_group("OME", attributes={"ome": series})
        xml = _create_ome_xml({places[i]: images[i] for i in image_indices})
        (folder / "OME" / "METADATA.ome.xml").write_text(xml, "utf-8")
    return [path / place for place in places]


def list_series(path: Path) -> list[Path]:
    """List the images of a multi-image store and label images from this package.

    In the order in which they were written; empty for any other store.
    """
    import zarr

    try:
        root = zarr.open_group(core.FolderStore(path, read_only=True), mode="r")
    except (OSError, ValueError, TypeError, LookupError):
        return []
    attributes, _ = get_ome_attributes(root)
    if _LAYOUT not in attributes or "plate" in attributes:
        return []
    orders: dict[Path, int] = {}
    for number, name in enumerate(list_image_groups(path, root)):
        orders[path / name] = number
        group = root.get(name)
        if not isinstance(group, zarr.Group):  # reading it says so
            continue
        own = stores.get_package_attributes(group)
        if type(own.get(_ORDER)) is int:
            orders[path / name] = own[_ORDER]
        labels = group.get(files.LABELS) if own else None
        for label, child in labels.groups() if isinstance(labels, zarr.Group) else ():
            order = stores.get_package_attributes(child).get(_ORDER)
            if type(order) is int:
                orders[path / name / files.LABELS / label] = order
    return sorted(orders, key=lambda place: orders[place])


_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'


def _create_ome_xml(images: dict[str, core.Micrograph]) -> str:
    """Describe numbered images as OME-XML, using its supported pixel types."""
    schema = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    types = {"float32": "float", "float64": "double", "bool": "bit", "float16": "float"}
    root = ET.Element("OME", xmlns=schema)
    for place, image in images.items():
        name, kind = core.escape_invisible_characters(image.name), str(image.dtype)
        element = ET.SubElement(root, "Image", ID=f"Image:{place}", Name=name)
        about = {"DimensionOrder": "XYZCT", "Type": types.get(kind, kind)}
        for axis, size in zip("YXZCT", (*image.shape, 1, 1, 1), strict=True):
            about[f"Size{axis}"] = str(size)
        for axis, side in zip("YX", image.pixel_size_nm or (), strict=False):
            about |= {f"PhysicalSize{axis}": f"{side}", f"PhysicalSize{axis}Unit": "nm"}
        pixels = ET.SubElement(element, "Pixels", about, ID=f"Pixels:{place}")
        ET.SubElement(pixels, "Channel", ID=f"Channel:{place}:0", SamplesPerPixel="1")
        ET.SubElement(pixels, "MetadataOnly")
    return _XML + ET.tostring(root, encoding="unicode")


# Mosaic that grows on all sides, stored as an incomplete single-level OME-Zarr.
#
# It shows a scan during acquisition, and is replaced by the finished mosaic.
# Adding rows or columns before the first ones renames the files of the chunks, row by
# row, without copying pixels.

# Chosen: 256 chunks of 256 px, more than a window shows. A viewer reads them in its
# main thread, where a read of the store waits several times for other threads.
_RECENT_BYTES = 64 << 20
_LIVE = "live"  # marks a store that is filled while a scan is followed


def is_live_mosaic(place: Path) -> bool:
    """Return whether a store is the live mosaic of a scan."""
    return bool(stores.read_store_state(place)[1].get(_LIVE))


@dataclass(slots=True)
class GrowingMosaic:
    """Growing float32 mosaic (Y, X) with NaN in areas not yet written.

    Pixels count from the mosaic's own origin, and may be negative. Other threads may
    read while one writes; neither waits for the other, as chunks are replaced whole.
    """

    store: OmeZarrStore
    level0: "ZarrArray"
    chunk: int
    origin: core.IntPair = (0, 0)  # pixel at the first row and column of the store
    _moves: int = 0  # number of times that the files of the chunks were renamed
    # rows and columns of the chunks with pixels, counted from the mosaic's origin
    _written_chunks: set[core.IntPair] = field(default_factory=set, repr=False)
    # the last chunks that were written
    _recent: dict[core.IntPair, core.Float32Array] = field(
        default_factory=dict, repr=False
    )
    # held while the store is extended
    _lock: AbstractContextManager[object] = field(
        default_factory=threading.RLock, repr=False
    )

    @classmethod
    def create(cls, place: Path, about: core.Micrograph, chunk: int) -> "GrowingMosaic":
        """Create and lock an empty store, overwriting an existing one.

        Raises a `WriteError` if it cannot be created, or another process has locked it.
        """
        sides, dtype = (chunk, chunk), np.float32
        store = create_image_store(
            about, place, shape=sides, dtype=dtype, chunk=chunk, overwrite=True
        )
        with files.convert_write_errors(place):
            level0 = store.group.create_array(
                "0",
                shape=sides,
                dtype=dtype,
                chunks=sides,
                fill_value=float("nan"),
                dimension_names=("y", "x"),
                overwrite=True,
            )
            store.write_note(_LIVE, {"origin_px": [0, 0]})
        return cls(store, level0, chunk)

    @property
    def shape(self) -> core.IntPair:
        """Shape of the store, (rows, columns)."""
        rows, columns = self.level0.shape
        return int(rows), int(columns)

    @property
    def start_position(self) -> core.FloatPair:
        """Position ``(y, x)`` of pixel (0, 0), in nm if the pixel size is known."""
        return self.store.record.origin

    @property
    def box(self) -> core.Box:
        """Rectangle covered by the store, in mosaic pixels."""
        with self._lock:
            return core.Box.from_shape(self.shape, self.origin)

    def write(self, box: core.Box, values: core.Float32Array) -> None:
        """Write a rectangle (Y, X), in mosaic pixels, extending the store if needed.

        Raises an `OSError` if the disk is full.
        """
        with self._lock:
            self._extend_store(box)
        places = self._list_chunk_indices(box)
        chunks = [self._get_chunk_box(place) for place in places]
        whole = chunks[0].union(chunks[-1])
        pixels = self.read(whole)
        pixels[box.relative_to(whole).slices] = values
        self.level0[whole.relative_to(self.box).slices] = pixels
        with self._lock:
            for place, chunk in zip(places, chunks, strict=True):
                self._written_chunks.add(place)
                self._recent.pop(place, None)
                self._recent[place] = pixels[chunk.relative_to(whole).slices].copy()
            while len(self._recent) * 4 * self.chunk**2 > _RECENT_BYTES:
                del self._recent[next(iter(self._recent))]

    def read(self, box: core.Box) -> core.Float32Array:
        """Read a rectangle (Y, X), in mosaic pixels; NaN outside the store."""
        while True:
            with self._lock:
                store, moves = self.box, self._moves
                touched = self._list_chunk_indices(box)
                places = [place for place in touched if place in self._written_chunks]
                recent = [self._recent.get(place) for place in places]
            result = np.full(box.shape, np.nan, np.float32)
            for place, values in zip(places, recent, strict=True):
                chunk = self._get_chunk_box(place)
                part = box.intersection(chunk)
                result[part.relative_to(box).slices] = (
                    self.level0[part.relative_to(store).slices]
                    if values is None
                    else values[part.relative_to(chunk).slices]
                )
            if moves == self._moves:
                return result

    def _get_chunk_box(self, place: core.IntPair) -> core.Box:
        corner = place[0] * self.chunk, place[1] * self.chunk
        return core.Box.from_shape((self.chunk, self.chunk), corner)

    def _list_chunk_indices(self, box: core.Box) -> list[core.IntPair]:
        """List the indices of the chunks that a rectangle touches."""
        rows = range(box.y0 // self.chunk, -(-box.y1 // self.chunk))
        columns = range(box.x0 // self.chunk, -(-box.x1 // self.chunk))
        return list(product(rows, columns))

    def _extend_store(self, box: core.Box) -> None:
        """Add chunks on each side where a rectangle exceeds the store."""
        before, after = [], []
        low, high = (box.y0, box.x0), (box.y1, box.x1)
        sides = zip(self.origin, self.shape, low, high, strict=True)
        for first, size, start, end in sides:
            before.append(max(0, -(-(first - start) // self.chunk)))
            after.append(max(0, -(-(end - first - size) // self.chunk)))
        if not any((*before, *after)):
            return
        rows, columns = (
            size + (b + a) * self.chunk
            for size, b, a in zip(self.shape, before, after, strict=True)
        )
        self.level0.resize((rows, columns))
        if any(before):
            self._moves += 1
            name = self.level0.metadata.encode_chunk_key((0, 0)).rpartition("/")[0]
            top = (self.store.path / self.level0.path / name).parent
            # the chunk files, if any were written, get other names, the last one first
            paths = top.iterdir() if top.is_dir() else ()
            numbered_paths = [path for path in paths if path.name.isdecimal()]
            for row in sorted(numbered_paths, key=lambda item: -int(item.name)):
                chunks = [item for item in row.iterdir() if item.name.isdecimal()]
                for item in sorted(chunks, key=lambda item: -int(item.name)):
                    item.rename(row / str(int(item.name) + before[1]))
                row.rename(top / str(int(row.name) + before[0]))
            y, x = self.origin
            self.origin = y - before[0] * self.chunk, x - before[1] * self.chunk
            record = self.store.record
            pitch = record.pixel_size_nm or record.spacing_px
            steps = zip(self.start_position, self.origin, pitch, strict=True)
            down, right = (start + at * step for start, at, step in steps)
            self.store.write_metadata(replace(record, origin=(down, right)), 1)
            self.store.write_note(_LIVE, {"origin_px": list(self.origin)})


@dataclass(frozen=True, slots=True)
class GrowingWindow:
    """Rectangle of a growing mosaic, read from its store on demand."""

    mosaic: GrowingMosaic
    box: core.Box
    dtype = np.dtype(np.float32)
    ndim = 2

    @property
    def shape(self) -> core.IntPair:
        """Shape of the image, (rows, columns)."""
        return self.box.shape

    @property
    def size(self) -> int:
        """Number of pixels."""
        return self.shape[0] * self.shape[1]

    def __getitem__(self, index: object) -> core.Float32Array:
        index = index if isinstance(index, tuple) else (index, slice(None))
        spans = [item.indices(n) for item, n in zip(index, self.shape, strict=True)]
        part = core.Box(spans[0][0], spans[0][1], spans[1][0], spans[1][1])
        values = self.mosaic.read(part.move(self.box.corner))
        return values[:: spans[0][2], :: spans[1][2]]

    def __array__(
        self, dtype: DTypeLike | None = None, copy: bool | None = None
    ) -> core.RealArray:
        return np.asarray(self[:, :], dtype=dtype)
