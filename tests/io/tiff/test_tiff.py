"""TIFF in its dialects, types and encodings."""

import json
from contextlib import nullcontext
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile

from napari_semsr.core.errors import ReadError, WriteError
from napari_semsr.core.micrograph import Micrograph, Provenance
from napari_semsr.core.progress import capture_warnings
from napari_semsr.io import formats as registry, read, write, write_pages
from napari_semsr.io.files import RECORD_KEY, Record
from napari_semsr.io.tiff.read import find_ome_record
from tests.refusals import refused, warned


@pytest.fixture
def small_limit(monkeypatch):
    """Make everything large enough to be read lazily."""
    monkeypatch.setattr("napari_semsr.io.read_image.LAZY_BYTES", 0)


def test_our_record_is_found_among_annotations_of_others():
    ours = Record("field", (5.0, 4.0), (3.0, 2.0), (1.0, 1.0), None)
    root = ElementTree.Element("OME")
    ElementTree.SubElement(root, "Description").text = "taken by somebody"
    for key, text in (
        ("Objective", "100x"),
        (RECORD_KEY, json.dumps(ours.to_dict())),
        ("Note", "{}"),
    ):
        ElementTree.SubElement(root, "M", K=key).text = text
    assert find_ome_record(root) == ours
    assert find_ome_record(root[1]) is None


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "float16", "float64"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_read_keeps_every_type_in_either_byte_order(forge, rng, dtype, byteorder):
    data = (rng.random((21, 34)) * 100).astype(dtype)
    found = registry.read(forge(data, byteorder=byteorder))
    assert found.dtype == np.dtype(dtype)
    assert found.dtype.isnative
    assert np.array_equal(found.array(), data)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bigtiff": True},
        {"rowsperstrip": 5},
        {"tile": (16, 16)},
        {"tile": (16, 16), "compression": "zlib", "predictor": True},
        {"compression": "lzw", "rowsperstrip": 7, "byteorder": ">"},
        {"compression": "packbits"},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_read_decodes_every_encoding(forge, rng, monkeypatch, options, lazy):
    if lazy:
        monkeypatch.setattr("napari_semsr.io.read_image.LAZY_BYTES", 0)
    data = rng.integers(0, 60_000, (37, 53)).astype(np.uint16)
    found = registry.read(forge(data, **options))
    assert found.is_lazy is lazy
    assert np.array_equal(found.array(), data)


def test_read_decodes_jpeg_within_its_losses(forge):
    data = np.tile(np.arange(0, 240, 4, dtype=np.uint8), (48, 1))
    found = registry.read(forge(data, compression="jpeg", rowsperstrip=16))
    assert np.abs(found.array().astype(int) - data).max() <= 6


def test_read_reads_bits_as_booleans(forge, rng):
    data = rng.random((19, 23)) > 0.5
    found = registry.read(forge(data, photometric="minisblack"))
    assert found.dtype == bool
    assert np.array_equal(found.array(), data)
    turned = registry.read(forge(data, photometric="miniswhite"))
    assert np.array_equal(turned.array(), ~data)


def test_read_turns_white_is_zero(forge, grey):
    found = registry.read(forge(grey, photometric="miniswhite"))
    assert np.array_equal(found.array(), 255 - grey)


def test_read_refuses_complex_values(forge):
    with refused(ReadError, "complex-values"):
        registry.read(forge(np.zeros((5, 5), np.complex64)))


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64"])
@pytest.mark.parametrize("form", [5, 7])
def test_types_that_are_not_supported_are_not_damaged(forge, dtype, form):
    path = forge(np.ones((5, 5), dtype))
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages.first.tags["SampleFormat"].overwrite(form)
    for call in (registry.read, registry.describe):
        with pytest.raises(ReadError) as caught:
            call(path)
        assert "damaged" not in str(caught.value)


def test_read_takes_planar_rgb_lazily(forge, grey, small_limit):
    path = forge(np.stack([grey] * 3), photometric="rgb", planarconfig="separate")
    found = registry.read(path)
    assert found.is_lazy
    assert np.array_equal(found.array(), grey)


def test_read_refuses_colour_and_converts_on_request(forge, grey):
    colour = np.stack([grey, grey, 255 - grey], axis=-1)
    path = forge(colour, photometric="rgb")
    with refused(ReadError, "colour-image"):
        registry.read(path)
    assert registry.read(path, colour="luminance").dtype == np.uint8


@pytest.mark.parametrize("lazy", [False, True])
def test_read_looks_palettes_up(forge, grey, monkeypatch, lazy):
    if lazy:
        monkeypatch.setattr("napari_semsr.io.read_image.LAZY_BYTES", 0)
    ramp = np.arange(256, dtype=np.uint16)
    table = np.stack([ramp[::-1] * 257] * 3)
    same = registry.read(forge(grey, photometric="palette", colormap=table[:, ::-1]))
    assert np.array_equal(same.array(), grey)
    turned = registry.read(forge(grey, photometric="palette", colormap=table))
    assert turned.dtype == np.uint8
    assert np.array_equal(turned.array(), 255 - grey)
    table[0] = 0
    path = forge(grey, photometric="palette", colormap=table)
    with refused(ReadError, "colour-image"):
        registry.read(path)
    assert registry.read(path, colour="luminance").array().shape == grey.shape


def test_read_asks_for_a_plane_of_a_stack(forge, rng):
    stack = rng.integers(0, 255, (5, 12, 17)).astype(np.uint8)
    path = forge(stack, photometric="minisblack")
    info = registry.describe(path)
    assert (info.planes, info.series, info.shape) == (5, 1, (12, 17))
    with refused(ReadError, "several-images", match=" 5 planes"):
        registry.read(path)
    for i in range(5):
        assert np.array_equal(registry.read(path, plane=i).array(), stack[i])


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_read_tells_pages_of_other_shapes_apart(tmp_path, rng, compression):
    pages = [rng.integers(0, 255, (8 + n, 9)).astype(np.uint8) for n in range(3)]
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        for page in pages:
            tif.write(page, compression=compression, metadata=None)
    assert registry.describe(path).series == 3
    for i, page in enumerate(pages):
        assert np.array_equal(registry.read(path, series=i).array(), page)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_read_asks_for_a_channel_of_a_hyperstack(tmp_path, rng, compression):
    data = rng.integers(0, 255, (2, 3, 12, 17)).astype(np.uint8)
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, data, metadata={"axes": "ZCYX"}, compression=compression)
    info = registry.describe(path)
    assert (info.channels, info.planes) == (3, 2)
    with refused(ReadError, "several-images", match="3 channels"):
        registry.read(path, plane=0)
    for plane in range(2):
        for channel in range(3):
            found = registry.read(path, plane=plane, channel=channel)
            assert np.array_equal(found.array(), data[plane, channel])


def test_read_takes_separate_samples_for_channels(forge, rng):
    data = rng.integers(0, 255, (12, 17, 5)).astype(np.uint8)
    path = forge(data, photometric="minisblack", planarconfig="contig")
    assert registry.describe(path).channels == 5
    assert np.array_equal(registry.read(path, channel=3).array(), data[..., 3])


def test_read_drops_the_alpha_of_grey(forge, grey):
    data = np.stack([grey, np.full_like(grey, 255)], axis=-1)
    path = forge(data, photometric="minisblack", extrasamples=["unassalpha"])
    assert np.array_equal(registry.read(path).array(), grey)


def test_read_finds_levels_in_sub_images(tmp_path, rng):
    data = rng.integers(0, 255, (64, 96)).astype(np.uint8)
    path = tmp_path / "a.ome.tif"
    size = {"PhysicalSizeX": 5, "PhysicalSizeXUnit": "nm"}
    size |= {"PhysicalSizeY": 5, "PhysicalSizeYUnit": "nm"}
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(data, subifds=2, tile=(16, 16), metadata=size)
        tif.write(data[::2, ::2], subfiletype=1, tile=(16, 16))
        tif.write(data[::4, ::4], subfiletype=1, tile=(16, 16))
    assert registry.describe(path).levels == 3
    found = registry.read(path, level=2)
    assert found.pixel_size_nm == (20.0, 20.0)
    assert np.array_equal(found.array(), data[::4, ::4])


def test_write_ome_makes_levels_of_large_images(tmp_path):
    data = np.zeros((4, 5000), np.uint8)
    registry.write(Micrograph(data, (2.0, 2.0)), tmp_path / "a.ome.tif")
    assert registry.describe(tmp_path / "a.ome.tif").levels == 4
    found = registry.read(tmp_path / "a.ome.tif", level=3)
    assert found.shape == (1, 625)
    assert found.pixel_size_nm == (16.0, 16.0)
    assert found.origin == (7.0, 7.0)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_levels_of_odd_sides_lie_as_in_a_store(tmp_path, level):
    image = Micrograph(np.zeros((33, 4999), np.uint8), (10.0, 12.0), origin=(1.0, 2.0))
    for suffix in (".ome.tif", ".ome.zarr"):
        registry.write(image, tmp_path / f"a{suffix}")
    found = registry.read(tmp_path / "a.ome.tif", level=level)
    stored = registry.read(tmp_path / "a.ome.zarr", level=level)
    assert found.shape == stored.shape
    assert found.pixel_size_nm == stored.pixel_size_nm == (10 * 2**level, 12 * 2**level)
    assert found.origin == stored.origin


def test_levels_that_are_not_halved_have_the_ratio_of_their_sides(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        how = {"tile": (16, 16), "metadata": None}
        tif.write(np.zeros((60, 90), np.uint8), subifds=1, **how)
        tif.write(np.zeros((20, 30), np.uint8), subfiletype=1, **how)
    assert registry.read(path, level=1).spacing_px == (3.0, 3.0)


@pytest.mark.parametrize(("per_cm", "size"), [(118.11, None), (2e5, 50.0)])
def test_centimetres_of_imagej_may_be_those_of_print(tmp_path, grey, per_cm, size):
    how = {"imagej": True, "resolution": (per_cm, per_cm), "metadata": {"unit": "cm"}}
    tifffile.imwrite(tmp_path / "a.tif", grey, **how)
    found = registry.read(tmp_path / "a.tif")
    assert found.pixel_size_nm == (size and (size, size))
    assert "warnings" not in found.metadata


@pytest.mark.parametrize("suffix", [".ome.tif", ".ome.zarr"])
def test_what_is_typed_is_of_level_0(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    registry.write(Micrograph(np.zeros((64, 4200), np.uint8), 7.0), path)
    typed = {"pixel_size_nm": (10, 12), "pixel_size_sd_nm": 0.5, "databar_rows": 21}
    for level in (0, 1, 2):
        found = registry.read(path, level=level, **typed)
        step = 2**level
        assert found.shape[0] == 43 // step  # what is partly data bar is cut, too
        assert found.pixel_size_nm == (10 * step, 12 * step)
        assert found.pixel_size_sd_nm == pytest.approx((0.5 * step, 0.5 * step))


@pytest.mark.parametrize(
    ("unit", "size"),
    [
        ("nm", 5.0),
        ("\\u00B5m", 5000.0),
        ("pixel", None),
        ("inch", None),
        ("cm", None),
        ("furlong", None),
    ],
)
def test_read_understands_imagej_units(tmp_path, grey, unit, size):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, grey, imagej=True, resolution=(0.2, 0.2), metadata={"unit": unit}
    )
    bad = unit == "furlong"
    with warned("pixel-size-invalid") if bad else nullcontext():
        found = registry.read(path)
    assert found.pixel_size_nm == (None if size is None else (size, size))
    assert ("warnings" in found.metadata) is bad


@pytest.mark.parametrize(
    ("unit", "size"),
    [
        *((unit, 5000.0) for unit in ("um", "micron", "Microns", "\\u03BCm")),
        *((unit.encode(), 5000.0) for unit in ("\u00b5m", "\u03bcm", "\u339b")),
        *((b, 5000.0) for b in (b"\xb5m", b"\x83\xcam")),  # Windows, West and Japan
        ("mm", 5e6),
        ("cm", None),  # as of print
        ("m", None),  # of which no pixel is
        ("pm", 0.005),
        *((unit, 0.5) for unit in ("angstrom", "\\u00C5", b"\xc5", b"\xc3\x85")),
    ],
)
def test_read_understands_the_spellings_of_imagej_units(forge, grey, unit, size):
    text = unit if isinstance(unit, bytes) else unit.encode("ascii")
    start = b"ImageJ=1.54f\nspacing=3.0\nunit="
    path = forge(grey, description=start + text + b"\n", resolution=(0.2, 0.2))
    absurd = unit == "m"
    with warned("pixel-size-invalid") if absurd else nullcontext():
        found = registry.read(path)
    assert found.pixel_size_nm == (size and (size, size))


_BIO_FORMATS = "ImageJ=\nhyperstack=true\nimages=1\nchannels=1\nslices=1\nframes=1"


@pytest.mark.parametrize("more", ["", "\nunit=", "\nunit=null", "\nspacing=3.0"])
@pytest.mark.parametrize(
    ("per", "unit", "size"),
    [
        ((5e5, 5e5), "centimeter", (20.0, 20.0)),
        ((1.27e6, 2.54e6), "inch", (10.0, 20.0)),
        ((5e5, 5e5), "none", None),
        ((72, 72), "inch", None),  # screens
        ((96, 96), "inch", None),
        ((28.35, 28.35), "centimeter", None),
        ((0, 0), "centimeter", None),
    ],
)
def test_read_takes_the_tags_beside_a_bare_imagej_description(
    forge, grey, more, per, unit, size
):
    how = {"resolution": per, "resolutionunit": unit}
    found = registry.read(forge(grey, description=_BIO_FORMATS + more, **how))
    assert found.pixel_size_nm == (size and pytest.approx(size))
    assert "warnings" not in found.metadata


def test_pixels_of_imagej_have_no_size_whatever_the_tags(forge, grey):
    how = {"resolution": (5e5, 5e5), "resolutionunit": "centimeter"}
    path = forge(grey, description=_BIO_FORMATS + "\nunit=pixel", **how)
    assert registry.read(path).pixel_size_nm is None


@pytest.mark.parametrize(
    ("units", "size"),
    [
        ({"xunit": "micron", "yunit": "nm"}, (5.0, 7.0)),
        ({"unit": "micron", "yunit": "nm"}, (5.0, 7.0)),
        ({"unit": "nm", "yunit": "\\u00B5m"}, (5000.0, 0.007)),
        ({"unit": "nm", "yunit": "furlong"}, None),
    ],
)
def test_imagej_may_have_a_unit_for_rows_alone(tmp_path, grey, units, size):
    path = tmp_path / "a.tif"
    how = {"imagej": True, "resolution": (1 / 0.007, 1 / 5), "metadata": units}
    tifffile.imwrite(path, grey, **how)
    with nullcontext() if size else warned("pixel-size-invalid"):
        found = registry.read(path)
    assert found.pixel_size_nm == (size and pytest.approx(size))
    assert ("warnings" in found.metadata) is (size is None)


@pytest.mark.parametrize("resolution", [(0, 0), (0, 1), (1, 0)])
def test_read_leaves_the_size_unknown_when_imagej_resolution_is_bad(
    forge, grey, resolution
):
    path = _bad_resolution(forge, grey, resolution)
    with warned("pixel-size-invalid"):
        found = registry.read(path)
    assert found.pixel_size_nm is None
    assert "left unknown" in found.metadata["warnings"][0]


def _bad_resolution(forge, grey, resolution):
    """Overwrite the rationals of an ImageJ file in place."""
    path = forge(grey, description="ImageJ=1.54f\nunit=nm\n", resolution=(3, 3))
    with tifffile.TiffFile(path) as tif:
        places = [tif.pages[0].tags[code].valueoffset for code in (282, 283)]
    data = bytearray(path.read_bytes())
    for at in places:
        data[at : at + 8] = np.array(resolution, "<u4").tobytes()
    path.write_bytes(bytes(data))
    return path


@pytest.mark.parametrize(
    ("value", "unit", "size"),
    [
        ("5e-9", "m", 5.0),
        ("5", None, 5000.0),
        ("5", "pixel", None),
        ("nan", "nm", None),
        ("wide", "nm", None),
    ],
)
def test_read_understands_ome_physical_sizes(forge, grey, value, unit, size):
    units = f'PhysicalSizeXUnit="{unit}" PhysicalSizeYUnit="{unit}"' if unit else ""
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0" Name="sample"><Pixels ID="Pixels:0" Type="uint8" '
        f'DimensionOrder="XYCZT" SizeX="{grey.shape[1]}" SizeY="{grey.shape[0]}" '
        f'SizeC="1" SizeZ="1" SizeT="1" PhysicalSizeX="{value}" '
        f'PhysicalSizeY="{value}" {units}><TiffData/></Pixels></Image></OME>'
    )
    path, bad = forge(grey, description=text.encode("utf-8")), unit == "nm"
    with warned("pixel-size-invalid") if bad else nullcontext():
        found = registry.read(path)
    assert found.pixel_size_nm == (None if size is None else (size, size))
    assert found.name == "sample"
    assert ("warnings" in found.metadata) is bad


@pytest.mark.parametrize(
    ("per_cm", "size"),
    [(1e7 / 8, 8.0), (72 / 2.54, None), (300 / 2.54, None), (1e4, 1000.0)],
)
def test_read_takes_resolution_tags_for_pixels_but_not_for_print(
    forge, grey, per_cm, size
):
    path = forge(grey, resolution=(per_cm, per_cm), resolutionunit="centimeter")
    found = registry.read(path).pixel_size_nm
    assert found == (None if size is None else pytest.approx((size, size), rel=1e-6))


@pytest.mark.parametrize("size", [(5.0, 5.0), None])
def test_read_prefers_a_calibration_changed_after_writing(tmp_path, grey, size):
    path = tmp_path / "a.tif"
    origin = [3.0 * pitch for pitch in size or (1.0, 1.0)]
    registry.write(Micrograph(grey, size, origin=tuple(origin)), path)
    with tifffile.TiffFile(path) as tif:
        info = tif.imagej_metadata["Info"]
    options = {"unit": "nm", "Info": info}
    tifffile.imwrite(path, grey, imagej=True, resolution=(0.1, 0.1), metadata=options)
    found = registry.read(path)
    assert found.pixel_size_nm == pytest.approx((10, 10), rel=1e-8)  # of a fraction
    assert found.origin == pytest.approx((30, 30), rel=1e-8)


@pytest.mark.parametrize("told", [True, False], ids=["shape", "no shape"])
def test_the_place_of_what_others_cut_is_not_known(tmp_path, grey, told):
    path = tmp_path / "mosaic.tif"
    registry.write(Micrograph(grey, 10.0, "mosaic", origin=(100, 200)), path)
    assert registry.read(path).origin == (100, 200)
    with tifffile.TiffFile(path) as file:
        key, _, record = file.imagej_metadata["Info"].partition("=")
    fields = json.loads(record)
    if not told:  # as in files of before
        fields.pop("shape", None)
    options = {"unit": "nm", "Info": f"{key}={json.dumps(fields)}"}
    how = {"imagej": True, "resolution": (0.1, 0.1), "metadata": options}
    tifffile.imwrite(path, grey[10:30], **how)
    for typed in (10, None):
        with capture_warnings((heard := []).append):
            found = registry.read(path, pixel_size_nm=typed)
        assert (found.name, found.pixel_size_nm) == ("mosaic", (10, 10))
        assert ["its position" in one for one in heard] == ([True] if told else [])
    assert found.origin == ((0, 0) if told else (100, 200))


def test_read_refuses_entities_in_ome_xml(forge, grey):
    text = '<!DOCTYPE a [<!ENTITY b "c">]><OME xmlns="x"><Image/></OME>'
    found = registry.read(forge(grey, description=text))
    assert found.pixel_size_nm is None


def test_read_refuses_photometrics_that_are_no_grey(tmp_path, grey):
    path = tmp_path / "a.tif"
    data = np.stack([grey] * 4, axis=-1)
    tifffile.imwrite(path, data, photometric="separated", metadata=None)
    with refused(ReadError, "format-unsupported"):
        registry.read(path)


def test_lazy_reads_follow_the_file(forge, rng, small_limit):
    first = rng.integers(0, 255, (40, 50)).astype(np.uint8)
    path = forge(first, compression="zlib", rowsperstrip=8)
    before = registry.read(path).data
    forge(255 - first, compression="zlib", rowsperstrip=8)
    after = registry.read(path).data
    assert before.name != after.name
    assert np.array_equal(after.compute(), 255 - first)


def test_lazy_windows_equal_slices(forge, rng, small_limit):
    data = rng.integers(0, 60_000, (90, 70)).astype(">u2")
    for options in ({}, {"tile": (16, 32), "compression": "lzw"}):
        lazy = registry.read(forge(data, **options)).data
        assert np.array_equal(lazy[13:57, 5:66].compute(), data[13:57, 5:66])


UNSEEN = (
    "\x00",
    "a\x1bb",
    "\x0b",
    "a\nb",
    "\ufffe",
    "\uffff",
    "\udcff",
    "\x7f\x85",
    "]]>",
)


@pytest.mark.parametrize("name", UNSEEN, ids=ascii)
@pytest.mark.parametrize("suffix", [".ome.tif", ".tif", ".ome.zarr", ".png"])
def test_names_of_all_kinds_lose_neither_pixel_size_nor_history(tmp_path, suffix, name):
    made = Provenance(job=name, options={"x": name}, model_name=name)
    image = Micrograph(np.ones((40, 48), np.uint8), (7.7, 6.6), name, made)
    write(image, tmp_path / f"a{suffix}")
    found = read(tmp_path / f"a{suffix}")
    assert found.pixel_size_nm == image.pixel_size_nm
    assert found.provenance == made
    assert found.name.isprintable()
    if suffix.endswith(".tif"):
        write_pages(image, {"z": 2}, [image.data] * 2, tmp_path / f"two{suffix}")
        found = read(tmp_path / f"two{suffix}", plane=1)
        assert (found.pixel_size_nm, found.provenance) == (image.pixel_size_nm, made)


def test_ome_of_others_with_control_characters_keeps_its_pixel_size(tmp_path):
    path = tmp_path / "a.ome.tif"
    grey = np.zeros((20, 30), np.uint8)
    sizes = {"PhysicalSizeX": 5, "PhysicalSizeXUnit": "nm"}
    sizes |= {"PhysicalSizeY": 5, "PhysicalSizeYUnit": "nm"}
    tifffile.imwrite(path, grey, metadata={"axes": "YX", "Name": "a\x1bb", **sizes})
    assert read(path).pixel_size_nm == (5, 5)


@pytest.mark.parametrize("suffix", [".ome.tif", ".tif"])
def test_what_would_not_be_read_again_is_refused(tmp_path, monkeypatch, suffix):
    """As where a library changes what it was given to write."""
    plain = tifffile.TiffWriter.write

    def losing(self, *words, **options):
        return plain(self, *words, **options | {"metadata": {"axes": "YX"}})

    monkeypatch.setattr(tifffile.TiffWriter, "write", losing)
    image = Micrograph(np.ones((40, 48), np.uint8), (7.7, 6.6), "a")
    with refused(WriteError, "record-not-kept"):
        write(image, tmp_path / f"a{suffix}")
    assert list(tmp_path.iterdir()) == []


OME = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="I:0">'
    '<Pixels ID="P:0" DimensionOrder="XYZCT" Type="uint8" SizeX="32" SizeY="24" '
    '{}><Channel ID="C:0"/><TiffData IFD="0" {}/></Pixels></Image></OME>'
)


@pytest.mark.parametrize(
    ("sizes", "data", "code", "value"),
    [
        ('SizeZ="1" SizeC="1" SizeT="4000000000"', "", "too-many-planes", "4e[+]09"),
        ('SizeZ="99999" SizeC="9999" SizeT="9999"', "", "too-many-planes", "1e[+]13"),
        (
            'SizeZ="1" SizeC="1" SizeT="1"',
            f'PlaneCount="{10**30}"',
            "too-many-planes",
            None,
        ),
        (
            'SizeZ="1" SizeC="1" SizeT="1"',
            'FirstT="70000000"',
            "too-many-planes",
            "7e[+]07",
        ),
        (
            'SizeZ="1" SizeC="1" SizeT="1"',
            '><UUID FileName="../a.tif">u</UUID></TiffData><TiffData',
            "outside-folder",
            r"\.\./a\.tif",
        ),
    ],
)
def test_ome_that_leads_away_or_without_end_is_refused(
    tmp_path, sizes, data, code, value
):
    path = tmp_path / "a.ome.tif"
    told = OME.format(sizes, data)
    tifffile.imwrite(path, np.eye(24, 32, dtype="u1"), description=told, ome=False)
    with refused(ReadError, code, match=value) as caught:
        registry.read(path)
    assert "\n" not in str(caught.value)


def test_planes_that_ome_with_entities_states_are_not_listed(tmp_path):
    path = tmp_path / "a.ome.tif"
    told = OME.format('SizeZ="1" SizeC="1" SizeT="4000000000"', "")
    grey = np.eye(24, 32, dtype="u1")
    text = f'<!DOCTYPE a [<!ENTITY b "c">]>{told}'
    how = {"compression": "zlib", "metadata": None}  # so that each read opens it anew
    tifffile.imwrite(path, grey, description=text, **how)
    assert registry.describe(path).shape == (24, 32)
    assert np.array_equal(registry.read(path).array(), grey)


def write_positions(folder, numbers):
    """Write files of a set of two, as positions are saved: an image each."""
    image = (
        '<Image ID="Image:{0}" Name="position {0}"><Pixels ID="Pixels:{0}" '
        'DimensionOrder="XYZCT" Type="uint16" SizeX="32" SizeY="24" SizeZ="1" '
        'SizeC="1" SizeT="1" PhysicalSizeX="0.0{1}" PhysicalSizeY="0.0{1}"><TiffData '
        'IFD="0" PlaneCount="1"><UUID FileName="p{0}.ome.tif">urn:uuid:{0}</UUID>'
        "</TiffData></Pixels></Image>"
    )
    place = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    images = image.format(0, 1) + image.format(1, 2)
    for number in numbers:
        told = f'<OME xmlns="{place}" UUID="urn:uuid:{number}">{images}</OME>'
        grey = np.full((24, 32), 100 + number, np.uint16)
        path = folder / f"p{number}.ome.tif"
        tifffile.imwrite(path, grey, description=told, metadata=None)


@pytest.mark.parametrize("lazy", [False, True], ids=["whole", "lazy"])
@pytest.mark.parametrize("series", [0, 1])
def test_each_image_of_several_files_is_read_from_its_own(
    tmp_path, monkeypatch, series, lazy
):
    write_positions(tmp_path, (0, 1))
    if lazy:
        monkeypatch.setattr("napari_semsr.io.read_image.LAZY_BYTES", 0)
    for number in (0, 1):
        found = registry.read(tmp_path / f"p{number}.ome.tif", series=series)
        assert found.pixel_size_nm == pytest.approx((10.0 * (series + 1),) * 2)
        assert (found.array() == 100 + series).all()


@pytest.mark.parametrize("name", ["p1.ome.tif", "renamed.ome.tif"])
def test_a_file_of_a_set_whose_others_are_missing_is_its_own_image(tmp_path, name):
    write_positions(tmp_path, [1])
    (tmp_path / "p1.ome.tif").rename(tmp_path / name)
    found = registry.read(tmp_path / name)
    assert (found.array() == 101).all()
    assert found.name == "position 1"
    assert found.pixel_size_nm == pytest.approx((20, 20))


@pytest.mark.parametrize(("sizes", "size"), [("12", None), ("22", (20, 20))])
def test_which_image_is_left_of_a_set_is_not_guessed(tmp_path, sizes, size):
    image = (
        '<Image ID="Image:{0}" Name="{0}"><Pixels ID="Pixels:{0}" '
        'DimensionOrder="XYZCT" Type="uint16" SizeX="32" SizeY="24" SizeZ="1" '
        'SizeC="1" SizeT="1" PhysicalSizeX="0.0{0}" PhysicalSizeY="0.0{0}"><TiffData '
        'IFD="{1}"/></Pixels></Image>'
    )
    images = "".join(image.format(n, index) for index, n in enumerate(sizes))
    place = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    told = f'<OME xmlns="{place}">{images}</OME>'
    grey = np.ones((24, 32), np.uint16)  # one page of the two that are stated
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, grey, description=told, metadata=None)
    heard = []
    with capture_warnings(heard.append):
        found = registry.read(path)
    assert found.metadata["warnings"] == heard
    assert found.pixel_size_nm == (size and pytest.approx(size))
    said = " ".join(found.metadata["warnings"])
    assert ("images with different pixel sizes" in said) == (size is None)


@pytest.mark.parametrize(
    ("dtype", "stated"),
    [("u1", "0"), ("u2", "65535"), ("i2", "-32767"), ("f4", "-12345")],
)
def test_stated_no_data_are_missing_pixels(dtype, stated, tmp_path):
    image = np.random.default_rng(2).integers(10, 90, (24, 30)).astype(dtype)
    image[3, 4:9] = float(stated)
    tag = (42113, "s", 0, stated, True)
    tifffile.imwrite(tmp_path / "map.tif", image, extratags=[tag])
    tifffile.imwrite(tmp_path / "whole.tif", image[5:], extratags=[tag])
    with warned("pixels-marked-missing"):
        got = read(tmp_path / "map.tif").array()
    assert got.dtype == np.float32
    assert np.isnan(got[3, 4:9]).all()
    known = np.isfinite(got)
    assert known.sum() == image.size - 5
    np.testing.assert_array_equal(got[known], image[known])
    assert read(tmp_path / "whole.tif").dtype == image.dtype
