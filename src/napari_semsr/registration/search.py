"""Global search: where, how turned and how large one image lies on another.

The moving image is turned, scaled and mirrored in steps; for each, one correlation of
the orientation fields tells the score of every shift [1]_. A score is in standard
deviations of chance: the correlation over what fields without anything in common
scatter by at this overlap, over the robust deviation of all scores. Small images are
searched first; finer ones only where no place stands out.

.. [1] J. Öfverstedt, J. Lindblad, N. Sladoje, arXiv:2110.10156.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from napari_semsr.core import (
    Affine,
    BoolArray,
    FloatArray,
    Grid,
    Job,
    Micrograph,
    Progress,
    Warped,
)
from napari_semsr.registration.orientation import Field, at_pitch, orientations

WIDTH_PX = 1.0  # of the filter in small images; as in the trials of FINDINGS, part six

_LOST_PX = 2.0  # by which a step moves the corners at most: a line is as wide
_RADIUS = 0.35  # of the side: half of the mean distance from the centre, doubled
_LEAST = 0.1  # of the largest overlap: below, scores are of few pixels
_APART_PX = 4  # between two peaks: wider than one is
_TO_SIGMA = 1.4826  # from a median absolute value to a standard deviation


@dataclass(frozen=True, slots=True)
class Ranges:
    """What a search tries."""

    turn_degrees: float  # either way; 180 for all
    stretch: float  # larger or smaller by this share
    mirrored: bool = False  # try mirrored images as well

    def steps(self, side: int) -> list[tuple[float, float, bool]]:
        """List turns, scales and mirrors for images of so many pixels."""
        step = _LOST_PX / (_RADIUS * side)
        if self.turn_degrees >= 180:
            count = int(np.ceil(2 * np.pi / step))
            turns = np.arange(count) * 360 / count - 180
        else:
            turns = _spread(self.turn_degrees, np.degrees(step))
        scales = np.exp(_spread(np.log1p(self.stretch), step))
        mirrors = (False, True) if self.mirrored else (False,)
        return list(itertools.product(turns, scales, mirrors))

    def around(
        self, places: "Sequence[Candidate]", side: int
    ) -> list[tuple[float, float, bool]]:
        """List turns and scales near those of places, for images of so many pixels."""
        step = _LOST_PX / (_RADIUS * side)
        tried = {
            (
                round(place.affine.degrees / np.degrees(step)) + turn,
                round(np.log(place.affine.scale) / step) + stretch,
                place.affine.is_mirrored,
            )
            for place in places
            for turn in (-1, 0, 1)
            for stretch in (-1, 0, 1)
        }
        return [
            (turn * float(np.degrees(step)), float(np.exp(stretch * step)), mirrored)
            for turn, stretch, mirrored in sorted(tried)
        ]


def _spread(reach: float, step: float) -> FloatArray:
    """Values from -reach to reach that are a step apart at most."""
    count = int(np.ceil(reach / step))
    return np.linspace(-reach, reach, 2 * count + 1)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A place where one image may lie on another."""

    score: float  # standard deviations of chance
    affine: Affine  # from the moving image to the fixed one


class Search:
    """Correlations of an image pair at one pixel size."""

    def __init__(self, moving: Micrograph, fixed: Micrograph, pitch_nm: float) -> None:
        self.pitch = pitch_nm
        self._fixed, self._moving = (
            at_pitch(fixed, pitch_nm),
            at_pitch(moving, pitch_nm),
        )
        self._field = _balanced(orientations(self._fixed.data, WIDTH_PX))
        sides = (np.array(self._moving.shape) - 1) / 2 * pitch_nm
        self._centre = np.array(self._moving.origin) + sides

    def run(
        self, tried: Sequence[tuple[float, float, bool]], keep: int
    ) -> Job[list[Candidate]]:
        """Try turns, scales and mirrors; give the best places, the best first."""
        if not (tried and self._field.any()):
            return []
        largest = max(scale for _, scale, _ in tried)
        side = int(np.ceil(np.hypot(*self._moving.shape) * largest)) + 2
        shape = [fft.next_fast_len(n + side - 1) for n in self._fixed.shape]
        spectra = _transformed(self._field, shape)
        found, chance = [], []
        for number, (degrees, scale, mirrored) in enumerate(tried):
            yield Progress(number, len(tried), "searching")
            affine = Affine.turned(
                degrees,
                scale=scale,
                mirrored=mirrored,
                about=(self._centre[0], self._centre[1]),
                shift=(-self._centre[0], -self._centre[1]),
            )
            scored = self._scored(affine, side, shape, spectra)
            if scored is None:
                continue
            scores, enough = scored
            chance.append(float(np.median(np.abs(scores[enough]))))
            at = np.array(np.unravel_index(int(scores.argmax()), scores.shape))
            found.append((float(scores.max()), affine, _signed(at, shape, side)))
        sigma = _TO_SIGMA * float(np.median(chance)) if chance else 1.0
        found.sort(key=lambda item: -item[0])
        return [
            Candidate(score / max(sigma, 1e-12), self._laid(affine, at, side))
            for score, affine, at in found[:keep]
        ]

    def rivals(self, affine: Affine, keep: int) -> list[Candidate]:
        """Other shifts at which an image that is turned like this may lie."""
        at_centre = affine(self._centre)
        centred = Affine.of(affine.linear, np.array(affine.shift) - at_centre)
        side = int(np.ceil(np.hypot(*self._moving.shape) * affine.scale)) + 4
        shape = [fft.next_fast_len(n + side - 1) for n in self._fixed.shape]
        spectra = _transformed(self._field, shape)
        scored = self._scored(centred, side, shape, spectra)
        if scored is None:
            return []
        scores, _ = scored
        size = 2 * _APART_PX + 1
        peaks = scores == ndimage.maximum_filter(scores, size, mode="wrap")
        places = np.argwhere(peaks & (scores > 0))
        heights = scores[tuple(places.T)]
        return [
            Candidate(
                float(heights[k]),
                self._laid(centred, _signed(places[k], shape, side), side),
            )
            for k in np.argsort(-heights)[:keep]
        ]

    def _scored(
        self, affine: Affine, side: int, shape: list[int], spectra: tuple[Field, Field]
    ) -> tuple[FloatArray, BoolArray] | None:
        """Score every shift of the moving image, turned about its centre.

        `spectra`: of the fixed image's field and of its power. Gives the scores, and
        where the overlap is large enough for one.
        """
        corner = -side / 2 * self.pitch
        grid = Grid((side, side), (self.pitch, self.pitch), (corner, corner))
        seen = orientations(Warped(self._moving, grid, affine).read(), WIDTH_PX)
        turned, power = _transformed(_balanced(seen), shape)
        sums = fft.ifft2(spectra[0] * np.conj(turned), workers=-1).real
        by_chance = fft.irfft2(spectra[1] * np.conj(power), shape, workers=-1) / 2
        if by_chance.max() <= 0:
            return None
        enough = by_chance > _LEAST * by_chance.max()
        return np.where(
            enough, sums / np.sqrt(np.where(enough, by_chance, 1)), 0
        ), enough

    def _laid(self, affine: Affine, at: FloatArray, side: int) -> Affine:
        """Move a turned image to pixels of the fixed one."""
        middle = at * self.pitch + (side - 1) / 2 * self.pitch
        return Affine.of(
            affine.linear, np.array(affine.shift) + self._fixed.origin + middle
        )


def _balanced(field: Field) -> Field:
    """Take off the mean: where all lines run one way, every place is alike so far."""
    known = field != 0
    mean = field.sum() / max(int(known.sum()), 1)
    return np.where(known, field - mean, 0)


def _transformed(field: Field, shape: Sequence[int]) -> tuple[Field, Field]:
    """Fourier transforms of a field and of its power, padded with nothing."""
    power = np.square(np.abs(field))
    return fft.fft2(field, shape, workers=-1), fft.rfft2(power, shape, workers=-1)


def _signed(at: NDArray[Any], shape: Sequence[int], side: int) -> FloatArray:
    """Shifts that were counted from the far end, as negative ones."""
    return np.where(at > np.array(shape) - side, at - np.array(shape), at).astype(float)
