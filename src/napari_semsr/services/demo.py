"""The demonstration: frames to mosaic to enhanced to measured, where truth is known."""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from napari_semsr.core.options import Options
from napari_semsr.core.progress import Job, Progress
from napari_semsr.core.provenance import software_versions
from napari_semsr.services.demo_figures import figures_of, scan_figures
from napari_semsr.services.demo_files import prepare_folder
from napari_semsr.services.demo_report import compose
from napari_semsr.services.demo_scan import ScanHalf, run_scan
from napari_semsr.services.demo_sem import Half, run_sem
from napari_semsr.services.report_page import write_page
from napari_semsr.services.results import Result, jsonable
from napari_semsr.services.shelf import DEFAULT_MODEL, find_model

__all__ = ["DemoOptions", "DemoResult", "demo"]


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


def demo(
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
    paths = prepare_folder(Path(folder), overwrite=overwrite)
    scan = yield from run_scan(
        paths, model=chosen.model, frame_px=chosen.frame_px, seed=chosen.seed
    )
    sem = yield from run_sem(
        paths, model=chosen.model, size=chosen.size, seed=chosen.seed
    )
    yield Progress(0, 0, "writing the report")
    asked = chosen.model_dump(mode="json")
    figures = jsonable(
        {
            "scan": scan_figures(scan),
            "mosaic": figures_of(scan),
            "electron_image": figures_of(sem),
            "options": asked,
            "versions": software_versions(),
        }
    )
    text = json.dumps(figures, indent=1, allow_nan=False)
    paths["figures"].write_text(text + "\n", encoding="utf-8")
    write_page(compose(scan, sem, paths, asked), paths["report"])
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
