from .coverage import (
    Coverage as Coverage,
    coverage_of as coverage_of,
)
from .panel import (
    add_frames as add_frames,
    lay_frames as lay_frames,
    look_into as look_into,
    scan_facts as scan_facts,
)
