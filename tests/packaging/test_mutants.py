"""Changes that the tests are to notice: which there are, and what becomes of them."""

import textwrap

import pytest

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
