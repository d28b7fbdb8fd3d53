from .job import (
    BATCH as BATCH,
    BatchOptions as BatchOptions,
    BatchReport as BatchReport,
)
