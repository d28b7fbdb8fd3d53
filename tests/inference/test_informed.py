"""A network that is told what ails a field: by its survey, or by the user."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_semsr.core import Box, Micrograph, OptionError, get_blur, get_noise, run
from napari_semsr.inference import EnhanceOptions, enhance_in_memory
from napari_semsr.inference.network_input import measure_scaling, survey_field
from napari_semsr.models import InformedRestorer, LoadedModel, compute_power_spectrum
from napari_semsr.models.architectures.informed import (
    compute_sharpening_filters,
    compute_wiener_filters,
)
from napari_semsr.models.architectures.wiener import filter_images
from napari_semsr.simulation import draw_phantom
from tests.refusals import refused, warned

Make = Callable[..., LoadedModel]


@pytest.fixture
def field(rng: np.random.Generator) -> np.ndarray:
    """Noise on a slope, of sides that no stride divides."""
    slope = np.linspace(0, 1, 118)
    return (slope + 0.1 * rng.standard_normal((90, 118))).astype(np.float32)


def enhanced(field: np.ndarray, loaded: LoadedModel, **options: object) -> Micrograph:
    """Enhance in fp32."""
    chosen = EnhanceOptions(precision="fp32").replace(**options)
    return run(enhance_in_memory(Micrograph(field), loaded, chosen))


def test_network_for_a_field_equals_the_told_one(make_loaded: Make) -> None:
    module = make_loaded("informed").module
    x, condition = torch.rand(1, 1, 64, 48), torch.randn(9)
    rings = torch.rand(12)
    with torch.no_grad():
        through = filter_images(x, compute_wiener_filters(condition[None], rings[None]))
        planes = torch.cat([x, through], dim=1)
        both = module.local.estimate_corrections(
            planes, module.compute_conditions(condition[None])
        )
        made = module.build_restorer(condition, rings, denoise=0.25, deblur=0.5)(x)
    expected = x + 0.25 * both[:, :1] + 0.5 * both[:, 1:]
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-5)


def test_an_untrained_sharpener_is_a_wiener_filter() -> None:
    module = InformedRestorer((8, 8, 8), survey_width=8, sharpener=(8, 8, 8))
    x, condition = torch.rand(1, 1, 64, 64), torch.zeros(9)
    spectrum = compute_power_spectrum(x)
    taps = filter_images(x, compute_sharpening_filters(condition[None], spectrum))
    for denoise, deblur in ((1.0, 0.0), (0.5, 0.25)):
        how = {"denoise": denoise, "deblur": deblur, "spectrum": spectrum[0]}
        made = module.build_restorer(condition, torch.rand(12), **how)
        quiet = taps[:, 2:] - x
        expected = x + denoise * quiet + deblur * (taps[:, :1] - taps[:, 2:])
        with torch.no_grad():
            torch.testing.assert_close(made(x), expected, atol=1e-5, rtol=1e-5)


def test_a_known_blur_goes_to_the_sharpener_and_0_undoes_none(make_loaded, field):
    loaded, alone = make_loaded("sharpener"), make_loaded("sharpener")
    alone.module.sharpener = None
    told, other = (enhanced(field, one, blur_px=1.5).array() for one in (loaded, alone))
    assert np.abs(told - other).max() > 1e-3
    off, same = (enhanced(field, one, blur_px=0.0).array() for one in (loaded, alone))
    np.testing.assert_array_equal(off, same)
    found, same = (enhanced(field, one).array() for one in (loaded, alone))
    np.testing.assert_array_equal(found, same)
    plain = enhanced(field, alone, blur_px=0.0, deblur=0.0).array()
    np.testing.assert_array_equal(off, plain)
    with torch.no_grad():
        x, faults = torch.rand(1, 1, 64, 64), torch.full((1, 9), torch.nan)
        assert (loaded.module(x, faults) - loaded.module(x)).abs().max() > 1e-3
    tiled = enhanced(field, loaded, blur_px=1.5, tile=32).array()
    np.testing.assert_allclose(tiled, told, atol=1e-5)


def test_a_width_that_is_too_large_is_told_and_not_undone(make_loaded: Make) -> None:
    loaded = make_loaded("sharpener")
    clear = draw_phantom("fracture", (128, 128), seed=5)
    low = ndimage.gaussian_filter(clear, 1.0)
    undone = enhanced(low, loaded, blur_px=1.0).metadata["enhance"]["blur_px"]
    assert undone == pytest.approx(1.0)
    with warned("blur-overstated"):
        undone = enhanced(low, loaded, blur_px=3.0).metadata["enhance"]["blur_px"]
    assert undone < 2.0


@pytest.mark.parametrize("keep", [Box(64, 80, 48, 64), Box(131, 160, 1, 40)])
def test_a_part_is_that_of_the_whole(make_loaded, keep):
    made = make_loaded("informed").module.build_restorer(torch.randn(9), torch.rand(12))
    x = torch.rand(1, 1, 160, 128)
    with torch.no_grad():
        whole, part = made(x), made(x, keep)
    torch.testing.assert_close(part, whole[..., *keep.slices], atol=1e-6, rtol=1e-5)


def test_strength_of_zero_leaves_the_field(make_loaded, field):
    loaded = make_loaded("informed")
    left = enhanced(field, loaded, strength=0.0).array()
    np.testing.assert_allclose(left, field, atol=1e-5)
    apart = enhanced(field, loaded, denoise=0.0, deblur=0.0, dehaze=0.0).array()
    np.testing.assert_array_equal(apart, left)
    assert np.abs(enhanced(field, loaded).array() - field).max() > 0.01
    with refused(OptionError, "option-without-effect"):
        enhanced(field, make_loaded("plain"), denoise=0.5)


def test_noise_and_blur_are_told_and_overruled(make_loaded, field):
    loaded = make_loaded("informed")
    found = enhanced(field, loaded)
    scaling = measure_scaling(field, (1, 99))
    condition = survey_field(field, loaded.module, scaling).condition
    said = found.metadata["enhance"]
    assert said["noise_percent"] == pytest.approx(100 * get_noise(condition))
    assert said["blur_px"] == pytest.approx(get_blur(condition))
    other = enhanced(field, loaded, noise_percent=20.0, blur_px=1.5)
    said = other.metadata["enhance"]
    assert said["noise_percent"] == pytest.approx(20.0)
    assert said["blur_px"] == pytest.approx(1.5)
    assert np.abs(other.array() - found.array()).max() > 1e-4
