from types import SimpleNamespace

import numpy as np
import pytest
from napari.layers import Points, Vectors
from qtpy.QtWidgets import QApplication

from napari_semsr.core.micrograph import Micrograph, parse_pixel_size
from napari_semsr.widgets import host
from napari_semsr.widgets.measure.particles import ParticlesPanel, describe_outlines


def discs(gap: int) -> np.ndarray:
    """Two bright discs with a dark gap between them, in 64 x 96 px."""
    y, x = np.mgrid[:64, :96]
    centres = (48 - 14 - gap / 2, 48 + 14 + gap / 2)
    inside = [np.hypot(y - 32, x - centre) < 14 for centre in centres]
    return np.where(inside[0] | inside[1], 200.0, 20.0).astype(np.float32)


@pytest.fixture
def panel(model, hold, add) -> ParticlesPanel:
    for name, gap in (("truth", 6), ("taken", 6)):
        add(model, Micrograph(discs(gap), parse_pixel_size(5.0), name))
    return hold(ParticlesPanel(model))


def test_gaps_are_counted_and_marked_in_place(panel, model, run_panel):
    panel.image.value = model.layers["taken"]
    assert panel.reference.value is model.layers["truth"]  # proposed
    assert panel.form.get_widget("labels").native.isHidden()
    said = run_panel(panel)
    (name, size), *_ = panel.findings().numbers.items()
    assert (name, size.large) == ("Mean diameter", True)
    assert size.note.startswith("of 2 particles")
    what = f"mean of 2 particles, {size.verdict}; 1 gap."
    assert said == f"{size.value_text} nm across, {what}"
    (_, marks) = (layer for layer in model.layers if isinstance(layer, Points))
    np.testing.assert_allclose(marks.data_to_world(marks.data[0]), (160, 240), atol=10)
    width = float(marks.features["width (nm)"][0])
    assert 30 <= width < 40  # six pixels, where the discs are nearest
    found = panel.findings().curves
    assert found["gaps"]["width (nm)"] == [pytest.approx(width)]
    diameters = list(found["Particles"]["Diameter (nm)"])
    assert diameters == pytest.approx([140, 140], rel=0.03)


def test_a_run_takes_the_place_of_the_one_before(panel, model, run_panel):
    layer = model.layers["taken"]
    layer.data = np.where(np.arange(96) < 4, np.nan, layer.data)
    panel.image.value = layer
    said = run_panel(panel)
    names = [item.name for item in model.layers]
    chosen = model.layers.selection.active = model.layers["Particles: taken, gaps"]
    panel.image.value = layer
    assert run_panel(panel) == said
    assert [item.name for item in model.layers] == names
    assert model.layers.selection.active is model.layers[chosen.name]


@pytest.mark.broad
def test_lines_and_rows_lead_to_the_gaps(panel, model, run_panel):
    panel.image.value = model.layers["taken"]
    run_panel(panel)
    (lines,) = (layer for layer in model.layers if isinstance(layer, Vectors))
    start, along = lines.data[0]
    width = panel.findings().curves["gaps"]["reference (px)"][0]
    assert np.hypot(*along) == pytest.approx(width)
    middle = lines.data_to_world(start + along / 2)
    np.testing.assert_allclose(middle, (160, 237.5), atol=3)
    panel.helpers.value = False
    assert not lines.visible
    panel.rows.selectRow(0)
    camera = host.get_camera(model)
    np.testing.assert_allclose(camera.center[-2:], (160, 237.5), atol=3)
    copy, _ = panel.rows.actions()
    copy.trigger()
    head, row = QApplication.clipboard().text().splitlines()
    assert head.split("\t")[:2] == ["gap kind", "gap y (nm)"]
    assert row.startswith("found\t")


@pytest.mark.parametrize(("clear", "is_trusted"), [(0.46, False), (0.91, True)])
def test_outlines_that_are_not_clear_are_not_to_be_trusted(clear, is_trusted):
    text = describe_outlines(SimpleNamespace(clear=clear))
    assert f"{100 * clear:.0f} % clearly outlined" in text
    assert ("do not trust" in text) != is_trusted
