"""``semsr report INPUT... -o REPORT.html``: pictures and numbers on a page."""

import argparse

from napari_semsr import jobs
from napari_semsr.cli.verb import (
    Verb,
    add_opening,
    add_options,
    add_output,
    asked,
    columns,
)
from napari_semsr.core import Job


def _configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="images and stores, JSON that a measuring verb wrote, and pairs as A::B, "
        "of which A is the reference",
    )
    add_output(parser, "the page, .html; every number goes beside it as .json")
    add_options(parser, jobs.ReportOptions, title="report")
    add_opening(parser)


def _start(arguments: argparse.Namespace) -> Job["jobs.ReportMade"]:
    """Make the job."""
    return jobs.report_job(
        arguments.inputs, arguments.output, **asked(arguments, jobs.ReportOptions)
    )


def _summarise(result: "jobs.ReportMade") -> str:
    """Say where the page is, and what it tells of."""
    rows = [("  numbers", result.numbers)]
    for name, items in (
        ("images", result.images),
        ("pairs", result.pairs),
        ("files", result.files),
    ):
        rows += [(f"  {name}", ", ".join(items))] if items else []
    if result.refused:
        rows.append(
            ("  refused", f"{result.refused}, each with its reason on the page")
        )
    return "\n".join([f"{result.path}: written in {result.seconds} s", columns(rows)])


REPORT = Verb(_configure, _start, _summarise)
