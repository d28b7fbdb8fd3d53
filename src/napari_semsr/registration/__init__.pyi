from .landmarks import (
    Landmarks as Landmarks,
    fit_landmarks as fit_landmarks,
)
from .quality import AlternativeTransform as AlternativeTransform
from .register_images import (
    Registration as Registration,
    RegistrationOptions as RegistrationOptions,
    RegistrationRefused as RegistrationRefused,
    RegistrationResiduals as RegistrationResiduals,
    evaluate_transform as evaluate_transform,
    register as register,
    register_landmarks as register_landmarks,
    register_uncalibrated_images as register_uncalibrated_images,
    rescale_pixel_size as rescale_pixel_size,
)
from .shift import (
    Shift as Shift,
    find_far_shift as find_far_shift,
    find_shift as find_shift,
)
