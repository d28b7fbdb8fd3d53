"""What the steps of a solution hand to each other."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from napari_semsr.core import Acquisition, BoolArray, FloatArray, IntPair
from napari_semsr.stitching.discovery import match_frames
from napari_semsr.stitching.frames import CorrectedFrames
from napari_semsr.stitching.grids import LikelyGrid, likely_grids
from napari_semsr.stitching.layout import ChanceLevel, Joint, Layout
from napari_semsr.stitching.nominal import PossibleTurns, overlapping_pairs
from napari_semsr.stitching.options import StitchOptions
from napari_semsr.stitching.pairwise import Candidates
from napari_semsr.stitching.refine import Refined
from napari_semsr.stitching.solution import enough


@dataclass(slots=True)
class State:
    """What is known of a scan while it is being solved."""

    # The frames, with grid, order and overlap as the options have them
    acquisition: Acquisition
    options: StitchOptions  # What the user chose
    prepared: CorrectedFrames  # Corrected frames
    nominal: FloatArray  # (N, 2) Expected corners
    is_stated: bool  # Whether these came from the scan rather than from its images
    # Of all pairs, where the images alone told where frames are expected
    matches: Sequence[Joint] = ()
    # (2, 2) By which stated positions were turned into these, ``(y, x)``
    axes: FloatArray = field(default_factory=lambda: np.eye(2))
    # Which of such maps neighbours allow; None while they were not compared
    turns: PossibleTurns | None = None
    # Frames that fitted with the axes as stated, where others were taken
    fitted_as_stated: int | None = None
    # (2,) Slope of the logarithm of the field per px, ``(y, x)``, by which the mosaic
    # would be even; nothing shows it where gains are automatic
    open_slope: FloatArray = field(default_factory=lambda: np.zeros(2))
    noise: float = 0.0  # Pixel noise of the raw frames
    reach: IntPair = (0, 0)  # Of the last search
    chance: ChanceLevel | None = None  # Of the expected shifts that were last searched
    threshold: float = 0.0  # Score above which a joint is believed
    is_periodic: bool = False  # Whether unrelated frames match too
    # Possible shifts of every pair that was tried
    found: list[Candidates] = field(default_factory=list)
    layout: Layout | None = None  # Whole-pixel layout
    # (N, 2) Best corners so far; NaN for frames without a place
    positions: FloatArray = field(default_factory=lambda: np.zeros((0, 2)))
    is_nominal: bool = False  # Whether the scan decides, at least in one direction
    # Frames placed by all their neighbours together
    rescued: set[int] = field(default_factory=set)
    strays: list[int] = field(default_factory=list)  # Of them, far from where stated
    refined: Refined | None = None  # Last sweep of the joint refinement
    # Standard deviation of the field's distortion; None while not measured
    distortion_sd: float | None = None
    # (N, 2) What it adds to that of the positions; None where none was taken back
    distortion_doubt: FloatArray | None = None
    # Pairs whose images allow another shift
    ambiguous: set[IntPair] = field(default_factory=set)
    struck: frozenset[IntPair] = frozenset()  # Pairs that the user does not want used
    joined: frozenset[IntPair] = frozenset()  # Pairs whose shift the user has given
    grids: tuple[LikelyGrid, ...] = ()  # In which more frames may find a place
    reasons: dict[int, str] = field(default_factory=dict)  # Why a frame has no place
    warnings: list[str] = field(default_factory=list)  # What the user must know

    @property
    def has_place(self) -> BoolArray:
        """Which frames have a place, (N,)."""
        return np.asarray(np.isfinite(self.positions).all(axis=1))

    @property
    def most_placed(self) -> bool:
        """Whether enough frames have a place."""
        return enough(self.has_place)

    @property
    def has_positions(self) -> bool:
        """Whether the scan states positions of a known size in px."""
        acquisition = self.acquisition
        in_nm = acquisition.nominal_nm is not None
        has_size = in_nm and acquisition.pixel_size_nm is not None
        return acquisition.nominal_px is not None or has_size

    @property
    def axes_open(self) -> bool:
        """Whether a sample that repeats itself fits several maps of the stage."""
        return self.turns is not None and len(self.turns.turns) > 1

    @property
    def to_check(self) -> str:
        """What the user may have said wrong, or not yet, where frames do not fit."""
        acquisition = self.acquisition
        if self.has_positions and acquisition.nominal_px is None:
            return "check the positions, their unit and the pixel size"
        if self.has_positions:
            return "check the positions and their unit"
        if acquisition.grid is None:
            return "give positions or a grid"
        return f"check grid{', overlap' if acquisition.overlap else ''} and order"

    def likely_grids(self) -> tuple[LikelyGrid, ...]:
        """Find the grids that the overlaps fit, where the scan states no positions."""
        acquisition = self.acquisition
        if acquisition.nominal_px is not None or acquisition.nominal_nm is not None:
            return ()
        matches = self.matches or match_frames(self.prepared)
        return likely_grids(acquisition, matches)

    @property
    def rim(self) -> float:
        """Distance of the rim from the middle of a frame, in px."""
        return min(self.acquisition.frame_shape) / 2

    def overlapping(self) -> list[IntPair]:
        """Pairs of frames that overlap where they now are."""
        pairs = overlapping_pairs(self.positions, self.acquisition.frame_shape)
        by_hand = self.struck | self.joined
        return [pair for pair in pairs if pair not in by_hand]
