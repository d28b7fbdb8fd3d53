import numpy as np
import pytest
import tifffile

from tests.two_views import write_views


@pytest.fixture
def pair(tmp_path):
    return write_views(tmp_path, 128)


def test_refusal_is_one_object_and_exit_2(semsr, pair, tmp_path):
    tifffile.imwrite(tmp_path / "blank.tif", np.full((90, 90), 7, np.uint8))
    line = ("register", "blank.tif", "fixed.tif", "-o", "out.ome.tif")
    said = semsr(*line, "--pixel-size-nm", 20, "--json")
    assert said.code == 2
    assert (said.record["reason"], said.record["rivals"]) == ("no-structure", [])
    assert said.record["message"] in said.err
    assert not (tmp_path / "out.ome.tif").exists()
    assert semsr(*line, "--pixel-size-nm", 20).out == ""
