"""How a run went, as its folder keeps it."""

import json
from pathlib import Path
from typing import Any

ASKED, FINISHED = "asked.json", "finished.json"


def finished(folder: Path, key: str | None = None) -> dict[str, Any] | None:
    """Read how a run went; None if it is not over, or was another one's."""
    record = read_table(folder / FINISHED)
    if record is None or (key is not None and record["key"] != key):
        return None
    return record


def read_table(path: Path) -> dict[str, Any] | None:
    """Read a JSON file; None if it is not there."""
    if not path.exists():
        return None
    return dict(json.loads(path.read_text(encoding="utf-8")))
