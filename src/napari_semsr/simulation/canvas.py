"""Canvas in nanometres, and simulated samples in pixels, drawn on it or without.

Samples: gratings, disc pits, particles, circuits, fracture.

Phantoms are drawn from signed distances (pixels, negative inside a raised shape), with
antialiased edges at any scale, and shaded as by an SEM: bright raised shapes, brighter
edges, fine grain and slow shading.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage, sparse, spatial

from napari_semsr.core import Float32Array, FloatArray, FloatPair, IntPair, OptionError
from napari_semsr.simulation.degrade import create_smooth_field

Distance = Callable[[FloatArray, FloatArray], FloatArray]


def compute_coverage(
    distance_nm: NDArray[np.floating], sidewall_nm: float, pixel_nm: float
) -> Float32Array:
    """Compute the mean coverage of pixels at given distances in nm from an edge."""
    half = max(sidewall_nm, 1e-6 * pixel_nm) / 2

    def integrate_outside(s: NDArray[np.floating]) -> NDArray[np.floating]:
        inner = np.clip(s + half, 0, 2 * half)
        return np.asarray(inner**2 / (4 * half) + np.maximum(s - half, 0))

    distance = np.asarray(distance_nm, dtype=np.float64)
    mean = integrate_outside(distance + pixel_nm / 2)
    mean = mean - integrate_outside(distance - pixel_nm / 2)
    return np.asarray(1 - mean / pixel_nm, dtype=np.float32)


def compute_box_distance(dy: FloatArray, dx: FloatArray, half: FloatPair) -> FloatArray:
    """Compute the signed distance to an axis-aligned rectangle."""
    y, x = np.abs(dy) - half[0], np.abs(dx) - half[1]
    outside = np.hypot(np.maximum(y, 0), np.maximum(x, 0))
    return np.asarray(outside + np.minimum(np.maximum(y, x), 0))


@dataclass(frozen=True, slots=True)
class Canvas:
    """Pixel grid in nanometres with a corner at (0, 0)."""

    shape: IntPair  # Rows and columns
    pixel_nm: float  # Side of a pixel
    sidewall_nm: float  # Width of the sidewalls

    @property
    def extent_nm(self) -> FloatPair:
        """Height and width of the canvas in nm."""
        return self.shape[0] * self.pixel_nm, self.shape[1] * self.pixel_nm

    def compute_coverage(self, distance_nm: NDArray[np.floating]) -> Float32Array:
        """Compute the antialiased coverage of a shape."""
        return compute_coverage(distance_nm, self.sidewall_nm, self.pixel_nm)

    def get_pixel_centres(self) -> tuple[FloatArray, FloatArray]:
        """Return pixel centres in nm as an open grid, (Y, 1) and (1, X)."""
        y, x = ((np.arange(n, dtype=float) + 0.5) * self.pixel_nm for n in self.shape)
        return y[:, None], x[None, :]

    def iterate_window(
        self, centre: Iterable[float], *half: float
    ) -> Iterator[tuple[tuple[slice, slice], FloatArray, FloatArray]]:
        """Yield the pixels of a rectangle with its soft edge, and their offsets in nm.

        Yields once, or never if no pixel is on the canvas. `half`: half the sides of
        the rectangle in nm, or half the side of a square. Offsets are from `centre`.
        """
        slices, off = [], []
        for at, reach, count in zip(centre, (*half, half[0]), self.shape, strict=False):
            soft = reach + self.sidewall_nm + self.pixel_nm
            start = max(0, int(np.floor((at - soft) / self.pixel_nm)))
            stop = min(count, int(np.ceil((at + soft) / self.pixel_nm)))
            if start >= stop:
                return
            slices.append(slice(start, stop))
            off.append((np.arange(start, stop, dtype=float) + 0.5) * self.pixel_nm - at)
        yield (slices[0], slices[1]), off[0][:, None], off[1][None, :]

    def create_relief(self, correlation_nm: float, rng: Generator) -> Float32Array:
        """Create a smooth random relief (Y, X) with mean 0 and standard deviation 1.

        White noise on knots at fixed positions, one correlation length apart, blurred
        by a Gaussian: the same relief at any pixel size.
        """
        reach = 4
        weights = []
        for count in self.shape:
            at = (np.arange(count) + 0.5) * self.pixel_nm / correlation_nm + reach
            first = np.floor(at).astype(int) - reach
            columns = np.maximum(first[:, None] + np.arange(2 * reach + 1), 0)
            values = np.exp(-0.5 * (at[:, None] - columns) ** 2)
            values /= np.sqrt((values**2).sum(axis=1, keepdims=True))
            knots = int(np.ceil(count * self.pixel_nm / correlation_nm)) + 2 * reach + 2
            rows = np.repeat(np.arange(count), columns.shape[1])
            flat = (values.astype(np.float32).ravel(), (rows, columns.ravel()))
            weights.append(sparse.csr_array(flat, shape=(count, knots)))
        noise = rng.standard_normal([w.shape[1] for w in weights], dtype=np.float32)
        half = weights[0] @ noise
        return np.ascontiguousarray((weights[1] @ half.T).T)


# Gaussian blur whose width varies with position.
#
# The light is divided among a few widths. Each share is blurred by its width and
# normalised by its blurred coverage, so that a uniform surface stays uniform at a step.

FWHM = 2 * float(np.sqrt(2 * np.log(2)))
"""Ratio of a Gaussian's full width at half maximum to its standard deviation."""


def apply_varying_blur(
    image: Float32Array, fwhm_px: NDArray[np.floating]
) -> Float32Array:
    """Blur an image (Y, X) with a full width at half maximum that varies by pixel."""
    sigma = (fwhm_px / FWHM).astype(np.float32)
    light = np.zeros(image.shape, np.float32)
    cover = np.zeros(image.shape, np.float32)
    for level, share in split_blur_widths(sigma):
        if share is None:
            return apply_gaussian_blur(image, level)
        light += apply_gaussian_blur(image * share, level)
        cover += apply_gaussian_blur(share, level)
    return light / cover


def split_blur_widths(
    sigma: Float32Array,
) -> Iterator[tuple[float, Float32Array | None]]:
    """Yield a few blur widths, and each pixel's fraction; None for a single width."""
    low, high = float(sigma.min()), float(sigma.max())
    if high / low < 1.01:  # chosen: one width is enough
        yield (low * high) ** 0.5, None
        return
    # chosen: seven widths at most, as each costs two blurs
    steps = int(np.ceil(np.log(high / low) / np.log(1.3)))
    count = 1 + min(7 - 1, steps)
    levels = [float(v) for v in np.geomspace(low, high, count)]
    for level, peak in zip(levels, np.eye(count), strict=True):
        share = np.interp(sigma**2, np.square(levels), peak)
        yield level, np.asarray(share, dtype=np.float32)


def apply_gaussian_blur(image: Float32Array, sigma: float) -> Float32Array:
    """Blur an image (Y, X) by a Gaussian truncated at 4.5 standard deviations."""
    blurred_image = ndimage.gaussian_filter(image, sigma, mode="reflect", truncate=4.5)
    return np.asarray(blurred_image, dtype=np.float32)


Phantom = Literal["grating", "pits", "particles", "circuit", "fracture"]
_Distance = Callable[[IntPair, Generator, float], FloatArray]


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


def _draw_grating(shape: IntPair, rng: Generator, pitch: float) -> FloatArray:
    """Draw a grating with slightly rough edges at a random angle."""
    y, x = _compute_pixel_coordinates(shape)
    angle = rng.uniform(0, np.pi)
    rough = (create_smooth_field(shape, 2.0, rng) - 0.5) * rng.uniform(0, 1.5)
    phase = (x * np.cos(angle) + y * np.sin(angle) + rough) % pitch
    width = pitch * rng.uniform(0.35, 0.65)
    return np.asarray(np.abs(phase - pitch / 2) - width / 2)


def _draw_pits(shape: IntPair, rng: Generator, pitch: float) -> FloatArray:
    """Draw tracks of pits of random run lengths, as on an optical disc."""
    y, x = _compute_pixel_coordinates(shape)
    angle = rng.uniform(-0.3, 0.3)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    track = np.floor(across / pitch).astype(int)
    track -= track.min()
    unit = pitch * 0.25
    size = int(track.max()) + 1, 2 * int(sum(shape) / unit) + 4
    runs = rng.integers(2, 9, size=size)
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
        from_middle = (across[inside] / pitch) % 1 * pitch - pitch / 2
        lateral = np.hypot(np.maximum(np.abs(position - middle) - half, 0), from_middle)
        pit = lateral - pitch * 0.22
        distance[inside] = np.where(index % 2 == 0, pit, pitch)
    return distance


def _draw_particles(shape: IntPair, rng: Generator, pitch: float) -> FloatArray:
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


def _draw_circuit(shape: IntPair, rng: Generator, pitch: float) -> FloatArray:
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
        off = y[box] - centre[0], x[box] - centre[1]
        wire = compute_box_distance(*off, (half[0], half[1]))
        distance[box] = np.minimum(distance[box], wire)
    cells = rng.integers(0, grid, size=(max(1, grid[0] * grid[1] // 8), 2))
    vias = np.asarray((cells + 0.5) * pitch, dtype=np.float64)
    holes = _compute_disc_distance(shape, vias, np.full(len(vias), pitch * 0.16))
    return np.asarray(np.maximum(distance, -holes))


def _draw_fracture(shape: IntPair, rng: Generator, pitch: float) -> FloatArray:
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
    pitch = pitch_px
    if pitch is None:
        pitch = float(np.exp(rng.uniform(np.log(6), np.log(48))))
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
