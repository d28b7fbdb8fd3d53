"""Whole files that mean harm: paths, addresses, sizes, names and links in every field.

Each kind takes the whole inputs of its damaged fellow and puts hostile values where a
value stands. What reads them is watched (`tests.hostile.watch`).
"""

import io
import json
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import tifffile

from napari_semsr.core import Micrograph, SemsrError
from napari_semsr.io import describe, read, write
from napari_semsr.io.napari_hooks import get_reader
from tests.hostile import documents, exchange, images
from tests.hostile.commands import PATIENCE, say, write_inputs
from tests.hostile.values import (
    hostile_bytes,
    hostile_json,
    hostile_lines,
    hostile_number,
    hostile_path,
    hostile_text,
    hostile_value,
    hostile_xml,
    hostile_yaml,
)
from tests.hostile.watch import SECRET, WATCH, Watched, write_part
from tests.tiny_models import write_tiny_recipe

# -- TIFF, PNG, JPEG, BMP, CZI ------------------------------------------------------

_TEXT_TAGS = (269, 270, 271, 272, 285, 305, 306, 315, 316, 337, 33432, 700, 33723)
_TEXT_TAGS += (34118, 34682, 34680, 50838, 50839, 65200, 34665, 34853)
_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_WIDTHS |= {13: 4, 16: 8, 17: 8, 18: 8}


def hostile_tiff(data: bytes, rng: Random) -> bytes:
    """Write the first directory anew, with hostile values in some of its tags."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack(f"{order}H", data[2:4])[0] == 43
    entry, number, size = ("HHQ8s", "Q", 8) if big else ("HHI4s", "I", 4)
    (at,) = struct.unpack_from(order + number, data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
    begin = at + (8 if big else 2)
    step = struct.calcsize(order + entry)
    entries: dict[int, tuple[int, int, bytes]] = {}
    for index in range(count):
        code, kind, many, held = struct.unpack_from(
            order + entry, data, begin + step * index
        )
        length = _WIDTHS[kind] * many
        if length > size:
            (place,) = struct.unpack(order + number, held)
            held = data[place : place + length]
        entries[code] = kind, many, held[:length]
    following = data[begin + step * count :][:size]
    for _ in range(rng.choice((1, 1, 2, 4))):
        _change_tag(entries, order, rng)
    out = bytearray(data)
    rows = b""
    for code, (kind, many, held) in sorted(entries.items()):
        if len(held) > size:
            place = len(out)
            out += held
            held = struct.pack(order + number, place)
        rows += struct.pack(order + entry, code, kind, many, held.ljust(size, b"\0"))
    struct.pack_into(order + number, out, 8 if big else 4, len(out))
    out += struct.pack(order + ("Q" if big else "H"), len(entries)) + rows + following
    return bytes(out)


def _change_tag(
    entries: dict[int, tuple[int, int, bytes]], order: str, rng: Random
) -> None:
    """Change what a tag says, or add one."""
    code = rng.choice((*entries, *_TEXT_TAGS, 270, 270))
    kind, many, held = entries.get(code, (2, 0, b""))
    if kind in (2, 7) or (kind == 1 and code > 330):
        told = held.rstrip(b"\0").decode("utf-8", "replace")
        text = hostile_lines(told, rng) if told else hostile_text(rng)
        data = text.encode("utf-8", rng.choice(("replace", "surrogatepass"))) + b"\0"
        entries[code] = kind, len(data), data
    elif kind in (5, 10):
        values = [rng.choice((0, 1, 2**32 - 1, 2**31)) for _ in range(2 * many)]
        entries[code] = 5, many, struct.pack(f"{order}{2 * many}I", *values)
    elif kind in (3, 4, 16) and many < 10:
        letter = {3: "H", 4: "I", 16: "Q"}[kind]
        most = 256 ** _WIDTHS[kind] - 1
        values = [min(rng.choice((0, 1, 7, 65535, most // 2, most)), most)] * many
        entries[code] = kind, many, struct.pack(f"{order}{many}{letter}", *values)


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


_BOMB = zlib.compress(bytes(1 << 26), 9)  # 64 MiB in 64 KiB


def hostile_png(data: bytes, rng: Random) -> bytes:
    """Put texts, sizes and packed nothing into a PNG, with checksums that fit."""
    head, rest = data[:33], data[33:]
    word = hostile_text(rng).encode("latin-1", "replace").replace(b"\0", b"")
    wide = hostile_text(rng).encode("utf-8", "replace")
    key = rng.choice((b"Comment", b"napari-semsr", b"Software", b"XML:com.adobe.xmp"))
    size = struct.pack(">I", rng.choice((0, 1, 2**31 - 1, 2**32 - 1)))
    told = rng.choice(
        (
            _chunk(b"tEXt", key + b"\0" + word),
            _chunk(b"zTXt", key + b"\0\0" + zlib.compress(word)),
            _chunk(b"zTXt", key + b"\0\0" + _BOMB),
            _chunk(b"iTXt", key + b"\0\0\0\0\0" + wide),
            _chunk(b"iTXt", key + b"\0\1\0\0\0" + _BOMB),
            _chunk(b"iCCP", word[:79] + b"\0\0" + rng.choice((_BOMB, b"x"))),
            _chunk(b"pHYs", size + size + bytes([rng.randrange(2)])),
            _chunk(b"eXIf", b"II*\0" + size + wide),
            _chunk(b"sPLT", word[:79] + b"\0\x08" + size),
            b"",
        )
    )
    if rng.random() < 0.3:
        sides = struct.pack(">II", *rng.choices((1, 53, 2**16, 2**31 - 1), k=2))
        head = head[:8] + _chunk(b"IHDR", sides + head[24:29])
    if rng.random() < 0.6:
        rest = _change_record(rest, rng)
    return head + told + rest


def _change_record(chunks: bytes, rng: Random) -> bytes:
    """Put hostile values into the record that we wrote, where there is one."""
    found, at = b"", 0
    while at + 12 <= len(chunks):
        (length,) = struct.unpack_from(">I", chunks, at)
        kind, content = chunks[at + 4 : at + 8], chunks[at + 8 : at + 8 + length]
        key, _, text = content.partition(b"\0")
        if kind in (b"zTXt", b"iTXt") and key == b"napari-semsr":
            packed = text[0] or kind == b"zTXt"
            text = text[1:] if kind == b"zTXt" else text[2:].split(b"\0", 2)[2]
            text = zlib.decompress(text) if packed else text
            kind, content = (
                b"zTXt",
                key + b"\0\0" + zlib.compress(hostile_json(text, rng)),
            )
        found += _chunk(kind, content)
        at += 12 + length
    return found


def hostile_jpeg(data: bytes, rng: Random) -> bytes:
    """Put texts, profiles and sizes into a JPEG."""
    word = hostile_text(rng).encode("utf-8", "replace")
    size = struct.pack(">I", rng.choice((0, 1, 2**31, 2**32 - 1)))
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x0e\0\2" + size + size + word
    xmp = b"http://ns.adobe.com/xap/1.0/\0" + hostile_xml(
        '<?xml version="1.0"?><x a="b">text</x>', rng
    ).encode("utf-8", "replace")
    mark, content = rng.choice(
        (
            *((b"\xfe", word), (b"\xe1", exif), (b"\xe1", xmp), (b"\xed", word)),
            (b"\xe2", b"ICC_PROFILE\0\1\xff" + word),
            (b"\xe0", b"JFIF\0\1\2\1" + size + b"\0\0"),
        )
    )
    content = content[:65000]
    told = b"\xff" + mark + struct.pack(">H", len(content) + 2) + content
    found = bytearray(data[:2] + told + data[2:])
    at = max(found.find(b"\xff\xc0"), found.find(b"\xff\xc2"))
    if rng.random() < 0.3 and at >= 0:
        struct.pack_into(">HH", found, at + 5, *rng.choices((1, 53, 65535), k=2))
    return bytes(found)


def hostile_bmp(data: bytes, rng: Random) -> bytes:
    """Put sizes into the header of a BMP."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 2))):
        at = rng.choice((2, 10, 14, 18, 22, 34, 38, 42, 46, 50))
        value = rng.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 10**6))
        struct.pack_into("<I", found, at, value)
    return bytes(found)


def hostile_czi(data: bytes, rng: Random) -> bytes:
    """Put hostile values into the text that a CZI ends with."""
    at = data.find(b"<ImageDocument")
    text = hostile_xml(data[at:].decode(), rng).encode("utf-8", "replace")
    head = bytearray(data[:at])
    begin = head.rfind(b"ZISRAWMETADATA")
    struct.pack_into("<qq", head, begin + 16, len(text) + 256, len(text) + 256)
    struct.pack_into("<i", head, begin + 32, len(text))
    return bytes(head) + text


# -- HDF5 ---------------------------------------------------------------------------


def hostile_hdf5(data: bytes, rng: Random) -> bytes:
    """Put links, datasets of other files, sizes and names into an HDF5 file."""
    import h5py

    held = io.BytesIO(data)
    with h5py.File(held, "r+") as file:
        for _ in range(rng.choice((1, 1, 2, 4))):
            # h5py takes no zero bytes, surrogates or endless numbers
            with suppress(ArithmeticError, LookupError, *_REFUSED):
                _change_hdf5(file, rng)
    return held.getvalue()


def _change_hdf5(file: Any, rng: Random) -> None:
    import h5py

    items: list[Any] = [file]
    file.visititems(lambda _, item: items.append(item))
    groups = [item for item in items if isinstance(item, h5py.Group)]
    kind, hit, group = rng.choice(_HDF5_KINDS), rng.choice(items), rng.choice(groups)
    name = rng.choice(("a", "a/b", hostile_text(rng)))
    if rng.random() < 0.5 and hit is not file:  # in its place
        group, name = hit.parent, hit.name.rpartition("/")[2]
    if kind == "attribute":
        known = ("element_size_um", "units")
        key = rng.choice((*hit.attrs, *known, hostile_text(rng)))
        number = np.float64(hostile_number(rng))
        words = [hostile_text(rng), hostile_text(rng)]
        hit.attrs[key] = rng.choice((words[0], words, [number] * 3, number))
    elif kind == "label":
        for axis in getattr(hit, "dims", ()):
            axis.label = hostile_text(rng)
    elif kind == "circle":
        group[f"{name}c"] = rng.choice(groups)
    elif kind == "huge":
        sides = rng.choices((1, 40, 2**20, 2**31, 2**40), k=rng.choice((2, 2, 3)))
        chunks = tuple(min(side, rng.choice((1, 64, 4096))) for side in sides)
        group.create_dataset(f"{name}h", sides, "f4", chunks=chunks, fillvalue=np.nan)
    else:
        if name in group:
            del group[name]
        _lead_out(group, name, kind, rng)


def _lead_out(group: Any, name: str, kind: str, rng: Random) -> None:
    """Put what is stored in another file into a group."""
    import h5py

    other = rng.choice((f"{WATCH.bait}/secret.h5", "../bait/secret.h5"))
    if kind == "external":
        group[name] = h5py.ExternalLink(rng.choice((other, hostile_path(rng))), "/x")
    elif kind == "soft":
        group[name] = h5py.SoftLink(rng.choice(("/a/x", "/", hostile_path(rng))))
    elif kind == "virtual":
        layout = h5py.VirtualLayout((40, 50), "u1")
        layout[...] = h5py.VirtualSource(other, "x", (40, 50))
        group.create_virtual_dataset(name, layout, fillvalue=7)
    else:
        parts = [(f"{WATCH.bait}/raw.bin", 0, 2000)]
        group.create_dataset(name, (40, 50), "u1", external=parts)


_REFUSED = (ValueError, TypeError, OSError, RuntimeError)
_HDF5_KINDS = ("attribute", "attribute", "label", "circle", "huge", "soft")
_HDF5_KINDS += ("external", "virtual", "elsewhere")


# -- how images are used ------------------------------------------------------------


def _use_image(path: Path) -> None:
    """Read an image, all its datasets, say what it is, and write it again."""
    told = describe(path)
    named = [*told.metadata.get("datasets", ())][:4]
    found = [images.read_whole(path, dataset=name) for name in named]
    image = found[-1] if found else images.read_whole(path)
    for one in found or [image]:
        part = np.asarray(one.data[:64, :64])
        assert WATCH.may_read or not (part == SECRET).all(), "pixels of another file"
    say("info", path)
    reader = get_reader(str(path))
    for data, _, _ in () if reader is None else reader(str(path)):
        np.asarray((data[-1] if isinstance(data, list) else data)[..., :8, :8])
    if max(image.shape) > 300:
        return
    for suffix in (".tif", ".ome.tif", ".ome.zarr", ".png"):
        made = path.with_name(f"made{suffix}")
        try:
            write(image, made, overwrite=True)
        except SemsrError:
            continue
        again = read(made)
        assert again.shape == image.shape
        if image.pixel_size_nm is not None:
            sizes = again.pixel_size_nm, image.pixel_size_nm
            assert np.allclose(*sizes, rtol=1e-3), (suffix, *sizes)


@dataclass(frozen=True)
class Images(images.Files):
    """Images of one kind, hostile in a field or several."""

    change: Callable[[bytes, Random], bytes] = hostile_tiff
    use: Callable[[Path], None] = _use_image

    def attempt(self, whole: list[bytes], folder: Path, rng: Random) -> None:
        """Change one, or put a link in its place, and use it."""
        path = folder / f"image{self.suffix}"
        path.unlink(missing_ok=True)
        if rng.random() < 0.03:
            _link(path, rng)
        else:
            path.write_bytes(self.change(rng.choice(whole), rng))
        if rng.random() < 0.05:
            text = hostile_bytes("\n".join(rng.choice(_SIDECARS)).encode(), rng)
            path.with_suffix(".txt").write_bytes(text)
        self.use(path)


def _write_tiffs(folder: Path) -> None:
    """Write a TIFF of every dialect, and parts of one that lies elsewhere too."""
    images.write_tiffs(folder)
    places = ("../bait/two.ome.tif", WATCH.bait / "two.ome.tif")
    for number, place in enumerate(places):
        write_part(folder / f"part{number}.tif", place)


_SIDECARS = (
    ["$CM_FORMAT JEOL-SEM", "$CM_MAG 5000", "$CM_FULL_SIZE 53 37"],
    ["[SemImageFile]", "InstructName=SU8000", "DataSize=53x37", "PixelSize=5"],
    ["[MAIN]", "Device=MIRA3", "ImageStripSize=7", "PixelSizeX=7.4e-09", "[SEM]"],
)


def _link(path: Path, rng: Random) -> None:
    """Let a name lead into the bait; what it leads to may be read, not changed."""
    WATCH.may_read = True
    names = ("secret.tif", "secret.ome.zarr", "secret.ome.zarr/0", "raw.bin", "new")
    source = WATCH.bait / rng.choice(names)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(rng.choice((source, os.path.relpath(source, path.parent), "..")))


@dataclass(frozen=True)
class Stores(images.Stores):
    """OME-Zarr stores that say or link to what harms."""

    def attempt(self, whole: list[Path], folder: Path, rng: Random) -> None:
        """Change what is said in a copy, or link a part of it elsewhere; use it."""
        place = folder / "store.ome.zarr"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(rng.choice(whole), place)
        for _ in range(rng.choice((1, 1, 2))):
            self._change(place, rng)
        _use_image(place)
        if rng.random() < 0.2:
            grey = Micrograph(np.ones((40, 50), np.uint8), (5.0, 5.0), "a")
            write(grey, place, overwrite=True)

    def _change(self, place: Path, rng: Random) -> None:
        inner = [path for path in sorted(place.rglob("*")) if not path.is_symlink()]
        # an earlier change may have made a link to another folder
        found = [p for p in inner if p.resolve().is_relative_to(place.resolve())]
        files = [path for path in found if path.is_file()]
        said = [path for path in files if path.name.startswith((".z", "zarr"))]
        if rng.random() < 0.7 and said:
            path = rng.choice(said)
            if b"multiscales" in path.read_bytes() and rng.random() < 0.4:
                value = json.loads(path.read_bytes())
                held = value.get("attributes", value)
                held = held.get("ome", held)["multiscales"]
                leads = ("../bait/secret.ome.zarr/0", f"{WATCH.bait}/secret.ome.zarr/0")
                if isinstance(held, list) and held and isinstance(held[0], dict):
                    way = rng.choice((*leads, hostile_path(rng), *leads))
                    held[0]["datasets"] = [
                        {**one, "path": way}
                        for one in held[0].get("datasets", ())
                        if isinstance(one, dict)
                    ]
                path.write_text(json.dumps(value))
            else:
                path.write_bytes(hostile_json(path.read_bytes(), rng))
        elif rng.random() < 0.6:
            _link(rng.choice([path for path in found if path.exists()]), rng)
        else:
            (place / "loop").unlink(missing_ok=True)
            (place / "loop").symlink_to("..")
            refs = {
                "0/0.0": [f"{WATCH.bait}/raw.bin", 0, 4096],
                "0/c/0/0": [hostile_text(rng)],
            }
            told = {"version": 1, "refs": refs, "metadata": {"0/.zarray": {}}}
            for name in ("refs.json", ".zmetadata", "0/c/0/0.json"):
                if (place / name).parent.is_dir():
                    (place / name).write_text(json.dumps(told))


@dataclass(frozen=True)
class Scans(images.Scans):
    """Folders of frames whose tables and names harm."""

    def prepare(self, folder: Path) -> dict[str, bytes]:
        """Write four frames of one field with their places."""
        found = super().prepare(folder)
        field = np.random.default_rng(3).integers(0, 200, (96, 128)).astype(np.uint8)
        rows = ["frame,y_px,x_px"]
        for index, (top, left) in enumerate(np.ndindex(2, 2)):
            rows.append(f"f{index}.tif,{32 * top},{48 * left}")
            part = field[32 * top : 32 * top + 64, 48 * left : 48 * left + 80]
            held = io.BytesIO()
            tifffile.imwrite(held, part)
            found[f"f{index}.tif"] = held.getvalue()
        return {**found, "positions.csv": "\n".join(rows).encode()}

    def attempt(self, whole: dict[str, bytes], folder: Path, rng: Random) -> None:
        """Change a table or a text, link or rename a frame, and stitch."""
        place = folder / "again"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for name, data in whole.items():
            (place / name).write_bytes(data)
        hit = rng.choice((*whole, "positions.csv", "scan.json", "heights.csv"))
        if hit.endswith(".csv"):
            table = place / hit
            table.write_bytes(hostile_bytes(whole["positions.csv"], rng))
        elif hit.endswith(".json"):
            (place / hit).write_bytes(hostile_json(whole[hit], rng))
        elif rng.random() < 0.5:
            _link(place / hit, rng)
        else:
            name = hostile_text(rng).replace("/", "_").replace("\0", "")[:200]
            with suppress(OSError, UnicodeError):
                (place / hit).rename(place / f"{name}.tif")
        if rng.random() < 0.3:
            say("stitch", place, "-o", "out.ome.zarr", "--overwrite")
            return
        images.read_mosaic(place)


# -- models -------------------------------------------------------------------------


def _safetensors(data: bytes, rng: Random) -> bytes:
    """Put hostile values into the card of a model file, or the table of its weights."""
    (length,) = struct.unpack("<Q", data[:8])
    header, weights = json.loads(data[8 : 8 + length]), data[8 + length :]
    card = header.get("__metadata__", {}).get("card")
    if card is not None and rng.random() < 0.8:
        header["__metadata__"]["card"] = hostile_json(card, rng).decode()
    else:
        header = hostile_value(header, rng)
    told = json.dumps(header).encode()
    told += b" " * (-len(told) % 8)
    return struct.pack("<Q", len(told)) + told + weights


def _use_model(path: Path) -> None:
    """Read a model, say what it is, and enhance by it."""
    documents.read_model(path)
    say("models", "info", path)
    if not Path("field.tif").exists():
        grey = np.random.default_rng(0).integers(0, 200, (32, 40)).astype(np.uint8)
        write(Micrograph(grey, (5.0, 5.0), "field"), Path("field.tif"))
    words = ("field.tif", "-o", "made.tif", "--overwrite", "--device", "cpu")
    say("enhance", *words, "--model", path)


def _fields(message: Any) -> list[tuple[Any, Any, int | None]]:
    """List the texts and numbers of a message of protobuf, at whatever depth."""
    found = []
    for spec, value in message.ListFields():
        is_list = (not hasattr(value, "ListFields") and hasattr(value, "append")) or (
            hasattr(value, "add")
        )
        parts = list(enumerate(value)) if is_list else [(None, value)]
        for at, part in parts[:20]:
            if hasattr(part, "ListFields"):
                found += _fields(part)
            else:
                found.append((message, spec, at))
    return found


def hostile_graph(data: bytes, rng: Random) -> bytes:
    """Put hostile values into texts and numbers of a graph, or weights elsewhere."""
    import onnx

    model = onnx.load_model_from_string(data)
    if model.graph.initializer and rng.random() < 0.3:
        tensor = rng.choice(model.graph.initializer)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        way = rng.choice(
            ("../bait/raw.bin", f"{WATCH.bait}/raw.bin", hostile_text(rng))
        )
        for key, value in (("location", way), ("offset", "0"), ("length", "36")):
            tensor.external_data.add(key=key, value=value.encode("utf-8", "replace"))
    for _ in range(rng.choice((0, 1, 1, 2))):
        message, spec, at = rng.choice(_fields(model))
        value = getattr(message, spec.name)
        before = value if at is None else value[at]
        text = hostile_text(rng).encode("utf-8", "replace")
        put: Any = text if isinstance(before, bytes) else text.decode()
        if isinstance(before, int | float):
            put = hostile_number(rng)
        with suppress(
            ValueError, TypeError, OverflowError
        ):  # beyond what a field takes
            if at is None:
                setattr(message, spec.name, type(before)(put))
            else:
                value[at] = type(before)(put)
    if rng.random() < 0.2:
        model.metadata_props.add(key=rng.choice(("card", "x")), value=text_of(rng))
    return bytes(model.SerializeToString())


def text_of(rng: Random) -> str:
    """Give a hostile text that UTF-8 takes."""
    return hostile_text(rng).encode("utf-8", "replace").decode()


def hostile_package(data: bytes, rng: Random) -> bytes:
    """Put hostile values into a package's description, or files of hostile names."""
    with zipfile.ZipFile(io.BytesIO(data)) as held:
        files = {name: held.read(name) for name in held.namelist()}
    kind = rng.random()
    if kind < 0.7:
        files[exchange.TEXT] = hostile_yaml(files[exchange.TEXT], rng)
    elif kind < 0.85:
        files[exchange.WEIGHTS] = hostile_graph(files[exchange.WEIGHTS], rng)
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as package:
        for name, content in files.items():
            told = zipfile.ZipInfo(name)
            if kind > 0.95:
                told.external_attr = 0o120777 << 16  # a link
                content = hostile_path(rng).encode()
            package.writestr(told, content, zipfile.ZIP_DEFLATED)
        if kind > 0.8:
            package.writestr(text_of(rng).replace("\0", "") or "x", b"owned")
        if 0.85 < kind < 0.9:
            bomb = rng.choice((exchange.TEXT, exchange.WEIGHTS, "more"))
            package.writestr(f"{bomb}", bytes(1 << 28))
    return written.getvalue()


# -- what is to be done -------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """Files that say what is to be done, and the inputs of all verbs beside them."""

    name: str
    line: tuple[str, ...]
    write: Callable[[Path], None]

    def prepare(self, folder: Path) -> dict[str, bytes]:
        """Write the inputs, and the files; each is done as it is."""
        write_inputs(folder)
        before = {path.name for path in folder.iterdir()}
        self.write(folder)
        added = sorted({path.name for path in folder.iterdir()} - before)
        found = {name: (folder / name).read_bytes() for name in added}
        for name in found:
            code, message = self._do(name, None)
            assert code == 0, message
        return found

    def attempt(self, whole: dict[str, bytes], folder: Path, rng: Random) -> bool:
        """Put hostile values into one, and do what it says; now and then by links."""
        for name, data in whole.items():
            (folder / name).write_bytes(data)
        name = rng.choice(list(whole))
        (folder / name).write_bytes(_short_work(whole[name], rng))
        return self._do(name, rng)[0] != 0

    def _do(self, name: str, rng: Random | None) -> tuple[int, str]:
        shutil.rmtree("out", ignore_errors=True)
        if rng is not None and rng.random() < 0.1:
            Path("out").mkdir()
            for inner in ("last.ckpt", "log.csv", "trial.safetensors", "validation"):
                source = WATCH.bait / rng.choice(("folder", "tiny.yaml", "new"))
                Path("out", inner).symlink_to(source)
        with PATIENCE.endless():
            return say(self.line[0], name, *self.line[1:])


def _short_work(data: bytes, rng: Random) -> bytes:
    """Put hostile values into YAML, but ask for no long training by it."""
    values = json.loads(hostile_yaml(data, rng))
    if isinstance(values.get("steps"), int) and values["steps"] > 1:
        values["steps"] = 1
    return json.dumps(values).encode()


def _write_recipe(folder: Path) -> None:
    pairs = {"pairs": "pairs.zarr", "patch_px": 16}
    write_tiny_recipe(folder / "trial.yaml", data=pairs)


def _documents(
    name: str, change: Any, use: Any = None, *, may_read: bool = False
) -> Watched:
    """Take the whole files of a damaged case."""
    cases = (*documents.DOCUMENTS, *exchange.EXCHANGE)
    case: Any = next(one for one in cases if one.name == name)
    return Watched(
        replace(case, damage=change, **({"read": use} if use else {})), may_read
    )


WELL_FORMED = (
    Watched(Images("tiff", ".tif", _write_tiffs, hostile_tiff)),
    Watched(Images("png", ".png", images.write_pngs, hostile_png)),
    Watched(Images("jpeg", ".jpg", images.write_jpegs, hostile_jpeg)),
    Watched(Images("bmp", ".bmp", images.write_bmps, hostile_bmp)),
    Watched(Images("hdf5", ".h5", images.write_hdf5s, hostile_hdf5)),
    Watched(
        Images("czi", ".czi", images.write_mosaic, hostile_czi, images.read_mosaic)
    ),
    Watched(Stores()),
    Watched(Scans()),
    _documents("model", _safetensors, _use_model),
    _documents("onnx", hostile_graph),
    _documents("package", hostile_package),
    _documents("transform", hostile_json),
    _documents("calibration", hostile_json),
    _documents("landmarks", hostile_bytes),
    _documents("recipe", hostile_yaml, may_read=True),
    Watched(Work("training", ("train", "-o", "out"), _write_recipe), may_read=True),
    _documents("measuring-table", hostile_bytes, may_read=True),
    _documents("project", hostile_json, may_read=True),
    _documents("history", hostile_value, may_read=True),
)
