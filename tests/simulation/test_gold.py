import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.analysis import measure_gaps
from napari_semsr.core import Micrograph, OptionError, run
from napari_semsr.simulation import (
    FINE_NM,
    GoldOptions,
    create_gold_rng,
    create_random_gold_options,
    simulate_random_gold_pair,
)
from napari_semsr.simulation.gold import IslandPacking, draw_islands
from tests.refusals import refused

_CLEAN = GoldOptions(
    fine_probe_nm=8.5,
    coarse_probe_nm=(8.5, 8.5),
    electrons=(1e7, 1e7),
    line_jitter_px=0,
)


def test_gaps_are_as_wide_as_stated(rng):
    packing = IslandPacking(
        pitch_nm=150.0, size_spread=0.5, gap_nm=30.0, gap_spread=0.0,
        touching=0.0, missing=0.0, corner_nm=1.0, crooked_nm=0.0,
    )  # fmt: skip
    depth = draw_islands(200, 7.1, packing, rng).depth_nm
    ridge = ndimage.minimum_filter(depth, 3) == depth
    assert np.median(depth[ridge & (depth < 0)]) == pytest.approx(-15, abs=7.1)


def test_coarse_image_is_the_binned_fine_one(rng):
    pair = simulate_random_gold_pair(64, rng, _CLEAN)
    binned = pair.high.reshape(64, 2, 64, 2).mean((1, 3))
    np.testing.assert_allclose(pair.low, binned, atol=0.005)


def test_pairs_are_registered_with_noise_and_a_wider_probe(rng):
    pair = simulate_random_gold_pair(96, rng)
    binned = pair.high.reshape(96, 2, 96, 2).mean((1, 3))
    spectra = np.fft.fft2(pair.low - 0.5) * np.conj(np.fft.fft2(binned - 0.5))
    correlation = np.fft.ifft2(spectra).real
    assert np.argmax(correlation) == 0
    for axis in (0, 1):
        before, at, after = np.take(correlation, (-1, 0, 1), axis).take(0, 1 - axis)
        assert abs((after - before) / (2 * at - after - before)) / 2 < 0.05


def test_fine_image_is_free_of_noise_unless_asked_for():
    def draw(electrons):
        options = GoldOptions(fine_electrons=electrons)
        return simulate_random_gold_pair(64, np.random.default_rng(3), options).high

    added = draw(500.0) - draw(0.0)
    assert 0.01 < added.std() < 0.06
    assert abs(added.mean()) < 0.005


def test_streams_of_chance_differ():
    draws = [create_gold_rng("validation", 0), create_gold_rng("validation", 1)]
    draws += [create_gold_rng("judging", 0), np.random.default_rng(0)]
    assert len({float(rng.random()) for rng in draws}) == 4


def test_half_of_what_is_learnt_from_is_the_tuned_sample(rng):
    drawn = [create_random_gold_options(rng) for _ in range(100)]
    assert 30 < sum(options == GoldOptions() for options in drawn) < 70
    assert {options.fine_probe_nm for options in drawn} == {GoldOptions().fine_probe_nm}
    for options in drawn[:6]:
        pair = simulate_random_gold_pair(24, rng, options)
        assert np.isfinite(pair.low.sum() + pair.high.sum())


@pytest.mark.broad
def test_gaps_are_in_the_truth_and_some_are_lost_in_the_coarse_image():
    pair = simulate_random_gold_pair(160, create_gold_rng("validation", 0))
    size = (FINE_NM, FINE_NM)
    truth = Micrograph(pair.high, size)
    own = run(measure_gaps(truth, truth))
    assert len(own.found_gaps) > 80
    assert own.undetected_fraction == 0
    fine = ndimage.zoom(pair.low, 2, order=3, mode="reflect", grid_mode=True)
    seen = run(measure_gaps(Micrograph(fine, size), truth))
    assert 0.06 < seen.undetected_fraction < 0.25
    assert 2.5 < np.abs(seen.compute_width_errors("nm")).mean() < 5.5


def test_what_cannot_be_drawn_is_refused(rng):
    for changes in ({"pitch_nm": (30.0, 100.0)}, {"edges": (0.4, 0.2)}):
        with pytest.raises(OptionError):
            GoldOptions().replace(**changes)
    with refused(OptionError, "out-of-range", match=" 16 px .* 8"):
        simulate_random_gold_pair(8, rng)
