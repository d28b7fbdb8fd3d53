"""``semsr figure IMAGE... -o OUT``: a picture for a paper."""

import argparse

from napari_semsr import jobs
from napari_semsr.cli.verb import (
    Verb,
    add_opening,
    add_options,
    add_output,
    asked,
    columns,
    pixel_size,
    shape,
)
from napari_semsr.core import Job


def _configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        help="images and maps, in the order of their letters",
    )
    add_output(parser, "the figure: .png, .tif or .pdf")
    add_options(parser, jobs.FigureOptions, title="figure", exclude=("inset",))
    parser.add_argument(
        "--inset",
        nargs=4,
        metavar=("Y0", "X0", "Y1", "X1"),
        default=argparse.SUPPRESS,
        help="rows Y0 to Y1 and columns X0 to X1 of the first image, enlarged below; "
        "of calibrated images the same place",
    )
    add_opening(parser)


def _start(arguments: argparse.Namespace) -> Job["jobs.FigureMade"]:
    """Make the job."""
    return jobs.figure_job(
        arguments.images, arguments.output, **asked(arguments, jobs.FigureOptions)
    )


def _summarise(result: "jobs.FigureMade") -> str:
    """Say what was drawn."""
    rows = [("  pixel of the first image", pixel_size(result.pixel_size_nm, None))]
    if result.caption:
        rows.append(("  caption", result.caption))
    return "\n".join([f"{result.path}: {shape(result.shape)}", columns(rows)])


FIGURE = Verb(_configure, _start, _summarise)
