"""Compare an image with its reference: in numbers, or as a map of differences."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np

from napari_semsr import analysis, core
from napari_semsr.jobs import images, verb
from napari_semsr.jobs.crop import crop_to_gap_free_box
from napari_semsr.jobs.measure.offset import Offset, find_offset, warn_about_offset


@dataclass(frozen=True, slots=True)
class MetricsReport(images.Result):
    """Metrics of an image against a reference, with its grey-level distribution."""

    images: tuple[str, ...]
    result: analysis.Metrics = field(metadata=core.FLAT)


@verb.command(
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
    run: verb.Run[analysis.MetricsOptions],
    image: Annotated[core.Micrograph, verb.ImageInput(help="the image to measure")],
    reference: Annotated[
        core.Micrograph | None,
        verb.ImageInput(
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


_PERCENT = "% of the range"
_UNITS = {"grey": core.LEVELS, "percent": _PERCENT}
_BRIGHTEST = 3.0  # RSEs of the brightest colour; chosen: few normal errors exceed it


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorMapReport(images.ImageMeasurement):
    """Agreement of an enhanced image with its reference, and a map of differences.

    `scale` is the number of pixels of the enhanced image per reference pixel and side,
    `sigma_px` is in pixels of the enhanced image, `shift_px` in those of the reference,
    `range` is the 0.1th and 99.9th percentile of the reference's grey levels.
    """

    output: str | None  # path, if it was written
    unit: str
    shape: core.IntPair
    map: core.Micrograph | None = field(metadata={"json": False})
    rse: Annotated[
        float,
        core.Quantity(
            "RSE", core.LEVELS, also="rse_percent", verdict="verdict", large=True
        ),
    ]
    rse_percent: Annotated[float, core.Quantity("RSE", _PERCENT, ".3g")]
    rsp: Annotated[float, core.Quantity("RSP", "", ".4f", large=True)]
    sigma_nm: Annotated[
        float | None, core.Quantity(f"Blur, {core.SIGMA}", "nm", ".3g", also="sigma_px")
    ]
    sigma_px: Annotated[float, core.Quantity(f"Blur, {core.SIGMA}", "px", ".3g")]
    alpha: Annotated[float, core.Quantity("Gain")]
    beta: Annotated[float, core.Quantity("Offset", core.LEVELS)]
    scale: Annotated[int, core.declare_quantity("Finer by")]
    shift_px: Annotated[core.FloatPair, core.Quantity("Shift", "px", shown=False)]
    shift_error_px: Annotated[
        float | None, core.Quantity("Its error", "px", shown=False)
    ]
    range: Annotated[core.FloatPair, core.declare_quantity("Range", core.LEVELS)]
    looked_at: Annotated[
        float, core.declare_quantity("Fitted on", "of the field", ".1%")
    ]
    pixels: Annotated[int, core.Quantity("Pixels", shown=False)]

    @property
    def verdict(self) -> str:
        """Assessment of the error."""
        percent = 100 * max(self.rsp, 0.0) ** 2
        return (
            f"after blurring, the image explains {percent:.0f} % of the reference "
            "variance"
        )

    @property
    def method(self) -> Annotated[str, core.declare_quantity("Method")]:
        """How the enhanced image was matched to the reference, as text."""
        shift = f"shifted by {self.shift_text}, " if any(self.shift_px) else ""
        return (
            f"enhanced image {shift}blurred with a Gaussian, matched in gain and "
            f"offset; {self.pixels} pixels"
        )

    @property
    def shift_text(self) -> Annotated[str, core.Quantity("Moved by", tabled=False)]:
        """Shift of the enhanced image as text."""
        return core.format_shift(self.shift_px)

    @property
    def fitted_on(
        self,
    ) -> Annotated[str | None, core.Quantity("Fitted on", tabled=False)]:
        """Fraction of the image used to fit blur and grey levels, if not all of it."""
        share = self.looked_at
        return None if share == 1 else f"{100 * share:.1f} % of the field"

    @property
    def map_in(self) -> Annotated[str, core.Quantity("Map in", tabled=False)]:
        """Quantity shown in the map."""
        return _UNITS[self.unit]


@verb.command(title="comparison", makes_table=True)
def error_map(
    run: verb.Run[analysis.ErrorMapOptions],
    reference: Annotated[core.Micrograph, verb.ImageInput(help="the original image")],
    enhanced: Annotated[
        core.Micrograph,
        verb.ImageInput(
            help="its enhanced version with equal or smaller pixels", also=("image",)
        ),
    ],
    output: Annotated[Path | None, verb.MAP_OUT] = None,
    *,
    options: analysis.ErrorMapOptions,
) -> core.Job[ErrorMapReport]:
    """Map where an enhanced image differs from its reference.

    Examples
    --------
    >>> from scipy.ndimage import gaussian_filter
    >>> sharp = np.random.default_rng(0).normal(size=(128, 128))
    >>> found = semsr.error_map(100 + 20 * gaussian_filter(sharp, sigma=2), sharp)
    >>> round(found.sigma_px, 2), round(found.alpha), round(found.beta)
    (2.0, 20, 100)
    >>> round(found.rsp, 4), found.map.shape
    (1.0, (128, 128))
    """
    run.warn_if_trained_on()
    pair = analysis.AlignedPair.from_images(reference, enhanced)
    share = math.prod(pair.shape) / math.prod(reference.shape)
    if share < 0.99:
        core.warn(
            "The enhanced image, and therefore the map, covers only "
            f"{100 * share:.0f} % of {reference.name}.",
            "partly-covered",
        )
    offset = Offset()
    if options.align:
        yield core.Progress(0, 0, "looking for a shift")
        offset = _find_offset(pair, options.search_radius_px)
    shift = offset.shift or (0.0, 0.0)
    pair = analysis.AlignedPair.from_images(reference, enhanced, shift)
    fit = yield from analysis.fit_blur_and_gain(pair)
    fit.warn_if_doubtful(reference.name, enhanced.name)
    core.release_free_memory()  # used by the fit, before the field is read
    yield core.Progress(0, 0, "measuring the range of grey levels")
    low, high = core.measure_percentiles(reference.data)
    percent = 100 / (high - low) if high > low else float("nan")  # per grey level
    factor = percent if options.unit == "percent" else 1.0
    errors_summed = analysis.ErrorSums()

    def compute_blocks(boxes: list[core.Box]) -> Iterator[core.Float32Array]:
        for fixed_block, errors in core.map_parallel(
            analysis.FittedPair(pair, fit).read, boxes
        ):
            errors_summed.add(fixed_block, errors)  # in order
            errors -= fixed_block
            np.abs(errors, out=errors)
            if factor != 1:
                errors *= np.float32(factor)
            yield errors

    history = yield from run.compose_history()
    grid, brightest = pair.reference.grid, _BRIGHTEST * fit.residual * factor
    about = reference.replace(
        data=np.broadcast_to(np.float32(0), grid.shape),
        name=f"error map of {enhanced.name} ({_UNITS[options.unit]})",
        origin=grid.box_origin(core.Box.from_shape(grid.shape)),
        metadata={},
        provenance=history,
        look=core.DisplaySettings(
            limits=(0.0, brightest if brightest > 0 else 1.0),
            colormap="inferno",
            colour_bar=True,
        ),
    )
    error_map = yield from images.write_map(compute_blocks, about, output)
    has_size = reference.pixel_size_nm is not None
    nm = float(np.sqrt(np.prod(pair.enhanced.grid.pitch))) if has_size else None
    return ErrorMapReport(
        images=run.image_names,
        **verb.get_pixel_size_fields(reference),
        output=run.output,
        rse=errors_summed.rse,
        rse_percent=errors_summed.rse * percent,
        rsp=errors_summed.rsp,
        sigma_px=fit.sigma_px,
        sigma_nm=None if nm is None else fit.sigma_px * nm,
        alpha=fit.alpha,
        beta=fit.beta,
        scale=pair.factor,
        shift_px=shift,
        shift_error_px=offset.error_px,
        range=(low, high),
        looked_at=fit.looked_at,
        pixels=errors_summed.pixel_count,
        unit=options.unit,
        shape=pair.shape,
        map=error_map,
    )


def _find_offset(pair: analysis.AlignedPair, reach: int) -> Offset:
    """Find the shift of the enhanced image; warn if it is doubtful."""

    def read_pair(box: core.Box) -> tuple[core.FloatArray, core.FloatArray]:
        fixed_block, fine = pair.read(box)
        return fixed_block, analysis.compute_block_means(fine, pair.factor)

    offset = find_offset(read_pair, pair.shape, reach=reach, nearest=True)
    if offset.doubt:
        core.warn(
            f"The images are compared without registration. {offset.doubt}",
            core.get_error_code(offset.doubt),
        )
    return offset
