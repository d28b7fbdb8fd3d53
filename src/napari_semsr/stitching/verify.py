"""Last checks: every frame is founded, and the result is better than nominal."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.core import FloatArray, IntPair, RegistrationError
from napari_semsr.stitching.discovery import agreement, misfits
from napari_semsr.stitching.flat_field import GIVEN
from napari_semsr.stitching.frames import CorrectedFrames
from napari_semsr.stitching.nominal import overlapping_pairs
from napari_semsr.stitching.pairwise import coefficient
from napari_semsr.stitching.state import State

_FINE_NOISE = 0.64  # what Gaussian 0.5 px leaves of white noise
_BLANK = 1.25
_NOISE_DOUBT = 4.0  # frames may scatter more than noise alone by such a factor
_SAMPLE = 16
_UNEVEN = 0.02
_FEW_FRAMES = 6
_LOOSE = 1.0
_MANY = 0.2  # share of frames without a place from which none is to be trusted
_MOSTLY = 0.3
_CROSS = np.array([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]])


def noise_level(prepared: CorrectedFrames) -> float:
    """Pixel noise of the raw frames.

    .. [1] J. Immerkaer, Comput. Vis. Image Underst. 64, 300 (1996),
       doi:10.1006/cviu.1996.0060.

    Gives median over some frames of the robust scatter of mixed second differences,
    which a smooth picture hardly has [1]_.
    """
    count = len(prepared.acquisition)
    chosen = np.unique(
        np.linspace(0, count - 1, min(count, _SAMPLE)).round().astype(int)
    )
    inside = ndimage.binary_erosion(prepared.flat.valid, np.ones((3, 3)))
    levels = []
    for index in chosen:
        frame = prepared.acquisition.read(int(index)).astype(np.float32)
        mixed = ndimage.convolve(frame, _CROSS, mode="nearest")[inside]
        levels.append(1.4826 * np.nanmedian(np.abs(mixed)) / 6)
    return max(float(np.median(levels)), 1e-9)


def band_noise(noise: float) -> float:
    """Noise power that a band-passed pixel keeps."""
    return (_FINE_NOISE * noise) ** 2


def _reason(state: State, index: int) -> str:
    """Why a frame could not be placed."""
    band = state.prepared.banded(index)
    inside = state.prepared.flat.valid
    texture = float(np.sqrt(np.mean(band[inside] ** 2))) if inside.any() else 0.0
    if texture < _BLANK * _FINE_NOISE * state.noise:
        return "blank: it holds no detail above its noise"
    return "fits none of its neighbours: foreign, displaced too far, or too dark"


def drop_misfits(state: State) -> list[int]:
    """Take away frames that show other detail than all of their neighbours.

    `state`: A scan whose positions are right to about a pixel; positions and reasons
    change.
    """
    pairs = overlapping_pairs(state.positions, state.acquisition.frame_shape)
    limit = _NOISE_DOUBT * band_noise(state.noise)
    found = agreement(state.prepared, state.positions, pairs, limit)
    lost = misfits(found, len(state.positions))
    for index in lost:
        state.positions[index] = np.nan
        state.rescued.discard(index)
        state.reasons[index] = (
            "shows other detail than its neighbours: foreign, or displaced too far"
        )
    return lost


def _fit(state: State, pairs: list[IntPair], positions: FloatArray) -> float:
    """Mean correlation coefficient of pairs at given positions."""
    values = []
    for pair in pairs:
        shift = np.round(positions[pair[1]] - positions[pair[0]])
        values.append(
            coefficient(state.prepared, pair, (int(shift[0]), int(shift[1])))[0]
        )
    return float(np.mean(values)) if values else 0.0


def _unfounded(state: State) -> list[int]:
    """Placed frames that no joint supports where they now are."""
    joints = () if state.layout is None else state.layout.joints
    supported = set(state.rescued)
    for joint in joints:
        apart = state.positions[joint.second] - state.positions[joint.first]
        if np.hypot(*(apart - joint.shift)) <= 3:
            supported |= {joint.first, joint.second}
    placed = np.flatnonzero(np.isfinite(state.positions).all(axis=1))
    return [int(index) for index in placed if int(index) not in supported]


def verify(state: State) -> None:
    """Take back what is not founded, and say what the user must know."""
    for index in _unfounded(state):
        state.positions[index] = np.nan
    lost = np.flatnonzero(~np.isfinite(state.positions).all(axis=1))
    if len(lost) == len(state.positions):
        msg = (
            f"Frames must agree where they overlap, but none of {len(lost)} does; "
            "let the flat field be found (auto) or check grid and order."
        )
        raise RegistrationError(msg)
    for lost_index in lost:
        index = int(lost_index)
        state.reasons.setdefault(index, _reason(state, index))
    if len(lost):
        state.warnings.append(
            f"{len(lost)} of {len(state.positions)} frames could not be placed and are "
            f"left out: {_named(state, lost)}."
        )
    doubtful = [i for i in lost if not state.reasons[int(i)].startswith("blank")]
    if len(doubtful) > _MANY * len(state.positions):
        state.warnings.append(
            "Where so many frames find no place, chance fits as well as truth: the "
            "placed ones may lie wrong, by whole periods too; compare them with the "
            "stage, or scan with more overlap."
        )
    if state.ambiguous:
        state.warnings.append(
            f"The sample repeats itself: {len(state.ambiguous)} joints fit as well a "
            "whole period away and were decided by the stage alone, so that positions "
            "may be wrong by whole periods."
        )
    _warn_of_spread(state)
    _warn_of_shading(state)
    if state.is_stated and not _undecided(state):
        _against_nominal(state)


def _warn_of_spread(state: State) -> None:
    """Say which places the joints hardly hold."""
    if state.refined is None:
        return
    spread = np.hypot(*state.refined.sigma_px.T)
    placed = np.isfinite(state.positions).all(axis=1)
    loose = np.flatnonzero(placed & (spread > _LOOSE))
    if not len(loose):
        return
    names = _named(state, loose)
    state.warnings.append(
        f"{len(loose)} of {int(placed.sum())} frames are held loosely, with a standard "
        f"deviation of up to {spread[loose].max():.2g} px, and may lie in a wrong "
        f"place: {names}."
    )


def _named(state: State, frames: NDArray[np.intp]) -> str:
    """Names of some frames, and how many more there are."""
    names = [state.acquisition.names[i] for i in frames[:5]]
    more = f" and {len(frames) - 5} more" if len(frames) > 5 else ""
    return f"{', '.join(names)}{more}"


def _warn_of_shading(state: State) -> None:
    """Say it where overlapping frames still differ in brightness."""
    left = float("nan") if state.shading is None else state.shading.residual
    if not left > _UNEVEN:
        return
    count = int(np.isfinite(state.positions[:, 0]).sum())
    if state.prepared.flat.method in GIVEN:
        remedy = "let the flat field be found (auto)"
    elif count < _FEW_FRAMES:
        remedy = (
            f"{count} frames are too few to tell shading from the sample, give an "
            "image of the flat field"
        )
    else:
        remedy = "grey values are uneven by as much, give an image of the flat field"
    state.warnings.append(
        f"Shading remains: overlapping frames still differ by {100 * left:.2g} % of "
        f"their brightness beyond noise; {remedy}."
    )


def _period(state: State) -> float:
    """Distance between candidates of the pairs that the images leave open, in px."""
    nearest = []
    for item in state.found:
        if (item.first, item.second) in state.ambiguous and len(item.shifts) > 1:
            apart = item.shifts[1:] - item.shifts[0]
            nearest.append(float(np.hypot(*apart.T).min()))
    return float(np.median(nearest)) if nearest else float("inf")


def _undecided(state: State) -> bool:
    """Give nominal positions, and say so, where the images decide nothing.

    On a sample that only repeats itself a place within half a period of the nominal one
    can always be had; one farther away is worse than what the stage says.
    """
    joints = 0 if state.layout is None else len(state.layout.joints)
    if len(state.ambiguous) < _MOSTLY * max(joints, 1):
        return False
    away = state.positions - state.nominal
    away = away - np.nanmedian(away, axis=0)
    farthest = float(np.nanmax(np.abs(away)))
    period = _period(state)
    if farthest <= period / 2:
        return False
    placed = np.isfinite(state.positions).all(axis=1, keepdims=True)
    state.positions = np.where(placed, state.nominal, np.nan)
    state.warnings.append(
        f"The images decide only up to a period of about {period:.3g} px and would "
        f"move frames by as much as {farthest:.3g} px: the nominal positions are given."
    )
    return True


def _against_nominal(state: State) -> None:
    """Give nominal positions, and say so, where the solved ones fit no better."""
    placed = np.isfinite(state.positions).all(axis=1, keepdims=True)
    nominal = np.where(placed, state.nominal, np.nan)
    shape = state.acquisition.frame_shape
    solved = _fit(state, overlapping_pairs(state.positions, shape), state.positions)
    before = _fit(state, overlapping_pairs(nominal, shape), nominal)
    if before > solved + 0.02:
        state.positions = nominal
        state.warnings.append(
            f"Solved positions fit the images less well (correlation {solved:.2f}) "
            f"than the nominal ones ({before:.2f}): the nominal ones are given."
        )
