"""Layers with a pixel size stand beside layers without one, in a real window."""

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtWidgets import QApplication

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.io import HELPER_KEY
from napari_semsr.widgets import host
from napari_semsr.widgets.base import watch_images
from napari_semsr.widgets.layers import (
    add_image_beside,
    create_layer_keywords,
    fill_view,
    get_display_fit,
    get_view,
    have_mixed_units,
    pixels_to_view,
    restore_view,
)
from tests.widgets.scenes import exposures_of, grain
from tests.widgets.test_panels import make

pytestmark = pytest.mark.usefixtures(
    "display", "qapp"
)  # which measures the names of maps

SIDE = 96
OTHER_NM = 25.0


@pytest.fixture
def viewer(make_napari_viewer_proxy):
    return make_napari_viewer_proxy(show=True)


@pytest.fixture
def warned():
    found = []

    def hear(notification):
        if "Inconsistent units" in notification.message:
            found.append(notification)

    notification_manager.notification_ready.connect(hear)
    yield found
    notification_manager.notification_ready.disconnect(hear)


def area_of(layer):
    return layer.extent.world[:, -2:]


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("module", "is_first", "is_sized"),
    [("EnhancePanel", False, True), ("ResolutionPanel", True, False)],
    ids=["sized beside bare", "bare beside sized"],
)
def test_what_a_panel_adds_lies_where_its_image_is(
    viewer, qtbot, run_panel, warned, is_sized, is_first, module
):
    watch_images(viewer)
    size = (10.0, 10.0) if is_sized else None
    taken = exposures_of((SIDE, SIDE), sharp=module == "EnhancePanel")
    own = [item.replace(pixel_size_nm=size) for item in taken]
    other_size = None if is_sized else (OTHER_NM, OTHER_NM)
    other = Micrograph(grain((64, 80), seed=4), other_size, "of another place")
    images = [*own, other] if is_first else [other, *own]
    for image in images:
        viewer.add_image(image.data, **create_layer_keywords(image))
        QApplication.processEvents()
    layers = [viewer.layers[image.name] for image in own]
    fill_view(viewer, layers[0])
    panel = make(module, viewer, qtbot)
    if module == "ResolutionPanel":
        panel.first.value, panel.second.value = layers
        panel.form.set_values(block=32)
    else:
        panel.model.show_model("classical: wiener")
        panel.layer.value = layers[0]
    before = list(viewer.layers)
    run_panel(panel)
    for _ in range(3):
        viewer.window.screenshot(flash=False)
    added = [layer for layer in viewer.layers if layer not in before]
    assert added, panel.status.text()
    low, high = area_of(layers[0])
    for layer in added:
        assert tuple(layer.units[-2:]) == tuple(layers[0].units[-2:])
        assert get_display_fit(layer)[0] == get_display_fit(layers[0])[0]
        start, end = area_of(layer)
        slack = 0.02 * (high - low)
        assert (start >= low - slack).all()
        assert (end <= high + slack).all()
    assert have_mixed_units(viewer)
    assert len(warned) == 1
    assert host.get_scale_bar(viewer).opacity == 0
    bars = [layer for layer in viewer.layers if getattr(layer, "colorbar", None)]
    assert sum(layer.colorbar.visible for layer in bars if layer.visible) <= 1
    viewer.layers.remove(viewer.layers["of another place"])
    assert host.get_scale_bar(viewer).opacity == 1


def test_positions_of_the_camera_are_in_the_units_of_the_viewer(model):
    watch_images(model)
    coarse = model.add_image(np.eye(20), units="um", scale=(2, 3), translate=(1, 0))
    fill_view(model, coarse)
    wanted = 20_000, 28_500, host.get_camera(model).zoom / 1000
    fine = model.add_image(np.eye(20), units="nm")
    assert pixels_to_view(model, fine, [(1, 2)]).tolist() == [[1, 2]]
    assert pixels_to_view(model, coarse, [(1, 2)])[0] == pytest.approx((3000, 6000))
    for act in (id, lambda item: fill_view(model, item)):  # kept; as if filled again
        act(coarse)
        camera = host.get_camera(model)
        assert (*camera.center[-2:], camera.zoom) == pytest.approx(wanted)
    view = get_view(model)
    model.layers.remove(fine)
    restore_view(model, view)
    wanted = 20, 28.5, wanted[2] * 1000
    assert (*camera.center[-2:], camera.zoom) == pytest.approx(wanted)


@pytest.mark.parametrize(("unit", "nm"), [("mm", 1e6), ("um", 1e3)])
def test_lengths_remain_comparable_beside_an_image_without_any(model, unit, nm):
    coarse = model.add_image(np.eye(4096), units=unit, scale=(5 / nm, 5 / nm))
    watch_images(model)
    fill_view(model, coarse)
    field = host.get_camera(model).zoom / nm
    bare = model.add_image(np.eye(64))
    fine = model.add_image(np.eye(4096), units="nm", scale=(5, 5))
    late = model.add_image(np.eye(4096), units=unit, scale=(5 / nm, 5 / nm))
    np.testing.assert_allclose(area_of(coarse), area_of(fine))
    np.testing.assert_allclose(area_of(late), area_of(fine))
    assert host.get_camera(model).zoom == pytest.approx(field)
    assert np.ptp(area_of(bare)) == pytest.approx(np.ptp(area_of(fine)), rel=0.02)
    steps = [(axis.stop - axis.start) / axis.step for axis in model.dims.range]
    assert max(steps) < 2**31  # as many as napari's slider can count
    view = get_view(model)
    model.layers.remove(bare)
    host.get_camera(model).zoom *= 2
    restore_view(model, view)
    assert get_view(model) == pytest.approx(view)


@pytest.mark.parametrize("sized", [True, False])
def test_a_picture_beside_calibrated_layers_is_as_high_as_they_are(model, sized):
    watch_images(model)
    place = {"scale": (0.025, 0.025), "translate": (0.075, 0.9), "units": "um"}
    low, high = 1000 * area_of(model.add_image(grain((100, 80)), **place))
    size = (10.0, 10.0) if sized else None
    layer = add_image_beside(
        model, Micrograph(grain((32, 96)), size), "picture", helper="Train"
    )
    start, end = area_of(layer)
    assert start[0] == pytest.approx(low[0])
    assert start[1] == pytest.approx(high[1] + 0.04 * (high - low)[1])
    wanted = 320 if sized else high[0] - low[0]
    assert end[0] - start[0] == pytest.approx(wanted, rel=0.05)
    assert layer.metadata[HELPER_KEY] == "Train"
