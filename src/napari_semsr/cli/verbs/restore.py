"""``semsr restore IN -o OUT``: classical restoration, the baselines of every model."""

import argparse

from napari_semsr import jobs
from napari_semsr.cli.verb import (
    Verb,
    add_image,
    add_opening,
    add_options,
    add_output,
    asked,
    columns,
    number,
    shape,
)
from napari_semsr.core import Job
from napari_semsr.restoration import RestoreOptions


def _configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "image", "a blurred image")
    add_output(parser, "where the result goes; its suffix names the format")
    parser.add_argument(
        "--resume", action="store_true", help="go on with a store left unfinished"
    )
    add_options(parser, RestoreOptions, title="restoration")
    add_opening(parser)


def _start(arguments: argparse.Namespace) -> Job["jobs.RestoredFile"]:
    """Make the job."""
    return jobs.restore_job(
        arguments.image,
        arguments.output,
        **asked(arguments, RestoreOptions),
        resume=arguments.resume,
    )


def _summarise(result: "jobs.RestoredFile") -> str:
    """Say what was done."""
    head = (
        f"{result.output}: {result.method}, {shape(result.shape)}, "
        f"{result.tiles} tile{'s' if result.tiles > 1 else ''}"
    )
    rows = [(f"  {name}", _said(value)) for name, value in result.parameters.items()]
    if result.change is not None:
        rows.append(("  change", result.change.say("method")))
    if result.clipped:
        rows.append(("  clipped pixels", str(result.clipped)))
    return "\n".join([head, columns(rows)])


def _said(value: object) -> str:
    """Say a parameter."""
    return number(value) if isinstance(value, float) else str(value)


RESTORE = Verb(_configure, _start, _summarise)
