from .coverage import (
    Coverage as Coverage,
    get_coverage_path as get_coverage_path,
)
from .panel import (
    add_frame_layers as add_frame_layers,
    create_frame_layers as create_frame_layers,
    describe_scan as describe_scan,
    inspect_scan as inspect_scan,
)
