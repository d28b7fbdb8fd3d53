"""``semsr frc A [B]``: resolution by Fourier ring correlation."""

import argparse

from napari_semsr.analysis.frc import FrcOptions
from napari_semsr.cli import text
from napari_semsr.cli.arguments import add_options, options_from
from napari_semsr.cli.inputs import add_image, add_opening, add_second, opening_from
from napari_semsr.cli.verb import Verb
from napari_semsr.core.progress import Job
from napari_semsr.services.measure_frc import FrcReport, frc_job

__all__ = ["VERB"]


def _configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "a", "an image; alone, it is split into halves")
    add_second(parser, "b", "a second, independent image of the same field")
    add_options(parser, FrcOptions, title="measurement")
    add_opening(parser)


def _start(arguments: argparse.Namespace) -> Job[FrcReport]:
    """Make the job."""
    return frc_job(
        arguments.a,
        arguments.b,
        options=options_from(arguments, FrcOptions),
        opening=opening_from(arguments),
    )


def _summarise(result: FrcReport) -> str:
    """Say the resolution, or why there is none."""
    found = result.result
    if found.resolution_px is None:
        answer = f"none: {found.reason}"
    else:
        answer = text.length(found.resolution_nm, found.resolution_px)
    rows = [("resolution", answer)]
    if found.interval_nm is not None:
        low, high = (text.number(value) for value in found.interval_nm)
        rows.append(("95 % interval", f"{low} to {high} nm"))
    rows += [("criterion", str(found.criterion)), ("method", str(found.method))]
    if found.reason is not None and found.resolution_px is not None:
        rows.append(("note", str(found.reason)))
    return text.columns(rows)


VERB = Verb(_configure, _start, _summarise)
