"""The mosaic as the demonstration measures it: two exposures, one grid, the truth."""

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
    WriteError,
    gap_free_box as largest_gap_free_box,
)
from napari_semsr.demonstration.files import estimate_wiener, write_image
from napari_semsr.demonstration.measure import Case, Measured, measure_case
from napari_semsr.jobs import (
    EnhancedFile,
    Exposure,
    SimulateOptions,
    StitchedFile,
    draw_specimen,
    enhance_job,
    expose,
    open_image,
    simulate_job,
    stitch_job,
)

if TYPE_CHECKING:
    from napari_semsr.core import Acquisition
    from napari_semsr.stitching import StitchSolution

# How a stitched scan lies on its truth, and where its mosaic has no gaps.

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
    box = largest_gap_free_box(covered, least=_LEAST_PX)
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


# Second half of the demonstration: an electron image, degraded and enhanced.

TILE_PX = 256


@dataclass(frozen=True, slots=True)
class Half:
    """One half of the demonstration.

    Attributes
    ----------
    measured : Measured
        Images, curves and maps.
    made : EnhancedFile
        What the enhancement wrote and cost.
    """

    measured: Measured
    made: EnhancedFile


def run_sem(paths: dict[str, Path], *, model: str, size: int, seed: int) -> Job[Half]:
    """Draw a specimen, take it twice, enhance it by tiles, and measure.

    Parameters
    ----------
    paths : dict
        Files by role.
    model : str
        On the shelf, or a file.
    size : int
        Rows of the field.
    seed : int
        Of specimen, haze and noise.

    Returns
    -------
    Half
        What was made and measured.

    Yields
    ------
    Progress
        Every step.
    """
    from napari_semsr.inference import EnhanceOptions

    yield Progress(0, 0, "drawing a specimen and taking it twice")
    truth, first, second = _take(paths, size, seed)
    made = yield from enhance_job(
        paths["sem_first"],
        paths["sem_enhanced"],
        model=model,
        options=EnhanceOptions(tile=TILE_PX),
        overwrite=True,
    )
    enhanced = open_image(paths["sem_enhanced"])
    yield Progress(0, 0, "restoring by a Wiener filter, to compare")
    baseline = estimate_wiener(first)
    write_image(baseline, paths["sem_baseline"])
    case = Case(truth, first, second, baseline, enhanced)
    measured = yield from measure_case(case)
    yield Progress(0, 0, "writing maps")
    write_image(measured.map_pair.map, paths["sem_map"])
    write_image(measured.map_degraded.map, paths["sem_map_before"])
    write_image(measured.map_enhanced.map, paths["sem_map_after"])
    return Half(measured, made)


def _take(
    paths: dict[str, Path], size: int, seed: int
) -> tuple[Micrograph, Micrograph, Micrograph]:
    """Write specimen and exposures, and open them again with their pixel size."""
    truth = draw_specimen((size, size * 7 // 5), seed=seed)
    write_image(truth, paths["sem_truth"])
    for number, role in enumerate(("sem_first", "sem_second"), start=1):
        name = f"exposure {number}"
        taken = expose(truth, Exposure(), seed=seed, noise_seed=number, name=name)
        write_image(taken, paths[role])
    roles = ("sem_truth", "sem_first", "sem_second")
    opened = [open_image(paths[role]) for role in roles]
    if any(item.pixel_size_nm is None for item in opened):
        msg = f"The pixel size was lost on the way through {paths['sem_truth'].parent}."
        raise WriteError(msg)
    return opened[0], opened[1], opened[2]


# First half of the demonstration: superlens frames, stitched, enhanced, measured.


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
    from napari_semsr.inference import EnhanceOptions
    from napari_semsr.io import read_frames

    options = scan_options(frame_px, seed)
    stitched = yield from _mosaic(options, paths, "")
    again = yield from _mosaic(options.replace(noise_seed=1), paths, "_again")
    made = yield from enhance_job(
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
    yield from simulate_job(folder, options=options, overwrite=True)
    return (
        yield from stitch_job(
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
