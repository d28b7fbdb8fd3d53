"""No place that trained a model judges one, as far as correlation tells."""

import json
from pathlib import Path

import numpy as np
import pytest
from leakage import MOST, groups, likeness
from scipy import ndimage

ROWS = Path(__file__).resolve().parents[2] / "benchmarks" / "rows" / "leakage.jsonl"
LEFT_OUT = "line, left out"


def recorded() -> list[dict]:
    """Read what the benchmark has written."""
    return [json.loads(line) for line in ROWS.read_text("utf-8").splitlines()]


def test_no_image_that_is_judged_shows_a_place_that_trained() -> None:
    rows = recorded()
    assert max(r["correlation"] for r in rows if r["group"] != LEFT_OUT) < MOST
    assert min(r["correlation"] for r in rows if r["group"] == LEFT_OUT) > MOST


def test_every_image_that_judges_was_looked_at(shared_data: Path) -> None:
    known = {(row["group"], row["judged"]) for row in recorded()}
    for group, judged, trained in groups(shared_data):
        assert {(group, shown.name) for shown in judged} <= known
        if group == LEFT_OUT:  # so that what is recorded is what is found
            first = judged[0].read()
            place = next(s for s in trained if s.name == "time/002_30us")
            assert likeness(first, place.read())[0] > MOST


def test_a_place_is_found_where_a_fifth_is_shared() -> None:
    rng = np.random.default_rng(0)
    whole = ndimage.gaussian_filter(rng.normal(size=(200, 300)), 1.5)
    one, other = whole[:120, :150], whole[60:180, 60:210]
    found, share = likeness(one, other)
    assert found == pytest.approx(1, abs=1e-6)
    assert share == pytest.approx(0.3)
    assert likeness(one, whole[:, 160:])[0] < 0.7
