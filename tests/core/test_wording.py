"""What jobs say, in the words of panels."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import napari_semsr
from napari_semsr.cli.command import arguments_of
from napari_semsr.core import (
    OptionError,
    in_argument_words,
    in_digits,
    in_figures,
    in_panel_words,
    shift_in_words,
    told_in_panel_words,
)
from napari_semsr.jobs import ACTIONS, VERBS

SOURCE = Path(napari_semsr.__file__).parent
COMMAND = re.compile(r"(?<![\w-])--[a-z]|(?<![\w.-])semsr [a-z]")
LABELS = {
    "norm": ("Normalisation", {"whole": "whole", "sampled": "sampled", "tile": "tile"}),
    "device": ("Device", {"auto": "automatic", "cpu": "CPU"}),
    "existing": ("If it exists", {"resume": "resume it", "replace": "replace it"}),
    "patch": ("Patch (px)", {}),
    "like": ("To the area of", {}),
    "model": ("Map", {"elastic": "elastic (bent)"}),
}


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
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            skipped.add(id(body[0].value))
        if id(node) not in skipped:
            yield node


def sentences() -> list[str]:
    """Everything with words of the command line that a panel may come to say."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        if "cli" in path.relative_to(SOURCE).parts or path.stem == "wording":
            continue
        for node in _undocumented(ast.parse(path.read_text(encoding="utf-8"))):
            text = _text(node) or ""
            if COMMAND.search(text) and " " in text.strip():
                found.add(text)
    return sorted(found)


FLAGS = {
    flag
    for verb in ({*VERBS} - {"models"}) | {*ACTIONS}
    for action in arguments_of(verb)
    for flag in action.option_strings
} | {"--debug", "--json", "--plugin", "--view"}  # of every command; --view-…
SENTENCES = [text for text in sentences() if not re.fullmatch(r"semsr [a-z ]+", text)]


def test_many_sentences_are_found():
    assert len(SENTENCES) > 40


@pytest.mark.parametrize("text", SENTENCES)
@pytest.mark.parametrize("labels", [{}, LABELS], ids=["none", "some"])
def test_no_sentence_speaks_of_the_command(text, labels):
    said = in_panel_words(text, lambda: labels)
    assert not COMMAND.search(said)
    assert "`" not in said
    assert "  " not in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("use --norm whole, which runs", "use 'Normalisation: whole', which runs"),
        ("use --device cpu.", "use 'Device: CPU'."),
        ("or use --overwrite.", "or use 'If it exists: replace it'."),
        ("again with --resume; kept", "again with 'If it exists: resume it'; kept"),
        ("give --like REFERENCE as well", "give 'To the area of' as well"),
        ("or lower --patch.", "or lower 'Patch (px)'."),
        ("or are bent (--model elastic).", "or are bent ('Map: elastic (bent)')."),
        (
            "is unknown: give it one (--pixel-size-nm, or Open mosaic in napari).",
            "is unknown: give it one (Open mosaic in napari).",
        ),
        ("Option patch must be 4.", "'Patch (px)' must be 4."),
        ("Option other must be 4.", "Option other must be 4."),
        ("onto one grid (semsr crop).", "onto one grid (Crop)."),
        ("cut them off (semsr crop --gap-free).", "cut them off (Crop)."),
        (
            "; stitch with --halves",
            "; stitch with 'Two halves for FRC' (in Stitch mosaic)",
        ),
        ("of napari-semsr 1.0 -- no", "of napari-semsr 1.0 -- no"),
    ],
)
def test_flags_become_rows_of_the_panel(text, said):
    assert in_panel_words(text, lambda: LABELS) == said


@pytest.mark.parametrize("text", SENTENCES)
def test_each_option_that_is_named_is_one(text):
    assert {*re.findall(r"(?<![\w-])--[a-z]+(?:-[a-z]+)*", text)} <= FLAGS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("use --norm whole, which runs", "use norm=whole, which runs"),
        ("give --like REFERENCE as well", "give like as well"),
        ("scan it (--from), or semsr crop --gap-free.", "scan it (image), or crop."),
        ("or lower --frame-px.", "or lower frame_px."),
    ],
)
def test_flags_become_arguments_of_functions(text, said):
    assert in_argument_words(text, {"--from": "image"}) == said


def test_errors_for_napari_keep_their_class():
    @told_in_panel_words()
    def refuse() -> None:
        msg = "It exists: choose another name, or use --overwrite."
        raise OptionError(msg)

    with pytest.raises(OptionError, match="choose another name, or use 'Replace'"):
        refuse()


@pytest.mark.parametrize(
    ("value", "said"),
    [(3040.2, "3040"), (61234.0, "61200"), (0.32184, "0.322"), (12.0, "12"), (0, "0")],
)
def test_in_digits_writes_large_numbers_out(value, said):
    assert in_digits(value) == said


def test_shift_is_said_without_signs():
    assert shift_in_words((302.4, -41.52)) == "302 nm down, 41.5 nm left"
    assert shift_in_words((-343559.0, 2000.0)) == "344 µm up, 2 µm right"


@pytest.mark.parametrize(
    ("value", "text"),
    [(65535, "65535"), (65535.0, "65535"), (19083.4, "19080"), (0.0123, "0.0123")],
)
def test_a_count_is_written_in_all_its_digits(value, text):
    assert in_figures(value) == text
