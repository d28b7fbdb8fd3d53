"""Tiles of a Zeiss CZI mosaic, one channel and plane, with their stage positions.

Read by ``czifile``, which the extra ``[czi]`` installs.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import (
    PixelSize,
    ReadError,
    open_file,
)
from napari_semsr.io.files import check_claim, decoding
from napari_semsr.io.read_image import pixel_size, to_nm

_MAGIC = b"ZISRAWFILE"


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

    def __getitem__(self, index: int) -> NDArray[Any]:
        with decoding(self.path, "CZI"), _library(self.path).CziFile(self.path) as czi:
            entry = czi.filtered_subblock_directory[self.entries[index]]
            tile = entry.data_segment()
            check_claim(self.path, tile.data_size, self.path.stat().st_size)
            # a damaged one may say that it is to be enlarged without bound
            data = np.asarray(tile.data(resize=False)).squeeze()
            if data.shape != self.shape[1:]:
                msg = f"tile {index} has shape {data.shape}, not {self.shape[1:]}"
                raise ValueError(msg)
            return data


def _library(path: Path) -> Any:
    try:
        return import_module("czifile")
    except ImportError as error:
        msg = f"{path} needs czifile to be read: pip install 'napari-semsr[czi]'."
        raise ReadError(msg) from error


def is_czi(path: Path) -> bool:
    """Whether a file begins as a CZI does."""
    with open_file(path) as stream:
        return stream.read(len(_MAGIC)) == _MAGIC


def _scaling(czi: Any) -> PixelSize | None:
    from xml.etree import ElementTree as ET

    root = ET.fromstring(czi.metadata())  # noqa: S314 - no entities in the parser
    lengths: dict[str, float | None] = {}
    for item in root.iterfind("./Metadata/Scaling/Items/Distance"):
        lengths[item.get("Id", "")] = to_nm(item.findtext("Value"), "m")
    return pixel_size((lengths.get("Y"), lengths.get("X")))


def open_tiles(path: Path) -> CziTiles:
    """Find the tiles of a CZI mosaic."""
    library = _library(path)
    with decoding(path, "CZI"), library.CziFile(path) as czi:
        found = []
        for place, entry in enumerate(czi.filtered_subblock_directory):
            sizes = dict(zip(entry.axes, entry.shape, strict=True))
            starts = dict(zip(entry.axes, entry.start, strict=True))
            if tuple(entry.shape) != tuple(entry.stored_shape):
                continue  # a coarser level of the pyramid
            found.append((place, sizes, starts, entry.dtype))
        return _checked(path, found, _scaling(czi))


def _checked(path: Path, found: list[Any], size: PixelSize | None) -> CziTiles:
    """Refuse what is not one plane of tiles of one shape."""
    for axis, what in (("C", "channels"), ("Z", "planes"), ("T", "times")):
        several = {starts.get(axis, 0) for _, _, starts, _ in found}
        if len(several) > 1:
            msg = (
                f"{path} must hold one plane of tiles, but has {len(several)} {what}: "
                "export the one to be stitched."
            )
            raise ReadError(msg)
    shapes = {(sizes["Y"], sizes["X"], str(dtype)) for _, sizes, _, dtype in found}
    if len(shapes) != 1:
        kinds = (
            ", ".join(f"{y}x{x} {dtype}" for y, x, dtype in sorted(shapes)) or "none"
        )
        msg = f"{path} must hold tiles of one shape and type, but has {kinds}."
        raise ReadError(msg)
    ((rows, columns, dtype),) = shapes
    claimed = int(rows) * int(columns) * np.dtype(dtype).itemsize
    check_claim(path, claimed, path.stat().st_size)
    corners = [(float(starts["Y"]), float(starts["X"])) for _, _, starts, _ in found]
    return CziTiles(
        path,
        tuple(place for place, _, _, _ in found),
        np.array(corners),
        (len(found), int(rows), int(columns)),
        np.dtype(dtype),
        size,
    )
