from .plan import (
    LockstepPlan as LockstepPlan,
    halo_and_trace as halo_and_trace,
    plan_lockstep as plan_lockstep,
    work_of as work_of,
)
from .run import (
    STRATEGY_KEY as STRATEGY_KEY,
    exact_statistics as exact_statistics,
    run_lockstep as run_lockstep,
)
from .sampled import (
    Frozen as Frozen,
    frozen_work as frozen_work,
    measure_frozen as measure_frozen,
)
from .statistics import (
    MeasuredMoments as MeasuredMoments,
    Statistics as Statistics,
    on_device as on_device,
)
