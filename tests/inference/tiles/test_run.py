import weakref

import numpy as np
import pytest

from napari_semsr.core.grids import plan_tiles
from napari_semsr.inference.tiles import SeamMeter, sample_edges, sample_pixels


def _measure(image, *, offset=0.0, order=1):
    """Cut an image into tiles, each shifted in grey by its number times `offset`."""
    plan = plan_tiles(image.shape, core=16, halo=4)
    meter = SeamMeter()
    for number, tile in list(enumerate(plan))[::order]:
        shifted = image[tile.window.slices] + np.float32(number * offset)
        core = shifted[tile.local_core.slices]
        meter.add(
            tile.index, sample_edges(shifted, tile.local_core), sample_pixels(core)
        )
    return meter


def test_tiles_that_agree_have_no_mismatch_and_no_seam(rng):
    image = rng.random((48, 64), dtype=np.float32)
    meter = _measure(image)
    assert meter.mismatch == 0
    assert meter.seam_index == pytest.approx(1, abs=0.15)
    assert meter.border_count == 3 * 3 + 2 * 4
    backwards = _measure(image, order=-1)
    assert backwards.seam_index == pytest.approx(meter.seam_index)


def test_known_steps_are_measured_and_one_tile_or_flat_fields_are_neutral():
    ramp = np.tile(np.arange(32, dtype=np.float32), (16, 1))
    meter = _measure(ramp, offset=3.0)
    assert meter.mismatch == pytest.approx(3 / 34, rel=0.03)
    assert meter.seam_index == pytest.approx(4.0)
    assert np.isnan(SeamMeter().mismatch)
    assert SeamMeter().seam_index == 1
    assert _measure(np.zeros((16, 16), np.float32)).border_count == 0
    assert _measure(np.zeros((32, 16), np.float32)).seam_index == 1


def test_samples_of_many_tiles_are_thinned_evenly():
    meter, samples = SeamMeter(), []
    for number in range(5000):
        sample = np.full(1, number, np.float32)
        samples.append(weakref.ref(sample))
        meter.add((0, number), {}, sample)
    del sample
    kept = [number for number, sample in enumerate(samples) if sample() is not None]
    assert 500 < len(kept) <= 1024
    assert np.ptp(np.diff(kept)) == 0
    assert kept[-1] > 4900
