"""Jobs run to their end, report on the way, and clean up when stopped."""

import pytest
from hypothesis import given, strategies as st

from napari_semsr.core.errors import Cancelled
from napari_semsr.core.progress import Progress, run


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


def test_run_needs_no_listener():
    assert run(counting(2, [])) == 20


def test_a_listener_that_raises_stops_the_job():
    log = []

    def refuse(step):
        if step.done == 1:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled, match="stopped"):
        run(counting(3, log), refuse)
    assert log == ["closed"]
