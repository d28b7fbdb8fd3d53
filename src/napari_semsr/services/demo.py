"""The demonstration: take, enhance and measure a field whose truth is known."""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from napari_semsr.core.errors import WriteError
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.options import Options
from napari_semsr.core.progress import Job, Progress
from napari_semsr.core.provenance import software_versions
from napari_semsr.services.demo_report import compose, figures_of
from napari_semsr.services.demo_steps import (
    Measured,
    demo_paths,
    estimate_wiener,
    measure_all,
)
from napari_semsr.services.enhance import EnhancedFile, enhance
from napari_semsr.services.opening import open_image
from napari_semsr.services.report_page import write_page
from napari_semsr.services.results import Result, jsonable
from napari_semsr.services.samples import Exposure, draw_specimen, expose
from napari_semsr.services.shelf import DEFAULT_MODEL, find_model
from napari_semsr.services.targets import check_target_folder

__all__ = ["DemoOptions", "DemoResult", "demo"]

_TILE_PX = 256


class DemoOptions(Options):
    """What the demonstration shows."""

    model: str = Field(
        default=DEFAULT_MODEL, description="model on the shelf, or a file"
    )
    size: int = Field(
        default=640,
        ge=192,
        le=4096,
        description="rows of the field, in pixels of 10 nm",
    )
    seed: int = Field(default=0, ge=0, description="another specimen, haze and noise")


@dataclass(frozen=True, slots=True)
class DemoResult(Result):
    """Where the report is, and what it says.

    Attributes
    ----------
    report : str
        Path of the page.
    seconds : float
        From start to page.
    enhanced : str
        Path of the enhanced store.
    figures : dict
        The numbers on the page.
    measured : Measured
        Images, curves and maps behind them.
    """

    report: str
    seconds: float
    enhanced: str
    figures: dict[str, Any]
    measured: Measured = field(metadata={"json": False})


def demo(
    folder: str | os.PathLike[str],
    *,
    options: DemoOptions | None = None,
    overwrite: bool = False,
) -> Job[DemoResult]:
    """Draw a specimen, take it twice, enhance it by tiles, measure, and report.

    Parameters
    ----------
    folder : path
        Where images and report go; made if its parent exists.
    options : DemoOptions, optional
        Model, size, seed.
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
        If the folder holds something.
    CheckpointError
        If there is no such model.
    """
    from napari_semsr.inference.options import EnhanceOptions

    started = time.monotonic()
    chosen = options or DemoOptions()
    yield Progress(0, 0, "checking")
    target = check_target_folder(folder, overwrite=overwrite)
    find_model(chosen.model)
    target.mkdir(exist_ok=True)
    paths = demo_paths(target)
    yield Progress(0, 0, "drawing a specimen and taking it twice")
    truth, first, second = _take(chosen, paths)
    made = yield from enhance(
        paths["first"],
        paths["enhanced"],
        model=chosen.model,
        options=EnhanceOptions(tile=_TILE_PX),
        overwrite=overwrite,
    )
    enhanced = open_image(paths["enhanced"])
    yield Progress(0, 0, "restoring by a Wiener filter, to compare")
    baseline = estimate_wiener(first)
    _write(baseline, paths["baseline"])
    measured = yield from measure_all(truth, (first, second), baseline, enhanced)
    yield Progress(0, 0, "writing maps and report")
    _write(measured.map_pair.map, paths["map"])
    _write(measured.map_degraded.map, paths["map_before"])
    _write(measured.map_enhanced.map, paths["map_after"])
    return _report(chosen, paths, made, measured, started)


def _take(
    options: DemoOptions, paths: dict[str, Path]
) -> tuple[Micrograph, Micrograph, Micrograph]:
    """Write specimen and exposures, and open them again with their pixel size."""
    shape = (options.size, options.size * 7 // 5)
    truth = draw_specimen(shape, seed=options.seed)
    _write(truth, paths["truth"])
    for number, role in enumerate(("first", "second"), start=1):
        taken = expose(
            truth,
            Exposure(),
            seed=options.seed,
            noise_seed=number,
            name=f"exposure {number}",
        )
        _write(taken, paths[role])
    opened = [open_image(paths[role]) for role in ("truth", "first", "second")]
    if any(item.pixel_size_nm is None for item in opened):
        msg = f"The pixel size was lost on the way through {paths['truth'].parent}."
        raise WriteError(msg)
    return opened[0], opened[1], opened[2]


def _report(
    options: DemoOptions,
    paths: dict[str, Path],
    made: EnhancedFile,
    measured: Measured,
    started: float,
) -> DemoResult:
    """Write the figures and the page."""
    figures = jsonable(figures_of(measured, made))
    figures["options"] = options.model_dump(mode="json")
    figures["versions"] = software_versions()
    text = json.dumps(figures, indent=1, allow_nan=False)
    paths["figures"].write_text(text + "\n", encoding="utf-8")
    page = compose(measured, made, paths, options.model_dump(mode="json"))
    write_page(page, paths["report"])
    return DemoResult(
        report=str(paths["report"]),
        seconds=round(time.monotonic() - started, 2),
        enhanced=str(paths["enhanced"]),
        figures=figures,
        measured=measured,
    )


def _write(image: Micrograph, path: Path) -> None:
    """Write an image that the demonstration owns."""
    from napari_semsr.io import registry

    registry.write(image, path, overwrite=True)
