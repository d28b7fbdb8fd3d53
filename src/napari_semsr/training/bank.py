"""Scenes made ahead by all processors, kept as files, and drawn from at random.

A GPU learns from scenes many times faster than they are drawn and degraded. A bank is
made once, and several runs that want the same scenes share it. It is a folder with one
array per quantity, memory-mapped, and `bank.json`, which is written last.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from napari_semsr.core.errors import OptionError, WriteError
from napari_semsr.training.data import SceneDataset
from napari_semsr.training.patches import ScenePairs
from napari_semsr.training.recipes import Recipe

__all__ = ["Bank", "Report", "open_bank"]

Report = Callable[[int, int], None]
"""Told how many scenes there are, of how many; may raise to stop."""

_MARK = "bank.json"
_CHUNK = 16  # scenes that a worker hands over at once
_IMAGES = 2  # quantities that are images
_LOOKS_FOR_HAZE = "supervised-l1"
_NOT_SCENES = {"root", "bank_folder", "pairs", "augment", "validation", "held_out"}
_NOT_SCENES |= {"patch_px", "patches_per_scene"}  # cut anew at every step


class Bank(NamedTuple):
    """Scenes on file.

    Attributes
    ----------
    low, high : (N, H, W) numpy.ndarray of float16
        Degraded and clear scenes; the clear ones may be a multiple as large.
    log_gain : (N, H / 16, W / 16) numpy.ndarray of float32 or None
        As in `napari_semsr.training.data.Scenes`; None where no haze is looked for.
    airlight : (N,) numpy.ndarray of float32 or None
        Likewise.
    """

    low: NDArray[np.float16]
    high: NDArray[np.float16]
    log_gain: NDArray[np.float32] | None
    airlight: NDArray[np.float32] | None


def open_bank(recipe: Recipe, scale: int, report: Report) -> Bank:
    """Open the bank of a recipe, made first if there is none.

    Parameters
    ----------
    recipe : Recipe
        Says what scenes are, how many the bank holds, and where banks are kept.
    scale : int
        Clear pixels per degraded pixel along each axis.
    report : Report
        Told how far the making is.

    Returns
    -------
    Bank
        Memory-mapped, not to be written to.

    Raises
    ------
    WriteError
        If the disk is full.
    """
    folder = Path(str(recipe.data.bank_folder)) / _name(recipe, scale)
    if not (folder / _MARK).exists():
        _make(recipe, scale, folder, report)

    def load(name: str) -> Any:
        path = folder / f"{name}.npy"
        return np.load(path, mmap_mode="c") if path.exists() else None

    return Bank(*(load(name) for name in Bank._fields))


def _name(recipe: Recipe, scale: int) -> str:
    """Name a bank by all that decides its scenes."""
    data = recipe.data.model_dump(mode="json", exclude=_NOT_SCENES)
    haze = recipe.kind == _LOOKS_FOR_HAZE
    degradations = recipe.degradations.model_dump(mode="json")
    if not recipe.data.sources.get("images"):  # what happens to images says nothing
        data = {
            name: data[name] for name in ("sources", "superlens", "scene_px", "bank")
        }
        degradations = {}
    told = json.dumps([data, degradations, recipe.seed, scale, haze], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _make(recipe: Recipe, scale: int, folder: Path, report: Report) -> None:
    """Make a bank beside its final place, and move it there when it is whole."""
    count = recipe.data.bank
    unfinished = folder.with_name(f"{folder.name}-{os.getpid()}.tmp")
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        _fill(unfinished, _source(recipe, scale, count), recipe.workers, report)
        (unfinished / _MARK).write_text(json.dumps({"count": count}), encoding="utf-8")
        if folder.exists():  # another run was quicker
            return
        unfinished.rename(folder)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        msg = f"Scenes could not be kept in {folder.parent}: {reason}; lower data.bank."
        raise WriteError(msg) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _source(recipe: Recipe, scale: int, count: int) -> Dataset[Any]:
    """Give the scenes that a run without a bank would see."""
    if recipe.kind == _LOOKS_FOR_HAZE:
        if scale != 1:
            msg = f"Kind {recipe.kind} needs a network of scale 1, got scale {scale}."
            raise OptionError(msg)
        return SceneDataset(recipe, first=0, count=count)
    return ScenePairs(recipe, scale=scale, first=0, count=count)


def _fill(folder: Path, source: Any, workers: int, report: Report) -> None:
    """Write what the worker processes make, in order."""
    count = len(source)
    loader: DataLoader[Any] = DataLoader(
        source, batch_size=_CHUNK, num_workers=workers, collate_fn=_gathered
    )
    arrays: list[tuple[NDArray[Any], int]] = []
    done = 0
    for batch in loader:
        parts = batch[: len(Bank._fields)]
        if not arrays:
            arrays = _arrays(folder, parts, count)
        for (array, squeezed), part in zip(arrays, parts, strict=True):
            values = part.numpy()
            array[done : done + len(values)] = values[:, 0] if squeezed else values
        done += len(parts[0])
        report(done, count)
    for array, _ in arrays:
        array.flush()  # type: ignore[attr-defined]


def _gathered(items: list[tuple[Tensor, ...]]) -> list[Tensor]:
    """Stack scenes within the worker, images in 16 bits: finer than their source."""
    stacked = [torch.stack(part) for part in zip(*items, strict=True)]
    return [part.half() if n < _IMAGES else part for n, part in enumerate(stacked)]


def _arrays(
    folder: Path, parts: list[Tensor], count: int
) -> list[tuple[NDArray[Any], int]]:
    """Make the files, and say which quantities have an axis of one to leave out."""
    made: list[tuple[NDArray[Any], int]] = []
    for name, part in zip(Bank._fields, parts, strict=False):
        shape = tuple(part.shape[1:])
        squeezed = shape[:1] == (1,)
        array = np.lib.format.open_memmap(
            folder / f"{name}.npy",
            mode="w+",
            dtype=part.numpy().dtype,
            shape=(count, *(shape[1:] if squeezed else shape)),
        )
        made.append((array, int(squeezed)))
    return made
