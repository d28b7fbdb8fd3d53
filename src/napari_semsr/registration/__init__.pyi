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
    evaluate_transform as evaluate_transform,
    register as register,
    register_landmarks as register_landmarks,
    register_uncalibrated as register_uncalibrated,
    rescale_pixel_size as rescale_pixel_size,
)
from .shift import Shift as Shift, find_shift as find_shift
