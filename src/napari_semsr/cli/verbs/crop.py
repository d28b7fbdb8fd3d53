"""``semsr crop IN -o OUT``: a box, or the area of another image on its grid."""

import argparse

from napari_semsr import jobs
from napari_semsr.cli.verb import (
    Verb,
    add_image,
    add_opening,
    add_options,
    add_output,
    asked,
    columns,
    known_pixel,
    number,
    shape,
)
from napari_semsr.core import Job

_BOXES = {
    "box": "rows Y0 to Y1 and columns X0 to X1 of the image, the last ones excluded",
    "box_nm": "the same between places in nm, where the image's origin counts",
}


def _configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "image", "the image to cut")
    add_output(parser, "where the part goes; its suffix names the format")
    parser.add_argument(
        "--resume", action="store_true", help="go on with an interrupted output"
    )
    group = parser.add_argument_group("area")
    group.add_argument(
        "--like",
        metavar="REFERENCE",
        help="what this image shows too, on its grid: places are compared in nm",
    )
    group.add_argument(
        "--like-out", metavar="OUT", help="write the same area of the reference here"
    )
    for name, told in _BOXES.items():
        group.add_argument(
            "--" + name.replace("_", "-"),
            nargs=4,
            metavar=("Y0", "X0", "Y1", "X1"),
            default=argparse.SUPPRESS,
            help=told,
        )
    add_options(parser, jobs.CropOptions, title="cutting", exclude=tuple(_BOXES))
    add_opening(parser)


def _start(arguments: argparse.Namespace) -> Job["jobs.Cropped"]:
    """Make the job."""
    return jobs.crop_job(
        arguments.image,
        arguments.output,
        like=arguments.like,
        like_output=arguments.like_out,
        resume=arguments.resume,
        keep=True,
        **asked(arguments, jobs.CropOptions),
    )


def _summarise(result: "jobs.Cropped") -> str:
    """Say what was cut, and how the images lie."""
    size = known_pixel(result.pixel_size_nm, result.pixel_size_sd_nm)
    head = f"{result.output}: {shape(result.shape)}, {result.dtype}, pixel {size}"
    y0, x0, y1, x1 = result.area
    rows = [("  area", f"rows {y0} to {y1}, columns {x0} to {x1}")]
    rows.append(
        ("  grey values", "interpolated" if result.resampled else "as they are")
    )
    if result.like_output is not None:
        rows.append(("  reference", result.like_output))
    if result.shift_px is not None and result.shift_nm is not None:
        px = ", ".join(f"{v:+.2f}" for v in result.shift_px)
        nm = ", ".join(f"{v:+.1f}" for v in result.shift_nm)
        rows += [
            ("  moved by", f"({px}) px = ({nm}) nm, down and right"),
            ("  standard error", f"{number(result.shift_error_px, 2)} px"),
            ("  found by", f"{result.quarters} of 4 quarters of the common area"),
            ("  runner-up", f"{number(result.runner_up, 2)} of the best"),
            ("  correlation", f"{number(result.correlation, 2)}"),
        ]
    if result.clipped:
        rows.append(("  clipped pixels", str(result.clipped)))
    return "\n".join([head, columns(rows)])


CROP = Verb(_configure, _start, _summarise)
