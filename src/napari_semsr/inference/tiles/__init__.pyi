from .cluster import ClusterExecutor as ClusterExecutor
from .executors import (
    LocalExecutor as LocalExecutor,
    Take as Take,
    Work as Work,
    in_blocks as in_blocks,
    in_order as in_order,
    in_thread as in_thread,
    run_tiles as run_tiles,
)
from .run import (
    ArraySink as ArraySink,
    EnhancePlan as EnhancePlan,
    ExecutionStrategy as ExecutionStrategy,
    Places as Places,
    SeamMeter as SeamMeter,
    Sink as Sink,
    StoreSink as StoreSink,
    TiledRun as TiledRun,
    TileResult as TileResult,
    edges_of as edges_of,
)
from .whole import run_as_one as run_as_one
