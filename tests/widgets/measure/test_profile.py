import re
from types import SimpleNamespace

import numpy as np
import pytest
from napari.utils._proxies import ReadOnlyWrapper
from napari.utils.interactions import (
    mouse_move_callbacks,
    mouse_press_callbacks,
    mouse_release_callbacks,
)

from napari_semsr.analysis import Estimate
from napari_semsr.core.micrograph import Micrograph, parse_pixel_size
from napari_semsr.widgets.layers import add_line_layer
from napari_semsr.widgets.measure.profile import LayerProfile, ProfilePanel
from tests.children import LIMIT_MS

ROWS, COLUMNS = np.indices((96, 128), dtype=float)


def line_at(column: float, width: float = 8.0) -> np.ndarray:
    """A bright line of known FWHM down the image."""
    bell = np.exp(-4 * np.log(2) * ((COLUMNS - column) / width) ** 2)
    return (100 + 50 * bell).astype(np.float32)


@pytest.fixture
def panel(model, hold, add) -> ProfilePanel:
    add(model, Micrograph(line_at(60), parse_pixel_size(5.0), "field"))
    made = hold(ProfilePanel(model))
    made.form.set_values(pixel="point")
    return made


@pytest.fixture
def draw(panel, qtbot):
    """Draw a line, in pixels of the field, and wait until it has been measured."""

    def put(*ends: float) -> None:
        panel.start_drawing()
        scale = 5.0 / panel.line.value.scale[0]
        panel.line.value.add_lines(scale * np.reshape(ends, (2, 2)))
        qtbot.waitUntil(
            lambda: panel.profiles is not None and not panel.is_busy, timeout=LIMIT_MS
        )

    return put


def test_a_drawn_line_is_measured_in_nm(panel, draw, run_panel):
    assert "Draw a line" in run_panel(panel)
    assert not panel.hint.isHidden()
    draw(40, 10, 40, 110)
    said = r"Line (\S+) nm wide \(FWHM; 95 %: (\S+) to (\S+)\), along 500 nm\."
    width, low, high = map(float, re.fullmatch(said, panel.status.text()).groups())
    assert low <= width <= high
    assert width == pytest.approx(40, rel=1e-3)
    assert panel.hint.isHidden()
    found = panel.findings()
    assert found.numbers["Line, FWHM"].value == pytest.approx(40, rel=1e-3)
    assert found.numbers["Line, FWHM"].unit == "nm"
    assert found.plot.axes[0].get_xlabel() == "Distance (nm)"
    distance = found.curves["field"]["distance (nm)"]
    np.testing.assert_allclose(distance[[0, -1]], (0, 500))
    assert found.origin == ("field",)


def test_a_scale_line_is_not_measured_and_nothing_is_refused_unasked(panel, model):
    line = np.array([[40, 10], [40, 110]])
    scale = add_line_layer(model, "Scale line", 1, scale=(5, 5), units=("nm", "nm"))
    scale.add_lines(line)
    assert panel.line.value is None
    model.add_image(line_at(30), name="bare")
    panel.layers.value = list(panel.layers.choices)  # with and without a pixel size
    lines = model.add_shapes([line], shape_type="line", name="own")
    assert panel.line.value is lines
    assert panel.status.text() == ""
    panel.run_button.click()
    assert "must be either all calibrated" in panel.status.text()
    model.layers.clear()
    panel.run_button.click()
    assert panel.status.text().startswith("Choose an image layer;")


class Mouse:
    """The mouse on a layer, as napari's canvas tells it; in the world's units."""

    act = {  # noqa: RUF012
        "mouse_press": mouse_press_callbacks,
        "mouse_move": mouse_move_callbacks,
        "mouse_release": mouse_release_callbacks,
    }

    def __init__(self, layer):
        self.layer = layer

    def __call__(self, kind, y, x):
        event = SimpleNamespace(
            type=kind, position=(y, x), is_dragging=kind == "mouse_move", modifiers=(),
            button=1, buttons=[] if kind == "mouse_release" else [1], handled=False,
            dims_displayed=[0, 1], pos=(y, x), view_direction=None, up_direction=None,
        )  # fmt: skip
        self.act[kind](self.layer, ReadOnlyWrapper(event, exceptions=("handled",)))


@pytest.fixture
def idle(panel, qtbot):
    """Wait until nothing is read, measured or shown."""

    def wait() -> None:
        qtbot.wait(1)
        qtbot.waitUntil(
            lambda: not panel.is_busy and not panel.follower.is_busy, timeout=LIMIT_MS
        )

    return wait


def test_first_line_is_measured_where_the_mouse_lets_go(panel, idle):
    panel.start_drawing()
    mouse = Mouse(panel.line.value)
    mouse("mouse_press", 200, 50)
    for x in (60, 300, 550):
        mouse("mouse_move", 200, x)
        idle()
        shown = panel.profiles.layers[0].profile
        assert shown.length_px * shown.per_px == pytest.approx(x - 50, abs=0.5)
        assert not panel.findings().numbers  # nothing is told of what moves
    mouse("mouse_release", 200, 550)
    idle()
    assert panel.status.text().endswith(", along 500 nm.")
    found = panel.findings().numbers["Line, FWHM"].value
    assert found == pytest.approx(40, rel=1e-3)


@pytest.mark.broad
def test_several_layers_share_one_axis(panel, draw, model, add, run_panel):
    add(model, Micrograph(line_at(60, 12)[::2, ::2], parse_pixel_size(10.0), "coarse"))
    colour = np.stack([line_at(60).astype(np.uint8)] * 3, axis=-1)
    model.add_image(colour, rgb=True, name="photo", scale=(5, 5), units=("nm", "nm"))
    panel.layers.value = [model.layers[n] for n in ("field", "coarse", "photo")]
    draw(40, 10, 40, 110)
    run_panel(panel)
    numbers = panel.findings().numbers
    for name, width in (("field", 40), ("coarse", 60), ("photo", 40)):
        found = numbers[f"{name}: Line, FWHM"].value
        assert found == pytest.approx(width, rel=0.02), name
    panel.alike.value = True
    for line in panel.plot.axes[0].get_lines()[::2]:
        curve = line.get_ydata()
        assert np.nanmin(curve) == pytest.approx(0, abs=1e-6)
        assert np.nanmax(curve) == pytest.approx(1, abs=1e-6)


@pytest.mark.broad
def test_turned_layers_are_measured_as_they_are_shown(panel, draw, model):
    layer = model.layers["field"]
    layer.affine = np.eye(3)
    layer.rotate = 90  # rows become columns
    panel.start_drawing()
    ends = [layer.data_to_world(end) for end in ((40, 10), (40, 110))]
    draw(*(np.array(ends) / 5).ravel())
    found = panel.findings().numbers["Line, FWHM"].value
    assert found == pytest.approx(40, rel=1e-3)


@pytest.mark.parametrize(
    ("widths", "said"),
    [
        ((None, 62), "1 of 2 lines 62 nm wide (FWHM; 95 %: 56 to 68)"),
        ((30, 40, 60), "3 lines 40 nm wide (FWHM, median; range: 30 to 60)"),
    ],
)
def test_widths_of_several_lines_are_given_by_median_and_range(widths, said):
    lines = [SimpleNamespace(fwhm=n and Estimate(n, 3, n - 6, n + 6)) for n in widths]
    readings = SimpleNamespace(lines=lines, edge=None, reason=None)
    curve = SimpleNamespace(unit="nm", readings=readings)
    curve.convert_to_axis_unit = lambda fit: fit
    assert LayerProfile("field", None, curve).summary == said


def test_a_clipped_line_is_drawn_but_not_measured(panel, draw, model):
    white = np.clip(3 * line_at(60, 20.0) - 150, 0, 255)
    model.layers["field"].data = white.astype(np.uint8)
    draw(40, 10, 40, 110)
    found = panel.findings()
    assert "Line, FWHM" not in found.numbers
    assert "No width: " in panel.headline.text()
    assert "the profile is clipped" in panel.headline.text()
    assert found.curves["field"]
