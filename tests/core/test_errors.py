"""Every error is ours, and none is of the kind that a worker thread swallows."""

import pytest

from napari_semsr.core import errors

ERRORS = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and value.__module__ == errors.__name__
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: e.__name__)
def test_error_derives_from_ours_and_not_from_runtime_error(error):
    assert issubclass(error, errors.SemsrError)
    assert not issubclass(error, RuntimeError)


def test_an_incomplete_store_is_a_reading_error():
    assert issubclass(errors.IncompleteError, errors.ReadError)
