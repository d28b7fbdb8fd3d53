"""Versions of napari: what is refused, and where each has camera, grid and bar."""

from pathlib import Path
from types import SimpleNamespace

import napari
import numpy as np
import pytest
import yaml

from napari_semsr.widgets import host

ROOT = Path(__file__).resolve().parents[2]
NEEDS = f"requires napari {host.LOWEST_NAPARI} or newer"


@pytest.mark.parametrize("version", ["0.4.19", "0.5.6", "0.6.6", "0.6.6rc2.dev3+gab12"])
def test_an_older_napari_is_refused_with_what_to_do(monkeypatch, version):
    monkeypatch.setattr(napari, "__version__", version)
    with pytest.raises(ImportError, match=NEEDS) as caught:
        host.check_napari()
    told = str(caught.value)
    assert version.partition("rc")[0] in told
    assert told.endswith(f'pip install "napari>={host.LOWEST_NAPARI}"')


def test_the_lowest_version_is_the_same_everywhere():
    lowest = host.LOWEST_NAPARI
    for page in ("README.md", "docs/install.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert f"napari {lowest} or newer" in text, page
    assert f'napari[pyqt6]>={lowest}"' in (ROOT / "pyproject.toml").read_text("utf-8")
    workflow = ROOT / ".github" / "workflows" / "test.yml"
    jobs = yaml.safe_load(workflow.read_text("utf-8"))["jobs"]
    windows = jobs["window"]["strategy"]["matrix"]["include"]
    assert f"=={lowest}.0" in [one["napari"] for one in windows]


def test_the_bar_of_napari_0_7_0_is_given_the_unit_of_the_layers(monkeypatch):
    bar = SimpleNamespace(unit=None)
    viewer = SimpleNamespace(scale_bar=bar, layers=SimpleNamespace(units=("nm", "nm")))
    monkeypatch.setattr(napari, "__version__", "0.7.1")
    host.set_scale_bar_unit(viewer)
    assert bar.unit is None  # it takes the unit itself, and warns of one that is set
    monkeypatch.setattr(napari, "__version__", "0.7.0")
    host.set_scale_bar_unit(viewer)
    assert bar.unit == "nm"
    viewer.layers.units = None
    host.set_scale_bar_unit(viewer)
    assert bar.unit is None


@pytest.mark.parametrize(("left", "right"), [(0, 1), (1, 0)])
def test_two_layers_stand_side_by_side_in_either_order(model, left, right):
    for _ in range(2):
        model.add_image(np.eye(4))
    host.show_side_by_side(model, left, right)
    layers = model.layers if hasattr(model, "canvas") else 2  # before napari 0.9
    columns = [
        host.get_grid(model).position(index, layers)[1] for index in (left, right)
    ]
    assert columns == [0, 1]
