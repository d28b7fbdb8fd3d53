from .image import write as write
from .metadata import (
    halve as halve,
    level_shapes as level_shapes,
)
