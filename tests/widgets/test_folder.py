"""*Apply to a folder…* does with each image what Run does with a layer."""

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtWidgets import QFileDialog, QPushButton

import napari_semsr as semsr
from napari_semsr.io import read, read_sheet, write
from napari_semsr.widgets.base import PANELS, create_panel
from tests.widgets.scenes import create_classical


@pytest.fixture
def folder(tmp_path, rng):
    place = tmp_path / "images"
    place.mkdir()
    for name in ("a.tif", "b.png"):
        grey = rng.integers(0, 255, (144, 150), dtype=np.uint8)
        write(semsr.Micrograph(grey, (5, 5), name), place / name)
    return place


@pytest.fixture
def answer(monkeypatch):
    """Answer the dialogs for folders, in order, and the one for a file."""

    def prepare(*folders, file=None):
        left = [str(one) for one in folders]
        monkeypatch.setattr(
            QFileDialog, "getExistingDirectory", lambda *_, **__: left.pop(0)
        )

        def ask(_, __, ___="", filters=""):
            return str(file), filters.split(";;")[0]

        monkeypatch.setattr(QFileDialog, "getSaveFileName", ask)

    return prepare


@pytest.fixture
def apply(run_panel):
    def press(panel):
        buttons = panel.findChildren(QPushButton)
        (button,) = (one for one in buttons if one.text() == "Apply to a folder…")
        return run_panel(panel, button)

    return press


def test_images_of_a_folder_are_restored_once(tmp_path, folder, answer, apply, hold):
    panel = hold(create_classical(ViewerModel(), psf="1px"))
    out = tmp_path / "out"
    out.mkdir()
    answer(folder, out)
    assert "2 images done" in apply(panel)
    made = read(out / "a.tif")
    alone = semsr.restore(folder / "a.tif", psf="1px")
    assert np.array_equal(made.array(), alone.array())
    assert (out / "b.ome.tif").is_file()
    answer(folder, out)
    assert "2 were done before" in apply(panel)


@pytest.mark.parametrize("name", ["Spectrum and quality", "Resolution"])
def test_measured_images_of_a_folder_are_one_table(
    name, folder, tmp_path, answer, apply, hold
):
    panel = hold(create_panel(ViewerModel(), PANELS[name][0]))
    answer(folder, file=tmp_path / "t.csv")
    assert "2 images measured" in apply(panel)
    sheet = read_sheet(tmp_path / "t.csv", "images")
    assert len(sheet.rows) == 2
    answer(folder, file=tmp_path / "t.csv")
    assert "2 rows kept" in apply(panel)


def test_line_is_measured_in_every_image(folder, tmp_path, answer, apply, hold):
    viewer = ViewerModel()
    viewer.add_image(read(folder / "a.tif").array(), name="a", scale=(5, 5))
    panel = hold(create_panel(viewer, PANELS["Profile"][0]))
    panel.live.value = False
    answer(folder, file=tmp_path / "t.csv")
    assert "Draw a line" in apply(panel)
    line = np.array([[20.0, 10.0], [20.0, 90.0]])
    viewer.add_shapes([line], shape_type="line", scale=(5, 5), name="line")
    panel.line.value = viewer.layers["line"]
    assert panel.read_options().line == (20, 10, 20, 90)
    assert "2 images measured" in apply(panel)
