from .correct import (
    check_corrections as check_corrections,
    correct_mosaic as correct_mosaic,
)
from .discovery import (
    LikelyGrid as LikelyGrid,
    UnplacedFramesError as UnplacedFramesError,
)
from .flat_field import compute_valid_mask as compute_valid_mask
from .focus import (
    FocusPlan as FocusPlan,
    HeightShift as HeightShift,
    find_sharpest as find_sharpest,
    plan_focus as plan_focus,
)
from .frames import rescale_extreme_values as rescale_extreme_values
from .fuse import (
    FusionPlan as FusionPlan,
    MosaicHalfPlan as MosaicHalfPlan,
    plan_fusion as plan_fusion,
    plan_mosaic_halves as plan_mosaic_halves,
)
from .live import LivePlacement as LivePlacement
from .solution import PairReport as PairReport, StitchSolution as StitchSolution
from .solve import solve_mosaic as solve_mosaic
from .state import Corrections as Corrections, StitchOptions as StitchOptions
from .watch import ScanMonitor as ScanMonitor
