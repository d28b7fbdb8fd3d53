"""The mean over flips and turns: what it is, that tiles stay exact, what is refused."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_semsr.core import Box, DeviceMemoryError, Micrograph, OptionError, run
from napari_semsr.inference import EnhanceOptions, enhance_in_memory
from napari_semsr.inference.ensemble import ALL
from napari_semsr.models import LoadedModel
from tests.refusals import refused

SIDES = (96, 128)  # multiples of every stride: a field is flipped with its padding


@pytest.fixture
def field(rng: np.random.Generator) -> np.ndarray:
    """Noise on a slope."""
    slope = np.linspace(0, 1, SIDES[1])
    return (slope + 0.1 * rng.standard_normal(SIDES)).astype(np.float32)


def enhanced(field: np.ndarray, loaded: LoadedModel, **options: object) -> np.ndarray:
    """Enhance in fp32."""
    chosen = EnhanceOptions(precision="fp32").replace(**options)
    return run(enhance_in_memory(Micrograph(field), loaded, chosen)).array()


@pytest.mark.parametrize("turn", ALL)
def test_turns_are_undone_and_parts_found_in_turned_images(turn):
    image = torch.rand(2, 1, 3, 5)
    there = turn.apply(image)
    assert there.shape[2:] == ((5, 3) if turn.transpose else (3, 5))
    assert torch.equal(turn.undo(there), image)
    image, part = torch.rand(1, 1, 9, 14), Box(2, 7, 1, 12)
    place = turn.transform_box(part, (9, 14))
    cut = turn.apply(image)[..., *place.slices]
    assert torch.equal(turn.undo(cut), image[..., *part.slices])


def test_mean_of_fields_that_are_turned_by_hand(make_loaded, field):
    loaded = make_loaded("plain")
    parts = []
    for turn in ALL:
        there = turn.apply(torch.from_numpy(field)[None, None])[0, 0].contiguous()
        made = torch.from_numpy(enhanced(there.numpy(), loaded))[None, None]
        parts.append(turn.undo(made)[0, 0].numpy())
    expected = np.mean(parts, axis=0)
    found = enhanced(field, loaded, self_ensemble=True)
    assert np.abs(parts[0] - expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_mirrored_field_is_sharpened_alike(make_loaded, field):
    how = {"self_ensemble": True, "blur_px": 1.2, "noise_percent": 3.0}
    y, x = np.indices(SIDES)
    soft = ndimage.gaussian_filter(np.where((x + y) % 10 < 5, 0.8, 0.2), 1.2)
    soft = (soft + 0.1 * (field - field.mean())).astype(np.float32)
    whole, turned = (
        enhanced(one, make_loaded("sharpener"), **how) for one in (soft, soft[::-1])
    )
    np.testing.assert_allclose(turned[::-1], whole, atol=1e-4)


@pytest.mark.parametrize("kind", ["informed", "norm"])
def test_tiles_are_those_of_the_whole(make_loaded, field, kind):
    loaded = make_loaded(kind)
    whole = enhanced(field[:90, :118], loaded, tile=256, self_ensemble=True)
    tiles = enhanced(field[:90, :118], loaded, tile=32, self_ensemble=True)
    np.testing.assert_allclose(tiles, whole, atol=1e-5)


def test_what_must_be_run_whole_and_cannot_is_told(make_loaded, field):
    with refused(DeviceMemoryError, "field-too-large"):
        enhanced(field, make_loaded("norm"), self_ensemble=True, memory_gb=1e-6)
    with refused(OptionError, "options-contradict"):
        enhanced(field, make_loaded("norm"), self_ensemble=True, norm="sampled")
