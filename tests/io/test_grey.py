"""Laws of grey stored as colour."""

import dask.array as da
import numpy as np
import pytest

from napari_semsr.core.errors import ReadError
from napari_semsr.io.read_image import convert_to_grey, convert_to_native_byte_order
from tests.refusals import refused, warned


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
    assert np.array_equal(
        np.asarray(convert_to_grey(tmp_path, data, colour="refuse")), grey
    )


def test_to_grey_tolerates_jpeg_rounding(tmp_path, grey):
    stored = np.stack([grey, grey + 1, grey + 2], axis=-1)
    found = convert_to_grey(tmp_path, stored, colour="refuse")
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - grey - 1).max() <= 1


def test_to_grey_refuses_colour_unless_asked(tmp_path, grey):
    stored = np.stack([grey, grey, 250 - grey], axis=-1)
    with refused(ReadError, "colour-image"):
        convert_to_grey(tmp_path, stored, colour="refuse")
    luma = convert_to_grey(tmp_path, stored, colour="luminance")
    wanted = 0.886 * grey.astype(float) + 0.114 * stored[..., 2]
    assert np.abs(luma - wanted).max() <= 0.51


def exported(rng, bar=0, frame=0, side=100):
    """Make a grey export in colour: a data bar with coloured letters, a frame."""
    stored = np.repeat(
        rng.integers(20, 230, (side, side, 1), dtype=np.uint8), 3, axis=2
    )
    if bar:
        stored[-bar:] = 0
        stored[6 - bar : 12 - bar, 8:90:4] = 255, 190, 0
    for edge in (np.s_[:frame], np.s_[:, :frame], np.s_[:, side - frame :]):
        stored[edge] = 0, 255, 0
    return stored


@pytest.mark.parametrize("frame", [1, 3])
def test_line_in_colour_along_the_border_is_told_and_read_as_grey(tmp_path, rng, frame):
    stored = exported(rng, frame=frame)
    with warned("border-coloured"):
        found = convert_to_grey(tmp_path / "a.png", stored, colour="refuse")
    inner = np.s_[frame:, frame:-frame]
    np.testing.assert_array_equal(found[inner], stored[..., 0][inner])
    with refused(ReadError, "colour-image"):
        convert_to_grey(tmp_path, exported(rng, frame=4), colour="refuse")


def test_bar_in_colour_below_a_grey_image_is_named(tmp_path, rng):
    stored = exported(rng, bar=18)
    with refused(ReadError, "databar-coloured", match=" 18 rows.*`databar_rows=18`"):
        convert_to_grey(tmp_path, stored, colour="refuse")
    found = convert_to_grey(tmp_path, stored[:-18], colour="refuse")
    np.testing.assert_array_equal(found, stored[:-18, :, 0])
    stored[40, 50] = 0, 0, 255  # colour in the image, too
    with refused(ReadError, "colour-image"):
        convert_to_grey(tmp_path, stored, colour="refuse")


def test_to_grey_compares_unsigned_channels_without_wrapping(tmp_path):
    stored = np.zeros((2, 2, 3), np.uint8)
    stored[..., 0] = 255
    with refused(ReadError, "colour-image", match="255 of 255"):
        convert_to_grey(tmp_path, stored, colour="refuse")


def test_native_swaps_bytes_without_changing_values(tmp_path, grey):
    found = convert_to_native_byte_order(tmp_path, grey.astype(">u2"))
    assert found.dtype == np.uint16
    assert found.dtype.isnative
    assert np.array_equal(found, grey)
