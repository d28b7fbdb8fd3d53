"""Counts of one image as two exposures of half the dose."""

import numpy as np
import pytest

from napari_semsr.analysis import FrcOptions
from napari_semsr.analysis.frc.correlation import measure_frc, thin_counts
from napari_semsr.core import Micrograph, OptionError
from tests.analysis.conftest import draw_field
from tests.refusals import refused


def scene(mean: float, resolution: float = 8.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    field = draw_field((256, 256), resolution, 30.0, rng, (1.0, 1.0))
    return mean * np.maximum(1 + 0.25 * field / field.std(), 0)


def test_halves_add_up_and_their_noise_does_not_correlate():
    gain, read = 4.0, 3.0
    rng = np.random.default_rng(1)
    electrons = rng.poisson(40, (400, 400)) + read * rng.standard_normal((400, 400))
    image = Micrograph(np.rint(electrons / gain + 100).astype(np.int32))
    how = FrcOptions(split="binomial", gain=gain, offset=100, read_noise=read)
    first, second = (m.array() for m in thin_counts(image, how))
    np.testing.assert_allclose(first + second, (image.array() - 100) * gain, atol=1e-3)
    assert first.mean() == pytest.approx(second.mean(), rel=0.002)
    assert first.var() == pytest.approx(20 + read**2 / 2, rel=0.04)
    # five standard errors of a coefficient of 160 000 independent pairs
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 5 / 400


def test_one_image_of_counts_reads_as_two_exposures_do():
    ratios = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        light = scene(3, 5.0, seed)
        one, two = (Micrograph(rng.poisson(light)) for _ in "ab")
        both = measure_frc(one, two).resolution_px
        alone = measure_frc(one, options=FrcOptions(split="binomial"))
        assert "binomial split" in alone.method
        ratios.append(alone.resolution_px / both)
    assert np.mean(ratios) == pytest.approx(1, abs=0.03)


def test_gain_and_offset_are_taken_off_and_a_wrong_gain_is_no_resolution():
    light = np.random.default_rng(3).poisson(scene(50.0))

    def measured(counts, **how):
        options = FrcOptions(split="binomial", **how)
        return measure_frc(Micrograph(counts), options=options)

    plain, given = measured(light), measured(light * 2 + 100, gain=0.5, offset=100)
    assert given.resolution_px == pytest.approx(plain.resolution_px)
    for gain in (0.5, 2.0):
        assert measured(light, gain=gain).reason == "correlated-noise"


def test_what_is_not_counted_is_refused_in_a_sentence():
    image = Micrograph(scene(50.0))
    options = FrcOptions(split="binomial")
    with refused(OptionError, "options-contradict"):
        measure_frc(image, image, options)
    wrong = options.replace(offset=100.0)
    with refused(OptionError, "counts-negative"):
        measure_frc(image, options=wrong)


@pytest.mark.parametrize(("mean", "refuses"), [(-0.3, True), (0.3, False)])
def test_counts_are_not_negative_beyond_their_noise(mean, refuses):
    noise = 10 * np.random.default_rng(3).standard_normal((64, 64))
    image = Micrograph(noise - noise.mean() + mean)
    options = FrcOptions(split="binomial", read_noise=12.0)
    if not refuses:
        thin_counts(image, options)
        return
    with refused(OptionError, "counts-negative", match=f" {mean:g} "):
        thin_counts(image, options)
