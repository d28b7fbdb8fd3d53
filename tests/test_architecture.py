"""The walls of the house: faces, lazy imports, unique names; layers are linted."""

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

import napari_semsr
from tests.children import run_python
from tests.sources import SOURCE, trees

ROOT = Path(__file__).resolve().parents[1]
FACES = sorted(SOURCE.rglob("__init__.pyi"))
HEAVY = ("torch", "qtpy", "napari", "magicgui", "superqt", "PyQt6", "matplotlib")
SLOW = ("torch", "matplotlib", "scipy.interpolate", "scipy.optimize")
SLOW += ("scipy.signal", "scipy.stats")  # what no panel needs to open
PANELS = ", ".join(
    ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
    for path in sorted((SOURCE / "widgets").rglob("*.py"))
    if path.stem not in {"__init__", "plots"}
)

LOADED_AFTER = """
import sys
import {module}
print(*(name for name in {names!r} if name in sys.modules))
"""
RESOLVED = """
import gc
gc.disable()  # all that is imported stays
import importlib
import sys
for package in {packages!r}:
    face = importlib.import_module(package)
    for name in face.__all__:
        getattr(face, name)
print(*(name for name in ("qtpy", "napari", "magicgui") if name in sys.modules))
"""


@pytest.mark.quick(3)
@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("napari_semsr", (*HEAVY, "numpy", "pydantic")),
        ("napari_semsr.io.project", HEAVY),
        ("napari_semsr.cli.command", ("torch", "qtpy")),
        ("napari_semsr.jobs.enhance", ("torch", "qtpy", "scipy.ndimage")),
        ("napari_semsr.jobs.measure.resolution", ("scipy.signal", "scipy.stats")),
        ("napari_semsr.demonstration.job", ("scipy.signal", "scipy.stats")),
        (PANELS, SLOW),
    ],
)
def test_import_loads_nothing_heavy(module, names):
    assert run_python(LOADED_AFTER.format(module=module, names=names)) == "\n"


def test_tests_use_no_private_name():
    """Neither imported nor in the words of a patch; ruff sees to attributes."""
    imported = (
        r"from (?:napari_semsr|paper_tables)[\w.]* import (?:\([^)]*|.*)\b_[a-z].*"
    )
    patched = r"(?:set|get|del)attr\([^)\"']*[\"'](?:napari_semsr[\w.]*\.)?_[a-z]\w*"
    private = re.compile(rf"{imported}|{patched}|napari_semsr[\w.]*\._[a-z]\w*")
    found = {
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in (ROOT / "tests").rglob("*.py")
        for match in private.finditer(path.read_text("utf-8"))
    }
    assert found == set()


@pytest.mark.broad
def test_scripts_import_what_is_there():
    folders = (ROOT / name for name in (".ci", "benchmarks", "docs", "scripts"))
    trees = [
        ast.parse(path.read_text("utf-8"))
        for folder in folders
        for path in folder.rglob("*.py")
    ]
    wanted = {
        (node.module, item.name)
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and "napari_semsr" in (node.module or "")
        for item in node.names
    }
    assert len(wanted) > 50
    for module, name in wanted:
        if not hasattr(import_module(module), name):
            import_module(f"{module}.{name}")


def exported(face: Path) -> set[str]:
    nodes = ast.parse(face.read_text()).body
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    return {item.asname for node in imports for item in node.names}


def face_id(face: Path) -> str:
    return ".".join(face.relative_to(SOURCE.parent).parent.parts)


@pytest.mark.parametrize("face", FACES, ids=face_id)
def test_face_exports_no_name_of_its_own_modules(face):
    # Importing the module would put it in place of what the face exports.
    modules = {path.stem for path in face.parent.iterdir() if path.stem[0] != "_"}
    assert exported(face) & modules == set()


def test_no_room_bears_the_name_of_a_public_function():
    rooms = {path.stem for path in SOURCE.iterdir()}
    assert set(napari_semsr.__all__) & rooms == set()


@pytest.mark.broad
def test_names_on_faces_resolve_without_qt():
    packages = [face_id(face) for face in FACES if "widgets" not in face.parts]
    assert len(packages) > 15
    assert run_python(RESOLVED.format(packages=packages)) == "\n"


def _unbound(call: ast.Call) -> bool:
    """Whether a call gives Qt a function that nothing but Qt keeps."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if name not in ("connect", "push_button", "bind_key"):
        return False
    signal = getattr(call.func, "value", None)
    if name == "connect" and getattr(signal, "attr", "") == "changed":
        return False  # magicgui's own
    made = [a for a in call.args if isinstance(a, ast.Call)]
    partials = [a for a in made if getattr(a.func, "id", "") == "partial"]
    return bool(partials) or any(isinstance(a, ast.Lambda) for a in call.args)


def test_signals_of_qt_reach_bound_methods():
    # Python's collector may empty a lambda while Qt still has a signal for it
    found = [
        f"{name}:{node.lineno}"
        for name, tree in trees().items()
        if name.startswith("widgets/")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and _unbound(node)
    ]
    assert not found
