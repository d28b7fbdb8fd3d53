"""Scans whose truth is known: frames cut from a band-limited scene, shaded, noisy."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_semsr.core import Acquisition, compute_grid_cells, parse_pixel_size

MARGIN = 16
FULL = 40000.0


@dataclass(frozen=True, slots=True)
class Scan:
    """An acquisition and what it was made of."""

    acquisition: Acquisition
    truth: np.ndarray
    flat: np.ndarray
    gains: np.ndarray
    sigma: float
    clean: np.ndarray


def texture(shape, seed=0, *, blur=1.4):
    """Blobs and grain, band-limited, in [0, 1]."""
    rng = np.random.default_rng(seed)
    fine = ndimage.gaussian_filter(rng.normal(size=shape), blur)
    broad = ndimage.gaussian_filter(rng.normal(size=shape), 6.0)
    scene = fine / fine.std() + 1.2 * broad / broad.std()
    return np.clip(0.5 + 0.12 * scene, 0.02, 1.2)


def lattice(shape, pitch, seed=0, *, disorder=0.0):
    """Pits on a square lattice; `disorder` is the grey of what distinguishes them."""
    y, x = np.indices(shape, dtype=float)
    dots = (1 + np.cos(2 * np.pi * y / pitch)) * (1 + np.cos(2 * np.pi * x / pitch)) / 4
    scene = 0.3 + 0.5 * dots
    if disorder:
        rng = np.random.default_rng(seed)
        grain = ndimage.gaussian_filter(rng.normal(size=shape), 1.4)
        scene = scene + disorder * grain / grain.std()
    return scene


def square_flat(side, corner=0.65, *, centre=(0.0, 0.0), tilt=0.0):
    """Vignetting that falls to `corner` in the corners of a centred field."""
    y, x = np.indices((side, side), dtype=float) - (side - 1) / 2
    radius2 = ((y - centre[0] * side) ** 2 + (x - centre[1] * side) ** 2) / (
        side**2 / 2
    )
    flat = 1 - (1 - corner) * radius2
    return np.clip(flat * (1 + tilt * x / side), 0.02, None)


def round_flat(side, rim=0.35, *, centre=(0.0, 0.0), radius=0.5):
    """Round field: `rim` of the light at its edge and nothing outside."""
    y, x = np.indices((side, side), dtype=float) - (side - 1) / 2
    distance = np.hypot(y - centre[0] * side, x - centre[1] * side) / (radius * side)
    flat = 1 - (1 - rim) * distance**2
    return flat * np.clip((1 - distance) * radius * side / 2 + 0.5, 0, 1)


def cut(scene, place, side):
    """Sample a scene at a sub-pixel place; splines of order five are exact enough."""
    whole = np.floor(place).astype(int)
    part = place - whole
    y, x = whole - MARGIN
    size = side + 2 * MARGIN
    crop = scene[y : y + size, x : x + size]
    moved = ndimage.shift(crop, -part, order=5, mode="reflect")
    return moved[MARGIN : MARGIN + side, MARGIN : MARGIN + side]


def cut_scan(
    scene,
    *,
    grid=(3, 3),
    side=128,
    overlap=0.3,
    jitter=6.0,
    sigma=5.0,
    flat=None,
    drift=0.0,
    flicker=0.0,
    dark=2000.0,
    stage=((1.0, 0.0), (0.0, 1.0)),
    order="row",
    first="top-left",
    seed=0,
    known="positions",
    pixel_size_nm=None,
):
    """Cut a scan; `sigma` is of 255, `jitter` uniform on each axis.

    `drift` is by how much the light changes from the first frame to the last.
    """
    rng = np.random.default_rng(seed)
    count = grid[0] * grid[1]
    cells = compute_grid_cells(count, grid, order, first)
    nominal = cells * (side * (1 - overlap))
    moved = nominal @ np.asarray(stage).T + rng.uniform(-jitter, jitter, (count, 2))
    truth = moved - moved.min(axis=0) + MARGIN + 2
    flat = np.ones((side, side)) if flat is None else flat
    gains = 1 + drift * (np.arange(count) / max(count - 1, 1) - 0.5)
    gains = gains * (1 + flicker * rng.normal(size=count))
    clean = np.stack([cut(scene, place, side) for place in truth])
    frames = FULL * clean * flat * gains[:, None, None] + dark
    frames += rng.normal(0, sigma / 255 * FULL, frames.shape)
    acquisition = Acquisition(
        frames=np.clip(np.rint(frames), 0, 65535).astype(np.uint16),
        names=tuple(f"f{i:03d}" for i in range(count)),
        nominal_px=nominal if known == "positions" else None,
        grid=grid if known in ("positions", "grid", "grid-overlap") else None,
        order=order,
        first=first,
        overlap=overlap if known == "grid-overlap" else None,
        pixel_size_nm=parse_pixel_size(pixel_size_nm),
    )
    return Scan(acquisition, truth, flat, gains, sigma / 255 * FULL, clean * FULL)


def errors(positions, truth):
    """Errors of placed frames after their mean is taken off, and their 2-D RMS."""
    placed = np.isfinite(positions).all(axis=1)
    error = np.full(positions.shape, np.nan)
    error[placed] = positions[placed] - truth[placed]
    error[placed] -= error[placed].mean(axis=0)
    return error, float(np.sqrt((error[placed] ** 2).sum(axis=1).mean()))
