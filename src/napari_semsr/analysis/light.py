"""Detail below and above the optical cut-off: what light can transmit and what not.

Light that passes a pupil carries no period shorter than λ / (2 NA). Image detail below
that frequency may be measured; detail above it is not.
"""

import math
from typing import Annotated

import numpy as np
from scipy import fft

from napari_semsr.core import (
    MORE,
    FloatArray,
    FloatPair,
    Micrograph,
    available_cores,
    mean_pitch,
    option,
    plan_rings,
    window_plane,
)

_TAPER = 0.5  # as for ring correlation, so that the figures are comparable

# bounds: chosen, so that a length typed in µm or m is refused
CutOff = Annotated[
    float | None,
    option(
        None,
        "Optical cut-off",
        "Shortest period that the light carries, lambda/(2 NA), in nm; "
        "by default from the image's history.",
        unit="nm",
        group=MORE,
        ge=10,
        le=10_000,
    ),
]
"""Option: the optical cut-off."""


def find_cut_off(image: Micrograph, cut_off_nm: float | None = None) -> float | None:
    """Return the cut-off in nm from the user, else from the image's history.

    This is the shortest period that the light carried; None if unknown.
    """
    history = image.provenance
    return cut_off_nm or (None if history is None else history.optical_cut_off_nm())


CAUSE_WITH_REFERENCE = "what agrees there was guessed"
CAUSE_WITHOUT_REFERENCE = "noise or a network imitates it"
"""Other causes of a resolution beyond the cut-off, with and without a reference."""


def beyond_cut_off(
    found_nm: float | None,
    interval_nm: FloatPair | None,
    end_nm: float | None,
    but: str,
    what: str = "resolution",
) -> str:
    """Return a warning sentence if a resolution is finer than the optical cut-off.

    `but` says, as a clause, what else may look like such a resolution, and `what` is
    called one here. Where the 95 % interval reaches the cut-off, that alone is said.
    Empty where the resolution is no finer or one is unknown.
    """
    if found_nm is None or end_nm is None or found_nm >= end_nm:
        return ""
    if interval_nm is not None and max(interval_nm) >= end_nm:
        return (
            f"The optical cut-off of {end_nm:.4g} nm lies within the 95 % interval of "
            f"the {what}, which need not be finer than what light carried."
        )
    return (
        f"The {what} lies beyond the optical cut-off of {end_nm:.4g} nm: light carried "
        f"nothing that fine, so that {but}, or the cut-off is another."
    )


def beside_cut_off(found_nm: float | None, end_nm: float | None) -> str:
    """Return a short note if a resolution is finer than the optical cut-off, or ``""``.

    See `beyond_cut_off` for a full sentence.
    """
    if found_nm is None or end_nm is None or found_nm >= end_nm:
        return ""
    return f"finer than the optical cut-off of {end_nm:.4g} nm"


def split_light(
    plane: FloatArray, cut_off_nm: float, pixel_size_nm: FloatPair
) -> tuple[FloatArray, FloatArray]:
    """Split a plane (Y, X) into frequencies below and above the optical cut-off.

    The mean is taken off and a window laid over (Tukey, half of each side tapered);
    nothing is padded. The mean squares of both add up to that of the plane under the
    window. A band that has no frequency is 0.
    """
    shape, cores = (plane.shape[0], plane.shape[1]), available_cores()
    window = window_plane(shape, _TAPER)
    window /= math.sqrt(np.mean(window**2))  # of mean square 1
    spectrum = fft.rfft2(window * (plane - plane.mean()), workers=cores)
    rings = plan_rings(shape, mean_pitch(pixel_size_nm))
    end = math.sqrt(math.prod(pixel_size_nm)) / cut_off_nm
    finer = (rings.frequency > end)[rings.index]
    below, above = (
        fft.irfft2(np.where(finer == keeps_light, spectrum, 0), s=shape, workers=cores)
        for keeps_light in (False, True)
    )
    return below, above
