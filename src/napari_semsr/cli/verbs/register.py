"""``semsr register MOVING FIXED -o OUT``: an image on the grid of another."""

import argparse

from napari_semsr import jobs
from napari_semsr.cli.verb import (
    Verb,
    add_image,
    add_openings,
    add_options,
    add_output,
    columns,
    known_pixel,
    length,
    number,
    options_from,
    shape,
)
from napari_semsr.core import Job

_FOUND = {
    "near": "search near what the pixel sizes say",
    "full": "search of every turn",
    "landmarks": "landmarks",
    "stored": "stored transform",
}


def _configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "moving", "the image that is brought onto the other")
    add_image(parser, "fixed", "the image that stays, such as the SEM image")
    add_output(
        parser, "where MOVING on the grid of FIXED goes; its suffix names the format"
    )
    group = parser.add_argument_group("transform")
    group.add_argument(
        "--landmarks",
        metavar="CSV",
        help="places that show the same in both, from which the map starts",
    )
    group.add_argument(
        "--transform-out",
        metavar="FILE",
        help="write the map here: .json for other images, or .tfm (ITK), .ngff.json or "
        ".csv (napari) for other programs",
    )
    group.add_argument(
        "--transform", metavar="JSON", help="apply this stored map, and search for none"
    )
    add_options(parser, jobs.RegisterOptions, title="registration")
    add_openings(parser, moving="MOVING", fixed="FIXED")


def _start(arguments: argparse.Namespace) -> Job["jobs.Registered"]:
    """Make the job."""
    moving, fixed = jobs.both_openings(vars(arguments))
    return jobs.register_job(
        arguments.moving,
        arguments.fixed,
        arguments.output,
        options=options_from(arguments, jobs.RegisterOptions),
        landmarks=arguments.landmarks,
        transform=arguments.transform,
        transform_out=arguments.transform_out,
        opening=moving,
        fixed_opening=fixed,
        overwrite=arguments.overwrite,
    )


def _summarise(result: "jobs.Registered") -> str:
    """Say how the image lies, and how sure that is."""
    size = known_pixel(result.pixel_size_nm, result.pixel_size_sd_nm)
    head = f"{result.output}: {shape(result.shape)}, {result.dtype}, pixel {size}"
    found = result.transform
    mirrored = ", mirrored" if found["mirrored"] else ""
    turned = round(found["degrees"], 2)
    way = "anticlockwise" if turned < 0 else "clockwise"
    before, after = result.mutual_information_before, result.mutual_information_after
    rows = [
        ("  map", f"{result.model}, by {_FOUND[result.searched]}"),
        ("  turned by", f"{abs(turned):.2f} degrees {way}{mirrored}"),
        ("  scaled by", number(found["scale"], 4)),
        ("  expected error", length(result.error_nm, result.error_px)),
        ("  overlap", f"{result.overlap:.0%} of the smaller image"),
        (
            "  mutual information",
            f"{number(before)} before, {number(after)} bits after",
        ),
    ]
    if result.patches:
        kind = "landmarks" if result.searched == "landmarks" else "patches held out"
        low, high = (
            number(v) for v in (result.residual_median_nm, result.residual_p95_nm)
        )
        rows.append(
            ("  residuals", f"median {low} nm, 95 % {high} nm, {result.patches} {kind}")
        )
    if result.unreliable:
        rows.append(("  unreliable", f"{result.unreliable:.0%} of the patches"))
    if result.transform_output is not None:
        rows.append(("  transform", result.transform_output))
    return "\n".join([head, columns(rows)])


REGISTER = Verb(_configure, _start, _summarise)
