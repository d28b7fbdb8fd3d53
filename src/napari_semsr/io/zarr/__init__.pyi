from .image import write as write
from .labels import write_labels as write_labels
from .metadata import (
    halve as halve,
    level_shapes as level_shapes,
)
from .store import (
    OmeZarrStore as OmeZarrStore,
    shapes_of as shapes_of,
)
