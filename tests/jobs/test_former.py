"""Names of former versions: each use of one says what to do instead."""

import json

import pytest

import napari_semsr as semsr
from napari_semsr.cli import main
from napari_semsr.core import InputRecord, OptionError, Provenance, ReadError
from napari_semsr.jobs import ACTIONS, FUNCTIONS, VERBS
from napari_semsr.jobs.history import read_history
from napari_semsr.jobs.index import FORMER, LAST_COMMIT
from tests.refusals import refused


@pytest.fixture(autouse=True)
def gone(monkeypatch):
    rows = ("knit", "models knit", "crop --knit", "panel Knit")
    for row in rows:
        monkeypatch.setitem(FORMER, row, "use `crop()`")


def test_no_former_name_is_in_use():
    assert not FORMER.keys() & {*VERBS, *ACTIONS, *FUNCTIONS}


@pytest.mark.parametrize(
    "words",
    [
        ("knit", "crop", "-o", "b.tif"),  # a file named as a command
        ("models", "knit", "a"),
        ("crop", "a.tif", "-o", "b.tif", "--knit=3"),
        ("crop", "a.tif", "-o", "b.tif", "--purl", "2", "--knit"),
    ],
)
def test_commands_actions_and_options_answer_on_the_command_line(words, capsys):
    assert main([*words, "--json"]) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out)["code"] == "former-name"
    assert "semsr crop" in printed.err
    assert LAST_COMMIT in printed.err


def test_functions_and_options_answer_in_python(tmp_path):
    with pytest.raises(AttributeError, match=LAST_COMMIT):
        semsr.knit  # noqa: B018
    assert not hasattr(semsr, "knit")
    with refused(OptionError, "former-name"):
        semsr.crop(tmp_path / "a.tif", tmp_path / "b.tif", knit=True)
    with refused(OptionError, "former-name"):
        semsr.measure_table("knit", tmp_path)


@pytest.mark.parametrize(
    "how", [{"job": "knit"}, {"options": {"knit": True}}, {"part": "knit"}]
)
def test_histories_are_refused_by_the_name_that_left(how, tmp_path):
    image = InputRecord(role="image", name="a.tif", digest="sha256:0")
    history = Provenance(**{"job": "crop", "inputs": (image,)} | how)
    with refused(ReadError, "former-name", match=LAST_COMMIT):
        read_history(history, tmp_path / "b.tif")
