from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_semsr.core import Micrograph, run
from napari_semsr.jobs import PAIRS
from napari_semsr.models.checkpoint import load_model, save_model
from napari_semsr.pairing import PairOptions, open_pairs
from napari_semsr.training.callbacks import create_model_card
from napari_semsr.training.fit import (
    build_initial_network,
    compare_models,
    fit_linear_filter_to_pairs,
)
from napari_semsr.training.recipe import load_recipe
from napari_semsr.training.validation import Validator, read_stored_pairs
from tests.tiny_models import write_tiny_model, write_tiny_recipe


def _pairs(folder: Path, scale: int, sigma: float = 1.0, **options: float) -> Path:
    rng = np.random.default_rng(0)
    high = ndimage.gaussian_filter(rng.random((160, 160)), 1.2).astype(np.float32)
    low = ndimage.gaussian_filter(high, sigma)
    low = low.reshape(160 // scale, scale, 160 // scale, scale).mean((1, 3))
    images = [Micrograph(part, name="field") for part in (low, high)]
    store = folder / "pairs.zarr"
    chosen = PairOptions(patch=32 // scale, scale=scale, min_correlation=0, **options)
    run(PAIRS.job(*images, store, options=chosen))
    return store


@pytest.mark.parametrize("scale", [1, 2])
def test_linear_filter_undoes_a_blur_without_noise(tmp_path: Path, scale: int) -> None:
    store = open_pairs(_pairs(tmp_path, scale))
    validator = Validator(read_stored_pairs(store, "test"), margin=2 * scale)
    found = validator.evaluate(fit_linear_filter_to_pairs(store, scale))
    assert found["gain_db"] > 2


def test_card_of_a_model_that_is_not_kept_is_that_of_the_untouched_one(tmp_path):
    card = {"pixel_size_nm": (20.0, 20.0), "resample_factors": (0.7, 1.5)}
    start = write_tiny_model(tmp_path, training={"learnt_from": []}, **card)
    store = _pairs(tmp_path, 1, low_pixel_nm=5.0, high_pixel_nm=5.0)
    data, path = {"pairs": str(store)}, tmp_path / "harm.yaml"
    recipe = load_recipe(write_tiny_recipe(path, data=data, start_from=str(start)))
    begun, harmed = build_initial_network(recipe), build_initial_network(recipe)
    for weights in harmed.parameters():
        torch.nn.init.normal_(weights, std=0.3)
    card = create_model_card(recipe, harmed, {"gain_db": 9.0, "step": 4})
    model = tmp_path / "harmed.safetensors"
    save_model(model, harmed, card)
    made = compare_models(recipe, model, begun)
    told = load_model(model).card
    assert not made.kept
    assert (told.pixel_size_nm, told.resample_factors) == ((20.0, 20.0), (0.7, 1.5))
    assert told.training["learnt_from"] == []
    assert told.training["validation"]["gain_db"] < 9
    assert told.training["validation"]["step"] == 0
    assert compare_models(recipe, model, begun) == made  # as the run is resumed
    assert load_model(model).card == told
