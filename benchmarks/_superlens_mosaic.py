"""The electron image of a sample on the pixels of a stitched mosaic."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.core import Box
from napari_semsr.simulation import Scan
from napari_semsr.simulation.sem import compute_sem_contrast


def electrons(
    scan: Scan, origin_px: NDArray[np.float64], box: Box, scale: int
) -> NDArray[np.float32]:
    """Sample the noise-free electron image on a mosaic's pixels, or half of them."""
    surface, fine = scan.scene.surface, scan.scene.oversampling
    if surface is None or fine % scale:
        msg = f"Needs a drawn sample and an oversampling that {scale} divides."
        raise ValueError(msg)
    smooth = ndimage.spline_filter(
        compute_sem_contrast(surface), order=3, output=np.float32
    )
    parts = fine // scale
    step = 1 / fine
    corner = np.array([box.y0, box.x0]) + origin_px - scan.scene.origin_px
    shape = (scale * box.shape[0], scale * box.shape[1])
    total = np.zeros(shape, np.float32)
    for y, x in np.ndindex(parts, parts):
        # centres of the fine pixels that share one pixel of the result
        first = (corner - 0.5 + step * (np.array([y, x]) + 0.5)) * fine
        total += ndimage.affine_transform(
            smooth,
            (float(parts), float(parts)),
            first,
            output_shape=shape,
            order=3,
            mode="nearest",
            prefilter=False,
        )
    return total / np.float32(parts**2)
