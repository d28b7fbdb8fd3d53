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
from tests.mutations import damaged_bytes, damaged_json, damaged_text

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


@dataclass(frozen=True)
class Files:
    """Files of one kind, damaged byte by byte."""

    name: str
    suffix: str
    write: Any

    def prepare(self, folder: Path) -> list[bytes]:
        """Write the whole files, and keep their bytes."""
        seeds = folder / "seeds"
        seeds.mkdir()
        self.write(seeds)
        found = [path.read_bytes() for path in sorted(seeds.iterdir())]
        assert found
        return found

    def attempt(self, whole: list[bytes], folder: Path, rng: Random) -> None:
        """Damage one, or join parts of two."""
        data = rng.choice(whole)
        if rng.random() < 0.05:
            other = rng.choice(whole)
            data = data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]
        path = folder / f"image{self.suffix}"
        path.write_bytes(self.damage(data, rng))
        self.read(path)

    def damage(self, data: bytes, rng: Random) -> bytes:
        """Damage one."""
        return damaged_bytes(data, rng)

    def read(self, path: Path) -> None:
        """Read an image."""
        read_whole(path)


class Pngs(Files):
    """PNGs, mostly with checksums that fit the damage, which decoders trust."""

    def damage(self, data: bytes, rng: Random) -> bytes:
        """Damage what one of its chunks holds, or all bytes as they come."""
        if rng.random() < 0.3:
            return damaged_bytes(data, rng)
        found, at, parts = data[:8], 8, []
        while at + 12 <= len(data):
            (length,) = struct.unpack_from(">I", data, at)
            parts.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
            at += 12 + length
        hit = rng.randrange(len(parts))
        for number, (kind, content) in enumerate(parts):
            told = content
            if number == hit:
                told = _damaged_chunk(kind, content, rng)
            check = struct.pack(">I", zlib.crc32(kind + told))
            found += struct.pack(">I", len(told)) + kind + told + check
        return found


def _damaged_chunk(kind: bytes, content: bytes, rng: Random) -> bytes:
    """Damage what a chunk holds; pixels behind their packing, where that is whole."""
    if kind == b"IDAT":
        with suppress(zlib.error):
            return zlib.compress(damaged_bytes(zlib.decompress(content), rng))
    return damaged_bytes(content or b"\0", rng)


def read_mosaic(path: Path) -> None:
    """Read frames or tiles, eight at most."""
    scan = run(open_frames(path))
    for index in range(min(scan.shape[0], 8)):
        scan.read(index)


class Mosaics(Files):
    """Files of tiles, damaged byte by byte."""

    def read(self, path: Path) -> None:
        """Read every tile."""
        read_mosaic(path)


def _tag(code: int, text: str) -> tuple[Any, ...]:
    data = text.encode("cp1252")
    return code, 7, len(data), data, True


def write_tiffs(folder: Path) -> None:
    """Write a TIFF of every dialect and layout that is read."""
    zeiss = "0\n0\n0\n5e-9\nAP_WIDTH\nWidth = 265 nm\nAP_IMAGE_PIXEL_SIZE\n"
    zeiss += "Image Pixel Size = 5.000 nm\nDP_IMAGE_STORE\nStore resolution = 53 * 37\n"
    ramp = np.stack([np.arange(256) * 257] * 3).astype(np.uint16)
    short = np.random.default_rng(0).integers(0, 65535, (3, 16)).astype(np.uint16)
    kinds: dict[str, dict[str, Any]] = {
        "plain": {"data": _grey()},
        "wide": {"data": _grey("uint16"), "byteorder": ">"},
        "float": {"data": _grey("float32"), "compression": "zlib", "predictor": True},
        "double": {"data": _grey("float64")},
        "bits": {"data": _grey() > 100},
        "colour": {"data": _grey(shape=(37, 53, 3)), "photometric": "rgb"},
        "planar": {
            "data": _grey(shape=(3, 37, 53)),
            "photometric": "rgb",
            "planarconfig": "separate",
        },
        "white": {"data": _grey(), "photometric": "miniswhite"},
        "palette": {"data": _grey(), "photometric": "palette", "colormap": ramp},
        "short": {
            "data": _grey() % 16,
            "photometric": "palette",
            "colormap": np.repeat(short, 16, axis=1),
        },
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
    """Write PNGs of all kinds of pixels."""
    modes = {mode: {} for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")}
    _pillow(folder, "png", modes | {"L dpi": {"dpi": (300000, 300000)}})
    write(_our_own(), folder / "ours.png")


def write_bmps(folder: Path) -> None:
    """Write BMPs with and without palettes."""
    _pillow(folder, "bmp", {"1": {}, "L": {}, "P": {}, "RGB": {}})


def write_jpegs(folder: Path) -> None:
    """Write JPEGs, grey and in colour, also progressive ones."""
    modes = {"L": {}, "RGB": {}, "CMYK": {}}
    _pillow(folder, "jpg", modes | {"L progressive": {"progressive": True}})


def write_hdf5s(folder: Path) -> None:
    """Write HDF5 in several layouts."""
    import h5py

    for name, how in HDF5S.items():
        options = {"shape": (37, 53), **how}
        with h5py.File(folder / f"{name}.h5", "w") as file:
            data = _grey("uint16", options.pop("shape"))
            made = file.create_dataset("entry/data", data=data, **options)
            made.attrs["element_size_um"] = [0.05, 0.008, 0.007]


HDF5S: dict[str, dict[str, Any]] = {
    "plain": {},
    "chunks": {"chunks": (16, 16), "compression": "gzip", "shuffle": True},
    "lzf": {"chunks": (16, 16), "compression": "lzf", "fletcher32": True},
    "stack": {"shape": (3, 37, 53), "maxshape": (None, 37, 53)},
}


def write_mosaic(folder: Path) -> None:
    """Write a CZI of tiles."""
    write_czi(folder / "mosaic.czi")


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
        place = folder / "store.ome.zarr"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(rng.choice(whole), place)
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
        place = folder / "store.ome.zarr"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(rng.choice(whole), place)
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
    scales = [[1.0, 5.0 * 2**n, 5.0 * 2**n] for n in (0, 1)]
    units = {"type": "space", "unit": "nanometer"}
    group.attrs["multiscales"] = [
        {
            "version": "0.4",
            "name": "foreign",
            "axes": [
                {"name": "c", "type": "channel"},
                {"name": "y", **units},
                {"name": "x", **units},
            ],
            "datasets": [
                {
                    "path": str(level),
                    "coordinateTransformations": [{"type": "scale", "scale": scale}],
                }
                for level, scale in enumerate(scales)
            ],
        }
    ]
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
        place = folder / "again"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        names = ["positions.csv", "scan.json", *whole]
        hit = rng.choice(names)
        for name, data in whole.items():
            if name == hit and name.endswith("csv"):
                data = damaged_text(data.decode(), rng).encode("utf-8", "replace")
            elif name == hit:
                wrong = damaged_json if name.endswith("json") else damaged_bytes
                data = wrong(data, rng)
            (place / name).write_bytes(data)
        read_mosaic(place)


IMAGES = (
    Files("tiff", ".tif", write_tiffs),
    Pngs("png", ".png", write_pngs),
    Files("bmp", ".bmp", write_bmps),
    Files("jpeg", ".jpg", write_jpegs),
    Mosaics("czi", ".czi", write_mosaic),
    Stores(),
    Packed(),
    Scans(),
)
