"""A small CZI mosaic, forged byte by byte after the published layout of segments."""

import struct
from pathlib import Path

import numpy as np

_SHAPE, _HEAD, _METADATA = (12, 16), 32, 256
_XML = """<ImageDocument><Metadata><Scaling><Items>
<Distance Id="X"><Value>5e-9</Value></Distance>
<Distance Id="Y"><Value>5e-9</Value></Distance>
</Items></Scaling></Metadata></ImageDocument>"""


def _segment(name: bytes, content: bytes) -> bytes:
    return struct.pack("<16sqq", name, len(content), len(content)) + content


def _entry(place: int, index: int) -> bytes:
    """Write what the directory says of one tile of 8 bits."""
    rows, columns = _SHAPE
    axes = (("X", index * 12, columns), ("Y", 0, rows), ("M", index, 1))
    told = struct.pack("<2siqii6si", b"DV", 0, place, 0, 0, b"", len(axes))
    for axis, start, size in axes:
        told += struct.pack("<4siifi", axis.encode(), start, size, 0.0, size)
    return told


def write_czi(path: Path, tiles: int = 2) -> Path:
    """Write a mosaic of tiles in a row, 12 x 16 px, 4 px of overlap, 5 nm a pixel."""
    rng, blocks, entries = np.random.default_rng(0), b"", []
    first = _HEAD + 512
    for index in range(tiles):
        entry = _entry(first + len(blocks), index)
        pixels = rng.integers(0, 255, _SHAPE).astype(np.uint8).tobytes()
        told = struct.pack("<iiq", 0, 0, len(pixels)) + entry
        blocks += _segment(b"ZISRAWSUBBLOCK", told.ljust(_METADATA, b"\0") + pixels)
        entries.append(entry)
    directory = first + len(blocks)
    listed = struct.pack("<i", tiles).ljust(128, b"\0") + b"".join(entries)
    blocks += _segment(b"ZISRAWDIRECTORY", listed)
    said = struct.pack("<ii", len(_XML), 0).ljust(_METADATA, b"\0") + _XML.encode()
    metadata = first + len(blocks)
    blocks += _segment(b"ZISRAWMETADATA", said)
    head = struct.pack(
        *("<iiii16s16siqqiq", 1, 0, 0, 0, b"", b"", 0),
        *(directory, metadata, 0, 0),
    )
    path.write_bytes(_segment(b"ZISRAWFILE", head.ljust(512, b"\0")) + blocks)
    return path
