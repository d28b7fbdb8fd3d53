"""Options are frozen, complete, and refuse what they do not know in one sentence."""

import pytest
from pydantic import Field, ValidationError

from napari_semsr.core.errors import OptionError
from napari_semsr.core.options import Options


class Sample(Options):
    """Options for these tests."""

    size_px: int = Field(64, ge=1, le=512)
    weight: float = 0.5


def test_parse_and_dump_are_inverse():
    options = Sample.parse({"size_px": 32, "weight": 0.25})
    assert Sample.parse(options.model_dump()) == options
    assert Sample.model_validate_json(options.model_dump_json()) == options


@pytest.mark.parametrize(
    ("values", "words"),
    [
        pytest.param({"size_px": 0}, ["size_px", "0"], id="below"),
        pytest.param({"size_px": "many"}, ["size_px", "many"], id="word"),
        pytest.param({"sise_px": 4}, ["sise_px"], id="unknown-name"),
        pytest.param({"weight": float("nan")}, ["weight", "nan"], id="nan"),
        pytest.param({"weight": float("inf")}, ["weight", "inf"], id="infinite"),
    ],
)
def test_parse_refuses_in_one_sentence(values, words):
    with pytest.raises(OptionError) as caught:
        Sample.parse(values)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert [word for word in words if word not in message] == []


def test_options_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Sample().size_px = 3


def test_replace_returns_a_checked_copy():
    before = Sample()
    assert before.replace(size_px=8) == Sample(size_px=8)
    assert before == Sample()
    with pytest.raises(OptionError, match="size_px"):
        before.replace(size_px=-8)
