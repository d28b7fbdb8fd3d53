"""Laws of grey stored as colour."""

import dask.array as da
import numpy as np
import pytest

from napari_semsr.core.errors import ReadError
from napari_semsr.io.read_image import native, to_grey


@pytest.fixture
def grey(rng):
    return rng.integers(0, 250, (12, 17)).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("lazy", [False, True])
def test_to_grey_of_equal_channels_is_the_channel(tmp_path, grey, channels, lazy):
    stored = np.stack([grey] * channels, axis=-1)
    if channels in (2, 4):
        stored[..., -1] = 255
    data = da.from_array(stored, chunks=(5, 6, -1)) if lazy else stored
    assert np.array_equal(np.asarray(to_grey(tmp_path, data, colour="refuse")), grey)


def test_to_grey_tolerates_jpeg_rounding(tmp_path, grey):
    stored = np.stack([grey, grey + 1, grey + 2], axis=-1)
    found = to_grey(tmp_path, stored, colour="refuse")
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - grey - 1).max() <= 1


def test_to_grey_refuses_colour_unless_asked(tmp_path, grey):
    stored = np.stack([grey, grey, 250 - grey], axis=-1)
    with pytest.raises(ReadError, match="colour channels differ by up to"):
        to_grey(tmp_path, stored, colour="refuse")
    luma = to_grey(tmp_path, stored, colour="luminance")
    wanted = 0.886 * grey.astype(float) + 0.114 * stored[..., 2]
    assert np.abs(luma - wanted).max() <= 0.51


def test_to_grey_compares_unsigned_channels_without_wrapping(tmp_path):
    stored = np.zeros((2, 2, 3), np.uint8)
    stored[..., 0] = 255
    with pytest.raises(ReadError, match="255 of 255"):
        to_grey(tmp_path, stored, colour="refuse")


def test_native_swaps_bytes_without_changing_values(tmp_path, grey):
    found = native(tmp_path, grey.astype(">u2"))
    assert found.dtype == np.uint16
    assert found.dtype.isnative
    assert np.array_equal(found, grey)
