"""A known blur in place of a generator, and the noise that comes after it."""

import numpy as np
import torch

from napari_semsr.training.kernel import Blur, kernel_of
from napari_semsr.training.objectives import KernelOptions


def test_noise_is_added_while_learning_and_only_then() -> None:
    kernel = kernel_of(KernelOptions())
    plain, noisy = Blur(kernel), Blur(kernel, noise=0.01)
    image = torch.rand(1, 1, 64, 64)
    torch.testing.assert_close(noisy.eval()(image), plain(image))
    added = noisy.train()(image) - plain(image)
    np.testing.assert_allclose(float(added.std()), 0.01, rtol=0.1)
    np.testing.assert_allclose(float(added.mean()), 0.0, atol=1e-3)
