"""``semsr histogram IMAGE [REFERENCE]``: grey-level distributions."""

import argparse

from napari_semsr.cli import text
from napari_semsr.cli.arguments import add_options, options_from
from napari_semsr.cli.inputs import add_image, add_opening, add_second, opening_from
from napari_semsr.cli.verb import Verb
from napari_semsr.core.progress import Job
from napari_semsr.services.measure_grey import (
    HistogramOptions,
    HistogramReport,
    histogram_job,
)

__all__ = ["VERB"]

_ROWS = 16
_BAR = 40


def _configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "image", "an image")
    add_second(parser, "reference", "another image, of any shape")
    add_options(parser, HistogramOptions, title="bins")
    add_opening(parser)


def _start(arguments: argparse.Namespace) -> Job[HistogramReport]:
    """Make the job."""
    return histogram_job(
        arguments.image,
        arguments.reference,
        options=options_from(arguments, HistogramOptions),
        opening=opening_from(arguments),
    )


def _summarise(result: HistogramReport) -> str:
    """Draw the distribution of the image in a few rows, and say the distance."""
    record = result.to_json()
    edges, counts = record["bins"], record["counts"]
    step = max(1, -(-len(counts) // _ROWS))
    sums = [sum(counts[i : i + step]) for i in range(0, len(counts), step)]
    top = max([*sums, 1])
    rows = [
        (
            text.number(edges[i * step], 4),
            "#" * max(round(count / top * _BAR), 1 if count else 0),
        )
        for i, count in enumerate(sums)
    ]
    if record.get("emd") is not None:
        rows.append(("distance", f"{text.number(record['emd'], 4)} grey levels"))
    return text.columns(rows)


VERB = Verb(_configure, _start, _summarise)
