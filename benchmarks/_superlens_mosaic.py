"""Pairs whose superlens image is what stitching makes of a simulated scan."""

import numpy as np
from _scans import taken
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.core import Box, find_gap_free_box, run
from napari_semsr.simulation import ImagingSettings, SsumPair
from napari_semsr.simulation.scan import Scan, ScanOptions, run_scan_simulation
from napari_semsr.simulation.sem import compute_sem_contrast
from napari_semsr.stitching import plan_fusion, solve_mosaic

PERCENTILES = (0.1, 99.9)


def stitched_pair(options: ScanOptions, scale: int) -> SsumPair:
    """Scan a drawn sample, stitch the frames, and lay the electron image on it."""
    scan = run_scan_simulation(None, options)
    acquisition = taken(scan)
    solution = run(solve_mosaic(acquisition))
    plan = plan_fusion(acquisition, solution)
    mosaic, coverage = plan.compute_block(Box.from_shape(plan.shape))
    offset = np.nanmean(scan.true_px - solution.positions_px, axis=0)
    origin = offset + np.nanmin(solution.positions_px, axis=0)
    box = find_gap_free_box(coverage > 0, least=64)
    if box is None:
        msg = "the mosaic has gaps everywhere"
        raise ValueError(msg)
    truth = electrons(scan, origin, box, scale)
    low, low_range = unit(mosaic[box.slices])
    high, high_range = unit(truth)
    return SsumPair(
        low,
        high,
        low_range,
        high_range,
        options.magnified_pixel_nm,
        scale,
        f"stitched {options.phantom}",
        ImagingSettings(options),
        noiseless=low,
        blur_px=np.nan,  # neither is known of a scan that was stitched
        spread=np.ones((1, 1), np.float32),
        defocus=np.nan,
    )


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


def unit(
    image: NDArray[np.floating],
) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """Put an image on the scale of its percentiles."""
    low, high = (float(v) for v in np.percentile(image, PERCENTILES))
    return np.asarray((image - low) / (high - low), np.float32), (low, high)
