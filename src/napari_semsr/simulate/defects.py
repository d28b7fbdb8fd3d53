"""Defects of a drawn sample: round spots where something is there too much, or missing.

A network that has seen whole arrays alone closes the gaps in them, and overlooks what
does not belong. With defects at random places it has to look.
"""

import numpy as np
from numpy.typing import NDArray

from napari_semsr.simulate.canvas import Canvas, Plane

__all__ = ["add_defects"]

_PER_UM2 = (0.3, 2.5)
_RADIUS_NM = (40.0, 140.0)
_RISE = (0.3, 1.0)  # over the relief
_CHANGE = (0.3, 1.0)  # of the way to the other material
_RIM_PX = 2.5  # width of the ring that tells what lies around


def add_defects(
    canvas: Canvas,
    height: Plane,
    material: Plane,
    relief_nm: float,
    rng: np.random.Generator,
) -> None:
    """Take round spots out of a sample, and put others in, in place.

    Parameters
    ----------
    canvas : Canvas
        Grid of the sample.
    height, material : (Y, X) numpy.ndarray of float32
        Height in nm and cover by the second material. Where a spot is taken out, the
        mean of its rim takes its place. What is put in lies higher or lower, and is
        more of the other material.
    relief_nm : float
        Height of the sample's features.
    rng : numpy.random.Generator
        Source of every choice.
    """
    area = canvas.extent_nm[0] * canvas.extent_nm[1] / 1e6
    for _ in range(1 + int(rng.uniform(*_PER_UM2) * area)):
        radius = float(np.exp(rng.uniform(*np.log(_RADIUS_NM))))
        centre = rng.uniform(0, canvas.extent_nm)
        reach = radius + (_RIM_PX + 1) * canvas.pixel_nm
        box = canvas.window((centre[0], centre[1]), (reach, reach))
        if box is None:
            continue
        y, x = canvas.grid(box)
        distance = np.hypot(y - centre[0], x - centre[1]) - radius
        inside = np.clip(canvas.cover(distance), 0, 1)
        if rng.random() < 0.5:
            rim = (distance > 0) & (distance < _RIM_PX * canvas.pixel_nm)
            _fill(height[box], material[box], inside, rim)
        else:
            _put(height[box], material[box], inside, relief_nm, rng)


def _fill(
    height: Plane, material: Plane, inside: Plane, rim: NDArray[np.bool_]
) -> None:
    """Let a spot be as its rim is."""
    if not rim.any():
        return
    for plane in (height, material):
        plane += inside * (plane[rim].mean() - plane)


def _put(
    height: Plane,
    material: Plane,
    inside: Plane,
    relief_nm: float,
    rng: np.random.Generator,
) -> None:
    """Raise or sink a spot, and let it be of the other material."""
    rise = relief_nm * float(rng.uniform(*_RISE))
    middle = float(np.average(height, weights=inside)) if inside.any() else 0.0
    sign = 1 if rng.random() < 0.5 or middle < rise else -1
    height += np.float32(sign * rise) * inside
    np.maximum(height, 0, out=height)
    own = float(np.average(material, weights=inside)) if inside.any() else 0.0
    other = 1.0 if own < 0.5 else 0.0
    material += float(rng.uniform(*_CHANGE)) * inside * (other - material)
