"""A model that is judged on what it learnt from is told."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

import napari_semsr
from napari_semsr.core import Micrograph, parse_pixel_size
from napari_semsr.models.cards import read_card
from tests.refusals import warned
from tests.tiny_models import write_tiny_recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model that learnt from the upper part of an image."""
    made = tmp_path_factory.mktemp("learnt")
    rng = np.random.default_rng(0)
    grain = ndimage.gaussian_filter(rng.random((192, 96)), 1.5).astype(np.float32)
    high = Micrograph(grain, parse_pixel_size(10.0), "high")
    low = high.replace(data=ndimage.gaussian_filter(grain, 1.0), name="low")
    for image in (low, high):
        napari_semsr.write(image, made / f"{image.name}.ome.tif")
        for part, rows in (("upper", slice(0, 96)), ("lower", slice(96, 192))):
            cut = image.replace(
                data=image.data[rows], origin=(5.0 + 10.0 * rows.start, 5.0)
            )
            napari_semsr.write(cut, made / f"{image.name}-{part}.ome.zarr")
    pair = made / "low-upper.ome.zarr", made / "high-upper.ome.zarr"
    napari_semsr.pairs(
        *pair, made / "p.zarr", patch=16, step=8, validation=0.2, test=0.2
    )
    write_tiny_recipe(made / "tiny.yaml")
    napari_semsr.train(made / "tiny.yaml", made / "run", pairs=made / "p.zarr")
    return made


def _enhanced(folder: Path, name: str) -> Path:
    path = folder / f"{name}-enhanced.ome.zarr"
    if not path.exists():
        napari_semsr.enhance(
            folder / f"{name}.ome.zarr",
            path,
            model=folder / "run" / "tiny.safetensors",
            device="cpu",
        )
    return path


@pytest.mark.broad
def test_card_keeps_images_and_areas_but_not_those_of_the_test(folder):
    low, high = read_card(folder / "run" / "tiny.safetensors").training["learnt_from"]
    assert (low["name"], high["name"]) == ("low-upper.ome.zarr", "high-upper.ome.zarr")
    assert low["digest"].startswith("sha256:")
    assert low["unit"] == "nm"
    store = napari_semsr.pairing.open_pairs(folder / "p.zarr")
    for name in ("train", "validation", "test"):
        for _, *corner in store.group[f"{name}/low_places"][:].tolist():
            y, x = (10.0 * n + 80.0 for n in corner)
            inside = [y0 < y < y1 and x0 < x < x1 for y0, x0, y1, x1 in low["areas"]]
            assert any(inside) == (name != "test")
    assert len(low["areas"]) < store.counts["train"] / 2


@pytest.mark.quick(1)
@pytest.mark.parametrize("verb", ["metrics", "frc", "gaps"])
def test_judging_where_it_learnt_is_told(folder, verb):
    made = _enhanced(folder, "low-upper")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Only .* of the particles")
        with warned("not-independent"):
            getattr(napari_semsr, verb)(made, folder / "high-upper.ome.zarr")


def test_judging_elsewhere_is_silent(folder):
    made = _enhanced(folder, "low-lower")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        napari_semsr.metrics(made, folder / "high-lower.ome.zarr")
