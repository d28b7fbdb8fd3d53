"""Overlaps are corrected by mouse and keys, in a real window."""

import json
import os
import sys
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
from napari_semsr.widgets.stitch.by_hand import (
    get_corrections_path,
    shorten_file_names,
)
from napari_semsr.widgets.stitch.panel import StitchMosaicPanel
from tests.children import LIMIT_MS
from tests.stitching import scans

if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
    pytest.skip("needs a display; run under xvfb-run", allow_module_level=True)

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


def test_a_wrong_joint_of_a_lattice_is_right_after_a_click_and_arrow_keys(
    make_napari_viewer_proxy, qtbot, finish, run_panel, lattice, tmp_path, keep_picture
):
    folder, scan = lattice
    viewer = make_napari_viewer_proxy(show=True)
    viewer.window.resize(1300, 900)
    panel = StitchMosaicPanel(viewer)
    viewer.window.add_dock_widget(panel, name="Stitch mosaic")
    panel.folder.value = folder
    finish(panel)
    panel.form.set_values(max_shift_px=1.5)
    panel.halves.value = False
    panel.output.value = tmp_path / "mosaic.ome.zarr"
    assert "Stitched 6 of 6 frames" in run_panel(panel)
    found = panel._last_corrected[0].solution.positions_px  # noqa: SLF001
    assert np.flatnonzero(away(found, scan) > 1).tolist() == [4]
    by_hand, zoom = panel.by_hand, host.get_camera(viewer).zoom
    misfits = [by_hand.table.item(row, 1).text() for row in range(3)]
    assert misfits == sorted(misfits, reverse=True)
    panel.correcting.header.click()
    panel.scroll_area.ensureWidgetVisible(by_hand.table)
    qtbot.waitUntil(by_hand.table.isVisible, timeout=LIMIT_MS)

    click_row(qtbot, by_hand, row_of(by_hand, "f003", "f004"))
    green, magenta = viewer.layers[-2:]
    assert [green.name, magenta.name] == ["f003.tif (green)", "f004.tif (magenta)"]
    assert not viewer.layers["lattice mosaic"].visible
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

    qtbot.mouseClick(by_hand.solve_button, LEFT)
    finish(panel)
    made = panel._last_corrected[0]  # noqa: SLF001
    assert away(made.solution.positions_px, scan).max() < 0.15
    assert magenta not in viewer.layers
    assert host.get_camera(viewer).zoom == zoom
    assert viewer.layers["lattice mosaic"].visible
    row = row_of(by_hand, "f003", "f004")
    assert by_hand.table.item(row, 2).text() == "set by hand"
    stored = json.loads(
        get_corrections_path(Path(made.output)).read_text(encoding="utf-8")
    )
    assert stored["join"][0]["first"] == "f003.tif"
    assert napari_semsr.replay(made.output).identical


@pytest.mark.parametrize("is_first", [True, False], ids=["before", "after"])
def test_two_frames_are_seen_beside_a_calibrated_layer(
    make_napari_viewer_proxy,
    finish,
    run_panel,
    lattice,
    tmp_path,
    is_first,
    keep_picture,
):
    viewer = make_napari_viewer_proxy(show=True)
    panel = StitchMosaicPanel(viewer)
    viewer.window.add_dock_widget(panel, name="Stitch mosaic")
    image = Micrograph(scans.texture((80, 100), 2), (25.0, 25.0), "calibrated")

    def add_calibrated():
        viewer.add_image(image.data, **create_layer_keywords(image))
        viewer.reset_view()

    if is_first:
        add_calibrated()
    panel.folder.value = lattice[0]
    finish(panel)
    panel.form.set_values(max_shift_px=1.5)
    panel.halves.value = False
    panel.output.value = tmp_path / "mosaic.ome.zarr"
    run_panel(panel)
    if not is_first:
        add_calibrated()
    by_hand, mosaic = panel.by_hand, viewer.layers["lattice mosaic"]
    fit, camera = get_display_fit(mosaic), host.get_camera(viewer)
    assert (fit[0] != 1) == is_first
    panel.correcting.set_expanded()
    by_hand.table.selectRow(row_of(by_hand, "f003", "f004"))
    keep_picture(viewer, f"by-hand-beside-calibrated-{is_first}")
    green, magenta = viewer.layers[-2:]
    seen = viewer.window.screenshot(flash=False, canvas_only=True)
    assert (seen[..., :3].max(axis=2) > 60).mean() > 0.25, "the canvas is dark"
    both = [get_visible_box(viewer, layer) for layer in (green, magenta)]
    assert None not in both
    ends = [layer.extent.world[:, -2:] for layer in (green, magenta)]
    middle = (np.max(ends, axis=0)[0] + np.min(ends, axis=0)[1]) / 2
    assert camera.center[-2:] == pytest.approx(middle, rel=1e-3)
    # solved again in a view of a part: the mosaic stays where it is
    by_hand.show_whole()
    camera.zoom *= 4
    by_hand.table.selectRow(row_of(by_hand, "f003", "f004"))
    for _ in range(5):
        by_hand._move_frame(0, 1.0)  # noqa: SLF001
    panel.solve_again()
    finish(panel)
    again = viewer.layers["lattice mosaic"]
    assert again is not mosaic
    assert get_display_fit(again)[0] == fit[0]
    assert get_display_fit(again)[1].tolist() == fit[1].tolist()
    # the headline counts the overlaps that this puts out of use, and they are drawn
    made = panel._last_corrected[0]  # noqa: SLF001
    count, worst = made.pairs_rejected, made.solution.rejected_worst_px
    assert worst > 3
    told = f"{count} of {len(made.pairs)} overlaps not used, up to {worst:.2g} px off"
    assert told in panel.headline.text()
    (lines,) = [line for line in panel.results.plot.axes[0].lines
                if line.get_label() == "not used"]  # fmt: skip
    assert max(lines.get_ydata()) == pytest.approx(worst)
    drawn = viewer.layers["lattice \N{MIDDLE DOT} overlaps"]
    assert drawn.features["residual_px"].max() == pytest.approx(worst)
    # a state that the list cuts is shown in full below it
    by_hand.table.selectRow(0)
    reason = by_hand.table.item(0, 2).text()
    assert reason not in {"used", "set by hand"}
    assert reason in by_hand.about.text()


@pytest.fixture
def by_hand(make_napari_viewer_proxy, qtbot, finish, run_panel, lattice, tmp_path):
    """The list of a panel that has stitched."""
    viewer = make_napari_viewer_proxy(show=True)
    panel = StitchMosaicPanel(viewer)
    viewer.window.add_dock_widget(panel, name="Stitch mosaic")
    panel.folder.value = lattice[0]
    finish(panel)
    panel.form.set_values(max_shift_px=1.5)
    panel.halves.value = False
    panel.output.value = tmp_path / "mosaic.ome.zarr"
    run_panel(panel)
    panel.correcting.header.click()
    return panel.by_hand


@pytest.mark.broad
def test_buttons_reject_drop_fix_and_take_back(by_hand, qtbot):
    def press(button):
        by_hand._panel.scroll_area.ensureWidgetVisible(button)  # noqa: SLF001
        qtbot.mouseClick(button, LEFT)

    press(by_hand.strike_button)
    assert "Choose an overlap" in by_hand._panel.status.text()  # noqa: SLF001
    click_row(qtbot, by_hand, row_of(by_hand, "f000", "f001"))
    press(by_hand.strike_button)
    assert by_hand.corrections.strike == (("f000.tif", "f001.tif"),)
    row = row_of(by_hand, "f000", "f001")
    assert by_hand.table.item(row, 2).text() == "rejected"
    click_row(qtbot, by_hand, row)
    press(by_hand.accept_button)
    assert by_hand.corrections == Corrections()
    click_row(qtbot, by_hand, row)
    qtbot.keyClick(by_hand.table, Qt.Key.Key_Left)
    moved = by_hand.corrections
    press(by_hand.accept_button)
    assert by_hand.corrections == moved != Corrections()
    click_row(qtbot, by_hand, row)
    press(by_hand.reset_button)
    assert by_hand.corrections == Corrections()
    click_row(qtbot, by_hand, row_of(by_hand, "f003", "f004"))
    press(by_hand.swap_button)
    press(by_hand.drop_button)
    assert by_hand.corrections.drop == ("f003.tif",)
    press(by_hand.fix_button)  # which takes the place of that
    made = by_hand._mosaic_file  # noqa: SLF001
    assert by_hand.corrections.drop == ()
    place = by_hand.corrections.place["f003.tif"]
    assert (place.y_px, place.x_px) == pytest.approx(
        tuple(made.solution.positions_px[3])
    )
    press(by_hand.clear_button)
    assert by_hand.corrections == Corrections()


def test_the_view_of_the_mosaic_returns_after_two_frames(by_hand, qtbot):
    panel = by_hand._panel  # noqa: SLF001
    camera, mosaic = (
        host.get_camera(panel.viewer),
        panel.viewer.layers[("lattice mosaic")],
    )
    zoom, centre = camera.zoom, camera.center
    for back in (by_hand.mosaic_button, panel.correcting.header):
        panel.correcting.set_expanded()
        click_row(qtbot, by_hand, row_of(by_hand, "f000", "f001"))
        click_row(qtbot, by_hand, row_of(by_hand, "f003", "f004"))
        assert camera.zoom > zoom
        assert not mosaic.visible
        panel.scroll_area.ensureWidgetVisible(back)
        qtbot.mouseClick(back, LEFT)
        assert mosaic.visible
        assert panel.viewer.layers.selection.active == mosaic
        assert (camera.zoom, camera.center) == (zoom, centre)


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (("frame_007.tif", "frame_011.tif"), ["007", "011"]),
        (("frame_09.tif", "frame_1.tif"), ["09", "1"]),
        (("r0c0.tif", "s0c0.tif"), ["r0c0", "s0c0"]),
        (("a.tif", "a.png"), ["a.tif", "a.png"]),
        (("scan.tif", "scan_1.tif"), ["scan.tif", "scan_1.tif"]),
        (("5", "6"), ["5", "6"]),
    ],
)
def test_names_in_the_list_are_short_and_differ(names, labels):
    assert shorten_file_names(names) == labels
