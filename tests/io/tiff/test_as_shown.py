"""What a TIFF says of how it is to be shown: turned, inverted, calibrated, whole."""

import numpy as np
import pytest
import tifffile

from napari_semsr.core.errors import ReadError
from napari_semsr.core.progress import capture_warnings
from napari_semsr.io import formats as registry
from napari_semsr.io.files import Record
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


def _heard(path, **options):
    """Read an image, and all that is warned of."""
    heard = []
    with capture_warnings(heard.append):
        found = registry.read(path, **options)
    return found, heard


@pytest.fixture(params=[False, True], ids=["whole", "lazy"])
def either(request, monkeypatch):
    """Read into memory, or lazily."""
    if request.param:
        monkeypatch.setattr("napari_semsr.io.read_image.LAZY_BYTES", 0)


@pytest.mark.parametrize("orientation", TURNS)
def test_an_image_is_turned_as_it_says(forge, grey, either, orientation):
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


def test_a_header_beside_a_turned_image_is_of_what_is_stored(forge, grey):
    path = forge(grey, orientation=6)
    path.with_suffix(".txt").write_text(
        "$CM_FULL_SIZE 53 30\n$$SM_MICRON_BAR 20\n$$SM_MICRON_MARKER 100nm\n"
    )
    found = registry.read(path)
    assert np.array_equal(found.array(), np.rot90(grey[:30], -1))
    assert found.pixel_size_nm == pytest.approx((5, 5))


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
    assert np.array_equal(registry.read(path, plane=0).array(), big)
    assert np.array_equal(registry.read(path, plane=1).array(), np.rot90(big, -1))
    with refused(ReadError, "sizes-differ"):
        read_layers(str(path))


@pytest.mark.parametrize("orientation", [3, 6])
def test_planes_that_do_not_say_are_turned_as_the_first(tmp_path, rng, orientation):
    stack = rng.integers(0, 255, (3, 24, 32)).astype(np.uint16)
    path = tmp_path / "stack.tif"
    turned = [(274, 3, 1, orientation, True)]
    tifffile.imwrite(
        path, stack, imagej=True, extratags=turned, metadata={"axes": "ZYX"}
    )
    shown = np.stack([TURNS[orientation](plane) for plane in stack])
    for plane, wanted in enumerate(shown):
        assert np.array_equal(registry.read(path, z=plane).array(), wanted)
    [(data, *_)] = read_layers(str(path))
    assert np.array_equal(data, shown)


def test_the_place_of_what_others_turned_is_not_known(forge, grey):
    record = Record("cut", (5.0, 5.0), (100.0, 200.0), (1.0, 1.0), None)
    path = forge(grey, description=f"napari-semsr={record.to_json()}", orientation=3)
    found, heard = _heard(path)
    assert found.origin == (0, 0)
    assert ["was turned by another program" in one for one in heard] == [True]


# Inverted lookup tables, and ImageJ's calibration of grey values.


def _imagej(forge, grey, lines, **options):
    text = "\n".join(["ImageJ=1.54f", *lines, ""])
    return forge(grey, description=text, **options)


@pytest.mark.parametrize(
    ("dtype", "white"), [("uint8", 255), ("uint16", 65535), ("int16", -1)]
)
def test_limits_are_inverted_with_the_values(forge, grey, either, dtype, white):
    data = grey.astype(dtype)
    lines = ["min=10", "max=100"]
    found = registry.read(_imagej(forge, data, lines, photometric="miniswhite"))
    assert found.dtype == data.dtype
    assert np.array_equal(found.array(), white - data.astype(int))
    assert found.look.limits == (white - 100, white - 10)
    assert found.look.colormap == "gray"


def test_floats_are_shown_inverted_and_not_turned_over(forge, grey, either):
    data = grey.astype(np.float32)
    path = _imagej(forge, data, ["min=10", "max=100"], photometric="miniswhite")
    found, heard = _heard(path)
    assert np.array_equal(found.array(), data)
    assert (found.look.limits, found.look.colormap) == ((10, 100), "gray_r")
    assert ["inverted lookup table" in one for one in heard] == [True]


SIGNED = ["cf=0", "c0=-32768.0", "c1=1.0", "vunit=Gray Value"]


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_signed_integers_of_imagej_are_read_as_such(forge, rng, either, photometric):
    values = rng.integers(-500, 500, (21, 34)).astype(np.int16)
    stored = (values.astype(int) + 32768).astype(np.uint16)
    lines = [*SIGNED, "min=32668", "max=33068"]
    found = registry.read(_imagej(forge, stored, lines, photometric=photometric))
    inverted = photometric == "miniswhite"
    assert found.dtype == np.int16
    assert np.array_equal(found.array(), ~values if inverted else values)
    assert found.look.limits == ((-301, 99) if inverted else (-100, 300))


@pytest.mark.parametrize(
    ("dtype", "line", "made"),
    [
        ("uint16", (0, 1), "uint16"),
        ("uint8", (-100, 1), "int16"),
        ("uint8", (-7, 0.25), "float32"),
        ("uint16", (1e3, 1), "float32"),
    ],
)
def test_grey_values_are_those_that_imagej_shows(
    forge, grey, either, dtype, line, made
):
    lines = ["cf=0", f"c0={line[0]}", f"c1={line[1]}", "vunit=nm", "min=8", "max=48"]
    found = registry.read(_imagej(forge, grey.astype(dtype), lines))
    assert found.dtype == made
    assert np.array_equal(found.array(), line[0] + line[1] * grey.astype(float))
    assert found.look.limits == (line[0] + line[1] * 8, line[0] + line[1] * 48)


def test_an_inverting_table_with_its_calibration_is_turned_over(forge, grey):
    lines = ["cf=0", "c0=255", "c1=-1", "vunit=Inverted Gray Value", "min=8", "max=48"]
    found = registry.read(_imagej(forge, grey, lines, photometric="miniswhite"))
    assert found.dtype == np.uint8
    assert np.array_equal(found.array(), 255 - grey)
    assert (found.look.limits, found.look.colormap) == ((207, 247), "gray")


def test_measured_values_keep_their_sign_and_are_shown_inverted(forge, grey):
    lines = ["cf=0", "c0=5", "c1=0.5", "vunit=nm", "min=8", "max=48"]
    path = _imagej(forge, grey, lines, photometric="miniswhite")
    found, heard = _heard(path)
    assert np.array_equal(found.array(), 5 + 0.5 * grey.astype(float))
    assert (found.look.limits, found.look.colormap) == ((9, 29), "gray_r")
    assert len(heard) == 1


@pytest.mark.parametrize("lines", [["cf=8", "c0=1", "c1=2"], ["cf=21"], ["cf=0"]])
def test_another_function_is_not_applied_and_warned_of(forge, grey, lines):
    found, heard = _heard(_imagej(forge, grey, [*lines, "vunit=OD"]))
    assert np.array_equal(found.array(), grey)
    assert ["not linear" in one for one in heard] == [True]


@pytest.mark.parametrize("lines", [["cf=20"], ["c0=5", "c1=2"]])
def test_no_function_is_none(forge, grey, lines):
    assert np.array_equal(registry.read(_imagej(forge, grey, lines)).array(), grey)


def test_imagej_shows_floats_as_they_are_stored(forge, grey):
    data = grey.astype(np.float32)
    found = registry.read(_imagej(forge, data, ["cf=0", "c0=5", "c1=2"]))
    assert np.array_equal(found.array(), data)


def test_limits_of_a_palette_are_those_of_its_indices(forge, grey):
    table = np.stack([np.arange(255, -1, -1) * 257] * 3).astype(np.uint16)
    lines = ["min=10", "max=100"]
    path = _imagej(forge, grey, lines, photometric="palette", colormap=table)
    found = registry.read(path)
    assert np.array_equal(found.array(), 255 - grey)
    assert found.look is None


# A preview before the image.


@pytest.mark.parametrize("flag", [{"subfiletype": 1}, {}], ids=["flagged", "smaller"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_preview_in_the_first_page_is_not_the_image(tmp_path, rng, flag, dtype):
    big = rng.integers(0, 255, (60, 80)).astype(dtype)
    path = tmp_path / "preview.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(big[::4, ::4].astype(np.uint8), metadata=None, **flag)
        file.write(big, metadata=None, resolution=(1e6, 1e6), resolutionunit=3)
    found, info = registry.read(path), registry.describe(path)
    assert np.array_equal(found.array(), big)
    assert found.pixel_size_nm == pytest.approx((10, 10))
    assert (info.shape, info.series, info.metadata["series_read"]) == ((60, 80), 2, 1)
    assert registry.read(path, series=0).shape == (15, 20)
    heard = []
    with capture_warnings(heard.append):
        [(data, _, _)] = read_layers(str(path))
    assert np.array_equal(data, big)
    assert ["series 1 is shown" in one for one in heard] == [True] * (not flag)


def test_a_preview_before_a_stack_is_not_the_image(tmp_path, rng):
    stack = rng.integers(0, 255, (3, 60, 80)).astype(np.uint8)
    path = tmp_path / "preview.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(stack[0, ::4, ::4], metadata=None, subfiletype=1)
        for grey in stack:
            file.write(grey, metadata=None, contiguous=False)
    assert np.array_equal(registry.read(path, plane=2).array(), stack[2])


def test_images_of_like_sizes_are_no_previews(tmp_path):
    path = tmp_path / "two.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(np.zeros((30, 40), np.uint8), metadata=None)
        file.write(np.zeros((50, 70), np.uint8), metadata=None)
    assert registry.read(path).shape == (30, 40)


def test_a_header_beside_the_preview_is_of_the_image(tmp_path, grey):
    header = (
        b"[EScan]\r\nPixelWidth=5e-9\r\nPixelHeight=5e-9\r\n"
        b"[Image]\r\nResolutionX=53\r\nResolutionY=30\r\n\0"
    )
    path = tmp_path / "both.tif"
    with tifffile.TiffWriter(path) as file:
        tag = [(34682, 7, len(header), header, True)]
        file.write(grey[::3, ::3], metadata=None, extratags=tag)
        file.write(grey, metadata=None)
    found = registry.read(path)
    assert np.array_equal(found.array(), grey[:30])
    assert found.pixel_size_nm == pytest.approx((5, 5))
