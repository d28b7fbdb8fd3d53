"""Viewer session, which saves to a project and tracks unsaved content."""

import atexit
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet, finalize, ref

import numpy as np
from magicgui.widgets.bases import ValueWidget
from napari.components import Camera, Dims, ViewerModel
from napari.layers import Image, Labels, Layer, Points, Shapes, Tracks, Vectors
from napari.utils import DirectLabelColormap
from napari.utils.events import Event
from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtCore import (  # type: ignore[attr-defined]
    QCoreApplication,
    QEvent,
    QObject,
    Qt,
    Signal as QtSignal,
)
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import (
    QAbstractButton,
    QComboBox,
    QMainWindow,
    QMessageBox,
    QWidget,
)

from napari_semsr import core, io
from napari_semsr.jobs import describe_former_name
from napari_semsr.widgets import host, layers
from napari_semsr.widgets.base import history, places, results
from napari_semsr.widgets.base.form import OptionsForm, convert_names_to_panel_labels
from napari_semsr.widgets.base.navigation import find_title
from napari_semsr.widgets.base.runner import (
    JobRequest,
    JobRunner,
    create_timer,
    is_alive,
)
from napari_semsr.widgets.base.saving import ask_new_project_path

if TYPE_CHECKING:
    from napari_semsr.widgets.base.panel import VerbPanel
    from napari_semsr.widgets.window import StepsWindow

_MOST_NAMES = 5  # in a sentence; chosen: more would fill the screen
_SETTLE_MS = 1500  # ms; chosen: a dragged slider is saved once
_ARRAY = ".zarr"  # folders with pixels in a project
_STORE = f".ome{_ARRAY}"
_SAVED_NAMES = {
    "": (
        *("opacity", "blending", "visible", "units", "axis_labels"),
        *("scale", "translate", "rotate", "shear", "affine"),
    ),
    "image": ("gamma", "colormap", "contrast_limits", "interpolation2d"),
    "labels": (),
    "shapes": (
        *("ndim", "text", "shape_type", "z_index"),
        *("edge_width", "edge_color", "face_color"),
    ),
    "points": (
        *("ndim", "text", "symbol", "size", "shown"),
        *("border_width", "border_width_is_relative", "border_color", "face_color"),
    ),
    "vectors": ("edge_width", "edge_color", "length", "vector_style"),
    "tracks": (
        *("graph", "color_by", "colormap"),
        *("tail_width", "tail_length", "head_length"),
    ),
}
"""Layer attributes that are saved in addition to name, metadata and features."""

_VERTICES = (Shapes, Points, Vectors, Tracks)
_MAX_NUMBERS = 1_000_000  # chosen: some 20 MB of project.json, written in a second
_EVENTS = {
    *results.PIXEL_EVENTS,
    "name",
    "metadata",
    "features",
    *chain(*_SAVED_NAMES.values()),
}
"""Layer events that trigger saving of the project."""

_NO_ONE = ("offscreen", "minimal")


def _is_temporary_overlay(layer: Layer) -> bool:
    """Return whether a layer is a temporary overlay, for example in a comparison."""
    return layer.metadata.get(io.HELPER_KEY) is True


@dataclass(slots=True, eq=False)
class _RemovedLayer:
    """Removed layer that stays in the project until the user saves."""

    index: int  # its index in the layer list when it was removed
    layer: Callable[[], Layer | None]  # a weak reference
    record: io.ProjectLayer | None = None  # once its pixels are in the project
    unsaved_layer: Layer | None = None  # before that


class LayerSource(NamedTuple):
    """Location of a layer's pixels in a project."""

    store: str | None = None
    input: str | None = None
    read: dict[str, object] | None = None


_Bring = Callable[[], tuple[LayerSource, dict[str, str]]]
"""Function that writes pixels into a project and returns their location and new
metadata.
"""


def _list_names(names: list[str]) -> str:
    """List the first names, and say how many more there are."""
    rest = len(names) - _MOST_NAMES
    more = f" and {rest} more" if rest > 0 else ""
    return f"{', '.join(names[:_MOST_NAMES])}{more}."


def describe_unsaved_content(names: list[str]) -> str:
    """Describe unsaved content; return an empty string if everything is saved."""
    lost = "Not saved, and will be lost when napari is closed"
    return f"{lost}: {_list_names(names)}" if names else ""


def ask_about_unsaved_content(parent: QWidget, names: list[str]) -> str:
    """Ask whether to ``"save"`` or ``"discard"`` results, or to ``"cancel"``."""
    if QGuiApplication.platformName() in _NO_ONE:
        return "discard"
    kinds = QMessageBox.StandardButton
    buttons = kinds.Save | kinds.Discard | kinds.Cancel
    icon, title = QMessageBox.Icon.Question, "Results are not saved"
    box = QMessageBox(icon, title, describe_unsaved_content(names), buttons, parent)
    save = box.button(kinds.Save)
    if save is not None:
        save.setText("Save into a project…")
    box.setDefaultButton(kinds.Save)
    answers = {kinds.Save: "save", kinds.Discard: "discard"}
    return answers.get(kinds(box.exec()), "cancel")


_OPEN, _DISCARD, _LATER = "Open", "Discard", "Later"
_RECOVERED = "recovered"  # in place of the panel that made a result


def ask_about_abandoned_results(
    parent: QWidget, names: list[str], answer: Callable[[QAbstractButton], object]
) -> QMessageBox | None:
    """Ask, without waiting, whether to open or discard results of crashed sessions.

    `answer`: a method that receives the pressed button.
    """
    if QGuiApplication.platformName() in _NO_ONE:
        return None
    left = f"{len(names)} unsaved result{'s'[: len(names) != 1]}"
    sentence = f"A session that crashed left {left}: {_list_names(names)}"
    icon, none = QMessageBox.Icon.Question, QMessageBox.StandardButton.NoButton
    box = QMessageBox(icon, "Results were found", sentence, none, parent)
    box.buttonClicked.connect(answer)
    roles = QMessageBox.ButtonRole
    box.addButton(_OPEN, roles.AcceptRole)
    box.addButton(_DISCARD, roles.DestructiveRole)
    box.setEscapeButton(box.addButton(_LATER, roles.RejectRole))
    box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    box.setModal(False)
    box.show()
    return box


class Session(QObject):
    """Session that saves a viewer's content and asks before discarding it."""

    changed = QtSignal()
    """Emitted after content was saved or a project was opened."""
    message_ready = QtSignal(str)
    """Emits a status message."""
    save_failed = QtSignal(str)
    """Emits an error message."""

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__(QCoreApplication.instance())
        finalize(viewer, self.deleteLater).atexit = False
        self._viewer = ref(viewer)
        self.folder: Path | None = None
        self.ask = ask_about_unsaved_content
        self.ask_about_abandoned = ask_about_abandoned_results
        self.runner = JobRunner(self)
        self.runner.returned.connect(self._finish_job)
        self.runner.failed.connect(self._report_failure)
        self.runner.cancelled.connect(self._report_saving_cancelled)
        self._search = JobRunner(self)  # for results of crashed sessions
        self._search.failed.connect(show_error)
        self._found: dict[Path, list[Path]] = {}  # by it, in folders of these sessions
        # layers changed since their pixels were saved
        self._changed_layers: WeakSet[Layer] = WeakSet()
        # layers changed by hand since they were written
        self._edited_layers: WeakSet[Layer] = WeakSet()
        self._filed_layers: WeakSet[Layer] = WeakSet()  # layers not in the project
        self._reset_project()
        self._panels: WeakSet[VerbPanel] = WeakSet()
        self._steps_window: Callable[[], StepsWindow | None] = lambda: None  # a ref
        self._opening = False
        self._then: list[Callable[[], object]] = []
        self._window: ref[QWidget] | None = None  # a weak reference, once there is one
        self._timer = create_timer(self, self._save_changes, _SETTLE_MS, once=True)
        self._history = history.get_removed_layers(viewer)
        self._history.removed.connect(self._on_removal_undoable)
        self._removed_names: list[str] = []
        self._offer = create_timer(self, self._offer_undo, 0, once=True)
        self._taking = create_timer(self, self._resume_opened_project, 0, once=True)
        results.watch_images(viewer)
        self._together = history.LayerLinker(self, viewer, self._history)
        events = viewer.layers.events
        events.inserted.connect(self._on_layer_inserted)
        events.removed.connect(self._on_layer_removed)
        events.reordered.connect(self._schedule_save)
        camera = host.get_camera(viewer)
        for item in (camera.events, viewer.dims.events, viewer.layers.selection.events):
            item.connect(self._schedule_save)
        for layer in viewer.layers:
            layer.events.connect(self._on_layer_changed)
            self._detect_project(layer)

    def _reset_project(self) -> None:
        """Clear the state of the previously open project."""
        self._kept_sources: WeakKeyDictionary[Layer, LayerSource] = WeakKeyDictionary()
        self._inputs: dict[str, io.ProjectInput] = {}
        self._adopted_paths: dict[Path, Path] = {}
        self._own: WeakKeyDictionary[Layer, Path] = WeakKeyDictionary()
        self._outdated_paths: list[Path] = []
        self._removed_layers: list[_RemovedLayer] = []
        self._lost_layers: tuple[io.ProjectLayer, ...] = ()
        self._options: dict[str, dict[str, object]] = {}
        self._steps: dict[str, object] = {}  # state of the window of all steps
        self._project_written: io.Project | None = None
        self.failing = False  # reasons not to save, each reported once

    @property
    def viewer(self) -> ViewerModel:
        """The viewer, held by a weak reference."""
        viewer = self._viewer()
        if viewer is None:
            msg = "The viewer is closed."
            raise core.WriteError(msg, code="viewer-closed")
        return viewer

    # -- content -----------------------------------------------------------

    def list_created_images(self) -> list[Image]:
        """Return the images created by panels, from bottom to top."""
        images = layers.list_image_layers(self.viewer)
        return [item for item in images if history.MADE_KEY in item.metadata]

    def list_unsaved_names(self) -> list[str]:
        """Return the names of unsaved results, drawings and pixel sizes."""
        if self._viewer() is None:
            return []
        images_made = self.list_created_images()
        names = [item.name for item in images_made if results.is_unsaved(item)]
        if self.folder is not None:  # a project saves the following
            return names
        drawn = layers.list_user_layers(self.viewer, Labels, Points, Shapes)
        names += [item.name for item in drawn if self._has_unsaved_drawings(item)]
        for item in self.viewer.layers:
            if isinstance(item, Image) and item not in images_made:
                is_typed = "pixel_size_nm" in item.metadata.get(io.READ_KEY, {})
                is_lost = is_typed and io.SAVED_KEY not in item.metadata
                if is_lost or results.has_new_pixel_size(item):
                    names.append(f"the pixel size of {item.name}")
        return names

    def _has_unsaved_drawings(self, layer: Layer) -> bool:
        """Return whether a layer has drawings or marks not yet saved to a file."""
        if layer in self._filed_layers or io.SAVED_KEY in layer.metadata:
            return False
        read = layer.source.path or {io.STORE_KEY, io.READ_KEY} & {*layer.metadata}
        if layer in self._edited_layers or read:
            return layer in self._edited_layers
        if isinstance(layer, Labels):
            return bool(np.any(layers.get_finest_level(layer)))
        return bool(len(layer.data))

    def mark_saved_to_file(self, layers: Iterable[Layer]) -> None:
        """Mark the drawings in the given layers as saved to a file."""
        for layer in layers:
            self._filed_layers.add(layer)
            self._edited_layers.discard(layer)
        self.changed.emit()

    # -- following -----------------------------------------------------------------

    def watch_panel(self, panel: "VerbPanel") -> None:
        """Save a panel's form values on change, and ask before its window closes."""
        if panel not in self._panels:
            self._panels.add(panel)
            if panel.title in self._options:
                set_form_values(panel, self._options[panel.title])
            for _, item in _iterate_controls(panel):
                _connect_change(item, self._schedule_save)
        window = panel.parentWidget()
        while window is not None and not isinstance(window, QMainWindow):
            window = window.parentWidget()
        known = None if self._window is None else self._window()
        if window is not None and known is not window:
            window.installEventFilter(self)
            self._window = ref(window)
            # in the background: there may be hundreds, and each is opened
            find = partial(places.find_abandoned_results, results.get_cache_parent())
            request = JobRequest(find, self._offer_abandoned_results)
            self._search.start("Search for results", request)

    def watch_steps(self, window: "StepsWindow") -> None:
        """Save the state of a workflow window, using its `state` and `show_state`."""
        self._steps_window = ref(window)
        window.page_changed.connect(self._schedule_save)
        if self._steps:
            window.show_state(self._steps)

    def _on_layer_inserted(self, event: Event) -> None:
        left = [i for i in self._removed_layers if i.layer() is not event.value]
        self._removed_layers = left
        event.value.events.connect(self._on_layer_changed)
        self._detect_project(event.value)
        self._schedule_save()

    def _detect_project(self, layer: Layer) -> None:
        """Resume a project opened by napari once all its layers exist."""
        if self.folder is None and io.PROJECT_KEY in layer.metadata:
            self._taking.start()

    def _resume_opened_project(self) -> None:
        """Resume the project to which all open layers belong, if there is one."""
        if self.folder is not None or self._viewer() is None:
            return
        layers = list(self.viewer.layers)
        read = {item.metadata.pop(io.PROJECT_KEY, None) for item in layers}
        if len(read) != 1 or None in read:
            return
        folder = Path(read.pop())
        try:
            project = io.read_project(folder)
        except core.SemsrError:
            return  # which napari has reported already
        names = {item.name for item in layers}
        layers_lost = [item for item in project.layers if item.name not in names]
        self._resume_project(folder, project, tuple(layers_lost))
        self.save()
        sentence = f"{folder.name} is open; changes are saved automatically."
        self.message_ready.emit(sentence)

    def _resume_project(
        self,
        folder: Path,
        project: io.Project,
        layers_lost: tuple[io.ProjectLayer, ...],
    ) -> None:
        """Resume saving to a project whose layers are already open."""
        self._inputs, self._lost_layers = dict(project.inputs), layers_lost
        self._options = {}
        for name, values in project.options.items():  # a former panel is part of one
            title = find_title(name) or name
            self._options[title] = {**self._options.get(title, {}), **values}
        for panel in filter(is_alive, self._panels):
            set_form_values(panel, self._options.get(panel.title, {}))
        self._warn_of_former_panels()
        viewer, state = self.viewer, project.window
        # invalid values are ignored
        with suppress(ValueError, TypeError):
            if state.get("active") in viewer.layers:
                viewer.layers.selection.active = viewer.layers[state["active"]]
        for item, name in _get_view_objects(viewer):
            value = state.get(name)
            if item is viewer.dims and isinstance(value, list):
                value = tuple(value) if len(value) == viewer.dims.ndim else None
            if value is not None:
                with suppress(ValueError, TypeError):
                    setattr(item, name, value)
        if state.get("scale_bar"):
            layers.show_scale_bar(viewer)
        elif "scale_bar" in state:
            host.get_scale_bar(viewer).visible = False
        self._steps = dict(state.get("steps") or {})
        window = self._steps_window()
        if is_alive(window) and self._steps:
            window.show_state(self._steps)
        self._set_project_folder(folder)

    def _warn_of_former_panels(self) -> None:
        """Warn of panels that left; their settings stay in the project."""
        sentences = [
            convert_names_to_panel_labels(sentence)
            for title in self._options
            if (sentence := describe_former_name(f"panel {title}", f"{title} (panel)"))
        ]
        if sentences:
            show_warning(" ".join([*sentences, "The project keeps the settings."]))

    def _on_layer_changed(self, event: Event) -> None:
        """Record a layer change, so that changed pixels are saved again."""
        layer, kind = event.source, event.type
        # napari's only event for an undone stroke, among others
        is_drawn = kind == "set_data" and isinstance(layer, Labels)
        is_undone = is_drawn and isinstance(layer.data, np.ndarray)
        if not is_alive(self) or not (is_undone or kind in _EVENTS):
            return
        if is_undone or kind in results.PIXEL_EVENTS:
            self._changed_layers.add(layer)
            self._filed_layers.discard(layer)
            if layer not in self._edited_layers:
                self._edited_layers.add(layer)
                self.changed.emit()  # it has unsaved changes now
        self._schedule_save()

    def _on_layer_removed(self, event: Event) -> None:
        """Keep a layer removed by the user in the project until the user saves."""
        layer = event.value
        quiet = self._history.is_quiet and not self._history.can_restore(layer)
        passes = _is_temporary_overlay(layer) or layer.metadata.get(io.LIVE_KEY)
        if self.folder is not None and not (quiet or passes):
            removed = _RemovedLayer(event.index, ref(layer), unsaved_layer=layer)
            self._removed_layers.append(removed)
        self._schedule_save()

    def _on_removal_undoable(self, name: str) -> None:
        """Schedule an offer to undo removals, unless the window closes first."""
        self._removed_names.append(name)
        if len(self._removed_names) == 1:
            self._offer.start()

    def _offer_undo(self) -> None:
        names, self._removed_names = self._removed_names, []
        self._history.end_removal()
        text = self._history.undo_text
        if self._is_window_open():

            def undo_removal() -> None:
                if self._history.undo_text == text:  # unless something changed since
                    self._history.undo()

            results.offer_action(f"Removed {_list_names(names)}", "Undo", undo_removal)

    def _is_window_open(self) -> bool:
        """Return whether the viewer's window is visible."""
        window = None if self._window is None else self._window()
        return is_alive(window) and bool(window.isVisible())

    def _schedule_save(self, event: object = None) -> None:
        """Schedule a save if a project is open."""
        if is_alive(self) and self.folder is not None and not self._timer.isActive():
            self._timer.start()

    def _save_changes(self) -> None:
        """Save the project, unless the viewer was closed in the meantime."""
        if self._window is not None and not self._is_window_open():
            return
        if self.folder is None or self._viewer() is None or self.failing:
            return
        self.save()

    # -- saving ----------------------------------------------------------------------

    def create_project(
        self, folder: Path, then: Callable[[], object] = lambda: None
    ) -> None:
        """Save everything to a new project, and keep that project open."""
        if io.is_project(folder) and folder.exists():
            msg = f"{folder} is already a project: open it, or choose another name."
            raise core.WriteError(msg, code="output-exists")
        io.write_project(folder, io.Project())
        self._reset_project()
        self._set_project_folder(folder)
        self.save(then)

    def _set_project_folder(self, folder: Path) -> None:
        self.folder = folder.resolve()
        results.set_project_folder(self.folder)
        finalize(self.viewer, results.set_project_folder, None).atexit = False
        io.add_recent_project(self.folder)

    def save(self, then: Callable[[], object] | None = None) -> None:
        """Save the session: first the pixels, in a thread, then the layer list.

        Removed layers stay in the project: see `exclude_removed_layers`.
        """
        if then is not None:
            self._then.append(then)
        if self.runner.is_busy:
            self._schedule_save()
            return
        removed = filter(None, (item.unsaved_layer for item in self._removed_layers))
        writers = {
            i: self._get_pixel_writer(i) for i in (*self.viewer.layers, *removed)
        }
        left = [(layer, bring) for layer, bring in writers.items() if bring is not None]
        if left:
            make = partial(self._store_all_layers, left)
            self.runner.start("Save project", JobRequest(make))
        else:
            self._write_project()

    def exclude_removed_layers(self) -> None:
        """Exclude removed layers from the next save, as requested by the user."""
        if self.folder is not None:
            self._outdated_paths += [
                self.folder / item.record.store
                for item in self._removed_layers
                if item.record is not None and item.record.store
                if not self._history.can_restore(item.layer())
            ]
        self._removed_layers.clear()

    def list_removed_names(self) -> list[str]:
        """Return the names of removed layers that are still in the project."""
        records = (item.record for item in self._removed_layers)
        return [record.name for record in records if record is not None]

    def _store_all_layers(
        self, left: list[tuple[Layer, _Bring]]
    ) -> core.Job[Callable[[], None]]:
        results = []
        for number, (layer, bring) in enumerate(left):
            yield core.Progress(number, len(left), f"saving {layer.name}")
            results.append((layer, *bring()))
        return partial(self._finish_saving, results)

    def _finish_saving(
        self, results: list[tuple[Layer, LayerSource, dict[str, str]]]
    ) -> None:
        """Record the new pixel locations, and write the layer list."""
        for layer, source, now in results:
            self._kept_sources[layer] = source
            layer.metadata.update(now)
            if io.SAVED_KEY in now:  # written here, replacing earlier pixels
                if layer in self._own:
                    self._outdated_paths.append(self._own[layer])
                self._own[layer] = Path(now[io.SAVED_KEY])
        self._write_project()

    def _write_project(self) -> None:
        """Write the layer list if it has changed."""
        if self.folder is None:
            return
        try:
            project = self._describe_project()
            if project != self._project_written:
                io.write_project(self.folder, project)
                self._project_written = project
                stores_listed = {layer.store for layer in project.layers}
                for path in self._outdated_paths:  # written again since
                    if path.name not in stores_listed:
                        results.remove_created_store(path)
                self._outdated_paths.clear()
            self.failing = False
        except core.SemsrError as error:
            self._report_failure(str(error))
            return
        then, self._then = self._then, []
        for call in then:
            call()
        self.changed.emit()

    def _finish_job(self, show: Callable[[], object]) -> None:
        show()

    def _report_saving_cancelled(self) -> None:
        self._report_failure("Saving was cancelled.")

    def _report_failure(self, text: str) -> None:
        self._then.clear()
        self.failing, self._opening = not self._opening, False
        show_error(text)  # even if no panel shows it
        self.save_failed.emit(text)
        self.changed.emit()

    def _describe_project(self) -> io.Project:
        """Return a description of the open project."""
        known = filter(self._can_save_layer, self.viewer.layers)
        layers = [describe_layer(item, self._kept_sources.get(item)) for item in known]
        self._insert_removed_layers(layers)
        inputs_named = {layer.input for layer in (*layers, *self._lost_layers)}
        for panel in filter(is_alive, self._panels):
            self._options[panel.title] = get_form_values(panel)
        steps = self._steps_window()
        if is_alive(steps):
            self._steps = steps.state()
        viewer, active = self.viewer, self.viewer.layers.selection.active
        view = {name: getattr(it, name) for it, name in _get_view_objects(viewer)}
        view["scale_bar"] = host.get_scale_bar(viewer).visible
        view["active"] = None if active is None else active.name
        return io.Project(
            inputs={k: one for k, one in self._inputs.items() if k in inputs_named},
            layers=(*layers, *self._lost_layers),
            options=self._options,
            window=io.to_json_value(view) | {"steps": self._steps},
        )

    def _insert_removed_layers(self, layers: list[io.ProjectLayer]) -> None:
        """Insert the records of removed layers at their original list indices.

        A file that is opened again, or cropped, replaces its earlier layer.
        """
        read = {(one.kind, one.name, one.input) for one in layers if one.input}
        for item in reversed(list(self._removed_layers)):
            layer = item.unsaved_layer
            if layer is not None and layer not in self._changed_layers:
                if self._can_save_layer(layer):
                    item.record = describe_layer(layer, self._kept_sources.get(layer))
                    item.unsaved_layer = None
                elif not isinstance(layer, Image | Labels):  # its kind is not saved
                    self._removed_layers.remove(item)
            one = item.record
            if one is not None and (one.kind, one.name, one.input) in read:
                self._removed_layers.remove(item)
            elif one is not None:
                layers.insert(item.index, one)

    def _can_save_layer(self, layer: Layer) -> bool:
        """Return whether a layer in its current state can be saved in a project."""
        if isinstance(layer, Vectors | Tracks):
            return bool(np.size(layer.data) <= _MAX_NUMBERS)
        return isinstance(layer, _VERTICES) or layer in self._kept_sources

    def list_excluded_names(self) -> list[str]:
        """Return the names of layers that are not in the project."""
        left = (i for i in self.viewer.layers if not self._can_save_layer(i))
        return [item.name for item in left if not _is_temporary_overlay(item)]

    # -- pixels -----------------------------------------------------------

    def _get_pixel_writer(self, layer: Layer) -> _Bring | None:
        """Return a function that stores a layer's pixels in the project, or None."""
        has_changed = layer in self._changed_layers
        if has_changed:
            self._changed_layers.discard(layer)
            self._kept_sources.pop(layer, None)
        is_passing = layer.metadata.get(io.LIVE_KEY) or _is_temporary_overlay(layer)
        if is_passing or layer in self._kept_sources:
            return None
        folder, frames = self.folder or Path(), layer.metadata.get(io.FOLDER_KEY)
        is_image = isinstance(layer, Image | Labels)
        read = layer.metadata.get(io.READ_KEY, {}) if is_image else {"frames": True}
        if frames and "frames" in read and Path(frames).exists():
            return partial(self._record_input, folder, Path(frames), read)
        if not isinstance(layer, Image | Labels):
            return None
        path = Path(layer.metadata.get(io.STORE_KEY) or "")
        # its store has the result at full strength
        own = io.STRENGTH_KEY in layer.metadata or layer in self._own
        is_painted = has_changed or path.parent != folder
        is_painted = is_painted and isinstance(layer, Labels)
        if own or is_painted or not path.exists():
            return self._create_pixel_writer(layer)
        if path.suffix == _ARRAY and path.parent == folder:
            self._kept_sources[layer] = LayerSource(path.name)
            return None
        return self._get_stored_pixel_writer(layer, folder, path)

    def _get_stored_pixel_writer(
        self, layer: Image, folder: Path, path: Path
    ) -> _Bring:
        """Return a function that adds pixels stored elsewhere to the project."""
        temporary = places.is_temporary(str(path))
        if path.suffix == _ARRAY and (temporary or io.is_project(path.parent)):

            def move_store() -> tuple[LayerSource, dict[str, str]]:
                place = self._move_into_project(path)
                return LayerSource(place.name), {io.STORE_KEY: str(place)}

            return move_store
        if io.READ_KEY in layer.metadata and path.is_absolute() and not temporary:
            read = layer.metadata[io.READ_KEY]
            return partial(self._record_input, folder, path, read)
        return self._create_pixel_writer(layer)

    def _record_input(
        self, folder: Path, path: Path, read: dict[str, object]
    ) -> tuple[LayerSource, dict[str, str]]:
        """Record the input files that pixels are read from, such as frames."""
        is_sample = places.is_temporary(str(path))
        place = self._move_into_project(path) if is_sample else path
        known, frames = self._inputs, "frames" in read
        digest, noted = io.record_input(folder, place, known, frames=frames)
        self._inputs[digest] = noted
        now = {} if place == path else {io.FOLDER_KEY: str(place)}
        return LayerSource(input=digest, read=read), now

    def _move_into_project(self, path: Path) -> Path:
        """Move an external store into the project, once for all layers that use it."""
        if path not in self._adopted_paths:
            name = path.name.removesuffix(_STORE)
            suffix = path.name.removeprefix(name)
            place = results.find_free_path(self.folder or Path(), name, suffix)
            io.copy_with_links(path, place)
            self._adopted_paths[path] = place
        return self._adopted_paths[path]

    def _create_pixel_writer(self, layer: Image | Labels) -> _Bring:
        """Return a function that writes a layer's pixels to a store in the project."""
        layers.disable_cache(layer)
        folder, name = self.folder or Path(), layer.name
        grey: core.Micrograph | None = None
        if isinstance(layer, Image) and layer.ndim == 2 and not layer.rgb:
            # without grey values, such as a mask, the pixels are saved as an array
            with suppress(core.SemsrError):
                grey = layers.micrograph_from_layer(layer)
        data = layers.get_finest_level(layer)
        lazy = hasattr(data, "dask")
        data = data if lazy else np.array(data)  # as it is now
        own = self._own.get(layer) or Path(layer.metadata.get(io.STORE_KEY) or "")
        is_in_project = isinstance(layer, Labels) and own.parent == folder and not lazy

        def write_pixels() -> tuple[LayerSource, dict[str, str]]:
            with suppress(core.SemsrError):  # a damaged array is written again
                if is_in_project and np.array_equal(io.read_array(own), data):
                    return LayerSource(own.name), {io.SAVED_KEY: str(own)}
            suffix = _ARRAY if grey is None else _STORE
            place = results.find_free_path(folder, name, suffix)
            if grey is None:
                io.write_array(data, place)
            else:
                io.write(grey.replace(data=data, look=grey.look), place)
            return LayerSource(place.name), {io.SAVED_KEY: str(place)}

        return write_pixels

    # -- opening ---------------------------------------------------------------------

    def open_project(self, path: Path) -> bool:
        """Open a project, replacing all layers; return False if a job is running.

        Recent changes of the open project are saved first.
        """
        if self.runner.is_busy:
            return False

        def load_project() -> core.Job[Callable[[], None]]:
            project_opened = yield from io.open_project(path)
            return partial(self._show_project, project_opened)

        def start_opening() -> None:
            self._opening = True
            self.runner.start("Open project", JobRequest(load_project))

        if self.folder is None or self.failing:
            start_opening()
        else:
            self.save(start_opening)
        return True

    def _show_project(self, project_opened: io.OpenedProject) -> None:
        """Show the layers of a project as they were saved."""
        viewer = self.viewer
        self._opening = False
        layers_made: list[tuple[io.ProjectLayer, Layer]] = []
        layers_lost = list(project_opened.missing)
        sentences = list(project_opened.messages)
        for record, (data, keywords, kind) in project_opened.layers:
            try:
                layers_made.append((record, Layer.create(data, keywords, kind)))
            except Exception as error:  # noqa: BLE001 - of napari, or what it is built on
                layers_lost.append(record)
                why = " ".join(str(error).split())
                sentences.append(
                    f"Layer {record.name!r} was skipped because its description in "
                    f"project.json is invalid ({why}); copy the project again."
                )
        self.folder = None  # the project that was open must not lose its layers
        self._reset_project()
        with self._history.make_removals_final():
            viewer.layers.clear()
        self._history.clear()
        folder, project = project_opened.folder, project_opened.project
        for record, layer in layers_made:
            layers.disable_cache(layer)
            viewer.add_layer(layer)
            layers.show_colour_bar(layer)
            if record.store or record.input:
                source = LayerSource(record.store, record.input, record.read)
                self._kept_sources[layer] = source
            if record.store and record.kind == "labels":  # which can be painted on
                self._own[layer] = folder / record.store
        self._resume_project(folder, project, tuple(layers_lost))
        count = len(layers_made)
        sentence = f"Opened {folder.name} with {count} layer{'s'[: count != 1]}."
        self.message_ready.emit(" ".join([sentence, *sentences]))
        self.changed.emit()

    # -- crashed sessions ------------------------------------------------------------

    def _offer_abandoned_results(self, found: dict[Path, list[Path]]) -> None:
        """Offer complete results of sessions that have crashed."""
        window = None if self._window is None else self._window()
        paths = chain(*found.values())
        names = [i.name.removesuffix(i.suffix).removesuffix(".ome") for i in paths]
        if names and is_alive(window):
            self._found = found
            self.ask_about_abandoned(window, names, self._handle_abandoned_results)

    def _handle_abandoned_results(self, button: QAbstractButton) -> None:
        """Open or discard results of crashed sessions."""
        answer = button.text()
        if answer == _DISCARD:
            for folder in self._found:
                places.remove_temporary_folder(folder)
        elif answer == _OPEN and is_alive(self) and self._viewer() is not None:
            self._opening = True  # a failure is none of saving
            make = partial(_read_abandoned_results, self._found, self)
            request = JobRequest(make, queue="open results")
            self.runner.start("Open results", request)

    def show_recovered_layers(self, layers_recovered: list[Layer]) -> None:
        """Add layers of results of a crashed session, which are not saved yet."""
        self._opening = False
        for layer in layers_recovered:
            layer.name = layers.find_free_name(self.viewer, layer.name)
            self.viewer.add_layer(layer)
            layers.show_colour_bar(layer)
        self.changed.emit()

    # -- closing ---------------------------------------------------------------------

    def eventFilter(self, source: QObject | None, event: QEvent | None) -> bool:  # noqa: N802
        """Ask before closing a window with unsaved content."""
        if event is not None and event.type() == QEvent.Type.Close:
            window: Any = source
            # a script may empty the list or hide the canvas
            centre = window.centralWidget()
            inside = [] if centre is None else centre.findChildren(QWidget)
            by_user = event.spontaneous() or any(item.isVisible() for item in inside)
            if by_user and not self._can_close_window(window):
                event.ignore()
                return True
        return super().eventFilter(source, event)

    def destroy_panels(self) -> None:
        """Destroy the panels, and stop asking before the window is closed."""
        window = None if self._window is None else self._window()
        if is_alive(window):
            window.removeEventFilter(self)
        for panel in filter(is_alive, list(self._panels)):
            panel.deleteLater()
            QCoreApplication.sendPostedEvents(panel, QEvent.Type.DeferredDelete)

    def _can_close_window(self, window: QMainWindow) -> bool:
        names = self.list_unsaved_names()
        # in a project, Enhance can be resumed; others start again
        if self.folder is None:
            panels = filter(is_alive, self._panels)
            running = sorted(one.title for one in panels if one.runner.is_busy)
            names += [f"the unfinished result of {title}" for title in running]
        elif self.failing:
            names.append(f"the latest changes to {self.folder.name}")
        if not names:
            if self.folder is not None:
                self._timer.stop()
                self.save()
                # writing pixels: it closes once they are written
                if self.runner.is_busy:
                    show_info(f"Saving {self.folder.name}; napari closes then.")
                    self._then.append(window.close)
                    return False
            return not self.failing
        answer = self.ask(window, names)
        if answer == "save":
            self._save_and_close(window)
        elif answer == "discard":  # nothing is added while napari asks as well
            for panel in filter(is_alive, self._panels):
                panel.controls.runner.cancel()
        return answer == "discard"

    def _save_and_close(self, window: QMainWindow) -> None:
        if self.folder is not None:
            self.save(window.close)
        elif folder := ask_new_project_path(window):
            try:
                self.create_project(folder, window.close)
            except core.SemsrError as error:
                self._report_failure(str(error))


def _read_abandoned_results(
    found: dict[Path, list[Path]], session: Session
) -> core.Job[Callable[[], None]]:
    """Move results of crashed sessions to this one, and read them as layers."""
    layers = []
    for folder, paths in found.items():
        place = results.get_cache_folder() / folder.name
        try:
            folder.rename(place)
        except FileNotFoundError:  # another session has opened or discarded them
            continue
        for path in paths:
            yield core.Progress(0, 0, f"opening {path.name}")
            moved = place / path.relative_to(folder)
            read_layers = io.get_reader(str(moved))
            for data, about, kind in read_layers(str(moved)) if read_layers else ():
                layer = Layer.create(data, about, kind)
                layer.metadata[io.STORE_KEY] = str(moved.resolve())
                layer.metadata[history.MADE_KEY] = _RECOVERED
                layers.append(layer)
    return partial(session.show_recovered_layers, layers)


# -- layers, forms and windows as JSON ----------------------------------------------


def describe_layer(layer: Layer, place: LayerSource | None) -> io.ProjectLayer:
    """Describe a layer and its display settings."""
    _, attributes, kind = layer.as_layer_data_tuple()
    names = (*_SAVED_NAMES[""], *_SAVED_NAMES[kind], "metadata", "features")
    attributes_kept = {name: attributes[name] for name in names if name in attributes}
    data = None
    if isinstance(layer, Image):
        from napari.utils.colormaps import ALL_COLORMAPS  # others end with the session

        colormap = layer.colormap
        is_known = colormap.name in ALL_COLORMAPS
        look = colormap.name if is_known else colormap.model_dump()
        attributes_kept["colormap"] = look
    if isinstance(layer, Labels) and isinstance(layer.colormap, DirectLabelColormap):
        attributes_kept["colormap"] = dict(layer.colormap.color_dict)
    if isinstance(layer, _VERTICES):
        data = [np.asarray(item).tolist() for item in layer.data]
    if isinstance(layer, Shapes | Points) and not data:
        for name in ("shape_type", "z_index", "symbol", "size", "shown", "text"):
            attributes_kept.pop(name, None)
        for name in ("edge_color", "face_color", "edge_width", "border_color"):
            if name in attributes_kept:
                attributes_kept[name] = getattr(layer, f"current_{name}")
        attributes_kept.pop("border_width", None)
    return io.ProjectLayer(
        kind=kind,
        name=layer.name,
        attributes=io.to_json_attributes(attributes_kept),
        data=data,
        **(place or LayerSource())._asdict(),
    )


def _get_view_objects(viewer: ViewerModel) -> list[tuple[Camera | Dims, str]]:
    """Return the objects and attributes that define the view, in order of setting."""
    dims = [(viewer.dims, name) for name in ("ndisplay", "order", "point")]
    return dims + [(host.get_camera(viewer), n) for n in ("angles", "center", "zoom")]


def _iterate_controls(panel: object) -> Iterator[tuple[str, Any]]:
    """Yield the forms and single controls of a panel with their names.

    They are attributes of it, or of a part with `has_settings`, or named in its
    `settings`.
    """
    for name, item in {**vars(panel), **getattr(panel, "settings", {})}.items():
        if name.startswith("_"):
            continue
        if isinstance(item, OptionsForm | ValueWidget):
            yield name, item
        elif getattr(item, "has_settings", False):
            yield from ((f"{name}.{own}", one) for own, one in _iterate_controls(item))


def _connect_change(item: Any, call: Callable[..., None]) -> None:
    """Call a function when a form or control changes."""
    if isinstance(item, OptionsForm):
        for name in item.option_names:
            item.on_change(name, call)
        return
    item.changed.connect(call)
    if isinstance(item.native, QComboBox):  # magicgui does not report None
        item.native.currentIndexChanged.connect(call)


def get_form_values(panel: object) -> dict[str, object]:
    """Return the values of a panel, with layers represented by their names."""
    values = {}
    for name, item in _iterate_controls(panel):
        value = item.saved_values if isinstance(item, OptionsForm) else item.value
        if isinstance(value, Layer):
            value = value.name
        if not isinstance(value, list):  # of layers
            values[name] = io.to_json_value(value)
    return values


def set_form_values(panel: "VerbPanel", values: dict[str, Any]) -> None:
    """Restore the form values of a panel.

    Instead of invalid values, the form shows those that are used.
    """
    layers = {item.name: item for item in panel.viewer.layers}
    for name, item in list(_iterate_controls(panel)):
        value: Any = values.get(name)
        if isinstance(item, OptionsForm):
            for key in filter((value or {}).__contains__, item.saved_values):
                with suppress(ValueError, TypeError, LookupError):
                    item.set_values(**{key: core.update_value_name(key, value[key])})
        elif name in values:
            with suppress(ValueError, TypeError):
                item.value = layers.get(value, value) if value else value


_sessions: WeakKeyDictionary[ViewerModel, Session] = WeakKeyDictionary()


def get_session(viewer: ViewerModel) -> Session:
    """Return the session of a viewer."""
    viewer = history.unwrap_viewer(viewer)
    if viewer not in _sessions:
        _sessions[viewer] = Session(viewer)
    return _sessions[viewer]


@atexit.register
def _destroy_panels() -> None:
    """Destroy panels of windows still open when Python exits, before PyQt does.

    PyQt iterates over a list of objects to destroy, which Python methods called by Qt
    events may change: PyQt may crash, and controls of panels have a thousand such
    methods.
    """
    for session in list(_sessions.values()):
        session.destroy_panels()
