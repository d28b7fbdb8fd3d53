import numpy as np
import pytest

from napari_semsr.core.errors import OptionError
from napari_semsr.simulation.specimen import KINDS, PhantomOptions, draw_specimen
from tests.refusals import refused


def drawn(kind, shape=(96, 120), pixel_nm=20.0, **options):
    chosen = PhantomOptions(**options)
    return draw_specimen(kind, shape, pixel_nm=pixel_nm, options=chosen, seed=0)


@pytest.mark.parametrize("kind", KINDS)
def test_fine_drawing_binned_is_the_coarse_drawing(kind):
    coarse = drawn(kind, (60, 64), 24.0)
    fine = drawn(kind, (240, 256), 6.0)
    binned = fine.height_nm.reshape(60, 4, 64, 4).mean(axis=(1, 3))
    error = np.abs(binned - coarse.height_nm) / np.ptp(fine.height_nm)
    assert error.mean() < 0.006
    if kind == "grating":
        assert error.max() < 1e-5


@pytest.mark.parametrize(("pitch", "pixel"), [(180.0, 41.0), (300.0, 7.3)])
def test_pitch_of_a_grating_is_exact_at_any_pixel_size(pitch, pixel):
    # the phase of the carrier at the pitch does not run along the lines
    count = round(30 * pitch / pixel)
    line = drawn("grating", (2, 2 * count), pixel, pitch_nm=pitch).height_nm[0]
    x = (np.arange(2 * count) + 0.5) * pixel
    wave = (line - line.mean()) * np.exp(-2j * np.pi * x / pitch)
    first, second = (wave.reshape(2, count) * np.hanning(count)).sum(axis=1)
    slip = np.angle(second / first) / (2 * np.pi)
    assert abs(slip * pitch / (count * pixel)) < 1e-4


def test_gratings_turn_lattices_repeat_and_packed_particles_fill():
    across = drawn("grating", (64, 64), angle_deg=90.0).height_nm
    assert np.ptp(across, axis=1).max() < 1e-3
    assert np.ptp(across, axis=0).min() > 99
    pitch = 15  # pixels of 20 nm
    holes = drawn("lattice", (90, 90)).height_nm
    assert np.abs(holes[:-pitch] - holes[pitch:]).max() < 0.02
    unrest = drawn("lattice", (90, 90), disorder=0.5).height_nm
    assert np.abs(unrest[:-pitch] - unrest[pitch:]).max() > 50
    assert drawn("particles", packing="hexagonal").material.mean() > 0.75
    assert 0.2 < drawn("particles").material.mean() < 0.55


def test_bad_requests_are_refused_in_one_sentence():
    with refused(OptionError, "unknown-value", match="'cat'"):
        drawn("cat")
    with refused(OptionError, "out-of-range", match=" 20 nm, got 30"):
        drawn("grating", pitch_nm=30.0)
