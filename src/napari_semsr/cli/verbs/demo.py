"""``semsr demo [OUT_DIR]``: the main job end to end, ending in a report."""

import argparse
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from napari_semsr.analysis import FrcResult

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
    """Say what was found, where the report is and how to go on."""
    scan, place = result.figures["scan"], result.place
    nominal = number(scan["nominal_error_px"])
    solved = number(scan["solved_error_px"])
    found, true = place.registered.error_nm, place.true_error_nm
    off = f"expected {length(found)} off, by the truth {length(true)}"
    alone = result.scan.measured.pair
    rows = [
        ("frames", f"{scan['placed']} of {scan['frames']} placed"),
        ("positions", f"{nominal} → {solved} px RMS from the truth"),
        ("mosaic", f"resolution {_resolved(alone)} by two exposures"),
        ("registered", off),
        ("same place", "half of it, which nothing learnt from, against its SEM image"),
        *_versions(place.measured),
        ("electron image", "another, against the truth"),
        *_versions(result.sem.measured),
        ("report", result.report),
        ("time", f"{number(result.seconds)} s"),
        ("in napari", _opened(result)),
    ]
    return columns(rows)


def _opened(result: "demonstration.DemoResult") -> str:
    """Give the command that shows the place in napari."""
    shown = result.registered, result.place_sem, result.enhanced, result.tuned
    return "napari --plugin napari-semsr " + " ".join(f'"{path}"' for path in shown)


def _versions(measured: "demonstration.FieldFigures") -> list[tuple[str, str]]:
    """Compare each version of a field with its aim."""
    rows = []
    for item in measured.versions:
        if item.cross is not None:
            psnr = number(item.metrics.psnr_db, 4)
            said = f"PSNR {psnr} dB, resolution {_resolved(item.cross)}"
            rows.append((f"  {item.label}", said))
    return rows


def _resolved(found: "FrcResult | None") -> str:
    """Say a resolution, or why there is none."""
    if found is None or found.resolution_nm is None:
        return "unknown" if found is None else str(found.reason)
    return length(found.resolution_nm)


DEMO = Verb(_configure, _start, _summarise)
