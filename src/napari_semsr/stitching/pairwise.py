"""Candidate shifts between two frames, scored on their actual overlap.

Shifts are ``position[second] - position[first]`` in whole pixels: the pixel ``x`` of
the second frame shows what ``x + shift`` of the first one shows. The correlation is
computed on the expected overlap enlarged by the reach of the search, and divided by its
standard deviation for unrelated frames, so that a small true overlap can win against a
large wrong one. Its best peaks are then compared by the weighted correlation
coefficient on exactly the pixels that would overlap.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from napari_semsr.core import BoundedCache, Box, Float32Array, FloatArray, IntPair
from napari_semsr.stitching.frames import CorrectedFrames

PEAK_PX = 3
"""Radius in px around a peak without a higher value; closer peaks refine to the same
shift.
"""
_MIN_SIDE = 8  # px; chosen: a narrower overlap is only rim of the band-pass
# Chosen: by chance the coefficient of such an overlap has a scatter of 0.09 = sqrt(3 /
# 400).
_MIN_PIXELS = 400
_MAX_NCC = 0.999  # chosen: frames of hardly any noise would be infinite evidence
_NORMAL = 3.0  # fourth moment of normal values; a single grain counts as much
# Reach of a search as a share of a frame: the first, and the last, to which it is
# doubled while too few frames are placed; and at least 16 px, from which the shift at
# which the pixels of both frames coincide is excluded, as camera dust fits there.
# Chosen: time and chance grow with it; the trials on eight simulated scans searched
# four times the stage error.
FIRST_REACH, LAST_REACH, MIN_REACH = 0.1, 0.4, 16
# Area in pixels of a band-passed noise grain. White noise has 1.3, the sum of its
# squared correlations; chosen larger, as detail is coarser than noise. It scales all
# weights equally.
NOISE_AREA = 3.0


def compute_reach(frame_shape: IntPair, share: float = FIRST_REACH) -> IntPair:
    """Compute the reach of a search along both axes; `share` of the frame's sides."""
    rows, columns = frame_shape
    return max(MIN_REACH, round(share * rows)), max(MIN_REACH, round(share * columns))


@dataclass(frozen=True, slots=True)
class FramePair:
    """Two frames, by their indices."""

    first: int
    second: int

    @property
    def pair(self) -> IntPair:
        """Both indices."""
        return self.first, self.second


@dataclass(frozen=True, slots=True)
class Candidates(FramePair):
    """Possible shifts between two frames, best first."""

    shifts: NDArray[np.int64]  # (K, 2) position of the second minus that of the first
    ncc: NDArray[np.float64]  # (K,) weighted correlation coefficient on the overlap
    # (K,) the same as a normal deviate of equal probability
    score: NDArray[np.float64]
    # (K,) the same in standard deviations of unrelated noise: the weight in a layout
    weight: NDArray[np.float64]
    # if shifts all along a line fit as well: the one nearest to nominal, and an end
    along: tuple[IntPair, ...] = ()

    @property
    def best_score(self) -> float:
        """Score of the best shift; 0 if there is none."""
        return float(self.score[0]) if len(self.score) else 0.0


def compute_overlap_boxes(
    shape: IntPair, shift: IntPair, grow: IntPair = (0, 0)
) -> tuple[Box, Box] | None:
    """Return the overlap boxes of two frames, extended within each frame."""
    frame, other_frame = Box.from_shape(shape), Box.from_shape(shape, shift)
    common = frame.intersection(other_frame).grow(grow)
    if not (common.overlaps(frame) and common.overlaps(other_frame)):
        return None
    inner = common.intersection(other_frame).relative_to(other_frame)
    return common.intersection(frame), inner


def compute_rounded_shift(positions: FloatArray, pair: IntPair) -> IntPair:
    """Return a pair's rounded shift, second minus first; `positions` (N, 2)."""
    shift = np.round(positions[pair[1]] - positions[pair[0]])
    return int(shift[0]), int(shift[1])


@dataclass(frozen=True, slots=True)
class CorrelationSurface:
    """Correlation of two frames over a range of shifts."""

    # (H, W) sum of products; 0 where the overlap would be too small
    cross: Float32Array
    # (H, W) its variance for unrelated frames
    variance: Float32Array
    origin: IntPair  # shift of the first element

    @property
    def score(self) -> Float32Array:
        """Correlation in standard deviations of unrelated noise."""
        # chosen: in tiny overlaps the variance of chance is not defined
        floor = max(0.02 * float(self.variance.max(initial=0.0)), 1e-30)
        spread = np.sqrt(np.maximum(self.variance, floor))
        return (self.cross / spread).astype(np.float32)

    def compute_height(self, shape: IntPair) -> FloatArray:
        """Return the score divided by the square root of the overlap area.

        `shape` of the frames.
        """
        sides = zip(shape, self.origin, self.cross.shape, strict=True)
        common = [
            np.maximum(side - np.abs(first + np.arange(size)), 1)
            for side, first, size in sides
        ]
        return np.asarray(self.score / np.sqrt(np.outer(*common)))

    def find_ridge(
        self, best: IntPair, nominal: IntPair, shape: IntPair
    ) -> tuple[IntPair, ...]:
        """Find two shifts on a ridge: the one closest to nominal and the far end."""
        start = np.array(self.origin)
        y, x = np.array(best) - start
        height = self.compute_height(shape)
        # an overlap fits all along a line, as of parallel edges, if the correlation
        # keeps this share of its best over half of the search; chosen: there a peak is
        # some pixels wide
        ridges, _ = ndimage.label(height >= 0.9 * height[y, x], np.ones((3, 3)))
        rows, columns = ridges.shape
        long = [
            label
            for label, (y, x) in enumerate(ndimage.find_objects(ridges), 1)
            if 2 * (y.stop - y.start) > rows or 2 * (x.stop - x.start) > columns
        ]
        places = np.argwhere(np.isin(ridges, long))
        if not len(places):
            return ()
        nearest = places[np.argmin(np.hypot(*(places + start - nominal).T))]
        places = np.argwhere(ridges == ridges[tuple(nearest)])
        end = places[np.argmax(np.hypot(*(places - nearest).T))]
        return tuple((int(y), int(x)) for y, x in (nearest + start, end + start))


def correlate_frames(
    frames: CorrectedFrames, pair: IntPair, nominal: IntPair, reach: IntPair
) -> CorrelationSurface | None:
    """Correlate two frames over all shifts within a search range."""
    boxes = compute_overlap_boxes(frames.frame_shape, nominal, reach)
    if boxes is None:
        return None
    first, second = (
        frames.band_pass(index)[box.slices]
        for index, box in zip(pair, boxes, strict=True)
    )
    # lag l pairs first[x + l] with second[x]; the boxes have different origins
    origin = (nominal[0] - reach[0], nominal[1] - reach[1])
    start = (np.array(origin) - boxes[0].corner + boxes[1].corner).tolist()
    size = []
    for a, b, s, r in zip(first.shape, second.shape, start, reach, strict=True):
        least, most = -(b - 1), a - 1
        low, high = max(s, least), min(s + 2 * r, most)
        # lag l also receives l + n and l - n: keep those outside the possible lags
        length = max(a, b, high - least + 1, most - low + 1)
        size.append(fft.next_fast_len(length, real=True))
    spectra = [fft.rfft2(part, s=size) for part in (first, second, first**2, second**2)]
    product = np.stack([spectra[0] * spectra[1].conj(), spectra[2] * spectra[3].conj()])
    lags = fft.irfft2(product, s=size)
    rows = (start[0] + np.arange(2 * reach[0] + 1)) % size[0]
    columns = (start[1] + np.arange(2 * reach[1] + 1)) % size[1]
    cross, variance = lags[:, rows[:, None], columns[None]]
    # only shifts with a sufficient overlap
    sides = zip(frames.frame_shape, origin, cross.shape, strict=True)
    tall, wide = (
        np.maximum(side - np.abs(least + np.arange(count)), 0)
        for side, least, count in sides
    )
    is_possible = (tall >= _MIN_SIDE)[:, None] & (wide >= _MIN_SIDE)[None]
    is_possible &= np.outer(tall, wide) >= _MIN_PIXELS
    cross = np.where(is_possible, cross, 0)
    return CorrelationSurface(cross, np.maximum(variance, 0), origin)


def find_highest_peaks(
    score: FloatArray | Float32Array, least: float | None
) -> list[IntPair]:
    """Find the highest distinct peaks of a surface `score` (H, W).

    All above `least`, if it is given.
    """
    # a shoulder of a broad peak is not a peak
    around = ndimage.maximum_filter(score, 2 * PEAK_PX + 1, mode="constant")
    rows, columns = np.nonzero((score >= around) & (score > 0))
    heights = score[rows, columns]
    if least is not None:
        above = heights > least
        rows, columns, heights = rows[above], columns[above], heights[above]
    order = np.argsort(-heights, kind="stable")
    if not len(order):
        return []
    if least is not None:
        return list(zip(rows[order].tolist(), columns[order].tolist(), strict=True))
    order = order[:40]
    high = int((heights[order] >= 0.5 * heights[order[0]]).sum())
    # five peaks as in the recorded trials. On a lattice each period has one: those of
    # at least half of the highest, forty at most, are kept; both are chosen, each peak
    # costs one comparison of the overlap
    peaks = order[: max(5, high)]
    return [(int(rows[k]), int(columns[k])) for k in peaks]


def compute_correlation(
    frames: CorrectedFrames, pair: IntPair, shift: IntPair
) -> tuple[float, float, float]:
    """Compute the correlation, score and weight of two frames at one shift."""
    return compute_joint_correlation(frames, [(pair, shift)])


def compute_joint_correlation(
    frames: CorrectedFrames, overlaps: Sequence[tuple[IntPair, IntPair]]
) -> tuple[float, float, float]:
    """Compute the joint correlation of several pairs, each at a given shift.

    Returns the correlation coefficient, a score, and a weight. The weight counts all
    pixels of the overlaps, the score only those with detail: the number of normal
    values with the same fourth moments. For n unrelated details the coefficient exceeds
    r with a probability of about (1 - r^2)^(n / 2); a single one, which fits any other,
    is not counted.
    """
    count, cross = 0, 0.0
    # sums of squares and of fourth powers of the weights and the frames
    weights, powers, peaks = np.zeros(2), np.zeros(2), np.zeros(2)
    root = frames.root
    for pair, shift in overlaps:
        boxes = compute_overlap_boxes(frames.frame_shape, shift)
        if boxes is None:
            continue
        one, two = boxes
        common = root[one.slices] * root[two.slices]
        mask = common > 0
        count += int(np.count_nonzero(mask))
        first, second = (
            frames.band_pass(index)[box.slices] * mask
            for index, box in zip(pair, boxes, strict=True)
        )
        cross += float(np.vdot(first, second))
        powers += np.vdot(first, first), np.vdot(second, second)
        peaks += np.vdot(first**2, first**2), np.vdot(second**2, second**2)
        weight = common[mask]
        weights += weight.sum(), np.vdot(weight, weight)
    power = float(np.prod(powers))
    if count < _MIN_PIXELS or power <= 0:
        return 0.0, 0.0, 0.0
    ncc = cross / np.sqrt(power)
    every = float(weights[0] ** 2 / weights[1])
    pixels = min(every, _NORMAL * power / np.sqrt(float(np.prod(peaks))))
    details = max(pixels / frames.grain - _NORMAL, 0.0)
    clipped_ncc = float(np.clip(ncc, -_MAX_NCC, _MAX_NCC))
    score = np.sqrt(details * -np.log1p(-(clipped_ncc**2)))
    weight_all = np.arctanh(clipped_ncc) * np.sqrt(every / NOISE_AREA)
    return ncc, float(np.copysign(score, ncc)), float(weight_all)


def compute_overlap_sums(
    frames: CorrectedFrames, pair: IntPair, shift: IntPair
) -> tuple[float, float, int] | None:
    """Sum products and squares over the overlap of two frames, and count its pixels.

    The sum of squares is the mean of both frames; None without overlap.
    """
    boxes = compute_overlap_boxes(frames.frame_shape, shift)
    if boxes is None:
        return None
    one, two = boxes[0].slices, boxes[1].slices
    mask = (frames.root[one] > 0) & (frames.root[two] > 0)
    first, second = (
        frames.band_pass(index)[part] * mask
        for index, part in zip(pair, (one, two), strict=True)
    )
    count = int(np.count_nonzero(mask))
    if not count:
        return None
    power = float(np.vdot(first, first)) + float(np.vdot(second, second))
    return float(np.vdot(first, second)), power / 2, count


def compute_shared_fraction(
    common: FloatArray, power: FloatArray, pixels: FloatArray, noise: float
) -> FloatArray:
    """Return the shared fraction of detail above noise, NaN for too little detail."""
    detail = power - pixels * noise
    doubt = noise * np.sqrt(2 * NOISE_AREA * np.maximum(pixels, 1))
    # chosen: six standard deviations, so that a blank frame is not tested
    evident = detail > np.maximum(6.0 * doubt, 1e-12)
    return np.where(evident, common / np.maximum(detail, 1e-12), float("nan"))


def search_shifts(
    frames: CorrectedFrames,
    pair: IntPair,
    nominal: IntPair,
    reach: IntPair,
    least: float | None = None,
) -> Candidates:
    """Find possible shifts of two frames with scores above `least`.

    Without `least`, the best shift and those nearly as good.
    """
    scores = correlate_frames(frames, pair, nominal, reach)
    shifts: list[IntPair] = []
    along: tuple[IntPair, ...] = ()
    floor = None if least is None else least * np.sqrt(frames.grain)
    if scores is not None:
        y0, x0 = scores.origin
        peaks = find_highest_peaks(scores.score, floor)
        if peaks and least is None:
            # the next period of a large overlap hides that of a small one
            height = scores.compute_height(frames.frame_shape)
            # as for the coefficients of rivals in `layout`
            alike = 0.7 * height[peaks[0]]
            peaks += [
                peak
                for peak in find_highest_peaks(height, alike)
                if min(max(abs(peak[0] - y), abs(peak[1] - x)) for y, x in peaks)
                > PEAK_PX
            ]
        shifts = [(y + y0, x + x0) for y, x in peaks]
        if np.abs(nominal).max() >= MIN_REACH:
            still = 2 * np.sqrt(frames.grain / np.pi)  # width of the peak of dust
            shifts = [s for s in shifts if np.hypot(*s) > still]
        if shifts:
            along = scores.find_ridge(shifts[0], nominal, frames.frame_shape)
    coefficients = [compute_correlation(frames, pair, shift) for shift in shifts]
    ncc, score, weight = np.array(coefficients).reshape(-1, 3).T
    # chosen: with less of the best coefficient, it is not a ridge
    lowest = 0.7 * ncc.max(initial=0.0)
    if any(compute_correlation(frames, pair, shift)[0] < lowest for shift in along):
        along = ()  # a dip of the variance looked like a ridge
    order = np.argsort(-score, kind="stable")
    places = np.array(shifts, dtype=np.int64).reshape(-1, 2)
    values = (ncc[order], score[order], weight[order])
    return Candidates(*pair, places[order], *values, along)


# Frames smoothed, shifted by a fraction of a pixel, and differentiated, in one kernel.


def _compute_smoothing_kernels(
    sigma: float, part: float
) -> tuple[FloatArray, FloatArray]:
    """Sample a Gaussian and its derivative, normalised to unit slope on a ramp."""
    radius = int(np.ceil(3.6 * sigma)) + 1
    place = np.arange(-radius, radius + 1) + part
    smooth = np.exp(-0.5 * (place / sigma) ** 2)
    smooth /= smooth.sum()
    slope = -place / sigma**2 * smooth
    slope -= slope.sum() * smooth
    slope /= -(slope * np.arange(-radius, radius + 1)).sum()
    return smooth, -slope


def resample_frame(
    image: Float32Array, part: tuple[float, float], sigma: float
) -> tuple[Float32Array, Float32Array, Float32Array]:
    """Smooth a frame (Y, X), apply a sub-pixel shift, and compute its gradient."""
    (smooth_y, slope_y), (smooth_x, slope_x) = (
        _compute_smoothing_kernels(sigma, p) for p in part
    )
    rows = ndimage.correlate1d(image, smooth_y, axis=0, mode="nearest")
    steep = ndimage.correlate1d(image, slope_y, axis=0, mode="nearest")
    return (
        ndimage.correlate1d(rows, smooth_x, axis=1, mode="nearest"),
        ndimage.correlate1d(steep, smooth_x, axis=1, mode="nearest"),
        ndimage.correlate1d(rows, slope_x, axis=1, mode="nearest"),
    )


class ResampledFrames:
    """Gaussian-smoothed frames on the mosaic grid, computed on request."""

    # chosen: 64 frames of 512 px with weights and slopes, more than two rows of a scan
    cache_bytes = 256 << 20

    def __init__(
        self,
        frames: CorrectedFrames,
        positions: FloatArray,
        sigma: float,
        *,
        slopes: bool = True,
    ) -> None:
        self.frames = frames
        self.sigma = sigma
        self.slopes = slopes
        self.corners = np.where(np.isfinite(positions), np.round(positions), 0)
        self.corners = self.corners.astype(np.int64)
        self.parts = np.nan_to_num(positions - self.corners)
        self.margin = int(np.ceil(2.0 * sigma)) + 1
        # light mask of one frame, shared by most others, and its inner part
        self._inside: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None
        self._cache = BoundedCache(self.cache_bytes)

    def get_planes(self, index: int) -> tuple[Float32Array, ...]:
        """Return weight, grey values and, optionally, y and x slopes, each (Y, X)."""
        planes: tuple[Float32Array, ...] | None = self._cache.get(index)
        if planes is not None:
            return planes
        image, weight, _ = self.frames.get_planes(index)
        outside = weight <= 0
        if outside.any():  # fill the outside with the mean level of the inside
            total = float(weight.sum())
            level = float((image * weight).sum()) / total if total else 0.0
            image = np.where(outside, np.float32(level), image)
        y, x = self.parts[index].tolist()
        # without the rim that smoothing affects
        mask, mask_pair = weight > 0, self._inside
        if mask_pair is None or not np.array_equal(mask_pair[0], mask):
            side = 2 * self.margin + 1
            least = ndimage.minimum_filter(mask.astype(np.uint8), side, mode="constant")
            mask_pair = self._inside = mask, np.asarray(least > 0)
        weight = np.where(mask_pair[1], weight, np.float32(0))
        if self.slopes:
            planes = weight, *resample_frame(image, (y, x), self.sigma)
        else:
            for axis, part in enumerate((y, x)):
                smooth, _ = _compute_smoothing_kernels(self.sigma, part)
                image = ndimage.correlate1d(image, smooth, axis=axis, mode="nearest")
            planes = weight, image
        self._cache.put(index, planes)
        return planes

    def get_overlap_boxes(self, first: int, second: int) -> tuple[Box, Box] | None:
        """Return the overlapping boxes of two frames."""
        shift = compute_rounded_shift(self.corners, (first, second))
        return compute_overlap_boxes(self.frames.frame_shape, shift)
