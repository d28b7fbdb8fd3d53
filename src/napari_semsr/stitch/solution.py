"""What a solved scan is: positions, joints, shading, and how far to trust them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.acquisition import Fault
from napari_semsr.core.micrograph import PixelSize
from napari_semsr.stitch.flatfield import FlatField

__all__ = ["PairReport", "StageFit", "StitchSolution"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PairReport:
    """One joint between two frames.

    Attributes
    ----------
    first, second : int
        The frames.
    shift_px : tuple of float
        Measured position of the second less that of the first.
    quality : float
        Weighted correlation coefficient on the overlap, at most 1.
    score : float
        The same in standard deviations of unrelated noise.
    used : bool
        Whether the positions rest on it.
    ambiguous : bool
        Whether the images allow another shift as well.
    residual_px : float
        Distance between its own best shift and that of the solved positions; NaN
        when it was not refined.
    sigma_px : float
        Standard deviation of its own shift along its worse direction; NaN likewise.
    reason : str
        Why it is not used; empty when it is.
    """

    first: int
    second: int
    shift_px: tuple[float, float]
    quality: float
    score: float
    used: bool
    ambiguous: bool = False
    residual_px: float = float("nan")
    sigma_px: float = float("nan")
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StageFit:
    """How solved positions follow from nominal ones.

    Attributes
    ----------
    matrix : (2, 2) numpy.ndarray
        Solved px for each nominal px, ``(y, x)``.
    offset : (2,) numpy.ndarray
        In px.
    scatter_px : float
        RMS of what is left: the stage's error.
    scale : tuple of float
        Lengths of the matrix's columns: solved over nominal along y and x.
    rotation_deg, skew_deg : float
        Turn of the camera against the stage, and departure from a right angle.
    """

    matrix: FloatArray
    offset: FloatArray
    scatter_px: float
    scale: tuple[float, float]
    rotation_deg: float
    skew_deg: float


@dataclass(frozen=True, slots=True)
class StitchSolution:
    """A solved scan.

    Attributes
    ----------
    positions_px : (N, 2) numpy.ndarray
        Solved top-left corners; the smallest y and x are 0; NaN for frames left out.
    nominal_px : (N, 2) numpy.ndarray or None
        Where the frames were expected.
    names : tuple of str
        Of the frames.
    left_out : tuple of Fault
        Frames that are not placed, and why.
    pairs : tuple of PairReport
        All joints that were tried.
    residual_px : float
        RMS residual of the joints that are used, each by its information.
    sigma_px : (N, 2) numpy.ndarray
        Standard deviation of each position by the information of its joints.
    flat : FlatField
        Shading and dark level.
    gains : (N,) numpy.ndarray
        Brightness of each frame, 1 on average.
    turns : (N, 2) numpy.ndarray
        Small rotation in radians and relative scale less 1 of each frame; 0 unless
        they were asked for.
    noise : float
        Standard deviation of a corrected pixel where the field is brightest.
    threshold : float
        Score above which a joint was believed.
    stage : StageFit or None
        Solved against nominal positions.
    pixel_size_nm : tuple of float or None
        As stated, else as estimated.
    estimated_pixel_size_nm : tuple of float or None
        Stage nanometres over solved pixels.
    shading_percent : float
        Difference of overlapping blocks that flat field and noise leave, in % of the
        mean.
    warnings : tuple of str
        What the user must know, one sentence each.
    notes : dict
        Further figures for a report.
    """

    positions_px: FloatArray
    nominal_px: FloatArray | None
    names: tuple[str, ...]
    left_out: tuple[Fault, ...]
    pairs: tuple[PairReport, ...]
    residual_px: float
    sigma_px: FloatArray
    flat: FlatField
    gains: FloatArray
    turns: FloatArray
    noise: float
    threshold: float
    stage: StageFit | None = None
    pixel_size_nm: PixelSize | None = None
    estimated_pixel_size_nm: PixelSize | None = None
    shading_percent: float = float("nan")
    warnings: tuple[str, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def placed(self) -> NDArray[np.bool_]:
        """Which frames have a place."""
        known: NDArray[np.bool_] = ~np.isnan(self.positions_px[:, 0])
        return known

    @property
    def pairs_used(self) -> int:
        """Joints that the positions rest on."""
        return sum(pair.used for pair in self.pairs)

    @property
    def pairs_rejected(self) -> int:
        """Joints that were tried and not believed."""
        return sum(not pair.used for pair in self.pairs)
