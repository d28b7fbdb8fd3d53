"""Resumable output store, OME-Zarr 0.5 or 0.4, written tile by tile.

The group is an OME-Zarr image from the start, marked incomplete. Each write unit (a
chunk, or a shard if one writer owns it) has one entry in the done-map, an array of
one-element chunks, so that several writers never share a file. An entry is the
checksum of the unit's files, which a resumed run compares: zarr renames each file
into place, but nothing is flushed to disk before that, so a power cut may leave a
unit that is marked but truncated or missing. A process that fills a store locks it,
if the system supports locks, so that no other process writes its own tiles into it.

The map is the array ``done`` of the store, and is removed by `OmeZarrStore.finish`.
`create_store` resumes (`_reopen_store`): it compares the layout, and the record with
input, model and options; what remains are the `pending_units`.
"""

import json
import logging
import math
import os
import re
import shutil
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import numpy as np
from numpy.typing import DTypeLike, NDArray

from napari_semsr import core
from napari_semsr.io import files
from napari_semsr.io.files import LABELS, Record, StoreLock

if TYPE_CHECKING:
    import zarr
    from zarr.types import ArrayV2, ArrayV3

    ZarrArray = ArrayV2 | ArrayV3

ATTRIBUTE = "semsr"
_BLOCKS = "blocks"  # key in it: number of files of the finished levels
_DONE_ARRAY = "done"
_REDUCED_BYTES = 32 << 20  # of blocks that wait for their neighbours; chosen
_LARGEST_UNIT = 1 << 30  # bytes of a file; as for any file read at once
_UNREADABLE = (
    *(core.ReadError, OSError, LookupError, ValueError, TypeError),
    *(ArithmeticError, AttributeError),
)
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OmeZarrStore:
    """OME-Zarr store of an image, which may be unfinished."""

    path: Path  # folder of the store
    group: "zarr.Group"
    level0: "ZarrArray"  # finest level, (Y, X)
    # the done-map on disk while the store is incomplete: uint64 with checksums, uint8
    # without
    marks: "ZarrArray"
    # rows and columns of one write unit, which writers never share
    unit: core.IntPair
    record: Record = field(repr=False)  # name, calibration and provenance, as written
    # keeps other processes away until it is finished
    lock: StoreLock | None = field(default=None, repr=False, compare=False)
    _pyramid: "_Pyramid" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        has_classes = self.record.look is not None and self.record.look.classes
        reduce = _subsample_block if has_classes else downsample_block
        pyramid = _Pyramid(self.group, self.level0, self.unit, reduce)
        object.__setattr__(self, "_pyramid", pyramid)

    @property
    def shape(self) -> core.IntPair:
        """Shape of the image, (rows, columns)."""
        return _convert_to_int_pair(self.level0.shape)

    @property
    def version(self) -> str:
        """OME-Zarr version, derived from the zarr format version."""
        return _get_version(self.group)

    @property
    def is_complete(self) -> bool:
        """Whether `finish` has completed."""
        return bool(get_package_attributes(self.group).get("complete"))

    @property
    def done_marks(self) -> "ZarrArray | NDArray[np.uint8]":
        """Array with one element per write unit, nonzero for finished units."""
        return np.ones(self.marks.shape, np.uint8) if self.is_complete else self.marks

    def mark_done(self, row: int, column: int) -> None:
        """Mark a write unit as finished after its pixels were written."""
        mark = self._compute_done_mark(row, column)
        _write_chunk(self.marks, (row, column), np.full((1, 1), mark))

    def _compute_done_mark(self, row: int, column: int) -> int:
        """Compute the mark of a write unit, which is 1 if the unit has no file."""
        if self.marks.dtype.itemsize == 1:
            return 1
        unit_files = self._list_unit_files(row, column)
        total = self._pyramid.written.get((0, row, column))  # of the first of them
        for file in unit_files if total is None else unit_files[1:]:
            with suppress(FileNotFoundError):  # all its pixels are the fill value
                total = zlib.crc32(core.read_bytes(file, _LARGEST_UNIT), total or 0)
        return (total or 0) + 1

    def _get_finest_arrays(self) -> "list[ZarrArray]":
        """Return the finest levels of the image and its labels."""
        labels: Any = self.group.get(LABELS) if (self.path / LABELS).is_dir() else None
        names = () if labels is None else labels.group_keys()
        labels_found = (labels[name].get("0") for name in names)
        return [self.level0, *(item for item in labels_found if item is not None)]

    def _list_unit_files(self, row: int, column: int) -> list[Path]:
        """List the possible files of a write unit."""
        key = self.level0.metadata.encode_chunk_key((row, column))
        return [self.path / array.path / key for array in self._get_finest_arrays()]

    def mark_unfinished(self, places: Iterable[core.IntPair]) -> None:
        """Mark write units at ``(row, column)`` as unfinished."""
        for place in places:
            self.marks[place] = 0

    def mark_damaged_unfinished(self) -> None:
        """Mark units with missing or damaged files as unfinished, and warn."""
        places = np.ndindex(*_convert_to_int_pair(self.marks.shape))
        marks = {at: mark for at in places if (mark := _decode(self.marks, at)) != 0}
        damaged = [at for at in marks if not self._is_intact(at, marks[at])]
        self.mark_unfinished(damaged)
        for file in (one for at in damaged for one in self._list_unit_files(*at)):
            file.unlink(missing_ok=True)  # zarr reads it to write a part of it
        if damaged:
            core.warn(
                f"{len(damaged)} of {len(marks)} finished tiles of "
                f"{self.path.name} are missing or damaged and will be recomputed.",
                "tiles-lost",
            )

    def _is_intact(self, place: core.IntPair, mark: core.RealArray | None) -> bool:
        """Return whether the files of a finished write unit agree with its mark."""
        if mark is None or self.marks.dtype.itemsize > 1:
            with suppress(core.ReadError):  # a pipe, a device or an oversized file
                return bool(mark == self._compute_done_mark(*place))
            return False
        part = self.box(*place).slices
        if not all(file.is_file() for file in self._list_unit_files(*place)):
            return False
        return all(_decode(a, part) is not None for a in self._get_finest_arrays())

    def pending_units(self) -> list[core.IntPair]:
        """List the unfinished units as ``(row, column)``."""
        rows, columns = np.nonzero(np.asarray(self.done_marks[:]) == 0)
        return list(zip(rows.tolist(), columns.tolist(), strict=True))

    def box(self, row: int, column: int) -> core.Box:
        """Return the box of a write unit, cropped to the image."""
        corner = row * self.unit[0], column * self.unit[1]
        whole = core.Box.from_shape(self.unit, corner)
        return whole.intersection(core.Box.from_shape(self.shape))

    def pending_boxes(self) -> list[core.Box]:
        """List the boxes of unfinished write units, row by row."""
        return [self.box(row, column) for row, column in self.pending_units()]

    def write_unit(self, row: int, column: int, values: core.RealArray) -> None:
        """Write a write unit (Y, X), and the blocks of coarser levels it completes."""
        self._pyramid.write_block(0, (row, column), values)

    def fill(
        self, blocks: Iterable[core.RealArray | None], message: str
    ) -> core.Job[int]:
        """Write the unfinished units and mark each of them as finished.

        Blocks (Y, X) come in the order of `pending_units`; each is requested when the
        one before it is on disk, and is None while it is being computed. Returns the
        number of pixels outside the range of the store's type.
        """
        clipped_count, total = 0, int(self.done_marks.size)
        waiting = deque(self.pending_units())
        step = core.Progress(total - len(waiting), total, message)
        yield step
        for block in blocks:
            if block is not None:
                values, outside, place = np.asarray(block), 0, waiting.popleft()
                if values.dtype.newbyteorder("=") != self.level0.dtype:
                    values, outside = core.convert_dtype(values, self.level0.dtype)
                self.write_unit(*place, values)
                self.mark_done(*place)
                clipped_count += outside
                step = replace(step, done=step.done + 1)
            yield step
        return clipped_count

    @contextmanager
    def release_lock_on_exit(self) -> Iterator[None]:
        """Release the store lock on exit, even after an error."""
        try:
            yield
        finally:
            if self.lock is not None:
                self.lock.release()

    def write_metadata(self, record: Record, levels: int) -> None:
        """Write the OME metadata of the image from a record and its levels."""
        how, dtype = (levels, self.version), self.level0.dtype
        if self.path.parent.name == LABELS:
            attributes = _create_label_attributes(record, record.name, *how)
        else:
            attributes = _create_image_attributes(record, dtype, *how)
        _write_metadata(self.group, attributes)

    def write_note(self, key: str, value: object) -> None:
        """Store a JSON value as a note, replacing any earlier note under its key."""
        try:
            plain = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError) as error:
            msg = f"Note {key} of {self.path} must be finite JSON values: {error}."
            raise core.WriteError(msg, code="wrong-type") from error
        self.group.attrs[ATTRIBUTE] = {**get_package_attributes(self.group), key: plain}

    def read_notes(self) -> core.JsonObject:
        """Return all stored notes."""
        return get_package_attributes(self.group)

    def finish(self) -> Iterator[core.Progress]:
        """Complete the coarser levels, then mark the store as complete."""
        missing, total = len(self.pending_units()), self.done_marks.size
        if missing:
            msg = f"{self.path} lacks {missing} of its {total} tiles: use `resume`."
            raise core.WriteError(msg, code="output-incomplete")
        yield from self._pyramid.finish()
        count = len(_compute_level_shapes(self.level0))
        self.write_metadata(self.record, count)
        try:
            levels: list[Any] = [self.group[str(number)] for number in range(count)]
        except KeyError as error:
            msg = f"{self.path} was removed while it was being written: run again."
            raise core.WriteError(msg, code="output-removed") from error
        blocks = sum(count_blocks(self.path, level) for level in levels)
        self.write_note(_BLOCKS, blocks)
        for part in self.path.iterdir():
            if part.name != _DONE_ARRAY:
                files.sync_to_disk(part)
        files.sync_to_disk(self.path, inside=False)
        self.write_note("complete", True)
        # the map is no longer needed, and has a file for each tile
        del self.group[_DONE_ARRAY]
        if self.lock is not None:
            self.lock.release()

    def add_label(self, name: str) -> "ZarrArray":
        """Create or open the finest level (Y, X) of a label image in the store.

        On the image's own grid and chunks, of uint16; empty except for what an
        interrupted run wrote.
        """
        import zarr

        group = register_label(self.group, name).require_group(name)
        level = group.get("0")
        if isinstance(level, zarr.Array) and level.shape == self.level0.shape:
            return level
        return _create_level(group, "0", self.shape, self.level0, "uint16")

    def finish_label(self, name: str, finest: "ZarrArray") -> None:
        """Write the coarser levels and the metadata of a filled label image.

        Each has every second pixel of the finer one: counts and classes have no mean.
        """
        group = self.group.require_group(f"{LABELS}/{name}")
        pyramid = _Pyramid(group, finest, self.unit, _subsample_block)
        deque(pyramid.finish(), maxlen=0)
        how = len(_compute_level_shapes(finest)), self.version
        _write_metadata(group, _create_label_attributes(self.record, name, *how))


def _decode(
    array: "ZarrArray", part: tuple[slice, slice] | core.IntPair
) -> core.RealArray | None:
    """Return a part of an array; None if it cannot be decoded."""
    try:
        return np.asarray(array[part])
    except Exception:  # noqa: BLE001 - damage of any kind
        return None


# Coarser levels of an image: means of two by two pixels.


def find_blocks(path: Path, array: "ZarrArray") -> Iterator[str]:
    """Yield the names of an array's block files in the store at `path`.

    Files of any other name do not count, since zarr does not read them.
    """
    key = re.escape(array.metadata.encode_chunk_key((0,) * array.ndim))
    is_block = re.compile("/" + key.replace("0", "[0-9]+")).fullmatch
    top = os.fspath(path / array.path)
    for folder, _, names in os.walk(top):
        below = folder[len(top) :].replace(os.sep, "/")
        yield from filter(is_block, (f"{below}/{name}" for name in names))


def count_blocks(path: Path, array: "ZarrArray") -> int:
    """Count the block files of an array in the store at `path`.

    zarr writes no file for a block that has only the fill value.
    """
    return sum(1 for _ in find_blocks(path, array))


def compute_pyramid_shapes(
    shape: tuple[int, int], *, smallest: int = 256
) -> list[tuple[int, int]]:
    """Return the shapes of all pyramid levels, finest first, rounding up odd sides.

    Sides are halved until the longer one is at most `smallest`.
    """
    shapes = [shape]
    while max(shapes[-1]) > max(smallest, 1):
        rows, columns = shapes[-1]
        shapes.append(((rows + 1) // 2, (columns + 1) // 2))
    return shapes


def downsample_block(block: core.RealArray) -> core.RealArray:
    """Average blocks of 2 x 2 pixels of any real or boolean type, keeping the type.

    NaN pixels are left out of the mean; a pixel made of NaN only stays NaN. At odd
    sides the last row or column is averaged with itself. Integers are rounded, booleans
    decided by the majority.
    """
    if any(side % 2 for side in block.shape):
        block = np.pad(block, [(0, side % 2) for side in block.shape], mode="edge")
    work = np.float32 if block.dtype.itemsize < 4 or block.dtype == "f4" else np.float64
    places = [(slice(i, None, 2), slice(j, None, 2)) for i in (0, 1) for j in (0, 1)]
    known: list[Any] = [True] * 4
    if block.dtype.kind == "f" and (missing := np.isnan(block)).any():
        known = [~missing[place] for place in places]
    mean: NDArray[Any] = np.zeros([side // 2 for side in block.shape], work)
    with np.errstate(invalid="ignore", over="ignore"):
        for place, where in zip(places, known, strict=True):
            np.add(mean, block[place], out=mean, where=where, casting="unsafe")
        count = np.sum(known, axis=0, dtype=np.uint8)
        mean /= count
        mean[count == 0] = np.nan
        if block.dtype.kind == "b":
            return np.asarray(mean >= 0.5)
        if block.dtype.kind in "ui":
            np.rint(mean, out=mean)
        return np.asarray(mean.astype(block.dtype))


def _subsample_block(block: core.RealArray) -> core.RealArray:
    """Take every second pixel of counts or classes, which cannot be averaged."""
    return block[::2, ::2].copy()


def _compute_level_shapes(finest: "ZarrArray") -> list[core.IntPair]:
    """Return the shapes of all levels, down to one that fits into one chunk."""
    shape = _convert_to_int_pair(finest.shape)
    return compute_pyramid_shapes(shape, smallest=max(finest.chunks))


_Block = tuple[int, int, int]
"""Level, row and column of a block of the pyramid."""


class _Pyramid:
    """Levels of an image, of which the coarser are made from blocks in memory.

    A block of a coarser level is written as soon as those it is made of are. Of reduced
    blocks that wait for their neighbours only the latest are kept, so that memory does
    not grow with the image; `finish` reads what is missing from the level below.
    """

    def __init__(
        self,
        group: "zarr.Group",
        finest: "ZarrArray",
        unit: core.IntPair,
        reduce: Callable[[core.RealArray], core.RealArray],
    ) -> None:
        self._group, self._finest, self._unit = group, finest, unit
        self._reduce = reduce
        self._shapes = _compute_level_shapes(finest)
        self._levels: list[ZarrArray] = [finest]
        # blocks as they should be, with the checksums of their files
        self.written: dict[_Block, int | None] = {}
        self._reduced = core.BoundedCache(_REDUCED_BYTES)
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[object, ...]:
        # a copy in another process has written nothing
        return _Pyramid, (self._group, self._finest, self._unit, self._reduce)

    def write_block(
        self, level: int, place: core.IntPair, values: core.RealArray
    ) -> None:
        """Write a block (Y, X), and the coarser ones that it completes."""
        for number in range(len(self._shapes) if level == 0 else 0):
            # forget what was made from an earlier version of the block
            block = number, place[0] >> number, place[1] >> number
            self.written.pop(block, None)
            self._reduced.drop(block)
        checksum = _write_chunk(self._open_level(level), place, values)
        self.written[level, *place] = checksum
        sides = zip(self._unit, self._shapes[level], strict=True)
        splits_pixels = any(side % 2 and side < n for side, n in sides)
        if level + 1 == len(self._shapes) or splits_pixels:
            return
        coarser = place[0] // 2, place[1] // 2
        reduced = self._reduce(values)
        with self._lock:
            self._reduced.put((level, *place), reduced)
            triples = zip(coarser, self._shapes[level], self._unit, strict=True)
            rows, columns = (
                range(2 * at, min(2 * at + 2, -(-n // side))) for at, n, side in triples
            )
            parts = [[self._reduced.get((level, y, x)) for x in columns] for y in rows]
            if any(part is None for line in parts for part in line):
                return
            for row, column in product(rows, columns):
                self._reduced.drop((level, row, column))
        self.write_block(level + 1, coarser, np.block(parts))

    def finish(self) -> Iterator[core.Progress]:
        """Write the missing blocks of all coarser levels, each from the level below.

        The memory for bands across the whole width would grow with the image.
        """
        (high, wide), total, count = self._unit, 0, 0
        missing: list[list[core.IntPair]] = [[]]
        for level, shape in enumerate(self._shapes[1:], start=1):
            units = product(range(-(-shape[0] // high)), range(-(-shape[1] // wide)))
            missing.append([at for at in units if (level, *at) not in self.written])
        total = sum(map(len, missing))
        for level, places in enumerate(missing[1:], start=1):
            source, target = self._open_level(level - 1), self._open_level(level)

            def build_block(
                place: core.IntPair, finer: Any = source, coarser: Any = target
            ) -> None:
                y, x = place[0] * high, place[1] * wide
                fine = finer[2 * y : 2 * (y + high), 2 * x : 2 * (x + wide)]
                coarser[y : y + high, x : x + wide] = self._reduce(np.asarray(fine))

            for _ in core.map_parallel(build_block, places):
                count += 1
                yield core.Progress(count, total, "Building the pyramid")

    def _open_level(self, level: int) -> "ZarrArray":
        """Return a level, which replaces that of an interrupted run."""
        with self._lock:
            while len(self._levels) <= level:
                number, finest = len(self._levels), self._finest
                how = str(number), self._shapes[number], finest, finest.dtype
                self._levels.append(_create_level(self._group, *how))
            return self._levels[level]


def _write_chunk(
    array: "ZarrArray", place: core.IntPair, values: core.RealArray
) -> int | None:
    """Write the chunk, or shard, at ``(row, column)``, which may end at the border.

    zarr's event loop takes as long as the compression, so it writes only shards.
    Returns the checksum of the file, which is 0 if there is none, and None of a shard.
    """
    store, encoder = array.store, _find_encoder(array)
    if encoder is None or not isinstance(store, core.FolderStore):
        sides = zip(place, array.shards or array.chunks, values.shape, strict=True)
        array[tuple(slice(at * n, at * n + size) for at, n, size in sides)] = values
        return None
    chunk = np.ascontiguousarray(values, array.dtype)
    if chunk.shape != array.chunks:
        margins = [(0, n - m) for n, m in zip(array.chunks, chunk.shape, strict=True)]
        chunk = np.pad(chunk, margins)
    path = store.root / array.path / array.metadata.encode_chunk_key(place)
    if not chunk.view(np.uint8).any():
        path.unlink(missing_ok=True)
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{uuid4().hex}.partial")
    encoded = encoder.encode(chunk)
    try:
        part.write_bytes(encoded)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return zlib.crc32(encoded)


def _find_encoder(array: "ZarrArray") -> Any:
    """Return what compresses the chunks of an array of this package, unless sharded."""
    from numcodecs import Zstd

    codecs: Any = array.compressors
    names = [getattr(c, "codec_id", None) or c.to_dict()["name"] for c in codecs]
    is_other = names != ["zstd"] or array.filters or array.fill_value != 0
    return None if is_other or array.shards else Zstd(_choose_level(array.dtype))


def _create_compressor(dtype: DTypeLike, version: str) -> core.JsonObject:
    """Describe the compression of an array for zarr."""
    how = {"level": _choose_level(dtype), "checksum": False}
    if version == "0.4":
        return {"id": "zstd", **how}
    return {"name": "zstd", "configuration": how}


def _choose_level(dtype: DTypeLike) -> int:
    """Choose the level of compression, 0 for the usual one.

    With the lowest one the grey values of networks take as much space, and up to a
    seventh of the time.
    """
    return int(np.dtype(dtype).kind == "f")


def _convert_to_int_pair(shape: tuple[int, ...]) -> core.IntPair:
    """Convert a shape to a pair of integers."""
    rows, columns = shape
    return int(rows), int(columns)


def register_label(image: "zarr.Group", name: str) -> "zarr.Group":
    """Add a label image to an image's list, and return the group of labels."""
    version = _get_version(image)
    labels = image.require_group(LABELS)
    names = [*(one for one in sorted(labels.group_keys()) if one != name), name]
    about = _import_metadata_models(version).LabelsGroup(labels=names)
    _write_metadata(labels, about.model_dump(exclude_none=True))
    return labels


def get_package_attributes(group: "zarr.Group") -> core.JsonObject:
    """Return the attributes of a group that belong to this package."""
    attributes = group.attrs.get(ATTRIBUTE)
    return dict(attributes) if isinstance(attributes, dict) else {}


def get_recorded_block_count(group: "zarr.Group") -> int | None:
    """Return the recorded number of files of the finished levels, if known."""
    block_count = get_package_attributes(group).get(_BLOCKS)
    return block_count if type(block_count) is int else None  # files may have any value


def _create_level(
    group: "zarr.Group",
    name: str,
    shape: core.IntPair,
    like: "ZarrArray",
    dtype: DTypeLike,
) -> "ZarrArray":
    """Create a level with a given type and the chunks and shards of another level."""
    return group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=like.chunks,
        shards=like.shards,
        compressors=_create_compressor(dtype, _get_version(group)),
        fill_value=0,
        overwrite=True,
        **_LAYOUTS[_get_version(group)],
    )


# How arrays name axes and files: zarr 2 has no names of axes, and joins indices by dots
# unless folders are chosen, which OME-Zarr 0.4 recommends.
_LAYOUTS: dict[str, core.JsonObject] = {
    "0.5": {"dimension_names": ("y", "x")},
    "0.4": {"chunk_key_encoding": {"name": "v2", "separator": "/"}},
}


def _get_version(group: "zarr.Group") -> str:
    return "0.4" if group.metadata.zarr_format == 2 else "0.5"


def _import_metadata_models(version: str) -> ModuleType:
    """Import the metadata models for a version of OME-Zarr."""
    return import_module(f"yaozarrs.v{version.replace('.', '')}")


def _wrap_metadata(metadata: dict[str, object], version: str) -> core.JsonObject:
    """Convert OME metadata to group attributes; 0.4 has no ``ome`` key."""
    return {"ome": metadata} if version == "0.5" else metadata


def _write_metadata(group: "zarr.Group", metadata: dict[str, object]) -> None:
    group.attrs.update(_wrap_metadata(metadata, _get_version(group)))


def create_store(
    path: Path,
    *,
    shape: core.IntPair,
    dtype: DTypeLike,
    chunk: int | core.IntPair,
    pixel_size_nm: core.PixelSize | None = None,
    origin: tuple[float, float] = (0.0, 0.0),
    spacing_px: tuple[float, float] = (1.0, 1.0),
    name: str = "image",
    provenance: core.Provenance | None = None,
    look: core.DisplaySettings | None = None,
    significant_bits: int | None = None,
    overwrite: bool = False,
    resume: bool = False,
    chunks_per_shard: int = 1,
    version: str = "0.5",
) -> OmeZarrStore:
    """Create a store to fill tile by tile, or open an interrupted one.

    It is incomplete until its `finish` has run. `chunk` has rows and columns, reduced
    if larger than the image. `resume` continues a store of the same image and options,
    or creates it if there is none. One writer must own a whole shard of
    `chunks_per_shard` along each axis; OME-Zarr of `version` 0.4 has no shards. Raises
    a `WriteError` if the path cannot be written, or an existing store differs; an
    `OptionError` if pixel size or chunk is not usable.
    """
    path = Path(path)
    rows, columns = (chunk, chunk) if isinstance(chunk, int) else chunk
    if min(rows, columns, chunks_per_shard) < 1:
        msg = f"A chunk must have at least one pixel, got {rows} x {columns}."
        raise core.OptionError(msg, code="out-of-range")
    size = core.parse_pixel_size(pixel_size_nm)
    facts = name, size, origin, spacing_px, provenance, look, None, significant_bits
    record = Record(*facts)
    plan = _StoreLayout(
        shape=_convert_to_int_pair(shape),
        dtype=np.dtype(dtype).newbyteorder("="),
        chunk=(min(rows, shape[0]), min(columns, shape[1])),
        per_shard=chunks_per_shard if version == "0.5" else 1,
        version=version,
    )
    if resume and path.exists():
        return _reopen_store(path, plan, record)
    if not any((path.parent / mark).is_file() for mark in files.ZARR_MARKS):
        # a group in a store has no suffix
        files.check_target(path, overwrite=overwrite)
    files.remove_target(path)
    return _create_new_store(path, plan, record)


@dataclass(frozen=True, slots=True)
class _StoreLayout:
    """Layout of a store."""

    shape: core.IntPair
    dtype: np.dtype[np.generic]
    chunk: core.IntPair
    per_shard: int
    version: str  # Of OME-Zarr

    @property
    def unit(self) -> core.IntPair:
        return self.chunk[0] * self.per_shard, self.chunk[1] * self.per_shard

    @property
    def grid(self) -> core.IntPair:
        rows, columns = self.shape
        return math.ceil(rows / self.unit[0]), math.ceil(columns / self.unit[1])


def _create_new_store(path: Path, plan: _StoreLayout, record: Record) -> OmeZarrStore:
    import zarr

    with files.convert_write_errors(path):
        try:
            path.mkdir()
        except FileExistsError as error:
            msg = f"Another process is writing to {path}: wait, or rename the output."
            raise core.WriteError(msg, code="output-locked") from error
    with files.convert_write_errors(path), ExitStack() as clean_up:
        clean_up.callback(shutil.rmtree, path, ignore_errors=True)
        lock = StoreLock(path)
        metadata = _create_image_attributes(record, plan.dtype, 1, plan.version)
        notes = {
            ATTRIBUTE: {"complete": False, files.RECORD_KEY: record.to_dict()},
            **_wrap_metadata(metadata, plan.version),
        }
        layout: Literal[2, 3] = 3 if plan.version == "0.5" else 2
        here = core.FolderStore(path)
        group = zarr.create_group(here, zarr_format=layout, attributes=notes)
        level0 = group.create_array(
            "0",
            shape=plan.shape,
            dtype=plan.dtype,
            chunks=plan.chunk,
            shards=plan.unit if plan.per_shard > 1 else None,
            compressors=_create_compressor(plan.dtype, plan.version),
            fill_value=0,
            **_LAYOUTS[plan.version],
        )
        marks = _create_done_map(group, plan.grid, "uint64")
        clean_up.pop_all()
    return OmeZarrStore(path, group, level0, marks, plan.unit, record, lock)


def _create_done_map(
    group: "zarr.Group", grid: core.IntPair, dtype: str
) -> "ZarrArray":
    """Create a map in which all write units are marked as unfinished."""
    return group.create_array(
        _DONE_ARRAY, shape=grid, dtype=dtype, chunks=(1, 1), fill_value=0
    )


def read_store_state(
    path: Path,
) -> tuple[Record | None, core.JsonObject, core.IntPair | None]:
    """Read the record, notes and progress of a possibly incomplete store.

    Returns its record (name, calibration, history; None if another program wrote it),
    its notes, and the numbers of finished and all write units, None if none are filled.
    """
    import zarr

    notes: core.JsonObject = {}
    progress: core.IntPair | None = None
    here = core.FolderStore(path, read_only=True)
    with suppress(*_UNREADABLE):
        notes = get_package_attributes(zarr.open_group(here, mode="r"))
    with suppress(*_UNREADABLE):
        marks = np.asarray(zarr.open_array(here, path=_DONE_ARRAY, mode="r")[:])
        progress = int(np.count_nonzero(marks)), int(marks.size)
    # reading the image warns of a damaged record
    return Record.from_dict(notes.get(files.RECORD_KEY), []), notes, progress


def _reopen_store(path: Path, plan: _StoreLayout, record: Record) -> OmeZarrStore:
    """Open an interrupted store and check that it matches the current run."""
    import zarr

    with files.convert_write_errors(path):
        lock = StoreLock(path)
    for orphan in path.rglob("*.partial"):
        _logger.info("Removing %s, which an interrupted run left behind.", orphan)
        orphan.unlink(missing_ok=True)
    try:
        group = zarr.open_group(core.FolderStore(path), mode="r+")
        level0 = group["0"]
        own = get_package_attributes(group)
        marks: Any
        if own.get("complete"):
            if _DONE_ARRAY in group:
                del group[_DONE_ARRAY]  # killed between completing and tidying up
            # a complete store needs no map, except for its shape
            marks = zarr.create_array({}, shape=plan.grid, dtype="uint8", chunks=(1, 1))
        else:
            marks = group[_DONE_ARRAY]
        record_before = Record.from_dict(own.get(files.RECORD_KEY), [])
        if not isinstance(level0, zarr.Array) or not isinstance(marks, zarr.Array):
            raise TypeError(_DONE_ARRAY)
    except _UNREADABLE as error:
        msg = f"{path} cannot be resumed: use `overwrite` to start again."
        raise core.WriteError(msg, code="not-resumable") from error
    same = (
        level0.shape == plan.shape
        and level0.dtype == plan.dtype
        and (level0.shards or level0.chunks) == plan.unit
        and marks.shape == plan.grid
        and _get_version(group) == plan.version
    )
    changes = _list_changed_parts(record_before, record)
    if not (changes or same):
        changes = ["shape, type, chunk or version"]
    if changes or record_before is None:
        msg = (
            f"{path} cannot be resumed, since the {' and the '.join(changes)} changed: "
            "use `overwrite` to start again."
        )
        raise core.WriteError(msg, code="other-run")
    if own.get("complete"):
        if _has_all_files(path, group, level0):
            lock.release()
            parts = path, group, level0, marks, plan.unit, record_before, lock
            return OmeZarrStore(*parts)
        group.attrs[ATTRIBUTE] = {**own, "complete": False}
        marks = _create_done_map(group, plan.grid, "uint8")
        marks[...] = 1
    store = OmeZarrStore(path, group, level0, marks, plan.unit, record_before, lock)
    store.mark_damaged_unfinished()
    return store


def _has_all_files(path: Path, group: "zarr.Group", level0: "ZarrArray") -> bool:
    """Return whether all files of a complete store exist and are readable."""
    count = len(_compute_level_shapes(level0))
    levels: list[Any] = [group.get(str(number)) for number in range(count)]
    if any(level is None for level in levels):
        return False
    number = sum(count_blocks(path, level) for level in levels)
    if number < (get_recorded_block_count(group) or 0):
        return False
    for level in levels:
        (rows, columns), (high, wide) = level.shape, level.shards or level.chunks
        corners = product(range(0, rows, high), range(0, columns, wide))
        boxes = (core.Box.from_shape((high, wide), corner) for corner in corners)
        if any(_decode(level, box.slices) is None for box in boxes):
            return False
    return True


# Comparison of an interrupted store with the current run.

_PARTS = {
    "inputs": "input",
    "model_name": "model",
    "model_digest": "model",
    "pixel_size_nm": "pixel size",
    "spacing_px": "pixel size",
    "option known_distortion": "distortion of the calibration",
    "option corrections": "manual corrections",
    "option found": "estimated distortion",
}


def _list_changed_parts(record_before: Record | None, record_now: Record) -> list[str]:
    """List the settings that changed after a store was started."""
    if record_before is None:
        return ["record"]
    before, now = _get_resume_record(record_before), _get_resume_record(record_now)
    old, new = before.pop("provenance") or {}, now.pop("provenance") or {}
    options_changed = _collect_options(old), _collect_options(new)
    pairs = [(before, now), (old, new), options_changed]
    keys = [k for a, b in pairs for k in sorted({*a, *b}) if a.get(k) != b.get(k)]
    return list(dict.fromkeys(_PARTS.get(key, key) for key in keys))


def _collect_options(history: core.JsonObject) -> core.JsonObject:
    """Return the options of a history, including reading options."""
    options = history.pop("options", None) or {}
    reading = options.get("reading")
    if isinstance(reading, dict):
        options = {**{k: v for k, v in options.items() if k != "reading"}, **reading}
    updated = {k: core.update_value_name(k, value) for k, value in options.items()}
    return {f"option {k}": value for k, value in updated.items()}


def _get_resume_record(record: Record) -> core.JsonObject:
    """Return the parts of a record that must match to resume a run."""
    values = record.to_dict()
    values.pop("look", None)  # of no effect on the pixels
    if record.provenance is not None:
        values["provenance"] = record.provenance.reproducible_record()
    return values


# The metadata of an image: axes, units, and position of each level.
#
# Composed and validated by yaozarrs: invalid metadata are never written.


def _create_image_attributes(
    record: Record, dtype: np.dtype[Any], levels: int, version: str
) -> core.JsonObject:
    """Return the metadata of an image for a given OME-Zarr version.

    The axes have units if the image is calibrated; otherwise the scale is in pixels of
    the parent image.
    """
    ome = _import_metadata_models(version)
    method = None if record.look is not None and record.look.classes else "mean"
    image = _create_multiscale(record, record.name, levels, version, method)
    display = None
    if record.look is not None:  # contrast limits and colour, for other viewers
        start, end = least, most = record.look.limits
        if dtype.kind in "ui":
            info = np.iinfo(dtype)
            least, most = min(start, info.min), max(end, info.max)
        hue = record.look.colormap.removeprefix("#")[:6].upper()
        plain = record.look.colormap.startswith("#") and len(hue) == 6
        channel = ome.OmeroChannel(
            window=ome.OmeroWindow(start=start, end=end, min=least, max=most),
            color=hue if plain else "FFFFFF",
            active=True,
        )
        display = ome.Omero(channels=[channel])
    metadata: Any = ome.Image(multiscales=[image], omero=display)
    return dict(metadata.model_dump(exclude_none=True))


def _create_label_attributes(
    record: Record, name: str, levels: int, version: str
) -> core.JsonObject:
    """Compose the metadata of a label image, with the colours of its classes."""
    ome = _import_metadata_models(version)
    classes = record.look.classes if record.look else ()
    colours = [
        {"label-value": value, "rgba": list(bytes.fromhex(f"{colour[1:]:f<8}"))}
        for value, colour, _ in classes
    ]
    meanings = [{"label-value": v, "meaning": text} for v, _, text in classes if text]
    about = {
        "source": {"image": "../../"},
        **({"colors": colours} if colours else {}),
        **({"properties": meanings} if meanings else {}),
    }
    image = _create_multiscale(record, name, levels, version)
    values = {"multiscales": [image], "image-label": about}
    label = ome.LabelImage.model_validate(values)
    # The model makes floats of the values, which readers expect as integers.
    metadata = dict(label.model_dump(exclude_none=True, by_alias=True))
    return metadata | {"image-label": about}


def _create_multiscale(
    record: Record, name: str, levels: int, version: str, method: str | None = None
) -> Any:
    """Return position and scale of each level, and the downsampling method."""
    ome = _import_metadata_models(version)
    unit = None if record.pixel_size_nm is None else "nanometer"
    pitch = record.spacing_px if record.pixel_size_nm is None else record.pixel_size_nm
    datasets = []
    for level in range(levels):
        pairs = zip(record.origin, pitch, strict=True)
        scale = ome.ScaleTransformation(scale=[side * 2**level for side in pitch])
        # the first pixel is at the centre of those that it averages
        places = [start + (2**level - 1) / 2 * side for start, side in pairs]
        shift = ome.TranslationTransformation(translation=places)
        how = {"coordinateTransformations": [scale, shift]}
        datasets.append(ome.Dataset(path=str(level), **how))
    axes = [ome.SpaceAxis(name=axis, unit=unit) for axis in "yx"]
    label = core.escape_invisible_characters(name)
    return ome.Multiscale(name=label, axes=axes, datasets=datasets, type=method)
