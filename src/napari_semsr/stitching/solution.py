"""Solution of a scan: positions, pairwise shifts, shading, and their reliability."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from napari_semsr import core
from napari_semsr.stitching.discovery import LikelyGrid
from napari_semsr.stitching.flat_field import FlatField, choose_evenly_spaced_indices
from napari_semsr.stitching.frames import CorrectedFrames
from napari_semsr.stitching.pairwise import FramePair


@dataclass(frozen=True, slots=True)
class PairReport(FramePair):
    """Measured shift between two frames."""

    shift_px: core.FloatPair  # measured position of the second minus that of the first
    quality: float  # weighted correlation coefficient on the overlap, at most 1
    score: float  # the same in standard deviations of unrelated noise
    used: bool  # whether the positions are based on it
    ambiguous: bool = False  # whether the images allow another shift as well
    # distance between its own best shift and that of the solved positions; NaN if it is
    # not above chance and not refined, or a frame has no position
    residual_px: float = float("nan")
    # standard deviation of its own shift along the less certain direction; NaN if not
    # refined
    sigma_px: float = float("nan")
    reason: str = ""  # reason why it is not used; empty if it is used


@dataclass(frozen=True, slots=True)
class StageFit:
    """Affine map from nominal to solved positions."""

    matrix: core.FloatArray  # (2, 2) solved px per nominal px, ``(y, x)``
    offset: core.FloatArray  # (2,) In px
    scatter_px: float  # RMS residual: the error of the stage

    def predict(self, nominal: core.FloatArray) -> core.FloatArray:
        """Predict positions (N, 2) from `nominal` positions (N, 2)."""
        return nominal @ self.matrix.T + self.offset


@dataclass(frozen=True, slots=True)
class StageAxes:
    """Linear map from stated positions to camera pixels, in terms of the stage axes.

    With ``x`` to the right and ``y`` down, a step of the stage along its ``x`` axis
    appears in the images at an angle `angle_deg` from their ``x`` axis towards their
    ``y`` axis, that is clockwise on the screen. The matrix for ``(x, y)`` is ``scale *
    rotation(angle_deg) @ [[1, shear], [0, 1]]``, as in
    `skimage.transform.AffineTransform`, if both axes have the same scale and neither is
    mirrored.
    """

    matrix: core.FloatArray  # (2, 2) camera px per stated px, ``(y, x)``
    # (2,) bound of the error of each column by the stage's scatter, exceeded with a
    # probability of 0.001; infinite without residuals
    doubt: core.FloatArray
    is_whole: bool  # whether both axes were measured independently
    is_sized: bool = True  # whether a pixel size was stated, or positions in px

    @property
    def angle_deg(self) -> float:
        """Direction of the stage's x axis in the images, in degrees, (-180, 180]."""
        y, x = self.matrix[:, 1]
        return float(np.rad2deg(np.arctan2(y, x)))

    @property
    def scale(self) -> float | None:
        """Camera pixels per stated pixel, as the geometric mean of both directions.

        None if no pixel size converts stated positions to px.
        """
        size = float(np.sqrt(abs(np.linalg.det(self.matrix))))
        return size if self.is_sized else None

    @property
    def shear(self) -> float | None:
        """Tangent of the angle by which the axes deviate from a right angle.

        Positive if the stage's ``y`` axis is tilted towards its ``x`` axis; None if the
        frames are in a line or too few.
        """
        y_axis, x_axis = self.matrix.T
        across = abs(float(np.linalg.det(self.matrix)))
        return float(y_axis @ x_axis) / max(across, 1e-30) if self.is_whole else None

    @property
    def has_deviation(self) -> bool:
        """Whether the axes differ significantly from those of the images."""
        doubt = np.minimum(self.doubt, MAX_JITTER)
        return bool((self.displacement > np.maximum(NOTICEABLE, doubt)).any())

    @property
    def displacement(self) -> core.FloatArray:
        """Relative deviation (2,) of stage steps from the image axes, per axis."""
        return np.asarray(np.hypot(*(self.matrix - np.eye(2))))

    @property
    def description(self) -> str:
        """Description of the map, such as ``a rotation of 8.0 degrees``."""
        name = find_nearest_axes(self.matrix)
        rest = replace(self, matrix=self.matrix @ np.linalg.inv(AXES[name]))
        parts = [] if name == "as stated" else [name]
        least = max([NOTICEABLE, *self.doubt[np.isfinite(self.doubt)]])
        if abs(np.deg2rad(rest.angle_deg)) > least:
            parts.append(f"a rotation of {rest.angle_deg:.1f} degrees")
        if rest.scale is not None and abs(rest.scale - 1) > least:
            parts.append(f"a scale of {rest.scale:.3f}")
        if rest.shear is not None and abs(rest.shear) > least:
            parts.append(f"a shear of {rest.shear:.3f}")
        *first, last = parts or ["unequal scales along both axes"]
        return f"{', '.join(first)} and {last}" if first else last

    def compose(self, axes: core.FloatArray) -> "StageAxes":
        """Return the composition with another map (2, 2) that is applied first."""
        each = np.multiply(axes.T, self.doubt, where=axes.T != 0, out=np.zeros((2, 2)))
        return replace(self, matrix=self.matrix @ axes, doubt=np.hypot(*each.T))

    def to_json(self) -> dict[str, float | None]:
        """Return the values keyed by their names in the record."""
        names = ("angle_deg", "scale", "shear")
        return {name: getattr(self, name) for name in names}


# Share of a distance: 1.1 degrees, or 2 % as for a pixel size; chosen: at a distance of
# two frames, a dozen px for frames of 300 px.
NOTICEABLE = 0.02
"""Largest relative difference at which axes count as equal."""
MAX_JITTER = 0.2
"""Largest stage error as a fraction of a frame, or of the distance between two; chosen.
"""
# Each axis of the images by ``(y, x)`` of the stage; the simplest first, as a single
# row cannot distinguish all of them.
AXES = {
    "as stated": ((1, 0), (0, 1)),
    "x mirrored": ((1, 0), (0, -1)),
    "y mirrored": ((-1, 0), (0, 1)),
    "x and y mirrored": ((-1, 0), (0, -1)),
    "x and y swapped": ((0, 1), (1, 0)),
    "x and y swapped, then x mirrored": ((0, 1), (-1, 0)),
    "x and y swapped, then y mirrored": ((0, -1), (1, 0)),
    "x and y swapped, then both mirrored": ((0, -1), (-1, 0)),
}
"""Axes related by mirroring and quarter turns, each described by its change of the
stage's axes.
"""


def find_nearest_axes(matrix: core.FloatArray) -> str:
    """Return the key in `AXES` nearest to a map, (2, 2)."""
    return max(AXES, key=lambda name: float((matrix * AXES[name]).sum()))


# Share of the frames; chosen: with fewer, the fitting ones may be placed by chance.
_ENOUGH_PLACED = 0.8


def is_placement_sufficient(has_place: core.BoolArray) -> bool:
    """Return whether enough frames (N,) are placed for a reliable result."""
    return bool(has_place.sum() >= _ENOUGH_PLACED * len(has_place))


@dataclass(frozen=True, slots=True)
class StitchSolution:
    """Solution of a scan."""

    # (N, 2) solved top-left corners, with smallest y and x 0; NaN for frames left out
    positions_px: core.FloatArray
    nominal_px: core.FloatArray | None  # (N, 2) expected positions
    names: tuple[str, ...]  # Of the frames
    left_out: tuple[core.UnusedFrame, ...]  # frames that are not placed, and why
    pairs: tuple[PairReport, ...]  # all pairs that were compared
    # RMS residual of the used shifts in loops, weighted by information; None without a
    # loop, as then nothing can contradict a shift
    residual_px: float | None
    # median and largest of the same residuals, unweighted
    residual_median_px: float | None
    residual_worst_px: float | None
    # (N, 2) standard deviation of each position from the information of its pairs
    sigma_px: core.FloatArray
    flat: FlatField  # shading and dark level
    gains: core.FloatArray  # (N,) brightness of each frame, 1 on average
    # (N,) grey value of each frame above the dark level without light
    offsets: core.FloatArray
    # (N, 2) small rotation in radians and relative scale minus 1 of each frame; 0
    # unless requested
    turns: core.FloatArray
    noise: float  # standard deviation of a corrected pixel where the field is brightest
    threshold: float  # score above which a shift was accepted
    # corrected radial distortion of every frame, as the displacement at the rim over
    # its radius; 0 if none was found or requested
    distortion: float = 0.0
    # its standard deviation; None if neither measured nor set
    distortion_sd: float | None = None
    distortion_centre_px: core.FloatPair = (0.0, 0.0)  # from the centre of the frame
    stage: StageFit | None = None  # solved against nominal positions
    # from stated positions to camera pixels; None if there are none, or if the images
    # do not determine it
    stage_to_camera: StageAxes | None = None
    pixel_size_nm: core.PixelSize | None = None  # as stated, otherwise as estimated
    estimated_pixel_size_nm: core.PixelSize | None = (
        None  # stage's nm over solved pixels
    )
    # grey value that is added to the mosaic to compensate offsets below 0
    pedestal: float = 0.0
    # RMS difference of corrected frames where they overlap, without noise, in % of the
    # mean grey value there
    remaining_shading_percent: float = float("nan")
    # grids in which more frames may be placed, the most likely first
    grids: tuple[LikelyGrid, ...] = ()
    warnings: tuple[str, ...] = ()  # warnings for the user, one sentence each
    # state for `correct_mosaic`: shifts of all pairs, corrected frames
    state: Any = field(default=None, repr=False, compare=False)
    # solution before manual corrections; None if there were none
    base: "StitchSolution | None" = field(default=None, repr=False, compare=False)

    @property
    def is_placed(self) -> core.BoolArray:
        """Mask of the placed frames."""
        return ~np.isnan(self.positions_px[:, 0])

    @property
    def has_sufficient_placement(self) -> bool:
        """Whether enough frames are placed for a reliable result."""
        return is_placement_sufficient(self.is_placed)

    def correct_frames(self, acquisition: core.Acquisition) -> CorrectedFrames:
        """Return the corrected frames of a scan, which is that of this solution."""
        return CorrectedFrames(
            acquisition,
            self.flat,
            self.gains,
            self.turns,
            self.distortion,
            self.distortion_centre_px,
            self.offsets,
        )

    @property
    def pairs_used(self) -> int:
        """Number of pairwise shifts used for the positions."""
        return sum(pair.used for pair in self.pairs)

    @property
    def pairs_rejected(self) -> int:
        """Number of pairwise shifts that were measured but not accepted."""
        return sum(not pair.used for pair in self.pairs)

    @property
    def rejected_worst_px(self) -> float | None:
        """Largest residual of the overlaps above chance that are not used."""
        residuals = (
            pair.residual_px
            for pair in self.pairs
            if not pair.used and pair.score > self.threshold
        )
        return max(filter(np.isfinite, residuals), default=None)


# The stage: map from nominal to solved positions.

ENOUGH = 5
"""Minimum number of frames for an affine map; chosen: 10 equations for its 6
parameters.
"""


def fit_stage_map(
    nominal: core.FloatArray,
    solved_positions: core.FloatArray,
    model: Literal["affine", "shift"] = "affine",
) -> StageFit | None:
    """Fit the map from nominal to solved positions, both (N, 2)."""
    has_both = np.isfinite(np.hstack([nominal, solved_positions])).all(axis=1)
    if not has_both.any():
        return None
    have, want = nominal[has_both], solved_positions[has_both]
    spread = np.linalg.svd(have - have.mean(axis=0), compute_uv=False)
    affine = model == "affine" and len(have) >= ENOUGH and spread[-1] > 1e-3 * spread[0]
    matrix: core.FloatArray = np.eye(2)
    weight = np.ones(len(have))
    offset = np.zeros(2)
    for _ in range(8):
        centre = np.average(have, axis=0, weights=weight)
        goal = np.average(want, axis=0, weights=weight)
        if affine:
            root = np.sqrt(weight)[:, None]
            near, far = (have - centre) * root, (want - goal) * root
            matrix = np.asarray(np.linalg.lstsq(near, far)[0].T, dtype=float)
        offset = goal - matrix @ centre
        left = np.hypot(*(want - have @ matrix.T - offset).T)
        scale = max(2 * float(np.median(left)), 1e-6)
        weight = 1 / (1 + (left / scale) ** 2)
    return StageFit(matrix, offset, float(np.sqrt(np.mean(left**2))))


_REWEIGHINGS = 12  # chosen: weights have converged before
_MIN_SCALE = 0.1  # px; chosen: the accuracy of frame positions
_OUTSIDE = 0.05  # weight; chosen: at four times the scale a position is wrong
# Median residual as a share of a frame; chosen: with more it is not a map of these
# positions, and stage errors are smaller.
_MAX_LEFT = 0.1
_WHOLE = 4  # frames; chosen: one more than an affine map needs, to contradict it
# RMS distance of the frames from a line, as a share of their size; chosen: two rows
# have .4, and the jitter of a single row .02.
_OFF_LINE = 0.1
_DOUBT = 1e-3  # probability that a difference is chance; chosen as for pairs
_STARTS = 300  # pairs of frames; chosen: a quarter of them are right even at half


def fit_stage_axes(
    stated_positions: core.FloatArray, solved_positions: core.FloatArray, side: int
) -> StageAxes | None:
    """Fit the linear part of the map from stated to solved positions.

    A minority of wrong positions is ignored. `stated_positions`, `solved_positions` (N,
    2) in px, NaN where unknown; `side` of a frame in px. Returns None for fewer than
    two positions, and if most do not fit such a map. Frames in a line, or fewer than
    four, determine only one angle and one scale.

    The start is the rotation and scale of the pair of frames with the least median
    residual of all positions (Rousseeuw, J. Am. Stat. Assoc. 79, 871 (1984)).
    """
    has_both = np.isfinite(np.hstack([stated_positions, solved_positions])).all(axis=1)
    have, want = stated_positions[has_both], solved_positions[has_both]
    count = len(have)
    if count < 2 or np.ptp(have, axis=0).max() <= 0:
        return None
    left = _compute_initial_residuals(have, want)
    for _ in range(_REWEIGHINGS):
        scale = max(2 * float(np.median(left)), _MIN_SCALE)
        weight = 1 / (1 + (left / scale) ** 2)
        centre = np.average(have, axis=0, weights=weight)
        goal = np.average(want, axis=0, weights=weight)
        root = np.sqrt(weight)[:, None]
        near, far = (have - centre) * root, (want - goal) * root
        across = np.linalg.svd(near, compute_uv=False)[-1] / np.sqrt(weight.sum())
        fitting = int((weight > _OUTSIDE).sum())
        is_whole = bool(fitting >= _WHOLE and across > _OFF_LINE * side)
        if is_whole:
            matrix = np.asarray(np.linalg.lstsq(near, far)[0].T)
            spread = np.diag(np.linalg.inv(near.T @ near))
        else:
            size = max(float((near**2).sum()), 1e-30)
            turn = convert_to_complex(near).conj() @ convert_to_complex(far)
            matrix = convert_to_matrix(complex(turn) / size)
            spread = np.full(2, 1 / size)
        left = np.hypot(*(want - goal - (have - centre) @ matrix.T).T)
    if np.median(left) > _MAX_LEFT * side:
        return None
    free = 2 * (fitting - 1) - (4 if is_whole else 2)
    doubt = np.full(2, np.inf)
    if free > 0:
        inside = weight > _OUTSIDE
        scatter = np.sqrt(float((left[inside] ** 2).sum()) / free)
        # union bound of four components; a column is at most root two times its larger
        # one
        sure = np.sqrt(2) * stdtrit(free, 1 - _DOUBT / 8)
        doubt = sure * scatter * np.sqrt(spread)
    return StageAxes(matrix, doubt, is_whole)


def convert_to_complex(steps: core.FloatArray) -> NDArray[np.complex128]:
    """Convert steps ``(y, x)``, (..., 2), to complex numbers x + iy."""
    return np.asarray(steps[..., 1] + 1j * steps[..., 0])


def convert_to_matrix(turn: complex) -> core.FloatArray:
    """Return the (2, 2) matrix on ``(y, x)`` that multiplies x + iy by `turn`."""
    return np.array([[turn.real, turn.imag], [-turn.imag, turn.real]])


def _compute_initial_residuals(
    have: core.FloatArray, want: core.FloatArray
) -> core.FloatArray:
    """Return (N,) residuals for the best rotation and scale from a pair of frames."""
    stated_places, solved_places = convert_to_complex(have), convert_to_complex(want)
    first, second = np.triu_indices(len(have), 1)
    sound = np.abs(stated_places[second] - stated_places[first]) > 0
    first, second = first[sound], second[sound]
    some = choose_evenly_spaced_indices(len(first), _STARTS)
    first, second = first[some], second[some]
    steps_seen = (solved_places[second] - solved_places[first])[:, None]
    from_first = solved_places - solved_places[first, None]
    steps = stated_places - stated_places[first, None]
    best = np.full(len(have), np.inf)
    for mirror in (False, True):
        lie = steps.conj() if mirror else steps
        turns = steps_seen / lie[np.arange(len(second)), second][:, None]
        left = np.abs(from_first - turns * lie)
        left = left[np.argmin(np.median(left, axis=1))]
        if np.median(left) < np.median(best):
            best = left
    return best
