"""The measuring jobs of grey values: gaps of particles, metrics, histograms."""

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from napari_semsr.analysis import (
    RESAMPLES,
    SEED,
    GapOptions,
    Gaps,
    Histogram,
    Metrics,
    MetricsOptions,
    WidthHistogram,
    measure_gaps,
    measure_histogram,
    measure_metrics,
)
from napari_semsr.core import FloatArray, FloatPair, Job, Options, Progress
from napari_semsr.io import ReadOptions, replacing
from napari_semsr.jobs.images import (
    Image,
    Result,
    calibrated_of,
    check_target_file,
    jsonable,
    names_of,
    open_pair,
    paths_of,
    pixel_size_record,
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
    histograms : tuple of WidthHistogram
        Widths of the image's gaps and the reference's, in `unit`; the second is None
        without a reference.
    table : str or None
        Path of the table that was written.
    """

    images: tuple[str, ...]
    pixel_size_nm: FloatPair | None
    pixel_size_sd_nm: FloatPair | None
    result: Gaps
    histograms: tuple[WidthHistogram, WidthHistogram | None]
    table: str | None = None

    @property
    def unit(self) -> str:
        """Unit of what is drawn: ``"nm"``, or ``"px"`` without calibration."""
        return "px" if self.pixel_size_nm is None else "nm"

    def to_json(self) -> dict[str, Any]:
        """Give the figures as one flat record.

        Returns
        -------
        dict
            Numbers of gaps, mean errors of their widths with 95 % intervals, every
            width, their histogram, and a row for each gap; those in nm are None without
            calibration.
        """
        found = self.result
        record: dict[str, Any] = {
            "images": list(self.images),
            **pixel_size_record(self.pixel_size_nm, self.pixel_size_sd_nm),
            "particles": found.particles,
            "pairs": found.pairs,
            "excluded": found.excluded,
            "gaps": len(found.found),
            "detected": found.detected,
            "undetected_fraction": found.undetected_fraction,
            "undetected_interval": jsonable(found.undetected_interval),
            "own_gaps": found.own,
            "invented": None if found.own is None else len(found.invented),
            "invented_fraction": found.invented_fraction,
            "invented_interval": jsonable(found.invented_interval),
            "background": found.background,
            "reference_background": found.reference_background,
        }

        def mean(values: FloatArray) -> float | None:
            return float(values.mean()) if values.size else None

        for unit in ("nm", "px"):
            errors = found.width_errors(unit)
            absolute, signed = found.error_intervals(unit)
            sizes = found.diameters(unit)
            widths, known = found.widths(unit)
            record |= {
                f"mean_width_{unit}": mean(widths),
                f"mean_width_interval_{unit}": jsonable(
                    found.interval_of(widths, unit)
                ),
                f"mean_reference_width_{unit}": mean(known),
                f"mean_reference_width_interval_{unit}": jsonable(
                    found.interval_of(known, unit)
                ),
                f"mean_width_error_{unit}": mean(np.abs(errors)),
                f"mean_width_error_interval_{unit}": jsonable(absolute),
                f"mean_signed_width_error_{unit}": mean(errors),
                f"mean_signed_width_error_interval_{unit}": jsonable(signed),
                f"widths_{unit}": [
                    getattr(gap, f"width_{unit}") for gap in found.found
                ],
                f"reference_widths_{unit}": [
                    getattr(gap, f"reference_{unit}") for gap in found.found
                ],
                f"mean_diameter_{unit}": mean(sizes),
                f"mean_diameter_interval_{unit}": jsonable(
                    found.interval_of(sizes, unit)
                ),
                f"median_diameter_{unit}": jsonable(
                    np.median(sizes) if sizes.size else None
                ),
                f"diameters_{unit}": jsonable(sizes),
            }
        record["places_px"] = [list(gap.place_px) for gap in found.found]
        record["resamples"], record["seed"] = RESAMPLES, SEED
        image, reference = self.histograms
        record["histogram"] = {
            "unit": self.unit,
            "edges": list(image.edges),
            "image": _counted(image),
            "reference": None if reference is None else _counted(reference),
        }
        record["table"] = self.table
        columns = found.table()
        record["rows"] = [
            dict(zip(columns, row, strict=True))
            for row in zip(*columns.values(), strict=True)
        ]
        return record


def _counted(histogram: WidthHistogram) -> dict[str, Any]:
    """Record counts and Gaussian without the edges, which two share."""
    record: dict[str, Any] = jsonable(histogram)
    del record["edges"]
    return record


def gaps_job(
    image: Image,
    reference: Image | None = None,
    *,
    table: str | os.PathLike[str] | None = None,
    options: GapOptions | None = None,
    opening: ReadOptions | None = None,
    overwrite: bool = False,
) -> Job[GapReport]:
    """Count and measure the gaps between particles.

    Parameters
    ----------
    image : Micrograph or path
        An image of particles.
    reference : Micrograph or path, optional
        A better image of the same field, on the same grid.
    table : path, optional
        A ``.csv`` file, which gets a row for each gap.
    options : GapOptions, optional
        Which pairs count.
    opening : ReadOptions, optional
        How to read files.
    overwrite : bool, default=False
        Replace an existing table.

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
    WriteError
        If the table cannot or must not be written.
    """
    yield Progress(0, 2, "reading")
    chosen, target = options or GapOptions(), None
    if table is not None:
        target = check_target_file(
            table,
            suffixes=(".csv",),
            inputs=paths_of(image, reference),
            overwrite=overwrite,
        )
    first, second = open_pair(image, reference, opening)
    if reference is not None and second is not None:
        tell_learnt([(image, first), (reference, second)], opening)
    calibrated = calibrated_of(first, second)
    size = calibrated.pixel_size_nm
    yield Progress(1, 2, "looking for gaps")
    sized = first if size is None else first.replace(pixel_size_nm=size)
    found = measure_gaps(sized, second, options=chosen)
    unit = "px" if size is None else "nm"
    report = GapReport(
        names_of(image, reference),
        size,
        calibrated.pixel_size_sd_nm,
        found,
        found.histograms(unit, chosen.bin_width),
        None if target is None else str(target),
    )
    if target is not None:
        _write_gaps(target, found)
    yield Progress(2, 2, "done")
    return report


def _write_gaps(path: Path, found: Gaps) -> None:
    """Write one row for each gap; what is not known stays empty."""
    columns = found.table()
    rows = zip(*columns.values(), strict=True)
    with replacing(path) as place, place.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(
            [f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row]
            for row in rows
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
