"""``semsr demo [OUT_DIR]``: the main job end to end, ending in a report."""

import argparse

from napari_semsr import demonstration
from napari_semsr.cli.verb import (
    Verb,
    add_options,
    add_overwrite,
    columns,
    length,
    number,
    options_from,
)
from napari_semsr.core import Job

_FOLDER = "demo-output"


def _configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "folder",
        metavar="OUT_DIR",
        nargs="?",
        default=_FOLDER,
        help=f"where images and report go (default: {_FOLDER})",
    )
    add_overwrite(parser)
    add_options(parser, demonstration.DemoOptions, title="samples and model")


def _start(arguments: argparse.Namespace) -> Job["demonstration.DemoResult"]:
    """Make the job."""
    return demonstration.demo_job(
        arguments.folder,
        options=options_from(arguments, demonstration.DemoOptions),
        overwrite=arguments.overwrite,
    )


def _summarise(result: "demonstration.DemoResult") -> str:
    """Say where the report is and how to go on."""
    scan, measured = result.figures["scan"], result.scan.measured
    nominal = number(scan["nominal_error_px"])
    solved = number(scan["solved_error_px"])
    resolved = length(measured.pair.resolution_nm)
    rows = [
        ("frames", f"{scan['placed']} of {scan['frames']} placed"),
        ("positions", f"{nominal} → {solved} px RMS from the truth"),
        ("mosaic", f"resolution {resolved} by two exposures"),
        *_versions(measured),
        ("electron image", "the field that the bundled model was made for"),
        *_versions(result.sem.measured),
        ("report", result.report),
        ("time", f"{number(result.seconds)} s"),
        (
            "in napari",
            f'napari --with napari-semsr "{result.mosaic}" "{result.enhanced}"',
        ),
    ]
    return columns(rows)


def _versions(measured: "demonstration.FieldFigures") -> list[tuple[str, str]]:
    """Compare each version of a field with its truth."""
    rows = []
    for item in measured.versions:
        if item.cross is not None:
            psnr = number(item.metrics.psnr_db, 4)
            found = length(item.cross.resolution_nm)
            said = f"PSNR {psnr} dB, resolution {found}, against the truth"
            rows.append((f"  {item.label}", said))
    return rows


DEMO = Verb(_configure, _start, _summarise)
