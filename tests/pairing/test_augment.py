import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import ndimage

from napari_semsr.pairing import AugmentOptions, augment_pair
from napari_semsr.pairing.augment import PatchVariation, augment_patch


@pytest.fixture(scope="module")
def smooth() -> np.ndarray:
    rng = np.random.default_rng(4)
    grain = ndimage.gaussian_filter(rng.standard_normal((64, 64)), 4)
    return (grain / grain.std()).astype(np.float32)


@given(st.integers(0, 1000))
def test_both_patches_are_varied_alike(seed):
    patch = np.random.default_rng(1).random((32, 32))
    low, high = augment_pair(patch, patch, seed)
    np.testing.assert_array_equal(low, high)
    again = augment_pair(patch, patch, seed)[0]
    np.testing.assert_array_equal(low, again)


def test_turns_are_undone_by_their_opposite_and_agree_with_exact_ones(smooth):
    exact = augment_patch(smooth, PatchVariation(angle_deg=90))
    nearly = augment_patch(smooth, PatchVariation(angle_deg=90, zoom=1 + 1e-9))
    np.testing.assert_allclose(exact, nearly, atol=1e-3)
    there = augment_patch(smooth, PatchVariation(angle_deg=30, zoom=1.25))
    back = augment_patch(there, PatchVariation(angle_deg=-30, zoom=0.8))
    middle = np.s_[24:40, 24:40]
    assert np.abs(back - smooth)[middle].max() < 0.1


def test_finer_patch_is_varied_like_the_coarser(smooth):
    fine = ndimage.zoom(smooth, 2, order=3, mode="mirror", grid_mode=True)
    variation = PatchVariation(angle_deg=30, zoom=0.9, left_right=True)
    low, high = augment_patch(smooth, variation), augment_patch(fine, variation)
    binned = high.reshape(64, 2, 64, 2).mean((1, 3))
    assert np.abs(binned - low)[16:48, 16:48].max() < 0.1


def test_grey_levels_follow_the_range():
    patch = np.full((4, 4), 110, np.uint8)
    made = augment_patch(patch, PatchVariation(gain=1.1, offset=0.05), (10, 210))
    np.testing.assert_allclose(made, 10 + 110 + 10, rtol=1e-6)


def test_nothing_chosen_changes_nothing(smooth):
    still = {"flips": False, "angles_deg": (0,), "zoom": (1, 1), "gain": 0, "offset": 0}
    made, _ = augment_pair(smooth, smooth, 3, options=AugmentOptions(**still))
    np.testing.assert_array_equal(made, smooth)
