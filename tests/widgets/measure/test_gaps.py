import numpy as np
import pytest
from napari.layers import Points, Vectors
from qtpy.QtWidgets import QApplication

from napari_semsr.core.micrograph import Micrograph, parse_pixel_size
from napari_semsr.widgets import host
from napari_semsr.widgets.measure.gaps import GapsPanel


def discs(gap: int) -> np.ndarray:
    """Two bright discs with a dark gap between them, in 64 x 96 px."""
    y, x = np.mgrid[:64, :96]
    centres = (48 - 14 - gap / 2, 48 + 14 + gap / 2)
    inside = [np.hypot(y - 32, x - centre) < 14 for centre in centres]
    return np.where(inside[0] | inside[1], 200.0, 20.0).astype(np.float32)


@pytest.fixture
def panel(model, hold, add) -> GapsPanel:
    for name, gap in (("truth", 6), ("taken", 6)):
        add(model, Micrograph(discs(gap), parse_pixel_size(5.0), name))
    return hold(GapsPanel(model))


def test_gaps_are_counted_and_marked_in_place(panel, model, run_panel):
    panel.image.value = model.layers["taken"]
    assert panel.reference.value is model.layers["truth"]  # proposed
    said = run_panel(panel)
    assert said.startswith("Found 1 gap between 2 particles, distributed over ")
    assert "of the field and covering 20 % of its area" in said
    (_, marks) = (layer for layer in model.layers if isinstance(layer, Points))
    np.testing.assert_allclose(marks.data_to_world(marks.data[0]), (160, 240), atol=10)
    width = float(marks.features["width (nm)"][0])
    assert 30 <= width < 40  # six pixels, where the discs are nearest
    found = panel.findings().curves
    assert found["gaps"]["width (nm)"] == [pytest.approx(width)]
    assert list(found["Particles"]["Diameter (nm)"]) == pytest.approx(
        [140, 140], rel=0.03
    )


def test_a_run_takes_the_place_of_the_one_before(panel, model, run_panel):
    layer = model.layers["taken"]
    layer.data = np.where(np.arange(96) < 4, np.nan, layer.data)
    panel.image.value = layer
    said = run_panel(panel)
    names = [item.name for item in model.layers]
    chosen = model.layers.selection.active = model.layers["Gaps: taken"]
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
    panel.copy_button.click()
    head, row = QApplication.clipboard().text().splitlines()
    assert head.startswith("gap: kind\tgap: y (px)")
    assert row.startswith("found\t")
