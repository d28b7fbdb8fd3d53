"""One scene at three pixel sizes has one resolution and one period, in nm."""

import itertools

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_semsr.analysis import (
    CalibrateOptions,
    measure_decorrelation,
    measure_frc,
    measure_grating,
)
from napari_semsr.core import Micrograph, run
from napari_semsr.jobs.measure.offset import measure_offset

SIDE, NM = 128, 12.0  # pixels, and their size, of the coarsest image
TIMES = 1, 2, 3


@pytest.fixture(scope="module")
def pairs():
    """Draw grains behind optics that end at a period of four coarse pixels.

    Each pair has new noise, of one power per area.
    """
    rng, side = np.random.default_rng(4), 6 * SIDE
    scene = 60.0 * (gaussian_filter(rng.normal(size=(side, side)), 18, mode="wrap") > 0)
    v = np.hypot(np.fft.fftfreq(side, 1 / 6)[:, None], np.fft.rfftfreq(side, 1 / 6))
    v = np.minimum(4 * v, 1)
    otf = 2 / np.pi * (np.arccos(v) - v * np.sqrt(1 - v * v))
    scene = np.fft.irfft2(otf * np.fft.rfft2(scene), s=scene.shape)
    noises = {n: rng.normal(0, 3 * n, (2, SIDE * n, SIDE * n)) for n in TIMES}
    return [
        [Micrograph(scene[:: 6 // n, :: 6 // n] + noise, NM / n) for noise in both]
        for n, both in noises.items()
    ]


def test_pixel_size_changes_no_shift(pairs):
    rng, frequency = np.random.default_rng(7), np.fft.fftfreq
    for n, (image, _) in zip(TIMES, pairs, strict=True):
        blurred = gaussian_filter(image.array(), 3.5 * n, mode="wrap")
        turns = frequency(SIDE * n)[:, None] * 1.3 * n - frequency(SIDE * n) * 0.6 * n
        moved = np.fft.ifft2(np.fft.fft2(blurred) * np.exp(-2j * np.pi * turns)).real
        noisy = [
            Micrograph(part + rng.normal(0, 15 * n, part.shape))
            for part in (blurred, moved)
        ]
        found = measure_offset(*noisy).best_shift
        np.testing.assert_allclose(np.divide(found.shift_px, n), (-1.3, 0.6), atol=0.3)


@pytest.mark.parametrize(
    "measure",
    [lambda pair: measure_frc(*pair), lambda pair: run(measure_decorrelation(pair[0]))],
    ids=["frc", "decorrelation"],
)
def test_pixel_size_changes_no_resolution(pairs, measure):
    for one, other in itertools.combinations(map(measure, pairs), 2):
        reach = np.hypot(*(np.ptp(found.interval_nm) / 2 for found in (one, other)))
        apart = abs(one.resolution_nm - other.resolution_nm)
        assert apart < reach < 0.25 * one.resolution_nm


def test_pixel_size_changes_no_pitch():
    rng, pitch = np.random.default_rng(2), 9.3
    sizes = []
    for n in TIMES:
        y, x = np.indices((96 * n, 96 * n)) / n
        lines = np.tanh(2 * np.cos(2 * np.pi * (0.96 * x + 0.28 * y) / pitch))
        image = lines + rng.normal(0, 0.2 * n, lines.shape)
        found = measure_grating(image, CalibrateOptions(pitch_nm=pitch * NM))
        sizes.append((n * found.pixel_size_nm[0], n * found.pixel_size_sd_nm[0]))
    for (one, sd), (other, other_sd) in itertools.combinations(sizes, 2):
        assert abs(one - other) < 1.96 * np.hypot(sd, other_sd) < 0.005 * NM
    assert all(abs(size - NM) < 2.58 * sd for size, sd in sizes)
