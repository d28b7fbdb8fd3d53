"""Registration of a mosaic to an SEM image, as training requires it."""

import math
from dataclasses import replace

from napari_semsr.core import Job, warn
from napari_semsr.io import write_transform
from napari_semsr.jobs.adapt.areas import AdaptationError
from napari_semsr.jobs.images import get_image_name, open_image, to_json_value
from napari_semsr.jobs.register import (
    COSTLY_PX,
    LANDMARKS_IN,
    REGISTER,
    TRANSFORM_IN,
    Registered,
    RegisterOptions,
    check_pixel_sizes,
    describe_registration,
)
from napari_semsr.jobs.verb import ImageInput, Output, Run, Verb
from napari_semsr.registration import RegistrationRefused

MOSAIC_IN = ImageInput(
    "mosaic", "the optical image of the sample, such as a mosaic", side="mosaic"
)
SEM_IN = ImageInput(
    "sem",
    "SEM images of areas that MOSAIC shows; one is enough",
    label="SEM",
    metavar="SEM",
    many=True,
    side="sem",
)
_WORST_PX = 1.0  # expected error of the registration; chosen: beyond, pairs teach blur


def _register_mosaic(run: Run[RegisterOptions]) -> Job[Registered]:
    """Register a mosaic to an SEM image, elastically if affine is insufficient."""
    mosaic, sem = (run.image_inputs[item.name] for item in (MOSAIC_IN, SEM_IN))
    reading, name = run.get_read_options("sem"), get_image_name(sem)
    check_pixel_sizes(
        mosaic=open_image(mosaic, run.opening).replace(name=get_image_name(mosaic)),
        sem=open_image(sem, reading).replace(name=name),
    )
    is_elastic_allowed = (
        run.parameters["transform"] is None
        and run.options.model == "affine"
        and not run.options.landmarks_only
    )
    try:
        registration = yield from register_pair(run)
        if is_elastic_allowed and not _is_accurate(registration, COSTLY_PX):
            other = yield from register_pair(run, model="elastic")
            registration = min(registration, other, key=_get_error_px)
    except RegistrationRefused as refused:
        msg = f"{name} cannot be registered: {refused}"
        facts = to_json_value(refused.to_json())
        raise AdaptationError(msg, "not-registered", registration=facts) from refused
    if not _is_accurate(registration, _WORST_PX):
        msg = (
            f"The expected registration error of {name} is {registration.error_px:.2g} "
            f"px, but image pairs must match within {_WORST_PX:g} px: mark "
            "corresponding points as landmarks."
        )
        facts = to_json_value(describe_registration(registration.registration))
        raise AdaptationError(msg, "not-registered", registration=facts)
    if not _is_accurate(registration, COSTLY_PX):
        warn(
            f"The expected registration error of {name} is "
            f"{registration.error_px:.2g} px, which costs 0.3 dB or more: landmarks "
            "may improve the registration.",
            "map-imprecise",
        )
    write_transform(run.required_target, registration.stored_transform)
    return registration


def register_pair(run: Run[RegisterOptions], **changes: object) -> Job[Registered]:
    """Register mosaic and SEM image; `changes` override options."""
    mosaic, sem = (run.image_inputs[item.name] for item in (MOSAIC_IN, SEM_IN))
    return (
        yield from REGISTER.job(
            mosaic,  # as given, so that a transform recognises their files
            sem,
            options=run.options.replace(**changes),
            opening=run.opening,
            fixed_opening=run.get_read_options("sem"),
            **{name: run.parameters[name] for name in ("landmarks", "transform")},
        )
    )


def _get_error_px(registration: Registered) -> float:
    """Return the expected error, or infinity if it is unknown."""
    error = registration.error_px
    return math.inf if error is None or math.isnan(error) else error


def _is_accurate(registration: Registered, limit_px: float) -> bool:
    """Return whether the registration error is small enough or unknown."""
    return (
        registration.searched == "stored" and math.isinf(_get_error_px(registration))
    ) or (_get_error_px(registration) <= limit_px)


REGISTER_SEM = Verb(
    "register-sem",
    (MOSAIC_IN, replace(SEM_IN, many=False)),
    RegisterOptions,
    Registered,
    _register_mosaic,
    files=(LANDMARKS_IN, TRANSFORM_IN),
    output=Output("the transform", ending=".json"),
    opens=False,
)
