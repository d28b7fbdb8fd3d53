from .landmarks import (
    LandmarkFit as LandmarkFit,
    LandmarkModel as LandmarkModel,
    Landmarks as Landmarks,
    fit_landmarks as fit_landmarks,
)
from .shift import (
    Shift as Shift,
    find_shift as find_shift,
)
