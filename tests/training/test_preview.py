"""The picture of a held-out patch that a run leaves at each validation."""

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from napari_semsr.core import Micrograph, run
from napari_semsr.io.formats import read, write
from napari_semsr.jobs.pairs import PAIRS
from napari_semsr.pairing.options import PairOptions
from napari_semsr.simulation.canvas import draw_phantom
from napari_semsr.training.recipe import DataOptions, Recipe
from napari_semsr.training.run_folder import PREVIEW, RunFolder
from napari_semsr.training.validation import ValidationPair, create_preview

RECIPE = Recipe(name="tiny", kind="supervised")


class Twice(nn.Module):
    """Enlarges by two, and says so."""

    scale = 2

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Upsample(scale_factor=2)

    def forward(self, x):
        return self.up(x)


def pair(low: np.ndarray, high: np.ndarray) -> ValidationPair:
    return ValidationPair("pairs", low, high)


def test_parts_stand_side_by_side(rng: np.random.Generator) -> None:
    dull = pair(np.ones((8, 8)), np.ones((16, 16)))
    low, high = rng.uniform(0, 255, (8, 10)), rng.uniform(0, 255, (16, 20))
    made = create_preview(Twice(), RECIPE, [dull, pair(low, high)])
    assert made is not None
    data = made.array()
    assert data.shape == (16, 3 * 20 + 2 * 2)
    np.testing.assert_allclose(data[::2, :20:2], low, rtol=1e-6)
    np.testing.assert_allclose(data[::2, 22:42:2], low, rtol=1e-4)
    np.testing.assert_allclose(data[:, 44:], high, rtol=1e-6)


@pytest.mark.parametrize("paired", [True, False])
def test_unpaired_store_shows_no_truth(paired: bool, tmp_path: Path) -> None:
    folders = []
    for name, shift in (("low", 1), ("high", 0)):
        folder = tmp_path / name
        folder.mkdir()
        image = np.roll(draw_phantom("particles", (96, 96), seed=0), shift, 1)
        micrograph = Micrograph(image.astype(np.float32), (5.0, 5.0), name)
        write(micrograph, folder / "a.tif")
        folders.append(folder / "a.tif" if paired else folder)
    store = tmp_path / "pairs.zarr"
    run(PAIRS.job(*folders, store, options=PairOptions(patch=16, min_correlation=0)))
    recipe = RECIPE.replace(kind="cycle-gan", data=DataOptions(pairs=str(store)))
    truth = [pair(np.eye(16), np.eye(16))] if paired else []
    RunFolder(tmp_path, recipe).write_preview(nn.Identity(), truth)
    kept = read(tmp_path / PREVIEW)
    parts = 3 if paired else 2
    assert kept.shape == (16, parts * 16 + (parts - 1) * 2)
    assert kept.pixel_size_nm == pytest.approx((5.0, 5.0))
