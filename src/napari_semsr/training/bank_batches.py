"""Batches from a bank, cut on the device that learns from them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_semsr.training.bank import Bank
from napari_semsr.training.data import Scenes
from napari_semsr.training.patches import Patches
from napari_semsr.training.recipes import Recipe

__all__ = ["BankBatches"]

_STREAM = 77  # of chance, beside those of scenes and patches
_SHARE = 0.25  # of a GPU's free memory that a bank may take
_PERCENTILES = (0.1, 99.9)


class BankBatches:
    """Random batches of a bank, the same for a seed and a step.

    The bank is held on the GPU where it takes up to a quarter of what is free there.

    Parameters
    ----------
    bank : Bank
        Scenes on file.
    recipe : Recipe
        How many scenes and patches make a batch. For the kind `cycle-gan` the clear
        patches are of other scenes than the degraded ones.
    done : int
        Steps before this start.
    share : tuple of int, default=(0, 1)
        Number of this process, and how many learn together.
    """

    def __init__(
        self,
        bank: Bank,
        recipe: Recipe,
        done: int,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.recipe, self.done = recipe, done
        self.stream = _STREAM + share[0]
        data = recipe.data
        self.per_step = max(1, recipe.batch // data.patches_per_scene)
        self.scale = bank.high.shape[-1] // bank.low.shape[-1]
        self.device = _device_for(bank)
        self.count = len(bank.low)
        self.low, self.high = (_placed(a, self.device) for a in (bank.low, bank.high))
        self.haze = None
        if bank.log_gain is not None and bank.airlight is not None:
            self.haze = (
                _placed(bank.log_gain, self.device)[:, None],
                _placed(bank.airlight, self.device).reshape(-1, 1),
            )

    def __len__(self) -> int:
        return self.recipe.steps

    def __iter__(self) -> Iterator[Scenes | Patches]:
        for step in range(self.done, self.recipe.steps):
            yield self.batch(step)

    def batch(self, step: int) -> Scenes | Patches:
        """Draw the batch of a step.

        Parameters
        ----------
        step : int
            Its number.

        Returns
        -------
        Scenes or Patches
            What the recipe's kind learns from.
        """
        data = self.recipe.data
        rng = np.random.default_rng([self.recipe.seed, step, self.stream])
        numbers = rng.integers(0, self.count, self.per_step)
        last = self.low.shape[-1] - data.patch_px
        many = (self.per_step, data.patches_per_scene, 2)
        corners = rng.integers(0, last + 1, many)
        low, high = self._taken(self.low, numbers), self._taken(self.high, numbers)
        if self.haze is not None:
            log_gain, airlight = (
                part[self._on_device(numbers)].float() for part in self.haze
            )
            return Scenes(low, high, log_gain, airlight, torch.from_numpy(corners))
        if self.recipe.kind == "cycle-gan":
            moved = numbers + rng.integers(1, max(self.count, 2), self.per_step)
            high = _unit(self._taken(self.high, moved % self.count))
            elsewhere = rng.integers(0, last + 1, many)
            return Patches(self._cut(low, corners, 1), self._cut(high, elsewhere))
        return Patches(self._cut(low, corners, 1), self._cut(high, corners))

    def _on_device(self, numbers: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(numbers).to(self.device)

    def _taken(self, scenes: Tensor, numbers: NDArray[np.int64]) -> Tensor:
        """Take scenes as (S, 1, H, W) in 32 bits."""
        return scenes[self._on_device(numbers)].float()[:, None]

    def _cut(
        self, scenes: Tensor, corners: NDArray[np.int64], scale: int | None = None
    ) -> Tensor:
        """Cut patches as (S, P, 1, h, w), corners being in pixels of the degraded."""
        factor = scale or self.scale
        side = self.recipe.data.patch_px * factor
        return torch.stack(
            [
                torch.stack([scene[:, y : y + side, x : x + side] for y, x in places])
                for scene, places in zip(
                    scenes, (corners * factor).tolist(), strict=True
                )
            ]
        )


def _unit(scenes: Tensor) -> Tensor:
    """Bring each scene's percentiles to 0 and 1."""
    thinned = scenes[..., ::4, ::4].flatten(1)
    shares = torch.tensor(_PERCENTILES, device=scenes.device) / 100
    low, high = torch.quantile(thinned, shares, dim=1)[:, :, None, None, None]
    unit: Tensor = (scenes - low) / (high - low).clamp_min(1e-6)
    return unit


def _device_for(bank: Bank) -> torch.device:
    """Choose where a bank is held."""
    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        if sum(a.nbytes for a in bank if a is not None) <= _SHARE * free:
            return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def _placed(array: NDArray[Any], device: torch.device) -> Tensor:
    return torch.from_numpy(array).to(device)
