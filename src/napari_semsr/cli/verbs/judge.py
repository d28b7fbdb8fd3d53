"""``semsr judge OPTICAL SEM -o REPORT.html``: what a picture is worth, by electrons."""

import argparse

from napari_semsr import jobs
from napari_semsr.cli.verb import (
    Verb,
    add_image,
    add_openings,
    add_options,
    add_overwrite,
    length,
    number,
    options_from,
    shape,
)
from napari_semsr.core import Job

_NONE = "none"


def _configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    from napari_semsr.inference import EnhanceOptions

    add_image(parser, "optical", "the optical image, such as a mosaic")
    add_image(parser, "sem", "the SEM image of the same place")
    parser.add_argument(
        "-o",
        "--output",
        metavar="REPORT.html",
        required=True,
        help="where the page goes; every number goes beside it, with .json",
    )
    add_overwrite(parser)
    parser.add_argument(
        "--models",
        nargs="+",
        metavar="MODEL",
        help="networks on the shelf, or model files, that enhance OPTICAL; none leaves "
        f"them out (default: {jobs.MOSAIC_MODEL}, or {jobs.DEFAULT_MODEL} for an image "
        "of an electron microscope)",
    )
    group = parser.add_argument_group("transform")
    group.add_argument(
        "--landmarks",
        metavar="CSV",
        help="places that show the same in both, from which the map starts",
    )
    group.add_argument(
        "--transform", metavar="JSON", help="apply this stored map, and search for none"
    )
    add_options(parser, jobs.JudgeOptions, title="registration and measures")
    add_options(parser, EnhanceOptions, title="networks", exclude=("dtype", "batch"))
    add_openings(parser, moving="OPTICAL", fixed="SEM")


def _start(arguments: argparse.Namespace) -> Job["jobs.Judged"]:
    """Make the job."""
    from napari_semsr.inference import EnhanceOptions

    opening, sem_opening = jobs.both_openings(vars(arguments))
    models = arguments.models
    return jobs.judge_job(
        arguments.optical,
        arguments.sem,
        arguments.output,
        models=[] if models == [_NONE] else models,
        options=options_from(arguments, jobs.JudgeOptions),
        enhancing=options_from(arguments, EnhanceOptions),
        landmarks=arguments.landmarks,
        transform=arguments.transform,
        opening=opening,
        sem_opening=sem_opening,
        overwrite=arguments.overwrite,
    )


def _summarise(result: "jobs.Judged") -> str:
    """Set the figures of every picture in a table."""
    from napari_semsr.reporting import spread

    found = result.registration
    off = length(found["error_nm"], found["error_px"])
    size = shape(result.area["shape"])
    lines = [f"{result.output}: {size} of {result.sem}, map expected to be {off} off"]
    end = next(iter(result.baselines.values())).metrics.cut_off_nm
    split = () if end is None else (f"below {end:.4g} nm", "above")
    rows = [("", "PSNR (dB)", "over the input", *split, "SSIM", "agrees down to")]
    for item in result.pictures:
        gained = item.psnr_gain_db, item.psnr_gain_sd_db
        rows.append(
            (
                item.name,
                number(item.metrics.psnr_db, 4),
                *(
                    "" if gain[0] is None else spread(gain)
                    for gain in (gained, *item.light.bands[: len(split)])
                ),
                number(item.metrics.ssim),
                item.frc.reason or length(item.frc.resolution_nm),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        lines.append(f"  {'  '.join(cells)}".rstrip())
    return "\n".join(lines)


JUDGE = Verb(_configure, _start, _summarise)
