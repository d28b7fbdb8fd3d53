"""Refinement: noise-limited patch shifts, and a transform fitted to them.

The moving image is resampled by the current transform. Patches of both orientation
fields are correlated; the peak gives the residual shift of a patch, its curvature the
inverse covariance: a patch with one line does not determine the shift along it. The
transform is fitted by least squares with these weights; outliers (false matches,
shadows, dirt) are down-weighted iteratively, as under Student's distribution.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from napari_semsr import core

# Structure orientation, a feature common to images of both microscopes.
#
# Optical and SEM images show an area with unrelated contrast: what is bright in one is
# dark or grey in the other. Positions and directions of edges are the same. A gradient
# as a complex number, squared, has the double angle, which does not depend on the sign
# of the contrast; divided by its power and a floor, strong edges do not dominate::
#
#     z = (g_x + i g_y)² / (|g|² + floor)
#
# Products of two such fields add up where lines coincide, and cancel elsewhere:
# ``Re Σ z₁ z₂*`` is their correlation, and for unrelated fields its standard deviation
# is ``√(½ Σ |z₁|² |z₂|²)`` for independent pixels [1]_ [2]_.
#
# .. [1] E. Haber, J. Modersitzki, Methods Inf. Med. 46, 292 (2007).
# .. [2] J. Öfverstedt, J. Lindblad, N. Sladoje, arXiv:2110.10156.


Field = NDArray[np.complex64]

_REACH = 3.0  # widths at which the filter is truncated
_ROUNDING = 1e-5  # of the grey values: below the precision of float32
_BAND_PX = 1.5, 8.0  # widths of the band in which structure is detected; chosen


def create_grid(image: core.Micrograph, pitch_nm: float) -> core.Grid:
    """Create a grid of square pixels inside an image, starting at its corner."""
    source = core.Grid.from_image(image)
    sides = zip(source.shape, source.pitch, strict=True)
    rows, columns = (max(1, int(n * p / pitch_nm + 1e-6)) for n, p in sides)
    return core.Grid((rows, columns), (pitch_nm, pitch_nm), source.corner)


def resample_to_pitch(image: core.Micrograph, pitch_nm: float) -> core.Micrograph:
    """Resample an image to square pixels, keeping its corner."""
    grid = create_grid(image, pitch_nm)
    data = np.asarray(core.GridImage.from_image(image, grid).read(), dtype=np.float32)
    origin = grid.corner[0] + pitch_nm / 2, grid.corner[1] + pitch_nm / 2
    return image.replace(data=data, pixel_size_nm=(pitch_nm, pitch_nm), origin=origin)


SEARCH_WIDTH_PX = 1.0  # of the filter in small images; chosen


def compute_orientations(images: core.RealArray, width_px: float) -> Field:
    """Compute the orientations of images (…, Y, X); 0 at and next to NaN.

    `width_px` is the standard deviation of the Gaussian derivative filter.
    """
    rise, finite, floor = _compute_gradients(images, width_px)
    return _divide_finite_values(rise**2, np.abs(rise) ** 2 + floor, finite)


def compute_outlines(
    images: core.RealArray, width_px: float, *, keep: NDArray[np.bool_] | None = None
) -> tuple[Field, Field]:
    """Compute orientations that peak at edge centres, and the unit gradients.

    The power is divided by that of the surroundings, not by itself: this localises
    lines more precisely, and a narrow edge does not match all of a wide one. The rise
    is the gradient over its length. Pixels beyond the border count as NaN, unless
    `keep` (Y, X) marks the valid pixels.
    """
    rise, finite, floor = _compute_gradients(images, width_px, keep)
    power = np.where(finite, np.abs(rise) ** 2, 0)
    # widths of the surroundings; 2 to 7 were tried
    near = 2.7 * width_px
    around, share = (
        ndimage.gaussian_filter(plane, near, axes=(-2, -1), truncate=_REACH)
        for plane in (power, finite.astype(np.float32))
    )
    # least known fraction of the surroundings
    around /= np.maximum(share, 0.05)
    outline = _divide_finite_values(rise**2, around + floor, finite)
    return outline, _divide_finite_values(rise, np.maximum(np.abs(rise), 1e-12), finite)


def _divide_finite_values(
    above: Field, below: core.RealArray, finite: NDArray[np.bool_]
) -> Field:
    """Divide finite values; return 0 elsewhere."""
    quotient = above / np.where(finite, below, 1)
    return np.asarray(np.where(finite, quotient, 0), np.complex64)


def _compute_gradients(
    images: core.RealArray, width_px: float, keep: NDArray[np.bool_] | None = None
) -> tuple[Field, NDArray[np.bool_], float]:
    """Compute complex gradients, a mask of the valid ones, and their noise floor."""
    values = np.asarray(images, dtype=np.float32)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape, np.complex64), finite, 1.0
    level = values[finite].mean(dtype=np.float64)
    without_gaps = np.where(finite, values, np.float32(level))
    down, across = (
        ndimage.gaussian_filter(
            without_gaps, width_px, order=order, axes=(-2, -1), truncate=_REACH
        )
        for order in ((1, 0), (0, 1))
    )
    # widths of the filter; nearer to a gap a gradient is that of the gap
    near = int(np.ceil(2.5 * width_px))
    if keep is None:
        wide = [(0, 0)] * (values.ndim - 2) + [(near, near)] * 2
        finite = _find_gap_free_pixels(np.pad(finite, wide), near)
        finite = finite[..., near:-near, near:-near]
    else:
        finite = _find_gap_free_pixels(finite, near) & keep
    rise = np.asarray(across + 1j * down, np.complex64)
    power = np.abs(rise[finite]) ** 2
    rounding = (_ROUNDING * float(np.abs(without_gaps).max())) ** 2
    if not power.size or float(power.max()) <= rounding:
        return np.zeros_like(rise), np.zeros_like(finite), 1.0
    # chosen: noise alone has a third of a clear edge
    return rise, finite, max(2.0 * float(np.median(power)), rounding)


def _find_gap_free_pixels(finite: NDArray[np.bool_], near: int) -> NDArray[np.bool_]:
    """Return a mask of pixels with no gap within `near` pixels."""
    size = 2 * near + 1
    inner = ndimage.minimum_filter(finite, size, axes=(-2, -1), mode="nearest")
    return np.asarray(inner, dtype=bool)


def has_structure(image: core.RealArray) -> bool:
    """Return whether an image (Y, X) shows more than white noise.

    The variance in a band without shading is compared with that of white noise in this
    band, estimated from neighbouring pixels.
    """
    values = np.asarray(image, dtype=np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        return False
    without_gaps = np.where(finite, values, values[finite].mean())
    fine, coarse = (ndimage.gaussian_filter(without_gaps, width) for width in _BAND_PX)
    one, two = (width**2 for width in _BAND_PX)
    kept_noise = (1 / one + 1 / two - 4 / (one + two)) / (4 * np.pi)
    rounding = (_ROUNDING * float(np.abs(without_gaps).max())) ** 2
    by_noise = kept_noise * core.estimate_noise_level(without_gaps) ** 2
    # chosen: twice the variance of white noise in this band
    return float(np.var((fine - coarse)[finite])) > max(2.0 * by_noise, rounding)


Model = Literal["similarity", "affine"]

WIDTH_PX = 1.5  # of the filter; 1.2 and 2 are as good on average, 0.9 and 3 worse
OTHER_PX = 2.5  # another width, to estimate the bias by the filter
# Structure near an edge shifts it in proportion to the square of the filter's width:
# the shift by the first width follows from the change between both. The blur of the
# image itself is assumed to shift it equally.
BY_WIDTH = (WIDTH_PX**2 / (OTHER_PX**2 - WIDTH_PX**2)) ** 2
_IN_MEMORY = 4096  # longest side of an image that is resampled as a whole
_WHOLE_PX = 2560  # from here on reading patches is faster than reading all pixels
_OUTSIDE = 0.3  # of a patch may be outside the field: distortion grows at its border
_ROUND = 0.05  # of the edges of a patch count as isotropic, so that a fit is possible
EDGE_RIDGE = 0.02  # of the edges' weight, so that they do not absorb a common shift


@dataclass(frozen=True, slots=True)
class RefinementPlan:
    """Patch parameters of one refinement round, in pixels of its level."""

    size: int
    reach: int  # largest residual shift of a patch
    width: float = WIDTH_PX  # of the filter, for both images or the moving one
    fixed_width: float | None = None  # for the fixed one, if it differs
    most: int = 400  # patches; more hardly improve the fit

    @property
    def margin(self) -> int:
        """Margin around a patch, in pixels, required by its filter."""
        return int(np.ceil(3 * max(self.width, self.fixed_width or 0))) + 1


@dataclass(frozen=True, slots=True, eq=False)
class PatchShifts:
    """Positions of patches in both images, with their precision."""

    moving_places: core.FloatArray  # (N, 2) in the moving image, nm
    places: core.FloatArray  # (N, 2) in the fixed one, nm
    # (N, 2) shift of a patch if each edge moves by 1 along its rise
    edges: core.FloatArray
    edge_nm: float  # by which edges were moved before
    surety: core.FloatArray  # (N, 2, 2) inverse covariance, nm⁻², up to a common factor
    # (N,) height of the peak in standard deviations of chance
    strength: core.FloatArray
    side_nm: float  # of a patch

    def __len__(self) -> int:
        return len(self.places)

    def select(self, which: NDArray[np.bool_]) -> "PatchShifts":
        """Return a subset of the patches."""
        names = "moving_places", "places", "edges", "surety", "strength"
        return replace(self, **{name: getattr(self, name)[which] for name in names})

    def build_design(
        self, model: Model, *, is_mirrored: bool
    ) -> tuple[core.FloatArray, core.FloatArray, float]:
        """Return the Jacobian (N, 2, K) for the transform parameters and edge shift.

        The transform acts on ``(places - middle) / size``; `middle` and `size` are
        returned, too.
        """
        middle = self.moving_places.mean(axis=0)
        size = float(np.abs(self.moving_places - middle).max()) or 1.0
        design = build_design_matrix(
            (self.moving_places - middle) / size, model, is_mirrored=is_mirrored
        )
        return np.concatenate([design, self.edges[:, :, None]], axis=2), middle, size

    def compute_noise_correlation(self) -> core.FloatArray:
        """Return the noise correlation (N, N) of patches, from their Hann windows."""
        far = np.abs(self.places[:, None] - self.places) / self.side_nm
        far = np.minimum(far, 1)
        turn = 2 * np.pi * far
        along = (1 - far) * (2 + np.cos(turn)) / 3 + np.sin(turn) / (2 * np.pi)
        return np.asarray(along.prod(axis=-1))


class PyramidLevel:
    """Image pair at one pixel size, read patch by patch."""

    def __init__(
        self, moving: core.Micrograph, fixed: core.Micrograph, pitch_nm: float
    ) -> None:
        self.pitch = pitch_nm
        self.grid = create_grid(fixed, pitch_nm)
        large = max(self.grid.shape) > _IN_MEMORY
        self._fixed_image = fixed if large else _load_image(fixed, pitch_nm)
        large = max(moving.shape) * max(moving.scale) / pitch_nm > _IN_MEMORY
        self.moving = moving if large else _load_image(moving, pitch_nm)
        self._fields: dict[float, Field] = {}

    def read_moving(
        self, transform: core.Transform, box: core.Box
    ) -> core.Float32Array:
        """Resample the moving image to a part of the grid; NaN outside the image."""
        moving_part = core.WarpedImage(self.moving, self.grid, transform).read(box)
        return np.asarray(moving_part, np.float32)

    def read_fixed(self, box: core.Box) -> core.Float32Array:
        """Read the fixed image in a part of the grid; NaN outside the grid."""
        inner = box.intersection(core.Box.from_shape(self.grid.shape))
        fixed_part = np.full(box.shape, np.nan, np.float32)
        image = core.GridImage.from_image(self._fixed_image, self.grid)
        fixed_part[inner.relative_to(box).slices] = image.crop(inner).read()
        return fixed_part

    def get_field(self, width: float) -> Field:
        """Return the cached orientations of the fixed image."""
        if width not in self._fields:
            whole = self.read_fixed(core.Box.from_shape(self.grid.shape))
            self._fields[width], _ = compute_outlines(whole, width)
        return self._fields[width]


def _load_image(image: core.Micrograph, pitch_nm: float) -> core.Micrograph:
    """Load an image into memory, downsampled if its pixels are much finer."""
    if max(image.scale) * 1.25 < pitch_nm:
        return resample_to_pitch(image, pitch_nm)
    data = np.asarray(image.data)
    return image.replace(data=data.astype(np.float32))


def measure_shifts(
    level: PyramidLevel,
    transform: core.Transform,
    plan: RefinementPlan,
    edge_nm: float = 0.0,
) -> PatchShifts | None:
    """Measure the residual shifts of patches; None if no patch is usable.

    Edges of the moving image are first moved by `edge_nm` along their rise.
    """
    size, reach = plan.size, plan.reach
    corners = _list_corners(level, transform, plan)
    if not corners:
        return None
    one_by_one = max(level.grid.shape) > _WHOLE_PX
    edge = edge_nm / level.pitch
    cut = (_compute_patch_fields if one_by_one else _crop_patches)(
        level, transform, corners, plan, edge
    )
    ours, theirs, rise = cut
    inner = theirs[:, reach : reach + size, reach : reach + size]
    taper = _create_taper(size) ** 2
    usable_share = np.where((ours != 0) & (inner != 0), taper, 0).sum(axis=(1, 2))
    # least weighted fraction of a patch that both images show
    enough = usable_share >= 0.4 * taper.sum()
    if not enough.any():
        return None
    sums, chance = _correlate_patches(ours[enough], theirs[enough], reach)
    off, surety, strength = _find_peaks(sums, chance)
    sure = surety[:, 0, 0] > 0
    first = np.array(corners, dtype=float)[enough][sure]
    # The shift of a patch is that of its structure, which is seldom at its centre.
    weight = taper * np.abs(ours[enough][sure] * inner[enough][sure])
    along = np.arange(size) + 0.5
    total = weight.sum(axis=(1, 2))
    sums_along = weight.sum(axis=2) @ along, weight.sum(axis=1) @ along
    middle = np.stack(sums_along, axis=-1) / total[:, None]
    places = np.array(level.grid.corner) + (first + middle) * level.pitch
    # the shift of a patch if every edge moves by 1 along its gradient: one shift is
    # fitted to the edges, each across its direction
    used_rise = rise[enough][sure]
    mean = (weight * used_rise).sum(axis=(1, 2))
    twice = (weight * used_rise**2).sum(axis=(1, 2))
    across = np.empty((len(total), 2, 2))
    across[:, 0, 0] = (total - twice.real) / 2 + _ROUND * total
    across[:, 1, 1] = (total + twice.real) / 2 + _ROUND * total
    across[:, 0, 1] = across[:, 1, 0] = twice.imag / 2
    pulls = np.stack([mean.imag, mean.real], axis=-1)
    return PatchShifts(
        moving_places=transform.inverse()(places + off[sure] * level.pitch),
        places=places,
        edges=np.asarray(np.linalg.solve(across, pulls[..., None])[..., 0]),
        edge_nm=edge_nm,
        surety=surety[sure] / level.pitch**2,
        strength=strength[sure],
        side_nm=size * level.pitch,
    )


def _crop_patches(
    level: PyramidLevel,
    transform: core.Transform,
    corners: list[core.IntPair],
    plan: RefinementPlan,
    edge: float,
) -> tuple[Field, Field, Field]:
    """Crop patches of both images' fields; moving patches include the search margin.

    Patches overlap, so it is faster to compute every pixel once.
    """
    size, reach, rim = plan.size, plan.reach, plan.margin
    beyond = int(np.ceil(_OUTSIDE * size)) + 1
    rows, columns = level.grid.shape
    far = beyond + reach + rim
    box = core.Box(-far, rows + far, -far, columns + far)
    ours = np.pad(level.get_field(plan.fixed_width or plan.width), beyond)
    theirs, rise = compute_outlines(level.read_moving(transform, box), plan.width)
    theirs = _move_edges(theirs, rise, edge)
    y, x = np.array(corners).T + beyond

    def crop(field: Field, side: int) -> Field:
        view = np.lib.stride_tricks.sliding_window_view(field, (side, side))
        return np.asarray(view[y, x])

    return (
        crop(ours, size),
        crop(theirs[rim:-rim, rim:-rim], size + 2 * reach),
        crop(rise[rim + reach :, rim + reach :], size),
    )


def _move_edges(field: Field, rise: Field, edge: float) -> Field:
    """Move the edges of a field (Y, X) by some pixels along their gradients.

    A line whose edges are both shifted inwards matches with either of them, but not in
    between: its centre is only found after both are moved back.
    """
    if not edge:
        return field
    y, x = np.indices(field.shape, dtype=np.float32)
    at = np.stack([y - edge * rise.imag, x - edge * rise.real])
    sampled_parts = [
        ndimage.map_coordinates(part, at, order=1, mode="nearest")
        for part in (field.real, field.imag)
    ]
    return np.asarray(sampled_parts[0] + 1j * sampled_parts[1], np.complex64)


def _compute_patch_fields(
    level: PyramidLevel,
    transform: core.Transform,
    corners: list[core.IntPair],
    plan: RefinementPlan,
    edge: float,
) -> tuple[Field, Field, Field]:
    """Compute the fields of patches one by one, for a large image."""
    size, rim = plan.size, plan.margin
    outer = rim + plan.reach
    wide = size + 2 * outer
    patches = np.empty((len(corners), wide, wide), np.float32)
    moving = np.empty_like(patches)
    for number, (y, x) in enumerate(corners):
        box = core.Box(y - outer, y + size + outer, x - outer, x + size + outer)
        patches[number] = level.read_fixed(box)
        moving[number] = level.read_moving(transform, box)
    is_trusted = np.zeros((wide, wide), bool)
    is_trusted[rim:-rim, rim:-rim] = True
    ours, _ = compute_outlines(patches, plan.fixed_width or plan.width, keep=is_trusted)
    theirs, rise = compute_outlines(moving, plan.width, keep=is_trusted)
    pairs = zip(theirs, rise, strict=True)
    theirs = np.stack([_move_edges(one, its, edge) for one, its in pairs])
    inner = np.s_[:, outer:-outer, outer:-outer]
    return ours[inner], theirs[:, rim:-rim, rim:-rim], rise[inner]


def _list_corners(
    level: PyramidLevel, transform: core.Transform, plan: RefinementPlan
) -> list[core.IntPair]:
    """Return the top-left pixels of the patches inside the moving image."""
    if min(level.grid.shape) < plan.size:
        return []
    # half a patch from one to the next, or more on a large image
    step = max(plan.size / 2, float(np.sqrt(np.prod(level.grid.shape) / plan.most)))
    axes = []
    for side in level.grid.shape:
        first, last = -_OUTSIDE * plan.size, side - (1 - _OUTSIDE) * plan.size
        count = int(np.ceil((last - first) / step)) + 1
        axes.append(np.unique(np.rint(np.linspace(first, last, count)).astype(int)))
    middles = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    places = np.array(level.grid.corner) + (middles + plan.size / 2) * level.pitch
    source = core.Grid.from_image(level.moving)
    at = transform.inverse()(places)
    is_shown = ((at > source.corner) & (at < source.end)).all(axis=1)
    return [(int(y), int(x)) for y, x in middles[is_shown]]


def _create_taper(size: int) -> core.Float32Array:
    """Return weights (size, size) that taper towards the borders of a patch."""
    along = np.hanning(size + 2)[1:-1].astype(np.float32)
    return np.outer(along, along)


def _correlate_patches(
    ours: core.FloatArray, theirs: core.FloatArray, reach: int
) -> tuple[core.FloatArray, core.FloatArray]:
    """Return correlations (N, 2r + 1, 2r + 1) over shifts and their chance variance."""
    size = ours.shape[-1]
    template = ours * _create_taper(size)
    full = fft.next_fast_len(size + 2 * reach)
    span = slice(0, 2 * reach + 1)
    sums, chance = [], []
    for start in range(0, len(ours), 64):  # bounds the memory
        part = slice(start, start + 64)
        one, two = template[part], theirs[part]
        product = fft.fft2(two, (full, full)) * np.conj(fft.fft2(one, (full, full)))
        sums.append(fft.ifft2(product).real[:, span, span])
        power = fft.rfft2(np.abs(two) ** 2, (full, full)) * np.conj(
            fft.rfft2(np.abs(one) ** 2, (full, full))
        )
        chance.append(fft.irfft2(power, (full, full))[:, span, span] / 2)
    scatter = np.concatenate(chance)
    # of the largest variance in a patch, so that gaps cause no peaks
    least = 0.05 * scatter.max(axis=(1, 2), keepdims=True)
    return np.concatenate(sums), np.maximum(scatter, np.maximum(least, 1e-12))


def _find_peaks(
    sums: core.FloatArray, chance: core.FloatArray
) -> tuple[core.FloatArray, core.FloatArray, core.FloatArray]:
    """Return peak positions relative to the centre, inverse covariances and heights."""
    count, width = len(sums), sums.shape[1]
    scores = sums / np.sqrt(chance)
    best = sums[:, 1:-1, 1:-1].reshape(count, -1).argmax(axis=1)
    y, x = (index + 1 for index in np.unravel_index(best, (width - 2, width - 2)))
    each = np.arange(count)
    # (N, 3, 3) correlations at the peak and next to it
    step = np.arange(-1, 2)
    rows, columns = y[:, None, None] + step[:, None], x[:, None, None] + step
    near = sums[each[:, None, None], rows, columns].astype(np.float64)
    down, right = near[:, 2, 1] - near[:, 0, 1], near[:, 1, 2] - near[:, 1, 0]
    slope = np.stack([down, right], axis=-1) / 2
    cross = (near[:, 2, 2] - near[:, 2, 0] - near[:, 0, 2] + near[:, 0, 0]) / 4
    bend = np.empty((count, 2, 2))
    bend[:, 0, 0] = 2 * near[:, 1, 1] - near[:, 2, 1] - near[:, 0, 1]
    bend[:, 1, 1] = 2 * near[:, 1, 1] - near[:, 1, 2] - near[:, 1, 0]
    bend[:, 0, 1] = bend[:, 1, 0] = -cross
    values, axes = np.linalg.eigh(bend)
    # lower bound of the smaller curvature, along a line
    values = np.maximum(values, 0.02 * np.maximum(values[:, 1:], 1e-9))
    bend = np.einsum("nij,nj,nkj->nik", axes, values, axes)
    part = np.clip(np.linalg.solve(bend, slope[..., None])[..., 0], -1, 1)
    off = np.stack([y, x], axis=-1) - width // 2 + part
    height = near[:, 1, 1]
    # The slope at the true peak has the variance of the curvature of a chance peak.
    surety = bend * (np.maximum(height, 0) / chance[each, y, x])[:, None, None]
    return off, surety, scores[each, y, x]


@dataclass(frozen=True, slots=True, eq=False)
class TransformFit:
    """Transform with the patches used to fit it."""

    affine: core.Affine
    edge_nm: float  # shift of edges along their rise, including the one before
    patches: PatchShifts
    weights: core.FloatArray  # (N,) 1 for patches that fit, less for others

    def compute_residuals(self) -> core.FloatArray:
        """Return residuals (N, 2) of the patches in nm."""
        return self.compute_patch_residuals(self.patches)

    def compute_patch_residuals(self, patches: PatchShifts) -> core.FloatArray:
        """Return residuals (N, 2) of the given patches in nm."""
        by_edges = patches.edges * (self.edge_nm - patches.edge_nm)
        return patches.places - self.affine(patches.moving_places) - by_edges


def fit_patches(
    patches: PatchShifts,
    model: Model,
    *,
    is_mirrored: bool = False,
    weights: core.FloatArray | None = None,
) -> TransformFit:
    """Fit a transform to patches; `weights` (N,) reuses those of an earlier fit.

    If a step is dark in the optical image only, every edge is shifted to its bright
    side. Opposite edges cancel, but those of a patch may not: this shift is fitted as
    well.
    """
    design, middle, size = patches.build_design(model, is_mirrored=is_mirrored)
    start_weights = weights
    weights = np.ones(len(patches)) if start_weights is None else start_weights
    values = np.zeros(design.shape[-1])
    for _ in range(60):  # usually settled long before
        weighted_surety = patches.surety * weights[:, None, None]
        left = np.einsum("nia,nij,njb->ab", design, weighted_surety, design)
        left[-1, -1] *= 1 + EDGE_RIDGE
        right = np.einsum("nia,nij,nj->a", design, weighted_surety, patches.places)
        solution = np.linalg.lstsq(left, right, rcond=1e-12)[0]
        off = patches.places - design @ solution
        misfit = np.einsum("ni,nij,nj->n", off, patches.surety, off)
        # three quarters are inliers, over that quantile of chi-square with two degrees:
        # with half, a distorted image is only fitted in half of the field
        spread = max(float(np.quantile(misfit, 0.75)) / 2.773, 1e-12)
        is_settled = np.abs(solution - values).max() <= 1e-7 * size
        values = solution
        if start_weights is not None or is_settled:
            break
        # of Student's distribution; 2 to 6 are equally good
        weights = 1 / (1 + misfit / spread / 6.0)
    if model == "similarity":
        (a, b), flip = values[:2], -1 if is_mirrored else 1
        linear, shift = np.array([[a, b * flip], [-b, a * flip]]), values[2:-1]
    else:
        linear, shift = values[:4].reshape(2, 2), values[4:-1]
    affine = core.Affine.from_matrix(linear / size, shift - linear @ middle / size)
    return TransformFit(affine, patches.edge_nm + float(values[-1]), patches, weights)


def build_design_matrix(
    at: core.FloatArray, model: Model, *, is_mirrored: bool
) -> core.FloatArray:
    """Return the Jacobian (N, 2, K) of mapped positions for the fitted parameters."""
    count = len(at)
    if model == "similarity":
        # x' = a x - b y, y' = b x + a y; a mirrored x has the other sign
        y, x = at[:, 0], at[:, 1] * (-1 if is_mirrored else 1)
        design = np.zeros((count, 2, 4))
        design[:, 0, :2] = np.stack([y, x], axis=-1)
        design[:, 1, :2] = np.stack([x, -y], axis=-1)
        design[:, 0, 2] = design[:, 1, 3] = 1
        return design
    design = np.zeros((count, 2, 6))
    design[:, 0, 0:2] = design[:, 1, 2:4] = at
    design[:, 0, 4] = design[:, 1, 5] = 1
    return design


def refine_transform(
    level: PyramidLevel,
    affine: core.Affine,
    plans: Sequence[RefinementPlan],
    model: Model,
    edge_nm: float = 0.0,
) -> TransformFit | None:
    """Measure shifts and fit in rounds; None if fewer than six patches remain."""
    fit_result = None
    for plan in plans:
        patches = measure_shifts(level, affine, plan, edge_nm)
        # an affine map has six numbers, a patch gives two at most
        if patches is None or len(patches) < 6:
            return None
        fit_result = fit_patches(patches, model, is_mirrored=affine.is_mirrored)
        affine = fit_result.affine
    return fit_result


def find_edge_shift(
    level: PyramidLevel, transform: core.Transform, plan: RefinementPlan, edge_nm: float
) -> float:
    """Find the edge shift of the moving image, in nm, with the best agreement.

    Up to that of a fit, which is valid for small shifts: a dot that is shifted by its
    own size is lost.
    """
    most = 3.0 * level.pitch
    far = float(np.clip(edge_nm, -most, most))
    # shifts below a quarter of a pixel are not corrected, larger ones than 3 px lose
    # lines
    if abs(far) < 0.25 * level.pitch:
        return 0.0
    heights = []
    for part in (0.0, 0.5, 1.0):
        patches = measure_shifts(level, transform, plan, part * far)
        heights.append(0.0 if patches is None else float(patches.strength.sum()))
    none, half, whole = heights
    bend = 2 * half - none - whole
    if bend <= 0:
        return far if whole > none else 0.0
    return far * float(np.clip(0.5 + (whole - none) / bend / 4, 0, 1))
