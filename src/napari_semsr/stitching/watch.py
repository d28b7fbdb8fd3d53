"""Fault detection during acquisition: no light, less light, changing detail.

Where two frames overlap they show the same area, so that the sample cancels in the
ratio of their brightness and of their detail. Each pair gives the difference of two
frames with an error; all pairs together, by least squares, give that of each frame from
the first ones, and its error, which accumulates over a row of frames.

Detail is contrast: the root of the power of periods of about 5 to 16 px, over the
brightness. A focus drift changes it in either direction: a relief may have more of it
out of focus.
"""

from functools import cache
from itertools import product

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import splu

from napari_semsr.core import BoolArray, BoundedCache, IntPair, Message, RealArray
from napari_semsr.stitching.frames import FRAME_BAND, estimate_noise
from napari_semsr.stitching.live import LivePlacement
from napari_semsr.stitching.pairwise import (
    FIRST_REACH,
    compute_overlap_boxes,
    compute_rounded_shift,
)

_FIRST = 4  # reference frames of the scan; chosen: as many as in the first solution
# Share of the light of the first frames. Measured on three scans whose light falls:
# until the dark level is known, a share of 0.7 appears as up to 0.79; clean scans have
# 0.94 to 1.06.
_LIGHT = 0.78
_CHANGE = 0.12  # logarithm of the contrast; chosen: half of the effect of 150 nm
_STEP = 4  # px between sampled pixels; chosen: enough for a mean
# widths in px of the Gaussians that define the band of detail; measured on six samples:
# focus changes it more than coarser detail, and noise hides it less than finer
_BAND = 1.0, 2.5
_MIN_SIDE = 16  # px of an overlap; chosen: a narrower one has too little detail
# Prior error of the logarithm of a pair's contrast: 0.04 for 2000 px, as in the
# recorded clean scans, and the number of pairs that it is equivalent to
_PRIOR, _WORTH = 0.04**2 * 2000, 8
_RECHECKS = 8  # frames compared again after a solution, per new one; chosen
_DETAIL_BYTES = 32 << 20  # chosen: 128 frames of 256 px


class ScanMonitor:
    """Monitor that reports each fault of a frame once during a scan."""

    def __init__(self, placement: LivePlacement) -> None:
        self._placement = placement
        self._levels: list[tuple[float, float]] = []
        self._has_other_light = False  # whether the last frame had
        self._detail = _ContrastMonitor(placement)
        self._is_dead = False
        self._attempts: dict[int, list[int]] = {}  # misfits: overlapping frames then
        self._named_unplaced: set[int] = set()

    def check_blank(self, index: int, pixels: RealArray) -> list[str]:
        """Report a blank frame (Y, X) and exclude it from further use."""
        name = self._placement.names[index]
        self._attempts.pop(index, None)  # it may have been written again
        some = pixels[::_STEP, ::_STEP].astype(np.float64)
        some = some[np.isfinite(some)]
        level, spread = (float(some.mean()), float(some.std())) if some.size else (0, 0)
        usual = np.median(self._levels, axis=0) if self._levels else (level, spread)
        is_flat = not some.size or spread == 0
        # shares of the previous frames' level and scatter; chosen: noise alone
        is_dark = level < 0.5 * usual[0] and spread < 0.3 * usual[1]
        if not (is_flat or is_dark):
            self._levels.append((level, spread))
            self._is_dead = False
            return []
        self._placement.blank.add(index)
        if self._is_dead:
            return []
        self._is_dead = True
        what = "shows one grey value everywhere" if is_flat else "shows no light"
        sentence = (
            f"Frame {name} {what}: the camera may have failed, or the light may be off."
        )
        return [Message(sentence, "frame-without-light")]

    def compare_frame(self, index: int) -> list[str]:
        """Compare a placed frame with overlapping frames; return warnings."""
        placement, messages = self._placement, list[str]()
        is_shown = np.isfinite(placement.positions[index]).all()
        if index in placement.blank or not is_shown:
            return messages
        if placement.solution is not None and placement.is_placed[index]:
            # gains follow from overlaps, those of the first frames from their whole
            # solution
            levels, was = np.log(placement.frames.gains), self._has_other_light
            first = np.flatnonzero(placement.is_placed)[:_FIRST]
            ratio = float(np.exp(levels[index] - np.median(levels[first])))
            self._has_other_light = ratio < _LIGHT or ratio > 1 / _LIGHT
            if self._has_other_light and not was:
                sentence = (
                    f"Frame {placement.names[index]}: brightness is {100 * ratio:.0f} "
                    "% of the first frames' brightness."
                )
                messages.append(Message(sentence, "light-changed"))
        messages += self._detail.compare_frame(index)
        return messages

    def report_unplaced(self) -> list[str]:
        """Report frames that should overlap two placed frames but fit nowhere.

        Each is reported once. With one neighbour, or none, a frame may be placed later.
        A frame that fits equally well at several positions, or has too little detail,
        is not reported: on a periodic sample no frame is at fault.
        """
        placement, messages = self._placement, list[str]()
        solution = placement.solution
        # four frames do not show what fits by chance
        if solution is None or len(solution.positions_px) <= _FIRST:
            return messages
        side = np.array(placement.frames.frame_shape)
        misfits = placement.misfits - placement.pending - self._named_unplaced
        # chosen: neighbours are a row away
        for index in sorted(misfits)[-64:]:
            near = _list_nearby_frames(placement, index)
            near = [i for i in near if placement.is_placed[i]]
            away = placement.positions[near] - placement.positions[index]
            areas = np.prod(side - np.abs(away), axis=1)
            # corners alone do not place a frame, and the last neighbour may
            # neighbours, as for reliable positions
            if np.sum(2 * areas >= areas.max(initial=0)) < 2:
                continue
            if self._attempts.get(index) == near:
                continue
            self._attempts[index] = near
            best = placement.find_best_fit(index)
            fits = [np.arctanh(min(p.quality, 0.999)) for p in solution.pairs if p.used]
            if best is None or not fits or not self._detail.has_evident_detail(index):
                continue
            # Fisher's z; chosen on 318 overlaps of frames of nine scans: none fits so
            # badly, and 258 do if the frame is of another area
            if not best.fit + best.doubt < 0.5 * np.median(fits):
                continue
            self._named_unplaced.add(index)
            sentence = (
                f"Frame {placement.names[index]} is not placed: its image does not fit "
                "any position among its neighbours, so it is shown at its stage "
                "position."
            )
            messages.append(Message(sentence, "frame-not-placed"))
        return messages


def _list_nearby_frames(placement: LivePlacement, index: int) -> list[int]:
    """List frames with sufficient overlap, including those at stated positions."""
    side = np.array(placement.frames.frame_shape)
    with np.errstate(invalid="ignore"):
        away = np.abs(placement.positions - placement.positions[index])
        near = (away < side - _MIN_SIDE).all(axis=1)
    near[index] = False
    return np.flatnonzero(near).tolist()


class _ContrastMonitor:
    """Monitor of the contrast relative to the first frames of the same area."""

    def __init__(self, placement: LivePlacement) -> None:
        self._placement = placement
        self._frames = placement.frames
        # logarithm of the second frame's contrast over the first's, and its weight
        self._changes: dict[IntPair, tuple[float, float]] = {}
        self._bands = BoundedCache(_DETAIL_BYTES)
        self._inside: BoolArray | None = None
        self._behind: list[int] = []
        self._noise: tuple[int, float] = (0, 0.0)
        self._was: dict[int, int] = {}  # sign of changes beyond error, or 0
        self._reports = False, False  # whether lost or changed contrast was reported

    def compare_frame(self, index: int) -> list[str]:
        """Compare a frame's contrast with overlapping frames; report changes."""
        placement = self._placement
        if placement.frames is not self._frames:  # another flat field
            self._frames, self._inside = placement.frames, None
            self._changes, self._bands = {}, BoundedCache(_DETAIL_BYTES)
            is_shown = np.asarray(np.isfinite(placement.positions).all(axis=1))
            is_shown[index:] = False
            is_shown[sorted(placement.blank)] = False
            self._behind = np.flatnonzero(is_shown).tolist()
        behind, self._behind = self._behind[:_RECHECKS], self._behind[_RECHECKS:]
        for number in (*behind, index):
            self._measure_contrast_changes(number)
        first_frames = self._compute_total_change(index)
        if first_frames is None:
            return []
        change, error = first_frames
        # times the error, in two frames in a row. Measured: in 34 clean scans with
        # known positions and flat field, no two frames exceed 2.2 times; at stated
        # positions, 3 times is exceeded in one of two clean scans of circuits
        sure = 4.5 if index in placement.provisional else 3.0
        sign = int(np.sign(change)) if abs(change) > max(_CHANGE, sure * error) else 0
        before = self._was.get(index - 1, 0)
        self._was[index] = sign
        if sign == 0:
            if before == 0 and abs(change) + error < _CHANGE:  # it is unchanged
                self._reports = False, False
            return []
        was_lost, had_changed = self._reports
        contrast = (
            f"Frame {placement.names[index]}: contrast is {100 * np.exp(change):.0f} % "
            "of the first frames' contrast in the same area"
        )
        # chosen: half of the contrast of the first frames is lost
        if np.exp(change) < 0.5 and not was_lost:
            self._reports = True, True
            lost = f"{contrast}. Contact or focus may be lost."
            return [Message(lost, "detail-lost")]
        # a single frame may differ, which is not a drift
        if sign == before and not had_changed:
            self._reports = False, True
            drifts = (
                f"{contrast}, after a similar change in the previous frame. The focus "
                "may be drifting."
            )
            return [Message(drifts, "detail-changed")]
        return []

    def has_evident_detail(self, index: int) -> bool:
        """Return whether a frame overlaps another with detail above the noise."""
        self._measure_contrast_changes(index)
        return any(index in pair for pair in self._changes)

    def _measure_contrast_changes(self, index: int) -> None:
        for other in _list_nearby_frames(self._placement, index):
            pair = min(index, other), max(index, other)
            if other not in self._placement.blank and pair not in self._changes:
                change = self._compute_contrast_change(pair)
                if change is not None:
                    self._changes[pair] = change

    def _compute_contrast_change(self, pair: IntPair) -> tuple[float, float] | None:
        """Compute the log contrast ratio of a pair, second to first, and its weight.

        None if the first one has hardly any. At stated positions two frames do not show
        exactly the same area: differences within the stage's error count less.
        """
        y, x = compute_rounded_shift(self._placement.positions, pair)
        if not self._placement.provisional & {*pair}:
            return self._compute_change_at_shift(pair, (y, x))
        sides = self._frames.frame_shape
        rows, columns = (round(FIRST_REACH / 2 * side) for side in sides)
        around = product((y - rows, y, y + rows), (x - columns, x, x + columns))
        changes = [self._compute_change_at_shift(pair, shift) for shift in around]
        known_changes = np.array([change for change in changes if change is not None])
        if len(known_changes) < len(changes):
            return None
        change, weight = known_changes.mean(axis=0)
        varies = known_changes[:, 0].var(ddof=1) / _PRIOR
        return float(change), float(1 / (1 / weight + varies))

    def _compute_change_at_shift(
        self, pair: IntPair, shift: IntPair
    ) -> tuple[float, float] | None:
        frame_data = self._frames
        boxes = compute_overlap_boxes(frame_data.frame_shape, shift)
        if boxes is None:
            return None
        if self._inside is None:
            self._inside = ndimage.binary_erosion(
                frame_data.weight > 0, iterations=round(2 * _BAND[1]), border_value=0
            )
        both = [self._inside[box.slices] for box in boxes]
        inside = both[0] & both[1]
        count = int(np.count_nonzero(inside))
        if count < _MIN_SIDE**2:
            return None
        weights = [frame_data.weight[box.slices][inside] for box in boxes]
        common = weights[0] * weights[1]
        frame_count = len(self._placement)
        if frame_count >= 2 * self._noise[0]:
            self._noise = frame_count, estimate_noise(frame_data) ** 2
        # noise power of the detail where the field is brightest
        noise = self._noise[1] * _compute_noise_factor()
        contrasts, evident = [], []
        for number, box, other in zip(pair, boxes, weights[::-1], strict=True):
            # in units of equal noise; times the weight of both, as both show one area
            band: RealArray | None = self._bands.get(number)
            if band is None:  # with most of its noise removed
                band = _apply_band_pass(self._frames.band_pass(number))
                self._bands.put(number, band)
            detail = band[box.slices][inside]
            noisy = noise * float(other.sum())
            excess = float((detail**2 * other).sum()) - noisy
            image = frame_data.correct(number)[0][box.slices][inside]
            light = float((image * common).sum()) / float(common.sum())
            if light <= 0:
                return None
            evident.append(excess / noisy)
            contrasts.append(np.sqrt(max(excess, 0)) / light)
        # chosen: less than 0.3 times the noise is not compared
        if evident[0] < 0.3:
            return None
        share = evident[0] / (1 + evident[0])
        # share of the contrast; below it is noise
        ratio = max(contrasts[1] / contrasts[0], 1e-3)
        return float(np.log(ratio)), count * share**2

    def _compute_total_change(self, index: int) -> tuple[float, float] | None:
        """Compute the log contrast ratio to the first frames, and its error."""
        pairs = np.array(list(self._changes), dtype=int).reshape(-1, 2)
        if not (pairs == index).any():
            return None
        numbers, ends = np.unique(pairs, return_inverse=True)
        first, second = ends.reshape(pairs.shape).T
        logs, weights = np.array(list(self._changes.values())).T
        count = len(numbers)
        links = sparse.coo_array((weights, (first, second)), (count, count))
        _, labels = csgraph.connected_components(links, directed=False)
        place = int(np.searchsorted(numbers, index))
        start = np.flatnonzero(labels == labels[place])[:_FIRST]
        if place in start:
            return None
        every = np.concatenate([first, second]), np.concatenate([second, first])
        total = sparse.coo_array((np.tile(weights, 2), every), (count, count)).tocsc()
        # the common level of each group is undetermined: a tiny prior fixes it
        hold = 1e-6 * float(np.median(weights))
        normal = sparse.diags_array(total.sum(axis=1) + hold) - total
        right, contrast = np.zeros(count), np.zeros(count)
        np.add.at(right, first, -weights * logs)
        np.add.at(right, second, weights * logs)
        contrast[place], contrast[start] = 1, -1 / len(start)
        solve = splu(normal.tocsc()).solve
        values, spread = solve(right), solve(contrast)
        left = np.sqrt(weights) * (logs - values[second] + values[first])
        free = len(logs) - count + int(labels.max()) + 1
        # times the usual misfit; chosen: a lost frame does not count as an error
        most = 4.0 * 1.4826 * float(np.median(np.abs(left)))
        scatter = float((np.minimum(np.abs(left), most) ** 2).sum()) / max(free, 1)
        variance = (_WORTH * _PRIOR + free * scatter) / (_WORTH + free)
        error = np.sqrt(variance * float(contrast @ spread))
        return float(contrast @ values), float(error)


@cache
def _compute_noise_factor() -> float:
    """Return the power of unit white noise after smoothing and band-pass filtering."""
    point = np.zeros((65, 65))
    point[32, 32] = 1
    fine, coarse = (ndimage.gaussian_filter(point, sigma) for sigma in FRAME_BAND)
    return float((_apply_band_pass(fine - coarse) ** 2).sum())


def _apply_band_pass(image: RealArray) -> RealArray:
    """Filter an image (Y, X) to the frequency band used for comparison."""
    fine, coarse = (ndimage.gaussian_filter(image, sigma) for sigma in _BAND)
    return np.asarray(fine - coarse)
