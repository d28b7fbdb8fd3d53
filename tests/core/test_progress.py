"""Jobs run to their end, report on the way, and clean up when stopped."""

import pytest
from hypothesis import given, strategies as st

from napari_semsr.core import (
    Progress,
    TimeEstimator,
    capture_warnings,
    format_time,
    run,
    warn,
    warn_once,
)
from napari_semsr.core.errors import Cancelled
from tests.refusals import refused, warned


def counting(total, log):
    """Count to `total`; write into `log` that the end was cleaned up."""
    try:
        for done in range(total):
            yield Progress(done, total, f"step {done}")
        return total * 10
    finally:
        log.append("closed")


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_fraction_stays_between_0_and_1(done, total):
    assert 0.0 <= Progress(done, total, "").fraction <= 1.0


def test_run_returns_the_result_and_reports_each_step():
    log, seen = [], []
    assert run(counting(3, log), seen.append) == 30
    assert [step.done for step in seen] == [0, 1, 2]
    assert log == ["closed"]
    assert run(counting(2, [])) == 20


def test_a_listener_that_raises_stops_the_job():
    log = []

    def refuse(step):
        if step.done == 1:
            raise Cancelled("stopped")

    with refused(Cancelled, "cancelled"):
        run(counting(3, log), refuse)
    assert log == ["closed"]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        *((20.4, "20 s"), (59.4, "59 s"), (59.6, "1 min"), (240, "4 min")),
        *((3569, "59 min"), (3571, "1 h 00 min"), (7500, "2 h 05 min")),
        (7199, "2 h 00 min"),
    ],
)
def test_time_is_said_in_the_unit_that_suits_it(seconds, said):
    assert format_time(seconds) == said
    assert str(Progress(1, 9, "tiles", seconds)) == f"tiles, {said} left"
    assert str(Progress(1, 9, "tiles")) == "tiles"


def test_time_left_is_told_once_there_is_a_pace():
    pace = TimeEstimator()
    told = [
        pace.add_time_left(Progress(n, 10, ""), now).seconds_left for n, now in STEPS
    ]
    assert told == [None, None, None, 12.0, 10.0]
    assert (
        pace.add_time_left(Progress(3, 7, "the next phase"), 20.0).seconds_left is None
    )
    assert pace.add_time_left(Progress(1, 0, "who knows"), 30.0).seconds_left is None


def test_time_left_restarts_if_work_of_the_same_size_begins_again():
    pace = TimeEstimator()
    steps = [(1, 0.0), (9, 90.0), (0, 100.0), (1, 101.0), (3, 103.0)]
    left = [
        pace.add_time_left(Progress(n, 10, ""), now).seconds_left for n, now in steps
    ]
    assert left == [None, pytest.approx(11.25), None, None, 7.0]


STEPS = [(0, 0.0), (2, 5.0), (3, 5.5), (4, 9.0), (5, 11.0)]


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
