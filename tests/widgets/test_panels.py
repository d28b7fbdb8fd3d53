"""Laws that hold for every panel."""

import re
import threading

import numpy as np
import pytest
from qtpy.QtCore import QCoreApplication, QEvent
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QLabel,
    QListWidget,
)

from napari_semsr import core
from napari_semsr.core import Cancelled, Micrograph, Progress, parse_pixel_size, run
from napari_semsr.io import FOLDER_KEY
from napari_semsr.widgets.base import JobRequest, create_panel, navigation
from napari_semsr.widgets.base.history import get_removed_layers
from napari_semsr.widgets.base.session import get_session
from napari_semsr.widgets.enhance import panel as enhance_panel
from tests.children import LIMIT_MS, run_python
from tests.widgets.scenes import create_classical

PANELS = {
    "OpenMosaicPanel": "open_mosaic",
    "StitchMosaicPanel": "stitch.panel",
    "EnhancePanel": "enhance.panel",
    "ResolutionPanel": "measure.resolution",
    "QualityPanel": "measure.quality",
    "ComparePanel": "measure.quality",
    "ParticlesPanel": "measure.particles",
    "ProfilePanel": "measure.profile",
    "RegisterPanel": "register.panel",
    "FigurePanel": "figure",
    "SavePanel": "project",
    "TrainPanel": "train.panel",
}
UNITS = {  # by the end of an option's name
    "nm": "nm",
    "px": "px|pixels?",
    "db": "dB",
    "um": "µm",
    "mm": "mm",
    "deg": "°|degrees?",
    "gib": "GiB",
    "dpi": "dpi|dots per inch",
    "electrons": "electrons",
    "percent": "%|percent",
}
MEASURING = [
    "EnhancePanel",
    "ResolutionPanel",
    "QualityPanel",
    "ComparePanel",
    "ParticlesPanel",
    "RegisterPanel",
]


def make(name: str, viewer: object, qtbot) -> object:
    panel = create_panel(viewer, f"{PANELS[name]}:{name}")
    qtbot.addWidget(panel)
    return panel


def without_tooltip(panel):
    for kind in (QAbstractButton, QAbstractSpinBox, QComboBox, QListWidget):
        for item in panel.content.findChildren(kind):
            told = item.toolTip() or item.parentWidget().toolTip()
            if not told and item.objectName() != "qt_spinbox_lineedit":
                yield type(item), item.objectName()


def with_idle_tooltip(panel):
    labels = [item for item in panel.content.findChildren(QLabel) if item.toolTip()]
    for item in (*labels, *panel.content.findChildren(QCheckBox)):
        if item.toolTip().strip(" .").lower() == item.text().strip(" .:").lower():
            yield item.text()


def without_unit(panel):
    told = {item.text(): item.toolTip() for item in panel.findChildren(QLabel)}
    for name, (label, _) in panel.get_labels().items():
        unit = UNITS.get(name.rpartition("_")[2])
        said = f"{label} {told.get(label, '')}"
        if unit and not re.search(rf"(?<!\w)({unit})(?!\w)", said):
            yield name, said


def check_decimal_point(panel, qtbot):
    """Type a number with a dot and with a comma into every field for one."""
    for box in panel.content.findChildren(QDoubleSpinBox):
        if box.decimals() and box.minimum() <= 0.5 <= box.maximum():
            for typed in ("0.5", "0,5"):
                box.setValue(box.maximum())
                box.selectAll()
                qtbot.keyClicks(box, typed)
                box.interpretText()
                assert box.value() == 0.5, (typed, box.text(), box.toolTip())


AHEAD = """
import sys
from qtpy.QtWidgets import QApplication
from napari_semsr.widgets.base import PANELS, navigation
app = QApplication([])
modules = (place.partition(":")[0] for place, *_ in PANELS.values())
wanted = {f"napari_semsr.widgets.{module}" for module in modules}
print(wanted <= sys.modules.keys())
navigation.preload_panels()
while not wanted <= sys.modules.keys():
    app.processEvents()
print(True)
"""


@pytest.mark.broad
def test_the_modules_of_all_panels_are_loaded_ahead():
    assert run_python(AHEAD).split() == ["False", "True"]


@pytest.mark.broad
@pytest.mark.usefixtures("german")
@pytest.mark.parametrize("module", PANELS)
def test_controls_say_what_they_are_and_take_either_point(module, model, qtbot, opened):
    panel = make(module, model, qtbot)
    assert panel.content.findChildren(QAbstractButton)
    assert not list(without_tooltip(panel))
    assert not list(with_idle_tooltip(panel))
    assert not list(without_unit(panel))
    check_decimal_point(panel, qtbot)
    page, _, heading = panel.help_place.partition("#")
    assert page != "panels.md"  # its own, not what all share
    text = (navigation.get_manual_folder() / page).read_text("utf-8")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    assert not heading or heading in map(navigation.create_heading_anchor, headings)
    panel.help_button.click()
    assert opened == [navigation.get_manual_url(panel.help_place)]


@pytest.mark.broad
@pytest.mark.parametrize("opened", ["nothing", "image", "mosaic", "frames"])
def test_no_panel_shows_an_error_before_the_user_acts(
    opened, model, qtbot, add, tmp_path, monkeypatch
):
    problems = []
    show = "napari_semsr.widgets.base.messages.show_error"
    monkeypatch.setattr(show, problems.append)
    if opened != "nothing":
        history = core.Provenance(job="stitch") if opened == "mosaic" else None
        layer = add(model, Micrograph(np.eye(64), provenance=history, name="field"))
        if opened == "frames":  # the microscope still writes them
            layer.metadata[FOLDER_KEY] = str(tmp_path)
    for name in PANELS:
        panel = make(name, model, qtbot)
        panel.show()
        qtbot.waitUntil(lambda panel=panel: not panel.is_busy, timeout=LIMIT_MS)
        assert (problems, panel.warning_label.text()) == ([], ""), name


ROWS = {"EnhancePanel": "Layer", "QualityPanel": "Image", "RegisterPanel": "Moving"}


@pytest.mark.parametrize(("module", "row"), ROWS.items())
def test_run_says_which_layers_it_takes(module, row, model, qtbot):
    panel = make(module, model, qtbot)
    panel.run()
    assert f"Choose an image layer under {row};" in panel.status.text()
    samples = np.arange(4800, dtype=np.uint8).reshape(40, 40, 3)
    layer = model.add_image(samples, rgb=True, name="photo")
    assert panel.status.text() == ""
    panel.run()
    assert "'photo' must be a grey image" in panel.status.text()
    model.layers.remove(layer)
    layer = model.add_image(np.zeros((40, 40)), rotate=20, name="turned")
    panel.run()
    assert "'turned' cannot be measured" in panel.status.text()
    assert not panel.runner.is_busy


@pytest.mark.parametrize("module", ["ResolutionPanel", "QualityPanel"])
def test_pairs_of_other_shapes_and_places_are_refused(module, model, qtbot):
    down = np.array([[1, 0, 7], [0, 1, 0], [0, 0, 1]])
    model.add_image(np.zeros((40, 50)), name="wide")
    model.add_image(np.zeros((40, 40)), name="a")
    model.add_image(np.zeros((40, 40)), name="b", affine=down)
    panel = make(module, model, qtbot)
    frc = module == "ResolutionPanel"
    second = panel.second if frc else panel.reference
    assert second.value is None
    itself = (panel.first if frc else panel.image).value.name
    for name, said in (
        ("wide", "to a common grid"),
        ("a", "'b' by 7 px vertically and 0 px horizontally"),
        (itself, "ayer 'b' is chosen as"),
    ):
        second.value = model.layers[name]
        panel.run()
        assert said in panel.status.text()
        assert panel.results.isHidden()


@pytest.mark.quick(2)
@pytest.mark.usefixtures("qapp")
@pytest.mark.parametrize("module", sorted(PANELS, key=lambda name: name != "SavePanel"))
def test_a_viewer_outlives_its_panels(module, model, add, exposures):
    one, two = (add(model, image) for image in exposures)
    panel = create_panel(model, f"{PANELS[module]}:{module}")
    panel.show()
    model.add_shapes([[[1, 1], [20, 20]]], shape_type="line", name="line")
    panel.deleteLater()
    QCoreApplication.sendPostedEvents(panel, QEvent.Type.DeferredDelete)
    one.name, one.scale, one.visible = "renamed", (3, 3), False
    two.metadata["semsr made"] = "Restore"
    model.add_image(np.zeros((2, 8, 8)))
    model.dims.point = (1, 0, 0)
    model.layers["line"].data = [[[1, 1], [9, 9]]]
    for layer in list(model.layers):
        model.layers.selection.active = layer
    model.layers.move(0, 2)
    model.theme = "light"
    model.layers.clear()
    assert get_removed_layers(model).undo() == "removal of 4 layers"
    get_session(model).changed.emit()


class Counted:
    """A job that takes as many steps as it is allowed, and gives its number."""

    def __init__(self, number: int = 0) -> None:
        self.number, self.go_on = number, threading.Event()

    def __call__(self):
        while not self.go_on.wait(0.01):
            yield Progress(1, 2, f"half of {self.number}")
        return self.number


@pytest.fixture
def counting(monkeypatch):
    """Let the panels that measure count instead; what was shown, and the jobs."""
    shown, jobs = [], []

    def job(self):
        jobs.append(Counted(len(jobs)))
        return JobRequest(jobs[-1], shown.append)

    place = "napari_semsr.widgets.measure.panel.MeasurePanel.create_request"
    monkeypatch.setattr(place, job)
    yield shown, jobs
    for each in jobs:
        each.go_on.set()


def says(panel, text):
    return lambda: text in panel.status.text()


def test_the_same_panel_queues_what_is_typed_now(model, qtbot, finish, counting):
    shown, jobs = counting
    panel = make("QualityPanel", model, qtbot)
    panel.run_button.click()
    qtbot.waitUntil(says(panel, "Half of 0"), timeout=LIMIT_MS)
    panel.run_button.click()
    assert "is already active" in panel.status.text()
    panel.form.set_values(bins=32)
    panel.run_button.click()
    assert panel.status.text().startswith("Queued with the current settings: position")
    qtbot.waitUntil(says(panel, "Half of 0 · 1 queued"), timeout=LIMIT_MS)
    panel.form.set_values(bins=48)
    panel.run_button.click()
    assert panel.cancel_button.text() == "Cancel queued"
    panel.cancel_button.click()
    assert panel.runner.waiting_count == 1
    jobs[0].go_on.set()
    qtbot.waitUntil(says(panel, "Half of 1"), timeout=LIMIT_MS)
    assert panel.cancel_button.text() == "Cancel"
    assert shown == [0]
    panel.cancel_button.click()
    assert "Cancelling" in panel.status.text()
    assert not panel.cancel_button.isEnabled()
    finish(panel)
    assert "was cancelled" in panel.status.text()
    assert shown == [0]


def test_two_runs_to_one_path_are_refused(model, qtbot, add, computed, tmp_path):
    from napari_semsr.widgets.enhance.panel import EnhancePanel

    add(model, Micrograph(np.ones((64, 64), np.float32), name="field"))
    panels = [EnhancePanel(model), create_classical(model)]
    panels[0].model.show_model("sem-restore")
    computed.allow(0)
    for panel in panels:
        qtbot.addWidget(panel)
        panel.output.value = tmp_path / "made.ome.zarr"
        panel.run_button.click()
    assert "Enhance is about to write" in panels[1].status.text()
    panels[0].cancel_button.click()
    computed.allow()
    qtbot.waitUntil(lambda: not panels[0].is_busy, timeout=LIMIT_MS)


def test_figures_of_an_earlier_run_are_not_taken_for_those_of_one_that_failed(
    model, qtbot, add, run_panel
):
    add(model, Micrograph(np.eye(64, dtype=np.float32), name="field"))
    panel = make("QualityPanel", model, qtbot)
    assert "Measured" in run_panel(panel)
    assert panel.results.title() == "Result"
    model.layers[0].data = np.full((64, 64), np.nan, np.float32)
    run_panel(panel)
    assert panel.results.title() == "Result: earlier run"


OPENING = """
import importlib, sys, threading, time
import numpy as np
from napari.components import ViewerModel
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QApplication
from napari_semsr.core import Micrograph
from napari_semsr.models import list_bundled_models
from napari_semsr.widgets.layers import create_layer_keywords
app, viewer, importers = QApplication([]), ViewerModel(), {}
grey = np.random.default_rng(0).integers(0, 255, (96, 96), dtype=np.uint8)
field = Micrograph(grey, (20.0, 20.0), name="field")
viewer.add_image(grey, **create_layer_keywords(field))
class Note:
    def find_spec(self, name, path=None, target=None):
        importers.setdefault(name, threading.current_thread())
sys.meta_path.insert(0, Note())

def run(panel):
    viewer.layers.selection.active = viewer.layers["field"]
    panel.run_button.click()
    while panel.is_busy:
        app.processEvents(); time.sleep(0.01)
    return panel.status.text()

panels = {}
for argument in sys.argv[1:]:
    module, name = argument.split(":")
    found = importlib.import_module("napari_semsr.widgets." + module)
    panels[name] = getattr(found, name)(viewer)
    panels[name].show(); app.processEvents()
    late = {"matplotlib"} if name == "EnhancePanel" else {"matplotlib", "torch"}
    assert not late & set(importers), module
    panels[name].close()
enhance, metrics = panels["EnhancePanel"], panels["QualityPanel"]
enhance.show()
while "torch" not in sys.modules:
    app.processEvents(); time.sleep(0.01)
said = run(metrics)
assert metrics.plot is not None, said
for module in ("torch", "matplotlib", "matplotlib.figure", "pandas"):
    assert importers[module] is not threading.main_thread(), module
for model in list_bundled_models():
    enhance.model.box.value = model
    assert model in run(enhance), enhance.status.text()
compilers = {"torch._dynamo", "torch._inductor", "triton"}
assert not compilers & set(sys.modules), "whose LLVM clashes with Mesa's"
for panel in panels.values():
    panel.close(); panel.deleteLater()  # at exit PyQt may trip over what it deletes
app.sendPostedEvents(None, QEvent.Type.DeferredDelete)
"""


@pytest.mark.broad
def test_what_takes_long_to_import_is_imported_in_a_thread_and_no_compiler(tmp_path):
    """Torch while its panel is looked at, matplotlib by the job that plots."""
    last = "EnhancePanel"  # whose torch is imported from then on
    names = sorted(PANELS, key=lambda name: name == last)
    run_python(OPENING, *(f"{PANELS[name]}:{name}" for name in names), cwd=tmp_path)


@pytest.mark.parametrize("name", [*MEASURING, "TrainPanel"])
def test_the_form_makes_the_call_that_its_command_would_make(
    name, model, add, qtbot, monkeypatch
):
    rng = np.random.default_rng(3)
    for layer in ("one", "other"):
        values = rng.normal(100, 20, (128, 128)).astype(np.float32)
        add(model, Micrograph(values, parse_pixel_size(20.0), layer))
    panel = make(name, model, qtbot)
    if name == "EnhancePanel":  # no file states a microscope
        panel.model.show_model("sem-restore")
    calls = []

    def call(verb, *inputs, **values):
        first = [item.name for item in verb.inputs if not item.flag]
        values |= dict(zip([*first, "output"], inputs, strict=False))
        calls.append((verb, {k: v for k, v in values.items() if v is not None}))
        raise Cancelled

    monkeypatch.setattr(type(panel.verb), "job", call)
    monkeypatch.setattr(enhance_panel, "start_torch", lambda: iter(()))
    with pytest.raises(Cancelled):
        run(panel.create_request().make())
    verb, values = calls[-1]
    places = {item.name for item in (*verb.inputs, *verb.all_outputs)}
    sets = {one.name: one.options for one in verb.option_groups}
    of_job = {"overwrite", "resume", "keep"}
    assert values.keys() - places - sets.keys() - of_job <= {
        "live",
        "translate",
        "halves",
    }
    assert all(type(values[name]) is sets[name] for name in sets.keys() & values.keys())
    images = [one for one in values.values() if isinstance(one, Micrograph)]
    assert all(image.pixel_size_nm == (20.0, 20.0) for image in images)
