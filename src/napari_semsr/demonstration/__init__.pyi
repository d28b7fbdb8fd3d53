from .job import (
    DEMO as DEMO,
    DemoOptions as DemoOptions,
    DemoResult as DemoResult,
)
