"""Which frames may touch: from nominal positions, from a grid, or from the images."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Neighbourhood", "neighbourhood", "overlapping_pairs"]

FloatArray = NDArray[np.float64]
IntPair = tuple[int, int]

_LEAST_PIXELS = 600


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """Pairs of frames by their nominal positions.

    Attributes
    ----------
    touching : list of tuple of int
        Pairs that may overlap, in the order of their first frames.
    unrelated : list of tuple of int
        Pairs that cannot, for the distribution of chance scores.
    """

    touching: list[IntPair]
    unrelated: list[IntPair]


def neighbourhood(
    nominal: FloatArray,
    shape: IntPair,
    reach: IntPair,
    *,
    unrelated: int = 40,
    seed: int = 0,
) -> Neighbourhood:
    """Sort pairs of frames into those that may touch and those that cannot.

    Parameters
    ----------
    nominal : (N, 2) numpy.ndarray
        Expected top-left corners; NaN for a frame whose place is unknown.
    shape : tuple of int
        Rows and columns of a frame.
    reach : tuple of int
        Largest error of a nominal shift.
    unrelated : int, default=40
        Number of pairs that cannot touch to draw.
    seed : int, default=0
        For that draw.

    Returns
    -------
    Neighbourhood
        Touching pairs and a sample of unrelated ones.
    """
    limit = np.array(shape, dtype=float)
    slack = np.array(reach, dtype=float)
    order = np.lexsort((nominal[:, 1], nominal[:, 0]))
    touching: list[IntPair] = []
    rows = nominal[order, 0]
    for place, first in enumerate(order):
        if not np.isfinite(nominal[first]).all():
            continue
        stop = int(np.searchsorted(rows, rows[place] + limit[0], side="left"))
        others = order[place + 1 : stop]
        away = np.abs(nominal[others] - nominal[first])
        near = (away < limit - 4).all(axis=1)
        touching += [_ordered(int(first), int(other)) for other in others[near]]
    touching.sort()
    return Neighbourhood(touching, _unrelated(nominal, limit + slack, unrelated, seed))


def _ordered(first: int, second: int) -> IntPair:
    return (first, second) if first < second else (second, first)


def _unrelated(
    nominal: FloatArray, apart: FloatArray, wanted: int, seed: int
) -> list[IntPair]:
    """Draw pairs that lie too far from each other to overlap."""
    rng = np.random.default_rng(seed)
    known = np.flatnonzero(np.isfinite(nominal).all(axis=1))
    if len(known) < 2:
        return []
    drawn = {
        _ordered(int(a), int(b))
        for a, b in rng.choice(known, (20 * wanted, 2))
        if a != b and (np.abs(nominal[a] - nominal[b]) > apart).any()
    }
    pairs = sorted(drawn)
    rng.shuffle(pairs)
    return [(int(a), int(b)) for a, b in pairs[:wanted]]


def overlapping_pairs(positions: FloatArray, shape: IntPair) -> list[IntPair]:
    """Pairs of placed frames that share enough pixels to compare.

    Parameters
    ----------
    positions : (N, 2) numpy.ndarray
        Top-left corners; NaN for frames without a place.
    shape : tuple of int
        Rows and columns of a frame.

    Returns
    -------
    list of tuple of int
        Pairs with at least 600 common pixels.
    """
    touching = neighbourhood(positions, shape, (0, 0), unrelated=0).touching
    kept = []
    for first, second in touching:
        rows, columns = np.array(shape) - np.abs(positions[second] - positions[first])
        if rows * columns >= _LEAST_PIXELS:
            kept.append((first, second))
    return kept
