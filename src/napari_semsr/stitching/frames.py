"""Flat field and dark level of a scan, and its frames prepared for matching.

A frame is ``dark + offset + gain * flat * scene + noise``. The field of a microsphere
is round, so the flat field is a radial profile: the median of all frames, each divided
by its own level, over rings about the centre of the field. Non-radial shading is
estimated later from overlaps (`napari_semsr.stitching.shading`), where the scene
cancels. `CorrectedFrames` are corrected, weighted, band-passed and cached.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy  # other parts of SciPy are imported when they are used
from numpy.typing import NDArray
from scipy import fft, ndimage

from napari_semsr import core
from napari_semsr.core import (
    BoolArray,
    Float32Array,
    FloatArray,
    FloatPair,
    IntPair,
    RealArray,
)

# Share of the brightest value. As in the recorded trials: there a corrected pixel has 1
# / 0.15**2 = 44 times the noise variance.
MIN_FLAT = 0.15
FIXED_METHODS = ("none", "file")  # flat fields that must not be changed
_BLOCK = 8  # px; chosen: the noise of a block mean is an eighth of that of a pixel
# Share of brightness; chosen: a polynomial that misses half of the rings by more than
# half of it is replaced by parabolas, and parabolas that miss by twice as much by the
# measured rings.
_SHARP = 0.05


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
        shape, known = self.flat.shape, self.is_dark_known
        return create_uniform_flat_field(shape, self.dark, "none is better", known)


def create_uniform_flat_field(
    shape: tuple[int, ...],
    dark: float | Float32Array,
    method: str,
    is_dark_known: bool = False,
) -> FlatField:
    """Return a flat field without shading."""
    ones = np.ones(shape, np.float32)
    return FlatField(ones, dark, ones > 0, method, None, is_dark_known)


def choose_evenly_spaced_indices(count: int, most: int) -> list[int]:
    """Choose frames evenly spread over the scan."""
    chosen_frames = np.unique(np.linspace(0, count - 1, min(count, most)).round())
    return [int(index) for index in chosen_frames]


def compute_valid_mask(flat: RealArray) -> NDArray[np.bool_]:
    """Return the (Y, X) mask of sufficiently bright pixels, excluding the rim."""
    bright = flat > MIN_FLAT
    if bright.all():
        return np.ones(flat.shape, bool)
    # px, as in the trials; the width is chosen
    mask = ndimage.binary_erosion(bright, iterations=3, border_value=0)
    return np.asarray(mask)


def _compute_block_means(frames: RealArray, block: int = _BLOCK) -> FloatArray:
    """Compute the means of square blocks, omitting incomplete border blocks."""
    blocks = core.reshape_into_blocks(frames, block).astype(np.float64)
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
    # chosen: a round field leaves a fifth of a square unlit, and half of that if it is
    # a quarter of a frame off centre
    if not 0.05 <= unlit.mean() < 0.5:
        return none
    spread = 1.4826 * np.nanmedian(np.abs(own - np.nanmedian(own, axis=0)), axis=0)
    sample = float(np.median(spread[level >= np.nanmedian(level)]))
    dim = float(np.median(spread[unlit]))
    # and shows nothing of the sample, which must be visible where there is light
    # chosen: a tenth of the light counts as none
    if sample < 5 * noise or dim > np.hypot(noise, 0.1 * sample):
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
    # px next to the dark; chosen: 2.7 times the smoothing
    sound = end if in_light.all() else end - 4
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

    # first steps, in blocks of 4 px; chosen: grain is smaller
    minimum = scipy.optimize.minimize(
        compute_scatter,
        middle,
        method="Nelder-Mead",
        options={
            "xatol": 0.05,
            "maxfev": 150,
            "initial_simplex": middle + np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]]),
        },
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
    # chosen: wider than grain; the spread of few frames has an error too
    near = ndimage.gaussian_filter(spread, 6.0)
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
    # chosen: at one position the sample is in fewer than half of eight frames
    if len(frames) < 8:
        return ones
    # chosen: more frames take time, relevant specks stand out from these
    frames = frames[choose_evenly_spaced_indices(len(frames), 24)]
    in_light = valid.astype(np.float32)
    # chosen: as wide as the coarser Gaussian of the band-pass, 5 px
    fine, error = _compute_common_detail(frames, in_light, 13)
    # errors of the median; chosen: 80 clean scans had up to 5.1
    is_seen = (np.abs(fine) > 6.0 * error) & valid
    # chosen: with more of the field, the sample may have moved by whole periods
    if not 0 < is_seen.sum() <= 0.2 * valid.sum():
        return ones
    # chosen: specks are smaller than this share of the shorter side
    width = round(0.3 * min(valid.shape))
    whole, error = _compute_common_detail(frames, in_light, width)
    # errors next to a speck; chosen: it is whole up to its edge
    near_speck = (np.abs(whole) > 3.0 * error) & valid
    is_pattern = ndimage.binary_propagation(is_seen, mask=is_seen | near_speck)
    return np.where(is_pattern, np.maximum(1 + whole, 0), ones).astype(np.float32)


def estimate_initial_flat(
    acquisition: core.Acquisition,
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
    # chosen: more frames take time, fewer show the sample
    sample = choose_evenly_spaced_indices(len(some), 48)
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
        # inverse standard deviations of the splines' second differences and of
        # themselves, as logarithms. Chosen: with weaker ones the sample leaks into the
        # flat field, stronger ones leave shading; the fit is cross-validated anyway
        splines = 30.0**2 * rough.T @ rough + 10.0**2 * np.eye(size**2)
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


# Frames, corrected.

# Widths of the band-pass in px, as in the recorded trials: correlation of its output
# has errors of 0.04 to 0.10 px, after a Laplacian of 0.24 to 1.0 px.
FRAME_BAND = _FINE, _COARSE = 0.5, 5.0
"""Standard deviations of the two band-pass Gaussians, in px."""
# Standard deviation of white noise after a Gaussian of 0.5 px: along one axis the sum
# of the squared weights is 0.641, whose root is the factor for each axis.
FINE_NOISE = 0.64
# Frames whose noise and grain are measured; chosen: median and mean are steady enough.
_SAMPLE = 16
# Immerkaer (1996): a plane gives 0, white noise 6 times its standard deviation.
SECOND_DIFFERENCE = np.array([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]])


LOBES = 3
"""Pixels to each side that the Lanczos kernel of the mosaic uses.

After Duchon, J. Appl. Meteorol. 18, 1016 (1979); three are chosen: sharper than two,
with less ringing than four.
"""


def fill_missing_pixels(raw: RealArray) -> tuple[Float32Array, BoolArray]:
    """Fill missing pixels with the nearest valid ones; return image and valid mask."""
    single = raw.astype(np.float32)
    finite = np.isfinite(single)
    if not finite.any():
        return np.zeros_like(single), finite
    if not finite.all():
        single = core.fill_gaps(single, finite)
    return single, finite


_STRIDE = 4  # px; chosen: enough for a quantile


@dataclass(frozen=True, slots=True)
class FrameStack:
    """Stack of frames read by index."""

    read: Callable[[int], RealArray]
    frame_shape: IntPair
    dtype: np.dtype[np.generic]
    count: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the stack, (frames, rows, columns)."""
        return (self.count, *self.frame_shape)

    def __getitem__(self, index: int) -> RealArray:
        return self.read(index)


def rescale_extreme_values(
    scans: Sequence[core.Acquisition],
) -> tuple[list[core.Acquisition], int]:
    """Scale extreme grey values to a normal range, using one factor for all scans.

    Returns the scans, and the power of 2 by which their values are multiplied.
    """
    levels = [0.0]
    for scan in scans:
        if scan.dtype.itemsize <= 2:
            continue
        # chosen: all frames of a scan have the same settings
        for index in choose_evenly_spaced_indices(len(scan), 3):
            frame = scan.read(index)[::_STRIDE, ::_STRIDE]
            magnitudes = np.abs(frame.astype(np.float32))
            magnitudes = magnitudes[np.isfinite(magnitudes)]
            if magnitudes.size:
                levels.append(float(np.quantile(magnitudes, 0.99)))
    level = max(levels)
    # grey values whose fourth powers and their sums float32 can represent, also those
    # of their noise; chosen: frames within this range are not scaled
    if level == 0 or 1e-3 <= level <= 1e6:
        return list(scans), 0
    # chosen: a power between 8 and 16 bits
    power = 10 - math.frexp(level)[1]

    def scale(scan: core.Acquisition) -> core.Acquisition:
        def read(index: int) -> RealArray:  # losslessly, by a power of 2
            return np.ldexp(scan.frames[index].astype(np.float32), power)

        size = scan.frame_shape, np.dtype(np.float32), len(scan)
        return scan.replace(frames=FrameStack(read, *size))

    return [scale(scan) for scan in scans], power


def _apply_low_pass(image: Float32Array, sigma: float) -> Float32Array:
    return np.asarray(
        ndimage.gaussian_filter(image, sigma, mode="constant", truncate=3.0)
    )


def _interpolate_planes(
    planes: tuple[Float32Array, Float32Array, BoolArray], places: FloatArray
) -> tuple[Float32Array, Float32Array, BoolArray]:
    """Sample a frame, its weights and its clipped pixels at positions (2, Y, X)."""
    image, weight, is_clipped = planes
    image = ndimage.map_coordinates(image, places, order=3, mode="nearest")
    if is_clipped.any():
        is_clipped = ndimage.map_coordinates(is_clipped, places, order=0)
    return image, _interpolate_weight(weight, places), is_clipped


def _interpolate_weight(weight: Float32Array, places: FloatArray) -> Float32Array:
    """Interpolate a weight map at positions (2, Y, X)."""
    # a position is valid only if all of its source pixels are
    around = ndimage.minimum_filter(weight, 3, mode="constant")
    weights = ndimage.map_coordinates(around, places, order=1)
    # chosen: less is a remainder of interpolation outside the frame
    return np.where(weights > 0.02, weights, np.float32(0)).astype(np.float32)


class CorrectedFrames:
    """Frames of an acquisition, corrected for shading.

    Corrects `gains` (N,) and `offsets` (N,), in grey values above the dark level, of
    each frame; `rotations` (N, 2), rotation in radians and relative scale minus 1 of
    each frame; and the `distortion` of the field about `centre_px` from the centre of
    the frame (`napari_semsr.core.distort_positions`).
    """

    # Corrected and band-passed frames; chosen: 240 frames of 512 px in float32, with
    # weights and without, so that neighbours in the previous row are still cached;
    # frames of larger scans are corrected again
    cache_bytes = 480 << 20, 256 << 20

    def __init__(
        self,
        acquisition: core.Acquisition,
        flat: FlatField,
        gains: NDArray[np.float64] | None = None,
        rotations: NDArray[np.float64] | None = None,
        distortion: float = 0.0,
        centre_px: FloatPair = (0.0, 0.0),
        offsets: FloatArray | None = None,
    ) -> None:
        self.acquisition = acquisition
        self.flat = flat
        self.gains = np.ones(len(acquisition)) if gains is None else gains
        self.offsets = np.zeros(len(acquisition)) if offsets is None else offsets
        none = np.zeros((len(acquisition), 2))
        self.rotations = none if rotations is None else rotations
        self._inverse = np.where(flat.valid, 1 / np.maximum(flat.flat, 1e-3), 0)
        self._inverse = self._inverse.astype(np.float32)
        self.distortion, self.centre_px = distortion, centre_px
        # inverse variance of a pixel of an unrotated frame of gain 1
        self.weight = flat.weight
        if distortion:
            grid = np.indices(flat.flat.shape, np.float64)
            self._places = self._undistort_positions(grid)
            self.weight = _interpolate_weight(flat.weight, self._places)
        self.root = np.sqrt(self.weight)
        low_passes = (_apply_low_pass(self.weight, s) for s in (_FINE, _COARSE))
        self._low_passes = [np.maximum(plane, 1e-6) for plane in low_passes]
        corrected_bytes, banded_bytes = self.cache_bytes
        self._corrected_cache = core.BoundedCache(corrected_bytes)
        self._banded_cache = core.BoundedCache(banded_bytes)

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Shape of one frame, (rows, columns)."""
        return self.acquisition.frame_shape

    def correct(self, index: int) -> tuple[Float32Array, Float32Array]:
        """Return the corrected frame and its weight map, both (Y, X)."""
        return self.get_planes(index)[:2]

    def find_clipped(self, index: int) -> BoolArray:
        """Return the mask of clipped pixels in a corrected frame."""
        return self.get_planes(index)[2]

    def get_planes(self, index: int) -> tuple[Float32Array, Float32Array, BoolArray]:
        """Return the corrected frame, its weight map and its clipped pixels, (Y, X)."""
        planes: tuple[Float32Array, Float32Array, BoolArray] | None
        planes = self._corrected_cache.get(index)
        if planes is None:
            planes = self._correct_frame(index)
            self._corrected_cache.put(index, planes)
        return planes

    def _correct_frame(
        self, index: int
    ) -> tuple[Float32Array, Float32Array, BoolArray]:
        raw, gain = self.acquisition.read(index), float(self.gains[index])
        brightness = np.float32(gain**2)
        weight = self.flat.weight if gain == 1 else self.flat.weight * brightness
        single, usable = fill_missing_pixels(raw)
        whole = bool(usable.all())
        # chosen: without clipping hardly any pixels of noise have the largest or
        # smallest grey value
        is_clipped = core.mark_clipped_pixels(single, 1e-3)
        if not whole:  # interpolation reaches into holes
            usable = ndimage.minimum_filter(usable, 2 * LOBES + 1, mode="nearest")
            weight = np.where(usable, weight, 0).astype(np.float32)
        single -= np.asarray(self.flat.dark + self.offsets[index], np.float32)
        single *= self._inverse
        if gain != 1:
            single /= np.float32(gain)
        planes = single, weight, is_clipped
        if self.rotations[index].any():
            turn, scale = self.rotations[index]  # about the frame's centre
            matrix = (1 + scale) * np.array(
                [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
            )
            centre = (np.array(self.frame_shape) - 1) / 2
            grid = np.indices(self.frame_shape, np.float64)
            places = np.einsum("ab,byx->ayx", matrix, grid)
            places += (centre - matrix @ centre)[:, None, None]
            return _interpolate_planes(planes, self._undistort_positions(places))
        if not self.distortion:
            return planes
        image, weight, is_clipped = _interpolate_planes(planes, self._places)
        if whole:
            weight = self.weight if gain == 1 else self.weight * brightness
        return image, weight, is_clipped

    def _undistort_positions(self, places: FloatArray) -> FloatArray:
        """Map positions (2, …) in undistorted frames to raw-frame pixels."""
        if not self.distortion:
            return places
        rows, columns = places
        y, x = core.undistort_positions(
            rows, columns, self.frame_shape, self.distortion, centre=self.centre_px
        )
        # positions that no pixel shows are outside the frame
        return np.nan_to_num(np.stack([y, x]), nan=-2.0)

    def compute_raw_positions(self, places: FloatArray) -> FloatArray:
        """Map positions (M, 2) in undistorted frames to raw-frame pixels."""
        return self._undistort_positions(places.T).T

    def compute_stretch(self) -> tuple[Float32Array, Float32Array]:
        """Compute each pixel's y and x displacement per pixel of rim displacement."""
        is_plain = not self.distortion
        places = np.indices(self.frame_shape, np.float64) if is_plain else self._places
        rows, columns = places
        y, x = core.compute_radial_displacement(
            rows, columns, self.frame_shape, centre=self.centre_px
        )
        return y.astype(np.float32), x.astype(np.float32)

    def copy_with_changes(
        self,
        acquisition: core.Acquisition | None = None,
        *,
        rotations: FloatArray | None = None,
        distortion: float | None = None,
        flat: FlatField | None = None,
        gains: FloatArray | None = None,
        offsets: FloatArray | None = None,
    ) -> "CorrectedFrames":
        """Return a copy with other frames, corrections, gains or offsets."""
        return CorrectedFrames(
            self.acquisition if acquisition is None else acquisition,
            self.flat if flat is None else flat,
            self.gains if gains is None else gains,
            self.rotations if rotations is None else rotations,
            self.distortion if distortion is None else distortion,
            self.centre_px,
            self.offsets if offsets is None else offsets,
        )

    @cached_property
    def grain(self) -> float:
        """Typical area of a detail in the band-passed frames, in pixels.

        From the correlation of the squares, minus that of the weight: for normal values
        this is the sum of the squared correlations, for a few grains in noise the area
        of a grain.
        """
        power = np.zeros(self.frame_shape)
        total = max(float(self.weight.sum()), 1e-30)
        for index in choose_evenly_spaced_indices(len(self.acquisition), _SAMPLE):
            square = self.band_pass(index) ** 2
            square = square - self.weight * (float(square.sum()) / total)
            power += np.abs(fft.fft2(square)) ** 2
        likeness = fft.ifft2(power).real
        y, x = (side * np.fft.fftfreq(side) for side in power.shape)
        radius = np.hypot(y[:, None], x)
        ring = np.rint(radius).astype(int).ravel()
        mean = np.bincount(ring, likeness.ravel()) / np.bincount(ring)
        # up to the next detail; the band-pass removes wider ones
        reach = int(np.argmin(mean[: round(3 * _COARSE) + 1]))
        likeness -= mean[reach]
        lobe = float(likeness[radius <= reach].sum())
        return max(lobe / max(float(likeness[0, 0]), 1e-30), 1.0)

    def band_pass(self, index: int) -> Float32Array:
        """Return the band-passed frame (Y, X), normalised to uniform noise variance.

        Gaussian of 0.5 px minus Gaussian of 5 px, by normalised convolution, times the
        root of the weight; 0 outside the field. ``~index`` is that frame rotated by 180
        degrees.
        """
        is_turned, index = index < 0, max(index, ~index)
        cached_band: Float32Array | None = self._banded_cache.get(index)
        if cached_band is not None:
            return cached_band[::-1, ::-1] if is_turned else cached_band
        image, weight, _ = self.get_planes(index)
        product = image * self.weight
        fine, coarse = (
            _apply_low_pass(product, sigma) / low_pass
            for sigma, low_pass in zip((_FINE, _COARSE), self._low_passes, strict=True)
        )
        band = ((fine - coarse) * self.root).astype(np.float32)
        # for a single grey value, rounding of float32 in both filters leaves the same
        # pattern in every frame
        band[(weight == 0) | (np.abs(fine - coarse) <= 1e-6 * np.abs(coarse))] = 0
        self._banded_cache.put(index, band)
        return band[::-1, ::-1] if is_turned else band

    def reduce_frame(self, index: int, factor: int) -> Float32Array:
        """Return the downsampled band-passed frame, (Y // factor, X // factor)."""
        image, weight = self.correct(index)
        small, small_weight = (
            core.reshape_into_blocks(plane, factor).mean(axis=(1, 3))
            for plane in (image * weight, weight)
        )
        total = np.maximum(_apply_low_pass(small_weight, _COARSE), 1e-6)
        level = _apply_low_pass(small, _COARSE) / total
        own = small / np.maximum(small_weight, 1e-6)
        band = (own - level) * np.sqrt(small_weight)
        return np.where(small_weight > 0, band, np.float32(0))


def estimate_noise(frames: CorrectedFrames) -> float:
    """Estimate the pixel noise of the raw frames.

    The median over some frames of the robust scatter of mixed second differences, which
    a smooth image hardly has (Immerkaer, Comput. Vis. Image Underst. 64, 300 (1996),
    doi:10.1006/cviu.1996.0060).
    """
    inside = ndimage.binary_erosion(frames.flat.valid, np.ones((3, 3)))
    levels = []
    for index in choose_evenly_spaced_indices(len(frames.acquisition), _SAMPLE):
        frame = frames.acquisition.read(index).astype(np.float32)
        smooth = ndimage.convolve(frame, SECOND_DIFFERENCE, mode="nearest")[inside]
        levels.append(1.4826 * np.nanmedian(np.abs(smooth)) / 6)
    return max(float(np.median(levels)), 1e-9)


def compute_band_noise(noise: float) -> float:
    """Return the noise power per pixel of the band-passed frames."""
    return (FINE_NOISE * noise) ** 2
