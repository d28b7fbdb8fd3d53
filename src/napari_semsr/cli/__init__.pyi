from .batch.job import (
    BatchReport as BatchReport,
    batch_job as batch_job,
)
from .command import main as main
