import numpy as np

from napari_semsr.jobs.samples import (
    simulate_gold_pair,
)


def test_gold_pair_covers_one_area_at_two_pixel_sizes():
    coarse, fine = simulate_gold_pair()
    assert fine.shape == tuple(2 * n for n in coarse.shape)
    assert coarse.dtype == fine.dtype == np.uint8
    for one in (coarse, fine):
        corner = [o - p / 2 for o, p in zip(one.origin, one.pixel_size_nm, strict=True)]
        np.testing.assert_allclose(corner, -7.1)
    binned = fine.array().reshape(320, 2, 320, 2).mean((1, 3))
    assert np.corrcoef(binned.ravel(), coarse.array().ravel())[0, 1] > 0.98
