"""``semsr degrade IN OUT``: the three degradations of published test sets."""

import argparse

from napari_semsr import jobs
from napari_semsr.cli.verb import (
    Verb,
    add_image,
    add_opening,
    add_options,
    add_overwrite,
    asked,
    columns,
    shape,
)
from napari_semsr.core import Job


def _configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "image", "a sharp image")
    add_image(
        parser, "output", "where the degraded one goes; its suffix names the format"
    )
    add_options(parser, jobs.DegradeOptions, title="degradation")
    add_overwrite(parser)
    add_opening(parser)


def _start(arguments: argparse.Namespace) -> Job["jobs.DegradedFile"]:
    """Make the job."""
    return jobs.degrade_job(
        arguments.image, arguments.output, **asked(arguments, jobs.DegradeOptions)
    )


def _summarise(result: "jobs.DegradedFile") -> str:
    """Say what was done."""
    head = f"{result.output}: {result.kind}, {shape(result.shape)}"
    rows = [(f"  {name}", str(value)) for name, value in result.parameters.items()]
    return "\n".join(filter(None, [head, columns(rows)]))


DEGRADE = Verb(_configure, _start, _summarise)
