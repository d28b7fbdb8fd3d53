"""What the demonstration takes: a scan that becomes a mosaic, and an electron image."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.core import (
    Box,
    FloatArray,
    Job,
    Micrograph,
    Progress,
    ReadError,
    ShapeError,
    gap_free_box as largest_gap_free_box,
    run,
)
from napari_semsr.demonstration.fields import (
    WIENER,
    FieldFigures,
    Half,
    enhance_by_tiles,
    measure_field,
    wiener,
    write_maps,
)
from napari_semsr.io import open_frames
from napari_semsr.jobs import (
    SIMULATE,
    STITCH,
    SimulateOptions,
    StitchedFile,
    draw_specimen,
    expose,
    open_image,
    rewrite,
)

if TYPE_CHECKING:
    from napari_semsr.core import Acquisition

_LEAST_PX = 64


@dataclass(frozen=True, slots=True)
class Placement:
    """Positions (y, x) of N frames against the truth; NaN for those left out."""

    placed: NDArray[np.bool_]  # (N,), frames that have a place
    origin_px: FloatArray  # (2,), of the mosaic's pixel (0, 0) in the truth's frame
    nominal_px: FloatArray  # (N, 2), moved as a whole onto the solved ones
    solved_error_px: FloatArray  # (N, 2)
    nominal_error_px: FloatArray  # (N, 2)


@dataclass(frozen=True, slots=True)
class ScanRun:
    """Frames that became a mosaic, beside the truth."""

    measured: FieldFigures
    options: SimulateOptions
    frames: "Acquisition"  # of the first exposure
    stitched: StitchedFile
    mosaic: Micrograph
    placement: Placement
    box: Box  # part of the mosaic that is measured: it has no gaps


def scan_options(*, frame_px: int, seed: int) -> SimulateOptions:
    """Say how the demonstration's scan is simulated, and the place's electron image."""
    return SimulateOptions(
        phantom="circuit",
        pitch_nm=240.0,  # lines of 120 nm, which light carries
        relief_nm=40.0,  # thin: light of higher lines cancels that of their ground
        frames_grid=(4, 5),
        frame_px=frame_px,
        overlap=0.4,
        jitter_px=min(10.0, frame_px / 20),
        illumination_drift=0.2,
        photons=4000.0,
        focus_nm=40.0,
        positions="nm",
        sem_view=True,
        seed=seed,
    )


def run_scan(paths: dict[str, Path], *, frame_px: int, seed: int) -> Job[ScanRun]:
    """Simulate a scan twice, stitch each, and measure what the mosaic resolves."""
    options = scan_options(frame_px=frame_px, seed=seed)
    stitched = yield from _stitch(paths, "", options)
    other = options.replace(noise_seed=1, sem_view=False)
    again = yield from _stitch(paths, "_again", other)
    yield Progress(0, 0, "laying the mosaic on the truth")
    told = paths["scan"] / "truth"
    frames = run(open_frames(paths["scan"], positions=told / "positions.csv"))
    solution, true = stitched.solution, frames.nominal_px
    if true is None or solution.nominal_px is None or solution.names != frames.names:
        msg = f"The true positions of {frames.name} do not belong to its frames."
        raise ReadError(msg)
    placement = place_truth(solution.positions_px, solution.nominal_px, true)
    mosaic, second = open_image(paths["mosaic"]), open_image(paths["mosaic_again"])
    apart = again.solution.positions_px - solution.positions_px
    down, right = (int(v) for v in np.rint(np.nanmean(apart, axis=0)))
    covered = np.isfinite(mosaic.array()) & ndimage.affine_transform(
        np.isfinite(second.array()), (1, 1), (down, right), mosaic.shape, order=0
    )
    box = gap_free_box(covered)
    pair = crop(mosaic, box), crop(second, box, shift=(down, right))
    drawn = open_image(told / "object.ome.tif")
    corner = placement.origin_px + np.array([box.y0, box.x0])
    truth = sample_truth(drawn, pair[0], corner)
    truth = truth.replace(data=truth.array() * np.float32(options.full_scale))
    rewrite(truth, paths["mosaic_truth"])
    measured = yield from measure_field(
        {"Mosaic": pair[0], "Truth": truth},
        again=("Two mosaics", pair[1]),
        mapped={"degraded_against_truth": "Mosaic"},
        data_range=options.full_scale,
    )
    write_maps(measured, paths, "mosaic")
    return ScanRun(measured, options, frames, stitched, mosaic, placement, box)


def run_sem(paths: dict[str, Path], *, model: str, size: int, seed: int) -> Job[Half]:
    """Draw a specimen, take it twice, enhance it by tiles, and measure."""
    yield Progress(0, 0, "drawing a specimen and taking it twice")
    drawn = draw_specimen((size, size * 7 // 5), seed=seed)
    rewrite(drawn, paths["sem_truth"])
    for number, role in enumerate(("sem_first", "sem_second"), start=1):
        name = f"exposure {number}"
        taken = expose(drawn, seed=seed, noise_seed=number, name=name)
        rewrite(taken, paths[role])
    made = yield from enhance_by_tiles(paths["sem_first"], paths["sem_enhanced"], model)
    yield Progress(0, 0, "restoring by a Wiener filter, to compare")
    roles = ("sem_truth", "sem_first", "sem_second", "sem_enhanced")
    truth, first, second, enhanced = (open_image(paths[role]) for role in roles)
    baseline = wiener(first)
    rewrite(baseline, paths["sem_baseline"])
    measured = yield from measure_field(
        {
            "Degraded input": first,
            WIENER: baseline,
            "Enhanced": enhanced,
            "Truth": truth,
        },
        again=("Two exposures", second),
        mapped={
            "degraded_against_truth": "Degraded input",
            "enhanced_against_truth": "Enhanced",
        },
    )
    write_maps(measured, paths, "sem")
    return Half(measured, made)


def _stitch(
    paths: dict[str, Path], which: str, options: SimulateOptions
) -> Job[StitchedFile]:
    """Take the scan once, and stitch its frames."""
    scan, mosaic = paths[f"scan{which}"], paths[f"mosaic{which}"]
    yield from SIMULATE.anew(out_dir=scan, options=options)
    positions = None if which else paths["positions"]
    return (yield from STITCH.anew(scan, mosaic, positions_out=positions))


def place_truth(
    solved_px: FloatArray, nominal_px: FloatArray, true_px: FloatArray
) -> Placement:
    """Compare solved and nominal (N, 2) corners with the true ones."""
    placed: NDArray[np.bool_] = ~np.isnan(solved_px[:, 0])
    origin = (true_px - solved_px)[placed].mean(axis=0)
    moved = nominal_px + (solved_px - nominal_px)[placed].mean(axis=0)
    solved = np.where(placed[:, None], solved_px + origin - true_px, np.nan)
    stage = np.where(placed[:, None], nominal_px - true_px, np.nan)
    return Placement(placed, origin, moved, solved, stage - np.nanmean(stage, axis=0))


def rms(steps_px: FloatArray) -> float:
    """Root mean square length of ``(N, 2)`` steps, NaN left away."""
    return float(np.sqrt(np.nanmean((steps_px**2).sum(axis=1))))


def sample_truth(
    truth: Micrograph, mosaic: Micrograph, origin_px: FloatArray
) -> Micrograph:
    """Average the finely drawn truth over the pixels of a mosaic, in float32."""
    pixel = np.array(mosaic.scale)
    fine = pixel / np.array(truth.scale)
    counts = np.maximum(1, np.rint(fine).astype(int))
    first = (origin_px * pixel - np.array(truth.origin)) / np.array(truth.scale)
    smooth = ndimage.spline_filter(truth.array(), order=3, output=np.float32)
    total = np.zeros(mosaic.shape, np.float32)
    for y, x in np.ndindex(*counts):
        inside = (np.array([y, x]) + 0.5) / counts - 0.5
        corner = first + inside * fine
        total += ndimage.affine_transform(
            smooth, fine, corner, mosaic.shape, order=3, mode="nearest", prefilter=False
        )
    data = total / np.float32(counts.prod())
    return mosaic.replace(data=data, name="truth", provenance=truth.provenance)


def gap_free_box(covered: NDArray[np.bool_]) -> Box:
    """Find a large rectangle without gaps, by taking off the worst side each time."""
    box = largest_gap_free_box(covered, least=_LEAST_PX)
    if box is not None:
        return box
    msg = (
        f"The mosaic must have {_LEAST_PX} px without a gap on each side to be "
        "measured, and has not: take another seed or larger frames."
    )
    raise ShapeError(msg)


def crop(image: Micrograph, box: Box, *, shift: tuple[int, int] = (0, 0)) -> Micrograph:
    """Cut a box out of an image whose content is shifted; it stays where it lies."""
    (y, x), (down, right) = image.origin, image.scale
    origin = (y + box.y0 * down, x + box.x0 * right)
    return image.replace(data=image.array()[box.moved(shift).slices], origin=origin)
