from ._register import (
    Registration as Registration,
    RegistrationOptions as RegistrationOptions,
    RegistrationRefused as RegistrationRefused,
    Residuals as Residuals,
    register as register,
)
from .given import (
    NO_RESIDUALS as NO_RESIDUALS,
    register_landmarks as register_landmarks,
    take_map as take_map,
)
from .landmarks import (
    LandmarkFit as LandmarkFit,
    LandmarkModel as LandmarkModel,
    Landmarks as Landmarks,
    fit_landmarks as fit_landmarks,
)
from .quality import Rival as Rival
from .shift import (
    Shift as Shift,
    find_shift as find_shift,
)
