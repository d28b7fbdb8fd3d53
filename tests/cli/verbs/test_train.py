"""``semsr train`` on two images of one place and the map between them."""

import re

import pytest

import napari_semsr
from napari_semsr.io import Side, StoredTransform, write, write_transform
from napari_semsr.pairing.store import open_pairs
from tests.tiny_models import write_tiny_recipe
from tests.two_views import draw_views

WAY = ("train", "tiny.yaml", "-o", "run", "--low", "moving.tif", "--high", "fixed.tif")


@pytest.fixture
def place(tmp_path):
    """Two images of one place, their map, and a recipe."""
    moving, fixed, truth = draw_views(192)
    write(moving, tmp_path / "moving.tif")
    write(fixed, tmp_path / "fixed.tif")
    sides = Side.of(moving), Side.of(fixed)
    stored = StoredTransform(truth, *sides, {"error_nm": 3.0})
    write_transform(tmp_path / "map.json", stored)
    write_tiny_recipe(tmp_path / "tiny.yaml", data={"patch_px": 64})
    return moving, fixed, stored


def test_pairs_are_cut_on_the_way_and_found_again(semsr, place, tmp_path):
    said = semsr(*WAY, "--transform", "map.json", "--patch", "32", "--json")
    assert said.code == 0, said.err
    store = open_pairs(tmp_path / "run-pairs.zarr")
    assert (store.record["patch"], store.record["options"]["step"]) == (32, 16)
    assert said.record["comparison"]["pairs"] == store.counts["test"] > 0
    again = semsr(*WAY, "--resume")
    assert again.code == 0, again.err
    assert re.search(r"expected error of the map +3.00 nm \(0.150 px\)", again.out)
    made = napari_semsr.train(
        "tiny.yaml", "other", low=place[0], high=place[1], transform=place[2], patch=32
    )
    assert made.comparison["pairs"] == store.counts["test"]


@pytest.mark.parametrize(
    ("words", "needs"),
    [
        (WAY[:6], "needs --low and --high; give both"),
        ((*WAY[:4], "--transform", "map.json"), "needs --low and --high; give both"),
        ((*WAY, "--pairs", "p.zarr"), "or --low and --high for images, not both"),
    ],
    ids=["low", "map", "store"],
)
def test_half_of_what_it_needs_is_refused(refused, place, words, needs):
    assert needs in refused(*words)
