"""Names that are no text, commands to a terminal, or formulas: shown, never obeyed."""

import csv
import json
import os
import shutil
import sys

import numpy as np
import pytest

from napari_semsr.cli.command import main
from napari_semsr.core import Micrograph
from napari_semsr.io import write
from tests.hostile.commands import LINES, say
from tests.tiny_models import write_tiny_model

pytestmark = pytest.mark.broad
no_utf8 = pytest.mark.skipif(
    sys.platform in ("win32", "darwin"), reason="needs names of files in bytes"
)
MADE = ("out", "o.html")  # how the names of outputs begin


def without_text(place, word):
    """Give an input or output a name that is no text."""
    name = f"\udcff{word}"
    if (place / word).exists():
        (place / word).rename(place / name)
        return name
    return name if word.startswith(MADE) else word


@no_utf8
@pytest.mark.parametrize(
    "verb", [verb for verb in LINES if verb not in ("demo", "adapt")]
)
def test_names_that_are_no_utf8_are_taken(verb, place):
    words = [without_text(place, word) for word in LINES[verb]]
    more = ["--caption-file"] if verb == "figure" else []
    code, said = say(verb, *words, *more, "--json")
    assert code == 0, said


@no_utf8
def test_frames_whose_names_are_no_utf8_are_stitched_and_made_again(place):
    for path in (place / "scan").iterdir():
        path.rename(path.with_name(f"\udcff{path.name}"))
    (place / "scan").rename(place / "scan\udcff")
    grid = ("--grid", "1x2", "--overlap", "0.3", "--positions-out", "p.csv")
    lines = [
        ("scan\udcff", "-o", "g.ome.zarr", *grid),
        ("scan\udcff", "-o", "p.ome.tif", "--positions", "p.csv"),
    ]
    for words in lines:
        code, said = say("stitch", *words)
        assert code == 0, said
        code, said = say("replay", words[2], "--json")
        assert code == 0, said


HOSTILE = "\x1b]0;owned\x07\x9b31mred\x7f\u202egnp.exe\u2028\nsemsr: all is well"
COMMANDS = {"\x1b", "\x07", "\x9b", "\x7f", "\u202e", "\u2028", "\r"}


def heard(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) in (0, 2)
    found = capsys.readouterr()
    return found.out + found.err


@pytest.mark.parametrize("more", [(), ("--json",), ("--debug",)], ids=str)
def test_names_command_no_terminal(more, place, capsys):
    card = {"name": "tiny", "description": HOSTILE, "licence": HOSTILE}
    write_tiny_model(place, **card)
    image = Micrograph(np.ones((40, 48), np.float32), (5.0, 5.0), HOSTILE)
    write(image, place / "a.tif")
    (place / "scan" / "scan.json").write_text(json.dumps({HOSTILE: HOSTILE}))
    shutil.copy(place / "a.tif", place / "b\x1b[31m.tif")
    (place / "many").mkdir()
    for name in ("a.tif", "\udcff.tif") if sys.platform == "linux" else ("a.tif",):
        shutil.copy(place / "first.tif", place / "many" / name)
    lines = [
        ("models", "info", "tiny.safetensors"),
        ("info", "a.tif"),
        ("info", "b\x1b[31m.tif"),
        ("info", "nowhere\x1b[31m.tif"),
        ("metrics", "many", "--table", "\x1b.csv"),
        ("frc", "a.tif", "b\x1b[31m.tif"),
        ("figure", "a.tif", "-o", "f.png"),
        ("restore", "a.tif", "b\x1b[31m.tif", "-o", "out", "--suffix", HOSTILE),
        ("\x1b[31m",),
    ]
    for words in lines:
        told = heard(capsys, *words, *more)
        assert COMMANDS.isdisjoint(told), (words, told)
        alone = [line for line in told.splitlines() if line.startswith("semsr: all")]
        assert not alone, told


FORMULAS = ("=cmd|' /C calc'!A0", "+1+cmd", "-2+3", "@sum", "\uff1d1", "x;=1", "a\t@b")


@pytest.mark.parametrize("name", FORMULAS)
def test_no_cell_of_a_table_is_a_formula(name, place):
    safe = name.replace("/", "_")
    folder = place / "named"
    folder.mkdir()
    shutil.copy(place / "first.tif", folder / f"{safe}.tif")
    (place / "many.csv").write_text(f'image,"{safe}"\nfirst.tif,"{safe}"\n')
    code, said = say("metrics", "many.csv", "--table", "m.csv")
    assert code == 0, said
    os.chdir(folder)
    code, said = say("metrics", ".", "--table", "n.csv")
    assert code == 0, said
    for table in (place / "m.csv", folder / "n.csv"):
        text = table.read_text(encoding="utf-8")
        for mark in (",", ";", "\t"):
            for row in csv.reader(text.splitlines(), delimiter=mark):
                starts = {cell[:1] for cell in row if not is_number(cell)}
                assert starts.isdisjoint("=+-@\uff1d\uff0b\uff0d\uff20"), row
    code, said = say("metrics", "n.csv", "--table", "again.csv")  # found by its name
    assert code == 0, said


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
