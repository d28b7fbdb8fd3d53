"""The whole solution of a scan, step by step."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import (
    Acquisition,
    IntPair,
    Job,
    OptionError,
    Progress,
    RegistrationError,
    ShapeError,
)
from napari_semsr.stitching.flat_field import GIVEN, FlatField, first_flat, valid_mask
from napari_semsr.stitching.frames import CorrectedFrames, noise_level
from napari_semsr.stitching.layout import chance_threshold, lay_out, place_among
from napari_semsr.stitching.nominal import (
    nominal_positions,
    overlapping_pairs,
    touching_pairs,
)
from napari_semsr.stitching.options import StitchOptions
from napari_semsr.stitching.pairwise import search
from napari_semsr.stitching.refine import refine, refine_rotations
from napari_semsr.stitching.shading import (
    COARSE_KNOTS,
    FINE_KNOTS,
    refine_shading,
    without_flat,
)
from napari_semsr.stitching.solution import StitchSolution, fit_stage
from napari_semsr.stitching.state import State
from napari_semsr.stitching.verify import drop_misfits, finish

# Reach of the search as a share of a frame, doubled up to 0.4 while less than 0.8 of
# the frames find a place, and at least 16 px. Chosen: time and chance grow with it; the
# trials of docs/stitching.md searched four times the error of the stage.
_FIRST_REACH = 0.1
_LEAST_REACH = 16
_LAST_REACH = 0.4
_ENOUGH_PLACED = 0.8


def _with_options(acquisition: Acquisition, options: StitchOptions) -> Acquisition:
    """Let the options override what the scan says of itself."""
    changes: dict[str, Any] = {}
    for name in ("grid", "order", "overlap"):
        value = getattr(options, name)
        if value is not None:
            changes[name] = value
    if len(acquisition) < 2:
        given = len(acquisition)
        msg = f"A mosaic needs at least two frames, got {given}: open it as an image."
        raise RegistrationError(msg)
    return acquisition.replace(**changes)


def _flat(
    acquisition: Acquisition, options: StitchOptions, given: NDArray[Any] | None
) -> FlatField:
    """Flat field as the options ask for it."""
    shape = acquisition.frame_shape
    if options.flat_field == "auto" and given is None:
        return first_flat(acquisition)
    if options.flat_field == "none" and given is None:
        ones = np.ones(shape, np.float32)
        return FlatField(ones, 0.0, ones > 0, "none")
    if given is None:
        msg = (
            f"The flat field {options.flat_field!r} must be auto, none or an image "
            "that the caller has read: pass it as `flat`."
        )
        raise OptionError(msg)
    if given.shape != shape:
        msg = (
            f"The flat field must have the frames' shape {shape}, got {given.shape}: "
            "take it with the same camera settings."
        )
        raise ShapeError(msg)
    flat = np.nan_to_num(np.asarray(given, dtype=np.float32))
    flat = np.maximum(flat / max(float(np.quantile(flat, 0.99)), 1e-12), 0)
    return FlatField(flat, 0.0, valid_mask(flat), "file")


def _begin(
    acquisition: Acquisition, options: StitchOptions, flat: NDArray[Any] | None
) -> State:
    """Flat field and nominal positions."""
    acquisition = _with_options(acquisition, options)
    prepared = CorrectedFrames(acquisition, _flat(acquisition, options, flat))
    return State(acquisition, options, prepared, *nominal_positions(prepared))


def _reach(state: State, share: float) -> IntPair:
    """Reach of a search along both axes."""
    rows, columns = state.acquisition.frame_shape
    limit = state.options.max_shift_px
    if limit is not None:
        # two frames that both are off by so much differ by twice as much
        return (min(round(2 * limit), rows - 8), min(round(2 * limit), columns - 8))
    return (
        max(_LEAST_REACH, round(share * rows)),
        max(_LEAST_REACH, round(share * columns)),
    )


def _coarse(state: State) -> Job[None]:
    """Search all joints, believe those above chance, lay the frames out."""
    count = len(state.acquisition)
    share = _FIRST_REACH
    while True:
        state.reach = _reach(state, share)
        yield from _search_all(state)
        state.layout, state.ambiguous = yield from lay_out(
            state.prepared,
            state.found,
            state.threshold,
            state.nominal,
            is_periodic=state.is_periodic,
        )
        state.positions = state.layout.positions.copy()
        placed = int(np.isfinite(state.positions).all(axis=1).sum())
        share *= 2
        if (
            placed >= _ENOUGH_PLACED * count
            or share > _LAST_REACH
            or state.options.max_shift_px is not None
        ):
            return


def _search_all(state: State) -> Job[None]:
    """Candidates of all pairs that may touch, and the threshold of chance."""
    shape = state.acquisition.frame_shape
    touching = touching_pairs(state.nominal, shape)
    if not touching:
        msg = (
            "Frames must overlap to be joined, but no two of them do at their nominal "
            "positions: check positions, overlap and pixel size."
        )
        raise RegistrationError(msg)
    shifts = {pair: _nominal_shift(state, pair) for pair in touching}
    state.threshold, state.is_periodic = chance_threshold(
        state.prepared,
        state.nominal,
        list(shifts.values()),
        state.reach,
        state.options.significance,
    )
    state.found = []
    for done, pair in enumerate(touching):
        yield Progress(done, len(touching), "Comparing neighbouring frames")
        state.found.append(search(state.prepared, pair, shifts[pair], state.reach))


def _nominal_shift(state: State, pair: IntPair) -> IntPair:
    shift = np.round(state.nominal[pair[1]] - state.nominal[pair[0]])
    return int(shift[0]), int(shift[1])


def _rescue(state: State) -> None:
    """Place frames by all of their neighbours together, nearest ones first."""
    stage = fit_stage(state.nominal, state.positions, state.options.stage_model)
    if stage is None:
        return
    expected = stage.predict(state.nominal)
    waiting = set(np.flatnonzero(~np.isfinite(state.positions).all(axis=1)).tolist())
    while waiting:
        best = None
        for index in sorted(waiting):
            if not np.isfinite(expected[index]).all():
                continue
            found = place_among(
                state.prepared, index, expected[index], state.positions, state.reach
            )
            if found is None or not found.is_sure:
                continue
            if best is None or found.score > best[1].score:
                best = (index, found)
        if best is None:
            return
        index, found = best
        state.positions[index] = found.position
        state.rescued.add(index)
        waiting.discard(index)


def _reshade(state: State, knots: int) -> None:
    """Refine flat field and gains on the overlaps."""
    shape = state.acquisition.frame_shape
    pairs = overlapping_pairs(state.positions, shape)
    is_free = state.prepared.flat.method not in GIVEN
    if is_free and knots == COARSE_KNOTS:
        plain = without_flat(state.prepared, state.positions, pairs)
        if plain is not None:
            state.prepared = CorrectedFrames(
                state.acquisition, plain, state.prepared.gains
            )
    before = state.prepared
    fitted = refine_shading(
        before,
        state.positions,
        pairs,
        knots=knots,
        noise=state.noise,
        fixed=not is_free,
    )
    state.shading = fitted
    gains = before.gains * np.exp(fitted.log_gains)
    if not state.options.match_gain:
        gains = np.ones_like(gains)
    state.prepared = CorrectedFrames(
        state.acquisition, fitted.flat, gains, before.rotations
    )


def _fine(state: State, widths: tuple[float, ...]) -> Job[None]:
    """Refine all positions together."""
    shape = state.acquisition.frame_shape
    pairs = overlapping_pairs(state.positions, shape)
    sweeps = refine(state.prepared, state.positions, pairs, widths)
    for done, refined in enumerate(sweeps):
        state.refined = refined
        yield Progress(done, 8, "Refining all positions together")
    if state.refined is not None:
        state.positions = state.refined.positions.copy()


def solve_mosaic(
    acquisition: Acquisition,
    options: StitchOptions | None = None,
    *,
    flat: NDArray[Any] | None = None,
) -> Job[StitchSolution]:
    """Find where every frame of a scan lies.

    Parameters
    ----------
    acquisition : Acquisition
        Frames and what is known of their places.
    options : StitchOptions, optional
        Defaults measure what the scan does not say.
    flat : (Y, X) numpy.ndarray, optional
        Flat field image, already read.

    Returns
    -------
    StitchSolution
        Positions, joints with their quality, shading, gains, warnings.

    Yields
    ------
    Progress
        One for each joint, then one for each sweep.

    Raises
    ------
    RegistrationError
        If there are fewer than two frames, or no two of them can be joined.
    OptionError
        If grid or overlap do not fit the frames.
    """
    options = StitchOptions() if options is None else options
    yield Progress(0, 0, "Finding the flat field")
    state = _begin(acquisition, options, flat)
    yield from _coarse(state)
    if not np.isfinite(state.positions).any():
        msg = (
            f"No joint between the {len(acquisition)} frames stands out from chance "
            f"(best score {max((f.best for f in state.found), default=0):.1f}, needed "
            f"{state.threshold:.1f}): check positions, grid and overlap."
        )
        raise RegistrationError(msg)
    state.noise = noise_level(state.prepared)
    yield Progress(0, 0, "Placing frames without a joint of their own")
    _rescue(state)
    yield Progress(0, 0, "Refining flat field and gains")
    _reshade(state, COARSE_KNOTS)
    _rescue(state)
    # the trials of docs/stitching.md took three sweeps at 2 px and five at 1 px; how
    # many here is chosen
    yield from _fine(state, (2.0, 1.0))
    if options.rotation:
        yield Progress(0, 0, "Finding turn and scale of the frames")
        pairs = overlapping_pairs(state.positions, state.acquisition.frame_shape)
        state.prepared, state.positions = refine_rotations(
            state.prepared, state.positions, pairs
        )
    if drop_misfits(state):
        _rescue(state)
    _reshade(state, FINE_KNOTS)
    yield from _fine(state, (1.0,) * 4)
    if drop_misfits(state):
        yield from _fine(state, (1.0,) * 2)
    return finish(state)
