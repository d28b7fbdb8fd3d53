"""``semsr train RECIPE -o RUN_DIR``: train a model."""

import argparse

from napari_semsr import jobs
from napari_semsr.cli.verb import (
    Verb,
    add_options,
    add_output,
    columns,
    length,
    number,
    options_from,
)
from napari_semsr.core import Job


def _configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "recipe",
        metavar="RECIPE",
        help="what to train, and how: a YAML file, or a recipe of the package "
        f"({', '.join(jobs.bundled_recipes())})",
    )
    add_output(parser, "folder of the run: checkpoints, log, model")
    parser.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint"
    )
    parser.add_argument(
        "--pairs",
        metavar="PAIRS.zarr",
        help="learn from these pairs, made by semsr pairs, instead of the images",
    )
    parser.add_argument(
        "--low",
        metavar="IMAGE",
        help="cut pairs from this image, the one to be improved, and from --high; they "
        "are cut as model and recipe want them, and lie beside the run",
    )
    parser.add_argument(
        "--high", metavar="IMAGE", help="what --low should look like: the same place"
    )
    parser.add_argument(
        "--transform",
        metavar="JSON",
        help="map from --low to --high that semsr register has kept, if they lie on "
        "two grids",
    )
    parser.add_argument(
        "--image",
        metavar="IMAGE",
        help="learn from this noisy image alone, as the recipe own-image does",
    )
    parser.add_argument(
        "--second",
        metavar="IMAGE",
        help="another scan of the place that --image shows, by the same instrument; it "
        "is registered, and each is learnt from the other",
    )
    parser.add_argument(
        "--start-from",
        metavar="MODEL",
        help="begin with the weights of a model: a name, or a model file",
    )
    parser.add_argument(
        "--steps", type=int, metavar="N", help="train this long; the schedule stretches"
    )
    parser.add_argument("--name", help="name of the model")
    parser.add_argument(
        "--patch",
        type=int,
        metavar="PX",
        help="side of the patches to learn from, no larger than those of the pairs",
    )
    parser.add_argument(
        "--anew",
        action="store_true",
        help="begin with fresh weights although the recipe names a model",
    )
    add_options(parser, jobs.TrainingPlace, title="place")


def _start(arguments: argparse.Namespace) -> Job["jobs.Trained"]:
    """Make the job."""
    cut = jobs.images_to_cut(
        arguments.low,
        arguments.high,
        arguments.transform,
        image=arguments.image,
        second=arguments.second,
    )
    return jobs.train_job(
        arguments.recipe,
        arguments.output,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        pairs=arguments.pairs,
        cut=cut,
        start_from=arguments.start_from,
        steps=arguments.steps,
        name=arguments.name,
        patch=arguments.patch,
        anew=arguments.anew,
        place=options_from(arguments, jobs.TrainingPlace),
    )


def _summarise(result: "jobs.Trained") -> str:
    """Say where the model is and how good."""
    rows = [("model", result.model), ("steps", str(result.steps))]
    figures = result.validation
    if isinstance(figures, dict):
        rows += [
            (
                f"  {name}",
                number(value, 4) if isinstance(value, float) else str(value),
            )
            for name, value in figures.items()
        ]
    elif figures is not None:
        rows.append(("held out", str(figures)))
    compared = result.comparison
    if compared is not None:
        rows.append((f"on {compared['pairs']} pairs of the {compared['set']} set", ""))
        rows += [(f"  {n}", _figures(row)) for n, row in compared["rows"].items()]
        gain = result.gain_over("untouched")
        if gain is not None:
            rows.append(("gain_db by training", f"{gain:+.2f}"))
        if compared["map_error_nm"] is not None:
            off = length(compared["map_error_nm"], compared["map_error_px"])
            rows.append(("expected error of the map", off))
    return columns(rows)


def _figures(row: dict[str, float]) -> str:
    """Say the figures of one row of the comparison."""
    return ", ".join(f"{k} {number(v, 4)}" for k, v in row.items())


TRAIN = Verb(_configure, _start, _summarise)
