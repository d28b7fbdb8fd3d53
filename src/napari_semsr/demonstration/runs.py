"""What the demonstration takes: a scan, a place by light and electrons, an SEM image.

Frames become a mosaic, which is brought onto the pixels of an electron image of the
same place. One half of what both show gives pairs, on which the network goes on
learning; the other half judges it. No pixel is in both.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.core import (
    Acquisition,
    Affine,
    Box,
    FloatArray,
    Grid,
    Job,
    Micrograph,
    Progress,
    ReadError,
    RegistrationError,
    ShapeError,
    Warped,
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
from napari_semsr.io import Side, StoredTransform, open_frames, read_transform
from napari_semsr.jobs import (
    CROP,
    PAIRS,
    REGISTER,
    SIMULATE,
    STITCH,
    CropOptions,
    EnhancedFile,
    PairsMade,
    Registered,
    RegisterOptions,
    SimulateOptions,
    StitchedFile,
    Trained,
    TrainRequest,
    derived_from,
    draw_specimen,
    expose,
    open_image,
    rewrite,
    train_in_subprocess,
)
from napari_semsr.pairing import PairOptions
from napari_semsr.registration import RegistrationRefused
from napari_semsr.restoration import fit_linear_filter

LINEAR = "Best linear filter"
TUNED = "Fine-tuned"

_FWHM = 2 * float(np.sqrt(2 * np.log(2)))
_TAPS = 21  # taps along each side, as the benchmarks of restoration have it
_APART_PX = 32  # between both halves; chosen: farther than blur and filter reach
_PATCH_PX = 128  # as the recipe
_STEP_PX = 32  # chosen: as many patches as differ by a quarter of a side
_VALIDATION = 0.2  # chosen: what picks the best step, of a small field
_LOOKS = 64  # along each side, places at which the map is compared with the true one
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
    frames: Acquisition  # of the first exposure
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
        np.isfinite(second.array()), np.eye(2), (down, right), mosaic.shape, order=0
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
            smooth,
            np.diag(fine),  # of the bare diagonal older SciPy warns
            corner,
            mosaic.shape,
            order=3,
            mode="nearest",
            prefilter=False,
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
    data = image.array()[box.moved(shift).slices]
    return image.replace(data=data, origin=Grid.of(image).centre(box))


# One place by light and by electrons: registered, learnt from, and judged.


@dataclass(frozen=True, slots=True)
class PlaceRun:
    """The mosaic on an electron image of the same place."""

    registered: Registered
    true_error_nm: float  # of the map, root mean square over what both show
    sem: Micrograph  # on pixels of the mosaic's size
    mosaic: Micrograph  # on the same grid
    taught: Box  # which pixels gave pairs
    judged: Box  # and which judge
    pairs: PairsMade
    trained: Trained
    untouched: EnhancedFile
    tuned: EnhancedFile
    measured: FieldFigures

    @property
    def apart_px(self) -> int:
        """Pixels between both halves, which neither uses."""
        return max(self.judged.y0 - self.taught.y1, self.judged.x0 - self.taught.x1)


def run_place(
    paths: dict[str, Path],
    scan: ScanRun,
    *,
    model: str,
    steps: int,
    registering: RegisterOptions,
) -> Job[PlaceRun]:
    """Register a mosaic to an electron image, train on one half, judge on the other."""
    yield Progress(0, 0, "averaging the electron image over the mosaic's pixels")
    view = open_image(paths["scan"] / "sem" / "view.tif")
    sem = _averaged(view, scan.mosaic.scale)
    rewrite(sem, paths["place_sem"])
    try:
        registered = yield from REGISTER.anew(
            paths["mosaic"],
            paths["place_sem"],
            output=paths["place_mosaic"],
            options=registering,
            transform_out=paths["place_map"],
        )
    except RegistrationRefused as refused:
        msg = f"This sample cannot be registered: {refused} Take another seed."
        raise RegistrationError(msg) from refused
    stored = read_transform(paths["place_map"])
    mosaic = open_image(paths["place_mosaic"])
    error = _true_error_nm(paths, scan, stored, mosaic)
    box = gap_free_box(np.isfinite(mosaic.array()))
    taught, judged = halves(box)
    pairs = yield from _cut_pairs(paths, stored, taught)
    # apart from a window, in whose process torch's compiler must not be imported
    trained = yield from train_in_subprocess(
        TrainRequest(
            "fine-tune",
            str(paths["place_training"]),
            overwrite=True,
            pairs=str(paths["place_pairs"]),
            start_from=model,
            steps=steps,
            name="fine-tuned",
        )
    )
    source = paths["place_mosaic"]
    untouched = yield from enhance_by_tiles(source, paths["place_enhanced"], model)
    tuned = yield from enhance_by_tiles(source, paths["place_tuned"], trained.model)
    yield Progress(0, 0, "filtering, to compare")
    _filter(paths, scan, taught, box)
    shown = {
        "Mosaic": "place_mosaic",
        WIENER: "place_wiener",
        LINEAR: "place_linear",
        untouched.report.model: "place_enhanced",
        TUNED: "place_tuned",
        "SEM image": "place_sem",
    }
    images = {}
    for label, role in shown.items():
        images[label] = yield from _part(paths[role], judged)
    measured = yield from measure_field(
        images,
        mapped={
            "mosaic_against_sem": "Mosaic",
            "enhanced_against_sem": untouched.report.model,
            "tuned_against_sem": TUNED,
        },
    )
    write_maps(measured, paths, "place")
    return PlaceRun(
        registered, error, sem, mosaic, taught, judged, pairs, trained, untouched,
        tuned, measured,
    )  # fmt: skip


def halves(box: Box) -> tuple[Box, Box]:
    """Cut a field across its longer side into two, which lie some pixels apart."""
    rows, columns = box.shape
    side = (max(rows, columns) - _APART_PX) // 2
    if rows > columns:
        return replace(box, y1=box.y0 + side), replace(box, y0=box.y1 - side)
    return replace(box, x1=box.x0 + side), replace(box, x0=box.x1 - side)


def map_error_nm(
    grid: Grid,
    covered: Callable[[FloatArray], FloatArray],
    found: Callable[[FloatArray], FloatArray],
    true: Callable[[FloatArray], FloatArray],
) -> float:
    """Root mean square distance of two maps, over places (N, 2) that are covered."""
    lines = (
        np.linspace(start, stop, _LOOKS)
        for start, stop in zip(grid.corner, grid.end, strict=True)
    )
    places = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, 2)
    places = places[covered(places).astype(bool)]
    return rms(found(places) - true(places))


def _averaged(view: Micrograph, pixel: tuple[float, float]) -> Micrograph:
    """Bring an image to larger pixels, in its own plane."""
    whole = Grid.of(view)
    rows, columns = (
        int((end - corner) / pitch)
        for corner, end, pitch in zip(whole.corner, whole.end, pixel, strict=True)
    )
    grid = Grid((rows, columns), pixel, whole.corner)
    return view.replace(
        data=Warped(view, grid, Affine()).read().astype(np.float32),
        name="sem",
        pixel_size_nm=pixel,
        origin=grid.centre(Box.of(grid.shape)),
        provenance=derived_from("convert", {"pixel_size_nm": list(pixel)}, image=view),
    )


def _true_error_nm(
    paths: dict[str, Path], scan: ScanRun, stored: StoredTransform, mosaic: Micrograph
) -> float:
    """Tell how far the found map is from the one that the view was drawn by."""
    true = read_transform(paths["scan"] / "truth" / "view.json").transform
    begins = scan.placement.origin_px * np.array(scan.mosaic.scale)
    shown, grid = np.isfinite(mosaic.array()), Grid.of(mosaic)

    def covered(places: FloatArray) -> FloatArray:
        at = ((places - grid.corner) / grid.pitch).astype(int)
        y, x = np.minimum(at, np.array(grid.shape) - 1).T
        inside: FloatArray = shown[y, x]
        return inside

    back = stored.transform.inverse()
    return map_error_nm(grid, covered, back, lambda places: true(places) - begins)


def _part(image: Path, box: Box) -> Job[Micrograph]:
    """Cut a part out of an image, which stays where it lies."""
    corners = (box.y0, box.x0, box.y1, box.x1)
    made = yield from CROP.job(image, options=CropOptions(box=corners))
    part: Micrograph = CROP.given(made)
    return part


def _cut_pairs(
    paths: dict[str, Path], stored: StoredTransform, taught: Box
) -> Job[PairsMade]:
    """Cut pairs from one half, through the map of the whole."""
    part = yield from _part(paths["place_sem"], taught)
    here = StoredTransform(
        stored.transform, stored.moving, Side.of(part), stored.quality
    )
    side = min(_PATCH_PX, *(n // 4 * 4 for n in part.shape))
    options = PairOptions(patch=side, step=_STEP_PX, validation=_VALIDATION, test=0.0)
    return (
        yield from PAIRS.anew(
            paths["mosaic"],
            part,
            paths["place_pairs"],
            options=options,
            transform=here,
        )
    )


def _filter(paths: dict[str, Path], scan: ScanRun, taught: Box, box: Box) -> None:
    """Write what the learnt linear filter and Wiener's make of the whole mosaic."""
    whole = open_image(paths["place_mosaic"])
    mosaic = whole.array()
    sem = open_image(paths["place_sem"]).array()
    kernel = fit_linear_filter([(mosaic[taught.slices], sem[taught.slices])], _TAPS)[0]
    inner = whole.replace(data=mosaic[box.slices])
    sigma = scan.options.fwhm_nm / _FWHM / whole.scale[0]  # of the blur in focus
    blur = wiener(inner, sigma_px=sigma)
    made = {
        "place_linear": ndimage.correlate(inner.array(), kernel, mode="mirror"),
        "place_wiener": blur.array(),
    }
    for role, part in made.items():
        data = np.full(mosaic.shape, np.nan, np.float32)
        data[box.slices] = part
        image = whole.replace(data=data, name=role.partition("_")[2], provenance=None)
        rewrite(image, paths[role])
