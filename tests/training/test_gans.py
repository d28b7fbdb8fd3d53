"""Kinds with discriminators: they step in turn, and resume exactly."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from napari_semsr.core import CheckpointError, OptionError, SemsrError, run
from napari_semsr.models.checkpoint import build_network, load_model, save_model
from napari_semsr.training import Recipe, fit as loop
from napari_semsr.training.adversarial import PairedGan
from napari_semsr.training.cycle_gan import CycleGan
from tests.refusals import refused
from tests.stopping import stop_at

pytestmark = pytest.mark.usefixtures("one_pair")

BASE = {"name": "tiny", "batch": 1, "steps": 6, "warmup_steps": 0, "decay_steps": 3}
BASE |= {"schedule": "linear", "validate_every": 3, "precision": "fp32", "ema": 0.9}
DRAWN = {"phantoms": 1, "scene_px": 32, "patch_px": 32, "patches_per_scene": 1}
BASE |= {"data": DRAWN, "workers": 0}
NARROW = {"discriminator_options": {"width": 4}}
VGG = {"discriminator": "vgg", "discriminator_options": {"width": 4, "blocks": 2}}
VGG |= {"discriminator_every": 2}
PAIRED = {
    "kind": "paired-gan",
    "architecture": "srgan",
    "architecture_options": {"width": 4, "blocks": 1, "scale": 2},
    "gan": VGG | {"shares": [84, 14, 2], "calibration_steps": 5, "history": 2},
}
TERMS = {"cycle": "ssim", "identity": "mse", "edge_weight": 10}
CYCLE = {
    "kind": "cycle-gan",
    "architecture": "multi-residual",
    "architecture_options": {"width": 4, "blocks": 1},
    "gan": {**NARROW, "history": 2, **TERMS},
}
KNOWN, TRAINED_ON = {"sigma_px": 1.0}, {"size_px": 5, "learnt": True, "noise": 0.01}
KERNEL = {**CYCLE, "architecture": "resnet", "gan": {**NARROW, "kernel": KNOWN}}
BLIND = {**KERNEL, "gan": {**NARROW, "kernel": TRAINED_ON}}
KINDS = {"paired": PAIRED, "cycle": CYCLE, "kernel": KERNEL, "blind": BLIND}
EACH = [
    *("kernel", pytest.param("paired", marks=pytest.mark.broad)),
    pytest.param("cycle", marks=pytest.mark.broad),
]


def recipe(name: str, **changes: Any) -> Recipe:
    return Recipe.parse({**BASE, **KINDS[name], **changes})


def _state(path: Path) -> dict[str, Tensor]:
    return torch.load(path / "last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize("name", EACH)
def test_resumed_run_equals_the_uninterrupted_one(name: str, tmp_path: Path) -> None:
    run(loop.train(recipe(name), tmp_path / "whole"))
    stop_at(loop.train(recipe(name), tmp_path / "cut"), "", 1)
    held = torch.load(tmp_path / "cut" / "last.ckpt", weights_only=True)
    assert held["global_step"] in (1, 2, 3)
    run(loop.train(recipe(name), tmp_path / "cut", resume=True))
    whole, cut = _state(tmp_path / "whole"), _state(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[k], cut[k]) for k in whole)


def test_saved_model_is_the_running_mean(tmp_path: Path) -> None:
    result = run(loop.train(recipe("kernel", steps=3, early_stop=9), tmp_path))
    state, loaded = _state(tmp_path), load_model(result.model)
    weights = loaded.module.state_dict()
    for key, weight in weights.items():
        assert torch.equal(weight, state[f"averaged.{key}"])
    assert not all(torch.equal(w, state[f"network.{k}"]) for k, w in weights.items())
    assert loaded.card.norms


def _learner(name: str, **changes: Any) -> Any:
    made = recipe(name, **changes)
    torch.manual_seed(0)
    network = build_network(made.architecture, made.architecture_options)
    return (PairedGan if name == "paired" else CycleGan)(network, made, [])


def test_shares_come_out() -> None:
    learner = _learner("paired")
    low, high = torch.rand(1, 1, 32, 32), torch.rand(1, 1, 64, 64)
    for step in range(5):
        learner.compute_generator_loss(low, high, step)
    parts = [float(learner.terms[n]) for n in ("adversarial", "content", "tv")]
    shares = [part / sum(parts) for part in parts]
    assert shares == pytest.approx([0.84, 0.14, 0.02], rel=1e-3)
    weights = learner.weights.clone()
    learner.compute_generator_loss(low, 2 * high, 5)
    assert torch.equal(learner.weights, weights)


@pytest.mark.parametrize("name", KINDS)
def test_generators_do_not_teach_discriminators(name: str) -> None:
    learner = _learner(name)
    side = 64 if name == "paired" else 32
    low, high = torch.rand(1, 1, 32, 32), torch.rand(1, 1, side, side)
    learner.compute_generator_loss(low, high, 0).backward()
    assert all(w.grad is None for w in learner.discriminators().parameters())
    assert all(w.grad is not None for w in learner.network.parameters())
    learner.zero_grad()
    learner.compute_discriminator_loss(low, high, 0).backward()
    assert all(w.grad is None for w in learner.generators().parameters())
    assert all(w.grad is not None for w in learner.discriminators().parameters())


def test_run_goes_on_from_a_model_with_all_its_networks(tmp_path):
    run(loop.train(recipe("paired"), tmp_path / "first"))
    networks = load_file(tmp_path / "first" / "networks.safetensors")
    model = load_model(tmp_path / "first" / "tiny.safetensors")
    whole = tmp_path / "whole.safetensors"
    save_model(whole, model.module, model.card, beside=networks, half=True)
    again = recipe("paired", start_from=str(whole))
    learner = loop.make_learner(loop.build_initial_network(again), again)
    for key, value in learner.auxiliary_networks().state_dict().items():
        assert torch.allclose(value, networks[key], atol=1e-3)
    with refused(CheckpointError, "weights-mismatch"):
        learner.load_auxiliary_networks({"judges.0.weight": torch.zeros(1)})


def test_both_images_at_once_give_the_same_loss() -> None:
    learner = _learner("kernel", gan=NARROW)
    learner.judges.eval()  # no dropout
    low, high = torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 32)
    assert learner.at_once
    at_once = learner.compute_generator_loss(low, high, 0).detach()
    learner.at_once = False
    one_by_one = learner.compute_generator_loss(low, high, 0).detach()
    assert float(one_by_one) == pytest.approx(float(at_once), rel=1e-5)


def test_too_deep_a_discriminator_and_a_cycle_that_enlarges_are_refused(tmp_path):
    asked = recipe("cycle", data=DRAWN | {"patch_px": 16})
    values = r"patch-gan .* patch_px = 16: .* 24\."
    with refused(OptionError, "patch-size-unsuitable", match=values):
        next(loop.train(asked, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    with refused(OptionError, "options-contradict"):
        recipe("cycle", gan={**NARROW, "adversarial": "relativistic"})
    enlarging = {"architecture_options": {"width": 4, "scale": 2}}
    with refused(OptionError, "model-unsuitable", match="scale 1, got scale 2"):
        run(loop.train(recipe("cycle", architecture="srgan", **enlarging), tmp_path))


@pytest.mark.broad
def test_state_of_another_recipe_is_refused(tmp_path: Path) -> None:
    run(loop.train(recipe("kernel", stop_after=3), tmp_path))
    with refused(SemsrError, "other-run", match="architecture"):
        run(loop.train(recipe("cycle"), tmp_path, resume=True))
    (tmp_path / "recipe.yaml").write_text("{")
    with refused(SemsrError, "file-damaged"):
        run(loop.train(recipe("kernel"), tmp_path, resume=True))
    (tmp_path / "recipe.yaml").unlink()  # then the state itself tells
    with refused(SemsrError, "other-run"):
        run(loop.train(recipe("cycle"), tmp_path, resume=True))
