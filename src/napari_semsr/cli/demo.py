"""``semsr demo [OUT_DIR]``: the main job end to end, ending in a report."""

import argparse

from napari_semsr.cli import text
from napari_semsr.cli.arguments import add_options, options_from
from napari_semsr.cli.inputs import add_overwrite
from napari_semsr.cli.verb import Verb
from napari_semsr.core.progress import Job
from napari_semsr.services.demo import DemoOptions, DemoResult, demo

__all__ = ["VERB"]

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
    add_options(parser, DemoOptions, title="specimen and model")


def _start(arguments: argparse.Namespace) -> Job[DemoResult]:
    """Make the job."""
    return demo(
        arguments.folder,
        options=options_from(arguments, DemoOptions),
        overwrite=arguments.overwrite,
    )


def _summarise(result: DemoResult) -> str:
    """Say where the report is and how to go on."""
    measured = result.measured
    rows = []
    for item in measured.versions():
        if item.cross is None:
            continue
        resolution = text.length(item.cross.resolution_nm)
        psnr = f"PSNR {text.number(item.metrics.psnr_db, 4)} dB"
        rows.append((item.label, f"{psnr}, resolution {resolution}"))
    rows += [
        ("report", result.report),
        ("time", f"{text.number(result.seconds)} s"),
        ("in napari", f'napari --with napari-semsr "{result.enhanced}"'),
    ]
    return text.columns(rows)


VERB = Verb(_configure, _start, _summarise)
