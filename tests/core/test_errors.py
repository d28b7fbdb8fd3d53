"""Every error is ours, and none is of the kind that a worker thread swallows."""

import copy

import pytest

from napari_semsr.core import Message, OptionError, ReadError, errors, get_error_code

ERRORS = [
    value
    for value in vars(errors).values()
    if isinstance(value, type)
    and issubclass(value, Exception)
    and value.__module__ == errors.__name__
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: e.__name__)
def test_error_derives_from_ours_and_not_from_runtime_error(error):
    assert issubclass(error, errors.SemsrError)
    assert not issubclass(error, RuntimeError)
    assert issubclass(errors.IncompleteError, errors.ReadError)


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


def test_words_of_a_file_and_what_was_given_are_shortened():
    assert errors.format_one_line("plain") == "plain"
    assert errors.format_one_line("two\nlines") == r"two\nlines"
    long = errors.format_one_line("a" * 10_000)
    assert len(long) == len(errors.format_one_line("b" * 5_000)) < 1000
    assert long.endswith("a…")
    assert errors.shorten_value("a" * 100) == "'" + "a" * 58 + "…"
    assert errors.shorten_value("a" * 40) == repr("a" * 40)
    assert errors.shorten_value([[[[[1]]]]]) == "[[[[[...]]]]]"
    assert errors.shorten_value([0] * 9) == "[0, 0, 0, 0, 0, 0, 0, 0, ...]"


@pytest.mark.parametrize(
    ("names", "text"),
    [("", ""), ("a", "a"), ("ab", "a or b"), ("abc", "a, b or c")],
)
def test_alternatives_are_joined_as_in_a_sentence(names, text):
    assert errors.format_alternatives(names) == text


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


@pytest.mark.parametrize("made", [OptionError("a", code="b"), Message("a", "b")])
def test_codes_go_from_one_process_to_another(made):
    other = copy.deepcopy(made)  # as pickle does
    assert (str(other), get_error_code(other)) == ("a", "b")
