"""Laws of the record that is written beside the pixels."""

import numpy as np
import pytest

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.io.files import Record, create_image_record


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"record": 99}', '{"record": 1, "name": "a"}']
)
def test_record_from_json_ignores_what_is_not_ours(text):
    assert Record.from_json(text) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [("pixel_size_nm", [0, 1]), ("origin", [1]), ("provenance", {"job": 1})],
)
def test_record_from_dict_ignores_damaged_records(key, value):
    values = create_image_record(Micrograph(np.zeros((2, 3)))).to_dict()
    assert Record.from_dict({**values, key: value}) is None
