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
from napari_semsr.core import FloatArray, IntPair
from napari_semsr.stitching.frames import CorrectedFrames
from napari_semsr.stitching.layout import STRONG, Overlap, fit_positions
from napari_semsr.stitching.pairwise import (
    NOISE_AREA,
    compute_overlap_sums,
    compute_shared_fraction,
    search_shifts,
)

# Likely acquisition grids, inferred from overlaps between frames.
#
# In the right grid most neighbours along an axis are one step apart. For each grid with
# as many cells as frames, the step is the one on which most matches along each axis
# agree; the grid that explains most matches comes first.


# Steps of 12 to 98 % of a frame are searched, within 15 % of the axis; chosen.
MIN_STEP, MAX_STEP, ASIDE = 0.12, 0.98, 0.15


@dataclass(frozen=True, slots=True)
class LikelyGrid:
    """Possible acquisition grid of the frames."""

    grid: IntPair  # Rows and columns
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
    acquisition: core.Acquisition, overlaps: "Sequence[Overlap]"
) -> tuple[LikelyGrid, ...]:
    """Find grids, other than the scan's own, that fit the matched pairs best."""
    grids: list[tuple[float, LikelyGrid]] = []
    for slots in acquisition.slots or (acquisition.names,):
        numbers = [slots.index(n) if n in slots else -1 for n in acquisition.names]
        for grid, order, first in _list_grids(len(slots)):
            cells = core.compute_grid_cells(len(slots), grid, order, first)
            axes = [
                _weigh_axis_matches(acquisition, cells, numbers, overlaps, k)
                for k in range(2)
            ]
            weight, fits, pairs = map(sum, zip(*axes, strict=True))
            # chosen: two neighbours may be one step apart by chance
            if fits >= 3:
                grids.append((weight, LikelyGrid(grid, order, first, fits, pairs)))
    grids.sort(key=lambda item: -item[0])
    # chosen: grids with fewer matches are not worth a try
    least = 0.6 * grids[0][0] if grids else 0.0
    likely = dict.fromkeys(item for weight, item in grids if weight >= least)
    own = acquisition.grid, acquisition.order, acquisition.first
    # chosen: a question needs few answers
    likeliest = [((item.grid, item.order, item.first), item) for item in likely][:3]
    if likeliest and likeliest[0][0] == own:
        return ()  # the overlaps support the scan's own grid
    return tuple(item for name, item in likeliest if name != own)


def _list_grids(
    count: int,
) -> Iterator[tuple[IntPair, core.FrameOrder, core.FirstFrame]]:
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
    overlaps: "Sequence[Overlap]",
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
    for overlap in overlaps:
        if overlap.first not in cell or overlap.second not in cell:
            continue
        apart = np.subtract(cell[overlap.second], cell[overlap.first])
        sign = int(apart.sum())
        if abs(sign) != 1 or not apart[axis]:
            continue
        shift = sign * np.array(overlap.shift) / side
        if MIN_STEP <= shift[axis] <= MAX_STEP and abs(shift[1 - axis]) <= ASIDE:
            shifts.append(shift * side)
            weights.append(overlap.weight)
            which.append(overlap.pair)
    best, steps = (0.0, 0), np.array(shifts)
    for shift in steps:
        # chosen: twice a stage error of 3 %
        agrees = np.abs(steps - shift).max(axis=1) <= 0.06 * side.max()
        heaviest: dict[IntPair, float] = {}  # only the best match of a pair counts
        for k in np.flatnonzero(agrees).tolist():
            heaviest[which[k]] = max(heaviest.get(which[k], 0.0), weights[k])
        best = max(best, (sum(heaviest.values()), len(heaviest)))
    return *best, pairs


Spectra = list[NDArray[np.complex64]]
Share = Callable[[int, FloatArray, FloatArray], float]

_PEAKS = 4  # refined peaks of a pair; chosen: time against missing the true one
SURE = 6.0  # score; the largest of ten million normal deviates is 5.2
# Shares of its detail that a frame must have in common to be added, with and without a
# strong match; chosen in the gap between 0.06 and 0.86 (see above), near its ends.
_MIN_COMMON, _MIN_COMMON_ALONE = 0.55, 0.8
_SAME = 4.0  # px; chosen: proposals from poor overlaps differ by as much


def discover_positions(
    frames: CorrectedFrames, overlaps: Sequence[Overlap], noise: float
) -> FloatArray:
    """Find approximate positions when neither positions nor a grid is known.

    `overlaps`: from `match_frames`; `noise`: noise power of a band-passed pixel.
    Positions are top-left corners in px, (N, 2), NaN for frames that do not fit the
    largest group.
    """
    count = len(frames.acquisition)
    get_share = partial(_compute_shared_detail, frames, noise)
    places = grow_layout(count, overlaps, get_share)
    if not np.isfinite(places).any():
        msg = (
            f"{count} frames without positions must overlap to be placed, but no two "
            "of them match: pass positions or a grid."
        )
        raise UnplacedFramesError(
            msg, find_likely_grids(frames.acquisition, overlaps), code="no-overlap"
        )
    agreeing = []
    for overlap in overlaps:
        apart = places[overlap.second] - places[overlap.first] - overlap.shift
        if np.abs(apart).max() < 2 * _SAME:
            agreeing.append(overlap)
    sure = [overlap for overlap in agreeing if overlap.weight >= SURE]
    strong = [
        overlap
        for overlap in overlaps
        if overlap.weight >= SURE and np.isfinite(places[[*overlap.pair], 0]).any()
    ]
    # chosen: a stage step is larger than the width of a peak
    if 2 * sum(np.abs(overlap.shift).max() < 2.0 for overlap in strong) > len(strong):
        msg = (
            "Frames match best at zero shift because they all show the same dust, "
            "scratch or data bar: pass positions or a grid, and a flat-field image "
            "that contains it."
        )
        raise UnplacedFramesError(msg, (), code="fixed-pattern")
    # chosen: the rest of the strong matches may be of foreign frames
    if len(sure) < 0.75 * len(strong):
        msg = (
            "Frames without positions need detail that does not repeat, but only "
            f"{len(sure)} of {len(strong)} strong matches between them agree: pass "
            "positions or a grid."
        )
        raise UnplacedFramesError(
            msg, find_likely_grids(frames.acquisition, overlaps), code="ambiguous"
        )
    weights = np.array([overlap.weight for overlap in agreeing])
    solution = fit_positions(count, agreeing, weights, places)
    return np.where(np.isfinite(places), solution, np.nan)


def _compute_shared_detail(
    frames: CorrectedFrames,
    noise: float,
    index: int,
    place: FloatArray,
    positions: FloatArray,
) -> float:
    """Return the fraction of a frame's detail shared with placed frames, 0 if none."""
    total = np.zeros(3)
    for other in np.flatnonzero(np.isfinite(positions[:, 0])):
        y, x = np.round(place - positions[other]).astype(int).tolist()
        sums = compute_overlap_sums(frames, (int(other), index), (y, x))
        # chosen: in smaller overlaps noise dominates
        if sums is not None and sums[2] >= 300:
            total += sums
    common, power, pixels = total[:, None]
    share = compute_shared_fraction(common, power, pixels, noise)
    return float(np.nan_to_num(share)[0])


def grow_layout(
    count: int, overlaps: Sequence[Overlap], get_share: Share
) -> FloatArray:
    """Compute (N, 2) positions by adding frames that agree with all earlier ones."""
    best = np.full((count, 2), np.nan)
    trial_count = 0
    for seed in sorted(overlaps, key=lambda overlap: -overlap.weight):
        # chosen: each start costs as much as the whole layout
        if trial_count == 6 or seed.weight < SURE:
            break
        if np.isfinite(best[[*seed.pair]]).all():
            continue
        trial_count += 1
        positions = np.full((count, 2), np.nan)
        positions[seed.first] = 0.0
        if get_share(seed.second, np.array(seed.shift), positions) < _MIN_COMMON:
            continue
        positions[seed.second] = seed.shift
        positions = _place_more_frames(overlaps, get_share, positions)
        if np.isfinite(positions).sum() > np.isfinite(best).sum():
            best = positions
        if np.isfinite(best).all():
            break
    return best


def _place_more_frames(
    overlaps: Sequence[Overlap],
    get_share: Share,
    positions: FloatArray,
    least: float = _MIN_COMMON,
) -> FloatArray:
    """Place further frames that match those already placed in `positions` (N, 2).

    `least`: share of common detail that a frame with a strong match needs.
    """
    refusals: set[tuple[int, int, int]] = set()
    while True:
        for support, index, place in _propose_positions(overlaps, positions):
            key = (index, round(place[0]), round(place[1]))
            if key in refusals:
                continue
            least_share = least if support >= SURE else _MIN_COMMON_ALONE
            if get_share(index, place, positions) >= least_share:
                positions[index] = place
                break
            refusals.add(key)
        else:
            return positions


def _propose_positions(
    overlaps: Sequence[Overlap], positions: FloatArray
) -> list[tuple[float, int, FloatArray]]:
    """List proposed positions of unplaced frames, best supported first."""
    has_place = np.isfinite(positions[:, 0])
    wanted_places: dict[int, list[tuple[FloatArray, float]]] = {}
    for overlap in overlaps:
        for here, there, sign in ((*overlap.pair, 1), (*overlap.pair[::-1], -1)):
            if has_place[here] and not has_place[there]:
                where = positions[here] + sign * np.array(overlap.shift)
                wanted_places.setdefault(there, []).append((where, overlap.weight))
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
    frames: CorrectedFrames, positions: FloatArray, strays: Sequence[int], noise: float
) -> FloatArray:
    """Place frames far from their stated positions, using only the images.

    `positions` (N, 2): NaN for frames that are not placed, such as `strays`; `noise`:
    noise power of a band-passed pixel. Returns positions (N, 2) including the strays
    that were placed.
    """
    sure = [one for one in match_frames(frames, strays) if one.weight >= SURE]
    # a period away from its position a frame shares most of its detail too
    get_share = partial(_compute_shared_detail, frames, noise)
    return _place_more_frames(sure, get_share, positions.copy(), _MIN_COMMON_ALONE)


def compute_reduction(frame_shape: IntPair) -> int:
    """Return the factor by which frames are reduced before all pairs are correlated."""
    # to 96 px; chosen: time against detail, of which that finer than 2 px is lost
    return max(1, min(frame_shape) // 96)


def match_frames(
    corrected_frames: CorrectedFrames, frames: Sequence[int] | None = None
) -> list[Overlap]:
    """Find candidate shifts at full resolution for all pairs or for some frames.

    Scores are in standard deviations of unrelated fine-grained noise; the grain of the
    sample may be coarser.
    """
    factor = compute_reduction(corrected_frames.frame_shape)
    around = (factor + 2, factor + 2)
    scale = np.sqrt(NOISE_AREA / max(corrected_frames.grain, NOISE_AREA))
    overlaps: dict[tuple[int, int, int, int], Overlap] = {}
    # chosen: up to so many pairs of large or of small frames all peaks are refined,
    # above it only the highest
    few = _PEAKS * (150 if factor > 1 else 400)
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
        score = min(item.weight.max(initial=0.0) * scale, STRONG)
        # chosen low: an added frame must agree with all of its overlaps
        if score > 3.5:
            y, x = (int(value) for value in item.shifts[np.argmax(item.weight)])
            overlap = Overlap(first, second, (float(y), float(x)), score)
            overlaps[first, second, y, x] = overlap
    return list(overlaps.values())


def _find_trial_shifts(
    spectra: Spectra,
    powers: Spectra,
    size: IntPair,
    few: int,
    frames: Sequence[int] | None,
) -> list[tuple[int, int, IntPair]]:
    """Find shifts at the correlation peaks of pairs; clear ones if more than `few`."""
    trials: list[tuple[float, int, int, IntPair]] = []
    frames_wanted = {*(range(len(spectra)) if frames is None else frames)}
    for first in range(len(spectra)):
        for second in range(first + 1, len(spectra)):
            if frames_wanted.isdisjoint((first, second)):
                continue
            cross = fft.irfft2(spectra[first] * spectra[second].conj(), s=size)
            spread = fft.irfft2(powers[first] * powers[second].conj(), s=size)
            # chosen: small overlaps do not define a scale
            floor = max(0.03 * float(spread.max()), 1e-12)
            score = cross / np.sqrt(np.maximum(spread, floor))
            score[spread <= floor] = 0
            # px of the small image; chosen: less is one peak
            around = ndimage.maximum_filter(score, 5, mode="wrap")
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
