"""The training loop learns, resumes exactly, and stops when told."""

from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as lightning
import torch

from napari_semsr.core import CheckpointError, OptionError, Progress, WriteError, run
from napari_semsr.models.checkpoint import load_model
from napari_semsr.training import fit as loop
from napari_semsr.training.recipe import DataOptions, Recipe
from napari_semsr.training.validation import compute_affine_psnr_db, restore_field
from tests.refusals import refused
from tests.stopping import stop_at

pytestmark = pytest.mark.usefixtures("one_pair")

SCHEDULE = {"steps": 6, "warmup_steps": 1, "decay_steps": 2, "validate_every": 3}
RECIPE = Recipe(
    name="tiny",
    architecture_options={"width": 4, "fine_blocks": 1, "dilations": [1]},
    data=DataOptions(phantoms=1.0, scene_px=48, patch_px=32, patches_per_scene=2),
    **{"batch": 2, "precision": "fp32", "workers": 0, **SCHEDULE},
)


def _weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path / "last.ckpt", weights_only=True)["state_dict"]


def test_run_leaves_a_model_a_curve_and_a_state(tmp_path: Path) -> None:
    seen: list[Progress] = []
    result = run(loop.train(RECIPE, tmp_path / "run"), seen.append)
    assert result.steps == seen[-1].done == seen[-1].total == 6
    rows = (tmp_path / "run" / "curve.csv").read_text().splitlines()
    assert [r.split(",")[0] for r in rows] == ["step", "3", "6"]
    card = load_model(result.model).card
    assert card.name == "tiny"
    assert card.receptive_field % card.stride == 0
    assert 0 <= card.effective_field["0.01"] <= card.receptive_field > 0


def test_resumed_run_equals_the_uninterrupted_one(tmp_path: Path) -> None:
    run(loop.train(RECIPE, tmp_path / "whole"))
    stop_at(loop.train(RECIPE, tmp_path / "cut"), "", 3)
    saved = torch.load(tmp_path / "cut" / "last.ckpt", weights_only=True)
    assert int(saved["global_step"]) >= 3
    result = run(loop.train(RECIPE, tmp_path / "cut", resume=True))
    assert result.steps == 6
    whole, cut = _weights(tmp_path / "whole"), _weights(tmp_path / "cut")
    assert all(torch.equal(whole[k], cut[k]) for k in whole)


def test_affine_psnr_ignores_gain_and_offset_and_restoring_keeps_shapes(rng):
    truth = rng.integers(0, 255, (20, 20)).astype(np.uint8)
    assert compute_affine_psnr_db(truth * 0.3 + 40, truth) > 100
    noisy = truth + rng.normal(0, 5, truth.shape)
    expected = 10 * np.log10(255**2 / 25)
    assert compute_affine_psnr_db(noisy, truth) == pytest.approx(expected, abs=0.5)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3, padding=1))
    assert restore_field(network, rng.normal(100, 10, (13, 18))).shape == (13, 18)


def test_start_from_takes_over_what_fits(tmp_path: Path) -> None:
    first = run(loop.train(RECIPE, tmp_path / "first")).model
    wider = {**RECIPE.architecture_options, "dilations": [1, 1]}
    how = {"architecture_options": wider, "steps": 1, "learning_rate": 1e-12}
    second = RECIPE.replace(start_from=str(first), **how)
    grown = load_model(run(loop.train(second, tmp_path / "second")).model).module
    old = load_model(first).module
    image = torch.rand(1, 1, 32, 32)
    assert torch.allclose(grown(image), old(image), atol=1e-5)
    card = (tmp_path / "second" / "tiny.safetensors").read_bytes()
    assert str(tmp_path).encode() not in card


def test_run_closed_at_its_first_word_leaves_folders_as_they_were(tmp_path):
    (tmp_path / "run").mkdir()
    for folder in (tmp_path / "run", tmp_path / "runs" / "mine"):
        job = loop.train(RECIPE, folder)
        next(job)
        job.close()
    assert list(tmp_path.rglob("*")) == [tmp_path / "run"]


def test_full_disk_is_said_and_the_last_state_kept(tmp_path, monkeypatch):
    run(loop.train(RECIPE.replace(stop_after=3), tmp_path))
    good = (tmp_path / "last.ckpt").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lightning.Trainer, "save_checkpoint", full)
    with refused(WriteError, "not-writable"):
        run(loop.train(RECIPE, tmp_path, resume=True))
    assert (tmp_path / "last.ckpt").read_bytes() == good
    assert not (tmp_path / "last.ckpt.partial").exists()


def test_refusals_leave_the_run_as_it_is(tmp_path: Path) -> None:
    run(loop.train(RECIPE.replace(stop_after=3), tmp_path))
    (tmp_path / "notes.txt").touch()
    held = {item.name: item.read_bytes() for item in tmp_path.iterdir()}
    odd = RECIPE.replace(data=RECIPE.data.replace(patch_px=30))
    with refused(OptionError, "patch-size-unsuitable", match=r"4 px.*30.*28"):
        run(loop.train(odd, tmp_path, overwrite=True))
    with refused(CheckpointError, "other-run", match="`name=tiny`"):
        run(loop.train(RECIPE.replace(name="other"), tmp_path, resume=True))
    with refused(WriteError, "output-exists"):
        run(loop.train(RECIPE, tmp_path))
    assert {item.name: item.read_bytes() for item in tmp_path.iterdir()} == held
    (tmp_path / "last.ckpt").write_bytes(b"nothing of use")
    with refused(CheckpointError, "file-damaged", match=r"last\.ckpt"):
        run(loop.train(RECIPE, tmp_path, resume=True))
    run(loop.train(RECIPE.replace(stop_after=3), tmp_path, overwrite=True))
    assert len((tmp_path / "curve.csv").read_text().splitlines()) == 2
    assert (tmp_path / "notes.txt").exists()


def test_time_spent_before_a_stop_counts(tmp_path: Path) -> None:
    asked = RECIPE.replace(minutes=10.0, stop_after=3)
    run(loop.train(asked, tmp_path / "run"))
    assert 0 < float(_weights(tmp_path / "run")["spent"]) < 600
