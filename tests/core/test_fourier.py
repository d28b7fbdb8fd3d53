import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from napari_semsr.core import compute_relative_pitch, create_rings, tukey_window
from napari_semsr.core.errors import ShapeError
from napari_semsr.core.fourier import compute_radial_frequency
from tests.refusals import refused

sides = st.integers(2, 33)
alphas = st.floats(0, 1)


@given(size=sides, alpha=alphas)
def test_tukey_is_symmetric_and_never_zero(size: int, alpha: float) -> None:
    window = tukey_window(size, alpha)
    np.testing.assert_allclose(window, window[::-1])
    assert window.min() > 0
    assert window.max() <= 1


def test_lines_are_refused():
    with refused(ShapeError, "image-too-small"):
        create_rings((1, 8))


@settings(deadline=None, max_examples=30)
@given(rows=sides, columns=sides, ratio=st.sampled_from([0.5, 1.0, 1.7]))
def test_rings_partition_the_full_plane(rows: int, columns: int, ratio: float) -> None:
    rings = create_rings((rows, columns), compute_relative_pitch((ratio, 1.0)))
    assert rings.samples.sum() == rows * columns
    assert rings.samples[0] == 1
    assert rings.frequency[rings.complete - 1] <= rings.nyquist * (1 + 1e-9)


@pytest.mark.parametrize("shape", [(8, 8), (7, 9), (12, 5)])
def test_sums_equal_those_of_the_full_plane(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(1).standard_normal(shape)
    rings = create_rings(shape)
    half = np.abs(np.fft.rfft2(image)) ** 2
    full = np.abs(np.fft.fft2(image)) ** 2
    radius = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, shape), indexing="ij"))
    index = np.rint(radius / rings.bin_width).astype(int)
    index[(index == 0) & (radius > 0)] = 1
    np.testing.assert_allclose(
        rings.sum_rings(half), np.bincount(index.ravel(), weights=full.ravel())
    )


def test_frequencies_are_physical_for_oblong_pixels():
    pitch = compute_relative_pitch((20.0, 5.0))
    assert pitch == pytest.approx((2.0, 0.5))
    radius = compute_radial_frequency((16, 16), pitch)
    assert radius[1, 0] == pytest.approx(1 / (16 * 2.0))
    assert radius[0, 1] == pytest.approx(1 / (16 * 0.5))
    assert create_rings((16, 16), pitch).nyquist == pytest.approx(0.25)
    assert compute_relative_pitch((7.7, 7.7)) == (1.0, 1.0)
