"""Wiener filters of a field's condition, and their packing."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional

from napari_semsr.core import NO_BLUR, NO_NOISE
from napari_semsr.models import InformedRestorer, compute_power_spectrum
from napari_semsr.models.architectures.informed import compute_wiener_filters
from napari_semsr.models.architectures.wiener import (
    compute_ring_medians,
    compute_sharpening_taps,
    estimate_widest_blur,
    filter_images,
    pack_taps,
)
from napari_semsr.simulation import draw_phantom


def test_packed_filters_equal_plain_convolution() -> None:
    torch.manual_seed(1)
    x, taps = torch.rand(2, 1, 48, 32), torch.randn(2, 3, 21, 21)
    around = functional.pad(x, (10,) * 4, mode="replicate")
    each = (functional.conv2d(around[i : i + 1], taps[i][:, None]) for i in range(2))
    plain = torch.cat(list(each))
    torch.testing.assert_close(
        filter_images(x, pack_taps(taps)), plain, atol=1e-4, rtol=1e-4
    )
    one = filter_images(x, pack_taps(taps[:1]))
    torch.testing.assert_close(one[0], plain[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("noise", "blur"), [(0.06, 0.0), (0.0, 1.5)])
def test_true_condition_brings_the_image_nearer(noise, blur):
    clear = draw_phantom("fracture", (192, 192), seed=5)
    rng = np.random.default_rng(2)
    low = ndimage.gaussian_filter(clear, blur) if blur else clear
    low = low + noise * rng.standard_normal(low.shape)
    x = torch.from_numpy(low.astype(np.float32))[None, None]
    condition = torch.zeros(1, 9)
    condition[:, 0] = math.log(noise + NO_NOISE)
    condition[:, 5:7] = math.log(blur + NO_BLUR)
    rings = InformedRestorer((8, 8, 8), survey_width=8).analyse_field(x).rings
    made = filter_images(x, compute_wiener_filters(condition, rings))[0, 0].numpy()
    inner = np.s_[12:-12, 12:-12]
    before, after = (np.square(a - clear)[inner].mean() for a in (low, made))
    assert after < 0.9 * before


def test_white_noise_has_its_variance_at_every_frequency() -> None:
    torch.manual_seed(4)
    power = compute_power_spectrum(0.1 * torch.randn(1, 1, 512, 512))
    assert power.shape == (1, 64, 33)
    inner = power[:, 3:-3, 3:]
    torch.testing.assert_close(inner.mean(), torch.tensor(0.01), rtol=0.02, atol=0)
    assert inner.std() < 0.0015
    assert compute_power_spectrum(torch.rand(1, 1, 20, 300)).isfinite().all()


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_no_wider_blur_is_undone_than_there_can_have_been(noise):
    clear = draw_phantom("fracture", (256, 256), seed=5)
    grain = noise * np.random.default_rng(2).standard_normal(clear.shape)
    for width in (0.7, 2.5):
        low = ndimage.gaussian_filter(clear, width) + grain
        x = torch.from_numpy((np.rint(255 * low) / 255).astype(np.float32))
        seen = compute_power_spectrum(x[None, None])[0]
        for told in (width, 0.5, 0.004):
            assert estimate_widest_blur(seen, told) == told
        assert estimate_widest_blur(seen, 2.4 * width) < 2 * width


@pytest.mark.parametrize("side", [48, 80])
def test_noise_of_a_small_field_is_no_line(side):
    grain = np.random.default_rng(2).standard_normal((side, side))
    x = torch.from_numpy((0.5 + 0.06 * grain).astype(np.float32))[None, None]
    width = torch.tensor([1.0])
    taps = compute_sharpening_taps(
        compute_power_spectrum(x), (width, width, torch.zeros(1))
    )
    assert filter_images(x, pack_taps(taps))[0, 0].std() < 1.2 * x.std()


@pytest.mark.parametrize(("blur", "noise"), [(0.7, 0.02), (2.5, 0.0012)])
def test_sharpening_is_nearly_as_good_as_if_all_were_known(blur, noise):
    # of a field that rows and columns make alike, and of which the law is known
    rng, side = np.random.default_rng(1), 512
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    f[0, 0] = np.inf
    law = f**-1.2
    clear = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((side, side))) * law)
    gain = 0.15 / clear.std()
    clear, power = clear * gain, (law * gain) ** 2
    point = np.zeros((side, side))
    point[0, 0] = 1
    passed = np.fft.rfft2(ndimage.gaussian_filter(point, blur, mode="wrap")).real
    low = ndimage.gaussian_filter(clear, blur, mode="wrap")
    low = low + noise * rng.standard_normal(clear.shape)
    best = passed * power / (passed**2 * power + noise**2)
    ideal = np.fft.irfft2(np.fft.rfft2(low) * best)
    x, width = (
        torch.from_numpy(low.astype(np.float32))[None, None],
        torch.tensor([blur]),
    )
    spectrum, blurs = compute_power_spectrum(x), (width, width, torch.zeros(1))
    taps = compute_sharpening_taps(spectrum, blurs)
    made = filter_images(x, pack_taps(taps))[0, 0].numpy()
    inner = np.s_[12:-12, 12:-12]
    least, error = (np.square(a - clear)[inner].mean() for a in (ideal, made))
    assert error < 1.03 * least


def test_strange_conditions_and_spectra_give_finite_filters():
    torch.manual_seed(3)
    conditions, rings = 4 * torch.randn(5, 9), torch.rand(5, 12) ** 8
    assert compute_wiener_filters(conditions, rings).isfinite().all()
    blur = 6 * torch.rand(5), 6 * torch.rand(5), 1.8 * torch.rand(5) - 0.9
    for spectra in (torch.rand(5, 64, 33) ** 8, torch.zeros(5, 64, 33)):
        assert compute_sharpening_taps(spectra, blur).isfinite().all()
        assert compute_sharpening_taps(spectra, blur, torch.rand(5)).isfinite().all()


def test_medians_of_rings_are_those_of_their_pixels() -> None:
    spectrum = torch.rand(2, 64, 33, generator=torch.Generator().manual_seed(0))
    y, x = np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(64)[None]
    ring = torch.from_numpy(np.rint(64 * np.hypot(y, x)))
    wanted = [spectrum[:, ring == n].median(1).values for n in range(46)]
    assert torch.equal(compute_ring_medians(spectrum), torch.stack(wanted, 1))


def test_a_spectrum_without_a_filter_gives_no_network() -> None:
    spectrum = torch.full((1, 64, 33), torch.nan)
    network = InformedRestorer((8, 8, 8), sharpener=(8, 8, 8))
    with pytest.raises(RuntimeError, match="no Wiener filter"):
        network.build_restorer(torch.zeros(9), torch.ones(12), spectrum=spectrum[0])
