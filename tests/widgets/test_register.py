"""Two layers of one place brought together, marked, compared, kept."""

import re

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_semsr.core import Affine, Grid, Micrograph, WarpedImage, parse_pixel_size
from napari_semsr.io import read_landmarks, read_transform, write_landmarks
from napari_semsr.registration import fit_landmarks
from napari_semsr.widgets.layers import (
    get_display_fit,
    get_provenance,
    micrograph_from_layer,
)
from napari_semsr.widgets.register.panel import RegisterPanel
from tests.children import LIMIT_MS
from tests.widgets.scenes import grain

SIZE = parse_pixel_size(10)
TRUE = Affine.create_similarity(4, shift=(60, -40), about=(1000, 1000))
"""From the moving image to the fixed one, in nm."""
FIXED = Micrograph(grain((200, 200), seed=3), SIZE, "electrons")
OTHER = Micrograph(grain((200, 200), seed=8), SIZE, "elsewhere")
MARKS = np.array([[40, 30], [50, 160], [150, 60], [160, 150]])


def moving_image() -> Micrograph:
    """What another instrument shows of the place: turned, moved, dark for bright."""
    seen = WarpedImage(FIXED, Grid.from_image(FIXED), TRUE.inverse()).read()
    return Micrograph(1 - np.nan_to_num(seen, nan=0.5), SIZE, "light")


@pytest.fixture
def opened(model, add):
    add(model, moving_image())
    layer = add(model, FIXED)
    layer.metadata["micrograph"]["vendor"] = "FEI"
    return model


@pytest.fixture
def panel(opened, hold) -> RegisterPanel:
    return hold(RegisterPanel(opened))


def missed_nm(found) -> float:
    """Largest distance between a map and the true one, at the marks."""
    places = MARKS * 10.0
    return float(np.hypot(*(found(places) - TRUE(places)).T).max())


def mark(panel, qtbot, places=MARKS, off=0.0) -> None:
    """Mark places in both images, as clicks in turn would."""
    panel.marks.add_button.click()
    for place in places:
        panel.marks.points[0].add(place)
        qtbot.wait(5)
        panel.marks.points[1].add(TRUE(place * 10.0) / 10 + off)
        qtbot.wait(5)
    panel.marks.add_button.click()


def test_the_electron_image_is_proposed_as_fixed(panel, opened, add):
    def chosen():
        return panel.moving.value.name, panel.fixed.value.name

    assert chosen() == ("light", "electrons")
    fine = Micrograph(grain((64, 64)), parse_pixel_size(4), "fine")
    add(opened, fine)
    assert chosen()[1] == "electrons"
    panel.fixed.value = opened.layers["fine"]
    add(opened, fine.replace(name="finer"))
    assert chosen()[1] == "fine"


def test_registered_layer_lies_on_the_fixed_grid(panel, opened, run_panel):
    said = run_panel(panel)
    assert "Registered light to electrons, with an expected error of" in said
    layer = opened.layers["light · registered"]
    image = micrograph_from_layer(layer)
    assert Grid.from_image(image) == Grid.from_image(FIXED)
    assert get_provenance(layer).job == "register"
    known = np.isfinite(image.array())
    both = np.corrcoef(image.array()[known], FIXED.array()[known])
    assert both[0, 1] < -0.95
    assert missed_nm(panel.last_registration[0].registration.transform) < 5
    assert not opened.layers["light"].visible
    told = panel.figures.text()
    middle = np.array([[995.0, 995.0]])
    down, right = (TRUE(middle) - middle)[0]
    found = [float(n) for n in re.findall(r"([0-9.]+) nm (?:down|left)", told)]
    assert found == pytest.approx([down, -right], abs=3)
    assert not opened.layers["light · residuals"].visible
    panel.helpers.value = True
    assert opened.layers["light · residuals"].visible


@pytest.mark.broad
def test_what_is_unreliable_is_boxed_within_the_image(
    panel, opened, add, qtbot, run_panel
):
    fixed = Micrograph(grain((320, 320), seed=3), SIZE, "whole")
    data = fixed.array().copy()
    data[150:, 150:] = grain((320, 320), seed=8)[150:, 150:]
    panel.fixed.value = add(opened, fixed)
    panel.moving.value = add(opened, fixed.replace(data=data, name="part"))
    run_panel(panel)
    boxes = np.array(opened.layers["part · unreliable"].data)
    assert boxes.min() >= -0.5
    assert boxes.max() <= 319.5
    assert boxes.mean(axis=1).min() > 100
    side = np.ptp(boxes, axis=1).max()
    arrows = opened.layers["part · residuals"]
    long = np.hypot(*(arrows.data[:, 1] * arrows.length).T)
    assert long.max() <= 3 * side
    assert np.percentile(long, 90) >= side / 3  # seen, though other patches are far off
    assert arrows.length == float(f"{arrows.length:.0e}")  # one digit, then noughts


@pytest.mark.broad
def test_an_sem_image_on_the_mosaic_leads_on_with_the_map_turned_round(
    panel, opened, run_panel
):
    light, electrons = opened.layers["light"], opened.layers["electrons"]
    panel.fixed.value = light
    assert panel.moving.value is electrons  # the other list takes what this one had
    assert "Registered electrons to light" in run_panel(panel)
    stored, low, high = panel._get_registered_pair()  # noqa: SLF001 - what all buttons go on with
    assert (low, high) == (light, electrons)
    assert (stored.moving.name, stored.fixed.name) == ("light", "electrons")
    assert missed_nm(stored.transform) < 10


@pytest.mark.broad
def test_a_mosaic_without_a_pixel_size_gets_the_one_that_is_found(
    model, hold, add, run_panel, qtbot
):
    panel = hold(RegisterPanel(model))
    panel.show()
    add(model, FIXED).metadata["micrograph"]["vendor"] = "FEI"
    light = add(model, moving_image().replace(pixel_size_nm=None))
    assert get_display_fit(light)[0] > 1  # it is shown at the size of the field in view
    assert (panel.moving.value, panel.fixed.value.name) == (light, "electrons")
    said = run_panel(panel)
    assert "Registered light to electrons" in said
    warning = panel.warning_label.text()  # which is true once that size is set, too
    assert "of light, 10 nm, was estimated by registration with electrons" in warning
    assert panel.last_registration[0].found_pixel_size_nm == pytest.approx(10, rel=0.01)
    assert missed_nm(panel.last_registration[0].registration.transform) < 20
    assert "Set the measured pixel size of light" in panel.take_size_button.text()
    qtbot.mouseClick(panel.take_size_button, Qt.MouseButton.LeftButton)
    found = micrograph_from_layer(light)
    np.testing.assert_allclose(found.pixel_size_nm, 10, rtol=0.01)
    assert found.pixel_size_from == "found by registration in napari"
    assert panel.take_size_button.isHidden()


def test_marks_are_paired_numbered_and_judged(panel, opened, qtbot):
    marks = panel.marks
    assert marks.landmarks() is None
    marks.add_button.click()
    light, electrons = marks.points
    assert not opened.layers["electrons"].visible
    light.add(MARKS[0])
    assert "has no partner yet" in marks.note.text()
    waiting = lambda: opened.layers.selection.active is electrons  # noqa: E731
    qtbot.waitUntil(waiting, timeout=LIMIT_MS)
    assert opened.layers["electrons"].visible
    assert not opened.layers["light"].visible
    marks.undo_button.click()
    assert marks.counts == (0, 0)
    assert opened.layers.selection.active is light
    marks.add_button.click()
    assert opened.layers["light"].visible
    assert opened.layers["electrons"].visible
    mark(panel, qtbot)
    assert "4 pairs fit to" in marks.note.text()
    assert panel.form.get_widget("landmarks_only").native.isVisibleTo(panel)
    assert missed_nm(fit_landmarks(marks.landmarks()).transform) < 0.1
    electrons.selected_data = {1}
    electrons.remove_selected()
    np.testing.assert_allclose(light.data, MARKS[[0, 2, 3]])
    assert list(light.features["label"]) == ["1", "2", "3"]
    light.data = light.data + 1.0
    np.testing.assert_allclose(marks.landmarks().moving, (MARKS[[0, 2, 3]] + 1) * 10)
    opened.layers.remove(light)
    qtbot.waitUntil(lambda: electrons not in opened.layers, timeout=LIMIT_MS)
    assert marks.landmarks() is None


def test_marks_are_read_onto_an_image_that_was_dragged(panel, opened, choose, tmp_path):
    moved = np.diag([2.0, 2, 1])
    moved[:2, 2] = 100, 200
    opened.layers["light"].affine = moved
    table = choose(tmp_path / "places.csv")
    write_landmarks(table, MARKS * 20.0 + [100, 200], MARKS * 10.0)
    panel.marks.load_button.click()
    found = panel.marks.landmarks()
    np.testing.assert_allclose(found.moving, MARKS * 20.0 + [100, 200])
    np.testing.assert_allclose(found.fixed, MARKS * 10.0)


def test_marks_of_an_image_without_a_pixel_size_are_told_and_kept_in_pixels(
    model, add, hold, qtbot, choose, tmp_path
):
    light, bare = moving_image(), Micrograph(FIXED.array(), name="electrons")
    add(model, light)
    layer = add(model, bare)
    layer.translate = 7, 0
    panel = hold(RegisterPanel(model))
    panel.moving.value, panel.fixed.value = model.layers["light"], layer
    panel.marks.add_button.click()
    for places, marks in zip((MARKS, MARKS[::-1]), panel.marks.points, strict=True):
        marks.data = places
    panel.marks.show_fit()
    assert " px (r.m.s.); landmark " in panel.marks.note.text()
    assert " px from the position predicted by the others" in panel.marks.note.text()
    assert " nm" not in panel.marks.note.text()
    assert all("px)" in text for text in panel.marks.points[1].features["label"])
    table = choose(tmp_path / "places.csv")
    panel.marks.save_button.click()
    moving, fixed = read_landmarks(table, light, bare.replace(pixel_size_nm=SIZE))
    np.testing.assert_allclose(moving, MARKS * 10)
    np.testing.assert_allclose(fixed, MARKS[::-1] * 10)


def test_two_colours_and_back(panel, opened):
    look = panel.look
    light, electrons = opened.layers["light"], opened.layers["electrons"]
    assert (look.left.value, look.right.value) == (electrons, light)
    hidden = opened.add_image(np.zeros((8, 8)), name="hidden", visible=False)
    look.overlay.value = True
    assert (electrons.colormap.name, light.colormap.name) == ("magenta", "green")
    assert electrons.blending == "additive"  # it lies over the other
    assert not hidden.visible
    look.flicker.value = True
    assert not look.overlay.value
    assert {item.colormap.name for item in (light, electrons)} == {"gray"}
    assert electrons.blending == light.blending
    look.right.value = look.left.value
    assert not look.flicker.value
    look.overlay.value = True
    assert not look.overlay.value
    assert "two different layers" in panel.status.text()


@pytest.mark.broad
def test_what_is_shown_turned_is_taken_as_it_is_shown(
    panel, opened, qtbot, run_panel, finish
):
    light = opened.layers["light"]
    turn = np.eye(3)
    turn[:2, :2], turn[:2, 2] = TRUE.matrix, TRUE.shift
    light.affine = turn
    assert "press Use the transform shown" in run_panel(panel)
    panel.shown_button.click()
    finish(panel)
    made = opened.layers["light · registered"].data
    expected = WarpedImage(moving_image(), Grid.from_image(FIXED), TRUE).read()
    np.testing.assert_allclose(np.asarray(made), expected, atol=1e-5)
    assert missed_nm(panel.last_registration[0].stored_transform.transform) < 1e-6


@pytest.mark.broad
def test_transform_is_saved_and_applied_again(
    panel, opened, qtbot, add, run_panel, finish, choose, tmp_path
):
    path = tmp_path / "map.json"
    choose(path)
    mark(panel, qtbot)
    run_panel(panel)
    panel.transform_button.click()
    stored = read_transform(path)
    assert missed_nm(stored.transform) < 5
    assert (stored.moving.name, stored.fixed.name) == ("light", "electrons")
    enhanced = moving_image().replace(name="enhanced")
    panel.moving.value = add(opened, enhanced)
    panel.apply_button.click()
    finish(panel)
    again, first = (opened.layers[f"{n} · registered"] for n in ("enhanced", "light"))
    np.testing.assert_array_equal(np.asarray(again.data), np.asarray(first.data))
    assert "by stored transform" in panel.figures.text()
    panel.fixed.value = add(opened, OTHER.replace(origin=(9e4, 0.0)))
    panel.apply_button.click()
    finish(panel)
    assert "The transform is for electrons as the fixed image" in panel.status.text()


def test_cancel_leaves_the_layers_as_they_were(panel, opened, qtbot, finish):
    before = list(opened.layers)
    panel.run_button.click()
    qtbot.waitUntil(lambda: "Searching" in panel.status.text(), timeout=LIMIT_MS)
    panel.cancel_button.click()
    finish(panel)
    assert "was cancelled; no layer was added" in panel.status.text()
    assert list(opened.layers) == before
    assert opened.layers["light"].visible
