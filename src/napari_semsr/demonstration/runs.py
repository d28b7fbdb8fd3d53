"""Plan of the demonstration steps, and measurements of their results.

Frames are stitched into a mosaic. A model is trained on the part that has an SEM image,
and enhances that mosaic, and that of a sample for which it is not suitable. A simulated
SEM image is enhanced by another model.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.analysis import Metrics, compute_band_gain, measure_metrics
from napari_semsr.core import (
    Acquisition,
    Box,
    FloatArray,
    Micrograph,
    ReadError,
    ShapeError,
    crop_to_box,
    find_gap_free_box as largest_gap_free_box,
    run,
)
from napari_semsr.io import open_frames, read_json_object
from napari_semsr.jobs import (
    RECORD,
    Call,
    CallOutput,
    Plan,
    SimulateOptions,
    open_image,
)
from napari_semsr.models import DEFAULT_MODEL, MOSAIC_MODEL

FILES = {
    "report": "report.html",
    "figures": "figures.json",
    "results": "results.json",
    "scan": "scan",
    "mosaic": "mosaic/mosaic.ome.zarr",
    "mosaic_record": "mosaic/mosaic.json",
    "mosaic_untouched": "mosaic/ssum-sem.ome.zarr",
    "mosaic_truth": "mosaic/truth.ome.tif",
    "positions": "mosaic/solved-positions.csv",
    "place_sem": "mosaic/sem.ome.tif",
    "adapted": "adapted",
    "elsewhere_scan": "elsewhere/scan",
    "elsewhere": "elsewhere/other-relief.ome.zarr",
    "elsewhere_record": "elsewhere/other-relief.json",
    "elsewhere_untouched": "elsewhere/ssum-sem.ome.zarr",
    "elsewhere_sem": "elsewhere/sem.ome.tif",
    "sem_truth": "sem/truth.tif",
    "sem_first": "sem/exposure-1.tif",
    "sem_second": "sem/exposure-2.tif",
    "sem_enhanced": "sem/enhanced.ome.zarr",
    "sem_enhanced_record": "sem/enhanced.json",
}
"""Demonstration files, keyed by role."""
WIENER = "Wiener filter"
"""Label of the result of `apply_wiener_filter`."""
VIEW = "sem/view.tif"
"""SEM image of a section of the mosaic, in the scan folder."""
_SEM_SHAPE = (384, 540)  # px; chosen: several tiles, in a few seconds
_TILE_PX = 256  # side of its tiles; chosen: smaller than the image
_MIN_PX = 64  # smallest part of a mosaic to measure; chosen: noise dominates below


def read_record(path: Path) -> dict[str, Any]:
    """Read the JSON record of a command, without its kind."""
    record: dict[str, Any] = read_json_object(path)
    del record["kind"]
    return record


@dataclass(frozen=True, slots=True)
class FramePlacement:
    """Positions (y, x) of N frames and their errors; NaN for excluded frames."""

    has_place: NDArray[np.bool_]  # (N,), frames that have a position
    origin_px: FloatArray  # (2,), the mosaic's pixel (0, 0) in the ground truth
    nominal_px: FloatArray  # (N, 2), shifted as a whole onto the solved ones
    solved_error_px: FloatArray  # (N, 2)
    nominal_error_px: FloatArray  # (N, 2)


@dataclass(frozen=True, slots=True)
class StitchedScan:
    """A stitched scan with its frames and their true positions."""

    folder: Path
    options: SimulateOptions
    frames: Acquisition
    stitch_record: dict[str, Any]  # the record of the stitching
    solved_px: FloatArray  # (N, 2)
    sigma_px: FloatArray  # (N, 2), their standard deviations
    mosaic: Micrograph
    placement: FramePlacement

    @classmethod
    def read(cls, folder: Path, role: str, scan: str, options: SimulateOptions) -> Self:
        """Read the files of the calls `role` and `scan`."""
        place = folder / FILES[scan]
        frames = run(open_frames(place, positions=place / "truth" / "positions.csv"))
        record = read_record(folder / FILES[f"{role}_record"])
        errors = record["position_sd_px"]
        rows = {
            row["frame"]: (row["y_px"], row["x_px"], *(sd or (None, None)))
            for row, sd in zip(record["positions"], errors, strict=True)
        }
        nominal, true = run(open_frames(place)).nominal_corners(), frames.nominal_px
        if nominal is None or true is None or rows.keys() != {*frames.names}:
            msg = f"The true positions do not match the frames in {frames.name}."
            raise ReadError(msg, code="positions-invalid")
        table = np.array([rows[name] for name in frames.names], dtype=float)
        solved_px, sigma = table[:, :2], table[:, 2:]
        mosaic = open_image(folder / FILES[role])
        placement = compare_positions(solved_px, nominal, true)
        return cls(place, options, frames, record, solved_px, sigma, mosaic, placement)

    def crop_with_ground_truth(self, name: str) -> tuple[Box, Micrograph, Micrograph]:
        """Return a gap-free box of the mosaic, and its image and ground truth.

        `name` is a file of the scan.
        """
        box = find_measurable_box(np.isfinite(self.mosaic.array()))
        part = crop_to_box(self.mosaic, box)
        corner = self.placement.origin_px + np.array([box.y0, box.x0])
        return (
            box,
            part,
            resample_ground_truth(open_image(self.folder / name), part, corner),
        )


@dataclass(frozen=True, slots=True)
class ImageComparison:
    """Image with gain and offset matched to the ground truth, and its metrics."""

    image: Micrograph
    metrics: Metrics

    @classmethod
    def from_image(
        cls, image: Micrograph, truth: Micrograph, **how: Any
    ) -> "ImageComparison":
        """Compare an image with the ground truth on its grid."""
        metrics = measure_metrics(image, truth, match="affine", **how)
        data = (image.array() * metrics.gain + metrics.offset).astype(np.float32)
        return cls(image.replace(data=data), metrics)

    def compute_gain(
        self, other: "ImageComparison"
    ) -> tuple[float | None, float | None]:
        """Return the PSNR gain below the cut-off, in dB, and its standard error."""
        return compute_band_gain(self.metrics, other.metrics).band_gains[0]


def create_scan_options(*, frame_px: int, seed: int) -> SimulateOptions:
    """Return the options of the simulated scan, and of the area's SEM image."""
    return SimulateOptions(
        phantom="circuit",
        pitch_nm=240.0,  # lines of 120 nm, which light resolves
        relief_nm=40.0,  # thin: light from higher lines cancels that of the substrate
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


def create_other_scan_options(place: SimulateOptions) -> SimulateOptions:
    """Return options for scanning a sample that differs from that of another scan."""
    return place.replace(
        relief_nm=160.0,  # four times as high: optical and SEM image relate differently
        frames_grid=(2, 3),
        sem_view=False,
        sem=True,
    )


def create_demo_plan(place: SimulateOptions, minutes: float = 1.0) -> Plan:
    """Return the plan of all steps; training takes `minutes`."""

    def refer_to_output(role: str, part: str | None = None) -> CallOutput:
        return CallOutput(call=role, part=part)

    def dump_explicit_options(options: SimulateOptions) -> dict[str, object]:
        return options.model_dump(mode="json", exclude_unset=True)

    plain = {"distortion": "none"}  # the simulated microscope has none
    model_option = {"model": MOSAIC_MODEL}
    area = {
        "mosaic": refer_to_output("mosaic"),
        "sem": (refer_to_output("scan", VIEW),),
        "apply": (refer_to_output("elsewhere"),),
    }
    training = {"minutes": minutes, "seed": place.seed}
    specimen = {"shape": list(_SEM_SHAPE), "seed": place.seed}
    first, second = ({"seed": place.seed, "noise_seed": n} for n in (1, 2))
    tiles = {"model": DEFAULT_MODEL, "tile": _TILE_PX}
    calls: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
        ("scan", "simulate", {}, dump_explicit_options(place)),
        (
            "mosaic",
            "stitch",
            {"folder": refer_to_output("scan")},
            {**plain, "halves": True},
        ),
        (
            "elsewhere_scan",
            "simulate",
            {},
            dump_explicit_options(create_other_scan_options(place)),
        ),
        ("elsewhere", "stitch", {"folder": refer_to_output("elsewhere_scan")}, plain),
        ("adapted", "adapt", area, training),
        (
            "mosaic_untouched",
            "enhance",
            {"image": refer_to_output("mosaic")},
            model_option,
        ),
        (
            "elsewhere_untouched",
            "enhance",
            {"image": refer_to_output("elsewhere")},
            model_option,
        ),
        ("sem_truth", "specimen", {}, specimen),
        ("sem_first", "exposure", {"truth": refer_to_output("sem_truth")}, first),
        ("sem_second", "exposure", {"truth": refer_to_output("sem_truth")}, second),
        ("sem_enhanced", "enhance", {"image": refer_to_output("sem_first")}, tiles),
    ]
    outputs = {
        role: {"out_dir" if verb == "simulate" else "output": FILES[role]}
        for role, verb, *_ in calls
    }
    outputs["mosaic"]["positions_out"] = FILES["positions"]
    for role in ("mosaic", "elsewhere", "sem_enhanced"):
        outputs[role][RECORD] = FILES[f"{role}_record"]
    return Plan(
        calls=tuple(
            Call(
                name=role,
                verb=verb,
                inputs=inputs,
                options=options,
                outputs=outputs[role],
            )
            for role, verb, inputs, options in calls
        )
    )


def apply_wiener_filter(image: Micrograph) -> Micrograph:
    """Restore an image with scikit-image's unsupervised Wiener filter."""
    # Orieux, Giovannelli, Rodet, J. Opt. Soc. Am. A 27, 1593 (2010)
    from skimage.restoration import unsupervised_wiener

    from napari_semsr.simulation import create_gaussian_kernel  # imports scipy.signal

    data = np.asarray(image.array(), dtype=np.float64)
    low = float(data.min())
    span = max(float(data.max()) - low, 1e-12)
    kernel = create_gaussian_kernel(1.0, 7)
    restored_image, _ = unsupervised_wiener(
        (data - low) / span, kernel, clip=False, rng=0
    )
    grey = (restored_image * span + low).astype(np.float32)
    return image.replace(data=grey, name="wiener", provenance=None)


def compare_positions(
    solved_px: FloatArray, nominal_px: FloatArray, true_px: FloatArray
) -> FramePlacement:
    """Compare solved and nominal corners (N, 2) with the true corners."""
    has_place: NDArray[np.bool_] = ~np.isnan(solved_px[:, 0])
    origin = (true_px - solved_px)[has_place].mean(axis=0)
    aligned_px = nominal_px + (solved_px - nominal_px)[has_place].mean(axis=0)
    solved_positions = np.where(
        has_place[:, None], solved_px + origin - true_px, np.nan
    )
    stage = np.where(has_place[:, None], nominal_px - true_px, np.nan)
    return FramePlacement(
        has_place,
        origin,
        aligned_px,
        solved_positions,
        stage - np.nanmean(stage, axis=0),
    )


def compute_rms(steps_px: FloatArray) -> float:
    """Return the root mean square length of vectors (N, 2), ignoring NaN."""
    return float(np.sqrt(np.nanmean((steps_px**2).sum(axis=1))))


def resample_ground_truth(
    truth: Micrograph, mosaic: Micrograph, origin_px: FloatArray
) -> Micrograph:
    """Average the finely sampled ground truth over mosaic pixels (float32)."""
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


def find_measurable_box(is_covered: NDArray[np.bool_]) -> Box:
    """Find a large gap-free rectangle by repeatedly cropping the worst side."""
    box = largest_gap_free_box(is_covered, least=_MIN_PX)
    if box is not None:
        return box
    msg = (
        f"Measurements need a gap-free square of {_MIN_PX} px, but the mosaic has "
        "none; use another seed or larger frames."
    )
    raise ShapeError(msg, code="gaps-everywhere")
