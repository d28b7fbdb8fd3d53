"""How a stitched scan lies on its truth, and where its mosaic has no gaps."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.core import areas
from napari_semsr.core.errors import ShapeError
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.tiling import Box

__all__ = ["Placement", "crop", "gap_free_box", "place_truth", "sample_truth"]

FloatArray = NDArray[np.float64]
_LEAST_PX = 64


@dataclass(frozen=True, slots=True)
class Placement:
    """Positions against the truth, mean offsets taken off.

    Attributes
    ----------
    placed : (N,) numpy.ndarray of bool
        Frames that have a place.
    origin_px : (2,) numpy.ndarray
        Where the mosaic's pixel (0, 0) lies in the truth's frame pixels, ``(y, x)``.
    nominal_px : (N, 2) numpy.ndarray
        Nominal corners, moved as a whole onto the solved ones.
    solved_error_px, nominal_error_px : (N, 2) numpy.ndarray
        Less the truth; NaN for frames that are left out.
    """

    placed: NDArray[np.bool_]
    origin_px: FloatArray
    nominal_px: FloatArray
    solved_error_px: FloatArray
    nominal_error_px: FloatArray


def place_truth(
    solved_px: FloatArray, nominal_px: FloatArray, true_px: FloatArray
) -> Placement:
    """Compare solved and nominal positions with the true ones.

    Parameters
    ----------
    solved_px, nominal_px, true_px : (N, 2) numpy.ndarray
        Top-left corners ``(y, x)``; solved ones are NaN for frames that are left out.

    Returns
    -------
    Placement
        Errors, and where the mosaic lies.
    """
    placed: NDArray[np.bool_] = ~np.isnan(solved_px[:, 0])
    origin = (true_px - solved_px)[placed].mean(axis=0)
    moved = nominal_px + (solved_px - nominal_px)[placed].mean(axis=0)
    solved = np.where(placed[:, None], solved_px + origin - true_px, np.nan)
    stage = np.where(placed[:, None], nominal_px - true_px, np.nan)
    return Placement(placed, origin, moved, solved, stage - np.nanmean(stage, axis=0))


def sample_truth(
    truth: Micrograph, mosaic: Micrograph, origin_px: FloatArray
) -> Micrograph:
    """Average the finely drawn truth over the pixels of a mosaic.

    Parameters
    ----------
    truth : Micrograph
        Drawn on a finer grid, its origin in nm of the scan.
    mosaic : Micrograph
        The mosaic, with its pixel size.
    origin_px : (2,) numpy.ndarray
        Where its pixel (0, 0) lies in the scan, in its own pixels.

    Returns
    -------
    Micrograph
        On the grid of the mosaic, in float32.
    """
    pixel = np.array(mosaic.scale)
    fine = pixel / np.array(truth.scale)
    counts = np.maximum(1, np.rint(fine).astype(int))
    first = (origin_px * pixel - np.array(truth.origin)) / np.array(truth.scale)
    smooth = ndimage.spline_filter(truth.array(), order=3, output=np.float32)
    total = np.zeros(mosaic.shape, np.float32)
    for y, x in np.ndindex(*counts):
        inside = (np.array([y, x]) + 0.5) / counts - 0.5
        total += ndimage.affine_transform(
            smooth,
            fine,
            first + inside * fine,
            output_shape=mosaic.shape,
            order=3,
            mode="nearest",
            prefilter=False,
        )
    data = total / np.float32(counts.prod())
    return mosaic.replace(data=data, name="truth", provenance=truth.provenance)


def gap_free_box(covered: NDArray[np.bool_]) -> Box:
    """Find a large rectangle without gaps, by taking off the worst side each time.

    Parameters
    ----------
    covered : (Y, X) numpy.ndarray of bool
        Where a mosaic has grey values.

    Returns
    -------
    Box
        The rectangle.

    Raises
    ------
    ShapeError
        If less than 64 px are left on a side.
    """
    box = areas.gap_free_box(covered, least=_LEAST_PX)
    if box is not None:
        return box
    msg = (
        f"The mosaic must have {_LEAST_PX} px without a gap on each side to be "
        "measured, and has not: take another seed or larger frames."
    )
    raise ShapeError(msg)


def crop(image: Micrograph, box: Box, *, shift: tuple[int, int] = (0, 0)) -> Micrograph:
    """Cut a rectangle out of an image, which stays where it lies.

    Parameters
    ----------
    image : Micrograph
        The image.
    box : Box
        Rows and columns.
    shift : tuple of int, default=(0, 0)
        Rows and columns by which this image's content lies further than that of the
        image for which `box` was found.

    Returns
    -------
    Micrograph
        In memory; its origin is that of `box`.
    """
    rows, columns = shift
    part = (
        slice(box.y0 + rows, box.y1 + rows),
        slice(box.x0 + columns, box.x1 + columns),
    )
    y, x = image.origin
    down, right = image.scale
    return image.replace(
        data=image.array()[part], origin=(y + box.y0 * down, x + box.x0 * right)
    )
