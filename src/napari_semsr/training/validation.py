"""Fields whose truth is known, which choose the checkpoint and train nothing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.simulate.degrade import KINDS, degrade
from napari_semsr.simulate.phantoms import PHANTOMS, draw
from napari_semsr.training.data import PHANTOM_SEED, load_clear
from napari_semsr.training.patches import binned
from napari_semsr.training.recipes import Recipe
from napari_semsr.training.sources import simulated

__all__ = ["ValidationPair", "coarse_pairs", "simulated_pairs", "validation_pairs"]

Image = NDArray[np.float32]
_WHITE = 255.0
_HARDLY_PX = 0.5  # Gaussian sigma
_FIELDS = 14  # of a simulated instrument


@dataclass(frozen=True, slots=True)
class ValidationPair:
    """A degraded field and its truth, both on a 0-255 scale.

    Attributes
    ----------
    kind : str
        Degradation.
    low, high : (Y, X) numpy.ndarray
        Degraded and clear image; the clear one may be a multiple as large.
    """

    kind: str
    low: NDArray[Any]
    high: NDArray[Any]


def _centre(image: Image, side: int) -> Image:
    y, x = ((n - min(n, side)) // 2 for n in image.shape)
    return image[y : y + side, x : x + side]


def validation_pairs(recipe: Recipe, side: int = 512) -> list[ValidationPair]:
    """Make the fixed pairs that choose the checkpoint.

    Parameters
    ----------
    recipe : Recipe
        Names the validation images; one phantom of each kind is added.
    side : int, default=512
        Largest side of a pair.

    Returns
    -------
    list of ValidationPair
        Every clear image in each of the paper's degradations that the recipe has, and
        hardly blurred where it has sharp images.
    """
    root = Path(recipe.data.root)
    clear = [_centre(load_clear(root, e), side) for e in recipe.data.validation]
    if recipe.data.phantoms > 0:
        small = (side // 2, side // 2)
        clear += [draw(kind, small, seed=PHANTOM_SEED + 1) for kind in PHANTOMS]
    eight = [np.rint(image * 255).astype(np.uint8) for image in clear]
    kinds = [kind for kind in KINDS if getattr(recipe.degradations, kind) > 0]
    pairs = [
        ValidationPair(kind, degrade(image, kind, seed=index).image, image)
        for index, image in enumerate(eight)
        for kind in kinds
    ]
    if recipe.degradations.sharp > 0:
        pairs += [ValidationPair("sharp", _hardly_blurred(i), i) for i in eight]
    return pairs


def _hardly_blurred(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Blur by less than a pixel."""
    soft = ndimage.gaussian_filter(image.astype(np.float32), _HARDLY_PX)
    return np.asarray(np.rint(soft), dtype=np.uint8)


def simulated_pairs(recipe: Recipe, name: str, scale: int) -> list[ValidationPair]:
    """Make the fixed pairs of a simulated instrument.

    Parameters
    ----------
    recipe : Recipe
        Gives the size of fields.
    name : {"superlens", "gold"}
        Which instrument.
    scale : int
        Clear pixels per degraded pixel of the network.

    Returns
    -------
    list of ValidationPair
        On samples that training never draws.
    """
    instrument = simulated(recipe, name, scale)
    return [
        ValidationPair(name, low * _WHITE, high * _WHITE)
        for low, high in instrument.validation(_FIELDS)
    ]


def coarse_pairs(pairs: list[ValidationPair], scale: int) -> list[ValidationPair]:
    """Take the degraded images of pairs at a multiple of their pitch.

    Parameters
    ----------
    pairs : list of ValidationPair
        On one grid.
    scale : int
        The multiple.

    Returns
    -------
    list of ValidationPair
        Cropped to a multiple of the scale.
    """
    if scale == 1:
        return pairs
    made = []
    for pair in pairs:
        low = binned(pair.low.astype(np.float32), scale)
        rows, columns = (n * scale for n in low.shape)
        made.append(ValidationPair(pair.kind, low, pair.high[:rows, :columns]))
    return made
