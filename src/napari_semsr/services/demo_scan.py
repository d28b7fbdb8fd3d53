"""First half of the demonstration: superlens frames, stitched, enhanced, measured."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_semsr.core.errors import ReadError
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import Job, Progress
from napari_semsr.core.tiling import Box
from napari_semsr.services.demo_case import cut_pair, lay_on_truth
from napari_semsr.services.demo_files import write_image
from napari_semsr.services.demo_measure import measure_case
from napari_semsr.services.demo_placing import Placement, place_truth
from napari_semsr.services.demo_sem import TILE_PX, Half
from napari_semsr.services.enhance import enhance
from napari_semsr.services.opening import open_image
from napari_semsr.services.simulate import SimulateOptions, simulate
from napari_semsr.services.stitch import StitchedFile, stitch

if TYPE_CHECKING:
    from napari_semsr.core.acquisition import Acquisition

__all__ = ["ScanHalf", "run_scan", "scan_options"]


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
        resolution_nm=80.0,
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
    box, pair = cut_pair(paths, stitched.solution, again.solution)
    case = lay_on_truth(paths, options, placement, box, pair)
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
