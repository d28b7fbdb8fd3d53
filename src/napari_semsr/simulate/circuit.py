"""The drawn circuit: two layers of wires with vias and pads."""

import numpy as np

from napari_semsr.simulate.canvas import Canvas, Plane, box_distance
from napari_semsr.simulate.shapes import Drawn, Points, Sizes, disc

__all__ = ["circuit"]


def circuit(canvas: Canvas, sizes: Sizes, rng: np.random.Generator) -> Drawn:
    """Two layers of wires at right angles on a routing grid, with vias and pads.

    Parameters
    ----------
    canvas : Canvas
        Grid to draw on.
    sizes : Sizes
        Routing pitch, height of the upper layer.
    rng : numpy.random.Generator
        Source of the routing.

    Returns
    -------
    height_nm, material : (Y, X) numpy.ndarray
        Drawn sample.
    """
    pitch = sizes.pitch_nm
    rows, columns = (int(np.ceil(v / pitch)) + 1 for v in canvas.extent_nm)
    height = np.zeros(canvas.shape, np.float32)
    metal = np.zeros(canvas.shape, np.float32)
    lower, upper = 0.45 * sizes.relief_nm, sizes.relief_nm
    for across, top in ((False, lower), (True, upper)):
        tracks, length = (columns, rows) if across else (rows, columns)
        for track in range(tracks):
            for first, last in _segments(length, rng):
                box = _wire(track, first, last, pitch, across=across)
                _plate(canvas, height, metal, *box, top)
    for _ in range(rows * columns // 7):
        cell = (rng.integers(0, (rows, columns)) + 0.5) * pitch
        radius = 0.24 * pitch
        disc(canvas, height, (cell[0], cell[1]), radius, 0.8 * upper)
        disc(canvas, metal, (cell[0], cell[1]), radius, 1.0)
    for _ in range(max(1, rows * columns // 90)):
        middle = np.asarray((rng.integers(0, (rows, columns)) + 0.5) * pitch, float)
        half = pitch * rng.uniform(0.8, 1.6, 2)
        _plate(canvas, height, metal, middle, half, upper)
    return height, metal


def _segments(length: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Wires along one track: runs of metal between runs of nothing."""
    found, at = [], int(rng.integers(0, 6))
    while at < length:
        end = at + int(rng.integers(0, 9))
        if rng.random() < 0.45:
            found.append((at, end))
        at = end + int(rng.integers(2, 6))
    return found


def _wire(
    track: int, first: int, last: int, pitch: float, *, across: bool
) -> tuple[Points, Points]:
    """Centre and half size of a wire."""
    centre = np.array([track + 0.5, (first + last + 1) / 2]) * pitch
    half = np.array([0.25, (last - first) / 2 + 0.3]) * pitch
    return (centre[::-1], half[::-1]) if across else (centre, half)


def _plate(
    canvas: Canvas,
    height: Plane,
    metal: Plane,
    centre: Points,
    half: Points,
    top: float,
) -> None:
    """Draw one rectangle of metal."""
    box = canvas.window((centre[0], centre[1]), (half[0], half[1]))
    if box is None:
        return
    y, x = canvas.grid(box)
    inside = canvas.cover(
        box_distance(y - centre[0], x - centre[1], (half[0], half[1]))
    )
    np.maximum(height[box], np.float32(top) * inside, out=height[box])
    np.maximum(metal[box], inside, out=metal[box])
