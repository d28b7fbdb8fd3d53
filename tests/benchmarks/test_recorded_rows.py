"""The pages' figures are those of the rows that are kept beside the benchmarks."""

import json
from pathlib import Path

import frc_accuracy

ROOT = Path(__file__).resolve().parents[2]
ROWS = ROOT / "benchmarks" / "rows"


def rows_of(name: str) -> list[dict]:
    """Read rows that a benchmark has written."""
    text = (ROWS / name).read_text("utf-8")
    if name.endswith(".json"):
        return json.loads(text)
    return [json.loads(line) for line in text.splitlines()]


def page(name: str) -> str:
    """Read a page, its lines joined as they are read."""
    return (ROOT / "docs" / name).read_text("utf-8")


def test_frc_intervals() -> None:
    table = frc_accuracy.interval_table(rows_of("frc_intervals.jsonl"))
    assert table in page("validation/frc.md")
