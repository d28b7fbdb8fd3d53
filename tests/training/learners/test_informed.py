"""A restorer that is told learns its survey and its local part from one scene."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from torch.utils.data import default_collate

from napari_semsr.core import FAULTS, OptionError, noise_of, run
from napari_semsr.models import InformedRestorer, load_model
from napari_semsr.simulation import FaultRanges, draw
from napari_semsr.training import fit as loop
from napari_semsr.training.data.scenes import SceneDataset, Scenes, load_clear
from napari_semsr.training.learners.supervised import Supervised, naming_loss, rmse
from napari_semsr.training.recipe import DataOptions, ImageEntry, Recipe, ScanEntry

SMALL = {"widths": [8, 8, 8], "down": [1, 1, 1], "up": [1, 1], "survey_width": 8}


def recipe(**changes: object) -> Recipe:
    """Draw scenes of 128 px with faults."""
    data = DataOptions(phantoms=1.0, scene_px=128, patch_px=32, patches_per_scene=1)
    made = Recipe(
        name="told",
        loss="rmse",
        architecture="informed",
        architecture_options=SMALL,
        data=data,
        faults=FaultRanges(),
        batch=3,
        steps=2,
        validate_every=2,
        precision="fp32",
        workers=0,
    )
    return made.replace(**changes)


def batch(asked: Recipe, count: int = 3) -> Scenes:
    """Gather scenes as a loader does."""
    scenes = SceneDataset(asked)
    return Scenes(*default_collate([scenes[n] for n in range(count)]))


@pytest.fixture
def scans(tmp_path: Path) -> DataOptions:
    """A slow scan of known grey values, and a fast one of the same place."""
    clear = draw("particles", (150, 160), seed=1)
    fast = clear + 0.1 * np.random.default_rng(0).standard_normal(clear.shape)
    slow = 40 + 90 * clear
    slow[:10] = np.nan
    tifffile.imwrite(tmp_path / "fast.tif", fast.astype(np.float32))
    tifffile.imwrite(tmp_path / "slow.tif", slow.astype(np.float32))
    return DataOptions(
        phantoms=1.0,
        scene_px=128,
        patch_px=32,
        scans=(ScanEntry(low="fast.tif", high="slow.tif"),),
        scans_root=str(tmp_path),
        scanned=1.0,
    )


def test_every_part_learns_from_a_batch() -> None:
    torch.manual_seed(0)
    asked = recipe()
    network = InformedRestorer(**SMALL)
    for weight in network.parameters():  # heads that are zero let nothing pass
        torch.nn.init.normal_(weight, std=0.05)
    loss = Supervised(network, asked, []).training_step(batch(asked), 0)
    loss.backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
    reached = [bool(w.grad.any()) for w in network.survey.parameters()]
    assert np.mean(reached) > 0.9


def test_what_is_not_known_costs_nothing() -> None:
    scenes = batch(recipe())
    network = InformedRestorer(**SMALL)
    found = network.look(scenes.low)
    unknown = scenes._replace(faults=torch.full_like(scenes.faults, torch.nan))
    assert naming_loss(found, unknown) == 0
    right = found._replace(condition=torch.nan_to_num(scenes.faults))
    assert naming_loss(right, scenes) == 0
    assert naming_loss(found, scenes) > 0


def test_patches_weigh_alike_whatever_their_error() -> None:
    high = torch.zeros(2, 1, 8, 8)
    made = torch.full_like(high, 0.3)
    made[1] = 0.03
    made.requires_grad_()
    rmse(made, high).backward()
    first, second = made.grad.flatten(1).norm(dim=1)
    assert first == pytest.approx(float(second), rel=0.02)


def test_scans_are_cut_where_both_show_the_place(scans: DataOptions) -> None:
    dataset = SceneDataset(recipe(data=scans))
    for place in range(4):
        scene = dataset[place]
        assert scene.high.isfinite().all()
        # the slow scan's greys were fitted to the fast one's
        assert (scene.low - scene.high).mean().abs() < 0.01
        told = scene.faults
        left = float((scene.low - scene.high).std())
        assert noise_of(told.tolist()) == pytest.approx(left, rel=0.01)
        assert told.isnan().sum() == len(FAULTS) - 1


def test_scans_too_small_for_a_scene_are_refused(scans: DataOptions) -> None:
    dataset = SceneDataset(recipe(data=scans.replace(scene_px=160)))
    with pytest.raises(OptionError, match=r"lower data\.scene_px"):
        dataset[0]


def test_an_image_is_reduced_before_its_noise_is_learnt(tmp_path: Path) -> None:
    noisy = np.random.default_rng(1).normal(100, 20, (96, 120)).astype(np.float32)
    tifffile.imwrite(tmp_path / "noisy.tif", noisy)
    clear = load_clear(tmp_path, ImageEntry(file="noisy.tif", shrink=3))
    assert clear.shape == (32, 40)


def test_a_run_leaves_a_model_that_tells_faults_apart(tmp_path: Path) -> None:
    run(loop.train(recipe(), tmp_path / "run"))
    made = load_model(tmp_path / "run" / "told.safetensors")
    assert isinstance(made.module, InformedRestorer)
    assert made.card.stride == 16
