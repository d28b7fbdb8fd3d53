"""Simulated samples in pixels: gratings, disc pits, particles, circuits, fracture.

Phantoms are drawn from signed distances (pixels, negative inside a raised shape), with
antialiased edges at any scale, and shaded as by an SEM: bright raised shapes, brighter
edges, fine grain and slow shading.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from scipy import ndimage, spatial

from napari_semsr.core import Float32Array, FloatArray, IntPair, OptionError
from napari_semsr.simulation.canvas import compute_box_distance
from napari_semsr.simulation.degrade import create_smooth_field

Phantom = Literal["grating", "pits", "particles", "circuit", "fracture"]
_Distance = Callable[[IntPair, np.random.Generator, float], FloatArray]


def _compute_pixel_coordinates(shape: IntPair) -> tuple[FloatArray, FloatArray]:
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    return y, x


def _compute_disc_distance(
    shape: IntPair, centres: FloatArray, radii: FloatArray
) -> FloatArray:
    """Compute the signed distance to the nearest disc, evaluated in windows."""
    distance = np.full(shape, 1e3)
    for (cy, cx), radius in zip(centres, radii, strict=True):
        reach = int(radius + 24)
        y0, x0 = max(0, int(cy) - reach), max(0, int(cx) - reach)
        window = distance[y0 : int(cy) + reach, x0 : int(cx) + reach]
        if window.size == 0:
            continue
        y, x = np.ogrid[: window.shape[0], : window.shape[1]]
        np.minimum(window, np.hypot(y + y0 - cy, x + x0 - cx) - radius, out=window)
    return distance


def _draw_grating(shape: IntPair, rng: np.random.Generator, pitch: float) -> FloatArray:
    """Draw a grating with slightly rough edges at a random angle."""
    y, x = _compute_pixel_coordinates(shape)
    angle = rng.uniform(0, np.pi)
    rough = (create_smooth_field(shape, 2.0, rng) - 0.5) * rng.uniform(0, 1.5)
    phase = (x * np.cos(angle) + y * np.sin(angle) + rough) % pitch
    width = pitch * rng.uniform(0.35, 0.65)
    return np.asarray(np.abs(phase - pitch / 2) - width / 2)


def _draw_pits(shape: IntPair, rng: np.random.Generator, pitch: float) -> FloatArray:
    """Draw tracks of pits of random run lengths, as on an optical disc."""
    y, x = _compute_pixel_coordinates(shape)
    angle = rng.uniform(-0.3, 0.3)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    track = np.floor(across / pitch).astype(int)
    track -= track.min()
    unit = pitch * 0.25
    runs = rng.integers(
        2, 9, size=(int(track.max()) + 1, 2 * int(sum(shape) / unit) + 4)
    )
    ends = np.cumsum(runs, axis=1) * unit
    distance = np.empty(shape)
    start = along.min() - 1
    for row in range(ends.shape[0]):
        inside = track == row
        position = along[inside] - start
        index = np.searchsorted(ends[row], position)
        before = np.where(index > 0, ends[row][np.maximum(index - 1, 0)], 0.0)
        middle = 0.5 * (before + ends[row][index])
        half = 0.5 * (ends[row][index] - before) - pitch * 0.22
        beside = (across[inside] / pitch) % 1 * pitch - pitch / 2
        lateral = np.hypot(np.maximum(np.abs(position - middle) - half, 0), beside)
        pit = lateral - pitch * 0.22
        distance[inside] = np.where(index % 2 == 0, pit, pitch)
    return distance


def _draw_particles(
    shape: IntPair, rng: np.random.Generator, pitch: float
) -> FloatArray:
    """Draw packed round particles of random sizes."""
    count = int(shape[0] * shape[1] / pitch**2 * rng.uniform(0.5, 1.3)) + 1
    centres = rng.uniform(-pitch, np.array(shape) + pitch, size=(count, 2))
    if rng.random() < 0.5:
        rows = np.arange(-1, shape[0] / (pitch * 0.87) + 1)
        columns = np.arange(-1, shape[1] / pitch + 1)
        grid = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
        grid[:, 1] += 0.5 * (grid[:, 0] % 2)
        centres = grid * [pitch * 0.87, pitch] + rng.normal(0, 0.06 * pitch, grid.shape)
    radii = pitch * 0.45 * rng.lognormal(0, rng.uniform(0, 0.35), len(centres))
    return _compute_disc_distance(shape, centres, radii)


def _draw_circuit(shape: IntPair, rng: np.random.Generator, pitch: float) -> FloatArray:
    """Draw Manhattan wires on a routing grid, with vias."""
    grid = tuple(int(np.ceil(n / pitch)) + 1 for n in shape)
    distance = np.full(shape, pitch)
    y, x = _compute_pixel_coordinates(shape)
    for _ in range(int(grid[0] * grid[1] * rng.uniform(0.15, 0.4)) + 1):
        row, column = rng.integers(0, grid[0]), rng.integers(0, grid[1])
        length = int(rng.integers(1, 9))
        tall = rng.random() < 0.5
        half = np.array([length if tall else 0, 0 if tall else length]) * pitch / 2
        half = half + pitch * 0.28
        centre = (np.array([row, column]) + 0.5) * pitch
        low = np.maximum(0, (centre - half - pitch).astype(int))
        high = np.maximum(0, (centre + half + pitch).astype(int) + 1)
        box = np.s_[low[0] : high[0], low[1] : high[1]]
        wire = compute_box_distance(
            y[box] - centre[0], x[box] - centre[1], (half[0], half[1])
        )
        distance[box] = np.minimum(distance[box], wire)
    cells = rng.integers(0, grid, size=(max(1, grid[0] * grid[1] // 8), 2))
    vias = np.asarray((cells + 0.5) * pitch, dtype=np.float64)
    holes = _compute_disc_distance(shape, vias, np.full(len(vias), pitch * 0.16))
    return np.asarray(np.maximum(distance, -holes))


def _draw_fracture(
    shape: IntPair, rng: np.random.Generator, pitch: float
) -> FloatArray:
    """Draw facets of a fracture surface by the distance to the nearest cell border."""
    count = max(4, int(shape[0] * shape[1] / pitch**2))
    seeds = rng.uniform(-pitch, np.array(shape) + pitch, size=(count, 2))
    y, x = _compute_pixel_coordinates(shape)
    warp = (create_smooth_field(shape, pitch / 3, rng) - 0.5) * pitch
    points = np.stack([y + warp, x - warp], -1).reshape(-1, 2)
    nearest, _ = spatial.cKDTree(seeds).query(points, k=2)
    gap = (nearest[:, 1] - nearest[:, 0]).reshape(shape)
    return np.asarray(rng.uniform(0.5, 2.0) - 0.5 * gap)


_DRAWERS: dict[Phantom, _Distance] = {
    "grating": _draw_grating,
    "pits": _draw_pits,
    "particles": _draw_particles,
    "circuit": _draw_circuit,
    "fracture": _draw_fracture,
}
PHANTOMS: tuple[Phantom, ...] = tuple(_DRAWERS)


def draw_phantom(
    kind: Phantom, shape: IntPair, *, seed: int = 0, pitch_px: float | None = None
) -> Float32Array:
    """Draw a sample as a sharp SEM image (Y, X) with grey values in [0, 1].

    `pitch_px` is the size of the repeating feature; by default random, 6 to 48 px.
    """
    if kind not in _DRAWERS:
        msg = f"Phantom must be one of {', '.join(PHANTOMS)}, got {kind!r}."
        raise OptionError(msg, code="unknown-value")
    if min(shape) < 8:
        msg = f"A phantom must be at least 8 px high and wide, got {shape}."
        raise OptionError(msg, code="out-of-range")
    if pitch_px is not None and pitch_px < 2:
        msg = f"A phantom's pitch must be at least 2 px, got {pitch_px:g}."
        raise OptionError(msg, code="out-of-range")
    rng = np.random.default_rng([seed, PHANTOMS.index(kind)])
    pitch = (
        float(np.exp(rng.uniform(np.log(6), np.log(48))))
        if pitch_px is None
        else pitch_px
    )
    distance = _DRAWERS[kind](shape, rng, pitch)
    # SEM contrast: material, bright edges, grain and slow shading
    inside = np.clip(0.5 - distance, 0, 1)
    ground, object_grey = rng.uniform(0.1, 0.5), rng.uniform(0.3, 0.8)
    decay = rng.uniform(1.0, 6.0)
    edge = inside * np.exp(-np.maximum(-distance, 0) / decay) * rng.uniform(0, 0.6)
    slope = np.gradient(np.clip(distance, -8, 8), axis=1) * rng.uniform(0, 0.12)
    grain = create_smooth_field(distance.shape, rng.uniform(0.6, 3.0), rng) - 0.5
    coarse = create_smooth_field(distance.shape, rng.uniform(8, 40), rng) - 0.5
    image = ground + (object_grey - ground) * inside + edge + slope * (distance < 8)
    image += grain * rng.uniform(0.0, 0.25) + coarse * rng.uniform(0.0, 0.2)
    image = ndimage.gaussian_filter(image, rng.uniform(0.0, 0.6))
    low, high = float(image.min()), float(image.max())
    unit_range = (image - low) / (high - low) if high > low else np.zeros(shape)
    return unit_range.astype(np.float32)
