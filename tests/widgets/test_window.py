"""The window of all steps: what it shows, and what is ready in each step."""

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QPushButton

from napari_semsr.core import InputRecord, Micrograph, Provenance, run
from napari_semsr.io.layers import read_layers
from napari_semsr.jobs import SIMULATE, SimulateOptions
from napari_semsr.widgets.window import STEPS, StepsWindow
from tests.tiny_models import write_tiny_model


@pytest.fixture
def window(model, hold):
    return hold(StepsWindow(model))


@pytest.fixture
def scan(tmp_path):
    """A small scan: its folder, and its layers as napari opens them."""
    folder = tmp_path / "scan"
    options = SimulateOptions(phantom="particles", frames_grid=(2, 2), frame_px=96)
    run(SIMULATE.job(out_dir=folder, options=options))
    return folder, read_layers(str(folder))


def button_of(row, title):
    buttons = getattr(row, "buttons", None) or row.findChildren(QPushButton)
    (found,) = (item for item in buttons if item.text().endswith(title))
    return found


def test_samples_are_offered_while_nothing_is_open(window, model, finish):
    assert not window.beginning.isHidden()
    window.next_button.click()
    assert window.beginning.isHidden()  # another step
    window.show_step(0)
    assert not window.beginning.isHidden()
    button_of(window.beginning, "Two exposures").click()
    finish(window.page.panel)
    assert len(model.layers) == 2
    assert window.beginning.isHidden()
    window.show_step(1)
    assert window.page.panel.title == "Register"
    window.page.panel.ran.emit()
    assert button_of(window.steps, "Register").text().startswith("\N{CHECK MARK}")
    window.show_step(0)
    model.layers.clear()
    assert not window.beginning.isHidden()
    titles = [item.text() for item in window.steps.buttons]
    words = window.page.panel.run_button.text(), window.page.panel.title
    assert len({*titles, *words}) == len(titles) + 2  # no word means two things
    assert titles == [one.title for one in STEPS]


def test_a_figure_is_saved_from_any_step(
    window, model, choose, tmp_path, finish, qtbot
):
    window.show()
    assert window.figure_button.isHidden()  # nothing is open
    model.add_image(np.random.default_rng(0).random((32, 32)), name="field")
    model.add_points(np.ones((1, 2)), name="marks")
    model.add_points(np.ones((1, 2)), name="hidden", visible=False)
    choose(tmp_path / "field.png", ".png")
    qtbot.mouseClick(window.figure_button, Qt.MouseButton.LeftButton)
    finish(window.page.panel)
    assert (tmp_path / "field.png").is_file()
    assert window.page.panel.sharing.figure_button.isHidden()  # one is enough
    assert "field.png. Left out: marks;" in window.page.panel.status.text()


def test_a_folder_of_frames_is_chosen_while_nothing_is_open(
    window, scan, choose, finish, qtbot
):
    window.show()
    choose(scan[0])
    qtbot.mouseClick(window.beginning.frames_button, Qt.MouseButton.LeftButton)
    finish(window.page.panel)
    assert window.page.panel.title == "Stitch"
    assert window.page.panel.folder.value == scan[0]
    assert window.beginning.isHidden()


@pytest.mark.parametrize(
    ("source", "size", "step"),
    [("other", 48, "Register"), ("field", 48, "Enhance"), ("other", 32, "Enhance")],
    ids=["another image", "made of the first", "of the same pixels"],
)
def test_register_is_proposed_for_two_images_of_one_area(
    window, model, add, source, size, step
):
    history = Provenance(
        job="enhance", inputs=(InputRecord(role="image", name=source),)
    )
    add(model, Micrograph(np.eye(32), name="field"))
    add(model, Micrograph(np.eye(size), name="second", provenance=history))
    assert window.next_button.text() == f"Next: {step}"
    inputs = [InputRecord(role="image", name=name) for name in ("field", "second")]
    registered = Provenance(job="register", inputs=tuple(inputs))
    add(model, Micrograph(np.eye(40), name="registered", provenance=registered))
    assert window.next_button.text() == "Next: Enhance"


@pytest.mark.broad
def test_from_frames_to_a_measured_mosaic(
    window, model, scan, tmp_path, run_panel, finish
):
    window.next_button.click()
    folder, layers = scan
    for data, keywords, kind in layers:
        getattr(model, f"add_{kind}")(data, **keywords)
    finish(window.page.panel)
    assert window.page.step is STEPS[0]
    assert button_of(window.page.kinds, "Stitch").isChecked()
    assert window.page.panel.typed_folder() == folder
    assert button_of(window.steps, "Images").text() == "Images"
    assert "Stitched 4 of 4 frames" in run_panel(window.page.panel)
    mosaic = model.layers.selection.active
    window.next_button.click()
    panel = window.page.panel
    assert (panel.layer.value, panel.model.value) == (mosaic, "ssum-sem")
    panel.model.add_file(write_tiny_model(tmp_path))
    assert "tiny enhanced" in run_panel(panel)
    assert panel.layer.value is mosaic
    window.next_button.click()
    panel = window.page.panel
    assert (panel.first.value, panel.second.value) == (mosaic, None)
    assert " blocks" in run_panel(panel)
    ticked = {
        step.key
        for step in STEPS
        if button_of(window.steps, step.title).text().startswith("\N{CHECK MARK}")
    }
    # so small a scan shows no resolution, and what was not found is not done
    assert (ticked, panel.asks_question) == ({"open", "enhance"}, True)
