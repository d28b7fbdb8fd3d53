"""Gaps between particles: how many an image shows, and how wide."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_semsr.analysis.gaps import GapOptions, Gaps
from napari_semsr.core.progress import Job, Progress
from napari_semsr.services.opening import Image, OpenOptions
from napari_semsr.services.pairing import calibrated_of, names_of, open_pair
from napari_semsr.services.results import Result

__all__ = ["GapOptions", "GapReport", "gaps_job"]


@dataclass(frozen=True, slots=True)
class GapReport(Result):
    """Gaps of a field.

    Attributes
    ----------
    images : tuple of str
        Names of the image and, if given, the reference.
    pixel_size_nm : tuple of float or None
        ``(y, x)``; None when unknown.
    result : Gaps
        The gaps.
    """

    images: tuple[str, ...]
    pixel_size_nm: tuple[float, float] | None
    result: Gaps

    def to_json(self) -> dict[str, Any]:
        """Give the figures as one flat record.

        Returns
        -------
        dict
            Numbers of gaps, mean errors of their widths, and every width; those in nm
            are None without calibration.
        """
        found = self.result
        record: dict[str, Any] = {
            "images": list(self.images),
            "particles": found.particles,
            "pairs": found.pairs,
            "excluded": found.excluded,
            "gaps": len(found.found),
            "detected": found.detected,
            "undetected_fraction": found.undetected_fraction,
            "background": found.background,
            "reference_background": found.reference_background,
        }
        for unit in ("nm", "px"):
            errors = found.width_errors(unit)
            some = errors.size > 0
            record |= {
                f"mean_width_error_{unit}": float(np.abs(errors).mean())
                if some
                else None,
                f"mean_signed_width_error_{unit}": float(errors.mean())
                if some
                else None,
                f"widths_{unit}": [
                    getattr(gap, f"width_{unit}") for gap in found.found
                ],
                f"reference_widths_{unit}": [
                    getattr(gap, f"reference_{unit}") for gap in found.found
                ],
            }
        record["places_px"] = [list(gap.place_px) for gap in found.found]
        return record


def gaps_job(
    image: Image,
    reference: Image | None = None,
    *,
    options: GapOptions | None = None,
    opening: OpenOptions | None = None,
) -> Job[GapReport]:
    """Count and measure the gaps between particles.

    Parameters
    ----------
    image : Micrograph or path
        An image of particles.
    reference : Micrograph or path, optional
        A better image of the same field, on the same grid.
    options : GapOptions, optional
        Which pairs count.
    opening : OpenOptions, optional
        How to read files.

    Returns
    -------
    GapReport
        The gaps.

    Yields
    ------
    Progress
        Reading, measuring.

    Raises
    ------
    ReadError, ShapeError
        If images cannot be read or do not fit.
    """
    from napari_semsr.analysis.gaps import measure_gaps

    yield Progress(0, 2, "reading")
    first, second = open_pair(image, reference, opening)
    size = calibrated_of(first, second).pixel_size_nm
    yield Progress(1, 2, "looking for gaps")
    sized = first if size is None else first.replace(pixel_size_nm=size)
    found = measure_gaps(sized, second, options=options)
    yield Progress(2, 2, "done")
    return GapReport(names_of(image, reference), size, found)
