"""Simulated samples in nanometres: a height map and a material map.

Counterparts in nanometres of the phantoms in pixels: a sample can be drawn at any pixel
size with antialiased edges, and be imaged by an optical microscope and by an SEM. Sizes
are those of common samples: optical discs (track pitch 320 nm, runs of 2 to 8 channel
bits of 74.5 nm), self-assembled spheres, wiring of an integrated circuit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.random import Generator
from pydantic import Field

from napari_semsr.core import (
    Float32Array,
    FloatArray,
    FloatPair,
    IntPair,
    OptionError,
    Options,
)
from napari_semsr.simulation.canvas import Canvas, compute_box_distance

# Height in nm, and share of the second material
_Maps = tuple[Float32Array, Float32Array]

# Optical disc (Blu-ray, 25 GB), over its track pitch of 320 nm: length of a channel bit
# (74.5 nm), width of a mark (130 nm); channel bits of a mark or a space.
_CHANNEL_BIT = 74.5 / 320
_PIT_WIDTH = 130 / 320
_RUNS = (2, 8)
Kind = Literal["grating", "pits", "particles", "lattice", "circuit", "fracture"]


def declare_option(default: object, description: str, **bounds: Any) -> Any:
    """Declare an option; `bounds` as in `pydantic.Field`."""
    return Field(default=default, description=description, **bounds)


def declare_fraction(default: float, description: str) -> Any:
    """Declare an option for a fraction from 0 to 1."""
    return declare_option(default, description, ge=0, le=1)


class PhantomOptions(Options):
    """Options for the sample to draw; lengths in nanometres."""

    phantom: Kind = declare_option("circuit", "sample to draw")
    pitch_nm: float | None = declare_option(
        None,
        "period of a grating or lattice, track pitch of pits, distance between "
        "particles, wires or cracks; the default depends on the sample",
        gt=0,
    )
    relief_nm: float | None = declare_option(
        None,
        "height of lines, wires and facets, depth of pits and holes; the default "
        "depends on the sample (particles: their pitch)",
        ge=0,
    )
    angle_deg: float = declare_option(0.0, "rotation of a grating, lattice or disc")
    disorder: float = declare_fraction(
        0.0,
        "random variation of edges and positions of a grating, lattice or packing, "
        "over a quarter of the pitch",
    )
    packing: Literal["random", "hexagonal"] = declare_option("random", "particle order")
    sidewall_nm: float = declare_option(12.0, "width of a sidewall", ge=0)


@dataclass(frozen=True, slots=True)
class Specimen:
    """A simulated sample."""

    height_nm: Float32Array  # (Y, X) Height above the lowest point, 0 or more
    # (Y, X) Share of the second material (lines, metal, particles) in [0, 1]
    material: Float32Array
    pixel_nm: float  # Side of a pixel
    kind: str  # Kind of the sample


@dataclass(frozen=True, slots=True)
class _FeatureSizes:
    pitch_nm: float  # Period, or typical distance of features
    relief_nm: float  # Height or depth of features
    angle: float  # Rotation in radians
    disorder_nm: float  # Standard deviation of edges and positions
    hexagonal: bool  # Particles packed in a lattice instead of scattered


def _draw_grating(canvas: Canvas, sizes: _FeatureSizes, rng: Generator) -> _Maps:
    """Draw lines as wide as their gaps; at angle 0 they run along y."""
    y, x = canvas.get_pixel_centres()
    across = x * np.cos(sizes.angle) + y * np.sin(sizes.angle)
    if sizes.disorder_nm:
        rough = canvas.create_relief(max(40.0, sizes.pitch_nm / 6), rng)
        across = across + sizes.disorder_nm * rough
    phase = np.mod(across, sizes.pitch_nm)
    inner = np.abs(phase - sizes.pitch_nm / 2) - sizes.pitch_nm / 4
    lines = np.broadcast_to(canvas.compute_coverage(inner), canvas.shape)
    return sizes.relief_nm * lines, lines.copy()


def _draw_pits(canvas: Canvas, sizes: _FeatureSizes, rng: Generator) -> _Maps:
    """Draw tracks of pits of random length, pressed into a metal film."""
    pitch, bit = sizes.pitch_nm, _CHANNEL_BIT * sizes.pitch_nm
    half_width = _PIT_WIDTH * pitch / 2
    centre = np.array(canvas.extent_nm) / 2
    reach = float(np.hypot(*centre)) + 2 * pitch
    tracks = int(np.ceil(reach / pitch))
    depth = np.zeros(canvas.shape, np.float32)
    along = np.array([np.sin(sizes.angle), np.cos(sizes.angle)])
    aside = np.array([along[1], -along[0]])
    for track in range(-tracks, tracks + 1):
        start = -reach + rng.uniform(0, 8 * bit)
        runs = rng.integers(*_RUNS, endpoint=True, size=int(2 * reach / bit / 2) + 2)
        ends = start + np.cumsum(runs) * bit
        for first, last in zip(ends[:-1:2], ends[1::2], strict=False):
            middle = centre + along * (first + last) / 2 + aside * track * pitch
            half = max((last - first) / 2 - half_width, 0.0)
            span = np.abs(along) * half + half_width  # of a stroke with round ends
            for box, dy, dx in canvas.iterate_window(middle, *span):
                forth = np.abs(dy * along[0] + dx * along[1])
                sideways = dx * along[0] - dy * along[1]
                distance = np.hypot(np.maximum(forth - half, 0), sideways) - half_width
                pit = canvas.compute_coverage(distance)
                np.maximum(depth[box], pit, out=depth[box])
    return sizes.relief_nm * (1 - depth), np.ones(canvas.shape, np.float32)


def _draw_lattice(canvas: Canvas, sizes: _FeatureSizes, rng: Generator) -> _Maps:
    """Draw round holes on a square lattice in a film."""
    centres = _create_lattice_sites(canvas, sizes, rng, hexagonal=False)
    spread = rng.standard_normal(len(centres))
    radii = sizes.pitch_nm * 0.28 + sizes.disorder_nm * 0.3 * spread
    holes = np.zeros(canvas.shape, np.float32)
    for (cy, cx), radius in zip(centres, np.maximum(radii, 0), strict=True):
        _draw_disc(canvas, holes, (cy, cx), radius, 1.0)
    return sizes.relief_nm * (1 - holes), 1 - holes


def _draw_disc(
    canvas: Canvas, onto: Float32Array, centre: FloatPair, radius: float, top: float
) -> None:
    """Draw a round plateau; where two overlap, the higher one is kept."""
    for box, dy, dx in canvas.iterate_window(centre, radius):
        plateau = np.float32(top) * canvas.compute_coverage(np.hypot(dy, dx) - radius)
        np.maximum(onto[box], plateau, out=onto[box])


def _create_lattice_sites(
    canvas: Canvas, sizes: _FeatureSizes, rng: Generator, *, hexagonal: bool
) -> FloatArray:
    """Return points of a rotated square or hexagonal lattice that covers the canvas."""
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
    far = np.array(canvas.extent_nm) + pitch
    return np.asarray(turned[np.all((turned > -pitch) & (turned < far), axis=1)])


def _draw_particles(canvas: Canvas, sizes: _FeatureSizes, rng: Generator) -> _Maps:
    """Draw spheres on a rough ground, scattered without overlap or packed."""
    pitch = sizes.pitch_nm
    if sizes.hexagonal:
        centres = _create_lattice_sites(canvas, sizes, rng, hexagonal=True)
        missing = rng.random(len(centres)) < 0.03
        centres = centres[~missing]
        radii = pitch * 0.48 * rng.normal(1, 0.02, len(centres))
    else:
        centres, radii = _scatter_spheres(canvas, pitch, rng)
    ground = canvas.create_relief(0.9 * pitch, rng)
    ground = ground + 0.5 * canvas.create_relief(0.25 * pitch, rng)
    height = np.asarray(0.06 * sizes.relief_nm * (ground - ground.min()))
    shadow = np.zeros(canvas.shape, np.float32)
    flatness = sizes.relief_nm / pitch
    for (cy, cx), radius in zip(centres, radii, strict=True):
        for box, dy, dx in canvas.iterate_window((cy, cx), radius):
            off = np.hypot(dy, dx)
            inside = canvas.compute_coverage(off - radius)
            dome = np.sqrt(np.maximum(1 - (off / radius) ** 2, 0))
            top = flatness * radius * (1 + dome)
            below = height[box]
            np.maximum(below, below * (1 - inside) + inside * top, out=below)
            np.maximum(shadow[box], inside, out=shadow[box])
    return height, shadow


def _scatter_spheres(
    canvas: Canvas, pitch: float, rng: Generator
) -> tuple[FloatArray, FloatArray]:
    """Scatter spheres at random, omitting those that overlap an earlier sphere."""
    height, width = canvas.extent_nm
    count = int(1.1 * (height + 2 * pitch) * (width + 2 * pitch) / pitch**2) + 1
    centres = rng.uniform(-pitch, [height + pitch, width + pitch], (count, 2))
    radii = 0.42 * pitch * np.clip(rng.lognormal(0, 0.22, count), 0.55, 1.6)
    cell = 2 * float(radii.max())
    by_cell: dict[IntPair, list[int]] = {}
    sites: list[int] = []
    for index, (cy, cx) in enumerate(centres):
        row, column = int(cy // cell), int(cx // cell)
        near = [
            other
            for j in (row - 1, row, row + 1)
            for i in (column - 1, column, column + 1)
            for other in by_cell.get((j, i), ())
        ]
        free = all(
            np.hypot(*(centres[other] - (cy, cx))) >= radii[other] + radii[index]
            for other in near
        )
        if free:
            by_cell.setdefault((row, column), []).append(index)
            sites.append(index)
    return centres[sites], radii[sites]


# Circuit: two layers of wires with vias and pads.


def _draw_circuit(canvas: Canvas, sizes: _FeatureSizes, rng: Generator) -> _Maps:
    """Draw two layers of perpendicular wires on a routing grid, with vias and pads."""
    pitch = sizes.pitch_nm
    rows, columns = (int(np.ceil(v / pitch)) + 1 for v in canvas.extent_nm)
    height = np.zeros(canvas.shape, np.float32)
    metal = np.zeros(canvas.shape, np.float32)
    lower, upper = 0.45 * sizes.relief_nm, sizes.relief_nm
    for across, top in ((False, lower), (True, upper)):
        tracks, length = (columns, rows) if across else (rows, columns)
        for track in range(tracks):
            for first, last in _choose_segments(length, rng):
                centre = np.array([track + 0.5, (first + last + 1) / 2]) * pitch
                half = np.array([0.25, (last - first) / 2 + 0.3]) * pitch
                order = slice(None, None, -1 if across else 1)
                _draw_plate(canvas, height, metal, centre[order], half[order], top)
    for _ in range(rows * columns // 7):
        cell = (rng.integers(0, (rows, columns)) + 0.5) * pitch
        radius = 0.24 * pitch
        _draw_disc(canvas, height, (cell[0], cell[1]), radius, 0.8 * upper)
        _draw_disc(canvas, metal, (cell[0], cell[1]), radius, 1.0)
    for _ in range(max(1, rows * columns // 90)):
        middle = np.asarray((rng.integers(0, (rows, columns)) + 0.5) * pitch, float)
        half = pitch * rng.uniform(0.8, 1.6, 2)
        _draw_plate(canvas, height, metal, middle, half, upper)
    return height, metal


def _choose_segments(length: int, rng: Generator) -> list[IntPair]:
    """Choose the wires along one track: metal segments and gaps."""
    segments, at = [], int(rng.integers(0, 6))
    while at < length:
        end = at + int(rng.integers(0, 9))
        if rng.random() < 0.45:
            segments.append((at, end))
        at = end + int(rng.integers(2, 6))
    return segments


def _draw_plate(
    canvas: Canvas,
    height: Float32Array,
    metal: Float32Array,
    centre: FloatArray,
    half: FloatArray,
    top: float,
) -> None:
    for box, dy, dx in canvas.iterate_window(centre, *half):
        distance = compute_box_distance(dy, dx, (half[0], half[1]))
        inside = canvas.compute_coverage(distance)
        np.maximum(height[box], np.float32(top) * inside, out=height[box])
        np.maximum(metal[box], inside, out=metal[box])


# Fracture: tilted facets with steps between them.


def _draw_fracture(canvas: Canvas, sizes: _FeatureSizes, rng: Generator) -> _Maps:
    """Draw tilted facets with steps, ripples and inclusions, as in fractured metal."""
    pitch = sizes.pitch_nm
    rows, columns = (int(np.ceil(v / pitch)) + 4 for v in canvas.extent_nm)
    j, i = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    seeds = np.stack([j, i], axis=-1).reshape(-1, 2) - 1.5
    seeds = (seeds + rng.uniform(-0.45, 0.45, seeds.shape)) * pitch
    levels = rng.uniform(0.1, 0.8, len(seeds)) * sizes.relief_nm
    slopes = rng.uniform(-0.35, 0.35, (len(seeds), 2)) * sizes.relief_nm / pitch
    warp = [0.07 * pitch * canvas.create_relief(0.3 * pitch, rng) for _ in range(2)]
    height = _compute_facet_heights(canvas, (seeds, levels, slopes), 2.4 * pitch, warp)
    height += 0.02 * sizes.relief_nm * canvas.create_relief(0.05 * pitch, rng)
    height -= height.min()
    grains = np.zeros(canvas.shape, np.float32)
    for _ in range(len(seeds) // 2):
        y, x = rng.uniform(0, canvas.extent_nm)
        radius = pitch * rng.uniform(0.04, 0.12)
        _draw_disc(canvas, grains, (y, x), radius, 1.0)
    return height, grains


def _compute_facet_heights(
    canvas: Canvas,
    facets: tuple[FloatArray, FloatArray, FloatArray],
    reach_nm: float,
    warp: Sequence[Float32Array],
) -> Float32Array:
    """Compute the height of the nearest facet's plane, blended at the borders."""
    near = np.full((2, *canvas.shape), np.inf, np.float32)
    tops = np.zeros((2, *canvas.shape), np.float32)
    for seed, level, (gy, gx) in zip(*facets, strict=True):
        for box, y, x in canvas.iterate_window(seed, reach_nm):
            dy = (y + warp[0][box]).astype(np.float32)
            dx = (x + warp[1][box]).astype(np.float32)
            distance = np.hypot(dy, dx)
            top = level + gy * dy + gx * dx
            # insert a seed among the two nearest of each pixel
            there = (slice(None), *box)
            first = distance < near[there][0]
            second = ~first & (distance < near[there][1])
            for stack, value in ((near[there], distance), (tops[there], top)):
                stack[1] = np.where(first, stack[0], np.where(second, value, stack[1]))
                stack[0] = np.where(first, value, stack[0])
    border = (near[1] - near[0]) / 2
    own = canvas.compute_coverage(-np.where(np.isfinite(border), border, 1e9))
    return np.asarray(own * tops[0] + (1 - own) * tops[1], dtype=np.float32)


# Default sizes, and the function that draws a sample.


@dataclass(frozen=True, slots=True)
class _KindDefaults:
    """Default sizes of a kind, in nm, and its drawing function."""

    pitch_nm: float
    relief_nm: float
    draw: Callable[[Canvas, _FeatureSizes, Generator], _Maps]


_DEFAULTS: dict[Kind, _KindDefaults] = {
    "grating": _KindDefaults(300.0, 100.0, _draw_grating),
    "pits": _KindDefaults(320.0, 70.0, _draw_pits),
    "particles": _KindDefaults(220.0, 220.0, _draw_particles),
    "lattice": _KindDefaults(300.0, 120.0, _draw_lattice),
    "circuit": _KindDefaults(260.0, 160.0, _draw_circuit),
    "fracture": _KindDefaults(700.0, 300.0, _draw_fracture),
}
KINDS: tuple[Kind, ...] = tuple(_DEFAULTS)


def draw_specimen(
    kind: Kind,
    shape: IntPair,
    *,
    pixel_nm: float,
    options: PhantomOptions | None = None,
    seed: int = 0,
) -> Specimen:
    """Draw a sample of a given kind; `pixel_nm`: side of a pixel."""
    if kind not in _DEFAULTS:
        msg = f"Phantom must be one of {', '.join(KINDS)}, got {kind!r}."
        raise OptionError(msg, code="unknown-value")
    settings = options or PhantomOptions()
    default = _DEFAULTS[kind]
    pitch = settings.pitch_nm or default.pitch_nm
    if pitch < 2 * pixel_nm:
        msg = (
            f"pitch_nm must be at least two pixels of {pixel_nm:g} nm, got {pitch:g}; "
            "use a smaller pixel or a larger pitch."
        )
        raise OptionError(msg, code="out-of-range")
    relief = default.relief_nm if settings.relief_nm is None else settings.relief_nm
    if kind == "particles" and settings.relief_nm is None:
        relief = pitch
    sizes = _FeatureSizes(
        pitch_nm=pitch,
        relief_nm=relief,
        angle=float(np.deg2rad(settings.angle_deg)),
        disorder_nm=settings.disorder * pitch / 4,
        hexagonal=settings.packing == "hexagonal",
    )
    sidewall = min(settings.sidewall_nm, pitch / 4)
    canvas = Canvas(shape, pixel_nm, sidewall)
    rng = np.random.default_rng([seed, 7, KINDS.index(kind)])
    height, material = default.draw(canvas, sizes, rng)
    height = np.maximum(height, 0).astype(np.float32)
    return Specimen(height, material.astype(np.float32), pixel_nm, kind)
