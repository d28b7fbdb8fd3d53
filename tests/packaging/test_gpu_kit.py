"""The kit for a card: its steps are the package's own, whatever lies on the card."""

import importlib
import json
import os
import sys
import tarfile
from pathlib import Path

import pytest
import torch
import yaml

from napari_semsr.core.progress import run
from napari_semsr.models import list_bundled_models, load_model, load_training_networks
from napari_semsr.training import Recipe, train
from napari_semsr.training.run_folder import STATE
from tests.children import SLOW_LIMIT_S, run as run_child
from tests.packaging.test_campaign import RECIPE

pytestmark = pytest.mark.broad

ROOT = Path(__file__).resolve().parents[2]
# Rounding differs, and of a bias before a norm the gradient is rounding alone.
CLOSE = 5e-3  # of images; one step less makes 1.4e-2


@pytest.fixture
def steps(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("gpu.train")


def test_steps_are_those_of_the_package(steps, tmp_path):
    said = yaml.safe_load(RECIPE) | {"batch": 2, "warmup_steps": 2, "decay_steps": 3}
    said["gan"] |= {"edge_weight": 1, "history": 3}
    said["gan"]["discriminator_options"]["dropout"] = 0
    recipe = Recipe.parse(said | {"validate_every": 6})
    run(train(recipe, tmp_path / "run"))
    state = torch.load(tmp_path / "run" / STATE, weights_only=True)["state_dict"]

    banks = recipe.data.replace(bank_folder=str(tmp_path / "run" / "banks"))
    recipe = recipe.replace(data=banks)
    learner = steps.CardGan(steps.build_initial_network(recipe), recipe, []).train()
    learner.equip(recipe)
    cache = steps.SceneCache.open(recipe, 1, lambda _done, _count: None)
    stepper = steps.Stepper(
        learner, recipe, steps.CachedBatches(cache, recipe, 0), "fp32"
    )
    for first, count in ((0, 1), (1, 5)):  # copies alone, then the cycle
        learner.step = first
        stepper.load(stepper.chances(first, count))
        stepper.advance(count)
    image = torch.rand(1, 1, 48, 48)
    for name, network in (("network.", learner.network), ("back.", learner.back)):
        shown = network(image)
        own = {k.removeprefix(name): v for k, v in state.items() if k.startswith(name)}
        network.load_state_dict(own)
        torch.testing.assert_close(shown, network(image), rtol=0, atol=CLOSE)
    judged, count = state["judged"], state["histories.high.count"]
    torch.testing.assert_close(learner.judged, judged, rtol=0, atol=CLOSE)
    for name, history in learner.histories.items():
        images = state[f"histories.{name}.images"]
        torch.testing.assert_close(history.images, images, rtol=0, atol=CLOSE)
        assert history.filled == count
    del stepper, cache  # and their files


KEYS = {
    "right": {"limits", "side_px", "arithmetic", "tiles", "too_large", "two_processes"},
    "fast": {"de_haan", *(f"models, {name}" for name in list_bundled_models())},
    "adapt": {"place"},
    "train": {"sun", "gao-a"},
}
ALWAYS = {
    *("part", "dry", "device", "torch", "cuda", "python", "cores", "failures"),
    *("seconds", "cudnn_allow_tf32_by_default"),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """What the kit wrote without a card; `.ci/run` has done that before."""
    if made := os.environ.get("SEMSR_KIT_RESULTS"):
        return Path(made)
    folder = tmp_path_factory.mktemp("kit")
    kit = ROOT / "scripts" / "gpu_kit.sh"
    env = os.environ | {"PYTHON": sys.executable}
    done = run_child([kit, folder, "--dry"], cwd=ROOT, env=env, timeout=SLOW_LIMIT_S)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("part", KEYS)
def test_each_part_writes_its_results(results, part):
    told = json.loads((results / f"{part}.json").read_text())
    assert set(told) == KEYS[part] | ALWAYS
    assert told["failures"] == {}
    assert (told["part"], told["dry"]) == (part, True)


def test_results_are_right_without_a_card(results):
    told = json.loads((results / "right.json").read_text())
    for name, found in told["arithmetic"].items():
        assert found["fp32"]["right"], name
    assert all(found["right"] for found in told["tiles"].values())
    assert told["too_large"]["right"]
    assert told["two_processes"]["right"]


def test_states_are_those_of_the_campaign(results, tmp_path):
    told = json.loads((results / "train.json").read_text())
    for name in ("sun", "gao-a"):
        with tarfile.open(results / f"{name}.tar") as packed:
            packed.extractall(tmp_path, filter="data")
        kept = json.loads((tmp_path / name / "kept.json").read_text())
        assert kept["steps"] == told[name]["steps_in_all"]
        assert kept["steps"] == told[name]["steps_before"] + told[name]["steps_made"]
        assert kept["state"] == "waiting"
        beside = load_training_networks(tmp_path / name / "last.safetensors")
        assert {key.partition(".")[0] for key in beside} == {"back", "judges"}
        for which in ("best", "last"):
            assert load_model(tmp_path / name / f"{which}.safetensors")
