from .image import coverage_of as coverage_of, tell_missing as tell_missing
from .store import (
    OmeZarrStore as OmeZarrStore,
    halve as halve,
    level_shapes as level_shapes,
    peek as peek,
)
