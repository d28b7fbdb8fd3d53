"""Open one or two images for a measurement."""

import warnings

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.services.opening import (
    Image,
    OpenOptions,
    name_of,
    open_image,
)

__all__ = ["names_of", "open_pair", "warn_uncalibrated"]


def open_pair(
    a: Image, b: Image | None, opening: OpenOptions | None = None
) -> tuple[Micrograph, Micrograph | None]:
    """Open one or two images, with the history that tells whether they are independent.

    Parameters
    ----------
    a : Micrograph or path
        First image.
    b : Micrograph or path or None
        Second image.
    opening : OpenOptions, optional
        How to read files.

    Returns
    -------
    first : Micrograph
        The first image.
    second : Micrograph or None
        The second image, if one was given.
    """
    first = open_image(a, opening)
    return first, None if b is None else open_image(b, opening)


def names_of(*images: Image | None) -> tuple[str, ...]:
    """Give the names of those images that were given.

    Parameters
    ----------
    *images : Micrograph, path or None
        What a job was given.

    Returns
    -------
    tuple of str
        Names of layers or files.
    """
    return tuple(name_of(item) for item in images if item is not None)


def warn_uncalibrated(micrograph: Micrograph) -> None:
    """Say that results in nm cannot be given.

    Parameters
    ----------
    micrograph : Micrograph
        What is measured.
    """
    if micrograph.pixel_size_nm is None:
        warnings.warn(
            f"{micrograph.name} has no pixel size, so results in nm are null; "
            "give one (--pixel-size-nm, or Open mosaic in napari).",
            stacklevel=2,
        )
