"""OME-Zarr 0.4 and 0.5, read lazily; whole images written to 0.5."""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from napari_semsr.core import (
    DisplaySettings,
    FloatPair,
    IncompleteError,
    IntPair,
    Job,
    Micrograph,
    PixelSize,
    ReadError,
    SemsrError,
    run,
    warn,
)
from napari_semsr.io.files import (
    COVERAGE,
    RECORD_KEY,
    ZARR_MARKS,
    Record,
    choose,
    decoding,
    label_path,
    record_of,
    replacing,
)
from napari_semsr.io.read_image import (
    RawImage,
    ReadOptions,
    choose_plane,
    pixel_size,
    to_nm,
)
from napari_semsr.io.zarr.store import (
    OmeZarrStore,
    blocks_when_whole,
    count_blocks,
    create_store,
    own_attributes,
)

if TYPE_CHECKING:
    import zarr

_CHUNK = 512
_CHUNKS_PER_SHARD = 4
_SHARDED_FROM = 8 * _CHUNK
_MOST_BLOCKS = 1 << 20  # chosen: 500k x 500k px in chunks of 512
_LARGEST_BLOCK = 1 << 29  # bytes; chosen: a frame of 16k x 16k px of 16 bits in one


def store_of(
    about: Micrograph,
    place: Path,
    *,
    shape: IntPair | None = None,
    dtype: DTypeLike | None = None,
    **how: Any,
) -> OmeZarrStore:
    """Make the empty store of an image, in chunks of 512 px, sharded when it is large.

    Name, calibration and history are those of `about`, and so are shape and type by
    default. `how` gives other chunks, overwrite or resume, as for `create_store`.
    """
    record = record_of(about)
    rows, columns = shape or about.shape
    large = min(rows, columns) > _SHARDED_FROM and "chunk" not in how
    options = {
        "chunk": _CHUNK,
        "chunks_per_shard": _CHUNKS_PER_SHARD if large else 1,
        **how,
    }
    return create_store(
        place,
        shape=(rows, columns),
        dtype=np.dtype(dtype or about.dtype).newbyteorder("="),
        pixel_size_nm=record.pixel_size_nm,
        origin=record.origin,
        spacing_px=record.spacing_px,
        name=record.name,
        provenance=record.provenance,
        look=record.look,
        **options,
    )


def fill_from(store: OmeZarrStore, image: Micrograph, message: str) -> Job[int]:
    """Fill a store with an image, and with the coverage that is stored where it lies.

    Gives the pixels that had no place in the type of the store.
    """
    blocks = (image.data[box.slices] for box in store.boxes())
    clipped = yield from store.fill(blocks, message)
    counts = coverage_of(image)
    if counts is not None:
        label = store.add_label(COVERAGE)
        for place in np.ndindex(*store.done.shape):
            box = store.box(*place)
            label[box.slices] = np.asarray(counts.data[box.slices])
        store.finish_label(COVERAGE, label)
    return clipped


def coverage_of(image: Micrograph) -> Micrograph | None:
    """Read the number of frames at each pixel of a mosaic, where its file lies."""
    place = None if image.path is None else label_path(Path(image.path), COVERAGE)
    if place is None or not matches(place, b""):
        return None
    counts = raw_image(place, ReadOptions()).data
    if counts.shape != image.shape:
        return None
    return image.replace(data=counts, name=f"{image.name} {COVERAGE}")


def write(image: Micrograph, path: Path) -> None:
    """Write an image as a complete OME-Zarr 0.5 pyramid.

    The store is made beside the target and renamed when it is whole.
    """
    with replacing(path) as place:
        store = store_of(image, place)
        with store.ours():
            run(fill_from(store, image, f"writing {path.name}"))
            deque(store.finish(), maxlen=0)


_HINT = "give the folder that ends in .ome.zarr and holds the image"


@dataclass(frozen=True, slots=True)
class _Image:
    """One multiscale image of a store."""

    group: "zarr.Group"
    metadata: Mapping[str, Any]
    version: str
    count: int


def matches(path: Path, head: bytes) -> bool:
    """Tell a zarr store by its metadata files."""
    return not head and path.is_dir() and any((path / m).is_file() for m in ZARR_MARKS)


def raw_image(path: Path, options: ReadOptions) -> RawImage:
    """Find the image, its level and plane."""
    import zarr

    from napari_semsr.core import FolderStore

    with decoding(path, "OME-Zarr"):
        node = zarr.open(FolderStore(path, read_only=True), mode="r")
        if isinstance(node, zarr.Array):
            msg = f"{path} is a bare zarr array, not an OME-Zarr image: {_HINT}."
            raise ReadError(msg)
        image = _find_image(path, node, options.series)
        own = own_attributes(image.group)
        if own.get("complete") is False:
            msg = (
                f"{path} is incomplete, since the run that wrote it was interrupted: "
                "make it again, or go on with it (--resume)."
            )
            raise IncompleteError(msg)
        return _source(path, image, Record.from_dict(own.get(RECORD_KEY)), options)


def tell_missing(path: Path, series: int = 0, level: int = 0) -> None:
    """Warn where blocks of a store have no file, as in one that was copied in part.

    Nothing is said of what is no OME-Zarr image. All levels are looked at where we
    wrote down how many blocks they have, else the one that is read.
    """
    if not matches(path, b"" if path.is_dir() else b"file"):
        return
    try:
        levels, finished = _levels(path, series, level)
    except Exception:  # noqa: BLE001 - `read` says what is wrong with a store
        return
    found = sum(count_blocks(path, level) for level in levels)
    whole = finished
    if whole is None:
        shapes = [(level.shape, level.shards or level.chunks) for level in levels]
        whole = sum(math.prod(_block_counts(*each)) for each in shapes)
    if found < whole:
        remedy = (
            "copy it again, unless it was written so."
            if finished is None
            else "it was copied in part, copy it again."
        )
        warn(
            f"{whole - found} of {whole} blocks of {path.name} have no file and are "
            f"read as {levels[0].fill_value:g}: {remedy}"
        )


def _levels(
    path: Path, series: int, level: int
) -> tuple[list["zarr.Array[Any]"], int | None]:
    """Give a level; all, and how many files they had, where we finished them."""
    import zarr

    from napari_semsr.core import FolderStore

    image = _find_image(
        path, zarr.open_group(FolderStore(path, read_only=True), mode="r"), series
    )
    finished = blocks_when_whole(image.group)
    sets = image.metadata["datasets"]
    if finished is None:
        sets = [sets[level]]
    levels: list[Any] = [image.group[each["path"]] for each in sets]
    return levels, finished


def _attributes(group: "zarr.Group") -> tuple[dict[str, Any], str]:
    """OME attributes of a group and their version, in either layout."""
    attributes = dict(group.attrs)
    ome = attributes.get("ome")
    if isinstance(ome, dict):
        return ome, str(ome.get("version", "0.5"))
    scales = attributes.get("multiscales")
    version = "0.4"
    if isinstance(scales, list) and scales and isinstance(scales[0], dict):
        version = str(scales[0].get("version", "0.4"))
    return attributes, version


def _find_image(path: Path, group: "zarr.Group", series: int) -> _Image:
    """Find a multiscale image in a group, or in the numbered groups below it."""
    import zarr

    attributes, version = _attributes(group)
    scales = attributes.get("multiscales")
    if isinstance(scales, list) and scales:
        number = choose(path, "series", series, len(scales))
        return _Image(group, scales[number], version, len(scales))
    if "plate" in attributes or "well" in attributes:
        msg = f"{path} is a plate or well of many images: give the path of one field."
        raise ReadError(msg)
    names = sorted((n for n, _ in group.groups() if n.isdigit()), key=int)
    child = None
    if names:
        child = group[names[choose(path, "series", series, len(names))]]
    if not isinstance(child, zarr.Group):
        msg = (
            f"{path} is a zarr group without OME-Zarr metadata (multiscales): {_HINT}."
        )
        raise ReadError(msg)
    found = _find_image(path, child, 0)
    return _Image(found.group, found.metadata, found.version, len(names))


def _axes(path: Path, image: _Image, ndim: int) -> list[dict[str, Any]]:
    """Axes of an image, named; the last two must be y and x."""
    stated = image.metadata.get("axes")
    if stated is None and ndim == 5:  # before 0.3 the axes were always these
        stated = list("tczyx")
    axes = [{"name": a} if isinstance(a, str) else dict(a) for a in stated or ()]
    names = [str(a.get("name", "")).lower() for a in axes]
    if len(names) != ndim or names[-2:] != ["y", "x"]:
        msg = (
            f"{path} must have axes that end in y and x, got {names} for {ndim} "
            "dimensions."
        )
        raise ReadError(msg)
    return [{**a, "name": n} for a, n in zip(axes, names, strict=True)]


def _placed(
    image: _Image, dataset: Mapping[str, Any], ndim: int
) -> tuple[list[float], list[float]]:
    """Scale and translation of a level: its own, then the image's."""
    own = dataset.get("coordinateTransformations") or []
    common = image.metadata.get("coordinateTransformations") or []
    scale, shift = [1.0] * ndim, [0.0] * ndim
    for step in (*own, *common):
        kind = step.get("type")
        values = step.get(kind)
        known = kind in ("scale", "translation") and isinstance(values, list)
        if not known or len(values) != ndim:
            continue
        if any(isinstance(v, bool) for v in values):
            msg = f"its {kind} must be numbers, got {values}"
            raise ValueError(msg)
        numbers = [float(v) for v in values]
        if kind == "scale":
            scale = [s * v for s, v in zip(scale, numbers, strict=True)]
            shift = [s * v for s, v in zip(shift, numbers, strict=True)]
        else:
            shift = [s + v for s, v in zip(shift, numbers, strict=True)]
    return scale, shift


def _source(
    path: Path, image: _Image, record: Record | None, options: ReadOptions
) -> RawImage:
    """Put the parts of one level together."""
    import zarr

    datasets = image.metadata.get("datasets") or []
    level = choose(path, "level", options.level, max(1, len(datasets)))
    array = image.group[str(datasets[level]["path"])]
    if not isinstance(array, zarr.Array):
        msg = f"{path} lacks the array of level {level}: copy the store again."
        raise ReadError(msg)
    axes = _axes(path, image, array.ndim)
    outer = [str(a["name"]) for a in axes[:-2]]
    sizes = array.shape[:-2]
    channels, planes, index = choose_plane(path, options, outer, sizes)
    channel = index[outer.index("c")] if "c" in outer else 0
    size, origin, spacing, warnings = _calibration(image, level, axes, record)
    ratio = _coarser(image, level, array.ndim)
    return RawImage(
        format=f"OME-Zarr {image.version}",
        data=_lazy(path, array, index),
        pixel_size_nm=size,
        coarser=ratio,
        levels=len(datasets),
        series=image.count,
        channels=channels,
        planes=planes,
        record=record,
        origin=origin,
        spacing_px=spacing,
        name=str(image.metadata.get("name") or "") or None,
        look=_look(image, channel),
        metadata={"chunks": list(array.chunks[-2:])},
        warnings=warnings,
    )


def _look(image: _Image, channel: int) -> DisplaySettings | None:
    """Read window and colour of a channel from the metadata of OMERO."""
    attributes, _ = _attributes(image.group)
    try:
        said = attributes["omero"]["channels"][channel]
        window = said["window"]
        hue = str(said.get("color") or "FFFFFF").lower()
        return DisplaySettings(
            limits=(float(window["start"]), float(window["end"])),
            colormap="gray" if int(hue, 16) == 0xFFFFFF else f"#{hue:0>6}",
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return None


def _lazy(path: Path, array: "zarr.Array[Any]", index: tuple[int, ...]) -> Any:
    """Wrap an array, one block for each chunk (or shard)."""
    import dask.array as da
    from dask.base import tokenize

    from napari_semsr.io.zarr.packed import held

    held(array)  # which refuses shards of more chunks than can be read
    marks = [path / mark for mark in ZARR_MARKS if (path / mark).is_file()]
    changed = [mark.stat().st_mtime_ns for mark in marks]
    name = f"zarr-{tokenize(str(path.resolve()), array.path, changed)}"
    chunks = array.shards or array.chunks
    _check_blocks(path, array, chunks)
    blocks = _Blocks(path, array, _made(path, array))
    return da.from_array(blocks, chunks=chunks, name=name, inline_array=True)[index]


def _block_counts(shape: Sequence[int], chunks: Sequence[int]) -> list[int]:
    return [math.ceil(n / part) for n, part in zip(shape, chunks, strict=True)]


def _check_blocks(path: Path, array: "zarr.Array[Any]", chunks: Sequence[int]) -> None:
    """Refuse blocks that no memory holds: one without a file is made all the same."""
    whole = list(zip(chunks, array.shape, strict=True))
    counts = _block_counts(array.shape, chunks)
    if sum(counts) > _MOST_BLOCKS or math.prod(counts[-2:]) > _MOST_BLOCKS:
        msg = (
            f"{path} must have at most {_MOST_BLOCKS} blocks in a plane, but says that "
            f"it has {' x '.join(map(str, counts))}: convert it with larger chunks."
        )
        raise ReadError(msg)
    size = math.prod(min(each) for each in whole) * array.dtype.itemsize
    stored = math.prod(array.chunks) * array.dtype.itemsize
    if max(size, stored) > _LARGEST_BLOCK:
        msg = (
            f"{path} must have blocks of at most {_LARGEST_BLOCK >> 20} MiB, got "
            f"{max(size, stored) / 2**20:.0f} MiB: convert it with smaller chunks."
        )
        raise ReadError(msg)


def _made(path: Path, array: "zarr.Array[Any]") -> tuple[int, ...] | None:
    """Tell when an array was made; None where it is there no more."""
    for name in ("zarr.json", ".zarray"):
        with suppress(OSError):
            told = (path / array.path / name).stat()
            return told.st_ino, told.st_mtime_ns, told.st_size
    return None


@dataclass(frozen=True, slots=True)
class _Blocks:
    """An array whose damaged blocks are told of in a sentence.

    Another that has taken its place meanwhile is not read for it: a block without a
    file would be one of zeros.
    """

    path: Path
    array: "zarr.Array[Any]"
    made: tuple[int, ...] | None = None  # None where another machine may tell it so

    def __reduce__(self) -> tuple[Any, ...]:
        return _Blocks, (self.path, self.array)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    @property
    def ndim(self) -> int:
        return self.array.ndim

    def __getitem__(self, index: Any) -> NDArray[Any]:
        from napari_semsr.io.zarr.packed import held

        with decoding(self.path, "OME-Zarr"):
            try:
                found = np.asarray(held(self.array)[index])
            except (MemoryError, SemsrError):
                raise
            except Exception as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                self._check_there()
                msg = f"block {self._name(index)}: {reason}"
                raise ValueError(msg) from error
        self._check_there()  # then, as it may have gone while it was read
        return found

    def _check_there(self) -> None:
        if self.made is not None and _made(self.path, self.array) != self.made:
            msg = f"{self.path} was written anew, or moved, since it was opened: open "
            raise ReadError(msg + "it again.")

    def _name(self, index: Any) -> str:
        """Name the file in which what is read begins."""
        chunks = self.array.shards or self.array.chunks
        starts = [one.start or 0 if isinstance(one, slice) else one for one in index]
        place = tuple(at // chunk for at, chunk in zip(starts, chunks, strict=True))
        return f"{self.array.path}/{self.array.metadata.encode_chunk_key(place)}"


def _calibration(
    image: _Image,
    level: int,
    axes: Sequence[Mapping[str, Any]],
    record: Record | None,
) -> tuple[PixelSize | None, tuple[float, float], tuple[float, float], tuple[str, ...]]:
    """Pixel size, origin and spacing of a level, and what could not be used."""
    datasets = image.metadata["datasets"]
    scale, shift = _placed(image, datasets[level], len(axes))
    units = [str(a.get("unit") or "") for a in axes[-2:]]
    unitless = not any(units)
    lengths = [to_nm(s, u) for s, u in zip(scale[-2:], units, strict=True)]
    size = pixel_size(lengths)
    if size is not None:
        grow = [n / s for n, s in zip(size, scale[-2:], strict=True)]
        origin = shift[-2] * grow[0], shift[-1] * grow[1]
        return size, origin, (1.0, 1.0), ()
    warnings: tuple[str, ...] = ()
    if not unitless:
        given = [f"{s:g} {u}" for s, u in zip(scale[-2:], units, strict=True)]
        warning = (
            f"The scale of y and x must be lengths above 0, got {' and '.join(given)}: "
            "the pixel size is left unknown."
        )
        warnings = (warning,)
    if record is not None and unitless:
        return None, (shift[-2], shift[-1]), (scale[-2], scale[-1]), ()
    # without a unit the scale of a foreign store only tells levels apart
    return None, (0.0, 0.0), _coarser(image, level, len(axes)), warnings


def _coarser(image: _Image, level: int, ndim: int) -> FloatPair:
    """Rows and columns of level 0 that a pixel of a level takes."""
    datasets = image.metadata["datasets"]
    (*_, y, x), _ = _placed(image, datasets[level], ndim)
    (*_, fine_y, fine_x), _ = _placed(image, datasets[0], ndim)
    sides = (y, fine_y), (x, fine_x)
    down, across = (s / f if min(s, f) > 0 else 1.0 for s, f in sides)
    return down, across
