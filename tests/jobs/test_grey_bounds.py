"""Images without a grey value, and with values beyond computing."""

import dask.array as da
import numpy as np
import pytest

from napari_semsr.core import Micrograph, ReadError, run
from napari_semsr.io import write
from napari_semsr.jobs import CONVERT
from napari_semsr.jobs.images import open_image

HUGE = np.random.default_rng(0).random((40, 50)) * 1e302


@pytest.mark.parametrize("data", [HUGE, -HUGE], ids=["high", "low"])
def test_grey_values_beyond_computing_are_refused(data, tmp_path):
    write(Micrograph(data, name="odd"), tmp_path / "odd.tif")
    with pytest.raises(ReadError, match=r"Grey values must be below 3\.4e\+38"):
        open_image(tmp_path / "odd.tif")
    with pytest.raises(ReadError, match="Grey values"):
        open_image(Micrograph(data))
    lazy = Micrograph(da.from_array(data, chunks=20))
    with pytest.raises(ReadError, match="Grey values"):
        open_image(lazy)


def test_other_grey_values_stay_as_they_are():
    odd = np.array([[1e30, np.nan], [np.inf, -1e38]])
    for data in (odd, odd.astype(np.float32)):
        assert np.array_equal(open_image(Micrograph(data)).data, data, equal_nan=True)


def test_image_without_a_finite_pixel_is_refused(tmp_path):
    path, target = tmp_path / "nothing.tif", tmp_path / "out.ome.zarr"
    gaps = np.full((40, 50), np.nan, np.float32)
    write(Micrograph(gaps, name="nothing"), path)
    with pytest.raises(ReadError, match=r"pixels, and nothing\.tif has none"):
        run(CONVERT.job(path, output=target))
    assert not target.exists()
