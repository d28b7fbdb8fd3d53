"""Projects: saved as one goes, moved, reopened with every layer that we make."""

import json
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from napari.components import ViewerModel
from napari.layers import Image, Labels, Shapes
from napari.utils.notifications import notification_manager
from tifffile import imwrite

from napari_semsr.core import Micrograph, run
from napari_semsr.io import STORE_KEY, get_reader, read, write
from napari_semsr.io.layers import read_layers
from napari_semsr.jobs import SIMULATE, SimulateOptions, StitchFolderOptions, save_image
from napari_semsr.jobs.index import FORMER, LAST_COMMIT
from napari_semsr.widgets import host
from napari_semsr.widgets.base import (
    JobResult,
    OpenedImage,
    add_stack,
    find_free_store_path,
)
from napari_semsr.widgets.enhance.panel import EnhancePanel
from napari_semsr.widgets.layers import get_file_path
from napari_semsr.widgets.measure.quality import QualityPanel
from napari_semsr.widgets.measure.resolution import ResolutionPanel
from napari_semsr.widgets.open_mosaic import OpenMosaicPanel
from napari_semsr.widgets.project import SavePanel
from napari_semsr.widgets.stitch import add_frame_layers, create_frame_layers
from napari_semsr.widgets.stitch.panel import StitchMosaicPanel
from tests.children import LIMIT_MS
from tests.tiny_models import write_tiny_model
from tests.widgets.scenes import create_classical, exposures_of

pytestmark = pytest.mark.usefixtures("no_project")


def listed(path):
    return json.loads((path / "project.json").read_text())


@dataclass
class Project:
    """A project that the buttons of Save panels save and open."""

    path: Path
    panel_of: Callable
    choose: Callable
    qtbot: Any

    def wait(self, panel):
        runner = panel.session.runner
        self.qtbot.waitUntil(lambda: not runner.is_busy, timeout=LIMIT_MS)

    def save(self, viewer, path=None):
        """Press the button that saves all into a new project."""
        panel, path = self.panel_of(viewer), path or self.path
        self.choose(path)
        self.save_again(panel)
        assert panel.session.folder == path, panel.status.text()
        assert "Everything is saved" in panel.status.text()
        return panel

    def save_again(self, panel):
        panel.run_button.click()
        self.wait(panel)

    def open_in(self, panel, path=None):
        self.choose(path or self.path)
        panel.open_button.click()
        self.wait(panel)

    def reopen(self, path=None):
        panel = self.panel_of(ViewerModel())
        self.open_in(panel, path)
        assert "Opened" in panel.status.text()
        return panel.viewer, panel

    def show(self, kind, viewer):
        panel = kind(viewer)
        self.qtbot.addWidget(panel)
        panel.show()
        return panel

    def await_names(self, *names):
        def are_listed():
            return [layer["name"] for layer in listed(self.path)["layers"]] == [*names]

        self.qtbot.waitUntil(are_listed, timeout=LIMIT_MS)

    @contextmanager
    def edited(self):
        content = listed(self.path)
        yield content
        (self.path / "project.json").write_text(json.dumps(content))


@pytest.fixture(autouse=True)
def _changes_are_saved_soon(monkeypatch):
    monkeypatch.setattr("napari_semsr.widgets.base.session._SETTLE_MS", 100)


@pytest.fixture
def project(hold, choose, qtbot, tmp_path):
    def panel_of(viewer):
        return hold(SavePanel(viewer))

    return Project(tmp_path / "p.semsr", panel_of, choose, qtbot)


def assert_alike(one, other):
    """Compare what a user sees of two layers, and what jobs read of them."""
    assert type(one) is type(other)
    assert one.name == other.name
    for name in ("visible", "opacity", "blending", "units", "axis_labels"):
        assert getattr(one, name) == getattr(other, name), name
    np.testing.assert_allclose(one.extent.world, other.extent.world)
    np.testing.assert_allclose(one.affine.affine_matrix, other.affine.affine_matrix)
    if isinstance(one, Shapes):
        assert one.shape_type == other.shape_type
        for a, b in zip(one.data, other.data, strict=True):
            np.testing.assert_allclose(a, b)
        np.testing.assert_allclose(one.edge_color, other.edge_color)
        np.testing.assert_allclose(one.edge_width, other.edge_width)
        assert one.text.values.tolist() == other.text.values.tolist()
    else:
        ours, theirs = (
            np.asarray(item.data[0] if item.multiscale else item.data)
            for item in (one, other)
        )
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    if isinstance(one, Image):
        np.testing.assert_allclose(one.contrast_limits, other.contrast_limits)
        np.testing.assert_allclose(one.colormap.colors, other.colormap.colors)
        assert one.gamma == other.gamma
    if isinstance(one, Labels):
        for value in np.unique(one.data[one.data > 0]):
            np.testing.assert_allclose(one.get_color(value), other.get_color(value))
    if hasattr(one, "features"):
        assert one.features.astype(str).equals(other.features.astype(str))
    kept = json.loads(json.dumps(one.metadata.get("micrograph")))
    assert kept == json.loads(json.dumps(other.metadata.get("micrograph")))


@pytest.fixture
def story(model, qtbot, tmp_path, run_panel):
    """Frames, their mosaic, and what the panels make of it; the folder of the scan."""
    scan = tmp_path / "work" / "scan"
    scan.parent.mkdir()
    options = SimulateOptions(phantom="particles", frames_grid=(2, 2), frame_px=96)
    run(SIMULATE.job(out_dir=scan, options=options))
    for data, attributes, kind in get_reader(str(scan))(str(scan)):
        getattr(model, f"add_{kind}")(data, **attributes)

    panels = []

    def press(kind, network=None, **values):
        panel = kind(model)
        panels.append(panel)
        qtbot.addWidget(panel)
        panel.show()
        for name, value in values.items():
            getattr(panel, name).value = value
        if network is not None:
            panel.model.add_file(network)
        qtbot.waitUntil(lambda: not panel.is_busy, timeout=LIMIT_MS)
        before = len(model.layers)
        said = run_panel(panel)
        assert len(model.layers) > before, said

    press(StitchMosaicPanel)
    mosaic = next(item for item in model.layers if item.name.endswith("mosaic"))
    press(create_classical, layer=mosaic)
    press(EnhancePanel, write_tiny_model(tmp_path), layer=mosaic)
    opener = OpenMosaicPanel(model)
    qtbot.addWidget(opener)
    opener.calibrate.layer.value, opener.crop.like.value = mosaic, None
    run_panel(opener, opener.crop.crop_button)
    press(ResolutionPanel, first=mosaic)
    press(QualityPanel, image=mosaic, reference=None, planes=True)
    mosaic.contrast_limits, mosaic.gamma, mosaic.colormap = (3, 99), 0.8, "magma"
    model.add_points([[3, 4], [5, 6.5]], size=[4, 5], name="marks")
    model.add_labels(np.arange(64, dtype=np.uint8).reshape(8, 8), name="painted")
    model.add_image(np.arange(96.0).reshape(2, 6, 8), name="stack", scale=(1, 2, 2))
    arrows = [[[1, 2], [3, 4.5]], [[5, 6], [-1, 0]]]
    model.add_vectors(arrows, name="drift")
    model.add_tracks([[0, 0, 1, 2.5], [0, 1, 2, 3]], name="stage")
    yield scan
    panels.clear()


@pytest.mark.broad
def test_every_layer_that_we_make_comes_back(story, model, project, tmp_path):
    path = tmp_path / "work" / "first.semsr"
    panel = project.save(model, path)
    assert panel.session.list_unsaved_names() == []
    made = panel.session.list_created_images()[:3]  # were written, and are not copied
    assert {Path(item.metadata[STORE_KEY]).parent for item in made} == {path}
    shutil.copytree(tmp_path / "work", tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "work")
    path = tmp_path / "elsewhere" / "first.semsr"
    viewer, again = project.reopen(path)
    assert [item.name for item in viewer.layers] == [item.name for item in model.layers]
    for one, other in zip(model.layers, viewer.layers, strict=True):
        assert_alike(one, other)
    assert again.session.list_unsaved_names() == []
    assert "missing" not in again.status.text()
    inputs = listed(path)["inputs"]
    assert [item["path"] for item in inputs.values()] == ["../scan"]


# -- as one goes ---------------------------------------------------------------------


@pytest.fixture
def restored(model, hold, add, run_panel):
    """An Enhance panel that has made a layer, into a temporary store."""
    image = exposures_of((64, 64), sharp=True)[0].replace(name="field")
    add(model, image)
    panel = hold(create_classical(model))
    panel.show()
    assert "Wiener removed" in run_panel(panel)
    return panel


def test_results_go_into_the_project_and_are_saved_at_once(
    restored, model, project, run_panel
):
    assert "Not saved" in restored.messages.unsaved_label.text()
    panel = project.save(model)
    assert restored.messages.unsaved_label.text() == ""
    made = set(model.layers)
    run_panel(restored)
    (new,) = (item for item in model.layers if item not in made)
    assert Path(new.metadata[STORE_KEY]).parent == project.path
    assert panel.session.list_unsaved_names() == []
    new.name = "renamed"
    new.contrast_limits = (0.25, 0.5)
    project.await_names(*(item.name for item in model.layers))
    (kept,) = (
        item for item in listed(project.path)["layers"] if item["name"] == "renamed"
    )
    assert kept["attributes"]["contrast_limits"] == [0.25, 0.5]


def test_painted_labels_are_written_anew(model, project):
    labels = model.add_labels(np.zeros((8, 8), np.uint8), name="painted")
    panel, path = project.save(model), project.path

    def reopened():
        project.save_again(panel)
        viewer, _ = project.reopen()
        np.testing.assert_array_equal(viewer.layers["painted"].data, labels.data)
        stores = [item.name for item in path.iterdir() if item.is_dir()]
        assert stores == [listed(path)["layers"][0]["store"]]
        return stores

    labels.paint((2, 3), 7)
    stores = reopened()
    labels.refresh()  # as when a slider moves: nothing is written for it
    assert reopened() == stores
    labels.undo()
    panel.run_button.click()
    labels.paint((5, 5), 3)  # while it is being saved
    project.wait(panel)
    reopened()


def test_pixels_that_are_no_more_those_of_the_file_are_written(
    model, project, tmp_path
):
    imwrite(tmp_path / "mask.tif", np.eye(8, dtype=np.uint8))
    ((data, attributes, _),) = read_layers(str(tmp_path / "mask.tif"))
    panel = project.panel_of(model)
    layer = model.add_image(data, **attributes)
    layer.data = 3 * layer.data
    assert get_file_path(layer) is None
    project.save(model)
    viewer, _ = project.reopen()
    (again,) = viewer.layers
    np.testing.assert_array_equal(again.data, layer.data)
    assert panel.session.list_unsaved_names() == []


def test_forms_camera_and_choice_come_back(restored, model, project):
    restored.model.show_model("classical: richardson-lucy")
    restored.classical.set_values(iterations=7)
    restored.layer.value = model.layers["field"]
    camera = host.get_camera(model)
    camera.zoom, camera.center = 3.5, (0, 111, 222)
    model.layers.selection.active = model.layers["field"]
    project.save(model)
    viewer, _ = project.reopen()
    camera = host.get_camera(viewer)
    assert (camera.zoom, camera.center) == (3.5, (0, 111, 222))
    assert viewer.layers.selection.active.name == "field"
    again = project.show(EnhancePanel, viewer)
    assert again.model.method == "richardson-lucy"
    assert again.classical.values()["iterations"] == 7
    assert again.layer.value.name == "field"


def test_a_project_gives_no_address_to_connect_to(model, project):
    model.add_points([[1, 2]], name="mark")
    panel = project.show(EnhancePanel, model)
    panel.cluster.set_values(scheduler="tcp://127.0.0.1:9")
    project.save(model)
    one = {"scheduler": "tcp://127.0.0.1:9"}
    more = {"cluster": one, "advanced": one}
    with project.edited() as told:
        assert "tcp://" not in str(told)
        told["options"]["Enhance"] |= more | {"advanced.form": one | {"memory_gb": 1.5}}
    viewer, _ = project.reopen()
    again = project.show(EnhancePanel, viewer)
    assert again.advanced.form.values()["memory_gb"] == 1.5
    assert again.cluster.values()["scheduler"] is None


def test_settings_of_a_panel_that_left_are_kept_and_named(model, project, monkeypatch):
    monkeypatch.setitem(FORMER, "panel Knit", "use `crop()`")
    model.add_points([[1, 2]], name="mark")
    project.save(model)
    with project.edited() as told:
        told["options"]["Knit"] = {"form": {"rows": 3}}
    viewer, panel = project.reopen()
    shown = [one.message for one in notification_manager.records]
    assert any("Knit" in one and LAST_COMMIT in one for one in shown)
    viewer.layers[0].opacity = 0.5
    project.save_again(panel)
    assert listed(project.path)["options"]["Knit"] == {"form": {"rows": 3}}


@pytest.mark.broad
def test_saving_that_fails_is_told_once_and_can_be_tried_again(
    model, project, qtbot, tmp_path
):
    layer = model.add_points([[1, 2]], name="mark")
    panel, path, told = project.save(model), project.path, []
    panel.session.save_failed.connect(told.append)
    away = path.rename(tmp_path / "away")
    path.write_text("a file lies where the project was")
    layer.name = "mark 0"
    qtbot.waitUntil(lambda: bool(told), timeout=LIMIT_MS)
    layer.name = "mark 1"
    panel.session._save_changes()  # noqa: SLF001 - as its clock does
    assert len(told) == 1
    path.unlink()
    away.rename(path)
    project.save_again(panel)
    project.await_names("mark 1")


def test_what_is_removed_stays_in_the_project_until_it_is_saved(
    restored, model, project
):
    labels = model.add_labels(np.zeros((8, 8), np.uint8), name="painted")
    panel = project.save(model)
    names = [item.name for item in model.layers]
    labels.paint((2, 3), 7)  # which is not saved yet
    model.layers.clear()
    panel.session.save()  # as is done two seconds after each change
    project.wait(panel)
    assert panel.run_button.text() == "Save project now"
    assert [item["name"] for item in listed(project.path)["layers"]] == names
    assert "stay in it until you press Save project now" in panel.about.text()
    viewer, _ = project.reopen()
    assert [item.name for item in viewer.layers] == names
    assert viewer.layers["painted"].data[2, 3] == 7
    panel.undo_button.click()
    assert [item.name for item in model.layers] == names
    model.layers.clear()
    project.save_again(panel)
    assert listed(project.path)["layers"] == []
    assert "stay in it" not in panel.about.text()


@pytest.mark.broad
def test_another_project_takes_all_and_leaves_the_first(
    restored, model, project, qtbot, tmp_path
):
    first, second = tmp_path / "a.semsr", tmp_path / "b.semsr"
    fresh = project.panel_of(model)
    assert not fresh.new_button.isVisibleTo(fresh)
    panel = project.save(model, first)
    before = listed(first)
    project.choose(second)
    panel.new_button.click()
    project.wait(panel)
    assert panel.session.folder == second
    assert listed(first) == before
    stores = [
        {item["store"] for item in listed(path)["layers"]} for path in (first, second)
    ]
    assert stores[0] == stores[1]
    assert all((second / name).is_dir() for name in stores[1])
    shutil.rmtree(first)
    viewer, _ = project.reopen(second)
    for one, other in zip(model.layers, viewer.layers, strict=True):
        assert_alike(one, other)
    panel.new_button.click()
    assert "is already a project" in panel.status.text()


@pytest.mark.parametrize("done", ["laid", "replaced"])
def test_frames_come_back_as_they_were_laid_or_replaced(
    model, project, tmp_path, rng, done
):
    for number in range(4):
        frame = rng.integers(0, 255, (32, 32), dtype=np.uint8)
        imwrite(tmp_path / f"f{number}.tif", frame)
    (tmp_path / "scan.json").write_text('{"grid": [2, 2], "overlap": 0.1}')
    panel = project.panel_of(model)
    laid = StitchFolderOptions(grid=(1, 4), overlap=0.4, pixel_size_nm=5)
    add_frame_layers(
        model, run(create_frame_layers(tmp_path, laid if done == "laid" else None))
    )
    frames, outlines = model.layers
    if done == "replaced":
        frames.data = frames.data // 2
    project.save(model)
    assert panel.session.list_excluded_names() == []
    viewer, _ = project.reopen()
    assert_alike(frames, viewer.layers[frames.name])
    assert_alike(outlines, viewer.layers[outlines.name])


# -- inputs and damage ---------------------------------------------------------------


@pytest.fixture
def with_input(model, project, tmp_path, rng):
    """A project beside its one input, and a layer without one."""
    file = tmp_path / "field.ome.tif"
    write(Micrograph(rng.random((30, 20)).astype(np.float32), (5, 5), "field"), file)
    for data, attributes, kind in get_reader(str(file))(str(file)):
        getattr(model, f"add_{kind}")(data, **attributes)
    model.add_points([[1, 2]], name="mark")
    project.save(model)
    (one,) = listed(project.path)["inputs"].values()
    assert one["path"] == "../field.ome.tif"
    assert {item.name for item in project.path.iterdir()} == {"project.json"}
    return file


def test_a_missing_input_is_said_and_the_rest_opens(with_input, project):
    file = with_input
    file.rename(file.with_name("away.tif"))
    viewer, panel = project.reopen()
    assert [item.name for item in viewer.layers] == ["mark"]
    assert f"{file} is missing: copy it back next to" in panel.status.text()
    panel.run_button.click()  # which is not to lose what was left out
    file.with_name("away.tif").rename(file)
    viewer, panel = project.reopen()
    assert {item.name for item in viewer.layers} == {"field", "mark"}
    assert "missing" not in panel.status.text()


@pytest.mark.quick(1)
@pytest.mark.parametrize("wrong", [{"scale": ["a", "b"]}, {"no such": 1}], ids=str)
def test_a_layer_that_is_described_wrongly_is_said_and_the_rest_opens(
    with_input, project, wrong
):
    with project.edited() as content:
        (field,) = (item for item in content["layers"] if item["name"] == "field")
        field["attributes"] |= wrong
        content["window"] |= {"zoom": "x", "center": None, "point": [1]}
    viewer, panel = project.reopen()
    assert [item.name for item in viewer.layers] == ["mark"]
    assert "Layer 'field' was skipped because its description" in panel.status.text()
    project.save_again(panel)
    names = [item["name"] for item in listed(project.path)["layers"]]
    assert sorted(names) == ["field", "mark"]


@pytest.mark.parametrize(
    ("text", "said"), [("{", "is damaged"), (None, "has no project.json")]
)
def test_what_is_no_project_is_refused_in_a_sentence(model, project, text, said):
    model.add_points([[1, 2]], name="kept")
    project.path.mkdir()
    if text is not None:
        (project.path / "project.json").write_text(text)
    panel = project.panel_of(model)
    panel.session.ask = lambda *_: "discard"  # of the points, or it waits for a click
    project.open_in(panel)
    assert said in panel.status.text()
    assert "kept" in model.layers
    assert panel.session.folder is None


# -- removed layers --------------------------------------------------------------------


STORE, MADE, PROJECT = "semsr store", "semsr made", "semsr project"


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    "told",
    [
        {"metadata": {STORE: "{path}/..", MADE: "Restore"}},
        {"metadata": {STORE: "{path}/other", PROJECT: "{path}/../precious"}},
        {"store": "link"},
    ],
    ids=str,
)
def test_a_project_removes_nothing_that_was_not_made_here(
    told, model, project, tmp_path
):
    given = tmp_path / "given"
    path = project.path = given / "p.semsr"
    precious = given / "precious"
    precious.mkdir(parents=True)
    for place in (given, precious):  # which can be opened as the pixels of labels
        zarr.create_array(str(place), shape=(4, 4), dtype="int32", overwrite=False)
    (precious / "notes.txt").write_text("all")
    model.add_labels(np.eye(4, dtype=int), name="one")
    model.add_labels(np.eye(4, dtype=int), name="two")
    project.save(model)
    (path / "link").symlink_to(precious)
    (path / "other").mkdir()
    metadata = told.get("metadata", {})
    with project.edited() as content:
        two = content["layers"][1]
        two |= {"store": told.get("store", two["store"])}
        two["attributes"]["metadata"] |= {
            key: text.format(path=path) for key, text in metadata.items()
        }
    viewer, panel = project.reopen()
    if "two" in viewer.layers:
        viewer.layers["two"].paint([0, 0], 3)
        project.save_again(panel)
        viewer.layers.remove("two")
        project.save_again(panel)
    panel.history.clear()
    assert (precious / "notes.txt").read_text() == "all"
    assert (path / "link").is_symlink()
    assert (path / "other").is_dir()


@pytest.mark.quick(1)
@pytest.mark.parametrize("kept_first", [False, True], ids=["then kept", "kept first"])
def test_a_stack_that_a_panel_made_comes_back(model, project, kept_first):
    pixels = np.arange(96, dtype=np.float32).reshape(2, 6, 8)
    source = model.add_image(np.zeros((2, 6, 8)), name="stack")
    panel = project.save(model) if kept_first else None
    file = find_free_store_path("restored", ".ome.tif")
    made = run(
        save_image([Micrograph(plane, (5, 5), "stack") for plane in pixels], file)
    )
    planes = tuple(read(file, plane=number) for number in (0, 1))
    outcome = JobResult(made, (OpenedImage(planes[0], (planes[0],)),), planes)
    add_stack(model, outcome, source, "restored")
    if panel is None:
        project.save(model)
    else:
        project.save_again(panel)
    viewer, _ = project.reopen()
    np.testing.assert_array_equal(viewer.layers["restored"].data, pixels)
    assert viewer.layers["restored"].scale.tolist() == [1, 5, 5]
