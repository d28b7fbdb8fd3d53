"""Write the reference pages from the code: every command, every public name.

`conf.py` calls `write_reference` before each build, so the pages are always up to date.
"""

import argparse
import ast
import importlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import napari_semsr
from napari_semsr.cli.command import build_parser
from napari_semsr.jobs import get_check_figures
from napari_semsr.jobs.index import FORMER, LAST_COMMIT
from napari_semsr.models.cards import list_bundled_models, read_card, resolve_model_path

PACKAGE = Path(napari_semsr.__file__).parent
API, MADE = "napari_semsr.api", "napari_semsr.functions"
ROOMS = {
    "core": "Shared values and arithmetic",
    "io": "Reading and writing files",
    "simulation": "Phantoms, microscope, scans, degradations",
    "stitching": "Stitching frames",
    "pairing": "Training patches",
    "restoration": "Classical restoration",
    "analysis": "Measures",
    "models": "Networks and model files",
    "training": "Training",
    "inference": "Running a model tile by tile",
    "jobs": "Jobs",
    "reporting": "Report pages",
}


def write_reference(folder: Path) -> None:
    """Write all generated pages into `folder`; do not touch unchanged files."""
    folder.mkdir(exist_ok=True)
    os.environ["COLUMNS"] = "80"  # the width to which argparse wraps
    pages = {"commands.md": command_page(), "python.md": python_page()}
    pages["checks.md"] = checks_page()
    pages["api.md"] = api_page()
    pages["codes.md"] = codes_page()
    pages["former.md"] = former_page()
    pages |= {f"{room}.md": room_page(room) for room in ROOMS}
    for name, text in pages.items():
        path = folder / name
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)
    for path in folder.glob("*.md"):
        if path.name not in pages:
            path.unlink()


def command_page() -> str:
    """Write the page of commands, one section each."""
    parser = build_parser()
    lines = [
        "# Command line",
        "",
        "Generated from the parser; `semsr COMMAND --help` prints the same text.",
        "Lengths are in nanometres and coordinates are `(y, x)`. Progress is printed",
        "to stderr; with `--json`, stdout is exactly one JSON object.",
        "",
        "Exit codes: 0 success; 2 invalid input or usage, with one line of",
        "explanation; 130 interrupted, finished parts are kept.",
        "",
    ]
    for name, verb in subparsers(parser).items():
        lines += describe_parser(verb, f"semsr {name}", level=2)
    return "\n".join(lines) + "\n"


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the subcommands of a parser, by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def describe_parser(
    parser: argparse.ArgumentParser, name: str, *, level: int
) -> Iterator[str]:
    """Yield heading, usage and options of a command, then its subcommands."""
    parser.expand_help()
    usage = parser.format_usage().removeprefix("usage: ").rstrip()
    yield from ("#" * level + f" {name}", "", parser.description or "", "")
    yield from ("```text", usage, "```", "")
    for group in parser._action_groups:
        rows = [
            row for action in group._group_actions for row in describe_action(action)
        ]
        if rows:
            yield from (f"*{group.title}*", "", *rows)
    for sub, inner in subparsers(parser).items():
        yield from describe_parser(inner, f"{name} {sub}", level=level + 1)


def describe_action(action: argparse.Action) -> Iterator[str]:
    """Yield the definition-list entry of an option or an argument."""
    if isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
        return
    value = action.metavar or (action.choices and "{" + "|".join(action.choices) + "}")
    if action.option_strings:
        takes = f" {value or action.dest.upper()}" if action.nargs != 0 else ""
        term = ", ".join(action.option_strings) + takes
    else:
        term = str(value or action.dest)
    text = " ".join(((action.help or "") % {"default": action.default}).split())
    if action.choices and action.metavar:
        text += f" One of {', '.join(map(str, action.choices))}."
    yield from (f"`{term}`", f": {escape(text)}", "")


def escape(text: str) -> str:
    """Escape characters of plain help text that Markdown would interpret."""
    for character in "\\*_<>[]$|":
        text = text.replace(character, "\\" + character)
    return text


def write_table(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Yield a header row and rows as lines of a Markdown table."""
    head, *others = rows
    for row in (head, ("---",) * len(head), *others):
        yield f"| {' | '.join(row)} |"


def checks_page() -> str:
    """Write tables of the checks stored in the cards of the bundled models."""
    lines = [
        "# What the bundled models show",
        "",
        "Generated from the model cards.",
        "[Models](../models.md#does-it-show-what-is-there) describes the tests.",
        "",
    ]
    for name in list_bundled_models():
        card = read_card(resolve_model_path(name)).model_dump()
        figures = get_check_figures(card).items()
        rows = [(label, str(figure)) for label, figure in figures]
        lines += [f"## {name}", "", *write_table([("check", "result"), *rows]), ""]
    return "\n".join(lines)


def python_page() -> str:
    """Write the page of the public names of ``napari_semsr`` and its packages."""
    lines = [
        "# Python",
        "",
        "`import napari_semsr` is fast and loads neither torch nor Qt; each name",
        "below is imported on first use.",
        "",
        "```{eval-rst}",
        ".. currentmodule:: napari_semsr",
        "",
        *top_level_entries(),
        "```",
        "",
        "## Functions and packages",
        "",
        "```{toctree}",
        ":maxdepth: 1",
        "",
        "api",
        *ROOMS,
        "```",
    ]
    return "\n".join(lines) + "\n"


def top_level_entries() -> Iterator[str]:
    """Yield a summary line, with a link, for each name that the package exports."""
    names = [name for name in napari_semsr.__all__ if not name.startswith("_")]
    for name in names:
        value = getattr(napari_semsr, name)
        home = getattr(value, "__module__", "napari_semsr")
        summary = (value.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
        role = "class" if isinstance(value, type) else "func"
        target = f"{home}.{getattr(value, '__qualname__', name)}"
        yield f":py:{role}:`napari_semsr.{name} <{target}>`"
        yield f"    {' '.join(summary.split())}"
        yield ""


def codes_page() -> str:
    """Write the page of the codes of errors and warnings, with an example of each."""
    lines = [
        "# Codes of errors and warnings",
        "",
        "Generated from the code. With `--json`, errors have `code` and `message`, and",
        "`warning_codes` names the causes of `warnings`, in the same order; exceptions",
        "have the attribute `code`. Messages may change, codes are stable.",
        "",
    ]
    found: dict[str, tuple[str, str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for code, kind, sentence in codes_of(ast.parse(path.read_text())):
            found.setdefault(code, (kind, sentence))
    rows = [(f"`{code}`", *found[code]) for code in sorted(found)]
    table = write_table([("code", "kind", "for example"), *rows])
    return "\n".join([*lines, *table, ""])


def former_page() -> str:
    """Write the page of names that left, with what to use instead."""
    lines = [
        "# Former names",
        "",
        "Generated from the code. Commands, functions, options and panels of former",
        "versions answer with these sentences. Files that they wrote still open.",
        "",
    ]
    rows = [(f"`{name}`", text) for name, text in sorted(FORMER.items())]
    table = write_table([("name", "is gone"), *rows])
    return "\n".join([*lines, *table, "", f"The last commit is {LAST_COMMIT}.", ""])


def codes_of(tree: ast.AST) -> Iterator[tuple[str, str, str]]:
    """Find codes in a module: code, class or "warning", and an example message."""
    for scope in ast.walk(tree):
        if isinstance(scope, ast.ClassDef):
            yield from class_code(scope)
            for item in scope.body:
                if isinstance(item, ast.FunctionDef):
                    yield from call_codes(item, scope.name)
        elif isinstance(scope, ast.FunctionDef):
            yield from call_codes(scope)
        elif isinstance(scope, ast.Module):  # constants
            values = [item for item in scope.body if isinstance(item, ast.Assign)]
            constants = ast.Module(body=values, type_ignores=[])
            for code, _, sentence in call_codes(constants):
                yield code, "error", sentence


def class_code(scope: ast.ClassDef) -> Iterator[tuple[str, str, str]]:
    """Find the default code of an error class."""
    for item in scope.body:
        if isinstance(item, ast.Assign) and ast.unparse(item.targets) == "code":
            summary = (ast.get_docstring(scope) or "").split("\n")[0]
            yield ast.literal_eval(item.value), scope.name, summary


def call_codes(
    scope: ast.FunctionDef | ast.Module, owner: str = ""
) -> Iterator[tuple[str, str, str]]:
    """Find codes of errors and warnings in a function of a class, or in constants."""
    nodes = [*ast.walk(scope)]
    decorators = getattr(scope, "decorator_list", ())
    checks_options = any("_validator" in ast.unparse(d) for d in decorators)
    raised = {
        part: ast.unparse(item.exc.func).rpartition(".")[2]
        for item in nodes
        if isinstance(item, ast.Raise) and isinstance(item.exc, ast.Call)
        for part in ast.walk(item.exc)
    }
    assigned = [item for item in nodes if isinstance(item, ast.Assign)]
    for call in nodes:
        if not isinstance(call, ast.Call) or not call.args:
            continue
        name = ast.unparse(call.func).rpartition(".")[2]
        is_warning = name in ("warn", "Message")
        given = [one.value for one in call.keywords if one.arg == "code"]
        given += call.args[1:2] if is_warning else []
        first = call.args[0]
        texts = [  # if the message is a name, its last assignment before the call
            sentence_in(item.value)
            for item in sorted(assigned, key=lambda item: item.lineno)
            if item.lineno < call.lineno
            and ast.unparse(item.targets[0]) == ast.unparse(first)
        ]
        sentence = texts[-1] if texts else sentence_in(first)
        choices = [
            part
            for code in given
            for part in (
                (code.body, code.orelse) if isinstance(code, ast.IfExp) else (code,)
            )
        ]
        for code in choices:
            if isinstance(code, ast.Constant) and code.value:
                kind = raised.get(call, "warning") if is_warning else name
                kind = owner if kind == "__init__" else kind
                if checks_options or kind == "ValueError":
                    kind = "OptionError"
                yield code.value, kind, escape(sentence)


def sentence_in(value: ast.AST) -> str:
    """Return the text of a literal, with … for inserted values."""
    if isinstance(value, ast.JoinedStr):
        return "".join(
            part.value if isinstance(part, ast.Constant) else "…"
            for part in value.values
        )
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return " ".join(value.value.split())
    return ""


def api_page() -> str:
    """Write the page of all top-level functions with their options."""
    lines = ["# Functions: `import napari_semsr`", "", "```{eval-rst}"]
    for name in sorted(napari_semsr.__all__):
        home = getattr(getattr(napari_semsr, name), "__module__", "")
        if home in (API, MADE):
            lines += [f".. autofunction:: {home}.{name}", ""]
    return "\n".join([*lines, "```", ""])


def room_page(room: str) -> str:
    """Write the page of the public names of one package, module by module."""
    lines = [f"# {ROOMS[room]}: `napari_semsr.{room}`", ""]
    package = importlib.import_module(f"napari_semsr.{room}")
    lines += [" ".join((package.__doc__ or "").split()), ""]
    for module, names in sorted(face(PACKAGE / room / "__init__.pyi").items()):
        lines += [
            f"## {module}",
            "",
            "```{eval-rst}",
            f".. automodule:: napari_semsr.{room}.{module}",
            f"    :members: {', '.join(names)}",
            "```",
            "",
        ]
    return "\n".join(lines)


def face(stub: Path) -> dict[str, list[str]]:
    """Return the names that a package exports, by the module that defines them."""
    return {
        node.module: [item.name for item in node.names if item.name == item.asname]
        for node in ast.parse(stub.read_text()).body
        if isinstance(node, ast.ImportFrom) and node.module
    }
