"""Tests of scenes that simulated instruments give."""

import numpy as np
import torch

from napari_semsr.core.errors import OptionError
from napari_semsr.models.checkpoint import build_network
from napari_semsr.training.callbacks import create_model_card
from napari_semsr.training.fit import make_learner
from napari_semsr.training.patches import ScenePairDataset
from napari_semsr.training.recipe import Recipe
from napari_semsr.training.scenes import INSTRUMENTS
from tests.refusals import refused


def recipe(kind: str = "supervised", **sources: float) -> Recipe:
    data = {"scene_px": 64, "patch_px": 64, "patches_per_scene": 1}
    whole = {"name": "n", "kind": kind, "data": data | {"sources": sources}}
    return Recipe.parse(whole | {"architecture_options": {"width": 4, "scale": 2}})


def test_pairs_depend_on_their_number_alone() -> None:
    asked, scale = recipe(gold=1.0), 2
    one, other = ScenePairDataset(asked, scale), ScenePairDataset(asked, scale)
    other.pair(9)
    low, high = one.pair(6)
    again = other.pair(6)
    assert (low.shape, high.shape) == ((64, 64), (128, 128))
    assert np.array_equal(low, again[0])
    assert np.array_equal(high, again[1])
    assert not np.array_equal(low, one.pair(2)[0])


def test_simulated_fields_choose_the_checkpoint() -> None:
    asked = recipe(gold=1.0)
    network = build_network(asked.architecture, asked.architecture_options)
    learner = make_learner(network, asked)
    kinds = {pair.kind for pair in learner.validator.pairs}
    assert kinds == {"gold"}
    with torch.inference_mode():
        found = learner.validator.evaluate(network.eval())
    assert np.isfinite(found["gain_db_gold"])


def test_card_states_the_pixel_of_the_instrument() -> None:
    network = build_network("two-scale", {"width": 4, "scale": 2})

    def pixel_nm(**sources: float) -> tuple[float, float] | None:
        return create_model_card(recipe(**sources), network, {}).pixel_size_nm

    assert pixel_nm(superlens=1.0) == (20, 20)
    assert pixel_nm(superlens=1.0, images=1.0) is None
    assert pixel_nm(gold=1.0) == (14.2, 14.2)
    with refused(OptionError, "model-unsuitable"):  # gold's two magnifications
        INSTRUMENTS["gold"](recipe(gold=1.0), 1).pair(0)
