"""The data module: what a run learns from, each batch by its step alone.

Three things may feed a run: a store of pairs, scenes that are made as they are wanted,
and scenes made ahead, which batches are drawn from at random.
"""

from typing import Any

import pytorch_lightning as lightning
from torch.utils.data import DataLoader, Dataset, Subset

from napari_semsr.training.data.patches import ScenePatches
from napari_semsr.training.data.scene_cache import (
    BlockBatches,
    CachedBatches,
    Report,
    SceneCache,
)
from napari_semsr.training.data.scenes import BlockDataset, SceneDataset
from napari_semsr.training.data.stored_pairs import StoredPatches
from napari_semsr.training.recipe import Recipe


class TrainingData(lightning.LightningDataModule):
    """Batches from the first one that a run of `done` steps has not seen.

    `scale` is the network's, output pixels per input pixel; `report` is told how far
    the making of scenes ahead is.
    """

    def __init__(
        self,
        recipe: Recipe,
        scale: int,
        done: int = 0,
        report: Report = lambda _done, _count: None,
    ) -> None:
        super().__init__()
        self.recipe, self.scale, self.done = recipe, scale, done
        self.report = report

    def train_dataloader(self) -> DataLoader[Any] | BlockBatches | CachedBatches:
        """Give the batches of this process; those of one are never those of another.

        As many as the whole run has steps, since Lightning counts on from `done`.
        """
        recipe, data, trainer = self.recipe, self.recipe.data, self.trainer
        number, of = (
            (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
        )
        stored = data.pairs is not None
        if data.bank and not stored:
            if recipe.learns == "survey":
                return BlockBatches(recipe, self.report, self.done, number)
            cache = SceneCache.open(recipe, self.scale, self.report)
            return CachedBatches(cache, recipe, self.done, number)
        per_step = max(1, recipe.batch // (1 if stored else data.patches_per_scene))
        first, end = (
            steps * per_step * of for steps in (self.done, self.done + recipe.steps)
        )
        return DataLoader(
            Subset(self._dataset(), range(first + number, end, of)),
            batch_size=per_step,
            num_workers=recipe.workers,
            prefetch_factor=4 if recipe.workers else None,
            persistent_workers=False,
        )

    def _dataset(self) -> Dataset[Any]:
        """Items of the recipe's kind, by their places in the whole run."""
        if self.recipe.data.pairs is not None:
            return StoredPatches(self.recipe, self.scale)
        if self.recipe.whole_scenes:
            blocks = self.recipe.learns == "survey"
            return (BlockDataset if blocks else SceneDataset)(self.recipe)
        return ScenePatches(self.recipe, self.scale)
