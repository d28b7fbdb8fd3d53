"""Islands of metal that fill a plane but for narrow gaps, drawn by their distances.

Random sites with random weights part the plane into cells (a power diagram). Each cell
holds one island, whose outline keeps half a gap's width off each border. Every border
has its own width, and coordinates are warped beforehand, so that outlines are crooked.

The plane is worked on in blocks of a few pixels, each of which looks at the sites near
its centre only.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import spatial, special

from napari_semsr.simulate.canvas import Canvas, Plane

__all__ = ["Islands", "Packing", "draw_islands"]

_BLOCK = 8  # side of a block in pixels
_NEAR = 8  # sites that a block looks at
_OWN = 5  # sites, of these, that may own a pixel of the block
_PATCH = 1.5  # size of bare patches, in pitches
_FAR = np.float32(1e4)


@dataclass(frozen=True, slots=True)
class Packing:
    """How islands lie.

    Attributes
    ----------
    pitch_nm : float
        Mean distance of neighbours.
    size_spread : float
        Spread of the cells' sizes: 0 for nearly equal ones, 1 for large and tiny ones.
    gap_nm, gap_spread : float
        Median width of the gaps, and standard deviation of the width's logarithm.
    touching : float
        Share of borders without a gap.
    missing : float
        Share of cells without an island; they lie together, as bare patches.
    corner_nm : float
        Length over which corners are rounded.
    crooked_nm : float
        Standard deviation of the warp of outlines.
    """

    pitch_nm: float
    size_spread: float
    gap_nm: float
    gap_spread: float
    touching: float
    missing: float
    corner_nm: float
    crooked_nm: float


@dataclass(frozen=True, slots=True)
class Islands:
    """Drawn islands.

    Attributes
    ----------
    depth_nm : (Y, X) numpy.ndarray of float32
        Distance from the outline, positive inside an island.
    grain : (Y, X) numpy.ndarray of float32
        A number in [0, 1] for each cell.
    """

    depth_nm: Plane
    grain: Plane


@dataclass(frozen=True, slots=True)
class _Near:
    """Sites near the centre of every block, ``B`` blocks."""

    place: NDArray[np.float32]  # (2, NEAR, B, 1)
    weight: NDArray[np.float32]  # (NEAR, B, 1)
    grain: NDArray[np.float32]
    scale: NDArray[np.float32]  # (NEAR, NEAR, B, 1), power difference to distance
    half_gap: NDArray[np.float32]
    empty: NDArray[np.bool_]


def draw_islands(
    side: int, pixel_nm: float, packing: Packing, rng: np.random.Generator
) -> Islands:
    """Draw islands on a square.

    Parameters
    ----------
    side : int
        Rows and columns.
    pixel_nm : float
        Side of a pixel; a cell should be wider than a block of 8 px.
    packing : Packing
        How they lie.
    rng : numpy.random.Generator
        Source of every random choice.

    Returns
    -------
    Islands
        Their depth and grain.
    """
    blocks = -(-side // _BLOCK)
    whole = blocks * _BLOCK
    canvas = Canvas((whole, whole), pixel_nm, 0.0)
    near = _near_sites(blocks, pixel_nm, packing, rng)
    y, x = canvas.grid()
    wide = 0.35 * packing.pitch_nm
    warp = [packing.crooked_nm * canvas.rough(wide, rng) for _ in range(2)]
    at = [
        _as_blocks((plane + line).astype(np.float32), blocks)
        for plane, line in zip(warp, (y, x), strict=True)
    ]
    depth, grain = _owned(at[0], at[1], near, np.float32(packing.corner_nm))
    return Islands(
        *(_as_plane(plane, blocks)[:side, :side] for plane in (depth, grain))
    )


@dataclass(frozen=True, slots=True)
class _Sites:
    """Random sites of a plane and beyond its border, ``N`` of them."""

    place: NDArray[np.float64]  # (N, 2)
    weight: NDArray[np.float64]
    grain: NDArray[np.float32]
    width: NDArray[np.float32]  # a share; those of two sites give their gap's width
    empty: NDArray[np.bool_]


def _strew(extent_nm: float, packing: Packing, rng: np.random.Generator) -> _Sites:
    """Strew sites: a hexagonal lattice, much disturbed."""
    pitch = packing.pitch_nm
    count = int(np.ceil(extent_nm / pitch)) + 6
    row, column = (index.ravel().astype(float) for index in np.indices((count, count)))
    grid = np.column_stack([row, column + 0.5 * (row % 2)])
    place = (grid - 3 + rng.uniform(-0.42, 0.42, grid.shape)) * pitch
    number = len(place)
    weight = packing.size_spread * pitch**2 * (rng.random(number) - 0.5)
    grain, width = rng.random((2, number), dtype=np.float32)
    bare = Canvas((count, count), 1.0, 0.0).rough(_PATCH, rng).ravel()
    bare += 0.3 * rng.standard_normal(number)
    empty = bare < np.quantile(bare, packing.missing)
    return _Sites(place, weight, grain, width, empty)


def _near_sites(
    blocks: int, pixel_nm: float, packing: Packing, rng: np.random.Generator
) -> _Near:
    """Strew sites, and find those near each block."""
    sites = _strew(blocks * _BLOCK * pixel_nm, packing, rng)
    lifted = np.column_stack([sites.place, np.sqrt(sites.weight.max() - sites.weight)])
    middle = (np.arange(blocks) + 0.5) * _BLOCK * pixel_nm
    y, x = (axis.ravel() for axis in np.meshgrid(middle, middle, indexing="ij"))
    centres = np.column_stack([y, x, np.zeros_like(x)])
    _, index = spatial.cKDTree(lifted).query(centres, k=_NEAR)
    chosen = np.asarray(index).T
    place = np.moveaxis(sites.place[chosen], -1, 0).astype(np.float32)
    apart = np.hypot(*(place[:, :, None] - place[:, None]))
    np.maximum(apart, 1e-3, out=apart)
    width = sites.width[chosen]
    half_gap = _widths(np.mod(width[:, None] + width[None], 1), packing) / 2
    return _Near(
        place[..., None],
        sites.weight[chosen].astype(np.float32)[..., None],
        sites.grain[chosen][..., None],
        (0.5 / apart)[..., None],
        half_gap.astype(np.float32)[..., None],
        sites.empty[chosen][..., None],
    )


def _widths(share: NDArray[np.floating], packing: Packing) -> NDArray[np.floating]:
    """Turn uniform shares into widths of gaps; touching islands overlap a little."""
    free = np.clip(
        (share - packing.touching) / max(1 - packing.touching, 1e-6), 1e-3, 1 - 1e-3
    )
    gaps = packing.gap_nm * np.exp(packing.gap_spread * special.ndtri(free))
    return np.where(share < packing.touching, -packing.corner_nm, gaps)


def _owned(y: Plane, x: Plane, near: _Near, corner: np.float32) -> tuple[Plane, Plane]:
    """Depth in the island that owns each pixel, and its grain."""
    power = [
        (y - near.place[0, k]) ** 2 + (x - near.place[1, k]) ** 2 - near.weight[k]
        for k in range(_NEAR)
    ]
    depth = np.full(y.shape, -_FAR)
    grain = np.zeros_like(y)
    for own in range(_OWN):
        within: Plane | None = None
        for other in range(_NEAR):
            if other == own:
                continue
            off = power[other] - power[own]
            off *= near.scale[own, other]
            off -= near.half_gap[own, other]
            within = off if within is None else _rounded(within, off, corner)
        if within is None:
            continue
        within = np.where(near.empty[own], -_FAR, within)
        grain = np.where(within > depth, near.grain[own], grain)
        np.maximum(depth, within, out=depth)
    return depth, grain


def _rounded(first: Plane, second: Plane, length: np.float32) -> Plane:
    """Take the lesser of two distances, with a round corner where they are near."""
    close = length - np.abs(first - second)
    np.maximum(close, 0, out=close)
    np.minimum(first, second, out=first)
    close *= close
    close *= np.float32(0.25) / length
    first -= close
    return first


def _as_blocks(plane: Plane, blocks: int) -> Plane:
    """Reorder a plane to ``(blocks, pixels of a block)``."""
    parts = plane.reshape(blocks, _BLOCK, blocks, _BLOCK).swapaxes(1, 2)
    return np.ascontiguousarray(parts).reshape(blocks**2, _BLOCK**2)


def _as_plane(parts: Plane, blocks: int) -> Plane:
    """Undo `_as_blocks`."""
    whole = parts.reshape(blocks, blocks, _BLOCK, _BLOCK).swapaxes(1, 2)
    return np.ascontiguousarray(whole).reshape(blocks * _BLOCK, blocks * _BLOCK)
