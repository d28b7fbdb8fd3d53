"""TIFF in its dialects, types and encodings."""

import struct
from contextlib import nullcontext

import numpy as np
import pytest
import tifffile

from napari_semsr.core.errors import ReadError, WriteError
from napari_semsr.core.micrograph import Micrograph, Provenance
from napari_semsr.core.progress import capture_warnings
from napari_semsr.io import formats as registry, read, write
from tests.refusals import refused, warned


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "float16", "float64"])
def test_read_keeps_every_type_in_either_byte_order(forge, rng, dtype):
    data = (rng.random((21, 34)) * 100).astype(dtype)
    for byteorder in "<>":
        found = registry.read(forge(data, byteorder=byteorder))
        assert found.dtype == np.dtype(dtype)
        assert found.dtype.isnative
        assert np.array_equal(found.array(), data)


@pytest.mark.parametrize(
    "options",
    [
        {"bigtiff": True},
        {"rowsperstrip": 5},
        {"tile": (16, 16), "compression": "zlib", "predictor": True},
        {"compression": "lzw", "rowsperstrip": 7, "byteorder": ">"},
    ],
    ids="-".join,
)
def test_read_decodes_every_encoding(forge, rng, options, lazily):
    data = rng.integers(0, 60_000, (37, 53)).astype(np.uint16)
    found = registry.read(forge(data, **options))
    assert found.is_lazy is lazily
    assert np.array_equal(found.array(), data)
    assert np.array_equal(np.asarray(found.data[13:27, 5:46]), data[13:27, 5:46])


def test_read_reads_bits_as_booleans(forge, rng):
    data = rng.random((19, 23)) > 0.5
    found = registry.read(forge(data, photometric="minisblack"))
    assert found.dtype == bool
    assert np.array_equal(found.array(), data)
    turned = registry.read(forge(data, photometric="miniswhite"))
    assert np.array_equal(turned.array(), ~data)


def test_read_takes_planar_rgb_and_grey_with_alpha_for_grey(forge, grey, lazily):
    path = forge(np.stack([grey] * 3), photometric="rgb", planarconfig="separate")
    assert np.array_equal(registry.read(path).array(), grey)
    data = np.stack([grey, np.full_like(grey, 255)], axis=-1)
    path = forge(data, photometric="minisblack", extrasamples=["unassalpha"])
    assert np.array_equal(registry.read(path).array(), grey)


def test_read_looks_palettes_up(forge, grey, lazily):
    ramp = np.arange(256, dtype=np.uint16)
    table = np.stack([ramp[::-1] * 257] * 3)
    turned = registry.read(forge(grey, photometric="palette", colormap=table))
    assert turned.dtype == np.uint8
    assert np.array_equal(turned.array(), 255 - grey)
    table[0] = 0
    path = forge(grey, photometric="palette", colormap=table)
    with refused(ReadError, "colour-image"):
        registry.read(path)
    assert registry.read(path, colour="luminance").array().shape == grey.shape
    for how in ({"description": "ImageJ=1.54f\nmin=3\nmax=90\n"}, {"metadata": {}}):
        # ImageJ's is for display only, and so is that of OME
        how |= {"name": "a.ome.tif" if "metadata" in how else "a.tif"}
        path = forge(grey, photometric="palette", colormap=table, **how)
        assert np.array_equal(registry.read(path).array(), grey)


def test_the_luminance_of_ycbcr_is_y(forge, grey, lazily):
    y = np.clip(grey, 30, 200)
    for blue, code in ((128, None), (140, "colour-image")):
        samples = np.stack([y, np.full_like(y, blue), np.full_like(y, 128)], axis=-1)
        path = forge(samples, photometric="ycbcr", compression="zlib")
        with refused(ReadError, code) if code else nullcontext():
            assert np.array_equal(registry.read(path).array(), y)
        found = registry.read(path, colour="luminance").array()
        assert np.abs(found.astype(int) - y).max() <= 1
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags[530].overwrite((2, 2))
    with refused(ReadError, "format-unsupported", match="subsampling"):
        registry.read(path).array()


def test_read_takes_separate_samples_for_channels(forge, rng):
    data = rng.integers(0, 255, (12, 17, 5)).astype(np.uint8)
    path = forge(data, photometric="minisblack", planarconfig="contig")
    assert registry.describe(path).channels == 5
    assert np.array_equal(registry.read(path, channel=3).array(), data[..., 3])


def test_read_finds_levels_in_sub_images(tmp_path, rng):
    data = rng.integers(0, 255, (64, 96)).astype(np.uint8)
    path = tmp_path / "a.ome.tif"
    size = {f"PhysicalSize{axis}": 5 for axis in "XY"}
    size |= {f"PhysicalSize{axis}Unit": "nm" for axis in "XY"}
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(data, subifds=2, tile=(16, 16), metadata=size)
        tif.write(data[::2, ::2], subfiletype=1, tile=(16, 16))
        tif.write(data[::4, ::4], subfiletype=1, tile=(16, 16))
    assert registry.describe(path).levels == 3
    found = registry.read(path, level=2)
    assert found.pixel_size_nm == (20.0, 20.0)
    assert np.array_equal(found.array(), data[::4, ::4])


def test_levels_of_odd_sides_lie_as_in_a_store(tmp_path):
    image = Micrograph(np.zeros((33, 4999), np.uint8), (10.0, 12.0), origin=(1.0, 2.0))
    for suffix in (".ome.tif", ".ome.zarr"):
        registry.write(image, tmp_path / f"a{suffix}")
    for level in (1, 3):
        found = registry.read(tmp_path / "a.ome.tif", level=level)
        stored = registry.read(tmp_path / "a.ome.zarr", level=level)
        size = (10 * 2**level, 12 * 2**level)
        assert found.shape == stored.shape
        assert found.pixel_size_nm == stored.pixel_size_nm == size
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
    for level, step in enumerate((1, 2, 4)):
        found = registry.read(path, level=level, **typed)
        assert found.shape[0] == 43 // step  # what is partly data bar is cut, too
        assert found.pixel_size_nm == (10 * step, 12 * step)
        assert found.pixel_size_sd_nm == pytest.approx((0.5 * step, 0.5 * step))


@pytest.mark.parametrize(
    ("unit", "size"),
    [
        *((unit, 5000.0) for unit in ("um", "Microns", "\\u03BCm")),
        *((unit.encode(), 5000.0) for unit in ("\u00b5m", "\u03bcm", "\u339b")),
        *((b, 5000.0) for b in (b"\xb5m", b"\x83\xcam")),  # Windows, West and Japan
        *(("nm", 5.0), ("mm", 5e6), ("pm", 0.005), ("angstrom", 0.5)),
        *(("pixel", None), ("cm", None), ("inch", None)),  # as of print
        *(("m", None), ("furlong", None)),  # of which no pixel is
    ],
)
def test_read_understands_the_spellings_of_imagej_units(forge, grey, unit, size):
    text = unit if isinstance(unit, bytes) else unit.encode("ascii")
    start = b"ImageJ=1.54f\nspacing=3.0\nunit="
    path = forge(grey, description=start + text + b"\n", resolution=(0.2, 0.2))
    absurd = unit in ("m", "furlong")
    with warned("pixel-size-invalid") if absurd else nullcontext():
        found = registry.read(path)
    assert found.pixel_size_nm == (size and (size, size))
    assert ("warnings" in found.metadata) is absurd


_BIO_FORMATS = "ImageJ=\nhyperstack=true\nimages=1\nchannels=1\nslices=1\nframes=1"


@pytest.mark.parametrize("more", ["", "\nunit=null", "\nspacing=3.0"])
@pytest.mark.parametrize(
    ("per", "unit", "size"),
    [
        ((1.27e6, 2.54e6), "inch", (10.0, 20.0)),
        ((5e5, 5e5), "none", None),
        ((96, 96), "inch", None),  # screens
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


@pytest.mark.parametrize(
    ("units", "size"),
    [
        ({"xunit": "micron", "yunit": "nm"}, (5.0, 7.0)),
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


@pytest.mark.parametrize(
    ("value", "unit", "size"),
    [
        ("5e-9", "m", 5.0),
        ("5", "\u00b5m", 5000.0),
        ("5", "pixel", None),
        ("x", "nm", None),
    ],
)
def test_read_understands_ome_physical_sizes(forge, grey, value, unit, size):
    sizes = 'SizeZ="1" SizeC="1" SizeT="1"'
    for axis in "XY":
        sizes += f' PhysicalSize{axis}="{value}" PhysicalSize{axis}Unit="{unit}"'
    bad = unit == "nm"
    path = forge(grey[:24, :32], description=OME.format(sizes, "").encode("utf-8"))
    with warned("pixel-size-invalid") if bad else nullcontext():
        found = registry.read(path)
    assert found.pixel_size_nm == (size and (size, size))
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


def test_a_resolution_without_a_unit_is_per_inch(forge, grey):
    path = forge(grey, resolution=(5.08e6, 2.54e6), resolutionunit="inch")
    unit, other = (struct.pack("=HHI", code, 3, 1) for code in (296, 297))
    path.write_bytes(path.read_bytes().replace(unit, other))
    assert registry.read(path).pixel_size_nm == pytest.approx((10.0, 5.0))


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


def test_the_place_of_what_others_cut_is_not_known(tmp_path, grey):
    path = tmp_path / "mosaic.tif"
    registry.write(Micrograph(grey, 10.0, "mosaic", origin=(100, 200)), path)
    with tifffile.TiffFile(path) as file:
        options = {"unit": "nm", "Info": file.imagej_metadata["Info"]}
    how = {"imagej": True, "resolution": (0.1, 0.1), "metadata": options}
    tifffile.imwrite(path, grey[10:30], **how)
    with capture_warnings((heard := []).append):
        found = registry.read(path)
    assert (found.name, found.pixel_size_nm) == ("mosaic", (10, 10))
    assert ["its position" in one for one in heard] == [True]
    assert found.origin == (0, 0)


def test_read_refuses_entities_in_ome_xml(forge, grey):
    text = '<!DOCTYPE a [<!ENTITY b "c">]><OME xmlns="x"><Image/></OME>'
    found = registry.read(forge(grey, description=text))
    assert found.pixel_size_nm is None


@pytest.mark.parametrize(("dtype", "form"), [("int8", 5), ("int64", 7)])
def test_types_that_are_not_supported_are_not_damaged(forge, dtype, form):
    path = forge(np.ones((5, 5), dtype))
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages.first.tags["SampleFormat"].overwrite(form)
    with pytest.raises(ReadError) as caught:
        registry.read(path)
    assert "damaged" not in str(caught.value)
    with refused(ReadError, "complex-values"):
        registry.read(forge(np.zeros((5, 5), np.complex64)))
    with refused(ReadError, "format-unsupported"):
        registry.read(forge(np.zeros((5, 5, 4), np.uint8), photometric="separated"))


UNSEEN = ("\x00", "a\x1bb", "a\nb", "\udcff", "]]>")


@pytest.mark.parametrize("name", UNSEEN, ids=ascii)
@pytest.mark.parametrize("suffix", [".ome.tif", ".tif", ".ome.zarr", ".png"])
def test_names_of_all_kinds_lose_neither_pixel_size_nor_history(tmp_path, suffix, name):
    made = Provenance(job=name, options={"x": name}, model_name=name)
    image = Micrograph(np.ones((40, 48), np.uint8), (7.7, 6.6), name, made)
    write(image, tmp_path / f"a{suffix}")
    found = read(tmp_path / f"a{suffix}")
    assert (found.pixel_size_nm, found.provenance) == (image.pixel_size_nm, made)
    assert found.name.isprintable()


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


_PLACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
OME = (
    f'<OME xmlns="{_PLACE}"><Image ID="I:0">'
    '<Pixels ID="P:0" DimensionOrder="XYZCT" Type="uint8" SizeX="32" SizeY="24" '
    '{}><Channel ID="C:0"/><TiffData IFD="0" {}/></Pixels></Image></OME>'
)


_ONE = 'SizeZ="1" SizeC="1" SizeT="1"'
_AWAY = '><UUID FileName="../a.tif">u</UUID></TiffData><TiffData'


@pytest.mark.parametrize(
    ("sizes", "data", "code", "value"),
    [
        ('SizeZ="1" SizeC="1" SizeT="4000000000"', "", "too-many-planes", "4e[+]09"),
        (_ONE, f'PlaneCount="{10**30}"', "too-many-planes", None),
        (_ONE, 'FirstT="70000000"', "too-many-planes", "7e[+]07"),
        (_ONE, _AWAY, "outside-folder", r"\.\./a\.tif"),
    ],
)
def test_ome_that_leads_away_or_without_end_is_refused(
    tmp_path, sizes, data, code, value
):
    path = tmp_path / "a.ome.tif"
    told = OME.format(sizes, data)
    tifffile.imwrite(path, np.eye(24, 32, dtype="u1"), description=told, ome=False)
    with refused(ReadError, code, match=value):
        registry.read(path)


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
    wanted = image.astype(np.float32)
    wanted[3, 4:9] = np.nan
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, wanted)
    assert read(tmp_path / "whole.tif").dtype == image.dtype


_SIGNED = "ImageJ=1.54f\ncf=0\nc0=-32768.0\nc1=1.0\nvunit=gray value\n"
_REVERSED = np.stack([np.arange(256, dtype="u2")[::-1] * 257] * 3)


@pytest.mark.parametrize(
    ("stated", "sign", "shift", "how"),
    [
        ("0", -1, 255, {"photometric": "miniswhite"}),
        ("0", 1, -32768, {"description": _SIGNED}),
        ("0", 1, 1, {"photometric": "rgb"}),
        ("0", -1, 255, {"photometric": "palette", "colormap": _REVERSED}),
        ("-9999", 1, 0, {}),
        ("nan", 1, 0, {}),
    ],
)
def test_no_data_is_missing_after_all_conversions(
    tmp_path, grey, lazily, stated, sign, shift, how
):
    image = np.where(grey < 90, 0, grey // 2).astype("u2" if shift < 0 else "u1")
    nearly_grey = np.stack([image, image + (image > 0), image], axis=-1)
    data = nearly_grey if how.get("photometric") == "rgb" else image
    how = {"metadata": None, "extratags": [(42113, "s", 0, stated, True)], **how}
    tifffile.imwrite(tmp_path / "a.tif", data, **how)
    with capture_warnings((heard := []).append):
        found = read(tmp_path / "a.tif", databar_rows=2).array()
    assert len(heard) == (stated == "0")
    gap = np.nan if stated == "0" else 0
    wanted = sign * np.where(image == 0, gap, image) + shift
    np.testing.assert_array_equal(found, wanted[:-2])
    assert found.dtype.kind == ("f" if stated == "0" else "u")


def test_read_decodes_jpeg_within_its_losses(forge):
    data = np.tile(np.arange(0, 240, 4, dtype=np.uint8), (48, 1))
    found = registry.read(forge(data, compression="jpeg", rowsperstrip=16))
    assert np.abs(found.array().astype(int) - data).max() <= 6
