"""Shape, calibration and chunks of an enhanced image; importable without torch."""

import math
from dataclasses import dataclass

from napari_semsr.core.micrograph import Micrograph, PixelSize, parse_pixel_size
from napari_semsr.core.resampling import Resampling
from napari_semsr.core.tiling import round_up
from napari_semsr.inference.pixel_fit import PixelFit

__all__ = ["Frame", "core_side", "output_frame", "unit_side"]

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


def output_frame(
    micrograph: Micrograph, scale: int, fit: PixelFit | None = None
) -> Frame:
    """Lay the grid of an enhanced image over the pixels of its input.

    Parameters
    ----------
    micrograph : Micrograph
        The input.
    scale : int
        Output pixels per input pixel on each axis.
    fit : PixelFit, optional
        How the input is resampled; it counts where the result is left on that grid.

    Returns
    -------
    Frame
        The outer borders of both images coincide at the top and left, so that the
        centre of pixel (0, 0) moves where the pitch is another. At the bottom and
        right they coincide unless the input is resampled; then the last pixel may
        reach over the border.
    """
    steps = fit.steps if fit is not None and fit.keep else None
    rows, columns = micrograph.shape
    fine = micrograph.scale[0] / scale, micrograph.scale[1] / scale
    if steps is not None:
        rows, columns = Resampling((rows, columns), steps).shape
        fine = fine[0] * float(steps[0]), fine[1] * float(steps[1])
    first, second = (
        origin - (pitch - new) / 2
        for origin, pitch, new in zip(
            micrograph.origin, micrograph.scale, fine, strict=True
        )
    )
    calibrated = micrograph.pixel_size_nm is not None
    same = scale == 1 and steps is None
    return Frame(
        shape=(rows * scale, columns * scale),
        pixel_size_nm=parse_pixel_size(fine) if calibrated else None,
        origin=micrograph.origin if same else (first, second),
        spacing_px=micrograph.spacing_px if calibrated else fine,
    )


def unit_side(
    frame: Frame, fit: PixelFit, *, scale: int, stride: int, tile: int | None = None
) -> int:
    """Give the side of an output's tile.

    Parameters
    ----------
    frame : Frame
        The output.
    fit : PixelFit
        How the input is resampled.
    scale, stride : int
        Of the model, from its card.
    tile : int, optional
        Side of a core that was asked for.

    Returns
    -------
    int
        Output pixels.
    """
    shape = frame.shape[0] // scale, frame.shape[1] // scale
    return scale * core_side(
        shape, scale=scale, stride=stride, tile=tile, factor=fit.factor
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
