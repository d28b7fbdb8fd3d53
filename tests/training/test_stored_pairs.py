"""Training on a store of pairs, and fine-tuning on a few of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from scipy import ndimage

from napari_semsr.core.errors import ReadError, ShapeError
from napari_semsr.core.progress import run
from napari_semsr.models.cards import ModelCard
from napari_semsr.models.checkpoint import build, load_model, save_model
from napari_semsr.pairing.store import ATTRIBUTE, FORMAT, SetWriter
from napari_semsr.simulation.drawings import PHANTOMS, draw
from napari_semsr.training import fit as loop
from napari_semsr.training.recipe import Recipe
from napari_semsr.training.stored_pairs import StoredPatches
from napari_semsr.training.unpaired import EXPECTED, UnpairedValidator

SIDE = 48
COUNTS = {"train": 6, "validation": 3, "test": 1}
MakeStore = Callable[..., Path]


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    """Make a store of blurred phantoms, LOW on a scale of its own."""

    def make(*, scale: int = 1, kind: str = "paired", spoil: bool = False) -> Path:
        group = zarr.open_group(tmp_path / "pairs.zarr", mode="w")
        number = 0
        for name, count in COUNTS.items():
            writer = SetWriter(group.create_group(name), count)
            for _ in range(count):
                side = (SIDE * scale, SIDE * scale)
                high = draw(PHANTOMS[number % len(PHANTOMS)], side, seed=number)
                low = ndimage.gaussian_filter(high, 1.5)[::scale, ::scale]
                if spoil:
                    low[0, 0] = np.nan
                place = np.array([0, number, 0])
                writer.add(
                    low=(1000 + 500 * low).astype(np.float32),
                    high=(200 * high).astype(np.float32),
                    low_places=place,
                    high_places=place,
                )
                number += 1
            writer.flush()
        group.attrs[ATTRIBUTE] = {
            "format": FORMAT,
            "complete": True,
            "kind": kind,
            "patch": SIDE,
            "scale": scale,
            "counts": COUNTS,
            "sources": {
                "low": [{"range": [1000.0, 1500.0]}],
                "high": [{"range": [0.0, 200.0]}],
            },
        }
        return tmp_path / "pairs.zarr"

    return make


def recipe(store: Path, **changes: Any) -> Recipe:
    """A small recipe on a store."""
    values = {
        "name": "tiny",
        "kind": "supervised",
        "loss": "log-mse",
        "architecture_options": {"width": 6, "fine_blocks": 1, "dilations": [1]},
        "data": {"pairs": str(store), "patch_px": 32},
        "batch": 2,
        "steps": 4,
        "warmup_steps": 0,
        "decay_steps": 2,
        "validate_every": 2,
        "precision": "fp32",
        "workers": 0,
    }
    return Recipe.parse({**values, **changes})


def test_items_depend_on_their_place_alone(make_store: MakeStore) -> None:
    asked = recipe(make_store())
    whole, other = StoredPatches(asked, 1), StoredPatches(asked, 1)
    assert not torch.equal(other[3].low, whole[25].low)
    for a, b in zip(whole[25], other[25], strict=True):
        assert torch.equal(a, b)
    assert whole[25].low.shape == whole[25].high.shape == (1, 1, 32, 32)
    assert not torch.equal(whole[25].low, whole[19].low)


PLAIN = {"flips": False, "angles_deg": [0], "zoom": [1, 1], "gain": 0, "offset": 0}


def _numbers(dataset: StoredPatches) -> list[tuple[int, int]]:
    """Which pairs the two patches of each item are of."""
    every = [np.asarray(a) for a in dataset.store.arrays("train")]
    greys = ((1000, 500), (0, 200))

    def find(patch: torch.Tensor, held: np.ndarray, grey: tuple[int, int]) -> int:
        scaled = (held - grey[0]) / grey[1]
        return int(np.argmin(np.abs(scaled - patch.numpy()[0, 0]).mean((1, 2))))

    found = []
    for index in range(2 * COUNTS["train"]):
        pair = [
            find(p, h, g) for p, h, g in zip(dataset[index], every, greys, strict=True)
        ]
        found.append((pair[0], pair[1]))
    return found


@pytest.mark.parametrize("kind", ["supervised", "cycle-gan"])
def test_each_pass_takes_every_pair_once(make_store: MakeStore, kind: str) -> None:
    data = {"pairs": str(make_store()), "patch_px": SIDE, "augment": PLAIN}
    asked = recipe(make_store(), kind=kind, data=data)
    found = _numbers(StoredPatches(asked, 1))
    lows, highs = zip(*found, strict=True)
    for numbers in (lows[:6], lows[6:]):
        assert sorted(numbers) == list(range(6))
    assert lows[:6] != lows[6:]
    paired = kind == "supervised"
    assert all((low == high) is paired for low, high in found)
    assert len(set(highs)) > 2


def test_store_that_does_not_fit_is_refused(make_store: MakeStore) -> None:
    store = make_store()
    with pytest.raises(ShapeError, match="make one for that scale \\(--scale 2"):
        StoredPatches(recipe(store), 2)
    large = recipe(store, data={"pairs": str(store), "patch_px": 64})
    with pytest.raises(ShapeError, match="patch_px = 64 px, got 48"):
        StoredPatches(large, 1)


def test_unpaired_store_is_for_cycles_alone(make_store: MakeStore) -> None:
    asked = recipe(make_store(kind="unpaired"))
    with pytest.raises(ReadError, match="only kind cycle-gan"):
        StoredPatches(asked, 1)


@pytest.mark.parametrize("rising", [True, pytest.param(False, marks=pytest.mark.broad)])
def test_without_a_truth_the_highest_expected_gain_is_kept(
    make_store: MakeStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    rising: bool,
) -> None:
    told = iter([1.0, 2.0] if rising else [2.0, 1.0])

    def figures(*_: object) -> dict[str, float]:
        return {EXPECTED: next(told), "patches": 0.5}

    monkeypatch.setattr(UnpairedValidator, "figures", figures)
    result = run(loop.train(_cycle(make_store), tmp_path / "run"))
    step = 4 if rising else 2
    assert result.validation == {EXPECTED: 2.0, "patches": 0.5, "step": step}
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    weights = load_model(result.model).module.state_dict()
    newest = all(
        torch.equal(w, state["state_dict"][f"network.{k}"]) for k, w in weights.items()
    )
    assert newest == rising


@pytest.mark.broad
def test_a_cycle_without_a_truth_is_judged_by_both_kinds_of_image(
    make_store: MakeStore, tmp_path: Path
) -> None:
    result = run(loop.train(_cycle(make_store), tmp_path / "run"))
    assert {EXPECTED, "spectrum_db", "patches", "returned"} <= result.validation.keys()
    assert np.isfinite(list(result.validation.values())).all()


def _cycle(make_store: MakeStore) -> Recipe:
    return recipe(
        make_store(kind="unpaired"),
        kind="cycle-gan",
        architecture="multi-residual",
        architecture_options={"width": 4, "blocks": 1},
        gan={"discriminator_options": {"width": 4}},
        batch=1,
        validate_every=2,
    )


def test_missing_pixels_stop_the_run(make_store: MakeStore, tmp_path: Path) -> None:
    asked = recipe(make_store(spoil=True))
    with pytest.raises(ReadError, match=r"NaN or infinite pixels in pair"):
        StoredPatches(asked, 1)[0]


def test_no_store_is_said(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="semsr pairs"):
        run(loop.train(recipe(tmp_path / "none.zarr"), tmp_path / "run"))


@pytest.mark.broad
def test_fine_tuning_on_a_few_pairs_improves_held_out_ones(
    make_store: MakeStore, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    options = {"width": 6, "fine_blocks": 1, "dilations": [1]}
    begun = build("two-scale", options)
    card = ModelCard(
        name="begun", architecture="two-scale", options=options, receptive_field=0
    )
    save_model(tmp_path / "begun.safetensors", begun, card)
    asked = recipe(
        make_store(),
        architecture="same",
        architecture_options={},
        start_from=str(tmp_path / "begun.safetensors"),
        steps=60,
        decay_steps=40,
        validate_every=20,
        learning_rate=5e-3,
        ema=0.9,
    )
    before = loop.make_learner(begun, asked).validate_pairs()["psnr_db"]
    result = run(loop.train(asked, tmp_path / "run"))
    assert result.validation["psnr_db"] > before + 0.5
    assert load_model(result.model).card.architecture == "two-scale"


@pytest.mark.broad
def test_early_stop_ends_a_run_that_gets_no_better(
    make_store: MakeStore, tmp_path: Path
) -> None:
    asked = recipe(
        make_store(), steps=40, validate_every=1, early_stop=2, learning_rate=1e-30
    )
    assert run(loop.train(asked, tmp_path / "run")).steps <= 4
