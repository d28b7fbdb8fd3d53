"""From the state of a solution to what is handed out."""

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.acquisition import Fault
from napari_semsr.core.micrograph import PixelSize
from napari_semsr.stitch.links import Link
from napari_semsr.stitch.offsets import Candidates
from napari_semsr.stitch.solution import PairReport, StitchSolution
from napari_semsr.stitch.stage import fit_stage, pixel_size_from_stage
from napari_semsr.stitch.state import State

__all__ = ["summarise"]

FloatArray = NDArray[np.float64]
IntPair = tuple[int, int]

_SMOOTHED = 4 * np.pi  # by a Gaussian of 1 px: variance ratio of white noise
_SIZE_DIFFERS = 0.02


def _left_out(state: State) -> tuple[Fault, ...]:
    lost = np.flatnonzero(~np.isfinite(state.positions).all(axis=1))
    names = state.acquisition.names
    faults = [Fault(names[i], state.reasons[int(i)]) for i in lost]
    return (*state.acquisition.faults, *faults)


def _pair(
    state: State,
    item: Candidates,
    used: dict[IntPair, tuple[float, float]],
    dropped: set[IntPair],
    link: Link | None,
) -> PairReport:
    """Describe one joint that was tried."""
    pair = (item.first, item.second)
    placed = np.isfinite(state.positions[list(pair)]).all()
    reason = ""
    if item.best <= state.threshold:
        reason = "not above chance"
    elif pair in dropped:
        reason = "disagrees with the other joints"
    elif not placed:
        reason = "a frame is left out"
    elif pair not in used:
        reason = "not needed"
    shift = used.get(pair)
    which = 0
    if shift is None and len(item.shifts):
        shift = (float(item.shifts[0][0]), float(item.shifts[0][1]))
    elif len(item.shifts):
        which = int(np.argmin(np.abs(item.shifts - np.array(shift)).sum(axis=1)))
    residual = sigma = float("nan")
    if link is not None and placed:
        residual = float(np.hypot(*link.step))
        spread = np.linalg.eigvalsh(link.information)[0] / (_SMOOTHED * link.variance)
        sigma = float(1 / np.sqrt(max(spread, 1e-12)))
    if link is not None and placed and not reason:
        apart = state.positions[item.second] - state.positions[item.first] + link.step
        shift = (float(apart[0]), float(apart[1]))
    return PairReport(
        item.first,
        item.second,
        shift if shift is not None else (float("nan"), float("nan")),
        float(item.ncc[which]) if len(item.ncc) else 0.0,
        float(item.score[which]) if len(item.score) else 0.0,
        used=not reason,
        ambiguous=pair in state.ambiguous,
        residual_px=residual,
        sigma_px=sigma,
        reason=reason,
    )


def _pairs(state: State) -> tuple[PairReport, ...]:
    links = (
        {}
        if state.refined is None
        else {(link.first, link.second): link for link in state.refined.links}
    )
    joints = () if state.layout is None else state.layout.joints
    used = {(j.first, j.second): j.shift for j in joints}
    rejected = () if state.layout is None else state.layout.dropped
    dropped = {(j.first, j.second) for j in rejected}
    return tuple(
        _pair(state, item, used, dropped, links.get((item.first, item.second)))
        for item in state.found
    )


def _residual(pairs: tuple[PairReport, ...]) -> float:
    """RMS residual of the joints in use, each by its information."""
    rows = [
        (pair.residual_px, 1 / pair.sigma_px**2)
        for pair in pairs
        if pair.used and np.isfinite(pair.residual_px) and pair.sigma_px > 0
    ]
    if not rows:
        return float("nan")
    residual, weight = np.array(rows).T
    return float(np.sqrt(np.average(residual**2, weights=weight)))


def _check_size(state: State, estimated: PixelSize | None) -> None:
    """Warn where the stage contradicts the stated pixel size."""
    stated = state.acquisition.pixel_size_nm
    if stated is None or estimated is None:
        return
    ratio = np.array(estimated) / np.array(stated)
    if np.abs(ratio - 1).max() > _SIZE_DIFFERS:
        state.warnings.append(
            f"The stage moved as if a pixel were {np.mean(estimated):.4g} nm, but "
            f"{np.mean(stated):.4g} nm is stated: check the calibration."
        )


def summarise(state: State) -> StitchSolution:
    """Make the solution that is handed out.

    Parameters
    ----------
    state : State
        A scan that has been solved and verified.

    Returns
    -------
    StitchSolution
        With the smallest corner at 0.
    """
    acquisition = state.acquisition
    stage = fit_stage(state.nominal, state.positions, state.options.stage_model)
    estimated = None
    if acquisition.nominal_nm is not None:
        estimated = pixel_size_from_stage(acquisition.nominal_nm, state.positions)
    _check_size(state, estimated)
    pairs = _pairs(state)
    positions = state.positions - np.nanmin(state.positions, axis=0)
    spread = np.full(positions.shape, np.nan)
    if state.refined is not None:
        spread = np.where(np.isfinite(positions), state.refined.sigma_px, np.nan)
    shading = state.shading
    return StitchSolution(
        positions_px=positions,
        nominal_px=state.nominal if state.is_stated else None,
        names=acquisition.names,
        left_out=_left_out(state),
        pairs=pairs,
        residual_px=_residual(pairs),
        sigma_px=spread,
        flat=state.prepared.flat,
        gains=state.prepared.gains,
        turns=state.prepared.turns,
        noise=state.noise,
        threshold=state.threshold,
        stage=stage,
        pixel_size_nm=acquisition.pixel_size_nm or estimated,
        estimated_pixel_size_nm=estimated,
        shading_percent=float("nan") if shading is None else 100 * shading.residual,
        warnings=tuple(state.warnings),
        notes={"reach_px": state.reach, "flat_field": state.prepared.flat.method},
    )
