from hypothesis import given, strategies as st

from napari_semsr.core import (
    Progress,
    TimeEstimator,
    capture_warnings,
    count_stages,
    run,
    warn,
    warn_once,
)
from napari_semsr.core.errors import Cancelled
from napari_semsr.core.progress import format_time
from tests.refusals import refused, warned


def test_a_listener_that_raises_stops_the_job():
    log = []

    def counting():
        try:
            yield Progress(0, 2, "first")
            yield Progress(1, 2, "second")
        finally:
            log.append("closed")

    def refuse(step):
        if step.done == 1:
            raise Cancelled("stopped")

    with refused(Cancelled, "cancelled"):
        run(counting(), refuse)
    assert log == ["closed"]


def test_time_is_said_in_the_unit_that_suits_it():
    said = [format_time(seconds) for seconds in (59.4, 59.6, 3569, 7199)]
    assert said == ["59 s", "1 min", "59 min", "2 h 00 min"]
    assert str(Progress(1, 9, "tiles", 240)) == "tiles, 4 min left"


def times_left(steps, pace=None):
    pace = pace or TimeEstimator()
    return [
        pace.add_time_left(Progress(done, total, ""), now).seconds_left
        for done, total, now in steps
    ]


def test_time_left_restarts_if_work_of_the_same_size_begins_again():
    steps = [*((n, 2.0 * n) for n in range(1, 6)), *((n, 12.0 + n) for n in range(7))]
    left = times_left([(done, 10, now) for done, now in steps])
    assert left == [*[None] * 3, 12.0, 10.0, *[None] * 4, 6.0, 5.0, 4.0]


@given(st.lists(st.floats(0.01, 100), min_size=5, max_size=60))
def test_time_left_never_grows_by_more_than_a_fifth(took):
    steps = [(n + 1, len(took), sum(took[: n + 1])) for n in range(len(took))]
    told = [one for one in times_left(steps) if one is not None]
    assert all(one <= 1.2 * min(told[: n + 1]) for n, one in enumerate(told))


def test_a_time_left_that_a_job_states_is_kept():
    pace = TimeEstimator()
    steps = [Progress(n, 100, "", 90.0) for n in range(9)]
    assert [pace.add_time_left(one, 2.0 * one.done) for one in steps] == steps


def test_warnings_are_told_to_who_listens_and_else_to_python():
    heard, inner = [], []
    with capture_warnings(heard.append):
        warn("one")
        with capture_warnings(inner.append):
            warn("two")
        warn("three")
    assert (heard, inner) == (["one", "three"], ["two"])
    with warned("note") as told:
        warn("four", stacklevel=1)
    assert told[0].filename == __file__


def test_warn_once_counts_what_differs_in_names_and_numbers_alone():
    said = ["a.tif: 2 of 3.", "a.tif: 2 of 3.", "frame 1.tif: 4 of 5.", "b.tif: other."]
    with capture_warnings((heard := []).append):
        warn_once([*said, "c.tif: 9 of 9."], "files")
    assert heard == [
        "a.tif: 2 of 3 (2 such files in all).",
        "frame 1.tif: 4 of 5.",
        "b.tif: other.",
    ]


def test_stages_are_one_bar_that_never_goes_back():
    steps = [("reading", 0, 0), ("reading", 1, 2), ("solving", 0, 4), ("other", 0, 0)]
    steps += [("solving", 2, 4), ("hashing solving", 9, 9), ("solving", 9, 9)]
    job = (Progress(done, total, text) for text, done, total in steps)
    found = count_stages(job, {"read": 0.25, "solv": 1.0})
    assert [one.fraction for one in found] == [0, 0.125, 0.25, 0.25, 0.625, 0.625, 1]
    job = (Progress(n, 9, text) for n, text in enumerate(("read", "solve", "write")))
    counts = [(one.done, one.total) for one in count_stages(job, {"solv": 1.0})]
    assert counts == [(0, 0), (1, 9), (1, 9)]
