"""A restorer that is told learns its survey and its local part from one scene."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from torch.utils.data import default_collate

from napari_semsr.core import FAULTS, NO_NOISE, OptionError, get_noise
from napari_semsr.models import InformedRestorer
from napari_semsr.simulation import draw_phantom
from napari_semsr.training import scenes
from napari_semsr.training.callbacks import create_model_card
from napari_semsr.training.learner import RestorerLearner, fault_loss
from napari_semsr.training.recipe import DataOptions, Recipe, ScanEntry
from napari_semsr.training.scenes import SceneBatch, SceneDataset, SurveyBatch
from tests.refusals import refused

SMALL = {"widths": [8, 8, 8], "down": [1, 1, 1], "up": [1, 1], "survey_width": 8}
DATA = DataOptions(phantoms=1.0, scene_px=128, patch_px=32, patches_per_scene=1)
RUN = {"batch": 3, "steps": 2, "validate_every": 2, "precision": "fp32", "workers": 0}


def recipe(**changes: object) -> Recipe:
    """Draw scenes of 128 px with faults."""
    informed = {"architecture": "informed", "architecture_options": SMALL}
    made = Recipe(name="told", kind="restorer", data=DATA, **informed, **RUN)
    return made.replace(**changes)


def batch(asked: Recipe, count: int = 3) -> SceneBatch:
    scenes = SceneDataset(asked)
    return SceneBatch(*default_collate([scenes[n] for n in range(count)]))


@pytest.fixture
def scans(tmp_path: Path) -> DataOptions:
    """A slow scan of known grey values, and a fast one of the same place."""
    clear = draw_phantom("particles", (150, 160), seed=1)
    fast = clear + 0.1 * np.random.default_rng(0).standard_normal(clear.shape)
    slow = 40 + 90 * clear
    slow[:10] = np.nan
    tifffile.imwrite(tmp_path / "fast.tif", fast.astype(np.float32))
    tifffile.imwrite(tmp_path / "slow.tif", slow.astype(np.float32))
    both = (ScanEntry(low="fast.tif", high="slow.tif"),)
    placed = {"scans": both, "scans_root": str(tmp_path), "scanned": 1.0}
    return DataOptions(phantoms=1.0, scene_px=128, patch_px=32, **placed)


@pytest.mark.parametrize("part", ["survey", "local", "noise", "sharpener"])
def test_a_part_may_learn_alone(part: str) -> None:
    network = InformedRestorer(**SMALL, sharpener=[8, 8, 8])
    learner = RestorerLearner(network, recipe(learns=part), [])
    scenes = batch(recipe())
    seen = (
        SurveyBatch.from_scenes(scenes, network.survey) if part == "survey" else scenes
    )
    learner.training_step(seen, 0).backward()
    for name, weight in network.named_parameters():
        owner = name.split(".")[0]
        owner = owner if owner in ("survey", "sharpener") else "local"
        learns = owner == part
        if part == "noise":
            learns = owner == "local" or name.startswith("survey.name")
        assert (weight.grad is not None) == learns, name


@pytest.mark.parametrize(("told", "keeps"), [(0.2, True), (80.0, False)])
def test_where_little_noise_is_told_a_network_remains_what_it_was(
    told, keeps, monkeypatch
):
    learner = RestorerLearner(InformedRestorer(**SMALL), recipe(learns="noise"), [])
    seen = batch(recipe())
    seen.faults[:, 0] = np.log(told / 255 + NO_NOISE)
    faults, survey = seen.faults.nan_to_num(), learner.network.survey
    monkeypatch.setattr(survey, "estimate_faults", lambda _: faults)
    losses = []
    for high in (seen.high, 1 - seen.high):
        torch.manual_seed(0)
        loss = learner.training_step(seen._replace(high=high), 0)
        losses.append(loss.item())
    assert (losses[0] == pytest.approx(losses[1], abs=1e-3)) == keeps


def test_networks_that_cannot_learn_are_refused() -> None:
    with refused(OptionError, "options-contradict"):
        RestorerLearner(InformedRestorer(**SMALL), recipe(learns="sharpener"), [])
    with refused(OptionError, "options-contradict"):
        RestorerLearner(torch.nn.Conv2d(1, 1, 3), recipe(), [])


def test_what_is_not_known_costs_nothing_and_too_wide_a_blur_more() -> None:
    faults = torch.zeros(1, len(FAULTS))
    assert fault_loss(faults + 1, torch.full_like(faults, torch.nan)) == 0
    assert fault_loss(faults, faults) == 0
    wide, narrow = (faults + sign * torch.eye(9)[5] for sign in (0.1, -0.1))
    assert fault_loss(wide, faults) > 2 * fault_loss(narrow, faults) > 0


def test_scans_are_cut_where_both_show_the_place(scans: DataOptions) -> None:
    dataset = SceneDataset(recipe(data=scans))
    for place in range(4):
        scene = dataset[place]
        assert scene.high.isfinite().all()
        # the slow scan's greys were fitted to the fast one's
        assert (scene.low - scene.high).mean().abs() < 0.01
        told = scene.faults
        left = float((scene.low - scene.high).std())
        assert get_noise(told.tolist()) == pytest.approx(left, rel=0.01)
        assert told.isnan().sum() == len(FAULTS) - 1
    with refused(OptionError, "image-too-small"):
        SceneDataset(recipe(data=scans.replace(scene_px=160)))[0]


def test_slow_scans_are_clear_scenes(scans: DataOptions) -> None:
    data = scans.replace(scanned=0.0, slow=1.0, soft=0.0, phantoms=0.0)
    scenes = SceneDataset(recipe(data=data))  # there is no other image to cut from
    slow = tifffile.imread(Path(scans.scans_root) / "slow.tif")
    shown = slow[10:-10, 10:-10]  # beyond lies NaN
    assert np.corrcoef(scenes.slow[0].ravel(), shown.ravel())[0, 1] > 0.99


def test_scans_are_among_what_a_card_says_was_learnt_from(scans: DataOptions) -> None:
    for share, names in ((1.0, ["fast.tif", "slow.tif"]), (0.0, [])):
        asked = recipe(data=scans.replace(scanned=share))
        card = create_model_card(asked, InformedRestorer(**SMALL), {})
        assert [entry["name"] for entry in card.training["learnt_from"]] == names


def test_an_averaged_image_keeps_its_structure_and_loses_its_noise() -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:400, :400] / 400
    noisy = (0.2 + 0.3 * (x + y) + rng.normal(0, 0.1, x.shape)).astype(np.float32)
    terms = np.c_[y[:96, :96].ravel(), x[:96, :96].ravel(), np.ones(96**2)]
    for most in (2.0, 8.0):  # as far as it goes
        factor = min(most, 400 / 96)
        made = scenes.crop_averaged(noisy, 96, (most, most), rng).ravel()
        slopes, *_ = np.linalg.lstsq(terms, made, rcond=None)
        slope = np.hypot(*slopes[:2]) / factor  # at any angle
        assert slope == pytest.approx(np.hypot(0.3, 0.3), rel=0.05)
        assert (made - terms @ slopes).std() < 0.1 / factor
