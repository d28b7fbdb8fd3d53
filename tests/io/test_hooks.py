"""What napari gets and gives."""

import numpy as np
import pytest
import tifffile

from napari_semsr.core.acquisition import Acquisition
from napari_semsr.core.errors import OptionError, ReadError
from napari_semsr.core.micrograph import Micrograph, Provenance, parse_pixel_size
from napari_semsr.io import formats as registry, layers, project as hooks
from napari_semsr.io.layers import FOLDER_KEY, create_scan_layers
from tests.refusals import refused, warned


@pytest.fixture
def image(rng):
    data = rng.random((600, 500)).astype(np.float32)
    return Micrograph(data, (5.0, 6.0), "k", Provenance(job="x"), origin=(2.5, 3.0))


@pytest.mark.parametrize("suffix", [".ome.zarr", ".ome.tif", ".tif"])
def test_layers_are_calibrated(tmp_path, image, suffix):
    path = str(tmp_path / f"a{suffix}")
    registry.write(image, path)
    [(data, attributes, kind)] = hooks.get_reader(path)(path)
    assert (kind, attributes["rgb"]) == ("image", False)
    assert attributes["scale"] == (5.0, 6.0)
    assert attributes["translate"] == (2.5, 3.0)
    assert attributes["units"] == ("nm", "nm")
    assert attributes["axis_labels"] == ("y", "x")
    assert attributes["multiscale"] is False  # small enough for one array
    assert np.array_equal(data, image.data)
    made = attributes["metadata"]["micrograph"]["provenance"]
    assert Provenance.model_validate(made) == image.provenance


def test_get_reader_leaves_what_is_no_image_to_others(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"hello world")
    assert hooks.get_reader(str(tmp_path / "a.tif")) is None
    assert hooks.get_reader(str(tmp_path / "none.tif")) is None
    assert hooks.get_reader([str(tmp_path / "a.tif")]) is None
    assert hooks.get_reader(str(tmp_path)) is None, "a folder without an image"


def test_colour_opens_in_colour_and_says_what_to_do(tmp_path, rng):
    samples = rng.integers(0, 255, (2, 20, 30, 3)).astype(np.uint8)
    samples[1] = samples[1, :, :, :1]
    path = str(tmp_path / "a.tif")
    for data, labels in ((samples[0], ("y", "x")), (samples, ("plane", "y", "x"))):
        tifffile.imwrite(path, data, photometric="rgb", resolution=(1e5, 1e5))
        with warned("colour-image", match="'a' "):
            [(shown, attributes, _)] = hooks.get_reader(path)(path)
        assert np.array_equal(shown, data)
        assert (attributes["rgb"], attributes["axis_labels"]) == (True, labels)
        assert attributes["scale"][-2:] == pytest.approx((254.0, 254.0))


def test_folder_without_positions_is_a_stack_of_its_frames(tmp_path, image):
    folder = str(tmp_path)
    for name, data in (("f10", image.data), ("f2", image.data[::-1])):
        registry.write(image.replace(name=name, data=data), tmp_path / f"{name}.tif")
    [(data, attributes, _)] = hooks.get_reader(folder)(folder)
    assert np.array_equal(data, [image.data[::-1], image.data])
    assert attributes["scale"] == (1, 5.0, 6.0)
    assert attributes["metadata"][layers.FOLDER_KEY] == folder
    # images that are no frames of one scan are layers of their own
    registry.write(Micrograph(image.data[:90]), tmp_path / "f3.png")
    found = hooks.get_reader(folder)(folder)
    assert [len(data) for data, _, _ in found] == [600, 90, 600]
    (tmp_path / "positions.csv").write_text("frame,y_px,x_px\n")
    with refused(ReadError, "frames-missing"):
        hooks.get_reader(folder)(folder)


@pytest.mark.parametrize("other", [50.0, None])
def test_a_stack_has_one_pixel_size(tmp_path, grey, other):
    paths = [str(tmp_path / f"{name}.tif") for name in "abc"]
    for path, pitch in zip(paths, (5.0, 5.0001, other), strict=True):
        registry.write(Micrograph(grey, pitch), path)
    with refused(ReadError, "sizes-differ"):
        hooks.get_reader(paths)(paths)
    [(data, attributes, _)] = hooks.get_reader(paths[:2])(paths[:2])
    assert data.shape == (2, *grey.shape)
    assert attributes["scale"] == (1, 5.0, 5.0)


def test_tiles_of_a_czi_lie_at_their_places(shared_data):
    pytest.importorskip("czifile")
    path = str(shared_data / "stitch" / "mosaic_test.czi")
    image, outlines = hooks.get_reader(path)(path)
    assert image[0].shape == (624, 1756)
    assert len(outlines[0]) == 2


FRAMES = np.stack([np.full((10, 12), 10 * n + 10, np.uint8) for n in range(4)])


def scan_of(**known):
    return Acquisition(FRAMES, tuple("abcd"), name="s", **known)


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


def test_places_far_apart_are_refused(tmp_path):
    px = np.array([[0.0, 0], [0, 1e6], [1e6, 0], [1e6, 1e6]])
    with refused(OptionError, "positions-invalid"):
        create_scan_layers(scan_of(nominal_px=px), tmp_path)
