"""``semsr replay OUT``: make an output again, and compare."""

import argparse

from napari_semsr import jobs
from napari_semsr.cli.verb import Command, add_image, columns
from napari_semsr.core import Job, spell_shape


def _configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "output", "an image or store that semsr or a panel wrote")
    parser.add_argument(
        "--inputs",
        metavar="DIR",
        help="folder in which inputs are sought by their digests, when they are not "
        "where they lay",
    )


def _start(arguments: argparse.Namespace) -> Job["jobs.ReplayReport"]:
    """Make the job."""
    return jobs.replay_job(arguments.output, inputs=arguments.inputs)


def _summarise(result: "jobs.ReplayReport") -> str:
    """Say whether it is the same."""
    word = "identical" if result.identical else "not identical"
    first = f"{result.output}: {word}, made again by {result.job}"
    rows = [("  compared", f"{result.pixels} pixels, {spell_shape(result.shape)}")]
    rows += [(f"  {item.what}", item.said) for item in result.differs]
    return "\n".join([first, columns(rows)])


REPLAY = Command(_configure, _start, _summarise)
