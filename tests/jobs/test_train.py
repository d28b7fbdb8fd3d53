"""Training through its service: what the user gives replaces what the recipe says."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
import zarr
from scipy import ndimage

from napari_semsr import core, train
from napari_semsr.io.transforms import ImageIdentity, StoredTransform
from napari_semsr.jobs import PAIRS, TRAIN, PairRequest, TrainOptions, read_recipe
from napari_semsr.models.checkpoint import load_model
from napari_semsr.pairing import PairOptions, open_pairs
from napari_semsr.simulation.canvas import draw_phantom
from tests.refusals import refused, warned
from tests.tiny_models import write_tiny_model, write_tiny_recipe

LONG = {"steps": 100, "warmup_steps": None, "decay_steps": 50, "validate_every": 100}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe whose store is not there."""
    return write_tiny_recipe(tmp_path / "tiny.yaml", **LONG)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    high = draw_phantom("particles", (96, 96), seed=0)
    low = np.asarray((high + np.roll(high, 1, 1)) / 2, np.float32)
    images = [core.Micrograph(part, name="field") for part in (low, high)]
    store = tmp_path / "pairs.zarr"
    core.run(
        PAIRS.job(*images, store, options=PairOptions(patch=24, min_correlation=0))
    )
    return store


@pytest.mark.filterwarnings("ignore:Training did not improve")  # in one step
def test_pairs_steps_and_name_are_taken_from_the_user(
    recipe: Path, pairs: Path, tmp_path: Path
) -> None:
    first = train(recipe, tmp_path / "a", pairs=pairs, steps=2, name="mine")
    assert first.steps == 2
    assert Path(first.model).name == "mine.safetensors"
    kept = yaml.safe_load((tmp_path / "a" / "recipe.yaml").read_text())
    assert (kept["decay_steps"], kept["validate_every"]) == (1, 2)
    second = train(recipe, tmp_path / "b", pairs=pairs, start_from=first.model, steps=1)
    card = load_model(second.model).card
    assert card.training["recipe"]["start_from"] == "mine.safetensors"
    assert card.training["recipe"]["data"]["pairs"] == "pairs.zarr"


def test_run_makes_the_folders_above_it_but_never_writes_into_its_pairs(
    recipe: Path, pairs: Path, tmp_path: Path
) -> None:
    deep = tmp_path / "runs" / "of" / "mine"
    assert train(recipe, deep, pairs=pairs, steps=1).run_dir == str(deep)
    held = sorted(item.name for item in pairs.iterdir())
    for folder in (pairs, pairs / "run"):
        with refused(core.WriteError, "output-is-input"):
            train(recipe, folder, pairs=pairs, overwrite=True, steps=1)
    assert sorted(item.name for item in pairs.iterdir()) == held


def test_recipe_of_the_package_is_found_by_name_and_needs_pairs(tmp_path: Path) -> None:
    with refused(core.OptionError, "missing-value", match="`pairs`"):
        train("fine-tune", tmp_path / "a")
    with refused(core.ReadError, "recipe-unknown"):
        train("fine-tum", tmp_path / "a")
    assert read_recipe("fine-tune")[1].start_from == "sem-restore"


@pytest.mark.parametrize("counts", [{"train": 1}, {"validation": 0}], ids=str)
def test_too_few_pairs_are_refused_before_any_work(
    recipe: Path, pairs: Path, tmp_path: Path, counts: dict[str, int]
) -> None:
    group = zarr.open_group(pairs, mode="r+")
    record = dict(group.attrs["semsr-pairs"])
    group.attrs["semsr-pairs"] = record | {"counts": {**record["counts"], **counts}}
    with refused(core.OptionError, "too-few-pairs", match=r"pairs\.zarr"):
        train(recipe, tmp_path / "a", pairs=pairs)
    assert not (tmp_path / "a").exists()


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.quick(1)
@pytest.mark.parametrize("what", ["state", "start"])
def test_hostile_files_are_refused_and_not_executed(
    what: str, recipe: Path, pairs: Path, tmp_path: Path
) -> None:
    train(recipe, tmp_path / "a", pairs=pairs, steps=1)
    victim, trap = tmp_path / "a" / "last.ckpt", tmp_path / "executed"
    if what == "start":
        victim = tmp_path / "model.safetensors"
    torch.save({"global_step": Hostile(trap)}, victim)
    asked = {"resume": True} if what == "state" else {"start_from": victim}
    folder = tmp_path / ("a" if what == "state" else "b")
    with pytest.raises(core.CheckpointError) as caught:
        train(recipe, folder, pairs=pairs, steps=1, **asked)
    assert "\n" not in str(caught.value)
    assert not trap.exists()


# one step may be one for the worse
@pytest.mark.broad
@pytest.mark.filterwarnings("ignore:Training did not improve")
def test_two_images_and_their_map_are_trained_on_in_one_go(tmp_path: Path) -> None:
    begun = write_tiny_model(tmp_path, pixel_size_nm=(20.0, 20.0))
    fine = draw_phantom("particles", (288, 288), seed=1).astype(np.float32)
    sem = core.Micrograph(fine, core.parse_pixel_size(8.0), "sem")
    light = sem.replace(data=ndimage.gaussian_filter(fine, 3), name="light")
    mosaic = light.replace(data=light.array()[1::3, 1::3])
    mosaic = mosaic.replace(pixel_size_nm=core.parse_pixel_size(24.0))
    shift = core.Affine.from_matrix(np.eye(2), np.array((8.0 + 300, 8.0 - 500)))
    sides = (ImageIdentity.from_image(image, None) for image in (mosaic, sem))
    stored = StoredTransform(shift, *sides, {"error_nm": 12.0})
    tuned = tmp_path / "tuned.yaml"
    write_tiny_recipe(tuned, **LONG, architecture="same", start_from=str(begun))
    small = PairRequest(mosaic, sem, stored, PairOptions(patch=96))
    into, one_step = tmp_path / "runs" / "b", TrainOptions(steps=1)
    with refused(core.SemsrError, "image-too-small", match="`patch`"):
        core.run(TRAIN.job(tuned, into, cut=small, options=one_step))
    assert not (tmp_path / "runs").exists()
    cut = PairRequest(mosaic, sem, stored, PairOptions(test=0.3))
    with warned("map-imprecise", match=r" 0\.6 px \(12 nm\)"):
        made = core.run(TRAIN.job(tuned, into, cut=cut, options=one_step))
    store = open_pairs(tmp_path / "runs" / "b-pairs.zarr")
    assert (store.record["patch"], store.record["pixel_size_nm"]) == (16, 20.0)
    assert store.counts["test"] > store.counts["validation"] > 0
    assert load_model(made.model).card.pixel_size_nm == (20.0, 20.0)
    assert set(made.comparison["rows"]) >= {"input", "untouched", "trained"}


@pytest.mark.filterwarnings("ignore:Training did not improve")  # in one step
def test_pairs_without_a_pixel_size_leave_the_model_its_own(
    pairs: Path, tmp_path: Path
) -> None:
    start = write_tiny_model(tmp_path, pixel_size_nm=(20.0, 30.0))
    tuned = tmp_path / "tuned.yaml"
    write_tiny_recipe(tuned, **LONG, architecture="same", start_from=str(start))
    with warned("pixel-size-missing", match=" 20 to 30 nm"):
        made = train(tuned, tmp_path / "a", pairs=pairs, steps=1)
    assert load_model(made.model).card.pixel_size_nm == (20.0, 30.0)
