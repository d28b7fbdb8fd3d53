"""Tests of scenes that are made ahead."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import napari_semsr as semsr
from napari_semsr.core.errors import OptionError, WriteError
from napari_semsr.training.batches import CachedBatches, SceneCache, TrainingData
from napari_semsr.training.patches import ScenePairDataset
from napari_semsr.training.recipe import Recipe
from napari_semsr.training.scenes import SurveyBatch
from tests.refusals import refused

COUNT = 20
TINY = {"width": 4, "fine_blocks": 1, "dilations": [1]}


def recipe(folder: Path, kind: str = "supervised", **data: object) -> Recipe:
    scenes = {"phantoms": 1.0, "scene_px": 64, "patch_px": 32, "bank": COUNT}
    scenes |= {"bank_folder": str(folder), **data}
    asked = {"name": "n", "kind": kind, "batch": 4, "steps": 6, "workers": 0}
    return Recipe.parse(asked | {"data": scenes})


def opened(asked: Recipe, scale: int = 1) -> SceneCache:
    return SceneCache.open(asked, scale, lambda _done, _count: None)


def test_bank_holds_the_scenes_that_a_run_without_it_would_see(tmp_path: Path) -> None:
    asked = recipe(tmp_path)
    bank = opened(asked, 2)
    low, high = ScenePairDataset(asked, 2).pair(7)
    np.testing.assert_allclose(bank.low[7], low, atol=2e-3)
    np.testing.assert_allclose(bank.high[7], high, atol=2e-3)


def test_bank_of_a_recipe_lies_in_the_folder_of_the_run(tmp_path):
    data = {"phantoms": 1.0, "scene_px": 32, "patch_px": 32, "bank": 2}
    asked = {"name": "n", "batch": 2, "steps": 1, "data": data, "workers": 0}
    asked |= {"warmup_steps": 0, "decay_steps": 0, "architecture_options": TINY}
    (tmp_path / "run").mkdir()
    (tmp_path / "away").mkdir()
    (tmp_path / "run" / "link").symlink_to(tmp_path / "away")
    path = tmp_path / "run" / "recipe.yaml"
    for folder in ("link", "../banks"):
        outside = asked | {"data": data | {"bank_folder": folder}}
        path.write_text(yaml.safe_dump(outside))
        with refused(OptionError, "outside-folder"):
            semsr.train(path, tmp_path / "run")
    assert not any((tmp_path / "away").iterdir())
    path.write_text(yaml.safe_dump(asked))
    semsr.train(path, tmp_path / "other")
    assert len(list((tmp_path / "other").glob("banks/*/bank.json"))) == 1


def test_making_that_is_stopped_or_cannot_begin_leaves_nothing_behind(tmp_path):
    def stop(_done: int, _count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SceneCache.open(recipe(tmp_path), 1, stop)
    assert not list(tmp_path.iterdir())
    blocked = tmp_path / "file"
    blocked.touch()
    with refused(WriteError, "not-writable", match=r"data\.bank"):
        opened(recipe(blocked))


def test_batches_of_a_step_are_the_same_whenever_it_is_reached(tmp_path: Path) -> None:
    asked = recipe(tmp_path)
    whole = list(CachedBatches(opened(asked), asked, 0))
    rest = CachedBatches(opened(asked), asked, 4)
    assert len(whole) == len(rest) == asked.steps
    for a, b in zip(whole[4:], rest, strict=True):
        assert torch.equal(a.low, b.low)
        assert torch.equal(a.high, b.high)
    assert not torch.equal(whole[0].low, whole[1].low)


def test_patches_lie_at_one_place_in_both(tmp_path: Path) -> None:
    clean = {"blur": 1, "fog": 0, "hybrid": 0, "sigma_px": (0.01, 0.01), "noisy": 0}
    given = {**recipe(tmp_path).model_dump(), "degradations": clean | {"near_paper": 0}}
    asked = Recipe.parse(given)
    batch = CachedBatches(opened(asked), asked, 0).sample_batch(0)
    assert batch.low.shape == (2, 2, 1, 32, 32)
    torch.testing.assert_close(batch.low, batch.high, atol=0.02, rtol=0)


def test_unpaired_patches_are_of_another_scene(tmp_path: Path) -> None:
    asked = recipe(tmp_path, "cycle-gan", patch_px=64, patches_per_scene=1)
    bank = opened(asked)
    batch = CachedBatches(bank, asked, 0).sample_batch(0)
    for low, high in zip(batch.low[:, 0, 0], batch.high[:, 0, 0], strict=True):
        near = [np.abs(low.numpy() - own).max() for own in bank.low]
        truth = bank.high[int(np.argmin(near))].astype(np.float32)
        assert abs(np.corrcoef(truth.ravel(), high.numpy().ravel())[0, 1]) < 0.9


def test_a_survey_learns_from_statistics_made_ahead(tmp_path: Path) -> None:
    asked = recipe(tmp_path, "restorer", scene_px=128).replace(learns="survey")
    ahead = TrainingData(asked, scale=1).train_dataloader()
    data = asked.data.replace(bank=0)
    drawn = TrainingData(asked.replace(data=data), scale=1).train_dataloader()
    batch, first = (SurveyBatch(*next(iter(some))) for some in (ahead, drawn))
    assert batch.statistics.shape == first.statistics.shape == (2, 21, 8, 8)
    assert batch.contrast.shape == batch.log_gain.shape == (2, 1, 8, 8)
    own = np.load(next(tmp_path.glob("*/statistics.npy")))
    np.testing.assert_allclose(own[:2], first.statistics, rtol=1e-5, atol=1e-7)
