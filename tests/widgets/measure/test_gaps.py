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
    text = panel.figures.text()
    assert "Not seen" in text
    (_, marks) = (layer for layer in model.layers if isinstance(layer, Points))
    assert marks.visible
    np.testing.assert_allclose(marks.data_to_world(marks.data[0]), (160, 240), atol=10)
    width = float(marks.features["width (nm)"][0])
    assert 30 <= width < 40  # six pixels, where the discs are nearest
    assert model.layers.selection.active is not marks
    found = panel.findings().curves["gaps"]
    assert found["width (nm)"] == [pytest.approx(width)]


def test_a_plot_without_data_is_not_offered(panel, model, run_panel):
    panel.image.value = model.layers["taken"]
    panel.reference.value = None
    run_panel(panel)
    assert not panel.sharing.plot_button.isHidden()
    panel.image.value.data = np.full((64, 96), 7, np.uint16)
    assert run_panel(panel).startswith("Found 0 gaps")
    assert panel.findings().plot is None
    assert panel.sharing.plot_button.isHidden()


@pytest.mark.parametrize("chosen", ["taken", "Gaps: taken", "Gaps: measured part"])
def test_a_run_takes_the_place_of_the_one_before(panel, model, run_panel, chosen):
    layer = model.layers["taken"]
    layer.data = np.where(np.arange(96) < 4, np.nan, layer.data)
    panel.image.value = layer
    said = run_panel(panel)
    names = [item.name for item in model.layers]
    model.layers.selection.active = model.layers[chosen]
    panel.image.value = layer
    assert run_panel(panel) == said
    assert [item.name for item in model.layers] == names
    assert model.layers.selection.active is model.layers[chosen]


@pytest.mark.broad
def test_diameters_are_read_beside_one_that_is_far_wider(panel, add, model, run_panel):
    y, x = np.mgrid[:200, :320]
    places = [(30 + 16 * n % 160, 12 + 16 * n // 160 * 16) for n in range(100)]
    seen = np.hypot(y - 100, x - 250) < 60
    for row, column in places:
        seen |= np.hypot(y - row, x - column) < 4
    image = np.where(seen, 200.0, 20.0).astype(np.float32)
    panel.image.value = add(model, Micrograph(image, parse_pixel_size(5.0), "many"))
    panel.reference.value = None
    run_panel(panel)
    axes = panel.plot.axes[1]
    assert axes.get_xlim()[1] < 200  # nm; the wide one has 600
    assert "; 1 above " in axes.get_xlabel()


def test_particles_without_a_gap_are_drawn_alone(panel, add, model, run_panel):
    y, x = np.mgrid[:64, :96]
    image = np.where(np.hypot(y - 32, x - 48) < 14, 200.0, 20.0).astype(np.float32)
    panel.image.value = add(model, Micrograph(image, parse_pixel_size(5.0), "one"))
    panel.reference.value = None
    assert run_panel(panel).startswith(
        "Found 0 gaps between 1 particles, distributed over "
    )
    drawn = [axes.get_ylabel() for axes in panel.plot.axes if axes.has_data()]
    assert drawn == ["Particles"]


@pytest.mark.broad
def test_gaps_that_the_image_hides_are_marked_apart(panel, model, run_panel):
    model.layers["taken"].data = np.full((64, 96), 100, np.float32)
    panel.image.value = model.layers["taken"]
    run_panel(panel)
    assert "100.0 %" in panel.figures.text()
    (_, marks) = (layer for layer in model.layers if isinstance(layer, Points))
    panel.image.value = model.layers["truth"]
    panel.reference.value = None
    run_panel(panel)
    (*_, own) = (layer for layer in model.layers if isinstance(layer, Points))
    assert not np.allclose(marks.face_color[0], own.face_color[0])


@pytest.mark.broad
def test_lines_lie_across_the_gaps_on_the_image(panel, model, run_panel):
    panel.image.value = model.layers["taken"]
    run_panel(panel)
    (lines,) = (layer for layer in model.layers if isinstance(layer, Vectors))
    start, along = lines.data[0]
    assert np.hypot(*along) == pytest.approx(
        panel.findings().curves["gaps"]["reference (px)"][0]
    )
    np.testing.assert_allclose(
        lines.data_to_world(start + along / 2), (160, 237.5), atol=3
    )
    np.testing.assert_array_equal(lines.scale, model.layers["taken"].scale)
    assert lines.visible
    panel.helpers.value = False
    assert not lines.visible


@pytest.mark.broad
def test_rows_are_copied_and_lead_to_their_gap(panel, model, run_panel):
    panel.image.value = model.layers["taken"]
    run_panel(panel)
    assert panel.rows.rowCount() == 1
    assert panel.rows.item(0, 0).text() == "found"
    panel.rows.selectRow(0)
    camera = host.get_camera(model)
    np.testing.assert_allclose(camera.center[-2:], (160, 237.5), atol=3)
    panel.copy_button.click()
    head, row = QApplication.clipboard().text().splitlines()
    assert head.startswith("gap: kind\tgap: y (px)")
    assert row.startswith("found\t")


@pytest.mark.broad
def test_histogram_particles_and_legend_are_told(panel, model, run_panel):
    panel.image.value = model.layers["taken"]
    run_panel(panel)
    text = panel.figures.text() + panel.results.remarks.text()
    assert "found 1" in text
    assert "invented 0" in text
    curves = panel.findings().curves
    assert sum(curves["widths"]["image"]) == 1
    assert list(curves["Particles"]["Diameter (nm)"]) == pytest.approx(
        [140, 140], rel=0.03
    )
    panel.reference.value = None
    run_panel(panel)
    assert "invented" not in panel.results.remarks.text()
    assert panel.rows.columnCount() == 4


def test_sizes_are_those_of_an_image_and_of_labels(model, hold, add, run_panel):
    y, x = np.indices((120, 140))
    discs = np.where(np.hypot(y - 60, x - 40) < 15, 150.0, 50.0)
    discs[np.hypot(y - 60, x - 110) < 6] = 150
    labels = np.where(np.hypot(y - 60, x - 90) < 12, 5, 0)
    model.add_labels(labels, name="drawn", scale=(3, 3), units=("nm", "nm"))
    add(model, Micrograph(discs, parse_pixel_size(2.0), "discs"))
    panel = hold(GapsPanel(model))
    assert panel.image.value.name == "discs"
    run_panel(panel)
    rings = model.layers["Gaps: discs, particles"]
    np.testing.assert_allclose(rings.data_to_world(rings.data[0]), (120, 80), atol=0.5)
    assert sorted(rings.size) == pytest.approx([12, 30], rel=0.05)
    widths = rings.size * rings.border_width
    assert max(widths) < 3 * min(widths)
    assert "Cut by the border" in panel.figures.text()
    panel.image.value = model.layers["drawn"]
    run_panel(panel)
    curves = panel.findings().curves
    assert list(curves["Particles"]["Label"]) == [5]
    assert curves["Particles"]["Diameter (nm)"] == pytest.approx([70.7], rel=0.01)
