"""Every published system's recipe loads, and its training takes steps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_semsr.core.progress import run
from napari_semsr.models import ProbeResult, build_network, load_model
from napari_semsr.training import callbacks as recorder, fit as loop, validation
from napari_semsr.training.recipe import Recipe, load_recipe
from napari_semsr.training.validation import ValidationPair

RECIPES = Path(__file__).parents[2] / "recipes"
NARROW: dict[str, dict[str, Any]] = {
    "sun-cyclegan": {"width": 4, "blocks": 1},
    "gao-cyclegan": {"width": 8},
    "kernel-cyclegan": {"width": 4, "blocks": 1},
    "de-haan": {"width": 4, "levels": 2},
    "wang-srcnn": {"widths": [4, 4]},
    "wang-srcnn-attention": {"widths": [4, 4], "window": 5},
    "espcn": {"widths": [4, 4]},
    "vdsr": {"width": 4, "layers": 4},
    "edsr": {"width": 4, "blocks": 1},
    "cycle-gan": {"width": 4, "blocks": 1},
    "pix2pix": {"width": 4, "levels": 4},
    "srgan": {"width": 4, "blocks": 1},
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


@pytest.mark.broad
@pytest.mark.parametrize("name", NARROW)
def test_networks_of_the_recipe_can_be_built_in_full(name: str) -> None:
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    with torch.device("meta"):
        network = build_network(recipe.architecture, recipe.architecture_options)
    assert sum(weight.numel() for weight in network.parameters()) > 5000


def test_numbers_of_the_papers_are_the_defaults() -> None:
    gao = load_recipe(RECIPES / "gao-cyclegan.yaml")
    weights = gao.gan.cycle_weight, gao.gan.identity_weight, gao.gan.edge_weight
    assert weights == (10, 5, 10)
    assert (gao.gan.cycle, gao.gan.identity) == ("ssim", "mse")
    assert (gao.learning_rate, gao.batch, gao.data.patch_px) == (1e-4, 1, 256)
    varied = gao.data.phantoms, gao.data.soft, gao.data.bent, gao.data.inverted
    assert (*varied, gao.degradations.as_paper) == (0, 0, 0, 0, 1)
    haan = load_recipe(RECIPES / "de-haan.yaml")
    assert haan.gan.shares == (84, 14, 2)
    assert (haan.gan.discriminator_every, haan.steps) == (4, 48000)
    sun = load_recipe(RECIPES / "sun-cyclegan.yaml")
    assert (sun.gan.cycle, sun.gan.history, sun.steps) == ("l1", 50, 500 * 600)
    zhu = load_recipe(RECIPES / "cycle-gan.yaml")
    assert (zhu.gan.cycle_weight, zhu.gan.identity_weight) == (10, 5)
    assert (zhu.learning_rate, zhu.betas, zhu.gan.history) == (2e-4, (0.5, 0.999), 50)
    assert (zhu.gan.adversarial, 2 * zhu.decay_steps) == ("least-squares", zhu.steps)
    factors = [recipe.gan.generator_factor for recipe in (gao, sun, haan, zhu)]
    assert factors == [0.5, 1.0, 1.0, 1.0]
    kim = load_recipe(RECIPES / "vdsr.yaml")
    assert (kim.batch, kim.data.patch_px, kim.steps) == (64, 41, 9960)
    assert [4 * n for n in kim.milestones] == [kim.steps, 2 * kim.steps, 3 * kim.steps]
    lim = load_recipe(RECIPES / "edsr.yaml")
    assert (lim.batch, lim.data.patch_px, lim.loss) == (16, 48, "l1")
    assert (lim.milestones, lim.milestone_factor) == ((200_000,), 0.5)
