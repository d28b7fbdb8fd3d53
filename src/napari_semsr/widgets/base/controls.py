"""Run controls of a panel: buttons, shortcuts, progress bar and job runners."""

import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Labels as LabelLayer
from qtpy.QtCore import QObject, Qt, Signal as QtSignal  # type: ignore[attr-defined]
from qtpy.QtGui import QKeySequence, QShortcut  # type: ignore[attr-defined]
from qtpy.QtWidgets import QProgressBar, QWidget

from napari_semsr.core import Job, Progress
from napari_semsr.widgets.base.folding import TEXTS
from napari_semsr.widgets.base.form import create_button
from napari_semsr.widgets.base.runner import (
    JobRequest,
    JobRunner,
    Make,
    Show,
    check_path_unused,
    create_timer,
)

if TYPE_CHECKING:
    from napari_semsr.widgets.base.panel import VerbPanel

RUN, CANCEL = "Ctrl+Return", "Escape"
_PLOTS = "napari_semsr.widgets.base.plots"
# ms between two updates of progress. Each repaints the whole window, which takes 14 ms
# of a core without a GPU. napari's bar is not used: its animation repaints 27 times a
# second, and cost eight times as much as the stitching that it reported.
_STEP_MS = 250
_QUEUE, _CANCEL_QUEUED = "Queue", "Cancel queued"
_RUNNING = "A job is running; cancel it first."


def bind_key(
    widget: QWidget, key: str, call: Callable[[], object], *, anywhere: bool = False
) -> QShortcut:
    """Bind a key to a function while a widget has the focus or is visible."""
    context = Qt.ShortcutContext.WidgetWithChildrenShortcut
    if anywhere:  # the canvas has the focus while the user looks at a result
        context = Qt.ShortcutContext.WindowShortcut
    shortcut = QShortcut(QKeySequence(key), widget)
    shortcut.setContext(context)
    shortcut.activated.connect(call)
    shortcut.activatedAmbiguously.connect(call)  # two panels are visible
    return shortcut


def is_plotting_imported() -> bool:
    """Return whether the plotting packages are imported."""
    return _PLOTS in sys.modules


def _run_job_with_plotting(make: Make) -> Job[object]:
    """Import and warm up the packages that show a job's result, in the job's thread.

    matplotlib takes a second or more, and so do napari's imports for the first layer
    with labels or features.
    """
    if not is_plotting_imported():
        yield Progress(0, 0, "Starting matplotlib (once after napari starts)")
        importlib.import_module(_PLOTS).warm_up_plotting()
        LabelLayer(np.zeros((1, 1), np.uint8))
    return (yield from make())


class RunControls(QObject):
    """Controls that run, queue and cancel the jobs of a panel, and show progress."""

    ran = QtSignal()
    """Emitted when the result of Run is shown."""

    def __init__(self, panel: "VerbPanel") -> None:
        super().__init__(panel)
        self._panel, self._messages = panel, panel.messages
        messages, run_label = panel.messages, panel.run_label
        self.run_label, self.cancel_label = run_label, "Cancel"
        self.stop_message = "Cancelling after this step …"
        tooltip = f"{messages.title}: start with the settings above ({RUN})."
        self.run_button = create_button(run_label, panel.run, tooltip)
        tooltip = f"Stop after the current step ({CANCEL})."
        self.cancel_button = create_button(self.cancel_label, self.cancel, tooltip)
        self.cancel_button.setEnabled(False)
        self.run_button.setProperty(TEXTS, [run_label, _QUEUE])
        self.cancel_button.setProperty(TEXTS, [self.cancel_label, _CANCEL_QUEUED])
        self.progress_bar = QProgressBar()
        self.progress_bar.setTextVisible(True)
        self.progress_bar.setVisible(False)
        messages.parts.append(self.progress_bar)
        show = messages.set_updates_enabled
        self._stepping = create_timer(self, show, _STEP_MS, once=True)
        bind_key(panel, RUN, self.run_button.click)
        bind_key(panel, RUN.replace("Return", "Enter"), self.run_button.click)
        self._escape = bind_key(panel, CANCEL, self.cancel_button.click)
        self._escape.setEnabled(False)  # Escape has other uses when nothing is running
        self.runners: list[JobRunner] = []
        self.runner, self.looker = JobRunner(self), JobRunner(self)
        for runner in (self.runner, self.looker):
            self.add_runner(runner)
        self.runner.busy_changed.connect(self.show_busy)
        self.looker.cancelled.connect(self._show_inspection_cancelled)

    def add_runner(self, runner: JobRunner) -> None:
        """Show the progress, errors and warnings of a runner."""
        self.runners.append(runner)
        runner.stepped.connect(self.show_step)
        runner.failed.connect(self._messages.show_job_problem)
        runner.error_logged.connect(self._messages.show_log_link)
        runner.warned.connect(self._messages.show_warning)
        runner.busy_changed.connect(self.update_buttons)
        for ended in (runner.failed, runner.cancelled):
            ended.connect(self._empty_bar)

    @property
    def is_busy(self) -> bool:
        """Whether a job of this panel is running or saving."""
        return any(runner.is_busy for runner in self.runners)

    def request(self, key: object, create: Callable[[], JobRequest]) -> None:
        """Start or queue the job for the form values `key`, or explain why not."""
        runner = self.runner
        if self._panel.queue is None and runner.is_busy:
            self._messages.show_status(_RUNNING)
            return
        if runner.is_requested(key):
            text = "A run with these settings is already active; change a setting."
            self._messages.show_status(text)
            return
        request = create()
        if request.writes is not None:
            check_path_unused(request.writes)
        request = replace(
            request,
            make=self._add_plotting(request.make),
            show=partial(self._finish_job, request.show, is_run=True),
            queue=self._panel.queue,
            key=key,
            reads=tuple(self._panel.input_layers.planes_read),
        )
        runner.start(self._messages.title, request)
        if runner.is_running and (place := runner.waiting_count):
            text = f"Queued with the current settings: position {place}."
            self._messages.show_status(text)
        self.update_buttons()

    def _add_plotting(self, make: Make) -> Make:
        return partial(_run_job_with_plotting, make) if self._panel.plots else make

    def start(self, make: Make, on_result: Show, title: str | None = None) -> bool:
        """Start a job of this panel immediately, or report that one is running.

        Without a `title`, it is a run, which clears the warnings of the last one.
        """
        finish = partial(self._finish_job, on_result, is_run=title is None)
        if title is None and not self.runner.is_running:
            self._messages.clear_warnings()
        reads = tuple(self._panel.input_layers.planes_read)
        request = JobRequest(self._add_plotting(make), finish, reads=reads)
        has_started = self.runner.start(title or self._messages.title, request)
        if not has_started:
            self._messages.show_status(_RUNNING)
        return has_started

    def start_inspection(self, title: str, make: Make, on_result: Show) -> None:
        """Start an inspection job, replacing a running one and earlier warnings."""
        self.looker.cancel()
        self._messages.clear_warnings()
        request = JobRequest(make, on_result, queue=f"looks of {id(self)}")
        self.looker.start(title, request)

    def _show_inspection_cancelled(self) -> None:
        if not self.looker.is_busy:
            self._messages.show_status("The inspection was cancelled.")

    def cancel(self) -> None:
        """Remove the last waiting job from the queue, or stop the running one."""
        if self.runner.cancel_last_waiting():
            self._messages.show_status("Removed from the queue; the job was not run.")
            self.update_buttons()
        else:
            self.stop()

    def stop(self) -> None:
        """Ask the running job to stop."""
        if self.is_busy:
            for runner in self.runners:
                runner.stop()
            self.cancel_button.setEnabled(False)
            self._messages.show_status(self.stop_message)

    def _finish_job(self, show: Show, value: object, *, is_run: bool) -> Iterator[None]:
        self.update_buttons()
        with self._messages.show_errors():
            yield from self._panel.result_layers.add_in_parts(partial(show, value))
            self._messages.show_if_hidden(self._messages.status.text())
            if is_run:
                self.ran.emit()
        self._empty_bar()  # a job may be queued

    def show_step(self, step: Progress) -> None:
        """Show a progress step now, or together with the steps that follow soon."""
        soon = self._stepping.isActive()
        self._messages.set_updates_enabled(on=not soon)
        self.progress_bar.setVisible(self.runner.is_running or not self.runner.is_busy)
        bar = self.progress_bar  # which stages of another count do not move back
        if step.total and step.fraction * bar.maximum() >= bar.value():
            self._update_progress_bar(step.done, step.total)
        count = self.runner.waiting_count if self.runner.is_running else 0
        text = str(step)[:1].upper() + str(step)[1:]
        self._messages.show_step(f"{text} · {count} queued" if count else text)
        if not soon:
            self._stepping.start()

    def show_busy(self, busy: bool) -> None:
        """Show at once that a job starts."""
        if busy:
            self._messages.show_status("Starting …")
            if (layout := self._panel.layout()) is not None:
                layout.activate()
            # the next call may block the main thread briefly
            self._messages.status.repaint()

    def update_buttons(self, _: object = None) -> None:
        """Enable and label the buttons for the current state."""
        runner = self.runner
        queues = runner.is_busy and self._panel.queue is not None
        self.run_button.setText(_QUEUE if queues else self.run_label)
        self.run_button.setEnabled(queues or not runner.is_busy)
        many = runner.is_running and runner.waiting_count
        self.cancel_button.setText(_CANCEL_QUEUED if many else self.cancel_label)
        stops = bool(many or not runner.is_cancelling)
        self.cancel_button.setEnabled(self.is_busy and stops)
        self._escape.setEnabled(self.cancel_button.isEnabled())
        if self.progress_bar.isHidden() == self.is_busy:
            # without updates, Qt would not paint over a bar that it hides
            self.progress_bar.setUpdatesEnabled(True)
            self.progress_bar.setVisible(self.is_busy)
            self._empty_bar()

    def _empty_bar(self, _: object = None) -> None:
        self._update_progress_bar(0, 0)

    def _update_progress_bar(self, done_count: int, total: int) -> None:
        """Update the progress bar; it is empty without a total.

        Qt's indeterminate bar is animated, and repaints the whole window.
        """
        bar, is_drawn = self.progress_bar, self.progress_bar.updatesEnabled()
        bar.setUpdatesEnabled(False)  # painted once, not after each of these
        bar.setTextVisible(total > 0)
        bar.setRange(0, total or 1)
        bar.setValue(done_count if total else 0)
        bar.setUpdatesEnabled(is_drawn)
