"""Images, stores and scans to be damaged, and how each is read."""

import json
import shutil
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import tifffile

from napari_semsr.core import Micrograph, Provenance, run
from napari_semsr.io import describe, open_frames, read, write, write_fei_tiff
from tests.hostile.czi import write_czi
from tests.hostile.play import Files
from tests.mutations import damaged_bytes, damaged_json, damaged_lines

_PART = 64  # pixels along each side that are read of a lazy image


def _grey(dtype: str = "uint8", shape: tuple[int, ...] = (37, 53)) -> Any:
    values = np.random.default_rng(3).random(shape)
    return (values * 250).astype(dtype)


def _our_own(dtype: str = "uint8") -> Micrograph:
    made = Provenance(job="test", options={"tile": 64}, model_name="net")
    return Micrograph(_grey(dtype), (7.7, 7.7), "field", made, origin=(3.0, 4.0))


def read_whole(path: Path, **choice: Any) -> Micrograph:
    """Say what a file is, read it, and read pixels of it."""
    told = describe(path, **choice)
    choice |= {
        "channel": 0 if told.channels > 1 else None,
        "plane": told.planes - 1 if told.planes > 1 else None,
        "colour": "luminance",
    }
    image = read(path, **choice)
    np.asarray(image.data[:_PART, :_PART])
    np.asarray(image.data[-_PART:, -_PART:])
    return image


def split_png(data: bytes) -> list[tuple[bytes, bytes]]:
    """Give the chunks of a PNG: what each is, and what it holds."""
    found, at = [], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def join_png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """Write a PNG whose checksums fit, which decoders trust."""
    found = b"\x89PNG\r\n\x1a\n"
    for kind, content in chunks:
        check = struct.pack(">I", zlib.crc32(kind + content))
        found += struct.pack(">I", len(content)) + kind + content + check
    return found


def damaged_png(data: bytes, rng: Random) -> bytes:
    """Damage what a chunk holds, pixels behind their packing; or all bytes."""
    if rng.random() < 0.3:
        return damaged_bytes(data, rng)
    chunks = split_png(data)
    hit = rng.randrange(len(chunks))
    kind, content = chunks[hit]
    if kind == b"IDAT":
        with suppress(zlib.error):
            told = damaged_bytes(zlib.decompress(content), rng)
            chunks[hit] = kind, zlib.compress(told)
            return join_png(chunks)
    chunks[hit] = kind, damaged_bytes(content or b"\0", rng)
    return join_png(chunks)


def read_mosaic(path: Path) -> None:
    """Read frames or tiles, eight at most."""
    scan = run(open_frames(path))
    for index in range(min(scan.shape[0], 8)):
        scan.read(index)


def _tag(code: int, text: str) -> tuple[Any, ...]:
    data = text.encode("cp1252")
    return code, 7, len(data), data, True


def write_tiffs(folder: Path) -> None:
    """Write a TIFF of every dialect and layout that is read."""
    zeiss = "0\n0\n0\n5e-9\nAP_WIDTH\nWidth = 265 nm\nAP_IMAGE_PIXEL_SIZE\n"
    zeiss += "Image Pixel Size = 5.000 nm\nDP_IMAGE_STORE\nStore resolution = 53 * 37\n"
    ramp = np.stack([np.arange(256) * 257] * 3).astype(np.uint16)
    kinds: dict[str, dict[str, Any]] = {
        "plain": {"data": _grey()},
        "wide": {"data": _grey("uint16"), "byteorder": ">"},
        "float": {"data": _grey("float32"), "compression": "zlib", "predictor": True},
        "bits": {"data": _grey() > 100},
        "colour": {"data": _grey(shape=(37, 53, 3)), "photometric": "rgb"},
        "white": {"data": _grey(), "photometric": "miniswhite"},
        "palette": {"data": _grey(), "photometric": "palette", "colormap": ramp},
        "tiles": {"data": _grey(shape=(40, 70)), "tile": (16, 32)},
        "lzw": {"data": _grey(), "compression": "lzw", "rowsperstrip": 8},
        "jpeg": {"data": _grey(), "compression": "jpeg"},
        "packbits": {"data": _grey(), "compression": "packbits"},
        "pages": {"data": _grey(shape=(3, 37, 53)), "photometric": "minisblack"},
        "big": {"data": _grey(), "bigtiff": True},
        "zeiss": {"data": _grey(), "extratags": [_tag(34118, zeiss)]},
        "imagej": {
            "data": _grey("uint16"),
            "imagej": True,
            "resolution": (200.0, 200.0),
            "metadata": {"unit": "um", "min": 3.0, "max": 200.0},
        },
        "stack": {
            "data": _grey(shape=(2, 3, 37, 53)),
            "ome": True,
            "metadata": {"axes": "CZYX", "PhysicalSizeX": 5.0, "PhysicalSizeY": 5.0},
        },
    }
    for name, how in kinds.items():
        options = {"metadata": None, **how}
        tifffile.imwrite(folder / f"{name}.tif", options.pop("data"), **options)
    write_fei_tiff(_our_own(), folder / "fei.tif")
    write(_our_own("float32"), folder / "ours.ome.tif")
    write(_our_own(), folder / "ours.tif")


def _pillow(folder: Path, kind: str, modes: dict[str, Any]) -> None:
    """Write images of a kind in modes of Pillow."""
    from PIL import Image

    colour = Image.fromarray(_grey(shape=(37, 53, 3)))
    for mode, options in modes.items():
        name = mode.partition(" ")[0]
        made = colour.quantize(16) if name == "P" else colour.convert(name)
        made.save(folder / f"{mode}.{kind}", **options)


def write_pngs(folder: Path) -> None:
    modes = {mode: {} for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")}
    _pillow(folder, "png", modes | {"L dpi": {"dpi": (300000, 300000)}})
    write(_our_own(), folder / "ours.png")


def write_bmps(folder: Path) -> None:
    _pillow(folder, "bmp", {"1": {}, "L": {}, "P": {}, "RGB": {}})


def write_jpegs(folder: Path) -> None:
    """Write JPEGs, grey and in colour, also progressive ones."""
    modes = {"L": {}, "RGB": {}}
    _pillow(folder, "jpg", modes | {"L progressive": {"progressive": True}})


def write_hdf5s(folder: Path) -> None:
    import h5py

    packed = {"chunks": (16, 16), "compression": "gzip", "shuffle": True}
    kinds: dict[str, dict[str, Any]] = {
        "plain": {},
        "chunks": packed,
        "lzf": {**packed, "compression": "lzf", "fletcher32": True},
        "stack": {"shape": (3, 37, 53), "maxshape": (None, 37, 53)},
    }
    for name, how in kinds.items():
        options = {"shape": (37, 53), **how}
        with h5py.File(folder / f"{name}.h5", "w") as file:
            data = _grey("uint16", options.pop("shape"))
            made = file.create_dataset("entry/data", data=data, **options)
            made.attrs["element_size_um"] = [0.05, 0.008, 0.007]


def write_mosaic(folder: Path) -> None:
    write_czi(folder / "mosaic.czi")


def copy_one(whole: list[Path], folder: Path, rng: Random) -> Path:
    place = folder / "store.ome.zarr"
    shutil.rmtree(place, ignore_errors=True)
    return shutil.copytree(rng.choice(whole), place)


@dataclass(frozen=True)
class Stores:
    """OME-Zarr stores: what is said in them, and now and then their blocks."""

    name: str = "ome-zarr"

    def prepare(self, folder: Path) -> list[Path]:
        """Write stores of either layout."""
        write(_our_own("float32"), folder / "ours.ome.zarr")
        _foreign_store(folder / "foreign.ome.zarr")
        found = [folder / "ours.ome.zarr", folder / "foreign.ome.zarr"]
        for path in found:
            read_whole(path)
        return found

    def attempt(self, whole: list[Path], folder: Path, rng: Random) -> None:
        """Damage a file or two of a copy."""
        place = copy_one(whole, folder, rng)
        files = sorted(path for path in place.rglob("*") if path.is_file())
        said = [path for path in files if path.name.startswith((".z", "zarr"))]
        for _ in range(rng.choice((1, 1, 2))):
            path = rng.choice(said if rng.random() < 0.8 else files)
            data = path.read_bytes() if path.exists() else b""
            if rng.random() < 0.05:
                path.unlink(missing_ok=True)
            elif path in said and data:
                path.write_bytes(_json_again(data, rng))
            else:
                path.write_bytes(damaged_bytes(data, rng))
        read_whole(place)


@dataclass(frozen=True)
class Packed:
    """Stores whose chunks are packed in every way, inside shards too."""

    name: str = "zarr-chunks"

    def prepare(self, folder: Path) -> list[Path]:
        """Write a store for each way to pack, of each version of zarr."""
        found = [write_packed(folder, *each) for each in packers()]
        for path in found:
            read_whole(path)
        return found

    def attempt(self, whole: list[Path], folder: Path, rng: Random) -> None:
        """Damage a chunk or a shard, mostly so that its index still fits."""
        place = copy_one(whole, folder, rng)
        files = [p for p in place.rglob("*") if p.is_file() and p.name[0] not in ".z"]
        path = rng.choice(sorted(files))
        data = path.read_bytes()
        if path.parts[-4] == "shards" and rng.random() < 0.8:
            path.write_bytes(_damaged_shard(data, rng))
        else:
            path.write_bytes(damaged_bytes(data, rng))
        read_whole(place)


_INNER, _SHARD_INDEX = 16, 4 * 16  # px; offset and length of each of 2 x 2 chunks


def _damaged_shard(data: bytes, rng: Random) -> bytes:
    """Damage a chunk in a shard, or the index, whose checksum is made to fit."""
    from google_crc32c import value

    index = np.frombuffer(data[-_SHARD_INDEX - 4 : -4], "<u8").reshape(-1, 2).copy()
    chunks = [data[at : at + size] for at, size in index.tolist()]
    hit = rng.randrange(len(chunks))
    chunks[hit] = damaged_bytes(chunks[hit], rng)
    ends = np.cumsum([len(chunk) for chunk in chunks])
    index[:, 1] = [len(chunk) for chunk in chunks]
    index[:, 0] = ends - index[:, 1]
    told = index.tobytes()
    if rng.random() < 0.2:
        told = damaged_bytes(told, rng)[:_SHARD_INDEX].ljust(_SHARD_INDEX, b"\0")
    return b"".join(chunks) + told + struct.pack("<I", value(told))


def packers() -> list[tuple[str, Any]]:
    """Name every way to pack a chunk, with what zarr is told of it."""
    import numcodecs
    from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

    names = ("lz4", "zstd", "zlib", "blosclz")
    inner: dict[str, Any] = {f"blosc {n}": BloscCodec(cname=n) for n in names}
    inner |= {"zstd": ZstdCodec(), "gzip": GzipCodec()}
    kinds: tuple[Any, ...] = (
        *(numcodecs.Blosc(cname=name) for name in names),
        *(numcodecs.Zstd(), numcodecs.GZip(), numcodecs.Zlib(), numcodecs.LZ4()),
        *(numcodecs.BZ2(), numcodecs.LZMA()),
    )
    plain = [(f"plain/{i}", kind) for i, kind in enumerate(kinds)]
    return [*((f"shards/{name}", codec) for name, codec in inner.items()), *plain]


def write_packed(folder: Path, name: str, packer: Any) -> Path:
    """Write 64 x 64 px in chunks of 16, which shards hold by two and two."""
    import zarr

    path, sharded = folder / f"{name.replace('/', '-')}.ome.zarr", "shards" in name
    group = zarr.create_group(path, zarr_format=3 if sharded else 2)
    array = group.create_array(
        "shards" if sharded else "0",
        shape=(64, 64),
        chunks=(_INNER, _INNER),
        shards=(2 * _INNER, 2 * _INNER) if sharded else None,
        compressors=packer,
        dtype="uint16",
    )
    array[...] = _grey("uint16", (64, 64))
    axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "yx"]
    scale = {"type": "scale", "scale": [5.0, 5.0]}
    told = {"path": array.basename, "coordinateTransformations": [scale]}
    said = {"version": "0.5", "axes": axes, "datasets": [told], "name": "packed"}
    if sharded:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [said]}
    else:
        group.attrs["multiscales"] = [{**said, "version": "0.4"}]
    return path


def _json_again(data: bytes, rng: Random) -> bytes:
    try:
        return damaged_json(data, rng)
    except (ValueError, RecursionError):  # damaged before
        return damaged_bytes(data, rng)


def _foreign_store(path: Path) -> None:
    """Write a store of version 0.4 with channels and a coarser level."""
    import zarr

    group = zarr.create_group(path, zarr_format=2)
    for level, side in enumerate((64, 32)):
        array = group.create_array(
            str(level), shape=(2, side, side), chunks=(1, 32, 32), dtype="uint16"
        )
        array[...] = _grey("uint16", (2, side, side))
    units = {"type": "space", "unit": "nanometer"}
    datasets = [
        {"path": str(n), "coordinateTransformations": [{"type": "scale", "scale": one}]}
        for n, one in enumerate(([1.0, 5.0, 5.0], [1.0, 10.0, 10.0]))
    ]
    axes = [{"name": "c", "type": "channel"}, *({"name": n, **units} for n in "yx")]
    said = {"version": "0.4", "name": "foreign", "axes": axes, "datasets": datasets}
    group.attrs["multiscales"] = [said]
    window = {"start": 0, "end": 255, "min": 0, "max": 255}
    channel = {"label": "a", "color": "FFFFFF", "window": window, "active": True}
    group.attrs["omero"] = {"channels": [channel, channel]}


@dataclass(frozen=True)
class Scans:
    """Folders of frames with the tables and texts beside them."""

    name: str = "scan"

    def prepare(self, folder: Path) -> dict[str, bytes]:
        """Write four frames with their places."""
        scan = folder / "scan"
        scan.mkdir()
        rows = ["frame,y_px,x_px"]
        for index in range(4):
            # turned, since copies of one frame are left out
            grey = np.roll(_grey(shape=(24, 32)), index)
            tifffile.imwrite(scan / f"f{index}.tif", grey)
            rows.append(f"f{index}.tif,{20 * (index // 2)},{28 * (index % 2)}")
        (scan / "positions.csv").write_text("\n".join(rows))
        said = {"pixel_size_nm": 5.0, "grid": [2, 2], "overlap": 0.2, "objective": "x"}
        (scan / "scan.json").write_text(json.dumps(said))
        run(open_frames(scan))
        return {path.name: path.read_bytes() for path in scan.iterdir()}

    def attempt(self, whole: dict[str, bytes], folder: Path, rng: Random) -> None:
        """Damage a file of the folder."""
        place = lay_out(whole, folder)
        path = place / rng.choice(["positions.csv", "scan.json", *whole])
        damages = {".csv": damaged_lines, ".json": damaged_json}
        damage = damages.get(path.suffix, damaged_bytes)
        path.write_bytes(damage(whole[path.name], rng))
        read_mosaic(place)


def lay_out(whole: dict[str, bytes], folder: Path) -> Path:
    """Write the files of a scan into an empty folder."""
    place = folder / "again"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for name, data in whole.items():
        (place / name).write_bytes(data)
    return place


IMAGES = (
    Files("tiff", write_tiffs, read_whole, damaged_bytes),
    Files("png", write_pngs, read_whole, damaged_png),
    Files("bmp", write_bmps, read_whole, damaged_bytes),
    Files("jpeg", write_jpegs, read_whole, damaged_bytes),
    Files("czi", write_mosaic, read_mosaic, damaged_bytes),
    Stores(),
    Packed(),
    Scans(),
)
