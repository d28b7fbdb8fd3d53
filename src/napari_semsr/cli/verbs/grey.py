"""``semsr metrics``, ``error-map``, ``repeatability``, ``gaps``, ``histogram``."""

import argparse
from collections.abc import Mapping
from typing import Any

from napari_semsr import analysis, jobs
from napari_semsr.cli.many import tabled
from napari_semsr.cli.verb import (
    Verb,
    add_image,
    add_opening,
    add_options,
    add_output,
    add_overwrite,
    asked,
    columns,
    known_pixel,
    length,
    number,
    shape,
)
from napari_semsr.core import Job

# ``semsr error-map REFERENCE ENHANCED -o OUT``: where both do not agree.


def _configure_error_map(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "reference", "the image as it was taken")
    add_image(
        parser, "enhanced", "what was made of it, as fine or finer", optional=True
    )
    add_output(
        parser,
        "where the map of one image goes; its suffix names the format",
        required=False,
    )
    add_options(parser, analysis.ErrorMapOptions, title="comparison")
    add_opening(parser)


def _start_error_map(arguments: argparse.Namespace) -> Job["jobs.ErrorMapReport"]:
    """Make the job."""
    return jobs.error_map_job(
        arguments.reference,
        arguments.enhanced,
        arguments.output,
        **asked(arguments, analysis.ErrorMapOptions),
    )


def _summarise_error_map(result: "jobs.ErrorMapReport") -> str:
    """Say the figures."""
    unit = "grey levels" if result.unit == "grey" else "% of the range"
    blur = length(result.sigma_nm, result.sigma_px)
    rows = [
        ("map", f"{result.output} ({shape(result.shape)}, in {unit})"),
        ("RSE", f"{number(result.rse)} grey levels"),
        ("", f"{number(result.rse_percent)} % of the reference's range"),
        ("RSP", number(result.rsp, 4)),
        ("blur, sigma", blur),
        ("gain, offset", f"{number(result.alpha, 4)}, {number(result.beta, 4)}"),
        ("moved by", result.moved),
        ("pixel", known_pixel(result.pixel_size_nm, result.pixel_size_sd_nm)),
    ]
    if result.looked_at < 1:
        rows.append(("fitted on", f"{result.looked_at:.1%} of the field"))
    return columns(rows)


ERROR_MAP = tabled(
    Verb(_configure_error_map, _start_error_map, _summarise_error_map),
    "error-map",
    ("reference", "enhanced"),
    output=True,
)


# ``semsr repeatability FIRST SECOND -o OUT``: two scans of one place.


def _configure_repeatability(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "first", "a scan")
    add_image(parser, "second", "another of the same place, taken alike", optional=True)
    add_output(
        parser,
        "where the map of one pair goes; its suffix names the format",
        required=False,
    )
    add_options(parser, analysis.RepeatabilityOptions, title="comparison")
    add_opening(parser)


def _start_repeatability(
    arguments: argparse.Namespace,
) -> Job["jobs.RepeatabilityReport"]:
    """Make the job."""
    return jobs.repeatability_job(
        arguments.first,
        arguments.second,
        arguments.output,
        **asked(arguments, analysis.RepeatabilityOptions),
    )


def _summarise_repeatability(result: "jobs.RepeatabilityReport") -> str:
    """Say the figures."""
    unit = "grey levels" if result.unit == "grey" else "% of the range"
    what = "all" if result.part == "all" else "without noise"

    def both(grey: float, percent: float) -> str:
        return f"{number(grey)} grey levels, {number(percent)} % of the range"

    share = result.noise_share
    rows = [
        ("map", f"{result.output} ({shape(result.shape)}, {what}, in {unit})"),
        ("repeatability s.d.", both(result.sd, result.sd_percent)),
        ("  noise", both(result.noise, result.noise_percent)),
        ("  the rest", both(result.rest, result.rest_percent)),
        ("noise's share", number(None if share is None else 100 * share) + " %"),
        ("map, mean", both(result.mean, result.mean_percent)),
        ("map, 95th percentile", both(result.p95, result.p95_percent)),
        ("gain, offset", f"{number(result.gain, 4)}, {number(result.offset, 4)}"),
        ("correlation", number(result.correlation, 4)),
        ("moved by", result.moved),
        ("pixel", known_pixel(result.pixel_size_nm, result.pixel_size_sd_nm)),
    ]
    return columns(rows)


REPEATABILITY = tabled(
    Verb(_configure_repeatability, _start_repeatability, _summarise_repeatability),
    "repeatability",
    ("first", "second"),
    output=True,
)


# ``semsr gaps IMAGE [REFERENCE]``: gaps between particles.


def _configure_gaps(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "image", "an image of particles")
    add_image(parser, "reference", "a better image of the same field", optional=True)
    add_options(parser, analysis.GapOptions, title="gaps")
    parser.add_argument(
        "--table",
        metavar="CSV",
        help="write a row for each gap of one image into this file, or a row for each "
        "of many images (.csv or .parquet)",
    )
    add_overwrite(parser)
    add_opening(parser)


def _start_gaps(arguments: argparse.Namespace) -> Job["jobs.GapReport"]:
    """Make the job."""
    return jobs.gaps_job(
        arguments.image,
        arguments.reference,
        table=arguments.table,
        **asked(arguments, analysis.GapOptions),
    )


def _summarise_gaps(result: "jobs.GapReport") -> str:
    """Say the figures."""
    record = result.to_json()
    rows = [
        ("pixel", known_pixel(result.pixel_size_nm, result.pixel_size_sd_nm)),
        ("particles", str(record["particles"])),
        ("mean diameter", _length(record, "mean_diameter")),
        ("median diameter", _length(record, "median_diameter")),
        (
            "neighbours",
            f"{record['pairs']}, {record['excluded']} of unequal brightness",
        ),
        ("gaps", str(record["gaps"])),
        ("mean width", _length(record, "mean_width")),
    ]
    if record["undetected_fraction"] is not None:
        rows += [
            ("in the reference", _length(record, "mean_reference_width")),
            ("detected", str(record["detected"])),
            ("undetected", _share(record, "undetected")),
            ("invented", _share(record, "invented")),
            ("mean width error", _length(record, "mean_width_error")),
            ("signed", _length(record, "mean_signed_width_error")),
        ]
    fits = [("image", result.histograms[0].fit)]
    known = result.histograms[1]
    fits += [] if known is None else [("reference", known.fit)]
    rows += [
        (
            f"Gaussian, {name}",
            f"{number(fit.mean)} +- {number(fit.error, 2)} {result.unit}",
        )
        for name, fit in fits
        if fit is not None
    ]
    if result.table is not None:
        rows.append(("table", result.table))
    return columns(rows)


def _share(record: Mapping[str, Any], name: str) -> str:
    """Say a share in per cent, with its interval."""
    share, interval = record[f"{name}_fraction"], record[f"{name}_interval"]
    if share is None or interval is None:
        return number(None)
    low, high = (f"{100 * end:.1f}" for end in interval)
    return f"{100 * share:.1f} % (95 %: {low} to {high} %)"


def _length(record: Mapping[str, Any], name: str) -> str:
    """Say a length, with its interval where there is one."""
    said = length(record[f"{name}_nm"], record[f"{name}_px"])
    unit = "px" if record["pixel_size_nm"] is None else "nm"
    interval = record.get(f"{name}_interval_{unit}")
    if interval is None:
        return said
    low, high = map(number, interval)
    return f"{said}, 95 %: {low} to {high} {unit}"


GAPS = tabled(
    Verb(_configure_gaps, _start_gaps, _summarise_gaps),
    "gaps",
    ("image", "reference"),
    own_table=True,
)


# ``semsr histogram IMAGE [REFERENCE]``: grey-level distributions.

_ROWS = 16
_BAR = 40


def _configure_histogram(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "image", "an image")
    add_image(parser, "reference", "another image, of any shape", optional=True)
    add_options(parser, jobs.HistogramOptions, title="bins")
    add_opening(parser)


def _start_histogram(arguments: argparse.Namespace) -> Job["jobs.HistogramReport"]:
    """Make the job."""
    return jobs.histogram_job(
        arguments.image, arguments.reference, **asked(arguments, jobs.HistogramOptions)
    )


def _summarise_histogram(result: "jobs.HistogramReport") -> str:
    """Draw the distribution of the image in a few rows, and say the distance."""
    record = result.to_json()
    edges, counts = record["bins"], record["counts"]
    step = max(1, -(-len(counts) // _ROWS))
    sums = [sum(counts[i : i + step]) for i in range(0, len(counts), step)]
    top = max([*sums, 1])
    rows = [
        (
            number(edges[i * step], 4),
            "#" * max(round(count / top * _BAR), 1 if count else 0),
        )
        for i, count in enumerate(sums)
    ]
    if record.get("emd") is not None:
        rows.append(("distance", f"{number(record['emd'], 4)} grey levels"))
    return columns(rows)


HISTOGRAM = tabled(
    Verb(_configure_histogram, _start_histogram, _summarise_histogram),
    "histogram",
    ("image", "reference"),
)


# ``semsr metrics IMAGE [REFERENCE]``: how an image compares with a reference.

_SHOWN = (
    ("psnr_db", "PSNR", "dB"),
    ("ssim", "SSIM", ""),
    ("nrmse", "NRMSE", ""),
    ("cut_off_nm", "optical cut-off", "nm"),
    ("psnr_below_db", "PSNR below it", "dB"),
    ("psnr_above_db", "PSNR above it", "dB"),
    ("psnr_above_blank_db", "above, if blank", "dB"),
    ("average_gradient", "average gradient", ""),
    ("contrast", "contrast", ""),
    ("spatial_frequency", "spatial frequency", ""),
    ("data_range", "data range", ""),
)


def _configure_metrics(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "image", "an image")
    add_image(parser, "reference", "the truth, of the same shape", optional=True)
    add_options(parser, analysis.MetricsOptions, title="comparison")
    add_opening(parser)


def _start_metrics(arguments: argparse.Namespace) -> Job["jobs.MetricsReport"]:
    """Make the job."""
    return jobs.metrics_job(
        arguments.image,
        arguments.reference,
        **asked(arguments, analysis.MetricsOptions),
    )


def _summarise_metrics(result: "jobs.MetricsReport") -> str:
    """Say the figures."""
    record = result.to_json()
    rows = [
        (name, f"{number(record[key], 4)} {unit}".rstrip())
        for key, name, unit in _SHOWN
        if record.get(key) is not None
    ]
    if record.get("match"):
        rows.append(("matched", str(record["match"])))
    return columns(rows)


METRICS = tabled(
    Verb(_configure_metrics, _start_metrics, _summarise_metrics),
    "metrics",
    ("image", "reference"),
)
