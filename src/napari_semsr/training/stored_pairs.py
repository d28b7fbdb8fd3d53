"""Augmented patches from a store of pairs, in a seed-dependent order."""

from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from torch.utils.data import Dataset

from napari_semsr.core import (
    Float32Array,
    FloatPair,
    ReadError,
    RealArray,
    ShapeError,
    get_interpolation_dtype,
)
from napari_semsr.pairing import PairStore, augment_pair, open_pairs
from napari_semsr.training.patches import Patches
from napari_semsr.training.recipe import Recipe

_IN_MEMORY = 1 << 30  # bytes; smaller stores are read into memory; chosen
_MAX_RANGES = 100.0  # of a field; chosen: a hot pixel in 12 bits is 16 away
_LOW, _HIGH, _CUT = 1, 2, 3  # random streams


@lru_cache(maxsize=8)
def _get_epoch_order(seed: int, epoch: int, stream: int, count: int) -> tuple[int, ...]:
    """Return the order of the pairs in one epoch."""
    rng = np.random.default_rng([seed, epoch, stream])
    return tuple(int(i) for i in rng.permutation(count))


def scale_to_unit_range(patch: RealArray, grey: FloatPair) -> Float32Array:
    """Scale a patch so that the percentiles of its image become 0 and 1."""
    low, high = grey
    values = patch.astype(get_interpolation_dtype(patch.dtype)) - low
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
            raise ReadError(msg, code="pairs-not-matched")
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
        self, side: Literal["low", "high"], number: int, grey: FloatPair
    ) -> RealArray:
        """Read a patch, or raise a `ReadError` naming its image if it is unusable."""
        patch = np.asarray((self.low if side == "low" else self.high)[number])
        fault = code = None
        if not np.isfinite(patch).all():
            fault = "has NaN or infinite pixels"
            code = "pixels-missing"
        else:
            away = np.abs(scale_to_unit_range(patch, grey))
            if away.max() > _MAX_RANGES:
                value = float(patch.ravel()[away.argmax()])
                code = "values-too-large"
                fault = (
                    f"has a grey value of {value:g}, {away.max():.3g} times the range "
                    "of its image, probably a fill value or a defect"
                )
        if fault is None:
            return patch
        image = self.store.get_image_name("train", side, number)
        made_of = f" (of {image})" if image else ""
        msg = (
            f"Pair {number} of {self.store.path.name}{made_of} {fault}. Correct the "
            "image and cut the pairs again (`pairs()`), which excludes fill values."
        )
        raise ReadError(msg, code=code)


def open_pair_store(recipe: Recipe, scale: int) -> PairStore:
    """Open the store of a recipe, and check its scale and its patch size."""
    store = open_pairs(Path(str(recipe.data.pairs)))
    store_scale, side = int(store.record["scale"]), int(store.record["patch"])
    if store_scale != scale:
        msg = (
            f"A network of scale {scale} requires pairs of the same scale, got scale "
            f"{store_scale} in {store.path.name}; cut pairs with `scale={scale}`."
        )
        raise ShapeError(msg, code="scale-mismatch")
    if side < recipe.data.patch_px:
        msg = (
            f"Patches in {store.path.name} must be at least patch_px = "
            f"{recipe.data.patch_px} px wide, got {side} px; lower data.patch_px."
        )
        raise ShapeError(msg, code="patch-size-unsuitable")
    return store
