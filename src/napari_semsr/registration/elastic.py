"""A smooth bending on top of an affine map, as stiff as held-out patches want it.

What patches still lie off after the affine map is fitted by a cubic B-spline under a
penalty on its second differences, in rounds of ever smaller patches. Spacing of the
knots and stiffness are those that best foretell patches of cells that were left out,
never the user's; a bending that would fold is made stiffer.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import linalg

from napari_semsr.core import (
    Affine,
    Bending,
    BoolArray,
    Elastic,
    FloatArray,
    FloatPair,
    IntPair,
    Job,
    Progress,
)
from napari_semsr.registration.refine import Level, PatchShifts, Plan, measure

_SIZES = (128, 96, 64, 64, 48, 48)  # pixels of a patch in each round; as FINDINGS, on
_SPACINGS = (64.0, 96.0, 144.0, 216.0)  # pixels from knot to knot that are tried
_STIFFNESS = tuple(10.0**power for power in range(-3, 4))  # times that of the data
_KNOTS = 800  # at most: they are solved for at once
_BEYOND = 2  # knots outside the field, so that none inside is at the border
_FOLDS = 4
_FREEDOM = 4.0  # of Student's distribution: places without structure lie far off
_ROUNDS = 8  # of weights
_HALF = 1.386  # median of chi-square with two degrees of freedom
_LEAST_AREA = 0.3  # of a place, over its area before; chosen: real bends keep 0.9
_FEWEST = 24  # patches: fewer say nothing of a bending


@dataclass(frozen=True, slots=True, eq=False)
class Bent:
    """An elastic map, its patches and its doubt."""

    transform: Elastic
    patches: PatchShifts
    off_nm: FloatArray  # (N, 2) of held-out patches
    knots: "_Knots"
    stiff: float
    covariance: FloatArray  # (2K, 2K) of the knots' displacements, nm²

    def variance(self, places: FloatArray) -> FloatArray:
        """Find the variance (N,) in nm² of places of the fixed image, both axes."""
        basis = self.knots.basis(places)
        count = basis.shape[1]
        parts = slice(0, count), slice(count, 2 * count)
        each = [
            np.einsum("nk,kl,nl->n", basis, self.covariance[part, part], basis)
            for part in parts
        ]
        return np.asarray(each[0] + each[1])

    def again(self, patches: PatchShifts) -> Elastic:
        """Fit the same knots, as stiff, to other patches."""
        return _bending(_Data.of(patches, self.transform.affine), self)[0]


@dataclass(frozen=True, slots=True)
class _Knots:
    """A grid of knots over a field."""

    origin: FloatPair
    spacing: float
    shape: IntPair

    @classmethod
    def over(cls, low: FloatArray, high: FloatArray, spacing: float) -> "_Knots":
        count = np.ceil((high - low) / spacing).astype(int) + 1 + 2 * _BEYOND
        first = (low + high) / 2 - (count - 1) / 2 * spacing
        return cls((first[0], first[1]), spacing, (int(count[0]), int(count[1])))

    def basis(self, places: FloatArray) -> FloatArray:
        """Give the weight (N, K) of each knot at places (N, 2)."""
        axes = []
        for axis, count in enumerate(self.shape):
            at = (places[:, axis] - self.origin[axis]) / self.spacing
            far = np.abs(at[:, None] - np.arange(count))
            near = 2 / 3 - far**2 * (1 - far / 2)
            axes.append(np.where(far < 1, near, np.maximum(2 - far, 0) ** 3 / 6))
        joint = axes[0][:, :, None] * axes[1][:, None, :]
        return joint.reshape(len(places), -1)

    def stiffness(self) -> FloatArray:
        """Penalty (K, K) on second differences: the bending energy of a plate."""
        rows, columns = self.shape
        eyes = np.eye(rows), np.eye(columns)
        twice = [np.diff(eye, 2, axis=0) for eye in eyes]
        once = [np.diff(eye, axis=0) for eye in eyes]
        parts = (
            (1.0, np.kron(twice[0], eyes[1])),
            (2.0, np.kron(once[0], once[1])),
            (1.0, np.kron(eyes[0], twice[1])),
        )
        total = np.zeros((rows * columns, rows * columns))
        for weight, part in parts:
            total += weight * part.T @ part
        return total


def bend(level: Level, affine: Affine) -> Job[Bent | None]:
    """Find the bending that is left after an affine map; None with too few patches."""
    low, high = np.array(level.grid.corner), np.array(level.grid.end)
    transform: Affine | Elastic = affine
    found = None
    for number, size in enumerate(_SIZES):
        yield Progress(number, len(_SIZES), "bending")
        if 2 * size > min(level.grid.shape):
            continue
        reach = 12 if number == 0 else 8 if number < 3 else 5
        patches = measure(level, transform, Plan(size, reach, most=900))
        if patches is None or len(patches) < _FEWEST:
            continue
        found = _fitted(patches, affine, low, high, level.pitch)
        transform = found.transform
    return found


@dataclass(slots=True, eq=False)
class _Data:
    """Patches as equations for knots."""

    at: FloatArray  # (N, 2) after the affine map
    wanted: FloatArray  # (N, 2) displacement there
    surety: FloatArray  # (N, 2, 2)

    @classmethod
    def of(cls, patches: PatchShifts, affine: Affine) -> "_Data":
        """Take what an affine map leaves."""
        at = affine(patches.seen)
        return cls(at, patches.places - at, patches.surety)

    def equations(
        self, basis: FloatArray, weights: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Left (2K, 2K) and right (2K,) side of the normal equations."""
        count = basis.shape[1]
        sure = self.surety * weights[:, None, None]
        left = np.empty((2, count, 2, count))
        for i, j in product((0, 1), repeat=2):
            left[i, :, j] = basis.T @ (sure[:, i, j, None] * basis)
        pull = np.einsum("nij,nj->ni", sure, self.wanted)
        return left.reshape(2 * count, 2 * count), (basis.T @ pull).T.ravel()


def _fitted(
    patches: PatchShifts,
    affine: Affine,
    low: FloatArray,
    high: FloatArray,
    pitch: float,
) -> Bent:
    """Fit a bending, its knots and stiffness chosen by held-out patches."""
    data = _Data.of(patches, affine)
    parts = _parts(data.at)
    fewest = _Knots.over(low, high, _SPACINGS[-1] * pitch)
    while np.prod(fewest.shape) > _KNOTS:
        fewest = _Knots.over(low, high, fewest.spacing * 1.25)
    tried = (_Knots.over(low, high, spacing * pitch) for spacing in _SPACINGS[:-1])
    grids = [fewest, *(grid for grid in tried if np.prod(grid.shape) <= _KNOTS)]
    choices = (
        (miss, number, stiff, off)
        for number, grid in enumerate(grids)
        for stiff, miss, off in _tried(data, grid, parts)
    )
    _, number, stiff, off = min(choices, key=lambda choice: choice[0])
    knots = grids[number]
    plain = Bending(knots.origin, (knots.spacing,) * 2, np.zeros((2, *knots.shape)))
    begun = Bent(Elastic(affine, plain), patches, off, knots, stiff, np.empty((0, 0)))
    transform, stiff, covariance = _bending(data, begun)
    return Bent(transform, patches, off, knots, stiff, covariance)


def _bending(data: _Data, kept: Bent) -> tuple[Elastic, float, FloatArray]:
    """Fit a bending that does not fold; with its stiffness and covariance."""
    knots, stiff = kept.knots, kept.stiff
    basis, penalty = knots.basis(data.at), knots.stiffness()
    while True:
        values, spread, left = _solved(data, basis, penalty, stiff)
        shaped = values.reshape(2, *knots.shape)
        bending = Bending(knots.origin, (knots.spacing,) * 2, shaped)
        if bending.least_area() >= _LEAST_AREA:
            elastic = Elastic(kept.transform.affine, bending)
            return elastic, stiff, spread * linalg.inv(left)
        stiff *= 10


def _parts(at: FloatArray) -> list[BoolArray]:
    """Patches (N,) that are held out together: every fourth cell."""
    low, span = at.min(axis=0), np.maximum(np.ptp(at, axis=0), 1e-9)
    cell = np.minimum((8 * (at - low) / span).astype(int), 7)
    number = (cell[:, 0] % 2) * 2 + cell[:, 1] % 2
    return [number == part for part in range(_FOLDS)]


def _tried(
    data: _Data, knots: _Knots, parts: list[BoolArray]
) -> Iterator[tuple[float, float, FloatArray]]:
    """Try stiffnesses: how badly each foretells held-out patches, and by how much."""
    basis, penalty = knots.basis(data.at), knots.stiffness()
    for stiff in _STIFFNESS:
        off = np.empty_like(data.wanted)
        for out in parts:
            rest = _Data(data.at[~out], data.wanted[~out], data.surety[~out])
            if not out.any() or len(rest.at) < _FEWEST // 2:
                off[out] = data.wanted[out]
                continue
            values, *_ = _solved(rest, basis[~out], penalty, stiff, rounds=3)
            off[out] = data.wanted[out] - basis[out] @ values.reshape(2, -1).T
        misfit = np.einsum("ni,nij,nj->n", off, data.surety, off)
        scale = max(float(np.median(misfit)), 1e-12)
        # the mean logarithm is Student's likelihood: far ones count, but no more
        yield stiff, float(np.log1p(misfit / scale).mean() + np.log(scale)), off


def _solved(
    data: _Data,
    basis: FloatArray,
    penalty: FloatArray,
    stiff: float,
    rounds: int = _ROUNDS,
) -> tuple[FloatArray, float, FloatArray]:
    """Solve for knots (2K,); with the spread of patches, and the left side."""
    weights = np.ones(len(data.at))
    whole = linalg.block_diag(penalty, penalty)
    ridge = 1e-9
    for _ in range(rounds):
        left, right = data.equations(basis, weights)
        size = float(np.trace(left)) / len(left)
        left = left + stiff * size * whole + ridge * size * np.eye(len(left))
        values = linalg.solve(left, right, assume_a="pos", check_finite=False)
        off = data.wanted - basis @ values.reshape(2, -1).T
        misfit = np.einsum("ni,nij,nj->n", off, data.surety, off)
        spread = max(float(np.median(misfit)) / _HALF, 1e-12)
        weights = (1 + misfit / spread / _FREEDOM) ** (-(_FREEDOM + 2) / 2)
    return values, spread, left
