"""A small CZI mosaic, forged byte by byte after the published layout of segments."""

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_SHAPE, _HEAD, _METADATA = (12, 16), 32, 256
_KINDS = {("uint8", 1): 0, ("uint16", 1): 1, ("uint8", 3): 3, ("uint16", 3): 4}
_XML = """<ImageDocument><Metadata><Scaling><Items>
<Distance Id="X"><Value>5e-9</Value></Distance>
<Distance Id="Y"><Value>5e-9</Value></Distance>
</Items></Scaling></Metadata></ImageDocument>"""


def _segment(name: bytes, content: bytes) -> bytes:
    return struct.pack("<16sqq", name, len(content), len(content)) + content


def _entry(
    place: int, pixels: NDArray[np.generic], how: int, starts: dict[str, int]
) -> bytes:
    """Write what the directory says of one tile."""
    rows, columns, samples = (*pixels.shape, 1)[:3]
    kind = _KINDS[pixels.dtype.name, samples]
    sizes = {"X": columns, "Y": rows}
    told = struct.pack("<2siqii6si", b"DV", kind, place, 0, how, b"", len(starts))
    for axis, start in starts.items():
        size = sizes.get(axis, 1)
        told += struct.pack("<4siifi", axis.encode(), start, size, 0.0, size)
    return told


def write_czi(
    path: Path,
    tiles: int | Sequence[NDArray[np.generic]] = 2,
    *,
    how: int = 0,
    pack: Callable[[NDArray[np.generic]], bytes] = np.ndarray.tobytes,
    starts: Sequence[dict[str, int]] | None = None,
    xml: str = _XML,
) -> Path:
    """Write a mosaic of tiles in a row, 12 x 16 px, 4 px of overlap, 5 nm a pixel.

    Or other tiles, grey or of samples in the order blue, green, red, packed by `pack`,
    which has the number `how`; they start elsewhere with `starts`.
    """
    rng, blocks, entries = np.random.default_rng(0), b"", []
    if isinstance(tiles, int):
        tiles = [rng.integers(0, 255, _SHAPE).astype(np.uint8) for _ in range(tiles)]
    first = _HEAD + 512
    for index, pixels in enumerate(tiles):
        row = {"X": index * (pixels.shape[1] - 4), "Y": 0, "M": index}
        entry = _entry(
            first + len(blocks), pixels, how, starts[index] if starts else row
        )
        packed = pack(pixels)
        told = struct.pack("<iiq", 0, 0, len(packed)) + entry
        blocks += _segment(b"ZISRAWSUBBLOCK", told.ljust(_METADATA, b"\0") + packed)
        entries.append(entry)
    directory = first + len(blocks)
    listed = struct.pack("<i", len(tiles)).ljust(128, b"\0") + b"".join(entries)
    blocks += _segment(b"ZISRAWDIRECTORY", listed)
    said = struct.pack("<ii", len(xml), 0).ljust(_METADATA, b"\0") + xml.encode()
    metadata = first + len(blocks)
    blocks += _segment(b"ZISRAWMETADATA", said)
    head = struct.pack(
        *("<iiii16s16siqqiq", 1, 0, 0, 0, b"", b"", 0),
        *(directory, metadata, 0, 0),
    )
    path.write_bytes(_segment(b"ZISRAWFILE", head.ljust(512, b"\0")) + blocks)
    return path
