"""What a TIFF says of how it is to be shown: turned, inverted, calibrated, whole."""

import numpy as np
import pytest
import tifffile

from napari_semsr.core import ReadError, capture_warnings
from napari_semsr.io import formats as registry
from napari_semsr.io.layers import read_layers
from tests.refusals import refused

TURNS = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).T,
    8: np.rot90,
}


def _heard(path):
    """Read an image, and all that is warned of."""
    with capture_warnings((heard := []).append):
        return registry.read(path), heard


@pytest.mark.parametrize("orientation", TURNS)
def test_an_image_is_turned_as_it_says(forge, grey, lazily, orientation):
    tags = {"resolution": (1e6, 5e5), "resolutionunit": "CENTIMETER"}
    path = forge(grey, orientation=orientation, **tags)
    found, info = registry.read(path), registry.describe(path)
    shown = TURNS[orientation](grey)
    assert np.array_equal(found.array(), shown)
    assert np.asarray(found.data[1:9, 2:7]).strides[1] > 0  # as torch needs it
    size = (20.0, 10.0) if orientation < 5 else (10.0, 20.0)
    assert found.pixel_size_nm == pytest.approx(size)
    assert (info.shape, info.stored_shape) == (shown.shape, grey.shape)
    assert info.pixel_size_nm == pytest.approx(size)


@pytest.mark.parametrize("orientation", TURNS)
def test_a_data_bar_of_the_header_is_cut_before_turning(fei, grey, orientation):
    path = fei(grey, pixel="5e-9", rows=30, orientation=orientation)
    shown = TURNS[orientation](grey[:30])
    found = registry.read(path)
    assert np.array_equal(found.array(), shown)
    assert registry.describe(path).shape == shown.shape
    # what a user types is counted where it is seen
    found = registry.read(path, databar_rows=4)
    assert np.array_equal(found.array(), TURNS[orientation](grey)[:-4])


def test_levels_and_planes_are_turned(tmp_path, rng):
    big = rng.integers(0, 255, (64, 96)).astype(np.uint8)
    path = tmp_path / "levels.tif"
    turned = [(274, 3, 1, 6, True)]
    with tifffile.TiffWriter(path) as file:
        file.write(big, subifds=1, metadata=None, extratags=turned)
        file.write(big[::2, ::2], subfiletype=1, metadata=None)
    found = registry.read(path, level=1)
    assert np.array_equal(found.array(), np.rot90(big[::2, ::2], -1))
    path = tmp_path / "planes.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(big, metadata=None, contiguous=False)
        file.write(big, metadata=None, contiguous=False, extratags=turned)
    assert np.array_equal(registry.read(path, plane=1).array(), np.rot90(big, -1))
    with refused(ReadError, "sizes-differ"):
        read_layers(str(path))


# Inverted lookup tables, and ImageJ's calibration of grey values.


def _imagej(forge, grey, lines, **options):
    text = "\n".join(["ImageJ=1.54f", *lines, ""])
    return forge(grey, description=text, **options)


def test_pages_beyond_the_images_that_imagej_counted_are_planes(forge, rng):
    stack = rng.integers(0, 255, (4, 21, 34)).astype(np.uint8)
    lines = ["images=2", "frames=2"]
    path = _imagej(forge, stack, lines, photometric="minisblack")
    assert np.array_equal(registry.read(path, plane=3).array(), stack[3])


@pytest.mark.parametrize(
    ("dtype", "white"), [("uint8", 255), ("uint16", 65535), ("int16", -1)]
)
def test_limits_are_inverted_with_the_values(forge, grey, lazily, dtype, white):
    data = grey.astype(dtype)
    lines = ["min=10", "max=100"]
    found = registry.read(_imagej(forge, data, lines, photometric="miniswhite"))
    assert found.dtype == data.dtype
    assert np.array_equal(found.array(), white - data.astype(int))
    assert found.look.limits == (white - 100, white - 10)
    assert found.look.colormap == "gray"


def test_floats_are_shown_inverted_and_not_turned_over(forge, grey, lazily):
    data = grey.astype(np.float32)
    path = _imagej(forge, data, ["min=10", "max=100"], photometric="miniswhite")
    found, heard = _heard(path)
    assert np.array_equal(found.array(), data)
    assert (found.look.limits, found.look.colormap) == ((10, 100), "gray_r")
    assert ["inverted lookup table" in one for one in heard] == [True]


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_signed_integers_of_imagej_are_read_as_such(forge, rng, lazily, photometric):
    values = rng.integers(-500, 500, (21, 34)).astype(np.int16)
    stored = (values.astype(int) + 32768).astype(np.uint16)
    lines = ["cf=0", "c0=-32768.0", "c1=1.0", "vunit=Gray Value"]
    lines += ["min=32668", "max=33068"]
    found = registry.read(_imagej(forge, stored, lines, photometric=photometric))
    inverted = photometric == "miniswhite"
    assert found.dtype == np.int16
    assert np.array_equal(found.array(), ~values if inverted else values)
    assert found.look.limits == ((-301, 99) if inverted else (-100, 300))


@pytest.mark.parametrize(
    ("dtype", "line", "made"),
    [("uint8", (-100, 1), "int16"), ("uint16", (1e3, 0.25), "float32")],
)
def test_grey_values_are_those_that_imagej_shows(
    forge, grey, lazily, dtype, line, made
):
    start, step = line
    lines = ["cf=0", f"c0={start}", f"c1={step}", "vunit=nm", "min=8", "max=48"]
    found = registry.read(_imagej(forge, grey.astype(dtype), lines))
    assert found.dtype == made
    assert np.array_equal(found.array(), start + step * grey.astype(float))
    assert found.look.limits == (start + step * 8, start + step * 48)


def test_measured_values_keep_their_sign_and_are_shown_inverted(forge, grey):
    lines = ["cf=0", "c0=5", "c1=0.5", "vunit=nm", "min=8", "max=48"]
    path = _imagej(forge, grey, lines, photometric="miniswhite")
    found, heard = _heard(path)
    assert np.array_equal(found.array(), 5 + 0.5 * grey.astype(float))
    assert (found.look.limits, found.look.colormap) == ((9, 29), "gray_r")
    assert len(heard) == 1


@pytest.mark.parametrize("lines", [["cf=8", "c0=1", "c1=2"], ["cf=0"]])
def test_another_function_is_not_applied_and_warned_of(forge, grey, lines):
    found, heard = _heard(_imagej(forge, grey, [*lines, "vunit=OD"]))
    assert np.array_equal(found.array(), grey)
    assert ["not linear" in one for one in heard] == [True]


# A preview before the image.


@pytest.mark.parametrize("flag", [{"subfiletype": 1}, {}], ids=["flagged", "smaller"])
def test_a_preview_in_the_first_page_is_not_the_image(tmp_path, rng, flag):
    big = rng.integers(0, 255, (60, 80)).astype(np.uint16)
    path = tmp_path / "preview.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(big[::4, ::4].astype(np.uint8), metadata=None, **flag)
        file.write(big, metadata=None, resolution=(1e6, 1e6), resolutionunit=3)
    found, info = registry.read(path), registry.describe(path)
    assert np.array_equal(found.array(), big)
    assert found.pixel_size_nm == pytest.approx((10, 10))
    assert (info.shape, info.series, info.metadata["series_read"]) == ((60, 80), 2, 1)
    with capture_warnings((heard := []).append):
        [(data, _, _)] = read_layers(str(path))
    assert np.array_equal(data, big)
    assert ["series 1 is shown" in one for one in heard] == [True] * (not flag)
