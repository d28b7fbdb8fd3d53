"""Clear images to check a model with: given ones, or those held out from training."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.analysis.discs import MARGIN_PX
from napari_semsr.core.errors import OptionError, ReadError
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.services.opening import Image, OpenOptions, name_of, open_image

if TYPE_CHECKING:
    from napari_semsr.models.cards import ModelCard

__all__ = ["ClearSet", "recipe_data"]

Array = NDArray[np.float64]
_CLIPPED = (0.05, 99.95)
_WHITE = 255.0


@dataclass(frozen=True, slots=True)
class ClearSet:
    """Clear images that a user gives, or none.

    Attributes
    ----------
    images : tuple of Micrograph or path
        The images.
    held_out : path or None
        Folder of those that a model's card names as held out, in place of `images`.
    opening : OpenOptions or None
        How to read them.
    """

    images: tuple[Image, ...]
    held_out: str | os.PathLike[str] | None
    opening: OpenOptions | None

    def __post_init__(self) -> None:
        if self.images and self.held_out is not None:
            msg = (
                "Give either clear images or the folder of those that the card names "
                "as held out, not both."
            )
            raise OptionError(msg)

    @property
    def kind(self) -> str:
        """``"drawn"`` without images, else ``"given"`` or ``"held_out"``."""
        if self.held_out is not None:
            return "held_out"
        return "given" if self.images else "drawn"

    def load(self, card: "ModelCard", side: int) -> list[Array]:
        """Read the middles of all images.

        Parameters
        ----------
        card : ModelCard
            Names what is held out.
        side : int
            Rows and columns to cut out, at most.

        Returns
        -------
        list of numpy.ndarray
            Whole numbers from 0 to 255.

        Raises
        ------
        OptionError
            If the card names none.
        ReadError
            If one cannot be read, is too small, or has pixels that are not finite.
        """
        opening = self.opening or OpenOptions()
        if self.held_out is None:
            opened = [(image, opening, 0) for image in self.images]
        else:
            folder = Path(self.held_out)
            opened = [
                (folder / entry["file"], opening, int(entry.get("crop_bottom", 0)))
                for entry in _held_out(card)
            ]
        return [
            _clear_image(open_image(image, how), cropped, side, name_of(image))
            for image, how, cropped in opened
        ]


def recipe_data(card: "ModelCard") -> dict[str, Any]:
    """Give what a card tells of the data that the model learnt from.

    Parameters
    ----------
    card : ModelCard
        A card.

    Returns
    -------
    dict
        Options of `DataOptions`; empty where the card holds no recipe.
    """
    recipe = card.training.get("recipe")
    data = recipe.get("data") if isinstance(recipe, dict) else None
    return data if isinstance(data, dict) else {}


def _held_out(card: "ModelCard") -> list[dict[str, Any]]:
    """Give the images that a card names as held out."""
    named = recipe_data(card).get("held_out") or []
    if not named:
        msg = f"The card of {card.name} names no held-out images; give clear images."
        raise OptionError(msg)
    return list(named)


def _clear_image(image: Micrograph, cropped: int, side: int, name: str) -> Array:
    """Cut out the middle, and bring it to 0 to 255."""
    rows, columns = image.shape[0] - cropped, image.shape[1]
    y, x = ((n - min(n, side)) // 2 for n in (rows, columns))
    part = np.asarray(image.data[y : min(rows, y + side), x : x + side], np.float64)
    least = 4 * MARGIN_PX
    if min(part.shape, default=0) < least:
        msg = (
            f"A clear image must be at least {least} px high and wide, got {rows} x "
            f"{columns} px in {name}."
        )
        raise ReadError(msg)
    if not np.isfinite(part).all():
        msg = f"A clear image must be finite, got NaN or Inf pixels in {name}."
        raise ReadError(msg)
    low, high = np.percentile(part, _CLIPPED)
    scaled = (part - low) * (_WHITE / max(high - low, 1e-12))
    return np.asarray(np.clip(np.rint(scaled), 0, _WHITE))
