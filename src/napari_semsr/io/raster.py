"""PNG, JPEG and BMP: images for looking at, which some microscopes save."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.errors import ReadError
from napari_semsr.core.micrograph import Micrograph, PixelSize
from napari_semsr.io.assemble import to_info, to_micrograph
from napari_semsr.io.faults import choose, decoding
from napari_semsr.io.options import FileInfo, ReadOptions, Source
from napari_semsr.io.png_chunks import (
    SIGNATURE,
    parse_physical,
    parse_text,
    split_chunks,
)
from napari_semsr.io.record import RECORD_KEY, Record
from napari_semsr.io.tiff_calibration import LARGEST_PRINTED_NM

__all__ = ["describe", "matches", "read"]

_JPEG, _BMP = b"\xff\xd8\xff", b"BM"
_LARGEST_TEXT = 500


def matches(path: Path, head: bytes) -> bool:
    """Tell PNG, JPEG and BMP by their first bytes.

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
    return path.is_file() and head.startswith((SIGNATURE, _JPEG, _BMP))


def describe(path: Path) -> FileInfo:
    """Say what an image is.

    Parameters
    ----------
    path : pathlib.Path
        The file.

    Returns
    -------
    FileInfo
        Shape and, for a calibrated PNG, pixel size.

    Raises
    ------
    ReadError
        If the file is damaged.
    """
    return to_info(path, _load(path, ReadOptions(channel=0, plane=0)))


def read(path: Path, options: ReadOptions) -> Micrograph:
    """Read an image.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    options : ReadOptions
        There is one series, level, channel and plane to choose.

    Returns
    -------
    Micrograph
        In memory.

    Raises
    ------
    ReadError
        If the file is damaged or in colour.
    """
    return to_micrograph(path, _load(path, options), options)


def _load(path: Path, options: ReadOptions) -> Source:
    """Decode the file and what it says."""
    choose(path, "series", options.series, 1)
    choose(path, "level", options.level, 1)
    choose(path, "channel", options.channel, 1)
    choose(path, "plane", options.plane, 1)
    with decoding(path, "an image"):
        data = path.read_bytes()
    if data.startswith(SIGNATURE):
        return _png(path, data)
    kind = "JPEG" if data.startswith(_JPEG) else "BMP"
    with decoding(path, kind):
        pixels = _jpeg_pixels(data) if kind == "JPEG" else _bmp_pixels(data)
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        msg = f"{path} must be a grey or RGB image, got CMYK: convert it first."
        raise ReadError(msg)
    return Source(format=kind, data=pixels)


def _png(path: Path, data: bytes) -> Source:
    """Decode a PNG."""
    import imagecodecs

    size: PixelSize | None = None
    record: Record | None = None
    metadata: dict[str, Any] = {}
    with decoding(path, "PNG"):
        said, needed = split_chunks(data)
        for name, content in said:
            if name == "pHYs":
                size = parse_physical(content)
            text = parse_text(name, content)
            if text is not None and text[0] == RECORD_KEY:
                record = Record.from_json(text[1])
            elif text is not None:
                metadata[text[0]] = text[1][:_LARGEST_TEXT]
        pixels = np.asarray(imagecodecs.png_decode(needed))
    # print resolutions (72 dpi, 300 dpi) are no calibration, unless it is our own
    if record is None and size is not None and max(size) > LARGEST_PRINTED_NM:
        size = None
    return Source(
        format="PNG", data=pixels, pixel_size_nm=size, record=record, metadata=metadata
    )


def _jpeg_pixels(data: bytes) -> NDArray[Any]:
    """Decode a JPEG; one that is cut short is refused."""
    import imagecodecs

    if data.rfind(b"\xff\xd9", -(1 << 16)) < 0:
        msg = "its end is missing"
        raise ValueError(msg)
    return np.asarray(imagecodecs.jpeg_decode(data))


def _bmp_pixels(data: bytes) -> NDArray[Any]:
    """Decode a BMP; palettes become grey or colour."""
    import io

    from PIL import Image

    with Image.open(io.BytesIO(data), formats=("BMP",)) as image:
        if image.mode in ("L", "RGB"):
            return np.asarray(image)
        if image.mode == "1":
            return np.asarray(image.convert("L"))
        return np.asarray(image.convert("RGB"))
