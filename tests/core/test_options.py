from typing import Literal, Self

import pytest
from pydantic import Field, model_validator

from napari_semsr.core import options
from napari_semsr.core.errors import OptionError
from napari_semsr.inference import EnhanceOptions
from tests.refusals import refused, warned


class Turn(options.Options):
    """Options of which one has a part with some values of another."""

    way: Literal["keep", "turn", "flip"] = "keep"
    degrees: float | None = options.option(None, when={"way": ("turn", "flip")})


def test_what_has_no_part_is_told_a_user_and_left_out_of_a_history():
    with warned("option-without-effect", match="`degrees` .*`way` "):
        assert Turn.parse({"degrees": 3.0}).reset_unused_options() == Turn()
    assert Turn.from_history({"degrees": 3.0, "former": 1}) == Turn()
    turned = Turn.parse({"way": "turn", "degrees": 3.0})
    assert turned == Turn.from_history(turned.model_dump())


def test_what_a_person_alone_gives_is_refused_of_a_file() -> None:
    class Elsewhere(options.Options):
        address: str | None = options.option(None, user_only=True)
        count: int = 1

    persons = options.get_user_only_options(Elsewhere)
    assert persons == {"address"}
    options.check_user_only_options(["count"], persons, "A recipe")
    with refused(OptionError, "unsafe-content", match="address"):
        options.check_user_only_options(["count", "address"], persons, "A recipe")


class Inner(options.Options):
    side_px: int = Field(8, multiple_of=4)
    kind: Literal["wide", "narrow"] = "wide"
    least: float = 0.0
    most: float = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.least > self.most:
            msg = f"least must not exceed most, got {self.least} and {self.most}"
            raise ValueError(msg)
        return self


class Outer(options.Options):
    inner: Inner = Inner()
    many: tuple[Inner, ...] = ()
    pair: tuple[float, float] = (0, 1)
    shares: dict[Literal["a", "b"], float] = Field(default_factory=dict)
    device: str = options.declare_device_option()
    count: int = 3


FAULTS = [
    ({"device": "tpu"}, "'tpu'"),
    ({"count": "few"}, "a whole number, got 'few'"),
    ({"count": True}, "got True"),
    ({"pair": 5}, "a list, got 5"),
    ({"pair": [1, float("nan")]}, "nan"),
    ({"pair": [1, 2, 3]}, "at most 2 items"),
    ({"inner": "wide"}, "a table of options, got 'wide'"),
    ({"inner": {"side_px": 6}}, "inner.side_px must be a multiple of 4"),
    ({"inner": {"kind": "x"}}, "'wide' or 'narrow', got 'x'"),
    ({"devise": "cpu"}, "did you mean device?"),
    ({"inner": {"side": 3}}, "did you mean inner.side_px?"),
    ({"many": [{}, {"z": 1}]}, "'many[1].z'"),
    ({"shares": {"c": 1}}, "'a' or 'b', got 'c'"),
    ({"inner": {"least": 3}}, "got 3.0 and 1.0"),
]


@pytest.mark.parametrize(("values", "said"), FAULTS, ids=lambda value: str(value)[:32])
def test_faults_name_the_option_and_its_value_in_one_line(values, said):
    with pytest.raises(OptionError) as caught:
        Outer.parse(values)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("stored", "now"), [("exact", "whole"), ("frozen", "sampled"), ("tile", "tile")]
)
def test_stored_values_that_had_other_names_are_read(stored, now):
    for read in (EnhanceOptions.parse, EnhanceOptions.from_history):
        assert read({"norm": stored}).norm == now
