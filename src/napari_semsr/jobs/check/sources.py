"""Truths with discs put in and taken out, as an instrument sees them.

Clear images are degraded as Gao et al. degraded theirs, or seen at a multiple of their
pixel; a superlens and an electron microscope look at one drawn surface; gold on carbon
is looked at twice, at half the magnification and at the full one.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.core import (
    FloatArray,
    Micrograph,
    OptionError,
    ReadError,
    parse_pixel_size,
)
from napari_semsr.io import ReadOptions
from napari_semsr.jobs.check.discs import (
    MARGIN_PX,
    DiscPlaces,
    Discs,
    Trial,
    local_contrast,
)
from napari_semsr.jobs.images import Image, name_of, open_image
from napari_semsr.simulation import (
    COARSE_NM,
    FINE_NM,
    KINDS,
    PHANTOMS,
    SAMPLE_KINDS,
    GoldOptions,
    MicroscopeOptions,
    RandomLook,
    Specimen,
    SsumPair,
    SsumPairOptions,
    blur_width_px,
    degrade_plane,
    draw,
    expose,
    focus_depth_nm,
    gaussian_kernel,
    pair_of_surface,
    random_surface,
    surface_shape,
)

if TYPE_CHECKING:
    from napari_semsr.models import ModelCard

# Clear images to check a model with: given ones, or those held out from training.

_CLIPPED = (0.05, 99.95)
_WHITE = 255.0


@dataclass(frozen=True, slots=True)
class ClearSet:
    """Clear images that a user gives, or none."""

    images: tuple[Image, ...]
    # Folder of those that a model's card names as held out, in place of `images`
    held_out: str | os.PathLike[str] | None
    opening: ReadOptions | None  # How to read them

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

    def load(self, card: "ModelCard", side: int) -> list[FloatArray]:
        """Read the middles of all images."""
        opening = self.opening or ReadOptions()
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
    """Give what a card tells of the data that the model learnt from."""
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


def _clear_image(image: Micrograph, cropped: int, side: int, name: str) -> FloatArray:
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


# A source gives one truth after the other, each changed, then degraded in every way
# that the source knows.

_STREAM = 0xD15C  # of chance; nothing is trained or chosen by it
_PHANTOM_SEED = 1 << 33  # beyond those of training and validation
_ELECTRONS = 1000.0


@dataclass(frozen=True, slots=True)
class DegradedTruth:
    """What a network sees, and what there is."""

    condition: str  # How it was degraded
    field: Micrograph  # The degraded image
    trial: Trial  # The truth, on the network's output grid

    def degraded(self, scale: int) -> FloatArray:
        """Bring the degraded image to the grid of the truth by a cubic spline."""
        image = self.field.array().astype(np.float64)
        if scale == 1:
            return image
        return np.asarray(
            ndimage.zoom(image, scale, order=3, mode="nearest", grid_mode=True)
        )


class TruthSource(ABC):
    """Where truths come from."""

    # Width at half maximum of the blur of each condition, in pixels of the truth
    widths_px: dict[str, float]
    # How many truths there are; None for as many as are wanted
    count: int | None = None

    @abstractmethod
    def scenes(self, index: int, counts: tuple[int, int]) -> list[DegradedTruth]:
        """Change one truth, and degrade it in every way."""


def _stream_of(seed: int, index: int) -> np.random.Generator:
    """Give the chance of one truth."""
    return np.random.default_rng([seed, index, _STREAM])


class ClearImages(TruthSource):
    """Clear images, of 8 bits.

    `scale`: 1 for the three degradations of Gao et al.; with more, images are blurred,
    seen at that multiple of their pixel, and exposed to few electrons.
    """

    def __init__(
        self,
        images: Sequence[FloatArray] | Callable[[int], FloatArray],
        *,
        scale: int,
        seed: int,
    ) -> None:
        self.scale, self.seed = scale, seed
        self._image: Callable[[int], FloatArray]
        if callable(images):
            self._image = images
        else:
            self._image, self.count = images.__getitem__, len(images)
        if scale == 1:
            self.widths_px = {kind: blur_width_px(kind) for kind in KINDS}
        else:
            self.widths_px = {"binned": float(np.hypot(blur_width_px("blur"), scale))}

    @classmethod
    def drawn(cls, side: int, *, scale: int, seed: int) -> "ClearImages":
        """Let drawn samples stand for clear images."""

        def one(index: int) -> FloatArray:
            kind = PHANTOMS[index % len(PHANTOMS)]
            place = _PHANTOM_SEED + 1000 * seed + index
            return np.rint(_WHITE * draw(kind, (side, side), seed=place).astype(float))

        return cls(one, scale=scale, seed=seed)

    def scenes(self, index: int, counts: tuple[int, int]) -> list[DegradedTruth]:
        """Change one image, and degrade it in every way."""
        rng = _stream_of(self.seed, index)
        clear = self._image(index)
        rows, columns = (n - n % self.scale for n in clear.shape)
        clear = clear[:rows, :columns]
        places = DiscPlaces.choose(clear, counts, rng)
        changed = places.change(clear, rng, (0, _WHITE))
        changed = np.clip(np.rint(changed), 0, _WHITE)
        trial = Trial.of(clear, changed, places)
        grey = changed.astype(np.uint8)
        if self.scale > 1:
            low = self._binned(changed, rng)
            return [DegradedTruth("binned", Micrograph(low, name="binned"), trial)]
        return [
            DegradedTruth(kind, Micrograph(low.image, name=kind), trial)
            for kind in KINDS
            for low in [degrade_plane(grey, kind, seed=self.seed + index)]
        ]

    def _binned(self, image: FloatArray, rng: np.random.Generator) -> NDArray[Any]:
        """Blur, average over blocks, expose."""
        kernel = gaussian_kernel()
        soft = ndimage.convolve(image / _WHITE, kernel, mode="reflect")
        rows, columns = (n // self.scale for n in soft.shape)
        blocks = soft.reshape(rows, self.scale, columns, self.scale).mean((1, 3))
        seen = expose(blocks, _ELECTRONS, 0.0, rng)
        return np.clip(np.rint(_WHITE * seen), 0, _WHITE).astype(np.uint8)


_PHOTONS = 3500.0
_LEAST_RELIEF_NM = 20.0
_HALF = 0.5  # of the local contrast
_TRIES = 2
_SCALES = (0.2, 2.0)  # of what is put in, over half of relief and material


@dataclass(frozen=True, slots=True)
class _Steps:
    """What discs add to a surface."""

    discs: Discs
    height_nm: FloatArray
    material: FloatArray

    def onto(
        self, height: FloatArray, material: FloatArray, scale: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Add it, each disc more or less."""
        return (
            self.discs.insert_into(height, scale * self.height_nm),
            np.clip(self.discs.insert_into(material, scale * self.material), 0, 1),
        )


class DrawnSurfaces(TruthSource):
    """Drawn samples under a superlens and an electron microscope.

    Discs are put into height and material: up or down, and towards the other material.
    They are as strong as makes about half of the local contrast in the electron image,
    free of noise, which is the truth. The focus is on the median height, and only discs
    are judged that are in focus.
    """

    def __init__(self, side: int, *, scale: int, seed: int) -> None:
        self.side, self.scale, self.seed = side, scale, seed
        self._pixel_nm = SsumPairOptions().pixel_nm
        self._fine = 2
        if scale not in (1, self._fine):
            msg = f"The superlens' task needs a network of scale 1 or 2, got {scale}."
            raise OptionError(msg)
        self._optics = MicroscopeOptions(photons=_PHOTONS)
        self.widths_px = {"superlens": self._optics.fwhm_nm * scale / self._pixel_nm}

    def scenes(self, index: int, counts: tuple[int, int]) -> list[DegradedTruth]:
        """Change one sample, and take it."""
        rng = _stream_of(self.seed, index)
        kind = SAMPLE_KINDS[index % len(SAMPLE_KINDS)]
        ranges = SsumPairOptions(kinds=(kind,), joined=0, bent=0)
        surface = random_surface(
            surface_shape(self.side),
            pixel_nm=self._pixel_nm / self._fine,
            rng=rng,
            ranges=ranges,
            held_out=True,
        )
        focus = float(np.median(surface.height_nm))
        original = _brightness(self._taken(surface, focus, rng))
        places = DiscPlaces.choose(original, counts, rng)
        changed = self._changed(surface, original, places, rng)
        pair = self._taken(changed, focus, rng)
        depth = focus_depth_nm(self._optics)
        sharp = DiscPlaces(
            *(
                discs.chosen(np.abs(self._height(changed, discs) - focus) <= depth)
                for discs in (places.inserted, places.erased)
            )
        )
        trial = Trial.of(original, _brightness(pair), sharp)
        size = parse_pixel_size(pair.pixel_nm)
        return [
            DegradedTruth("superlens", Micrograph(pair.low, size, "superlens"), trial)
        ]

    def _taken(
        self, surface: Specimen, focus_nm: float, rng: np.random.Generator
    ) -> SsumPair:
        """Look at a surface with both microscopes."""
        microscope = self._optics.replace(focus_nm=focus_nm)
        look = RandomLook(microscope, shading=0.01, correlation_px=0.3, bits=12)
        return pair_of_surface(surface, self.side, look, rng, scale=self.scale)

    def _changed(
        self,
        surface: Specimen,
        original: FloatArray,
        places: DiscPlaces,
        rng: np.random.Generator,
    ) -> Specimen:
        """Put discs into a sample, and take some out."""
        factor = self._fine // self.scale
        inserted, erased = (
            self._drawn(surface, discs) for discs in (places.inserted, places.erased)
        )
        height, material = (
            erased.erase_from(plane.astype(np.float64))
            for plane in (surface.height_nm, surface.material)
        )
        steps = _steps(height, material, inserted, factor, rng)
        scale = np.ones(len(inserted))
        wanted = _HALF * local_contrast(original)[places.inserted.pixels]
        without = places.inserted.contrast(original)
        for _ in range(_TRIES):
            tried = _surface(surface, *steps.onto(height, material, scale))
            seen = _brightness(self._taken(tried, 0.0, rng))
            made = np.abs(places.inserted.contrast(seen) - without)
            scale = np.clip(scale * wanted / np.maximum(made, 1e-9), *_SCALES)
        return _surface(surface, *steps.onto(height, material, scale))

    def _drawn(self, surface: Specimen, discs: Discs) -> Discs:
        """Give discs on the grid of the drawn surface."""
        margin = (surface.height_nm.shape[0] - self._fine * self.side) // 2
        return discs.on_grid(self._fine // self.scale, margin)

    def _height(self, surface: Specimen, discs: Discs) -> FloatArray:
        """Height of a surface at the middles of discs."""
        return surface.height_nm[self._drawn(surface, discs).pixels].astype(np.float64)


def _steps(
    height: FloatArray,
    material: FloatArray,
    discs: Discs,
    factor: int,
    rng: np.random.Generator,
) -> _Steps:
    """Draw half of the local relief, up or down, and half of the way to the other."""
    coarse = tuple((discs.centres / factor).astype(int).T)
    relief = local_contrast(height[::factor, ::factor])[coarse]
    rise = _HALF * np.maximum(relief, _LEAST_RELIEF_NM)
    up = (rng.random(len(discs)) < _HALF) | (height[discs.pixels] < rise)
    own = material[discs.pixels]
    other = np.where(own < _HALF, 1.0, 0.0)
    return _Steps(discs, np.where(up, rise, -rise), _HALF * (other - own))


def _surface(like: Specimen, height: FloatArray, material: FloatArray) -> Specimen:
    """Make a surface of a changed height and material."""
    return Specimen(
        height.astype(np.float32), material.astype(np.float32), like.pixel_nm, like.kind
    )


def _brightness(pair: SsumPair) -> FloatArray:
    """Electron image on the scale where 1 is full brightness."""
    low, high = pair.high_range
    return np.asarray(pair.high * (high - low) + low, dtype=np.float64)


class DrawnGold(TruthSource):
    """Gold on carbon at half the magnification."""

    def __init__(self, side: int, *, scale: int, seed: int) -> None:
        if scale != 2:
            msg = f"The task of gold needs a network of scale 2, got {scale}."
            raise OptionError(msg)
        self.side, self.seed, self.gold = side, seed, GoldOptions()
        probe = float(np.mean(self.gold.coarse_probe_nm))
        self.widths_px = {"gold": float(np.hypot(probe, COARSE_NM) / FINE_NM)}

    def scenes(self, index: int, counts: tuple[int, int]) -> list[DegradedTruth]:
        """Change one field, and look at it coarsely."""
        rng = _stream_of(self.seed, index)
        emitted = self.gold.emission(self.side, rng).astype(np.float64)
        places = DiscPlaces.choose(emitted, counts, rng)
        changed = places.change(emitted, rng, (0.02, float(emitted.max())))
        seen = np.maximum(changed, 0.0).astype(np.float32)
        pair = self.gold.pair_of(seen, rng)
        original, truth = (
            self.gold.truth(plane.astype(np.float32)).astype(np.float64)
            for plane in (emitted, seen)
        )
        trial = Trial.of(original, truth, places)
        size = parse_pixel_size(COARSE_NM)
        return [DegradedTruth("gold", Micrograph(pair.low, size, "gold"), trial)]
