"""A run that cannot start leaves an earlier one alone, and goes on with its own."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage import io

from napari_semsr.core import CheckpointError, ReadError, SemsrError, WriteError, run
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.jobs import PAIRS
from napari_semsr.pairing.options import PairOptions
from napari_semsr.simulation.canvas import draw_phantom
from napari_semsr.training import Recipe, fit as loop, learner as supervised
from napari_semsr.training.run_folder import check_same_recipe
from tests.refusals import refused

RUN = {"batch": 2, "steps": 2, "warmup_steps": 0, "decay_steps": 0, "validate_every": 1}
RECIPE = Recipe(
    name="tiny",
    kind="supervised",
    architecture_options={"width": 4, "fine_blocks": 1, "dilations": [1]},
    data={"pairs": "a.zarr", "patch_px": 16},
    **{"precision": "fp32", "workers": 0, **RUN},
)


def _cut(store: Path, seed: int = 0) -> Path:
    high = draw_phantom("particles", (96, 96), seed=seed)
    low = np.asarray((high + np.roll(high, 1, 1)) / 2, np.float32)
    images = [Micrograph(part, name="field") for part in (low, high)]
    run(PAIRS.job(*images, store, options=PairOptions(patch=24, min_correlation=0)))
    return store


def _from(store: Path, **changes: Any) -> Recipe:
    return RECIPE.replace(data=RECIPE.data.replace(pairs=str(store)), **changes)


def _held(folder: Path) -> dict[str, bytes]:
    return {item.name: item.read_bytes() for item in folder.iterdir()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store and a run of one step, of two, for all tests of this file."""
    folder = tmp_path_factory.mktemp("made")
    run(loop.train(_from(_cut(folder / "a.zarr"), stop_after=1), folder / "run"))
    return folder


@pytest.fixture
def begun(made: Path, tmp_path: Path) -> Path:
    """The run, to be spoilt."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("name", "code"), [("no.png", "file-missing"), ("flat.png", "image-blank")]
)
def test_failed_start_leaves_the_earlier_run_as_it_was(name, code, begun, tmp_path):
    io.imsave(tmp_path / "flat.png", np.zeros((64, 64), np.uint8), check_contrast=False)
    held = _held(begun)
    data = {"root": str(tmp_path), "patch_px": 16, "scene_px": 32, "phantoms": 0}
    data["train"] = [{"file": name}]
    asked = Recipe.parse(RECIPE.model_dump() | {"data": data})
    with refused(SemsrError, code):
        run(loop.train(asked, begun, overwrite=True))
    assert _held(begun) == held
    with refused(SemsrError, code):
        run(loop.train(asked, tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_fault_in_the_first_step_leaves_a_run_alone(begun, tmp_path, monkeypatch):
    held = _held(begun)

    def nowhere(*_: object) -> torch.Tensor:
        return torch.tensor(torch.nan)

    monkeypatch.setitem(supervised.PIXEL_LOSSES, "l1", nowhere)
    asked = _from(tmp_path / "a.zarr", start_from=str(begun / "tiny.safetensors"))
    with refused(SemsrError, "training-diverged", match="step 0"):
        run(loop.train(asked, begun, overwrite=True))
    assert _held(begun) == held


def test_other_pairs_are_refused_and_the_same_elsewhere_are_not(begun, tmp_path):
    held = _held(begun)
    other = _cut(tmp_path / "b.zarr", seed=1)
    with refused(CheckpointError, "other-run", match=r"a\.zarr.*b\.zarr"):
        run(loop.train(_from(other), begun, resume=True))
    assert _held(begun) == held
    moved = (tmp_path / "a.zarr").rename(tmp_path / "moved.zarr")
    other.rename(tmp_path / "a.zarr")
    with refused(CheckpointError, "content-changed"):
        run(loop.train(_from(tmp_path / "a.zarr"), begun, resume=True))
    assert run(loop.train(_from(moved), begun, resume=True)).steps == 2


def test_other_recipe_is_refused_by_what_differs(begun: Path, tmp_path: Path) -> None:
    store, differ = tmp_path / "a.zarr", "seed .* 0, .* 3; loss .* l1, .* m"
    with refused(CheckpointError, "other-run", match=differ):
        run(loop.train(_from(store, loss="mse", seed=3), begun, resume=True))
    free = _from(store, batch=3, steps=3, learning_rate=1e-5, workers=1)
    assert run(loop.train(free, begun, resume=True)).steps == 3
    state = torch.load(begun / "last.ckpt", weights_only=True)
    assert state["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(1e-5)


def test_recipes_and_blurs_of_an_earlier_version_are_no_others(tmp_path):
    before = RECIPE.model_dump(mode="json")
    del before["loss"]
    before["gone"] = before["data"]["gone"] = 5
    check_same_recipe(RECIPE, before, tmp_path)
    blurred = RECIPE.replace(kind="cycle-gan", gan={"kernel": {}, "history": 0})
    before = blurred.model_dump(mode="json")
    del before["gan"]["kernel"]["learnt"]
    check_same_recipe(blurred, before, tmp_path)
    bare, differs = blurred.replace(gan={"history": 0}), r"kernel\.sigma_px .* null"
    for asked, then in ((bare, before), (blurred, bare.model_dump(mode="json"))):
        with refused(CheckpointError, "other-run", match=differs):
            check_same_recipe(asked, then, tmp_path)


def test_fault_in_a_worker_process_is_one_sentence(tmp_path, monkeypatch):
    said = (
        "Caught ReadError in DataLoader worker process 0.\n"
        "Original Traceback (most recent call last):\n  File x\n"
        "napari_semsr.core.errors.ReadError: Pairs must be finite: see it.\n"
    )

    def fail(*_: object) -> None:
        raise ReadError(said)

    monkeypatch.setattr(loop, "make_learner", fail)
    with refused(ReadError, "unreadable", match=r"^Pairs must be finite: see it\.$"):
        run(loop.train(_from(_cut(tmp_path / "a.zarr")), tmp_path / "run"))


def test_nothing_is_written_through_a_link_in_the_folder(begun, tmp_path):
    (begun / "curve.csv").unlink()
    (begun / "curve.csv").symlink_to(tmp_path / "away")
    with refused(WriteError, "unsafe-content"):
        run(loop.train(_from(tmp_path / "a.zarr"), begun, resume=True))
    assert not (tmp_path / "away").exists()
