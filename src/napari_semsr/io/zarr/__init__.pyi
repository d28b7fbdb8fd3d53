from .pyramid import (
    halve as halve,
    level_shapes as level_shapes,
)
from .store import (
    OmeZarrStore as OmeZarrStore,
    shapes_of as shapes_of,
)
