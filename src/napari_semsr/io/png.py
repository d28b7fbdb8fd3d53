"""The chunks of a PNG that carry calibration and text.

After the PNG specification, third edition: https://www.w3.org/TR/png-3/.
"""

import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import Micrograph, PixelSize, ReadError
from napari_semsr.io.files import choose, decoding, replacing
from napari_semsr.io.options import FileInfo, ReadOptions, Source
from napari_semsr.io.read_image import to_info, to_micrograph
from napari_semsr.io.record import RECORD_KEY, Record, record_of
from napari_semsr.io.tiff import LARGEST_PRINTED_NM

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NM_PER_METRE = 1e9
_LARGEST_TEXT = 1 << 22
_NEEDED = ("IHDR", "PLTE", "tRNS", "IDAT", "IEND")
_FRAME = 12  # length, name and checksum around the content of a chunk
_AFTER_HEADER = len(SIGNATURE) + 8 + 13 + 4


def split_chunks(data: bytes) -> tuple[list[tuple[str, bytes]], bytes]:
    """Part what a PNG says from what its pixels need.

    Damage in a text cannot disturb the decoder then, nor make it grumble.

    Parameters
    ----------
    data : bytes
        The whole file.

    Returns
    -------
    tuple
        Names and contents of the chunks that only inform, and a PNG without them.

    Raises
    ------
    ValueError
        If the file ends before its last chunk.
    """
    said: list[tuple[str, bytes]] = []
    needed = [SIGNATURE]
    at = len(SIGNATURE)
    name = ""
    while name != "IEND":
        if at + _FRAME > len(data):
            msg = "the file ends before its last chunk"
            raise ValueError(msg)
        length, kind = struct.unpack_from(">I4s", data, at)
        name = kind.decode("latin-1")
        end = at + _FRAME + length
        if name in _NEEDED:
            needed.append(data[at:end])
        else:
            said.append((name, data[at + 8 : end - 4]))
        at = end
    return said, b"".join(needed)


def parse_text(name: str, content: bytes) -> tuple[str, str] | None:
    """Read a text chunk.

    Parameters
    ----------
    name : str
        Name of the chunk.
    content : bytes
        What it holds.

    Returns
    -------
    tuple of str or None
        Keyword and text; None when the chunk is no text, damaged, or absurdly long.
    """
    key, _, rest = content.partition(b"\0")
    keyword = key.decode("latin-1")
    try:
        if name == "tEXt":
            return keyword, rest.decode("latin-1")
        if name == "zTXt":
            return keyword, _inflate(rest[1:]).decode("latin-1")
        if name == "iTXt":
            packed = rest[:1] == b"\1"
            text = rest[2:].split(b"\0", 2)[2]
            return keyword, (_inflate(text) if packed else text).decode("utf-8")
    except (ValueError, IndexError, zlib.error):
        return None
    return None


def _inflate(data: bytes) -> bytes:
    """Decompress, but never without bound."""
    return zlib.decompressobj().decompress(data, _LARGEST_TEXT)


def parse_physical(content: bytes) -> PixelSize | None:
    """Read a ``pHYs`` chunk.

    Parameters
    ----------
    content : bytes
        What it holds.

    Returns
    -------
    tuple of float or None
        ``(y, x)`` in nm; None when no length is given.
    """
    if len(content) != 9:
        return None
    x, y, unit = struct.unpack(">IIB", content)
    if unit != 1 or not x or not y:
        return None
    return PixelSize((_NM_PER_METRE / y, _NM_PER_METRE / x))


def _chunk(name: bytes, content: bytes) -> bytes:
    """Frame a chunk with its length and checksum."""
    body = name + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def physical_chunk(size: PixelSize) -> bytes:
    """Make a ``pHYs`` chunk.

    Parameters
    ----------
    size : tuple of float
        ``(y, x)`` in nm.

    Returns
    -------
    bytes
        The chunk, empty when the pixel is too small or large for its integers
        (pixels per metre, so below 0.47 nm).
    """
    y, x = (_NM_PER_METRE / n for n in size)
    if not all(math.isfinite(n) and 1 <= round(n) < 2**31 for n in (y, x)):
        return b""
    return _chunk(b"pHYs", struct.pack(">IIB", round(x), round(y), 1))


def text_chunk(keyword: str, text: str) -> bytes:
    """Make a compressed international text chunk.

    Parameters
    ----------
    keyword : str
        At most 79 Latin-1 characters.
    text : str
        Any text.

    Returns
    -------
    bytes
        The chunk.
    """
    packed = zlib.compress(text.encode("utf-8"))
    return _chunk(b"iTXt", keyword.encode("latin-1") + b"\0\1\0\0\0" + packed)


def insert_chunks(png: bytes, chunks: Sequence[bytes]) -> bytes:
    """Put chunks behind the header of a PNG.

    Parameters
    ----------
    png : bytes
        A whole PNG.
    chunks : sequence of bytes
        Whole chunks.

    Returns
    -------
    bytes
        The PNG with them.
    """
    return png[:_AFTER_HEADER] + b"".join(chunks) + png[_AFTER_HEADER:]


# PNG out: 8 bits for looking, with calibration and provenance.


def _to_8_bit(data: NDArray[Any]) -> NDArray[np.uint8]:
    """Stretch grey values over 8 bits; 8-bit images stay as they are.

    The darkest finite value becomes 0 and the brightest 255; NaN becomes 0.
    """
    if data.dtype == np.uint8:
        return data
    if data.dtype.kind == "b":
        return data.astype(np.uint8) * np.uint8(255)
    values = data.astype(np.float64)
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    span = high - low if high > low else 1.0
    values = np.nan_to_num((values - low) / span, nan=0.0, posinf=1.0, neginf=0.0)
    return np.asarray(np.rint(values * 255), dtype=np.uint8)


def write_png(image: Micrograph, path: Path) -> None:
    """Write an 8-bit PNG.

    Parameters
    ----------
    image : Micrograph
        Other types than 8-bit are stretched from their least to their greatest value.
    path : pathlib.Path
        File to make, already checked.

    Raises
    ------
    WriteError
        If the system refuses.
    """
    import imagecodecs

    pixels = np.ascontiguousarray(_to_8_bit(image.array()))
    chunks = [text_chunk(RECORD_KEY, record_of(image).to_json())]
    if image.pixel_size_nm is not None:
        chunks.insert(0, physical_chunk(image.pixel_size_nm))
    with replacing(path) as temporary:
        temporary.write_bytes(
            insert_chunks(bytes(imagecodecs.png_encode(pixels)), chunks)
        )


# PNG, JPEG and BMP: images for looking at, which some microscopes save.

_JPEG, _BMP = b"\xff\xd8\xff", b"BM"
_LARGEST_TEXT_CHUNK = 500


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
                metadata[text[0]] = text[1][:_LARGEST_TEXT_CHUNK]
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
