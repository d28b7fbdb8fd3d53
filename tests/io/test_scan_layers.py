"""Frames where the scan says that they lie."""

import numpy as np
import tifffile

from napari_semsr.core.acquisition import Acquisition
from napari_semsr.core.errors import OptionError
from napari_semsr.core.micrograph import parse_pixel_size
from napari_semsr.io.layers import FOLDER_KEY, create_scan_layers
from napari_semsr.io.napari_hooks import get_reader
from tests.refusals import refused

FRAMES = np.stack([np.full((10, 12), 10 * n + 10, np.uint8) for n in range(4)])


def scan_of(**known):
    return Acquisition(FRAMES, tuple("abcd"), name="s", **known)


def test_places_follow_from_pixels_nanometres_or_grid():
    px = np.array([[0.0, 0], [0, 9], [8, 0], [8, 9]])
    size = parse_pixel_size((2, 5))
    assert np.array_equal(scan_of(nominal_px=px).nominal_corners(), px)
    in_nm = scan_of(nominal_nm=px * (2, 5), pixel_size_nm=size)
    assert np.allclose(in_nm.nominal_corners(), px)
    assert scan_of(nominal_nm=px).nominal_corners() is None
    grid = scan_of(grid=(2, 2), overlap=0.25, order="serpentine")
    assert np.allclose(grid.nominal_corners()[2], (7.5, 9))
    assert scan_of(grid=(2, 2)).nominal_corners() is None


def test_layers_are_calibrated_and_outline_the_frames(tmp_path):
    px = np.array([[5.0, 5], [5, 14], [13, 5], [13, 14]])
    acquisition = scan_of(nominal_px=px, pixel_size_nm=parse_pixel_size(7))
    image, outlines = create_scan_layers(acquisition, tmp_path)
    assert image[0].shape == (18, 21)
    assert image[0][9, 10] == 40  # the brightest of four
    assert (image[2], outlines[2]) == ("image", "shapes")
    for _, attributes, _ in (image, outlines):
        assert attributes["scale"] == (7, 7)
        assert attributes["units"] == ("nm", "nm")
        assert attributes["metadata"][FOLDER_KEY] == str(tmp_path)
    assert np.array_equal(outlines[0][3].min(axis=0), (7.5, 8.5))
    assert np.array_equal(outlines[0][3].max(axis=0), (17.5, 20.5))


def test_unknown_places_give_a_stack(tmp_path):
    ((data, attributes, kind),) = create_scan_layers(scan_of(), tmp_path)
    assert kind == "image"
    assert np.array_equal(data, FRAMES)
    assert attributes["axis_labels"] == ("plane", "y", "x")


def test_places_far_apart_are_refused(tmp_path):
    px = np.array([[0.0, 0], [0, 1e6], [1e6, 0], [1e6, 1e6]])
    with refused(OptionError, "positions-invalid"):
        create_scan_layers(scan_of(nominal_px=px), tmp_path)


def test_only_folders_of_images_are_claimed(tmp_path):
    assert get_reader(str(tmp_path)) is None
    assert get_reader(str(tmp_path / "nothing")) is None
    (tmp_path / "below.d").mkdir()
    tifffile.imwrite(tmp_path / "below.d" / "f.tif", FRAMES[0])
    assert get_reader(str(tmp_path)) is None, "folders in it are not looked into"
    for index, frame in enumerate(FRAMES):
        tifffile.imwrite(tmp_path / f"f{index}.tif", frame)
    ((data, _, _),) = get_reader(str(tmp_path))(str(tmp_path))
    assert np.array_equal(data, FRAMES)
    (tmp_path / "scan.json").write_text('{"grid": [2, 2], "overlap": 0.5}')
    read = get_reader(str(tmp_path))
    image, outlines = read(str(tmp_path))
    assert image[0].shape == (15, 18)
    assert list(outlines[1]["features"]["frame"]) == [f"f{n}.tif" for n in range(4)]
