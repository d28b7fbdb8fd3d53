"""Chunks of stores that anyone may have written, held to what they may be.

c-blosc believes what a chunk says of its own length, and ends the process where it
reads on; the other libraries make as many bytes as a chunk says, or as it holds. So
each chunk, also one inside a shard, is looked at before it is unpacked.
"""

import asyncio
import bz2
import lzma
import math
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import zarr
from numcodecs.abc import Codec as Packer
from numcodecs.compat import ensure_contiguous_ndarray, ndarray_copy
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import ShardingCodec

_MOST_INNER = 1 << 16  # chunks of a shard; chosen: 4096 x 4096 px in chunks of 16
_ALWAYS = 1 << 25  # bytes that any chunk may have; chosen: too few to matter
_BLOSC_HEAD = 16  # after c-blosc's README_CHUNK_FORMAT
_ZSTD, _ZSTD_BLOCK = b"\x28\xb5\x2f\xfd", 1 << 17  # RFC 8878, 3.1.1


def held(array: "zarr.Array[Any]") -> "zarr.Array[Any]":
    """Give an array, for reading in this process, whose chunks are looked at first."""
    told: Any = array.metadata
    if told.zarr_format == 2:
        most = _most(told.chunks, array.dtype.itemsize)
        packers = [_Held.of(one, most) for one in told.filters or ()]
        made = replace(
            told,
            filters=tuple(packers) or None,
            compressor=told.compressor and _Held.of(told.compressor, most),
        )
    else:
        shape = told.chunk_grid.chunk_shape
        made = replace(
            told, codecs=_held_codecs(told.codecs, shape, array.dtype.itemsize)
        )
    return zarr.Array(zarr.AsyncArray(metadata=made, store_path=array.store_path))


def _most(shape: Iterable[int], itemsize: int) -> int:
    """Bytes that a chunk may have at any step of its packing."""
    return max(2 * math.prod(shape) * itemsize, _ALWAYS)


def _held_codecs(
    codecs: Iterable[Any], shape: tuple[int, ...], itemsize: int
) -> tuple[Any, ...]:
    """Put a look before each codec that unpacks, inside shards too."""
    found: list[Any] = []
    for codec in codecs:
        if isinstance(codec, ShardingCodec):
            parts = zip(shape, codec.chunk_shape, strict=True)
            inner = math.prod(side // max(1, part) for side, part in parts)
            if inner > _MOST_INNER:
                msg = (
                    f"its shards hold {inner} chunks each, more than {_MOST_INNER}, "
                    "which would take hours"
                )
                raise ValueError(msg)
            inside = _held_codecs(codec.codecs, codec.chunk_shape, itemsize)
            found.append(replace(codec, codecs=inside))
        elif isinstance(codec, BytesBytesCodec) and _is_known(codec):
            found.append(_HeldCodec(codec, _most(shape, itemsize)))
        else:
            found.append(codec)
    return tuple(found)


def _is_known(codec: Any) -> bool:
    name, _ = _kind(codec)
    return name in _TOLD or name in _STREAMS


def _kind(codec: Any) -> tuple[str, Mapping[str, Any]]:
    """Name what packs, of either version of zarr, and give its settings."""
    if isinstance(codec, Packer):
        said = codec.get_config()
        return str(said["id"]), said
    told = codec.to_dict()
    name = str(told["name"]).removeprefix("numcodecs.")
    return name, cast("Mapping[str, Any]", told.get("configuration") or {})


@dataclass(frozen=True)
class _HeldCodec(BytesBytesCodec):
    """A codec of version 3, and a look at each chunk before it."""

    inner: Any
    most: int  # bytes that a chunk may have
    is_fixed_size = False

    def to_dict(self) -> dict[str, Any]:
        return dict(self.inner.to_dict())

    def evolve_from_array_spec(self, array_spec: Any) -> "_HeldCodec":
        return replace(self, inner=self.inner.evolve_from_array_spec(array_spec))

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        return int(self.inner.compute_encoded_size(input_byte_length, chunk_spec))

    async def decode(self, chunks_and_specs: Iterable[Any]) -> Iterable[Any]:
        found: list[Any] = []
        rest: list[Any] = []
        for packed, spec in chunks_and_specs:
            made = None
            if packed is not None:
                data = memoryview(packed.as_numpy_array())
                made = await asyncio.to_thread(_looked, self.inner, data, self.most)
            if made is None:
                rest.append((packed, spec))
                found.append(None)
            else:
                found.append(spec.prototype.buffer.from_bytes(made))
        left = iter(await self.inner.decode(rest))
        return [next(left) if one is None else one for one in found]

    async def encode(self, chunks_and_specs: Iterable[Any]) -> Iterable[Any]:
        return cast("Iterable[Any]", await self.inner.encode(chunks_and_specs))


class _Held(Packer):
    """A packer of version 2, and a look at each chunk before it."""

    codec_id = "held"

    def __init__(self, inner: Any, most: int) -> None:
        self.inner, self.most = inner, most

    @classmethod
    def of(cls, packer: Any, most: int) -> Any:
        """Hold a packer, where its kind is known."""
        return cls(packer, most) if _is_known(packer) else packer

    def encode(self, buf: Any) -> Any:
        return self.inner.encode(buf)

    def decode(self, buf: Any, out: Any = None) -> Any:
        data = memoryview(ensure_contiguous_ndarray(buf).view("u1"))
        made = _looked(self.inner, data, self.most)
        return self.inner.decode(buf, out) if made is None else ndarray_copy(made, out)

    def get_config(self) -> dict[str, Any]:
        return dict(self.inner.get_config())


def _looked(codec: Any, packed: memoryview, most: int) -> bytes | None:
    """Refuse a chunk that is cut short, or would unpack into more than it may have.

    One that does not say how much it holds is unpacked, no further than it may.
    """
    name, settings = _kind(codec)
    if name in _STREAMS:
        made = _unpacked(lambda: _STREAMS[name](settings), packed, most)
    else:
        made, size = None, _TOLD[name](packed)
    if (size if made is None else len(made)) > most:
        msg = f"a chunk unpacks into more than {most} bytes, which it may have at most"
        raise ValueError(msg)
    return made


def _unpacked(begin: Callable[[], Any], packed: memoryview, most: int) -> bytes:
    """Unpack what may be several streams, one behind the other."""
    found, data = bytearray(), bytes(packed)
    while data and len(found) <= most:
        stream = begin()
        found += stream.decompress(data, most + 1 - len(found))
        if not stream.eof and len(found) <= most:
            msg = "a chunk is cut short"
            raise ValueError(msg)
        data = stream.unused_data.lstrip(b"\0")
    return bytes(found)


def _blosc(packed: memoryview) -> int:
    if len(packed) < _BLOSC_HEAD or _number(packed[12:16]) != len(packed):
        msg = "a chunk is cut short"
        raise ValueError(msg)
    return _number(packed[4:8])


def _lz4(packed: memoryview) -> int:
    return _number(packed[:4])


def _zstd(packed: memoryview) -> int:
    """Bytes that a frame says it has, or that its blocks have at most."""
    if len(packed) < 6 or bytes(packed[:4]) != _ZSTD:
        return 0  # which no library unpacks
    flags = packed[4]
    single, width = bool(flags & 0x20), flags >> 6
    at = 5 + (not single) + (0, 1, 2, 4)[flags & 3]
    if single or width:
        size = (1, 2, 4, 8)[width]
        return _number(packed[at : at + size]) + (width == 1) * 256
    blocks, last = 0, False
    while not last and at + 3 <= len(packed):
        head = _number(packed[at : at + 3])
        last, repeated = bool(head & 1), (head >> 1 & 3) == 1
        at += 3 + (1 if repeated else head >> 3)
        blocks += 1
    return blocks * _ZSTD_BLOCK


def _number(part: memoryview) -> int:
    return int.from_bytes(part, "little")


def _lzma(settings: Mapping[str, Any]) -> lzma.LZMADecompressor:
    if settings.get("format") == lzma.FORMAT_RAW:
        filters = settings.get("filters")
        return lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=filters)
    return lzma.LZMADecompressor()


_TOLD: dict[str, Callable[[memoryview], int]] = {
    "blosc": _blosc,
    "lz4": _lz4,
    "zstd": _zstd,
}
"""How many bytes a chunk says that it unpacks into, for each way to pack."""
_STREAMS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "gzip": lambda _: zlib.decompressobj(31),
    "zlib": lambda _: zlib.decompressobj(),
    "bz2": lambda _: bz2.BZ2Decompressor(),
    "lzma": _lzma,
}
"""What unpacks where chunks do not say it."""
