"""What we write, read by the programs that our users have, by their own rules.

Fiji reads the tags of ImageJ, and OME-XML by Bio-Formats; neither is started here.
"""

import re

import numpy as np
import pytest
import tifffile

from napari_semsr.core import Micrograph, WriteError
from napari_semsr.io import formats as registry, write_pages
from tests.refusals import refused

SIZE, ORIGIN = (7.5, 2.5), (30.0, 45.0)


@pytest.fixture
def image(rng):
    data = rng.integers(0, 60000, (300, 260)).astype(np.uint16)
    return Micrograph(data, SIZE, "image", origin=ORIGIN)


@pytest.mark.parametrize(
    ("size", "unit"),
    [
        ((7.5, 2.5), "nm"),
        ((0.01, 0.0137), "nm"),
        ((100.3, 137.411), "um"),
        ((5.0, 12345.678), "um"),
        ((123_456.7, 200_000.0), "mm"),
    ],
)
def test_tiff_has_its_scale_by_the_tags_of_imagej(tmp_path, image, size, unit):
    path = tmp_path / "a.tif"
    registry.write(image.replace(pixel_size_nm=size), path)
    with tifffile.TiffFile(path) as tif:
        tags = tif.pages[0].tags
        said = tif.imagej_metadata["unit"]
        rationals = [tags[f"{axis}Resolution"].value for axis in "YX"]
        assert tags["ResolutionUnit"].value == 1
        assert re.match(r"ImageJ=\d", tags["ImageDescription"].value)
    # ImageJ's Calibration: 1 / resolution, in the unit of the description
    nm = {"nm": 1.0, "um": 1e3, "mm": 1e6}[said]
    per = [numerator / denominator for numerator, denominator in rationals]
    assert said == unit
    assert [nm / value for value in per] == pytest.approx(size, rel=1e-8)
    assert np.max(rationals) < 2**31  # which older ones read with a sign
    found = registry.read(path)
    assert (found.pixel_size_nm, found.origin) == (size, ORIGIN)


def test_tiff_without_a_place_for_its_scale_keeps_it_for_us(tmp_path, image):
    registry.write(image.replace(pixel_size_nm=(1e-5, 1e9)), tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.imagej_metadata["unit"] == "pixel"
    assert registry.read(tmp_path / "a.tif").pixel_size_nm == (1e-5, 1e9)


# what Bio-Formats has, and of these the ones that ImageJ's decoder shows as they are
_OME = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
_IMAGEJ = ("uint8", "uint16", "float32")


@pytest.mark.parametrize("pages", [1, 2])
@pytest.mark.parametrize("dtype", [*_OME, "bool", "float16", "int64", "uint64"])
@pytest.mark.parametrize("suffix", [".ome.tif", ".tif"])
def test_tiff_has_a_type_that_others_read(tmp_path, suffix, dtype, pages):
    ramp = np.indices((30, 4200)).sum(axis=0)
    signed = 0 if dtype.startswith(("u", "bool")) else 3
    data = (ramp % (2 if dtype == "bool" else 100) - signed).astype(dtype)
    image, path = Micrograph(data, SIZE), tmp_path / f"a{suffix}"
    known = _OME if suffix == ".ome.tif" else _IMAGEJ
    wide = dtype.endswith(("32", "64")) and dtype not in known
    if pages > 1 and suffix == ".tif" and wide:
        with refused(WriteError, "grey-type-unsupported"):
            write_pages(image, {"z": pages}, [data] * pages, path)
        return
    if pages > 1:
        write_pages(image, {"z": pages}, [data] * pages, path)
    else:
        registry.write(image, path)
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[0]
        assert page.dtype.name in known
        assert page.dtype.name == dtype or dtype not in known
        assert page.compression in (1, 8)  # none or zlib
        assert page.predictor == 1 or page.dtype.kind in "ui"
    found = registry.read(path, plane=pages - 1)
    assert np.array_equal(found.array(), data)
    assert found.pixel_size_nm == SIZE


def test_a_mask_is_not_black_in_imagej(tmp_path):
    registry.write(Micrograph(np.eye(5, dtype=bool)), tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert [tif.imagej_metadata[key] for key in ("min", "max")] == [0, 1]


@pytest.mark.parametrize("value", [1 + 2**-40, 1e300])
def test_tiff_keeps_digits_that_imagej_lacks(tmp_path, value):
    image = Micrograph(np.array([[1.0, np.nan], [2.0, value]]), SIZE)
    registry.write(image, tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        tags = tif.pages[0].tags
        per = [np.divide(*tags[f"{axis}Resolution"].value) for axis in "YX"]
        assert tags["ResolutionUnit"].value == 3
    assert [1e7 / value for value in per] == pytest.approx(SIZE)
    found = registry.read(tmp_path / "a.tif")
    assert np.array_equal(found.array(), image.data, equal_nan=True)


def test_ome_tiff_has_its_scale_by_ome_xml(tmp_path, image):
    path = tmp_path / "a.ome.tif"
    registry.write(image, path)
    with tifffile.TiffFile(path) as tif:
        pixels = tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]["Pixels"]
    found = [pixels[f"PhysicalSize{axis}"] for axis in "YX"]
    (unit,) = {pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "YX"}
    nm = {"nm": 1.0, "µm": 1000.0}[unit]
    assert [nm * value for value in found] == pytest.approx(SIZE)
