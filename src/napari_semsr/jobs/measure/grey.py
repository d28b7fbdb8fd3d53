"""The measuring jobs of grey values: gaps of particles, metrics, histograms."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from napari_semsr.analysis import (
    GapOptions,
    Gaps,
    Histogram,
    Metrics,
    MetricsOptions,
    measure_gaps,
    measure_histogram,
    measure_metrics,
)
from napari_semsr.core import FloatArray, FloatPair, Job, Options, Progress
from napari_semsr.io import ReadOptions
from napari_semsr.jobs.images import (
    Image,
    Result,
    calibrated_of,
    jsonable,
    names_of,
    open_pair,
)
from napari_semsr.jobs.leakage import tell_learnt


@dataclass(frozen=True, slots=True)
class GapReport(Result):
    """Gaps of a field.

    Attributes
    ----------
    images : tuple of str
        Names of the image and, if given, the reference.
    pixel_size_nm : tuple of float or None
        ``(y, x)``; None when unknown.
    pixel_size_sd_nm : tuple of float or None
        Its standard deviation; None where no calibration told it.
    result : Gaps
        The gaps.
    """

    images: tuple[str, ...]
    pixel_size_nm: FloatPair | None
    pixel_size_sd_nm: FloatPair | None
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
            "pixel_size_nm": jsonable(self.pixel_size_nm),
            "pixel_size_sd_nm": jsonable(self.pixel_size_sd_nm),
            "particles": found.particles,
            "pairs": found.pairs,
            "excluded": found.excluded,
            "gaps": len(found.found),
            "detected": found.detected,
            "undetected_fraction": found.undetected_fraction,
            "background": found.background,
            "reference_background": found.reference_background,
        }

        def mean(values: FloatArray) -> float | None:
            return float(values.mean()) if values.size else None

        for unit in ("nm", "px"):
            errors = found.width_errors(unit)
            record |= {
                f"mean_width_error_{unit}": mean(np.abs(errors)),
                f"mean_signed_width_error_{unit}": mean(errors),
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
    opening: ReadOptions | None = None,
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
    opening : ReadOptions, optional
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
    yield Progress(0, 2, "reading")
    first, second = open_pair(image, reference, opening)
    if reference is not None and second is not None:
        tell_learnt([(image, first), (reference, second)], opening)
    calibrated = calibrated_of(first, second)
    size = calibrated.pixel_size_nm
    yield Progress(1, 2, "looking for gaps")
    sized = first if size is None else first.replace(pixel_size_nm=size)
    found = measure_gaps(sized, second, options=options)
    yield Progress(2, 2, "done")
    return GapReport(
        names_of(image, reference), size, calibrated.pixel_size_sd_nm, found
    )


# Grey values of images or files: metrics against a reference, and histograms.


class HistogramOptions(Options):
    """How to count grey levels."""

    bins: int = Field(default=256, ge=2, le=65536, description="number of bins")


@dataclass(frozen=True, slots=True)
class _Compared(Result):
    """What was found in an image, or between two."""

    images: tuple[str, ...]
    result: Any

    def to_json(self) -> dict[str, Any]:
        """Give the result as one flat record.

        Returns
        -------
        dict
            Its fields, with the images' names.
        """
        return {"images": list(self.images), **jsonable(self.result)}


@dataclass(frozen=True, slots=True)
class MetricsReport(_Compared):
    """How an image compares with a reference.

    Attributes
    ----------
    images : tuple of str
        Names of the image and, if given, the reference.
    result : Metrics
        The figures.
    """

    result: Metrics


@dataclass(frozen=True, slots=True)
class HistogramReport(_Compared):
    """Grey-level distributions.

    Attributes
    ----------
    images : tuple of str
        Names of the image and, if given, the reference.
    result : Histogram
        Bins, counts and distance.
    """

    result: Histogram


def metrics_job(
    image: Image,
    reference: Image | None = None,
    *,
    options: MetricsOptions | None = None,
    opening: ReadOptions | None = None,
) -> Job[MetricsReport]:
    """Compare an image with a reference.

    Parameters
    ----------
    image : Micrograph or path
        An image.
    reference : Micrograph or path, optional
        The truth, of the same shape.
    options : MetricsOptions, optional
        Data range and matching.
    opening : ReadOptions, optional
        How to read files.

    Returns
    -------
    MetricsReport
        The figures; those that need a reference are None without one.

    Yields
    ------
    Progress
        Reading, comparing.
    """
    chosen = options or MetricsOptions()
    yield Progress(0, 2, "reading")
    first, second = open_pair(image, reference, opening)
    if reference is not None and second is not None:
        tell_learnt([(image, first), (reference, second)], opening)
    yield Progress(1, 2, "comparing")
    result = measure_metrics(first, second, **chosen.model_dump())
    yield Progress(2, 2, "done")
    return MetricsReport(names_of(image, reference), result)


def histogram_job(
    image: Image,
    reference: Image | None = None,
    *,
    options: HistogramOptions | None = None,
    opening: ReadOptions | None = None,
) -> Job[HistogramReport]:
    """Count grey levels, and the distance of two distributions.

    Parameters
    ----------
    image : Micrograph or path
        An image.
    reference : Micrograph or path, optional
        Another, of any shape.
    options : HistogramOptions, optional
        Number of bins.
    opening : ReadOptions, optional
        How to read files.

    Returns
    -------
    HistogramReport
        The counts, and the earth mover's distance when there are two.

    Yields
    ------
    Progress
        Reading, counting.
    """
    chosen = options or HistogramOptions()
    yield Progress(0, 2, "reading")
    first, second = open_pair(image, reference, opening)
    yield Progress(1, 2, "counting")
    result = measure_histogram(first, second, **chosen.model_dump())
    yield Progress(2, 2, "done")
    return HistogramReport(names_of(image, reference), result)
