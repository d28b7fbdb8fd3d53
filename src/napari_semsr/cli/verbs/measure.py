"""The verbs that measure: resolution, spectra, metrics, gaps, grey levels."""

import argparse

from napari_semsr.analysis import (
    FrcMapOptions,
    FrcOptions,
    GapOptions,
    MetricsOptions,
    SpectrumOptions,
)
from napari_semsr.cli.verb import (
    Verb,
    add_image,
    add_opening,
    add_options,
    add_output,
    columns,
    length,
    number,
    opening_from,
    options_from,
    pixel_size,
    shape,
)
from napari_semsr.core import Job
from napari_semsr.jobs import (
    FrcMapReport,
    FrcReport,
    GapReport,
    HistogramOptions,
    HistogramReport,
    MetricsReport,
    SpectrumReport,
    frc_job,
    frc_map_job,
    gaps_job,
    histogram_job,
    metrics_job,
    spectrum_job,
)

_SECOND = "a second, independent image of the same field"


def _configure_frc(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "a", "an image; alone, it is split into halves")
    add_image(
        parser, "b", "a second, independent image of the same field", optional=True
    )
    add_options(parser, FrcOptions, title="measurement")
    add_opening(parser)


def _start_frc(arguments: argparse.Namespace) -> Job[FrcReport]:
    """Make the job."""
    return frc_job(
        arguments.a,
        arguments.b,
        options=options_from(arguments, FrcOptions),
        opening=opening_from(arguments),
    )


def _summarise_frc(result: FrcReport) -> str:
    """Say the resolution, or why there is none."""
    found = result.result
    if found.resolution_px is None:
        answer = f"none: {found.reason}"
    else:
        answer = length(found.resolution_nm, found.resolution_px)
    rows = [("resolution", answer)]
    if found.interval_nm is not None:
        low, high = (number(value) for value in found.interval_nm)
        rows.append(("95 % interval", f"{low} to {high} nm"))
    rows += [("criterion", str(found.criterion)), ("method", str(found.method))]
    if found.reason is not None and found.resolution_px is not None:
        rows.append(("note", str(found.reason)))
    return columns(rows)


FRC = Verb(_configure_frc, _start_frc, _summarise_frc)


# ``semsr frc-map A [B] -o OUT``: resolution block by block.


def _configure_frc_map(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "a", "an image; alone, its blocks are split into halves")
    add_image(
        parser, "b", "a second, independent image of the same field", optional=True
    )
    add_output(parser, "where the map goes; its suffix names the format")
    add_options(parser, FrcMapOptions, title="measurement")
    add_opening(parser)


def _start_frc_map(arguments: argparse.Namespace) -> Job[FrcMapReport]:
    """Make the job."""
    return frc_map_job(
        arguments.a,
        arguments.b,
        arguments.output,
        options=options_from(arguments, FrcMapOptions),
        opening=opening_from(arguments),
        overwrite=arguments.overwrite,
    )


def _summarise_frc_map(result: FrcMapReport) -> str:
    """Say the spread of the blocks."""
    rows = [
        ("map", f"{result.output} ({shape(result.shape)}, in {result.unit})"),
        ("blocks", f"{result.blocks}, of which {result.failed} without a crossing"),
        ("median", length(result.median_nm, result.median_px)),
        ("10 to 90 %", _spread(result)),
    ]
    rows += [
        (f"  {name}", str(count)) for name, count in result.reasons.items() if count
    ]
    return columns(rows)


def _spread(result: FrcMapReport) -> str:
    """Say the range that holds most blocks."""
    in_nm = result.unit == "nm"
    low, high = (
        (result.p10_nm, result.p90_nm) if in_nm else (result.p10_px, result.p90_px)
    )
    return f"{number(low)} to {number(high)} {result.unit}"


FRC_MAP = Verb(_configure_frc_map, _start_frc_map, _summarise_frc_map)


# ``semsr gaps IMAGE [REFERENCE]``: gaps between particles.


def _configure_gaps(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "image", "an image of particles")
    add_image(parser, "reference", "a better image of the same field", optional=True)
    add_options(parser, GapOptions, title="gaps")
    add_opening(parser)


def _start_gaps(arguments: argparse.Namespace) -> Job[GapReport]:
    """Make the job."""
    return gaps_job(
        arguments.image,
        arguments.reference,
        options=options_from(arguments, GapOptions),
        opening=opening_from(arguments),
    )


def _summarise_gaps(result: GapReport) -> str:
    """Say the figures."""
    record = result.to_json()
    rows = [
        ("particles", str(record["particles"])),
        (
            "neighbours",
            f"{record['pairs']}, {record['excluded']} of unequal brightness",
        ),
        ("gaps", str(record["gaps"])),
    ]
    if record["undetected_fraction"] is not None:
        share = 100 * record["undetected_fraction"]
        error = length(record["mean_width_error_nm"], record["mean_width_error_px"])
        signed = length(
            record["mean_signed_width_error_nm"], record["mean_signed_width_error_px"]
        )
        rows += [
            ("detected", str(record["detected"])),
            ("undetected", f"{share:.1f} %"),
            ("mean width error", error),
            ("signed", signed),
        ]
    return columns(rows)


GAPS = Verb(_configure_gaps, _start_gaps, _summarise_gaps)


# ``semsr histogram IMAGE [REFERENCE]``: grey-level distributions.

_ROWS = 16
_BAR = 40


def _configure_histogram(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "image", "an image")
    add_image(parser, "reference", "another image, of any shape", optional=True)
    add_options(parser, HistogramOptions, title="bins")
    add_opening(parser)


def _start_histogram(arguments: argparse.Namespace) -> Job[HistogramReport]:
    """Make the job."""
    return histogram_job(
        arguments.image,
        arguments.reference,
        options=options_from(arguments, HistogramOptions),
        opening=opening_from(arguments),
    )


def _summarise_histogram(result: HistogramReport) -> str:
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


HISTOGRAM = Verb(_configure_histogram, _start_histogram, _summarise_histogram)


# ``semsr metrics IMAGE [REFERENCE]``: how an image compares with a reference.

_SHOWN = (
    ("psnr_db", "PSNR", "dB"),
    ("ssim", "SSIM", ""),
    ("nrmse", "NRMSE", ""),
    ("average_gradient", "average gradient", ""),
    ("contrast", "contrast", ""),
    ("spatial_frequency", "spatial frequency", ""),
    ("data_range", "data range", ""),
)


def _configure_metrics(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "image", "an image")
    add_image(parser, "reference", "the truth, of the same shape", optional=True)
    add_options(parser, MetricsOptions, title="comparison")
    add_opening(parser)


def _start_metrics(arguments: argparse.Namespace) -> Job[MetricsReport]:
    """Make the job."""
    return metrics_job(
        arguments.image,
        arguments.reference,
        options=options_from(arguments, MetricsOptions),
        opening=opening_from(arguments),
    )


def _summarise_metrics(result: MetricsReport) -> str:
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


METRICS = Verb(_configure_metrics, _start_metrics, _summarise_metrics)


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
    add_options(parser, SpectrumOptions, title="measurement")
    add_opening(parser)


def _start_spectrum(arguments: argparse.Namespace) -> Job[SpectrumReport]:
    """Make the job."""
    return spectrum_job(
        arguments.image,
        arguments.output,
        options=options_from(arguments, SpectrumOptions),
        opening=opening_from(arguments),
        overwrite=arguments.overwrite,
    )


def _summarise_spectrum(result: SpectrumReport) -> str:
    """Say the power at a few frequencies."""
    count = len(result.power)
    picks = sorted({max(0, round(share * count) - 1) for share in _SHARES})
    rows = [("image", result.image), ("pixel", pixel_size(result.pixel_size_nm))]
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


SPECTRUM = Verb(_configure_spectrum, _start_spectrum, _summarise_spectrum)
