"""The Python interface to what is measured on an image, or between two."""

from typing import TYPE_CHECKING, Any

from napari_semsr.core.progress import run
from napari_semsr.services.calling import (
    PathLike,
    Report,
    Source,
    as_optional,
    as_source,
    parse_each,
)
from napari_semsr.services.opening import OpenOptions

if TYPE_CHECKING:
    from napari_semsr.analysis.frc import FrcResult
    from napari_semsr.analysis.frc_map import FrcMap
    from napari_semsr.analysis.histogram import Histogram
    from napari_semsr.analysis.metrics import Metrics
    from napari_semsr.services.measure import SpectrumReport

__all__ = ["frc", "frc_map", "histogram", "metrics", "spectrum"]


def frc(a: Source, b: Source | None = None, **options: Any) -> "FrcResult":
    """Measure resolution by Fourier ring correlation.

    Parameters
    ----------
    a : Micrograph, (Y, X) numpy.ndarray or path
        An image; alone, it is split into halves.
    b : Micrograph, (Y, X) numpy.ndarray or path, optional
        A second, independent image of the same field.
    **options : object
        ``criterion``, ``estimator``, ``tukey``, ``reference``, ``allow_self``, and
        reading options.

    Returns
    -------
    FrcResult
        Resolution and curve; without a crossing, the reason.
    """
    from napari_semsr.analysis.frc import FrcOptions
    from napari_semsr.services.measure import frc_job

    chosen, opening = parse_each(options, FrcOptions, OpenOptions)
    job = frc_job(as_source(a), as_optional(b), options=chosen, opening=opening)
    return run(job).result


def frc_map(
    a: Source,
    b: Source | None = None,
    output: PathLike | None = None,
    *,
    overwrite: bool = False,
    progress: Report | None = None,
    **options: Any,
) -> "FrcMap":
    """Map the resolution block by block.

    Parameters
    ----------
    a : Micrograph, (Y, X) numpy.ndarray or path
        An image; alone, its blocks are split into halves.
    b : Micrograph, (Y, X) numpy.ndarray or path, optional
        A second, independent image of the same field.
    output : path, optional
        Where the map is written.
    overwrite : bool, default=False
        Replace an existing output.
    progress : callable, optional
        Receives every `Progress`.
    **options : object
        Those of `frc`, with ``block``, ``step``, ``blocks_per_axis`` and ``fill``.

    Returns
    -------
    FrcMap
        The map, its reasons and its spread.
    """
    from napari_semsr.analysis.frc_map import FrcMapOptions
    from napari_semsr.services.measure import frc_map_job

    chosen, opening = parse_each(options, FrcMapOptions, OpenOptions)
    job = frc_map_job(
        as_source(a),
        as_optional(b),
        output,
        options=chosen,
        opening=opening,
        overwrite=overwrite,
    )
    return run(job, progress).result


def spectrum(
    image: Source,
    output: PathLike | None = None,
    *,
    overwrite: bool = False,
    **options: Any,
) -> "SpectrumReport":
    """Measure the power spectrum of an image.

    Parameters
    ----------
    image : Micrograph, (Y, X) numpy.ndarray or path
        An image.
    output : path, optional
        An image file for the centred 2-D spectrum, ``.csv`` for the radial curve.
    overwrite : bool, default=False
        Replace an existing output.
    **options : object
        ``tukey``, and reading options.

    Returns
    -------
    SpectrumReport
        The radial curve.
    """
    from napari_semsr.analysis.spectrum import SpectrumOptions
    from napari_semsr.services.measure import spectrum_job

    chosen, opening = parse_each(options, SpectrumOptions, OpenOptions)
    job = spectrum_job(
        as_source(image), output, options=chosen, opening=opening, overwrite=overwrite
    )
    return run(job)


def metrics(
    image: Source, reference: Source | None = None, **options: Any
) -> "Metrics":
    """Compare an image with a reference.

    Parameters
    ----------
    image : Micrograph, (Y, X) numpy.ndarray or path
        An image.
    reference : Micrograph, (Y, X) numpy.ndarray or path, optional
        The truth, of the same shape.
    **options : object
        ``data_range``, ``match``, and reading options.

    Returns
    -------
    Metrics
        The figures.
    """
    from napari_semsr.services.measure_grey import MetricsOptions, metrics_job

    chosen, opening = parse_each(options, MetricsOptions, OpenOptions)
    job = metrics_job(
        as_source(image), as_optional(reference), options=chosen, opening=opening
    )
    return run(job).result


def histogram(
    image: Source, reference: Source | None = None, **options: Any
) -> "Histogram":
    """Count grey levels, and the distance of two distributions.

    Parameters
    ----------
    image : Micrograph, (Y, X) numpy.ndarray or path
        An image.
    reference : Micrograph, (Y, X) numpy.ndarray or path, optional
        Another, of any shape.
    **options : object
        ``bins``, and reading options.

    Returns
    -------
    Histogram
        Bins, counts, distance.
    """
    from napari_semsr.services.measure_grey import HistogramOptions, histogram_job

    chosen, opening = parse_each(options, HistogramOptions, OpenOptions)
    job = histogram_job(
        as_source(image), as_optional(reference), options=chosen, opening=opening
    )
    return run(job).result
