"""``semsr simulate OUT_DIR``: a folder of superlens frames whose truth is known."""

import argparse

from napari_semsr import jobs
from napari_semsr.cli.verb import (
    Verb,
    add_image,
    add_opening,
    add_options,
    add_overwrite,
    columns as columns_of,
    options_from,
    pixel_size,
    shape,
)
from napari_semsr.core import Job, OptionError
from napari_semsr.io import ReadOptions


def _configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "out_dir", "folder for the frames and their truth")
    parser.add_argument(
        "--from", dest="image", metavar="IMAGE", help="scan this image, not a phantom"
    )
    add_options(parser, jobs.SimulateOptions, title="sample, microscope and scan")
    add_overwrite(parser)
    add_opening(parser, exclude={"pixel_size_nm", "pixel_size_sd_nm"})


def _start(arguments: argparse.Namespace) -> Job["jobs.SimulatedScan"]:
    """Make the job."""
    if arguments.image is not None and "phantom" in arguments:
        msg = "Give --phantom or --from, not both."
        raise OptionError(msg)
    return jobs.simulate_job(
        arguments.out_dir,
        image=arguments.image,
        options=options_from(arguments, jobs.SimulateOptions),
        opening=options_from(arguments, ReadOptions, pixel_size_nm=None),
        overwrite=arguments.overwrite,
    )


def _summarise(result: "jobs.SimulatedScan") -> str:
    """Say what was made."""
    rows, columns = result.grid
    head = (
        f"{result.output}: {result.frames} frames ({rows} x {columns}) of "
        f"{shape(result.frame_shape)}"
    )
    facts = [("  pixel", pixel_size(result.pixel_size_nm)), ("  truth", result.truth)]
    facts += [("  also", path) for path in result.extra]
    facts += [(f"  {name}", kind) for name, kind in result.bad_frames.items()]
    return "\n".join([head, columns_of(facts)])


SIMULATE = Verb(_configure, _start, _summarise)
