import argparse
from typing import Literal

import pytest
from pydantic import Field

from napari_semsr.cli.verb import add_options
from napari_semsr.core.errors import OptionError
from napari_semsr.core.options import Options
from napari_semsr.jobs import OptionGroup
from tests.refusals import refused


class Sample(Options):
    """Options of every kind."""

    side_px: int | None = Field(default=None, description="Side of a block.", ge=2)
    share: float = Field(default=0.5, description="Share of 50 %.")
    kind: Literal["one", "two"] = Field(default="one", description="Which kind.")
    loud: bool = Field(default=False, description="Say more.")
    crop: bool = Field(default=True, description="Cut off.")
    name: str | None = Field(default=None, description="A name.")
    calibration: int = Field(default=3, description="As others name a file.")


def parse(*words: str) -> Sample:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_options(parser, OptionGroup("options", "options", Sample))
    return Sample.parse(vars(parser.parse_args(words)))


def test_options_of_nothing_typed_are_the_defaults():
    assert parse() == Sample()


def test_options_of_typed_values_are_the_models_own():
    typed = parse(
        *("--side-px", "4", "--share", "0.25", "--kind", "two"),
        *("--loud", "--no-crop", "--name", "x", "--calibration", "5"),
    )
    expected = Sample(
        side_px=4,
        share=0.25,
        kind="two",
        loud=True,
        crop=False,
        name="x",
        calibration=5,
    )
    assert typed == expected


@pytest.mark.parametrize(
    ("words", "code", "values"),
    [
        (("--side-px", "1"), "out-of-range", r"`side_px` .* 2, got '1'"),
        (("--side-px", "many"), "wrong-type", r"`side_px` .*'many'"),
        (("--share", "nan"), "out-of-range", r"`share` .*'nan'"),
    ],
    ids=["bound", "kind", "nan"],
)
def test_options_of_wrong_values_are_refused_by_the_model(words, code, values):
    with refused(OptionError, code, match=values):
        parse(*words)


def test_add_options_help_tells_description_and_default():
    parser = argparse.ArgumentParser()
    add_options(parser, OptionGroup("options", "options", Sample))
    text = " ".join(parser.format_help().split())
    assert "side of a block" in text
    assert "share of 50 % (default: 0.5)" in text
    assert "{one,two}" in text


def test_add_options_leaves_out_what_is_excluded():
    parser = argparse.ArgumentParser()
    add_options(parser, OptionGroup("options", "options", Sample, ("share",)))
    assert "--share" not in parser.format_help()
