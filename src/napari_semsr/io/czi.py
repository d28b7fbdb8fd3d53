"""Zeiss CZI reader: tiles, channels and planes, with stage positions.

Files are parsed by ``czifile``, which the extra ``[czi]`` installs, and pixels are
decoded by ``imagecodecs``, since not every release of ``czifile`` supports each
compression.
"""

import math
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr import core
from napari_semsr.io import files, read_image

if TYPE_CHECKING:
    from collections.abc import Iterator

    import czifile

_MAGIC = b"ZISRAWFILE"
_FRAME = "M"  # axis of tiles; each counts in its scene
_AXES = {"C": "channels", "Z": "planes", "T": "times", "H": "phases"}
_JPEG, _LZW, _JPEG_XR, _ZSTD, _ZSTD_HEAD = 1, 2, 4, 5, 6


@dataclass(frozen=True, slots=True)
class _TileEntry:
    """Directory entry of a tile."""

    number: int  # In the directory
    starts: dict[str, int]  # First pixel, channel, ... on each axis
    frame: core.IntPair  # Scene, and index of the tile in it
    shape: tuple[int, ...]  # Rows, columns and, in colour, samples
    dtype: np.dtype[np.generic]

    def axis_index(self, axis: str) -> Any:
        """Return the index on an axis other than rows and columns."""
        return self.frame if axis == _FRAME else self.starts.get(axis, 0)


@dataclass(frozen=True, slots=True)
class CziTiles:
    """Tiles of one mosaic, read one at a time."""

    path: Path
    entries: tuple[int, ...]  # Indices of the tiles in the file's directory
    # (N, 2) Top-left corners ``(y, x)`` in px, from the stage
    corners: NDArray[np.float64]
    shape: tuple[int, int, int]  # Tiles, rows and columns
    dtype: np.dtype[np.generic]
    pixel_size_nm: core.PixelSize | None  # ``(y, x)`` if the file states it
    colour: str = "refuse"  # As in `read`
    scenes_apart: int = 0  # Number of scenes, if these do not overlap as one mosaic
    instrument: str | None = None  # As in `Micrograph`

    def __getitem__(self, index: int) -> core.RealArray:
        pixels = _read_tile(self.path, self.entries[index])
        if pixels.shape[:2] != self.shape[1:]:
            msg = f"{self.path} has changed since it was opened: open it again."
            raise core.ReadError(msg, code="content-changed")
        grey = read_image.convert_to_grey(self.path, pixels, colour=self.colour)
        return np.asarray(grey)


@contextmanager
def _open_czi(path: Path) -> "Iterator[czifile.CziFile]":
    """Open a CZI; raise `ReadError` if it is damaged or czifile is missing."""
    library = files.import_library(path, "czifile", "czi")
    with files.convert_decoding_errors(path, "CZI"), library.CziFile(path) as czi:
        yield czi


def matches(path: Path, head: bytes) -> bool:
    """Return whether the first bytes of a file identify a CZI."""
    return path.is_file() and head.startswith(_MAGIC)


def is_czi(path: Path) -> bool:
    """Return whether a file is a CZI, by reading its first bytes."""
    with files.convert_decoding_errors(path, "CZI"), core.open_file(path) as stream:
        return stream.read(len(_MAGIC)) == _MAGIC


def is_mosaic(path: Path) -> bool:
    """Return whether a file is a readable CZI with several tiles."""
    try:
        if not is_czi(path):
            return False
        tiles, *_ = _read_directory(path)
    except core.ReadError:
        return False
    return len({tile.frame for tile in tiles}) > 1


def raw_image(path: Path, options: read_image.ReadOptions) -> read_image.RawImage:
    """Read a tile of one channel and plane, treating scenes as series."""
    files.choose_index(path, "level", options.level, 1)
    tiles, size, facts, doubts = _read_directory(path)
    scenes = len({tile.frame[0] for tile in tiles})
    # without a series, planes are counted over the tiles of all scenes
    scene = {read_image.OWN_SERIES_KEY: 1}
    if options.series is not None:
        tiles = _select_scene(path, tiles, options.series)
        scene = {read_image.SERIES_KEY: options.series}
    names = {name for tile in tiles for name in tile.starts} - {"Y", "X"}
    outer = {}
    for name in (*sorted(names), _FRAME):
        indices = sorted({tile.axis_index(name) for tile in tiles})
        if len(indices) > 1:
            outer[name] = indices
    axes, counts = [name.lower() for name in outer], [*map(len, outer.values())]
    choices, index = read_image.choose_plane(path, options, axes, counts)
    place = {name: outer[name][i] for name, i in zip(outer, index, strict=True)}
    for name, at in place.items():
        tiles = [tile for tile in tiles if tile.axis_index(name) == at]
    if not tiles:
        msg = f"{path} has no tile at {place}: choose another plane."
        raise core.ReadError(msg, code="plane-missing")
    return read_image.RawImage(
        format="CZI",
        data=_read_tile(path, tiles[0].number),
        pixel_size_nm=size,
        vendor="Zeiss",
        series=scenes,
        metadata=facts | (scene if scenes > 1 else {}),
        doubts=doubts,
        **choices,
    )


def _select_scene(path: Path, tiles: list[_TileEntry], series: int) -> list[_TileEntry]:
    """Select the tiles of a scene by its index; scenes are in numerical order."""
    scenes = sorted({tile.frame[0] for tile in tiles})
    scene_number = scenes[files.choose_index(path, "series", series, len(scenes))]
    return [tile for tile in tiles if tile.frame[0] == scene_number]


def open_tiles(
    path: Path,
    colour: str = "refuse",
    series: int | None = None,
    channel: int | None = None,
) -> CziTiles:
    """Open the tiles of a CZI mosaic, optionally of one scene or channel."""
    tiles, size, facts, doubts = _read_directory(path)
    for doubt in doubts:
        core.warn(doubt)
    if series is not None:
        tiles = _select_scene(path, tiles, series)
    channels = sorted({tile.axis_index("C") for tile in tiles})
    if channel is not None:
        index = files.choose_index(path, "channel", channel, len(channels))
        tiles = [tile for tile in tiles if tile.axis_index("C") == channels[index]]
    axes = {name for tile in tiles for name in tile.starts} - {"Y", "X", _FRAME}
    for axis in sorted(axes):
        several = {tile.axis_index(axis) for tile in tiles}
        what = _AXES.get(axis, f"indices on axis {axis}")
        if len(several) > 1:
            choice = f"choose one (`channel`, 0 to {len(several) - 1})"
            remedy = choice if axis == "C" else "export the one to be stitched"
            msg = f"{path} has {len(several)} {what}: {remedy}."
            raise core.ReadError(msg, code="several-images")
    tiles = sorted(tiles, key=lambda tile: (tile.frame, tile.number))
    rows, columns = tiles[0].shape[:2]
    kinds = {f"{t.shape[0]}x{t.shape[1]} {t.dtype}" for t in tiles}
    if len(kinds) > 1:
        got, scenes = ", ".join(sorted(kinds)), len({tile.frame[0] for tile in tiles})
        remedy = f": choose a scene (`series`, 0 to {scenes - 1})" if scenes > 1 else ""
        msg = f"{path} must have tiles of one shape and type, got {got}{remedy}."
        raise core.ReadError(msg, code="frames-differ")
    corners = [(float(tile.starts["Y"]), float(tile.starts["X"])) for tile in tiles]
    return CziTiles(
        path,
        tuple(tile.number for tile in tiles),
        np.array(corners),
        (len(tiles), rows, columns),
        tiles[0].dtype,
        size,
        colour,
        _count_separate_scenes(tiles),
        core.find_instrument(facts),
    )


def _count_separate_scenes(tiles: list[_TileEntry]) -> int:
    """Return the number of scenes if they are separate, otherwise 0.

    Also 0 if each scene is a single tile: such scenes are positions of one mosaic.
    """
    from scipy.sparse.csgraph import connected_components

    boxes: dict[int, NDArray[np.int64]] = {}
    for tile in tiles:
        start = np.array([tile.starts["Y"], tile.starts["X"]])
        box = np.stack([start, start + tile.shape[:2]])
        bounds = boxes.setdefault(tile.frame[0], box)
        np.minimum(bounds[0], box[0], out=bounds[0])
        np.maximum(bounds[1], box[1], out=bounds[1])
    first, last = np.stack([*boxes.values()], axis=1)
    touches = (first[:, None] < last) & (first < last[:, None])
    parts, _ = connected_components(touches.all(axis=2))
    return 0 if parts == 1 or len(tiles) == len(boxes) else len(boxes)


def count_scenes(path: Path) -> core.IntPair:
    """Return the numbers of scenes and channels in a file."""
    tiles, *_ = _read_directory(path)
    return len({t.frame[0] for t in tiles}), len({t.axis_index("C") for t in tiles})


def _read_directory(
    path: Path,
) -> tuple[list[_TileEntry], core.PixelSize | None, dict[str, object], tuple[str, ...]]:
    """Read the full-size directory entries, pixel size and other facts of a file.

    Facts are the bit depth, and the kind of microscope of a file with an objective.
    Also returns why these are unknown, if the metadata are damaged.
    """
    from xml.etree import ElementTree as ET

    with _open_czi(path) as czi:
        entries = enumerate(czi.subblock_directory)
        full = ((n, e) for n, e in entries if tuple(e.shape) == tuple(e.stored_shape))
        tiles = list(starmap(_read_entry, full))
        if not tiles:
            msg = f"{path} must contain an image, but has no full-resolution tile."
            raise core.ReadError(msg, code="no-image")
        most = max(math.prod(tile.shape) * tile.dtype.itemsize for tile in tiles)
        files.check_claimed_size(path, most, path.stat().st_size)
        try:
            root = ET.fromstring(czi.metadata())  # noqa: S314 - no entities in the parser
        except SyntaxError:  # raised by the XML parser
            text = f"The metadata of {path.name} are damaged: its pixel size is unknown"
            return tiles, None, {}, (core.Message(f"{text}.", "metadata-damaged"),)
        lengths: dict[str, float | None] = {}
        for item in root.iterfind("./Metadata/Scaling/Items/Distance"):
            length = read_image.convert_to_nm(item.findtext("Value"), "m")
            lengths[item.get("Id", "")] = length
        size = read_image.create_pixel_size((lengths.get("Y"), lengths.get("X")))
        bits = root.findtext("./Metadata/Information/Image/ComponentBitCount") or ""
        facts: dict[str, object] = {}
        if bits.strip().isdecimal():
            facts[core.BITS_KEY] = int(bits)
        objectives = "./Metadata/Information/Instrument/Objectives/Objective"
        if root.find(objectives) is not None:
            facts[core.INSTRUMENT_KEY] = "optical"
        return tiles, size, facts, ()


def _read_entry(number: int, entry: "czifile.DirectoryEntryDV") -> _TileEntry:
    """Convert a directory entry from any release of ``czifile``.

    Until 2019 axes are letters, including that of scenes; the last is samples.
    """
    names = tuple(getattr(entry, "dims", None) or entry.axes)[:-1]
    sizes = dict(zip(names, entry.shape[:-1], strict=True))
    starts = dict(zip(names, entry.start[:-1], strict=True))
    scene = starts.pop("S", getattr(entry, "scene_index", 0))
    samples = entry.shape[-1]
    return _TileEntry(
        number,
        starts,
        (int(scene), -1 if entry.mosaic_index is None else int(entry.mosaic_index)),
        (int(sizes["Y"]), int(sizes["X"]), *((int(samples),) if samples > 1 else ())),
        np.dtype(entry.dtype).base,
    )


def _read_tile(path: Path, number: int) -> core.RealArray:
    """Read a tile (Y, X) or (Y, X, S) by its index in the directory."""
    with _open_czi(path) as czi:
        entry = czi.subblock_directory[number]
        tile = _read_entry(number, entry)
        read = getattr(entry, "read_segment_data", None)
        block = entry.data_segment() if read is None else read(czi)
        files.check_claimed_size(path, block.data_size, path.stat().st_size)
        data = bytes(block.data(raw=True))
        if len(data) != block.data_size:
            msg = f"the file ends within tile {number}"
            raise ValueError(msg)
        how = getattr(entry.compression, "value", entry.compression)
        return _decode_tile(path, data, int(how), tile)


def _decode_tile(path: Path, data: bytes, how: int, tile: _TileEntry) -> core.RealArray:
    """Decode the pixels of a tile, converting BGR colours to RGB."""
    import imagecodecs

    size = math.prod(tile.shape) * tile.dtype.itemsize
    if how in (_JPEG, _JPEG_XR) and len(data) != size:
        decode = imagecodecs.jpeg_decode if how == _JPEG else imagecodecs.jpegxr_decode
        return np.asarray(decode(data)).reshape(tile.shape)
    if len(data) != size:  # otherwise not compressed, despite the stated value
        if how == _LZW:
            data = bytes(imagecodecs.lzw_decode(data, out=size))
        elif how == _ZSTD:
            data = bytes(imagecodecs.zstd_decode(data, out=size))
        elif how == _ZSTD_HEAD:
            # libCZI's ZSTD1: the first byte is the length of the header; in a chunk of
            # kind 1 a bit tells that the low bytes of all 16-bit pixels come first
            packed_data, length = data, data[0]
            data = bytes(imagecodecs.zstd_decode(packed_data[length:], out=size))
            if length == 3 and packed_data[1] == 1 and packed_data[2] & 1:
                data = np.frombuffer(data, np.uint8).reshape(2, -1).T.tobytes()
        elif how:
            what = f"{path} uses an unsupported compression (number {how})"
            msg = f"{what}: in ZEN, save it uncompressed, as JPEG XR or with zstd."
            raise core.ReadError(msg, code="format-unsupported")
    pixels = np.frombuffer(data, tile.dtype).reshape(tile.shape)
    return pixels[..., [2, 1, 0]] if pixels.ndim > 2 else pixels
