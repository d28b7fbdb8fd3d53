"""A model for one's own noisy image, from that alone or from two scans."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from napari_semsr import train, write
from napari_semsr.core.errors import CheckpointError, OptionError, ReadError, ShapeError
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import run
from napari_semsr.jobs import TRAIN
from napari_semsr.jobs.train import OwnImageRequest, PairRequest
from napari_semsr.models.checkpoint import load_model
from napari_semsr.pairing.store import open_pairs
from napari_semsr.simulation.canvas import draw_phantom
from tests.refusals import refused
from tests.tiny_models import write_tiny_recipe

BLIND = {"kind": "blind-spot", "measure": "hidden_db"}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "own.yaml"
    write_tiny_recipe(path, steps=4, validate_every=2, description="Denoises.", **BLIND)
    return path


def _noisy(seed: int, side: int = 160, shift: int = 0) -> Micrograph:
    clean = ndimage.gaussian_filter(
        draw_phantom("particles", (side + 8,) * 2, seed=0), 1
    )
    clean = clean[shift : shift + side, 4 : 4 + side]
    noise = np.random.default_rng(seed).normal(0, 0.08, clean.shape)
    return Micrograph((clean + noise).astype(np.float32), name=f"scan {seed}")


def test_one_image_makes_a_model_that_says_whose_it_is(
    recipe: Path, tmp_path: Path
) -> None:
    made = run(TRAIN.job(recipe, tmp_path / "run", cut=OwnImageRequest(_noisy(1))))
    assert made.comparison is None
    assert np.isfinite(made.validation["hidden_db"])
    card = load_model(made.model).card
    assert card.description == "Denoises. Trained on scan 1."
    assert card.training["learnt_from"] == []  # it never saw what is right
    assert card.pixel_size_nm is None
    store = open_pairs(tmp_path / "run-pairs.zarr")
    assert store.counts["test"] == 0
    low, high = (np.asarray(part[0]) for part in store.get_arrays("train"))
    np.testing.assert_array_equal(low, high)


@pytest.mark.broad
def test_run_goes_on_with_the_images_that_it_was_begun_with(
    recipe: Path, tmp_path: Path
) -> None:
    write(_noisy(1), tmp_path / "one.tif")
    begun = {"output": tmp_path / "run", "steps": 1}
    train(recipe, image=_noisy(1), **begun)
    for same in (_noisy(1), tmp_path / "one.tif"):
        train(recipe, image=same, resume=True, **begun)
    with refused(CheckpointError, "other-run", match="scan 1, .*scan 2 "):
        train(recipe, image=_noisy(2), resume=True, **begun)


@pytest.mark.broad
def test_second_scan_is_registered_and_learnt_from(
    recipe: Path, tmp_path: Path
) -> None:
    second = _noisy(2, shift=3)
    darker = second.replace(data=0.5 * second.array() + 0.1)
    cut = OwnImageRequest(_noisy(1), darker)
    made = run(TRAIN.job(recipe, tmp_path / "run", cut=cut))
    assert load_model(made.model).card.training["recipe"]["kind"] == "supervised"
    assert set(made.comparison["rows"]) == {"input", "linear filter", "trained"}
    store = open_pairs(tmp_path / "run-pairs.zarr")
    low, high = (np.asarray(part[0], float) for part in store.get_arrays("train"))
    assert store.get_ranges("train", 0)[0] == store.get_ranges("train", 0)[1]
    soft = [ndimage.gaussian_filter(part, 2).ravel() for part in (low, high)]
    assert np.corrcoef(*soft)[0, 1] > 0.97
    assert np.polyfit(*soft, 1)[0] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("image", "error", "code"),
    [
        (np.zeros((50, 200)), ShapeError, "image-too-small"),
        (np.full((128, 128), np.nan), ReadError, "no-finite-values"),
        (np.full((128, 128), 7), OptionError, "image-blank"),
    ],
    ids=["small", "unknown", "flat"],
)
def test_image_that_teaches_nothing_is_refused_and_nothing_is_left(
    image, error, code, recipe, tmp_path
) -> None:
    own = OwnImageRequest(Micrograph(image.astype(np.float32), name="mine"))
    with refused(error, code, match="mine"):
        run(TRAIN.job(recipe, tmp_path / "runs" / "a", cut=own))
    assert not (tmp_path / "runs").exists()


def test_recipe_and_images_that_do_not_fit_each_other_are_refused(
    recipe: Path, tmp_path: Path
) -> None:
    image = _noisy(1)
    with refused(OptionError, "recipe-unsuitable"):
        run(TRAIN.job("fine-tune", tmp_path / "a", cut=OwnImageRequest(image)))
    with refused(OptionError, "recipe-unsuitable"):
        run(TRAIN.job(recipe, tmp_path / "a", cut=PairRequest(image, image)))
    with refused(OptionError, "missing-value", match="`image`"):
        train("own-image", tmp_path / "a")
    assert not (tmp_path / "a").exists()
