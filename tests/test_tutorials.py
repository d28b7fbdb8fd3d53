"""The tutorials of the manual run as they stand there."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.broad

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = sorted(DOCS.glob("tutorial-*.md"))


def code(page: Path) -> str:
    lines, inside = [], False
    for line in page.read_text("utf-8").splitlines():
        if line.startswith("```"):
            inside = line == "```python"
            lines.append("")
        else:
            lines.append(line if inside else "")
    return "\n".join(lines)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(code(page), str(page), "exec"), {"__name__": "__main__"})  # noqa: S102
    assert re.search(r"\d", capsys.readouterr().out)
