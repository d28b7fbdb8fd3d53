"""Discs put into an image and taken out of it, to see whether a method shows them.

Places are chosen at random, apart from one another and from the border. The *local
contrast* of an image at a place is the distance of its percentiles 5 and 95 in a square
of 49 px; that of a disc is the mean over its pixels less the mean over a ring that
reaches from one pixel beyond its rim to one beyond twice its radius.

A disc is inserted where nothing of its kind lies: half the local contrast is added to
the grey levels or taken from them. One is erased where something is: a spot whose mean
differs from that of its rim by half the local contrast. It is filled with the harmonic
function that its rim spans, the smoothest one, whose mean is that of the rim.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import signal, sparse
from scipy.sparse.linalg import spsolve

from napari_semsr.core import (
    BoolArray,
    FloatArray,
    FloatPair,
    IntPair,
)

Change = Literal["inserted", "erased"]

# The trial is described in docs/models.md; its numbers are chosen.
RADII_PX = (3, 4, 5, 6)  # about the blurs that models undo
MARGIN_PX = 24  # a centre's distance from the border: half the square of local contrast
_SHARE = 0.5  # of the local contrast: plain to see, and no more than is there already
_PLAIN = 0.25  # of a disc's contrast that its place may have without it
_LEAST = 0.125  # local contrast over that of the whole image; below, noise decides
_WINDOW, _STEP = 49, 16  # = 2 * 24 + 1; every third of it is enough, and much faster
_PERCENTILES = (5, 95)  # not the extremes, which are noise
_APART_PX = 2  # between the rings of two discs


@dataclass(frozen=True, slots=True)
class Discs:
    """Discs on a grid.

    Attributes
    ----------
    centres : (N, 2) numpy.ndarray of float
        ``(y, x)`` in pixels; the centre of the first pixel is (0, 0).
    radii : (N,) numpy.ndarray of float
        In pixels.
    """

    centres: FloatArray
    radii: FloatArray

    def __len__(self) -> int:
        return len(self.radii)

    def chosen(self, which: BoolArray) -> "Discs":
        """Leave some out.

        Parameters
        ----------
        which : (N,) numpy.ndarray of bool
            Those to keep.

        Returns
        -------
        Discs
            The rest.
        """
        return Discs(self.centres[which], self.radii[which])

    def on_grid(self, factor: int, margin_px: int = 0) -> "Discs":
        """Give the same discs on a finer grid that covers more.

        Parameters
        ----------
        factor : int
            Pixels of the finer grid for one of this.
        margin_px : int, default=0
            Pixels of the finer grid before the first row and column of this.

        Returns
        -------
        Discs
            In pixels of the finer grid.
        """
        centres = (self.centres + 0.5) * factor - 0.5 + margin_px
        return Discs(centres, self.radii * factor)


@dataclass(frozen=True, slots=True)
class DiscPlaces:
    """Where discs go in, and where some come out.

    Attributes
    ----------
    inserted, erased : Discs
        None of them touches another's ring.
    """

    inserted: Discs
    erased: Discs


def local_contrast(image: FloatArray) -> FloatArray:
    """Distance of the percentiles 5 and 95 around each pixel.

    Parameters
    ----------
    image : (Y, X) numpy.ndarray
        Grey levels, at least 49 px high and wide.

    Returns
    -------
    (Y, X) numpy.ndarray
        Taken on every sixteenth pixel in squares of 49 px within the image, and from
        the nearest of them elsewhere.
    """
    windows = sliding_window_view(image, (_WINDOW, _WINDOW))[::_STEP, ::_STEP]
    flat = windows.reshape(*windows.shape[:2], -1)
    low, high = np.percentile(flat, _PERCENTILES, axis=-1)
    rows, columns = (
        np.clip(np.rint((np.arange(n) - _WINDOW // 2) / _STEP), 0, count - 1)
        for n, count in zip(image.shape, windows.shape[:2], strict=True)
    )
    coarse = high - low
    return np.asarray(coarse[np.ix_(rows.astype(int), columns.astype(int))])


def disc_contrast(image: FloatArray, discs: Discs) -> FloatArray:
    """Mean of each disc less that of the ring around it.

    Parameters
    ----------
    image : (Y, X) numpy.ndarray
        Grey levels.
    discs : Discs
        Whole discs and rings lie in the image.

    Returns
    -------
    (N,) numpy.ndarray
        In grey levels.
    """
    found = np.empty(len(discs))
    for index, ((cy, cx), radius) in enumerate(
        zip(discs.centres, discs.radii, strict=True)
    ):
        box = _box((cy, cx), 2 * radius + 1, image.shape)
        away = _away(box, (cy, cx))
        part = image[box]
        ring = (away >= radius + 1) & (away <= 2 * radius + 1)
        found[index] = part[away <= radius - 0.5].mean() - part[ring].mean()
    return found


def disc_steps(
    image: FloatArray,
    discs: Discs,
    rng: np.random.Generator,
    *,
    bounds: FloatPair = (-np.inf, np.inf),
) -> FloatArray:
    """Give half the local contrast at each disc, with a sign.

    Parameters
    ----------
    image : (Y, X) numpy.ndarray
        Grey levels.
    discs : Discs
        Where.
    rng : numpy.random.Generator
        Draws the signs.
    bounds : tuple of float, optional
        Least and largest grey level; a step that would leave them on the mean of its
        disc goes the other way.

    Returns
    -------
    (N,) numpy.ndarray
        In grey levels.
    """
    at = tuple(np.rint(discs.centres).astype(int).T)
    sizes = _SHARE * local_contrast(image)[at]
    steps: FloatArray = sizes * rng.choice([-1.0, 1.0], len(discs))
    for index, ((cy, cx), radius) in enumerate(
        zip(discs.centres, discs.radii, strict=True)
    ):
        box = _box((cy, cx), radius, image.shape)
        made = image[box][_away(box, (cy, cx)) <= radius].mean() + steps[index]
        if not bounds[0] <= made <= bounds[1]:
            steps[index] *= -1
    return steps


def insert_discs(image: FloatArray, discs: Discs, steps: FloatArray) -> FloatArray:
    """Add discs to an image.

    Parameters
    ----------
    image : (Y, X) numpy.ndarray
        Grey levels.
    discs : Discs
        Their rims are smoothed over one pixel.
    steps : (N,) numpy.ndarray
        Grey levels that each of them adds.

    Returns
    -------
    (Y, X) numpy.ndarray
        A copy; texture within the discs is kept.
    """
    made = image.copy()
    for (cy, cx), radius, step in zip(discs.centres, discs.radii, steps, strict=True):
        box = _box((cy, cx), radius + 1, image.shape)
        made[box] += step * np.clip(radius + 0.5 - _away(box, (cy, cx)), 0, 1)
    return made


def erase_discs(image: FloatArray, discs: Discs) -> FloatArray:
    """Fill discs smoothly from their rims.

    Parameters
    ----------
    image : (Y, X) numpy.ndarray
        Grey levels.
    discs : Discs
        Pixels up to half a pixel beyond their radii are replaced.

    Returns
    -------
    (Y, X) numpy.ndarray
        A copy, harmonic within the discs.
    """
    made = image.copy()
    for (cy, cx), radius in zip(discs.centres, discs.radii, strict=True):
        box = _box((cy, cx), radius + 2, image.shape)
        part = made[box]
        part[...] = _harmonic(part, _away(box, (cy, cx)) <= radius + 0.5)
    return made


def choose_places(
    image: FloatArray,
    counts: IntPair,
    rng: np.random.Generator,
    *,
    radii: Sequence[int] = RADII_PX,
) -> DiscPlaces:
    """Choose where discs go in and where some come out.

    Parameters
    ----------
    image : (Y, X) numpy.ndarray
        Grey levels.
    counts : tuple of int
        Discs to insert, and to erase; fewer where there is no room.
    rng : numpy.random.Generator
        Source of the choice.
    radii : sequence of int, default=(3, 4, 5, 6)
        Radii in pixels, equally often.

    Returns
    -------
    DiscPlaces
        Inserted ones where the place has less than a quarter of their contrast
        already; erased ones whose rims have less than a quarter of it. Nowhere where
        the local contrast is below an eighth of the image's.
    """
    side = max(_WINDOW, 2 * MARGIN_PX + 1)
    found: dict[Change, list[tuple[int, int, int]]] = {"inserted": [], "erased": []}
    if min(image.shape) >= side:
        _take(image, [*radii], counts, rng, found)
    return DiscPlaces(_discs(found["inserted"]), _discs(found["erased"]))


def _take(
    image: FloatArray,
    radii: list[int],
    counts: IntPair,
    rng: np.random.Generator,
    found: dict[Change, list[tuple[int, int, int]]],
) -> None:
    """Draw places one after the other, of each change and radius in turn."""
    contrast = local_contrast(image)
    low, high = np.percentile(image, _PERCENTILES)
    free = np.zeros(image.shape, dtype=bool)
    free[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX] = True
    free &= (contrast > 0) & (contrast >= _LEAST * (high - low))
    fits = {radius: _fitting(image, contrast, radius) for radius in radii}
    spread = 2 * max(radii) + 1 + _APART_PX
    wanted: dict[Change, int] = {"inserted": counts[0], "erased": counts[1]}
    for number in range(max(counts)):
        radius = radii[number % len(radii)]
        for change, where in fits[radius].items():
            places = np.flatnonzero(where & free)
            if places.size == 0 or number >= wanted[change]:
                continue
            y, x = divmod(int(rng.choice(places)), image.shape[1])
            found[change].append((y, x, radius))
            reach = 2 * radius + 1 + spread
            box = _box((y, x), reach, image.shape)
            free[box] &= _away(box, (y, x)) > reach


def _fitting(
    image: FloatArray, contrast: FloatArray, radius: int
) -> dict[Change, BoolArray]:
    """Tell where a disc of this radius may go in, or come out."""
    disc = _mean(image, 0, radius - 0.5)
    rim = _mean(image, radius + 0.5, radius + 1.5)
    ring = _mean(image, radius + 1, 2 * radius + 1)
    step = _SHARE * contrast
    something = np.abs(disc - rim)
    plain = np.abs(rim - ring) <= _PLAIN * something
    return {
        "erased": (something >= step) & plain,
        "inserted": np.abs(disc - ring) <= _PLAIN * step,
    }


def _mean(image: FloatArray, inner: float, outer: float) -> FloatArray:
    """Mean over the pixels of a ring around each pixel."""
    half = int(np.ceil(outer))
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    away = np.hypot(y, x)
    kernel = ((away >= inner) & (away <= outer)).astype(float)
    padded = np.pad(image, half, mode="reflect")
    mean = signal.fftconvolve(padded, kernel / kernel.sum(), mode="valid")
    return np.asarray(mean)


def _harmonic(part: FloatArray, inside: BoolArray) -> FloatArray:
    """Replace some pixels by the solution of Laplace's equation."""
    index = np.full(part.shape, -1)
    index[inside] = np.arange(inside.sum())
    ys, xs = np.nonzero(inside)
    unknowns = len(ys)
    right = np.zeros(unknowns)
    rows, columns = [], []
    for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        other = index[ys + dy, xs + dx]
        known = other < 0
        right[known] += part[ys[known] + dy, xs[known] + dx]
        rows.append(np.flatnonzero(~known))
        columns.append(other[~known])
    at = np.concatenate(rows), np.concatenate(columns)
    links = sparse.coo_array((np.ones(len(at[0])), at), shape=(unknowns, unknowns))
    system = sparse.csc_array(4 * sparse.eye_array(unknowns) - links)
    filled = part.copy()
    filled[inside] = spsolve(system, right)
    return filled


def _discs(places: list[tuple[int, int, int]]) -> Discs:
    """Put places into arrays."""
    table = np.array(places, dtype=float).reshape(-1, 3)
    return Discs(table[:, :2], table[:, 2])


def _box(
    centre: FloatPair, reach: float, shape: tuple[int, ...]
) -> tuple[slice, slice]:
    """Pixels of an image within a distance along either axis."""
    y, x = (
        slice(max(0, int(np.floor(at - reach))), min(n, int(np.ceil(at + reach)) + 1))
        for at, n in zip(centre, shape, strict=True)
    )
    return y, x


def _away(box: tuple[slice, slice], centre: FloatPair) -> FloatArray:
    """Distance of the pixels of a box from a place."""
    y, x = (
        np.arange(part.start, part.stop) - at
        for part, at in zip(box, centre, strict=True)
    )
    return np.hypot(y[:, None], x[None, :])
