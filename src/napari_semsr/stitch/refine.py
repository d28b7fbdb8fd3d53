"""Sub-pixel positions of all frames together, to the limit that noise sets.

Each sweep resamples every frame once onto the mosaic's grid by sampled Gaussians,
linearises every pair (`napari_semsr.stitch.links`), and moves all frames at once, each
pair weighed by its two-by-two information.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

from napari_semsr.stitch.links import Link, linearise
from napari_semsr.stitch.prepared import Prepared
from napari_semsr.stitch.resampled import Resampled

__all__ = ["SWEEPS", "Refined", "refine"]

FloatArray = NDArray[np.float64]
IntPair = tuple[int, int]

SWEEPS = (2.0, 2.0, 1.0, 1.0, 1.0, 1.0)
_MAX_STEP = 2.0
_SETTLED = 1e-3
_HOLD = 1e-7
_DENSE_LIMIT = 1500


@dataclass(frozen=True, slots=True)
class Refined:
    """Positions after the last sweep.

    Attributes
    ----------
    positions : (N, 2) numpy.ndarray
        Top-left corners; NaN where there was none to start from.
    links : tuple of Link
        Of the last sweep.
    sigma_px : (N, 2) numpy.ndarray
        Standard deviation of each position by the information of all pairs.
    """

    positions: FloatArray
    links: tuple[Link, ...]
    sigma_px: FloatArray


def _solve_steps(
    count: int, links: Sequence[Link], noise: float
) -> tuple[FloatArray, sparse.csc_array]:
    """Move all frames at once; what nothing holds stays where it is."""
    first = np.array([link.first for link in links], dtype=np.intp)
    second = np.array([link.second for link in links], dtype=np.intp)
    doubt = np.array([max(link.variance, 0.5 * noise) for link in links])
    blocks = np.stack([link.information for link in links]) / doubt[:, None, None]
    steps = np.clip(np.stack([link.step for link in links]), -_MAX_STEP, _MAX_STEP)
    pull = np.einsum("kab,kb->ka", blocks, steps)
    right = np.zeros((count, 2))
    np.add.at(right, second, pull)
    np.add.at(right, first, -pull)
    rows, columns, values = [], [], []
    for one, two, sign in (
        (first, first, 1),
        (second, second, 1),
        (first, second, -1),
        (second, first, -1),
    ):
        for a in range(2):
            for b in range(2):
                rows.append(2 * one + a)
                columns.append(2 * two + b)
                values.append(sign * blocks[:, a, b])
    size = 2 * count
    matrix = sparse.coo_array(
        (
            np.concatenate(values),
            (np.concatenate(rows), np.concatenate(columns)),
        ),
        (size, size),
    ).tocsc()
    tiny = _HOLD * float(np.median(np.abs(blocks[:, [0, 1], [0, 1]])))
    held = (matrix + tiny * sparse.eye_array(size)).tocsc()
    return splu(held).solve(right.ravel()).reshape(count, 2), held


def _around(pairs: Sequence[IntPair], count: int) -> list[set[int]]:
    """Frames that each frame touches, itself included."""
    near = [{index} for index in range(count)]
    for first, second in pairs:
        near[first].add(second)
        near[second].add(first)
    return near


def _sweep_links(
    prepared: Prepared, positions: FloatArray, pairs: Sequence[IntPair], sigma: float
) -> list[Link]:
    """Linearise all pairs, those of neighbouring frames one after another."""
    sweep = Resampled(prepared, positions, sigma)
    near = _around(pairs, len(positions))
    links = []
    for first, second in pairs:
        around = sorted(near[first] & near[second])
        link = linearise(sweep, first, second, around)
        if link is not None:
            links.append(link)
    return links


def refine(
    prepared: Prepared,
    positions: FloatArray,
    pairs: Sequence[IntPair],
    *,
    sweeps: Sequence[float] = SWEEPS,
) -> Iterator[Refined]:
    """Refine positions by the joint likelihood, sweep after sweep.

    Parameters
    ----------
    prepared : Prepared
        Corrected frames.
    positions : (N, 2) numpy.ndarray
        Within a pixel or two of the truth; NaN for frames that are left out.
    pairs : sequence of tuple of int
        All pairs of placed frames that overlap.
    sweeps : sequence of float
        Width of the Gaussian in each sweep, in px.

    Yields
    ------
    Refined
        Positions after each sweep; the last one is the result. Sweeps of equal width
        end early when nothing moves any more.
    """
    positions = positions.copy()
    order = np.lexsort((positions[:, 1], positions[:, 0]))
    rank = np.argsort(order)
    pairs = sorted(
        pairs, key=lambda pair: (min(rank[list(pair)]), max(rank[list(pair)]))
    )
    settled = 0.0
    for sigma in sweeps:
        if sigma == settled:
            continue
        links = _sweep_links(prepared, positions, pairs, sigma)
        if not links:
            yield Refined(positions, (), np.full(positions.shape, np.nan))
            return
        noise = float(np.median([link.variance for link in links]))
        steps, matrix = _solve_steps(len(positions), links, noise)
        positions = positions + steps
        if (
            float(np.nanmax(np.abs(np.where(np.isfinite(positions), steps, 0))))
            < _SETTLED
        ):
            settled = sigma
        spread = _spread(matrix, sigma)
        yield Refined(positions.copy(), tuple(links), spread)


def _spread(matrix: sparse.csc_array, sigma: float) -> FloatArray:
    """Find standard deviations, the mean position taken off.

    Smoothing by `sigma` has divided the noise variance by ``4 pi sigma^2`` and
    correlated it over as many pixels; shifts see the variance before that.
    """
    count = matrix.shape[0] // 2
    if count > _DENSE_LIMIT:
        return np.full((count, 2), np.nan)
    values, vectors = np.linalg.eigh(matrix.toarray())
    free = values > 1e-6 * values[-1]
    scaled = vectors[:, free] / np.sqrt(values[free])
    variance = (scaled**2).sum(axis=1) * 4 * np.pi * sigma**2
    spread: FloatArray = np.sqrt(variance).reshape(count, 2)
    return spread
