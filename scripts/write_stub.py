"""Write what names the verbs in other languages than Python, or say that it is behind.

These are the stub of the functions, the names of the package, and what the manifest
and the manual say of panels that a verb's value alone makes.

Run: ``python scripts/write_stub.py [--check]``.
"""

import argparse
import inspect
import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np

from napari_semsr import calls
from napari_semsr.calls import PathLike, Report, Source
from napari_semsr.core import Micrograph
from napari_semsr.io import ReadOptions
from napari_semsr.jobs import FUNCTIONS, INFO, Verb, get_verb

STUB = Path(calls.__file__).with_name("functions.pyi")
NAMES = STUB.with_name("__init__.pyi")
HEAD = """\
\"\"\"Functions that are made of verbs; written by scripts/write_stub.py.\"\"\"

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict, Unpack, overload

from numpy.typing import ArrayLike
"""
ALIASES = """\
PathLike = str | os.PathLike[str]
Source = Micrograph | ArrayLike | PathLike
Report = Callable[[Progress], None]
"""
NAMED = {Source: "Source", PathLike: "PathLike", Report: "Report"}


def spell(kind: Any) -> str:
    """Write a type."""
    for known, name in NAMED.items():
        if kind in (known, known | None):
            return name if kind == known else f"{name} | None"
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        for known in (Source, PathLike):
            if set(get_args(known)) <= set(parts):
                rest = [one for one in parts if one not in get_args(known)]
                parts = (*rest, known)
        last = sorted(parts, key=lambda one: one is types.NoneType)
        return " | ".join(map(spell, last))
    if origin is Annotated:
        return spell(parts[0])
    if origin is Literal:
        return f"Literal[{', '.join(map(json.dumps, parts))}]"
    if origin is not None and origin is not np.ndarray:
        inner = ", ".join("..." if part is Ellipsis else spell(part) for part in parts)
        return f"{origin.__name__}[{inner}]"
    words = {types.NoneType: "None", Any: "Any"}
    return "NDArray[Any]" if origin else words.get(kind) or str(kind.__name__)


def _python(value: object) -> str:
    """Write a default."""
    return json.dumps(value) if isinstance(value, str) else repr(value)


READING = "Reading"
"""What the stub calls the options of reading, which nearly all functions take."""


def _parameter(item: inspect.Parameter) -> str:
    """Write a parameter with its type, and its default if it has one."""
    stars = "**" if item.kind is inspect.Parameter.VAR_KEYWORD else ""
    shown = "" if item.default is inspect.Parameter.empty else " = ..."
    if shown and isinstance(item.default, bool | int | float | str | None):
        shown = f" = {_python(item.default)}"
    return f"{stars}{item.name}: {spell(item.annotation)}{shown}"


def _keywords(name: str, items: list[inspect.Parameter], base: str) -> list[str]:
    """Write keywords that several functions take, with their defaults beside them."""
    lines = [f"class {name}({base}, total=False):"]
    for item in items:
        shown, _, default = _parameter(item).partition(" = ")
        lines.append(f"    {shown}  # {default}")
    return lines


def _parameters(verb: Verb[Any, Any]) -> list[inspect.Parameter]:
    return [*calls.create_signature(verb).parameters.values()]


READING_OPTIONS = [i for i in _parameters(INFO) if i.name in ReadOptions.model_fields]


def _function(
    verb: Verb[Any, Any], gives: Any, items: list[inspect.Parameter], more: str
) -> str:
    """Write a function with its parameters; `more` are keywords that have a name."""
    shown = [_parameter(item) for item in items]
    named = [item.kind is inspect.Parameter.KEYWORD_ONLY for item in items]
    if any(named):
        shown.insert(named.index(True), "*")
    shown += [f"**options: Unpack[{more}]"] if more else []
    return f"def {verb.function_name}({', '.join(shown)}) -> {spell(gives)}: ..."


def _functions(verb: Verb[Any, Any]) -> list[str]:
    """Write the function of a verb, twice where an image may be kept or written."""
    items, more = _parameters(verb), ""
    if not verb.reading_prefixes and all(item in items for item in READING_OPTIONS):
        items, more = [i for i in items if i not in READING_OPTIONS], READING
    kinds = get_args(verb.return_type)
    if Micrograph not in kinds:
        return [_function(verb, verb.return_type, items, more)]
    alone = [item for item in items if item.kind is inspect.Parameter.KEYWORD_ONLY]
    items = [item for item in items if item not in alone]
    name = f"{verb.function_name.capitalize()}Keywords"
    lines = _keywords(name, alone, more or "TypedDict")
    place = next(n for n, item in enumerate(items) if item.name == "output")
    for target, kind in zip((types.NoneType, PathLike), kinds, strict=True):
        none = None if target is types.NoneType else inspect.Parameter.empty
        items[place] = items[place].replace(annotation=target, default=none)
        lines += ["@overload", _function(verb, kind, items, name)]
    return lines


def stub() -> str:
    """Write all functions."""
    lines = _keywords(READING, READING_OPTIONS, "TypedDict")
    results = {
        "napari_semsr.core.micrograph": {"Micrograph"},
        "napari_semsr.core.progress": {"Progress"},
    }
    for name in FUNCTIONS.values():
        verb = get_verb(name)
        if verb is None:
            continue
        given = verb.return_type
        kinds = (given, *(item.annotation for item in _parameters(verb)))
        for kind in (each for one in kinds for each in get_args(one) or (one,)):
            ours = getattr(kind, "__module__", "").startswith("napari_semsr.")
            if ours and kind is not Micrograph:
                results.setdefault(kind.__module__, set()).add(kind.__name__)
        lines += ["", *_functions(verb)]
    imports = [
        f"from {package} import {', '.join(sorted(names))}"
        for package, names in sorted(results.items())
    ]
    text = "\n".join([HEAD, *imports, "", ALIASES.rstrip(), *lines]) + "\n"
    ruff = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(STUB), "-"]
    made = subprocess.run(ruff, input=text, capture_output=True, text=True, check=True)
    return made.stdout


def names() -> str:
    """Write the names of the package, those of the functions last."""
    head, _, _ = NAMES.read_text().partition("from .functions import (")
    lines = [f"    {name} as {name}," for name in sorted(FUNCTIONS)]
    return "\n".join([f"{head}from .functions import (", *lines, ")\n"])


WRITTEN = {STUB: stub, NAMES: names}
"""What is written, and how."""


def main() -> None:
    """Write them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    asked = parser.parse_args()
    for path, write in WRITTEN.items():
        text = write()
        if asked.check and path.read_text() != text:
            sys.exit(f"{path} is behind: run this.")
        if not asked.check:
            path.write_text(text)


if __name__ == "__main__":
    main()
