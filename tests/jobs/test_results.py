from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from napari_semsr.core.options import Options
from napari_semsr.jobs.images import to_json_value


class Choice(Options):
    side_px: int = 3


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
