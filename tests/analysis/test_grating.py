"""Pixel size, skew and distortion from pictures of gratings."""

import numpy as np
import pytest

from napari_semsr.analysis import CalibrateOptions, measure_grating
from napari_semsr.core import RegistrationError, distort_positions
from tests.refusals import refused

SIDE, PITCH, NM = 240, 11.3, 20.0


def picture(
    kind="lines", *, turn=17.0, bent=0.0, noise=0.1, skew=0.0, tall=1.0, pitch=PITCH,
    shape=(SIDE, SIDE), dark=False, seed=0, centre=(0, 0), tilt=0.0, phase=0.7,
):  # fmt: skip
    """Draw a grating in pixels of an x pitch of one; `tall`: y over x."""
    y, x = distort_positions(*np.indices(shape, float), shape, bent, centre=centre)
    y, x = y - (shape[0] - 1) / 2 - centre[0], x - (shape[1] - 1) / 2 - centre[1]
    near = 1 + tilt * (x + y) / min(shape)
    y, x = y / near, x / near
    lean = np.deg2rad(skew)
    down, along = tall * y * np.cos(lean), x + tall * y * np.sin(lean)
    start = np.deg2rad(turn)

    def wave(more, share=1.0):
        way = start + np.deg2rad(more)
        place = along * np.cos(way) + down * np.sin(way)
        return np.cos(2 * np.pi * share * place / pitch + phase)

    if kind == "lines":
        image = 0.5 + 0.4 * np.tanh(2 * wave(0))
    elif kind == "square":
        image = 0.2 + 0.8 * np.clip(wave(0), 0, 1) * np.clip(wave(90), 0, 1)
    else:
        image = 0.5 + 0.15 * sum(wave(a, 2 / np.sqrt(3)) for a in (0, 60, 120))
    image = image + noise * np.random.default_rng(seed).normal(size=shape)
    if dark:
        radius = np.hypot(y, x) / (min(shape) / 2)
        image = image * 0.35 ** (radius**2) * (radius < 0.98)
    return image


def measured(image, pitch=PITCH, **more):
    return measure_grating(image, CalibrateOptions(pitch_nm=pitch * NM, **more))


@pytest.mark.parametrize(
    ("kind", "turn", "bent", "noise", "dark"),
    [
        ("lines", 17, 0.0, 0.1, False),
        ("square", 0, 0.03, 0.1, False),
        ("hexagonal", 90, -0.03, 0.1, True),
    ],
)
def test_pixel_size_and_distortion_of_a_known_grating(kind, turn, bent, noise, dark):
    image = picture(kind, turn=turn, bent=bent, noise=noise, dark=dark)
    found = measured(image)
    assert found.lattice == kind
    for size, error in zip(found.pixel_size_nm, found.pixel_size_sd_nm, strict=True):
        assert abs(size - NM) < 4 * error
        assert error < 0.003 * NM
    assert abs(found.distortion - bent) < 4 * found.distortion_sd
    assert found.distortion_sd < 0.004


def test_a_lattice_tells_skew_and_two_sizes_and_lines_one_size():
    found = measured(picture("hexagonal", skew=1.0, tall=1.02))
    assert found.pixel_size_nm == pytest.approx((1.02 * NM, NM), rel=1e-3)
    assert found.skew == pytest.approx(1.0, abs=0.05)
    assert 0 < found.skew_sd < 0.05
    found = measured(picture())
    assert found.pixel_size_nm[0] == found.pixel_size_nm[1]
    assert found.skew is found.skew_sd is None
    assert measured(picture("square"), lattice="lines").lattice == "lines"


def test_the_pitch_adds_its_own_error():
    found = measured(picture(noise=0.01), pitch_sd_nm=0.02 * PITCH * NM)
    assert found.pixel_size_sd_nm[0] == pytest.approx(0.02 * NM, rel=0.02)


def test_neither_missing_pixels_nor_the_phase_count():
    torn = picture(bent=0.03, shape=(240, 300))
    torn[:60] = np.nan
    for image in (torn, picture(bent=0.03, noise=0.3, phase=2.0)):
        found = measured(image)
        assert abs(found.distortion - 0.03) < 4 * found.distortion_sd


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (np.full((64, 64), np.nan), "no-finite-values"),
        (np.random.default_rng(0).normal(size=(200, 200)), "no-structure"),
        (np.indices((128, 128))[0] > 60, "no-structure"),
    ],
    ids=["nothing", "noise", "an edge"],
)
def test_what_is_no_grating_is_refused(image, code):
    with refused(RegistrationError, code):
        measured(image)


def test_gratings_that_cannot_be_read_are_refused():
    with refused(RegistrationError, "too-few-periods", match=" 8 "):
        measured(picture(pitch=40.0), pitch=40.0)
    with refused(RegistrationError, "lattice-mismatch"):
        measured(picture(), lattice="square")
    y, x = np.indices((SIDE, SIDE), float)
    image = np.cos(2 * np.pi * x / PITCH) + np.cos(2 * np.pi * y / (1.5 * PITCH))
    with refused(RegistrationError, "lattice-mismatch"):
        measured(image)


def test_an_alias_of_sharp_lines_is_not_their_period():
    lines = np.sin(2 * np.pi * np.indices((256, 256))[1] / 11.7) > 0
    found = measured(1.0 * lines + np.roll(lines, 1, axis=1), pitch=11.7)
    assert found.pixel_size_nm[0] == pytest.approx(NM, rel=1e-3)


def test_a_centre_off_the_middle_is_found():
    centre = (-18.0, 11.0)  # a sixth of the half side
    found = measured(picture("square", bent=-0.08, centre=centre))
    assert np.all(np.abs(np.subtract(found.centre_px, centre)) < 2)
    off = np.subtract(found.centre_px, centre) / found.centre_sd_px
    assert np.all(np.abs(off) < 4)
    assert abs(found.distortion + 0.08) < 4 * found.distortion_sd
    # the pixel size is that of the centre
    assert abs(found.pixel_size_nm[1] - NM) < 4 * found.pixel_size_sd_nm[1]
    assert found.uneven_px is None


def test_a_tilted_grating_is_told_and_not_taken_for_a_centre():
    found = measured(picture("lines", bent=0.03, tilt=0.02))
    assert found.centre_px is None
    assert 0.5 < found.uneven_px < 5
    assert abs(found.pixel_size_nm[1] - NM) < 5 * found.pixel_size_sd_nm[1]
