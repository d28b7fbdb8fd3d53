"""Command `metrics`: image metrics against a reference, and grey levels."""

from dataclasses import dataclass, field, replace
from typing import Annotated

from napari_semsr import analysis, core
from napari_semsr.jobs.crop import crop_to_gap_free_box
from napari_semsr.jobs.images import Result
from napari_semsr.jobs.measure.offset import warn_about_offset
from napari_semsr.jobs.verb import ImageInput, Run, command


@dataclass(frozen=True, slots=True)
class MetricsReport(Result):
    """Metrics of an image against a reference, with its grey-level distribution."""

    images: tuple[str, ...]
    result: analysis.Metrics = field(metadata=core.FLAT)


@command(
    title="comparison",
    makes_table=True,
    curves=(
        core.CurveDeclaration(
            "Grey levels",
            "bins",
            ("counts", "reference_counts"),
            "grey level",
            "share of pixels",
            shares=True,
        ),
    ),
    value="result",
    gives=analysis.Metrics,
)
def metrics(
    run: Run[analysis.MetricsOptions],
    image: Annotated[core.Micrograph, ImageInput(help="the image to measure")],
    reference: Annotated[
        core.Micrograph | None,
        ImageInput(
            help="the ground truth, of the same shape; without it, only sharpness "
            "and greys are measured"
        ),
    ] = None,
    *,
    options: analysis.MetricsOptions,
) -> core.Job[MetricsReport]:
    """Compute PSNR, SSIM, NRMSE against a reference, sharpness, grey levels.

    Examples
    --------
    >>> truth = np.tile(np.linspace(0, 1, 64), (64, 1))
    >>> found = semsr.metrics(truth + 0.01, truth, data_range=1, bins=4)
    >>> round(found.psnr_db, 2), round(found.ssim, 3)
    (40.0, 0.999)
    >>> int(found.levels.reference_counts.sum()), round(found.levels.emd, 3)
    (4096, 0.01)
    """
    if reference is not None:
        run.warn_if_trained_on()
        warn_about_offset(image, reference)
    yield core.Progress(1, 2, "comparing")
    how = options.model_dump()
    bins = how.pop("bins")
    levels, box = analysis.measure_histogram(image, reference, bins=bins), None
    if reference is not None and how["cut_off_nm"] and image.shape == reference.shape:
        (image, reference), box = yield from crop_to_gap_free_box(image, reference)
    result = analysis.measure_metrics(image, reference, **how)
    result = replace(result, levels=levels, box=None if box is None else box.ends)
    return MetricsReport(run.image_names, result)
