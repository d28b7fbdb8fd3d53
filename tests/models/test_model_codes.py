"""What a model or a training refuses or notes has a code that says why."""

import struct

import pytest

from napari_semsr.core import SemsrError, get_error_code
from napari_semsr.inference.options import TrainedPixelSizes, plan_resampling
from napari_semsr.models.cards import read_card, resolve_model_path
from napari_semsr.models.devices import find_device
from napari_semsr.training.recipe import load_recipe

HEADER = b'{"w":{"data_offsets":[0,36]}}'
SHORT = struct.pack("<Q", len(HEADER)) + HEADER


@pytest.mark.parametrize(
    ("read", "content", "code"),
    [
        (resolve_model_path, None, "file-missing"),
        (lambda path: resolve_model_path(path.stem), None, "model-unknown"),
        (read_card, b"none", "model-damaged"),
        (read_card, SHORT, "file-truncated"),
        (read_card, SHORT + bytes(36), "card-missing"),
        (lambda path: find_device(path.stem), None, "device-unknown"),
        (load_recipe, None, "file-missing"),
        (load_recipe, b"{", "recipe-invalid"),
    ],
)
def test_a_refusal_has_a_code(tmp_path, read, content, code):
    path = tmp_path / "one.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SemsrError) as refused:
        read(path)
    assert get_error_code(refused.value) == code


@pytest.mark.parametrize(
    ("size", "code"),
    [
        (None, "pixel-size-missing"),
        ((20.0, 20.0), "resampled"),
        ((90.0, 90.0), "pixel-size-unsuitable"),
    ],
)
def test_a_note_on_pixel_sizes_has_a_code(size, code):
    trained = TrainedPixelSizes("model", (10.0, 10.0))
    assert get_error_code(plan_resampling(size, trained).note) == code
