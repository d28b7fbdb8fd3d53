"""Leak-free execution of jobs in threads, with heavy jobs one after another.

A service is a generator of `Progress`. Qt generator workers swallow `RuntimeError`
and leave the generator open when they are stopped, so a *function* worker drives
it here: the function checks a cancel event between two steps, and closes the
generator in any case.

Jobs of one queue run one after another, whichever panel asks: two that compute on
the same cores would both take longer, and need the memory of both.
"""

import atexit
import gc
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from threading import Event
from typing import Any, TypeGuard, TypeVar
from weakref import WeakSet, ref

from napari.layers import Layer
from napari.qt.threading import FunctionWorker, create_worker
from qtpy.compat import isalive
from qtpy.QtCore import (  # type: ignore[attr-defined]
    QObject,
    QThreadPool,
    QTimer,
    Signal as QtSignal,
)
from qtpy.QtWidgets import QApplication, QMainWindow, QWidget

from napari_semsr import core
from napari_semsr.io import log_error

_log = logging.getLogger(__name__)
_REPORT_EVERY_S = 0.05  # s between two signals of progress; chosen
_RETURN_EVERY_S = 1.0  # s between two returns of freed memory; chosen
_LAST_STEP_S = 60.0  # s; chosen: no step between two checks for a cancel takes longer
# s; chosen: a thread needs microseconds after its job has returned
_THREAD_END_MS = 1000
_ANSWER_MS = 500  # ms until Cancel does not wait for the step any more; chosen
_BREATH_MS = 10  # ms from one part to the next: Qt asks a window to paint within 5 ms

Parts = Iterator[None] | None
"""Remaining parts, run one per iteration of the event loop, or None."""


_Q = TypeVar("_Q", bound=QObject)
_Result = TypeVar("_Result")


def is_alive(item: _Q | None) -> TypeGuard[_Q]:
    """Return whether an object exists and has not been destroyed by Qt.

    A slot on ``destroyed`` is not usable: PyQt calls it after Python's collector has
    cleared it, and crashes.

    `item`: the object; None counts as destroyed.
    """
    return item is not None and bool(isalive(item))  # type: ignore[no-untyped-call]


def create_timer(
    parent: QObject,
    call: Callable[[], object],
    milliseconds: int,
    *,
    once: bool = False,
) -> QTimer:
    """Create a timer that calls a function repeatedly or, if `once`, a single time."""
    timer = QTimer(parent)
    timer.setInterval(milliseconds)
    timer.setSingleShot(once)
    timer.timeout.connect(call)
    return timer


def _do_nothing(*_: object) -> Any:
    pass


def _get_thread_pool() -> QThreadPool:
    """Return the thread pool in which napari's workers run."""
    pool = QThreadPool.globalInstance()
    assert pool is not None  # noqa: S101 - while Qt is there
    return pool


Make = Callable[[], core.Job[object]]
Show = Callable[..., Parts]
Begin = Callable[[], Parts]


@dataclass(frozen=True, slots=True)
class JobRequest:
    """Request for a job: how it is made, queued, begun, shown and identified.

    The window repaints and responds at each ``yield`` of `show` and `begin`.
    """

    make: Make  # returns the job, in its thread
    show: Show = _do_nothing  # called in the main thread with its result
    begin: Begin = _do_nothing  # called in the main thread before it starts
    # without one it does not wait, and is refused while another runs
    queue: str | None = None
    writes: Path | None = None
    key: object = None  # equal for two identical jobs
    reads: tuple[Layer, ...] = ()  # layers, as they were at the request
    saves_state: bool = False  # when it is cancelled: its end is waited for


_ENDED = JobRequest(_do_nothing)


class _JobRun:
    """Run of one job, called by its thread and printed by napari."""

    def __init__(self, title: str, owner: "JobRunner", request: JobRequest) -> None:
        self.title, self.request = title, replace(request, make=_do_nothing)
        self.has_begun = self.idle = self.is_released = False
        self.last_sentence = ""
        self.cancel = Event()
        self.return_event = Event()
        self.return_event.set()  # until a thread works on it
        self.value: object = None
        self.error: BaseException | None = None
        self.is_shown = True
        self._warnings_heard: set[str] = set()
        self._owner = ref(owner)
        self._make: Make | None = request.make  # released by the run

    def __str__(self) -> str:
        return f"napari-semsr {self.title}"

    __repr__ = __str__

    @property
    def requester(self) -> "JobRunner | None":
        """Requesting object, or None once Qt has destroyed it."""
        owner_found = self._owner()
        return owner_found if is_alive(owner_found) else None

    @property
    def owner(self) -> "JobRunner | None":
        """Requesting object, unless it already knows that this job is cancelled."""
        return None if self.is_released else self.requester

    def __call__(self) -> None:
        """Run the job to completion, or until the cancel event is set."""
        make, self._make = self._make, None
        if make is None:
            return
        self.return_event.clear()
        try:
            warn = self._emit_warning
            with core.use_background_priority(), core.capture_warnings(warn):
                self.value = self._run_job_steps(make())
        except BaseException as error:  # noqa: BLE001 - shown by the runner
            self.error = error
        _get_queue().ended.emit(self)
        self.return_event.set()

    def _emit_warning(self, warning: str) -> None:
        if warning not in self._warnings_heard:
            self._warnings_heard.add(warning)
            _get_queue().warned.emit(self, warning)

    def _run_job_steps(self, job: core.Job[object]) -> object:
        last_report = last_return = 0.0
        pace = core.TimeEstimator()
        try:
            while not self.cancel.is_set() and self.owner is not None:
                step = pace.add_time_left(next(job))
                now = time.monotonic()
                # steps must not pile up if the main thread is busy
                if self.is_shown and now - last_report >= _REPORT_EVERY_S:
                    last_report, self.is_shown = now, False
                    _get_queue().stepped.emit(self, step)
                if now - last_return >= _RETURN_EVERY_S:
                    last_return = now
                    core.release_free_memory()
        except StopIteration as end:
            return end.value
        finally:
            job.close()
        msg = f"{self.title} was cancelled."
        raise core.Cancelled(msg)


class _JobWorker(FunctionWorker[None]):
    """Function worker whose `quit` also stops the job."""

    def run(self) -> None:
        """Run the job without raising errors.

        superqt replaces the hook and filters of Python's warnings meanwhile, in all
        threads: after two overlapping jobs no warning would be shown.
        """
        self.started.emit()
        self._running = True
        self.work()
        self._running = False
        self.finished.emit()
        self._finished.emit(self)

    def quit(self) -> None:
        """Ask the job to stop at its next step."""
        self._func.cancel.set()
        super().quit()


class _JobQueue(QObject):
    """Queue of all waiting and running jobs of the session, in request order.

    It outlives the panels, so a job without a panel still frees its slot.
    """

    stepped = QtSignal(object, object)
    warned = QtSignal(object, str)
    ended = QtSignal(object)

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[_JobRun] = []
        self.runs_shown: list[_JobRun] = []  # jobs that have ended and are being shown
        self._left: list[QWidget] = []  # to destroy when their jobs have ended
        self._windows: WeakSet[QMainWindow] = WeakSet()
        self._collecting = create_timer(self, gc.collect, 0, once=True)
        self.stepped.connect(self._on_step)
        self.warned.connect(self._on_warning)
        self.ended.connect(self._on_end)

    def get_runs(self, owner: "JobRunner") -> list[_JobRun]:
        """Return the jobs of one runner."""
        return [run for run in (*self.runs_shown, *self.runs) if run.owner is owner]

    def watch_windows(self) -> None:
        """Garbage-collect closed windows in the main thread.

        napari's canvas keeps an OpenGL context and its surface in a reference cycle.
        Python collects in any thread that allocates, and Qt crashes if they are
        destroyed in a job's thread.
        """
        for window in QApplication.topLevelWidgets():
            if isinstance(window, QMainWindow) and window not in self._windows:
                self._windows.add(window)
                window.destroyed.connect(self._collecting.start)
        if not all(map(is_alive, self._windows)):
            gc.collect()

    def destroy_later(self, widget: QWidget) -> None:
        """Destroy an undocked widget when its jobs have ended."""
        self._left.append(widget)
        QTimer.singleShot(0, self._destroy_waiting_widgets)

    def _destroy_waiting_widgets(self) -> None:
        left, self._left = self._left, []
        for widget in left:
            if is_alive(widget) and widget.parent() is None:
                runners = widget.findChildren(JobRunner)
                if any(run.requester in runners for run in self.runs):
                    self._left.append(widget)
                else:
                    widget.deleteLater()

    def start_ready_jobs(self) -> None:
        """Start jobs that no longer need to wait; update the messages of the others."""
        self.runs = [run for run in self.runs if run.has_begun or run.owner is not None]
        for run in list(self.runs):
            if run in self.runs and not run.has_begun:
                # the jobs that must end before this one can start
                place = self.runs.index(run)
                owner, queue = run.owner, run.request.queue
                before = [one for one in self.runs_shown if one.owner is owner]
                for n, other in enumerate(self.runs):
                    is_earlier = other is not run and (other.has_begun or n < place)
                    alike = other.request.queue == queue is not None and not other.idle
                    if is_earlier and (alike or other.owner is owner):
                        before.append(other)
                if before:
                    sentence = f"Waiting for {before[0].title} ({len(before)} ahead)"
                    is_new = sentence != run.last_sentence
                    if owner is not None and is_new and not owner.is_running:
                        run.last_sentence = sentence
                        owner.stepped.emit(core.WaitingProgress(0, 0, sentence))
                    continue
                begin, run.has_begun = run.request.begin, True
                run.request = replace(run.request, begin=_do_nothing)  # releases it
                parts, end = _iterate_function_parts(begin), self._start_thread
                self._run_next_part(run, parts, partial(end, run))

    def release(self, run: _JobRun) -> None:
        """Report a job as cancelled before the step that it computes has ended."""
        owner = run.owner
        if run in self.runs and owner is not None:
            run.is_released = True
            owner.report_end(run, core.Cancelled(f"{run.title} was cancelled."))
            self.start_ready_jobs()

    def _start_thread(self, run: _JobRun, error: Exception | None) -> None:
        """Start the thread of a job, unless its preparation failed."""
        if error is None:
            self.watch_windows()
            # waiting is decided here: Qt has a thread per core, so on one core a job
            # that waits for its user would block all others
            _get_thread_pool().releaseThread()
            create_worker(run, _worker_class=_JobWorker).start()
        else:
            self.runs.remove(run)
            self._report_end(run, error)

    def _run_next_part(
        self,
        run: _JobRun,
        parts: Iterator[None],
        end: Callable[[Exception | None], None],
    ) -> None:
        """Run the next part and leave the rest to later event-loop iterations.

        The window repaints and responds between two parts.
        """
        if run.owner is None:
            end(None)
            return
        try:
            next(parts)
        except StopIteration:
            end(None)
        except Exception as error:
            end(error)
            if not isinstance(error, core.SemsrError):
                raise
        else:
            QTimer.singleShot(_BREATH_MS, partial(self._run_next_part, run, parts, end))

    def _on_step(self, run: _JobRun, step: core.Progress) -> None:
        if run in self.runs and not run.cancel.is_set():
            owner = run.owner
            if owner is not None:
                owner.stepped.emit(step)
        run.is_shown = True
        idle = isinstance(step, core.WaitingProgress)
        if idle != run.idle:
            run.idle = idle
            self.start_ready_jobs()

    def _on_warning(self, run: _JobRun, warning: str) -> None:
        owner = run.owner
        if owner is not None and not run.cancel.is_set():
            owner.warned.emit(warning)

    def _on_end(self, run: _JobRun) -> None:
        _get_thread_pool().reserveThread()
        self.runs.remove(run)
        if run.cancel.is_set() and run.error is None:  # in its last step
            run.error = core.Cancelled(f"{run.title} was cancelled.")
        if run.error is not None:
            self._report_end(run, run.error)
            return
        self.runs_shown.append(run)
        parts = _iterate_function_parts(partial(run.request.show, run.value))
        self._run_next_part(run, parts, partial(self._finish_run, run))

    def _finish_run(self, run: _JobRun, error: Exception | None) -> None:
        """Remove a job whose result has been shown."""
        self.runs_shown.remove(run)
        self._report_end(run, error)

    def _report_end(self, run: _JobRun, error: BaseException | None) -> None:
        """Report how a job ended, and start the next one."""
        owner, run.request = run.owner, _ENDED
        if owner is not None:
            owner.report_end(run, error)
        run.value = run.error = None
        self.start_ready_jobs()
        self._destroy_waiting_widgets()


def _iterate_function_parts(act: Callable[[], Parts]) -> Iterator[None]:
    """Run a function, and yield its remaining parts."""
    yield from act() or ()


@cache
def _get_queue() -> _JobQueue:
    """Return the queue of the session, created in the main thread on first use."""
    # zarr ends its threads in atexit; a job would wait for them forever
    getattr(threading, "_register_atexit", atexit.register)(_cancel_all_jobs)
    return _JobQueue()


def _cancel_all_jobs() -> None:
    """Cancel jobs that are still running when Python exits, and wait for them.

    A thread that outlives Qt aborts Python. Workers and windows of other plugins are
    not touched: they may be destroyed already, and napari ends its workers.
    """
    runs = [run for run in _get_queue().runs if run.has_begun]
    for run in runs:
        run.cancel.set()
    for run in runs:
        run.return_event.wait(_LAST_STEP_S)
    if runs:
        _get_thread_pool().waitForDone(_THREAD_END_MS)


def destroy_widget_after_jobs(widget: QWidget) -> None:
    """Destroy a widget that was removed from its dock, once its jobs have ended.

    Python would destroy it, since its controls form reference cycles, in any thread
    that collects garbage; Qt allows it only in the main thread.

    `widget`: a panel, or a container of panels; kept if it has a parent again by then.
    """
    _get_queue().destroy_later(widget)


def has_active_jobs() -> bool:
    """Return whether any panel runs a job, which may read layers of another panel."""
    return bool(_get_queue().runs)


def check_path_unused(path: Path) -> None:
    """Raise an error if a waiting or running job will write to a path."""
    for run in _get_queue().runs:
        if run.request.writes == path and not run.cancel.is_set():
            msg = f"{run.title} is about to write {path}; choose another name."
            raise core.OptionError(msg, code="output-locked")


def check_layers_unused(layers: Iterable[Layer]) -> None:
    """Raise an error if a running job has read layers whose pixel size is to change."""
    layers_wanted = list(layers)
    for run in (*_get_queue().runs, *_get_queue().runs_shown):
        read = [item for item in run.request.reads if item in layers_wanted]
        if read and not run.cancel.is_set():
            msg = (
                f"{run.title} uses {read[0].name} with its current pixel size; wait "
                "for the job to end or cancel it, then change the size."
            )
            raise core.OptionError(msg, code="layer-in-use")


class JobRunner(QObject):
    """Runner of the jobs of one panel, one at a time."""

    stepped = QtSignal(object)
    """Emits `Progress` in the main thread, at most 20 times a second."""
    warned = QtSignal(str)
    """Emits each warning of this package in the main thread, once per run."""
    returned = QtSignal(object)
    """Emits the result of the job."""
    failed = QtSignal(str)
    """Emits the error as one sentence."""
    error_logged = QtSignal(str)
    """Emits the path of the error log file, after `failed`."""
    cancelled = QtSignal()
    """Emitted when a cancelled job has actually ended."""
    busy_changed = QtSignal(bool)
    """Emits True when the first job is accepted and False when the last has ended."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        _get_queue().watch_windows()

    @property
    def is_busy(self) -> bool:
        """Whether a job is waiting, running or being cancelled."""
        return bool(_get_queue().get_runs(self))

    @property
    def is_running(self) -> bool:
        """Whether a job is running or being cancelled."""
        return any(run.has_begun for run in _get_queue().get_runs(self))

    @property
    def waiting_count(self) -> int:
        """Number of jobs that have not started."""
        return sum(not run.has_begun for run in _get_queue().get_runs(self))

    @property
    def is_cancelling(self) -> bool:
        """Whether the running job has been asked to stop, or has ended."""
        queue = _get_queue()
        mine = queue.get_runs(self)
        return any(run.cancel.is_set() or run in queue.runs_shown for run in mine)

    def start(self, title: str, request: JobRequest) -> bool:
        """Start a job, or queue it behind earlier jobs."""
        if request.queue is None and self.is_running:
            return False
        queue, first = _get_queue(), not self.is_busy
        run = _JobRun(title, self, request)
        queue.runs.insert(0 if request.queue is None else len(queue.runs), run)
        if first:
            self.busy_changed.emit(True)
        queue.start_ready_jobs()
        return True

    def is_requested(self, request: object) -> bool:
        """Return whether an identical job is waiting or running."""
        return any(
            run.request.key == request and not run.cancel.is_set()
            for run in _get_queue().runs
            if run.owner is self
        )

    def stop(self) -> None:
        """Ask the running job to stop at its next step; does nothing when idle."""
        for run in _get_queue().get_runs(self):
            if run.has_begun and not run.cancel.is_set():
                run.cancel.set()
                if not run.request.saves_state:
                    QTimer.singleShot(_ANSWER_MS, partial(_get_queue().release, run))

    def cancel(self) -> None:
        """Stop the running job, and remove the waiting ones."""
        while self.cancel_last_waiting():
            pass
        self.stop()

    def cancel_last_waiting(self) -> bool:
        """Remove the last waiting job; return whether there was one."""
        queue = _get_queue()
        left = [run for run in queue.get_runs(self) if not run.has_begun]
        if not left:
            return False
        queue.runs.remove(left[-1])
        if not self.is_busy:
            self.busy_changed.emit(False)
        queue.start_ready_jobs()
        return True

    def report_end(self, run: _JobRun, error: BaseException | None) -> None:
        """Report how a job ended, after it has left the queue."""
        if not self.is_busy:
            self.busy_changed.emit(False)
        if error is None:
            self.returned.emit(run.value)
        elif isinstance(error, core.Cancelled):
            self.cancelled.emit()
        else:
            _log.debug("%s failed", run.title, exc_info=error)
            sentence = str(error)  # our errors are sentences
            if not isinstance(error, core.SemsrError):
                kind, why = type(error).__name__, " ".join(sentence.split())
                why = why or "no message"
                sentence = f"{run.title} stopped because of {kind}: {why}"
            self.failed.emit(sentence)
            log_file = log_error(run.title, error)
            if log_file is not None:
                self.error_logged.emit(str(log_file))
