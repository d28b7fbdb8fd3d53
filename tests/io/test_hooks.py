"""What napari gets and gives."""

import numpy as np
import PIL.Image
import pytest
import tifffile

from napari_semsr.core.errors import IncompleteError, ReadError
from napari_semsr.core.micrograph import Micrograph, Provenance
from napari_semsr.io import formats as registry, layers, napari_hooks as hooks
from napari_semsr.io.layers import READ_KEY
from napari_semsr.io.zarr.store import create_store
from tests.children import run_python
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
    assert kind == "image"
    assert attributes["scale"] == (5.0, 6.0)
    assert attributes["translate"] == (2.5, 3.0)
    assert attributes["units"] == ("nm", "nm")
    assert attributes["axis_labels"] == ("y", "x")
    assert attributes["rgb"] is False
    assert attributes["multiscale"] is False  # small enough for one array
    low, high = attributes["contrast_limits"]
    assert low < high
    assert isinstance(data, np.ndarray)
    assert np.array_equal(data, image.data)
    made = attributes["metadata"]["micrograph"]["provenance"]
    assert Provenance.model_validate(made) == image.provenance


def test_unknown_pixel_size_becomes_pixels(tmp_path, grey):
    path = str(tmp_path / "a.tif")
    registry.write(Micrograph(grey), path)
    [(_, attributes, _)] = layers.read_layers(path)
    assert attributes["units"] == ("pixel", "pixel")
    assert attributes["contrast_limits"] == (0.0, 255.0)


def test_further_images_of_a_file_are_told(tmp_path):
    path = tmp_path / "two.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(np.zeros((30, 40), np.uint8), metadata=None)
        file.write(np.ones((20, 40), np.uint8), metadata=None)
    with warned("several-images", match=" 2 images"):
        [(data, _, _)] = layers.read_layers(str(path))
    assert data.shape == (30, 40)


def test_planes_become_a_slider_and_channels_layers(tmp_path, rng):
    data = rng.integers(0, 999, (4, 2, 20, 30)).astype(np.uint16)
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, data, metadata={"axes": "ZCYX"})
    found = layers.read_layers(str(path))
    assert len(found) == 2
    for channel, (shown, attributes, _) in enumerate(found):
        assert np.array_equal(np.asarray(shown), data[:, channel])
        assert attributes["axis_labels"] == ("z", "y", "x")
        assert len(attributes["scale"]) == 3
        assert attributes["name"].endswith(f"channel {channel}")


@pytest.mark.parametrize("name", ["a.csv", "a.zip", "a"])
def test_get_reader_leaves_other_names_to_others(tmp_path, name):
    (tmp_path / name).write_bytes(b"II*\0")
    assert hooks.get_reader(str(tmp_path / name)) is None


def test_get_reader_leaves_what_is_no_image_to_others(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"hello world")
    assert hooks.get_reader(str(tmp_path / "a.tif")) is None
    assert hooks.get_reader(str(tmp_path / "none.tif")) is None
    assert hooks.get_reader([str(tmp_path / "a.tif")]) is None
    assert hooks.get_reader(str(tmp_path)) is None, "a folder without an image"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_grey_stored_as_colour_arrives_grey(tmp_path, grey, suffix):
    path = tmp_path / f"a{suffix}"
    PIL.Image.fromarray(np.stack([grey] * 3, axis=-1)).save(path)
    [(data, attributes, _)] = hooks.get_reader(str(path))(str(path))
    assert data.shape == grey.shape
    assert not attributes["rgb"]
    assert attributes["name"] == "a"


def test_colour_opens_in_colour_and_says_what_to_do(tmp_path, rng):
    samples = rng.integers(0, 255, (2, 20, 30, 3)).astype(np.uint8)
    path = str(tmp_path / "a.tif")
    tifffile.imwrite(path, samples[0], photometric="rgb", resolution=(1e5, 1e5))
    with warned("colour-image", match="'a' "):
        [(data, attributes, _)] = hooks.get_reader(path)(path)
    assert np.array_equal(data, samples[0])
    assert attributes["rgb"]
    assert attributes["scale"] == pytest.approx((254.0, 254.0))
    stack = str(tmp_path / "stack.tif")
    samples[1] = samples[1, :, :, :1]
    tifffile.imwrite(stack, samples, photometric="rgb")
    with warned("colour-image"):
        [(data, attributes, _)] = hooks.get_reader(stack)(stack)
    assert np.array_equal(data, samples)
    assert attributes["axis_labels"] == ("plane", "y", "x")


def test_a_scan_in_colour_is_shown_by_its_luminance(tmp_path, rng):
    samples = rng.integers(0, 255, (2, 20, 30, 3)).astype(np.uint8)
    for name, frame in zip("ab", samples, strict=True):
        tifffile.imwrite(tmp_path / f"{name}.tif", frame, photometric="rgb")
    (tmp_path / "positions.csv").write_text("frame,y_px,x_px\na.tif,0,0\nb.tif,20,0\n")
    with warned("colour-image", match=r"`stitch\(colour=luminance\)`"):
        [(data, attributes, _), _] = hooks.get_reader(str(tmp_path))(str(tmp_path))
    grey = samples.reshape(40, 30, 3) @ (0.299, 0.587, 0.114)
    assert np.abs(data - grey).max() <= 0.5 + 1e-9
    assert attributes["metadata"][READ_KEY] == {"frames": True, "colour": "luminance"}


def test_folder_without_positions_is_a_stack_of_its_frames(tmp_path, image):
    for name, data in (("f10", image.data), ("f2", image.data[::-1])):
        frame = image.replace(name=name, data=data)
        registry.write(frame, tmp_path / f"{name}.tif")
    [(data, attributes, _)] = hooks.get_reader(str(tmp_path))(str(tmp_path))
    assert data.shape == (2, *image.shape)
    assert attributes["scale"] == (1, 5.0, 6.0)
    assert attributes["metadata"][layers.FOLDER_KEY] == str(tmp_path)
    registry.write(Micrograph(image.data[:90]), tmp_path / "f3.png")
    found = hooks.get_reader(str(tmp_path))(str(tmp_path))
    assert [data.shape for data, _, _ in found] == [
        image.shape,
        (90, 500),
        image.shape,
    ], "images that are no frames of one scan are layers of their own"
    (tmp_path / "positions.csv").write_text("frame,y_px,x_px\n")
    with refused(ReadError, "frames-missing"):
        hooks.get_reader(str(tmp_path))(str(tmp_path))


def test_files_opened_as_a_stack(tmp_path, image):
    paths = [str(tmp_path / f"{name}.png") for name in "ab"]
    for path in paths:
        registry.write(image, path)
    [(data, attributes, _)] = hooks.get_reader(paths)(paths)
    assert data.shape == (2, *image.shape)
    assert attributes["scale"] == (1, 5.0, 6.0)
    registry.write(image.replace(data=image.data[:90]), paths[1], overwrite=True)
    with refused(ReadError, "sizes-differ"):
        hooks.get_reader(paths)(paths)


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


def test_a_stack_tells_of_the_network_behind_one_of_its_planes(tmp_path, grey):
    made = Provenance(job="enhance", model_name="net", model_digest="sha256:0")
    paths = [str(tmp_path / f"{name}.tif") for name in "ab"]
    registry.write(Micrograph(grey, 5.0), paths[0])
    registry.write(Micrograph(grey, 5.0, provenance=made), paths[1])
    [(_, attributes, _)] = hooks.get_reader(paths)(paths)
    metadata = attributes["metadata"]
    assert metadata[layers.NETWORK_KEY] == {"model": "net", "digest": "sha256:0"}
    assert metadata["micrograph"]["provenance"]["job"] == "enhance"


def test_tiles_of_a_czi_lie_at_their_places(shared_data):
    pytest.importorskip("czifile")
    path = str(shared_data / "stitch" / "mosaic_test.czi")
    image, outlines = hooks.get_reader(path)(path)
    assert image[0].shape == (624, 1756)
    assert len(outlines[0]) == 2


def test_reader_explains_an_unfinished_store(tmp_path):
    path = str(tmp_path / "a.ome.zarr")
    create_store(path, shape=(8, 8), dtype="u1", chunk=4)
    with refused(IncompleteError, "incomplete"):
        hooks.get_reader(path)(path)


@pytest.mark.broad
def test_importing_the_hooks_imports_nothing_heavy():
    code = (
        "import sys, napari_semsr.io.napari_hooks, napari_semsr.io.formats; "
        "heavy = {'torch', 'qtpy', 'napari', 'zarr', 'tifffile', 'dask', 'PIL'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert run_python(code).strip() == "[]"


def test_what_is_not_honoured_is_warned_of_once_in_napari(tmp_path, rng):
    stack = rng.integers(0, 255, (3, 12, 17)).astype(np.uint8)
    paths = [tmp_path / f"{name}.tif" for name in ("stack", "a", "b")]
    for path, data in zip(paths, (stack, stack[0], stack[1]), strict=True):
        text = "ImageJ=1.54f\ncf=21\n"
        if data is stack:
            text += "images=3\nslices=3\n"
        how = {"metadata": None, "photometric": "minisblack"}
        tifffile.imwrite(path, data, description=text, **how)
    with warned("grey-calibration-ignored") as found:
        [(data, _, _)] = layers.read_layers(str(paths[0]))
    assert (data.shape, len(found)) == ((3, 12, 17), 1)
    with warned("grey-calibration-ignored", match=r"^a\.tif: .*\(2 ") as found:
        layers.read_layers([str(path) for path in paths[1:]])
    assert len(found) == 1
