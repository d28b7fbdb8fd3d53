from .batch.job import (
    BATCH as BATCH,
    BatchOptions as BatchOptions,
    BatchReport as BatchReport,
)
from .command import main as main
