"""TIFF in all its dialects: plain, ImageJ, OME, and those of microscopes."""

import logging
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_semsr.core.errors import ReadError
from napari_semsr.core.micrograph import Micrograph, PixelSize
from napari_semsr.io.assemble import LAZY_BYTES, to_info, to_micrograph
from napari_semsr.io.faults import choose, decoding
from napari_semsr.io.ome_xml import ome_image, ome_record, parse_ome
from napari_semsr.io.options import FileInfo, ReadOptions, Source
from napari_semsr.io.palette import apply_palette, invert_white
from napari_semsr.io.record import RECORD_KEY, Record
from napari_semsr.io.sem_tiff import vendor_info
from napari_semsr.io.tiff_calibration import (
    imagej_pixel_size,
    tag_pixel_size,
)
from napari_semsr.io.tiff_pixels import PlaneSource, find_plane

if TYPE_CHECKING:
    from collections.abc import Iterator

    import tifffile

__all__ = ["describe", "matches", "read"]

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
    """Tell a TIFF by its first bytes.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    head : bytes
        Its beginning.

    Returns
    -------
    bool
        Whether this module can read it.
    """
    return path.is_file() and head.startswith(_MAGIC)


def describe(path: Path) -> FileInfo:
    """Say what a TIFF is.

    Parameters
    ----------
    path : pathlib.Path
        The file.

    Returns
    -------
    FileInfo
        Of its first image.

    Raises
    ------
    ReadError
        If the file is damaged.
    """
    return to_info(path, _load(path, ReadOptions(channel=0, plane=0)))


def read(path: Path, options: ReadOptions) -> Micrograph:
    """Read one plane of a TIFF.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    options : ReadOptions
        Which plane, and how.

    Returns
    -------
    Micrograph
        Lazy when it is large.

    Raises
    ------
    ReadError
        If the file is damaged, or the choice does not exist.
    """
    return to_micrograph(path, _load(path, options), options)


def _load(path: Path, options: ReadOptions) -> Source:
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
        data = apply_palette(data, lut)
    elif photometric == _WHITE_IS_ZERO:
        data = invert_white(data, bits)
    return Source(
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
        found.size = imagej_pixel_size(page, details, found.warnings)
        text = str(details.get("Info", ""))
    else:
        found.size = tag_pixel_size(page)
    if found.record is None:
        found.record = _find_record(text)
    for name in ("Software", "DateTime", "Make", "Model"):
        tag = page.tags.get(name)
        if tag is not None and isinstance(tag.value, str):
            found.metadata[name.lower()] = tag.value
    return found


def _calibrate_ome(found: _Calibration, document: str, series: int) -> None:
    """Read the OME-XML document."""
    root = parse_ome(document)
    if root is None:
        found.warnings.append("The OME-XML is damaged: the pixel size is left unknown.")
        return
    found.size, found.name = ome_image(root, series, found.warnings)
    found.record = ome_record(root)


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
