"""Training on a store of pairs, and fine-tuning on a few of them."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from scipy import ndimage

from napari_semsr.core import ReadError, ShapeError, run
from napari_semsr.models import load_model
from napari_semsr.pairing import AugmentOptions, augment_pair
from napari_semsr.pairing.store import ATTRIBUTE, FORMAT, write_patches
from napari_semsr.simulation.canvas import PHANTOMS, draw_phantom
from napari_semsr.training import Recipe, fit as loop
from napari_semsr.training.batches import TrainingData
from napari_semsr.training.cycle_gan import EXPECTED_GAIN, UnpairedValidator
from napari_semsr.training.patches import StoredPatchDataset, scale_to_unit_range
from tests.refusals import refused

SIDE = 48
COUNTS = {"train": 6, "validation": 3, "test": 1}
MakeStore = Callable[..., Path]
SOURCES = {"low": [{"range": [1000.0, 1500.0]}], "high": [{"range": [0.0, 200.0]}]}
ABOUT = {"format": FORMAT, "complete": True, "counts": COUNTS, "sources": SOURCES}


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    """Make a store of blurred phantoms, LOW on a scale of its own."""

    def make(
        *, scale: int = 1, kind: str = "paired", spoil: float | None = None
    ) -> Path:
        group = zarr.open_group(tmp_path / "pairs.zarr", mode="w")
        numbers, side = itertools.count(), (SIDE * scale, SIDE * scale)
        for name, count in COUNTS.items():
            pairs = []
            for number in itertools.islice(numbers, count):
                high = draw_phantom(PHANTOMS[number % len(PHANTOMS)], side, seed=number)
                low = ndimage.gaussian_filter(high, 1.5)[::scale, ::scale]
                low[0, 0] = low[0, 0] if spoil is None else spoil
                images = (1000 + 500 * low, 200 * high)
                low, high = (image.astype(np.float32) for image in images)
                place = np.array([0, number, 0])
                places = {"low_places": place, "high_places": place}
                pairs.append({"low": low, "high": high, **places})
            list(write_patches(group.create_group(name), count, pairs))
        shape = {"kind": kind, "patch": SIDE, "scale": scale}
        group.attrs[ATTRIBUTE] = ABOUT | shape
        return tmp_path / "pairs.zarr"

    return make


RUN = {"batch": 2, "steps": 4, "warmup_steps": 0, "decay_steps": 2, "validate_every": 2}
VALUES = {
    "name": "tiny",
    "kind": "supervised",
    "loss": "log-mse",
    "architecture_options": {"width": 6, "fine_blocks": 1, "dilations": [1]},
}
VALUES |= RUN | {"precision": "fp32", "workers": 0}


def recipe(store: Path, **changes: Any) -> Recipe:
    data = {"pairs": str(store), "patch_px": 32}
    return Recipe.parse({**VALUES, "data": data, **changes})


def mixed(store: Path, **changes: Any) -> Recipe:
    """A recipe that draws half of each batch, beside a store."""
    drawn = {"drawn": 0.5, "bank": 4, "phantoms": 1, "scene_px": 48}
    data = {"pairs": str(store), "patch_px": 32, **drawn, "patches_per_scene": 1}
    return recipe(store, data=data | changes.pop("data", {}), **{"batch": 4, **changes})


def test_a_batch_is_of_drawn_scenes_and_of_the_store(make_store, tmp_path):
    asked = mixed(make_store(), data={"bank_folder": str(tmp_path / "banks")})
    low, high = TrainingData(asked, 1).train_dataloader().sample_batch(3)
    assert low.shape == high.shape == (4, 1, 1, 32, 32)
    items = StoredPatchDataset(asked, 1)
    for row, place in ((2, 6), (3, 7)):  # two at each of the three steps before it
        assert torch.equal(low[row], items[place].low)
        assert torch.equal(high[row], items[place].high)
    alone = asked.replace(batch=2, data=asked.data.replace(pairs=None, drawn=0.0))
    drawn = TrainingData(alone, 1).train_dataloader().sample_batch(3)
    assert torch.equal(low[:2], drawn.low)
    assert len(TrainingData(asked.replace(batch=2), 1).train_dataloader()) == 4


def test_store_that_does_not_fit_is_refused(make_store, tmp_path):
    store = make_store()
    with refused(ShapeError, "scale-mismatch", match="`scale=2`"):
        StoredPatchDataset(recipe(store), 2)
    large = recipe(store, data={"pairs": str(store), "patch_px": 64})
    with refused(ShapeError, "patch-size-unsuitable", match="patch_px = 64 px .* 48"):
        StoredPatchDataset(large, 1)
    with refused(ReadError, "pairs-not-matched"):
        StoredPatchDataset(recipe(make_store(kind="unpaired")), 1)
    spoilt = ((np.nan, "pixels-missing"), (-9999.0, "values-too-large"))
    for fill, code in spoilt:
        items = StoredPatchDataset(recipe(make_store(spoil=fill)), 1)
        items.store.record["sources"]["low"][0]["name"] = "spoilt.tif"
        with refused(ReadError, code):
            items[0]
    with refused(ReadError, "not-a-pair-store"):
        run(loop.train(recipe(tmp_path / "none.zarr"), tmp_path / "run"))


def test_the_highest_expected_gain_is_kept(make_store, tmp_path, monkeypatch):
    told = iter([2.0, 1.0])

    def figures(*_: object) -> dict[str, float]:
        return {EXPECTED_GAIN: next(told), "patches": 0.5}

    monkeypatch.setattr(UnpairedValidator, "evaluate", figures)
    result = run(loop.train(_cycle(make_store), tmp_path / "run"))
    assert result.validation == {EXPECTED_GAIN: 2.0, "patches": 0.5, "step": 2}
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["state_dict"]
    weights = load_model(result.model).module.state_dict().items()
    assert not all(torch.equal(w, state[f"network.{k}"]) for k, w in weights)


def _cycle(make_store: MakeStore) -> Recipe:
    network = {"architecture": "multi-residual", "batch": 1, "kind": "cycle-gan"}
    network["architecture_options"] = {"width": 4, "blocks": 1}
    gan = {"discriminator_options": {"width": 4}}
    return recipe(make_store(kind="unpaired"), gan=gan, **network)


@pytest.mark.broad
def test_early_stop_ends_a_run_that_gets_no_better(make_store, tmp_path):
    still = {"steps": 40, "validate_every": 1, "early_stop": 2, "learning_rate": 1e-30}
    assert run(loop.train(recipe(make_store(), **still), tmp_path / "run")).steps <= 4


@pytest.mark.parametrize(("unit", "zero"), [(1e-8, 0.0), (20.0, 1e9)])
def test_small_grey_spans_are_learnt_from_as_large_ones(rng, unit, zero):
    values = rng.random((24, 24))
    patch, grey = unit * values + zero, (zero, zero + unit)
    options = AugmentOptions(flips=False, angles_deg=(0,), zoom=(1, 1), offset=0.1)
    varied, _ = augment_pair(patch, patch, 1, options=options, low_range=grey)
    expected, _ = augment_pair(values, values, 1, options=options)
    np.testing.assert_allclose(scale_to_unit_range(varied, grey), expected, atol=1e-5)
