"""Changes that the tests are to notice: which there are, and what becomes of them."""

import json
import os
import textwrap

import pytest

from tests import children

pytest.importorskip("resource", reason="bounds of a process are POSIX")
pytest.importorskip("pwd", reason="the copy of the checkout is made on POSIX alone")

from scripts import mutants

pytestmark = pytest.mark.broad

PATH = "src/napari_semsr/core/count.py"
SOURCE = textwrap.dedent(
    '''
    """A text with 1 number."""

    from typing import TYPE_CHECKING

    if TYPE_CHECKING:
        LIMIT = 12

    @keep(size=8)
    def count(items: "list[int] | None" = None, *, least: Literal[3] = 2) -> Set[4]:
        """Count from 7."""
        total: Annotated[int, 9] = 0
        for item in items or ():
            if not item:
                continue
            if item >= least and item != 5:
                total += (
                1
                )
        assert total, f"{total + 6} µm"
        return -total if total else None
    '''
).encode()

NEGATED = "(not (item >= least and item != 5))"


def found(source):
    return {
        (source[one.start : one.end].decode(), one.kind, one.choices)
        for one in mutants.find_places(PATH, source)
    }


def test_places_are_all_that_runs_and_nothing_else():
    assert found(SOURCE) == {
        ("2", "constant", ("3", "1")),
        ("0", "constant", ("1", "(-1)")),
        ("items or ()", "boolean", ("(items and ())",)),
        ("not item", "boolean", ("item",)),
        ("continue", "jump", ("break",)),
        ("item >= least and item != 5", "boolean", ("(item >= least or item != 5)",)),
        ("item >= least and item != 5", "boolean", (NEGATED,)),
        ("item >= least", "comparison", ("(item > least)", "(item < least)")),
        ("item != 5", "comparison", ("(item == 5)",)),
        ("5", "constant", ("6", "4")),
        ("total += (\n            1\n            )", "arithmetic", ("total -= 1",)),
        ("1", "constant", ("2", "0")),
        ("total", "boolean", ("(not total)",)),
        ("-total", "boolean", ("total",)),
        ("return -total if total else None", "return", ("return None",)),
    }


COUNT = """LEAST = 3
def count(n, step=1):
    while n > LEAST:
        n -= step
    return (
        n + 0
    )
"""
JUDGE = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from scripts.mutants import Covered, Mutant, find_places, judge
path, copy = sys.argv[1], Path(sys.argv[2])
source = (copy / path).read_bytes()
lines = {line: {"tests/core/test_count.py"} for line in (3, 4, 5)}
covered = Covered(3, {path: lines}, {})
for place in find_places(path, source):
    for text in place.choices:
        mutant = Mutant(path, place.start, place.end, place.kind, text)
        done = judge(mutant, source, copy, covered)
        print("RESULT", json.dumps([text, done.outcome, done.by]))
assert (copy / path).read_bytes() == source
"""


@pytest.fixture
def checkout(tmp_path):
    """A package of one function, with a test that asks for less than it does."""
    copy = tmp_path / "copy"
    for folder in ("src/napari_semsr/core", "tests/core"):
        (copy / folder).mkdir(parents=True)
    for name in ("__init__.py", "core/__init__.py"):
        (copy / "src/napari_semsr" / name).touch()
    (copy / PATH).write_text(COUNT)
    (copy / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    (copy / "tests/core/test_count.py").write_text(
        "from napari_semsr.core.count import count\n"
        "def test_count():\n    assert count(9) <= 3\n"
    )
    return copy


@pytest.mark.slow  # failed once beside a whole run, for no known reason
def test_a_change_is_killed_by_a_test_or_by_time_or_survives(checkout):
    bare = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # starts within the limit
    said = children.run_python(JUDGE, PATH, checkout, env=os.environ | bare)
    lines = [line for line in said.splitlines() if line.startswith("RESULT")]
    results = [tuple(json.loads(line[7:])) for line in lines]
    failed = "tests/core/test_count.py::test_count"
    assert results == [
        ("4", "killed", failed),
        ("2", "survived", ""),
        ("2", "survived", ""),
        ("0", "killed", "time"),
        ("(n >= LEAST)", "survived", ""),
        ("(n <= LEAST)", "killed", failed),
        ("n += step", "killed", "time"),
        ("return None", "killed", failed),
        ("(n - 0)", "survived", ""),
        ("1", "killed", failed),
        ("(-1)", "survived", ""),
    ]
