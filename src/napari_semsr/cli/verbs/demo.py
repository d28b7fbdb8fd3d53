"""``semsr demo [OUT_DIR]``: the main job end to end, ending in a report."""

import argparse

from napari_semsr.cli.parser import Verb, add_options, add_overwrite, options_from
from napari_semsr.cli.text import columns, length, number
from napari_semsr.core import Job
from napari_semsr.demonstration import (
    DemoOptions,
    DemoResult,
    Measured,
    Version,
    demo_job,
)

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
    add_options(parser, DemoOptions, title="samples and model")


def _start(arguments: argparse.Namespace) -> Job[DemoResult]:
    """Make the job."""
    return demo_job(
        arguments.folder,
        options=options_from(arguments, DemoOptions),
        overwrite=arguments.overwrite,
    )


def _summarise(result: DemoResult) -> str:
    """Say where the report is and how to go on."""
    scan, measured = result.figures["scan"], result.scan.measured
    nominal, solved = (scan[f"{name}_error_px"] for name in ("nominal", "solved"))
    rows = [
        ("frames", f"{scan['placed']} of {scan['frames']} placed"),
        (
            "positions",
            f"{number(nominal)} → {number(solved)} px RMS from the truth",
        ),
        (
            "mosaic",
            f"resolution {length(measured.pair.resolution_nm)} by two exposures",
        ),
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


def _versions(measured: Measured) -> list[tuple[str, str]]:
    """Compare each version of a field with its truth."""
    return [
        (f"  {item.label}", _against_truth(item))
        for item in measured.versions()
        if item.cross is not None
    ]


def _against_truth(item: Version) -> str:
    """Compare one version of a field with its truth."""
    found = None if item.cross is None else item.cross.resolution_nm
    psnr = number(item.metrics.psnr_db, 4)
    return f"PSNR {psnr} dB, resolution {length(found)}, against the truth"


DEMO = Verb(_configure, _start, _summarise)
