"""Flat field and dark level, estimated from the frames.

A frame is ``dark + offset + gain * flat * scene + noise``. The field of a microsphere
is round, so the flat field is a radial profile: the median of all frames, each divided
by its own level, over rings about the centre of the field. Non-radial shading is
estimated later from overlaps (`napari_semsr.stitching.shading`), where the scene
cancels.
"""

import warnings
from dataclasses import dataclass, replace

import numpy as np
import scipy  # other parts of SciPy are imported when they are used
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.core import (
    Acquisition,
    Float32Array,
    FloatArray,
    RealArray,
    reshape_into_blocks,
)

# Share of the brightest value. As in the recorded trials: there a corrected pixel has 1
# / 0.15**2 = 44 times the noise variance.
MIN_FLAT = 0.15
FIXED_METHODS = ("none", "file")  # flat fields that must not be changed
_EROSION = 3  # px eroded from the rim of a field, as in the trials; the width is chosen
_SAMPLE = 48  # frames that are read; chosen: more take time, fewer show the sample
_BLOCK = 8  # px; chosen: the noise of a block mean is an eighth of that of a pixel
# Share of brightness; chosen: a polynomial that misses half of the rings by more than
# half of it is replaced by parabolas, and parabolas that miss by twice as much by the
# measured rings.
_SHARP = 0.05
# Share of the blocks; chosen: a round field leaves a fifth of a square unlit, a field a
# quarter of a frame off centre still half of that
_MIN_UNLIT = 0.05
_DIM = 0.1  # share of the light; chosen: less counts as none
_RIM = 4  # px next to the dark that a fit excludes; chosen, 2.7 times the smoothing


@dataclass(frozen=True, slots=True)
class FlatField:
    """Shading that the microscope applies to every frame."""

    flat: Float32Array  # (Y, X) Relative sensitivity, 1 where the field is brightest
    dark: float | Float32Array  # Grey level without light, of all or of each pixel
    valid: NDArray[np.bool_]  # (Y, X) valid pixels of a frame
    # Method: ``none`` or ``file`` as requested; ``radial``, ``radial, off centre``,
    # ``none is better``, or any of these three with ``, refined``
    method: str
    # ``(y, x)`` of the field in px; None for the frame's own centre
    centre: tuple[float, float] | None = None
    is_dark_known: bool = False  # Whether the dark level was measured without light

    @property
    def is_refined(self) -> bool:
        """Whether the flat field was refined on overlaps."""
        return self.method.endswith(", refined")

    @property
    def weight(self) -> Float32Array:
        """Inverse variance of each corrected pixel, 0 outside the field."""
        return np.where(self.valid, self.flat**2, 0).astype(np.float32)

    def create_uniform(self) -> "FlatField":
        """Return a flat field without shading, of the same dark level."""
        same = create_uniform_flat_field(self.flat.shape, self.dark, "none is better")
        return replace(same, is_dark_known=self.is_dark_known)


def create_uniform_flat_field(
    shape: tuple[int, ...], dark: float | Float32Array, method: str
) -> FlatField:
    """Return a flat field without shading."""
    ones = np.ones(shape, np.float32)
    return FlatField(ones, dark, ones > 0, method)


def choose_evenly_spaced_indices(count: int, most: int) -> list[int]:
    """Choose frames evenly spread over the scan."""
    chosen_frames = np.unique(np.linspace(0, count - 1, min(count, most)).round())
    return [int(index) for index in chosen_frames]


def compute_valid_mask(flat: RealArray) -> NDArray[np.bool_]:
    """Return the (Y, X) mask of sufficiently bright pixels, excluding the rim."""
    bright = flat > MIN_FLAT
    if bright.all():
        return np.ones(flat.shape, bool)
    mask = ndimage.binary_erosion(bright, iterations=_EROSION, border_value=0)
    return np.asarray(mask)


def _compute_block_means(frames: RealArray, block: int = _BLOCK) -> FloatArray:
    """Compute the means of square blocks, omitting incomplete border blocks."""
    blocks = reshape_into_blocks(frames, block).astype(np.float64)
    return np.asarray(np.nanmean(blocks, axis=(2, 4)))


def _measure_dark_levels(frames: RealArray) -> FloatArray:
    """Measure the (N,) dark levels of the frames in unlit blocks, or 0 without any.

    Except for noise, a block without signal has the same mean in every frame, or the
    same as the other blocks without signal of its frame; a block with signal varies far
    more with the sample.
    """
    none = np.zeros(len(frames))
    means = _compute_block_means(frames)
    # chosen: fewer frames or blocks do not show the scatter
    if len(frames) < 3 or means[0].size < 16:
        return none
    level = np.nanmedian(means, axis=0)
    low, high = np.nanquantile(level, (0.02, 0.9))
    rows, columns = np.nonzero(level <= low)
    pieces = [
        frames[:, r * _BLOCK : (r + 1) * _BLOCK, c * _BLOCK : (c + 1) * _BLOCK]
        for r, c in zip(rows[:16], columns[:16], strict=True)
    ]
    across = np.abs(np.diff(np.stack(pieces), axis=-1).ravel())
    noise = max(float(1.4826 * np.nanmedian(across) / np.sqrt(2)) / _BLOCK, 1e-12)
    # the darkest are partly selected by noise: take all that are equally dark
    unlit = _find_unlit_blocks(means, noise)
    if unlit.any():
        common = float(np.nanmean(means[:, unlit]))
        return none + common if common < 0.5 * high else none
    own = means - np.nanmedian(means[:, level <= low], axis=1)[:, None, None]
    unlit = _find_unlit_blocks(own, noise)
    # a lit corner is darkest in few blocks, the area outside a field surrounds it
    if not _MIN_UNLIT <= unlit.mean() < 0.5:
        return none
    spread = 1.4826 * np.nanmedian(np.abs(own - np.nanmedian(own, axis=0)), axis=0)
    sample = float(np.median(spread[level >= np.nanmedian(level)]))
    dim = float(np.median(spread[unlit]))
    # and shows nothing of the sample, which must be visible where there is light
    if sample < 5 * noise or dim > np.hypot(noise, _DIM * sample):
        return none
    dark: FloatArray = np.nan_to_num(np.nanmean(means[:, unlit], axis=1))
    return dark


def _find_unlit_blocks(means: FloatArray, noise: float) -> NDArray[np.bool_]:
    """Return the (R, C) mask of the darkest blocks if alike in all `means`."""
    level = np.nanmedian(means, axis=0)
    spread = 1.4826 * np.nanmedian(np.abs(means - level), axis=0)
    low = np.nanquantile(level, 0.02)
    unlit = (spread < 3 * noise) & (level < low + 3 * noise)
    if float(np.median(spread[level <= low])) > 3 * noise:
        unlit[:] = False
    return np.asarray(unlit)


def _compute_centre_distances(
    shape: tuple[int, int], centre: tuple[float, float]
) -> FloatArray:
    y, x = np.ogrid[: shape[0], : shape[1]]
    return np.hypot(y - centre[0], x - centre[1])


def compute_radial_flat_field(
    typical: FloatArray, centre: tuple[float, float] | None = None
) -> FloatArray:
    """Compute a flat field that depends only on the distance from a centre.

    `typical` (Y, X). The profile of ring medians is smoothed by a polynomial or by
    local parabolas within the field, by 1.5 px at a sharp rim; it is 1 where it is
    brightest.
    """
    rows, columns = typical.shape
    centre = ((rows - 1) / 2, (columns - 1) / 2) if centre is None else centre
    distance = _compute_centre_distances((rows, columns), centre)
    ring = np.round(distance).astype(np.intp).ravel()
    order = np.argsort(ring, kind="stable")
    counts = np.bincount(ring)
    pieces = np.split(typical.ravel()[order], np.cumsum(counts)[:-1])
    medians = np.array([np.median(p) if len(p) else np.nan for p in pieces])
    with_counts = np.flatnonzero(counts)
    profile = np.interp(np.arange(len(medians)), with_counts, medians[with_counts])
    smooth = _smooth_profile(profile, counts.astype(float))
    flat = np.interp(distance, np.arange(len(smooth)), smooth)
    top = float(np.quantile(flat, 0.99))
    return np.maximum(flat / (top if top > 0 else 1.0), 0)


def _smooth_profile(profile: FloatArray, counts: FloatArray) -> FloatArray:
    """Smooth a radial profile strongly within the field and weakly at its edge.

    Vignetting is even and smooth: its logarithm is a low-order polynomial in the square
    of the radius, which suppresses traces of the sample in the rings, above all in the
    few pixels near the centre. Where that does not describe the rings, local parabolas
    do; a rim too sharp for these stays as measured.
    """
    close: FloatArray = ndimage.gaussian_filter1d(profile, 1.5, mode="nearest")
    top = float(np.quantile(profile, 0.9))
    in_light = profile > MIN_FLAT * top
    end = int(np.argmin(in_light)) if not in_light.all() else len(profile)
    sound = end if in_light.all() else end - _RIM
    if sound < 8:  # chosen: two rings for each of the cubic's four coefficients
        return close
    log, trust = np.log(profile[:sound]), np.maximum(counts[:sound], 1e-3)
    # a cubic in the squared radius, extended to the end
    unit = (np.arange(end) / sound) ** 2
    design = np.stack([unit**power for power in range(4)], axis=1)
    root = np.sqrt(trust)
    inside = design[:sound]
    profile_fit = design @ np.linalg.lstsq(inside * root[:, None], log * root)[0]
    left = np.abs(profile_fit[:sound] - log)
    order = np.argsort(left)
    share = np.cumsum(trust[order]) / trust.sum()
    misfit = float(left[order][np.searchsorted(share, 0.5)])
    if misfit > _SHARP / 2:
        profile_fit = _fit_parabolas(log, trust, end)
    smooth = close.copy()
    smooth[:end] = np.exp(profile_fit)
    check = slice(3 * sound // 4, sound)
    if np.abs(smooth[check] / close[check] - 1).max() > 2 * _SHARP:
        smooth[check.start : end] = close[check.start : end]
    return smooth


def _fit_parabolas(log: FloatArray, counts: FloatArray, end: int) -> FloatArray:
    """Fit local parabolas to ring values, extrapolated to `end`.

    Across the centre the profile goes on as its mirror image.
    """
    inside = np.arange(1.0 - len(log), len(log))
    width = max(4.0, len(log) / 8)
    log, counts = (np.concatenate([each[:0:-1], each]) for each in (log, counts))
    last, profile_fit = inside[-1], np.empty(end)
    for place in range(end):
        offset = inside - min(place, last)
        root = np.sqrt(counts * np.exp(-0.5 * (offset / width) ** 2))
        design = np.stack([np.ones_like(offset), offset, offset**2], axis=1)
        level, slope, bend = np.linalg.lstsq(design * root[:, None], log * root)[0]
        beyond = max(0, place - last)
        profile_fit[place] = level + slope * beyond + bend * beyond**2
    return profile_fit


def find_field_centre(typical: FloatArray) -> tuple[tuple[float, float], float]:
    """Find the centre ``(y, x)`` of a frame's circular symmetry, in px.

    `typical` (Y, X). The second value is the misfit relative to that about the centre.
    """
    small = _compute_block_means(ndimage.gaussian_filter(typical, 2)[None], 4)[0]
    small = small / max(float(np.quantile(small, 0.95)), 1e-12)
    middle = (np.array(small.shape) - 1) / 2

    def compute_scatter(centre: FloatArray) -> float:
        distance = _compute_centre_distances(small.shape, (centre[0], centre[1]))
        ring, part = distance.ravel().astype(np.intp), distance.ravel() % 1
        index = np.concatenate([ring, ring + 1])
        share = np.concatenate([1 - part, part])
        weight = np.bincount(index, share)
        total = np.bincount(index, share * np.tile(small.ravel(), 2))
        mean = total / np.maximum(weight, 1e-9)
        profile_values = (1 - part) * mean[ring] + part * mean[ring + 1]
        return float(np.mean((small.ravel() - profile_values) ** 2))

    minimum = scipy.optimize.minimize(
        compute_scatter,
        middle,
        method="Nelder-Mead",
        options={"xatol": 0.05, "maxfev": 150, "initial_simplex": middle + _SIMPLEX},
    )
    limit = 0.35 * np.array(small.shape)
    offset = np.clip(minimum.x - middle, -limit, limit)
    gain = compute_scatter(middle + offset) / max(compute_scatter(middle), 1e-15)
    centre = (middle + offset) * 4 + 1.5
    return (float(centre[0]), float(centre[1])), gain


# Dust on the sphere, scratches, hot pixels: detail at one position of all frames.
#
# Computed as the median over the frames of each pixel relative to its surroundings. The
# sample differs from frame to frame and adds the error of a median. Relative to narrow
# surroundings a speck stands out, relative to wide ones it is complete.

_MIN_FRAMES = 8  # chosen: at one position the sample is in fewer than half of them
_MAX_FRAMES = 24  # chosen: more take time, relevant specks stand out from these
_NARROW_PX = 13  # chosen: as wide as the coarser Gaussian of the band-pass, 5 px
_WIDE = 0.3  # share of a frame's shorter side; chosen: specks are smaller
_SPECK_LEVEL = 6.0  # errors of the median; chosen: 80 clean scans had up to 5.1
_NEAR_PX = 6.0  # chosen: wider than grain; the spread of few frames has an error too
_SPECK_EDGE = 3.0  # errors, next to a speck; chosen: a speck is whole up to its edge
# Share of the field above which the sample may have moved by whole periods; chosen:
# more dust than that would be cleaned off.
_MAX_FIXED = 0.2


def _compute_common_detail(
    frames: Float32Array, in_light: Float32Array, width: int
) -> tuple[Float32Array, Float32Array]:
    """Compute the median relative detail of frames (N, Y, X) and its standard error."""
    detail = np.empty_like(frames)
    for frame, own in zip(frames, detail, strict=True):
        present = in_light * np.isfinite(frame)
        within = np.maximum(ndimage.uniform_filter(present, width), np.float32(1e-3))
        level = ndimage.uniform_filter(np.nan_to_num(frame) * in_light, width) / within
        np.divide(frame, np.where(level > 0, level, np.float32(np.inf)), out=own)
    middle = _compute_median(detail)
    detail -= middle
    spread = np.nan_to_num(1.4826 * _compute_median(np.abs(detail, out=detail)))
    near = ndimage.gaussian_filter(spread, _NEAR_PX)
    error = 1.2533 * np.maximum(spread, near) / np.sqrt(len(frames))
    return np.nan_to_num(middle, nan=1.0) - 1, error.astype(np.float32)


def _compute_median(stack: Float32Array) -> Float32Array:
    """Compute the median along the first axis, with a fast path if there is no NaN."""
    if np.isnan(stack).any():
        return np.asarray(np.nanmedian(stack, axis=0))
    in_order = np.sort(np.ascontiguousarray(np.moveaxis(stack, 0, -1)), axis=-1)
    middle = in_order[..., (len(stack) - 1) // 2] + in_order[..., len(stack) // 2]
    return np.asarray(middle / 2)


def _estimate_fixed_pattern(
    frames: Float32Array, valid: NDArray[np.bool_]
) -> Float32Array:
    """Estimate the (Y, X) relative sensitivity at specks, 1 elsewhere.

    `frames` (N, Y, X) are divided by that flat field.
    """
    ones = np.ones(valid.shape, np.float32)
    if len(frames) < _MIN_FRAMES:
        return ones
    frames = frames[choose_evenly_spaced_indices(len(frames), _MAX_FRAMES)]
    in_light = valid.astype(np.float32)
    fine, error = _compute_common_detail(frames, in_light, _NARROW_PX)
    is_seen = (np.abs(fine) > _SPECK_LEVEL * error) & valid
    if not 0 < is_seen.sum() <= _MAX_FIXED * valid.sum():
        return ones
    width = round(_WIDE * min(valid.shape))
    whole, error = _compute_common_detail(frames, in_light, width)
    beside = (np.abs(whole) > _SPECK_EDGE * error) & valid
    is_pattern = ndimage.binary_propagation(is_seen, mask=is_seen | beside)
    return np.where(is_pattern, np.maximum(1 + whole, 0), ones).astype(np.float32)


# First steps of the search, in blocks of 4 px; chosen: grain is smaller.
_SIMPLEX = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])


def estimate_initial_flat(
    acquisition: Acquisition,
    among: NDArray[np.intp] | None = None,
    *,
    is_centred: bool = False,
    dark_known: float | Float32Array | None = None,
) -> FlatField:
    """Estimate the flat field and dark level of frames without positions.

    `is_centred`: centred on the frame, wherever the frames are brightest. `dark_known`
    is the grey level without light, of all pixels or of each.
    """
    some = np.arange(len(acquisition)) if among is None else among
    sample = choose_evenly_spaced_indices(len(some), _SAMPLE)
    read = (acquisition.read(int(some[i])) for i in sample)
    frames = np.stack([frame.astype(np.float32) for frame in read])
    known = 0.0 if dark_known is None else dark_known
    frames -= np.asarray(known, np.float32)
    # of pixels that are missing in all frames, or of empty frames
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
        dark = np.zeros(len(frames))
        if dark_known is None:
            dark = _measure_dark_levels(frames)
        # the median of the frames, each normalised by its level
        rows, columns = frames.shape[1:]
        middle = frames[:, rows // 4 : -rows // 4 or None, columns // 4 : -columns // 4]
        level = np.nanmedian(middle.reshape(len(frames), -1), axis=1) - dark
        usable = level > 0.05 * max(float(np.nanmedian(level)), 1e-12)
        typical = np.ones((rows, columns))
        if usable.any():
            scaled_frames = (frames - dark[:, None, None])[usable]
            scaled_frames = scaled_frames / level[usable, None, None]
            typical = np.nan_to_num(np.nanmedian(scaled_frames, axis=0), nan=0.0)
            typical = np.asarray(typical, dtype=np.float64)
            del scaled_frames
    centre, gain = find_field_centre(typical)
    # chosen: a fitted centre must halve the misfit
    off_centre = gain < 0.5 and not is_centred
    method = "radial, off centre" if off_centre else "radial"
    own = centre if off_centre else None
    flat = compute_radial_flat_field(typical, own).astype(np.float32)
    valid = compute_valid_mask(flat)
    frames -= dark[:, None, None].astype(np.float32)
    frames /= np.maximum(flat, np.float32(MIN_FLAT))
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
        flat *= _estimate_fixed_pattern(frames, valid)
    common = known + float(np.median(dark))
    return FlatField(flat, common, valid, method, own, dark_known is not None)


# Smooth surfaces over a frame: the correction of a first flat field.
#
# Three unconstrained even powers of the distance from the field's centre, and cubic
# B-splines on a grid, kept small and smooth by a prior. Overlaps do not reach the
# centre of a frame: there the even powers, fitted where frames overlap, are
# extrapolated.

# Inverse standard deviations of the splines' second differences and of themselves, as
# logarithms: 1 / 30 = 0.03 and 1 / 10 = 0.1. Chosen: with weaker ones the sample leaks
# into the flat field, stronger ones leave shading; the fit is cross-validated anyway.
_ROUGHNESS = 30.0
_RIDGE = 10.0
_FREE = 1e-3  # inverse variance of the powers; chosen: only the overlaps decide
_POWERS = (2, 4, 6)  # vignetting is even in the distance; three powers are chosen


class SurfaceBasis:
    """Basis functions of a surface over a frame; only even powers if `knots` is 0."""

    def __init__(
        self,
        shape: tuple[int, int],
        knots: int,
        centre: tuple[float, float] | None = None,
    ) -> None:
        self.shape = shape
        self.knots = knots
        middle = (shape[0] - 1) / 2, (shape[1] - 1) / 2
        self.centre = middle if centre is None else centre

    def evaluate(self, place: FloatArray) -> FloatArray:
        """Evaluate the (M, F) basis functions at positions (M, 2), ``(y, x)`` in px."""
        if not self.knots:
            return self._evaluate_radial_basis(place)
        rows = self._evaluate_spline_basis(place[:, 0], self.shape[0])
        columns = self._evaluate_spline_basis(place[:, 1], self.shape[1])
        splines = np.einsum("na,nb->nab", rows, columns).reshape(len(place), -1)
        return np.concatenate([self._evaluate_radial_basis(place), splines], axis=1)

    def _evaluate_radial_basis(self, place: FloatArray) -> FloatArray:
        half = max(self.shape) / 2
        unit = np.hypot(*((place - np.array(self.centre)) / half).T)
        return np.stack([unit**power for power in _POWERS], axis=1)

    def _evaluate_spline_basis(self, place: FloatArray, size: int) -> FloatArray:
        unit = np.clip((place + 0.5) / size, 0, 1 - 1e-9) * self.knots
        joints = np.arange(-3, self.knots + 4, dtype=float)
        matrix = scipy.interpolate.BSpline.design_matrix(unit, joints, 3)
        return np.asarray(matrix.toarray())

    def compute_prior(self) -> FloatArray:
        """Compute the (F, F) prior inverse covariance of the coefficients."""
        if not self.knots:
            return _FREE * np.eye(len(_POWERS))
        size = self.knots + 3
        one, second = np.eye(size), np.diff(np.eye(size), n=2, axis=0)
        rough = np.concatenate([np.kron(second, one), np.kron(one, second)])
        splines = _ROUGHNESS**2 * rough.T @ rough + _RIDGE**2 * np.eye(size**2)
        powers = _FREE * np.eye(len(_POWERS))
        return np.asarray(scipy.linalg.block_diag(powers, splines))

    def compute_tilts(self) -> FloatArray:
        """Return (F, 2) coefficients for unit slope per half frame along y and x.

        Splines represent a slope exactly by coefficients that rise evenly between
        knots.
        """
        steps = np.arange(self.knots + 3) - 1 - self.knots / 2
        half = max(self.shape) / 2
        rows, columns = (steps * side / self.knots / half for side in self.shape)
        each = np.ones(self.knots + 3)
        splines = [np.outer(rows, each).ravel(), np.outer(each, columns).ravel()]
        return np.concatenate([np.zeros((len(_POWERS), 2)), np.transpose(splines)])

    def evaluate_shapes(self, place: FloatArray) -> FloatArray:
        """Evaluate the four low-order shapes of a mean frame, (M, 4).

        Tilt along y and x, second and fourth power of the distance from the centre,
        with lengths in half frames; `place` (M, 2), ``(y, x)`` in px of a frame.
        """
        half = max(self.shape) / 2
        unit = (place - np.array(self.centre)) / half
        radius2 = (unit**2).sum(axis=1)
        return np.column_stack([unit, radius2, radius2**2])

    def compute_shape_matrix(self, place: FloatArray) -> FloatArray:
        """Compute the (4, F) matrix mapping coefficients to shapes; `place` (M, 2)."""
        shapes = self.evaluate_shapes(place.astype(float))
        centred_shapes = shapes - shapes.mean(axis=0)
        return np.linalg.pinv(centred_shapes) @ self.evaluate(place.astype(float))

    def evaluate_surface(self, coefficients: FloatArray) -> FloatArray:
        """Evaluate a surface (Y, X) at every pixel of a frame; `coefficients` (F,)."""
        free, size = len(_POWERS), self.knots + 3
        rows, columns = (
            self._evaluate_spline_basis(np.arange(side, dtype=float), side)
            for side in self.shape
        )
        grid = np.indices(self.shape).reshape(2, -1).T.astype(float)
        radial = self._evaluate_radial_basis(grid) @ coefficients[:free]
        splines: FloatArray = rows @ coefficients[free:].reshape(size, size) @ columns.T
        return radial.reshape(self.shape) + splines
