from .landmarks import (
    Landmarks as Landmarks,
    fit_landmarks as fit_landmarks,
)
from .quality import AlternativeTransform as AlternativeTransform
from .register_images import (
    Registration as Registration,
    RegistrationOptions as RegistrationOptions,
    RegistrationRefused as RegistrationRefused,
    Residuals as Residuals,
    register as register,
    register_landmarks as register_landmarks,
    register_unsized as register_unsized,
    resize_image as resize_image,
    take_map as take_map,
)
from .shift import Shift as Shift, find_shift as find_shift
