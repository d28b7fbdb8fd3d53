from .error_map import (
    ErrorMapReport as ErrorMapReport,
    error_map_job as error_map_job,
)
from .resolution import (
    ALONE as ALONE,
    find_halves as find_halves,
    frc_job as frc_job,
)
