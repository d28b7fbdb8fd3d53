"""What the steps of a solution hand to each other."""

from dataclasses import dataclass, field

import numpy as np

from napari_semsr.core import Acquisition, FloatArray, IntPair
from napari_semsr.stitching.frames import Prepared
from napari_semsr.stitching.layout import Layout
from napari_semsr.stitching.options import StitchOptions
from napari_semsr.stitching.pairwise import Candidates
from napari_semsr.stitching.refine import Refined
from napari_semsr.stitching.shading import Shading


@dataclass(slots=True)
class State:
    """What is known of a scan while it is being solved.

    Attributes
    ----------
    acquisition : Acquisition
        The frames, with grid, order and overlap as the options have them.
    options : StitchOptions
        What the user chose.
    prepared : Prepared
        Corrected frames.
    nominal : (N, 2) numpy.ndarray
        Expected corners.
    is_stated : bool
        Whether these came from the scan rather than from its images.
    noise : float
        Pixel noise of the raw frames.
    reach : tuple of int
        Of the last search.
    threshold : float
        Score above which a joint is believed.
    is_periodic : bool
        Whether unrelated frames match too.
    found : list of Candidates
        Possible shifts of every pair that was tried.
    layout : Layout or None
        Whole-pixel layout.
    positions : (N, 2) numpy.ndarray
        Best corners so far; NaN for frames without a place.
    rescued : set of int
        Frames placed by all their neighbours together.
    refined : Refined or None
        Last sweep of the joint refinement.
    shading : Shading or None
        Result of fitting flat field and gains to the overlaps.
    ambiguous : set of tuple of int
        Pairs whose images allow another shift.
    reasons : dict
        Why a frame has no place.
    warnings : list of str
        What the user must know.
    """

    acquisition: Acquisition
    options: StitchOptions
    prepared: Prepared
    nominal: FloatArray
    is_stated: bool
    noise: float = 0.0
    reach: IntPair = (0, 0)
    threshold: float = 0.0
    is_periodic: bool = False
    found: list[Candidates] = field(default_factory=list)
    layout: Layout | None = None
    positions: FloatArray = field(default_factory=lambda: np.zeros((0, 2)))
    rescued: set[int] = field(default_factory=set)
    refined: Refined | None = None
    shading: Shading | None = None
    ambiguous: set[IntPair] = field(default_factory=set)
    reasons: dict[int, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
