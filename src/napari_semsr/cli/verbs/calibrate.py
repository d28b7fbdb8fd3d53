"""``semsr calibrate GRATING --pitch-nm P``: pixel size from a grating or a bar."""

import argparse

from napari_semsr import analysis, jobs
from napari_semsr.cli.verb import (
    Verb,
    add_image,
    add_opening,
    add_options,
    add_output,
    asked,
    columns,
    number,
    options_from,
)
from napari_semsr.core import Calibration, Job, OptionError
from napari_semsr.io import ReadOptions

_PLUS_MINUS = "+-"


def _configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "grating", "picture of a grating, or with a printed scale bar")
    add_output(parser, "where the calibration goes, a .json file", required=False)
    parser.add_argument(
        "--bar",
        nargs="?",
        const="",
        metavar="LENGTH",
        help="look for the printed scale bar instead of a grating; with what its label "
        "says, as '50 um', it gives the pixel size",
    )
    add_options(parser, analysis.CalibrateOptions, title="grating")
    add_opening(parser, exclude={"pixel_size_nm", "pixel_size_sd_nm"})


def _start(
    arguments: argparse.Namespace,
) -> Job["jobs.CalibrationReport | jobs.ScaleBarReport"]:
    """Make the job."""
    if arguments.bar is not None:
        said = [
            name
            for name in analysis.CalibrateOptions.model_fields
            if name in vars(arguments)
        ]
        if said:
            msg = f"A printed bar is no grating: leave {', '.join(said)} out, or --bar."
            raise OptionError(msg)
        return jobs.scale_bar_job(
            arguments.grating,
            arguments.output,
            length=arguments.bar or None,
            opening=options_from(arguments, ReadOptions),
            overwrite=arguments.overwrite,
        )
    return jobs.calibrate_job(
        arguments.grating,
        arguments.output,
        **asked(arguments, analysis.CalibrateOptions),
    )


def _summarise(result: "jobs.CalibrationReport | jobs.ScaleBarReport") -> str:
    """Say the figures with their errors."""
    if isinstance(result, jobs.ScaleBarReport):
        return _summarise_bar(result)
    found = result.calibration
    rows = []
    for axis, size, error in zip(
        "yx", found.pixel_size_nm, found.pixel_size_sd_nm, strict=True
    ):
        rows.append(
            (f"pixel {axis}", f"{size:.6g} {_PLUS_MINUS} {number(error, 2)} nm")
        )
    if found.skew is not None:
        skew = f"{number(found.skew)} {_PLUS_MINUS} {number(found.skew_sd, 2)} degrees"
        rows.append(("skew", skew))
    bent = f"{number(found.distortion)} {_PLUS_MINUS} {number(found.distortion_sd, 2)}"
    rows += [
        ("distortion", f"{bent} at the rim"),
        *_centre(found),
        ("grating", f"{found.lattice}, {found.periods:.1f} periods"),
        ("residual", f"{number(found.residual_nm)} nm RMS"),
    ]
    if result.output is not None:
        rows.append(("output", result.output))
    return columns(rows)


def _summarise_bar(result: "jobs.ScaleBarReport") -> str:
    """Say where the bar is, and the pixel size or what is wanting for it."""
    y0, x0, y1, x1 = result.box
    bar = f"{result.bar_px:g} {_PLUS_MINUS} {number(result.bar_sd_px, 2)} px"
    rows = [("bar", bar), ("place", f"rows {y0} to {y1 - 1}, columns {x0} to {x1 - 1}")]
    found = result.calibration
    if found is None and result.suggested_nm is not None:
        rows.append(("label", f"reads {result.label}, if the network is right"))
        rows.append(("suggests", f"{result.suggested_nm:.6g} nm a pixel"))
        rows.append(("length", f"check the label, and run with --bar '{result.label}'"))
    elif found is None:
        rows.append(("length", "not given: read its label, and run with --bar '50 um'"))
    else:
        error = found.pixel_size_sd_nm[1]
        said = f"{found.pixel_size_nm[1]:.6g} {_PLUS_MINUS} {number(error, 2)} nm"
        rows.append(("pixel", said))
    if result.stated_nm is not None:
        rows.append(("the file says", f"{result.stated_nm[1]:.6g} nm"))
    if result.output is not None:
        rows.append(("output", result.output))
    return columns(rows)


def _centre(found: Calibration) -> list[tuple[str, str]]:
    """Say where the distortion's centre lies, where that is not the middle."""
    if found.centre_px is None or found.centre_sd_px is None:
        return []
    y, x = (
        f"{at:+.1f} {_PLUS_MINUS} {number(error, 2)}"
        for at, error in zip(found.centre_px, found.centre_sd_px, strict=True)
    )
    return [("its centre", f"y {y}, x {x} px off the middle")]


CALIBRATE = Verb(_configure, _start, _summarise)
