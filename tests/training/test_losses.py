"""Losses: hand values and gradients."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from skimage import filters
from skimage.metrics import structural_similarity
from torch import Tensor

from napari_semsr.core.errors import SemsrError
from napari_semsr.training.adversarial import (
    discriminator_loss,
    generator_loss,
    total_variation,
)
from napari_semsr.training.cycle_gan import (
    compute_edge_magnitude,
    cycle_ssim_loss,
    edge_loss,
    ssim,
)
from napari_semsr.training.learner import check_finite
from tests.refusals import refused

PAIR: dict[str, Callable[..., Tensor]] = {
    "cycle_ssim": cycle_ssim_loss,
    "edge_loss": edge_loss,
    "discriminator": partial(discriminator_loss, "least-squares"),
}
SINGLE: dict[str, Callable[..., Tensor]] = {
    "total_variation": total_variation,
    "generator": partial(generator_loss, "least-squares"),
}


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    shape = (2, 1, 13, 12)
    first, second = torch.rand((2, *shape), generator=generator, dtype=torch.float64)
    return first, second


@pytest.mark.parametrize("name", [*PAIR, *SINGLE])
def test_losses_are_scalars_and_have_right_gradients(name, images):
    function = SINGLE.get(name) or PAIR[name]
    inputs = images if name in PAIR else images[:1]
    assert function(*inputs).ndim == 0
    wanted = [x.clone().requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(function, wanted)


def test_adversarial_losses_and_total_variation_by_hand():
    generator, discriminator = SINGLE["generator"], PAIR["discriminator"]
    fake, real = torch.tensor([0.0, 2.0, 0.5]), torch.tensor([[1.0, 0.0]])
    assert generator(fake, factor=0.5) == pytest.approx((1 + 1 + 0.25) / 3 / 2)
    assert discriminator(real, fake) == pytest.approx(0.5 * (1 / 2 + (4 + 0.25) / 3))
    assert generator(fake) == 2 * generator(fake, factor=0.5)
    perfect = discriminator(torch.ones(4), torch.zeros(2))
    assert perfect == 0
    image = torch.tensor([[[[0.0, 1.0], [3.0, -1.0]]]])
    assert total_variation(image) == 3 + 2 + 1 + 4
    assert total_variation(image.repeat(3, 1, 1, 1)) == 10


@pytest.mark.parametrize("k2", [0.02, 0.03], ids=["Gao", "usual"])
def test_ssim_agrees_with_another_implementation(k2, rng):
    first = rng.random((32, 40))
    second = np.clip(first + rng.normal(0, 0.2, first.shape), 0, 1)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    options |= {"data_range": 1.0, "K1": 0.01, "K2": k2, "full": True}
    _, full = structural_similarity(first, second, **options)
    ours = ssim(*(torch.from_numpy(x)[None, None] for x in (first, second)), c2=k2**2)
    np.testing.assert_allclose(ours[0, 0], full[5:-5, 5:-5], atol=1e-12)


@pytest.mark.parametrize("operator", ["sobel", "prewitt", "kirsch"])
def test_slope_reads_eight_per_pixel_and_nothing_reads_nothing(operator: Any) -> None:
    slope = 3 * torch.arange(9.0).expand(1, 2, 7, 9)
    steep = compute_edge_magnitude(slope, operator)
    assert torch.allclose(steep[..., 1:-1], torch.tensor(24.0))
    assert compute_edge_magnitude(torch.full((1, 1, 5, 5), 0.4), operator).max() < 2e-6
    turned = compute_edge_magnitude(slope.mT, operator).mT
    assert torch.allclose(turned[..., 1:-1], steep[..., 1:-1], rtol=1e-5)


@pytest.mark.parametrize("operator", ["sobel", "prewitt"])
def test_edges_are_those_of_scikit_image(operator):
    image = np.random.default_rng(0).random((12, 14))
    slopes = (getattr(filters, f"{operator}_{way}")(image) for way in "hv")
    found = compute_edge_magnitude(torch.from_numpy(image)[None, None], operator)[0, 0]
    np.testing.assert_allclose(
        found[1:-1, 1:-1], 4 * np.hypot(*slopes)[1:-1, 1:-1], rtol=1e-5
    )


@pytest.mark.parametrize(
    ("grey", "value"), [(0.7, "learning_rate"), (16.0, "value 16 times")]
)
def test_a_loss_that_is_not_finite_names_its_cause(grey, value):
    seen = torch.full((1, 1, 4, 4), grey)
    with refused(SemsrError, "training-diverged", match=value):
        check_finite("loss is", torch.tensor(torch.nan), 3, seen)
