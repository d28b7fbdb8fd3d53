"""Where frames are expected: as stated, from a grid, or found in the images alone."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from napari_semsr.core.acquisition import Acquisition, grid_cells
from napari_semsr.core.errors import RegistrationError
from napari_semsr.stitch.layout import Joint, components, least_squares
from napari_semsr.stitch.offsets import search
from napari_semsr.stitch.prepared import Prepared

__all__ = ["discover", "from_grid", "measure_grid", "stated"]

FloatArray = NDArray[np.float64]
IntPair = tuple[int, int]

_SURE = 8.0
_TRIALS = 16
_SMALL_SIDE = 96
_KEPT_PEAKS = 3


def stated(acquisition: Acquisition) -> FloatArray | None:
    """Nominal positions that need no image.

    Parameters
    ----------
    acquisition : Acquisition
        Frames of one scan.

    Returns
    -------
    (N, 2) numpy.ndarray or None
        Top-left corners in px: as stated in pixels, in nanometres with a known pixel
        size, or from grid and overlap; None where nothing of this is known.
    """
    if acquisition.nominal_px is not None:
        return np.asarray(acquisition.nominal_px, dtype=float)
    if acquisition.nominal_nm is not None and acquisition.pixel_size_nm is not None:
        return np.asarray(acquisition.nominal_nm / np.array(acquisition.pixel_size_nm))
    if acquisition.grid is not None and acquisition.overlap is not None:
        side = np.array(acquisition.frame_shape) * (1 - acquisition.overlap)
        return from_grid(acquisition, np.diag(side))
    return None


def from_grid(acquisition: Acquisition, steps: FloatArray) -> FloatArray:
    """Nominal positions of a grid with known steps.

    Parameters
    ----------
    acquisition : Acquisition
        With its grid and order.
    steps : (2, 2) numpy.ndarray
        Shift in px from one row to the next, and from one column to the next.

    Returns
    -------
    (N, 2) numpy.ndarray
        Top-left corners.
    """
    grid = acquisition.grid or (1, len(acquisition))
    cells = grid_cells(len(acquisition), grid, acquisition.order)
    placed: FloatArray = cells @ steps
    return placed


def measure_grid(prepared: Prepared) -> FloatArray:
    """Find the steps of a grid from the images of some neighbours.

    Parameters
    ----------
    prepared : Prepared
        Frames of an acquisition with a grid.

    Returns
    -------
    (2, 2) numpy.ndarray
        Shift in px from one row to the next, and from one column to the next.

    Raises
    ------
    RegistrationError
        If neighbours along neither axis fit.
    """
    acquisition = prepared.acquisition
    grid = acquisition.grid or (1, len(acquisition))
    cells = grid_cells(len(acquisition), grid, acquisition.order)
    found: list[FloatArray | None] = []
    for axis in range(2):
        pairs = _adjacent(cells, axis)
        found.append(_common_shift(prepared, pairs, axis) if pairs else None)
    rows, columns = prepared.frame_shape
    lacking = [step is None and grid[axis] > 1 for axis, step in enumerate(found)]
    if any(lacking):
        what = "rows" if lacking[0] else "columns"
        msg = (
            f"Neighbouring {what} of a {grid[0]}x{grid[1]} grid must show common "
            "detail, but no shift fits them: check grid and order, or give the overlap."
        )
        raise RegistrationError(msg)
    down = np.array([rows, 0.0]) if found[0] is None else found[0]
    along = np.array([0.0, columns]) if found[1] is None else found[1]
    return np.stack([down, along])


def _adjacent(cells: NDArray[np.int64], axis: int) -> list[IntPair]:
    """Choose pairs of direct neighbours along one axis, spread over the grid."""
    place = {(int(r), int(c)): index for index, (r, c) in enumerate(cells)}
    step = (1, 0) if axis == 0 else (0, 1)
    pairs = [
        (index, place[r + step[0], c + step[1]])
        for (r, c), index in place.items()
        if (r + step[0], c + step[1]) in place
    ]
    return pairs[:: max(1, len(pairs) // _TRIALS)]


def _common_shift(
    prepared: Prepared, pairs: Sequence[IntPair], axis: int
) -> FloatArray | None:
    """Median shift of those pairs that fit well."""
    side = np.array(prepared.frame_shape)
    middle, reach = 0.15 * side, 0.15 * side
    middle[1 - axis] = 0
    middle[axis], reach[axis] = 0.55 * side[axis], 0.43 * side[axis]
    nominal = (int(middle[0]), int(middle[1]))
    around = (int(reach[0]), int(reach[1]))
    shifts, scores = [], []
    for pair in pairs:
        item = search(prepared, pair, nominal, around)
        if item.best > _SURE:
            shifts.append(item.shifts[0])
            scores.append(item.best)
    if not shifts:
        return None
    median = np.median(np.stack(shifts), axis=0)
    close = np.abs(np.stack(shifts) - median).max(axis=1) <= 0.1 * side.max()
    agreed: FloatArray = np.mean(np.stack(shifts)[close], axis=0)
    return agreed if close.sum() * 2 > len(shifts) else None


def discover(prepared: Prepared) -> FloatArray:
    """Find rough positions when neither positions nor a grid are known.

    Every frame is reduced to about 96 px and correlated with every other one; pairs
    whose peak stands out of all others are joined.

    Parameters
    ----------
    prepared : Prepared
        Frames.

    Returns
    -------
    (N, 2) numpy.ndarray
        Top-left corners in px; NaN for frames that fit none of the largest group.

    Raises
    ------
    RegistrationError
        If no two frames fit.
    """
    count = len(prepared.acquisition)
    factor = max(1, min(prepared.frame_shape) // _SMALL_SIDE)
    spectra, powers, shape = _small_spectra(prepared, factor)
    trials = _all_pairs(spectra, powers, shape)
    joints = []
    for first, second, shift in trials:
        nominal = (shift[0] * factor, shift[1] * factor)
        item = search(prepared, (first, second), nominal, (factor + 2, factor + 2))
        if item.best > _SURE:
            y, x = item.shifts[0]
            joints.append(Joint(first, second, (float(y), float(x)), item.best))
    best: dict[IntPair, Joint] = {}
    for joint in joints:
        key = (joint.first, joint.second)
        if key not in best or best[key].weight < joint.weight:
            best[key] = joint
    kept = list(best.values())
    if not kept:
        msg = (
            f"{count} frames without positions must overlap to be placed, but no two "
            "of them fit: give positions or a grid."
        )
        raise RegistrationError(msg)
    weights = np.array([joint.weight for joint in kept])
    for _ in range(10):
        places = least_squares(count, kept, weights)
        away = np.array(
            [np.abs(places[j.second] - places[j.first] - j.shift).max() for j in kept]
        )
        weights = np.array([j.weight for j in kept]) / (1 + (away / 5) ** 2)
    sound = [j for j, a in zip(kept, away, strict=True) if a < 10]
    places[components(count, sound) != 0] = np.nan
    return places


def _small_spectra(
    prepared: Prepared, factor: int
) -> tuple[list[NDArray[np.complex64]], list[NDArray[np.complex64]], IntPair]:
    """Spectra of all frames reduced by `factor`, and of their squares."""
    rows, columns = (side // factor for side in prepared.frame_shape)
    size = (
        fft.next_fast_len(2 * rows, real=True),
        fft.next_fast_len(2 * columns, real=True),
    )
    spectra, powers = [], []
    for index in range(len(prepared.acquisition)):
        band = prepared.reduced(index, factor)
        spectra.append(fft.rfft2(band, s=size))
        powers.append(fft.rfft2(band**2, s=size))
    return spectra, powers, size


def _all_pairs(
    spectra: Sequence[NDArray[np.complex64]],
    powers: Sequence[NDArray[np.complex64]],
    size: IntPair,
) -> list[tuple[int, int, IntPair]]:
    """Pairs whose correlation peak stands out, with their shifts."""
    peaks: list[tuple[float, int, int, IntPair]] = []
    for first in range(len(spectra)):
        for second in range(first + 1, len(spectra)):
            cross = fft.irfft2(spectra[first] * spectra[second].conj(), s=size)
            spread = fft.irfft2(powers[first] * powers[second].conj(), s=size)
            floor = 0.05 * float(spread.max())
            score = np.where(
                spread > floor, cross / np.sqrt(np.maximum(spread, floor)), 0
            )
            place = int(np.argmax(score))
            y, x = divmod(place, size[1])
            y = y - size[0] if y > size[0] // 2 else y
            x = x - size[1] if x > size[1] // 2 else x
            peaks.append((float(score.flat[place]), first, second, (y, x)))
    scores = np.array([peak[0] for peak in peaks])
    if len(peaks) <= 4 * _KEPT_PEAKS:
        return [peak[1:] for peak in peaks]
    middle = float(np.median(scores))
    spread_of = 1.4826 * float(np.median(np.abs(scores - middle)))
    return [peak[1:] for peak in peaks if peak[0] > middle + 3 * spread_of]
