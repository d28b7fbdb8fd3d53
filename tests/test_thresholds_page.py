"""The numbers on the manual's list of thresholds are those of the code."""

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.broad

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "napari_semsr"
PAGE = ROOT / "docs" / "validation" / "thresholds.md"


def _stated() -> dict[str, dict[str, str]]:
    """Values on the page, by module and name."""
    room, found = "", {}
    for line in PAGE.read_text("utf-8").splitlines():
        if line.startswith("## "):
            room = line[3:]
        row = re.match(r"\| `([\w/]+)` \| `([\w.]+)` \| `([^`]+)` \|", line)
        if row:
            module = row[1] if row[1] == room else f"{room}/{row[1]}"
            found.setdefault(module, {})[row[2]] = row[3]
    return found


def _values(module: str) -> dict[str, str]:
    """What the names of a module and of its classes are assigned."""
    tree = ast.parse((SOURCE / f"{module}.py").read_text("utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    scopes = [("", tree), *((f"{node.name}.", node) for node in classes)]
    found = {}
    for prefix, scope in scopes:
        for node in scope.body:
            if isinstance(node, ast.AnnAssign) and node.value is not None:
                found[prefix + ast.unparse(node.target)] = ast.unparse(node.value)
            elif isinstance(node, ast.Assign):
                target, value = node.targets[0], node.value
                pairs = [(target, value)]
                if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                    pairs = list(zip(target.elts, value.elts, strict=True))
                found |= {prefix + ast.unparse(a): ast.unparse(b) for a, b in pairs}
    return found


STATED = _stated()


def test_the_list_is_read():
    assert sum(map(len, STATED.values())) > 100


@pytest.mark.parametrize("module", STATED)
def test_names_have_the_values_that_are_listed(module):
    values = _values(module)
    assert {name: values.get(name) for name in STATED[module]} == STATED[module]
