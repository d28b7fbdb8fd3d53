"""Shapes of the drawn samples: each fills a height map and a map of materials."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_semsr.simulate.canvas import Canvas, Plane

__all__ = [
    "Sizes",
    "disc",
    "grating",
    "lattice",
    "particles",
    "pits",
]

Drawn = tuple[Plane, Plane]  # height in nm, and cover by the second material
Points = NDArray[np.float64]  # places (y, x) in nm

_CHANNEL_BIT = 74.5 / 320  # of an optical disc, over its track pitch
_PIT_WIDTH = 130 / 320
_RUNS = (2, 8)  # channel bits of a mark or of a space


@dataclass(frozen=True, slots=True)
class Sizes:
    """Measures of a sample.

    Attributes
    ----------
    pitch_nm : float
        Period, or typical distance of features.
    relief_nm : float
        Height or depth of features.
    angle : float
        Turn in radians.
    disorder_nm : float
        Standard deviation of edges and places.
    hexagonal : bool
        Particles packed in a lattice instead of strewn.
    """

    pitch_nm: float
    relief_nm: float
    angle: float
    disorder_nm: float
    hexagonal: bool


def grating(canvas: Canvas, sizes: Sizes, rng: np.random.Generator) -> Drawn:
    """Lines as wide as their gaps; at angle 0 they run along y.

    Parameters
    ----------
    canvas : Canvas
        Grid to draw on.
    sizes : Sizes
        Pitch, relief, angle, roughness of the edges.
    rng : numpy.random.Generator
        Source of the roughness.

    Returns
    -------
    height_nm, material : (Y, X) numpy.ndarray
        Drawn sample.
    """
    y, x = canvas.grid()
    across = x * np.cos(sizes.angle) + y * np.sin(sizes.angle)
    if sizes.disorder_nm:
        rough = canvas.rough(max(40.0, sizes.pitch_nm / 6), rng)
        across = across + sizes.disorder_nm * rough
    phase = np.mod(across, sizes.pitch_nm)
    inner = np.abs(phase - sizes.pitch_nm / 2) - sizes.pitch_nm / 4
    lines = np.broadcast_to(canvas.cover(inner), canvas.shape)
    return sizes.relief_nm * lines, lines.copy()


def pits(canvas: Canvas, sizes: Sizes, rng: np.random.Generator) -> Drawn:
    """Tracks of pits of random length, pressed into a metal film.

    Parameters
    ----------
    canvas : Canvas
        Grid to draw on.
    sizes : Sizes
        Track pitch, depth, angle.
    rng : numpy.random.Generator
        Source of the lengths.

    Returns
    -------
    height_nm, material : (Y, X) numpy.ndarray
        Drawn sample.
    """
    pitch, bit = sizes.pitch_nm, _CHANNEL_BIT * sizes.pitch_nm
    half_width = _PIT_WIDTH * pitch / 2
    centre = np.array(canvas.extent_nm) / 2
    reach = float(np.hypot(*centre)) + 2 * pitch
    tracks = int(np.ceil(reach / pitch))
    pressed = np.zeros(canvas.shape, np.float32)
    along = np.array([np.sin(sizes.angle), np.cos(sizes.angle)])
    aside = np.array([along[1], -along[0]])
    for track in range(-tracks, tracks + 1):
        start = -reach + rng.uniform(0, 8 * bit)
        runs = rng.integers(*_RUNS, endpoint=True, size=int(2 * reach / bit / 2) + 2)
        ends = start + np.cumsum(runs) * bit
        for first, last in zip(ends[:-1:2], ends[1::2], strict=False):
            middle = centre + along * (first + last) / 2 + aside * track * pitch
            half = max((last - first) / 2 - half_width, 0.0)
            _press(canvas, pressed, middle, along, half, half_width)
    return sizes.relief_nm * (1 - pressed), np.ones(canvas.shape, np.float32)


def _press(
    canvas: Canvas,
    pressed: Plane,
    middle: Points,
    along: Points,
    half: float,
    radius: float,
) -> None:
    """Draw one pit: a stroke with round ends."""
    span = np.abs(along) * half + radius
    box = canvas.window((middle[0], middle[1]), (span[0], span[1]))
    if box is None:
        return
    y, x = canvas.grid(box)
    dy, dx = y - middle[0], x - middle[1]
    forth = np.abs(dy * along[0] + dx * along[1])
    sideways = dx * along[0] - dy * along[1]
    distance = np.hypot(np.maximum(forth - half, 0), sideways) - radius
    np.maximum(pressed[box], canvas.cover(distance), out=pressed[box])


def lattice(canvas: Canvas, sizes: Sizes, rng: np.random.Generator) -> Drawn:
    """Round holes on a square lattice in a film.

    Parameters
    ----------
    canvas : Canvas
        Grid to draw on.
    sizes : Sizes
        Pitch, depth, angle, unrest of places and radii.
    rng : numpy.random.Generator
        Source of the unrest.

    Returns
    -------
    height_nm, material : (Y, X) numpy.ndarray
        Drawn sample.
    """
    centres = _sites(canvas, sizes, rng, hexagonal=False)
    radii = sizes.pitch_nm * 0.28 + sizes.disorder_nm * 0.3 * rng.standard_normal(
        len(centres)
    )
    holes = np.zeros(canvas.shape, np.float32)
    for (cy, cx), radius in zip(centres, np.maximum(radii, 0), strict=True):
        disc(canvas, holes, (cy, cx), radius, 1.0)
    return sizes.relief_nm * (1 - holes), 1 - holes


def disc(
    canvas: Canvas, onto: Plane, centre: tuple[float, float], radius: float, top: float
) -> None:
    """Raise a round plateau; where it meets another, the higher wins.

    Parameters
    ----------
    canvas : Canvas
        Grid to draw on.
    onto : (Y, X) numpy.ndarray of float32
        What is drawn on, in place.
    centre : tuple of float
        ``(y, x)`` in nm.
    radius : float
        In nm.
    top : float
        Value of the plateau.
    """
    box = canvas.window(centre, (radius, radius))
    if box is None:
        return
    y, x = canvas.grid(box)
    plateau = np.float32(top) * canvas.cover(
        np.hypot(y - centre[0], x - centre[1]) - radius
    )
    np.maximum(onto[box], plateau, out=onto[box])


def _sites(
    canvas: Canvas, sizes: Sizes, rng: np.random.Generator, *, hexagonal: bool
) -> Points:
    """Points of a square or hexagonal lattice that covers the canvas, turned."""
    pitch = sizes.pitch_nm
    row = pitch * (np.sqrt(3) / 2 if hexagonal else 1.0)
    centre = np.array(canvas.extent_nm) / 2
    reach = float(np.hypot(*centre)) + 2 * pitch
    rows = np.arange(-int(reach / row), int(reach / row) + 1)
    columns = np.arange(-int(reach / pitch) - 1, int(reach / pitch) + 1)
    j, i = np.meshgrid(rows, columns, indexing="ij")
    shift = 0.5 * (j % 2) if hexagonal else 0.0
    flat = np.stack([j * row, (i + shift) * pitch], axis=-1).reshape(-1, 2)
    flat += sizes.disorder_nm * rng.standard_normal(flat.shape)
    cos, sin = np.cos(sizes.angle), np.sin(sizes.angle)
    turned = flat @ np.array([[cos, -sin], [sin, cos]]) + centre
    return _on_canvas(canvas, turned, pitch)


def _on_canvas(canvas: Canvas, points: Points, spare: float) -> Points:
    """Keep points whose feature may touch the canvas."""
    inside = np.all(
        (points > -spare) & (points < np.array(canvas.extent_nm) + spare), axis=1
    )
    return np.asarray(points[inside])


def particles(canvas: Canvas, sizes: Sizes, rng: np.random.Generator) -> Drawn:
    """Balls on a rough ground, strewn without overlap or packed.

    Parameters
    ----------
    canvas : Canvas
        Grid to draw on.
    sizes : Sizes
        Distance, height of the middle ball, packing and its unrest.
    rng : numpy.random.Generator
        Source of places, sizes and ground.

    Returns
    -------
    height_nm, material : (Y, X) numpy.ndarray
        Drawn sample.
    """
    pitch = sizes.pitch_nm
    if sizes.hexagonal:
        centres = _sites(canvas, sizes, rng, hexagonal=True)
        missing = rng.random(len(centres)) < 0.03
        centres = centres[~missing]
        radii = pitch * 0.48 * rng.normal(1, 0.02, len(centres))
    else:
        centres, radii = _strewn(canvas, pitch, rng)
    ground = canvas.rough(0.9 * pitch, rng) + 0.5 * canvas.rough(0.25 * pitch, rng)
    height = np.asarray(0.06 * sizes.relief_nm * (ground - ground.min()))
    shadow = np.zeros(canvas.shape, np.float32)
    flatness = sizes.relief_nm / pitch
    for (cy, cx), radius in zip(centres, radii, strict=True):
        _ball(canvas, height, shadow, (cy, cx), radius, flatness)
    return height, shadow


def _strewn(
    canvas: Canvas, pitch: float, rng: np.random.Generator
) -> tuple[Points, Points]:
    """Random places; of two balls that would overlap the later one is left out."""
    height, width = canvas.extent_nm
    count = int(1.1 * (height + 2 * pitch) * (width + 2 * pitch) / pitch**2) + 1
    centres = rng.uniform(-pitch, [height + pitch, width + pitch], (count, 2))
    radii = 0.42 * pitch * np.clip(rng.lognormal(0, 0.22, count), 0.55, 1.6)
    cell = 2 * float(radii.max())
    taken: dict[tuple[int, int], list[int]] = {}
    kept: list[int] = []
    for index, (cy, cx) in enumerate(centres):
        row, column = int(cy // cell), int(cx // cell)
        near = [
            other
            for j in (row - 1, row, row + 1)
            for i in (column - 1, column, column + 1)
            for other in taken.get((j, i), ())
        ]
        free = all(
            np.hypot(*(centres[other] - (cy, cx))) >= radii[other] + radii[index]
            for other in near
        )
        if free:
            taken.setdefault((row, column), []).append(index)
            kept.append(index)
    return centres[kept], radii[kept]


def _ball(
    canvas: Canvas,
    height: Plane,
    material: Plane,
    centre: tuple[float, float],
    radius: float,
    flatness: float,
) -> None:
    """Put one ball on the ground; `flatness` is its height over its width."""
    box = canvas.window(centre, (radius, radius))
    if box is None:
        return
    y, x = canvas.grid(box)
    off = np.hypot(y - centre[0], x - centre[1])
    inside = canvas.cover(off - radius)
    dome = np.sqrt(np.maximum(1 - (off / radius) ** 2, 0))
    top = flatness * radius * (1 + dome)
    ground = height[box]
    np.maximum(ground, ground * (1 - inside) + inside * top, out=ground)
    np.maximum(material[box], inside, out=material[box])
