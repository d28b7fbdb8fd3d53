"""The FRC map of one or two images, written as an image in nm."""

import os
from dataclasses import dataclass, field

from napari_semsr.analysis.frc_map import FrcMap, FrcMapOptions
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import Job, Progress
from napari_semsr.core.provenance import Provenance, software_versions
from napari_semsr.services.opening import (
    Image,
    OpenOptions,
    input_record,
    paths_of,
)
from napari_semsr.services.pairing import calibrated_of, names_of, open_pair
from napari_semsr.services.results import Result
from napari_semsr.services.targets import check_image_target

__all__ = ["FrcMapReport", "frc_map_job"]


@dataclass(frozen=True, slots=True)
class FrcMapReport(Result):
    """What the blocks of one or two images resolve.

    Attributes
    ----------
    images : tuple of str
        Names of what was compared.
    output : str or None
        Path of the map, if it was written.
    blocks, failed : int
        Block positions, and those without a crossing.
    median_nm, p10_nm, p90_nm : float or None
        Spread of the blocks' resolution; None when uncalibrated.
    median_px, p10_px, p90_px : float or None
        The same in pixels of the images.
    reasons : dict
        How many blocks failed for each reason.
    unit : str
        Unit of the map's values, ``"nm"`` or ``"px"``.
    block, step : int
        Side of a block and distance between blocks, px.
    shape : tuple of int
        Rows and columns of the map.
    method : str
        What was done, in words.
    field_reason : str or None
        Noise that both images share, seen in all blocks pooled.
    result : FrcMap
        The map itself.
    """

    images: tuple[str, ...]
    output: str | None
    blocks: int
    failed: int
    median_nm: float | None
    p10_nm: float | None
    p90_nm: float | None
    median_px: float | None
    p10_px: float | None
    p90_px: float | None
    reasons: dict[str, int]
    unit: str
    block: int
    step: int
    shape: tuple[int, int]
    method: str
    field_reason: str | None
    result: FrcMap = field(metadata={"json": False})


def frc_map_job(
    a: Image,
    b: Image | None = None,
    output: str | os.PathLike[str] | None = None,
    *,
    options: FrcMapOptions | None = None,
    opening: OpenOptions | None = None,
    overwrite: bool = False,
) -> Job[FrcMapReport]:
    """Map the resolution of one or two images block by block.

    Parameters
    ----------
    a : Micrograph or path
        An image.
    b : Micrograph or path, optional
        A second, independent image of the same field.
    output : path, optional
        Where the map goes.
    options : FrcMapOptions, optional
        Block, step, criterion, filling.
    opening : OpenOptions, optional
        How to read files.
    overwrite : bool, default=False
        Replace an existing output.

    Returns
    -------
    FrcMapReport
        The map and its figures.

    Yields
    ------
    Progress
        Rows of blocks.
    """
    from napari_semsr.analysis import frc_map
    from napari_semsr.io import registry

    chosen = options or FrcMapOptions()
    yield Progress(0, 0, "reading")
    target = None
    if output is not None:
        inputs = paths_of(a, b)
        target = check_image_target(output, inputs=inputs, overwrite=overwrite)
    first, second = open_pair(a, b, opening)
    calibrated = calibrated_of(first, second)
    result = yield from frc_map.frc_map(first, second, chosen)
    if target is not None:
        pairs = [(a, first)] + ([] if b is None or second is None else [(b, second)])
        provenance = Provenance(
            job="frc-map",
            options=chosen.model_dump(mode="json"),
            inputs=tuple(input_record(i, m, opening) for i, m in pairs),
            versions=software_versions(),
        )
        made = result.map.replace(provenance=provenance)
        registry.write(made, target, overwrite=overwrite)
    return FrcMapReport(
        images=names_of(a, b),
        output=None if target is None else str(target),
        blocks=result.blocks,
        failed=result.failed,
        median_nm=result.median_nm,
        p10_nm=result.p10_nm,
        p90_nm=result.p90_nm,
        reasons=dict(result.reason_counts),
        median_px=_in_px(result, calibrated, 50),
        p10_px=_in_px(result, calibrated, 10),
        p90_px=_in_px(result, calibrated, 90),
        unit=result.unit,
        block=result.block,
        step=result.step,
        shape=result.map.shape,
        method=result.method,
        field_reason=result.field_reason,
        result=result,
    )


def _in_px(result: FrcMap, image: Micrograph, share: float) -> float | None:
    """Give a percentile in pixels of the images."""
    value = result.percentile(share)
    pixel = image.mean_pixel_size_nm
    return value if value is None or pixel is None else value / pixel
