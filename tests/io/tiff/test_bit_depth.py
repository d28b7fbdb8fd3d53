"""The bit depth that a file states, and the data range that follows from it."""

import numpy as np
import pytest
import tifffile

import napari_semsr as semsr
from napari_semsr.io import describe, read, write


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 4000, (32, 48)).astype(np.uint16)


def _ome(bits):
    return {"ome": True, "metadata": {"axes": "YX", "SignificantBits": bits}}


_STATED = {
    "OME-XML": _ome(12),
    "largest sample value": {"extratags": [(341, 3, 1, 4095, True)]},
    "former largest value": {"extratags": [(281, 3, 1, 4095, True)]},
    "Bio-Formats in ImageJ": {
        "imagej": True,
        "metadata": {"Info": " BitsPerPixel = 12\n SizeX = 48"},
    },
    "CZI in ImageJ": {
        "imagej": True,
        "metadata": {"Info": "Information|Image|ComponentBitCount #1 = 12"},
    },
}


@pytest.mark.parametrize("how", _STATED.values(), ids=_STATED)
def test_stated_bit_depth_is_the_data_range(tmp_path, pixels, how):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, **how)
    image = read(path)
    assert np.array_equal(image.array(), pixels)
    assert describe(path).metadata["significant_bits"] == 12
    found = semsr.metrics(image, image.replace(data=pixels + np.uint16(1)))
    assert (found.data_range, found.data_range_from) == (4095, "file")
    assert found.psnr_db == pytest.approx(20 * np.log10(4095))


def test_statement_that_pixels_exceed_is_not_used(tmp_path, pixels):
    data = pixels * np.uint16(4)
    tifffile.imwrite(tmp_path / "a.ome.tif", data, **_ome(12))
    found = semsr.metrics(read(tmp_path / "a.ome.tif"))
    assert (found.data_range, found.data_range_from) == (65535, "type")
    # the tag of the largest value may hold the largest that occurs
    tifffile.imwrite(tmp_path / "b.tif", pixels, extratags=[(281, 3, 1, 3999, True)])
    assert semsr.metrics(read(tmp_path / "b.tif")).data_range_from == "type"


def test_copies_and_crops_keep_the_bit_depth(tmp_path, pixels):
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, **_ome(12))
    for name in ("b.ome.tif", "c.tif", "d.ome.zarr"):
        semsr.crop(tmp_path / "a.ome.tif", output=tmp_path / name, box=(0, 0, 20, 20))
        assert read(tmp_path / name).significant_bits == 12
    with tifffile.TiffFile(tmp_path / "b.ome.tif") as tif:
        assert 'SignificantBits="12"' in tif.ome_metadata
    write(read(tmp_path / "d.ome.zarr"), tmp_path / "e.tif")
    assert semsr.metrics(read(tmp_path / "e.tif")).data_range == 4095
    floats = read(tmp_path / "a.ome.tif")
    floats = floats.replace(data=floats.array().astype(np.float32))
    assert floats.significant_bits is None
    assert semsr.metrics(floats).data_range_from == "values"


def test_calibrated_and_indexed_grey_values_have_another_scale(tmp_path, pixels):
    about = {"Info": "BitDepth = 12", "cf": 0, "c0": 0.0, "c1": 2.0}
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, metadata=about)
    assert read(tmp_path / "a.tif").significant_bits is None
