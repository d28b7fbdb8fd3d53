"""Save: the project, single layers, and undo."""

from pathlib import Path

from magicgui.widgets import ComboBox
from napari.layers import Image, Layer
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QListWidget, QListWidgetItem

from napari_semsr.core import OptionError
from napari_semsr.io import list_recent_projects
from napari_semsr.jobs import REPLAY, ReplayReport
from napari_semsr.widgets import base, layers

_LIST_HEIGHT = 120
_NO_PROJECT = (
    "No project is open. A project is a folder NAME.semsr that contains every layer, "
    "its display settings and the panel settings; changes are saved automatically."
)
_NEW = "Save all into a project…"


class SavePanel(base.VerbPanel):
    """Panel that saves layers and the project, and restores removed layers."""

    help_place = "projects.md"
    title, run_label = "Save", _NEW

    def build_form(self) -> None:
        """Build the form."""
        self.controls.runners.append(self.session.runner)
        self.run_button.setToolTip(
            "Save everything in a folder NAME.semsr. From then on, results are written "
            "there, and nothing is lost when napari is closed."
        )
        self.about = base.RichTextLabel(_NO_PROJECT)
        self.recent = ComboBox(
            name="recent",
            label="Recent",
            tooltip="Open a recent project.",
            choices=_create_recent_choices,
        )
        self.open_button = base.create_button(
            "Open project…",
            self.open_project,
            "Open a folder NAME.semsr, replacing the open layers.",
        )
        self.new_button = base.create_button(
            "Save as another project…",
            self.new_project,
            "Save everything to another folder NAME.semsr, and continue with that "
            "project.",
        )
        self.made_list = QListWidget()
        self.made_list.setToolTip("Click an image to select it.")
        self.made_list.setFixedHeight(_LIST_HEIGHT)
        base.elide_items(self.made_list)
        self.layer_button = base.create_button(
            "Save layer…",
            self.save_layer,
            "Save the selected layer in a format of your choice.",
        )
        self.replay_button = base.create_button(
            "Reproduce and compare",
            self.replay,
            "Recompute the saved file of the selected layer from its history, and "
            "compare the two files; nothing is changed. Only for saved layers that "
            "were computed here.",
        )
        self.undo_button = base.create_button(
            "Undo", self.undo, "Restore the most recently removed layers."
        )
        self._build_groups()
        self._connect()
        self._show_project()
        self._update_undo_button()

    def _build_groups(self) -> None:
        self.add_group(
            "Project",
            self.about,
            base.Form(self.recent, self.open_button, self.new_button),
        )
        self.made_group = self.add_group(
            "Images",
            self.made_list,
            self.layer_button,
            self.replay_button,
        )
        self.add_group("Removed layers", self.undo_button)

    def _connect(self) -> None:
        self.recent.changed.connect(self._open_recent_project)
        self.made_list.currentItemChanged.connect(self._select_item_layer)
        self.history.changed.connect(self._update_undo_button)
        self.session.changed.connect(self._show_project)
        self.session.message_ready.connect(self.messages.notify)
        self.session.save_failed.connect(self._show_failure)
        self.session.runner.busy_changed.connect(self._show_saving_state)
        self.session.runner.stepped.connect(self.controls.show_step)
        self.result_layers.layers_changed.connect(self._update_result_list)
        self.viewer.layers.selection.events.active.connect(self._update_result_list)

    # -- project ---------------------------------------------------------------

    def _show_saving_state(self, busy: bool) -> None:
        """Show that a project is being saved or opened."""
        self.controls.update_buttons()
        if busy:
            self.controls.show_busy(busy)
        else:
            self.messages.show_status("")

    def run(self) -> None:
        """Save everything to the open project, or to a new one."""
        if self.session.folder is None:
            self.new_project()
        else:
            self.session.exclude_removed_layers()
            self.session.save(self._report_saved_project)

    def new_project(self) -> None:
        """Ask for the path of a new project, and save everything into it."""
        with self.messages.show_errors():
            folder = base.ask_new_project_path(self)
            if folder is not None:
                self.session.create_project(folder, self._report_saved_project)

    def _show_failure(self, text: str) -> None:
        """Show a failure in the panel, in addition to napari's notification."""
        self.status.setText(text, "problem")

    def _report_saved_project(self) -> None:
        folder, left = self.session.folder, self.session.list_excluded_names()
        sentence = "" if folder is None else f"Everything is saved in {folder.name}."
        if left:
            sentence += (
                f" Not saved: {', '.join(left)}; a layer is saved once it is "
                "finished, unless projects do not support its kind."
            )
        self.messages.notify(sentence)
        self.ran.emit()

    def open_project(self) -> None:
        """Ask for a project, and open it, replacing the open layers."""
        path_chosen = QFileDialog.getExistingDirectory(
            self, "Open project NAME.semsr", str(base.get_start_folder())
        )
        if path_chosen:
            self._open_project_path(Path(path_chosen))

    def _open_project_path(self, path: Path) -> None:
        """Open a project, unless the user chooses to keep unsaved content."""
        names = self.session.list_unsaved_names()
        if names:
            answer = self.session.ask(self, names)
            if answer == "save":
                self.run()
            if answer != "discard":
                return
        if not self.session.open_project(path):
            self.messages.show_status(
                "A project is being saved; try again when saving has finished."
            )

    def _open_recent_project(self, path: Path | None) -> None:
        if path is not None:
            self._open_project_path(path)

    def _show_project(self) -> None:
        """Show the open project, and update the list of recent projects."""
        if not base.is_alive(self):
            return
        folder = self.session.folder
        self.controls.run_label = label = _NEW if folder is None else "Save project now"
        self.controls.update_buttons()
        sentence = (
            (f"{folder} is open; changes are saved automatically.")
            if folder
            else _NO_PROJECT
        )
        if folder and self.session.failing:
            sentence = f"{folder} is open, but its latest changes are not saved."
        elif names_removed := self.session.list_removed_names():
            sentence += (
                f" Removed layers stay in it until you press {label}: "
                f"{', '.join(names_removed)}."
            )
        self.about.setText(sentence)
        self.new_button.setVisible(folder is not None)
        with self.recent.changed.blocked():
            self.recent.native.clear()  # else new ones are last
            self.recent.reset_choices()
            self.recent.value = None
        self._update_result_list()

    # -- layers ----------------------------------------------------------------

    def _update_result_list(self, event: object = None) -> None:
        """Update the list of results and the note on unsaved content."""
        if not base.is_alive(self):
            return
        images_made = self.session.list_created_images()
        names = self.session.list_unsaved_names()
        self.messages.unsaved_label.setText(base.describe_unsaved_content(names))
        layer_chosen = self.chosen_layer()
        self.made_list.blockSignals(True)
        self.made_list.clear()
        for layer in reversed(images_made):
            state = "not saved" if layer.name in names else "saved"
            item = QListWidgetItem(f"{layer.name}  \N{EN DASH}  {state}")
            item.setData(Qt.ItemDataRole.UserRole, layer.name)
            self.made_list.addItem(item)
            if layer == layer_chosen:
                self.made_list.setCurrentItem(item)
        self.made_list.blockSignals(False)
        self.made_group.setVisible(bool(images_made))
        self.layer_button.setEnabled(isinstance(layer_chosen, Image))
        self.replay_button.setEnabled(
            layer_chosen is not None
            and layers.get_file_path(layer_chosen) is not None
            and layers.get_provenance(layer_chosen) is not None
        )

    def chosen_layer(self) -> Layer | None:
        """Return the active image layer, or otherwise the latest result."""
        active = self.viewer.layers.selection.active
        images_made = self.session.list_created_images()
        return (
            active if isinstance(active, Image) or not images_made else images_made[-1]
        )

    def _select_item_layer(
        self, item: QListWidgetItem | None, _: object = None
    ) -> None:
        name = None if item is None else item.data(Qt.ItemDataRole.UserRole)
        if name in self.viewer.layers:
            self.viewer.layers.selection.active = self.viewer.layers[name]

    def save_layer(self) -> None:
        """Ask for a path, and save the selected layer there."""
        layer = self.chosen_layer()
        self.result_layers.save_as(layer)

    def replay(self) -> None:
        """Reproduce the file of the selected layer, and compare the two files."""
        with self.messages.show_errors():
            layer = self.chosen_layer()
            path = None if layer is None else layers.get_file_path(layer)
            if path is None:
                msg = "Only a saved layer can be reproduced; save it first."
                raise OptionError(msg, code="layer-not-saved")
            title = "Reproduce"
            self.messages.clear_warnings()
            self.controls.start(
                lambda: REPLAY.job(path), self._show_replay_report, title
            )

    def get_labels(self) -> base.Labels:
        """Return the panel labels of the options of a layer's job."""
        layer = self.chosen_layer()
        before = None if layer is None else layers.get_last_job_name(layer)
        return {
            **base.get_command_labels([before] if before else []),
            **super().get_labels(),
        }

    def _show_replay_report(self, report: ReplayReport) -> None:
        """Show whether the reproduced file is identical to the saved one."""
        name = Path(report.output).name
        same = "identical" if report.identical else "not identical"
        sentence = f"The reproduced {name} is {same} to the saved file ({report.job})."
        self.messages.notify(
            " ".join([sentence, *(item.said for item in report.differs)])
        )

    # -- removed layers --------------------------------------------------------

    def undo(self) -> None:
        """Restore the most recently removed layers."""
        with self.messages.show_errors():
            self.messages.show_status(f"Undone: {self.history.undo()}.")

    def _update_undo_button(self) -> None:
        if not base.is_alive(self):
            return
        text = self.history.undo_text
        self.undo_button.setEnabled(bool(text))
        self.undo_button.setText(f"Undo {text}".strip())


def _create_recent_choices(_: object) -> list[tuple[str, Path | None]]:
    """Return the recent projects, preceded by an empty entry."""
    return [
        ("choose one", None),
        *((path.name, path) for path in list_recent_projects()),
    ]
