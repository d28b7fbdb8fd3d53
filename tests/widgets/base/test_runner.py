import gc
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import ClassVar

import pytest
from napari.utils import progress as progress_bar
from qtpy.QtCore import QEvent, QObject, Qt, QThreadPool, QTimer
from qtpy.QtWidgets import QMainWindow, QWidget

from napari_semsr.core import progress
from napari_semsr.core.errors import ShapeError
from napari_semsr.core.progress import Job, Progress, WaitingProgress
from napari_semsr.widgets.base.runner import (
    JobRequest,
    JobRunner,
    destroy_widget_after_jobs,
    is_alive,
)
from tests.children import LIMIT_MS, LIMIT_S, run_python
from tests.widgets.scenes import Endless


class Log:
    """Listens to a runner."""

    def __init__(self, runner: JobRunner) -> None:
        self.returned: list[object] = []
        self.failed: list[str] = []
        self.cancelled: list[None] = []
        self.busy: list[bool] = []
        self.steps: list[Progress] = []
        runner.returned.connect(self.returned.append)
        runner.failed.connect(self.failed.append)
        runner.cancelled.connect(lambda: self.cancelled.append(None))
        runner.busy_changed.connect(self.busy.append)
        runner.stepped.connect(self.steps.append)


def one_step() -> Job[None]:
    yield Progress(1, 1, "done")


@pytest.fixture
def runner(qapp: object) -> Iterator[JobRunner]:
    made = JobRunner()
    yield made
    made.cancel()


def test_start_returns_value_in_the_main_thread(qtbot, runner):
    log, threads = Log(runner), []
    runner.returned.connect(lambda _: threads.append(threading.current_thread()))

    def shown() -> list[int]:
        return list(dict.fromkeys(step.done for step in list(log.steps)))

    def job() -> Job[int]:
        for done in range(3):  # a step that comes while another is shown is left out
            while done not in shown():
                yield Progress(done, 3, f"step {done}")
        return 42

    assert runner.start("count", job)
    qtbot.waitUntil(lambda: not runner.is_busy, timeout=LIMIT_MS)
    assert log.returned == [42]
    assert log.busy == [True, False]
    assert shown() == [0, 1, 2]
    assert threads == [threading.main_thread()]


SAID = "fail stopped because of"


@pytest.mark.parametrize("begun", [True, False], ids=["at work", "in its making"])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ShapeError("Shapes must agree."), "Shapes must agree."),
        (RuntimeError("CUDA out\nof it"), f"{SAID} RuntimeError: CUDA out of it"),
        (MemoryError(), f"{SAID} MemoryError: no message"),
    ],
    ids=["ours", "runtime", "silent"],
)
def test_error_becomes_one_sentence(qtbot, runner, error, said, begun):
    log = Log(runner)

    def job() -> Job[None]:
        yield Progress(0, 1, "going")
        raise error

    def make() -> Job[None]:
        raise error

    runner.start("fail", job if begun else make)
    qtbot.waitUntil(lambda: not runner.is_busy, timeout=LIMIT_MS)
    assert log.failed == [said]
    assert log.returned == []


def test_cancel_closes_the_generator(qtbot, runner):
    log, job = Log(runner), Endless()
    runner.start("endless", job)
    assert job.begun.wait(LIMIT_S)
    runner.cancel()
    assert runner.is_cancelling
    qtbot.waitUntil(lambda: not runner.is_busy, timeout=LIMIT_MS)
    assert job.closed.is_set()
    assert len(log.cancelled) == 1
    assert (log.returned, log.failed) == ([], [])


def leave_dock(panel: QWidget) -> None:
    """Take a panel out of its dock, as napari does when that is closed."""
    panel.setParent(None)
    destroy_widget_after_jobs(panel)


def test_a_panel_that_left_its_dock_is_destroyed_after_its_job(qtbot):
    idle, busy = QWidget(), QWidget()
    job, runner = Endless(), JobRunner(busy)
    runner.start("endless", job)
    assert job.begun.wait(LIMIT_S)
    leave_dock(busy)
    leave_dock(idle)
    qtbot.waitUntil(lambda: not is_alive(idle), timeout=LIMIT_MS)
    assert is_alive(busy)
    runner.cancel()
    qtbot.waitUntil(lambda: not is_alive(busy), timeout=LIMIT_MS)


def test_a_widget_with_a_dock_again_is_kept(qtbot, qapp):
    dock, panel = QWidget(), QWidget()
    qtbot.addWidget(dock)
    leave_dock(panel)
    panel.setParent(dock)
    for _ in range(3):
        qapp.processEvents()
        qapp.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    assert is_alive(panel)


class Canvas(QObject):
    """Stands for that of napari, which refers to itself and notes where it goes."""

    freed: ClassVar[list[threading.Thread]] = []

    def __init__(self, window: QMainWindow) -> None:
        super().__init__()
        self.window, window.canvas = window, self

    def __del__(self) -> None:
        self.freed.append(threading.current_thread())


@pytest.mark.parametrize("running", [False, True], ids=["before a job", "during one"])
def test_what_a_window_leaves_is_freed_in_the_main_thread(qtbot, qapp, runner, running):
    window = QMainWindow()
    window.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    Canvas(window)
    Canvas.freed.clear()
    JobRunner(window)
    go_on, usual = threading.Event(), (gc.isenabled(), gc.get_threshold())

    def job() -> Job[None]:
        go_on.wait(LIMIT_S)
        gc.collect()  # as Python does where a job allocates
        yield Progress(1, 1, "collected")

    if running:
        runner.start("collect", job)
    window.close()
    qapp.sendPostedEvents(window, QEvent.Type.DeferredDelete)
    assert not is_alive(window)
    del window
    if running:
        qapp.processEvents()
    else:
        runner.start("collect", job)
    go_on.set()
    qtbot.waitUntil(lambda: not runner.is_busy, timeout=LIMIT_MS)
    assert Canvas.freed == [threading.main_thread()]
    assert usual == (gc.isenabled(), gc.get_threshold())


def test_start_refuses_a_second_job(qtbot, runner):
    job = Endless()
    assert runner.start("first", job)
    assert not runner.start("second", Endless())
    runner.cancel()
    qtbot.waitUntil(lambda: not runner.is_busy, timeout=LIMIT_MS)
    assert runner.start("third", one_step)
    qtbot.waitUntil(lambda: not runner.is_busy, timeout=LIMIT_MS)


def test_worker_quit_reaches_the_job(qtbot, runner):
    from superqt.utils import WorkerBase

    job = Endless()
    runner.start("endless", job)
    assert job.begun.wait(LIMIT_S)
    WorkerBase.await_workers(msecs=LIMIT_MS)
    qtbot.waitUntil(lambda: not runner.is_busy, timeout=LIMIT_MS)
    assert job.closed.is_set()


@pytest.fixture
def one_core():
    pool = QThreadPool.globalInstance()
    usual = pool.maxThreadCount()
    pool.setMaxThreadCount(1)
    yield
    pool.setMaxThreadCount(usual)


@pytest.mark.usefixtures("one_core")
def test_jobs_of_a_queue_follow_each_other_and_one_that_idles_is_passed(qtbot):
    runners = [JobRunner() for _ in range(3)]
    logs = [Log(runner) for runner in runners]
    gates = [threading.Event() for _ in runners]

    def job(number: int) -> Job[int]:
        while not gates[number].wait(0.005):
            yield kinds[number](0, 0, "working")
        return number

    kinds = [Progress, Progress, Progress]
    for number, runner in enumerate(runners):
        assert runner.start(f"job {number}", partial(job, number), JobRequest("queue"))
    assert [runner.is_running for runner in runners] == [True, False, False]
    assert logs[2].steps[-1].message == "Waiting for job 0 (2 ahead)"
    gates[1].set()
    kinds[0] = WaitingProgress
    qtbot.waitUntil(lambda: logs[1].returned == [1], timeout=LIMIT_MS)
    assert logs[0].returned == []
    qtbot.waitUntil(lambda: runners[2].is_running, timeout=LIMIT_MS)
    for gate in gates:
        gate.set()
    qtbot.waitUntil(lambda: not any(r.is_busy for r in runners), timeout=LIMIT_MS)
    assert [log.returned for log in logs] == [[0], [1], [2]]


def test_a_job_whose_panel_is_gone_makes_room(qtbot, runner):
    parent, job = QWidget(), Endless()
    JobRunner(parent).start("left", job, JobRequest("queue"))
    runner.start("next", one_step, JobRequest("queue"))
    log = Log(runner)
    assert job.begun.wait(LIMIT_S)
    parent.deleteLater()
    qtbot.waitUntil(lambda: log.returned == [None], timeout=LIMIT_MS)


def test_what_is_refused_at_its_turn_is_told_and_the_next_begins(qtbot, runner):
    log, job = Log(runner), Endless()

    def refuse() -> None:
        msg = "The layer is gone."
        raise ShapeError(msg)

    runner.start("first", job, JobRequest("queue"))
    runner.start("second", Endless(), JobRequest("queue", refuse))
    runner.start("third", one_step, JobRequest("queue"))
    assert runner.waiting_count == 2
    runner.stop()
    qtbot.waitUntil(lambda: log.returned == [None], timeout=LIMIT_MS)
    assert log.failed == ["The layer is gone."]
    assert log.busy == [True, False]


def test_what_begins_and_shows_a_job_leaves_room_between_its_parts(qtbot, runner):
    seen: list[str] = []

    def parts(*words: str) -> Iterator[None]:
        for word in words:
            seen.append(word)
            QTimer.singleShot(0, lambda: seen.append("turn"))
            yield

    def job() -> Job[str]:
        seen.append("job")
        yield Progress(1, 1, "done")
        return "shown"

    request = JobRequest(
        "queue", lambda: parts("begin"), lambda value: parts(value, "more")
    )
    runner.start("first", job, request)
    runner.start("next", job, JobRequest("queue", lambda: seen.append("next")))
    qtbot.waitUntil(lambda: not runner.is_busy, timeout=LIMIT_MS)
    one = ["begin", "turn", "job", "shown", "turn", "more", "turn"]
    assert seen == [*one, "next", "job"]


def test_a_job_that_is_being_shown_is_past_stopping_but_not_over(qtbot, runner):
    log, seen = Log(runner), []

    def show(value: int) -> Iterator[None]:
        assert runner.is_busy
        assert runner.is_cancelling
        runner.cancel()
        yield
        seen.append(value)

    runner.start("show", lambda: (yield from ()) or 1, JobRequest(show=show))
    qtbot.waitUntil(lambda: not runner.is_busy, timeout=LIMIT_MS)
    assert seen == log.returned == [1]
    assert not log.cancelled


def test_a_result_whose_panel_is_gone_is_not_shown_further(qtbot):
    parent, seen = QWidget(), []

    def show(_: object) -> Iterator[None]:
        parent.deleteLater()
        try:
            yield
            seen.append("part")
        finally:
            seen.append("closed")

    JobRunner(parent).start("show", lambda: (yield from ()), JobRequest(show=show))
    qtbot.waitUntil(lambda: bool(seen), timeout=LIMIT_MS)
    assert seen == ["closed"]


def test_time_left_is_told(qtbot, runner, monkeypatch):
    clock = SimpleNamespace(monotonic=count().__next__)  # of the estimate alone
    monkeypatch.setattr(progress, "time", clock)
    log = Log(runner)

    def job() -> Job[None]:
        for step in count(1):
            yield Progress(step, 10**9, "tiles")
            if any(one.seconds_left is not None for one in list(log.steps)):
                return

    runner.start("count", job)
    qtbot.waitUntil(lambda: not runner.is_busy, timeout=LIMIT_MS)
    assert str(log.steps[0]) == "tiles"
    assert " left" in str(log.steps[-1])


def test_napari_draws_no_bar_of_a_job(qtbot, runner):
    """Its sign of work moves, and draws the whole window 27 times a second."""
    seen = []

    def job() -> Job[None]:
        while len(seen) < 3:
            yield Progress(1, 3, "tiles")

    runner.stepped.connect(lambda _: seen.append(len(progress_bar._all_instances)))  # noqa: SLF001 - no other way
    before = len(progress_bar._all_instances)  # noqa: SLF001 - no other way
    runner.start("count", job)
    qtbot.waitUntil(lambda: not runner.is_busy, timeout=LIMIT_MS)
    assert set(seen) == {before}


ENDING = """
import time
from napari.qt.threading import create_worker
from qtpy.QtWidgets import QApplication
from napari_semsr.core.progress import Progress
from napari_semsr.widgets.base.runner import JobRunner
app, begun, ended = QApplication([]), [], []
def make():
    try:
        while True:
            begun.append(True)
            time.sleep(0.01)
            yield Progress(0, 0, "working")
    finally:
        print("ended")
runner = JobRunner()
runner.start("Job", make)
while not begun:
    app.processEvents()
other = create_worker(time.sleep, 0.3)
other.quit = lambda: print("a worker of another plugin was asked to quit")
"""


@pytest.mark.broad
def test_a_script_may_end_while_a_job_runs():
    assert run_python(ENDING) == "ended\n"


def test_warnings_of_jobs_that_overlap_reach_their_own_runner(qtbot, runner):
    other = JobRunner()
    said: dict[str, list[str]] = {"first": [], "second": []}
    runner.warned.connect(said["first"].append)
    other.warned.connect(said["second"].append)
    begun, over = threading.Event(), threading.Event()
    hook, filters = warnings.showwarning, list(warnings.filters)

    def first() -> Job[None]:
        yield Progress(0, 0, "waiting for the second to begin")
        begun.wait(LIMIT_S)
        for _ in range(3):
            progress.warn("of the first")
        over.set()

    def second() -> Job[None]:
        begun.set()
        yield Progress(0, 0, "waiting for the first to end")
        over.wait(LIMIT_S)
        progress.warn("of the second")

    runner.start("first", first)
    other.start("second", second)
    qtbot.waitUntil(lambda: not runner.is_busy and not other.is_busy, timeout=LIMIT_MS)
    assert said == {"first": ["of the first"], "second": ["of the second"]}
    assert (warnings.showwarning, warnings.filters) == (hook, filters)
