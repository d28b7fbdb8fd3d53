"""A preview shows the pixels that the run will make."""

import numpy as np
import pytest

from napari_semsr.core import Box, Micrograph, parse_pixel_size, run
from napari_semsr.inference import EnhanceOptions, enhance_in_memory, prepare_preview

FP32 = EnhanceOptions(tile=32, precision="fp32", device="cpu")
BOXES = [Box(8, 40, 12, 44), Box(-30, 2, 90, 122), Box(0, 500, 0, 500)]


@pytest.mark.parametrize(
    ("kind", "size_nm"),
    [("double", None), ("strided", None), ("strided", 13.0)],  # resampled, the last
)
def test_boxes_equal_the_run(kind, size_nm, make_loaded, rng):
    smooth = rng.random((18, 14)).repeat(6, 0).repeat(6, 1)[:101, :75]
    data = 200 * (smooth + 0.2 * rng.random((101, 75)))
    image = Micrograph(data.astype(np.uint8), parse_pixel_size(size_nm))
    loaded = make_loaded(kind, pixel_size_nm=(10.0, 10.0) if size_nm else None)
    whole = run(enhance_in_memory(image, loaded, FP32)).data
    boxes = prepare_preview(image, loaded, FP32)
    assert boxes.exact
    for wish in BOXES:
        place, pixels = boxes.enhance(wish)
        expected = whole[place.scale(loaded.card.scale).slices]
        assert min(place.shape) > 0
        np.testing.assert_allclose(pixels, expected, atol=1e-5 * np.ptp(whole))
