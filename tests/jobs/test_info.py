"""`info(methods)`: the paragraph of methods follows the history of a file."""

import numpy as np
import pytest

import napari_semsr as semsr
from napari_semsr.core import InputRecord, Provenance


@pytest.fixture
def restored(tmp_path):
    grey = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    semsr.write(semsr.Micrograph(grey), tmp_path / "bare.tif")
    steps = tmp_path / "sharp.tif", tmp_path / "part.tif"
    semsr.restore(tmp_path / "bare.tif", steps[0], psf="1px", pixel_size_nm=7)
    semsr.crop(*steps, box=(0, 0, 32, 32))
    return steps[1]


def describe(path, **options):
    return semsr.info(path, methods=True, **options).facts["methods"]


def write_with(history, folder):
    image = semsr.Micrograph(np.eye(8), (5, 5), provenance=history)
    semsr.write(image, folder / "made.tif")
    return folder / "made.tif"


def test_steps_are_named_in_order_with_methods_and_changed_options(restored):
    text = describe(restored)
    assert text.index("bare.tif was restored") < text.index("sharp.tif was cropped")
    assert "method wiener" in text
    assert "psf 1px" in text
    assert "box 0x0x32x32" in text
    assert "iterations" not in text  # a default


def test_origin_of_the_pixel_size_is_named(restored):
    assert "is 7 nm, typed by the user" in describe(restored)
    assert "is 9 nm, typed by the user" in describe(restored, pixel_size_nm=9)


def test_a_network_is_named_by_its_digest_as_an_estimate(tmp_path):
    image = InputRecord(role="image", name="a.tif")
    history = Provenance(
        job="enhance", inputs=(image,), model_name="net", model_digest="sha256:1"
    )
    text = describe(write_with(history, tmp_path))
    assert "network net, sha256:1" in text
    assert "estimate" in text
