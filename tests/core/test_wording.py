"""How sentences name options, in the words of a command, a panel or Python."""

import ast
import re
from collections.abc import Iterator

import pytest

from napari_semsr.cli.command import convert_names_to_flags, list_arguments
from napari_semsr.core import describe_shift, replace_option_names
from napari_semsr.jobs import ACTIONS, FUNCTIONS, VERBS
from tests.sources import trees

BELOW = ["analysis", "core", "inference", "io", "models", "pairing", "registration"]
BELOW += ["restoration", "simulation", "stitching", "training"]
PYTHON = {"flat", "array_to_image"}  # of sentences to who writes programs


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) or "7" for part in node.values)
    return None


def _undocumented(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk all but docstrings and the parts of texts."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
        if isinstance(node, ast.Expr):
            skipped.add(id(node.value))
        if id(node) not in skipped:
            yield node


def sentences() -> set[str]:
    """Texts of all rooms that a user may read, but for docstrings."""
    found = set()
    for name, tree in trees().items():
        if name.partition("/")[0] in [*BELOW, "jobs"]:
            found |= {_text(node) or "" for node in _undocumented(tree)}
    return found


@pytest.mark.broad
def test_each_option_and_verb_that_is_named_is_one():
    names = [*VERBS, *ACTIONS]
    options = {
        one.dest for verb in {*names} - {"models"} for one in list_arguments(verb)
    }
    options |= {"debug", "json", "view_…", ""}
    strange = set()

    def look(verb: str, option: str, value: str) -> str:
        if option not in {*options, *PYTHON} or verb not in {*FUNCTIONS, ""}:
            strange.add((verb, option, value))
        return ""

    named = [text for text in sentences() if re.search(r"(?<!`)`[a-z]", text)]
    assert len(named) > 150
    for text in named:
        replace_option_names(text, look)
    assert strange == set()


def test_options_become_flags():
    arguments = list_arguments("enhance")
    for text, said in (
        ("use `norm=whole`, which runs", "use --norm whole, which runs"),
        ("use `resample=never`.", "use --no-resample."),
        ("or use `overwrite`.", "or use --overwrite."),
        ("off (`crop(gap_free=True)`)", "off (semsr crop --gap-free)"),
        ("take `error_map()` or `like=…`", "take semsr error-map or --like"),
        ("a file `a b`, or ``", "a file `a b`, or ``"),
    ):
        assert convert_names_to_flags(text, arguments) == said
    said = convert_names_to_flags("Give `image`.", list_arguments("simulate"))
    assert said == "Give --from."


def test_shift_is_said_without_signs():
    assert describe_shift((302.4, -41.52)) == "302 nm down, 41.5 nm left"
    assert describe_shift((-343559.0, 2000.0)) == "344 µm up, 2 µm right"
