"""``semsr calibrate GRATING --pitch-nm P``: pixel size from a known grating."""

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
)
from napari_semsr.core import Calibration, Job

_PLUS_MINUS = "+-"


def _configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "grating", "picture of a grating")
    add_output(parser, "where the calibration goes, a .json file", required=False)
    add_options(parser, analysis.CalibrateOptions, title="grating")
    add_opening(parser, exclude={"pixel_size_nm", "pixel_size_sd_nm"})


def _start(arguments: argparse.Namespace) -> Job["jobs.CalibrationReport"]:
    """Make the job."""
    return jobs.calibrate_job(
        arguments.grating,
        arguments.output,
        **asked(arguments, analysis.CalibrateOptions),
    )


def _summarise(result: "jobs.CalibrationReport") -> str:
    """Say the figures with their errors."""
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
