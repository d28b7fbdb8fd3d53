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
    asked = recipe(learns=part, start_from="sem-restore")
    learner = RestorerLearner(network, asked, [])
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
            learns = owner == "local" or name.startswith("survey.name.4")
        assert (weight.grad is not None) == learns, name


@pytest.mark.parametrize(("noise", "keeps"), [(0.2, True), (80.0, False)])
def test_where_there_is_little_noise_a_network_remains_what_it_was(
    noise, keeps, monkeypatch
):
    asked = recipe(learns="noise", start_from="sem-restore")
    learner = RestorerLearner(InformedRestorer(**SMALL), asked, [])
    seen = batch(recipe())
    seen.faults[:, 0] = np.log(noise / 255 + NO_NOISE)
    faults, survey = seen.faults.nan_to_num(), learner.network.survey
    monkeypatch.setattr(survey, "estimate_faults", lambda _: faults)

    def measure_loss(**changes: torch.Tensor) -> float:
        torch.manual_seed(0)
        return learner.training_step(seen._replace(**changes), 0).item()

    first, inverted = measure_loss(), measure_loss(high=1 - seen.high)
    assert (inverted == pytest.approx(first, abs=1e-3)) == keeps
    learner.network.local.head.bias.data.add_(0.1)
    assert measure_loss() > first + 1  # the target did not move with the network
    learner.to("meta").on_train_start()
    assert learner.former[0].local.head.bias.is_meta


def test_a_truth_is_averaged_below_noise_stronger_than_its_grain(monkeypatch, tmp_path):
    given = DATA.model_dump() | {"root": str(tmp_path), "train": [{"file": "one.tif"}]}
    data = DataOptions(**given | {"phantoms": 0, "soft": 0, "averaged": (1.2, 1.5)})
    counts, crop = [], scenes.crop_averaged

    def count(*parts):
        counts[-1] += 1
        return crop(*parts)

    monkeypatch.setattr(scenes, "crop_averaged", count)
    for grain in (0.0, 0.5):
        image = draw_phantom("particles", (200, 200), seed=1)
        image += grain * np.random.default_rng(0).standard_normal(image.shape)
        tifffile.imwrite(tmp_path / "one.tif", image.astype(np.float32))
        counts.append(0)
        batch(recipe(data=data, faults={"noisy": 1.0}), 8)
    assert 8 >= counts[0] > counts[1]


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
