from .buffers import (
    Room as Room,
    dense as dense,
)
from .graph import (
    Point as Point,
    Script as Script,
    write_script as write_script,
)
from .plan import (
    LockstepPlan as LockstepPlan,
    halo_and_script as halo_and_script,
    plan_lockstep as plan_lockstep,
    work_of as work_of,
)
from .replay import (
    SAVED_FORMS as SAVED_FORMS,
    Answer as Answer,
    PassState as PassState,
    TilePass as TilePass,
)
from .run import (
    STATISTICS as STATISTICS,
    WAY as WAY,
    exact_statistics as exact_statistics,
    input_of as input_of,
    run_lockstep as run_lockstep,
    tiles_for as tiles_for,
    with_smaller_tiles as with_smaller_tiles,
)
from .sampled import (
    Frozen as Frozen,
    frozen_work as frozen_work,
    measure_frozen as measure_frozen,
)
from .statistics import (
    MeasuredMoments as MeasuredMoments,
    Statistics as Statistics,
    Sums as Sums,
    on_device as on_device,
    pooled as pooled,
    sums_of as sums_of,
)
from .step import (
    Landed as Landed,
    Landing as Landing,
    by_output as by_output,
    scaled_box as scaled_box,
)
