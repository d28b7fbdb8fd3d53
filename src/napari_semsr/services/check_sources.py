"""Clear images with discs put in and taken out, degraded.

A source gives one truth after the other. Each is changed, and then degraded in every
way that the source knows: clear images as Gao et al. degraded theirs, or seen at a
multiple of their pixel. Drawn samples under an instrument are in `check_drawn`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.analysis.discs import (
    choose_places,
    disc_steps,
    erase_discs,
    insert_discs,
)
from napari_semsr.analysis.presence import Trial, make_trial
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.simulate.degrade import (
    BLUR_SIGMA_PX,
    BLUR_SIZE_PX,
    KINDS,
    blur_width_px,
    degrade,
    gaussian_kernel,
)
from napari_semsr.simulate.effects import expose
from napari_semsr.simulate.phantoms import PHANTOMS, draw

__all__ = ["ClearImages", "Scene", "Source", "drawn", "stream_of"]

Array = NDArray[np.float64]
_STREAM = 0xD15C  # of chance; nothing is trained or chosen by it
_PHANTOM_SEED = 1 << 33  # beyond those of training and validation
_ELECTRONS = 1000.0
_WHITE = 255.0


@dataclass(frozen=True, slots=True)
class Scene:
    """What a network sees, and what there is.

    Attributes
    ----------
    condition : str
        How it was degraded.
    field : Micrograph
        The degraded image.
    trial : Trial
        The truth, on the network's output grid.
    """

    condition: str
    field: Micrograph
    trial: Trial

    def degraded(self, scale: int) -> Array:
        """Bring the degraded image to the grid of the truth by a cubic spline.

        Parameters
        ----------
        scale : int
            Pixels of the truth for one of the image.

        Returns
        -------
        (Y, X) numpy.ndarray
            Areas stay where they are.
        """
        image = self.field.array().astype(np.float64)
        if scale == 1:
            return image
        return np.asarray(
            ndimage.zoom(image, scale, order=3, mode="nearest", grid_mode=True)
        )


class Source(ABC):
    """Where truths come from.

    Attributes
    ----------
    widths_px : dict
        Width at half maximum of the blur of each condition, in pixels of the truth.
    count : int or None
        How many truths there are; None for as many as are wanted.
    """

    widths_px: dict[str, float]
    count: int | None = None

    @abstractmethod
    def scenes(self, index: int, counts: tuple[int, int]) -> list[Scene]:
        """Change one truth, and degrade it in every way.

        Parameters
        ----------
        index : int
            Which truth.
        counts : tuple of int
            Discs to insert and to erase, at most.

        Returns
        -------
        list of Scene
            One for each condition.
        """


def stream_of(seed: int, index: int) -> np.random.Generator:
    """Give the chance of one truth.

    Parameters
    ----------
    seed, index : int
        Of the source, and which truth.

    Returns
    -------
    numpy.random.Generator
        From a stream that no training draws from.
    """
    return np.random.default_rng([seed, index, _STREAM])


def drawn(side: int, seed: int) -> Callable[[int], Array]:
    """Give the drawn samples that stand for clear images.

    Parameters
    ----------
    side : int
        Rows and columns.
    seed : int
        Which samples.

    Returns
    -------
    callable
        Takes a number, gives an image from 0 to 255.
    """

    def one(index: int) -> Array:
        kind = PHANTOMS[index % len(PHANTOMS)]
        place = _PHANTOM_SEED + 1000 * seed + index
        return np.rint(_WHITE * draw(kind, (side, side), seed=place).astype(float))

    return one


class ClearImages(Source):
    """Clear images, of 8 bits.

    Parameters
    ----------
    images : sequence of numpy.ndarray, or callable
        Images from 0 to 255; a callable gives any number of them.
    scale : int
        1 for the three degradations of Gao et al.; with more, images are blurred, seen
        at that multiple of their pixel, and exposed to few electrons.
    seed : int
        Makes it repeatable.
    """

    def __init__(
        self,
        images: Sequence[Array] | Callable[[int], Array],
        *,
        scale: int,
        seed: int,
    ) -> None:
        self.scale, self.seed = scale, seed
        self._image: Callable[[int], Array]
        if callable(images):
            self._image = images
        else:
            self._image, self.count = images.__getitem__, len(images)
        if scale == 1:
            self.widths_px = {kind: blur_width_px(kind) for kind in KINDS}
        else:
            self.widths_px = {"binned": float(np.hypot(blur_width_px("blur"), scale))}

    def scenes(self, index: int, counts: tuple[int, int]) -> list[Scene]:
        """Change one image, and degrade it in every way.

        Parameters
        ----------
        index : int
            Which image.
        counts : tuple of int
            Discs to insert and to erase, at most.

        Returns
        -------
        list of Scene
            One for each condition.
        """
        rng = stream_of(self.seed, index)
        clear = self._image(index)
        rows, columns = (n - n % self.scale for n in clear.shape)
        clear = clear[:rows, :columns]
        places = choose_places(clear, counts, rng)
        changed = erase_discs(clear, places.erased)
        steps = disc_steps(clear, places.inserted, rng, bounds=(0, _WHITE))
        changed = insert_discs(changed, places.inserted, steps)
        changed = np.clip(np.rint(changed), 0, _WHITE)
        trial = make_trial(clear, changed, places)
        grey = changed.astype(np.uint8)
        if self.scale > 1:
            low = self._binned(changed, rng)
            return [Scene("binned", Micrograph(low, name="binned"), trial)]
        return [
            Scene(kind, Micrograph(low.image, name=kind), trial)
            for kind in KINDS
            for low in [degrade(grey, kind, seed=self.seed + index)]
        ]

    def _binned(self, image: Array, rng: np.random.Generator) -> NDArray[Any]:
        """Blur, average over blocks, expose."""
        kernel = gaussian_kernel(BLUR_SIGMA_PX, BLUR_SIZE_PX)
        soft = ndimage.convolve(image / _WHITE, kernel, mode="reflect")
        rows, columns = (n // self.scale for n in soft.shape)
        blocks = soft.reshape(rows, self.scale, columns, self.scale).mean((1, 3))
        seen = expose(blocks, _ELECTRONS, 0.0, rng)
        return np.clip(np.rint(_WHITE * seen), 0, _WHITE).astype(np.uint8)
