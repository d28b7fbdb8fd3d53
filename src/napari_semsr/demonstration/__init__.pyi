from .job import (
    DemoOptions as DemoOptions,
    DemoResult as DemoResult,
    demo as demo,
)
