"""The demonstration as a job, from an empty folder to the report."""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from napari_semsr.core import Job, Options, Progress, WriteError, software_versions
from napari_semsr.demonstration.runs import (
    MAPS,
    Half,
    ScanHalf,
    rms,
    run_scan,
    run_sem,
)
from napari_semsr.demonstration.sections import write_report
from napari_semsr.io import check_target
from napari_semsr.jobs import (
    DEFAULT_MODEL,
    Result,
    check_target_folder,
    find_model,
    jsonable,
)

_FILES = {
    "report": "report.html",
    "figures": "figures.json",
    "scan": "scan",
    "scan_again": "scan-again",
    "mosaic": "mosaic/mosaic.ome.zarr",
    "mosaic_again": "mosaic/mosaic-again.ome.zarr",
    "mosaic_enhanced": "mosaic/enhanced.ome.zarr",
    "mosaic_baseline": "mosaic/wiener.ome.tif",
    "mosaic_truth": "mosaic/truth.ome.tif",
    "positions": "mosaic/solved-positions.csv",
    "sem_truth": "sem/truth.tif",
    "sem_first": "sem/exposure-1.tif",
    "sem_second": "sem/exposure-2.tif",
    "sem_baseline": "sem/wiener.tif",
    "sem_enhanced": "sem/enhanced.ome.zarr",
}
for _half in ("mosaic", "sem"):
    _FILES |= {f"{_half}_map_{m}": f"{_half}/frc-map-{m}.ome.tif" for m in MAPS}


class DemoOptions(Options):
    """What the demonstration shows."""

    model: str = Field(
        default=DEFAULT_MODEL, description="model on the shelf, or a file"
    )
    frame_px: int = Field(
        default=224,
        ge=144,
        le=512,
        description="side of a superlens frame, in pixels of 20 nm",
    )
    size: int = Field(
        default=640,
        ge=192,
        le=4096,
        description="rows of the electron image, in pixels of 10 nm",
    )
    seed: int = Field(
        default=0, ge=0, description="other specimens, stage errors, haze and noise"
    )


@dataclass(frozen=True, slots=True)
class DemoResult(Result):
    """Where the report is, and what it says.

    Attributes
    ----------
    report : str
        Path of the page.
    seconds : float
        From start to page.
    frames : str
        Folder of the simulated frames.
    mosaic : str
        Path of the mosaic.
    enhanced : str
        Path of the enhanced mosaic.
    figures : dict
        The numbers on the page.
    scan, sem : Half
        Images, curves and maps behind them.
    """

    report: str
    seconds: float
    frames: str
    mosaic: str
    enhanced: str
    figures: dict[str, Any]
    scan: ScanHalf = field(metadata={"json": False})
    sem: Half = field(metadata={"json": False})


def demo_job(
    folder: str | os.PathLike[str],
    *,
    options: DemoOptions | None = None,
    overwrite: bool = False,
) -> Job[DemoResult]:
    """Simulate frames, stitch, enhance and measure; do the same to an electron image.

    Parameters
    ----------
    folder : path
        Where images and report go; made if its parent exists.
    options : DemoOptions, optional
        Model, sizes, seed.
    overwrite : bool, default=False
        Replace what an earlier run left there.

    Returns
    -------
    DemoResult
        Path of the report, and its figures.

    Yields
    ------
    Progress
        Every step.

    Raises
    ------
    WriteError
        If the folder holds something, or cannot be written to.
    CheckpointError
        If there is no such model.
    """
    started = time.monotonic()
    chosen = options or DemoOptions()
    yield Progress(0, 0, "checking")
    find_model(chosen.model)
    paths = _prepare_folder(Path(folder), overwrite=overwrite)
    asked: Any = {"model": chosen.model, "seed": chosen.seed}
    scan = yield from run_scan(paths, frame_px=chosen.frame_px, **asked)
    sem = yield from run_sem(paths, size=chosen.size, **asked)
    yield Progress(0, 0, "writing the report")
    figures = jsonable(
        {
            "scan": _scan_figures(scan),
            "mosaic": _figures(scan),
            "electron_image": _figures(sem),
            "options": chosen.model_dump(mode="json"),
            "versions": software_versions(),
        }
    )
    text = json.dumps(figures, indent=1, allow_nan=False)
    paths["figures"].write_text(text + "\n", encoding="utf-8")
    write_report(scan, sem, paths, figures["options"])
    return DemoResult(
        report=str(paths["report"]),
        seconds=round(time.monotonic() - started, 2),
        frames=str(paths["scan"]),
        mosaic=str(paths["mosaic"]),
        enhanced=str(paths["mosaic_enhanced"]),
        figures=figures,
        scan=scan,
        sem=sem,
    )


def demo_paths(folder: Path) -> dict[str, Path]:
    """Name what the demonstration writes, by role."""
    return {role: folder / name for role, name in _FILES.items()}


def _prepare_folder(folder: Path, *, overwrite: bool) -> dict[str, Path]:
    """Refuse a folder that cannot be filled, before anything is computed."""
    paths = demo_paths(check_target_folder(folder, overwrite=overwrite))
    for role in ("report", "figures", "positions"):
        if paths[role].is_dir():
            msg = f"{paths[role]} is a folder where a file shall go: move it away."
            raise WriteError(msg)
    try:
        for place in sorted({path.parent for path in paths.values()}):
            place.mkdir(exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        msg = f"{error.filename} cannot be made a folder ({reason}): choose another."
        raise WriteError(msg) from error
    for path in paths.values():
        if path.suffix in (".tif", ".zarr"):
            check_target(path, overwrite=True)
    return paths


_METRICS = "psnr_db ssim nrmse average_gradient contrast spatial_frequency"
_OF_A_MAP = "blocks failed median_nm p10_nm p90_nm"
_MAPS = ("two_exposures", "degraded_against_truth", "enhanced_against_truth")


def _scan_figures(half: ScanHalf) -> dict[str, Any]:
    """Numbers of the stitching: frames, joints and positions against the truth."""
    placement = half.placement
    return {
        **half.stitched.to_json(),
        "placed": int(placement.placed.sum()),
        "nominal_error_px": rms(placement.nominal_error_px),
        "solved_error_px": rms(placement.solved_error_px),
        "expected_error_px": rms(half.stitched.solution.sigma_px),
        "measured_part": half.box,
    }


def _figures(half: Half) -> dict[str, Any]:
    """Numbers of one half, by version and kind."""

    def picked(item: object, names: str) -> dict[str, Any]:
        return {n: None if item is None else getattr(item, n) for n in names.split()}

    found = half.measured
    return {
        "versions_of_the_field": {
            item.label: picked(item.metrics, _METRICS)
            | picked(item.cross, "resolution_nm reason")
            for item in found.versions
        },
        "two_exposures": picked(found.pair, "resolution_nm interval_nm reason"),
        "maps": {
            key: picked(item, _OF_A_MAP) | {"reasons": item.reason_counts}
            for key, item in zip(_MAPS, found.maps, strict=True)
        },
        "enhance": half.made.to_json(),
    }
