import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.analysis.gaps import GapOptions, measure_gaps
from napari_semsr.core.errors import ReadError, ShapeError
from napari_semsr.core.micrograph import Micrograph, parse_pixel_size


def discs(*each, shape=(80, 160), level=30.0) -> np.ndarray:
    """Bright discs ``(y, x, radius, height)`` with antialiased rims."""
    y, x = np.indices(shape, dtype=float)
    image = np.full(shape, level)
    for cy, cx, radius, height in each:
        cover = np.clip(radius + 0.5 - np.hypot(y - cy, x - cx), 0, 1)
        image = np.maximum(image, level + height * cover)
    return image


def micrograph(data, pixel=None, name="image") -> Micrograph:
    return Micrograph(data, parse_pixel_size(pixel), name)


def row(gap: float, heights=(100, 100)) -> np.ndarray:
    """Two discs of radius 20 with a gap between their rims."""
    left = 60.0
    right = left + 40 + gap
    return discs((40, left, 20, heights[0]), (40, right, 20, heights[1]))


@pytest.mark.parametrize("width", [3.0, 5.5, 8.0])
def test_width_is_that_between_the_rims(width):
    found = measure_gaps(micrograph(row(width), 2.0))
    assert (found.particles, found.pairs, len(found.found)) == (2, 1, 1)
    (gap,) = found.found
    # 80 % of a rim one or two pixels wide lies 0.3 to 0.6 px inside the outline
    assert width + 0.5 < gap.width_px < width + 1.4
    assert gap.width_nm == pytest.approx(2 * gap.width_px)
    assert gap.place_px == pytest.approx((40, 60 + 20 + width / 2), abs=0.5)
    assert found.background == 30
    assert found.undetected_fraction is None


def test_width_in_nm_follows_the_direction():
    data = row(6.0)
    across = measure_gaps(micrograph(data, (3.0, 2.0)))
    down = measure_gaps(micrograph(data.T.copy(), (3.0, 2.0)))
    assert across.found[0].width_nm == pytest.approx(2 * across.found[0].width_px)
    assert down.found[0].width_nm == pytest.approx(3 * down.found[0].width_px)


def test_blurred_gap_is_undetected_and_counted():
    upper = [(25, 40, 15, 100), (25, 72, 15, 100)]
    lower = [(90, 40, 15, 100), (90, 82, 15, 100)]
    sharp = discs(*upper, *lower, shape=(120, 160))
    blurred = ndimage.gaussian_filter(sharp, 4.0)
    found = measure_gaps(
        micrograph(blurred, 4.0), micrograph(sharp, 4.0), options=GapOptions(reach=0.5)
    )
    shown = [gap.detected for gap in found.found]
    widths = [round(gap.reference_px) for gap in found.found]
    assert dict(zip(widths, shown, strict=True)) == {3: False, 13: True}
    assert found.undetected_fraction == 1 - sum(shown) / len(shown)
    assert found.width_errors("nm").size == sum(shown)


def test_same_image_has_no_error():
    image = micrograph(row(6.0), 2.0)
    found = measure_gaps(image, image)
    assert found.undetected_fraction == 0
    np.testing.assert_allclose(found.width_errors("nm"), 0)


def test_particles_of_unequal_brightness_are_left_out_and_counted():
    found = measure_gaps(micrograph(row(6.0, (100, 70))))
    assert (found.pairs, found.excluded, len(found.found)) == (1, 1, 0)
    assert measure_gaps(micrograph(row(6.0, (100, 85)))).excluded == 0


def test_dark_particles_give_the_same():
    data = row(6.0)
    bright = measure_gaps(micrograph(data))
    dark = measure_gaps(micrograph(255 - data), options=GapOptions(dark=True))
    assert dark.found == bright.found
    assert dark.background == pytest.approx(225)


def test_particle_between_hides_the_others():
    data = discs((40, 30, 12, 100), (40, 60, 12, 100), (40, 90, 12, 100))
    assert measure_gaps(micrograph(data), options=GapOptions(reach=3.0)).pairs == 2


def test_touching_particles_are_parted_but_have_no_gap():
    found = measure_gaps(micrograph(row(-4.0)))
    assert (found.particles, found.pairs, len(found.found)) == (2, 1, 0)


@pytest.mark.parametrize("data", [np.zeros((20, 20)), discs((40, 40, 10, 90))])
def test_without_two_particles_there_is_no_gap(data):
    found = measure_gaps(micrograph(data), micrograph(data))
    assert found.found == ()
    assert found.undetected_fraction is None


def test_wrong_input_is_refused():
    with pytest.raises(ShapeError, match="same shape"):
        measure_gaps(micrograph(np.zeros((9, 9))), micrograph(np.zeros((9, 8))))
    with pytest.raises(ReadError, match="81 NaN or infinite in hole"):
        measure_gaps(micrograph(np.full((9, 9), np.nan), name="hole"))
