"""Shape, calibration and chunks of an enhanced image; importable without torch."""

import math
from dataclasses import dataclass

from napari_semsr.core.micrograph import Micrograph, PixelSize, parse_pixel_size
from napari_semsr.core.tiling import round_up

__all__ = ["Frame", "core_side", "output_frame"]

_CORE = 512
_LARGEST_CHUNK = 1024


@dataclass(frozen=True, slots=True)
class Frame:
    """Shape and calibration of an enhanced image.

    Attributes
    ----------
    shape : tuple of int
        Rows and columns.
    pixel_size_nm : tuple of float or None
        ``(y, x)``; None when unknown.
    origin, spacing_px : tuple of float
        As in `Micrograph`.
    """

    shape: tuple[int, int]
    pixel_size_nm: PixelSize | None
    origin: tuple[float, float]
    spacing_px: tuple[float, float]


def output_frame(micrograph: Micrograph, scale: int) -> Frame:
    """Lay the finer grid of an enhanced image over the pixels of its input.

    Parameters
    ----------
    micrograph : Micrograph
        The input.
    scale : int
        Output pixels per input pixel on each axis.

    Returns
    -------
    Frame
        The outer borders of both images coincide, so that the centre of pixel (0, 0)
        moves for scales above one.
    """
    rows, columns = micrograph.shape
    pitch = micrograph.scale
    first, second = (
        origin - p / 2 + p / scale / 2
        for origin, p in zip(micrograph.origin, pitch, strict=True)
    )
    fine = pitch[0] / scale, pitch[1] / scale
    calibrated = micrograph.pixel_size_nm is not None
    return Frame(
        shape=(rows * scale, columns * scale),
        pixel_size_nm=parse_pixel_size(fine) if calibrated else None,
        origin=micrograph.origin if scale == 1 else (first, second),
        spacing_px=micrograph.spacing_px if calibrated else fine,
    )


def core_side(
    shape: tuple[int, int],
    *,
    scale: int,
    stride: int,
    tile: int | None = None,
    factor: float = 1.0,
) -> int:
    """Choose the side of a tile's core.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the field.
    scale, stride : int
        Of the model, from its card.
    tile : int, optional
        Side that was asked for; rounded up to the stride. The default is the largest
        whose output chunk is sensible.
    factor : float, default=1
        Pixels that the network sees for one of the field: the default side is halved,
        or doubled, so that the network's tiles stay about as large.

    Returns
    -------
    int
        Input pixels; never more than the field, rounded up, has.
    """
    whole = round_up(max(shape), stride)
    if tile is not None:
        return min(round_up(tile, stride), whole)
    core = round(_CORE / 2.0 ** round(math.log2(factor)))
    wanted = min(core, _LARGEST_CHUNK // scale)
    fitting = wanted // stride * stride
    return min(max(stride, fitting), whole)
