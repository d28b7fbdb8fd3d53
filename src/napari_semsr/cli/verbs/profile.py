"""``semsr profile IMAGE --line Y0,X0,Y1,X1``: what a line across an image reads."""

import argparse
from collections.abc import Iterator

from napari_semsr import analysis, jobs
from napari_semsr.cli.many import tabled
from napari_semsr.cli.verb import (
    Verb,
    add_image,
    add_opening,
    add_options,
    asked,
    columns,
    known_pixel,
    number,
)
from napari_semsr.core import Job

_SHOWN = 12  # lines of a summary


def _configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "image", "an image")
    add_options(parser, analysis.ProfileOptions, title="profile")
    add_opening(parser)


def _start(arguments: argparse.Namespace) -> Job["jobs.ProfileReport"]:
    """Make the job."""
    return jobs.profile_job(
        arguments.image, **asked(arguments, analysis.ProfileOptions)
    )


def _summarise(result: "jobs.ProfileReport") -> str:
    """Say the readings."""
    found, profile = result.readings, result.profile
    whole = _said(profile, None, profile.length_px)
    rows = [
        ("image", result.image),
        ("pixel", known_pixel(result.pixel_size_nm, result.pixel_size_sd_nm)),
        ("line", f"{whole} long, {profile.lines} wide"),
    ]
    if found.reason is not None:
        rows.append(("nothing", found.reason))
    if found.edge is not None:
        edge = found.edge
        rows.append(("edge at", _said(profile, edge.place, None)))
        rows.append(("10 to 90 %", _both(profile, edge.width, edge.plain_width)))
    rows += _line_rows(result)
    for pair in found.pairs[:_SHOWN]:
        both = f"{pair.first + 1} and {pair.first + 2}"
        apart = _both(profile, pair.distance, pair.plain_distance)
        rows.append((f"distance {both}", apart))
        dip = f"{_share(pair.dip)}; plain {number(100 * pair.plain_dip)} %"
        judged = f"Rayleigh: {pair.rayleigh}; Sparrow: {pair.sparrow}"
        rows.append((f"dip {both}", f"{dip}; {judged}"))
    return columns(rows)


def _line_rows(result: "jobs.ProfileReport") -> Iterator[tuple[str, str]]:
    """Say place and width of each line."""
    lines, profile = result.readings.lines, result.profile
    kind = "dark line" if result.readings.dark else "line"
    for place, line in enumerate(lines[:_SHOWN], start=1):
        width = _both(profile, line.fwhm, line.plain_fwhm)
        at = _said(profile, line.place, None)
        yield f"{kind} {place} at", at
        yield f"FWHM {place}", f"{width} ({line.model})"
    if len(lines) > _SHOWN:
        yield "", f"and {len(lines) - _SHOWN} more; --json has all"


def _both(
    profile: "analysis.Profile", fitted: "analysis.Estimate | None", plain: float | None
) -> str:
    """Say a length by its fit, and plainly."""
    return f"{_said(profile, fitted, None)}; plain {_said(profile, None, plain)}"


def _said(
    profile: "analysis.Profile", fitted: "analysis.Estimate | None", plain: float | None
) -> str:
    """Say a length with its standard deviation, in nm where there is a pixel size."""
    in_nm = profile.nm_per_px is not None
    unit = "nm" if in_nm else "px"
    if fitted is None:
        return f"{number(jobs.in_nm(profile, plain) if in_nm else plain)} {unit}"
    shown = jobs.length_in_nm(profile, fitted) if in_nm else fitted
    if shown is None:
        return f"{number(None)} {unit}"
    return f"{number(shown.value, 4)} +- {number(shown.sd, 2)} {unit}"


def _share(dip: "analysis.Estimate | None") -> str:
    """Say a dip in per cent."""
    if dip is None:
        return number(None)
    return f"{number(100 * dip.value)} +- {number(100 * dip.sd, 2)} %"


PROFILE = tabled(Verb(_configure, _start, _summarise), "profile", ("image",))
