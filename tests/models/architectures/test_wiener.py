"""Wiener filters of a field's condition, and their packing."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional

from napari_semsr.core import NO_BLUR, NO_NOISE
from napari_semsr.models import InformedRestorer
from napari_semsr.models.architectures.informed import filters_for
from napari_semsr.models.architectures.wiener import filtered, packed, wiener_taps
from napari_semsr.simulation import draw


def test_packed_filters_equal_plain_convolution() -> None:
    torch.manual_seed(1)
    x, taps = torch.rand(2, 1, 48, 32), torch.randn(2, 3, 21, 21)
    around = functional.pad(x, (10,) * 4, mode="replicate")
    plain = torch.cat(
        [functional.conv2d(around[i : i + 1], taps[i][:, None]) for i in range(2)]
    )
    torch.testing.assert_close(filtered(x, packed(taps)), plain, atol=1e-4, rtol=1e-4)
    one = filtered(x, packed(taps[:1]))
    torch.testing.assert_close(one[0], plain[0], atol=1e-4, rtol=1e-4)


def test_filters_keep_the_mean_and_without_faults_the_image() -> None:
    rings = torch.tensor([0.02, 0.1, 0.3, 0.5]), torch.tensor([[1.0, 0.03, 4e-3, 1e-3]])
    none = torch.zeros(1)
    taps = wiener_taps(none, (none, none, none), rings)
    torch.testing.assert_close(taps.sum((-1, -2)), torch.ones(1, 3))
    assert taps[0, 0, 10, 10] > 0.98


@pytest.mark.parametrize(("noise", "blur"), [(0.06, 0.0), (0.0, 1.5), (0.02, 1.0)])
def test_true_condition_brings_the_image_nearer(noise: float, blur: float) -> None:
    clear = draw("fracture", (192, 192), seed=5)
    rng = np.random.default_rng(2)
    low = ndimage.gaussian_filter(clear, blur) if blur else clear
    low = low + noise * rng.standard_normal(low.shape)
    x = torch.from_numpy(low.astype(np.float32))[None, None]
    condition = torch.zeros(1, 9)
    condition[:, 0] = math.log(noise + NO_NOISE)
    condition[:, 5:7] = math.log(blur + NO_BLUR)
    rings = InformedRestorer((8, 8, 8), survey_width=8).look(x).rings
    made = filtered(x, filters_for(condition, rings))[0, 0].numpy()
    inner = np.s_[12:-12, 12:-12]
    before, after = (np.square(a - clear)[inner].mean() for a in (low, made))
    assert after < 0.9 * before


def test_strange_conditions_give_finite_filters() -> None:
    torch.manual_seed(3)
    conditions, rings = 4 * torch.randn(20, 9), torch.rand(20, 12) ** 8
    assert filters_for(conditions, rings).isfinite().all()
    assert filters_for(conditions, torch.zeros(20, 12)).isfinite().all()
