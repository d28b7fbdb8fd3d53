"""``semsr gaps IMAGE [REFERENCE]``: gaps between particles."""

import argparse

from napari_semsr.cli import text
from napari_semsr.cli.arguments import add_options, options_from
from napari_semsr.cli.inputs import add_image, add_opening, add_second, opening_from
from napari_semsr.cli.verb import Verb
from napari_semsr.core.progress import Job
from napari_semsr.services.measure_gaps import GapOptions, GapReport, gaps_job

__all__ = ["VERB"]


def _configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "image", "an image of particles")
    add_second(parser, "reference", "a better image of the same field")
    add_options(parser, GapOptions, title="gaps")
    add_opening(parser)


def _start(arguments: argparse.Namespace) -> Job[GapReport]:
    """Make the job."""
    return gaps_job(
        arguments.image,
        arguments.reference,
        options=options_from(arguments, GapOptions),
        opening=opening_from(arguments),
    )


def _summarise(result: GapReport) -> str:
    """Say the figures."""
    record = result.to_json()
    rows = [
        ("particles", str(record["particles"])),
        (
            "neighbours",
            f"{record['pairs']}, {record['excluded']} of unequal brightness",
        ),
        ("gaps", str(record["gaps"])),
    ]
    if record["undetected_fraction"] is not None:
        share = 100 * record["undetected_fraction"]
        error = text.length(
            record["mean_width_error_nm"], record["mean_width_error_px"]
        )
        signed = text.length(
            record["mean_signed_width_error_nm"], record["mean_signed_width_error_px"]
        )
        rows += [
            ("detected", str(record["detected"])),
            ("undetected", f"{share:.1f} %"),
            ("mean width error", error),
            ("signed", signed),
        ]
    return text.columns(rows)


VERB = Verb(_configure, _start, _summarise)
