"""Validate the docstrings of what stands on the faces of the rooms, by numpydoc.

Run: ``python scripts/lint_docstrings.py [ROOM ...]``. A face is the ``__init__.pyi`` of
the package or of a room; of a class on a face its public methods count, too. Checks,
exclusions and overrides are those of ``[tool.numpydoc_validation]`` in pyproject.toml.
The sources are read, not imported. Prints one line for each fault; the end status is 1
if there is one.
"""

import ast
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from numpydoc.hooks.validate_docstrings import parse_config, process_file

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "napari_semsr"
ROOMS = (
    "",  # the package itself
    *("core", "io", "simulation", "stitching", "registration", "pairing"),
    *("restoration", "analysis"),
    *("models", "training", "inference"),
)
"""Rooms that others use from Python. Jobs, pages and the demonstration are used as
verbs, whose options, figures and files say what they are."""


def exported(face: Path) -> dict[Path, set[str]]:
    """Give the names that a face exports, by the file that defines them."""
    names = defaultdict(set)
    for node in ast.parse(face.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            place = face.parent.joinpath(*node.module.split("."))
            names[place.with_suffix(".py")] |= {
                item.asname or item.name for item in node.names
            }
    return names


def on_face(tree: ast.Module, names: set[str]) -> set[str]:
    """Give the functions, classes and methods of a module that are on a face."""
    found = set()
    for node in tree.body:
        if getattr(node, "name", None) in names:
            found.add(node.name)
            if isinstance(node, ast.ClassDef):
                found |= {f"{node.name}.{part}" for part in _methods(node)}
    return found


def _methods(node: ast.ClassDef) -> set[str]:
    """Name the methods of a class."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {part.name for part in node.body if isinstance(part, kinds)}


def faults(room: str, config: dict[str, Any]) -> set[str]:
    """Say what numpydoc finds on the face of a room, one line each."""
    lines = set()
    for path, names in exported(PACKAGE / room / "__init__.pyi").items():
        wanted = on_face(ast.parse(path.read_text()), names)
        for place, name, check, said in process_file(path, config):
            short = name.partition(".")[2]
            if short in wanted:
                where = Path(place).relative_to(ROOT)
                lines.add(f"{where}: {check} {short}: {' '.join(said.split())}")
    return lines


def main(rooms: list[str]) -> int:
    """Print the faults of some rooms, or of all."""
    config = parse_config(ROOT)
    found = set().union(*(faults(room, config) for room in rooms or ROOMS))
    print(*sorted(found), sep="\n", end="\n" if found else "")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
