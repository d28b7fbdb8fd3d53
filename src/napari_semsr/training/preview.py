"""A picture of one held-out patch: degraded, what the network makes of it, truth."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from napari_semsr.core.micrograph import Micrograph, PixelSize, parse_pixel_size
from napari_semsr.io.registry import write
from napari_semsr.pairs.store import open_pairs
from napari_semsr.training.judging import restore_field
from napari_semsr.training.recipes import Recipe
from napari_semsr.training.validation import ValidationPair

__all__ = ["PREVIEW", "keep_preview", "preview"]

PREVIEW = "preview.tif"
_LARGEST_PX = 256
_GAP_SHARE = 64
Image = NDArray[np.float32]


def keep_preview(
    run_dir: Path, network: nn.Module, recipe: Recipe, pairs: list[ValidationPair]
) -> None:
    """Write the picture into the folder of a run, in place of the last one.

    Parameters
    ----------
    run_dir : pathlib.Path
        Folder of the run.
    network : torch.nn.Module
        As it is now.
    recipe : Recipe
        Names the store, where patches come from one.
    pairs : list of ValidationPair
        Fields whose truth is known; none if there is no truth.
    """
    picture = preview(network, recipe, pairs)
    if picture is not None:
        write(picture, run_dir / PREVIEW, overwrite=True)


def preview(
    network: nn.Module, recipe: Recipe, pairs: list[ValidationPair]
) -> Micrograph | None:
    """Put degraded patch, output and truth side by side.

    Parameters
    ----------
    network : torch.nn.Module
        As it is now.
    recipe : Recipe
        Names the store, where patches come from one.
    pairs : list of ValidationPair
        Fields whose truth is known. The one of most contrast is shown; without any, a
        degraded patch of the store and no truth.

    Returns
    -------
    Micrograph or None
        In float32, on the grey scale of the fields; None where there is nothing to
        show.
    """
    low, high = _chosen(recipe, pairs)
    if low is None:
        return None
    low = _middle(low, _LARGEST_PX)
    learning = network.training
    made = restore_field(network.eval(), low)
    network.train(learning)
    scale = made.shape[0] // low.shape[0]
    parts = [low.repeat(scale, 0).repeat(scale, 1), made]
    if high is not None:
        parts.append(_middle(high, _LARGEST_PX * scale))
    return Micrograph(_beside(parts), _pixel_size(recipe), "low | output | truth")


def _chosen(
    recipe: Recipe, pairs: list[ValidationPair]
) -> tuple[Image | None, Image | None]:
    """Choose what is shown: the same at every validation."""
    if pairs:
        best = max(pairs, key=lambda pair: float(np.std(pair.high)))
        return best.low.astype(np.float32), best.high.astype(np.float32)
    if recipe.data.pairs is None:
        return None, None
    store = open_pairs(Path(recipe.data.pairs))
    name = "validation" if store.counts["validation"] else "train"
    return np.asarray(store.arrays(name)[0][0], dtype=np.float32), None


def _middle(image: Image, side: int) -> Image:
    """Cut the middle of an image."""
    y, x = (max(0, n - side) // 2 for n in image.shape)
    return image[y : y + side, x : x + side]


def _beside(parts: list[Image]) -> NDArray[np.float32]:
    """Put images of one size side by side, with dark gaps between them."""
    rows, columns = parts[0].shape
    gap: NDArray[Any] = np.full(
        (rows, max(2, columns // _GAP_SHARE)), min(p.min() for p in parts)
    )
    row = [item for part in parts for item in (gap, part)][1:]
    return np.concatenate(row, axis=1).astype(np.float32)


def _pixel_size(recipe: Recipe) -> PixelSize | None:
    """Pixel of the clear images, where the store knows it."""
    if recipe.data.pairs is None:
        return None
    record = open_pairs(Path(recipe.data.pairs)).record
    return parse_pixel_size(record.get("pixel_size_nm"))
