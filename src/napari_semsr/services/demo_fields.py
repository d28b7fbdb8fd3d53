"""Pictures of the demonstration: whole fields, then crops at full size."""

import numpy as np

from napari_semsr.services.demo_measure import Measured, Version
from napari_semsr.services.report_blocks import Gallery, Picture, Text
from napari_semsr.services.report_images import image_png

__all__ = ["show_fields"]

_CROP_PX = 128


def show_fields(measured: Measured) -> list[Gallery | Text]:
    """Show whole fields, then crops at full size.

    Parameters
    ----------
    measured : Measured
        All figures.

    Returns
    -------
    list of Block
        Contents of the section.
    """
    wholes = (measured.degraded, measured.enhanced)
    low, high = np.percentile(measured.truth.image.array(), (0.5, 99.5))
    limits = (float(low), max(float(high), float(low) + 1e-6))
    fields = tuple(
        Picture(
            _grey(item, limits, width_px=720),
            f"{item.label}: the whole field, with a scale bar",
            item.label,
        )
        for item in wholes
    )
    blocks: list[Gallery | Text] = [Gallery(fields, columns=2)]
    for number, (y, x) in enumerate(_places(measured.truth.image.shape), start=1):
        box = (slice(y, y + _CROP_PX), slice(x, x + _CROP_PX))
        pictures = tuple(
            Picture(
                _grey(item, limits, box=box, width_px=400),
                f"{item.label}: crop {number}, {_CROP_PX} px wide, with a scale bar",
                item.label,
            )
            for item in measured.versions()
        )
        blocks.append(Gallery(pictures, columns=4))
    note = (
        "All pictures show one range of grey levels: the truth's, after the gain and "
        "offset that bring each version nearest to it."
    )
    return [*blocks, Text((note,))]


def _places(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Corners of two crops, one on each half of the specimen."""
    rows, columns = shape
    side = _CROP_PX
    wanted = [(0.30, 0.22), (0.45, 0.78)]
    return [
        (
            min(max(0, round(rows * y) - side // 2), max(0, rows - side)),
            min(max(0, round(columns * x) - side // 2), max(0, columns - side)),
        )
        for y, x in wanted
    ]


def _grey(
    item: Version,
    limits: tuple[float, float],
    *,
    width_px: int,
    box: tuple[slice, slice] | None = None,
) -> bytes:
    """Draw a version or a part of it on the grey scale of the truth."""
    data = item.image.array() * item.metrics.gain + item.metrics.offset
    return image_png(
        data if box is None else data[box],
        item.image.pixel_size_nm,
        limits=limits,
        width_px=width_px,
    )
