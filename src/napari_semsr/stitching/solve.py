"""Step-by-step solution of a whole scan.

`solve_mosaic` starts from the flat field and the expected positions, and then

1. searches the overlaps of neighbours and computes a layout in whole pixels;
2. places frames without a match, corrects brightness and refines all positions;
3. repeats both if the field is distorted;
4. removes misfits and refines brightness and positions once more;
5. describes the result (`napari_semsr.stitching.verify.finish_solution`);
6. tries other stage axes if too few frames fit.

Why an overlap is not used is the `reason` of its `PairReport`: the first that holds, in
`_create_pair_report` of `verify`.

``not above chance``
    No shift has a score above ``threshold`` (`_compute_layout`: `search_shifts`,
    `ChanceLevel.compute_threshold`), and other overlaps do not predict one
    (`confirm_weak_pairs`). More overlap raises the score; less `significance` lowers
    the threshold, but not below the scores of unrelated frames.
``disagrees with the other overlaps``
    Its shift is more than 3 px from the layout (`compute_layout`, `solve_layout`), or
    its refined shift from the final positions (`_refine_positions`). If the others are
    wrong, `Corrections` strike them, or join this pair.
``a frame is left out``
    One of its frames has no position: the reason of the frame is in ``left_out``
    (`remove_misfits`, `warn_of_unplaced_frames`, `reposition_bridged_frames`).
``not needed``
    Several of its shifts fit equally well, and the other overlaps decide.
``struck by hand``
    The user struck it (`correct_mosaic`).

An error or warning of a whole scan has a code, which is next to its sentence: here for
the input (``too-few-frames``, ``flat-field-missing``, ``positions-invalid``) and
``no-overlap``, which `nominal` and `discovery` raise too; in `discovery`, of frames
without positions, ``ambiguous`` and ``fixed-pattern``; in `nominal`, `lines` and
`verify` ``periodic`` and ``lines-only``; all others in `verify`.
"""

from collections.abc import Sequence

import numpy as np

from napari_semsr import core
from napari_semsr.stitching import (
    frames as prepared,
    layout,
    nominal,
    pairwise,
    refine,
    shading,
    verify,
)
from napari_semsr.stitching.bridges import reposition_bridged_frames, try_place_frame
from napari_semsr.stitching.discovery import UnplacedFramesError, place_stray_frames
from napari_semsr.stitching.frames import CorrectedFrames, FlatField
from napari_semsr.stitching.nominal import find_nominal_positions
from napari_semsr.stitching.state import State, StitchOptions, StitchSolution


def solve_mosaic(
    acquisition: core.Acquisition,
    options: StitchOptions | None = None,
    *,
    flat: core.RealArray | None = None,
    dark: core.RealArray | float | None = None,
    field_distortion: core.FieldDistortion | None = None,
) -> core.Job[StitchSolution]:
    """Find the position of every frame of a scan.

    The default options measure what the scan does not state. `flat` (Y, X) is a flat
    field image, already read, and `dark` a grey level without light or an image (Y, X)
    of it; `field_distortion` is used instead of the option `distortion`, which is then
    a number.

    Raises
    ------
    RegistrationError
        If there are fewer than two frames, or no two of them can be stitched.
    OptionError
        If grid or overlap do not fit the frames.
    """
    options = StitchOptions() if options is None else options
    yield core.Progress(0, 0, "Estimating the flat field")
    acquisition = _apply_options(acquisition, options)
    flat_field = _get_flat_field(acquisition, options, flat, dark)
    amount = 0.0 if isinstance(options.distortion, str) else options.distortion
    centre_px = (0.0, 0.0)
    if field_distortion is not None:
        amount, centre_px = field_distortion.amount, field_distortion.centre_px
    frames_before = CorrectedFrames(
        acquisition, flat_field, distortion=amount, centre_px=centre_px
    )
    state = State(
        acquisition, options, frames_before, *find_nominal_positions(frames_before)
    )
    result = yield from _solve_state(state, field_distortion)
    if state.has_positions:
        result = yield from _check_stated_positions(
            state, frames_before, field_distortion, result
        )
    if isinstance(result, core.RegistrationError):
        raise result
    return result


_MIN_FRAME = 8  # px; chosen: two blocks of the flat field, no camera has less


def _apply_options(
    acquisition: core.Acquisition, options: StitchOptions
) -> core.Acquisition:
    """Apply options that override values of the scan."""
    if len(acquisition) < 2:
        msg = (
            f"A mosaic needs at least two frames, got {len(acquisition)}: open a "
            "single frame as an image."
        )
        raise core.RegistrationError(msg, code="too-few-frames")
    if min(acquisition.frame_shape) < _MIN_FRAME:
        rows, columns = acquisition.frame_shape
        msg = (
            f"Frames must be at least {_MIN_FRAME} x {_MIN_FRAME} px for stitching, "
            f"got {rows} x {columns} px: use the original camera frames."
        )
        raise core.RegistrationError(msg, code="image-too-small")
    option_names = {"grid", "order", "first", "overlap"}
    options_text = options.model_dump(include=option_names, exclude_none=True)
    if "grid" in options_text:  # instead of all positions of the scan
        options_text |= {"nominal_px": None, "nominal_nm": None}
    places = acquisition.nominal_px, acquisition.nominal_nm
    core.check_grid_options(
        options_text.get("grid", acquisition.grid),
        options_text,
        has_positions=any(place is not None for place in places),
    )
    if not options_text.keys().isdisjoint({"grid", "order", "first"}):
        options_text["cells"] = None
    return acquisition.replace(**options_text)


def _get_flat_field(
    acquisition: core.Acquisition,
    options: StitchOptions,
    flat_given: core.RealArray | None,
    dark_given: core.RealArray | float | None,
) -> FlatField:
    shape, known = acquisition.frame_shape, dark_given is not None
    for name, image in (("flat field", flat_given), ("dark frame", dark_given)):
        if isinstance(image, np.ndarray) and image.shape != shape:
            msg = (
                f"The {name} must have the same shape as the frames, {shape}, got "
                f"{image.shape}: acquire it with the same camera settings."
            )
            raise core.ShapeError(msg, code="sizes-differ")
    dark = np.nan_to_num(np.asarray(dark_given if known else 0.0, np.float32))
    frames = (acquisition.read(index) for index in range(len(acquisition)))
    lit = (np.sum(frame > dark) > np.sum(frame <= dark) for frame in frames)
    if known and not any(lit):
        msg = (
            f"The dark level, {np.median(dark):.4g}, must be below the grey values of "
            "the frames: measure it without light, with the same camera settings."
        )
        raise core.OptionError(msg, code="out-of-range")
    if options.flat_field == "auto" and flat_given is None:
        return prepared.estimate_initial_flat(
            acquisition, dark_known=dark if known else None
        )
    if options.flat_field == "none" and flat_given is None:
        return prepared.create_uniform_flat_field(shape, dark, "none", known)
    if flat_given is None:
        msg = (
            "The flat field must be auto, none or an image, got "
            f"{options.flat_field!r}: read the image and pass it as `flat`."
        )
        raise core.OptionError(msg, code="flat-field-missing")
    flat = np.nan_to_num(np.asarray(flat_given, dtype=np.float32))
    if known:
        # the image may contain the dark level, too: the frames show whether it does
        typical = prepared.estimate_initial_flat(acquisition, dark_known=dark)

        def compute_misfit(image: core.RealArray) -> float:
            lit = typical.valid
            share = np.maximum(image[lit], 1e-6) / typical.flat[lit]
            return float(np.std(np.log(share)))

        flat = min(flat, flat - dark, key=compute_misfit)
    flat = np.maximum(flat / max(float(np.quantile(flat, 0.99)), 1e-12), 0)
    valid = prepared.compute_valid_mask(flat)
    return FlatField(flat, dark, valid, "file", is_dark_known=known)


def _solve_state(
    state: State, field_distortion: core.FieldDistortion | None
) -> core.Job[StitchSolution | core.RegistrationError]:
    """Solve a scan from its expected positions; return the solution or an error."""
    options, frames_before = state.options, state.frames
    try:
        yield from _search_layout(state)
        if options.distortion == "auto":
            state = yield from _place_and_undistort(state, frames_before)
        else:
            yield from _place_frames(state)
        if options.rotation:
            yield core.Progress(0, 0, "Estimating rotation and scale of the frames")
            state.frames, state.positions = refine.refine_rotations(
                state.frames, state.positions, state.list_overlapping_pairs()
            )
        if verify.remove_misfits(state):
            _place_remaining_frames(state)
        yield from reposition_bridged_frames(state)
        update_shading(state, shading.FINE_KNOTS)
        if options.distortion == "auto" and state.frames.distortion:
            yield from _measure_distortion(state, _LAST_SWEEPS)
        yield from _refine_positions(state, (1.0,) * 4)
        if verify.remove_misfits(state):
            yield from _refine_positions(state, (1.0,) * 2)
        if field_distortion is not None:
            _check_known_distortion(state, field_distortion)
        return verify.finish_solution(state)
    except core.RegistrationError as error:
        return error


def _search_layout(state: State) -> core.Job[None]:
    """Search all pairs for significant shifts and compute the layout of the frames."""
    share = pairwise.FIRST_REACH
    while True:
        state.reach = _compute_search_range(state, share)
        yield from _compute_layout(state)
        if _rotate_positions(state):
            yield from _compute_layout(state)
        share *= 2
        is_last = share > pairwise.LAST_REACH or state.options.max_shift_px is not None
        if is_last or state.has_sufficient_placement:
            return


def _compute_search_range(state: State, share: float) -> core.IntPair:
    """Return the search range along both axes."""
    limit, (rows, columns) = state.options.max_shift_px, state.acquisition.frame_shape
    if limit is None:
        return pairwise.compute_reach((rows, columns), share)
    # the difference of two frames errs by up to twice as much
    return min(round(2 * limit), rows - 8), min(round(2 * limit), columns - 8)


def _compute_layout(state: State) -> core.Job[None]:
    """Search all pairs in the current search range and compute the layout."""
    touching = nominal.find_touching_pairs(state.nominal, state.acquisition.frame_shape)
    if not touching:
        msg = (
            "Frames must overlap for stitching, but no two of them overlap at their "
            f"nominal positions: {state.advice}."
        )
        raise core.RegistrationError(msg, code="no-overlap")
    shifts = {
        pair: pairwise.compute_rounded_shift(state.nominal, pair) for pair in touching
    }
    expected_shifts = tuple(shifts.values())
    if state.chance is None or state.chance.expected_shifts != expected_shifts:
        state.chance = layout.measure_chance_level(state.frames, expected_shifts)
    tried = state.reach
    if state.matches or state.fitted_as_stated is not None:
        # the images alone determined where to search
        rows, columns = state.acquisition.frame_shape
        tried = rows - 1, columns - 1
    state.threshold, state.is_periodic = state.chance.compute_threshold(
        layout.count_shifts(tried), state.options.significance
    )
    state.candidates = []
    for done_count, pair in enumerate(touching):
        yield core.Progress(done_count, len(touching), "Comparing neighbouring frames")
        state.candidates.append(
            pairwise.search_shifts(state.frames, pair, shifts[pair], state.reach)
        )
    state.layout, state.ambiguous = yield from layout.compute_layout(
        state.frames,
        state.candidates,
        state.threshold,
        state.nominal,
        is_periodic=state.is_periodic,
        is_stated=state.is_stated,
    )
    if not state.is_periodic and not state.ambiguous:
        state.candidates, state.layout = layout.confirm_weak_pairs(
            state.frames, state.candidates, state.layout, state.chance, state.threshold
        )
    state.positions = state.layout.positions.copy()


# Share of the distance of neighbours: chosen as the reach of the first search, which is
# more than the jitter of a stage.
_OTHER_SHIFT = 0.1


def _rotate_positions(state: State) -> bool:
    """Rotate and scale stated positions if neighbours confirm this reliably.

    Done once, if frames are not placed, the sample is periodic, or axes seem to differ:
    within a narrow search a shift a period away looks certain too.
    """
    if not state.is_stated or state.turns is not None:
        return False
    shape = state.acquisition.frame_shape
    axes = nominal.fit_stage_axes(state.nominal, state.positions, min(shape))
    seems = np.eye(2) if axes is None else axes.matrix
    is_plain = state.has_sufficient_placement and not (
        state.is_periodic or state.ambiguous
    )
    if is_plain and _compute_map_difference(seems, np.eye(2)) < nominal.NOTICEABLE:
        return False
    pairs = nominal.find_touching_pairs(state.nominal, shape)
    limit = state.options.max_shift_px
    most = None if limit is None else 2 * limit
    state.turns = nominal.find_possible_rotations(
        state.frames, state.nominal, pairs, most
    )
    # a grid and its overlap are along the axes of the camera
    if len(state.turns.turns) != 1 or not state.has_positions:
        return False
    turn = nominal.convert_to_matrix(state.turns.turns[0])
    least = min(max(nominal.NOTICEABLE, state.turns.doubt), _OTHER_SHIFT)
    if _compute_map_difference(turn, np.eye(2)) < least:
        return False
    if is_plain and _compute_map_difference(turn, seems) < _OTHER_SHIFT:
        return False  # frames are already placed like this
    state.nominal = state.nominal @ turn.T
    state.axes = turn @ state.axes
    return True


def _compute_map_difference(first: core.FloatArray, second: core.FloatArray) -> float:
    """Return the relative difference between two (2, 2) linear maps."""
    return float(np.hypot(*(first - second)).max())


def _place_and_undistort(
    state: State, frames_before: CorrectedFrames
) -> core.Job[State]:
    """Place the frames, and correct a significant distortion."""
    placed_count = int(state.is_placed.sum())
    if state.has_sufficient_placement:
        yield from _place_frames(state)
        start = yield from _measure_distortion(state, _FIRST_SWEEPS)
        if not start:
            return state
        # blurred overlaps may mislead the fit, blocks do not
        start = state.frames.distortion or (
            _estimate_distortion(state, frames_before) or start
        )
    else:
        start = _estimate_distortion(state, frames_before)
        if not start:
            yield from _place_frames(state)
            return state
    # chosen: the first layout is accurate to a pixel, two are for a bad estimate
    for _ in range(3):
        again = yield from _repeat_layout(state, frames_before, start)
        if again.is_placed.sum() < max(placed_count, 1):
            break
        yield from _place_frames(again)
        yield from _measure_distortion(again, _FIRST_SWEEPS)
        distortion = again.frames.distortion
        if not distortion:
            break
        # at the rim; chosen: with 0.8 px overlaps of faint samples were lost
        if abs(distortion - start) * state.rim_radius < 0.5:
            return again
        start = distortion
    # a scan without distortion is placed as if it had not been tested
    again = yield from _repeat_layout(state, frames_before, 0.0)
    yield from _place_frames(again)
    return again


def _place_frames(state: State) -> core.Job[None]:
    """Refine a whole-pixel layout to sub-pixel positions."""
    if not np.isfinite(state.positions).any():
        msg = (
            f"None of the overlaps between the {len(state.acquisition)} frames is "
            "significant (best score "
            f"{max((f.best_score for f in state.candidates), default=0):.1f}, required "
            f"{state.threshold:.1f}): {state.advice}."
        )
        raise UnplacedFramesError(msg, state.find_likely_grids(), code="no-overlap")
    state.noise = prepared.estimate_noise(state.frames)
    yield core.Progress(0, 0, "Placing frames without a match")
    _place_remaining_frames(state)
    yield core.Progress(0, 0, "Refining flat field and gains")
    update_shading(state, shading.COARSE_KNOTS)
    yield from reposition_bridged_frames(state)
    _place_remaining_frames(state)
    _place_stray_frames(state)
    # the recorded trials used three sweeps at 2 px and five at 1 px; the number here is
    # chosen
    yield from _refine_positions(state, (2.0, 1.0))


def _place_remaining_frames(state: State) -> None:
    """Place remaining frames by their placed neighbours, most certain first."""
    stage = state.fit_stage_map()
    if stage is None:
        return
    expected_places = stage.predict(state.nominal)
    waiting = np.isfinite(expected_places).all(axis=1) & ~state.is_placed
    while waiting.any():
        sure: dict[int, tuple[core.FloatArray, float]] = {}
        for index in np.flatnonzero(waiting).tolist():
            place = layout.place_frame_by_neighbours(
                state.frames,
                index,
                expected_places[index],
                state.positions,
                state.reach,
                state.threshold,
            )
            if place is not None:
                sure[index] = place
        if not sure:
            return
        index = max(sure, key=lambda i: sure[i][1])
        state.positions[index] = sure[index][0]
        state.rescued_frames.add(index)
        waiting[index] = False


def _place_stray_frames(state: State) -> None:
    """Place frames with wrong stated positions, using only the images."""
    # chosen: if fewer frames fit, wrong axes or a wrong unit are more likely than wrong
    # positions of some frames
    if state.is_placed.mean() < 2 / 3 or state.is_periodic:
        return
    # frames that also fit near their position have repeating detail
    without_place = [
        index
        for index in np.flatnonzero(~state.is_placed).tolist()
        if not verify.is_featureless_frame(state, index)
        and not try_place_frame(state, index)
    ]
    if not without_place:
        return
    noise = prepared.compute_band_noise(state.noise)
    state.positions = place_stray_frames(
        state.frames, state.positions, without_place, noise
    )
    state.strays = [index for index in without_place if state.is_placed[index]]
    state.rescued_frames |= {*state.strays}


def update_shading(
    state: State, knots: int, expected_frames: CorrectedFrames | None = None
) -> None:
    """Refine flat field, gains and offsets on the overlaps of the placed frames.

    `expected_frames`: frames with the most likely gains and offsets.
    """
    pairs = state.list_overlapping_pairs()
    is_free = state.frames.flat.method not in prepared.FIXED_METHODS
    if is_free and knots == shading.COARSE_KNOTS:
        flat = shading.choose_flat_field(state.frames, state.positions, pairs)
        if flat is not state.frames.flat:
            state.frames = state.frames.copy_with_changes(flat=flat)
    # refit in any case what was fitted at inexact positions
    refit = knots > shading.COARSE_KNOTS and state.frames.flat.is_refined
    for cells in (shading.COARSE_KNOTS, knots) if refit else (knots,):
        before = state.frames
        fit = shading.refine_shading(
            before,
            state.positions,
            pairs,
            knots=cells,
            is_fixed=not is_free,
            is_trusted=cells < knots,
            expected_frames=expected_frames,
        )
        gains = before.gains * np.exp(fit.log_gains)
        offsets = before.offsets + fit.offsets
        if not state.options.match_gain:
            gains, offsets = np.ones_like(gains), np.zeros_like(offsets)
        state.frames = before.copy_with_changes(
            flat=fit.flat, gains=gains, offsets=offsets
        )
        state.open_slope = np.array(fit.open_slope)


def _refine_positions(state: State, widths: tuple[float, ...]) -> core.Job[None]:
    sweeps = refine.refine_positions(
        state.frames, state.positions, state.list_overlapping_pairs(), widths
    )
    for done_count, sweep in enumerate(sweeps):
        state.refinement = sweep
        yield core.Progress(done_count, 8, "Refining all positions together")
    if state.refinement is not None:
        state.positions = state.refinement.positions.copy()


# Standard deviations; chosen: of a thousand scans without distortion none exceeds it by
# noise, and a smaller one moves no frame by more than other errors.
_BEYOND_DOUBT = 4.0
# Widths in px: a first search, then wide enough for an error of 2 px. The last ones
# stop as soon as nothing moves.
_FIRST_SWEEPS = (1.0, 2.0, 2.0, 1.0, 1.0)
_LAST_SWEEPS = (1.0,) * 3


def _measure_distortion(state: State, sweeps: Sequence[float]) -> core.Job[float]:
    """Fit distortion and positions together; correct only a significant distortion.

    Returns the fitted distortion; 0 if it does not exceed noise. It may exceed the
    corrected one if the pairs disagree.
    """
    before = state.frames, state.positions
    pairs, rim = state.list_overlapping_pairs(), state.rim_radius
    amount = 0.0
    for done_count, width in enumerate(sweeps):
        what = "Measuring the distortion of the field"
        yield core.Progress(done_count, len(sweeps), what)
        where = state.frames, state.positions, pairs
        rim_moves = refine.measure_rim_displacement(*where, width)
        if rim_moves is None:
            amount = 0.0
            break
        amount = state.frames.distortion + rim_moves.step / rim
        state.distortion_sd = rim_moves.sigma * rim_moves.excess / rim
        if abs(amount) * rim < _BEYOND_DOUBT * rim_moves.sigma:
            amount = 0.0
            break
        if abs(amount) > core.MAX_DISTORTION:
            break
        state.frames = state.frames.copy_with_changes(distortion=amount)
        state.positions = state.positions + rim_moves.moves
        state.distortion_doubt = rim_moves.doubt_px
        # chosen: it adds 0.5 % to the standard deviation
        if abs(rim_moves.step) < 0.1 * rim_moves.sigma:
            break
    is_distorted, field_amount = False, abs(state.frames.distortion)
    if amount and state.distortion_sd is not None and state.refinement is not None:
        error = float(np.nanmedian(np.hypot(*state.refinement.sigma_px.T)))
        is_distorted = (  # significant and worth correcting
            field_amount > _BEYOND_DOUBT * state.distortion_sd
            and field_amount * state.rim_radius > error
        )
    if not is_distorted:
        state.frames, state.positions = before
        state.distortion_doubt = None
        if state.frames.distortion:
            state.frames = state.frames.copy_with_changes(distortion=0.0)
    return amount


def _estimate_distortion(state: State, frames_before: CorrectedFrames) -> float:
    """Estimate the approximate distortion from the accepted shifts."""
    if state.is_periodic:
        return 0.0  # blocks of a lattice agree equally well a period away
    if state.has_sufficient_placement:
        shifts = {
            overlap.pair: (round(overlap.shift[0]), round(overlap.shift[1]))
            for overlap in state.layout.overlaps
        }
        # error of a pairwise shift that distortion blurs; chosen: at 3 % at the rim,
        # the shift of a whole overlap errs by up to 2 % of a frame
        reach = max(6, round(0.03 * min(state.acquisition.frame_shape)))
    else:  # hardly any shift is accepted: all neighbours, within the full reach
        pairs = [item.pair for item in state.candidates]
        shifts = {
            pair: pairwise.compute_rounded_shift(state.nominal, pair) for pair in pairs
        }
        reach = max(_compute_search_range(state, pairwise.FIRST_REACH))
    return refine.estimate_distortion(frames_before, shifts, reach)


def _repeat_layout(
    state: State, frames_before: CorrectedFrames, distortion: float
) -> core.Job[State]:
    """Repeat the search and layout with a corrected distortion."""
    frames = frames_before.copy_with_changes(distortion=distortion)
    expectation = state.nominal, state.is_stated, state.matches
    if not state.is_stated:
        expectation = find_nominal_positions(frames)
    new = State(state.acquisition, state.options, frames, *expectation)
    new.axes, new.turns = state.axes, state.turns
    new.fitted_as_stated = state.fitted_as_stated
    new.distortion_sd = state.distortion_sd
    yield from _search_layout(new)
    return new


def _check_known_distortion(
    state: State, field_distortion: core.FieldDistortion
) -> None:
    """Propagate a known distortion's error to positions; warn of contradictions.

    Frames that match a period away cannot contradict it.
    """
    state.distortion_sd = field_distortion.sd
    pairs = state.list_overlapping_pairs()
    rim = refine.measure_rim_displacement(
        state.frames, state.positions, pairs, _LAST_SWEEPS[-1]
    )
    if rim is None:
        return
    error, more = rim.sigma * rim.excess / state.rim_radius, rim.step / state.rim_radius
    state.distortion_doubt = rim.doubt_px * (field_distortion.sd / error)
    if state.is_periodic or state.ambiguous:
        return
    if abs(more) > _BEYOND_DOUBT * np.hypot(error, field_distortion.sd):
        state.add_warning(
            "The overlaps show a rim distortion of "
            f"{field_distortion.amount + more:.4f} +- {error:.1g}, but the "
            f"calibration states {field_distortion.amount:.4f} +- "
            f"{field_distortion.sd:.1g}: check that the calibration image was "
            "acquired through the same sphere and with the same camera region.",
            "distortion-contradicts",
        )


def _check_stated_positions(
    state: State,
    frames_before: CorrectedFrames,
    field_distortion: core.FieldDistortion | None,
    result: StitchSolution | core.RegistrationError,
) -> core.Job[StitchSolution | core.RegistrationError]:
    """Check the stated positions if they fit too few frames.

    Raises an error if all are at one position; uses axes by which most frames fit.
    """
    if isinstance(result, StitchSolution) and result.has_sufficient_placement:
        return result
    before, half = _count_placed_frames(result), len(frames_before.acquisition) / 2
    span, shape = np.ptp(state.nominal, axis=0), frames_before.frame_shape
    # chosen: micrometres read as nanometres shrink a scan as wide as a hundred frames
    # below a tenth of a frame, and hardly any mosaic is larger
    if before < half and (span < 0.1 * np.array(shape)).all():
        msg = (
            "Positions must be spread over the scan, but all are within "
            f"{span.max():.2g} px of each other with frames of {shape[0]}x{shape[1]} "
            f"px: {state.advice}."
        )
        return core.RegistrationError(msg, code="positions-invalid")
    yield core.Progress(0, 0, "Comparing the stage's axes with those of the images")
    # as stated: the search may have rotated them already
    stated_positions = state.nominal @ np.linalg.inv(state.axes).T
    axes = nominal.find_alternative_axes(frames_before, stated_positions)
    # a lattice rotated onto itself determines only quarter turns
    if axes is None or (
        state.has_ambiguous_axes and not np.isin(axes, (-1, 0, 1)).all()
    ):
        return result
    turned_positions = stated_positions @ axes.T
    turned_state = State(
        frames_before.acquisition, state.options, frames_before, turned_positions, True
    )
    turned_state.axes, turned_state.fitted_as_stated = axes, before
    other = yield from _solve_state(turned_state, field_distortion)
    return other if _count_placed_frames(other) > max(before, half) else result


def _count_placed_frames(result: StitchSolution | core.RegistrationError) -> int:
    if isinstance(result, core.RegistrationError):
        return 0
    return int(result.is_placed.sum())
