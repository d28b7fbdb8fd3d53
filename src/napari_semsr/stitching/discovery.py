"""Likely grids, and placement of frames from image content alone.

Every pair is correlated at low resolution, and its best peaks are refined. Starting
from the surest shift, a frame is added where most shifts place it, but only if it then
agrees with all frames that it would overlap: a chance match of one pair contradicts the
others.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from napari_semsr import core
from napari_semsr.stitching.frames import CorrectedFrames
from napari_semsr.stitching.layout import Overlap, fit_positions
from napari_semsr.stitching.pairwise import (
    NOISE_AREA,
    compute_overlap_boxes,
    compute_rounded_shift,
    search_shifts,
)

# Likely acquisition grids, inferred from overlaps between frames.
#
# In the right grid most neighbours along an axis are one step apart. For each grid with
# as many cells as frames, the step is the one on which most matches along each axis
# agree; the grid that explains most matches comes first.


# Steps of 12 to 98 % of a frame are searched, within 15 % of the axis; chosen.
MIN_STEP, MAX_STEP, ASIDE = 0.12, 0.98, 0.15
_SAME_STEP = 0.06  # share of the longer side; chosen: twice a stage error of 3 %
# Neighbours that must be one step apart; chosen: two may be by chance.
_FEWEST = 3
_AS_LIKELY = 0.6  # share of the best one's matches; chosen: others are not worth a try
_MOST = 3  # chosen: a question needs few answers


@dataclass(frozen=True, slots=True)
class LikelyGrid:
    """Possible acquisition grid of the frames."""

    grid: core.IntPair  # Rows and columns
    order: core.FrameOrder
    first: core.FirstFrame  # corner of the first frame
    neighbours: int  # pairs of neighbours that match in this grid
    of: int  # all pairs of neighbours

    def __str__(self) -> str:
        rows, columns = self.grid
        return f"{rows}x{columns}, order {self.order}, first {self.first}"

    def to_json(self) -> dict[str, object]:
        """Return the fields as JSON-compatible values."""
        return asdict(self)


class UnplacedFramesError(core.RegistrationError):
    """Error for frames that cannot be placed from their images alone.

    `grids` are those that fit the overlaps, the most likely first.
    """

    def __init__(
        self, message: str, grids: Sequence[LikelyGrid], code: str | None = None
    ) -> None:
        super().__init__(message + describe_grids(grids), code=code)
        self.grids = tuple(grids)

    def to_json(self) -> dict[str, object]:
        """Return the likely grids as JSON-compatible values."""
        return {"likely_grids": [item.to_json() for item in self.grids]}


def describe_grids(grids: Sequence[LikelyGrid]) -> str:
    """Return a sentence describing the best grid, to append to a message."""
    if not grids:
        return ""
    return f" The grid that fits the overlaps best is {grids[0]}."


def find_likely_grids(
    acquisition: core.Acquisition, joints: "Sequence[Overlap]"
) -> tuple[LikelyGrid, ...]:
    """Find grids, other than the scan's own, that fit the matched pairs best."""
    grids: list[tuple[float, LikelyGrid]] = []
    for slots in acquisition.slots or (acquisition.names,):
        numbers = [slots.index(n) if n in slots else -1 for n in acquisition.names]
        for grid, order, first in _list_grids(len(slots)):
            cells = core.compute_grid_cells(len(slots), grid, order, first)
            axes = [
                _weigh_axis_matches(acquisition, cells, numbers, joints, k)
                for k in range(2)
            ]
            weight, fits, pairs = map(sum, zip(*axes, strict=True))
            if fits >= _FEWEST:
                grids.append((weight, LikelyGrid(grid, order, first, fits, pairs)))
    grids.sort(key=lambda item: -item[0])
    least = _AS_LIKELY * grids[0][0] if grids else 0.0
    likely = dict.fromkeys(item for weight, item in grids if weight >= least)
    own = acquisition.grid, acquisition.order, acquisition.first
    likeliest = [((item.grid, item.order, item.first), item) for item in likely][:_MOST]
    if likeliest and likeliest[0][0] == own:
        return ()  # the overlaps support the scan's own grid
    return tuple(item for name, item in likeliest if name != own)


def _list_grids(
    count: int,
) -> Iterator[tuple[core.IntPair, core.FrameOrder, core.FirstFrame]]:
    """Yield all grids with `count` frames; a single line has only one order."""
    for rows in range(1, count + 1):
        if count % rows:
            continue
        for first in get_args(core.FirstFrame):
            is_other_end = (rows == 1 and first.startswith("bottom")) or (
                rows == count and first.endswith("right")
            )
            orders = get_args(core.FrameOrder)[: 1 if rows in (1, count) else None]
            for order in () if is_other_end else orders:
                yield (rows, count // rows), order, first


def _weigh_axis_matches(
    acquisition: core.Acquisition,
    cells: NDArray[np.int64],
    numbers: Sequence[int],
    joints: "Sequence[Overlap]",
    axis: int,
) -> tuple[float, int, int]:
    """Sum the weights of neighbour matches that agree on one step along an axis.

    `numbers`: index of each frame in the cells, -1 for none. Returns the weight, the
    number of agreeing pairs, and of all pairs.
    """
    side = np.array(acquisition.frame_shape)
    cell = {k: tuple(cells[n]) for k, n in enumerate(numbers) if n >= 0}
    step = (1, 0) if axis == 0 else (0, 1)
    there = set(cell.values())
    pairs = sum((r + step[0], c + step[1]) in there for r, c in there)
    shifts, weights, which = [], [], []
    for joint in joints:
        if joint.first not in cell or joint.second not in cell:
            continue
        apart = np.subtract(cell[joint.second], cell[joint.first])
        sign = int(apart.sum())
        if abs(sign) != 1 or not apart[axis]:
            continue
        shift = sign * np.array(joint.shift) / side
        if MIN_STEP <= shift[axis] <= MAX_STEP and abs(shift[1 - axis]) <= ASIDE:
            shifts.append(shift * side)
            weights.append(joint.weight)
            which.append(joint.pair)
    best, steps = (0.0, 0), np.array(shifts)
    for shift in steps:
        agrees = np.abs(steps - shift).max(axis=1) <= _SAME_STEP * side.max()
        heaviest: dict[core.IntPair, float] = {}  # only the best match of a pair counts
        for k in np.flatnonzero(agrees).tolist():
            heaviest[which[k]] = max(heaviest.get(which[k], 0.0), weights[k])
        best = max(best, (sum(heaviest.values()), len(heaviest)))
    return *best, pairs


# Whether each placed frame shows what its neighbours show.
#
# Where two frames overlap, their band-passed images have a common part and noise. The
# noise is estimated from the differences of most pairs; the rest of their power must
# also be in their product. A frame of another sample, or in a wrong position, has
# detail beyond its noise that none of its neighbours shows.

# `benchmarks/stitching.py --bad 0.05`: frames in the right position share 0.86 and
# more, foreign ones at most 0.06; chosen between.
_MIN_SHARE = 0.4
_EVIDENT = 6.0  # standard deviations of noise; chosen: a blank frame is not tested
_TINY = 1e-12  # chosen: only to avoid division by zero


@dataclass(frozen=True, slots=True)
class Agreement:
    """Fraction of image detail shared by overlapping frames."""

    pairs: NDArray[np.int64]  # (M, 2) frames of each pair
    common: core.FloatArray  # (M,) Sum of products over the overlap
    power: core.FloatArray  # (M,) mean of both sums of squares
    pixels: core.FloatArray  # (M,) Pixels of the overlap
    most_noise: float = float("inf")  # upper bound of the noise power of a pixel

    @classmethod
    def measure(
        cls,
        corrected_frames: CorrectedFrames,
        positions: core.FloatArray,
        pairs: Sequence[core.IntPair],
        most_noise: float = float("inf"),
    ) -> "Agreement":
        """Compare overlapping frames at their current `positions` (N, 2)."""
        pairs_in_use, sums = [], []
        for pair in pairs:
            shift = compute_rounded_shift(positions, pair)
            sums_of_pair = _compute_overlap_sums(corrected_frames, pair, shift)
            if sums_of_pair is not None:
                pairs_in_use.append(pair)
                sums.append(sums_of_pair)
        common, power, pixels = np.array(sums, dtype=float).reshape(-1, 3).T
        frames = np.array(pairs_in_use, dtype=np.int64).reshape(-1, 2)
        return cls(frames, common, power, pixels, most_noise)

    @property
    def noise(self) -> float:
        """Noise power per pixel, estimated as the median residual of all pairs."""
        left = (self.power - self.common) / np.maximum(self.pixels, 1)
        return min(float(np.median(left)) if len(left) else 0.0, self.most_noise)

    def compute_fractions(
        self, count: int, without: Sequence[int] = ()
    ) -> core.FloatArray:
        """Return the (N,) fractions of each frame's detail shared by its neighbours."""
        is_asked = ~np.isin(self.pairs, np.array(without, dtype=np.int64)).any(axis=1)
        common, power, pixels = np.zeros((3, count))
        for column in range(2):
            frame = self.pairs[is_asked, column]
            np.add.at(common, frame, self.common[is_asked])
            np.add.at(power, frame, self.power[is_asked])
            np.add.at(pixels, frame, self.pixels[is_asked])
        return _compute_shared_fraction(common, power, pixels, self.noise)

    def find_misfits(self, count: int) -> list[int]:
        """Return the frames whose detail is missing from their neighbours."""
        misfit_frames: list[int] = []
        while True:
            share = self.compute_fractions(count, misfit_frames)
            share[misfit_frames] = np.nan
            if not np.isfinite(share).any():
                return misfit_frames
            worst = int(np.nanargmin(share))
            if share[worst] >= _MIN_SHARE:
                return misfit_frames
            misfit_frames.append(worst)


def _compute_shared_fraction(
    common: core.FloatArray,
    power: core.FloatArray,
    pixels: core.FloatArray,
    noise: float,
) -> core.FloatArray:
    """Return the shared fraction of detail above noise, NaN for too little detail."""
    detail = power - pixels * noise
    doubt = noise * np.sqrt(2 * NOISE_AREA * np.maximum(pixels, 1))
    evident = detail > np.maximum(_EVIDENT * doubt, _TINY)
    return np.where(evident, common / np.maximum(detail, _TINY), float("nan"))


def _compute_overlap_sums(
    frames: CorrectedFrames, pair: core.IntPair, shift: core.IntPair
) -> tuple[float, float, int] | None:
    """Sum products and squares over the overlap of two frames, and count its pixels.

    The sum of squares is the mean of both frames; None without overlap.
    """
    boxes = compute_overlap_boxes(frames.frame_shape, shift)
    if boxes is None:
        return None
    one, two = boxes[0].slices, boxes[1].slices
    first, second = frames.band_pass(pair[0])[one], frames.band_pass(pair[1])[two]
    count = first.size
    if not frames.root.all():
        mask = (frames.root[one] > 0) & (frames.root[two] > 0)
        count = int(np.count_nonzero(mask))
        first, second = first * mask, second * mask
    if not count:
        return None
    power = float(np.vdot(first, first)) + float(np.vdot(second, second))
    return float(np.vdot(first, second)), power / 2, count


Spectra = list[NDArray[np.complex64]]
Judge = Callable[[int, core.FloatArray, core.FloatArray], float]

_SMALL_SIDE = 96  # px; chosen: every pair is correlated, finer detail than 2 px is lost
_PEAKS = 4  # refined peaks of a pair; chosen: time against missing the true one
# Pairs of large frames and of small ones; chosen: up to this number all peaks are
# refined, above it only the highest.
_FEW_PAIRS, _FEW_SMALL_PAIRS = 150, 400
_APART = 5  # px of the small image; chosen: less is one peak
_CANDIDATE = 3.5  # score; chosen low: an added frame must agree with all overlaps
_SURE = 6.0  # score; the largest of ten million normal deviates is 5.2
_STRONG = 50.0  # score; chosen as in the layout: above it, certainty no longer grows
_AGREE = 0.75  # share of the strong matches; chosen: the rest may be foreign frames
# Shares of its detail that a frame must have in common to be added, with and without a
# strong match; chosen in the gap between 0.06 and 0.86 (see above), near its ends.
_MIN_COMMON, _MIN_COMMON_ALONE = 0.55, 0.8
_SAME = 4.0  # px; chosen: proposals from poor overlaps differ by as much
_SEEDS = 6  # starts; chosen: each costs as much as the whole layout
_STILL_PX = 2.0  # chosen: a stage step is larger than the width of a peak
_MIN_PIXELS = 300  # px of an overlap; chosen: in smaller ones noise dominates


def discover_positions(
    frames: CorrectedFrames, joints: Sequence[Overlap], noise: float
) -> core.FloatArray:
    """Find approximate positions when neither positions nor a grid is known.

    `joints`: from `match_frames`; `noise`: noise power of a band-passed pixel.
    Positions are top-left corners in px, (N, 2), NaN for frames that do not fit the
    largest group.
    """
    count = len(frames.acquisition)
    places = grow_layout(count, joints, partial(_compute_shared_detail, frames, noise))
    if not np.isfinite(places).any():
        msg = (
            f"{count} frames without positions must overlap to be placed, but no two "
            "of them match: pass positions or a grid."
        )
        raise UnplacedFramesError(
            msg, find_likely_grids(frames.acquisition, joints), code="no-overlap"
        )
    agreeing = []
    for joint in joints:
        apart = places[joint.second] - places[joint.first] - joint.shift
        if np.abs(apart).max() < 2 * _SAME:
            agreeing.append(joint)
    sure = [joint for joint in agreeing if joint.weight >= _SURE]
    strong = [
        joint
        for joint in joints
        if joint.weight >= _SURE and np.isfinite(places[[*joint.pair], 0]).any()
    ]
    if 2 * sum(np.abs(joint.shift).max() < _STILL_PX for joint in strong) > len(strong):
        msg = (
            "Frames match best at zero shift because they all show the same dust, "
            "scratch or data bar: pass positions or a grid, and a flat-field image "
            "that contains it."
        )
        raise UnplacedFramesError(msg, (), code="fixed-pattern")
    if len(sure) < _AGREE * len(strong):
        msg = (
            "Frames without positions need detail that does not repeat, but only "
            f"{len(sure)} of {len(strong)} strong matches between them agree: pass "
            "positions or a grid."
        )
        raise UnplacedFramesError(
            msg, find_likely_grids(frames.acquisition, joints), code="ambiguous"
        )
    weights = np.array([joint.weight for joint in agreeing])
    solution = fit_positions(count, agreeing, weights, places)
    return np.where(np.isfinite(places), solution, np.nan)


def _compute_shared_detail(
    frames: CorrectedFrames,
    noise: float,
    index: int,
    place: core.FloatArray,
    positions: core.FloatArray,
) -> float:
    """Return the fraction of a frame's detail shared with placed frames, 0 if none."""
    total = np.zeros(3)
    for other in np.flatnonzero(np.isfinite(positions[:, 0])):
        y, x = np.round(place - positions[other]).astype(int).tolist()
        overlap = _compute_overlap_sums(frames, (int(other), index), (y, x))
        if overlap is not None and overlap[2] >= _MIN_PIXELS:
            total += overlap
    common, power, pixels = total[:, None]
    share = _compute_shared_fraction(common, power, pixels, noise)
    return float(np.nan_to_num(share)[0])


def grow_layout(count: int, joints: Sequence[Overlap], judge: Judge) -> core.FloatArray:
    """Compute (N, 2) positions by adding frames that agree with all earlier ones."""
    best = np.full((count, 2), np.nan)
    trial_count = 0
    for seed in sorted(joints, key=lambda joint: -joint.weight):
        if trial_count == _SEEDS or seed.weight < _SURE:
            break
        if np.isfinite(best[[*seed.pair]]).all():
            continue
        trial_count += 1
        positions = np.full((count, 2), np.nan)
        positions[seed.first] = 0.0
        if judge(seed.second, np.array(seed.shift), positions) < _MIN_COMMON:
            continue
        positions[seed.second] = seed.shift
        positions = _place_more_frames(joints, judge, positions)
        if np.isfinite(positions).sum() > np.isfinite(best).sum():
            best = positions
        if np.isfinite(best).all():
            break
    return best


def _place_more_frames(
    joints: Sequence[Overlap],
    judge: Judge,
    positions: core.FloatArray,
    least: float = _MIN_COMMON,
) -> core.FloatArray:
    """Place further frames that match those already placed in `positions` (N, 2).

    `least`: share of common detail that a frame with a strong match needs.
    """
    refusals: set[tuple[int, int, int]] = set()
    while True:
        for support, index, place in _propose_positions(joints, positions):
            key = (index, round(place[0]), round(place[1]))
            if key in refusals:
                continue
            least_share = least if support >= _SURE else _MIN_COMMON_ALONE
            if judge(index, place, positions) >= least_share:
                positions[index] = place
                break
            refusals.add(key)
        else:
            return positions


def _propose_positions(
    joints: Sequence[Overlap], positions: core.FloatArray
) -> list[tuple[float, int, core.FloatArray]]:
    """List proposed positions of unplaced frames, best supported first."""
    has_place = np.isfinite(positions[:, 0])
    wanted_places: dict[int, list[tuple[core.FloatArray, float]]] = {}
    for joint in joints:
        for here, there, sign in ((*joint.pair, 1), (*joint.pair[::-1], -1)):
            if has_place[here] and not has_place[there]:
                where = positions[here] + sign * np.array(joint.shift)
                wanted_places.setdefault(there, []).append((where, joint.weight))
    proposals = []
    for index, votes in wanted_places.items():
        places = np.stack([place for place, _ in votes])
        weights = np.array([weight for _, weight in votes])
        for place in places:
            near = np.abs(places - place).max(axis=1) < _SAME
            middle = np.average(places[near], axis=0, weights=weights[near])
            proposals.append((float(weights[near].sum()), index, middle))
    proposals.sort(key=lambda item: -item[0])
    return proposals


def place_stray_frames(
    frames: CorrectedFrames,
    positions: core.FloatArray,
    strays: Sequence[int],
    noise: float,
) -> core.FloatArray:
    """Place frames far from their stated positions, using only the images.

    `positions` (N, 2): NaN for frames that are not placed, such as `strays`; `noise`:
    noise power of a band-passed pixel. Returns positions (N, 2) including the strays
    that were placed.
    """
    sure = [j for j in match_frames(frames, strays) if j.weight >= _SURE]
    # a period away from its position a frame shares most of its detail too
    judge = partial(_compute_shared_detail, frames, noise)
    return _place_more_frames(sure, judge, positions.copy(), _MIN_COMMON_ALONE)


def match_frames(
    corrected_frames: CorrectedFrames, frames: Sequence[int] | None = None
) -> list[Overlap]:
    """Find candidate shifts at full resolution for all pairs or for some frames.

    Scores are in standard deviations of unrelated fine-grained noise; the grain of the
    sample may be coarser.
    """
    factor = max(1, min(corrected_frames.frame_shape) // _SMALL_SIDE)
    around = (factor + 2, factor + 2)
    scale = np.sqrt(NOISE_AREA / max(corrected_frames.grain, NOISE_AREA))
    joints: dict[tuple[int, int, int, int], Overlap] = {}
    few = _PEAKS * (_FEW_PAIRS if factor > 1 else _FEW_SMALL_PAIRS)
    rows, columns = (side // factor for side in corrected_frames.frame_shape)
    height, width = (fft.next_fast_len(2 * n, real=True) for n in (rows, columns))
    size = height, width
    spectra, powers = [], []  # of the reduced frames, and of their squares
    for index in range(len(corrected_frames.acquisition)):
        band = corrected_frames.reduce_frame(index, factor)
        spectra.append(fft.rfft2(band, s=size))
        powers.append(fft.rfft2(band**2, s=size))
    trials = _find_trial_shifts(spectra, powers, size, few, frames)
    del spectra, powers
    for first, second, shift in trials:
        nominal = (shift[0] * factor, shift[1] * factor)
        item = search_shifts(corrected_frames, (first, second), nominal, around)
        score = min(item.weight.max(initial=0.0) * scale, _STRONG)
        if score > _CANDIDATE:
            y, x = (int(value) for value in item.shifts[np.argmax(item.weight)])
            joint = Overlap(first, second, (float(y), float(x)), score)
            joints[first, second, y, x] = joint
    return list(joints.values())


def _find_trial_shifts(
    spectra: Spectra,
    powers: Spectra,
    size: core.IntPair,
    few: int,
    frames: Sequence[int] | None,
) -> list[tuple[int, int, core.IntPair]]:
    """Find shifts at the correlation peaks of pairs; clear ones if more than `few`."""
    trials: list[tuple[float, int, int, core.IntPair]] = []
    frames_wanted = {*(range(len(spectra)) if frames is None else frames)}
    for first in range(len(spectra)):
        for second in range(first + 1, len(spectra)):
            if frames_wanted.isdisjoint((first, second)):
                continue
            cross = fft.irfft2(spectra[first] * spectra[second].conj(), s=size)
            spread = fft.irfft2(powers[first] * powers[second].conj(), s=size)
            # chosen: small overlaps do not define a scale
            floor = max(0.03 * float(spread.max()), _TINY)
            score = cross / np.sqrt(np.maximum(spread, floor))
            score[spread <= floor] = 0
            around = ndimage.maximum_filter(score, _APART, mode="wrap")
            places = np.flatnonzero(((score == around) & (score > 0)).ravel())
            highest = np.argsort(-score.ravel()[places], kind="stable")[:_PEAKS]
            for place in places[highest].tolist():
                y, x = divmod(place, score.shape[1])
                y = y - score.shape[0] if y > score.shape[0] // 2 else y
                x = x - score.shape[1] if x > score.shape[1] // 2 else x
                trials.append((float(score.flat[place]), first, second, (y, x)))
    if len(trials) <= few:
        return [item[1:] for item in trials]
    heights = np.array([item[0] for item in trials])
    middle = float(np.median(heights))
    spread_of = 1.4826 * float(np.median(np.abs(heights - middle)))
    return [item[1:] for item in trials if item[0] > middle + 3 * spread_of]
