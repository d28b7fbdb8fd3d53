"""What goes wrong while a scan is taken: no light, less light, detail that is lost.

Where two frames overlap they show one place, so that the sample cancels in the ratio
of their light and of their detail. Each new frame is compared with all that it
overlaps, and so, through these, with the first frames of the scan.
"""

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.core import IntPair, Message
from napari_semsr.stitching.frames import FRAME_BAND, noise_level
from napari_semsr.stitching.live import LivePlacement
from napari_semsr.stitching.pairwise import overlap_boxes, whole_shift

_FIRST = 4  # frames that state what the scan had; chosen: as of the first solution
# Of the light of the first frames, 30 % less or as much more; chosen a little inside,
# as gains err by a few per cent.
_LIGHT = 0.72
_DETAIL = 0.25  # of the power of the detail; chosen: half of its contrast
_HELD_BY = 2  # neighbours; as of the positions that are believed
_UNPLACED = (
    "Frame {} is not placed: no place among its neighbours, or more than one, fits its "
    "image, so that it is shown where the stage states."
)
_STEP = 4  # px between pixels that are looked at; chosen: enough for a mean
_DEAD_LEVEL, _DEAD_SPREAD = 0.5, 0.3  # of the frames before; chosen: noise alone
_SIGMA = 1.5  # px; chosen: takes most of the noise off band-passed frames
_LEAST_SIDE = 16  # px of an overlap; chosen: a narrower one has too few details
_EVIDENT = 4.0  # times the noise; chosen: less detail is not compared
_LESS_LIGHT = "Frame {}: its light is {:.0f} % of that of the first frames."
_LESS_DETAIL = (
    "Frame {}: it shows {:.0f} % of the contrast that the first frames show of the "
    "same places: contact or focus may be lost."
)


@dataclass(slots=True)
class _Course:
    """One value of each frame over the scan, as a logarithm."""

    least: float  # ratio to the first frames below which a frame is named
    both_ways: bool  # whether above the inverse, too
    values: dict[int, float] = field(default_factory=dict)
    is_named: bool = False

    def add(self, index: int, value: float) -> float | None:
        """Take the value of a frame; give its ratio if that is to be named."""
        self.values[index] = value
        first = sorted(self.values)[:_FIRST]
        ratio = float(np.exp(value - np.median([self.values[i] for i in first])))
        off = ratio < self.least or (self.both_ways and ratio > 1 / self.least)
        was, self.is_named = self.is_named, off
        return ratio if off and not was else None


class ScanWatch:
    """Names what is wrong with frames as they come, each trouble once."""

    def __init__(self, placement: LivePlacement) -> None:
        self._placement = placement
        self._levels: list[tuple[float, float]] = []
        self._light = _Course(_LIGHT, both_ways=True)
        self._detail = _Course(_DETAIL, both_ways=False)
        self._is_dead = False
        self._unplaced: set[int] = set()  # that were named
        self._noise: tuple[int, float] = (0, 0.0)

    def look_at(self, index: int, pixels: NDArray[Any]) -> list[str]:
        """Name a frame (Y, X) that shows nothing, which then takes no part."""
        name = self._placement.names[index]
        some = pixels[::_STEP, ::_STEP].astype(np.float64)
        some = some[np.isfinite(some)]
        level, spread = (float(some.mean()), float(some.std())) if some.size else (0, 0)
        usual = np.median(self._levels, axis=0) if self._levels else (level, spread)
        is_flat = not some.size or spread == 0
        is_dark = level < _DEAD_LEVEL * usual[0] and spread < _DEAD_SPREAD * usual[1]
        if not (is_flat or is_dark):
            self._levels.append((level, spread))
            self._is_dead = False
            return []
        self._placement.blank.add(index)
        if self._is_dead:
            return []
        self._is_dead = True
        what = "shows one grey value everywhere" if is_flat else "shows no light"
        sentence = f"Frame {name} {what}: a dead frame, or no light."
        return [Message(sentence, "frame-without-light")]

    def compare(self, index: int) -> list[str]:
        """Compare a frame that was placed with those that it overlaps."""
        placement, found = self._placement, list[str]()
        if (
            index in placement.blank
            or not np.isfinite(placement.positions[index]).all()
        ):
            return found
        if placement.solution is not None and placement.placed[index]:
            # gains follow from overlaps, of the first frames by their whole solution
            self._light.values = dict(
                enumerate(np.log(placement.prepared.gains).tolist())
            )
            for number in np.flatnonzero(~placement.placed).tolist():
                del self._light.values[number]
            ratio = self._light.add(index, self._light.values[index])
            if ratio is not None:
                sentence = _LESS_LIGHT.format(placement.names[index], 100 * ratio)
                found.append(Message(sentence, "light-changed"))
        known = [
            self._detail.values[other] + more
            for other in self._near(index)
            if other in self._detail.values
            and np.isfinite(more := self._more_detail((other, index)))
        ]
        if known or not self._detail.values:
            ratio = self._detail.add(index, float(np.median(known)) if known else 0.0)
            if ratio is not None:
                share = 100 * np.sqrt(ratio)
                sentence = _LESS_DETAIL.format(placement.names[index], share)
                found.append(Message(sentence, "detail-lost"))
        return found

    def find_unplaced(self) -> list[str]:
        """Name frames that two placed ones should overlap, and that fit nowhere.

        Each once. With one neighbour alone, or none, a frame may find its place later.
        """
        placement, found = self._placement, list[str]()
        if placement.solution is None:
            return found
        for index in placement.waiting():
            near = [i for i in self._near(index) if placement.placed[i]]
            if index not in self._unplaced and len(near) >= _HELD_BY:
                self._unplaced.add(index)
                sentence = _UNPLACED.format(placement.names[index])
                found.append(Message(sentence, "frame-not-placed"))
        return found

    def _near(self, index: int) -> list[int]:
        """List the frames whose overlap with one is large enough, stated ones too."""
        placement = self._placement
        side = np.array(placement.prepared.frame_shape)
        with np.errstate(invalid="ignore"):
            away = np.abs(placement.positions - placement.positions[index])
            near = (away < side - _LEAST_SIDE).all(axis=1)
        near[index] = False
        return np.flatnonzero(near).tolist()

    def _more_detail(self, pair: IntPair) -> float:
        """Logarithm of the second frame's power of detail over the first's.

        NaN where the first one shows hardly any.
        """
        prepared = self._placement.prepared
        boxes = overlap_boxes(
            prepared.frame_shape, whole_shift(self._placement.positions, pair)
        )
        if boxes is None:
            return np.nan
        weights = [prepared.weight[box.slices] for box in boxes]
        inside = (weights[0] > 0) & (weights[1] > 0)
        if np.count_nonzero(inside) < _LEAST_SIDE**2:
            return np.nan
        powers, noise = [], self._noise_power()
        for number, box, other in zip(pair, boxes, weights[::-1], strict=True):
            # in units of equal noise; times the weight of both, whose place it is
            detail = ndimage.gaussian_filter(prepared.banded(number), _SIGMA)
            excess = (detail[box.slices] ** 2 - noise) * other
            light = float((prepared.corrected(number)[0][box.slices] * other).sum())
            powers.append(float(excess[inside].sum()) / max(light, 1e-9) ** 2)
            if number == pair[0] and excess[inside].sum() < (
                _EVIDENT * noise * other[inside].sum()
            ):
                return np.nan
        return float(np.log(max(powers[1] / powers[0], 1e-3)))

    def _noise_power(self) -> float:
        """Noise power of the detail where the field is brightest."""
        count = len(self._placement)
        if count >= 2 * self._noise[0]:
            self._noise = count, noise_level(self._placement.prepared) ** 2
        return self._noise[1] * _noise_share()


@cache
def _noise_share() -> float:
    """Power that white noise of unit power leaves in a smoothed, band-passed frame."""
    point = np.zeros((65, 65))
    point[32, 32] = 1
    fine, coarse = (ndimage.gaussian_filter(point, sigma) for sigma in FRAME_BAND)
    return float((ndimage.gaussian_filter(fine - coarse, _SIGMA) ** 2).sum())
