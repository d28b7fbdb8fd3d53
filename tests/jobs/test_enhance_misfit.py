"""What of an image its result does not explain, as enhancing tells and maps it."""

import json

import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.cli.command import main
from napari_semsr.core import Micrograph
from napari_semsr.io.formats import read, write
from tests.tiny_models import write_tiny_model

LINE = ("--tile", "64", "--precision", "fp32", "--device", "cpu")


@pytest.fixture
def field(tmp_path, rng):
    path = tmp_path / "field.tif"
    drawn = ndimage.gaussian_filter(rng.normal(size=(160, 180)), 3)
    grey = 120 + 600 * drawn + rng.normal(0, 3, drawn.shape)
    write(Micrograph(np.clip(grey, 0, 255).astype(np.uint8)), path)
    return path


def test_a_command_maps_the_misfit(field, tmp_path, capsys):
    model, target = write_tiny_model(tmp_path), tmp_path / "misfit.tif"
    line = [*map(str, ("enhance", field, "-o", tmp_path / "a.tif", "--model", model))]
    assert main([*line, *LINE, "--residual-map", str(target), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert 0 < told["misfit_percent"] < 100
    assert told["misfit_map"] == str(target)
    shown = read(target)
    assert (shown.shape, shown.look.opacity) == ((40, 45), 1)
    assert np.nanmedian(shown.array()) == pytest.approx(told["misfit_percent"], rel=0.7)
    assert shown.provenance.job == "enhance"
    line[3] = str(tmp_path / "b.tif")
    assert main([*line, *LINE]) == 0
    assert "Misfit" not in capsys.readouterr().out
