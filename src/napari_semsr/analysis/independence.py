"""Whether two images may be correlated at all: grids, pixel sizes, provenance."""

import math

from napari_semsr.core.errors import OptionError, ShapeError
from napari_semsr.core.micrograph import Micrograph

__all__ = ["check_grids", "not_independent"]

PIXEL_TOLERANCE = 1e-3


def check_grids(a: Micrograph, b: Micrograph) -> None:
    """Refuse two images that do not share one grid.

    Parameters
    ----------
    a, b : Micrograph
        Images to correlate.

    Raises
    ------
    ShapeError
        If their shapes differ.
    OptionError
        If their pixel sizes differ by more than 0.1 %.
    """
    if a.shape != b.shape:
        msg = (
            f"Both images must have the same shape, got {a.shape[0]}x{a.shape[1]} px "
            f"and {b.shape[0]}x{b.shape[1]} px; bring them onto one grid (semsr crop)."
        )
        raise ShapeError(msg)
    if a.pixel_size_nm is None or b.pixel_size_nm is None:
        return
    ratios = [p / q for p, q in zip(a.pixel_size_nm, b.pixel_size_nm, strict=True)]
    if any(abs(math.log(ratio)) > PIXEL_TOLERANCE for ratio in ratios):
        msg = (
            f"Both images must have the same pixel size, got {a.pixel_size_nm} nm and "
            f"{b.pixel_size_nm} nm; resample one of them or correct its calibration."
        )
        raise OptionError(msg)


def not_independent(a: Micrograph, b: Micrograph | None) -> bool:
    """Tell from provenance whether networks made both images from one acquisition.

    Parameters
    ----------
    a : Micrograph
        First image.
    b : Micrograph or None
        Second image; None for two halves of the first.

    Returns
    -------
    bool
        True when both images (or the one that would be split) went through a network
        and a source file is common to both histories. Images without provenance are
        taken as independent: nothing is known against them.
    """
    if a.provenance is None or not a.provenance.networks():
        return False
    if b is None:
        return True
    if b.provenance is None or not b.provenance.networks():
        return False
    return b is a or bool(a.provenance.sources() & b.provenance.sources())
