"""A blur in place of a generator, known or learnt, and the noise after it."""

import numpy as np
import pytest
import torch

from napari_semsr.core.errors import OptionError
from napari_semsr.simulation.degrade import create_gaussian_kernel
from napari_semsr.training.cycle_gan import (
    Blur,
    TrainableBlur,
    create_blur,
    create_kernel,
)
from napari_semsr.training.recipe import KernelOptions
from tests.refusals import refused


def test_learnt_kernel_is_a_kernel_and_begins_as_told() -> None:
    start = create_kernel(KernelOptions(sigma_px=1.2, size_px=9))
    learnt = TrainableBlur(start, 0.0, 32)
    np.testing.assert_allclose(learnt.kernel()[0, 0].detach(), start, atol=2e-4)
    assert float(learnt.kernel().detach().sum()) == pytest.approx(1)
    image = torch.rand(1, 1, 32, 32)
    torch.testing.assert_close(learnt(image), Blur(start)(image), atol=2e-3, rtol=0)
    with refused(OptionError, "kernel-too-large", match=" 16 px, got 17 px"):
        create_blur(KernelOptions(size_px=17, learnt=True), 16)


@pytest.mark.broad
def test_kernel_is_learnt_from_images_of_different_places() -> None:
    sigma = 1.2
    torch.manual_seed(3)
    true = Blur(create_gaussian_kernel(sigma, 11).astype(np.float32), noise=1e-3)
    coarse = Blur(create_gaussian_kernel(0.5, 7).astype(np.float32))
    begun = KernelOptions(sigma_px=0.5, size_px=11)
    learnt = TrainableBlur(create_kernel(begun), 1e-3, 32)
    optimiser = torch.optim.Adam(learnt.parameters(), lr=1e-2)
    for _ in range(120):
        sharp, other = (coarse(torch.randn(8, 1, 32, 32)) for _ in range(2))
        optimiser.zero_grad()
        learnt.spectrum_loss(true(other), sharp).backward()
        optimiser.step()
    wanted = create_gaussian_kernel(sigma, 11)
    found = np.abs(learnt.kernel()[0, 0].detach().numpy() - wanted).sum()
    assert found < np.abs(create_kernel(begun) - wanted).sum() / 2
