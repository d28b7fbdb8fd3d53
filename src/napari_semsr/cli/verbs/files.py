"""``semsr convert IN OUT`` and ``semsr info PATH``: formats, and what a file is."""

import argparse

from napari_semsr import jobs
from napari_semsr.cli.verb import (
    Verb,
    add_image,
    add_opening,
    add_overwrite,
    columns,
    options_from,
    pixel_size,
    shape,
)
from napari_semsr.core import Job
from napari_semsr.io import ReadOptions


def _configure_convert(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "image", "the image to convert")
    add_image(
        parser, "output", "its suffix names the format: .ome.zarr .ome.tif .tif .png"
    )
    parser.add_argument(
        "--dtype", choices=jobs.DTYPES, help="type of the output, rounded and clipped"
    )
    add_overwrite(parser)
    add_opening(parser)


def _start_convert(arguments: argparse.Namespace) -> Job["jobs.Converted"]:
    """Make the job."""
    return jobs.convert_job(
        arguments.image,
        arguments.output,
        opening=options_from(arguments, ReadOptions),
        dtype=arguments.dtype,
        overwrite=arguments.overwrite,
    )


def _summarise_convert(result: "jobs.Converted") -> str:
    """Say what was written."""
    size = pixel_size(result.pixel_size_nm)
    said = f"{result.output}: {shape(result.shape)}, {result.dtype}, pixel {size}"
    return f"{said}, {result.clipped} pixels clipped" if result.clipped else said


CONVERT = Verb(_configure_convert, _start_convert, _summarise_convert)


# ``semsr info PATH``: what a file is.

_NOT_USED = {"series", "level", "channel", "plane", "crop_databar", "colour"}
_MOST_METADATA = 24


def _configure_info(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "path", "an image, an OME-Zarr store or a folder of frames")
    add_opening(parser, exclude=_NOT_USED)


def _start_info(arguments: argparse.Namespace) -> Job["jobs.Description"]:
    """Make the job."""
    return jobs.describe_job(
        arguments.path, options=options_from(arguments, ReadOptions)
    )


def _summarise_info(result: "jobs.Description") -> str:
    """Say what the file is."""
    facts = dict(result.facts)
    metadata = facts.pop("metadata", None) or {}
    network = facts.pop("network", None)
    rows = [("path", result.path)]
    rows += [("made by network", f"{network}: an estimate")] if network else []
    rows += [(name, _value(name, value)) for name, value in facts.items()]
    rows += [(f"  {name}", str(value)) for name, value in list(metadata.items())][
        :_MOST_METADATA
    ]
    hidden = len(metadata) - _MOST_METADATA
    more = f"\n  and {hidden} more; --json shows all" if hidden > 0 else ""
    return columns(rows) + more


def _value(name: str, value: object) -> str:
    """Say one fact."""
    if name == "pixel_size_nm":
        return pixel_size(value if isinstance(value, list) else None)
    if isinstance(value, list) and name == "shape":
        return shape(value)
    return "none" if value is None else str(value)


INFO = Verb(_configure_info, _start_info, _summarise_info)
