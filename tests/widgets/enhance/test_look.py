"""Comparing: the box at the mouse, the line, the two views."""

import numpy as np
import pytest

from napari_semsr.core.errors import OptionError
from napari_semsr.core.grids import Box
from napari_semsr.core.progress import run
from napari_semsr.inference.options import EnhanceOptions
from napari_semsr.jobs import ENHANCE
from napari_semsr.widgets import host
from napari_semsr.widgets.enhance.panel import EnhancePanel
from napari_semsr.widgets.layers import (
    get_visible_box,
    list_grey_layers,
    micrograph_from_layer,
)
from tests.children import LIMIT_MS
from tests.refusals import refused


@pytest.fixture
def panel(model, hold, add, exposures) -> EnhancePanel:
    add(model, exposures[0].replace(name="field", origin=(500.0, -300.0)))
    made = hold(EnhancePanel(model))
    made.form.set_values(tile=64, precision="fp32")
    return made


def point(model, y, x):
    model.cursor.position = (500 + 10.0 * y, -300 + 10.0 * x)


def test_a_box_follows_the_mouse_and_shows_what_the_run_will(panel, model, qtbot):
    image = micrograph_from_layer(model.layers["field"])
    options = EnhanceOptions(tile=64, precision="fp32")
    whole = run(ENHANCE.job(image, options=options)).array()
    point(model, 90, 100)
    panel.look.pointing.value = True
    qtbot.waitUntil(lambda: panel.look.preview.layer is not None, timeout=LIMIT_MS)
    layer = panel.look.preview.layer
    assert layer not in list_grey_layers(model)
    assert [str(unit) for unit in model.layers.units] == ["nanometer", "nanometer"]
    np.testing.assert_allclose(layer.data, whole, atol=1e-4)
    panel.look.preview.side_px = 64
    point(model, 60, 130)
    qtbot.waitUntil(lambda: layer.data.shape == (64, 64), timeout=LIMIT_MS)
    y, x = (int(v) for v in (layer.translate - (500.0, -300.0)) / 10.0)
    assert abs(y + 32 - 60) <= 16
    assert abs(x + 32 - 130) <= 16
    np.testing.assert_allclose(layer.data, whole[y : y + 64, x : x + 64], atol=1e-4)
    panel.look.pointing.value = False
    qtbot.waitUntil(lambda: not panel.look.preview.runner.is_busy, timeout=LIMIT_MS)
    assert [item.name for item in model.layers] == ["field"]


def test_a_preview_ends_with_its_panel(panel, model, qtbot):
    point(model, 90, 100)
    panel.look.pointing.value = True
    qtbot.waitUntil(lambda: panel.look.preview.layer is not None, timeout=LIMIT_MS)
    panel.cancel_all_jobs()
    qtbot.waitUntil(lambda: not panel.look.preview.runner.is_busy, timeout=LIMIT_MS)
    assert [item.name for item in model.layers] == ["field"]


@pytest.mark.broad
def test_changed_options_are_shown(panel, model, qtbot):
    seen = []
    start = panel.look.preview.runner.start
    panel.look.preview.runner.start = lambda title, make: (
        seen.append(panel.form.create_options().tile) or start(title, make)
    )
    point(model, 90, 100)
    panel.look.pointing.value = True
    qtbot.waitUntil(lambda: panel.look.preview.layer is not None, timeout=LIMIT_MS)
    panel.form.set_values(tile=128)
    qtbot.waitUntil(lambda: len(seen) > 1, timeout=LIMIT_MS)
    assert seen == [64, 128]
    panel.look.stop_preview()
    qtbot.waitUntil(lambda: not panel.look.preview.runner.is_busy, timeout=LIMIT_MS)


@pytest.mark.broad
def test_the_box_at_the_mouse_follows_the_slider(panel, model, qtbot, exposures):
    first = exposures[0].data
    planes = np.stack([first, 3 * first]).astype(np.float32)
    panel.layer.value = model.add_image(planes, name="stack", scale=(1, 10, 10))
    panel.model.show_model("sem-restore")
    model.dims.set_point(0, 0)
    model.cursor.position = (0, 900, 1000)
    panel.look.pointing.value = True
    preview = panel.look.preview
    qtbot.waitUntil(lambda: preview.layer is not None, timeout=LIMIT_MS)
    before = np.mean(preview.layer.data)
    model.dims.set_point(0, 1)
    qtbot.waitUntil(lambda: np.mean(preview.layer.data) > 2 * before, timeout=LIMIT_MS)
    panel.look.stop_preview()
    qtbot.waitUntil(lambda: not preview.runner.is_busy, timeout=LIMIT_MS)


def test_sharpen_is_off_found_or_a_width(panel):
    """A width in nm is one of the layer's pixels, here of 10 nm."""
    sharpen = panel.sharpen

    def chosen(kind, width=1.5):
        sharpen.kind.value, sharpen.sigma.value = kind, width
        return sharpen.get_blur_px((10.0, 10.0))

    assert chosen("found") is None
    assert chosen("off") == 0
    assert chosen("px") == pytest.approx(1.5)
    assert chosen("px", 0.0) == 0
    assert chosen("nm", 12.0) == pytest.approx(1.2)
    with refused(OptionError, "pixel-size-missing"):
        sharpen.get_blur_px(None)
    for value in (None, 0.0, 0.8, 0.004):
        sharpen.set_blur_px(value)
        assert sharpen.get_blur_px(None) == value


@pytest.mark.broad
def test_a_chosen_width_is_looked_at_and_what_is_found_is_told(panel, model, qtbot):
    point(model, 90, 100)
    panel.sharpen.kind.native.activated.emit(0)
    qtbot.waitUntil(lambda: panel.look.preview.layer is not None, timeout=LIMIT_MS)
    qtbot.waitUntil(
        lambda: "px" in panel.sharpen.kind.native.itemText(0), timeout=LIMIT_MS
    )
    panel.look.stop_preview()
    qtbot.waitUntil(lambda: not panel.look.preview.runner.is_busy, timeout=LIMIT_MS)


def test_a_preview_of_nothing_is_refused_in_a_sentence(panel, model):
    model.layers.clear()
    panel.look.pointing.value = True
    assert "Choose an image layer" in panel.status.text()
    assert not panel.look.preview.runner.is_busy


def test_a_layer_in_another_unit_is_found_in_view_and_at_the_mouse(
    panel, model, qtbot, look_at, exposures
):
    look_at(model.layers["field"], 20, 120, 40, 140)
    source = model.add_image(
        exposures[0].data, name="µm", scale=(0.01, 0.01), units="µm", translate=(0.5, 0)
    )
    assert get_visible_box(model, source) == Box(20, 120, 10, 110)
    panel.layer.value = source
    panel.model.show_model("sem-restore")  # no file states a microscope
    panel.look.preview.side_px = 64
    model.cursor.position = (500 + 10.0 * 60, 10.0 * 130)
    panel.look.pointing.value = True
    qtbot.waitUntil(lambda: panel.look.preview.layer is not None, timeout=LIMIT_MS)
    y, x = (panel.look.preview.layer.translate - (500.0, 0)) / 10.0
    assert abs(y + 32 - 60) <= 16
    assert abs(x + 32 - 130) <= 16
    panel.look.stop_preview()
    qtbot.waitUntil(lambda: not panel.look.preview.runner.is_busy, timeout=LIMIT_MS)


def test_the_line_covers_its_share_with_the_input(panel, model, look_at):
    source = model.layers["field"]
    look_at(source, 20, 120, 40, 140)
    panel.look.split.value = 30
    layer = model.layers["before"]
    np.testing.assert_array_equal(layer.data, source.data[20:120, 40:70])
    np.testing.assert_allclose(layer.data_to_world((0, 0)), [700.0, 100.0])
    np.testing.assert_array_equal(layer.scale, source.scale)
    assert layer.contrast_limits == source.contrast_limits
    assert [str(unit) for unit in model.layers.units] == ["nanometer", "nanometer"]
    assert layer not in list_grey_layers(model)
    assert panel.layer.value is source
    panel.look.split.value = 60
    assert layer.data.shape == (100, 60)
    panel.look.beside.value = True
    assert "two different layers" in panel.status.text()
    assert not panel.look.beside.value
    assert not host.get_grid(model).enabled
    panel.look.split.value = 0
    assert [item.name for item in model.layers] == ["field"]


@pytest.mark.parametrize("finer", [False, True], ids=["alone", "beside finer planes"])
def test_the_line_covers_with_the_plane_that_is_shown(
    panel, model, qtbot, finer, look_at
):
    planes = np.arange(5, dtype=np.float32)[:, None, None] * np.ones((20, 20))
    source = model.add_image(planes, name="stack", scale=(1, 10, 10))
    if finer:
        model.add_image(np.zeros((17, 20, 20)), name="fine", scale=(0.25, 10, 10))
    panel.look.left.value = source
    model.dims.set_point(0, 1)
    look_at(source, 0, 20, 0, 20)
    panel.look.split.value = 50
    before = model.layers["before"]
    assert np.unique(before.data) == 1
    for point in (4, 2):
        model.dims.set_point(0, point)
        qtbot.waitUntil(
            lambda: np.unique(before.data).tolist() == [point],  # noqa: B023
            timeout=LIMIT_MS,
        )


@pytest.mark.broad
def test_the_line_follows_the_camera_and_the_level(panel, model, qtbot, look_at):
    image = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
    source = model.add_image(
        [image, image[::2, ::2]],
        multiscale=True,
        name="coarse",
        contrast_limits=(0, 4096),
        scale=(10, 10),
        units=("nm", "nm"),
    )
    panel.layer.value = source
    look_at(source, 0, 64, 0, 64)
    panel.look.split.value = 50
    layer = model.layers["before"]
    np.testing.assert_array_equal(layer.data, image[::2, ::2][:, :16])
    np.testing.assert_array_equal(layer.scale, [20, 20])
    np.testing.assert_array_equal(layer.translate, [5, 5])
    look_at(source, 16, 48, 16, 48)
    qtbot.waitUntil(lambda: layer.data.shape == (16, 8), timeout=LIMIT_MS)
    panel.look.split.value = 0
