"""Laws of the record that is written beside the pixels."""

import numpy as np
import pytest
from hypothesis import given

from napari_semsr.core.micrograph import InputRecord, Micrograph, Provenance
from napari_semsr.io.files import Record, create_image_record
from tests.strategies import pixel_sizes

_MADE = Provenance(
    job="enhance",
    options={"tile": 512, "norm": "exact"},
    inputs=(InputRecord(role="image", name="a.tif", digest="sha256:00"),),
    model_digest="sha256:11",
)


@given(pixel_sizes())
def test_record_survives_json(size):
    image = Micrograph(np.zeros((2, 3)), size, "caf\u00e9", _MADE, origin=(1.5, -2.25))
    record = create_image_record(image)
    assert Record.from_json(record.to_json()) == record
    assert record.to_json().isascii()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"record": 99}',
        '{"record": 1}',
        '{"record": 1, "name": "a"}',
    ],
)
def test_record_from_json_ignores_what_is_not_ours(text):
    assert Record.from_json(text) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pixel_size_nm", [0, 1]),
        ("pixel_size_nm", "wide"),
        ("origin", [1]),
        ("origin", None),
        ("provenance", {"job": 1, "surprise": 2}),
    ],
)
def test_record_from_dict_ignores_damaged_records(key, value):
    values = create_image_record(Micrograph(np.zeros((2, 3)))).to_dict()
    assert Record.from_dict({**values, key: value}) is None
