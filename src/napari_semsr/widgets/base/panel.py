"""Panels: a form, the job that it requests, and what is shown of the result."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox, FileEdit
from napari.layers import Layer
from napari.utils.events import Event
from napari.viewer import Viewer
from qtpy.QtCore import QEvent, Signal as QtSignal  # type: ignore[attr-defined]
from qtpy.QtGui import QHideEvent, QShowEvent
from qtpy.QtWidgets import (
    QGroupBox,
    QHBoxLayout,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_semsr import core, jobs
from napari_semsr.widgets.base import folding
from napari_semsr.widgets.base.controls import (
    RunControls,
    bind_key,
)
from napari_semsr.widgets.base.docking import tabify_widget
from napari_semsr.widgets.base.findings import Findings
from napari_semsr.widgets.base.form import (
    Form,
    Labels,
    convert_names_to_panel_labels,
    create_button,
    end_typing,
    read_form_state,
)
from napari_semsr.widgets.base.history import get_removed_layers
from napari_semsr.widgets.base.input_layers import InputLayers, Planes
from napari_semsr.widgets.base.manual import open_manual
from napari_semsr.widgets.base.messages import Messages
from napari_semsr.widgets.base.result_layers import ResultLayers
from napari_semsr.widgets.base.results import get_entered_store
from napari_semsr.widgets.base.results_group import (
    GROUP_MARGINS,
    TABLE_FILTERS,
    ResultsGroup,
    SharingBar,
)
from napari_semsr.widgets.base.runner import (
    Begin,
    JobRequest,
    JobRunner,
    check_path_unused,
    destroy_widget_after_jobs,
    is_alive,
)
from napari_semsr.widgets.base.saving import ask_existing_folder, ask_output_file
from napari_semsr.widgets.base.session import get_session, set_form_values
from napari_semsr.widgets.layers import is_incomplete

if TYPE_CHECKING:
    from napari_semsr.widgets.base.plots import PlotCanvas

HELP, HIDE, FLIP = "F1", "Ctrl+Shift+H", "Ctrl+Shift+B"
_MINIMUM_WIDTH = 320  # of a panel; chosen
_GAP_PX = 6  # at the right of a form

_in_view: set[QWidget] = set()
"""Panels that are shown without a dock.

A script may keep no reference to one. Python could then destroy it during a garbage
collection while Qt paints it, and Qt crashes.
"""


class VerbPanel(QWidget):
    """Panel of a command, put together from its parts.

    They are the layers that it reads (`input_layers`), a form, the run controls, the
    results, and the layers that it makes (`result_layers`). A panel builds its form in
    `build_form`; `create_request` reads it and returns what Run starts.
    """

    title = ""
    run_label = "Measure"
    verb: jobs.Verb[Any, Any]
    plots = False
    """Whether a result is plotted."""
    help_place = "panels.md"  # page and heading of the manual
    applies_to_folder = False
    """Whether the panel offers to process all images of a folder."""
    queue: str | None = "computing"
    """Queue for jobs started by Run; jobs in the same queue run one after another."""
    after_cancel = "no layer was added"
    """What a cancelled job leaves."""
    output: FileEdit | None = None  # output path of an image that takes long to make
    boxes: Mapping[str, ComboBox] = MappingProxyType({})
    """Lists of the layers that the command reads, by its names for them."""

    ran = QtSignal()
    """Emitted when the result of Run is shown."""
    closed = QtSignal()
    """Emitted when the panel is removed from its dock."""

    results: ResultsGroup  # of panels that show results

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self.viewer, title = viewer, self.title
        self.history, self.session = get_removed_layers(viewer), get_session(viewer)
        self.setMinimumWidth(_MINIMUM_WIDTH)
        self.content, self.scroll_area = QWidget(), QScrollArea()
        self.unread: list[QWidget] = []  # parts of the form without effect on a run
        self._read_form = partial(read_form_state, self.content, self.unread)
        messages = Messages(self, viewer, title, self.translate, self._read_form)
        inputs = InputLayers(
            self,
            viewer,
            messages,
            self.accepts_layer,
            lambda: not (self.is_busy or self.result_layers.is_adding),
        )
        layers = ResultLayers(self, viewer, messages, inputs.read)
        controls = RunControls(
            self,
            messages,
            self.run_label,
            self.run,
            queue=self.queue,
            plots=self.plots,
            add_in_parts=layers.add_in_parts,
            reads=inputs.planes_read,
        )
        self.sharing = SharingBar(
            self,
            viewer,
            messages,
            controls,
            layers,
            self.findings,
            self.save_figure,
        )
        self.messages, self.controls = messages, controls
        self.input_layers, self.result_layers = inputs, layers
        self.status, self.warning_label = messages.status, messages.warning_label
        self.runner, self.progress_bar = controls.runner, controls.progress_bar
        self.run_button = controls.run_button
        self.cancel_button = controls.cancel_button
        self.save_button = layers.save_button
        self._build_layout()
        controls.add_runner(layers.saver)
        controls.ran.connect(self.ran)
        self.runner.cancelled.connect(self.report_cancelled)
        layers.layers_added.connect(inputs.ignore_active_layer)
        self.session.changed.connect(layers.show_unsaved)
        bind_key(self, HELP, self.show_help)
        bind_key(self, HIDE, layers.toggle, anywhere=True)
        bind_key(self, FLIP, layers.toggle_input, anywhere=True)
        events = viewer.layers.events
        for name in ("inserted", "removed", "reordered", "renamed"):
            getattr(events, name).connect(self._on_layers_changed)
        self.build_form()

    def _build_layout(self) -> None:
        outer = QVBoxLayout(self)
        outer.setContentsMargins(6, 6, 6, 6)
        self.body = QVBoxLayout(self.content)
        self._reserve_scroll_bar(0, 0)
        for button in self.input_layers.offers:
            self.body.addWidget(button)
        self.body.addStretch(1)
        folding.set_up_scroll_area(self.scroll_area, self.content)
        bar = self.scroll_area.verticalScrollBar()
        bar.rangeChanged.connect(self._reserve_scroll_bar)  # type: ignore[union-attr]
        tooltip = (
            f"Open the manual page of this panel ({HELP}).\n{HIDE} hides or shows the "
            f"results, and {FLIP} shows their input."
        )
        self.help_button = create_button("?", self.show_help, tooltip)
        fixed_policy = QSizePolicy.Policy.Fixed
        self.help_button.setSizePolicy(fixed_policy, fixed_policy)
        self.buttons = folding.WrappingRow(
            self.run_button, self.cancel_button, self.save_button
        )
        if self.applies_to_folder:
            button = create_button(
                "Apply to a folder…",
                self.apply_to_folder,
                "Process all images of a folder with these settings.",
            )
            self.buttons.insert_widget(1, button)
        for part in (self.progress_bar, self.save_button):
            policy = part.sizePolicy()
            policy.setRetainSizeWhenHidden(True)  # nothing moves
            part.setSizePolicy(policy)
        outer.addWidget(self.scroll_area, stretch=1)
        foot = QVBoxLayout()
        outer.addLayout(foot)
        # above the buttons, which do not move when it grows
        foot.addWidget(self.messages)
        progress_row = QHBoxLayout()
        progress_row.addWidget(self.progress_bar, stretch=1)
        progress_row.addWidget(self.help_button)
        foot.addLayout(progress_row)
        foot.addWidget(self.buttons)

    def _reserve_scroll_bar(self, _: int, most: int) -> None:
        """Keep the width of the form when messages grow and a scroll bar comes."""
        bar = self.scroll_area.verticalScrollBar()
        free = 0 if most or bar is None else bar.sizeHint().width()
        self.body.setContentsMargins(0, 0, _GAP_PX + free, 0)

    def show_help(self) -> None:
        """Open the manual page of this panel."""
        open_manual(self.help_place)

    def changeEvent(self, event: QEvent | None) -> None:  # noqa: N802 - Qt's name
        """Cancel the job and destroy the panel when it is removed from its dock.

        Closing a dock does not destroy its content, which only loses its parent.
        """
        parent_changed = event is not None and event.type() == QEvent.Type.ParentChange
        if parent_changed and self.parent() is None:
            self.cancel_all_jobs()
            destroy_widget_after_jobs(self)
        super().changeEvent(event)

    def cancel_all_jobs(self) -> None:
        """Cancel all jobs, and remove waiting ones from the queue."""
        for runner in self.findChildren(JobRunner):
            runner.cancel()
        self.closed.emit()

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802 - Qt's name
        """Tabify with the plugin's other docks, and register with the session."""
        super().showEvent(event)
        if self.isWindow():
            _in_view.add(self)
        tabify_widget(self, self.title)
        self.session.watch_panel(self)
        # a result shown while computed has a history now
        self.input_layers.refresh()

    def hideEvent(self, event: QHideEvent | None) -> None:  # noqa: N802 - Qt's name
        """Release the reference to a panel without a dock."""
        super().hideEvent(event)
        _in_view.discard(self)

    def _on_layers_changed(self, event: Event | None = None) -> None:
        """Update the parts; napari keeps only a weak reference to this panel."""
        if is_alive(self):
            self.result_layers.mark_inserted(event)
            self.input_layers.refresh()
            self.result_layers.show_unsaved()
            self.input_layers.select_active_layer()
            self.messages.clear_resolved_error()

    def add_group(self, title: str, *widgets: QWidget) -> QGroupBox:
        """Add a titled group to the scroll area."""
        group = QGroupBox(title)
        folding.stack_widgets(group, *widgets).setContentsMargins(*GROUP_MARGINS)
        self.body.insertWidget(self.body.count() - 1, group)
        return group

    def add_results(
        self,
        heading: str,
        *widgets: QWidget,
        helpers: str = "",
        ticks: Sequence[QWidget] = (),
        below: Sequence[QWidget] = (),
    ) -> None:
        """Add the results group, hidden until there are results.

        `helpers` is the label of the tick box for the panel's helper layers, which is
        above the common buttons, with other `ticks`.
        """
        self.helpers = self.result_layers.create_helper_box(helpers)
        self.results = ResultsGroup(
            self.viewer,
            heading,
            self.result_layers,
            self.messages,
            self.sharing,
            self.scroll_area,
            above=widgets,
            below=(*ticks, self.helpers.native, self.sharing, *below),
        )
        self.headline, self.figures = self.results.headline, self.results.figures
        self.body.insertWidget(self.body.count() - 1, self.results)
        self.unread.append(self.results)

    @property
    def plot(self) -> "PlotCanvas | None":
        """Plot of the results, once there is one."""
        return self.results.plot

    @property
    def is_busy(self) -> bool:
        """Whether a job of this panel is running or saving."""
        return self.controls.is_busy

    def accepts_layer(self, layer: Layer) -> bool:
        """Return whether to select a layer in the list when it becomes active."""
        return not is_incomplete(layer)

    def restore_values(self, values: dict[str, Any]) -> None:
        """Restore the form values that a project stores for this panel."""
        set_form_values(self, values)

    @property
    def asks_question(self) -> bool:
        """Whether the result asks the user a question, so the step is not finished."""
        return False

    def build_form(self) -> None:
        """Build the form; called once, after the parts."""
        raise NotImplementedError

    def create_request(self) -> JobRequest:
        """Read the form, and return the request of the job that Run starts."""
        raise NotImplementedError

    def get_output_path(self) -> Path | None:
        """Return the path chosen for the output."""
        if self.output is None:
            return None
        return get_entered_store(self.output, stack=self.input_layers.uses_all_planes())

    # -- a folder of images ---------------------------------------------------------

    def read_values(self) -> dict[str, Any]:
        """Return the arguments of the command that the form sets, without images."""
        form = getattr(self, "form", None)
        options = None if form is None else form.create_options()
        return self.verb.list_values(options=options)

    @property
    def replaces_output(self) -> bool:
        """Whether existing outputs are replaced."""
        return False

    def apply_to_folder(self) -> None:
        """Ask for the folders, and process all images; those done are skipped."""
        with self.messages.show_errors():
            values = self.read_values()
            folder = ask_existing_folder(self, "Folder of images")
            if folder is not None:
                measures = self.verb.makes_table
                (self._measure_folder if measures else self._convert_folder)(
                    folder, values
                )

    def _convert_folder(self, folder: Path, values: Mapping[str, Any]) -> None:
        """Ask for the folder of the outputs, and make an image from each."""
        output = ask_existing_folder(self, "Folder of the results")
        if output is None:
            return
        existing = jobs.OverwritePolicy(overwrite=self.replaces_output, resume=True)
        call = partial(
            jobs.apply_to_images, self.verb, jobs.find_images(folder), output, values
        )
        self.controls.start(partial(call, existing=existing), self.show_images_done)

    def _measure_folder(self, folder: Path, values: Mapping[str, Any]) -> None:
        """Ask for a table, and for the references if one is chosen; fill it."""
        verb, second = self.verb, None
        boxes = [*self.boxes.values()][1 : len(verb.images)]
        if chosen := [box for box in boxes if box.value is not None]:
            second = ask_existing_folder(self, f"Folder of {chosen[0].label}")
            if second is None:
                return
        table = ask_output_file(self, "Save table", verb.name, TABLE_FILTERS)
        if table is None:
            return
        call = partial(jobs.measure_table_job, verb.name, folder, second, table=table)
        sets = {**verb.parse(values), "existing": jobs.OverwritePolicy(resume=True)}
        self.controls.start(partial(call, **sets), self.show_table)

    def show_images_done(self, result: jobs.ManyImages) -> None:
        """Show how many images of a folder were processed, and why others were not."""
        columns = ("image", "message")
        rows = {name: [one[name] for one in result.failures] for name in columns}
        self.results.show_result(
            {**core.get_figures(result), "Folder": result.output},
            f"{result.done} images done, {result.skipped} were done before, "
            f"{result.failed} failed.",
            tables={"Failed": rows} if result.failures else {},
        )

    def show_table(self, result: jobs.MeasuredTable) -> None:
        """Show the means over a folder, and why images have no row."""
        means: dict[str, list[Any]] = {
            "column": list(result.summary),
            **{
                name: [numbers[name] for numbers in result.summary.values()]
                for name in ("mean", "sd", "images")
            },
        }
        failed = [row for row in result.rows if row["error"]]
        image = next(iter(result.rows[0])) if result.rows else ""
        rows = {name: [row[name] for row in failed] for name in (image, "error")}
        self.results.show_result(
            {"Table": str(result.table)},
            f"{result.measured} images measured, {result.kept} rows kept, "
            f"{result.failed} failed; saved as {result.table}.",
            tables={"Means": means, **({"Failed": rows} if failed else {})},
        )

    # -- messages and running -------------------------------------------------------

    def get_labels(self) -> Labels:
        """Return the row and entry labels, keyed by option name."""
        labels_by_form = [form.get_labels() for form in self.findChildren(Form)]
        return {name: label for one in labels_by_form for name, label in one.items()}

    def translate(self, text: str) -> str:
        """Rephrase a job's message with the labels of this panel."""
        return convert_names_to_panel_labels(text, self.get_labels)

    def findings(self) -> Findings:
        """Return the latest results for copying and saving."""
        return self.results.findings

    def save_figure(self) -> None:
        """Ask for a file name, and save the visible images as a figure for a paper."""
        self.sharing.save_figure()

    def report_cancelled(self) -> None:
        """Report that a job was cancelled, and what it leaves."""
        sentence = f"{self.title} was cancelled; {self.after_cancel}."
        self.messages.show_status(sentence)

    def run(self) -> None:
        """Start or queue the job with the values of the form, or explain why not."""
        end_typing(self)  # a shortcut leaves the focus in its field
        values = *self._read_form(), self.viewer.dims.point[:-2]
        with self.messages.show_errors():
            self.controls.request(values, self._prepare_request)

    def _prepare_request(self) -> JobRequest:
        """Return the request of the form, with the preparation of a run."""
        path = self.get_output_path()
        if path is not None:
            check_path_unused(path)
        self.input_layers.planes_read.clear()
        request = self.create_request()
        under, read = self.input_layers.value, dict(self.input_layers.planes_read)
        begin = partial(self._prepare_run, under, read, request.begin)
        return replace(request, begin=begin, writes=path)

    def _prepare_run(
        self, under: Layer | list[Layer] | None, read: Planes, begin: Begin
    ) -> Iterator[None]:
        """Prepare for a job that is about to start."""
        self.result_layers.sources, self.result_layers.under = read, under
        self.messages.clear_warnings()
        self.controls.update_buttons()
        if hasattr(self, "results"):
            self.results.show_as_earlier()
        yield from self.result_layers.add_in_parts(begin)
