"""Trainings of hours: what is kept of a run is where a lost one goes on."""

import importlib.util
import json
from pathlib import Path

import pytest
import yaml

from napari_semsr.core.progress import run
from napari_semsr.models import load_model, load_training_networks
from napari_semsr.training import Recipe, load_recipe, train

pytestmark = pytest.mark.broad

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "campaign.py"
RECIPE = """
name: tiny
kind: cycle-gan
architecture: resnet
architecture_options: {width: 4, blocks: 1, dropout: 0}
data: {phantoms: 1, scene_px: 48, patch_px: 32, patches_per_scene: 1, bank: 4}
gan:
  discriminator: patch-gan
  discriminator_options: {width: 4}
  content_only_steps: 1
  history: 2
batch: 1
steps: 6
warmup_steps: 0
decay_steps: 5
ema: 0.9
validate_every: 2
precision: fp32
workers: 0
seed: 5
"""


@pytest.fixture
def campaign(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("campaign", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "FOLDER", tmp_path / "runs")
    monkeypatch.setattr(module, "KEPT", tmp_path / "kept")
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "tiny.yaml").write_text(RECIPE)
    return module


def settled(training) -> Recipe:
    training.folder.mkdir(parents=True, exist_ok=True)
    path = training.folder / "recipe.yaml"
    path.write_text(training.settled())
    return load_recipe(path)


def test_a_lost_run_goes_on_from_what_was_kept(campaign, tmp_path):
    training = campaign.Training("tiny.yaml", 2.0)
    recipe = settled(training)
    assert recipe.steps == 6
    assert Path(recipe.data.bank_folder).is_relative_to(training.run)
    run(train(recipe.replace(stop_after=4), training.run))
    training.write(seconds=3600.0)
    assert campaign.Training("tiny.yaml", 2.0).share() == 0.5
    campaign.Training("tiny.yaml", 2.0).keep()
    told = json.loads((tmp_path / "kept" / "tiny" / "kept.json").read_text())
    assert (told["steps"], told["seconds"]) == (4, 3600.0)
    for name in ("best", "last"):
        assert load_model(tmp_path / "kept" / "tiny" / f"{name}.safetensors")
    beside = load_training_networks(tmp_path / "kept" / "tiny" / "last.safetensors")
    assert {name.partition(".")[0] for name in beside} == {"back", "judges"}
    # as it was kept, so is the status of a run that is still there
    assert "judged at step 4" in campaign.Training("tiny.yaml", 2.0).status()

    (tmp_path / "runs").rename(tmp_path / "lost")
    again = campaign.Training("tiny.yaml", 2.0)
    assert again.share() == 0.5
    left = settled(again)
    assert (left.steps, left.decay_steps, left.seed) == (2, 2, 9)
    assert left.gan.content_only_steps == 0
    assert Path(left.start_from) == tmp_path / "kept" / "tiny" / "last.safetensors"
    assert run(train(left, again.run)).steps == 2
    assert "judged at step 6" in campaign.Training("tiny.yaml", 2.0).status()


def test_every_recipe_of_the_list_is_there():
    folder = SCRIPT.parents[1] / "recipes"
    entries = yaml.safe_load(SCRIPT.with_suffix(".yaml").read_text())
    for entry in entries:
        assert load_recipe(folder / entry["recipe"]).minutes is None
        assert entry["hours"] > 0
