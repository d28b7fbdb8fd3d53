"""What goes wrong while a scan is taken: no light, less light, detail that is lost.

Where two frames overlap they show one place, so that the sample cancels in the ratio
of their light and of their detail. Each new frame is compared with all that it
overlaps, and so, through these, with the first frames of the scan.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.core import Float32Array, IntPair
from napari_semsr.stitching.frames import noise_level
from napari_semsr.stitching.live import LivePlacement
from napari_semsr.stitching.pairwise import overlap_boxes, whole_shift

_FIRST = 8  # frames that state what the scan had; chosen: a row of a small scan
# Of the light of the first frames, 30 % less or as much more; chosen a little inside,
# as each ratio errs by about 1 %.
_LIGHT = 0.72
_DETAIL = 0.25  # of the power of the detail; chosen: half of its contrast
_STEP = 4  # px between pixels that are looked at; chosen: enough for a mean
_DEAD_LEVEL, _DEAD_SPREAD = 0.5, 0.3  # of the frames before; chosen: noise alone
_FINE = (0.7, 2.0)  # px; the band of the detail: its noise is a few pixels wide
_LEAST_SIDE = 16  # px of an overlap; chosen: a narrower one has too few details
_EVIDENT = 4.0  # times the noise; chosen: less detail is not compared


@dataclass(slots=True)
class _Course:
    """One value of each frame over the scan, as a logarithm."""

    least: float  # ratio to the first frames, or its inverse, that is named
    both_ways: bool
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
        was, self._is_dead = self._is_dead, True
        what = "shows one grey value everywhere" if is_flat else "shows no light"
        return [] if was else [f"Frame {name} {what}: a dead frame, or no light."]

    def compare(self, index: int) -> list[str]:
        """Compare a frame that was placed with those that it overlaps."""
        placement = self._placement
        if (
            index in placement.blank
            or not np.isfinite(placement.positions[index]).all()
        ):
            return []
        name, found = placement.names[index], list[str]()
        near = self._near(index)
        ratios = [self._ratios((other, index)) for other in near]
        for course, which, say in (
            (self._light, 0, _say_light),
            (self._detail, 1, _say_detail),
        ):
            known = [
                course.values[other] + ratio[which]
                for other, ratio in zip(near, ratios, strict=True)
                if other in course.values and np.isfinite(ratio[which])
            ]
            if not (known or not course.values):
                continue
            value = course.add(index, float(np.median(known)) if known else 0.0)
            if value is not None:
                found.append(f"Frame {name}: {say(value)}.")
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

    def _ratios(self, pair: IntPair) -> tuple[float, float]:
        """Logarithms of the second frame's light and detail over the first's."""
        prepared = self._placement.prepared
        shift = whole_shift(self._placement.positions, pair)
        boxes = overlap_boxes(prepared.frame_shape, shift)
        if boxes is None:
            return np.nan, np.nan
        images, weights, details = [], [], []
        for number, box in zip(pair, boxes, strict=True):
            image, _ = prepared.corrected(number)
            gain = float(prepared.gains[number])
            images.append(image[box.slices] * gain)
            weights.append(prepared.weight[box.slices])
            details.append(_detail(image)[box.slices] * gain)
        inside = (weights[0] > 0) & (weights[1] > 0)
        if np.count_nonzero(inside) < _LEAST_SIDE**2:
            return np.nan, np.nan
        one, two = (float(image[inside].mean()) for image in images)
        light = float(np.log(two / one)) if min(one, two) > 0 else np.nan
        noise = self._noise_power() / np.maximum(weights, 1e-3)
        power = [
            float((d[inside] ** 2 - n[inside]).mean())
            for d, n in zip(details, noise, strict=True)
        ]
        floor = _EVIDENT * float(noise[:, inside].mean())
        if power[0] < floor:
            return light, np.nan
        rest = max(power[1], 1e-3 * power[0]) / power[0]
        # less light makes less of all detail, which is no loss of contrast
        return light, float(np.log(rest)) - 2 * (light if np.isfinite(light) else 0.0)

    def _noise_power(self) -> float:
        """Noise power of the detail where the field is brightest."""
        count = len(self._placement)
        if count >= 2 * self._noise[0]:
            self._noise = count, noise_level(self._placement.prepared) ** 2
        return self._noise[1] * _NOISE_SHARE


def _detail(image: Float32Array) -> Float32Array:
    low, high = (ndimage.gaussian_filter(image, sigma, truncate=3) for sigma in _FINE)
    return np.asarray(low - high)


def _share_of_noise() -> float:
    """Power that the band of the detail leaves of white noise of unit power."""
    point = np.zeros((33, 33), np.float32)
    point[16, 16] = 1
    return float((_detail(point) ** 2).sum())


_NOISE_SHARE = _share_of_noise()


def _say_light(ratio: float) -> str:
    return f"its light is {100 * ratio:.0f} % of that of the first frames"


def _say_detail(ratio: float) -> str:
    return (
        f"it shows {100 * np.sqrt(ratio):.0f} % of the contrast that the first frames "
        "show of the same places, so that contact may be lost, or focus"
    )
