"""Elastic registration: a smooth displacement after an affine transform.

The residual shifts of patches after the affine transform are fitted by a cubic B-spline
with a penalty on its second differences, in rounds with smaller patches each. Spacing
of the knots and stiffness are chosen by cross-validation on held-out patches, never by
the user; the stiffness is increased if the displacement folds.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from napari_semsr import core
from napari_semsr.registration import refine

_PLANS = ((96, 12), (64, 6), (64, 4), (48, 3), (48, 2))
"""Pixels of a patch in each round, and the range of its search: later rounds need a
short range, since a longer one finds false matches. 32 px are no better."""
_SPACINGS = (64.0, 96.0, 144.0)  # pixels between knots to try
_KNOTS = 800  # maximum: all are solved for at once
_FREEDOM = 4.0  # patches without structure are far outliers: they get almost no weight,
# less than under Student's distribution, since a corner has only a few patches
_FEWEST = 24  # patches: fewer do not determine a displacement


@dataclass(frozen=True, slots=True, eq=False)
class ElasticFit:
    """Elastic transform with its patches and covariance."""

    transform: core.Elastic
    edge_nm: float  # as in `TransformFit`
    patches: refine.PatchShifts
    off_nm: core.FloatArray  # (N, 2) of held-out patches
    knots: "_KnotGrid"
    stiff: float
    covariance: core.FloatArray  # (2K, 2K) of the knots' displacements (K, 2), nm²

    def compute_variance(self, places: core.FloatArray) -> core.FloatArray:
        """Return the variance (N,) in nm² at positions in the fixed image."""
        basis = self.knots.evaluate_basis(places)
        both = self.covariance[::2, ::2] + self.covariance[1::2, 1::2]
        return np.asarray(basis.multiply(basis @ both).sum(axis=1))

    def refit(self, patches: refine.PatchShifts) -> core.Elastic:
        """Fit the same knots with the same stiffness to other patches."""
        data = _Displacements.from_patches(patches, self.transform.affine)
        start = replace(self, patches=patches)
        return _fit_fold_free_displacement(data, start).transform


@dataclass(frozen=True, slots=True)
class _KnotGrid:
    """Grid of knots over a field."""

    origin: core.FloatPair
    spacing: float
    shape: core.IntPair

    @classmethod
    def from_extent(
        cls, low: core.FloatArray, high: core.FloatArray, spacing: float
    ) -> "_KnotGrid":
        # two knots outside the field, so that none inside is at the border
        count = np.ceil((high - low) / spacing).astype(int) + 5
        first = (low + high) / 2 - (count - 1) / 2 * spacing
        return cls((first[0], first[1]), spacing, (int(count[0]), int(count[1])))

    def evaluate_basis(self, places: core.FloatArray) -> sparse.csr_array:
        """Return the weight (N, K) of each knot at positions (N, 2)."""
        firsts, weights = [], []
        for axis, count in enumerate(self.shape):
            at = np.clip((places[:, axis] - self.origin[axis]) / self.spacing, 0, count)
            first = np.floor(at).astype(int) - 1
            far = np.abs(at[:, None] - first[:, None] - np.arange(4))
            near = 2 / 3 - far**2 * (1 - far / 2)
            each = np.where(far < 1, near, np.maximum(2 - far, 0) ** 3 / 6)
            knots = first[:, None] + np.arange(4)
            weights.append(np.where((knots >= 0) & (knots < count), each, 0))
            firsts.append(np.clip(knots, 0, count - 1))
        knots = firsts[0][:, :, None] * self.shape[1] + firsts[1][:, None, :]
        joint = weights[0][:, :, None] * weights[1][:, None, :]
        rows = np.repeat(np.arange(len(places)), 16)
        shape = len(places), self.shape[0] * self.shape[1]
        return sparse.csr_array((joint.ravel(), (rows, knots.ravel())), shape=shape)

    def compute_penalty(self) -> sparse.csr_array:
        """Return the bending-energy penalty (K, K) on second differences."""
        eyes = [sparse.eye_array(count) for count in self.shape]
        once, twice = (
            [sparse.csr_array(np.diff(np.eye(n), order, axis=0)) for n in self.shape]
            for order in (1, 2)
        )
        parts = (
            (1.0, sparse.kron(twice[0], eyes[1])),
            (2.0, sparse.kron(once[0], once[1])),
            (1.0, sparse.kron(eyes[0], twice[1])),
        )
        return sparse.csr_array(sum(weight * part.T @ part for weight, part in parts))


def fit_elastic(
    level: refine.PyramidLevel, affine: core.Affine
) -> core.Job[ElasticFit | None]:
    """Fit an elastic displacement after an affine one; None for too few patches."""
    low, high = np.array(level.grid.corner), np.array(level.grid.end)
    transform: core.Affine | core.Elastic = affine
    edge = 0.0
    bending = None
    for number, (size, reach) in enumerate(_PLANS):
        yield core.Progress(number, len(_PLANS), "fitting the elastic transform")
        if 2 * size > min(level.grid.shape):
            continue
        plan = refine.RefinementPlan(size, reach, most=900)
        # edges are corrected from the third round: before, the map is too inexact
        if number == 2 and bending is not None:
            edge = refine.find_edge_shift(level, transform, plan, bending.edge_nm)
        patches = refine.measure_shifts(level, transform, plan, edge)
        if patches is None or len(patches) < _FEWEST:
            continue
        bending = _fit_bending(patches, affine, low, high, level.pitch)
        transform = bending.transform
    return bending


@dataclass(slots=True, eq=False)
class _Displacements:
    """Displacements of patches after an affine transform."""

    at: core.FloatArray  # (N, 2) positions after the affine transform
    shift: core.FloatArray  # (N, 2) displacement there
    edges: core.FloatArray  # (N, 2) its change for edges moved by 1, as in `refine`
    surety: core.FloatArray  # (N, 2, 2)

    @classmethod
    def from_patches(
        cls, patches: refine.PatchShifts, affine: core.Affine
    ) -> "_Displacements":
        """Compute the residual displacements after an affine transform."""
        at = affine(patches.moving_places)
        return cls(at, patches.places - at, patches.edges, patches.surety)

    def select(self, which: core.BoolArray) -> "_Displacements":
        """Return a subset of the patches."""
        return _Displacements(
            self.at[which], self.shift[which], self.edges[which], self.surety[which]
        )

    def compute_misfit(self, off: core.FloatArray) -> core.FloatArray:
        """Return squared distances (N,) weighted by the inverse covariances."""
        return np.asarray(np.einsum("ni,nij,nj->n", off, self.surety, off))


def _fit_bending(
    patches: refine.PatchShifts,
    affine: core.Affine,
    low: core.FloatArray,
    high: core.FloatArray,
    pitch: float,
) -> ElasticFit:
    """Fit a displacement, choosing knots and stiffness on held-out patches."""
    data = _Displacements.from_patches(patches, affine)
    # fold (N,) of each patch: every fourth cell is held out together
    span = np.maximum(np.ptp(data.at, axis=0), 1e-9)
    cell = np.minimum((8 * (data.at - data.at.min(axis=0)) / span).astype(int), 7)
    number = (cell[:, 0] % 2) * 2 + cell[:, 1] % 2
    parts = [number == part for part in range(4)]
    fewest = _KnotGrid.from_extent(low, high, _SPACINGS[-1] * pitch)
    while np.prod(fewest.shape) > _KNOTS:
        fewest = _KnotGrid.from_extent(low, high, fewest.spacing * 1.25)
    knot_grids = (
        _KnotGrid.from_extent(low, high, spacing * pitch) for spacing in _SPACINGS[:-1]
    )
    grids = [fewest, *(grid for grid in knot_grids if np.prod(grid.shape) <= _KNOTS)]
    choices = (
        (miss, number, stiff, off)
        for number, grid in enumerate(grids)
        for stiff, miss, off in _iterate_stiffness_errors(data, grid, parts)
    )
    _, number, stiff, off = min(choices, key=lambda choice: choice[0])
    knots = grids[number]
    plain = core.BSplineDisplacement(
        knots.origin, (knots.spacing,) * 2, np.zeros((2, *knots.shape))
    )
    nothing = np.empty((0, 0))
    start = ElasticFit(
        core.Elastic(affine, plain), 0.0, patches, off, knots, stiff, nothing
    )
    return _fit_fold_free_displacement(data, start)


def _fit_fold_free_displacement(
    data: _Displacements, bending_before: ElasticFit
) -> ElasticFit:
    """Fit a displacement without folds."""
    knots, stiff = bending_before.knots, bending_before.stiff
    system = _NormalEquations(data, knots)
    while True:
        values, edge = system.solve(stiff, 8)
        shape = np.moveaxis(values.reshape(*knots.shape, 2), -1, 0)
        bending = core.BSplineDisplacement(knots.origin, (knots.spacing,) * 2, shape)
        # chosen: real displacements have a local area ratio of at least 0.9
        if bending.min_jacobian() >= 0.3:
            return replace(
                bending_before,
                transform=core.Elastic(bending_before.transform.affine, bending),
                edge_nm=bending_before.patches.edge_nm + edge,
                stiff=stiff,
                covariance=system.compute_covariance(),
            )
        stiff *= 10


def _iterate_stiffness_errors(
    data: _Displacements, knots: _KnotGrid, parts: list[core.BoolArray]
) -> Iterator[tuple[float, float, core.FloatArray]]:
    """Yield each stiffness with its held-out error and residuals."""
    systems = [
        (out, _NormalEquations(data.select(~out), knots))
        for out in parts
        if out.any() and (~out).sum() >= _FEWEST // 2
    ]
    off = data.shift.copy()
    for number, power in enumerate(range(-7, 4)):
        stiff = 10 ** (power / 2)  # times that of the data
        for out, system in systems:
            values, edge = system.solve(stiff, rounds=1 if number else 3)
            there = knots.evaluate_basis(data.at[out]) @ values
            off[out] = data.shift[out] - (there + edge * data.edges[out])
        misfit = data.compute_misfit(off)
        scale = max(float(np.median(misfit)), 1e-12)
        # the mean logarithm is Student's likelihood, which bounds outliers
        yield stiff, float(np.log1p(misfit / scale).mean() + np.log(scale)), off.copy()


class _NormalEquations:
    """Normal equations for the knots; patch weights are kept between fits."""

    def __init__(self, data: _Displacements, knots: _KnotGrid) -> None:
        self._data = data
        self._weights = np.ones(len(data.at))
        self._basis = knots.evaluate_basis(data.at)
        # values of a knot are adjacent, so that the factors stay sparse
        self._wide = sparse.kron(self._basis, sparse.eye_array(2), format="csr")
        self._penalty = sparse.kron(knots.compute_penalty(), sparse.eye_array(2))

    def solve(self, stiff: float, rounds: int) -> tuple[core.FloatArray, float]:
        """Solve for the knot values (K, 2) and the edge shift."""
        data = self._data
        count = np.arange(len(data.at) + 1)
        edges = data.edges.ravel()
        for _ in range(rounds):
            sure = data.surety * self._weights[:, None, None]
            pull = self._wide.T @ sparse.bsr_array((sure, count[:-1], count))
            left = pull @ self._wide
            size = float(left.trace()) / left.shape[0]
            left = left + stiff * size * self._penalty
            # of the data's weight: knots without data stay at 0
            left = left + 1e-9 * size * sparse.eye_array(left.shape[0])
            # SuperLU has one thread; LAPACK's threads slow each other at this size
            self._factors = splu(
                left.tocsc(),
                permc_spec="NATURAL",
                diag_pivot_thresh=0.0,
                options={"SymmetricMode": True},
            )
            # the edges are one more, dense column: it is eliminated
            by_shift, by_edges = pull @ data.shift.ravel(), pull @ edges
            right = np.stack([by_shift, by_edges], axis=1)
            plain, shifted_solution = self._factors.solve(right).T
            own = np.einsum("ni,nij,nj->", data.edges, sure, data.edges)
            explained_power = np.einsum("ni,nij,nj->", data.edges, sure, data.shift)
            rest = max(
                (1 + refine.EDGE_RIDGE) * own - by_edges @ shifted_solution, 1e-300
            )
            edge = float((explained_power - by_edges @ plain) / rest)
            values = (plain - edge * shifted_solution).reshape(-1, 2)
            self._by_edge = shifted_solution, rest
            off = data.shift - self._basis @ values - edge * data.edges
            misfit = data.compute_misfit(off)
            # by the median of chi-square with two degrees of freedom
            self._spread = max(float(np.median(misfit)) / 1.386, 1e-12)
            student = 1 + misfit / self._spread / _FREEDOM
            self._weights = student ** (-(_FREEDOM + 2) / 2)
        return values, edge

    def compute_covariance(self) -> core.FloatArray:
        """Return the covariance (2K, 2K) of the last solution."""
        moved_part, rest = self._by_edge
        whole = self._factors.solve(np.eye(len(moved_part)))
        whole = whole + np.outer(moved_part, moved_part) / rest
        return np.asarray(self._spread * whole)
