"""Base of all panels: a scrolling form with messages and run controls below it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Layer
from napari.utils.events import Event
from napari.viewer import Viewer
from qtpy.QtCore import QEvent, Signal as QtSignal  # type: ignore[attr-defined]
from qtpy.QtGui import QHideEvent, QShowEvent
from qtpy.QtWidgets import QGroupBox, QScrollArea, QSizePolicy, QVBoxLayout, QWidget

from napari_semsr.io import LIVE_KEY
from napari_semsr.widgets.base.controls import Begin, PanelTask, RunControls, bind_key
from napari_semsr.widgets.base.docking import tabify_widget
from napari_semsr.widgets.base.findings import Findings
from napari_semsr.widgets.base.folding import (
    WrappingRow,
    set_up_scroll_area,
    stack_widgets,
)
from napari_semsr.widgets.base.form import (
    Form,
    Labels,
    convert_names_to_panel_labels,
    create_button,
    read_form_state,
)
from napari_semsr.widgets.base.history import get_removed_layers
from napari_semsr.widgets.base.input_layers import InputLayers, Planes
from napari_semsr.widgets.base.manual import open_manual
from napari_semsr.widgets.base.messages import Messages
from napari_semsr.widgets.base.result_layers import ResultLayers
from napari_semsr.widgets.base.results_group import (
    GROUP_MARGINS,
    ResultsGroup,
    SharingBar,
)
from napari_semsr.widgets.base.runner import (
    JobRunner,
    check_path_unused,
    destroy_widget_after_jobs,
    is_alive,
)
from napari_semsr.widgets.base.session import get_session, set_form_values

if TYPE_CHECKING:
    from napari_semsr.widgets.base.plots import PlotCanvas

HELP, HIDE, FLIP = "F1", "Ctrl+Shift+H", "Ctrl+Shift+B"
_MINIMUM_WIDTH = 320  # of a panel; chosen

_in_view: set[QWidget] = set()
"""Panels that are shown without a dock.

A script may keep no reference to one. Python could then destroy it during a garbage
collection while Qt paints it, and Qt crashes.
"""


class Panel(QWidget):
    """Base class of the panels, each of which builds its form and the task of Run."""

    plots = False
    """Whether a result is plotted."""
    reports = True
    """Whether the panel offers a report on its layers (false if it writes its own
    report).
    """
    help_place = "panels.md"  # page and heading of the manual
    queue: str | None = "computing"
    """Queue for jobs started by Run; jobs in the same queue run one after another."""
    after_cancel = "no layer was added"
    """What a cancelled job leaves."""

    ran = QtSignal()
    """Emitted when the result of Run is shown."""
    closed = QtSignal()
    """Emitted when the panel is removed from its dock."""

    results: ResultsGroup  # of panels that show results

    def __init__(self, viewer: Viewer, title: str, run_label: str = "Run") -> None:
        super().__init__()
        self.viewer, self.title = viewer, title
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
            run_label,
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
            reports=self.reports,
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

    def _build_layout(self) -> None:
        outer = QVBoxLayout(self)
        outer.setContentsMargins(6, 6, 6, 6)
        self.body = QVBoxLayout(self.content)
        self.body.setContentsMargins(0, 0, 6, 0)
        for button in self.input_layers.offers:
            self.body.addWidget(button)
        self.body.addStretch(1)
        set_up_scroll_area(self.scroll_area, self.content)
        tooltip = (
            f"Open the manual page of this panel ({HELP}).\n{HIDE} hides or shows the "
            f"results, and {FLIP} shows their input."
        )
        self.help_button = create_button("?", self.show_help, tooltip)
        fixed_policy = QSizePolicy.Policy.Fixed
        self.help_button.setSizePolicy(fixed_policy, fixed_policy)
        self.buttons = WrappingRow(
            self.run_button, self.cancel_button, self.save_button, self.help_button
        )
        for part in (self.progress_bar, self.save_button):
            policy = part.sizePolicy()
            policy.setRetainSizeWhenHidden(True)  # nothing moves
            part.setSizePolicy(policy)
        outer.addWidget(self.scroll_area, stretch=1)
        foot = QVBoxLayout()
        outer.addLayout(foot)
        # above the buttons, which do not move when it is unfolded
        for row in (self.messages, self.progress_bar, self.buttons):
            foot.addWidget(row)

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
        stack_widgets(group, *widgets).setContentsMargins(*GROUP_MARGINS)
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

    def job(self) -> PanelTask:
        """Read the form and return the task that Run starts."""
        raise NotImplementedError

    def get_output_path(self) -> Path | None:
        """Return the path chosen for the output."""
        return None

    def accepts_layer(self, layer: Layer) -> bool:
        """Return whether to select a layer in the list when it becomes active."""
        return not layer.metadata.get(LIVE_KEY)

    def restore_values(self, values: dict[str, Any]) -> None:
        """Restore the form values that a project stores for this panel."""
        set_form_values(self, values)

    @property
    def asks_question(self) -> bool:
        """Whether the result asks the user a question, so the step is not finished."""
        return False

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
        values = *self._read_form(), self.viewer.dims.point[:-2]
        with self.messages.show_errors():
            self.controls.request(values, self._create_task)

    def _create_task(self) -> tuple[PanelTask, Path | None]:
        """Return the task of the form with the preparation of a run, and its path."""
        path = self.get_output_path()
        if path is not None:
            check_path_unused(path)
        self.input_layers.planes_read.clear()
        task = self.job()
        under, read = self.input_layers.value, dict(self.input_layers.planes_read)
        begin = partial(self._prepare_run, under, read, task.begin)
        return replace(task, begin=begin), path

    def _prepare_run(
        self, under: Layer | list[Layer] | None, read: Planes, begin: Begin | None
    ) -> Iterator[None]:
        """Prepare for a job that is about to start."""
        self.result_layers.sources, self.result_layers.under = read, under
        self.messages.clear_warnings()
        self.controls.update_buttons()
        if hasattr(self, "results"):
            self.results.show_as_earlier()
        if begin is not None:
            yield from self.result_layers.add_in_parts(begin)
