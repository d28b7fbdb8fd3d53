"""Kinds with discriminators: they step in turn, and resume exactly."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from napari_semsr.core import CheckpointError, OptionError, SemsrError, run
from napari_semsr.models.checkpoint import build_network, load_model, save_model
from napari_semsr.training import Recipe, adversarial, fit as loop, validation
from napari_semsr.training.adversarial import PairedGan
from napari_semsr.training.cycle_gan import CycleGan
from napari_semsr.training.fit import check_discriminator_patches
from napari_semsr.training.learner import Learner
from napari_semsr.training.validation import ValidationPair
from tests.refusals import refused
from tests.stopping import stop_at

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
    pytest.param(name, marks=() if name == "kernel" else pytest.mark.broad)
    for name in KINDS
]


def recipe(name: str, **changes: Any) -> Recipe:
    """A small recipe of a kind."""
    return Recipe.parse({**BASE, **KINDS[name], **changes})


@pytest.fixture(autouse=True)
def _one_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    grey = np.random.default_rng(0).integers(0, 255, (32, 30)).astype(np.uint8)
    pairs = [ValidationPair("blur", grey // 2, grey)]
    monkeypatch.setattr(validation, "create_validation_pairs", lambda _recipe: pairs)


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


@pytest.mark.parametrize("name", EACH)
def test_saved_model_is_the_running_mean(name: str, tmp_path: Path) -> None:
    result = run(loop.train(recipe(name, steps=3, early_stop=9), tmp_path))
    state = _state(tmp_path)
    loaded = load_model(result.model)
    for key, weight in loaded.module.state_dict().items():
        assert torch.equal(weight, state[f"averaged.{key}"])
    weights = loaded.module.state_dict()
    assert not all(torch.equal(w, state[f"network.{k}"]) for k, w in weights.items())
    assert loaded.card.norms is (name in {"kernel", "blind"})


def _learner(name: str, **changes: Any) -> Any:
    made = recipe(name, **changes)
    torch.manual_seed(0)
    network = build_network(made.architecture, made.architecture_options)
    return (PairedGan if name == "paired" else CycleGan)(network, made, [])


def _shown(learner: Any) -> list[Tensor]:
    """What both generators are given from now on."""
    shown: list[Tensor] = []
    for generator in (learner.network, learner.back):
        generator.register_forward_pre_hook(lambda _, given: shown.append(given[0]))
    return shown


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


def test_total_variation_is_taken_where_shares_ask_for_it_alone(monkeypatch) -> None:
    def refuse(_: Tensor) -> Tensor:
        raise AssertionError

    monkeypatch.setattr(adversarial, "total_variation", refuse)
    low, high = torch.rand(1, 1, 32, 32), torch.rand(1, 1, 64, 64)
    learner = _learner("paired", gan={**PAIRED["gan"], "shares": None})
    assert learner.compute_generator_loss(low, high, 0).isfinite()
    with pytest.raises(AssertionError):
        _learner("paired").compute_generator_loss(low, high, 0)


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


def test_content_alone_counts_at_first():
    learner = _learner("paired", gan={**PAIRED["gan"], "content_only_steps": 2})
    low, high = torch.rand(1, 1, 32, 32), torch.rand(1, 1, 64, 64)
    loss = learner.compute_generator_loss(low, high, 1)
    expected = float((learner.network(low) - high).abs().mean().detach())
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    assert set(learner.terms) == {"content"}
    learner.compute_generator_loss(low, high, 2)
    assert set(learner.terms) > {"adversarial", "content", "tv"}


def test_generators_copy_what_they_are_to_make_at_first() -> None:
    learner = _learner("cycle", gan={**CYCLE["gan"], "content_only_steps": 1})
    low, high = torch.rand(2, 1, 1, 32, 32)
    learner.compute_generator_loss(low, high, 0)
    assert sorted(learner.terms) == ["cycle", "edge", "identity"]
    shown = _shown(learner)
    learner.compute_generator_loss(low, high, 0)
    assert shown[0].equal(high)
    assert shown[1].equal(low)
    shown.clear()
    learner.compute_generator_loss(low, high, 1)
    assert "adversarial" in learner.terms
    assert any(image.equal(low) for image in shown[:2])


def test_generators_may_begin_as_a_weak_blur_and_its_inverse() -> None:
    gan = {**CYCLE["gan"], "content_only_steps": 1, "start_sigma_px": 0.7}
    learner = _learner("cycle", gan=gan)
    low, high = torch.rand(2, 1, 1, 32, 32)
    shown = _shown(learner)
    learner.compute_generator_loss(low, high, 0)
    weak, clear = shown
    assert clear.equal(high)
    line = torch.exp(-torch.arange(-3.0, 4).square() / 2 / 0.7**2)
    kernel = torch.outer(line, line)[None, None]
    wanted = torch.nn.functional.conv2d(high, kernel / kernel.sum())
    torch.testing.assert_close(weak[..., 3:-3, 3:-3], wanted)
    shown.clear()
    learner.compute_generator_loss(low, high, 1)
    assert any(image.equal(low) for image in shown[:2])


def test_share_of_a_round_trip_reaches_the_way_back() -> None:
    alone = {"adversarial_weight": 0.0, "identity_weight": 0.0, "edge_weight": 0.0}
    low, high = torch.rand(2, 1, 1, 32, 32)
    options = {"width": 4, "blocks": 1, "dropout": 0}
    found = []
    for share in (0.0, 0.25, 1.0):
        torch.manual_seed(0)
        gan = {**CYCLE["gan"], **alone, "back_share": share}
        learner = _learner("cycle", gan=gan, architecture_options=options)
        loss = learner.compute_generator_loss(low, high, 0)
        loss.backward()
        grown = torch.cat([p.grad.flatten() for p in learner.back.parameters()])
        found.append((float(loss.detach()), grown))
    losses, (none, some, all_of_it) = zip(*found, strict=True)
    assert losses == pytest.approx([losses[0]] * 3)
    assert torch.allclose(some, 0.75 * none + 0.25 * all_of_it, atol=1e-5)
    assert float((none - all_of_it).abs().max()) > 1e-4


def test_noise_is_passed_on_halfway_alone() -> None:
    low, high = torch.rand(2, 1, 1, 32, 32)
    learner = _learner("cycle", gan={**CYCLE["gan"], "cycle_noise": 0.5})
    seen: dict[str, list[Tensor]] = {"network": [], "back": []}
    for name, given in seen.items():
        getattr(learner, name).register_forward_pre_hook(
            lambda _module, images, given=given: given.append(images[0].detach())
        )
    learner.compute_generator_loss(low, high, 0)
    assert seen["network"][0].equal(low)
    passed = seen["network"][-1]
    coarse = learner.back(high).detach()
    assert 0.4 < float((passed - coarse).std()) < 0.6


@pytest.mark.parametrize(
    "name", ["paired", pytest.param("cycle", marks=pytest.mark.broad)]
)
def test_run_goes_on_from_a_model_with_all_its_networks(name, tmp_path):
    run(loop.train(recipe(name), tmp_path / "first"))
    networks = load_file(tmp_path / "first" / "networks.safetensors")
    model = load_model(tmp_path / "first" / "tiny.safetensors")
    whole = tmp_path / "whole.safetensors"
    save_model(whole, model.module, model.card, beside=networks, half=True)
    again = recipe(name, start_from=str(whole))
    learner = loop.make_learner(loop.build_initial_network(again), again)
    for key, value in learner.auxiliary_networks().state_dict().items():
        assert torch.allclose(value, networks[key], atol=1e-3)
    for key, value in learner.network.state_dict().items():
        assert torch.allclose(value, model.module.state_dict()[key], atol=1e-3)
    with refused(CheckpointError, "weights-mismatch"):
        learner.load_auxiliary_networks({"judges.0.weight": torch.zeros(1)})


def test_learnt_kernel_is_taught_by_spectrum_and_discriminator() -> None:
    learner = _learner("blind")
    assert set(learner.judges) == {"high", "low"}
    low, high = torch.rand(2, 1, 32, 32), torch.rand(2, 1, 32, 32)
    learner.compute_generator_loss(low, high, 0).backward()
    assert "spectrum" in learner.terms
    (raised,) = learner.back.parameters()
    assert raised.grad is not None
    assert float(raised.grad.abs().max()) > 0


def test_both_images_at_once_give_the_same_loss() -> None:
    learner = _learner("kernel", gan=NARROW)
    learner.judges.eval()  # no dropout
    low, high = torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 32)
    assert learner.at_once
    at_once = learner.compute_generator_loss(low, high, 0).detach()
    learner.at_once = False
    one_by_one = learner.compute_generator_loss(low, high, 0).detach()
    assert float(one_by_one) == pytest.approx(float(at_once), rel=1e-5)


def test_batch_norms_remember_the_images_that_the_network_is_for() -> None:
    learner = _learner("cycle")
    entry = next(m for m in learner.network.modules() if isinstance(m, nn.BatchNorm2d))
    seen: list[Tensor] = []
    hook = entry.register_forward_pre_hook(lambda _, x: seen.append(x[0].detach()))
    low, high = 0.1 * torch.rand(1, 1, 32, 32), 1 - 0.1 * torch.rand(1, 1, 32, 32)
    learner.compute_generator_loss(low, high, 0)
    hook.remove()
    assert len(seen) == 3  # the degraded, the clear to stay, those made of the clear
    assert entry.momentum == pytest.approx(0.1)
    expected = 0.1 * seen[0].mean((0, 2, 3))
    assert torch.allclose(entry.running_mean, expected, atol=1e-6)
    assert not torch.allclose(entry.running_mean, 0.1 * seen[1].mean((0, 2, 3)))


def test_too_deep_a_discriminator_and_a_cycle_that_enlarges_are_refused(tmp_path):
    asked = recipe("cycle", data=DRAWN | {"patch_px": 16})
    values = r"patch-gan .* patch_px = 16: .* 24\."
    with refused(OptionError, "patch-size-unsuitable", match=values):
        next(loop.train(asked, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    enlarging = {"architecture_options": {"width": 4, "scale": 2}}
    with refused(OptionError, "model-unsuitable", match="scale 1, got scale 2"):
        run(loop.train(recipe("cycle", architecture="srgan", **enlarging), tmp_path))
    before = torch.get_rng_state()
    check_discriminator_patches(asked, 2, 4)  # 32 px are judged
    check_discriminator_patches(
        asked.replace(data=asked.data.replace(patch_px=24)), 1, 4
    )
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.broad
def test_state_of_another_recipe_is_refused(tmp_path: Path) -> None:
    run(loop.train(recipe("kernel", stop_after=3), tmp_path))
    with refused(SemsrError, "other-run", match="architecture"):
        run(loop.train(recipe("cycle"), tmp_path, resume=True))
    (tmp_path / "recipe.yaml").unlink()  # then the state itself tells
    with refused(SemsrError, "other-run"):
        run(loop.train(recipe("cycle"), tmp_path, resume=True))


@pytest.mark.broad
def test_loss_that_is_not_finite_keeps_the_last_good_state(tmp_path: Path) -> None:
    wild = recipe("cycle", learning_rate=1e30, validate_every=6)
    run(loop.train(recipe("cycle", stop_after=3), tmp_path))
    good = _state(tmp_path)
    with refused(SemsrError, "training-diverged"):
        run(loop.train(wild, tmp_path, resume=True))
    kept = _state(tmp_path)
    assert all(torch.equal(good[k], kept[k]) for k in good)


@pytest.mark.broad
@pytest.mark.parametrize("name", KINDS)
def test_mixed_precision_trains_and_leaves_fp32_weights(name, tmp_path):
    changed = recipe(name, precision="bf16", steps=2, validate_every=2)
    result = run(loop.train(changed, tmp_path))
    held = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    floating = [v for v in held.values() if v.is_floating_point()]
    assert {v.dtype for v in floating} == {torch.float32}
    assert load_model(result.model).card.name == "tiny"


@pytest.mark.parametrize("name", ["paired", "cycle"])
def test_best_model_is_one_that_discriminators_taught(name, tmp_path, monkeypatch):
    base = KINDS[name]["gan"]
    short = recipe(
        name, gan={**base, "content_only_steps": 2}, steps=4, validate_every=1
    )
    # as by pixel errors it is: the longer the discriminators teach, the worse
    monkeypatch.setattr(
        Learner, "validate_pairs", lambda self: {"gain_db": -float(self.global_step)}
    )
    monkeypatch.setattr(CycleGan, "validate_pairs", Learner.validate_pairs)
    result = run(loop.train(short, tmp_path))
    assert result.validation["step"] == 3
