"""What a solved scan is: positions, joints, shading, and how far to trust them."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from napari_semsr.core import BoolArray, Fault, FloatArray, FloatPair, PixelSize
from napari_semsr.stitching.flat_field import FlatField, evenly
from napari_semsr.stitching.grids import LikelyGrid


@dataclass(frozen=True, slots=True)
class PairReport:
    """One joint between two frames."""

    first: int
    second: int
    shift_px: FloatPair  # Measured position of the second less that of the first
    quality: float  # Weighted correlation coefficient on the overlap, at most 1
    score: float  # The same in standard deviations of unrelated noise
    used: bool  # Whether the positions rest on it
    ambiguous: bool = False  # Whether the images allow another shift as well
    # Distance between its own best shift and that of the solved positions; NaN when it
    # was not refined
    residual_px: float = float("nan")
    # Standard deviation of its own shift along its worse direction; NaN likewise
    sigma_px: float = float("nan")
    reason: str = ""  # Why it is not used; empty when it is


@dataclass(frozen=True, slots=True)
class StageFit:
    """How solved positions follow from nominal ones."""

    matrix: FloatArray  # (2, 2) Solved px for each nominal px, ``(y, x)``
    offset: FloatArray  # (2,) In px
    scatter_px: float  # RMS of what is left: the stage's error

    def predict(self, nominal: FloatArray) -> FloatArray:
        """Where frames are expected; `nominal` (N, 2); gives (N, 2)."""
        return nominal @ self.matrix.T + self.offset


@dataclass(frozen=True, slots=True)
class StageAxes:
    """The linear map from stated positions to camera pixels, as a microscopist says it.

    With ``x`` to the right and ``y`` down, a step of the stage along its ``x`` axis is
    seen in the images along a direction `angle_deg` from their ``x`` axis towards
    their ``y`` axis, that is clockwise on the screen. The matrix for ``(x, y)`` is
    ``scale * rotation(angle_deg) @ [[1, shear], [0, 1]]``, as of
    `skimage.transform.AffineTransform`, if both axes have one scale and none is
    mirrored.
    """

    matrix: FloatArray  # (2, 2) Camera px for each stated px, ``(y, x)``
    # How far each column may be off by the stage's scatter, but for one chance in a
    # thousand, (2,); infinite if nothing is left to scatter
    doubt: FloatArray
    is_whole: bool  # Whether both axes were measured, each for itself
    is_sized: bool = True  # Whether a pixel size was stated, or positions in px

    @property
    def angle_deg(self) -> float:
        """Direction of the stage's x axis in the images, in degrees, (-180, 180]."""
        y, x = self.matrix[:, 1]
        return float(np.rad2deg(np.arctan2(y, x)))

    @property
    def scale(self) -> float | None:
        """Camera px for each stated px: the geometric mean of both directions.

        None where no pixel size tells how many px were stated.
        """
        size = float(np.sqrt(abs(np.linalg.det(self.matrix))))
        return size if self.is_sized else None

    @property
    def shear(self) -> float | None:
        """Tangent of the angle by which the axes depart from a right angle.

        Positive if the stage's ``y`` axis leans towards its ``x`` axis; None where the
        frames lie in a line or are too few.
        """
        y_axis, x_axis = self.matrix.T
        across = abs(float(np.linalg.det(self.matrix)))
        return float(y_axis @ x_axis) / max(across, 1e-30) if self.is_whole else None

    @property
    def differ(self) -> bool:
        """Whether the axes noticeably and surely are not those of the images."""
        doubt = np.minimum(self.doubt, MOST_JITTER)
        return bool((self.displacement > np.maximum(NOTICEABLE, doubt)).any())

    @property
    def displacement(self) -> FloatArray:
        """How far a step along each axis misses the images', as its share, (2,)."""
        return np.asarray(np.hypot(*(self.matrix - np.eye(2))))

    @property
    def how(self) -> str:
        """Say what is done to the stage's axes, such as ``a turn of 8.0 degrees``."""
        name = nearest_axes(self.matrix)
        rest = replace(self, matrix=self.matrix @ np.linalg.inv(AXES[name]))
        parts = [] if name == "as stated" else [name]
        least = max([NOTICEABLE, *self.doubt[np.isfinite(self.doubt)]])
        if abs(np.deg2rad(rest.angle_deg)) > least:
            parts.append(f"a turn of {rest.angle_deg:.1f} degrees")
        if rest.scale is not None and abs(rest.scale - 1) > least:
            parts.append(f"a scale of {rest.scale:.3f}")
        if rest.shear is not None and abs(rest.shear) > least:
            parts.append(f"a shear of {rest.shear:.3f}")
        *first, last = parts or ["unequal scales along both axes"]
        return f"{', '.join(first)} and {last}" if first else last

    def after(self, axes: FloatArray) -> "StageAxes":
        """Put another map, (2, 2), before this one."""
        each = np.multiply(axes.T, self.doubt, where=axes.T != 0, out=np.zeros((2, 2)))
        return replace(self, matrix=self.matrix @ axes, doubt=np.hypot(*each.T))

    def to_json(self) -> dict[str, float | None]:
        """Values under the names that a record has."""
        names = ("angle_deg", "scale", "shear")
        return {name: getattr(self, name) for name in names}


# Of a distance: 1.1 degrees, or 2 % as of a pixel size; chosen: at a distance of two
# frames it is a dozen px of frames of 300 px.
NOTICEABLE = 0.02
"""Part of a distance by which axes may differ before they are called others."""
MOST_JITTER = 0.2
"""Part of a frame, or of the distance of two, by which a stage errs at most; chosen."""
# Where each axis of the images runs, by ``(y, x)`` of the stage; the sparest first, as
# a single row does not tell all of them apart.
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
"""Axes that differ by mirrors and quarter turns, by what is done to the stage's."""


def nearest_axes(matrix: FloatArray) -> str:
    """Which of `AXES` a map, (2, 2), is nearest to."""
    return max(AXES, key=lambda name: float((matrix * AXES[name]).sum()))


# Share of the frames; chosen: of fewer, chance may have placed the ones that fit.
_ENOUGH_PLACED = 0.8


def enough(has_place: BoolArray) -> bool:
    """Whether so many frames have a place, (N,), that they can be believed."""
    return bool(has_place.sum() >= _ENOUGH_PLACED * len(has_place))


@dataclass(frozen=True, slots=True)
class StitchSolution:
    """A solved scan."""

    # (N, 2) Solved top-left corners, the smallest y and x 0; NaN for frames left out
    positions_px: FloatArray
    nominal_px: FloatArray | None  # (N, 2) Where the frames were expected
    names: tuple[str, ...]  # Of the frames
    left_out: tuple[Fault, ...]  # Frames that are not placed, and why
    pairs: tuple[PairReport, ...]  # All joints that were tried
    # RMS residual of the joints in loops, each by its information; None without a loop,
    # as nothing can contradict a joint then
    residual_px: float | None
    # Median and largest of the same residuals, all joints alike
    residual_median_px: float | None
    residual_worst_px: float | None
    # (N, 2) Standard deviation of each position by the information of its joints
    sigma_px: FloatArray
    flat: FlatField  # Shading and dark level
    gains: FloatArray  # (N,) Brightness of each frame, 1 on average
    # (N,) Grey value of each frame above the dark level where there is no light
    offsets: FloatArray
    # (N, 2) Small rotation in radians and relative scale less 1 of each frame; 0 unless
    # they were asked for
    turns: FloatArray
    noise: float  # Standard deviation of a corrected pixel where the field is brightest
    threshold: float  # Score above which a joint was believed
    # Radial distortion of every frame that was taken back, as the displacement at the
    # rim over its radius; 0 where none was found or asked for
    distortion: float = 0.0
    # Standard deviation of it; None where it was neither measured nor told
    distortion_sd: float | None = None
    distortion_centre_px: FloatPair = (0.0, 0.0)  # Off the middle of the frame
    stage: StageFit | None = None  # Solved against nominal positions
    # From stated positions to camera pixels; None without any, or where the images do
    # not tell
    stage_to_camera: StageAxes | None = None
    pixel_size_nm: PixelSize | None = None  # As stated, else as estimated
    estimated_pixel_size_nm: PixelSize | None = None  # Stage's nm over solved pixels
    # Grey value that is added to the mosaic: what offsets took below 0
    pedestal: float = 0.0
    # RMS difference of corrected frames where they overlap, noise left out, in % of the
    # mean grey value there
    remaining_shading_percent: float = float("nan")
    # In which more frames may find a place, the likeliest first
    grids: tuple[LikelyGrid, ...] = ()
    warnings: tuple[str, ...] = ()  # What the user must know, one sentence each
    # From which `correct_mosaic` solves again: shifts of all pairs, corrected frames
    state: Any = field(default=None, repr=False, compare=False)
    # Before corrections by hand; None where there are none
    base: "StitchSolution | None" = field(default=None, repr=False, compare=False)

    @property
    def has_place(self) -> BoolArray:
        """Which frames have a place."""
        return ~np.isnan(self.positions_px[:, 0])

    @property
    def most_placed(self) -> bool:
        """Whether enough frames have a place."""
        return enough(self.has_place)

    @property
    def pairs_used(self) -> int:
        """Joints that the positions rest on."""
        return sum(pair.used for pair in self.pairs)

    @property
    def pairs_rejected(self) -> int:
        """Joints that were tried and not believed."""
        return sum(not pair.used for pair in self.pairs)


# The stage: how solved positions follow from nominal ones.

ENOUGH = 5
"""Frames that an affine map needs; chosen: 10 equations for its 6 numbers."""


def fit_stage(
    nominal: FloatArray,
    solved_positions: FloatArray,
    model: Literal["affine", "shift"] = "affine",
) -> StageFit | None:
    """Fit solved positions by nominal ones; `nominal`, `solved_positions` (N, 2)."""
    has_both = np.isfinite(nominal).all(axis=1) & np.isfinite(solved_positions).all(
        axis=1
    )
    if not has_both.any():
        return None
    have, want = nominal[has_both], solved_positions[has_both]
    spread = np.linalg.svd(have - have.mean(axis=0), compute_uv=False)
    affine = model == "affine" and len(have) >= ENOUGH and spread[-1] > 1e-3 * spread[0]
    matrix: FloatArray = np.eye(2)
    weight = np.ones(len(have))
    offset = np.zeros(2)
    for _ in range(8):
        centre = np.average(have, axis=0, weights=weight)
        goal = np.average(want, axis=0, weights=weight)
        if affine:
            root = np.sqrt(weight)[:, None]
            residual_fit = np.linalg.lstsq(
                (have - centre) * root, (want - goal) * root
            )[0]
            matrix = np.asarray(residual_fit.T, dtype=float)
        offset = goal - matrix @ centre
        left = np.hypot(*(want - have @ matrix.T - offset).T)
        scale = max(2 * float(np.median(left)), 1e-6)
        weight = 1 / (1 + (left / scale) ** 2)
    return StageFit(matrix, offset, float(np.sqrt(np.mean(left**2))))


_REWEIGHINGS = 12  # chosen: weights have settled before
_LEAST_SCALE = 0.1  # px; chosen: as exactly as frames are placed
_OUTSIDE = 0.05  # weight; chosen: four times the scale, where a position is a wrong one
# Of a frame, by the median; chosen: what leaves more is no map of these positions, and
# a stage errs by less.
_MOST_LEFT = 0.1
_WHOLE = 4  # frames; chosen: one more than an affine map needs can contradict it
# RMS distance of the frames from a line, as a share of their size; chosen: two rows
# have .4, and the jitter of a single one has .02.
_OFF_LINE = 0.1
_DOUBT = 1e-3  # that a difference is chance; chosen as for joints
_STARTS = 300  # pairs of frames; chosen: a quarter of them are right even at half


def fit_axes(
    stated_positions: FloatArray, solved_positions: FloatArray, side: int
) -> StageAxes | None:
    """Fit the linear part of how solved positions follow from stated ones.

    A minority of wrong positions is ignored. `stated_positions`, `solved_positions` (N,
    2) in px, NaN where unknown; `side` of a frame in px. Gives None for less than two
    places, and where most fit no such map. Frames in a line, or fewer than four, tell
    one angle and one scale alone.

    The start is the turn and scale of that pair of frames from which the positions
    differ least by the median (Rousseeuw, J. Am. Stat. Assoc. 79, 871 (1984)).
    """
    has_both = np.isfinite(stated_positions).all(axis=1) & np.isfinite(
        solved_positions
    ).all(axis=1)
    have, want = stated_positions[has_both], solved_positions[has_both]
    count = len(have)
    if count < 2 or np.ptp(have, axis=0).max() <= 0:
        return None
    left = _start(have, want)
    for _ in range(_REWEIGHINGS):
        scale = max(2 * float(np.median(left)), _LEAST_SCALE)
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
            turn = complex(as_complex(near).conj() @ as_complex(far)) / size
            matrix = as_matrix(turn)
            spread = np.full(2, 1 / size)
        left = np.hypot(*(want - goal - (have - centre) @ matrix.T).T)
    if np.median(left) > _MOST_LEFT * side:
        return None
    free = 2 * (fitting - 1) - (4 if is_whole else 2)
    doubt = np.full(2, np.inf)
    if free > 0:
        inside = weight > _OUTSIDE
        scatter = np.sqrt(float((left[inside] ** 2).sum()) / free)
        # of four components none; a column is at most root two times its larger one
        sure = np.sqrt(2) * stdtrit(free, 1 - _DOUBT / 8)
        doubt = sure * scatter * np.sqrt(spread)
    return StageAxes(matrix, doubt, is_whole)


def as_complex(steps: FloatArray) -> NDArray[np.complex128]:
    """Write steps ``(y, x)``, (..., 2), as complex numbers x + iy."""
    return np.asarray(steps[..., 1] + 1j * steps[..., 0])


def as_matrix(turn: complex) -> FloatArray:
    """Matrix for ``(y, x)``, (2, 2), of a multiplication of x + iy by `turn`."""
    return np.array([[turn.real, turn.imag], [-turn.imag, turn.real]])


def _start(have: FloatArray, want: FloatArray) -> FloatArray:
    """Distances (N,) that the turn and scale of the best pair of frames leave."""
    stated_places, solved_places = as_complex(have), as_complex(want)
    first, second = np.triu_indices(len(have), 1)
    sound = np.abs(stated_places[second] - stated_places[first]) > 0
    first, second = first[sound], second[sound]
    some = evenly(len(first), _STARTS)
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
