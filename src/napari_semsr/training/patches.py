"""Training patches of degraded scenes, paired or from two different scenes."""

from typing import NamedTuple, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from napari_semsr.core import Float32Array, reshape_into_blocks
from napari_semsr.training.recipe import Recipe
from napari_semsr.training.scenes import INSTRUMENTS, SceneDataset

_Float = TypeVar("_Float", bound=np.floating)

_CORNERS, _OTHER, _SOURCE = 1, 2, 3  # random streams, next to the scene's own
_IMAGES = "images"
_SCENES_PER_SAMPLE = 4  # consecutive scenes that come from one source
_OFFSET = 1 << 30  # from a scene to its unpaired clear one


class Patches(NamedTuple):
    """Patches of one scene or pair, or a batch of them."""

    # (P, 1, H, W) degraded, on the scale where the field's percentiles are 0 and 1
    low: Tensor
    # (P, 1, H * scale, W * scale) ground truth, or of another scene if unpaired
    high: Tensor

    @classmethod
    def cut_batch(
        cls,
        low: Tensor,
        high: Tensor,
        corners: NDArray[np.int64],
        high_corners: NDArray[np.int64],
        side: int,
    ) -> Self:
        """Cut patches from images (S, 1, H, W) at corners (S, P, 2)."""
        scale = high.shape[-1] // low.shape[-1]
        return cls(
            crop_patches(low, corners, side),
            crop_patches(high, scale * high_corners, scale * side),
        )

    @classmethod
    def cut_pair(
        cls,
        low: NDArray[np.floating],
        high: NDArray[np.floating],
        corners: NDArray[np.int64],
        high_corners: NDArray[np.int64],
        side: int,
    ) -> Self:
        """Cut patches from a degraded and a clear image (Y, X) at corners (P, 2)."""
        coarse, fine = (
            torch.from_numpy(np.ascontiguousarray(image, np.float32))[None, None]
            for image in (low, high)
        )
        both = cls.cut_batch(coarse, fine, corners[None], high_corners[None], side)
        return cls(both.low[0], both.high[0])


def crop_patches(
    images: Tensor, corners: Tensor | NDArray[np.int64], side: int
) -> Tensor:
    """Cut patches (S, P, C, side, side) of images (S, C, H, W) at (S, P, 2) corners."""
    patches = [
        image[:, y : y + side, x : x + side]
        for image, places in zip(images, corners.tolist(), strict=True)
        for y, x in places
    ]
    return torch.stack(patches).reshape(*corners.shape[:2], -1, side, side)


def flatten_scenes(batch: Patches) -> Patches:
    """Merge the patches of all scenes of a batch: (S, P, 1, H, W) to (S P, 1, H, W)."""
    low, high = batch
    return Patches(low.flatten(0, 1), high.flatten(0, 1))


def bin_pixels(image: NDArray[np.floating], scale: int) -> Float32Array:
    """Average blocks of pixels, dropping incomplete blocks."""
    blocks = reshape_into_blocks(image, scale)
    return np.asarray(blocks.mean((1, 3)), dtype=np.float32)


def stretch_contrast(image: NDArray[_Float]) -> NDArray[_Float]:
    """Scale an image so that its 0.1 and 99.9 percentiles become 0 and 1."""
    low, high = np.percentile(image, (0.1, 99.9))
    return np.asarray((image - low) / max(float(high - low), 1e-6), dtype=image.dtype)


class ScenePairDataset(Dataset[tuple[Tensor, Tensor]]):
    """Infinite dataset of scenes, degraded and downsampled by `scale`."""

    def __init__(self, recipe: Recipe, scale: int) -> None:
        self.recipe, self.scale = recipe, scale
        data = recipe.data
        shares = {str(n): share for n, share in data.sources.items() if share > 0}
        self.names = sorted(shares)
        whole = sum(shares.values())
        self.shares = [shares[name] / whole for name in self.names]
        self.instruments = {
            name: INSTRUMENTS[name](recipe, scale)
            for name in self.names
            if name != _IMAGES
        }
        if _IMAGES in self.names:
            fine = recipe.replace(data=data.replace(scene_px=data.scene_px * scale))
            self.scenes = SceneDataset(fine)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        low, high = self.pair(place)
        return torch.from_numpy(low[None]), torch.from_numpy(high[None])

    def pair(self, place: int) -> tuple[Float32Array, Float32Array]:
        """Return a degraded scene, and its ground truth with matching grey values."""
        source = self.choose_source(place)
        if source != _IMAGES:
            return self.instruments[source].pair(place)
        scene = self.scenes[place]
        return bin_pixels(scene.low[0].numpy(), self.scale), scene.high[0].numpy()

    def choose_source(self, place: int) -> str:
        """Choose a scene's source, the same for all scenes that share a sample."""
        if len(self.names) == 1:
            return self.names[0]
        seed = [self.recipe.seed, place // _SCENES_PER_SAMPLE, _SOURCE]
        return str(np.random.default_rng(seed).choice(self.names, p=self.shares))

    def unpaired_image(self, place: int) -> Float32Array:
        """Return a clear image of another scene, with percentiles scaled to 0 and 1."""
        source = self.choose_source(place)
        if source != _IMAGES:
            return stretch_contrast(self.instruments[source].pair(place + _OFFSET)[1])
        rng = np.random.default_rng([self.recipe.seed, place, _OTHER])
        return stretch_contrast(self.scenes.sample_clear_image(rng))


class ScenePatchDataset(Dataset[Patches]):
    """Dataset of random scene patches; unpaired for `cycle-gan`."""

    def __init__(self, recipe: Recipe, scale: int) -> None:
        self.recipe = recipe
        self.scenes = ScenePairDataset(recipe, scale)

    def __getitem__(self, place: int) -> Patches:
        low, high = self.scenes.pair(place)
        corners = self._choose_patch_corners(place, _CORNERS)
        high_corners = corners
        if self.recipe.is_unpaired:
            high, high_corners = (
                self.scenes.unpaired_image(place),
                self._choose_patch_corners(place, _OTHER),
            )
        side = self.recipe.data.patch_px
        return Patches.cut_pair(low, high, corners, high_corners, side)

    def _choose_patch_corners(self, place: int, stream: int) -> NDArray[np.int64]:
        """Choose random corners of patches, in pixels of the degraded image."""
        data = self.recipe.data
        rng = np.random.default_rng([self.recipe.seed, place, stream, _CORNERS])
        last = data.scene_px - data.patch_px
        return rng.integers(0, last + 1, (data.patches_per_scene, 2))
