"""The mosaic as the demonstration measures it: two exposures, one grid, the truth."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.tiling import Box
from napari_semsr.services.demo_files import write_image
from napari_semsr.services.demo_measure import Case
from napari_semsr.services.demo_placing import (
    Placement,
    crop,
    gap_free_box,
    sample_truth,
)
from napari_semsr.services.demo_wiener import estimate_wiener
from napari_semsr.services.opening import open_image
from napari_semsr.services.simulate import SimulateOptions

if TYPE_CHECKING:
    from napari_semsr.stitch.solution import StitchSolution

__all__ = ["cut_pair", "lay_on_truth"]

_FWHM = 2 * float(np.sqrt(2 * np.log(2)))


def cut_pair(
    paths: dict[str, Path], once: "StitchSolution", again: "StitchSolution"
) -> tuple[Box, tuple[Micrograph, Micrograph]]:
    """Cut the part that both mosaics cover, on one grid to a fraction of a pixel.

    Parameters
    ----------
    paths : dict
        Files by role.
    once, again : StitchSolution
        Both scans as they were solved, each on its own.

    Returns
    -------
    box : Box
        The part, in the first mosaic.
    pair : tuple of Micrograph
        That part of both.
    """
    first, second = open_image(paths["mosaic"]), open_image(paths["mosaic_again"])
    apart = again.positions_px - once.positions_px
    down, right = (int(v) for v in np.rint(np.nanmean(apart, axis=0)))
    covered = np.isfinite(first.array())
    covered &= _moved(np.isfinite(second.array()), (down, right), covered.shape)
    box = gap_free_box(covered)
    return box, (crop(first, box), crop(second, box, shift=(down, right)))


def _moved(
    mask: NDArray[np.bool_], shift: tuple[int, int], shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Look at a mask from another corner; False beyond its border."""
    rows, columns = (np.arange(n) + s for n, s in zip(shape, shift, strict=True))
    inside = np.ix_(
        (rows >= 0) & (rows < mask.shape[0]), (columns >= 0) & (columns < mask.shape[1])
    )
    found = np.zeros(shape, dtype=bool)
    within = np.clip(rows, 0, mask.shape[0] - 1), np.clip(columns, 0, mask.shape[1] - 1)
    found[inside] = mask[np.ix_(*within)][inside]
    return found


def lay_on_truth(
    paths: dict[str, Path],
    options: SimulateOptions,
    placement: Placement,
    box: Box,
    pair: tuple[Micrograph, Micrograph],
) -> Case:
    """Bring truth, mosaics and restorations onto one grid, in camera counts.

    Parameters
    ----------
    paths : dict
        Files by role; truth and filtered mosaic are written.
    options : SimulateOptions
        How the frames were simulated.
    placement : Placement
        Where the mosaic lies on the truth.
    box : Box
        Part of the mosaic that is measured.
    pair : tuple of Micrograph
        That part of both mosaics.

    Returns
    -------
    Case
        All versions of that part.
    """
    drawn = open_image(paths["scan"] / "truth" / "object.ome.tif")
    corner = placement.origin_px + np.array([box.y0, box.x0])
    reflected = sample_truth(drawn, pair[0], corner)
    truth = reflected.replace(data=reflected.array() * np.float32(options.full_scale))
    write_image(truth, paths["mosaic_truth"])
    blur_px = (options.resolution_nm or 0.0) / _FWHM / pair[0].scale[0]
    baseline = estimate_wiener(pair[0], sigma_px=blur_px)
    write_image(baseline, paths["mosaic_baseline"])
    enhanced = crop(open_image(paths["mosaic_enhanced"]), box)
    return Case(
        truth,
        *pair,
        baseline,
        enhanced,
        label="Mosaic",
        pair="Two mosaics",
        data_range=options.full_scale,
    )
