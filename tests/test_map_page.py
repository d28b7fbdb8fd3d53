"""What the manual's map of the package, and what it says of additions, is there."""

import re
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.broad

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "napari_semsr"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
[ADDING] = re.findall(
    r"^## How to add$(.*?)^## ",
    (ROOT / "docs" / "developing.md").read_text(encoding="utf-8"),
    re.DOTALL | re.MULTILINE,
)
DRAWINGS = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
LINES = [
    re.fullmatch(r" *([\w/]+) +(.*)", line)
    for drawing in DRAWINGS[1:]
    for line in re.sub(r"\n {20,}", " ", drawing).splitlines()
]
CODE = "\n".join(
    path.read_text(encoding="utf-8")
    for folder in ("src", "tests")
    for path in (ROOT / folder).rglob("*.py*")
    if path.suffix in (".py", ".pyi")
)
NAMED = sorted(set(re.findall(r"`([^`\s]+)`", PAGE + ADDING)))


def _file(name: str) -> bool:
    """Whether a path of the page is there, counted from any of its starting points."""
    return any((start / name).exists() for start in (ROOT, SOURCE))


def test_rooms_are_drawn_as_the_layers_are():
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    layers = tables["tool"]["importlinter"]["contracts"][0]["layers"]
    drawn = [re.split(r"  +", line)[0] for line in DRAWINGS[0].splitlines()]
    assert [line.removesuffix(":") for line in drawn] == layers


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[1])
def test_a_flow_passes_what_it_names(line):
    text = (SOURCE / f"{line[1]}.py").read_text(encoding="utf-8")
    named = re.findall(
        r"[A-Za-z]\w*_\w+|[A-Z]+[a-z]+[A-Z]\w*|\w+(?=:)|(?<=\.)\w+", line[2]
    )
    assert [name for name in named if not re.search(rf"\b{name}\b", text)] == []


def test_files_that_are_named_exist():
    paths = [
        name
        for name in NAMED
        if re.search(r"/|\.(py|pyi|toml|md)$", name) and "NAME" not in name
    ]
    assert [name for name in paths if not _file(name)] == []


def test_names_are_those_of_the_code():
    names = [
        part
        for name in NAMED
        if re.fullmatch(r"_?[A-Za-z]+(_\w+|[A-Z]\w+)", name) and "NAME" not in name
        for part in name.split(".")
    ]
    assert names
    assert [name for name in names if not re.search(rf"\b{name}\b", CODE)] == []
