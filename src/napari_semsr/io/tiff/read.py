"""The OME-XML document of a TIFF: physical sizes, names, our own annotation."""

import logging
import math
import threading
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import Micrograph, PixelSize, ReadError
from napari_semsr.io.files import choose, decoding
from napari_semsr.io.read_image import (
    LAZY_BYTES,
    FileInfo,
    RawImage,
    ReadOptions,
    to_info,
    to_micrograph,
)
from napari_semsr.io.record import RECORD_KEY, Record
from napari_semsr.io.tiff.pixels import PlaneSource, find_plane
from napari_semsr.io.tiff.vendors import pixel_size, to_nm, vendor_info

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

    import tifffile

_DEFAULT_UNIT = "\u00b5m"
_NO_LENGTH = ("pixel", "reference frame")


def _parse_ome(text: str) -> "Element | None":
    """Parse an OME-XML document."""
    from xml.etree import ElementTree as ET

    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        return None
    try:
        return ET.fromstring(text.strip().rstrip("\0"))  # noqa: S314
    except ET.ParseError:
        return None


def _local(element: "Element") -> str:
    """Name of an element without its schema."""
    return element.tag.rpartition("}")[2]


def _ome_image(
    root: "Element", series: int, warnings: list[str]
) -> tuple[PixelSize | None, str | None]:
    """Read ``PhysicalSizeX`` and ``PhysicalSizeY`` of an OME image.

    Gives pixel size ``(y, x)`` in nm or None, and the image's name or None.
    """
    images = [e for e in root if _local(e) == "Image"]
    if series >= len(images):
        return None, None
    image = images[series]
    pixels = next((e for e in image if _local(e) == "Pixels"), None)
    if pixels is None:
        return None, image.get("Name")
    stated = [
        (
            pixels.get(f"PhysicalSize{a}"),
            pixels.get(f"PhysicalSize{a}Unit", _DEFAULT_UNIT),
        )
        for a in "YX"
    ]
    size = pixel_size([None if v is None else to_nm(v, u) for v, u in stated])
    given = [f"{v} {u}" for v, u in stated if v is not None and u not in _NO_LENGTH]
    if size is None and given:
        warnings.append(
            f"The OME physical size must be two positive lengths, got {given}: the "
            "pixel size is left unknown."
        )
    return size, image.get("Name")


def _ome_record(root: "Element") -> Record | None:
    """Find our record among the annotations of a document."""
    for element in root.iter():
        if element.get("K") == RECORD_KEY and element.text:
            return Record.from_json(element.text)
    return None


# Palettes and inverted scales: what a stored number means as a grey value.


def _apply_palette(data: Any, colormap: NDArray[Any]) -> Any:
    """Look the stored indices up; `data` (Y, X); `colormap` (3, N); gives (Y, X)."""
    table = np.asarray(colormap, dtype=np.uint16)
    ramp = np.arange(table.shape[1])
    grey = bool(np.all(table == table[0]))
    wide = bool(np.any((table % 257 != 0) & (table % 256 != 0)))
    small = table if wide else (table >> 8).astype(np.uint8)
    if grey and np.array_equal(small[0], ramp):
        return data
    lut = small[0] if grey else np.ascontiguousarray(small.T)
    if isinstance(data, np.ndarray):
        return lut[data]
    if grey:
        return data.map_blocks(_look_up, lut, dtype=lut.dtype)
    return data.map_blocks(
        _look_up, lut, dtype=lut.dtype, chunks=(*data.chunks, (3,)), new_axis=2
    )


def _look_up(block: NDArray[Any], lut: NDArray[Any]) -> NDArray[Any]:
    """Index a table with one block."""
    return np.asarray(lut[block])


def _invert_white(data: Any, bits: int) -> Any:
    """Turn a scale whose zero is white into one whose zero is black."""
    kind = np.dtype(data.dtype).kind
    if kind == "b":
        return ~data
    if kind != "u":
        return data
    return data.dtype.type(2**bits - 1) - data


# Pixel size of a TIFF that is no microscope's own: ImageJ, resolution tags.

LARGEST_PRINTED_NM = 5000.0
"""A coarser pitch in a resolution tag speaks of paper (4800 dpi is 5.3 um)."""

_TAG_UNITS = {2: "inch", 3: "cm"}
_NO_UNIT = ("", "pixel", "pixels", "px", "none", "reference frame")


def _resolution(page: "tifffile.TiffPage", name: str) -> float | None:
    """Pixels per unit along one axis, from a rational that may be damaged."""
    tag = page.tags.get(name)
    value: Any = None if tag is None else tag.value
    try:
        if isinstance(value, tuple | list):
            top, bottom = float(value[0]), float(value[1])
            number = top / bottom
        else:
            number = float(value)
    except (TypeError, ValueError, ArithmeticError, IndexError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _pitches(page: "tifffile.TiffPage", unit: str) -> PixelSize | None:
    """Pixel size from both resolution tags."""
    found = [_resolution(page, name) for name in ("YResolution", "XResolution")]
    return pixel_size([None if r is None else to_nm(1 / r, unit) for r in found])


def _tag_pixel_size(page: "tifffile.TiffPage") -> PixelSize | None:
    """Read the resolution tags, unless they only speak of print.

    Gives ``(y, x)`` in nm; None when absent, damaged, or coarser than
    `LARGEST_PRINTED_NM`.
    """
    tag = page.tags.get("ResolutionUnit")
    unit = (
        _TAG_UNITS.get(int(tag.value)) if tag is not None and tag.count == 1 else None
    )
    size = None if unit is None else _pitches(page, unit)
    return None if size is None or max(size) > LARGEST_PRINTED_NM else size


def _imagej_pixel_size(
    page: "tifffile.TiffPage", metadata: Mapping[str, Any], warnings: list[str]
) -> PixelSize | None:
    """Read ImageJ's calibration.

    Gives ``(y, x)`` in nm.
    """
    unit = str(metadata.get("unit", "")).strip()
    if unit.lower() in _NO_UNIT:
        return None
    size = _pitches(page, unit)
    if size is None:
        stated = getattr(page.tags.get("XResolution"), "value", None)
        warnings.append(
            f"ImageJ's calibration must be pixels per unit of length, got {stated} per "
            f"{unit!r}: the pixel size is left unknown."
        )
    elif unit.lower().startswith(("in", '"')) and max(size) > LARGEST_PRINTED_NM:
        return None
    return size


# TIFF in all its dialects: plain, ImageJ, OME, and those of microscopes.

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WHITE_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 2, 3, 6
_ALPHA = ((1,), (2,))
_GREY = (_WHITE_IS_ZERO, 1, _PALETTE, 4, 32803)
_logger = logging.getLogger("tifffile")
# without any handler Python would print what tifffile logs
_logger.addHandler(logging.NullHandler())
_LONGEST = 200


class _Listener(logging.Handler):
    """Collect what tifffile skips: it logs where others would raise."""

    def __init__(self, heard: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._heard = heard
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one message, once."""
        text = " ".join(record.getMessage().split())[:_LONGEST]
        if record.thread == self._thread and text not in self._heard:
            self._heard.append(text)


@contextmanager
def _opened(path: Path, heard: list[str]) -> "Iterator[tifffile.TiffFile]":
    """Open a TIFF, closing it, translating its faults, listening to its complaints."""
    import tifffile

    listener = _Listener(heard)
    _logger.addHandler(listener)
    try:
        with decoding(path, "TIFF"), tifffile.TiffFile(path) as tif:
            if not len(tif.series):
                msg = f"{path} is a TIFF without an image: export it again."
                raise ReadError(msg)
            yield tif
    finally:
        _logger.removeHandler(listener)


@dataclass(slots=True)
class _Calibration:
    """What the tags of a page say, collected step by step."""

    size: PixelSize | None = None
    vendor: str | None = None
    databar_rows: int = 0
    name: str | None = None
    record: Record | None = None
    origin: tuple[float, float] | None = None
    spacing_px: tuple[float, float] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def matches(path: Path, head: bytes) -> bool:
    """Tell a TIFF by its first bytes."""
    return path.is_file() and head.startswith(_MAGIC)


def describe(path: Path) -> FileInfo:
    """Say what a TIFF is."""
    return to_info(path, _load(path, ReadOptions(channel=0, plane=0)))


def read(path: Path, options: ReadOptions) -> Micrograph:
    """Read one plane of a TIFF."""
    return to_micrograph(path, _load(path, options), options)


def _load(path: Path, options: ReadOptions) -> RawImage:
    """Find the plane, its calibration and its pixels."""
    heard: list[str] = []
    with _opened(path, heard) as tif:
        count = len(tif.series)
        number = choose(path, "series", options.series, count)
        levels = tif.series[number].levels
        level = choose(path, "level", options.level, len(levels))
        chosen = _Choice(path, levels[level], options)
        plane = find_plane(path, tif, chosen.start(number, level), chosen.outer)
        page = levels[level].keyframe
        found = _calibrate(tif, levels[0].keyframe, number)
        if level:
            _coarsen(found, levels[0].keyframe, page)
        photometric, lut = _colours(page)
        bits = int(page.bitspersample)
    data = plane.whole() if plane.nbytes <= LAZY_BYTES else plane.lazy()
    if photometric == _PALETTE and lut is not None:
        data = _apply_palette(data, lut)
    elif photometric == _WHITE_IS_ZERO:
        data = _invert_white(data, bits)
    return RawImage(
        format=_dialect(tif),
        data=data,
        pixel_size_nm=found.size,
        vendor=found.vendor,
        databar_rows=found.databar_rows,
        levels=len(levels),
        series=count,
        channels=chosen.channels,
        planes=chosen.planes,
        record=found.record,
        origin=found.origin,
        spacing_px=found.spacing_px,
        name=found.name,
        metadata=found.metadata,
        warnings=(*found.warnings, *heard),
    )


class _Choice:
    """Axes of a series, and the one plane and channel that were asked for."""

    def __init__(
        self, path: Path, level: "tifffile.TiffPageSeries", options: ReadOptions
    ) -> None:
        self._path = path
        page = level.keyframe
        photometric = int(page.photometric)
        sizes = dict(zip(level.axes, level.shape, strict=True))
        samples = int(page.samplesperpixel)
        alpha = samples == 2 and tuple(page.extrasamples or ()) in _ALPHA
        self.by_sample = photometric in _GREY and samples > 1 and not alpha
        if photometric not in (*_GREY, _RGB, _YCBCR):
            msg = (
                f"{path} must be grey or RGB, got TIFF photometric {photometric}: "
                "convert it first."
            )
            raise ReadError(msg)
        outer = [a for a in level.axes if a not in "YXS"]
        outer_shape = [int(sizes[a]) for a in outer]
        in_axis = int(sizes.get("C", 1))
        self.channels = samples if self.by_sample else in_axis
        self.planes = int(np.prod(outer_shape, dtype=int)) // in_axis
        channel = choose(path, "channel", options.channel, self.channels)
        plane = choose(path, "plane", options.plane, self.planes)
        self.sample = channel if self.by_sample else None
        self.outer = _flat_index(
            outer, outer_shape, 0 if self.by_sample else channel, plane
        )

    def start(self, series: int, level: int) -> PlaneSource:
        """Begin a plane source; pages and shape are still to be found."""
        return PlaneSource(
            path=self._path,
            series=series,
            level=level,
            page=0,
            shape=(1, 1),
            axes="YX",
            dtype="u1",
            offset=None,
            sample=self.sample,
            block=(1, 1),
        )


def _flat_index(axes: list[str], shape: list[int], channel: int, plane: int) -> int:
    """Count a plane among all pages, wherever the channel axis stands."""
    if not axes:
        return 0
    others = [n for a, n in zip(axes, shape, strict=True) if a != "C"]
    where = list(np.unravel_index(plane, others)) if others else []
    index = [channel if a == "C" else int(where.pop(0)) for a in axes]
    return int(np.ravel_multi_index(index, shape))


def _calibrate(
    tif: "tifffile.TiffFile", page: "tifffile.TiffPage", series: int
) -> _Calibration:
    """Ask the dialects in turn: microscope, OME, ImageJ, plain tags."""
    found = _Calibration()
    maker = vendor_info(tif, page)
    if maker is not None:
        found.vendor, found.size = maker.vendor, maker.pixel_size_nm
        found.databar_rows = maker.databar_rows
        found.metadata.update(maker.metadata)
        found.warnings.extend(maker.warnings)
        return found
    text = str(page.description or "")
    if tif.is_ome and tif.ome_metadata:
        _calibrate_ome(found, tif.ome_metadata, series)
    elif tif.is_imagej:
        details = tif.imagej_metadata or {}
        found.size = _imagej_pixel_size(page, details, found.warnings)
        text = str(details.get("Info", ""))
    else:
        found.size = _tag_pixel_size(page)
    if found.record is None:
        found.record = _find_record(text)
    for name in ("Software", "DateTime", "Make", "Model"):
        tag = page.tags.get(name)
        if tag is not None and isinstance(tag.value, str):
            found.metadata[name.lower()] = tag.value
    return found


def _calibrate_ome(found: _Calibration, document: str, series: int) -> None:
    """Read the OME-XML document."""
    root = _parse_ome(document)
    if root is None:
        found.warnings.append("The OME-XML is damaged: the pixel size is left unknown.")
        return
    found.size, found.name = _ome_image(root, series, found.warnings)
    found.record = _ome_record(root)


def _find_record(text: str) -> Record | None:
    """Find the line that this package wrote into a text."""
    for line in text.splitlines():
        if line.startswith(f"{RECORD_KEY}="):
            return Record.from_json(line.partition("=")[2])
    return None


def _coarsen(
    found: _Calibration, full: "tifffile.TiffPage", page: "tifffile.TiffPage"
) -> None:
    """Bring calibration, place and data bar from the finest level to another one."""
    down = full.imagelength / page.imagelength
    across = full.imagewidth / page.imagewidth
    record = found.record
    spacing = (1.0, 1.0) if record is None else record.spacing_px
    start = (0.0, 0.0) if record is None else record.origin
    pitch = found.size or spacing
    found.origin = (
        start[0] + (down - 1) / 2 * pitch[0],
        start[1] + (across - 1) / 2 * pitch[1],
    )
    found.spacing_px = (spacing[0] * down, spacing[1] * across)
    if found.size is not None:
        found.size = PixelSize((found.size[0] * down, found.size[1] * across))
    found.databar_rows = round(found.databar_rows / down)


def _colours(page: "tifffile.TiffPage") -> tuple[int, Any]:
    """Photometric interpretation and colour map of a page."""
    photometric = int(page.photometric)
    return photometric, page.colormap if photometric == _PALETTE else None


def _dialect(tif: "tifffile.TiffFile") -> str:
    """Name the kind of TIFF."""
    if tif.is_ome:
        return "OME-TIFF"
    return "ImageJ TIFF" if tif.is_imagej else "TIFF"
