"""``semsr trust IMAGE ENHANCED -o OUT``: how far an enhanced image may be off."""

import argparse

from napari_semsr import jobs
from napari_semsr.cli.many import tabled
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


def _configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "image", "what was enhanced")
    add_image(parser, "enhanced", "what was made of it", optional=True)
    add_output(
        parser,
        "where the map of one image goes; its suffix names the format",
        required=False,
    )
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="what made it (default: the model that the enhanced image names)",
    )
    parser.add_argument(
        "--objects",
        metavar="TABLE",
        help="write a row for each small object, and how likely it is invented, into "
        "this file, .csv or .parquet; napari opens the former as points",
    )
    add_options(parser, jobs.TrustOptions, title="map")
    add_opening(parser)


def _start(arguments: argparse.Namespace) -> Job["jobs.TrustReport"]:
    """Make the job."""
    return jobs.trust_job(
        arguments.image,
        arguments.enhanced,
        arguments.output,
        model=arguments.model,
        objects=arguments.objects,
        **asked(arguments, jobs.TrustOptions),
    )


def _summarise(result: "jobs.TrustReport") -> str:
    """Say the figures."""
    unit = "% of the range" if result.unit == "percent" else "grey levels"
    rows = [
        ("map", f"{result.output} ({shape(result.shape)}, {result.shown} in {unit})"),
        ("model", f"{result.model} ({result.model_digest[7:23]})"),
    ]
    if result.share is not None:
        rows.append(("bound", f"the error is below it in {result.share:.0%} of places"))
    rows += [
        (
            "",
            f"{name}: mean {number(one['mean'])} %"
            + (f", 95 % below {number(one['p95'])} %" if "p95" in one else ""),
        )
        for name, one in result.kinds.items()
        if one is not None
    ]
    if result.objects is not None:
        said = f"{result.doubtful} of {result.objects} likely invented"
        said += f", listed in {result.table}" if result.table else ""
        rows.append(("objects", said))
    if result.familiar is not None:
        far = f"{result.unfamiliar_fraction:.0%} of its blocks are unlike"
        said = "yes" if result.familiar else "NO, the bound is not warranted here"
        rows.append(("familiar", f"{said}: {far} the fields of the calibration"))
    return columns(rows)


TRUST = tabled(
    Verb(_configure, _start, _summarise),
    "trust",
    ("image", "enhanced"),
    switches=("model",),
    output=True,
)
