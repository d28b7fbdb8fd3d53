"""Frames are registered to parts of a pixel before their correlation."""

import numpy as np
import pytest

import napari_semsr
from napari_semsr.core import Micrograph, RegistrationError, parse_pixel_size, run
from napari_semsr.jobs import FRC, FRC_MAP, FrcJobOptions, FrcMapJobOptions
from tests.refusals import refused, warned

SIDE = 256
pytestmark = pytest.mark.filterwarnings("ignore:.*no pixel size:UserWarning")


def pair(shift, *, resolution=5.0, seed=0):
    """Two exposures, the second aligned and moved by a shift; the same noise."""
    rng = np.random.default_rng(seed)
    side = 2 * SIDE
    rows, columns = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    fall = np.exp(-np.log(300) / 2 * (rows**2 + columns**2) * resolution**2)
    spectrum = np.fft.rfft2(rng.standard_normal((side, side))) * fall * np.sqrt(50)
    moved = spectrum * np.exp(-2j * np.pi * (rows * shift[0] + columns * shift[1]))
    noise = rng.standard_normal((2, SIDE, SIDE))
    part = np.s_[100 : 100 + SIDE, 100 : 100 + SIDE]
    planes = (spectrum, noise[0]), (spectrum, noise[1]), (moved, noise[1])
    return [
        Micrograph(np.fft.irfft2(plane, s=(side, side))[part] + own)
        for plane, own in planes
    ]


@pytest.mark.quick(1)
@pytest.mark.parametrize("shift", [(-0.7, 1.9), (2.5, -1.5), (14.2, -45.7)])
def test_misregistered_images_read_as_aligned_ones(shift):
    ratios, plain = [], FrcJobOptions(register=False)
    for seed in range(4):
        first, still, off = pair(shift, seed=seed)
        aligned = run(FRC.job(first, still, options=plain)).result.resolution_px
        found = run(FRC.job(first, off))
        ratios.append(found.result.resolution_px / aligned)
        np.testing.assert_allclose(found.found_shift_px, np.negative(shift), atol=0.15)
        assert found.result.shift_px == found.found_shift_px
    assert np.mean(ratios) == pytest.approx(1, abs=0.02)


def test_noise_that_did_not_move_with_the_sample_is_found():
    first, _, off = pair((-2.6, 1.3))
    pattern = 1.5 * np.random.default_rng(1).standard_normal(first.shape)
    both = [image.replace(data=image.data + pattern) for image in (first, off)]
    found = run(FRC.job(*both))
    assert (found.result.reason, found.result.shift_px) == ("correlated-noise", None)
    found = run(FRC_MAP.job(*both))
    assert found.result.field_reason == "correlated-noise"


def test_a_shift_that_counts_as_an_error_is_told(recwarn):
    first, still, off = pair((2.6, -1.3))
    napari_semsr.metrics(still, first)
    assert not any("is shifted" in str(w.message) for w in recwarn)
    with warned("images-shifted", match=r"\(2\.6, -1\.3\) px"):
        napari_semsr.metrics(off, first)
    with warned("images-shifted"):
        napari_semsr.metrics(pair((12.6, -31.3))[2], first)


@pytest.mark.parametrize(
    ("resolution", "shift", "is_told"), [(2.0, 0.45, True), (5.0, 0.8, False)]
)
def test_a_shift_is_told_by_what_it_costs_and_not_by_its_pixels(
    resolution, shift, is_told, recwarn
):
    first, _, off = pair((shift, 0.0), resolution=resolution)
    napari_semsr.metrics(off, first)
    told = [str(w.message) for w in recwarn if "is shifted" in str(w.message)]
    assert bool(told) == is_told


def test_a_large_shift_that_is_not_confirmed_is_refused():
    first, _, off = pair((30.4, 20.7))
    other = pair((0, 0), seed=1)[0]
    half = np.hstack([off.data[:, : SIDE // 2], other.data[:, SIDE // 2 :]])
    for command in (FRC, FRC_MAP):
        with refused(RegistrationError, "images-shifted"):
            run(command.job(first, off.replace(data=half)))


def test_aligned_images_keep_their_number():
    first, still, _ = pair((0, 0))
    found, plain = (
        run(FRC.job(first, still, options=FrcJobOptions(register=how)))
        for how in (True, False)
    )
    assert np.hypot(*found.found_shift_px) < 0.1
    assert found.result.shift_px is None
    assert found.result.resolution_px == plain.result.resolution_px


def test_a_map_is_of_what_both_share_and_lies_right():
    first, still, off = pair((2.6, -1.3))
    size = parse_pixel_size(10.0)
    first, still, off = (
        image.replace(pixel_size_nm=size, origin=(50.0, 70.0))
        for image in (first, still, off)
    )
    aligned = run(FRC_MAP.job(first, still, options=FrcMapJobOptions(register=False)))
    found = run(FRC_MAP.job(first, off))
    assert found.shift_px == found.found_shift_px
    # moved up by three rows and right by one column: the first row still is the first
    assert found.result.map.origin == (50.0 + 315, 70.0 + 10 + 315)
    assert found.median_px == pytest.approx(aligned.median_px, rel=0.03)
    assert found.result.map.provenance.options["register"] is True


def test_noise_and_lattices_are_not_registered_and_it_is_said():
    rng = np.random.default_rng(0)
    noise = [Micrograph(rng.standard_normal((128, 128))) for _ in "ab"]
    found = run(FRC.job(*noise))
    assert found.result.reason == "no-signal"
    assert found.note.startswith("The images were not registered.")
    rows, columns = np.mgrid[:SIDE, :SIDE]
    lattice = np.sin(rows * 2 * np.pi / 7) * np.sin(columns * 2 * np.pi / 7)
    both = [Micrograph(4 * lattice + rng.standard_normal(lattice.shape)) for _ in "ab"]
    found = run(FRC.job(*both))
    assert found.result.reason == "periodic"
    assert "not registered" in found.note


def test_an_image_and_itself_moved_by_whole_pixels_are_identical():
    _, _, image = pair((0, 0))
    one, two = (
        image.replace(data=image.array()[part, :200])
        for part in (slice(0, 200), slice(3, 203))
    )
    assert run(FRC.job(one, two)).result.reason == "identical"
