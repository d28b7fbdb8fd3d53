"""``semsr frc-map A [B] -o OUT``: resolution block by block."""

import argparse

from napari_semsr.analysis.frc_map import FrcMapOptions
from napari_semsr.cli import text
from napari_semsr.cli.arguments import add_options, options_from
from napari_semsr.cli.inputs import (
    add_image,
    add_opening,
    add_output,
    add_second,
    opening_from,
)
from napari_semsr.cli.verb import Verb
from napari_semsr.core.progress import Job
from napari_semsr.services.measure_map import FrcMapReport, frc_map_job

__all__ = ["VERB"]


def _configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "a", "an image; alone, its blocks are split into halves")
    add_second(parser, "b", "a second, independent image of the same field")
    add_output(parser, "where the map goes; its suffix names the format")
    add_options(parser, FrcMapOptions, title="measurement")
    add_opening(parser)


def _start(arguments: argparse.Namespace) -> Job[FrcMapReport]:
    """Make the job."""
    return frc_map_job(
        arguments.a,
        arguments.b,
        arguments.output,
        options=options_from(arguments, FrcMapOptions),
        opening=opening_from(arguments),
        overwrite=arguments.overwrite,
    )


def _summarise(result: FrcMapReport) -> str:
    """Say the spread of the blocks."""
    rows = [
        ("map", f"{result.output} ({text.shape(result.shape)}, in {result.unit})"),
        ("blocks", f"{result.blocks}, of which {result.failed} without a crossing"),
        ("median", text.length(result.median_nm, result.median_px)),
        ("10 to 90 %", _spread(result)),
    ]
    rows += [
        (f"  {name}", str(count)) for name, count in result.reasons.items() if count
    ]
    return text.columns(rows)


def _spread(result: FrcMapReport) -> str:
    """Say the range that holds most blocks."""
    in_nm = result.unit == "nm"
    low, high = (
        (result.p10_nm, result.p90_nm) if in_nm else (result.p10_px, result.p90_px)
    )
    return f"{text.number(low)} to {text.number(high)} {result.unit}"


VERB = Verb(_configure, _start, _summarise)
