"""``semsr batch STEPS.yaml``: every image of a folder or table through steps."""

import argparse

from napari_semsr.cli.batch import BatchReport, batch_job
from napari_semsr.cli.verb import Command, add_image, add_options, columns, options_from
from napari_semsr.core import Job, compact_memory

_SHOWN = 12  # rows of failures in a summary


def _configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    from napari_semsr.inference import ClusterOptions

    add_image(parser, "steps", "a YAML file: inputs, output, and steps in order")
    parser.add_argument(
        "--inputs",
        metavar="IN",
        help="a folder, a glob in quotes, or a table (CSV) with the column image, in "
        "place of the file's",
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT", help="folder of all, in place of the file's"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="begin anew; without it, what is finished there is kept",
    )
    group = parser.add_argument_group("running")
    group.add_argument(
        "--workers",
        metavar="N",
        type=int,
        default=1,
        help="processes that take images side by side (default: 1)",
    )
    add_options(parser, ClusterOptions, title="cluster")


def _start(arguments: argparse.Namespace) -> Job[BatchReport]:
    """Make the job."""
    from napari_semsr.inference import ClusterOptions

    return batch_job(
        arguments.steps,
        inputs=arguments.inputs,
        output=arguments.output,
        overwrite=arguments.overwrite,
        workers=arguments.workers,
        scheduler=options_from(arguments, ClusterOptions).scheduler,
    )


def _summarise(result: BatchReport) -> str:
    """Say how many are done, and why others are not."""
    rows = [
        ("images", f"{result.done} done, {result.failed} failed"),
        ("steps", f"{result.ran} run, {result.kept} kept"),
        ("table", result.table),
    ]
    rows += [("report", ", ".join(result.report))] if result.report else []
    failed = [row for row in result.rows if row["error"]]
    rows += [("failed", f"{row['name']}: {row['error']}") for row in failed[:_SHOWN]]
    if len(failed) > _SHOWN:
        rows.append(("", f"and {len(failed) - _SHOWN} more; the table has all"))
    return columns(rows)


BATCH = Command(_configure, _start, _summarise, prepare=compact_memory)
