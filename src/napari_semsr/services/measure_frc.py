"""Fourier ring correlation of one or two images or files."""

from dataclasses import dataclass
from typing import Any

from napari_semsr.analysis.frc import FrcOptions, FrcResult
from napari_semsr.core.progress import Job, Progress
from napari_semsr.services.opening import Image, OpenOptions
from napari_semsr.services.pairing import calibrated_of, names_of, open_pair
from napari_semsr.services.results import Result, jsonable

__all__ = ["FrcReport", "frc_job"]


@dataclass(frozen=True, slots=True)
class FrcReport(Result):
    """Fourier ring correlation of one or two images.

    Attributes
    ----------
    images : tuple of str
        Names of what was compared.
    pixel_size_nm : tuple of float or None
        ``(y, x)``; None when unknown.
    result : FrcResult
        Resolution, curve, criterion, method and reason.
    """

    images: tuple[str, ...]
    pixel_size_nm: tuple[float, float] | None
    result: FrcResult

    def to_json(self) -> dict[str, Any]:
        """Give the result as one flat record.

        Returns
        -------
        dict
            The result's fields, with the images' names and pixel size.
        """
        return {
            "images": list(self.images),
            "pixel_size_nm": jsonable(self.pixel_size_nm),
            **jsonable(self.result),
        }


def frc_job(
    a: Image,
    b: Image | None = None,
    *,
    options: FrcOptions | None = None,
    opening: OpenOptions | None = None,
) -> Job[FrcReport]:
    """Measure resolution by Fourier ring correlation.

    Parameters
    ----------
    a : Micrograph or path
        An image.
    b : Micrograph or path, optional
        A second, independent image of the same field.
    options : FrcOptions, optional
        Criterion, estimator, window.
    opening : OpenOptions, optional
        How to read files.

    Returns
    -------
    FrcReport
        Without a crossing its resolution is None and its reason says why.

    Yields
    ------
    Progress
        Reading, correlating.
    """
    from napari_semsr.analysis import frc

    yield Progress(0, 2, "reading")
    first, second = open_pair(a, b, opening)
    calibrated = calibrated_of(first, second)
    yield Progress(1, 2, "correlating")
    result = frc.frc(first, second, options or FrcOptions())
    yield Progress(2, 2, "done")
    return FrcReport(names_of(a, b), calibrated.pixel_size_nm, result)
