from .cluster import ClusterExecutor as ClusterExecutor
from .executors import (
    LocalExecutor as LocalExecutor,
    Take as Take,
    Work as Work,
    in_order as in_order,
    run_tiles as run_tiles,
)
from .output import (
    ArraySink as ArraySink,
    Places as Places,
    Sink as Sink,
    StoreSink as StoreSink,
)
from .seams import (
    SeamMeter as SeamMeter,
    edges_of as edges_of,
    sample_of as sample_of,
)
from .whole import (
    run_regridded as run_regridded,
    run_whole as run_whole,
)
from .worker import (
    EnhancePlan as EnhancePlan,
    ExecutionStrategy as ExecutionStrategy,
    TiledRun as TiledRun,
    TileResult as TileResult,
)
