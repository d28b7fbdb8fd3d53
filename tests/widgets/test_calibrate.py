import numpy as np
import pytest
from napari.layers import Image, Shapes

from napari_semsr.core import Micrograph, OptionError, parse_pixel_size
from napari_semsr.io import HELPER_KEY, read_calibration
from napari_semsr.registration import fit_landmarks
from napari_semsr.widgets import host
from napari_semsr.widgets.calibrate import measure_line_length
from napari_semsr.widgets.layers import (
    apply_pixel_size,
    create_overlay_keywords,
    is_calibrated,
    micrograph_from_layer,
)
from napari_semsr.widgets.open_mosaic import OpenMosaicPanel
from napari_semsr.widgets.register.panel import RegisterPanel
from tests.refusals import refused
from tests.widgets.scenes import create_classical, edges, grain

IMAGE = np.zeros((40, 60), np.uint8)


@pytest.fixture
def panel(model, hold) -> OpenMosaicPanel:
    model.add_image(IMAGE, name="field")
    return hold(OpenMosaicPanel(model))


@pytest.mark.parametrize(
    ("affine", "origin"),
    [(np.eye(3), (20, 60)), ([[2, 0, 3], [0, 4, 5], [0, 0, 1]], (27.5, 72.5))],
    ids=["plain", "by napari's transform tool"],
)
def test_apply_pixel_size_moves_the_origin_along(affine, origin):
    layer = Image(IMAGE, scale=(2, 2), translate=(4, 6), affine=affine)
    apply_pixel_size(layer, (10.0, 20.0))
    found = micrograph_from_layer(layer)
    assert found.pixel_size_nm == pytest.approx((10.0, 20.0), rel=1e-12)
    assert found.origin == pytest.approx(origin)


@pytest.mark.broad
def test_scale_from_a_grating(panel, model, finish, tmp_path, choose):
    group = panel.calibrate
    y, x = np.indices((160, 200))
    lines = 1 + np.sin(2 * np.pi * (x + 0.3 * y) / 10)
    layer = model.add_image(lines, name="grating")
    group.layer.value = layer
    group.grating_button.click()
    assert "period must exceed 0" in panel.status.text()
    group.pitch.value = 10 / np.hypot(1, 0.3) * 20
    group.grating_button.click()
    finish(panel)
    assert micrograph_from_layer(layer).pixel_size_nm == pytest.approx((20, 20), 1e-3)
    error = micrograph_from_layer(layer).pixel_size_sd_nm
    assert error is not None
    assert 0 < max(error) < 0.02
    assert "Pixel size: 20" in group.grating.text()
    assert "% at the rim" in group.grating.text()
    path = tmp_path / "scope.json"
    choose(path.with_suffix(""), ".json")
    group.save_button.click()
    assert "use it as Calibration" in panel.status.text()
    size, _, bent = read_calibration(path)
    assert size == pytest.approx((20, 20), 1e-3)
    assert bent.shape == (160, 200)
    group.apply_button.click()  # a size that is typed has no error
    assert micrograph_from_layer(layer).pixel_size_sd_nm is None
    group.layer.value = model.layers["field"]
    group.grating_button.click()
    finish(panel)
    assert "No grating found" in panel.status.text()


@pytest.mark.quick(1)
@pytest.mark.parametrize(("unit", "value"), [("nm", 400), ("µm", 0.4), ("mm", 4e-4)])
def test_known_distance_in_any_unit_and_its_length_in_px(panel, model, unit, value):
    group = panel.calibrate
    group.draw_button.click()
    model.layers["Scale line"].add_lines(np.array([[10.0, 5.0], [10.0, 55.0]]))
    assert group.length.text() == "The line is 50.0 px long"
    group.distance_unit.value = unit
    group.distance.value = value
    group.measure_button.click()
    assert group.pixel_size.value == pytest.approx((8, 8), rel=1e-12)
    assert group.length.text() == "The line is 50.0 px long, 400 nm"


@pytest.mark.quick(1)
@pytest.mark.parametrize("scale", [(1, 1), (2, 1)], ids=["square", "oblong"])
def test_view_stays_on_its_place_and_undo_works_back(panel, model, scale):
    group, layer = panel.calibrate, model.layers["field"]
    layer.scale, layer.translate = scale, (5, 7)
    host.get_camera(model).center, host.get_camera(model).zoom = (0, 20, 30), 3.0
    group.draw_button.click()
    line = model.layers["Scale line"]
    line.add_lines(np.array([[10.0, 5.0], [10.0, 55.0]]))
    seen = layer.world_to_data(host.get_camera(model).center[1:])
    for size in (25.0, 0.5):
        group.pixel_size.value = (size * scale[0], size * scale[1])
        group.apply_button.click()
        assert layer.world_to_data(host.get_camera(model).center[1:]) == pytest.approx(
            seen
        )
        assert host.get_camera(model).zoom * size == pytest.approx(3.0)
        assert line.scale == pytest.approx(layer.scale)
    assert group.undo_button.isEnabled()
    group.undo_button.click()
    assert group.pixel_size.value == (25.0 * scale[0], 25.0 * scale[1])
    group.undo_button.click()
    for item in (layer, line):
        assert tuple(item.scale) == scale
        assert tuple(item.translate) == (5, 7)
        assert [str(unit) for unit in item.units] == ["pixel", "pixel"]
    assert host.get_camera(model).center == pytest.approx((0, 20, 30))
    assert host.get_camera(model).zoom == pytest.approx(3.0)
    assert not group.undo_button.isEnabled()


def test_anisotropic_pixels_keep_their_ratio(panel, model):
    model.layers["field"].scale = (2, 1)
    panel.calibrate.start_drawing()
    model.layers["Scale line"].add_lines(np.array([[0.0, 0.0], [10.0, 0.0]]))
    panel.calibrate.distance.value = 100.0
    panel.calibrate.set_scale_from_line()
    assert micrograph_from_layer(model.layers["field"]).pixel_size_nm == (10.0, 5.0)


def sizes(viewer):
    images = [item for item in viewer.layers if isinstance(item, Image)]
    found = {item.name: micrograph_from_layer(item).pixel_size_nm for item in images}
    return {name: size and pytest.approx(size) for name, size in found.items()}


def test_what_was_made_of_a_layer_takes_its_pixel_size(model, hold, run_panel):
    field = model.add_image(edges(), name="field")
    opener = hold(OpenMosaicPanel(model))
    group = opener.calibrate
    run_panel(hold(create_classical(model)))
    sharp, crop = model.layers["field · wiener"], opener.crop
    corners = np.array([[20, 30], [60, 70]])
    box = model.add_shapes(corners, shape_type="rectangle", name="box")
    crop.layer.value, crop.like.value = sharp, box
    run_panel(opener, crop.crop_button)
    part = model.layers["field · wiener · crop"]
    finer = model.add_image(
        grain((192, 192)), name="finer", scale=(0.5, 0.5), metadata=sharp.metadata
    )
    model.add_image(edges(seed=5), name="other")
    for size in (20.0, 8.0):
        group.layer.value = field
        group.pixel_size.value = (size, size)
        group.apply_button.click()
        assert sizes(model) == {
            "field": (size, size),
            sharp.name: (size, size),
            part.name: (size, size),
            "finer": (size / 2, size / 2),
            "other": None,
        }
        assert part.translate == pytest.approx(corners[0] * size, abs=size)
    assert f"results: {sharp.name}, {part.name}, finer." in opener.status.text()
    group.undo_button.click()
    group.undo_button.click()
    assert set(sizes(model).values()) == {None}
    assert tuple(finer.scale) == (0.5, 0.5)


def test_another_image_of_the_same_name_leaves_results_alone(model, hold, run_panel):
    first = model.add_image(edges(), name="scan")
    group = hold(OpenMosaicPanel(model)).calibrate
    run_panel(hold(create_classical(model)))
    first.name = "sample A"
    second = model.add_image(edges(seed=5), name="scan", metadata=first.metadata)
    for layer, size in ((second, 5.0), (first, 8.0)):
        group.layer.value, group.pixel_size.value = layer, (size, size)
        group.apply_button.click()
        given = None if layer is second else (8.0, 8.0)
        assert sizes(model)["scan · wiener"] == given
    assert sizes(model)["scan"] == (5.0, 5.0)


def test_a_size_waits_for_the_job_that_has_read_the_image(model, hold, finish):
    model.add_image(edges(), name="field")
    opener, restore = hold(OpenMosaicPanel(model)), hold(create_classical(model))
    group = opener.calibrate
    group.pixel_size.value = (4.0, 4.0)
    group.apply_button.click()
    restore.run_button.click()
    group.pixel_size.value = (5.0, 5.0)
    for button in (group.apply_button, group.undo_button):
        opener.messages.show_status("")
        button.click()
        assert "Enhance uses field" in opener.status.text()
        assert sizes(model) == {"field": (4.0, 4.0)}
    finish(restore)
    group.layer.value, group.pixel_size.value = model.layers["field"], (5.0, 5.0)
    group.apply_button.click()
    assert sizes(model) == dict.fromkeys(("field", "field · wiener"), (5.0, 5.0))
    group.undo_button.click()
    assert sizes(model)["field · wiener"] == (4.0, 4.0)


def test_marks_and_helpers_go_along_with_their_own_image(model, hold, add):
    corners = np.array([[0, 0], [0, 50], [30, 0], [30, 50.0]])
    size = parse_pixel_size(10.0)
    own, other = (add(model, Micrograph(IMAGE, size, name)) for name in "ab")
    register, group = hold(RegisterPanel(model)), hold(OpenMosaicPanel(model)).calibrate
    register.moving.value, register.fixed.value = own, other
    register.marks.add_button.click()
    for layer in register.marks.points:
        layer.data = corners
    register.marks.stop()
    part = Micrograph(IMAGE[5:, 8:], size, "a", origin=(50.0, 80.0))
    of_own = model.add_points(
        [(0, 0)], **create_overlay_keywords(part, ("some panel"), own)
    )
    of_other = model.add_points(
        [(5, 8)], **create_overlay_keywords(part, ("some panel"), other)
    )
    older = model.add_points([(5, 8)], scale=own.scale, units=own.units)
    older.metadata = {HELPER_KEY: "some panel"}  # of an older project: names none
    drawn = model.add_points([(5, 8)], scale=own.scale, units=own.units)
    unlike = [tuple(item.scale) for item in (other, of_other, drawn)]
    group.layer.value, group.pixel_size.value = own, (12.0, 12.0)
    group.apply_button.click()
    for item in (of_own, older):
        assert item.data_to_world(item.data[0]) == pytest.approx((60, 96))
    assert unlike == [tuple(item.scale) for item in (other, of_other, drawn)]
    marks = register.marks.landmarks()
    np.testing.assert_allclose(marks.moving, 12 * corners)
    np.testing.assert_allclose(marks.fixed, 10 * corners)
    found = fit_landmarks(marks, "similarity").transform
    np.testing.assert_allclose(found.matrix, np.eye(2) * 10 / 12, atol=1e-9)
    group.undo_button.click()
    np.testing.assert_allclose(register.marks.landmarks().moving, 10 * corners)
    assert of_own.data_to_world(of_own.data[0]) == pytest.approx((50, 80))


def test_line_without_length_is_refused():
    line = Shapes([np.zeros((2, 2))], shape_type="line")
    with refused(OptionError, "line-without-length"):
        measure_line_length(line, (1.0, 1.0))


def test_the_printed_bar_gets_the_line_and_its_length_is_typed(panel, model, finish):
    image = np.random.default_rng(0).integers(90, 170, (400, 600), dtype=np.uint8)
    image[350:] = 0
    image[365:367, 350:470] = 255
    layer = model.add_image(image, name="barred")
    group = panel.calibrate
    group.layer.value = model.layers["field"]
    group.bar_button.click()
    finish(panel)
    assert "No printed scale bar" in panel.status.text()
    group.layer.value = layer
    group.bar_button.click()
    finish(panel)
    assert "120 px long" in panel.status.text()
    assert micrograph_from_layer(layer).pixel_size_nm is None
    line = model.layers["Scale line"]
    np.testing.assert_allclose(line.data[-1], [[365.5, 349.5], [365.5, 469.5]])
    group.distance.value = 6000.0
    group.measure_button.click()
    assert micrograph_from_layer(layer).pixel_size_nm == pytest.approx((50.0, 50.0))


def test_scale_line_calibrates_no_image_but_its_own(panel, model):
    group, other = panel.calibrate, model.add_image(IMAGE + 1, name="other")
    group.layer.value = model.layers["field"]
    group.start_drawing()
    model.layers["Scale line"].add_lines(np.array([[10.0, 5.0], [10.0, 55.0]]))
    group.distance.value = 400.0
    other.visible = False
    group.layer.value = other
    assert group.length.text() == "", "the line is none of this image"
    group.set_scale_from_line()
    assert "drawn for field" in panel.status.text()
    assert not is_calibrated(other)
    assert not is_calibrated(model.layers["field"])
    group.layer.value = model.layers["field"]
    group.set_scale_from_line()
    assert micrograph_from_layer(model.layers["field"]).pixel_size_nm == (8.0, 8.0)
    assert is_calibrated(model.layers["Scale line"])
    model.add_shapes([[[10, 5], [10, 25]]], shape_type="line", name="Scale line [1]")
    group.distance.value = 800.0
    group.set_scale_from_line()  # by its own line, below that of nobody
    assert micrograph_from_layer(model.layers["field"]).pixel_size_nm == (16.0, 16.0)
