"""Open one or two images for a measurement."""

import warnings

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.services.opening import (
    Image,
    OpenOptions,
    name_of,
    open_image,
)

__all__ = ["calibrated_of", "names_of", "open_pair"]


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


def calibrated_of(first: Micrograph, second: Micrograph | None) -> Micrograph:
    """Choose the image whose pixel size holds, and warn where one is missing.

    Parameters
    ----------
    first : Micrograph
        First image.
    second : Micrograph or None
        Second image of the same field, if any.

    Returns
    -------
    Micrograph
        The first image, or the second where only that is calibrated.
    """
    images = [first] if second is None else [first, second]
    known = [image for image in images if image.pixel_size_nm is not None]
    for image in images:
        if image.pixel_size_nm is None:
            what = (
                f"that of {known[0].name} is taken; check that it fits"
                if known
                else "results in nm are null; give one (--pixel-size-nm, or Open "
                "mosaic in napari)"
            )
            warnings.warn(f"{image.name} has no pixel size, so {what}.", stacklevel=2)
            break
    return known[0] if known else first
