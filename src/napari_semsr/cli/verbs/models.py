"""``semsr models list|info|export|import|check|trust|architectures``: the shelf."""

import argparse
from typing import TYPE_CHECKING, Any

from napari_semsr import jobs
from napari_semsr.cli.verb import (
    Verb,
    add_options,
    add_overwrite,
    columns,
    number,
    options_from,
)
from napari_semsr.core import Job, OptionError

if TYPE_CHECKING:
    from collections.abc import Callable

    _Found = (
        jobs.ModelFile
        | jobs.ModelList
        | jobs.ArchitectureList
        | jobs.ModelCheck
        | jobs.TrustLearnt
    )

_ACTIONS = ("list", "info", "export", "import", "check", "trust", "architectures")
_SHARED = ("seed", "device")  # options of `check` and of `trust`
_CHECKING = ("images", "held_out", "write", *jobs.CheckOptions.model_fields)
_LEARNING = ("folder", *jobs.TrustLearning.model_fields)
_EXPORTING = ("to", "field", "author")
_PAIRS = ("percentiles", "levels")  # two values each
_IMPORTING = tuple(jobs.ImportOptions.model_fields)


def _configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("action", choices=_ACTIONS, help="what to do")
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help="a name on the shelf or a .safetensors file "
        f"(default: {jobs.DEFAULT_MODEL}); import also takes an .onnx file, a .zip of "
        "bioimage.io with ONNX weights, or a .pth file with published weights of "
        "ESRGAN",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="where export writes, a .safetensors, .onnx or .zip file, or trust, a "
        ".json file",
    )
    add_overwrite(parser)
    _configure_exchange(parser)
    _configure_check(parser)
    _configure_trust(parser)


def _configure_exchange(parser: argparse.ArgumentParser) -> None:
    """Add what `export` and `import` understand."""
    group = parser.add_argument_group("export", "a model for other programs")
    nothing = argparse.SUPPRESS
    group.add_argument(
        "--to",
        choices=["semsr", "onnx", "bioimageio"],
        default=nothing,
        help="what is written (default: by the suffix of OUT)",
    )
    group.add_argument(
        "--field",
        metavar="IMAGE",
        default=nothing,
        help="for a model that looks at whole fields, which others cannot: write the "
        "network that is told what ails this one, without the haze",
    )
    group.add_argument(
        "--author",
        metavar="NAME",
        action="append",
        default=nothing,
        help="who is named in a package of bioimage.io; may be given several times",
    )
    title = "import: options"
    add_options(parser, jobs.ImportOptions, title=title, exclude=_PAIRS)
    group = parser.add_argument_group("import: two values")
    for name in _PAIRS:
        info = jobs.ImportOptions.model_fields[name]
        group.add_argument(
            f"--{name}",
            nargs=2,
            metavar=("LOW", "HIGH"),
            default=nothing,
            help=info.description,
        )


def _configure_check(parser: argparse.ArgumentParser) -> None:
    """Add what `check` alone understands."""
    group = parser.add_argument_group(
        "check", "whether a model shows discs put into truths, and none taken out"
    )
    nothing = argparse.SUPPRESS
    group.add_argument(
        "--images",
        metavar="IMAGE",
        nargs="+",
        default=nothing,
        help="clear images to degrade (default: drawn samples)",
    )
    group.add_argument(
        "--held-out",
        metavar="FOLDER",
        default=nothing,
        help="folder of the clear images that the card names as held out",
    )
    group.add_argument(
        "--write",
        action="store_true",
        default=nothing,
        help="write what is found into the model's card; its weights stay, the digest "
        "of the file changes",
    )
    add_options(parser, jobs.CheckOptions, title="check: options")


def _configure_trust(parser: argparse.ArgumentParser) -> None:
    """Add what `trust` understands beside `check`."""
    group = parser.add_argument_group(
        "trust", "where a model errs, learnt for `semsr trust` from simulated fields"
    )
    group.add_argument(
        "--folder",
        metavar="FOLDER",
        default=argparse.SUPPRESS,
        help="folder of the clear images that the model's recipe names",
    )
    add_options(parser, jobs.TrustLearning, title="trust: options", exclude=_SHARED)


def _start_trust(arguments: argparse.Namespace) -> Job["jobs.TrustLearnt"]:
    """Make the job of `trust`."""
    return jobs.learn_trust_job(
        arguments.model or jobs.DEFAULT_MODEL,
        arguments.output,
        folder=vars(arguments).get("folder"),
        options=options_from(arguments, jobs.TrustLearning),
        overwrite=arguments.overwrite,
    )


def _start_check(arguments: argparse.Namespace) -> Job["jobs.ModelCheck"]:
    """Make the job of `check`."""
    given = vars(arguments)
    return jobs.check_model_job(
        arguments.model or jobs.DEFAULT_MODEL,
        given.get("images", ()),
        held_out=given.get("held_out"),
        options=options_from(arguments, jobs.CheckOptions),
        write="write" in given,
    )


def _start(arguments: argparse.Namespace) -> Job["_Found"]:
    """Make the job of one action."""
    action = arguments.action
    _refuse_foreign(arguments)
    starts: dict[str, Callable[[argparse.Namespace], Job[Any]]] = {
        "list": lambda _: jobs.list_models_job(),
        "architectures": lambda _: jobs.list_architectures_job(),
        "info": lambda a: jobs.model_info_job(a.model or jobs.DEFAULT_MODEL),
        "check": _start_check,
        "trust": _start_trust,
        "export": _start_export,
        "import": _start_import,
    }
    return starts[action](arguments)


def _refuse_foreign(arguments: argparse.Namespace) -> None:
    """Refuse options of another action."""
    takes = {
        "check": _CHECKING,
        "trust": _LEARNING,
        "export": _EXPORTING,
        "import": _IMPORTING,
    }
    own = takes.get(arguments.action, ())
    for other, names in takes.items():
        foreign = [name for name in names if name in vars(arguments)]
        foreign = [name for name in foreign if name not in own]
        if foreign:
            flag = "--" + foreign[0].replace("_", "-")
            msg = (
                f"{flag} belongs to `models {other}`, got `models {arguments.action}`."
            )
            raise OptionError(msg)


def _start_export(arguments: argparse.Namespace) -> Job["jobs.ModelFile"]:
    """Make the job of `export`."""
    if arguments.output is None:
        msg = "`models export` needs -o FILE.safetensors, FILE.onnx or FILE.zip."
        raise OptionError(msg)
    given = vars(arguments)
    return jobs.export_model_job(
        arguments.model or jobs.DEFAULT_MODEL,
        arguments.output,
        to=given.get("to"),
        field=given.get("field"),
        authors=given.get("author", ()),
        overwrite=arguments.overwrite,
    )


def _start_import(arguments: argparse.Namespace) -> Job["jobs.ModelFile"]:
    """Make the job of `import`."""
    if arguments.model is None:
        msg = "`models import` needs the file to put on the shelf."
        raise OptionError(msg)
    return jobs.import_model_job(
        arguments.model,
        options=options_from(arguments, jobs.ImportOptions),
        overwrite=arguments.overwrite,
    )


def _summarise(result: "_Found") -> str:
    """Say a list of models or of architectures, or one card."""
    if isinstance(result, jobs.ArchitectureList):
        return _say_architectures(result)
    if isinstance(result, jobs.ModelList):
        rows = [
            (row["name"], row["fault"] or row["description"] or row["architecture"])
            for row in result.models
        ]
        return columns(rows) or "no models"
    if isinstance(result, jobs.ModelCheck):
        return _say_check(result)
    if isinstance(result, jobs.TrustLearnt):
        return _say_trust(result)
    rows = [("path", result.path), ("size", f"{number(result.megabytes)} MB")]
    hidden = {"training", "checks"}
    if result.card.get("pixel_size_nm") is None:
        hidden.add("resample_factors")
    scaling = result.card["input_scaling"]
    hidden.add("input_levels" if scaling == "percentiles" else "input_percentiles")
    rows += [
        (name, str(value))
        for name, value in result.card.items()
        if value not in (None, "", {}, []) and name not in hidden
    ]
    for kind, record in jobs.DiscRecord.of_card(result.card).items():
        rows += [(f"discs, {kind.replace('_', ' ')}", line) for line in record.lines()]
    return columns([*rows, ("digest", result.digest)])


def _say_check(result: "jobs.ModelCheck") -> str:
    """Say a check as a table."""
    rows = list(jobs.DiscRecord(result.to_card()).rows())
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    kind = result.images.replace("_", " ")
    head = (
        f"{result.model}: discs that are rightly shown or not ({kind} images); in "
        "brackets, in the degraded image"
    )
    tail = [f"written into the card of {result.path}"] if result.written else []
    return "\n".join([head, "", *(line.rstrip() for line in lines), *tail])


def _say_trust(result: "jobs.TrustLearnt") -> str:
    """Say what was learnt of a model's errors."""
    bound = number(result.median_bound_percent)
    rows = [
        ("file", result.output),
        ("learnt from", f"{result.fields} fields"),
        ("calibrated on", f"{result.calibration} other fields"),
        ("bound", f"{number(result.factor)} times the scale, for {result.share:.0%}"),
        ("", f"half of the places have one below {bound} % of the range"),
    ]
    return columns([("model", result.model), *rows])


def _say_architectures(result: "jobs.ArchitectureList") -> str:
    """Say what can be built, one line each."""
    networks = []
    for row in result.architectures:
        facts = f"stride {row['stride']}, scale {row['scale']}: {row['summary']}"
        networks.append((row["name"], f"{row['weights'] / 1e6:.2f} M weights, {facts}"))
    judges = [
        (row["name"], f"{row['weights'] / 1e6:.2f} M weights: {row['summary']}")
        for row in result.discriminators
    ]
    return f"{columns(networks)}\n\ndiscriminators\n{columns(judges)}"


MODELS: Verb["_Found"] = Verb(_configure, _start, _summarise)
