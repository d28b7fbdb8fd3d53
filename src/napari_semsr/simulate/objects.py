"""Drawn samples in nanometres: a height map and a map of materials.

What phantoms are in pixels for training, these are in nanometres for a microscope: the
same sample can be drawn at any pixel size, each edge antialiased, and both a
microscope and an electron beam can look at it. Sizes come from common samples: optical
discs (track pitch 320 nm, runs of 2 to 8 channel bits of 74.5 nm), self-assembled
spheres, wiring of an integrated circuit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from napari_semsr.core.errors import OptionError
from napari_semsr.core.options import Options
from napari_semsr.simulate import shapes
from napari_semsr.simulate.canvas import Canvas, Plane
from napari_semsr.simulate.circuit import circuit
from napari_semsr.simulate.fracture import fracture

__all__ = ["KINDS", "Kind", "ObjectOptions", "Surface", "draw_object"]

Kind = Literal["grating", "pits", "particles", "lattice", "circuit", "fracture"]


class ObjectOptions(Options):
    """What to draw, in nanometres."""

    phantom: Kind = Field(default="circuit", description="sample to draw")
    pitch_nm: float | None = Field(
        default=None,
        gt=0,
        description="period of a grating or lattice, track pitch of pits, distance of "
        "particles, wires or cracks; each sample has its own default",
    )
    relief_nm: float | None = Field(
        default=None,
        ge=0,
        description="height of lines, wires and facets, depth of pits and holes; each "
        "sample has its own default (particles: their pitch)",
    )
    angle_deg: float = Field(
        default=0.0, description="turn of a grating, lattice or disc"
    )
    disorder: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="unrest of edges and places of a grating, lattice or packing, over "
        "a quarter of the pitch",
    )
    packing: Literal["random", "hexagonal"] = Field(
        default="random", description="arrangement of particles"
    )
    sidewall_nm: float = Field(
        default=12.0, ge=0, description="width over which an edge falls"
    )


@dataclass(frozen=True, slots=True)
class Surface:
    """A drawn sample.

    Attributes
    ----------
    height_nm : (Y, X) numpy.ndarray of float32
        Height above the lowest place, from 0 on.
    material : (Y, X) numpy.ndarray of float32
        Cover by the second material (lines, metal, particles) in [0, 1].
    pixel_nm : float
        Side of a pixel.
    kind : str
        What was drawn.
    """

    height_nm: Plane
    material: Plane
    pixel_nm: float
    kind: str


@dataclass(frozen=True, slots=True)
class _Habit:
    """Default sizes of a kind, in nm, and what draws it."""

    pitch_nm: float
    relief_nm: float
    draw: Callable[[Canvas, shapes.Sizes, np.random.Generator], tuple[Plane, Plane]]


_HABITS: dict[Kind, _Habit] = {
    "grating": _Habit(300.0, 100.0, shapes.grating),
    "pits": _Habit(320.0, 70.0, shapes.pits),
    "particles": _Habit(220.0, 220.0, shapes.particles),
    "lattice": _Habit(300.0, 120.0, shapes.lattice),
    "circuit": _Habit(260.0, 160.0, circuit),
    "fracture": _Habit(700.0, 300.0, fracture),
}
KINDS: tuple[Kind, ...] = tuple(_HABITS)


def draw_object(
    kind: Kind,
    shape: tuple[int, int],
    *,
    pixel_nm: float,
    options: ObjectOptions | None = None,
    seed: int = 0,
) -> Surface:
    """Draw a sample.

    Parameters
    ----------
    kind : {"grating", "pits", "particles", "lattice", "circuit", "fracture"}
        What to draw.
    shape : tuple of int
        Rows and columns.
    pixel_nm : float
        Side of a pixel. The same area at another pixel size is the same sample.
    options : ObjectOptions, optional
        Sizes.
    seed : int, default=0
        Same seed and same area, same sample.

    Returns
    -------
    Surface
        Height and material.

    Raises
    ------
    OptionError
        If `kind` is unknown, or the period is below two pixels.
    """
    if kind not in _HABITS:
        msg = f"The phantom must be one of {', '.join(KINDS)}, got {kind!r}."
        raise OptionError(msg)
    chosen = options or ObjectOptions()
    habit = _HABITS[kind]
    pitch = chosen.pitch_nm or habit.pitch_nm
    if pitch < 2 * pixel_nm:
        msg = (
            f"pitch_nm must be at least two pixels of {pixel_nm:g} nm, got {pitch:g}; "
            "take a smaller pixel or a larger pitch."
        )
        raise OptionError(msg)
    relief = habit.relief_nm if chosen.relief_nm is None else chosen.relief_nm
    if kind == "particles" and chosen.relief_nm is None:
        relief = pitch
    sizes = shapes.Sizes(
        pitch_nm=pitch,
        relief_nm=relief,
        angle=float(np.deg2rad(chosen.angle_deg)),
        disorder_nm=chosen.disorder * pitch / 4,
        hexagonal=chosen.packing == "hexagonal",
    )
    sidewall = min(chosen.sidewall_nm, pitch / 4)
    canvas = Canvas(shape, pixel_nm, sidewall)
    rng = np.random.default_rng([seed, 7, KINDS.index(kind)])
    height, material = habit.draw(canvas, sizes, rng)
    height = np.maximum(height, 0).astype(np.float32)
    return Surface(height, material.astype(np.float32), pixel_nm, kind)
