"""Drawn samples with discs put in and taken out, as an instrument sees them.

A superlens and an electron microscope look at the same surface; gold on carbon is
looked at twice, at half the magnification and at the full one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_semsr.analysis.discs import (
    Discs,
    Places,
    choose_places,
    disc_contrast,
    disc_steps,
    erase_discs,
    insert_discs,
    local_contrast,
)
from napari_semsr.analysis.presence import make_trial
from napari_semsr.core.errors import OptionError
from napari_semsr.core.micrograph import Micrograph, parse_pixel_size
from napari_semsr.services.check_sources import Scene, Source, stream_of
from napari_semsr.simulate.gold import (
    COARSE_NM,
    FINE_NM,
    GoldOptions,
    gold_emission,
    gold_pair_of,
    gold_truth,
)
from napari_semsr.simulate.microscope import MicroscopeOptions
from napari_semsr.simulate.objects import Surface
from napari_semsr.simulate.ssum_look import Look, SsumPairOptions
from napari_semsr.simulate.ssum_pair import SsumPair, pair_of_surface, surface_shape
from napari_semsr.simulate.ssum_samples import SAMPLE_KINDS, random_surface

__all__ = ["DrawnGold", "DrawnSurfaces"]

Array = NDArray[np.float64]
_RESOLUTION_NM, _PHOTONS = 80.0, 3500.0
_SHARP_NM = 50.0  # from the focus, half of the depth of field: blur is 1.12 times wider
_LEAST_RELIEF_NM = 20.0
_HALF = 0.5  # of the local contrast
_TRIES = 2
_SCALES = (0.2, 2.0)  # of what is put in, over half of relief and material


@dataclass(frozen=True, slots=True)
class _Steps:
    """What discs add to a surface."""

    discs: Discs
    height_nm: Array
    material: Array

    def onto(self, height: Array, material: Array, scale: Array) -> tuple[Array, Array]:
        """Add it, each disc more or less."""
        return (
            insert_discs(height, self.discs, scale * self.height_nm),
            np.clip(insert_discs(material, self.discs, scale * self.material), 0, 1),
        )


class DrawnSurfaces(Source):
    """Drawn samples under a superlens and an electron microscope.

    Discs are put into height and material: up or down, and towards the other material.
    They are as strong as makes about half of the local contrast in the electron image,
    free of noise, which is the truth. The median height is in focus, and only discs are
    judged whose height is within half of the depth of field of it.

    Parameters
    ----------
    side : int
        Rows and columns of the superlens image.
    scale : {1, 2}
        Pixels of the electron image for one of the superlens image.
    seed : int
        Makes it repeatable.
    """

    def __init__(self, side: int, *, scale: int, seed: int) -> None:
        self.side, self.scale, self.seed = side, scale, seed
        self._pixel_nm = SsumPairOptions().pixel_nm
        self._fine = 2
        if scale not in (1, self._fine):
            msg = f"The superlens' task needs a network of scale 1 or 2, got {scale}."
            raise OptionError(msg)
        self.widths_px = {"superlens": _RESOLUTION_NM * scale / self._pixel_nm}

    def scenes(self, index: int, counts: tuple[int, int]) -> list[Scene]:
        """Change one sample, and take it.

        Parameters
        ----------
        index : int
            Which sample.
        counts : tuple of int
            Discs to insert and to erase, at most.

        Returns
        -------
        list of Scene
            One.
        """
        rng = stream_of(self.seed, index)
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
        places = choose_places(original, counts, rng)
        changed = self._changed(surface, original, places, rng)
        pair = self._taken(changed, focus, rng)
        sharp = Places(
            *(
                discs.chosen(np.abs(self._height(changed, discs) - focus) <= _SHARP_NM)
                for discs in (places.inserted, places.erased)
            )
        )
        trial = make_trial(original, _brightness(pair), sharp)
        size = parse_pixel_size(pair.pixel_nm)
        return [Scene("superlens", Micrograph(pair.low, size, "superlens"), trial)]

    def _taken(
        self, surface: Surface, focus_nm: float, rng: np.random.Generator
    ) -> SsumPair:
        """Look at a surface with both microscopes."""
        microscope = MicroscopeOptions(
            resolution_nm=_RESOLUTION_NM,
            depth_of_field_nm=2 * _SHARP_NM,
            focus_nm=focus_nm,
            photons=_PHOTONS,
        )
        look = Look(microscope, shading=0.01, correlation_px=0.3, bits=12)
        return pair_of_surface(surface, self.side, look, rng, scale=self.scale)

    def _changed(
        self,
        surface: Surface,
        original: Array,
        places: Places,
        rng: np.random.Generator,
    ) -> Surface:
        """Put discs into a sample, and take some out."""
        factor = self._fine // self.scale
        inserted, erased = (
            self._drawn(surface, discs) for discs in (places.inserted, places.erased)
        )
        height, material = (
            erase_discs(plane.astype(np.float64), erased)
            for plane in (surface.height_nm, surface.material)
        )
        steps = _steps(height, material, inserted, factor, rng)
        scale = np.ones(len(inserted))
        wanted = _HALF * local_contrast(original)[_at(places.inserted)]
        without = disc_contrast(original, places.inserted)
        for _ in range(_TRIES):
            tried = _surface(surface, *steps.onto(height, material, scale))
            seen = _brightness(self._taken(tried, 0.0, rng))
            made = np.abs(disc_contrast(seen, places.inserted) - without)
            scale = np.clip(scale * wanted / np.maximum(made, 1e-9), *_SCALES)
        return _surface(surface, *steps.onto(height, material, scale))

    def _drawn(self, surface: Surface, discs: Discs) -> Discs:
        """Give discs on the grid of the drawn surface."""
        margin = (surface.height_nm.shape[0] - self._fine * self.side) // 2
        return discs.on_grid(self._fine // self.scale, margin)

    def _height(self, surface: Surface, discs: Discs) -> Array:
        """Height of a surface at the middles of discs."""
        return surface.height_nm[_at(self._drawn(surface, discs))].astype(np.float64)


def _at(discs: Discs) -> tuple[NDArray[np.int64], ...]:
    """Index of the pixels at the discs' centres."""
    return tuple(np.rint(discs.centres).astype(np.int64).T)


def _steps(
    height: Array,
    material: Array,
    discs: Discs,
    factor: int,
    rng: np.random.Generator,
) -> _Steps:
    """Draw half of the local relief, up or down, and half of the way to the other."""
    coarse = tuple((discs.centres / factor).astype(int).T)
    relief = local_contrast(height[::factor, ::factor])[coarse]
    rise = _HALF * np.maximum(relief, _LEAST_RELIEF_NM)
    up = (rng.random(len(discs)) < _HALF) | (height[_at(discs)] < rise)
    own = material[_at(discs)]
    other = np.where(own < _HALF, 1.0, 0.0)
    return _Steps(discs, np.where(up, rise, -rise), _HALF * (other - own))


def _surface(like: Surface, height: Array, material: Array) -> Surface:
    """Make a surface of a changed height and material."""
    return Surface(
        height.astype(np.float32), material.astype(np.float32), like.pixel_nm, like.kind
    )


def _brightness(pair: SsumPair) -> Array:
    """Electron image on the scale where 1 is full brightness."""
    low, high = pair.high_range
    return np.asarray(pair.high * (high - low) + low, dtype=np.float64)


class DrawnGold(Source):
    """Gold on carbon at half the magnification.

    Parameters
    ----------
    side : int
        Rows and columns of the coarse image.
    scale : {2}
        Of the network.
    seed : int
        Makes it repeatable.
    """

    def __init__(self, side: int, *, scale: int, seed: int) -> None:
        if scale != 2:
            msg = f"The task of gold needs a network of scale 2, got {scale}."
            raise OptionError(msg)
        self.side, self.seed = side, seed
        probe = float(np.mean(GoldOptions().coarse_probe_nm))
        self.widths_px = {"gold": float(np.hypot(probe, COARSE_NM) / FINE_NM)}

    def scenes(self, index: int, counts: tuple[int, int]) -> list[Scene]:
        """Change one field, and look at it coarsely.

        Parameters
        ----------
        index : int
            Which field.
        counts : tuple of int
            Discs to insert and to erase, at most.

        Returns
        -------
        list of Scene
            One.
        """
        rng = stream_of(self.seed, index)
        emitted = gold_emission(self.side, rng).astype(np.float64)
        places = choose_places(emitted, counts, rng)
        changed = erase_discs(emitted, places.erased)
        top = float(emitted.max())
        steps = disc_steps(emitted, places.inserted, rng, bounds=(0.02, top))
        changed = np.maximum(insert_discs(changed, places.inserted, steps), 0.0)
        seen = changed.astype(np.float32)
        pair = gold_pair_of(seen, rng)
        original, truth = (
            gold_truth(plane.astype(np.float32)).astype(np.float64)
            for plane in (emitted, seen)
        )
        trial = make_trial(original, truth, places)
        size = parse_pixel_size(COARSE_NM)
        return [Scene("gold", Micrograph(pair.low, size, "gold"), trial)]
