"""What a map is worth that was not found by structure: from landmarks, or stored."""

import numpy as np

from napari_semsr.core import Affine, Elastic, Micrograph
from napari_semsr.registration._register import (
    Registration,
    RegistrationRefused,
    Residuals,
    information,
)
from napari_semsr.registration.landmarks import LandmarkModel, Landmarks, fit_landmarks
from napari_semsr.registration.quality import overlap_of, places_seen


def take_map(
    transform: Affine | Elastic,
    moving: Micrograph,
    fixed: Micrograph,
    *,
    model: str,
    searched: str,
    error_nm: float,
    residuals: Residuals | None = None,
) -> Registration:
    """Look at what two calibrated images show under a map, in nm, that is given.

    `error_nm` is the expected distance from the true map, NaN where that is not known;
    `residuals` are of patches or landmarks. There is no score, and there are no rivals.

    Raises
    ------
    RegistrationRefused
        If the map brings nothing of the moving image onto the fixed one.
    """
    overlap = overlap_of(transform, moving, fixed)
    if overlap <= 0:
        msg = (
            f"The map brings nothing of {moving.name!r} onto {fixed.name!r}: check "
            "pixel sizes and origins, or register again."
        )
        raise RegistrationRefused(msg, "no-overlap")
    before, after = information(moving, fixed, transform)
    return Registration(
        transform=transform,
        model=model,
        error_px=error_nm / max(*moving.scale, *fixed.scale),
        error_nm=error_nm,
        overlap=overlap,
        mutual_information_before=before,
        mutual_information_after=after,
        residuals=Residuals() if residuals is None else residuals,
        score=0.0,
        searched=searched,
    )


def register_landmarks(
    moving: Micrograph,
    fixed: Micrograph,
    landmarks: Landmarks,
    model: LandmarkModel = "affine",
) -> Registration:
    """Bring an image onto another by three landmarks or more alone, not on one line.

    The residuals are those of the landmarks, and the error is NaN where none is spare.

    Raises
    ------
    RegistrationError
        If the landmarks do not determine a map.
    """
    fit = fit_landmarks(landmarks, model)
    expected = fit.expected_error(places_seen(fit.transform, moving, fixed))
    error = np.nan
    if expected is not None and expected.size:
        error = float(np.sqrt(np.mean(expected**2)))
    return take_map(
        fit.transform,
        moving,
        fixed,
        model=model,
        searched="landmarks",
        error_nm=error,
        residuals=Residuals(
            places_nm=landmarks.fixed,
            off_nm=fit.residuals,
            reliable=np.ones(len(landmarks), dtype=bool),
            side_nm=0.0,
        ),
    )
