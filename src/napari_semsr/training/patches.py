"""Training patches from stored pairs and from degraded scenes, paired or not."""

from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from napari_semsr import core
from napari_semsr.pairing import PairStore, augment_pair, open_pairs
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


def bin_pixels(image: NDArray[np.floating], scale: int) -> core.Float32Array:
    """Average blocks of pixels, dropping incomplete blocks."""
    blocks = core.reshape_into_blocks(image, scale)
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

    def pair(self, place: int) -> tuple[core.Float32Array, core.Float32Array]:
        """Return a degraded scene, and its ground truth with matching grey values."""
        source = self.choose_source(place)
        if source != _IMAGES:
            return self.instruments[source].pair(place)
        scene = self.scenes[place]
        return bin_pixels(scene.low[0].numpy(), self.scale), scene.high[0].numpy()

    def choose_source(self, place: int) -> str:
        """Choose a scene's source, the same for all scenes that share a sample."""
        seed = [self.recipe.seed, place // _SCENES_PER_SAMPLE, _SOURCE]
        return str(np.random.default_rng(seed).choice(self.names, p=self.shares))

    def unpaired_image(self, place: int) -> core.Float32Array:
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
            high = self.scenes.unpaired_image(place)
            high_corners = self._choose_patch_corners(place, _OTHER)
        side = self.recipe.data.patch_px
        return Patches.cut_pair(low, high, corners, high_corners, side)

    def _choose_patch_corners(self, place: int, stream: int) -> NDArray[np.int64]:
        """Choose random corners of patches, in pixels of the degraded image."""
        data = self.recipe.data
        rng = np.random.default_rng([self.recipe.seed, place, stream, _CORNERS])
        last = data.scene_px - data.patch_px
        return rng.integers(0, last + 1, (data.patches_per_scene, 2))


_IN_MEMORY = 1 << 30  # bytes; smaller stores are read into memory; chosen
_MAX_RANGES = 100.0  # of a field; chosen: a hot pixel in 12 bits is 16 away
_LOW, _HIGH, _CUT = 1, 2, 3  # random streams


@lru_cache(maxsize=8)
def _get_epoch_order(seed: int, epoch: int, stream: int, count: int) -> tuple[int, ...]:
    """Return the order of the pairs in one epoch."""
    rng = np.random.default_rng([seed, epoch, stream])
    return tuple(int(i) for i in rng.permutation(count))


def scale_to_unit_range(
    patch: core.RealArray, grey: core.FloatPair
) -> core.Float32Array:
    """Scale a patch so that the percentiles of its image become 0 and 1."""
    low, high = grey
    values = patch.astype(core.get_interpolation_dtype(patch.dtype)) - low
    return np.asarray(values / (high - low or 1.0), dtype=np.float32)


class StoredPatchDataset(Dataset[Patches]):
    """Dataset of stored patches, indexed over the run; unpaired for `cycle-gan`."""

    def __init__(self, recipe: Recipe, scale: int) -> None:
        self.recipe = recipe
        self.store = open_pair_store(recipe, scale)
        if not (recipe.is_unpaired or self.store.is_paired):
            msg = (
                f"{self.store.path.name} contains unpaired patches, which require kind "
                f"cycle-gan, got kind {recipe.kind}."
            )
            raise core.ReadError(msg, code="pairs-not-matched")
        self.low, self.high = (
            array if array.size * array.dtype.itemsize > _IN_MEMORY else array[:]
            for array in self.store.get_arrays("train")
        )

    def __getitem__(self, place: int) -> Patches:
        near = self._get_pair_number(place, _LOW, self.low.shape[0])
        far = near
        if self.recipe.is_unpaired:
            far = self._get_pair_number(place, _HIGH, self.high.shape[0])
            if far == near and self.store.is_paired:
                far = (far + 1) % self.high.shape[0]
        greys = (
            self.store.get_ranges("train", near)[0],
            self.store.get_ranges("train", far)[1],
        )
        low, high = augment_pair(
            self._read_usable_patch("low", near, greys[0]),
            self._read_usable_patch("high", far, greys[1]),
            (self.recipe.seed, place),
            options=self.recipe.data.augment,
            low_range=greys[0],
            high_range=greys[1],
        )
        side = self.recipe.data.patch_px
        rng = np.random.default_rng([self.recipe.seed, place, _CUT])
        corner = np.array([[rng.integers(0, n - side + 1) for n in low.shape]])
        clear = scale_to_unit_range(high, greys[1])
        return Patches.cut_pair(
            scale_to_unit_range(low, greys[0]), clear, corner, corner, side
        )

    def _get_pair_number(self, place: int, stream: int, count: int) -> int:
        epoch, position = divmod(place, count)
        return _get_epoch_order(self.recipe.seed, epoch, stream, count)[position]

    def _read_usable_patch(
        self, side: Literal["low", "high"], number: int, grey: core.FloatPair
    ) -> core.RealArray:
        """Read a patch, or raise a `ReadError` naming its image if it is unusable."""
        patch = np.asarray((self.low if side == "low" else self.high)[number])
        away = np.abs(scale_to_unit_range(patch, grey))
        if away.max() <= _MAX_RANGES:  # false if any is NaN
            return patch
        code, fault = "pixels-missing", "has NaN or infinite pixels"
        if np.isfinite(patch).all():
            value, code = float(patch.ravel()[away.argmax()]), "values-too-large"
            fault = (
                f"has a grey value of {value:g}, {away.max():.3g} times the range "
                "of its image, probably a fill value or a defect"
            )
        image = self.store.get_image_name("train", side, number)
        made_of = f" (of {image})" if image else ""
        msg = (
            f"Pair {number} of {self.store.path.name}{made_of} {fault}. Correct the "
            "image and cut the pairs again (`pairs()`), which excludes fill values."
        )
        raise core.ReadError(msg, code=code)


def open_pair_store(recipe: Recipe, scale: int) -> PairStore:
    """Open the store of a recipe, and check its scale and its patch size."""
    store = open_pairs(Path(str(recipe.data.pairs)))
    store_scale, side = int(store.record["scale"]), int(store.record["patch"])
    if store_scale != scale:
        msg = (
            f"A network of scale {scale} requires pairs of the same scale, got scale "
            f"{store_scale} in {store.path.name}; cut pairs with `scale={scale}`."
        )
        raise core.ShapeError(msg, code="scale-mismatch")
    if side < recipe.data.patch_px:
        msg = (
            f"Patches in {store.path.name} must be at least patch_px = "
            f"{recipe.data.patch_px} px wide, got {side} px; lower data.patch_px."
        )
        raise core.ShapeError(msg, code="patch-size-unsuitable")
    return store
