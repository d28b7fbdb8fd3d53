"""``semsr spectrum IN [-o OUT]``: radial and 2-D power spectrum."""

import argparse

from napari_semsr.analysis.spectrum import SpectrumOptions
from napari_semsr.cli import text
from napari_semsr.cli.arguments import add_options, options_from
from napari_semsr.cli.inputs import add_image, add_opening, add_output, opening_from
from napari_semsr.cli.verb import Verb
from napari_semsr.core.progress import Job
from napari_semsr.services.measure_spectrum import SpectrumReport, spectrum_job

__all__ = ["VERB"]

_SHARES = (0.125, 0.25, 0.5, 1.0)


def _configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "image", "an image")
    add_output(
        parser,
        "an image file for the centred 2-D spectrum, or .csv for the radial curve",
        required=False,
    )
    add_options(parser, SpectrumOptions, title="measurement")
    add_opening(parser)


def _start(arguments: argparse.Namespace) -> Job[SpectrumReport]:
    """Make the job."""
    return spectrum_job(
        arguments.image,
        arguments.output,
        options=options_from(arguments, SpectrumOptions),
        opening=opening_from(arguments),
        overwrite=arguments.overwrite,
    )


def _summarise(result: SpectrumReport) -> str:
    """Say the power at a few frequencies."""
    count = len(result.power)
    picks = sorted({max(0, round(share * count) - 1) for share in _SHARES})
    rows = [("image", result.image), ("pixel", text.pixel_size(result.pixel_size_nm))]
    rows += [
        (
            f"{text.number(result.frequency_per_px[pick])} / px",
            f"power {text.number(result.power[pick])}",
        )
        for pick in picks
        if count
    ]
    for name, path in (("2-D spectrum", result.centred), ("curve", result.table)):
        if path is not None:
            rows.append((name, path))
    return text.columns(rows)


VERB = Verb(_configure, _start, _summarise)
