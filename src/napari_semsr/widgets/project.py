"""Save: the project, single layers, and undo."""

from functools import partial
from pathlib import Path
from typing import Any

from magicgui.widgets import ComboBox
from napari.layers import Image, Layer

from napari_semsr.core import OptionError
from napari_semsr.io import list_recent_projects
from napari_semsr.jobs import REPLAY, ReplayReport
from napari_semsr.widgets import base, layers

_NO_PROJECT = (
    "No project is open. A project is a folder NAME.semsr that contains every layer, "
    "its display settings and the panel settings; changes are saved automatically."
)
_NEW = "Save all into a project…"


def _list_projects(_: object) -> list[tuple[str, Path | None]]:
    return [("choose one", None), *((p.name, p) for p in list_recent_projects())]


class SavePanel(base.VerbPanel):
    """Panel that saves layers and the project, and restores removed layers."""

    help_place = "projects.md"
    title, run_label = "Save", _NEW

    def build_form(self) -> None:
        """Build the form."""
        self.run_button.setToolTip(
            "Save everything in a folder NAME.semsr. From then on, results are written "
            "there, and nothing is lost when napari is closed."
        )
        self.about = base.RichTextLabel(_NO_PROJECT)
        about: Any = {"label": "Recent", "tooltip": "Open a recent project."}
        self.recent = ComboBox(name="recent", choices=_list_projects, **about)
        create = base.create_button
        tip = "Open a folder NAME.semsr, replacing the open layers."
        self.open_button = create("Open project…", self.open_project, tip)
        tip = "Save everything to another folder NAME.semsr, and continue with that."
        self.new_button = create("Save as another project…", self.new_project, tip)
        tip = "Save the selected layer in a format of your choice."
        self.layer_button = create("Save layer…", self._save_layer, tip)
        tip = (
            "Recompute the saved file of the selected layer from its history, and "
            "compare the two files. Only for saved layers that were computed here."
        )
        self.replay_button = create("Reproduce", self.replay, tip)
        tip = "Restore the most recently removed layers."
        self.undo_button = create("Undo", self.undo, tip)
        project = base.Form(self.recent, self.open_button, self.new_button)
        self.add_group("Project", self.about, project)
        layer_buttons = self.layer_button, self.replay_button, self.undo_button
        self.add_group("Layers", *layer_buttons)
        self.messages.translate = partial(
            base.convert_names_to_panel_labels, read=self._get_job_labels
        )
        self.recent.changed.connect(self._open_recent_project)
        self.history.changed.connect(self._update_undo_button)
        session = self.session
        session.changed.connect(self._show_project)
        session.message_ready.connect(self.messages.notify)
        session.save_failed.connect(self._show_failure)
        session.runner.busy_changed.connect(self._show_saving_state)
        session.runner.stepped.connect(self.controls.show_step)
        self.controls.runners.append(session.runner)
        self.result_layers.layers_changed.connect(self._update_layer_buttons)
        self.viewer.layers.selection.events.active.connect(self._update_layer_buttons)
        self._show_project()
        self._update_undo_button()

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
        title = "Open project NAME.semsr"
        self._open_recent_project(base.ask_existing_folder(self, title))

    def _open_recent_project(self, path: Path | None) -> None:
        """Open a project, unless the user chooses to keep unsaved content."""
        names = [] if path is None else self.session.list_unsaved_names()
        answer = self.session.ask(self, names) if names else "discard"
        if answer == "save":
            self.run()
        if path is None or answer != "discard":
            return
        if not self.session.open_project(path):
            text = "A project is being saved; try again when saving has finished."
            self.messages.show_status(text)

    def _show_project(self) -> None:
        """Show the open project, and update the list of recent projects."""
        if not base.is_alive(self):
            return
        folder, names_removed = self.session.folder, self.session.list_removed_names()
        self.controls.run_label = label = _NEW if folder is None else "Save project now"
        self.controls.update_buttons()
        sentence = _NO_PROJECT
        if folder and self.session.failing:
            sentence = f"{folder} is open, but its latest changes are not saved."
        elif folder:
            sentence = f"{folder} is open; changes are saved automatically."
        if names_removed and not (folder and self.session.failing):
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
        self._update_layer_buttons()

    # -- layers ----------------------------------------------------------------

    def _update_layer_buttons(self, _: object = None) -> None:
        """Update what can be done with the selected layer, and what is not saved."""
        if not base.is_alive(self):
            return
        names, layer = self.session.list_unsaved_names(), self.chosen_layer()
        self.messages.unsaved_label.setText(base.describe_unsaved_content(names))
        self.layer_button.setEnabled(isinstance(layer, Image))
        self.replay_button.setEnabled(
            layer is not None
            and layers.get_file_path(layer) is not None
            and layers.get_provenance(layer) is not None
        )

    def _save_layer(self) -> None:
        self.result_layers.save_as(self.chosen_layer())

    def chosen_layer(self) -> Layer | None:
        """Return the active image layer, or otherwise the latest result."""
        active = self.viewer.layers.selection.active
        made = self.session.list_created_images()
        return active if isinstance(active, Image) or not made else made[-1]

    def replay(self) -> None:
        """Reproduce the file of the selected layer, and compare the two files."""
        with self.messages.show_errors():
            layer = self.chosen_layer()
            path = None if layer is None else layers.get_file_path(layer)
            if path is None:
                msg = "Only a saved layer can be reproduced; save it first."
                raise OptionError(msg, code="layer-not-saved")
            self.messages.clear_warnings()
            make, show = partial(REPLAY.job, path), self._show_replay_report
            self.controls.start(make, show, "Reproduce")

    def _get_job_labels(self) -> base.Labels:
        """Return the panel labels of the options of a layer's job."""
        layer = self.chosen_layer()
        before = None if layer is None else layers.get_last_job_name(layer)
        labels = base.get_command_labels([before] if before else [])
        return {**labels, **self.get_labels()}

    def _show_replay_report(self, report: ReplayReport) -> None:
        """Show whether the reproduced file is identical to the saved one."""
        name = Path(report.output).name
        same = "identical" if report.identical else "not identical"
        sentence = f"The reproduced {name} is {same} to the saved file ({report.job})."
        differences = (item.said for item in report.differs)
        self.messages.notify(" ".join([sentence, *differences]))

    # -- removed layers --------------------------------------------------------

    def undo(self) -> None:
        """Restore the most recently removed layers."""
        with self.messages.show_errors():
            self.messages.show_status(f"Undone: {self.history.undo()}.")

    def _update_undo_button(self) -> None:
        if base.is_alive(self):
            text = self.history.undo_text
            self.undo_button.setEnabled(bool(text))
            self.undo_button.setText(f"Undo {text}".strip())
