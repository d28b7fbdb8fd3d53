from .correct import (
    check_corrections as check_corrections,
    correct_mosaic as correct_mosaic,
)
from .discovery import (
    LikelyGrid as LikelyGrid,
    UnplacedFramesError as UnplacedFramesError,
)
from .frames import (
    compute_valid_mask as compute_valid_mask,
    rescale_extreme_values as rescale_extreme_values,
)
from .fuse import (
    FocusPlan as FocusPlan,
    FusionPlan as FusionPlan,
    HeightShift as HeightShift,
    MosaicHalfPlan as MosaicHalfPlan,
    find_sharpest as find_sharpest,
    plan_focus as plan_focus,
    plan_fusion as plan_fusion,
    plan_mosaic_halves as plan_mosaic_halves,
)
from .live import LivePlacement as LivePlacement
from .solve import solve_mosaic as solve_mosaic
from .state import (
    Corrections as Corrections,
    PairReport as PairReport,
    StitchOptions as StitchOptions,
    StitchSolution as StitchSolution,
)
from .watch import ScanMonitor as ScanMonitor
