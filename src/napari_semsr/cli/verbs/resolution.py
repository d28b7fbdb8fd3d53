"""``semsr frc``, ``frc-map``, ``decorrelation``, ``spectrum``: what is resolved."""

import argparse

from napari_semsr import analysis, jobs
from napari_semsr.cli.many import tabled
from napari_semsr.cli.verb import (
    Verb,
    add_image,
    add_opening,
    add_options,
    add_output,
    asked,
    columns,
    known_pixel,
    length,
    number,
    shape,
)
from napari_semsr.core import FloatPair, Job

_SECOND = "a second, independent image of the same field"


def _add_register(parser: argparse.ArgumentParser) -> None:
    """Add whether the second image is moved onto the first."""
    parser.add_argument(
        "--register",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="move the second image onto the first by parts of a pixel before "
        "(default: yes, where a shift is believed)",
    )


def _shift(
    moved: FloatPair | None, found: FloatPair | None, error: float | None
) -> list[tuple[str, str]]:
    """Say how far the second image lay off, and whether it was moved."""
    if found is None or error is None:
        return []
    said = f"({found[0]:.2f}, {found[1]:.2f}) ± {error:.2f} px"
    done = "taken off" if moved is not None else "left as it is"
    return [("shift found", f"{said}, {done}")]


def _interval(
    nm: FloatPair | None, px: FloatPair | None, name: str = "95 % interval"
) -> list[tuple[str, str]]:
    """Say what is left open, in nm where there is a pixel size."""
    shown, unit = (px, "px") if nm is None else (nm, "nm")
    if shown is None:
        return []
    low, high = (number(value) for value in shown)
    return [(name, f"{low} to {high} {unit}")]


def _configure_frc(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(
        parser,
        "a",
        "an image; alone, a mosaic is measured by the halves that stitch --halves "
        "wrote beside it, and any other is split",
    )
    add_image(parser, "b", _SECOND, optional=True)
    add_options(parser, analysis.FrcOptions, title="measurement")
    _add_register(parser)
    add_opening(parser)


def _start_frc(arguments: argparse.Namespace) -> Job["jobs.FrcReport"]:
    """Make the job."""
    return jobs.frc_job(
        arguments.a,
        arguments.b,
        register=arguments.register,
        **asked(arguments, analysis.FrcOptions),
    )


def _because(reason: str | None) -> str:
    """Say why there is no resolution, as JSON has it and in words."""
    said = analysis.REASON_TEXTS.get(reason or "")
    return f"{reason} ({said})" if said else str(reason)


def _summarise_frc(result: "jobs.FrcReport") -> str:
    """Say the resolution, or why there is none."""
    found = result.result
    if found.resolution_px is None:
        answer = f"none: {_because(found.reason)}"
    else:
        answer = length(found.resolution_nm, found.resolution_px)
    rows = [("resolution", answer)]
    rows += _interval(found.interval_nm, found.interval_px)
    rows += [
        ("pixel", known_pixel(result.pixel_size_nm, result.pixel_size_sd_nm)),
        ("criterion", str(found.criterion)),
        ("method", str(found.method)),
    ]
    if found.cut_off_nm is not None:
        both = number(found.correlation_below), number(found.correlation_above)
        rows += [
            ("optical cut-off", f"{number(found.cut_off_nm)} nm"),
            ("mean FRC", f"{both[0]} below it, {both[1]} above"),
        ]
    rows += _shift(found.shift_px, result.found_shift_px, result.found_shift_sd_px)
    if found.reason is not None and found.resolution_px is not None:
        rows.append(("note", _because(found.reason)))
    if result.note is not None:
        rows.append(("note", result.note))
    return columns(rows)


FRC = tabled(
    Verb(_configure_frc, _start_frc, _summarise_frc),
    "frc",
    ("a", "b"),
    switches=("register",),
)


# ``semsr frc-map A [B] -o OUT``: resolution block by block.


def _configure_frc_map(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(
        parser,
        "a",
        "an image; alone, a mosaic is measured by the halves that stitch --halves "
        "wrote beside it, and any other has its blocks split",
    )
    add_image(parser, "b", _SECOND, optional=True)
    add_output(
        parser,
        "where the map of one image goes; its suffix names the format",
        required=False,
    )
    add_options(
        parser, analysis.FrcMapOptions, title="measurement", exclude=("cut_off_nm",)
    )
    _add_register(parser)
    add_opening(parser)


def _start_frc_map(arguments: argparse.Namespace) -> Job["jobs.FrcMapReport"]:
    """Make the job."""
    return jobs.frc_map_job(
        arguments.a,
        arguments.b,
        arguments.output,
        register=arguments.register,
        **asked(arguments, analysis.FrcMapOptions),
    )


def _summarise_frc_map(result: "jobs.FrcMapReport") -> str:
    """Say the spread of the blocks."""
    known = result.blocks - result.failed
    rows = [
        ("map", f"{result.output} ({shape(result.shape)}, in {result.unit})"),
        ("blocks", f"{known} of {result.blocks} have a resolution"),
        ("median", length(result.median_nm, result.median_px)),
        *_interval(result.median_interval_nm, result.median_interval_px),
        *([("10 to 90 %", _spread(result))] if known else []),
        ("pixel", known_pixel(result.pixel_size_nm, result.pixel_size_sd_nm)),
        ("method", result.method),
        *_shift(result.shift_px, result.found_shift_px, result.found_shift_sd_px),
    ]
    rows += [
        ("none in", f"{count}: {_because(name)}")
        for name, count in result.reasons.items()
        if count
    ]
    if result.note is not None:
        rows.append(("note", result.note))
    return columns(rows)


def _spread(result: "jobs.FrcMapReport") -> str:
    """Say the range that holds most blocks."""
    in_nm = result.unit == "nm"
    low, high = (
        (result.p10_nm, result.p90_nm) if in_nm else (result.p10_px, result.p90_px)
    )
    return f"{number(low)} to {number(high)} {result.unit}"


FRC_MAP = tabled(
    Verb(_configure_frc_map, _start_frc_map, _summarise_frc_map),
    "frc-map",
    ("a", "b"),
    switches=("register",),
    output=True,
)


# ``semsr decorrelation IN``: the cut-off of one image.


def _configure_decorrelation(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "image", "an image")
    add_options(parser, analysis.DecorrelationOptions, title="measurement")
    add_opening(parser)


def _start_decorrelation(
    arguments: argparse.Namespace,
) -> Job["jobs.DecorrelationReport"]:
    """Make the job."""
    return jobs.decorrelation_job(
        arguments.image, **asked(arguments, analysis.DecorrelationOptions)
    )


def _summarise_decorrelation(result: "jobs.DecorrelationReport") -> str:
    """Say the cut-off, or why there is none."""
    found = result.result
    if found.resolution_px is None:
        said = analysis.NO_CUT_OFF[found.reason] if found.reason else ""
        rows = [("cut-off", f"none: {found.reason} ({said})")]
    else:
        rows = [("cut-off", length(found.resolution_nm, found.resolution_px))]
        rows += _interval(found.interval_nm, found.interval_px, "between")
    if found.block is not None:
        if found.p10_px is not None:
            unit, low, high = (
                ("px", found.p10_px, found.p90_px)
                if found.p10_nm is None
                else ("nm", found.p10_nm, found.p90_nm)
            )
            rows.append(("10 to 90 %", f"{number(low)} to {number(high)} {unit}"))
        failed = f"{found.failed} without a cut-off, {found.gaps} more with gaps"
        rows.append(("blocks", f"{found.blocks} of {found.block} px, {failed}"))
    known = known_pixel(result.pixel_size_nm, result.pixel_size_sd_nm)
    return columns([*rows, ("pixel", known), ("method", found.method)])


DECORRELATION = tabled(
    Verb(_configure_decorrelation, _start_decorrelation, _summarise_decorrelation),
    "decorrelation",
    ("image",),
)


# ``semsr spectrum IN [-o OUT]``: radial and 2-D power spectrum.

_SHARES = (0.125, 0.25, 0.5, 1.0)


def _configure_spectrum(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "image", "an image")
    add_output(
        parser,
        "an image file for the centred 2-D spectrum, or .csv for the radial curve",
        required=False,
    )
    add_options(parser, analysis.SpectrumOptions, title="measurement")
    add_opening(parser)


def _start_spectrum(arguments: argparse.Namespace) -> Job["jobs.SpectrumReport"]:
    """Make the job."""
    return jobs.spectrum_job(
        arguments.image, arguments.output, **asked(arguments, analysis.SpectrumOptions)
    )


def _summarise_spectrum(result: "jobs.SpectrumReport") -> str:
    """Say the power at a few frequencies."""
    count = len(result.power)
    picks = sorted({max(0, round(share * count) - 1) for share in _SHARES})
    rows = [
        ("image", result.image),
        ("pixel", known_pixel(result.pixel_size_nm, result.pixel_size_sd_nm)),
    ]
    rows += [
        (
            f"{number(result.frequency_per_px[pick])} / px",
            f"power {number(result.power[pick])}",
        )
        for pick in picks
        if count
    ]
    for name, path in (("2-D spectrum", result.centred), ("curve", result.table)):
        if path is not None:
            rows.append((name, path))
    return columns(rows)


SPECTRUM = tabled(
    Verb(_configure_spectrum, _start_spectrum, _summarise_spectrum),
    "spectrum",
    ("image",),
    output=False,
)
