import numpy as np
import pytest

from napari_semsr.core.errors import OptionError, ShapeError
from napari_semsr.simulation import (
    ImagingSettings,
    MicroscopeOptions,
    PhantomOptions,
    Specimen,
    SsumPair,
    SsumPairOptions,
    draw_specimen,
    get_surface_shape,
    simulate_random_ssum_pairs,
    simulate_ssum_pair,
)
from napari_semsr.simulation.microscope import compute_reflectance, simulate_image
from napari_semsr.simulation.specimen import SampleRanges, create_random_surface
from tests.refusals import refused

SIDE = 96
LENS = MicroscopeOptions(photons=0)
GAUSSIAN = MicroscopeOptions(optics="gaussian", photons=0)
STILL = ImagingSettings(GAUSSIAN)


def drawn(side: int = SIDE, **options: object) -> Specimen:
    chosen = PhantomOptions.parse({"phantom": "grating", "relief_nm": 20, **options})
    how = {"pixel_nm": 10, "options": chosen, "seed": 4}
    return draw_specimen(chosen.phantom, get_surface_shape(side), **how)


def taken(surface: Specimen, look: ImagingSettings = STILL, scale: int = 1) -> SsumPair:
    return simulate_ssum_pair(
        surface, SIDE, look, np.random.default_rng(0), scale=scale
    )


@pytest.mark.parametrize("scale", [1, 2])
def test_both_pictures_lie_on_one_grid(scale):
    # a disc's centre of light is the same place in both, in mosaic pixels
    shape, off = get_surface_shape(SIDE), np.array([7.3, -4.6])
    y, x = (np.indices(shape).T + 0.5 - np.array(shape) / 2 - off).T
    disc = np.clip(20.5 - np.hypot(y, x), 0, 1).astype(np.float32)
    pair = taken(Specimen(30 * disc, disc, 10.0, "disc"), scale=scale)
    for image, pixels in ((pair.low, 1), (pair.high, scale)):
        light = np.clip(image - np.median(image), 0, None)
        light[light < 0.1] = 0
        at = (np.indices(image.shape) + 0.5) / pixels
        found = (at * light).sum(axis=(1, 2)) / light.sum()
        assert found == pytest.approx(SIDE / 2 + off / 2, abs=0.02)


@pytest.mark.parametrize("optics", [LENS, GAUSSIAN], ids=["pupil", "gaussian"])
def test_the_optics_are_the_microscopes(optics: MicroscopeOptions) -> None:
    surface = drawn(phantom="circuit", pitch_nm=300, relief_nm=160)
    optics = optics.replace(focus_nm=120.0)
    pair = taken(surface, ImagingSettings(optics))
    sharp = compute_reflectance(surface.height_nm, surface.material, 10.0)
    box = 2 if optics.optics == "pupil" else 0  # a Gaussian has it in its width
    fine = simulate_image(sharp, surface.height_nm, 10.0, optics, box_px=box)
    rows = fine.shape[0] // 2
    middle = slice((rows - SIDE) // 2, (rows + SIDE) // 2)
    seen = fine.reshape(rows, 2, rows, 2).mean(axis=(1, 3))[middle, middle]
    low, high = pair.low_range
    error = (seen - low) / (high - low) - pair.low
    # light of both grids interferes pixel by pixel
    most = 0.02 if optics.optics == "pupil" else 0.01
    assert np.sqrt(np.mean(error**2)) < most


def test_pictures_of_one_sample_share_its_electron_image() -> None:
    pairs = simulate_random_ssum_pairs(64, np.random.default_rng(1), count=2, scale=2)
    one, other = pairs
    assert np.array_equal(one.high, other.high)
    assert not np.array_equal(one.low, other.low)


def test_held_out_samples_differ_from_those_of_training() -> None:
    made = []
    for held_out in (False, True):
        how = {"rng": np.random.default_rng(5), "held_out": held_out}
        made.append(create_random_surface((64, 64), pixel_nm=10, **how).height_nm)
    assert not np.array_equal(*made)


def test_wrong_scales_sizes_and_apertures_are_refused():
    with refused(OptionError, "unknown-value", match="scale .* 1 or 2, got 3"):
        next(simulate_random_ssum_pairs(64, np.random.default_rng(0), scale=3))
    with refused(ShapeError, "image-too-small"):
        simulate_ssum_pair(drawn(), SIDE + 32, STILL, np.random.default_rng(0))
    with refused(OptionError, "out-of-range", match=r"2\.09"):
        SsumPairOptions.parse({"numerical_aperture": (1.3, 2.2)})


def test_cards_from_before_the_lenses_mean_gaussians():
    told = {"defocus_nm": 420.0, "focused": 0.4, "pupils": 0.0, "coherence": 0.0}
    found = SsumPairOptions.parse({**told, "resolution_nm": [70.0, 95.0]})
    assert found == SsumPairOptions(
        gaussian=1, any_focus=0.6, resolution_nm=(70.0, 95.0)
    )
    with refused(OptionError, "unknown-option"):
        SsumPairOptions.parse({"pupils": 0.5})


def test_a_field_may_be_bent_but_stays_where_it_is() -> None:
    surface = drawn(phantom="circuit", pitch_nm=300)
    plain = taken(surface)
    bent = taken(surface, ImagingSettings(GAUSSIAN, bending_px=(2.0, 0.3, 0.0)))
    assert np.array_equal(bent.high, plain.high)
    assert np.corrcoef(bent.low.ravel(), plain.low.ravel())[0, 1] > 0.9
    assert np.abs(bent.low - plain.low).max() > 0.1


def test_what_is_told_of_the_blur_and_the_noise_holds() -> None:
    surface = drawn(pitch_nm=400, relief_nm=0)
    optics = GAUSSIAN.replace(resolution_nm=100, photons=2000)
    pair = taken(surface, ImagingSettings(optics))
    assert pair.blur_px == pytest.approx(100 / 20 / 2.355, rel=0.01)
    noise = pair.low - pair.noiseless
    expected = np.sqrt(0.5 / 2000) / np.ptp(pair.low_range)
    assert noise.std() == pytest.approx(expected, rel=0.3)
    assert abs(noise.mean()) < 0.01


@pytest.mark.broad
@pytest.mark.parametrize("seed", range(4))
def test_objects_are_put_in_and_taken_out_of_an_array(seed) -> None:
    def material(changed):
        ranges = {"kinds": ("dots",), "joined": 0, "bent": 0, "strewn": 0}
        how = {"ranges": SampleRanges(changed=changed, **ranges), "pixel_nm": 10}
        rng = np.random.default_rng(seed)
        return create_random_surface((300, 300), rng=rng, **how).material

    changed = material(1.0)
    assert 0.01 < (np.abs(changed - material(0)) > 0.05).mean() < 0.6
    assert -1e-6 < changed.min() <= changed.max() < 1 + 1e-6
