from .job import (
    BatchReport as BatchReport,
    batch_job as batch_job,
)
