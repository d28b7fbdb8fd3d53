"""Final checks and output of a solution.

Every position must be supported by images, and the result better than the nominal
positions; anything else is removed or causes a warning. `_create_pair_report` states
why an overlap is not used; the head of `solve` lists the reasons and where they arise.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np

from napari_semsr import core
from napari_semsr.stitching import layout, nominal, pairwise
from napari_semsr.stitching.discovery import UnplacedFramesError, describe_grids
from napari_semsr.stitching.frames import FINE_NOISE, FIXED_METHODS, compute_band_noise
from napari_semsr.stitching.lines import place_across_lines, place_frames_along_lines
from napari_semsr.stitching.refine import NOISE_RATIO, LinearisedShift, refine_positions
from napari_semsr.stitching.shading import measure_remaining_shading
from napari_semsr.stitching.state import PairReport, State, StitchSolution

_Pair = TypeVar("_Pair", layout.Overlap, PairReport)

UNEVEN = 0.03
"""Fraction of the mean above which shading causes a warning; chosen: such a step is
visible.
"""
_MAX_NAMES = 5  # frames named in a message; chosen: it stays readable


_PLAIN = "too little texture: hardly any detail above the noise"
DROP_REASON = "left out by hand"
"""Reason for leaving out a frame dropped by the user."""


def is_featureless_frame(state: State, index: int) -> bool:
    """Return whether a frame has hardly any detail above its noise."""
    band = state.frames.band_pass(index)
    inside = state.frames.root > 0
    texture = float(np.sqrt(np.mean(band[inside] ** 2))) if inside.any() else 0.0
    # chosen: more than 1.25 times the noise is detail
    return texture < 1.25 * FINE_NOISE * state.noise


def remove_misfits(state: State) -> list[int]:
    """Remove frames whose detail differs from that of all their neighbours.

    Positions must be right to about a pixel; modifies them and the reasons.

    Where two frames overlap, their band-passed images have a common part and noise. The
    noise is estimated from the differences of most pairs; the rest of their power must
    also be in their product. A frame of another sample, or in a wrong position, has
    detail beyond its noise that none of its neighbours shows.
    """
    pairs, sums = [], []
    for pair in state.list_overlapping_pairs():
        shift = pairwise.compute_rounded_shift(state.positions, pair)
        sums_of_pair = pairwise.compute_overlap_sums(state.frames, pair, shift)
        if sums_of_pair is not None:
            pairs.append(pair)
            sums.append(sums_of_pair)
    ends = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    products, powers, pixels = np.array(sums, dtype=float).reshape(-1, 3).T
    left = (powers - products) / np.maximum(pixels, 1)
    # chosen: with more than four times the noise, even correctly placed frames would
    # have hardly any detail beyond it
    limit = 4.0 * compute_band_noise(state.noise)
    noise = min(float(np.median(left)) if len(left) else 0.0, limit)
    misfits: list[int] = []
    while True:
        in_use = ~np.isin(ends, np.array(misfits, dtype=np.int64)).any(axis=1)
        totals = np.zeros((3, len(state.positions)))
        for frames in ends[in_use].T:
            for total, values in zip(totals, (products, powers, pixels), strict=True):
                np.add.at(total, frames, values[in_use])
        share = pairwise.compute_shared_fraction(totals[0], totals[1], totals[2], noise)
        share[misfits] = np.nan
        # `benchmarks/stitching.py --bad 0.05`: frames in the right position share 0.86
        # and more, foreign ones at most 0.06; chosen between
        if not np.nanmin(share, initial=np.inf) < 0.4:
            break
        misfits.append(int(np.nanargmin(share)))
    for index in misfits:
        state.positions[index] = np.nan
        state.rescued_frames.discard(index)
        state.reasons[index] = (
            "shows other detail than its neighbours: foreign, or displaced too far"
        )
    return misfits


def _has_deviating_shift(linearised_shift: LinearisedShift | None) -> bool:
    """Return whether a pair's measured shift differs from its position difference."""
    return (
        linearised_shift is not None
        and float(np.hypot(*linearised_shift.step)) > layout.TOLERANCE_PX
    )


def list_valid_overlaps(state: State) -> list[layout.Overlap]:
    """List overlaps consistent with the positions, and pairs without a shift.

    Two frames agree at their shift or match better than chance: before shading is
    corrected a shift may be wrong by more than a few pixels.
    """
    refined_shifts, overlaps = state.refined_shifts, []
    for overlap in state.layout.overlaps:
        apart = state.positions[overlap.second] - state.positions[overlap.first]
        is_deviating = _has_deviating_shift(refined_shifts.get(overlap.pair))
        if is_deviating or not np.isfinite(apart).all():
            continue  # or a frame was dropped since then
        shift = pairwise.compute_rounded_shift(state.positions, overlap.pair)
        if np.hypot(*(apart - overlap.shift)) <= layout.TOLERANCE_PX or (
            not state.is_periodic
            and pairwise.compute_correlation(state.frames, overlap.pair, shift)[1]
            > state.threshold
        ):
            overlaps.append(overlap)
    if overlaps:
        # frames without an accepted shift are supported by all of their pairs together
        pairs = state.list_overlapping_pairs()
        rescued_pairs = (pair for pair in pairs if state.rescued_frames & set(pair))
        overlaps += [layout.Overlap(*pair, (0.0, 0.0), 0.0) for pair in rescued_pairs]
    return overlaps


def finish_solution(state: State) -> StitchSolution:
    """Remove unsupported positions, collect warnings, and create the solution."""
    # lines along which shifts are undetermined
    good = [item for item in state.candidates if item.best_score > state.threshold]
    sliding = [item for item in good if item.along and item.pair in state.ambiguous]
    slides = len(sliding) > layout.LINES * len(good)
    if slides:
        _place_across_lines(state)
    else:
        # without frames that valid overlaps do not connect to most others
        overlaps = list_valid_overlaps(state)
        labels = np.ones(len(state.positions), np.int64)
        if overlaps:
            labels = layout.label_components(len(state.positions), overlaps)
        state.positions[state.is_placed & (labels != 0)] = np.nan
        check_periods(state)
        _place_along_lines(state)
    without_place = np.flatnonzero(~state.is_placed).tolist()
    if len(without_place) == len(state.positions):
        is_given = state.frames.flat.method in FIXED_METHODS
        flat = ", or let the flat field be estimated (auto)" if is_given else ""
        msg = (
            f"Overlapping frames must agree, but none of the {len(without_place)} "
            f"frames do: {state.advice}{flat}."
        )
        raise UnplacedFramesError(msg, state.find_likely_grids(), code="nothing-placed")
    doubtful = warn_of_unplaced_frames(state)
    many = layout.MOSTLY * len(state.candidates)
    repeating = 0 < many <= sum(map(layout.has_repetitive_peaks, state.candidates))
    if repeating and 2 * len(doubtful) > len(state.positions):
        msg = (
            f"The sample is periodic, and only {state.is_placed.sum()} of "
            f"{len(state.positions)} frames could be placed, possibly by chance: "
            f"{state.advice}, or scan with more overlap."
        )
        raise UnplacedFramesError(msg, state.find_likely_grids(), code="periodic")
    has_no_grid = _warn_of_missing_grid(state)
    # chosen: with more unplaced frames, no position is reliable
    if not has_no_grid and len(doubtful) > 0.2 * len(state.positions):
        state.add_warning(
            "Too many frames could not be placed, so the others may have been placed "
            "by chance and be off by whole periods: compare their positions with the "
            "stage, or scan with more overlap.",
            "placement-doubtful",
        )
    if not slides:  # otherwise the warning of lines states the error of the stage
        warn_of_uncertain_positions(state)
        if state.is_stated:
            _compare_with_nominal(state)
    return create_solution(state)


def create_solution(
    state: State, pedestal: float | None = None, remaining: float | None = None
) -> StitchSolution:
    """Create the solution of a verified state.

    `pedestal` and `remaining` shading: if they are known.
    """
    acquisition, stated_size = state.acquisition, state.acquisition.pixel_size_nm
    estimated_size = _compare_pixel_size(state)
    pairs = _create_pair_reports(state)
    pairs_in_use = [pair for pair in pairs if pair.used]
    loops = find_loop_pairs(pairs_in_use)
    is_confirmed = state.has_sufficient_placement or bool(loops)
    axes = _compare_stage_axes(state, estimated_size, is_confirmed=is_confirmed)
    # with stage positions, every pair can contradict them
    pairs_in_loops = pairs_in_use if state.is_nominal else loops
    residuals = [p.residual_px for p in pairs_in_loops if np.isfinite(p.sigma_px)]
    positions = state.positions - np.nanmin(state.positions, axis=0)
    spread = np.full(positions.shape, np.nan)
    if state.refinement is not None:
        spread = np.where(np.isfinite(positions), state.refinement.sigma_px, np.nan)
        if state.distortion_doubt is not None:
            spread = np.hypot(spread, state.distortion_doubt)
    pedestal = _compute_pedestal(state) if pedestal is None else pedestal
    if remaining is None:
        where = state.frames, state.positions, state.list_overlapping_pairs()
        remaining = measure_remaining_shading(*where, pedestal)
    _warn_of_shading(state, remaining)
    faults = (
        core.UnusedFrame(acquisition.names[index], state.reasons[index])
        for index in np.flatnonzero(~state.is_placed).tolist()
    )
    stage = None if state.is_nominal else state.fit_stage_map()
    return StitchSolution(
        positions_px=positions,
        nominal_px=state.nominal if state.is_stated else None,
        names=acquisition.names,
        left_out=(*acquisition.faults, *faults),
        pairs=pairs,
        residual_px=_compute_residual(pairs_in_loops),
        residual_median_px=float(np.median(residuals)) if residuals else None,
        residual_worst_px=max(residuals, default=None),
        sigma_px=spread,
        flat=state.frames.flat,
        gains=state.frames.gains,
        offsets=state.frames.offsets,
        turns=state.frames.rotations,
        distortion=state.frames.distortion,
        distortion_sd=state.distortion_sd,
        distortion_centre_px=state.frames.centre_px,
        noise=state.noise,
        threshold=state.threshold,
        stage=stage,
        stage_to_camera=axes,
        pixel_size_nm=stated_size or estimated_size,
        estimated_pixel_size_nm=estimated_size,
        pedestal=pedestal,
        remaining_shading_percent=100 * remaining,
        grids=state.grids,
        warnings=tuple(state.warnings),
        state=state,
    )


def _compare_pixel_size(state: State) -> core.PixelSize | None:
    """Return the pixel size that stage positions imply; warn if it cannot be right."""
    acquisition, stated_size = state.acquisition, state.acquisition.pixel_size_nm
    if acquisition.nominal_nm is None or (stated_size and state.is_nominal):
        return None
    size = estimate_pixel_size(acquisition.nominal_nm, state.positions)
    if size is None:
        return None
    # chosen: an atom is larger, and micrometres read as nanometres give less
    if stated_size is None and min(size) < 0.1:
        state.add_warning(
            f"The stage positions imply a pixel size of {np.mean(size):.2g} nm, which "
            "is smaller than an atom and is ignored: check the unit of the positions.",
            "positions-invalid",
        )
        return None
    # chosen: such an error of the pixel size, and thus of distances, is noticeable
    if (
        stated_size is not None
        and np.abs(np.array(size) / np.array(stated_size) - 1).max() > 0.02
    ):
        state.add_warning(
            f"The stage positions imply a pixel size of {np.mean(size):.4g} nm, but "
            f"{np.mean(stated_size):.4g} nm is stated: check the calibration.",
            "pixel-size-contradicts",
        )
    return size


def _compare_stage_axes(
    state: State, estimated_size: core.PixelSize | None, *, is_confirmed: bool
) -> nominal.StageAxes | None:
    """Compare stated positions with image positions; warn if axes differ."""
    acquisition, positions = state.acquisition, state.positions
    if state.is_nominal or state.has_ambiguous_axes:
        return None
    if state.has_positions:
        stated_positions = state.nominal
    elif acquisition.nominal_nm is not None and estimated_size is not None:
        stated_positions = acquisition.nominal_nm / float(np.mean(estimated_size))
    else:
        return None
    if state.ambiguous:
        # only frames connected to most others by unique shifts
        sure = [one for one in state.layout.overlaps if one.pair not in state.ambiguous]
        is_certain = np.zeros(len(positions), bool)
        if sure:
            is_certain = layout.label_components(len(positions), sure) == 0
        positions = np.where(is_certain[:, None], positions, np.nan)
    axes = nominal.fit_stage_axes(
        stated_positions, positions, min(acquisition.frame_shape)
    )
    if axes is None:
        return None
    axes = replace(axes.compose(state.axes), is_sized=state.has_positions)
    statement = f"the overlaps indicate {axes.description}"
    before = state.fitted_as_stated
    if before is not None:
        statement = (
            f"only {before} of {len(positions)} frames fit the stated axes, whereas "
            f"{state.is_placed.sum()} frames fit with the axes used instead, "
            f"{axes.description}"
        )
    if before is not None or axes.has_deviation:
        sentence = f"The stage axes differ from the image axes: {statement}."
        state.warnings.insert(0, core.Message(sentence, "stage-axes-differ"))
    if axes.has_deviation and not is_confirmed:
        msg = (
            f"Only {state.is_placed.sum()} of {len(state.positions)} overlapping "
            f"frames agree, with {axes.description}, and no loop of overlaps confirms "
            f"this: {state.advice}."
        )
        raise core.RegistrationError(msg, code="axes-unconfirmed")
    return axes


def _check_unresolved_periods(state: State) -> None:
    """Raise an error if neither the images nor the stage determine the positions.

    On a periodic sample each shift may be wrong by a period. The stage decides if its
    error is known to be less than half of one: because only one rotation fits, or
    because the stated positions fit so exactly that another rotation would only by
    chance, and because all shifts differ from it by much less than a period.
    """
    turns, overlaps = state.turns, state.layout.overlaps
    mostly = len(state.ambiguous) >= layout.MOSTLY * max(len(overlaps), 1)
    if turns is None or not (mostly or state.has_ambiguous_axes):
        return  # non-repeating detail decides
    # that a randomly rotated or scaled stage fits a lattice as well as the stated one;
    # chosen: a grid is along the images' axes
    chance = layout.BY_CHANCE if state.has_positions else 1e-2
    is_turned = len(turns.turns) != 1 and turns.chance_probability > chance
    most = state.options.max_shift_px
    is_bounded = most is not None and 4 * most <= turns.period
    off = state.positions - state.nominal
    away = [float(np.hypot(*(off[one.second] - off[one.first]))) for one in overlaps]
    share = nominal.compute_period_fraction(
        float(np.nanmax(away, initial=0.0)), turns.period
    )
    is_loose = not is_bounded and share ** (state.is_placed.sum() - 1) > chance
    if is_turned or is_loose or not state.has_sufficient_placement:
        what = "positions" if state.has_positions else "grid positions"
        has_period = np.isfinite(turns.period)
        below = f", if it is below {turns.period / 4:.2g} px" if has_period else ""
        msg = (
            "The sample is periodic: its frames fit equally well after a shift of one "
            f"period, and the stated {what} are not accurate enough to decide. Set the "
            f"maximum position error (max-shift-px){below}, or pass positions along "
            "the image axes, in pixels."
        )
        raise core.RegistrationError(msg, code="periodic")


def warn_of_unplaced_frames(state: State) -> list[int]:
    """Warn about unplaced and stray frames; return the doubtful ones."""
    without_place = np.flatnonzero(~state.is_placed).tolist()
    for index in without_place:
        misfit = "fits no placed frame: foreign, displaced too far, or too dark"
        reason = _PLAIN if is_featureless_frame(state, index) else misfit
        state.reasons.setdefault(index, reason)
    doubtful = [
        i for i in without_place if state.reasons[i] not in (_PLAIN, DROP_REASON)
    ]
    plain = [i for i in without_place if state.reasons[i] == _PLAIN]
    strays = [i for i in state.strays if state.is_placed[i]]
    left_out, astray = "frames-left-out", "frames-astray"
    for some, why, code in (
        (plain, f"left out, {_PLAIN}", left_out),
        (doubtful, "left out, could not be placed", left_out),
        (strays, "placed by the images alone, despite their stated positions", astray),
    ):
        if some:
            state.add_warning(
                f"{len(some)} of {len(state.positions)} frames {why}: "
                f"{_format_frame_names(state, some)}.",
                code,
            )
    return doubtful


def check_periods(state: State, *, refuses: bool = True) -> None:
    """Warn if the stage decides between periods; raise an error if it cannot."""
    if state.is_stated and refuses:
        _check_unresolved_periods(state)
    is_undecided = not state.is_stated
    # frames that the sample does not determine have no position
    if is_undecided and (state.has_sufficient_placement or not refuses):
        return
    if not state.ambiguous:
        return
    count = len(state.ambiguous)
    how = "1 overlap fits" if count == 1 else f"{count} overlaps fit"
    many = f"The sample is periodic: {how}"
    if is_undecided:
        what_else = "" if state.acquisition.grid is not None else "the grid and "
        msg = (
            f"{many} equally well after a shift of one period: set {what_else}the "
            "overlap, or pass positions."
        )
        raise UnplacedFramesError(msg, (), code="periodic")
    state.add_warning(
        f"{many} equally well after a shift of one period, so the stated positions "
        "decide. A position error of half a period misplaces a frame.",
        "periodic",
    )


def _place_across_lines(state: State) -> None:
    """Place frames by the images across lines and by stated positions along them."""
    if not state.is_stated:
        raise core.RegistrationError(
            f"{layout.ALONG_LINES}pass the positions of the frames.", code="lines-only"
        )
    state.refinement, error_px = place_across_lines(state)
    state.positions = state.refinement.positions
    state.is_nominal, state.reasons = True, {}
    state.add_warning(
        f"{layout.ALONG_LINES}the nominal positions are used along the lines. Their "
        f"error across the lines, measured from the images, is {error_px:.2g} px.",
        "lines-only",
    )


def _place_along_lines(state: State) -> None:
    """Place frames connected only by lines at their stated positions, and warn."""
    if not any(shift.is_degenerate for shift in state.list_placed_shifts()):
        return
    hanging = place_frames_along_lines(state)
    if state.is_stated and hanging:
        state.add_warning(
            f"{len(hanging)} of {len(state.positions)} frames are connected to most "
            "others only by lines in one direction, along which they fit anywhere. "
            "Their nominal positions along the lines are used: "
            f"{_format_frame_names(state, hanging)}.",
            "lines-only",
        )


def _warn_of_missing_grid(state: State) -> bool:
    """Ask for a grid or positions if the images alone are insufficient.

    Returns whether too few frames are placed to be reliable.
    """
    acquisition = state.acquisition
    placed_count, count = int(state.is_placed.sum()), len(acquisition)
    how = f"only {placed_count} of {count} frames could be placed"
    names_needed = acquisition.slots[-1] if acquisition.slots else acquisition.names
    is_lost = np.isin(acquisition.names, names_needed) & ~state.is_placed
    has_stated = (
        acquisition.nominal_px is not None or acquisition.nominal_nm is not None
    )
    if has_stated or not is_lost.any():
        return False
    if state.matches or not state.has_sufficient_placement:
        state.grids = state.find_likely_grids()
    if not state.has_sufficient_placement:
        if acquisition.grid is not None and state.grids:
            msg = f"The grid does not fit the overlaps: {how}."
            raise UnplacedFramesError(msg, state.grids, code="grid-mismatch")
        remedy = "set grid and order, or pass positions"
        if acquisition.grid is not None:
            remedy = f"{state.advice}, or pass positions"
        state.add_warning(
            f"{how.capitalize()}, too few to be reliable: "
            f"{remedy}.{describe_grids(state.grids)}",
            "too-few-placed",
        )
    elif state.grids:
        state.add_warning(
            f"More frames may be placed if a grid is set.{describe_grids(state.grids)}",
            "grid-missing",
        )
    return not state.has_sufficient_placement


def warn_of_uncertain_positions(state: State) -> None:
    """Warn about positions that are poorly constrained by overlaps."""
    if state.refinement is None:
        return
    spread = np.hypot(*state.refinement.sigma_px.T)
    apart = state.is_placed & np.isinf(spread)
    # px; chosen: tens of times the usual 0.01 to 0.05
    loose = state.is_placed & (spread > 1.0) & ~apart
    most = spread[loose].max(initial=0.0)
    for some, how in (
        (apart, "are connected only by overlaps too small to be measured,"),
        (loose, f"are uncertain, with a standard deviation of up to {most:.2g} px,"),
    ):
        if some.any():
            names = _format_frame_names(state, np.flatnonzero(some).tolist())
            state.add_warning(
                f"{some.sum()} of {state.is_placed.sum()} frames {how} and may be "
                f"misplaced: {names}.",
                "frames-loose",
            )


def _format_frame_names(state: State, frames: Sequence[int]) -> str:
    """List the first frame names and the number of further frames."""
    names = [state.acquisition.names[i] for i in frames[:_MAX_NAMES]]
    more = f" and {len(frames) - _MAX_NAMES} more" if len(frames) > _MAX_NAMES else ""
    return f"{', '.join(names)}{more}"


def _compute_pedestal(state: State) -> float:
    """Compute the grey value that compensates for negative offsets.

    The overlaps determine differences of offsets, not the level without light.
    """
    frames, most = state.frames, 0.0
    dimmest = float(frames.root[frames.root > 0].min(initial=1.0))
    for index in np.flatnonzero(state.is_placed).tolist():
        offset_share = float(frames.offsets[index] / frames.gains[index]) / dimmest
        # chosen: less than a tenth of the noise of a pixel is not an offset
        if offset_share <= max(most, 0.1 * state.noise):
            continue
        image, weight = frames.correct(index)
        values = image[weight > 0]
        if not values.size:
            continue
        # chosen: lower values of a frame may be defects
        low, middle = (float(v) for v in np.quantile(values, (1e-3, 0.5)))
        # single pixels far below the others are defects
        least = max(float(values.min()), 2 * low - middle)
        if least < 0:  # interpolation overshoots a little
            most = max(most, min(-least, offset_share) + min(state.noise, offset_share))
    return most


def _warn_of_shading(state: State, left: float) -> None:
    along = (state.positions @ state.open_slope)[state.is_placed]
    gradient = float(np.expm1(np.ptp(along)))
    if gradient > UNEVEN and state.options.match_gain:
        state.add_warning(
            f"A gradient of {100 * gradient:.2g} % across the mosaic may be real or "
            "due to uneven illumination. Overlaps cannot distinguish these if frame "
            "brightness is automatic: acquire the frames with fixed brightness, or "
            "pass a flat-field image.",
            "gradient-undecided",
        )
    if not left > UNEVEN:
        return
    count = int(state.is_placed.sum())
    if not state.options.match_gain:
        remedy = "match the brightness of the frames"
    elif state.frames.flat.method == "file" and not state.frames.flat.is_dark_known:
        remedy = "pass the dark level (`dark`), or estimate the flat field (auto)"
    elif state.frames.flat.method in FIXED_METHODS:
        remedy = "let the flat field be estimated (auto)"
    # chosen: the median of fewer frames still shows the sample
    elif count < 6:
        remedy = (
            f"{count} frames are too few to distinguish shading from the sample: pass "
            "a flat-field image"
        )
    else:
        remedy = "grey values have the same error: pass an image of the flat field"
    state.add_warning(
        "Shading remains: the brightness of overlapping frames still differs by "
        f"{100 * left:.2g} % beyond noise; {remedy}.",
        "field-uneven",
    )


def _compare_with_nominal(state: State) -> None:
    """Use nominal positions and issue a warning if they fit clearly better."""
    stated = np.where(state.is_placed[:, None], state.nominal, np.nan)
    correlations = []
    for positions in (state.positions, stated):
        pairs = nominal.find_overlapping_pairs(positions, state.acquisition.frame_shape)
        shifts = (pairwise.compute_rounded_shift(positions, pair) for pair in pairs)
        fits = map(partial(pairwise.compute_correlation, state.frames), pairs, shifts)
        correlations.append(float(np.mean([fit[0] for fit in fits] or [0.0])))
    solution, before = correlations
    # chosen: rounding to pixels changes the correlation by less
    if before > solution + 0.02:
        state.positions, state.is_nominal = stated, True
        # one sweep, as wide as the last one
        for sweep in refine_positions(
            state.frames, stated, state.list_overlapping_pairs(), (1.0,)
        ):
            state.refinement = replace(sweep, positions=stated)
        state.add_warning(
            f"Solved positions fit the images less well (correlation {solution:.2f}) "
            f"than the nominal positions ({before:.2f}), so the nominal positions "
            "are used.",
            "nominal-positions-taken",
        )


def _create_pair_report(
    state: State,
    item: pairwise.Candidates,
    shifts_in_use: dict[core.IntPair, core.FloatPair],
    dropped_pairs: set[core.IntPair],
    linearised_shift: LinearisedShift | None,
) -> PairReport:
    """Report a pair's shift, and the first reason that holds why it is not used."""
    pair, have_places = item.pair, state.is_placed[list(item.pair)].all()
    reason, is_chance = "", False
    if item.best_score <= state.threshold and pair not in shifts_in_use:
        reason, is_chance = "not above chance", True
    elif pair in dropped_pairs:
        reason = "disagrees with the other overlaps"
    elif not have_places:
        reason = "a frame is left out"
    elif pair not in shifts_in_use:
        reason = "not needed"
    shift = shifts_in_use.get(pair)
    which = 0
    if shift is None and len(item.shifts):
        shift = (float(item.shifts[0][0]), float(item.shifts[0][1]))
    elif len(item.shifts):
        which = int(np.argmin(np.abs(item.shifts - np.array(shift)).sum(axis=1)))
    residual = sigma = float("nan")
    apart = state.positions[item.second] - state.positions[item.first]
    if linearised_shift is not None and have_places:
        residual = float(np.hypot(*linearised_shift.step))
        # along the less certain direction, or across lines; chosen: a smaller share of
        # the information is due to rounding
        axes = np.linalg.eigvalsh(linearised_shift.information)
        least = axes[0] if axes[0] > 1e-9 * axes[-1] else axes[-1]
        noise = NOISE_RATIO * linearised_shift.variance
        sigma = float(1 / np.sqrt(max(least / noise, 1e-12))) if noise > 0 else 0.0
        if not reason:
            y, x = (apart + linearised_shift.step).tolist()
            shift = (y, x)
    elif shift is not None and not is_chance:
        residual = float(np.hypot(*(apart - shift)))
    return PairReport(
        *pair,
        shift if shift is not None else (float("nan"), float("nan")),
        float(item.ncc[which]) if len(item.ncc) else 0.0,
        float(item.score[which]) if len(item.score) else 0.0,
        used=not reason,
        ambiguous=pair in state.ambiguous,
        residual_px=residual,
        sigma_px=sigma,
        reason=reason,
    )


def _create_pair_reports(state: State) -> tuple[PairReport, ...]:
    refined_shifts = state.refined_shifts
    shifts_in_use = {overlap.pair: overlap.shift for overlap in state.layout.overlaps}
    dropped_pairs = {overlap.pair for overlap in state.layout.dropped_overlaps}
    if not state.is_nominal:
        dropped_pairs |= {
            pair
            for pair in shifts_in_use
            if _has_deviating_shift(refined_shifts.get(pair))
        }
    pairs = [
        _create_pair_report(
            state, item, shifts_in_use, dropped_pairs, refined_shifts.get(item.pair)
        )
        for item in state.candidates
    ]
    return tuple(
        replace(pair, used=False, reason="struck by hand")
        if pair.pair in state.struck_pairs
        else pair
        for pair in pairs
    )


def find_loop_pairs(pairs_in_use: Sequence[_Pair]) -> list[_Pair]:
    """Return the pairs in loops, which can be checked against other pairs.

    Excludes pairs that alone connect frames: the branches of a tree, and a bridge
    between two loops.
    """
    neighbours: dict[int, list[int]] = {}
    for pair in pairs_in_use:
        neighbours.setdefault(pair.first, []).append(pair.second)
        neighbours.setdefault(pair.second, []).append(pair.first)
    above: dict[int, int] = {}  # of each frame, its parent in a spanning tree
    order: list[int] = []
    for root in neighbours:
        waiting = [] if root in above else [root]
        above.setdefault(root, root)
        for frame in waiting:  # grows during iteration
            new = [other for other in neighbours[frame] if other not in above]
            above.update(dict.fromkeys(new, frame))
            waiting += new
        order += waiting
    rank = {frame: place for place, frame in enumerate(order)}
    top = {frame: frame for frame in order}  # of the loops through a frame

    def find_loop_root(frame: int) -> int:
        while top[frame] != frame:
            top[frame] = top[top[frame]]
            frame = top[frame]
        return frame

    for pair in pairs_in_use:
        here, there = pair.first, pair.second
        if here == above[there] or there == above[here]:
            continue  # a branch; any other pair closes a loop of branches
        while (here := find_loop_root(here)) != (there := find_loop_root(there)):
            if rank[here] < rank[there]:
                here, there = there, here
            top[here] = above[here]
    return [
        pair
        for pair in pairs_in_use
        if find_loop_root(pair.first) == find_loop_root(pair.second)
    ]


def _compute_residual(pairs: Sequence[PairReport]) -> float | None:
    """Compute the RMS residual of pairwise shifts, weighted by their information."""
    rows = [
        (pair.residual_px, 1 / pair.sigma_px**2)
        for pair in pairs
        if np.isfinite(pair.residual_px) and pair.sigma_px > 0
    ]
    if not rows:
        return None
    residual, weight = np.array(rows).T
    return float(np.sqrt(np.average(residual**2, weights=weight)))


def estimate_pixel_size(
    nominal_nm: core.FloatArray, solved_positions: core.FloatArray
) -> core.PixelSize | None:
    """Estimate the pixel size ``(y, x)`` from solved (px) and stage (nm) positions.

    `nominal_nm`, `solved_positions` (N, 2), in nm and px. An axis along which the stage
    did not move gets the other's value; None if it moved along neither.
    """
    has_both = np.isfinite(np.hstack([nominal_nm, solved_positions])).all(axis=1)
    if has_both.sum() < 2:
        return None
    stage, pixels = (
        places[has_both] - places[has_both].mean(axis=0)
        for places in (nominal_nm, solved_positions)
    )
    values, vectors = np.linalg.eigh(stage.T @ stage)
    spread_directions = values > 1e-4 * max(float(values[-1]), 1e-30)
    if not spread_directions.any() or values[-1] <= 0:
        return None
    if spread_directions.all():
        matrix = np.linalg.lstsq(pixels, stage)[0]
        fit = nominal.fit_stage_map(solved_positions, nominal_nm)
        if fit is not None and has_both.sum() >= nominal.ENOUGH:
            matrix = fit.matrix.T  # the median ignores wrong positions
        y, x = np.hypot(matrix[:, 0], matrix[:, 1]).tolist()
        return core.parse_pixel_size((y, x))
    along = float(np.linalg.norm(stage @ vectors[:, -1]))
    return core.parse_pixel_size(along / max(float(np.linalg.norm(pixels)), 1e-12))
