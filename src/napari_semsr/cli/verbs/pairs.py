"""``semsr pairs LOW HIGH -o PAIRS.zarr``: patches to train on, in disjoint sets."""

import argparse
from typing import Any

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
)
from napari_semsr.core import Job
from napari_semsr.pairing import PairOptions


def _configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(
        parser, "low", "the image to be improved, or a folder or '*_low.png' of such"
    )
    add_image(
        parser, "high", "what it should look like, or a folder or '*_high.png' of such"
    )
    add_output(parser, "store of the pairs, .zarr; a contact sheet goes beside it")
    parser.add_argument(
        "--transform",
        metavar="JSON",
        help="map from LOW (moving) to HIGH (fixed), kept by semsr register",
    )
    add_options(parser, PairOptions, title="pairs")
    add_opening(parser)


def _start(arguments: argparse.Namespace) -> Job["jobs.PairsMade"]:
    """Make the job."""
    return jobs.pairs_job(
        arguments.low,
        arguments.high,
        arguments.output,
        transform=arguments.transform,
        **asked(arguments, PairOptions),
    )


def _summarise(result: "jobs.PairsMade") -> str:
    """Say what was cut."""
    rows = [(f"  {name}", str(getattr(result, name))) for name in _SETS]
    rows += [(f"  left out: {k}", str(n)) for k, n in result.rejected.items()]
    if result.scale != 1 or result.scale_note:
        why = f" ({result.scale_note})" if result.scale_note else ""
        rows.append(("  scale", f"{result.scale}{why}"))
    if result.pixel_size_nm is not None:
        rows.append(("  pixel", f"{number(result.pixel_size_nm, 4)} nm"))
    rows.append(("  contact sheet", result.sheet))
    if len(result.images) > 1:
        rows += [("  of " + row["name"], _of_one(row)) for row in result.images]
    head = f"{result.output}: {result.kind} patches of {result.patch} px"
    return "\n".join([head, columns(rows)])


def _of_one(row: dict[str, Any]) -> str:
    """Say what one pair of images gave."""
    if "refused" in row:
        return f"left out: {row['refused']}"
    sets = [f"{name} {row[name]}" for name in _SETS if row[name]]
    left = [f"left out: {why} {count}" for why, count in row["rejected"].items()]
    return ", ".join(sets + left)


_SETS = ("train", "validation", "test")
PAIRS = Verb(_configure, _start, _summarise)
