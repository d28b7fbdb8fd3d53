"""What SECURITY.md says a file may do is what is watched, line by line."""

import re
from pathlib import Path

from tests.hostile.watch import Watched
from tests.hostile.wellformed import WELL_FORMED

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (.+?) \| (no|yes: .+?) \| `(.+?)` \|$", PAGE, re.MULTILINE)


def test_each_kind_of_file_has_a_row_that_says_whether_it_leads_elsewhere():
    rows = {f"well-formed-{case}": words != "no" for _, words, case in ROWS}
    assert all(isinstance(case, Watched) for case in WELL_FORMED)
    assert rows == {case.name: case.may_read for case in WELL_FORMED}


def test_each_promise_names_what_holds_it():
    promises = re.split(r"\n- ", PAGE.partition("\n## What each kind")[0])[1:]
    assert len(promises) >= 8
    for promise in promises:
        held = re.search(r"Held by (`.+?`)\.\n?$", promise.strip() + "\n", re.DOTALL)
        assert held is not None, promise[:60]
        for name in re.findall(r"`(.+?)`", held[1]):
            assert (ROOT / name).is_file(), name
