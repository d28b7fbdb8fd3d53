"""The bit depth that a file states, and the data range that follows from it."""

import numpy as np
import pytest
import tifffile

import napari_semsr as semsr
from napari_semsr.io import describe, read, write
from tests.hostile.czi import write_czi


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 4000, (32, 48)).astype(np.uint16)


def _ome(bits):
    return {"ome": True, "metadata": {"axes": "YX", "SignificantBits": bits}}


_STATED = {
    "twelve bits a sample": {"bitspersample": 12},
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
    if how.get("bitspersample"):
        packed = np.packbits(
            np.unpackbits(pixels.astype(">u2").view(np.uint8)).reshape(-1, 16)[:, 4:]
        )
        _write_packed(path, packed.tobytes(), pixels.shape)
    else:
        tifffile.imwrite(path, pixels, **how)
    image = read(path)
    assert np.array_equal(image.array(), pixels)
    assert describe(path).metadata["significant_bits"] == 12
    found = semsr.metrics(image, image.replace(data=pixels + np.uint16(1)))
    assert (found.data_range, found.data_range_from) == (4095, "file")
    assert found.psnr_db == pytest.approx(20 * np.log10(4095))
    assert "12 bits, as stated in the file" in found.relative_error_text


def _write_packed(path, data, shape):
    """Write grey values of 12 bits, packed, by the tags that TIFF needs."""
    rows, columns = shape
    tags = [
        *((256, 4, columns), (257, 4, rows), (258, 3, 12), (259, 3, 1)),
        *((262, 3, 1), (273, 4, 0), (277, 3, 1), (278, 4, rows), (279, 4, len(data))),
    ]
    start = 8 + 2 + 12 * len(tags) + 4
    body = b"II*\0" + (8).to_bytes(4, "little") + len(tags).to_bytes(2, "little")
    for code, kind, value in tags:
        value = start if code == 273 else value
        body += code.to_bytes(2, "little") + kind.to_bytes(2, "little")
        body += (1).to_bytes(4, "little") + value.to_bytes(4, "little")
    path.write_bytes(body + bytes(4) + data)


@pytest.mark.parametrize("bits", [8, 10, 14, 16])
def test_other_depths_in_sixteen_bits(tmp_path, bits):
    data = (np.arange(1200).reshape(30, 40) % (1 << bits)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.ome.tif", data, **_ome(bits))
    found = semsr.metrics(tmp_path / "a.ome.tif")
    assert (found.data_range, found.data_range_from) == ((1 << bits) - 1, "file")


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


def test_zen_states_the_bit_depth(tmp_path, pixels):
    pytest.importorskip("czifile")
    xml = (
        "<ImageDocument><Metadata><Information><Image>"
        "<ComponentBitCount>12</ComponentBitCount>"
        "</Image></Information></Metadata></ImageDocument>"
    )
    path = write_czi(tmp_path / "a.czi", [pixels[:12, :16]], xml=xml)
    assert read(path).significant_bits == 12


def test_calibrated_and_indexed_grey_values_have_another_scale(tmp_path, pixels):
    about = {"Info": "BitDepth = 12", "cf": 0, "c0": 0.0, "c1": 2.0}
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, metadata=about)
    assert read(tmp_path / "a.tif").significant_bits is None
