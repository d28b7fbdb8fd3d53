"""First half of the demonstration: superlens frames, stitched, enhanced, measured."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.errors import ReadError
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import Job, Progress
from napari_semsr.core.tiling import Box
from napari_semsr.services.demo_files import write_image
from napari_semsr.services.demo_measure import Case, measure_case
from napari_semsr.services.demo_placing import (
    Placement,
    crop,
    gap_free_box,
    place_truth,
    sample_truth,
)
from napari_semsr.services.demo_sem import TILE_PX, Half
from napari_semsr.services.demo_wiener import estimate_wiener
from napari_semsr.services.enhance import enhance
from napari_semsr.services.opening import open_image
from napari_semsr.services.simulate import SimulateOptions, simulate
from napari_semsr.services.stitch import StitchedFile, stitch

if TYPE_CHECKING:
    from napari_semsr.core.acquisition import Acquisition

__all__ = ["ScanHalf", "run_scan", "scan_options"]

_FWHM = 2 * float(np.sqrt(2 * np.log(2)))
_RESOLUTION_NM = 80.0


@dataclass(frozen=True, slots=True)
class ScanHalf(Half):
    """The first half, with what came before the enhancement.

    Attributes
    ----------
    options : SimulateOptions
        How the frames were simulated.
    frames : Acquisition
        The frames of the first exposure.
    stitched : StitchedFile
        Their mosaic.
    mosaic : Micrograph
        The same, opened.
    placement : Placement
        Positions against the truth.
    box : Box
        Part of the mosaic that is measured: it has no gaps.
    """

    options: SimulateOptions
    frames: "Acquisition"
    stitched: StitchedFile
    mosaic: Micrograph
    placement: Placement
    box: Box


def scan_options(frame_px: int, seed: int) -> SimulateOptions:
    """Choose sample, microscope and stage of the demonstration.

    Parameters
    ----------
    frame_px : int
        Side of a frame.
    seed : int
        Of sample, stage, light and noise.

    Returns
    -------
    SimulateOptions
        Round, vignetted, jittered, noisy frames of two layers of wires.
    """
    return SimulateOptions(
        phantom="circuit",
        pitch_nm=200.0,
        relief_nm=100.0,
        resolution_nm=_RESOLUTION_NM,
        frames_grid=(4, 5),
        frame_px=frame_px,
        overlap=0.4,
        jitter_px=min(10.0, frame_px / 20),
        illumination_drift=0.2,
        photons=4000.0,
        positions="nm",
        seed=seed,
    )


def run_scan(
    paths: dict[str, Path], *, model: str, frame_px: int, seed: int
) -> Job[ScanHalf]:
    """Simulate two exposures of a scan, stitch each, enhance one mosaic, and measure.

    Parameters
    ----------
    paths : dict
        Files by role.
    model : str
        On the shelf, or a file.
    frame_px : int
        Side of a frame.
    seed : int
        Of sample, stage, light and noise.

    Returns
    -------
    ScanHalf
        What was made and measured.

    Yields
    ------
    Progress
        Every step.
    """
    from napari_semsr.inference.options import EnhanceOptions
    from napari_semsr.io.frames import read_frames

    options = scan_options(frame_px, seed)
    stitched = yield from _mosaic(options, paths, "")
    again = yield from _mosaic(options.replace(noise_seed=1), paths, "_again")
    made = yield from enhance(
        paths["mosaic"],
        paths["mosaic_enhanced"],
        model=model,
        options=EnhanceOptions(tile=TILE_PX),
        overwrite=True,
    )
    yield Progress(0, 0, "laying the mosaic on the truth")
    frames = read_frames(
        paths["scan"], positions=paths["scan"] / "truth" / "positions.csv"
    )
    mosaic = open_image(paths["mosaic"])
    placement = _place(stitched, frames)
    box, pair = _pair(paths, stitched, again)
    case = _case(paths, options, placement, box, pair)
    measured = yield from measure_case(case)
    yield Progress(0, 0, "writing maps")
    write_image(measured.map_pair.map, paths["mosaic_map"])
    write_image(measured.map_degraded.map, paths["mosaic_map_before"])
    write_image(measured.map_enhanced.map, paths["mosaic_map_after"])
    return ScanHalf(measured, made, options, frames, stitched, mosaic, placement, box)


def _mosaic(
    options: SimulateOptions, paths: dict[str, Path], which: str
) -> Job[StitchedFile]:
    """Take the scan once, and stitch its frames."""
    folder = paths[f"scan{which}"]
    yield from simulate(folder, options=options, overwrite=True)
    return (
        yield from stitch(
            folder,
            paths[f"mosaic{which}"],
            positions_out=None if which else paths["positions"],
            overwrite=True,
        )
    )


def _place(stitched: StitchedFile, frames: "Acquisition") -> Placement:
    """Compare the positions with those that were simulated."""
    solution, true = stitched.solution, frames.nominal_px
    if true is None or solution.nominal_px is None or solution.names != frames.names:
        msg = f"The true positions of {frames.name} do not belong to its frames."
        raise ReadError(msg)
    return place_truth(solution.positions_px, solution.nominal_px, true)


def _pair(
    paths: dict[str, Path], stitched: StitchedFile, again: StitchedFile
) -> tuple[Box, tuple[Micrograph, Micrograph]]:
    """Cut the part that both mosaics cover, on one grid to a fraction of a pixel."""
    first, second = open_image(paths["mosaic"]), open_image(paths["mosaic_again"])
    apart = again.solution.positions_px - stitched.solution.positions_px
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


def _case(
    paths: dict[str, Path],
    options: SimulateOptions,
    placement: Placement,
    box: Box,
    pair: tuple[Micrograph, Micrograph],
) -> Case:
    """Bring truth, mosaics and restorations onto one grid, in camera counts."""
    drawn = open_image(paths["scan"] / "truth" / "object.ome.tif")
    corner = placement.origin_px + np.array([box.y0, box.x0])
    reflected = sample_truth(drawn, pair[0], corner)
    truth = reflected.replace(data=reflected.array() * np.float32(options.full_scale))
    write_image(truth, paths["mosaic_truth"])
    blur_px = _RESOLUTION_NM / _FWHM / pair[0].scale[0]
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
