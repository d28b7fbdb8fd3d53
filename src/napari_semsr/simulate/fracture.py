"""The drawn fracture: tilted facets that meet in steps."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_semsr.simulate.canvas import Canvas, Plane
from napari_semsr.simulate.shapes import Drawn, Points, Sizes, disc

__all__ = ["fracture"]


def fracture(canvas: Canvas, sizes: Sizes, rng: np.random.Generator) -> Drawn:
    """Tilted facets that meet in steps, with fine ripples, as on a broken metal.

    Parameters
    ----------
    canvas : Canvas
        Grid to draw on.
    sizes : Sizes
        Size of the facets, spread of their heights.
    rng : numpy.random.Generator
        Source of the facets.

    Returns
    -------
    height_nm, material : (Y, X) numpy.ndarray
        Drawn sample; the second material is inclusions.
    """
    pitch = sizes.pitch_nm
    rows, columns = (int(np.ceil(v / pitch)) + 4 for v in canvas.extent_nm)
    j, i = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    seeds = np.stack([j, i], axis=-1).reshape(-1, 2) - 1.5
    seeds = (seeds + rng.uniform(-0.45, 0.45, seeds.shape)) * pitch
    levels = rng.uniform(0.1, 0.8, len(seeds)) * sizes.relief_nm
    slopes = rng.uniform(-0.35, 0.35, (len(seeds), 2)) * sizes.relief_nm / pitch
    warp = [0.07 * pitch * canvas.rough(0.3 * pitch, rng) for _ in range(2)]
    facets = _Facets(seeds, levels, slopes, 2.4 * pitch)
    height = _facets(canvas, facets, (warp[0], warp[1]))
    height += 0.02 * sizes.relief_nm * canvas.rough(0.05 * pitch, rng)
    height -= height.min()
    grains = np.zeros(canvas.shape, np.float32)
    for _ in range(len(seeds) // 2):
        place = rng.uniform(0, canvas.extent_nm)
        disc(canvas, grains, (place[0], place[1]), pitch * rng.uniform(0.04, 0.12), 1.0)
    return height, grains


@dataclass(frozen=True, slots=True)
class _Facets:
    """Seeds of the facets, their heights and slopes, and how far they reach."""

    seeds: Points
    levels: NDArray[np.float64]
    slopes: Points
    reach_nm: float


def _facets(canvas: Canvas, facets: _Facets, warp: tuple[Plane, Plane]) -> Plane:
    """Height of the nearest seed's plane, blended over a sidewall at borders."""
    near = np.full((2, *canvas.shape), np.inf, np.float32)
    tops = np.zeros((2, *canvas.shape), np.float32)
    half = (facets.reach_nm, facets.reach_nm)
    for (sy, sx), level, (gy, gx) in zip(
        facets.seeds, facets.levels, facets.slopes, strict=True
    ):
        box = canvas.window((sy, sx), half)
        if box is None:
            continue
        y, x = canvas.grid(box)
        dy = (y - sy + warp[0][box]).astype(np.float32)
        dx = (x - sx + warp[1][box]).astype(np.float32)
        distance = np.hypot(dy, dx)
        top = level + gy * dy + gx * dx
        _keep_two(near[(slice(None), *box)], tops[(slice(None), *box)], distance, top)
    border = (near[1] - near[0]) / 2
    own = canvas.cover(-np.where(np.isfinite(border), border, 1e9))
    return np.asarray(own * tops[0] + (1 - own) * tops[1], dtype=np.float32)


def _keep_two(near: Plane, tops: Plane, distance: Plane, top: Plane) -> None:
    """Enter a seed among the two nearest of each pixel, in place."""
    first = distance < near[0]
    second = ~first & (distance < near[1])
    for stack, value in ((near, distance), (tops, top)):
        stack[1] = np.where(first, stack[0], np.where(second, value, stack[1]))
        stack[0] = np.where(first, value, stack[0])
