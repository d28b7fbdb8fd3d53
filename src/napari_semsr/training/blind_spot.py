"""Blind-spot training: a noisy image is its own target at masked pixels.

A network predicts pixels that are masked in its input. It cannot predict their noise,
which is independent of what it sees, so it learns the signal [1]_, [2]_. If the noise
of neighbouring pixels on a scan line is correlated, those are masked, too [3]_, up to
the distance measured in the image.

.. [1] A. Krull et al., CVPR 2019, 2129 (Noise2Void).
.. [2] J. Batson, L. Royer, ICML 2019, PMLR 97, 524 (Noise2Self).
.. [3] C. Broaddus et al., ISBI 2020, 159 (structured Noise2Void).
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.core import FloatArray, IntPair, RealArray, reshape_into_blocks
from napari_semsr.training.learner import SupervisedLearner
from napari_semsr.training.patches import Patches, flatten_scenes, open_pair_store
from napari_semsr.training.recipe import Recipe
from napari_semsr.training.validation import WHITE, ValidationPair, read_stored_pairs

_MARGIN = 2  # pixels on either side of a masked region, which replace its grey values
_BLOCK = 32  # px; chosen: noise of slow scans is correlated over a few
_FLAT = 0.25  # fraction of blocks, the flattest, in which noise is measured; chosen
_FLAT_SIGMA_PX = 2.0  # contrast of a block after this blur measures its structure
_FARTHEST = 8  # px; beyond, too few pixels would stay visible
_NOISE_CORRELATION = 0.1  # correlation; explains a hundredth of the variance
_DRAWS = 4  # masks for each held-out patch; chosen: four in nine pixels are evaluated


class MaskedImages(NamedTuple):
    """Images with masked pixels, all (B, 1, H, W)."""

    image: Tensor  # with other grey values at the masked pixels
    mask: Tensor  # bool: pixels to predict
    mean: Tensor  # of the visible pixels around each pixel


def mask_pixels(
    images: Tensor, every: int, reach: IntPair, rng: torch.Generator | None = None
) -> MaskedImages:
    """Mask a random pixel in each cell of images (B, 1, H, W)."""
    rows, columns = (every + 2 * px for px in reach)
    count, (height, width) = len(images), images.shape[-2:]
    corners = torch.rand(
        (2, count, -(-height // rows), -(-width // columns)),
        generator=rng,
        device=images.device,
    )
    at = torch.arange(count, device=images.device)[:, None, None]
    y = torch.arange(0, height, rows, device=images.device)[:, None]
    x = torch.arange(0, width, columns, device=images.device)
    y, x = y + (corners[0] * rows).long(), x + (corners[1] * columns).long()
    # a margin for cells that end outside: selecting those inside makes a GPU wait
    larger = (count, height + rows, width + columns)
    there = torch.zeros(larger, dtype=torch.bool, device=images.device)
    there[at, y, x] = True
    there = there[:, None, :height, :width].contiguous()
    size = [2 * px + 1 for px in reach]
    blind = functional.max_pool2d(there.float(), size, 1, list(reach))
    window = [n + 2 * _MARGIN for n in size]
    margin = [n // 2 for n in window]
    left = functional.avg_pool2d(1 - blind, window, 1, margin).clamp_min(1e-6)

    def visible_mean(values: Tensor) -> Tensor:
        sums = functional.avg_pool2d(values * (1 - blind), window, 1, margin)
        return sums / left

    around = visible_mean(images)
    spread = (visible_mean(images.square()) - around.square()).clamp_min(0).sqrt()
    random_values = torch.randn(images.shape, generator=rng, device=images.device)
    visible = torch.where(blind > 0, around + spread * random_values, images)
    return MaskedImages(visible, there, around)


def measure_correlation_range(fields: list[RealArray]) -> IntPair:
    """Measure the noise correlation range of a scan along rows and columns."""
    blocks = np.concatenate(
        [
            reshape_into_blocks(field.astype(float), _BLOCK)
            .swapaxes(1, 2)
            .reshape(-1, _BLOCK, _BLOCK)
            for field in fields
        ]
    )
    structure = ndimage.gaussian_filter(blocks, (0, *(_FLAT_SIGMA_PX,) * 2)).std((1, 2))
    order = np.argsort(structure)
    flat_ones = blocks[order[: max(1, int(len(order) * _FLAT))]]
    along = _compute_noise_correlation(flat_ones)
    across = _compute_noise_correlation(flat_ones.swapaxes(1, 2))
    return _find_correlation_limit(across - along), _find_correlation_limit(
        along - across
    )


def _compute_noise_correlation(blocks: FloatArray) -> FloatArray:
    """Return the median noise correlation along lines (N, Y, X) at each distance."""
    noise = blocks[:, 2:] - 2 * blocks[:, 1:-1] + blocks[:, :-2]
    power = np.maximum((noise**2).mean((1, 2)), 1e-12)
    return np.array(
        [
            np.median((noise[..., :-px] * noise[..., px:]).mean((1, 2)) / power)
            for px in range(1, _FARTHEST + 1)
        ]
    )


def _find_correlation_limit(excess: FloatArray) -> int:
    """Return the largest distance before the noise becomes uncorrelated."""
    return int(np.argmin(np.append(excess >= _NOISE_CORRELATION, False)))


class BlindSpotLearner(SupervisedLearner):
    """Learner that trains a network to predict masked pixels of noisy patches."""

    def __init__(
        self, network: nn.Module, recipe: Recipe, pairs: list[ValidationPair]
    ) -> None:
        super().__init__(network, recipe, pairs)
        if recipe.hidden.reach is None and recipe.data.pairs is not None:
            pairs = read_stored_pairs(open_pair_store(recipe, 1), "train")
        self.reach = recipe.hidden.reach or measure_correlation_range(
            [one.low for one in pairs]
        )

    def training_step(self, batch: Patches, _index: int) -> Tensor:
        """Return the loss of one batch of `Patches`, using only `low`."""
        images = flatten_scenes(Patches(*batch)).low
        masked_images = mask_pixels(images, self.recipe.hidden.every_px, self.reach)
        prediction = self.run(self.set_memory_layout(masked_images.image))
        with self.full_precision():
            error = torch.where(masked_images.mask, prediction.float() - images, 0.0)
            loss: Tensor = error.square().sum() / masked_images.mask.sum()
        self.check_finite("loss is", loss, images)
        return loss

    @torch.inference_mode()
    def validate_pairs(self) -> dict[str, float]:
        """Compare predictions of masked pixels with the mean of their surroundings."""
        rng = torch.Generator().manual_seed(0)
        network, sums = self.best_network, np.zeros(2)
        learning, stride = network.training, int(getattr(network, "stride", 1))
        network.eval()
        for pair in self.validator.pairs:
            rows, columns = (n // stride * stride for n in pair.low.shape)
            image = torch.from_numpy(pair.low[:rows, :columns] / WHITE).float()
            masked_images = mask_pixels(
                image.expand(_DRAWS, 1, -1, -1),
                self.recipe.hidden.every_px,
                self.reach,
                rng,
            )
            output = network(masked_images.image.to(self.device)).float().cpu()
            for number, estimate in enumerate((output, masked_images.mean)):
                sums[number] += float(
                    (estimate - image)[masked_images.mask].square().sum()
                )
        network.train(learning)
        ours, plain = np.maximum(sums, 1e-12)
        return {
            "hidden_db": 10 * math.log10(plain / ours),
            "alike_rows_px": float(self.reach[0]),
            "alike_columns_px": float(self.reach[1]),
        }
