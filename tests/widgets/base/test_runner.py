import gc
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from typing import ClassVar

import pytest
from qtpy.QtCore import QEvent, QObject, Qt, QThreadPool
from qtpy.QtWidgets import QMainWindow

from napari_semsr.core import Job, Progress, ShapeError, WaitingProgress, progress
from napari_semsr.widgets.base import JobRunner
from napari_semsr.widgets.base.runner import JobRequest
from tests.children import LIMIT_MS, LIMIT_S
from tests.widgets.scenes import Endless


class Log:
    def __init__(self, runner: JobRunner) -> None:
        self.returned, self.failed, self.cancelled = [], [], []
        self.busy, self.steps = [], []
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

    def job() -> Job[int]:
        for done in range(3):  # a step that comes while another is shown is left out
            while done not in [step.done for step in list(log.steps)]:
                yield Progress(done, 3, f"step {done}")
        return 42

    assert runner.start("count", JobRequest(job))
    qtbot.waitUntil(lambda: not runner.is_busy, timeout=LIMIT_MS)
    assert log.returned == [42]
    assert log.busy == [True, False]
    assert threads == [threading.main_thread()]


SAID = "fail stopped because of"


@pytest.mark.parametrize(
    ("error", "said", "begun"),
    [
        (ShapeError("Shapes must agree."), "Shapes must agree.", True),
        (RuntimeError("CUDA\nout"), f"{SAID} RuntimeError: CUDA out", False),
        (MemoryError(), f"{SAID} MemoryError: no message", True),
    ],
    ids=["ours", "runtime, in its making", "silent"],
)
def test_error_becomes_one_sentence(qtbot, runner, error, said, begun):
    log = Log(runner)

    def job() -> Job[None]:
        yield Progress(0, 1, "going")
        raise error

    def make() -> Job[None]:
        raise error

    runner.start("fail", JobRequest(job if begun else make))
    qtbot.waitUntil(lambda: not runner.is_busy, timeout=LIMIT_MS)
    assert log.failed == [said]
    assert log.returned == []


def test_cancel_closes_the_generator_and_a_second_job_is_refused(qtbot, runner):
    log, job = Log(runner), Endless()
    runner.start("endless", JobRequest(job))
    assert job.begun.wait(LIMIT_S)
    assert not runner.start("second", JobRequest(Endless()))
    runner.cancel()
    assert runner.is_cancelling
    qtbot.waitUntil(lambda: not runner.is_busy, timeout=LIMIT_MS)
    assert job.closed.is_set()
    assert (log.cancelled, log.returned, log.failed) == ([None], [], [])
    assert runner.start("third", JobRequest(one_step))
    qtbot.waitUntil(lambda: log.returned == [None], timeout=LIMIT_MS)


class Canvas(QObject):
    """Stands for that of napari, which refers to itself; notes where it goes."""

    freed: ClassVar[list[threading.Thread]] = []

    def __init__(self, window: QMainWindow) -> None:
        super().__init__()
        self.window, window.canvas = window, self

    def __del__(self) -> None:
        self.freed.append(threading.current_thread())


def test_cancel_answers_before_a_long_step_has_ended(qtbot, runner):
    log, begun, ends = Log(runner), threading.Event(), threading.Event()

    def job() -> Job[None]:
        begun.set()
        ends.wait(LIMIT_S)
        yield Progress(1, 1, "late")

    runner.start("slow", JobRequest(job, queue="heavy"))
    assert begun.wait(LIMIT_S)
    runner.stop()
    qtbot.waitUntil(lambda: log.cancelled == [None], timeout=LIMIT_MS)
    assert log.busy == [True, False]
    runner.start("next", JobRequest(one_step, queue="heavy"))
    assert not runner.is_running  # the step still uses the cores
    ends.set()
    qtbot.waitUntil(lambda: not runner.is_busy, timeout=LIMIT_MS)
    assert (log.returned, log.cancelled, log.failed) == ([None], [None], [])


def test_a_job_that_ends_after_cancel_returns_nothing(qtbot, runner):
    log, begun, ends = Log(runner), threading.Event(), threading.Event()

    def job() -> Job[None]:
        begun.set()
        ends.wait(LIMIT_S)
        yield from ()

    runner.start("last step", JobRequest(job))
    assert begun.wait(LIMIT_S)
    runner.stop()
    ends.set()
    qtbot.waitUntil(lambda: not runner.is_busy, timeout=LIMIT_MS)
    assert (log.returned, log.cancelled) == ([], [None])


def test_what_a_window_leaves_is_freed_in_the_main_thread(qtbot, qapp, runner):
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

    runner.start("collect", JobRequest(job))
    window.close()
    qapp.sendPostedEvents(window, QEvent.Type.DeferredDelete)
    del window
    qapp.processEvents()
    go_on.set()
    qtbot.waitUntil(lambda: not runner.is_busy, timeout=LIMIT_MS)
    assert Canvas.freed == [threading.main_thread()]
    assert usual == (gc.isenabled(), gc.get_threshold())


def test_jobs_of_a_queue_follow_each_other_and_one_that_idles_is_passed(qtbot, request):
    pool = QThreadPool.globalInstance()
    request.addfinalizer(partial(pool.setMaxThreadCount, pool.maxThreadCount()))
    pool.setMaxThreadCount(1)
    runners = [JobRunner() for _ in range(3)]
    logs = [Log(runner) for runner in runners]
    gates = [threading.Event() for _ in runners]
    kinds = [Progress, Progress, Progress]

    def job(number: int) -> Job[int]:
        while not gates[number].wait(0.005):
            yield kinds[number](0, 0, "working")
        return number

    for number, runner in enumerate(runners):
        assert runner.start(
            f"job {number}", JobRequest(partial(job, number), queue="queue")
        )
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


def test_what_is_refused_at_its_turn_is_told_and_the_next_begins(qtbot, runner):
    log, job = Log(runner), Endless()

    def refuse() -> None:
        msg = "The layer is gone."
        raise ShapeError(msg)

    runner.start("first", JobRequest(job, queue="queue"))
    runner.start("second", JobRequest(Endless(), begin=refuse, queue="queue"))
    runner.start("third", JobRequest(one_step, queue="queue"))
    assert runner.waiting_count == 2
    runner.stop()
    qtbot.waitUntil(lambda: log.returned == [None], timeout=LIMIT_MS)
    assert log.failed == ["The layer is gone."]
    assert log.busy == [True, False]


def test_warnings_of_jobs_that_overlap_reach_their_own_runner(qtbot):
    runners, said = [JobRunner(), JobRunner()], [[], []]
    met, usual = threading.Barrier(2), (warnings.showwarning, list(warnings.filters))

    def job(number: int) -> Job[None]:
        yield Progress(0, 0, "waiting for the other")
        met.wait(LIMIT_S)
        progress.warn(f"of {number}")
        met.wait(LIMIT_S)

    for number, runner in enumerate(runners):
        runner.warned.connect(said[number].append)
        runner.start(f"job {number}", JobRequest(partial(job, number)))
    qtbot.waitUntil(lambda: not any(r.is_busy for r in runners), timeout=LIMIT_MS)
    assert said == [["of 0"], ["of 1"]]
    assert (warnings.showwarning, warnings.filters) == usual
