import numpy as np

from napari_semsr.jobs.samples import (
    simulate_exposure,
    simulate_gold_pair,
    simulate_specimen,
)

SMALL = (160, 192)


def test_two_exposures_share_the_haze_and_not_the_noise():
    truth = simulate_specimen(SMALL)
    still = {"electrons": 1e9, "read_noise": 0.0}
    quiet = [
        simulate_exposure(truth, noise_seed=n, **still).array().astype(int)
        for n in (1, 2)
    ]
    assert np.abs(quiet[0] - quiet[1]).max() <= 1
    loud = [
        simulate_exposure(truth, noise_seed=n).array().astype(float) for n in (1, 2)
    ]
    residuals = [image - quiet[0] for image in loud]
    assert abs(np.corrcoef(residuals[0].ravel(), residuals[1].ravel())[0, 1]) < 0.05


def test_gold_pair_covers_one_area_at_two_pixel_sizes():
    coarse, fine = simulate_gold_pair()
    assert fine.shape == tuple(2 * n for n in coarse.shape)
    assert coarse.dtype == fine.dtype == np.uint8
    for one in (coarse, fine):
        corner = [o - p / 2 for o, p in zip(one.origin, one.pixel_size_nm, strict=True)]
        np.testing.assert_allclose(corner, -7.1)
    binned = fine.array().reshape(320, 2, 320, 2).mean((1, 3))
    assert np.corrcoef(binned.ravel(), coarse.array().ravel())[0, 1] > 0.98
