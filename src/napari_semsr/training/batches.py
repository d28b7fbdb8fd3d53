"""Cache of scenes simulated in parallel, stored in files and sampled at random.

A GPU trains on scenes many times faster than they can be simulated. A bank is made
once and shared by all runs that need the same scenes. It is a folder with one
memory-mapped array per quantity, and `bank.json`, which is written last.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, NamedTuple, Self, TypeVar

import numpy as np
import pytorch_lightning as lightning
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, default_collate

from napari_semsr.core import Float32Array, OptionError, RealArray, WriteError
from napari_semsr.io import move
from napari_semsr.models import get_free_memory, to_device
from napari_semsr.training import patches
from napari_semsr.training.recipe import Recipe
from napari_semsr.training.scenes import (
    SceneBatch,
    SceneDataset,
    SurveyBatch,
    SurveyDataset,
)

Report = Callable[[int, int], None]
"""Called with the number of finished scenes and the total; may raise an error to stop.
"""

Batch = TypeVar("Batch")

_MARK = "bank.json"
_CHUNK = 16  # scenes in one batch of a worker
_LARGEST = 1 << 36  # bytes of a bank; chosen: four times the largest of our recipes
_IMAGES = 3  # the first quantities are images, this many
_NOT_SCENES = {
    "root",
    "scans_root",
    "bank_folder",
    "pairs",
    "drawn",
    "augment",
    "validation",
    "held_out",
}
_NOT_SCENES |= {"patch_px", "patches_per_scene"}  # patches are cut again at every step


class SceneCache(NamedTuple):
    """Stored scenes; fields needed only for whole scenes may be None."""

    low: NDArray[np.float16]  # (N, H, W)
    high: NDArray[np.float16]  # (N, H * scale, W * scale)
    noiseless: NDArray[np.float16] | None  # (N, H, W)
    log_gain: Float32Array | None  # (N, H / 16, W / 16)
    airlight: Float32Array | None  # (N,)
    faults: Float32Array | None  # (N, 9)

    @classmethod
    def open(cls, recipe: Recipe, scale: int, report: Report) -> Self:
        """Open the scene cache of a recipe, creating it if necessary."""
        return cls(*_open_scene_bank(cls._fields, recipe, scale, report))


def _open_scene_bank(
    fields: tuple[str, ...], recipe: Recipe, scale: int, report: Report
) -> list[Any]:
    """Open the arrays of a recipe's scene bank, creating the bank if necessary."""
    # its name is a digest of all options that affect its scenes
    data = recipe.data.model_dump(mode="json", exclude=_NOT_SCENES)
    degradations = recipe.degradations.model_dump(mode="json")
    if not recipe.data.sources.get("images"):  # options for images have no effect
        names = ("sources", "superlens", "scene_px", "bank")
        data, degradations = {name: data[name] for name in names}, {}
    if recipe.kind == "restorer":
        degradations = recipe.faults.model_dump(mode="json")
    parts = fields if recipe.kind == "restorer" else ()
    key = json.dumps([data, degradations, recipe.seed, scale, parts], sort_keys=True)
    name = hashlib.sha256(key.encode()).hexdigest()[:16]
    folder = Path(recipe.data.bank_folder or "banks") / name
    if not (folder / _MARK).exists():
        _create_bank(recipe, scale, folder, report)
    paths = [folder / f"{name}.npy" for name in fields]
    return [np.load(p, mmap_mode="c") if p.exists() else None for p in paths]


def _create_bank(recipe: Recipe, scale: int, folder: Path, report: Report) -> None:
    """Create a bank in a temporary folder, and move it into place when complete."""
    count = recipe.data.bank
    partial_folder = folder.with_name(f"{folder.name}-{os.getpid()}.tmp")
    try:
        partial_folder.mkdir(parents=True, exist_ok=True)
        source = _create_scene_dataset(recipe, scale)
        _write_scenes(partial_folder, source, count, recipe.workers, report)
        mark = json.dumps({"count": count})
        (partial_folder / _MARK).write_text(mark, encoding="utf-8")
        if folder.exists():  # made by another run meanwhile
            return
        move(partial_folder, folder)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        msg = f"Cannot write scenes to {folder.parent}: {reason}. Lower data.bank."
        raise WriteError(msg) from error
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)


def _create_scene_dataset(recipe: Recipe, scale: int) -> Dataset[object]:
    """Create the dataset of scenes for a recipe, indexed over the whole run."""
    if recipe.kind != "restorer":
        return patches.ScenePairDataset(recipe, scale)
    if scale != 1:
        msg = (
            f"Training kind {recipe.kind} requires a network of scale 1, got scale "
            f"{scale}."
        )
        raise OptionError(msg, code="model-unsuitable")
    return (SurveyDataset if recipe.learns == "survey" else SceneDataset)(recipe)


def _write_scenes(
    folder: Path, source: Dataset[object], count: int, workers: int, report: Report
) -> None:
    """Write the scenes created by the worker processes, in order."""
    blocks = isinstance(source, SurveyDataset)
    fields = SurveyBatch._fields if blocks else SceneCache._fields
    loader: DataLoader[object] = DataLoader(
        Subset(source, range(count)),
        batch_size=_CHUNK,
        num_workers=workers,
        collate_fn=None if blocks else _stack_scenes,
    )
    arrays: list[np.memmap[tuple[int, ...], np.dtype[np.generic]]] = []
    scene_count = 0
    for batch in loader:
        parts = [part.numpy() for part in batch[: len(fields)]]
        if not arrays:
            size = count * sum(part[0].nbytes for part in parts)
            if size > _LARGEST:
                msg = (
                    f"The scenes of data.bank may take at most {_LARGEST >> 30} GiB, "
                    f"but {count} scenes take {size / (1 << 30):.3g} GiB; lower "
                    "data.bank."
                )
                raise OptionError(msg, code="out-of-range")
            arrays = [
                np.lib.format.open_memmap(
                    folder / f"{name}.npy",
                    mode="w+",
                    dtype=part.dtype,
                    shape=(count, *part.shape[1:]),
                )
                for name, part in zip(fields, parts, strict=False)
            ]
        for array, part in zip(arrays, parts, strict=True):
            array[scene_count : scene_count + len(part)] = part
        scene_count += len(parts[0])
        report(scene_count, count)
    for array in arrays:
        array.flush()


def _stack_scenes(items: list[tuple[Tensor, ...]]) -> list[Tensor]:
    """Stack scenes in the worker process, with images as 16-bit floats."""
    planes = [part.squeeze(1) for part in default_collate(items)]
    return [part.half() if n < _IMAGES else part for n, part in enumerate(planes)]


_STREAM = 77  # of random numbers, next to those of scenes and patches
_SHARE = 0.25  # of a GPU's free memory that a cache may take
_PERCENTILES = (0.1, 99.9)  # taken as black and white; chosen


class _RandomBatches(Generic[Batch]):
    """Random batches, determined by seed, step and process."""

    def __init__(
        self, recipe: Recipe, first_step: int, process: int, count: int
    ) -> None:
        self.recipe, self.first_step = recipe, first_step
        self.stream = _STREAM + process
        self.count = count
        self.per_step = max(1, recipe.batch // recipe.data.patches_per_scene)

    def __len__(self) -> int:
        return self.recipe.steps

    def __iter__(self) -> Iterator[Batch]:
        for step in range(self.first_step, self.recipe.steps):
            yield self.sample_batch(step)

    def sample_batch(self, step: int) -> Batch:
        """Sample the batch of a step for the recipe's kind of training."""
        raise NotImplementedError

    def sample_scenes(self, step: int) -> tuple[np.random.Generator, NDArray[np.int64]]:
        """Sample the scenes of a step; return random generator and scene indices."""
        rng = np.random.default_rng([self.recipe.seed, step, self.stream])
        return rng, rng.integers(0, self.count, self.per_step)


class BlockBatches(_RandomBatches[SurveyBatch]):
    """Random batches of stored block statistics for training the survey network."""

    def __init__(
        self, recipe: Recipe, report: Report, first_step: int, process: int
    ) -> None:
        self.arrays = _open_scene_bank(SurveyBatch._fields, recipe, 1, report)
        super().__init__(recipe, first_step, process, len(self.arrays[0]))

    def sample_batch(self, step: int) -> SurveyBatch:
        """Sample the batch of a step."""
        _, numbers = self.sample_scenes(step)
        return SurveyBatch(*(torch.from_numpy(a[numbers]) for a in self.arrays))


class PatchSelection(NamedTuple):
    """Scenes and patch corners of a batch: S scenes with P patches each."""

    low: NDArray[np.int64]  # (S,) numbers of the degraded scenes
    high: NDArray[np.int64]  # (S,) of the clear ones; other scenes if unpaired
    corners: NDArray[np.int64]  # (S, P, 2) in the degraded scenes
    high_corners: NDArray[np.int64]  # (S, P, 2) in the clear ones


class CachedBatches(_RandomBatches[SceneBatch | patches.Patches]):
    """Random batches of cached scenes, held on the training GPU if they fit."""

    def __init__(
        self,
        cache: SceneCache,
        recipe: Recipe,
        first_step: int,
        process: int = 0,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(recipe, first_step, process, len(cache.low))
        self.device = torch.device("cpu")
        if device is not None and device.type != "cpu":
            size = sum(a.nbytes for a in cache if a is not None)
            if size <= _SHARE * get_free_memory(device):
                self.device = device

        def to_device(array: RealArray) -> Tensor:
            return torch.from_numpy(array).to(self.device)

        self.low, self.high = (to_device(a) for a in (cache.low, cache.high))
        self.rest = [to_device(a) for a in cache[2:] if a is not None]

    def sample_batch(self, step: int) -> SceneBatch | patches.Patches:
        """Sample the batch of a step for the recipe's kind of training."""
        numbers, others, corners, high_corners = self.select_patches(step)
        low = self._select_scenes(self.low, numbers)
        high = self._select_scenes(self.high, others)
        if self.rest:
            there = to_device(numbers, self.device)
            noiseless, log_gain, airlight, faults = (
                part[there].float() for part in self.rest
            )
            return SceneBatch(
                low,
                high,
                noiseless[:, None],
                log_gain[:, None],
                airlight.reshape(-1, 1),
                faults,
                torch.from_numpy(corners),
            )
        if self.recipe.is_unpaired:
            high = normalise_scenes(high)
        side = self.recipe.data.patch_px
        return patches.Patches.cut_batch(low, high, corners, high_corners, side)

    def select_patches(self, step: int) -> PatchSelection:
        """Sample the scenes and the corners of the patches of a step."""
        data = self.recipe.data
        rng, numbers = self.sample_scenes(step)
        last = self.low.shape[-1] - data.patch_px
        many = (self.per_step, data.patches_per_scene, 2)
        corners = high_corners = rng.integers(0, last + 1, many)
        others = numbers
        if self.recipe.is_unpaired:  # clear patches of other scenes
            others = numbers + rng.integers(1, max(self.count, 2), self.per_step)
            others %= self.count
            high_corners = rng.integers(0, last + 1, many)
        return PatchSelection(numbers, others, corners, high_corners)

    def _select_scenes(self, scenes: Tensor, numbers: NDArray[np.int64]) -> Tensor:
        return scenes[to_device(numbers, self.device)].float()[:, None]


class MixedBatches(_RandomBatches[patches.Patches]):
    """Random batches of simulated scenes and stored pairs, as the recipe specifies."""

    def __init__(
        self,
        simulated_batches: CachedBatches,
        recipe: Recipe,
        scale: int,
        process: int,
        of: int,
    ) -> None:
        scenes = simulated_batches
        super().__init__(recipe, scenes.first_step, process, scenes.count)
        self.scenes, self.items = scenes, patches.StoredPatchDataset(recipe, scale)
        self.process, self.of = process, of
        scene_patches = scenes.per_step * recipe.data.patches_per_scene
        self.pairs_per_step = max(1, recipe.batch - scene_patches)

    def sample_batch(self, step: int) -> patches.Patches:
        """Sample the batch of a step: patches of scenes, then patches of the store."""
        first = step * self.pairs_per_step
        pairs = [
            self.items[self.process + self.of * (first + n)]
            for n in range(self.pairs_per_step)
        ]
        scenes = patches.flatten_scenes(
            patches.Patches(*self.scenes.sample_batch(step))
        )
        joined_batch = (
            torch.cat([scene, *(part.to(scene.device) for part in parts)])[:, None]
            for scene, *parts in zip(scenes, *pairs, strict=True)
        )
        return patches.Patches(*joined_batch)


def normalise_scenes(scenes: Tensor) -> Tensor:
    """Scale each scene (N, 1, H, W) by the percentiles of every 16th pixel."""
    sparse = scenes[..., ::4, ::4].flatten(1)
    shares = to_device(torch.tensor(_PERCENTILES), scenes.device) / 100
    low, high = torch.quantile(sparse, shares, dim=1)[:, :, None, None, None]
    unit: Tensor = (scenes - low) / (high - low).clamp_min(1e-6)
    return unit


class TrainingData(lightning.LightningDataModule):
    """Data module with the batches of a run, starting at `first_step`."""

    def __init__(
        self,
        recipe: Recipe,
        scale: int,
        first_step: int = 0,
        report: Report = lambda _first, _count: None,
    ) -> None:
        super().__init__()
        self.recipe, self.scale, self.first_step = recipe, scale, first_step
        self.report = report

    def train_dataloader(self) -> DataLoader[object] | _RandomBatches[Any]:
        """Return the batches of this process, one per step of the whole run."""
        recipe, data, trainer = self.recipe, self.recipe.data, self.trainer
        number, of = 0, 1
        if trainer is not None:
            number, of = trainer.global_rank, trainer.world_size
        device = None if trainer is None else trainer.strategy.root_device
        has_stores = data.pairs is not None
        if data.bank and recipe.has_simulated_scenes:
            if recipe.learns == "survey":
                return BlockBatches(recipe, self.report, self.first_step, number)
            cache = SceneCache.open(recipe, self.scale, self.report)
            if not has_stores:
                return CachedBatches(cache, recipe, self.first_step, number, device)
            count = max(1, round(data.drawn * recipe.batch))
            some = recipe.replace(batch=count, data=data.replace(drawn=0.0))
            scenes = CachedBatches(cache, some, self.first_step, number, device)
            return MixedBatches(scenes, recipe, self.scale, number, of)
        per_step = max(1, recipe.batch // (1 if has_stores else data.patches_per_scene))
        first, end = (
            steps * per_step * of
            for steps in (self.first_step, self.first_step + recipe.steps)
        )
        items: Dataset[object]
        if has_stores:
            items = patches.StoredPatchDataset(recipe, self.scale)
        elif recipe.kind == "restorer":
            items = _create_scene_dataset(recipe, self.scale)
        else:
            items = patches.ScenePatchDataset(recipe, self.scale)
        return DataLoader(
            Subset(items, range(first + number, end, of)),
            batch_size=per_step,
            num_workers=recipe.workers,
            prefetch_factor=4 if recipe.workers else None,
            persistent_workers=False,
            # so that the GPU copies while it computes
            pin_memory=device is not None and device.type == "cuda",
        )
