"""``semsr convert IN OUT``: any readable image to any writable one."""

import argparse

from napari_semsr.cli import text
from napari_semsr.cli.inputs import add_image, add_opening, add_overwrite, opening_from
from napari_semsr.cli.verb import Verb
from napari_semsr.core.progress import Job
from napari_semsr.services.convert import DTYPES, Converted, convert

__all__ = ["VERB"]


def _configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "image", "the image to convert")
    add_image(
        parser, "output", "its suffix names the format: .ome.zarr .ome.tif .tif .png"
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, help="type of the output, rounded and clipped"
    )
    add_overwrite(parser)
    add_opening(parser)


def _start(arguments: argparse.Namespace) -> Job[Converted]:
    """Make the job."""
    return convert(
        arguments.image,
        arguments.output,
        opening=opening_from(arguments),
        dtype=arguments.dtype,
        overwrite=arguments.overwrite,
    )


def _summarise(result: Converted) -> str:
    """Say what was written."""
    size = text.pixel_size(result.pixel_size_nm)
    said = f"{result.output}: {text.shape(result.shape)}, {result.dtype}, pixel {size}"
    return f"{said}, {result.clipped} pixels clipped" if result.clipped else said


VERB = Verb(_configure, _start, _summarise)
