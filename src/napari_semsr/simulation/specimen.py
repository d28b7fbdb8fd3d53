"""Simulated samples in nanometres: a height map and a material map.

Counterparts in nanometres of the phantoms in pixels: a sample can be drawn at any pixel
size with antialiased edges, and be imaged by an optical microscope and by an SEM. Sizes
are those of common samples: optical discs (track pitch 320 nm, runs of 2 to 8 channel
bits of 74.5 nm), self-assembled spheres, wiring of an integrated circuit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, TypeVar, Unpack

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
from napari_semsr.simulation.canvas import Canvas, Distance, compute_box_distance

# Height in nm, and share of the second material
_Maps = tuple[Float32Array, Float32Array]

Kind = Literal["grating", "pits", "particles", "lattice", "circuit", "fracture"]


_T = TypeVar("_T")


class _Bounds(TypedDict, total=False):
    """Bounds of `pydantic.Field`."""

    ge: float
    gt: float
    le: float
    lt: float
    min_length: int


def declare_option(default: _T, description: str, **bounds: Unpack[_Bounds]) -> _T:
    """Declare an option; `bounds` as in `pydantic.Field`."""
    option: _T = Field(default=default, description=description, **bounds)
    return option


def declare_fraction(default: _T, description: str) -> _T:
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
    # Blu-ray disc (25 GB), over its track pitch of 320 nm: a channel bit is 74.5 nm
    # long, a mark 130 nm wide; a mark or a space has 2 to 8 channel bits
    pitch, bit = sizes.pitch_nm, 74.5 / 320 * sizes.pitch_nm
    half_width = 130 / 320 * pitch / 2
    centre = np.array(canvas.extent_nm) / 2
    reach = float(np.hypot(*centre)) + 2 * pitch
    tracks = int(np.ceil(reach / pitch))
    depth = np.zeros(canvas.shape, np.float32)
    along = np.array([np.sin(sizes.angle), np.cos(sizes.angle)])
    aside = np.array([along[1], -along[0]])
    for track in range(-tracks, tracks + 1):
        start = -reach + rng.uniform(0, 8 * bit)
        runs = rng.integers(2, 8, endpoint=True, size=int(2 * reach / bit / 2) + 2)
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
        order = slice(None, None, -1 if across else 1)
        for track in range(tracks):  # metal segments and gaps
            first = int(rng.integers(0, 6))
            while first < length:
                last = first + int(rng.integers(0, 9))
                if rng.random() < 0.45:
                    centre = np.array([track + 0.5, (first + last + 1) / 2]) * pitch
                    half = np.array([0.25, (last - first) / 2 + 0.3]) * pitch
                    _draw_plate(canvas, height, metal, centre[order], half[order], top)
                first = last + int(rng.integers(2, 6))
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


# Random samples for pairs of superlens and SEM images.
#
# Kinds of `draw_specimen` with random sizes, reliefs and angles; scattered shapes of
# many sizes; fields with two adjacent samples. An optical image alone does not show
# whether a feature is raised or sunken, but the kind of the sample does. Kinds are
# therefore drawn with their usual relief and materials; `turned_over` and `exchanged`
# change these, so that a network does not rely on them. Added and removed objects
# (`changed`) prevent a network from inferring an object from its row or from the kind
# of sample.

SAMPLE_KINDS: tuple[str, ...] = (*KINDS, "shapes", "dots")
"""Kinds of samples: those of `draw_object`, scattered shapes, rows of raised dots."""
HELD_OUT_SEED = 2**31
"""First seed reserved for samples that are never used in training."""
Form = Callable[[float, float, Generator], tuple[Distance, float]]
_PITCHES: dict[Kind, FloatPair] = {
    "grating": (100.0, 700.0),
    "pits": (180.0, 900.0),
    "particles": (80.0, 500.0),
    "lattice": (120.0, 700.0),
    "circuit": (110.0, 700.0),
    "fracture": (400.0, 1600.0),
}


class SampleRanges(Options):
    """Ranges for random samples."""

    kinds: tuple[str, ...] = declare_option(
        SAMPLE_KINDS, "equally frequent kinds of samples", min_length=1
    )
    pitch_nm: FloatPair = declare_option(
        (80.0, 1600.0),
        "period in nm, limited to the range of the kind, log-uniform",
    )
    relief_nm: FloatPair = declare_option(
        (40.0, 250.0), "height of features in nm, drawn log-uniformly"
    )
    sidewall_nm: FloatPair = declare_option((8.0, 18.0), "width of sidewalls in nm")
    disorder: FloatPair = declare_option(
        (0.0, 0.5), "random variation of edges and positions"
    )
    angle_deg: FloatPair = declare_option((0.0, 180.0), "turn")
    shape_nm: FloatPair = declare_option(
        (45.0, 350.0), "width of scattered shapes in nm"
    )
    joined: float = declare_fraction(0.35, "share of fields with two adjacent samples")
    strewn: float = declare_fraction(0.2, "share of samples with scattered shapes")
    turned_over: float = declare_fraction(0.0, "share with inverted heights")
    exchanged: float = declare_fraction(0.0, "share with exchanged materials")
    changed: float = declare_fraction(
        0.0,
        "share of fields with added objects, raised or sunken and of any material, "
        "and removed objects",
    )
    bent: float = declare_fraction(0.25, "share of tilted and waving fields")
    bend_nm: float = declare_option(80.0, "largest rise of such a field in nm", ge=0)


def create_random_surface(
    shape: IntPair,
    *,
    pixel_nm: float,
    rng: Generator,
    ranges: SampleRanges | None = None,
    held_out: bool = False,
) -> Specimen:
    """Draw a random sample; its kind names all parts, such as ``"pits+circuit"``.

    `held_out` uses samples whose seeds training never draws.
    """
    settings = ranges or SampleRanges()
    first_seed = HELD_OUT_SEED if held_out else 0
    canvas = Canvas(shape, pixel_nm, float(rng.uniform(*settings.sidewall_nm)))
    height, material, kind = _draw_single_sample(canvas, settings, rng, first_seed)
    if rng.random() < settings.joined:
        other, stuff, name = _draw_single_sample(canvas, settings, rng, first_seed)
        # the coverage of one side of a straight or winding border
        y, x = canvas.get_pixel_centres()
        turn = rng.uniform(0, 2 * np.pi)
        place = rng.uniform(0.25, 0.75, 2) * canvas.extent_nm
        distance = (y - place[0]) * np.cos(turn) + (x - place[1]) * np.sin(turn)
        if rng.random() < 0.5:
            winding = canvas.create_relief(float(rng.uniform(200, 900)), rng)
            distance = distance + 150 * winding
        side = canvas.compute_coverage(distance)
        height = height * side + other * (1 - side)
        material = material * side + stuff * (1 - side)
        kind = f"{kind}+{name}"
    if settings.changed > 0 and rng.random() < settings.changed:
        _change_objects(canvas, height, material, settings, rng)
    if rng.random() < settings.bent:
        # a tilted, slightly wavy plane
        bend_nm = settings.bend_nm * float(rng.random())
        y, x = canvas.get_pixel_centres()
        turn = rng.uniform(0, 2 * np.pi)
        plane = (y * np.cos(turn) + x * np.sin(turn)) / max(canvas.extent_nm)
        plane = plane + 0.15 * canvas.create_relief(1800.0, rng)
        low, high = float(plane.min()), float(plane.max())
        height = height + bend_nm * np.asarray(
            (plane - low) / (high - low), dtype=np.float32
        )
    height -= height.min()
    return Specimen(
        height.astype(np.float32), material.astype(np.float32), pixel_nm, kind
    )


def _draw_single_sample(
    canvas: Canvas, ranges: SampleRanges, rng: Generator, first_seed: int
) -> tuple[Float32Array, Float32Array, str]:
    """Draw a single sample on the whole canvas: height, material, kind."""
    kind = str(rng.choice(ranges.kinds))
    relief = _draw_log_uniform(ranges.relief_nm, rng)
    if kind in ("shapes", "dots"):  # raised on bare, slightly rough ground
        height = relief * 0.15 * canvas.create_relief(float(rng.uniform(60, 600)), rng)
        material = np.zeros(canvas.shape, np.float32)
    else:
        kind_name: Kind = next(name for name in KINDS if name == kind)
        low, high = _PITCHES[kind_name]
        low, high = (float(np.clip(v, low, high)) for v in ranges.pitch_nm)
        pitch = max(_draw_log_uniform((low, high), rng), 2 * canvas.pixel_nm)
        # chosen: real samples are hardly higher than their pitch
        relief_nm = min(_draw_log_uniform(ranges.relief_nm, rng), pitch)
        if kind == "particles":
            relief_nm = pitch * float(rng.uniform(0.4, 1))
        options = PhantomOptions(
            phantom=kind_name,
            pitch_nm=pitch,
            relief_nm=relief_nm,
            angle_deg=float(rng.uniform(*ranges.angle_deg)),
            disorder=float(rng.uniform(*ranges.disorder)),
            packing="hexagonal" if rng.random() < 0.4 else "random",
            sidewall_nm=canvas.sidewall_nm,
        )
        surface = draw_specimen(
            kind_name,
            canvas.shape,
            pixel_nm=canvas.pixel_nm,
            options=options,
            seed=first_seed + int(rng.integers(2**31)),
        )
        height, material = surface.height_nm, surface.material
    if kind == "dots":
        _add_dot_array(canvas, height, material, relief, ranges, rng)
    if kind == "shapes" or rng.random() < ranges.strewn:
        _add_shapes(canvas, height, material, relief, ranges, rng)
    if rng.random() < ranges.turned_over:
        height = height.max() - height
    if rng.random() < ranges.exchanged:
        material = 1 - material
    # chosen: the second material covers at least three quarters
    return height, material * np.float32(rng.uniform(0.75, 1.0)), kind


def _add_shapes(
    canvas: Canvas,
    height: Float32Array,
    material: Float32Array,
    relief_nm: float,
    ranges: SampleRanges,
    rng: Generator,
) -> None:
    """Add raised bars, discs and rings to a surface, in place."""
    area = canvas.extent_nm[0] * canvas.extent_nm[1]
    typical = _draw_log_uniform(ranges.shape_nm, rng)
    count = 1 + int(min(rng.uniform(0.02, 0.12) * area / typical**2, 500))
    turns = rng.uniform(0, np.pi) + np.array([0, np.pi / 2])
    free = rng.random() < 0.5
    spread = ranges.shape_nm[0], max(ranges.shape_nm[0], 2 * typical)
    for _ in range(count):
        width = _draw_log_uniform(spread, rng)
        turn = rng.uniform(0, np.pi) if free else rng.choice(turns)
        top = relief_nm * float(rng.uniform(0.4, 1))
        form = _FORMS[int(rng.integers(len(_FORMS)))](width, turn, rng)
        centre = rng.uniform(0, canvas.extent_nm)
        _add_shape(canvas, height, material, form, centre, top)


def _add_dot_array(
    canvas: Canvas,
    height: Float32Array,
    material: Float32Array,
    relief_nm: float,
    ranges: SampleRanges,
    rng: Generator,
) -> None:
    """Add a square or hexagonal array of equal raised discs or squares, in place."""
    width = _draw_log_uniform(ranges.shape_nm, rng)
    pitch = width * float(rng.uniform(1.4, 3))
    turn = np.deg2rad(rng.uniform(*ranges.angle_deg))
    unrest = pitch / 8 * float(rng.uniform(*ranges.disorder))
    square = rng.random() < 0.25  # of arrays, and 0.35 are hexagonal; chosen
    half = width / 2, width / 2
    form = _create_rotated_box(half, turn) if square else _create_disc(width, turn, rng)
    along = pitch * np.array([np.sin(turn), np.cos(turn)])
    angle = turn + np.pi / (3 if rng.random() < 0.35 else 2)
    across = pitch * np.array([np.sin(angle), np.cos(angle)])
    middle = np.array(canvas.extent_nm) / 2 + rng.uniform(-pitch / 2, pitch / 2, 2)
    reach = int(np.hypot(*canvas.extent_nm) / pitch) + 1
    for row in range(-reach, reach + 1):
        for column in range(-reach, reach + 1):
            centre = middle + row * across + column * along + rng.normal(0, unrest, 2)
            _add_shape(canvas, height, material, form, centre, relief_nm)


def _add_shape(
    canvas: Canvas,
    height: Float32Array,
    material: Float32Array,
    form: tuple[Distance, float],
    centre_nm: FloatArray,
    top_nm: float,
) -> None:
    """Add one shape raised above its surroundings, in place."""
    distance, reach = form
    for box, dy, dx in canvas.iterate_window(centre_nm, reach):
        inside = canvas.compute_coverage(distance(dy, dx))
        ground = float(np.median(height[box]))
        raised_surface = (ground + top_nm) * inside + height[box] * (1 - inside)
        np.maximum(height[box], raised_surface, out=height[box])
        np.maximum(material[box], inside, out=material[box])


def _change_objects(
    canvas: Canvas,
    height: Float32Array,
    material: Float32Array,
    ranges: SampleRanges,
    rng: Generator,
) -> None:
    """Add and remove objects at random positions, in place."""
    # chosen: 32 changes of a field are about five on a patch of 2.5 um
    for _ in range(1 + int(rng.integers(32))):
        width = _draw_log_uniform(ranges.shape_nm, rng)
        if rng.random() < 0.5:
            _remove_object(canvas, (height, material), width, rng)
            continue
        form = _FORMS[int(rng.integers(len(_FORMS)))](width, rng.uniform(0, np.pi), rng)
        distance, reach = form
        centre = rng.uniform(0, canvas.extent_nm)
        for box, dy, dx in canvas.iterate_window(centre, reach):
            inside = canvas.compute_coverage(distance(dy, dx))
            # the texture inside is kept, and either step may be the larger
            rise = _draw_log_uniform(ranges.relief_nm, rng) * rng.uniform(-1, 1)
            height[box] += rise * inside
            other = rng.random() * (float(rng.random() < 0.5) - material[box])
            material[box] += other * inside


def _remove_object(
    canvas: Canvas,
    planes: tuple[Float32Array, Float32Array],
    width_nm: float,
    rng: Generator,
) -> None:
    """Remove the disc that differs most from its surroundings, in place."""
    radius = width_nm / 2
    best, largest = 0.0, None
    # chosen: most of twelve positions contain an object
    places = rng.uniform(0, canvas.extent_nm, (12, 2))
    wide = 1.5 * radius
    near = (one for place in places for one in canvas.iterate_window(place, wide))
    for box, dy, dx in near:
        away = np.hypot(dy, dx)
        inner, rim = away < radius, (away >= radius) & (away < 1.5 * radius)
        if not (inner.any() and rim.any()):
            continue
        steps = [abs(float(p[box][inner].mean() - p[box][rim].mean())) for p in planes]
        # in units of typical steps: 100 nm, and the other material
        size = steps[0] / 100 + steps[1]
        if size > best:
            best, largest = size, (box, away, rim)
    if largest is None:
        return
    box, away, rim = largest
    inside = canvas.compute_coverage(away - radius)
    for plane in planes:
        level = float(plane[box][rim].mean())
        plane[box] = level * inside + plane[box] * (1 - inside)


def _create_bar(width: float, turn: float, rng: Generator) -> tuple[Distance, float]:
    """Create a bar whose length is up to eight times its width."""
    return _create_rotated_box((width / 2, width / 2 * float(rng.uniform(1, 8))), turn)


def _create_rotated_box(half: FloatPair, turn: float) -> tuple[Distance, float]:
    """Create a rotated rectangle from its half-sides."""
    cos, sin = np.cos(turn), np.sin(turn)

    def compute_distance(dy: FloatArray, dx: FloatArray) -> FloatArray:
        y, x = dy * cos - dx * sin, dy * sin + dx * cos
        return np.asarray(compute_box_distance(y, x, half))

    return compute_distance, float(np.hypot(*half))


def _create_disc(width: float, _turn: float, _: Generator) -> tuple[Distance, float]:
    return lambda dy, dx: np.hypot(dy, dx) - width / 2, width / 2


def _create_ring(width: float, _turn: float, rng: Generator) -> tuple[Distance, float]:
    """Create a ring whose line width is two thirds of the given width."""
    radius = width * float(rng.uniform(0.8, 2.5))
    return lambda dy, dx: np.abs(np.hypot(dy, dx) - radius) - width / 3, radius + width


_FORMS: tuple[Form, ...] = (_create_bar, _create_bar, _create_disc, _create_ring)


def _draw_log_uniform(bounds: FloatPair, rng: Generator) -> float:
    """Draw a random number from a log-uniform distribution."""
    return float(np.exp(rng.uniform(*np.log(bounds))))
