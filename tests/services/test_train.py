"""Training through its service: what the user gives replaces what the recipe says."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from napari_semsr.core.errors import OptionError
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import run
from napari_semsr.models.checkpoint import load_model
from napari_semsr.pairs.options import PairOptions
from napari_semsr.services.pairs import cut_pairs
from napari_semsr.services.train import train
from napari_semsr.simulate.phantoms import draw

RECIPE = """
name: tiny
kind: supervised
architecture: two-scale
architecture_options: {width: 4, fine_blocks: 1, dilations: [1]}
data: {pairs: none.zarr, patch_px: 16}
batch: 2
steps: 100
decay_steps: 50
validate_every: 100
precision: fp32
workers: 0
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe whose store is not there."""
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A store that the service made."""
    high = draw("particles", (96, 96), seed=0)
    low = np.asarray((high + np.roll(high, 1, 1)) / 2, np.float32)
    images = [Micrograph(part, name="field") for part in (low, high)]
    store = tmp_path / "pairs.zarr"
    run(cut_pairs(*images, store, options=PairOptions(patch=24, min_correlation=0)))
    return store


def test_pairs_steps_and_name_are_taken_from_the_user(
    recipe: Path, pairs: Path, tmp_path: Path
) -> None:
    first = run(train(recipe, tmp_path / "a", pairs=pairs, steps=2, name="mine"))
    assert first.steps == 2
    assert Path(first.model).name == "mine.safetensors"
    kept = yaml.safe_load((tmp_path / "a" / "recipe.yaml").read_text())
    assert (kept["decay_steps"], kept["validate_every"]) == (1, 2)
    second = run(
        train(recipe, tmp_path / "b", pairs=pairs, steps=1, start_from=first.model)
    )
    card = load_model(second.model).card
    assert card.training["recipe"]["start_from"] == "mine.safetensors"
    assert card.training["recipe"]["data"]["pairs"] == "pairs.zarr"


def test_no_steps_are_refused(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="at least 1, got 0"):
        run(train(recipe, tmp_path / "a", steps=0))
