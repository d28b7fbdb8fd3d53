"""``semsr metrics IMAGE [REFERENCE]``: how an image compares with a reference."""

import argparse

from napari_semsr.cli import text
from napari_semsr.cli.arguments import add_options, options_from
from napari_semsr.cli.inputs import add_image, add_opening, add_second, opening_from
from napari_semsr.cli.verb import Verb
from napari_semsr.core.progress import Job
from napari_semsr.services.measure_grey import (
    MetricsOptions,
    MetricsReport,
    metrics_job,
)

__all__ = ["VERB"]

_SHOWN = (
    ("psnr_db", "PSNR", "dB"),
    ("ssim", "SSIM", ""),
    ("nrmse", "NRMSE", ""),
    ("average_gradient", "average gradient", ""),
    ("contrast", "contrast", ""),
    ("spatial_frequency", "spatial frequency", ""),
    ("data_range", "data range", ""),
)


def _configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "image", "an image")
    add_second(parser, "reference", "the truth, of the same shape")
    add_options(parser, MetricsOptions, title="comparison")
    add_opening(parser)


def _start(arguments: argparse.Namespace) -> Job[MetricsReport]:
    """Make the job."""
    return metrics_job(
        arguments.image,
        arguments.reference,
        options=options_from(arguments, MetricsOptions),
        opening=opening_from(arguments),
    )


def _summarise(result: MetricsReport) -> str:
    """Say the figures."""
    record = result.to_json()
    rows = [
        (name, f"{text.number(record[key], 4)} {unit}".rstrip())
        for key, name, unit in _SHOWN
        if record.get(key) is not None
    ]
    if record.get("match"):
        rows.append(("matched", str(record["match"])))
    return text.columns(rows)


VERB = Verb(_configure, _start, _summarise)
