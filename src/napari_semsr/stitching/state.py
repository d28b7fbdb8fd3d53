"""Stitching options, manual corrections, the state while solving, and the solution."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from typing import Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from napari_semsr import core
from napari_semsr.stitching import pairwise, refine
from napari_semsr.stitching.discovery import LikelyGrid, find_likely_grids, match_frames
from napari_semsr.stitching.frames import CorrectedFrames, FlatField
from napari_semsr.stitching.layout import ChanceLevel, Layout, Overlap
from napari_semsr.stitching.nominal import (
    PossibleRotations,
    StageAxes,
    StageFit,
    find_overlapping_pairs,
    fit_stage_map,
)


class StitchOptions(core.Options):
    """Stitching options; None means that a value is taken from the scan or measured."""

    flat_field: str = Field(
        default="auto",
        description="auto: from the frames; none: no correction; or an image file",
    )
    dark: float | str | None = core.option(
        None,
        description="grey level without light, or an image recorded without light; "
        "default: from the frames, unless there is no flat field",
        metavar="FILE|LEVEL",
    )
    grid: tuple[int, int] | None = Field(
        default=None, description="rows and columns of the scan"
    )
    order: core.FrameOrder | None = core.option(
        None,
        "Order",
        "acquisition order: row by row or column by column; a serpentine reverses "
        "every second one",
    )
    first: core.FirstFrame | None = core.option(
        None,
        "First frame",
        "corner of the grid with the first frame; top-left unless the scan states it",
    )
    overlap: float | None = core.option(
        None,
        "Overlap",
        "overlap of neighbours as a share of a frame; measured if not given",
        unit="share",
        step=0.05,
        gt=0,
        lt=1,
    )
    max_shift_px: float | None = core.option(
        None,
        "Stage error",
        "largest error of a nominal position; estimated if not given",
        unit="px",
        step=5,
        gt=0,
    )
    stage_model: Literal["affine", "shift"] = Field(
        default="affine",
        description="global transform from nominal to solved positions: affine "
        "(scale, rotation, shear) or translation only",
    )
    rotation: bool = core.option(
        False,
        "Rotate and scale frames",
        "also estimate a small rotation and scale of each frame",
    )
    distortion: float | Literal["auto", "none"] = Field(
        default="auto",
        description="radial displacement at the rim over its radius; auto: estimated "
        "from the overlaps, and corrected if it is significant",
    )
    blend: Literal["feather", "seam"] = core.option(
        "feather",
        "Blending",
        "weighted mean of all frames, or the best frame at each pixel",
        choices={"weighted mean": "feather", "best frame": "seam"},
    )
    match_gain: bool = core.option(
        True,
        "Match brightness",
        "match gain and offset of the frames, if automatic brightness changed them",
    )
    significance: float = core.option(
        4.0,
        "Certainty of overlaps",
        "standard deviations by which overlaps must exceed unrelated pairs of frames",
        step=0.5,
        ge=2,
        le=20,
    )

    @field_validator("dark", mode="before")
    @classmethod
    def _parse_dark_level(cls, value: object) -> object:
        """Parse a grey level; other text is the name of a file."""
        entered = fspath(value) if isinstance(value, PathLike) else value
        try:
            level = float(entered)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return entered
        if not 0 <= level < float("inf"):
            msg = f"must be a grey level of 0 or more, or an image file, got {value}"
            raise ValueError(core.Message(msg, "out-of-range"))
        return level

    @field_validator("distortion", mode="before")
    @classmethod
    def _validate_distortion(cls, value: object) -> object:
        """Validate a keyword or a number (also as text) that does not fold a frame."""
        if value is None or value in ("auto", "none"):
            return value
        try:
            amount = float("nan" if isinstance(value, bool) else value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            amount = float("nan")
        if not abs(amount) <= core.MAX_DISTORTION:
            most = f"from -{core.MAX_DISTORTION} to {core.MAX_DISTORTION}, such as 0.03"
            msg = f"must be auto, none or a number {most}"
            raise ValueError(core.Message(msg, "out-of-range"))
        return amount

    @field_validator("grid")
    @classmethod
    def _validate_grid(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and min(value) < 1:
            rows, columns = value
            msg = f"A grid needs at least one row and one column, got {rows}x{columns}"
            raise ValueError(core.Message(msg, "out-of-range"))
        return value


class PlacedFrame(core.Options):
    """Fixed top-left corner of a frame, in mosaic coordinates (see `positions`)."""

    y_px: float
    x_px: float


class JoinedPair(core.Options):
    """Manual pairwise shift: second frame position minus first, ``(y, x)``."""

    first: str
    second: str
    shift_px: core.FloatPair


class Corrections(core.Options):
    """Manual corrections to a mosaic, with frames identified by name.

    `strike`: overlaps that are not used; `drop`: frames that are left out; `place`:
    fixed frames, in the coordinates of the mosaic without corrections; `join`: shifts
    that replace those measured in the images.
    """

    strike: tuple[tuple[str, str], ...] = ()
    drop: tuple[str, ...] = ()
    place: dict[str, PlacedFrame] = Field(default_factory=dict)
    join: tuple[JoinedPair, ...] = ()

    @property
    def names(self) -> set[str]:
        """Names of all corrected frames."""
        pairs = [*self.strike, *((item.first, item.second) for item in self.join)]
        return {*self.drop, *self.place, *(name for pair in pairs for name in pair)}

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        """Raise an error if any corrections contradict each other."""
        struck_pairs = {frozenset(pair) for pair in self.strike}
        joined_pairs = [frozenset((item.first, item.second)) for item in self.join]
        for pair in (*struck_pairs, *joined_pairs):
            if len(pair) == 1:
                msg = (
                    f"an overlap needs two different frames, but frame {min(pair)} is "
                    "given twice"
                )
                raise ValueError(core.Message(msg, "same-frame"))
            if pair in struck_pairs and pair in joined_pairs:
                message = (
                    f"the overlap of {' and '.join(sorted(pair))} is listed in both "
                    "strike and join"
                )
                raise ValueError(core.Message(message, "corrections-contradict"))
        for what, names in (
            ("placed", {*self.place}),
            ("joined", {name for pair in joined_pairs for name in pair}),
        ):
            if both := sorted(names & {*self.drop}):
                msg = f"frame {both[0]} is both dropped and {what}"
                raise ValueError(core.Message(msg, "corrections-contradict"))
        # the largest misfit between placed frames and joins
        everyone = sorted(self.names)
        rows, values, misfit = [], [], 0.0
        for item in self.join:
            rows.append([(n == item.second) - (n == item.first) for n in everyone])
            values.append(item.shift_px)
        for name, place in self.place.items():
            rows.append([int(n == name) for n in everyone])
            values.append((place.y_px, place.x_px))
        if rows:
            matrix, targets = np.array(rows, dtype=float), np.array(values)
            solution = np.linalg.lstsq(matrix, targets)[0]
            misfit = float(np.hypot(*(matrix @ solution - targets).T).max())
        # px; chosen: the error of moving a frame by hand
        if misfit > 0.5:
            msg = (
                f"placed frames and joins disagree by {misfit:.3g} px: remove the "
                "incorrect ones"
            )
            raise ValueError(core.Message(msg, "positions-contradict"))
        return self


def is_placement_sufficient(has_place: core.BoolArray) -> bool:
    """Return whether enough frames (N,) are placed for a reliable result."""
    # chosen: with fewer frames, the fitting ones may be placed by chance
    return bool(has_place.sum() >= 0.8 * len(has_place))


@dataclass(slots=True)
class State:
    """State of a scan while it is solved."""

    # frames, with grid, order and overlap from the options
    acquisition: core.Acquisition
    options: StitchOptions  # user options
    frames: CorrectedFrames  # corrected frames
    nominal: core.FloatArray  # (N, 2) expected corners
    is_stated: bool  # whether the scan states these, rather than its images
    # matches of all pairs, if expected corners are from the images alone
    matches: Sequence[Overlap] = ()
    # (2, 2) map from stated positions to these, ``(y, x)``
    axes: core.FloatArray = field(default_factory=lambda: np.eye(2))
    # such maps that neighbours allow; None before they are compared
    turns: PossibleRotations | None = None
    # number of frames that fitted with the stated axes, if others are used
    fitted_as_stated: int | None = None
    # (2,) slope of the logarithm of the field per px, ``(y, x)``, that would make the
    # mosaic even; unknown if gains are automatic
    open_slope: core.FloatArray = field(default_factory=lambda: np.zeros(2))
    noise: float = 0.0  # pixel noise of the raw frames
    reach: core.IntPair = (0, 0)  # of the last search
    chance: ChanceLevel | None = None  # of the expected shifts of the last search
    threshold: float = 0.0  # score above which a shift is accepted
    is_periodic: bool = False  # whether unrelated frames match too
    # possible shifts of every pair searched
    candidates: list[pairwise.Candidates] = field(default_factory=list)
    # whole-pixel layout
    layout: Layout = field(default_factory=lambda: Layout(np.zeros((0, 2))))
    # (N, 2) best corners so far; NaN for frames without a position
    positions: core.FloatArray = field(default_factory=lambda: np.zeros((0, 2)))
    is_nominal: bool = False  # whether stated positions decide, at least along one axis
    # frames placed by all their neighbours together
    rescued_frames: set[int] = field(default_factory=set)
    strays: list[int] = field(default_factory=list)  # of these, far from stated ones
    # last sweep of the refinement of all positions
    refinement: refine.RefinedPositions | None = None
    # standard deviation of the field's distortion; None if not measured
    distortion_sd: float | None = None
    # (N, 2) its contribution to that of the positions; None if not corrected
    distortion_doubt: core.FloatArray | None = None
    # pairs whose images allow another shift
    ambiguous: set[core.IntPair] = field(default_factory=set)
    struck_pairs: frozenset[core.IntPair] = frozenset()  # pairs that the user excludes
    # pairs with a shift from the user
    joined_pairs: frozenset[core.IntPair] = frozenset()
    grids: tuple[LikelyGrid, ...] = ()  # grids in which more frames may be placed
    reasons: dict[int, str] = field(default_factory=dict)  # reasons of unplaced frames
    warnings: list[str] = field(default_factory=list)  # warnings for the user

    @property
    def is_placed(self) -> core.BoolArray:
        """Mask (N,) of the placed frames."""
        return np.asarray(np.isfinite(self.positions).all(axis=1))

    @property
    def has_sufficient_placement(self) -> bool:
        """Whether enough frames are placed for a reliable result."""
        return is_placement_sufficient(self.is_placed)

    @property
    def has_positions(self) -> bool:
        """Whether the scan has stated positions that can be converted to px."""
        acquisition = self.acquisition
        in_nm = acquisition.nominal_nm is not None
        has_size = in_nm and acquisition.pixel_size_nm is not None
        return acquisition.nominal_px is not None or has_size

    @property
    def has_ambiguous_axes(self) -> bool:
        """Whether a periodic sample is consistent with several stage maps."""
        return self.turns is not None and len(self.turns.turns) > 1

    @property
    def advice(self) -> str:
        """Advice on which inputs to check if frames do not fit."""
        acquisition = self.acquisition
        if self.has_positions and acquisition.nominal_px is None:
            return "check the positions, their unit and the pixel size"
        if self.has_positions:
            return "check the positions and their unit"
        if acquisition.grid is None:
            return "pass positions or a grid"
        return f"check the grid{(', overlap' if acquisition.overlap else '')} and order"

    def find_likely_grids(self) -> tuple[LikelyGrid, ...]:
        """Find the grids that fit the overlaps, if the scan states no positions."""
        acquisition = self.acquisition
        if acquisition.nominal_px is not None or acquisition.nominal_nm is not None:
            return ()
        matches = self.matches or match_frames(self.frames)
        return find_likely_grids(acquisition, matches)

    @property
    def refined_shifts(self) -> dict[core.IntPair, refine.LinearisedShift]:
        """Shifts of the last refinement, by pair."""
        shifts = () if self.refinement is None else self.refinement.shifts
        return {item.pair: item for item in shifts}

    def list_placed_shifts(self) -> list[refine.LinearisedShift]:
        """List the shifts of the last refinement between placed frames."""
        shifts, is_placed = self.refined_shifts.values(), self.is_placed
        return [item for item in shifts if is_placed[[*item.pair]].all()]

    def add_warning(self, sentence: str, code: str) -> None:
        """Add a warning for the user."""
        self.warnings.append(core.Message(sentence, code))

    @property
    def rim_radius(self) -> float:
        """Distance from the centre of a frame to its rim, in px."""
        return min(self.acquisition.frame_shape) / 2

    def fit_stage_map(self) -> StageFit | None:
        """Fit the map from nominal positions to the current ones."""
        return fit_stage_map(self.nominal, self.positions, self.options.stage_model)

    def list_overlapping_pairs(self) -> list[core.IntPair]:
        """List the pairs of frames that overlap at their current positions."""
        pairs = find_overlapping_pairs(self.positions, self.acquisition.frame_shape)
        by_hand = self.struck_pairs | self.joined_pairs
        return [pair for pair in pairs if pair not in by_hand]


@dataclass(frozen=True, slots=True)
class PairReport(pairwise.FramePair):
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
    # for `correct_mosaic`: shifts of all pairs, corrected frames
    state: State = field(repr=False, compare=False)
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
