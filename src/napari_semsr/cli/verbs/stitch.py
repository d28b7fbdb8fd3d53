"""``semsr stitch FRAMES_DIR -o OUT``: from a folder of frames to one mosaic."""

import argparse
from typing import Any

from napari_semsr import jobs
from napari_semsr.cli.verb import (
    Verb,
    add_image,
    add_options,
    add_output,
    columns,
    known_pixel,
    number,
    options_from,
    pixel_size,
    shape,
)
from napari_semsr.core import Job


def _configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "frames_dir", "folder of frames, or one file of many pages")
    add_output(parser, "where the mosaic goes; its suffix names the format")
    group = parser.add_argument_group("positions")
    group.add_argument(
        "--positions",
        metavar="CSV",
        help="nominal top-left corners, header frame,y_px,x_px or frame,y_nm,x_nm "
        "(default: positions.csv in the folder)",
    )
    group.add_argument(
        "--positions-out", metavar="CSV", help="write the solved positions as a table"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with an interrupted output"
    )
    add_options(
        parser,
        jobs.StitchFolderOptions,
        title="frames, joints and blending",
        exclude={"known_distortion"},
    )


def _start(arguments: argparse.Namespace) -> Job["jobs.StitchedFile"]:
    """Make the job."""
    return jobs.stitch_job(
        arguments.frames_dir,
        arguments.output,
        positions=arguments.positions,
        positions_out=arguments.positions_out,
        options=options_from(arguments, jobs.StitchFolderOptions),
        overwrite=arguments.overwrite,
        resume=arguments.resume,
        keep=True,
    )


def _summarise(result: "jobs.StitchedFile") -> str:
    """Say what was written, and how far to trust it."""
    size = known_pixel(result.pixel_size_nm, result.pixel_size_sd_nm)
    stage = pixel_size(result.stage_pixel_size_nm)
    size = size if result.stage_pixel_size_nm is None else f"{size} (stage: {stage})"
    placed = result.frames - len(result.left_out)
    rows = [
        ("output", f"{result.output} ({shape(result.shape)}, {result.dtype})"),
        ("coverage", result.coverage),
        *(() if result.height is None else (("height", result.height),)),
        *(
            (f"half {name}", f"{half['output']} ({len(half['frames'])} frames)")
            for name, half in zip("ab", result.halves, strict=False)
        ),
        ("pixel size", size),
        ("frames", f"{placed} of {result.frames} placed"),
        ("joints", f"{result.pairs_used} used, {result.pairs_rejected} rejected"),
        ("residual", f"{number(result.residual_px)} px RMS"),
        ("distortion", _distortion(result)),
        ("shading left", f"{number(result.shading_percent)} % of the mean"),
        ("time", f"{number(result.seconds)} s"),
    ]
    rows += [(item["folder"], _height(item)) for item in result.heights]
    rows += [("left out", f"{item.frame}: {item.reason}") for item in result.left_out]
    return columns(rows)


def _distortion(result: "jobs.StitchedFile") -> str:
    """Say what was taken back, and how sure it is."""
    if result.distortion_sd is None:
        return number(result.distortion) if result.distortion else "not looked for"
    sure = f"+- {number(result.distortion_sd)} at the rim"
    if result.distortion_from == "calibration":
        return f"{number(result.distortion)} {sure}, of the calibration"
    found = number(result.distortion) if result.distortion else "none found, 0"
    return f"{found} {sure}"


def _height(item: dict[str, Any]) -> str:
    """Say how a height lies."""
    head = f"{number(item['z_nm'], 4)} nm"
    if item["y_px"] is None:
        return f"{head}, left out"
    return f"{head}, off by ({item['y_px']:+.2f}, {item['x_px']:+.2f}) px"


STITCH = Verb(_configure, _start, _summarise)
