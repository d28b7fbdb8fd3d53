"""bf16 stays within a grey level of fp32, for every bundled model and kind of field."""

import numpy as np
import pytest

from napari_semsr.core import Micrograph, run
from napari_semsr.inference import EnhanceOptions, enhance_in_memory
from napari_semsr.models import list_bundled_models, load_model

SIDE = 96
MAX_RMS, MOST = 1.0, 8.0  # grey levels, of 255 over the range of the result


def _coarse_and_fine(rng):
    image = np.linspace(0, 10, SIDE) + np.zeros((SIDE, 1))
    for step in (1, 4, 16, 64):
        blocks = -(-SIDE // step)
        coarse = rng.normal(0, step**0.5, (blocks, blocks))
        image = image + np.kron(coarse, np.ones((step, step)))[:SIDE, :SIDE]
    return (image - image.min()) / np.ptp(image) * 255


def _grating(rng):
    y, x = np.mgrid[:SIDE, :SIDE]
    angle, period = rng.uniform(0, np.pi), rng.uniform(5, 14)
    wave = np.sin(2 * np.pi * (np.cos(angle) * x + np.sin(angle) * y) / period)
    return 128 + 90 * np.sign(wave) + rng.normal(0, 4, (SIDE, SIDE))


FIELDS = (_coarse_and_fine, _grating)


@pytest.mark.parametrize("draw", FIELDS)
@pytest.mark.parametrize("name", sorted(list_bundled_models()))
def test_bf16_is_within_a_grey_level_of_fp32(name, draw) -> None:
    grey = draw(np.random.default_rng(0)).clip(0, 255).astype(np.uint8)
    model, options = load_model(name), EnhanceOptions(device="cpu", dtype="float32")
    full, half = (
        run(enhance_in_memory(Micrograph(grey), model, options.replace(precision=one)))
        .array()
        .astype(float)
        for one in ("fp32", "bf16")
    )
    difference = 255 * (half - full) / np.ptp(full)
    assert np.sqrt(np.mean(difference**2)) <= MAX_RMS
    assert np.abs(difference).max() <= MOST
