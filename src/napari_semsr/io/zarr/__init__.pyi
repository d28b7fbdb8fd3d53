from .store import (
    OmeZarrStore as OmeZarrStore,
    halve as halve,
    level_shapes as level_shapes,
)
