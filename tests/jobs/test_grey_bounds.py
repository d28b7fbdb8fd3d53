"""Images without a grey value, and with values beyond computing."""

import dask.array as da
import numpy as np
import pytest

from napari_semsr.core import Micrograph
from napari_semsr.io import write
from napari_semsr.jobs.images import open_image
from tests.refusals import warned

MARKS = (-3.4e38, 3.4e38, 1e300, -1.7e308)


@pytest.mark.parametrize("value", MARKS)
@pytest.mark.parametrize("lazy", [False, True], ids=["whole", "lazy"])
def test_grey_values_beyond_computing_count_as_missing(value, lazy, tmp_path):
    data = np.linspace(0, 9, 2000).reshape(40, 50)
    data[7, 9] = value
    data = data.astype(np.float32 if abs(value) < 1e39 else np.float64)
    right = np.where(data == data[7, 9], np.nan, data)
    image = Micrograph(da.from_array(data, chunks=20) if lazy else data, name="odd")
    write(Micrograph(data, name="odd"), tmp_path / "odd.tif")
    for given in (image, tmp_path / "odd.tif"):
        with warned("pixels-marked-missing", match=r"odd .* 1e\+15"):
            found = open_image(given).array()
        assert np.array_equal(found, right, equal_nan=True)
        assert found.dtype == data.dtype


@pytest.mark.parametrize("value", [-9999, -32768, -99999])
@pytest.mark.parametrize("count", [1, 700])
def test_fill_values_of_other_programs_count_as_missing(value, count):
    data = np.linspace(0, 9, 2000, dtype=np.float32)
    data[:count] = value
    right = np.where(data == value, np.nan, data).reshape(40, 50)
    with warned("pixels-marked-missing", match=f"odd with value {value}, "):
        found = open_image(Micrograph(data.reshape(40, 50), name="odd"))
    assert np.array_equal(found.array(), right, equal_nan=True)
    data[-1] = 0.9 * value  # an image that goes as low
    kept = open_image(Micrograph(data.reshape(40, 50), name="odd"))
    assert np.array_equal(kept.array(), data.reshape(40, 50))


def test_other_grey_values_stay_as_they_are():
    odd = np.array([[1e15, np.nan], [np.inf, -1e14]])
    for data in (odd, odd.astype(np.float32)):
        assert np.array_equal(open_image(Micrograph(data)).data, data, equal_nan=True)
