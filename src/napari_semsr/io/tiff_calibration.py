"""Pixel size of a TIFF that is no microscope's own: ImageJ, resolution tags."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from napari_semsr.core.micrograph import PixelSize
from napari_semsr.io.lengths import pixel_size, to_nm

if TYPE_CHECKING:
    import tifffile

__all__ = [
    "LARGEST_PRINTED_NM",
    "imagej_pixel_size",
    "tag_pixel_size",
]

LARGEST_PRINTED_NM = 5000.0
"""A coarser pitch in a resolution tag speaks of paper (4800 dpi is 5.3 um)."""

_TAG_UNITS = {2: "inch", 3: "cm"}
_NO_UNIT = ("", "pixel", "pixels", "px", "none", "reference frame")


def _resolution(page: "tifffile.TiffPage", name: str) -> float | None:
    """Pixels per unit along one axis, from a rational that may be damaged."""
    tag = page.tags.get(name)
    value: Any = None if tag is None else tag.value
    try:
        if isinstance(value, tuple | list):
            top, bottom = float(value[0]), float(value[1])
            number = top / bottom
        else:
            number = float(value)
    except (TypeError, ValueError, ArithmeticError, IndexError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _pitches(page: "tifffile.TiffPage", unit: str) -> PixelSize | None:
    """Pixel size from both resolution tags."""
    found = [_resolution(page, name) for name in ("YResolution", "XResolution")]
    return pixel_size([None if r is None else to_nm(1 / r, unit) for r in found])


def tag_pixel_size(page: "tifffile.TiffPage") -> PixelSize | None:
    """Read the resolution tags, unless they only speak of print.

    Parameters
    ----------
    page : tifffile.TiffPage
        The page that was chosen.

    Returns
    -------
    tuple of float or None
        ``(y, x)`` in nm; None when absent, damaged, or coarser than
        `LARGEST_PRINTED_NM`.
    """
    tag = page.tags.get("ResolutionUnit")
    unit = (
        _TAG_UNITS.get(int(tag.value)) if tag is not None and tag.count == 1 else None
    )
    size = None if unit is None else _pitches(page, unit)
    return None if size is None or max(size) > LARGEST_PRINTED_NM else size


def imagej_pixel_size(
    page: "tifffile.TiffPage", metadata: Mapping[str, Any], warnings: list[str]
) -> PixelSize | None:
    """Read ImageJ's calibration.

    Parameters
    ----------
    page : tifffile.TiffPage
        First page.
    metadata : mapping
        ImageJ's description.
    warnings : list of str
        Receives a sentence when there is a calibration that cannot be used.

    Returns
    -------
    tuple of float or None
        ``(y, x)`` in nm.
    """
    unit = str(metadata.get("unit", "")).strip()
    if unit.lower() in _NO_UNIT:
        return None
    size = _pitches(page, unit)
    if size is None:
        stated = getattr(page.tags.get("XResolution"), "value", None)
        warnings.append(
            f"ImageJ's calibration must be pixels per unit of length, got {stated} per "
            f"{unit!r}: the pixel size is left unknown."
        )
    elif unit.lower().startswith(("in", '"')) and max(size) > LARGEST_PRINTED_NM:
        return None
    return size
