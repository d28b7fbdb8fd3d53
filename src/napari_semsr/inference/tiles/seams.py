"""Figures on tile borders: how much neighbours disagree, whether a step is seen."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import Box, Float32Array

_SAMPLES = 256
_GRID = 16
_TILES = 1024
_ABOVE, _BELOW, _LEFT, _RIGHT = "above", "below", "left", "right"
_FACING = {
    _ABOVE: (-1, 0, _BELOW),
    _BELOW: (1, 0, _ABOVE),
    _LEFT: (0, -1, _RIGHT),
    _RIGHT: (0, 1, _LEFT),
}


@dataclass(frozen=True, slots=True)
class Edge:
    """What one tile says about the pixels at one of its borders."""

    # The neighbour's first line, as predicted by this tile; None when this tile did not
    # see it
    outer: Float32Array | None
    first: Float32Array  # This tile's own lines next to the border, and one further in
    second: Float32Array  # This tile's own lines next to the border, and one further in


def edges_of(prediction: NDArray[np.float32], inner: Box) -> dict[str, Edge]:
    """Take lines at the four borders of a tile.

    `prediction` (Y, X); `inner`: its core, in pixels of `prediction`; gives edges by
    side; at most 256 evenly spaced pixels of each line.
    """
    rows, columns = inner.slices
    down = prediction[:, columns][:, :: _step(inner.shape[1])]
    along = prediction[rows][:: _step(inner.shape[0])].T
    return {
        _ABOVE: _edge(down, inner.y0, 1, inner.shape[0]),
        _BELOW: _edge(down, inner.y1 - 1, -1, inner.shape[0]),
        _LEFT: _edge(along, inner.x0, 1, inner.shape[1]),
        _RIGHT: _edge(along, inner.x1 - 1, -1, inner.shape[1]),
    }


def _step(length: int) -> int:
    """Spacing that leaves at most the wanted number of samples."""
    return -(-length // _SAMPLES)


def _edge(lines: NDArray[np.float32], first: int, inward: int, depth: int) -> Edge:
    """Three lines around a border; a core of one line has no second."""
    beyond = first - inward
    outer = lines[beyond].copy() if 0 <= beyond < len(lines) else None
    second = first + inward if depth > 1 else first
    return Edge(outer, lines[first].copy(), lines[second].copy())


def sample_of(core: NDArray[np.float32]) -> Float32Array:
    """Take at most 16 x 16 evenly spaced pixels of a tile.

    `core` (Y, X); gives (N,).
    """
    rows, columns = (-(-side // _GRID) for side in core.shape)
    picked = core[::rows, ::columns].ravel()
    return picked[np.isfinite(picked)].astype(np.float32)


@dataclass(slots=True)
class SeamMeter:
    """Collect edges as tiles land; what was compared is forgotten.

    Samples are kept of at most 1024 tiles, evenly chosen.
    """

    compared: int = 0  # Borders that were seen from both sides
    _waiting: dict[tuple[int, int, str], Edge] = field(default_factory=dict)
    _samples: list[Float32Array] = field(default_factory=list)
    _added: int = 0
    _pitch: int = 1
    _squares: float = 0.0
    _pixels: int = 0
    _steps: float = 0.0
    _inner_steps: float = 0.0

    def add(
        self, index: tuple[int, int], edges: dict[str, Edge], sample: Float32Array
    ) -> None:
        """Take in one tile."""
        if self._added % self._pitch == 0:
            self._samples.append(sample)
        self._added += 1
        if len(self._samples) > _TILES:
            self._samples = self._samples[::2]
            self._pitch *= 2
        for side, edge in edges.items():
            down, right, facing = _FACING[side]
            key = index[0] + down, index[1] + right, facing
            other = self._waiting.pop(key, None)
            if other is None:
                self._waiting[(*index, side)] = edge
            else:
                self._compare(edge, other)

    def _compare(self, one: Edge, other: Edge) -> None:
        """Sum up one border."""
        self.compared += 1
        for seen, own in ((one.outer, other.first), (other.outer, one.first)):
            if seen is not None:
                difference = _finite([seen.astype(np.float64) - own])
                self._squares += float(np.sum(difference**2))
                self._pixels += difference.size
        step = np.abs(one.first.astype(np.float64) - other.first)
        within = [np.abs(e.first.astype(np.float64) - e.second) for e in (one, other)]
        valid = np.isfinite(step) & np.isfinite(within[0]) & np.isfinite(within[1])
        self._steps += float(step[valid].sum())
        self._inner_steps += float(sum(w[valid].sum() for w in within)) / 2

    @property
    def mismatch(self) -> float:
        """RMS disagreement over the output's 1-99 % range; 0 without a border."""
        if not self._pixels:
            return 0.0
        rms = math.sqrt(self._squares / self._pixels)
        low, high = np.percentile(_finite(self._samples), [1, 99])
        return rms / float(high - low) if high > low else float(rms > 0)

    @property
    def seam_index(self) -> float:
        """Mean step across borders over the mean step beside them; 1 without any."""
        if self._inner_steps > 0:
            return self._steps / self._inner_steps
        return 1.0 if self._steps == 0 else math.inf


def _finite(arrays: Iterable[NDArray[np.floating]]) -> NDArray[np.floating]:
    """Join arrays and drop what is not finite."""
    joined = np.concatenate([np.ravel(a) for a in arrays] or [np.zeros(1)])
    kept: NDArray[np.floating] = joined[np.isfinite(joined)]
    return kept
