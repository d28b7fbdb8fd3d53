import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from napari_semsr.core.options import Options
from napari_semsr.jobs.images import to_json_value

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.text(), inner, max_size=3),
    ),
    max_leaves=10,
)


class Choice(Options):
    """An option set."""

    side_px: int = 3


@pytest.mark.broad
@given(VALUES)
def test_jsonable_is_always_strict_json(value):
    made = to_json_value(value)
    text = json.dumps(made, allow_nan=False)
    assert to_json_value(json.loads(text)) == json.loads(text)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("inf"), None),
        (np.float32("nan"), None),
        (np.int16(4), 4),
        (np.bool_(True), True),
        (Path("a") / "b", str(Path("a") / "b")),
        (Choice(), {"side_px": 3}),
        ({1: (2, frozenset({3}))}, {"1": [2, [3]]}),
        (b"\xff", "\N{REPLACEMENT CHARACTER}"),
        (datetime(2020, 1, 2, tzinfo=UTC), "2020-01-02 00:00:00+00:00"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_jsonable_of_each_kind(value, expected):
    assert to_json_value(value) == expected
