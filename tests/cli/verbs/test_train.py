import re

import pytest

import napari_semsr
from napari_semsr.pairing.store import open_pairs
from tests.tiny_models import write_tiny_recipe
from tests.two_views import write_views

WAY = ("train", "tiny.yaml", "-o", "run", "--low", "moving.tif", "--high", "fixed.tif")


@pytest.fixture
def place(tmp_path):
    write_tiny_recipe(tmp_path / "tiny.yaml", data={"patch_px": 64})
    return write_views(tmp_path, 192)


@pytest.mark.broad
def test_pairs_are_cut_on_the_way_and_found_again(semsr, place, tmp_path):
    said = semsr(*WAY, "--transform", "map.json", "--patch", "32", "--json")
    assert said.code == 0, said.err
    store = open_pairs(tmp_path / "run-pairs.zarr")
    assert (store.record["patch"], store.record["options"]["step"]) == (32, 16)
    assert said.record["comparison"]["pairs"] == store.counts["test"] > 0
    again = semsr(*WAY, "--resume")
    assert again.code == 0, again.err
    assert re.search(r"Expected error of the transform +3 nm \(0.15 px\)", again.out)
    made = napari_semsr.train(
        "tiny.yaml", "other", low=place[0], high=place[1], transform=place[2], patch=32
    )
    assert made.comparison["pairs"] == store.counts["test"]
