from .shift import (
    Shift as Shift,
    find_shift as find_shift,
)
