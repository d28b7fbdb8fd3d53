"""Overlaps are corrected by mouse and keys, in a real window."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import Qt

import napari_semsr
from napari_semsr.core import Micrograph
from napari_semsr.stitching import Corrections
from napari_semsr.widgets import host
from napari_semsr.widgets.layers import (
    create_layer_keywords,
    get_display_fit,
    get_visible_box,
)
from napari_semsr.widgets.stitch.by_hand import get_corrections_path
from napari_semsr.widgets.stitch.panel import StitchMosaicPanel
from tests.stitching import scans

pytestmark = [pytest.mark.broad, pytest.mark.usefixtures("display")]


PERIOD = 16
LEFT, SHIFT = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.ShiftModifier


@pytest.fixture(scope="module")
def lattice(tmp_path_factory):
    """Frames of a lattice of which one is stated a period away, and the truth."""
    scene = scans.lattice((330, 330), PERIOD, 1, disorder=0.05)
    scan = scans.cut_scan(
        scene, grid=(2, 3), side=112, overlap=0.34, jitter=1.5, seed=1
    )
    folder = tmp_path_factory.mktemp("scans") / "lattice"
    folder.mkdir()
    stated = scan.acquisition.nominal_px.copy()
    stated[4] += (0, PERIOD)
    rows = ["frame,y_px,x_px"]
    for name, frame, (y, x) in zip(
        scan.acquisition.names, scan.acquisition.frames, stated, strict=True
    ):
        tifffile.imwrite(folder / f"{name}.tif", frame)
        rows.append(f"{name}.tif,{y},{x}")
    (folder / "positions.csv").write_text("\n".join(rows), encoding="utf-8")
    return folder, scan


def away(positions, scan):
    error = positions - scan.truth
    return np.hypot(*(error - np.nanmedian(error, axis=0)).T)


def row_of(by_hand, first, second):
    names = f"{first[1:]} \N{EN DASH} {second[1:]}"  # all names begin with f
    (row,) = (
        row
        for row in range(by_hand.table.rowCount())
        if by_hand.table.item(row, 0).text() == names
    )
    return row


def click_row(qtbot, by_hand, row):
    """Click into the list, where a row is."""
    item = by_hand.table.item(row, 0)
    by_hand.table.scrollToItem(item)
    place = by_hand.table.visualItemRect(item).center()
    qtbot.mouseClick(by_hand.table.viewport(), LEFT, pos=place)


@pytest.fixture
def by_hand(make_napari_viewer_proxy, finish, run_panel, lattice, tmp_path):
    """The list of a panel that has stitched, beside a calibrated layer."""
    viewer = make_napari_viewer_proxy(show=True)
    viewer.window.resize(1300, 900)
    image = Micrograph(scans.texture((80, 100), 2), (25.0, 25.0), "calibrated")
    viewer.add_image(image.data, **create_layer_keywords(image))
    panel = StitchMosaicPanel(viewer)
    viewer.window.add_dock_widget(panel, name="Stitch mosaic")
    panel.folder.value = lattice[0]
    finish(panel)
    panel.form.set_values(max_shift_px=1.5)
    panel.halves.value = False
    panel.output.value = tmp_path / "mosaic.ome.zarr"
    assert "Stitched 6 of 6 frames" in run_panel(panel)
    panel.correcting.header.click()
    panel.scroll_area.ensureWidgetVisible(panel.by_hand.table)
    return panel.by_hand


def test_a_wrong_joint_of_a_lattice_is_right_after_a_click_and_arrow_keys(
    by_hand, qtbot, finish, lattice, keep_picture
):
    panel, scan = by_hand._panel, lattice[1]  # noqa: SLF001
    viewer = panel.viewer
    camera, mosaic = host.get_camera(viewer), viewer.layers["lattice mosaic"]
    found = panel._last_corrected[0].solution.positions_px  # noqa: SLF001
    assert np.flatnonzero(away(found, scan) > 1).tolist() == [4]
    view, fit = (camera.zoom, camera.center), get_display_fit(mosaic)
    misfits = [by_hand.table.item(row, 1).text() for row in range(3)]
    assert misfits == sorted(misfits, reverse=True)

    click_row(qtbot, by_hand, row_of(by_hand, "f003", "f004"))
    layers = green, magenta = viewer.layers[-2:]
    assert [green.name, magenta.name] == ["f003.tif (green)", "f004.tif (magenta)"]
    assert not mosaic.visible
    seen = viewer.window.screenshot(flash=False, canvas_only=True)
    assert (seen[..., :3].max(axis=2) > 60).mean() > 0.25, "the canvas is dark"
    assert None not in [get_visible_box(viewer, layer) for layer in layers]
    ends = [layer.extent.world[:, -2:] for layer in layers]
    middle = (np.max(ends, axis=0)[0] + np.min(ends, axis=0)[1]) / 2
    assert camera.center[-2:] == pytest.approx(middle, rel=1e-3)
    for _ in range(PERIOD):
        qtbot.keyClick(by_hand.table, Qt.Key.Key_Left)
    qtbot.keyClick(by_hand.table, Qt.Key.Key_Up, SHIFT)
    assert "moved by (-0.1, -16.0) px" in by_hand.about.text()
    (join,) = by_hand.corrections.join
    assert (join.first, join.second) == ("f003.tif", "f004.tif")
    expected = found[4] - found[3] + (-0.1, -PERIOD)
    assert join.shift_px == pytest.approx(tuple(expected), abs=1e-4)
    keep_picture(viewer, "stitch-by-hand")
    qtbot.keyClick(by_hand.table, Qt.Key.Key_Down, SHIFT)

    qtbot.mouseClick(by_hand.buttons["Solve again"], LEFT)
    finish(panel)
    made = panel._last_corrected[0]  # noqa: SLF001
    assert away(made.solution.positions_px, scan).max() < 0.15
    assert magenta not in viewer.layers
    again = viewer.layers["lattice mosaic"]
    assert again is not mosaic
    assert again.visible
    assert (camera.zoom, camera.center) == view
    for new, old in zip(get_display_fit(again), fit, strict=True):
        np.testing.assert_array_equal(new, old)
    row = row_of(by_hand, "f003", "f004")
    assert by_hand.table.item(row, 2).text() == "set by hand"
    path = get_corrections_path(Path(made.output))
    assert json.loads(path.read_text("utf-8"))["join"][0]["first"] == "f003.tif"
    assert napari_semsr.replay(made.output).identical


def test_buttons_reject_drop_fix_and_take_back(by_hand, qtbot):
    panel = by_hand._panel  # noqa: SLF001

    def press(button, *names):
        if names:
            click_row(qtbot, by_hand, row_of(by_hand, *names))
        panel.scroll_area.ensureWidgetVisible(button)
        qtbot.mouseClick(button, LEFT)

    press(by_hand.buttons["Reject"])
    assert "Choose an overlap" in panel.status.text()
    pair = "f000", "f001"
    press(by_hand.buttons["Reject"], *pair)
    assert by_hand.corrections.strike == (("f000.tif", "f001.tif"),)
    assert by_hand.table.item(row_of(by_hand, *pair), 2).text() == "rejected"
    press(by_hand.buttons["Accept"], *pair)
    assert by_hand.corrections == Corrections()
    click_row(qtbot, by_hand, row_of(by_hand, *pair))
    qtbot.keyClick(by_hand.table, Qt.Key.Key_Left)
    moved = by_hand.corrections
    press(by_hand.buttons["Accept"])
    assert by_hand.corrections == moved != Corrections()
    press(by_hand.buttons["Reset"], *pair)
    assert by_hand.corrections == Corrections()
    press(by_hand.buttons["Move other"], "f003", "f004")
    press(by_hand.buttons["Drop frame"])
    assert by_hand.corrections.drop == ("f003.tif",)
    press(by_hand.buttons["Fix in place"])  # which takes the place of that
    made = by_hand._mosaic_file  # noqa: SLF001
    assert by_hand.corrections.drop == ()
    place = by_hand.corrections.place["f003.tif"]
    expected = tuple(made.solution.positions_px[3])
    assert (place.y_px, place.x_px) == pytest.approx(expected)
    press(by_hand.buttons["Reset all"])
    assert by_hand.corrections == Corrections()
