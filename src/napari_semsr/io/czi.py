"""Zeiss CZI: tiles, channels and planes, with the places that the stage stated.

Files are taken apart by ``czifile``, which the extra ``[czi]`` installs, and pixels are
unpacked by ``imagecodecs``: not every release of the first knows each compression.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import (
    BITS_KEY,
    IntPair,
    Message,
    PixelSize,
    ReadError,
    open_file,
    warn,
)
from napari_semsr.io.files import check_claim, choose, decoding, library
from napari_semsr.io.read_image import (
    OWN_SERIES_KEY,
    SERIES_KEY,
    RawImage,
    ReadOptions,
    choose_plane,
    named_axes,
    pixel_size,
    to_grey,
    to_nm,
)

_MAGIC = b"ZISRAWFILE"
_FRAME = "M"  # axis of tiles; each counts in its scene
_PLANES = {"C": "channels", "Z": "planes", "T": "times"}
_JPEG, _LZW, _JPEG_XR, _ZSTD, _ZSTD_HEAD = 1, 2, 4, 5, 6


@dataclass(frozen=True, slots=True)
class _Tile:
    """What the directory of a file says of one of its tiles."""

    number: int  # In the directory
    starts: dict[str, int]  # First pixel, channel, ... on each axis
    frame: IntPair  # Scene and place in it
    shape: tuple[int, ...]  # Rows, columns and, in colour, samples
    dtype: np.dtype[Any]

    def place(self, axis: str) -> Any:
        """Give its place on an axis other than rows and columns."""
        return self.frame if axis == _FRAME else self.starts.get(axis, 0)


@dataclass(frozen=True, slots=True)
class CziTiles:
    """Tiles of one mosaic, read one at a time."""

    path: Path
    entries: tuple[int, ...]  # Places of the tiles in the file's directory
    # (N, 2) Top-left corners ``(y, x)`` in px, as the stage stated them
    corners: NDArray[np.float64]
    shape: tuple[int, int, int]  # Tiles, rows and columns
    dtype: np.dtype[Any]
    pixel_size_nm: PixelSize | None  # ``(y, x)`` where the file tells
    colour: str = "refuse"  # As `read` takes it
    scenes_apart: int = 0  # Number of scenes, if no overlap can join them to one mosaic

    def __getitem__(self, index: int) -> NDArray[Any]:
        pixels = _pixels(self.path, self.entries[index])
        if pixels.shape[:2] != self.shape[1:]:
            msg = f"{self.path} was changed since it was opened: open it again."
            raise ReadError(msg, code="content-changed")
        return np.asarray(to_grey(self.path, pixels, colour=self.colour))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file, or report how to get czifile; faults become sentences."""
    czifile = library(path, "czifile", "czifile", "czi")
    with decoding(path, "CZI"), czifile.CziFile(path) as czi:
        yield czi


def matches(path: Path, head: bytes) -> bool:
    """Tell a CZI by its first bytes."""
    return path.is_file() and head.startswith(_MAGIC)


def is_czi(path: Path) -> bool:
    """Whether a file begins as a CZI does."""
    with decoding(path, "CZI"), open_file(path) as stream:
        return stream.read(len(_MAGIC)) == _MAGIC


def is_mosaic(path: Path) -> bool:
    """Whether a file is a CZI of several tiles, as far as it can be read."""
    try:
        if not is_czi(path):
            return False
        tiles, *_ = _contents(path)
    except ReadError:
        return False
    return len({tile.frame for tile in tiles}) > 1


def raw_image(path: Path, options: ReadOptions) -> RawImage:
    """Read one tile of one channel and plane; its scenes are counted as series."""
    choose(path, "level", options.level, 1)
    tiles, size, bits, doubts = _contents(path)
    scenes = len({tile.frame[0] for tile in tiles})
    # without a series planes count the tiles of all scenes, so that none is left out
    chosen_scene: dict[str, Any] = {OWN_SERIES_KEY: 1} if scenes > 1 else {}
    if options.series is not None:
        tiles = _of_scene(path, tiles, options.series)
        chosen_scene = {SERIES_KEY: options.series} if scenes > 1 else {}
    names = {name for tile in tiles for name in tile.starts} - {"Y", "X"}
    places = {
        name: sorted({tile.place(name) for tile in tiles})
        for name in (*sorted(names), _FRAME)
    }
    outer = {name: found for name, found in places.items() if len(found) > 1}
    axes = [name.lower() for name in outer]
    counts = [len(found) for found in outer.values()]
    channels, planes, index = choose_plane(path, options, axes, counts)
    wanted = {name: outer[name][i] for name, i in zip(outer, index, strict=True)}
    chosen = [t for t in tiles if all(t.place(n) == at for n, at in wanted.items())]
    if not chosen:
        msg = f"{path} has no tile there, at {wanted}: choose another plane."
        raise ReadError(msg, code="plane-missing")
    return RawImage(
        format="CZI",
        data=_pixels(path, chosen[0].number),
        pixel_size_nm=size,
        vendor="Zeiss",
        series=scenes,
        channels=channels,
        planes=planes,
        axes=named_axes(axes, counts),
        metadata={**({} if bits is None else {BITS_KEY: bits}), **chosen_scene},
        doubts=doubts,
    )


def _of_scene(path: Path, tiles: list[_Tile], series: int) -> list[_Tile]:
    """Choose the tiles of a scene, counted from 0 as they are numbered."""
    scenes = sorted({tile.frame[0] for tile in tiles})
    wanted = scenes[choose(path, "series", series, len(scenes))]
    return [tile for tile in tiles if tile.frame[0] == wanted]


def open_tiles(
    path: Path,
    colour: str = "refuse",
    series: int | None = None,
    channel: int | None = None,
) -> CziTiles:
    """Find the tiles of a CZI mosaic: of one scene or of all, of one channel."""
    tiles, size, _, doubts = _contents(path)
    for doubt in doubts:
        warn(doubt)
    if series is not None:
        tiles = _of_scene(path, tiles, series)
    channels = sorted({tile.place("C") for tile in tiles})
    if channel is not None:
        wanted = channels[choose(path, "channel", channel, len(channels))]
        tiles = [tile for tile in tiles if tile.place("C") == wanted]
    for axis, what in _PLANES.items():
        several = {tile.place(axis) for tile in tiles}
        if len(several) > 1:
            remedy = "export the one to be stitched"
            if axis == "C":
                remedy = f"choose one (`channel`, 0 to {len(several) - 1})"
            msg = (
                f"{path} must hold one plane of tiles, but has {len(several)} {what}: "
                f"{remedy}."
            )
            raise ReadError(msg, code="several-images")
    tiles = sorted(tiles, key=lambda tile: (tile.frame, tile.number))
    rows, columns = tiles[0].shape[:2]
    kinds = {f"{t.shape[0]}x{t.shape[1]} {t.dtype}" for t in tiles}
    if len(kinds) > 1:
        found = ", ".join(sorted(kinds))
        scenes = len({tile.frame[0] for tile in tiles})
        remedy = f": choose a scene (`series`, 0 to {scenes - 1})" if scenes > 1 else ""
        msg = f"{path} must hold tiles of one shape and type, but has {found}{remedy}."
        raise ReadError(msg, code="frames-differ")
    corners = [(float(tile.starts["Y"]), float(tile.starts["X"])) for tile in tiles]
    return CziTiles(
        path,
        tuple(tile.number for tile in tiles),
        np.array(corners),
        (len(tiles), rows, columns),
        tiles[0].dtype,
        size,
        colour,
        _scenes_apart(tiles),
    )


def _scenes_apart(tiles: list[_Tile]) -> int:
    """Count the scenes if their rectangles do not all touch; else, and of one, 0.

    Also 0 if each scene is a single tile: such scenes are positions of one mosaic.
    """
    boxes: dict[int, NDArray[np.int64]] = {}
    for tile in tiles:
        start = np.array([tile.starts["Y"], tile.starts["X"]])
        box = np.stack([start, start + tile.shape[:2]])
        known = boxes.setdefault(tile.frame[0], box)
        known[0], known[1] = np.minimum(known[0], box[0]), np.maximum(known[1], box[1])
    first, last = np.stack([*boxes.values()], axis=1)
    reached = np.arange(len(boxes)) == 0
    for _ in boxes:
        touches = (first[:, None] < last[reached]) & (first[reached] < last[:, None])
        reached |= touches.all(axis=2).any(axis=1)
    return 0 if reached.all() or len(tiles) == len(boxes) else len(boxes)


def count_scenes(path: Path) -> IntPair:
    """Count the scenes and the channels of a file."""
    tiles, *_ = _contents(path)
    return len({t.frame[0] for t in tiles}), len({t.place("C") for t in tiles})


def _contents(
    path: Path,
) -> tuple[list[_Tile], PixelSize | None, int | None, tuple[str, ...]]:
    """Read the directory of a file, without coarser levels, pixel size and bit depth.

    And why these are not known, if its metadata are damaged.
    """
    with _opened(path) as czi:
        entries = enumerate(czi.subblock_directory)
        tiles = [
            _tile(number, entry)
            for number, entry in entries
            if tuple(entry.shape) == tuple(entry.stored_shape)
        ]
        if not tiles:
            msg = f"{path} must hold an image, but holds no tile of full size."
            raise ReadError(msg, code="no-image")
        most = max(math.prod(tile.shape) * tile.dtype.itemsize for tile in tiles)
        check_claim(path, most, path.stat().st_size)
        try:
            return tiles, *_stated(czi), ()
        except SyntaxError:  # of XML, as its parser calls it
            doubt = Message(
                f"The metadata of {path.name} are damaged: its pixel size is unknown.",
                "metadata-damaged",
            )
            return tiles, None, None, (doubt,)


def _tile(number: int, entry: Any) -> _Tile:
    """Read an entry of the directory as releases of ``czifile`` give it.

    Until 2019 axes are letters, with that of scenes among them; the last is samples.
    """
    names = tuple(getattr(entry, "dims", None) or entry.axes)[:-1]
    sizes = dict(zip(names, entry.shape[:-1], strict=True))
    starts = dict(zip(names, entry.start[:-1], strict=True))
    scene = starts.pop("S", getattr(entry, "scene_index", 0))
    samples = entry.shape[-1]
    return _Tile(
        number,
        starts,
        (int(scene), -1 if entry.mosaic_index is None else int(entry.mosaic_index)),
        (int(sizes["Y"]), int(sizes["X"]), *((int(samples),) if samples > 1 else ())),
        np.dtype(entry.dtype).base,
    )


def _stated(czi: Any) -> tuple[PixelSize | None, int | None]:
    """Read pixel size and bit depth of the metadata; None of what they do not state."""
    from xml.etree import ElementTree as ET

    root = ET.fromstring(czi.metadata())  # noqa: S314 - no entities in the parser
    lengths: dict[str, float | None] = {}
    for item in root.iterfind("./Metadata/Scaling/Items/Distance"):
        lengths[item.get("Id", "")] = to_nm(item.findtext("Value"), "m")
    bits = root.findtext("./Metadata/Information/Image/ComponentBitCount") or ""
    known = int(bits) if bits.strip().isdecimal() else None
    return pixel_size((lengths.get("Y"), lengths.get("X"))), known


def _pixels(path: Path, number: int) -> NDArray[Any]:
    """Read a tile by its place in the directory, (Y, X) or (Y, X, S)."""
    with _opened(path) as czi:
        entry = czi.subblock_directory[number]
        tile = _tile(number, entry)
        read = getattr(entry, "read_segment_data", None)
        block = entry.data_segment() if read is None else read(czi)
        check_claim(path, block.data_size, path.stat().st_size)
        packed = bytes(block.data(raw=True))
        if len(packed) != block.data_size:
            msg = f"the file ends within tile {number}"
            raise ValueError(msg)
        how = getattr(entry.compression, "value", entry.compression)
        return _unpack(path, packed, int(how), tile)


def _unpack(path: Path, packed: bytes, how: int, tile: _Tile) -> NDArray[Any]:
    """Unpack the pixels of a tile, whose colours lie in the order blue, green, red."""
    import imagecodecs

    size = math.prod(tile.shape) * tile.dtype.itemsize
    if how in (_JPEG, _JPEG_XR) and len(packed) != size:
        decode = imagecodecs.jpeg_decode if how == _JPEG else imagecodecs.jpegxr_decode
        return np.asarray(decode(packed)).reshape(tile.shape)
    if len(packed) != size:  # else not packed, whatever is said
        if how == _LZW:
            packed = bytes(imagecodecs.lzw_decode(packed, out=size))
        elif how == _ZSTD:
            packed = bytes(imagecodecs.zstd_decode(packed, out=size))
        elif how == _ZSTD_HEAD:
            packed = _with_head(packed, size)
        elif how:
            msg = (
                f"{path} is compressed in a way that is not read here (number {how}): "
                "save it uncompressed, as JPEG XR or with zstd in ZEN."
            )
            raise ReadError(msg, code="format-unsupported")
    pixels = np.frombuffer(packed, tile.dtype).reshape(tile.shape)
    return pixels[..., [2, 1, 0]] if pixels.ndim > 2 else pixels


def _with_head(packed: bytes, size: int) -> bytes:
    """Unpack zstd behind the head that libCZI calls ``ZSTD1``.

    Its first byte is its length; in a part of kind 1 a bit says that the low bytes of
    all pixels of 16 bits stand before the high ones.
    """
    import imagecodecs

    length = packed[0]
    data = bytes(imagecodecs.zstd_decode(packed[length:], out=size))
    if length == 3 and packed[1] == 1 and packed[2] & 1:
        return np.frombuffer(data, np.uint8).reshape(2, -1).T.tobytes()
    return data
