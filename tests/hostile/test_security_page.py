"""What SECURITY.md says a file may do is what is watched, line by line."""

import ast
import os
import re
from pathlib import Path

from napari_semsr.models.onnx_network import import_onnx
from tests.hostile.watch import Watched
from tests.hostile.wellformed import WELL_FORMED

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (.+?) \| (no|yes: .+?) \| `(.+?)` \|$", PAGE, re.MULTILINE)


def test_each_kind_of_file_has_a_row_that_says_whether_it_leads_elsewhere():
    rows = {f"well-formed-{case}": words != "no" for _, words, case in ROWS}
    assert all(isinstance(case, Watched) for case in WELL_FORMED)
    assert rows == {case.name: case.may_read for case in WELL_FORMED}


def named_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    return {name for name in names if name.startswith("test_")}


def test_each_promise_names_the_tests_that_hold_it():
    promises = re.split(r"\n- ", PAGE.partition("\n## What each kind")[0])[1:]
    assert len(promises) >= 9
    for promise in promises:
        held = re.search(r"Tested by (`.+?`)\.\n?$", promise.strip() + "\n", re.DOTALL)
        assert held is not None, promise[:60]
        for name in re.findall(r"`(.+?)`", held[1]):
            file, _, test = name.partition("::")
            assert test in named_in(ROOT / file), f"{name} is gone: {promise[:60]}"


def test_onnx_runtime_is_told_to_report_nothing(monkeypatch):
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    import_onnx("json")
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    import_onnx("json")
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"
