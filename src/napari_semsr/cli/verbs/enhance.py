"""``semsr enhance IN -o OUT``: sharpen and clean an image tile by tile."""

import argparse

from napari_semsr.cli._main import compact_memory
from napari_semsr.cli.parser import (
    Verb,
    add_image,
    add_opening,
    add_options,
    add_output,
    opening_from,
    options_from,
)
from napari_semsr.cli.text import columns, number, pixel_size, shape
from napari_semsr.core import Job
from napari_semsr.jobs import DEFAULT_MODEL, EnhancedFile, enhance_job


def _configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    from napari_semsr.inference import EnhanceOptions

    add_image(parser, "image", "the image to enhance")
    add_output(parser, "where the result goes; its suffix names the format")
    group = parser.add_argument_group("model and running")
    group.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="NAME|FILE",
        help=f"model on the shelf, or a .safetensors file (default: {DEFAULT_MODEL})",
    )
    group.add_argument(
        "--scheduler", metavar="ADDRESS", help="dask scheduler to run the tiles on"
    )
    group.add_argument(
        "--resume", action="store_true", help="go on with an interrupted output"
    )
    add_options(parser, EnhanceOptions, title="tiles")
    group.add_argument(
        "--no-resample",
        dest="resample",
        action="store_const",
        const="never",
        default=argparse.SUPPRESS,
        help="run the model at the field's own pixel size, as --resample never does",
    )
    add_opening(parser)


def _start(arguments: argparse.Namespace) -> Job[EnhancedFile]:
    """Make the job."""
    from napari_semsr.inference import EnhanceOptions

    compact_memory()
    return enhance_job(
        arguments.image,
        arguments.output,
        model=arguments.model,
        options=options_from(arguments, EnhanceOptions),
        opening=opening_from(arguments),
        overwrite=arguments.overwrite,
        resume=arguments.resume,
        scheduler=arguments.scheduler,
    )


def _summarise(result: EnhancedFile) -> str:
    """Say what was written and what it cost."""
    report = result.report
    size = pixel_size(result.pixel_size_nm)
    what = f"{shape(result.shape)}, {result.dtype}, pixel {size}"
    speed = f"{number(report.megapixels_per_second)} megapixel/s"
    rows = [
        ("output", f"{result.output} ({what})"),
        ("model", f"{report.model}, norm {report.norm}"),
        ("device", f"{report.device}, {report.precision}"),
        ("time", f"{number(report.seconds)} s, {report.tiles} tiles, {speed}"),
        ("memory", f"{number(report.peak_memory_mb)} MB at its peak"),
        ("tile mismatch", number(report.tile_mismatch)),
        ("seam index", number(report.seam_index)),
    ]
    if report.haze_gain is not None:
        least, most = (number(gain) for gain in report.haze_gain)
        rows.append(("haze", f"contrast raised by {least} to {most} across the field"))
    if report.clipped:
        rows.append(("clipped", f"{report.clipped} pixels by {result.dtype}"))
    rows += [("note", note) for note in report.notes]
    return columns(rows)


ENHANCE = Verb(_configure, _start, _summarise)
