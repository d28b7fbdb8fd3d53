"""The log of errors that nobody foresaw."""

import pytest

from napari_semsr.io import log_error


def raised(text: str) -> Exception:
    with pytest.raises(KeyError) as caught:
        {}[text]
    return caught.value


def test_errors_follow_each_other_with_traceback_and_versions(tmp_path):
    log = tmp_path / "new" / "errors.log"
    for text in ("first", "second \udcff"):
        assert log_error("Enhance", raised(text), log) == log
    said = log.read_text("utf-8")
    assert said.index("KeyError: 'first'") < said.index("KeyError: 'second")
    assert said.count("Traceback (most recent call last)") == 2
    assert said.count("napari-semsr ") == 2


def test_the_log_does_not_grow_for_ever(tmp_path):
    log = tmp_path / "errors.log"
    for _ in range(6):
        log_error("Enhance", raised("x" * 600_000), log)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"errors.log", "errors.log.1"}
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 4_000_000


def test_a_log_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    assert log_error("Enhance", raised("x"), tmp_path / "file" / "errors.log") is None
