"""Random samples for pairs of superlens and SEM images.

Kinds of `draw_object` with random sizes, reliefs and angles; scattered shapes of many
sizes; fields with two adjacent samples. An optical image alone does not show whether a
feature is raised or sunken, but the kind of the sample does. Kinds are therefore drawn
with their usual relief and materials; `turned_over` and `exchanged` change these, so
that a network does not rely on them. Added and removed objects (`changed`) prevent a
network from inferring an object from its row or from the kind of sample.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from napari_semsr.core import Float32Array, FloatArray, FloatPair, IntPair, Options
from napari_semsr.simulation.canvas import Canvas, Distance, compute_box_distance
from napari_semsr.simulation.specimen import (
    KINDS,
    Kind,
    PhantomOptions,
    Specimen,
    declare_fraction,
    declare_option,
    draw_specimen,
)

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
_COVER = (0.75, 1.0)  # share of the second material; chosen
_ON_GROUND = ("shapes", "dots")  # raised features on bare, slightly rough ground
_SQUARES, _HEXAGONAL = 0.25, 0.35  # shares of arrays; chosen
_STEEPEST = 1.0  # relief over the pitch; chosen: real samples are hardly steeper
_MAX_CHANGES = 32  # per field; chosen: about five on a patch of 2.5 um
_CANDIDATES = 12  # positions tried to remove an object; chosen: most contain one


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
    if kind in _ON_GROUND:
        height = relief * 0.15 * canvas.create_relief(float(rng.uniform(60, 600)), rng)
        material = np.zeros(canvas.shape, np.float32)
    else:
        kind_name: Kind = next(name for name in KINDS if name == kind)
        low, high = _PITCHES[kind_name]
        low, high = (float(np.clip(v, low, high)) for v in ranges.pitch_nm)
        pitch = max(_draw_log_uniform((low, high), rng), 2 * canvas.pixel_nm)
        relief_nm = min(_draw_log_uniform(ranges.relief_nm, rng), _STEEPEST * pitch)
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
    return height, material * np.float32(rng.uniform(*_COVER)), kind


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
    square = rng.random() < _SQUARES
    half = width / 2, width / 2
    form = _create_rotated_box(half, turn) if square else _create_disc(width, turn, rng)
    along = pitch * np.array([np.sin(turn), np.cos(turn)])
    angle = turn + np.pi / (3 if rng.random() < _HEXAGONAL else 2)
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
    for _ in range(1 + int(rng.integers(_MAX_CHANGES))):
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
    places = rng.uniform(0, canvas.extent_nm, (_CANDIDATES, 2))
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
