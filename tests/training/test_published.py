"""Every published system's recipe loads, and its training takes steps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_semsr.core.progress import run
from napari_semsr.models import ProbeResult, load_model
from napari_semsr.training import callbacks as recorder, fit as loop, validation
from napari_semsr.training.recipe import Recipe, load_recipe
from napari_semsr.training.validation import ValidationPair

RECIPES = Path(__file__).parents[2] / "recipes"
NARROW: dict[str, dict[str, Any]] = {
    "gao-cyclegan": {"width": 8},
    "kernel-cyclegan": {"width": 4, "blocks": 1},
    "de-haan": {"width": 4, "levels": 2},
    "wang-srcnn-attention": {"widths": [4, 4], "window": 5},
    "espcn": {"widths": [4, 4]},
    "edsr": {"width": 4, "blocks": 1},
    "pix2pix": {"width": 4, "levels": 4},
    "esrgan": {"width": 4, "blocks": 1, "growth": 4},
}


def narrowed(name: str) -> Recipe:
    """The recipe on drawn samples, small in all that takes time."""
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    side = 256 if name == "gao-cyclegan" else 32  # its U-Net halves seven times
    gan = recipe.gan.replace(
        discriminator_options={**recipe.gan.discriminator_options, "width": 4},
        content_only_steps=min(1, recipe.gan.content_only_steps),
    )
    drawn = {"train": (), "validation": (), "phantoms": 1}
    data = recipe.data.replace(**drawn, scene_px=side, patch_px=side)
    short = {"batch": 1, "steps": 2, "workers": 0, "precision": "fp32", "gan": gan}
    options = {**recipe.architecture_options, **NARROW[name]}
    data = data.replace(patches_per_scene=1)
    return recipe.replace(architecture_options=options, data=data, **short)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "espcn" else pytest.mark.broad)
        for name in NARROW
    ],
)
def test_recipe_trains(name, tmp_path, monkeypatch):
    grey = np.random.default_rng(0).integers(0, 255, (160, 160)).astype(np.uint8)
    pairs = [ValidationPair("blur", grey, grey)]
    monkeypatch.setattr(validation, "create_validation_pairs", lambda _recipe: pairs)
    monkeypatch.setattr(recorder, "probe_architecture", lambda *_: ProbeResult(8, 0, 8))
    recipe = narrowed(name)
    first = loop.build_initial_network(recipe)
    result = run(loop.train(recipe, tmp_path / "run"))
    assert result.steps == 2
    loaded = load_model(result.model)
    assert loaded.card.scale == (2 if name == "de-haan" else 1)
    before, after = first.state_dict(), loaded.module.state_dict()
    assert not all(torch.equal(weight, before[key]) for key, weight in after.items())
