from .job import (
    DemoOptions as DemoOptions,
    DemoResult as DemoResult,
    demo_job as demo_job,
)
from .runs import FieldFigures as FieldFigures
