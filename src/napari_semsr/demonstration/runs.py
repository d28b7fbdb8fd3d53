"""Runs of the demonstration: a scan, its SEM image, another sample, an SEM image.

Frames are stitched to a mosaic. A model is trained on the part that has an SEM image,
and enhances that mosaic, and that of a sample for which it is not suitable.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr import inference
from napari_semsr.analysis import (
    FrcResult,
    Metrics,
    find_cut_off,
    light_gain,
    measure_agreement,
    measure_frc,
    measure_metrics,
)
from napari_semsr.core import (
    Acquisition,
    Box,
    FloatArray,
    Job,
    Micrograph,
    Progress,
    ReadError,
    SemsrError,
    ShapeError,
    code_of,
    cut_box,
    gap_free_box as largest_gap_free_box,
    run,
)
from napari_semsr.io import open_frames
from napari_semsr.jobs import (
    ADAPT,
    ADAPTED,
    DEFAULT_MODEL,
    ENHANCE,
    FRC,
    MOSAIC_MODEL,
    SIMULATE,
    STITCH,
    Adapted,
    AdaptOptions,
    AdaptRefused,
    AppliedImage,
    EnhancedFile,
    SimulateOptions,
    StitchedFile,
    draw_specimen,
    expose,
    open_image,
    rewrite,
)

WIENER = "Wiener filter"
"""Label of the result of `wiener`."""

_MINUTES = (1.0, 2.0, 4.0, 8.0, 16.0)  # chosen: more on a slow or busy processor
_SEM_SHAPE = (384, 540)  # px; chosen: several tiles, and a few seconds
_TILE_PX = 256  # its tiles; chosen
_LEAST_PX = 64  # smallest part of a mosaic that is measured; chosen


@dataclass(frozen=True, slots=True)
class Placement:
    """Positions (y, x) of N frames against the truth; NaN for excluded ones."""

    placed: NDArray[np.bool_]  # (N,), frames that have a place
    origin_px: FloatArray  # (2,), of the mosaic's pixel (0, 0) in the truth's frame
    nominal_px: FloatArray  # (N, 2), moved as a whole onto the solved ones
    solved_error_px: FloatArray  # (N, 2)
    nominal_error_px: FloatArray  # (N, 2)


@dataclass(frozen=True, slots=True)
class ScanRun:
    """A mosaic with its frames and their true positions."""

    folder: Path
    options: SimulateOptions
    frames: Acquisition
    stitched: StitchedFile
    mosaic: Micrograph
    placement: Placement


@dataclass(frozen=True, slots=True)
class Compared:
    """An image after the gain and offset that fit it best to the truth."""

    image: Micrograph
    metrics: Metrics

    @classmethod
    def of(cls, image: Micrograph, truth: Micrograph, **how: Any) -> "Compared":
        """Compare an image with the truth on its grid."""
        metrics = measure_metrics(image, truth, match="affine", **how)
        data = (image.array() * metrics.gain + metrics.offset).astype(np.float32)
        return cls(image.replace(data=data), metrics)

    def gain_over(self, other: "Compared") -> tuple[float | None, float | None]:
        """Return the gain in PSNR below the cut-off, in dB, and its standard error."""
        return light_gain(self.metrics, other.metrics).bands[0]


@dataclass(frozen=True, slots=True)
class ElsewhereRun:
    """A sample unlike the training place: its mosaic and the results of models."""

    scan: ScanRun
    versions: dict[str, Compared]  # the mosaic, and the results of models
    truth: Micrograph  # its SEM image, on the mosaic's pixels
    unfamiliar_percent: float | None

    def gains(self) -> dict[str, tuple[float | None, float | None]]:
        """Return each gain over the mosaic below the optical cut-off, in dB."""
        first = next(iter(self.versions.values()))
        return {name: one.gain_over(first) for name, one in self.versions.items()}


@dataclass(frozen=True, slots=True)
class SemRun:
    """An SEM image as taken and as restored, compared with the truth."""

    versions: dict[str, Compared]
    truth: Micrograph
    exposures: FrcResult  # of two exposures
    made: EnhancedFile


def scan_options(*, frame_px: int, seed: int) -> SimulateOptions:
    """Return the options of the simulated scan, and of the place's SEM image."""
    return SimulateOptions(
        phantom="circuit",
        pitch_nm=240.0,  # lines of 120 nm, which light resolves
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


def run_scan(
    folder: Path, target: Path, scan_options: SimulateOptions, **how: Any
) -> Job[ScanRun]:
    """Simulate a scan, stitch it with the options `how`, and measure its errors."""
    yield from SIMULATE.anew(out_dir=folder, options=scan_options)
    mosaic_file = yield from STITCH.anew(folder, target, **how)
    frames = run(open_frames(folder, positions=folder / "truth" / "positions.csv"))
    solution, true = mosaic_file.solution, frames.nominal_px
    if true is None or solution.nominal_px is None or solution.names != frames.names:
        msg = f"The true positions do not match the frames in {frames.name}."
        raise ReadError(msg, code="positions-invalid")
    placement = place_truth(solution.positions_px, solution.nominal_px, true)
    return ScanRun(
        folder, scan_options, frames, mosaic_file, open_image(target), placement
    )


def measure_mosaic(scan: ScanRun, truth_out: Path) -> Job[tuple[FrcResult, FrcResult]]:
    """Correlate the halves of a mosaic, and the mosaic with the simulated sample."""
    resolution = yield from FRC.job(Path(scan.stitched.output))
    part, truth = _truth_below(scan, "truth/object.ome.tif", _gap_free(scan))
    truth = truth.replace(data=truth.array() * np.float32(scan.options.full_scale))
    rewrite(truth, truth_out)
    return resolution.result, measure_agreement(part, truth)


def run_place(
    scan: ScanRun, others: list[Path], folder: Path, *, seed: int, fit: Any
) -> Job[Adapted]:
    """Train on the overlap of a mosaic and its SEM image, and enhance images."""
    mosaic, sem = Path(scan.stitched.output), scan.folder / "sem" / "view.tif"
    for minutes in _MINUTES:
        options = AdaptOptions(minutes=minutes, seed=seed)
        again = minutes > _MINUTES[0]
        how: dict[str, Any] = {"options": options, "apply": others, "fit": fit}
        how |= {"overwrite": not again, "resume": again}
        try:
            return (yield from ADAPT.job(mosaic, [sem], folder, **how))
        except AdaptRefused as refused:
            if refused.reason != "no-gain" or minutes == _MINUTES[-1]:
                msg = f"This sample cannot be trained on: {refused} Take another seed."
                raise SemsrError(msg, code=code_of(refused)) from refused
    raise AssertionError


def run_elsewhere(
    scan: ScanRun, adapted_image: AppliedImage, general_model: Path, truth_out: Path
) -> Job[ElsewhereRun]:
    """Compare the results of two models for a mosaic with the sample's SEM image."""
    mosaic = Path(scan.stitched.output)
    yield from ENHANCE.anew(mosaic, general_model, model=MOSAIC_MODEL)
    box = _gap_free(scan)
    part, truth = _truth_below(scan, "sem/sem.ome.tif", box)
    rewrite(truth, truth_out)
    images = {"mosaic": part}
    for name, path in (
        (MOSAIC_MODEL, general_model),
        (ADAPTED, Path(adapted_image.output)),
    ):
        images[name] = cut_box(open_image(path), box)
    cut_off, range_ = find_cut_off(scan.mosaic), float(np.ptp(truth.array()))
    versions = {
        name: Compared.of(image, truth, data_range=range_, cut_off_nm=cut_off)
        for name, image in images.items()
    }
    return ElsewhereRun(scan, versions, truth, adapted_image.unfamiliar_percent)


def run_sem(paths: dict[str, Path], *, seed: int) -> Job[SemRun]:
    """Simulate a specimen and two exposures, enhance one by tiles, and measure."""
    yield Progress(0, 0, "simulating a specimen and two exposures")
    specimen = draw_specimen(_SEM_SHAPE, seed=seed)
    rewrite(specimen, paths["sem_truth"])
    first, second = (
        expose(specimen, seed=seed, noise_seed=number, name=f"exposure {number}")
        for number in (1, 2)
    )
    rewrite(first, paths["sem_first"])
    rewrite(second, paths["sem_second"])
    tiles = inference.EnhanceOptions(tile=_TILE_PX)
    outputs = paths["sem_first"], paths["sem_enhanced"]
    enhanced_file = yield from ENHANCE.anew(
        *outputs, model=DEFAULT_MODEL, options=tiles
    )
    yield Progress(0, 0, "restoring by a Wiener filter, to compare")
    images = {
        "as taken": first,
        WIENER: wiener(first),
        DEFAULT_MODEL: open_image(paths["sem_enhanced"]),
    }
    versions = {
        name: Compared.of(image, specimen, data_range=255.0)
        for name, image in images.items()
    }
    return SemRun(versions, specimen, measure_frc(first, second), enhanced_file)


def wiener(image: Micrograph, *, sigma_px: float = 1.0) -> Micrograph:
    """Restore by scikit-image's unsupervised Wiener filter, given the blur's sigma."""
    # Orieux, Giovannelli, Rodet, J. Opt. Soc. Am. A 27, 1593 (2010)
    from skimage.restoration import unsupervised_wiener

    from napari_semsr.simulation import gaussian_kernel  # imports scipy.signal

    data = np.asarray(image.array(), dtype=np.float64)
    low = float(data.min())
    span = max(float(data.max()) - low, 1e-12)
    kernel = gaussian_kernel(sigma_px, 2 * max(1, round(3 * sigma_px)) + 1)
    restored_image, _ = unsupervised_wiener(
        (data - low) / span, kernel, clip=False, rng=0
    )
    grey = (restored_image * span + low).astype(np.float32)
    return image.replace(data=grey, name="wiener", provenance=None)


def place_truth(
    solved_px: FloatArray, nominal_px: FloatArray, true_px: FloatArray
) -> Placement:
    """Compare solved and nominal (N, 2) corners with the true ones."""
    has_place: NDArray[np.bool_] = ~np.isnan(solved_px[:, 0])
    origin = (true_px - solved_px)[has_place].mean(axis=0)
    aligned_px = nominal_px + (solved_px - nominal_px)[has_place].mean(axis=0)
    solved_positions = np.where(
        has_place[:, None], solved_px + origin - true_px, np.nan
    )
    stage = np.where(has_place[:, None], nominal_px - true_px, np.nan)
    return Placement(
        has_place,
        origin,
        aligned_px,
        solved_positions,
        stage - np.nanmean(stage, axis=0),
    )


def rms(steps_px: FloatArray) -> float:
    """Return the root mean square length of ``(N, 2)`` steps, ignoring NaN."""
    return float(np.sqrt(np.nanmean((steps_px**2).sum(axis=1))))


def sample_truth(
    truth: Micrograph, mosaic: Micrograph, origin_px: FloatArray
) -> Micrograph:
    """Average the finely sampled truth over the pixels of a mosaic, in float32."""
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
            np.diag(fine),  # older SciPy warns of a diagonal matrix
            corner,
            mosaic.shape,
            order=3,
            mode="nearest",
            prefilter=False,
        )
    data = total / np.float32(counts.prod())
    return mosaic.replace(data=data, name="truth", provenance=truth.provenance)


def gap_free_box(is_covered: NDArray[np.bool_]) -> Box:
    """Find a large rectangle without gaps, by repeatedly cropping the worst side."""
    box = largest_gap_free_box(is_covered, least=_LEAST_PX)
    if box is not None:
        return box
    msg = (
        f"The mosaic must have {_LEAST_PX} px without a gap on each side to be "
        "measured, and has not: take another seed or larger frames."
    )
    raise ShapeError(msg, code="gaps-everywhere")


def _gap_free(scan: ScanRun) -> Box:
    return gap_free_box(np.isfinite(scan.mosaic.array()))


def _truth_below(scan: ScanRun, name: str, box: Box) -> tuple[Micrograph, Micrograph]:
    """Return a part of a mosaic and the true sample there, from a file of the scan."""
    part = cut_box(scan.mosaic, box)
    corner = scan.placement.origin_px + np.array([box.y0, box.x0])
    return part, sample_truth(open_image(scan.folder / name), part, corner)
