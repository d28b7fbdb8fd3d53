"""Every error is ours, and none is of the kind that a worker thread swallows."""

import pytest

from napari_semsr.core import Message, OptionError, ReadError, errors, get_error_code


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (errors.ShapeError("Frames differ."), "Frames differ."),
        (MemoryError(), "Not enough memory for this image"),
        (FileNotFoundError(2, "No such file", "a.tif"), "No such file (a.tif)."),
        (OSError("gone"), "failed: gone."),
        (ZeroDivisionError("by 0"), "Unexpected ZeroDivisionError: by 0; run again"),
        (KeyError(), "Unexpected KeyError: no message"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_error_is_said_in_a_sentence(error, said):
    assert said in errors.describe_error(error)


def test_code_names_the_cause():
    assert get_error_code(ReadError("a.tif cannot be read.")) == "unreadable"
    assert get_error_code(OptionError("Too many.", code="too-many")) == "too-many"
    small = Message("The images are small.", "small-images")
    assert get_error_code(small) == "small-images"
    assert get_error_code(ReadError(small)) == "small-images"
    assert get_error_code(ReadError(small, code="too-small")) == "too-small"
    assert get_error_code(PermissionError(13, "no")) == "system"
    assert get_error_code(MemoryError()) == "memory"
    assert get_error_code(ValueError("x")) == "unexpected"
    assert get_error_code("A warning of another library.") == "note"
