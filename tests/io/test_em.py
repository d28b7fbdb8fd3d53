"""DM3, DM4, SER, EMD and MRC: which image, which plane, and how large a pixel is."""

import json
import struct

import numpy as np
import pytest

from napari_semsr.core.errors import ReadError
from napari_semsr.io import em, formats as registry
from napari_semsr.io.layers import read_layers
from tests.refusals import refused, warned

h5py = pytest.importorskip("h5py", reason="needs h5py, the extra [em]")

DM_CODES = {"i2": 1, "f4": 2, "u1": 6, "i4": 7, "i1": 9, "u2": 10, "u4": 11, "f8": 12}
TAG_TYPES = {"i2": 2, "i4": 3, "u2": 4, "u4": 5, "f4": 6, "f8": 7, "i1": 9, "u1": 10}
STRUCTS = {2: "h", 3: "i", 4: "H", 5: "I", 6: "f", 7: "d", 10: "B"}


class Dm:
    """Writer of DM files, as Gatan's programs write them."""

    def __init__(self, version=3, order="<"):
        self.version, self.order = version, order
        self.word = ">I" if version == 3 else ">Q"

    def words(self, *values):
        return b"".join(struct.pack(self.word, one) for one in values)

    def tag(self, name, value):
        is_group = isinstance(value, (dict, list))
        body = self.group(value) if is_group else self.value(value)
        head = struct.pack(">BH", 20 if is_group else 21, len(name)) + name.encode()
        return head + (self.words(len(body)) if self.version == 4 else b"") + body

    def group(self, tags):
        pairs = tags.items() if isinstance(tags, dict) else [("", one) for one in tags]
        body = b"".join(self.tag(name, value) for name, value in pairs)
        return b"\1\0" + self.words(len(tags)) + body

    def value(self, value):
        if isinstance(value, str):
            value = np.frombuffer(value.encode("utf-16-le"), "<u2")
        if isinstance(value, np.ndarray):
            kind = TAG_TYPES[value.dtype.str[1:]]
            data = value.astype(value.dtype.newbyteorder(self.order)).tobytes()
            return b"%%%%" + self.words(3, 20, kind, value.size) + data
        kind, number = value
        data = struct.pack(self.order + STRUCTS[kind], number)
        return b"%%%%" + self.words(1, kind) + data

    def image(self, data, step=(1.5, 1.5), unit="nm", name="a", tags=None, code=None):
        sizes = data.shape[::-1]
        units = [unit] * len(sizes) if isinstance(unit, str) else unit
        steps = [*step[::-1], *[1.0] * (len(sizes) - len(step))]
        dimension = [
            {"Origin": (6, 0.0), "Scale": (6, one), "Units": of}
            for one, of in zip(steps, units, strict=True)
        ]
        bright = {"Origin": (6, 0.0), "Scale": (6, 1.0), "Units": ""}
        kind = DM_CODES[data.dtype.str[1:]] if code is None else code
        return {
            "ImageData": {
                "Calibrations": {"Brightness": bright, "Dimension": dimension},
                "Data": data.ravel(),
                "DataType": (5, kind),
                "Dimensions": [(5, n) for n in sizes],
            },
            "ImageTags": tags or {},
            "Name": name,
        }

    def file(self, path, images, thumbnails=()):
        tags = {"ImageList": images}
        if thumbnails:
            tags["Thumbnails"] = [{"ImageIndex": (5, n)} for n in thumbnails]
        body = self.group(tags)
        little = int(self.order == "<")
        head = struct.pack(">I", self.version) + self.words(len(body))
        path.write_bytes(head + struct.pack(">I", little) + body + bytes(8))
        return path


@pytest.fixture
def needs_rsciio():
    pytest.importorskip("rsciio", reason="needs rosettasciio, the extra [em]")


pytestmark = pytest.mark.usefixtures("needs_rsciio")


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["i2", "u2", "i4", "f4", "f8", "u1", "i1", "u4"])
def test_dm_is_read_in_either_byte_order(tmp_path, grey, version, order, dtype):
    wanted = grey.astype(dtype)
    dm = Dm(version, order)
    path = dm.file(tmp_path / f"a.dm{version}", [dm.image(wanted, (0.1, 0.3))])
    found = registry.read(path)
    assert np.array_equal(found.array(), wanted)
    assert found.dtype == np.dtype(dtype)
    assert found.pixel_size_nm == (0.1, 0.3)
    info = registry.describe(path)
    assert (info.format, info.shape) == (f"DM{version}", (37, 53))


@pytest.mark.parametrize(
    ("unit", "nm"),
    [("\u00b5m", 1200.0), ("\u00c5", 0.12), ("pm", 0.0012), ("px", None)],
)
def test_the_pixel_size_of_dm_has_its_last_digit_or_is_unknown(
    tmp_path, grey, unit, nm
):
    dm = Dm()
    path = dm.file(tmp_path / "a.dm3", [dm.image(grey, (1.2, 1.2), unit)])
    assert registry.read(path).pixel_size_nm == (None if nm is None else (nm, nm))


def test_the_thumbnail_of_dm_is_left_out_and_images_are_chosen(tmp_path, grey):
    dm = Dm(4)
    images = [
        dm.image(np.zeros((4, 5), "i4"), name="", code=23),
        dm.image(grey[:1], unit=["eV", ""], name="zero loss"),
        dm.image(grey, name="HAADF"),
        dm.image(grey[::-1].copy(), name="BF"),
    ]
    path = dm.file(tmp_path / "a.dm4", images, thumbnails=[0])
    found = registry.read(path)
    assert np.array_equal(found.array(), grey)
    assert found.name == "a HAADF"
    assert np.array_equal(registry.read(path, series=2).array(), grey[::-1])
    info = registry.describe(path)
    assert (info.series, info.metadata["series_read"]) == (3, 1)
    with refused(ReadError, "format-unsupported", match=r" 0 .* spectrum"):
        registry.read(path, series=0)
    with refused(ReadError, "plane-missing", match="series 3"):
        registry.read(path, series=3)
    with warned("several-images", match=" 3 .* 1 "):
        layers = read_layers(str(path))
    assert layers[0][1]["scale"] == (1.5, 1.5)


DIFFRACTION = {"Microscope Info": {"Operation Mode": "DIFFRACTION"}}
SPECTRUM = {"Meta Data": {"Format": "Spectrum image"}}


@pytest.mark.parametrize(
    ("unit", "tags", "what"),
    [
        ("1/nm", {}, "diffraction"),
        ("mrad", {}, "diffraction"),
        ("", DIFFRACTION, "diffraction"),
        ("nm", SPECTRUM, "spectrum"),
        ("eV", {}, "spectrum"),
    ],
)
def test_what_is_not_an_image_is_refused_by_name(tmp_path, grey, unit, tags, what):
    dm = Dm()
    path = dm.file(tmp_path / "a.dm3", [dm.image(grey, unit=unit, tags=tags)])
    with refused(ReadError, "format-unsupported", match=what):
        registry.read(path)


def test_planes_of_dm_are_read_one_at_a_time(tmp_path, grey, monkeypatch):
    dm = Dm()
    stack = np.stack([grey, grey // 2, grey // 3]).astype("u2")
    tagged = dm.image(stack, unit=["nm", "nm", "s"])
    path = dm.file(tmp_path / "a.dm3", [tagged])
    with refused(ReadError, "several-images"):
        registry.read(path)
    assert registry.describe(path).axes == {"t": 3}
    assert np.array_equal(registry.read(path, time=2).array(), stack[2])
    monkeypatch.setattr(em.images, "LAZY_BYTES", 0)
    found = registry.read(path, plane=1)
    assert found.is_lazy
    assert np.array_equal(found.array(), stack[1])


def write_ser(path, planes, step=2.5e-9, kind=0x4122, version=0x220, total=None):
    """Write a series as TIA does, whose lowest row comes first."""
    wide = version > 0x210
    code = {"u1": 1, "u2": 2, "u4": 3, "i2": 5, "i4": 6, "f4": 7}[planes.dtype.str[1:]]
    count = len(planes)
    dimension = struct.pack("<IddII", count, 0, 1, 0, 6) + b"Number" + bytes(4)
    start = 22 + (8 if wide else 4) + 4 + len(dimension)
    elements, offsets = b"", []
    data_at = start + 2 * count * (8 if wide else 4)
    for plane in planes:
        offsets.append(data_at + len(elements))
        sides = plane.shape[::-1]
        axes = b"".join(struct.pack("<ddI", 0, step, 0) for _ in sides)
        elements += axes + struct.pack(f"<H{len(sides)}I", code, *sides)
        elements += plane[::-1].tobytes() + struct.pack("<HHI", 0x4152, 0, 0)
    pairs = struct.pack(f"<{2 * count}{'Q' if wide else 'I'}", *offsets, *offsets)
    head = struct.pack("<HHH", 0x4949, 0x0197, version)
    head += struct.pack("<IIII", kind, 0x4152, total or count, count)
    head += struct.pack("<QI" if wide else "<II", start, 1)
    path.write_bytes(head + dimension + pairs + elements)
    return path


@pytest.mark.parametrize("version", [0x210, 0x220])
@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "i4", "f4"])
def test_ser_is_upright_and_calibrated(tmp_path, grey, version, dtype):
    planes = grey[None].astype(dtype)
    path = write_ser(tmp_path / "a_1.ser", planes, 2.1510044e-9, version=version)
    found = registry.read(path)
    assert np.array_equal(found.array(), planes[0])
    assert found.pixel_size_nm == (2.1510044, 2.1510044)


def test_a_series_that_was_stopped_has_the_planes_that_were_taken(tmp_path, grey):
    planes = np.stack([grey, grey // 2])
    path = write_ser(tmp_path / "a_1.ser", planes, total=9)
    assert registry.describe(path).planes == 2
    assert np.array_equal(registry.read(path, plane=1).array(), planes[1])


def test_ser_of_diffraction_and_spectra_is_refused(tmp_path, grey):
    path = write_ser(tmp_path / "a_1.ser", grey[None], step=4.2e7)
    with refused(ReadError, "format-unsupported", match="diffraction"):
        registry.read(path)
    path = write_ser(tmp_path / "b_1.ser", grey[:1], kind=0x4120)
    with refused(ReadError, "format-unsupported", match="spectrum"):
        registry.read(path)


def velox(path, images, unit="m", step="3.1388370544495519e-09"):
    """Write an EMD file as Velox does: planes last, metadata as JSON text."""
    with h5py.File(path, "w") as file:
        text = json.dumps({"format": "Velox", "version": "1.10"}).encode()
        file.create_dataset("Version", data=[text], dtype=h5py.string_dtype())
        for number, (name, data) in enumerate(images):
            group = file.create_group(f"Data/Image/{number:032x}")
            group["Data"] = np.moveaxis(data, 0, -1)
            result = {"Detector": name, "PixelSize": {"width": step, "height": step}}
            result |= {"PixelUnitX": unit, "PixelUnitY": unit}
            text = json.dumps({"BinaryResult": result}).encode().ljust(999, b"\0")
            group["Metadata"] = np.repeat(
                np.frombuffer(text, "u1")[:, None], len(data), 1
            )
    return path


@pytest.mark.parametrize("version", [10, 11])
def test_velox_names_images_as_it_shows_them(tmp_path, grey, version):
    images = [("DF4", grey[None]), ("DF4", np.stack([grey // 2, grey // 3]))]
    path = velox(tmp_path / "a.emd", images)
    about = {"dataPath": f"/Data/Image/{0:032x}"}
    with h5py.File(path, "a") as file:
        where = "Presentation/Displays/ImageDisplay/0"
        if version == 11:
            where = "SharedProperties/ImageSeriesDataReference/0"
            shown = json.dumps({"data": f"/{where}", "title": "DPC"}).encode()
            file["Displays/ImageDisplay/0"] = [shown]
        else:
            about["display"] = {"label": "DPC"}
        file[where] = [json.dumps(about).encode()]
        file.require_group("Presentation/Displays/ImageDisplay")["damaged"] = [b"{"]
    found = registry.read(path)
    assert np.array_equal(found.array(), grey)
    assert found.name == "a DPC"
    assert found.pixel_size_nm == (3.1388370544495519, 3.1388370544495519)
    assert np.array_equal(registry.read(path, series=1, plane=1).array(), grey // 3)
    names = registry.describe(path).metadata["images"]
    assert [text.partition(":")[0] for text in names.values()] == ["DPC", "DF4"]


def ncem(path, data, axes, dtype="f8", base=1):
    with h5py.File(path, "w") as file:
        file.attrs.update({"version_major": 0, "version_minor": 2})
        group = file.create_group("data/scan")
        group.attrs["emd_group_type"] = 1
        group["data"] = data
        for number, (name, start, step, unit) in enumerate(axes):
            places = start + step * np.arange(data.shape[number])
            dim = group.create_dataset(f"dim{number + base}", data=places.astype(dtype))
            dim.attrs.update({"name": name, "units": unit})
    return path


@pytest.mark.parametrize("start", [0.0, 12.5])
@pytest.mark.parametrize("is_swapped", [False, True])
def test_ncem_axes_are_found_by_their_names(tmp_path, grey, start, is_swapped):
    axes, data = [("Y", start, 0.3, "[n_m]"), ("X", start, 0.7, "n_m")], grey
    if is_swapped:
        axes, data = axes[::-1], grey.T
    found = registry.read(ncem(tmp_path / "a.emd", data, axes))
    assert np.array_equal(found.array(), grey)
    assert found.pixel_size_nm == (0.3, 0.7)
    found = registry.read(ncem(tmp_path / "b.emd", data, axes, "f4"))
    assert found.pixel_size_nm == pytest.approx((0.3, 0.7), rel=1e-6)


def test_ncem_stacks_diffraction_and_uncalibrated(tmp_path, grey):
    axes = [("z", 0, 5, "nm"), ("", 0, 1, ""), ("", 0, 1, "")]
    path = ncem(tmp_path / "a.emd", np.stack([grey, grey // 2]), axes, base=0)
    found = registry.read(path, z=1)
    assert np.array_equal(found.array(), grey // 2)
    assert found.pixel_size_nm is None
    axes = [("y", 0, 1, "nm"), ("x", 0, 1, "nm"), ("Qy", 0, 1, "1/nm")]
    axes.append(("Qx", 0, 1, "1/nm"))
    path = ncem(tmp_path / "b.emd", np.zeros((3, 4, 5, 6)), axes)
    with refused(ReadError, "format-unsupported", match=r"\(scan\)"):
        registry.read(path)


def write_mrc(path, data, nm=0.25, order="<", mode=None, **fields):
    """Write MRC2014, or what is `fields` of it: (offset, format, value)."""
    modes = {"i1": 0, "i2": 1, "f4": 2, "u2": 6, "u1": 0, "f2": 12}
    data = data if data.ndim > 2 else data[None]
    depth, rows, columns = data.shape
    head = bytearray(1024)
    mode = modes[data.dtype.str[1:]] if mode is None else mode
    struct.pack_into(f"{order}4i", head, 0, columns, rows, depth, mode)
    struct.pack_into(f"{order}3i", head, 28, columns, rows, depth)
    cell = [n * 10 * nm for n in (columns, rows, depth)]
    struct.pack_into(f"{order}3f", head, 40, *cell)
    struct.pack_into(f"{order}3i", head, 64, 1, 2, 3)
    head[208:216] = b"MAP DD\0\0" if order == "<" else b"MAP \x11\x11\0\0"
    more = fields.pop("extended", b"")
    struct.pack_into(f"{order}i", head, 92, len(more))
    for offset, layout, value in fields.values():
        struct.pack_into(f"{order}{layout}", head, offset, value)
    stored = data.astype(data.dtype.newbyteorder(order)).tobytes()
    path.write_bytes(bytes(head) + more + stored)
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["i1", "i2", "f4", "u2"])
@pytest.mark.parametrize("extended", [b"", b"x" * 80, bytes(1 << 17)])
def test_mrc_is_read_in_each_mode_and_order(tmp_path, grey, order, dtype, extended):
    wanted = (grey.astype(int) - 100).astype(dtype)
    path = write_mrc(tmp_path / "a.mrc", wanted, 0.1234, order, extended=extended)
    found = registry.read(path)
    assert np.array_equal(found.array(), wanted)
    assert found.dtype == np.dtype(dtype)
    assert found.pixel_size_nm == (0.1234, 0.1234)


@pytest.mark.parametrize(
    ("fields", "dtype"),
    [
        ({}, "i1"),
        ({"stamp": (152, "i", 1146047817)}, "u1"),
        ({"stamp": (152, "i", 1146047817), "flags": (156, "i", 1)}, "i1"),
        ({"most": (80, "f", 255.0)}, "u1"),
    ],
)
def test_bytes_of_mrc_are_signed_unless_the_file_is_older(tmp_path, fields, dtype):
    data = np.arange(-128, 128, dtype="i1").reshape(16, 16)
    found = registry.read(write_mrc(tmp_path / "a.mrc", data, **fields))
    assert found.dtype == dtype
    assert np.array_equal(found.array(), data.view(dtype))


def test_mrc_without_a_cell_has_no_pixel_size(tmp_path, grey):
    placeholders = {"nm": 0.1}, {"x": (40, "f", 1.0), "y": (44, "f", 1.0)}
    invalid = {"nm": 0.0}, {"n": (28, "i", 0)}
    for number, fields in enumerate((*invalid, *placeholders)):
        path = write_mrc(tmp_path / f"{number}.mrc", grey.astype("u2"), **fields)
        assert registry.read(path).pixel_size_nm is None


def test_fei_states_the_pixel_size_of_mrc_in_its_extended_header(tmp_path, grey):
    wanted = grey.astype("i2")
    more = bytearray(1 << 17)
    struct.pack_into("<2d", more, 156, 1.25e-9, 1.5e-9)
    kind = {"kind": (104, "4s", b"FEI1")}
    path = write_mrc(tmp_path / "a.mrc", wanted, 1, extended=bytes(more), **kind)
    assert registry.read(path).pixel_size_nm == (1.5, 1.25)
    struct.pack_into("<f", more, 44, 1.25e-9)
    numbers = {"numbers": (130, "h", 32)}
    path = write_mrc(tmp_path / "b.mrc", wanted, 1, extended=bytes(more), **numbers)
    assert registry.read(path).pixel_size_nm == (1.25, 1.25)


@pytest.mark.parametrize("mode", [4, 101])
def test_modes_of_mrc_that_are_no_images_are_refused(tmp_path, mode):
    path = write_mrc(tmp_path / "a.mrc", np.zeros((8, 8), "f4"), mode=mode)
    with refused(ReadError, "format-unsupported", match="Fourier|mode 101 "):
        registry.read(path)


def test_damage_is_one_sentence(tmp_path, grey):
    dm = Dm(4)
    for path in (
        dm.file(tmp_path / "a.dm4", [dm.image(grey)]),
        write_ser(tmp_path / "a_1.ser", grey[None]),
        write_mrc(tmp_path / "a.mrc", grey.astype("i2")),
        velox(tmp_path / "a.emd", [("HAADF", grey[None])]),
    ):
        whole = path.read_bytes()
        for end in (0, 20, 90, 300, 1000, len(whole) // 2, len(whole) - 60):
            path.write_bytes(whole[:end])
            with pytest.raises(ReadError, match=r"^[^\n]*$"):
                registry.read(path)
