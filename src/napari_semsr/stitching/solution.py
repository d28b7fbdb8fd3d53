"""What a solved scan is: positions, joints, shading, and how far to trust them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from napari_semsr.core import BoolArray, Fault, FloatArray, FloatPair, PixelSize
from napari_semsr.stitching.flat_field import FlatField
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


# Share of the frames; chosen: of fewer, chance may have placed the ones that fit.
_ENOUGH_PLACED = 0.8


def enough(placed: BoolArray) -> bool:
    """Whether so many frames have a place, (N,), that they can be believed."""
    return bool(placed.sum() >= _ENOUGH_PLACED * len(placed))


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
    pixel_size_nm: PixelSize | None = None  # As stated, else as estimated
    estimated_pixel_size_nm: PixelSize | None = None  # Stage's nm over solved pixels
    # Difference of overlapping blocks that flat field and noise leave, in % of the mean
    shading_percent: float = float("nan")
    # In which more frames may find a place, the likeliest first
    grids: tuple[LikelyGrid, ...] = ()
    warnings: tuple[str, ...] = ()  # What the user must know, one sentence each

    @property
    def placed(self) -> BoolArray:
        """Which frames have a place."""
        return ~np.isnan(self.positions_px[:, 0])

    @property
    def most_placed(self) -> bool:
        """Whether enough frames have a place."""
        return enough(self.placed)

    @property
    def pairs_used(self) -> int:
        """Joints that the positions rest on."""
        return sum(pair.used for pair in self.pairs)

    @property
    def pairs_rejected(self) -> int:
        """Joints that were tried and not believed."""
        return sum(not pair.used for pair in self.pairs)


# The stage: how solved positions follow from nominal ones.

_ENOUGH = 5  # frames; chosen: 10 equations for the 6 numbers of an affine map


def fit_stage(
    nominal: FloatArray,
    solved: FloatArray,
    model: Literal["affine", "shift"] = "affine",
) -> StageFit | None:
    """Fit solved positions by nominal ones; `nominal`, `solved` (N, 2)."""
    known = np.isfinite(nominal).all(axis=1) & np.isfinite(solved).all(axis=1)
    if not known.any():
        return None
    have, want = nominal[known], solved[known]
    spread = np.linalg.svd(have - have.mean(axis=0), compute_uv=False)
    affine = (
        model == "affine" and len(have) >= _ENOUGH and spread[-1] > 1e-3 * spread[0]
    )
    matrix: FloatArray = np.eye(2)
    weight = np.ones(len(have))
    offset = np.zeros(2)
    for _ in range(8):
        centre = np.average(have, axis=0, weights=weight)
        goal = np.average(want, axis=0, weights=weight)
        if affine:
            root = np.sqrt(weight)[:, None]
            fitted = np.linalg.lstsq((have - centre) * root, (want - goal) * root)[0]
            matrix = np.asarray(fitted.T, dtype=float)
        offset = goal - matrix @ centre
        left = np.hypot(*(want - have @ matrix.T - offset).T)
        scale = max(2 * float(np.median(left)), 1e-6)
        weight = 1 / (1 + (left / scale) ** 2)
    return StageFit(matrix, offset, float(np.sqrt(np.mean(left**2))))
