"""Versions of napari: what is refused, and where each has camera, grid and bar."""

from itertools import permutations
from pathlib import Path
from types import SimpleNamespace

import napari
import numpy as np
import pytest
import yaml

from napari_semsr.widgets import host
from napari_semsr.widgets.layers import fill_view, get_visible_box
from tests.children import run_python

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


@pytest.mark.parametrize(
    "version", ["0.7.0", "0.7.1a2", "0.8.0", "0.9.2", "0.10.0", "1.0", "not-installed"]
)
def test_other_versions_are_taken(monkeypatch, version):
    monkeypatch.setattr(napari, "__version__", version)
    host.check_napari()


def test_the_engine_does_not_activate_the_plugin_in_an_older_napari(
    monkeypatch, npe2pm, registered
):
    npe2pm.activate("napari-semsr")
    npe2pm.deactivate("napari-semsr")
    monkeypatch.setattr(napari, "__version__", "0.6.6")
    with pytest.raises(ImportError, match=NEEDS) as caught:
        npe2pm.activate("napari-semsr")
    assert "\n" not in str(caught.value)
    assert "napari-semsr.enhance" in [
        item.id for item in npe2pm.get_manifest("napari-semsr").contributions.commands
    ]  # what menus are made of stays


def test_every_command_is_refused_in_an_older_napari():
    """The palette calls commands without the engine, which would activate first."""
    code = (
        "import sys, types, yaml\n"
        "from importlib import import_module\n"
        "sys.modules['napari'] = older = types.ModuleType('napari')\n"
        "older.__version__ = '0.6.6'\n"
        "manifest = yaml.safe_load(open('src/napari_semsr/napari.yaml'))\n"
        "for command in manifest['contributions']['commands']:\n"
        "    try:\n"
        "        import_module(command['python_name'].partition(':')[0])\n"
        "    except ImportError as error:\n"
        f"        assert {NEEDS!r} in str(error), error\n"
        "    else:\n"
        "        raise AssertionError(command['id'])\n"
    )
    run_python(code, cwd=ROOT)


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


def test_camera_grid_and_bar_are_found_where_a_viewer_has_them(model):
    older = SimpleNamespace(camera=object(), grid=object(), scale_bar=object())
    assert host.get_camera(older) is older.camera
    assert host.get_grid(older) is older.grid
    assert host.get_scale_bar(older) is older.scale_bar
    host.get_camera(model).zoom = 3.0
    host.get_grid(model).enabled = True
    host.get_scale_bar(model).visible = True
    again = napari.components.ViewerModel()
    assert host.get_camera(again).zoom != 3.0
    assert not host.get_grid(again).enabled
    assert not host.get_scale_bar(again).visible


@pytest.mark.parametrize("count", range(2, 7))
def test_the_left_layer_is_left_where_hidden_layers_take_cells(count):
    for left, right in permutations(range(count), 2):
        grid = SimpleNamespace(stride=1, shape=(-1, -1), enabled=False)
        viewer = SimpleNamespace(grid=grid, layers=range(count))
        host.show_side_by_side(viewer, left, right)
        assert grid.enabled
        order = range(count) if grid.stride > 0 else range(count)[::-1]
        rows, columns = grid.shape
        places = [order.index(i) // abs(grid.stride) % columns for i in (left, right)]
        assert rows == 1
        assert places == sorted(set(places))
        assert columns <= 3
        host.disable_grid_view(viewer)
        assert (grid.enabled, grid.stride, grid.shape) == (False, 1, (-1, -1))


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


@pytest.mark.parametrize("unit", ["nm", "um"])
def test_the_view_is_filled_whatever_unit_a_layer_has(model, unit):
    nm = {"nm": 1.0, "um": 1000.0}[unit]
    model.add_image(np.zeros((512, 512)), scale=(10, 10), units=("nm", "nm"))
    pixels = np.zeros((64, 48))
    small = model.add_image(
        pixels, scale=[5 / nm] * 2, translate=[400 / nm, 900 / nm], units=[unit] * 2
    )
    fill_view(model, small)
    box = get_visible_box(model, small)
    assert box.shape == pixels.shape
    height, _ = host.get_viewbox_size(model)
    assert 64 * 5 * host.get_camera(model).zoom == pytest.approx(0.95 * height)
