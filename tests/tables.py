"""Tables that commands have written."""

import csv
from pathlib import Path


def rows_of(path: Path) -> list[dict[str, str]]:
    """Read the rows by the names of their columns."""
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))
