"""Run one service at a time in a thread, without waiting and without leaks.

A service is a generator of `Progress`. Qt generator workers swallow `RuntimeError`
and leave the generator open when they are stopped, so a *function* worker drives
it here: the function looks at a cancel event between two steps, and closes the
generator whatever happens.
"""

import logging
import time
from collections.abc import Callable
from threading import Event
from typing import Any
from weakref import WeakSet, ref

from napari.qt.threading import FunctionWorker, create_worker
from napari.utils import progress
from qtpy.compat import isalive
from qtpy.QtCore import QObject, Signal as QtSignal  # type: ignore[attr-defined]

from napari_semsr.core import (
    Cancelled,
    Job,
    Progress,
    SemsrError,
    in_background,
    return_free_memory,
)

_log = logging.getLogger(__name__)
_REPORT_EVERY_S = 0.05
_RETURN_EVERY_S = 1.0
_runners: WeakSet["JobRunner"] = WeakSet()


def any_busy() -> bool:
    """Whether any panel runs a job, which may read what another panel shows."""
    return any(runner.busy for runner in _runners)


def is_alive(item: QObject | None) -> bool:
    """Tell whether Qt has not destroyed an object yet.

    A slot of ours on ``destroyed`` would do, but PyQt calls it after Python's
    collector has emptied it, and dies.

    `item`: the object; None counts as destroyed.
    """
    return item is not None and bool(isalive(item))  # type: ignore[no-untyped-call]


class _Signals(QObject):
    """Carries what happens in the thread into the main loop."""

    stepped = QtSignal(object, object)
    ended = QtSignal(object)


class _Run:
    """One job on its way: the thread calls it, napari prints it."""

    def __init__(
        self,
        title: str,
        make: Callable[[], Job[Any]],
        signals: _Signals,
        owner: QObject,
    ) -> None:
        self.title = title
        self._owner = ref(owner)
        self.cancel = Event()
        self.value: Any = None
        self.error: BaseException | None = None
        self.shown = True
        self._make: Callable[[], Job[Any]] | None = make
        self._signals: _Signals | None = signals

    def __str__(self) -> str:
        return f"napari-semsr {self.title}"

    __repr__ = __str__

    def __call__(self) -> None:
        """Drive the job to its end, or until the cancel event is set."""
        make, signals = self._make, self._signals
        if make is None or signals is None:
            return
        self._make = self._signals = None
        try:
            with in_background():
                self.value = self._drive(make(), signals)
        except BaseException as error:  # noqa: BLE001 - shown by the runner
            self.error = error
        signals.ended.emit(self)

    def _drive(self, job: Job[Any], signals: _Signals) -> Any:
        reported = returned = 0.0
        try:
            while not self.cancel.is_set() and is_alive(self._owner()):
                step = next(job)
                now = time.monotonic()
                # napari's bar handles events while it moves: steps must not pile up
                if self.shown and now - reported >= _REPORT_EVERY_S:
                    reported, self.shown = now, False
                    signals.stepped.emit(self, step)
                if now - returned >= _RETURN_EVERY_S:
                    returned = now
                    return_free_memory()
        except StopIteration as end:
            return end.value
        finally:
            job.close()
        msg = f"{self.title} was cancelled."
        raise Cancelled(msg)


class _Worker(FunctionWorker[None]):
    """A function worker whose `quit` reaches the job."""

    def quit(self) -> None:
        """Ask the job to stop at its next step."""
        self._func.cancel.set()
        super().quit()


class JobRunner(QObject):
    """Runs one service at a time for one panel."""

    stepped = QtSignal(object)
    """Emits `Progress` in the main thread, at most 20 times a second."""
    returned = QtSignal(object)
    """Emits what the job returned."""
    failed = QtSignal(str)
    """Emits the error as one sentence."""
    cancelled = QtSignal()
    """Emitted when a cancelled job has really ended."""
    busy_changed = QtSignal(bool)
    """Emits True when a job starts and False when it has ended."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._run: _Run | None = None
        _runners.add(self)
        self._bar: Any = None
        self._signals = _Signals()
        self._signals.stepped.connect(self._on_step)
        self._signals.ended.connect(self._on_end)

    @property
    def busy(self) -> bool:
        """Whether a job is running or being cancelled."""
        return self._run is not None

    @property
    def cancelling(self) -> bool:
        """Whether the running job has been asked to stop."""
        return self._run is not None and self._run.cancel.is_set()

    def start(self, title: str, make: Callable[[], Job[Any]]) -> bool:
        """Start a job, unless one is running."""
        if self._run is not None:
            return False
        run = _Run(title, make, self._signals, self)
        worker = create_worker(run, _worker_class=_Worker)
        self._run = run
        self._bar = progress(total=0, desc=title)
        self.busy_changed.emit(True)
        worker.start()
        return True

    def cancel(self) -> None:
        """Ask the running job to stop at its next step; does nothing when idle."""
        if self._run is not None:
            self._run.cancel.set()

    def _on_step(self, run: _Run, step: Progress) -> None:
        if run is self._run and not run.cancel.is_set():
            self._show_in_activity(run, step)
            if run is self._run:
                self.stepped.emit(step)
        run.shown = True

    def _show_in_activity(self, run: _Run, step: Progress) -> None:
        """Move napari's own bar, which handles events: the job may end meanwhile."""
        bar: Any = self._bar
        if bar is None:
            return
        bar.total = step.total
        if self._bar is not None:
            bar.set_description(f"{run.title}: {step.message}")
        if self._bar is not None:
            bar.update(step.done - bar.n)

    def _on_end(self, run: _Run) -> None:
        if run is not self._run:
            return
        self._run = None
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self.busy_changed.emit(False)
        self._tell(run)

    def _tell(self, run: _Run) -> None:
        value, error = run.value, run.error
        run.value = run.error = None
        if error is None:
            self.returned.emit(value)
        elif isinstance(error, Cancelled):
            self.cancelled.emit()
        else:
            _log.debug("%s failed", run.title, exc_info=error)
            self.failed.emit(_sentence(run.title, error))


def _sentence(title: str, error: BaseException) -> str:
    """Say an error in one line; ours are sentences already."""
    if isinstance(error, SemsrError):
        return str(error)
    said = " ".join(str(error).split()) or "no message"
    return f"{title} stopped because of {type(error).__name__}: {said}"
