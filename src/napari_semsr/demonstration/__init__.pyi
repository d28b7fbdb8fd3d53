from .fields import FieldFigures as FieldFigures
from .job import (
    DemoOptions as DemoOptions,
    DemoResult as DemoResult,
    demo_job as demo_job,
)
