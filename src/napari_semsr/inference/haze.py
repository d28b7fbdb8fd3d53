"""Haze over a whole field: found once, lifted window by window.

A network that looks for haze (`napari_semsr.models.architectures.haze`) is shown
statistics of blocks of the whole field; what it finds is a small map of gains and one
grey level. Each window is then lifted by the part of the map that lies under it, so
that tiles agree.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from napari_semsr.core import Box, round_up
from napari_semsr.inference.normalise import Scaling, read_window
from napari_semsr.models import BLOCK, DehazingRestorer, block_statistics

_WINDOW = 1024
_LARGEST_MAP = 256
_KNOWN = 0.5


@dataclass(frozen=True, slots=True)
class HazeMap:
    """Gain that lifts haze, at the centres of blocks."""

    gain: NDArray[np.float32]  # Gain of each block; between centres it is bilinear
    pitch: int  # Side of a block in pixels
    airlight: float  # Grey level about which the gain acts

    @property
    def spread(self) -> tuple[float, float]:
        """Least and largest gain."""
        return float(self.gain.min()), float(self.gain.max())

    def at(self, box: Box) -> NDArray[np.float32]:
        """Interpolate the gain under a window.

        `box`: the window, in pixels of the field; gives (Y, X), the same for a pixel
        whatever window it is asked for in.
        """
        values: NDArray[np.float32] = self.gain
        for axis, (start, stop) in enumerate([(box.y0, box.y1), (box.x0, box.x1)]):
            last = self.gain.shape[axis] - 1
            place = (np.arange(start, stop) + 0.5) / self.pitch - 0.5
            place = np.clip(place, 0, last)
            below = np.minimum(place.astype(np.intp), max(last - 1, 0))
            share = (place - below).astype(np.float32)
            share = share[:, None] if axis == 0 else share[None]
            low = np.take(values, below, axis)
            high = np.take(values, np.minimum(below + 1, last), axis)
            values = low + (high - low) * share
        return values

    def lift(self, window: NDArray[Any], box: Box) -> NDArray[Any]:
        """Take the haze off a window; `window` (Y, X); gives (Y, X)."""
        narrow = window.dtype == np.float32 or (
            window.dtype.kind != "f" and window.dtype.itemsize <= 2
        )
        working = np.float32 if narrow else np.float64
        lifted = np.subtract(window, working(self.airlight), dtype=working)
        lifted *= self.at(box)
        lifted += working(self.airlight)
        return np.asarray(lifted)


def local_part(module: nn.Module) -> nn.Module:
    """Give the part of a network that runs on tiles."""
    return module.local if isinstance(module, DehazingRestorer) else module


def find_haze(data: Any, module: nn.Module, scaling: Scaling) -> HazeMap | None:
    """Look at a whole field, in blocks of 16 px (more on fields above 4096 px).

    `data` (Y, X).
    """
    if not isinstance(module, DehazingRestorer) or scaling.high <= scaling.low:
        return None
    shrink = 1
    while max(data.shape) > shrink * BLOCK * _LARGEST_MAP:
        shrink *= 2
    statistics = _statistics(data, scaling, shrink)
    with torch.inference_mode():
        veil = module.survey(torch.from_numpy(statistics)[None])
    gain = veil.log_gain[0, 0].exp().numpy()
    span = scaling.high - scaling.low
    airlight = float(veil.airlight) * span + scaling.low
    return HazeMap(np.ascontiguousarray(gain), BLOCK * shrink, airlight)


def _statistics(data: Any, scaling: Scaling, shrink: int) -> NDArray[np.float32]:
    """Statistics of all blocks, read window by window; missing pixels do not count."""
    pitch = BLOCK * shrink
    rows, columns = (round_up(int(n), pitch) for n in data.shape)
    found = np.empty((5, rows // pitch, columns // pitch), dtype=np.float32)
    known = np.ones(found.shape[1:], dtype=np.float32)
    for y in range(0, rows, _WINDOW):
        for x in range(0, columns, _WINDOW):
            box = Box(y, min(y + _WINDOW, rows), x, min(x + _WINDOW, columns))
            window, missing = read_window(data, box, scaling.mean)
            field = torch.from_numpy(scaling.normalise(window))[None, None]
            if shrink > 1:
                field = functional.avg_pool2d(field, shrink)
            place = np.s_[y // pitch : box.y1 // pitch, x // pitch : box.x1 // pitch]
            found[:, *place] = block_statistics(field)[0].numpy()
            if missing is not None:
                known[place] = 1 - _means(missing, pitch)
    return found if known.min() == 1 else _completed(found, known)


def _means(values: NDArray[np.bool_], pitch: int) -> NDArray[np.float32]:
    """Share of true pixels in each block."""
    rows, columns = (n // pitch for n in values.shape)
    blocks = values.reshape(rows, pitch, columns, pitch)
    return np.asarray(blocks.mean((1, 3)), dtype=np.float32)


def _completed(
    statistics: NDArray[np.float32], known: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Make up for missing pixels, which were filled and so hold no contrast.

    Energies are divided by the share of pixels that is known; a block that lacks half
    of them takes the statistics of the nearest one that does not.
    """
    statistics[1:] /= np.maximum(known, _KNOWN)
    lacking = known < _KNOWN
    if not lacking.any() or lacking.all():
        return statistics
    from scipy import ndimage  # 15 MB, and most images are complete

    nearest = ndimage.distance_transform_edt(
        lacking, return_distances=False, return_indices=True
    )
    return np.ascontiguousarray(statistics[:, *nearest])


def read_input(
    data: Any, box: Box, scaling: Scaling, haze: HazeMap | None
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Read what a network is shown of a window: filled, and without haze.

    `data` (Y, X); gives (Y, X), (Y, X), where pixels were missing; None when none was.
    """
    window, missing = read_window(data, box, scaling.mean)
    return (window if haze is None else haze.lift(window, box)), missing
