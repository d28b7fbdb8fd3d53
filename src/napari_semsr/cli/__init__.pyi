from .batch.job import (
    BATCH as BATCH,
    BatchOptions as BatchOptions,
    BatchReport as BatchReport,
)
from .batch.steps import (
    plan_batch as plan_batch,
    steps_of as steps_of,
)
from .command import main as main
