"""Grey values of images or files: metrics against a reference, and histograms."""

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from napari_semsr.analysis.histogram import Histogram
from napari_semsr.analysis.metrics import Metrics
from napari_semsr.core.options import Options
from napari_semsr.core.progress import Job, Progress
from napari_semsr.services.opening import Image, OpenOptions, open_image
from napari_semsr.services.pairing import names_of
from napari_semsr.services.results import Result, jsonable

__all__ = [
    "HistogramOptions",
    "HistogramReport",
    "MetricsOptions",
    "MetricsReport",
    "histogram_job",
    "metrics_job",
]


class MetricsOptions(Options):
    """How to compare two images."""

    data_range: float | None = Field(
        default=None,
        gt=0,
        description="span of the grey values; 255 for 8-bit, 65535 for 16-bit, "
        "else the reference's own",
    )
    match: Literal["affine"] | None = Field(
        default=None, description="fit gain and offset first"
    )


class HistogramOptions(Options):
    """How to count grey levels."""

    bins: int = Field(default=256, ge=2, le=65536, description="number of bins")


@dataclass(frozen=True, slots=True)
class MetricsReport(Result):
    """How an image compares with a reference.

    Attributes
    ----------
    images : tuple of str
        Names of the image and, if given, the reference.
    result : Metrics
        The figures.
    """

    images: tuple[str, ...]
    result: Metrics

    def to_json(self) -> dict[str, Any]:
        """Give the figures as one flat record.

        Returns
        -------
        dict
            The figures, with the images' names.
        """
        return {"images": list(self.images), **jsonable(self.result)}


@dataclass(frozen=True, slots=True)
class HistogramReport(Result):
    """Grey-level distributions.

    Attributes
    ----------
    images : tuple of str
        Names of the image and, if given, the reference.
    result : Histogram
        Bins, counts and distance.
    """

    images: tuple[str, ...]
    result: Histogram

    def to_json(self) -> dict[str, Any]:
        """Give the distributions as one flat record.

        Returns
        -------
        dict
            The distributions, with the images' names.
        """
        return {"images": list(self.images), **jsonable(self.result)}


def metrics_job(
    image: Image,
    reference: Image | None = None,
    *,
    options: MetricsOptions | None = None,
    opening: OpenOptions | None = None,
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
    opening : OpenOptions, optional
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
    from napari_semsr.analysis import metrics

    chosen = options or MetricsOptions()
    yield Progress(0, 2, "reading")
    first = open_image(image, opening)
    second = None if reference is None else open_image(reference, opening)
    yield Progress(1, 2, "comparing")
    result = metrics.compare(first, second, **chosen.model_dump())
    yield Progress(2, 2, "done")
    return MetricsReport(names_of(image, reference), result)


def histogram_job(
    image: Image,
    reference: Image | None = None,
    *,
    options: HistogramOptions | None = None,
    opening: OpenOptions | None = None,
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
    opening : OpenOptions, optional
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
    from napari_semsr.analysis import histogram

    chosen = options or HistogramOptions()
    yield Progress(0, 2, "reading")
    first = open_image(image, opening)
    second = None if reference is None else open_image(reference, opening)
    yield Progress(1, 2, "counting")
    result = histogram.histogram(first, second, **chosen.model_dump())
    yield Progress(2, 2, "done")
    return HistogramReport(names_of(image, reference), result)
