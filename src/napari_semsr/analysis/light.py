"""Image detail below and above the optical cut-off.

Light that passes a pupil transmits no period shorter than λ / (2 NA). Image detail of
longer periods may be measured; detail of shorter ones is not.
"""

import math
from typing import Annotated

import numpy as np
import scipy  # the submodules are loaded lazily

from napari_semsr import core

# chosen, so that values in µm or m are refused
CutOff = Annotated[
    float | None,
    core.option(
        None,
        "Optical cut-off",
        "Optical cut-off in nm: the shortest period transmitted by the light, "
        "lambda/(2 NA); by default taken from the image history.",
        unit="nm",
        group=core.MORE,
        ge=10,
        le=10_000,
    ),
]
"""Option for the optical cut-off."""


def find_cut_off(
    image: core.Micrograph, cut_off_nm: float | None = None
) -> float | None:
    """Return the cut-off in nm set by the user, or else from the image history.

    This is the shortest period that the light transmitted; None if unknown.
    """
    history = image.provenance
    return cut_off_nm or (None if history is None else history.optical_cut_off_nm())


def format_cut_off_warning(
    found_nm: float | None,
    interval_nm: core.FloatPair | None,
    end_nm: float | None,
    *,
    reference: bool,
    what: str = "resolution",
) -> str:
    """Return a warning if a resolution is finer than the optical cut-off.

    `reference`: whether it was measured with a noise-free image; `what`: name of the
    resolution in the sentence. If the 95 % interval includes the cut-off, the sentence
    states only that. Empty if the resolution is not finer, or if one of them is
    unknown.
    """
    if found_nm is None or end_nm is None or found_nm >= end_nm:
        return ""
    if interval_nm is not None and max(interval_nm) >= end_nm:
        return (
            f"The optical cut-off of {end_nm:.4g} nm is within the 95 % interval of "
            f"the {what}: the true value may be coarser than the cut-off."
        )
    but = "noise or a network imitates it"
    if reference:
        but = "agreement beyond it is guessed"
    return (
        f"The {what} is finer than the optical cut-off of {end_nm:.4g} nm: the light "
        f"does not transmit such fine detail, so either {but}, or the cut-off is wrong."
    )


def format_cut_off_note(found_nm: float | None, end_nm: float | None) -> str:
    """Return a short note if a resolution is finer than the optical cut-off, or ``""``.

    See `format_cut_off_warning` for a full sentence.
    """
    if found_nm is None or end_nm is None or found_nm >= end_nm:
        return ""
    return f"finer than the optical cut-off of {end_nm:.4g} nm"


def split_frequencies(
    plane: core.FloatArray, cut_off_nm: float, pixel_size_nm: core.FloatPair
) -> tuple[core.FloatArray, core.FloatArray]:
    """Split a plane (Y, X) into frequencies below and above the optical cut-off.

    The mean is subtracted and a window applied (Tukey, half of each side tapered),
    without padding. The mean squares of both bands add up to that of the windowed
    plane. A band without frequencies is 0.
    """
    shape, cores = (plane.shape[0], plane.shape[1]), core.count_available_cores()
    # as for ring correlation, so that the results are comparable
    window = core.tukey_window_2d(shape, 0.5)
    window /= math.sqrt(np.mean(window**2))  # to a mean square of 1
    spectrum = scipy.fft.rfft2(window * (plane - plane.mean()), workers=cores)
    rings = core.create_rings(shape, core.compute_relative_pitch(pixel_size_nm))
    end = math.sqrt(math.prod(pixel_size_nm)) / cut_off_nm
    finer = (rings.frequency > end)[rings.index]
    below, above = (
        scipy.fft.irfft2(
            np.where(finer == keeps_light, spectrum, 0), s=shape, workers=cores
        )
        for keeps_light in (False, True)
    )
    return below, above
