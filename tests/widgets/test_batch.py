import threading
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QApplication, QFileDialog

import napari_semsr as semsr
from napari_semsr.core import InputRecord, Micrograph, Provenance
from napari_semsr.io import write
from napari_semsr.widgets.batch import BatchPanel
from napari_semsr.widgets.layers import create_layer_keywords
from napari_semsr.widgets.window.dock import StepsWindow
from tests.refusals import warned


@pytest.fixture
def scans(tmp_path, rng):
    """A folder of four images."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for number in range(4):
        image = Micrograph(rng.integers(0, 255, (48, 40), np.uint8), (5, 5), "scan")
        write(image, folder / f"s{number}.tif")
    return folder


@pytest.fixture
def panel(model, hold, scans, tmp_path):
    """The panel, with steps over the images."""
    steps = tmp_path / "steps.yaml"
    steps.write_text(
        "inputs: scans\noutput: made\nreport: true\nsteps: [degrade, metrics]\n"
    )
    shown = hold(BatchPanel(model))
    shown.steps.value = steps
    return shown


def texts(table):
    heads = [table.horizontalHeaderItem(n).text() for n in range(table.columnCount())]
    rows = [
        [table.item(row, n).text() for n in range(table.columnCount())]
        for row in range(table.rowCount())
    ]
    return heads, rows


@pytest.mark.broad
def test_steps_end_in_a_table_that_is_shown_and_copied(
    panel, run_panel, tmp_path, monkeypatch
):
    assert run_panel(panel) == "4 images done."
    heads, rows = texts(panel.rows)
    assert heads[:2] == ["name", "degrade_output"]
    assert [row[0] for row in rows] == ["s0", "s1", "s2", "s3"]
    panel.copy_table()
    lines = QApplication.clipboard().text().split("\n")
    table = (tmp_path / "made" / "table.csv").read_text().splitlines()
    assert len(lines) == len(table) == 5
    assert lines[0].split("\t") == table[0].split(",")
    opened = []
    monkeypatch.setattr(QDesktopServices, "openUrl", opened.append)
    panel.open_folder()
    panel.open_report()
    made = tmp_path / "made"
    paths = [Path(url.toLocalFile()) for url in opened]
    assert paths == [made, made / "report.html"]


@pytest.mark.broad
def test_a_second_run_keeps_what_is_finished(panel, run_panel):
    run_panel(panel)
    run_panel(panel)
    found = panel.findings().numbers
    assert (found["Steps run"].value, found["Steps kept"].value) == (0, 8)
    panel.overwrite.value = True
    run_panel(panel)
    assert panel.findings().numbers["Steps run"].value == 8


@pytest.mark.broad
def test_runs_into_one_folder_of_any_name_are_queued(panel, finish, tmp_path):
    panel.output.value = tmp_path / "made.png"
    panel.run_button.click()
    panel.overwrite.value = True
    panel.run_button.click()
    assert panel.status.text().startswith("Queued")
    finish(panel)
    assert panel.findings().numbers["Steps run"].value == 8


@pytest.mark.broad
def test_a_cancelled_batch_goes_on(panel, run_panel):
    heard = threading.Event()

    def cancel(step):
        if step.done >= 3 and not heard.is_set():
            heard.set()
            panel.controls.cancel()

    panel.runner.stepped.connect(cancel)
    said = run_panel(panel)
    if heard.is_set() and "done" not in said:
        assert "finished results are kept" in said
    run_panel(panel)
    found = panel.findings().numbers
    assert found["Images done"].value == 4
    assert found["Steps kept"].value >= 3


@pytest.mark.broad
def test_a_failing_image_is_told_and_shown_first(panel, run_panel, tmp_path):
    (tmp_path / "scans" / "s1.tif").write_bytes(b"no image")
    assert run_panel(panel) == "3 images done, 1 failed (see the error column)."
    heads, rows = texts(panel.rows)
    assert heads[1] == "error"
    assert rows[1][1].startswith("degrade: ")
    assert "1 of 4 images failed" in panel.warning_label.text()


def test_what_cannot_be_run_is_one_sentence(panel, run_panel, tmp_path):
    text = "inputs: scans\noutput: made\nsteps: [sharpen]"
    (tmp_path / "steps.yaml").write_text(text)
    assert "which is not a command" in run_panel(panel)
    assert not (tmp_path / "made").exists()


def test_without_steps_and_in_a_folder_of_others_it_says_what_to_do(
    panel, run_panel, tmp_path
):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    panel.output.value = tmp_path / "other"
    assert "'Overwrite results'" in run_panel(panel)
    panel.steps.line_edit.value = ""
    panel.run()
    assert "that was created here, or a steps file" in panel.status.text()


@pytest.mark.broad
def test_images_and_output_of_the_form_are_taken(panel, run_panel, tmp_path):
    panel.inputs.value = str(tmp_path / "scans" / "s[12].tif")
    panel.output.value = tmp_path / "there"
    assert run_panel(panel) == "2 images done."
    panel.inputs.value = str(tmp_path / "scans" / "s1.tif")
    panel.output.value = tmp_path / "alone"
    assert run_panel(panel) == "1 image done."
    assert (tmp_path / "there" / "table.csv").is_file()


@pytest.mark.slow
def test_two_processes_share_the_images(panel, run_panel):
    panel.workers.max = 2
    panel.workers.value = 2
    assert run_panel(panel) == "4 images done."


@pytest.fixture
def shown(model, hold, scans, tmp_path):
    """The panel, with a layer that two steps made of an image."""
    cut = semsr.crop(scans / "s1.tif", box=(0, 0, 32, 40))
    semsr.degrade(cut, tmp_path / "soft.ome.tif", kind="blur")
    made = semsr.read(tmp_path / "soft.ome.tif")
    model.add_image(made.array(), **create_layer_keywords(made))
    return hold(BatchPanel(model))


def test_a_result_whose_history_came_after_it_was_shown_is_proposed(shown):
    [made] = shown.viewer.layers
    history = made.metadata.pop("micrograph")
    data = made.data
    shown.viewer.layers.clear()
    computed = shown.viewer.add_image(data)  # shown while it is computed
    computed.metadata["micrograph"] = history
    assert shown.layer.value is None
    shown.show()
    assert shown.layer.value is computed
    shown.hide()
    shown.layer.value = None
    shown.steps.value = "steps.yaml"
    shown.show()
    assert shown.layer.value is None


@pytest.mark.broad
def test_the_steps_of_a_layer_are_done_to_a_folder(shown, run_panel, tmp_path):
    said = run_panel(shown)
    assert said.startswith("Choose a layer that was created here, or a steps file")
    shown.layer.value = shown.viewer.layers[0]
    assert "Choose a folder for the images." in shown.plan_note.text()
    shown.inputs.value = tmp_path / "scans"
    assert shown.output.value == tmp_path / "scans results"
    shown.output.value = tmp_path / "made"
    shown.inputs.value = tmp_path / "scans"
    assert shown.output.value == tmp_path / "made"  # what is typed stays
    said = shown.plan_note.text()
    assert "1. crop: box 0 0 32 40" in said
    assert "2. degrade" in said
    assert "Will be applied to 4 images." in said
    assert run_panel(shown) == "4 images done."
    again = semsr.read(tmp_path / "made" / "degrade" / "s1.ome.tif")
    np.testing.assert_array_equal(again.array(), shown.viewer.layers[0].data)


@pytest.mark.broad
@pytest.mark.parametrize(
    ("typed", "proposed"),
    [
        ("/", ""),
        ("/scans/*.tif", "/scans results"),
        ("/scans/**/a.tif", "/scans results"),
        ("/*.tif", ""),
        ("/list.csv", "/list results"),
    ],
)
def test_a_folder_is_proposed_for_whatever_is_typed(shown, typed, proposed):
    shown.layer.value = shown.viewer.layers[0]
    shown.inputs.line_edit.value = typed
    assert shown.output.line_edit.value == proposed


@pytest.mark.broad
def test_warnings_of_steps_are_in_the_words_of_their_panels(
    model, hold, scans, run_panel, tmp_path
):
    with warned("blur-estimated"):
        semsr.restore(scans / "s1.tif", tmp_path / "sharp.ome.tif")
    made = semsr.read(tmp_path / "sharp.ome.tif")
    model.add_image(made.array(), **create_layer_keywords(made))
    panel = hold(BatchPanel(model))
    panel.layer.value = model.layers[0]
    panel.inputs.value = scans
    run_panel(panel)
    assert "set 'Blur' if the blur is known" in panel.warning_label.text()


def test_a_button_below_a_result_leads_to_its_steps(shown, hold):
    layer = shown.viewer.layers[0]
    window = hold(StepsWindow(shown.viewer))
    window.show_panel("Save").folder_button.click()
    panel = window.page.panel
    assert isinstance(panel, BatchPanel)
    assert panel.layer.value is layer
    bare = shown.viewer.add_image(np.zeros((8, 8)))
    window.show_panel("Save").folder_button.click()
    assert bare not in panel.layer.choices
    assert f"history of {bare.name} contains no step" in panel.status.text()


def test_a_layer_whose_model_is_gone_is_told_of(model, hold):
    digest = f"sha256:{'0' * 64}"
    one = InputRecord(role="image", name="a")
    about = {"model_name": "sem-restore", "model_digest": digest}
    made = Provenance(job="enhance", inputs=(one,), **about)
    image = semsr.Micrograph(np.zeros((8, 8)), provenance=made)
    layer = model.add_image(image.array(), **create_layer_keywords(image))
    panel = hold(BatchPanel(model))
    panel.layer.value = layer
    assert "neither in the library nor at" in panel.plan_note.text()


@pytest.mark.broad
def test_the_steps_of_a_layer_are_saved_as_a_file(shown, tmp_path, monkeypatch):
    shown.layer.value = shown.viewer.layers[0]
    shown.inputs.value, shown.output.value = tmp_path / "scans", tmp_path / "made"
    path = tmp_path / "steps.yaml"
    monkeypatch.setattr(
        QFileDialog, "getSaveFileName", lambda *_: (str(path), "Steps (*.yaml)")
    )
    shown.steps_button.click()
    path = tmp_path / "none" / "steps.yaml"
    shown.steps_button.click()
    assert str(path) in shown.status.text()
    path = tmp_path / "steps.yaml"
    report = semsr.batch(path)
    assert (report.done, report.failed) == (4, 0)
