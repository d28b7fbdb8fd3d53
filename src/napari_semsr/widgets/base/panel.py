"""Panels: a form, the job that it requests, and what is shown of the result.

Run reads the form (`create_request`), waits in the queue of its jobs, and shows what
the job returned:

1. `run` ends typing and passes the form's values to the run controls, which refuse a
   request that is active already, and otherwise call `_prepare_request`.
2. `_prepare_request` lets the panel read its form and layers in `create_request`.
3. When the job may start, `_prepare_run` clears what is left of the last run.
4. The job runs in a thread; the run controls show its steps.
5. The `show` of the request adds layers and results; then `ran` is emitted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from napari.layers import Layer
from napari.utils.events import Event
from napari.viewer import Viewer
from qtpy import QtWidgets
from qtpy.QtCore import (  # type: ignore[attr-defined]
    QEvent,
    QSize,
    Qt,
    Signal as QtSignal,
)
from qtpy.QtGui import QHideEvent, QShowEvent

from napari_semsr import jobs
from napari_semsr.widgets.base import folding, form, navigation, results_group, runner
from napari_semsr.widgets.base.controls import RunControls, bind_key
from napari_semsr.widgets.base.history import get_removed_layers
from napari_semsr.widgets.base.input_layers import InputLayers, Planes
from napari_semsr.widgets.base.messages import Messages
from napari_semsr.widgets.base.result_layers import ResultLayers
from napari_semsr.widgets.base.session import get_session
from napari_semsr.widgets.layers import is_incomplete

if TYPE_CHECKING:
    from napari_semsr.widgets.base.plots import PlotCanvas

HELP, HIDE, FLIP = "F1", "Ctrl+Shift+H", "Ctrl+Shift+B"
_MINIMUM_WIDTH = 320  # of a panel; chosen
_OPENS = 400  # px; chosen: rows of buttons fold once, plots are readable
_GAP_PX = 6  # at the right of a form

_in_view: set[QtWidgets.QWidget] = set()
"""Panels that are shown without a dock.

A script may keep no reference to one. Python could then destroy it during a garbage
collection while Qt paints it, and Qt crashes.
"""


class DockContent(QtWidgets.QWidget):
    """Content of a dock that opens narrow, and cancels its jobs when it is removed."""

    title = ""

    closed = QtSignal()
    """Emitted when the widget, or that which it is in, is removed from its dock."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        self.setMinimumWidth(_MINIMUM_WIDTH)

    def cancel_all_jobs(self) -> None:
        """Cancel all jobs, and remove waiting ones from the queue."""
        for one in self.findChildren(runner.JobRunner):
            one.cancel()
        for part in (self, *self.findChildren(DockContent)):
            part.closed.emit()

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return a narrow size, to leave most of the window for the image."""
        hint = super().sizeHint()
        return QSize(min(hint.width(), _OPENS), hint.height())

    def changeEvent(self, event: QEvent | None) -> None:  # noqa: N802 - Qt's name
        """Cancel all jobs and destroy the widget when it is removed from its dock.

        Closing a dock does not destroy its content, which only loses its parent.
        """
        parent_changed = event is not None and event.type() == QEvent.Type.ParentChange
        if parent_changed and self.parent() is None:
            self.cancel_all_jobs()
            runner.destroy_widget_after_jobs(self)
        super().changeEvent(event)

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802 - Qt's name
        """Tabify with the plugin's other docks."""
        super().showEvent(event)
        navigation.tabify_widget(self, self.title)


class VerbPanel(DockContent):
    """Panel of a command, put together from its parts.

    They are the layers that it reads (`input_layers`), a form, the run controls, the
    results, and the layers that it makes (`result_layers`). A panel builds its form in
    `build_form`; `create_request` reads it and returns what Run starts.
    """

    run_label = "Measure"
    verb: jobs.Verb[Any, Any]
    plots = False
    """Whether a result is plotted."""
    help_place = "panels.md"  # page and heading of the manual
    queue: str | None = "computing"
    """Queue for jobs started by Run; jobs in the same queue run one after another."""
    asks_question = False
    """Whether the result asks the user a question, so the step is not finished."""

    ran = QtSignal()
    """Emitted when the result of Run is shown."""

    results: results_group.ResultsGroup  # of panels that show results
    buttons: folding.WrappingRow
    """Row of Run and the other buttons at the foot."""

    def build_form(self) -> None:
        """Build the form; called once, after the parts."""
        raise NotImplementedError

    def create_request(self) -> runner.JobRequest:
        """Read the form, and return the request of the job that Run starts."""
        raise NotImplementedError

    def accepts_layer(self, layer: Layer) -> bool:
        """Return whether to select a layer in the list when it becomes active."""
        return not is_incomplete(layer)

    # -- running --------------------------------------------------------------------

    def run(self) -> None:
        """Start or queue the job with the values of the form, or explain why not."""
        form.end_typing(self)  # a shortcut leaves the focus in its field
        values = *self.read_form(), self.viewer.dims.point[:-2]
        with self.messages.show_errors():
            self.controls.request(values, self._prepare_request)

    def _prepare_request(self) -> runner.JobRequest:
        """Return the request of the form, with the preparation of a run."""
        self.input_layers.planes_read.clear()
        request = self.create_request()
        under, read = self.input_layers.value, dict(self.input_layers.planes_read)
        begin = partial(self._prepare_run, under, read, request.begin)
        return replace(request, begin=begin)

    def _prepare_run(
        self, under: Layer | list[Layer] | None, read: Planes, begin: runner.Begin
    ) -> Iterator[None]:
        """Prepare for a job that is about to start."""
        self.result_layers.sources, self.result_layers.under = read, under
        self.messages.clear_warnings()
        self.controls.update_buttons()
        if hasattr(self, "results"):
            self.results.show_as_earlier()
        yield from self.result_layers.add_in_parts(begin)

    def _report_cancelled(self) -> None:
        self.messages.show_status(f"{self.title} was cancelled; no layer was added.")

    @property
    def is_busy(self) -> bool:
        """Whether a job of this panel is running or saving."""
        return self.controls.is_busy

    # -- building -------------------------------------------------------------------

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer)
        self.history, self.session = get_removed_layers(viewer), get_session(viewer)
        self.content, self.scroll_area = QtWidgets.QWidget(), QtWidgets.QScrollArea()
        # parts of the form without effect on a run
        self.unread: list[QtWidgets.QWidget] = []
        # each part reads what it needs from the panel
        self.messages = messages = Messages(self)
        self.input_layers = inputs = InputLayers(self)
        self.result_layers = layers = ResultLayers(self)
        self.controls = controls = RunControls(self)
        self.sharing = results_group.SharingBar(self)
        self.status, self.warning_label = messages.status, messages.warning_label
        self.runner, self.progress_bar = controls.runner, controls.progress_bar
        self.run_button = controls.run_button
        self.cancel_button = controls.cancel_button
        self.save_button = layers.save_button
        self._build_layout()
        controls.add_runner(layers.saver)
        controls.ran.connect(self.ran)
        self.runner.cancelled.connect(self._report_cancelled)
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
        outer = QtWidgets.QVBoxLayout(self)
        outer.setContentsMargins(6, 6, 6, 6)
        self.body = QtWidgets.QVBoxLayout(self.content)
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
        self.help_button = form.create_button("?", self.show_help, tooltip)
        fixed_policy = QtWidgets.QSizePolicy.Policy.Fixed
        self.help_button.setSizePolicy(fixed_policy, fixed_policy)
        buttons = self.run_button, self.cancel_button, self.save_button
        self.buttons = folding.WrappingRow(*buttons)
        for part in (self.progress_bar, self.save_button):
            policy = part.sizePolicy()
            policy.setRetainSizeWhenHidden(True)  # nothing moves
            part.setSizePolicy(policy)
        outer.addWidget(self.scroll_area, stretch=1)
        foot = QtWidgets.QVBoxLayout()
        outer.addLayout(foot)
        # above the buttons, which do not move when it grows
        foot.addWidget(self.messages)
        foot.addWidget(self.progress_bar)
        row = QtWidgets.QHBoxLayout()
        row.addWidget(self.buttons, stretch=1)
        row.addWidget(self.help_button, alignment=Qt.AlignmentFlag.AlignTop)
        foot.addLayout(row)

    def _reserve_scroll_bar(self, _: int, most: int) -> None:
        """Keep the width of the form when messages grow and a scroll bar comes."""
        bar = self.scroll_area.verticalScrollBar()
        free = 0 if most or bar is None else bar.sizeHint().width()
        self.body.setContentsMargins(0, 0, _GAP_PX + free, 0)

    def add_group(self, title: str, *widgets: QtWidgets.QWidget) -> QtWidgets.QGroupBox:
        """Add a titled group to the scroll area."""
        group = QtWidgets.QGroupBox(title)
        column = folding.stack_widgets(group, *widgets)
        column.setContentsMargins(*results_group.GROUP_MARGINS)
        self.body.insertWidget(self.body.count() - 1, group)
        return group

    def add_results(
        self,
        heading: str,
        *widgets: QtWidgets.QWidget,
        helpers: str = "",
        ticks: Sequence[QtWidgets.QWidget] = (),
        below: Sequence[QtWidgets.QWidget] = (),
    ) -> None:
        """Add the results group, hidden until there are results.

        `helpers` is the label of the tick box for the panel's helper layers, which is
        above the common buttons, with other `ticks`.
        """
        self.helpers = self.result_layers.create_helper_box(helpers)
        below = (*ticks, self.helpers.native, self.sharing, *below)
        self.results = results_group.ResultsGroup(self, heading, widgets, below)
        self.headline, self.figures = self.results.headline, self.results.figures
        self.body.insertWidget(self.body.count() - 1, self.results)
        self.unread.append(self.results)

    @property
    def plot(self) -> "PlotCanvas | None":
        """Plot of the results, once there is one."""
        return self.results.plot

    # -- messages -------------------------------------------------------------------

    def read_form(self) -> form.FormState:
        """Return the texts, ticks and selected rows that are entered."""
        return form.read_form_state(self.content, self.unread)

    def get_labels(self) -> form.Labels:
        """Return the row and entry labels, keyed by option name."""
        labels = [one.get_labels() for one in self.findChildren(form.Form)]
        return {name: label for one in labels for name, label in one.items()}

    def translate(self, text: str) -> str:
        """Rephrase a job's message with the labels of this panel."""
        return form.convert_names_to_panel_labels(text, self.get_labels)

    def findings(self) -> results_group.Findings:
        """Return the latest results for copying and saving."""
        return self.results.findings

    def show_help(self) -> None:
        """Open the manual page of this panel."""
        navigation.open_manual(self.help_place)

    # -- in the window --------------------------------------------------------------

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802 - Qt's name
        """Register with the session."""
        super().showEvent(event)
        if self.isWindow():
            _in_view.add(self)
        self.session.watch_panel(self)
        # a result shown while computed has a history now
        self.input_layers.refresh()
        navigation.preload_panels()

    def hideEvent(self, event: QHideEvent | None) -> None:  # noqa: N802 - Qt's name
        """Release the reference to a panel without a dock."""
        super().hideEvent(event)
        _in_view.discard(self)

    def _on_layers_changed(self, event: Event | None = None) -> None:
        """Update the parts; napari keeps only a weak reference to this panel."""
        if runner.is_alive(self):
            self.result_layers.mark_inserted(event)
            self.input_layers.refresh()
            self.result_layers.show_unsaved()
            self.input_layers.select_active_layer()
            self.messages.clear_resolved_error()
