"""Quality of a registration: error, reliable areas, and alternative transforms.

The error is estimated from the scatter of patches about the transform by the sandwich
estimator [1]_. Errors of neighbouring patches are correlated as far as they share
pixels. Residuals are cross-validated: each patch is compared with the transform fitted
to patches of other cells of the field.

.. [1] P. J. Huber, Ann. Math. Statist. 35, 73 (1964), for weights that depend on it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from napari_semsr import core
from napari_semsr.registration import refine

_CELLS = 6  # along each side of the field, of which some are held out; chosen
_FOLDS = 4  # a quarter of the cells is held out, three quarters are fitted
_LEVELS = 32  # of grey, for mutual information; chosen
_SAMPLES = 200  # along each side for the overlap: precise to half a percent


def estimate_uncertainty(
    fit: refine.TransformFit, model: refine.Model
) -> Callable[[core.FloatArray], core.FloatArray]:
    """Estimate the uncertainty of an affine fit from the scatter of patches.

    Returns a function from positions (N, 2) in the moving image to the covariances
    (N, 2, 2) of the mapped positions in nm².
    """
    patches, is_mirrored = fit.patches, fit.affine.is_mirrored
    design, middle, size = patches.build_design(model, is_mirrored=is_mirrored)
    values, axes = np.linalg.eigh(patches.surety)
    root = np.einsum("nij,nj,nkj->nik", axes, np.sqrt(np.maximum(values, 0)), axes)
    design = np.einsum("nij,nja->nia", root, design)
    inverse = np.linalg.pinv(np.einsum("nia,nib->ab", design, design))
    pulls = np.einsum("nij,nj->ni", root, fit.compute_residuals())
    pulls *= fit.weights[:, None]
    # the mean derivative of a weighted distance by the distance, with these weights
    pulls /= (fit.weights**2).mean()
    noise = patches.compute_noise_correlation()
    scatter = np.einsum("nia,nm,mib->ab", design, noise, design, optimize=True)
    left = 2 * len(patches) - np.trace(inverse @ scatter)  # degrees of freedom
    variance = (pulls**2).sum() / max(left, 1)
    covariance = (variance * inverse @ scatter @ inverse)[:-1, :-1]

    def compute_covariance(places: core.FloatArray) -> core.FloatArray:
        at = (places - middle) / size
        design = refine.build_design_matrix(at, model, is_mirrored=is_mirrored)
        return np.asarray(np.einsum("nia,ab,njb->nij", design, covariance, design))

    return compute_covariance


def compute_held_out_residuals(
    map_fit: refine.TransformFit, model: refine.Model
) -> core.FloatArray:
    """Return each patch's residual (N, 2) in nm from a fit to other patches."""
    patches, is_mirrored = map_fit.patches, map_fit.affine.is_mirrored
    low, high = patches.places.min(axis=0), patches.places.max(axis=0)
    span = np.maximum(high - low, 1e-9)
    cell = np.minimum((_CELLS * (patches.places - low) / span).astype(int), _CELLS - 1)
    fold = (cell[:, 0] % 2) * 2 + cell[:, 1] % 2
    off = map_fit.compute_residuals()
    for part in range(_FOLDS):
        out = fold == part
        rest = patches.select(~out)
        if not out.any() or len(rest) < 2 * _FOLDS:
            continue
        weights = map_fit.weights[~out]
        other = refine.fit_patches(
            rest, model, is_mirrored=is_mirrored, weights=weights
        )
        off[out] = other.compute_patch_residuals(patches.select(out))
    return off


def get_overlap_positions(
    transform: core.Transform, moving: core.Micrograph, fixed: core.Micrograph
) -> core.FloatArray:
    """Return evenly spaced moving-image positions (N, 2) in the overlap, in nm."""
    grid, onto = core.Grid.from_image(moving), core.Grid.from_image(fixed)
    ends = zip(grid.corner, grid.end, strict=True)
    # chosen: the error of a transform is smooth
    axes = [np.linspace(start, end, 21) for start, end in ends]
    places, inside = _find_mapped_positions(axes, transform, onto)
    return np.asarray(places[inside])


def _find_mapped_positions(
    axes: list[core.FloatArray], transform: core.Transform, onto: core.Grid
) -> tuple[core.FloatArray, core.BoolArray]:
    """Return grid positions (N, 2) and a mask (N,) of those mapped into an image."""
    places = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    mapped_places = transform(places)
    inside = ((mapped_places >= onto.corner) & (mapped_places <= onto.end)).all(axis=1)
    return places, np.asarray(inside)


def compute_overlap_fraction(
    transform: core.Affine | core.Elastic,
    moving: core.Micrograph,
    fixed: core.Micrograph,
) -> float:
    """Return the overlap as a fraction of the smaller image's area."""
    affine = transform.affine if isinstance(transform, core.Elastic) else transform
    grid, onto = core.Grid.from_image(moving), core.Grid.from_image(fixed)
    area = float(np.prod(np.subtract(grid.end, grid.corner)))
    middles = (np.arange(_SAMPLES) + 0.5) / _SAMPLES  # not on a border
    axes = [c + middles * (e - c) for c, e in zip(grid.corner, grid.end, strict=True)]
    shown_area = float(_find_mapped_positions(axes, transform, onto)[1].mean()) * area
    area_factor = abs(affine.determinant)  # bending hardly changes the total area
    smaller = min(
        area * area_factor, float(np.prod(np.subtract(onto.end, onto.corner)))
    )
    return min(1.0, shown_area * area_factor / smaller)


def compute_mutual_information(one: core.FloatArray, two: core.FloatArray) -> float:
    """Compute the mutual information of two same-size images in bits, ignoring NaN.

    Grey values are quantised to 32 levels with equal numbers of pixels.
    """
    finite = np.isfinite(one) & np.isfinite(two)
    if finite.sum() < _LEVELS**2:
        return 0.0
    ranks = []
    for image in (one[finite], two[finite]):
        edges = np.unique(np.quantile(image, np.linspace(0, 1, _LEVELS + 1)[1:-1]))
        ranks.append(np.searchsorted(edges, image, side="right"))
    joint = np.zeros((_LEVELS, _LEVELS))
    np.add.at(joint, tuple(ranks), 1)
    joint /= joint.sum()
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    shares = joint[joint > 0]
    return float((shares * np.log2(shares / apart[joint > 0])).sum())


@dataclass(frozen=True, slots=True)
class AlternativeTransform:
    """Alternative transform that also fits the moving image."""

    # shift and rotation from the best fit, at the image's centre
    shift_nm: Annotated[core.FloatPair, core.declare_quantity("Shift", "nm", ".3g")]
    degrees: Annotated[float, core.declare_quantity("Rotation", "°", ".1f")]
    # correlation there over that of the best fit, where both are valid
    score: Annotated[float, core.declare_quantity("Score", form=".2f")]


def compare_candidates(
    fixed: refine.Field, best: refine.Field, other: refine.Field, cell: int
) -> tuple[float, float]:
    """Compare a candidate with the best candidate.

    Orientation fields (Y, X) on one grid, where all three are valid: returns the ratio
    of the correlations, and the mean difference of cells over its standard error.
    """
    usable = (fixed != 0) & (best != 0) & (other != 0)
    if usable.sum() < cell**2:
        return 0.0, np.inf
    ours = np.where(usable, (fixed * np.conj(best)).real, 0)
    theirs = np.where(usable, (fixed * np.conj(other)).real, 0)
    if ours.sum() <= 0:
        return 1.0, 0.0
    rows, columns = (n // cell for n in fixed.shape)
    apart = (ours - theirs)[: rows * cell, : columns * cell]
    sums = apart.reshape(rows, cell, columns, cell).sum(axis=(1, 3))
    usable_part = usable[: rows * cell, : columns * cell]
    is_filled = usable_part.reshape(rows, cell, columns, cell).mean(axis=(1, 3)) > 0.25
    each = sums[is_filled]
    if each.size < 4:
        return float(theirs.sum() / ours.sum()), 0.0
    error = each.std(ddof=1) / np.sqrt(each.size)
    return float(theirs.sum() / ours.sum()), float(each.mean() / max(error, 1e-12))


def compute_orientation_field(
    image: core.Micrograph, grid: core.Grid, transform: core.Transform
) -> refine.Field:
    """Compute the orientations of an image resampled to a grid by a transform."""
    warped_image = core.WarpedImage(image, grid, transform).read()
    return refine.compute_orientations(warped_image, refine.SEARCH_WIDTH_PX)
