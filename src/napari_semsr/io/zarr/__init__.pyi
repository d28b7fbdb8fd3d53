from .labels import (
    LABELS as LABELS,
    label_path as label_path,
)
from .metadata import (
    halve as halve,
    level_shapes as level_shapes,
)
from .store import (
    OmeZarrStore as OmeZarrStore,
    shapes_of as shapes_of,
)
