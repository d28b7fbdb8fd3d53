"""Whole files that mean harm: paths, addresses, sizes, names and links in every field.

Each kind takes the whole inputs of its damaged fellow and puts hostile values where a
value stands. What reads them is watched (`tests.hostile.watch`).
"""

import io
import json
import os
import re
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
from napari_semsr.io import describe, get_reader, read, write
from tests.hostile import documents, exchange, images
from tests.hostile.commands import PATIENCE, say, write_inputs
from tests.hostile.play import Files
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


_TEXT_TAGS = (269, 271, 272, 285, 315, 316, 337, 33432, 700, 33723)
_TEXT_TAGS += (34118, 34682, 34680, 50838, 50839, 65200)


def hostile_tiff(data: bytes, rng: Random) -> bytes:
    """Put hostile values into some tags of the first page, or write one such tag."""
    held = io.BytesIO(data)
    if rng.random() < 0.3:
        text = _text(hostile_text(rng), rng)
        told = (rng.choice(_TEXT_TAGS), rng.choice((2, 7)), len(text), text, True)
        held = io.BytesIO()
        tifffile.imwrite(held, np.ones((37, 53), "u1"), metadata=None, extratags=[told])
        held.seek(0)
    with tifffile.TiffFile(held) as file:
        tags = [*file.pages[0].tags]
        texts = [tag for tag in tags if tag.dtype in (1, 2, 7)]
        for _ in range(rng.choice((1, 1, 2, 4))):
            _change_tag(rng.choice(rng.choice((tags, texts or tags))), held, rng)
    return held.getvalue()


def _change_tag(tag: Any, held: io.BytesIO, rng: Random) -> None:
    """Change what a tag of a TIFF says."""
    if tag.dtype in (1, 2, 7):
        said = held.getbuffer()[tag.valueoffset :][: tag.valuebytecount].tobytes()
        told = said.rstrip(b"\0").decode("utf-8", "replace")
        text = hostile_lines(told, rng) if told else hostile_text(rng)
        tag.overwrite(_text(text, rng))
    elif tag.dtype in (5, 10):
        values = rng.choices((0, 1, 2**31, 2**32 - 1), k=2 * tag.count)
        tag.overwrite(values, dtype=5)
    elif tag.count < 10:
        most = {3: 2**16, 4: 2**32}.get(tag.dtype, 2**64) - 1
        value = min(rng.choice((0, 1, 7, 65535, most // 2, most)), most)
        tag.overwrite([value] * tag.count)


def _text(text: str, rng: Random) -> bytes:
    return text.encode("utf-8", rng.choice(("replace", "surrogatepass"))) + b"\0"


_BOMB = zlib.compress(bytes(1 << 26), 9)  # 64 MiB in 64 KiB


def hostile_png(data: bytes, rng: Random) -> bytes:
    """Put texts, sizes and packed nothing into a PNG, with checksums that fit."""
    chunks = images.split_png(data)
    word = hostile_text(rng).encode("latin-1", "replace").replace(b"\0", b"")
    wide = hostile_text(rng).encode("utf-8", "replace")
    key = rng.choice((b"Comment", b"napari-semsr", b"Software", b"XML:com.adobe.xmp"))
    size = struct.pack(">I", rng.choice((0, 1, 2**31 - 1, 2**32 - 1)))
    told = (
        (b"tEXt", key + b"\0" + word),
        (b"zTXt", key + b"\0\0" + zlib.compress(word)),
        (b"zTXt", key + b"\0\0" + _BOMB),
        (b"iTXt", key + b"\0\0\0\0\0" + wide),
        (b"iTXt", key + b"\0\1\0\0\0" + _BOMB),
        (b"iCCP", word[:79] + b"\0\0" + rng.choice((_BOMB, b"x"))),
        (b"pHYs", size + size + bytes([rng.randrange(2)])),
        (b"eXIf", b"II*\0" + size + wide),
        (b"sPLT", word[:79] + b"\0\x08" + size),
    )
    if rng.random() < 0.3:
        sides = struct.pack(">II", *rng.choices((1, 53, 2**16, 2**31 - 1), k=2))
        chunks[0] = b"IHDR", sides + chunks[0][1][8:]
    if rng.random() < 0.6:
        chunks = [_change_record(*one, rng) for one in chunks]
    if rng.random() < 0.9:
        chunks.insert(1, rng.choice(told))
    return images.join_png(chunks)


def _change_record(kind: bytes, content: bytes, rng: Random) -> tuple[bytes, bytes]:
    """Put hostile values into the record that we wrote, where a chunk holds it."""
    key, _, text = content.partition(b"\0")
    if kind not in (b"zTXt", b"iTXt") or key != b"napari-semsr":
        return kind, content
    is_packed = text[0] or kind == b"zTXt"
    text = text[1:] if kind == b"zTXt" else text[2:].split(b"\0", 2)[2]
    text = zlib.decompress(text) if is_packed else text
    return b"zTXt", key + b"\0\0" + zlib.compress(hostile_json(text, rng))


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
class Images(Files):
    """Images of one kind, hostile in a field or several."""

    use: Callable[[Path], None] = _use_image

    def attempt(
        self, whole: list[tuple[str, bytes]], folder: Path, rng: Random
    ) -> None:
        """Change one, or put a link or a part of another in its place, and use it."""
        name, data = rng.choice(whole)
        path = folder / f"image{Path(name).suffix}"
        path.unlink(missing_ok=True)
        chance = rng.random()
        if chance < 0.03:
            _link(path, rng)
        else:
            if chance < 0.1 and self.name == "tiff":
                bait = rng.choice(("../bait", str(WATCH.bait)))
                write_part(path, f"{bait}/two.ome.tif")
                data = path.read_bytes()
            path.write_bytes(self.damage(data, rng))
        if rng.random() < 0.05:
            text = hostile_bytes("\n".join(rng.choice(_SIDECARS)).encode(), rng)
            path.with_suffix(".txt").write_bytes(text)
        self.use(path)


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
        place = images.copy_one(whole, folder, rng)
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
            if rng.random() < 0.3:
                _lead_levels_out(path, rng)
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


def _lead_levels_out(path: Path, rng: Random) -> None:
    """Let what a store says of its levels name an array elsewhere."""
    bait = rng.choice(("../bait", str(WATCH.bait)))
    way = rng.choice((f"{bait}/secret.ome.zarr/0", hostile_path(rng)))
    text = path.read_text(encoding="utf-8", errors="surrogatepass")
    path.write_text(re.sub(r'(?<="path": )"[^"]*"', lambda _: json.dumps(way), text))


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
        place = images.lay_out(whole, folder)
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
    header, weights = documents.split_model(data)
    card = header.get("__metadata__", {}).get("card")
    if card is not None and rng.random() < 0.8:
        header["__metadata__"]["card"] = hostile_json(card, rng).decode()
    else:
        header = hostile_value(header, rng)
    return documents.join_model(header, weights)


def _use_model(path: Path) -> None:
    """Read a model, say what it is, and enhance by it."""
    documents.read_model(path)
    say("models", "info", path)
    if not Path("field.tif").exists():
        grey = np.random.default_rng(0).integers(0, 200, (32, 40)).astype(np.uint8)
        write(Micrograph(grey, (5.0, 5.0), "field"), Path("field.tif"))
    words = ("field.tif", "-o", "made.tif", "--overwrite", "--device", "cpu")
    say("enhance", *words, "--model", path)


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
        _change_field(model, rng)
    if rng.random() < 0.2:
        model.metadata_props.add(key=rng.choice(("card", "x")), value=text_of(rng))
    return bytes(model.SerializeToString())


def _change_field(message: Any, rng: Random) -> None:
    """Put something hostile into a text or a number of a message, at whatever depth."""
    spec, value = rng.choice(message.ListFields())
    is_list = hasattr(value, "append") or hasattr(value, "add")
    at = rng.randrange(len(value)) if is_list else 0
    before = value[at] if is_list else value
    if hasattr(before, "ListFields"):
        if before.ListFields():
            _change_field(before, rng)
        return
    text = hostile_text(rng).encode("utf-8", "replace")
    put: Any = text if isinstance(before, bytes) else text.decode()
    put = hostile_number(rng) if isinstance(before, int | float) else put
    with suppress(ValueError, TypeError, OverflowError):  # beyond what a field takes
        if is_list:
            value[at] = type(before)(put)
        else:
            setattr(message, spec.name, type(before)(put))


def text_of(rng: Random) -> str:
    """Give a hostile text that UTF-8 takes."""
    return hostile_text(rng).encode("utf-8", "replace").decode()


def hostile_package(data: bytes, rng: Random) -> bytes:
    """Put hostile values into a package's description, or files of hostile names."""
    files: dict[Any, bytes] = dict(exchange.unpacked(data))
    kind = rng.random()
    if kind < 0.7:
        files[exchange.TEXT] = hostile_yaml(files[exchange.TEXT], rng)
    elif kind < 0.85:
        files[exchange.WEIGHTS] = hostile_graph(files[exchange.WEIGHTS], rng)
    elif kind < 0.9:
        name = zipfile.ZipInfo(rng.choice((exchange.TEXT, exchange.WEIGHTS, "more")))
        files[name] = bytes(1 << 28)
    elif kind > 0.95:
        for name in [*files]:
            link = zipfile.ZipInfo(name)
            link.external_attr = 0o120777 << 16
            del files[name]
            files[link] = hostile_path(rng).encode()
    if kind > 0.8:
        files[text_of(rng).replace("\0", "") or "x"] = b"owned"
    return exchange.packed(files)


# -- what is to be done -------------------------------------------------------------


def _write_recipe(folder: Path) -> None:
    """Write a recipe, and the inputs of all verbs beside it."""
    write_inputs(folder.parent)
    pairs = {"pairs": str(folder.with_name("pairs.zarr")), "patch_px": 16}
    write_tiny_recipe(folder / "trial.yaml", data=pairs)


def _train(path: Path) -> bool:
    """Train as a recipe says, of some into a folder of links."""
    shutil.rmtree("out", ignore_errors=True)
    said = path.read_bytes().replace(bytes(path.parents[1]), b"")
    rng = Random(said)  # noqa: S311 - the same wherever the folder is
    if path.parent.name != "seeds" and rng.random() < 0.1:
        Path("out").mkdir()
        for inner in ("last.ckpt", "log.csv", "trial.safetensors", "validation"):
            source = WATCH.bait / rng.choice(("folder", "tiny.yaml", "new"))
            Path("out", inner).symlink_to(source)
    with PATIENCE.endless():
        return say("train", path, "-o", "out")[0] == 0


def _short_work(data: bytes, rng: Random) -> bytes:
    """Put hostile values into YAML, but ask for no long training by it."""
    values = json.loads(hostile_yaml(data, rng))
    if isinstance(values.get("steps"), int) and values["steps"] > 1:
        values["steps"] = 1
    return json.dumps(values).encode()


def _documents(
    name: str, change: Any, use: Any = None, *, may_read: bool = False
) -> Watched:
    """Take the whole files of a damaged case."""
    cases = (*documents.DOCUMENTS, *exchange.EXCHANGE)
    case: Any = next(one for one in cases if one.name == name)
    return Watched(
        replace(case, damage=change, **({"read": use} if use else {})), may_read
    )


def _images(name: str, change: Any, use: Any = _use_image) -> Watched:
    """Take the whole images of a damaged case."""
    case: Any = next(one for one in images.IMAGES if one.name == name)
    return Watched(Images(name, case.write, case.read, change, use))


_HDF5 = Images("hdf5", images.write_hdf5s, images.read_whole, hostile_hdf5)
WELL_FORMED = (
    _images("tiff", hostile_tiff),
    _images("png", hostile_png),
    _images("jpeg", hostile_jpeg),
    _images("bmp", hostile_bmp),
    Watched(_HDF5),
    _images("czi", hostile_czi, images.read_mosaic),
    Watched(Stores()),
    Watched(Scans()),
    _documents("model", _safetensors, _use_model),
    _documents("onnx", hostile_graph),
    _documents("package", hostile_package),
    _documents("transform", hostile_json),
    _documents("calibration", hostile_json),
    _documents("landmarks", hostile_bytes),
    _documents("recipe", hostile_yaml, may_read=True),
    Watched(Files("training", _write_recipe, _train, _short_work), may_read=True),
    _documents("measuring-table", hostile_bytes, may_read=True),
    _documents("project", hostile_json, may_read=True),
    _documents("history", hostile_value, may_read=True),
)
