"""The demonstration: frames to mosaic to enhanced to measured, where truth is known."""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from napari_semsr.core import Job, Options, Progress, software_versions
from napari_semsr.demonstration.files import prepare_folder
from napari_semsr.demonstration.runs import Half, ScanHalf, run_scan, run_sem
from napari_semsr.demonstration.sections import (
    distance_rms,
    figures_of,
    judge_mosaic,
    psnr_gain,
    scan_figures,
    show_fields,
    show_frames,
    show_joints,
    show_maps,
    show_metrics,
    show_positions,
    show_provenance,
    show_resolution,
    show_run,
    show_spectra,
)
from napari_semsr.jobs import DEFAULT_MODEL, Result, find_model, jsonable
from napari_semsr.reporting import (
    Facts,
    Page,
    Part,
    Section,
    Text,
    resolution,
    signed,
    write_page,
)

# The page of the demonstration.

_LEDE = (
    "Everything here was drawn by the computer, so that the truth is known and every "
    "claim can be checked. First, small superlens frames become one calibrated mosaic, "
    "which is enhanced and measured. Then the bundled model does what it was trained "
    "for: it restores an electron image."
)


def compose(
    scan: ScanHalf, sem: Half, paths: dict[str, Path], options: dict[str, Any]
) -> Page:
    """Compose the page.

    Parameters
    ----------
    scan, sem : Half
        What was made and measured.
    paths : dict
        Files of the demonstration by role.
    options : dict
        What the demonstration was asked for.

    Returns
    -------
    Page
        Ready to be written.
    """
    return Page(
        title="Demonstration: from superlens frames to a measured image",
        lede=_LEDE,
        sections=(
            Section("In short", (_headline(scan, sem),)),
            _scan_part(scan, options),
            _sem_part(sem),
            Section("Open it in napari", _napari(paths)),
            Section("Provenance", (show_provenance((scan, sem), options),)),
        ),
        footer=f"Written by napari-semsr {software_versions()['napari-semsr']}.",
    )


def _scan_part(scan: ScanHalf, options: dict[str, Any]) -> Part:
    """Compose the part that begins with frames."""
    measured = scan.measured
    rows, columns = measured.truth.image.shape
    pixel = measured.truth.image.mean_pixel_size_nm or 0.0
    told = (
        f"Measured on the {rows} \N{MULTIPLICATION SIGN} {columns} px without a gap "
        f"({pixel:g} nm each). The truth is the sample before the microscope blurs it, "
        "averaged over each pixel; both mosaics were stitched on their own, so that "
        "errors of the stitching count in their resolution too."
    )
    verdict = judge_mosaic(measured, str(options["model"]))
    return Part(
        "From frames to a mosaic",
        "A microsphere shows a small, round, unevenly lit field at a time. The joints "
        "between such fields, measured on the images, make them one mosaic.",
        (
            Section("Raw frames", tuple(show_frames(scan))),
            Section("Nominal and solved positions", tuple(show_positions(scan))),
            Section("How far to trust the joints", tuple(show_joints(scan))),
            Section(
                "The mosaic, enhanced",
                (verdict, Text((told,)), *show_fields(measured)),
            ),
            Section("Resolution of the mosaic", tuple(show_resolution(measured))),
            Section("Where the mosaic is resolved", tuple(show_maps(measured))),
            Section("Spectra of the mosaic", tuple(show_spectra(measured))),
            Section("The mosaic against the truth", tuple(show_metrics(measured))),
            Section("How the model was run", tuple(show_run(scan.made))),
        ),
    )


def _sem_part(sem: Half) -> Part:
    """Compose the part on an electron image."""
    measured = sem.measured
    rows, columns = measured.truth.image.shape
    pixel = measured.truth.image.mean_pixel_size_nm or 0.0
    return Part(
        "An electron image, restored",
        f"A field of {rows} \N{MULTIPLICATION SIGN} {columns} px at {pixel:g} nm, "
        "taken twice with blur, haze and independent noise. The bundled model has seen "
        "drawn specimens of these kinds in training, but not this one.",
        (
            Section("Before and after", tuple(show_fields(measured))),
            Section("Resolution", tuple(show_resolution(measured))),
            Section("Where the field is resolved", tuple(show_maps(measured))),
            Section("Radial spectra", tuple(show_spectra(measured))),
            Section("Nearness to the truth", tuple(show_metrics(measured))),
            Section("How it was run", tuple(show_run(sem.made))),
        ),
    )


def _headline(scan: ScanHalf, sem: Half) -> Facts:
    """Give the figures that matter."""
    placement, mosaic = scan.placement, scan.measured
    before, after = (
        distance_rms(errors)
        for errors in (placement.nominal_error_px, placement.solved_error_px)
    )
    count = int(placement.placed.sum())
    return Facts(
        (
            ("Frames placed", f"{count} of {scan.stitched.frames}"),
            ("Off their true places", f"{before:.1f} → {after:.3f} px"),
            ("Mosaic resolves", resolution(mosaic.pair)),
            ("Mosaic, PSNR gained", f"{signed(psnr_gain(mosaic), 2)} dB"),
            ("Electron image, same", f"{signed(psnr_gain(sem.measured), 2)} dB"),
        ),
        large=True,
    )


def _napari(paths: dict[str, Path]) -> tuple[Text, ...]:
    """Say how to go on with the mouse."""

    def line(*roles: str) -> str:
        files = " ".join(f'"{paths[role].resolve()}"' for role in roles)
        return f"napari --with napari-semsr {files}"

    return (
        Text(
            ("The mosaic before and after, and its resolution map, in nm:",),
            code=line("mosaic", "mosaic_enhanced", "mosaic_map"),
        ),
        Text(
            ("Raw frames where the stage says; the panel Stitch mosaic joins them:",),
            code=line("scan"),
        ),
        Text(
            ("The electron image before and after, and its truth:",),
            code=line("sem_first", "sem_enhanced", "sem_truth"),
        ),
    )


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
