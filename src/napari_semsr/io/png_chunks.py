"""The chunks of a PNG that carry calibration and text.

After the PNG specification, third edition: https://www.w3.org/TR/png-3/.
"""

import math
import struct
import zlib
from collections.abc import Sequence

from napari_semsr.core.micrograph import PixelSize

__all__ = [
    "SIGNATURE",
    "insert_chunks",
    "parse_physical",
    "parse_text",
    "physical_chunk",
    "split_chunks",
    "text_chunk",
]

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
