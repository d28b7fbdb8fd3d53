"""``semsr models list|info|export|import|architectures``: the model shelf."""

import argparse

from napari_semsr.cli import text
from napari_semsr.cli.inputs import add_overwrite
from napari_semsr.cli.verb import Verb
from napari_semsr.core.errors import OptionError
from napari_semsr.core.progress import Job
from napari_semsr.services.architectures import ArchitectureList, list_architectures
from napari_semsr.services.shelf import (
    DEFAULT_MODEL,
    ModelFile,
    ModelList,
    export_model,
    import_model,
    list_models,
    model_info,
)

__all__ = ["VERB"]

_ACTIONS = ("list", "info", "export", "import", "architectures")
_Found = ModelFile | ModelList | ArchitectureList


def _configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("action", choices=_ACTIONS, help="what to do")
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help=f"a name on the shelf or a .safetensors file (default: {DEFAULT_MODEL}); "
        "import also takes a .pth file with published weights of ESRGAN",
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT", help="where export writes, a .safetensors file"
    )
    add_overwrite(parser)


def _start(arguments: argparse.Namespace) -> Job[_Found]:
    """Make the job of one action."""
    action, model = arguments.action, arguments.model
    if action == "list":
        return list_models()
    if action == "architectures":
        return list_architectures()
    if action == "info":
        return model_info(model or DEFAULT_MODEL)
    if action == "export":
        if arguments.output is None:
            msg = "`models export` needs -o FILE.safetensors."
            raise OptionError(msg)
        return export_model(
            model or DEFAULT_MODEL, arguments.output, overwrite=arguments.overwrite
        )
    if model is None:
        msg = "`models import` needs the .safetensors file to put on the shelf."
        raise OptionError(msg)
    return import_model(model, overwrite=arguments.overwrite)


def _summarise(result: _Found) -> str:
    """Say a list of models or of architectures, or one card."""
    if isinstance(result, ArchitectureList):
        return _say_architectures(result)
    if isinstance(result, ModelList):
        rows = [
            (row["name"], row["fault"] or row["description"] or row["architecture"])
            for row in result.models
        ]
        return text.columns(rows) or "no models"
    rows = [("path", result.path), ("size", f"{text.number(result.megabytes)} MB")]
    hidden = {"training"}
    if result.card.get("pixel_size_nm") is None:
        hidden.add("resample_factors")
    rows += [
        (name, str(value))
        for name, value in result.card.items()
        if value not in (None, "", {}, []) and name not in hidden
    ]
    return text.columns([*rows, ("digest", result.digest)])


def _say_architectures(result: ArchitectureList) -> str:
    """Say what can be built, one line each."""
    networks = []
    for row in result.architectures:
        facts = f"stride {row['stride']}, scale {row['scale']}: {row['summary']}"
        networks.append((row["name"], f"{row['weights'] / 1e6:.2f} M weights, {facts}"))
    judges = [
        (row["name"], f"{row['weights'] / 1e6:.2f} M weights: {row['summary']}")
        for row in result.discriminators
    ]
    return f"{text.columns(networks)}\n\ndiscriminators\n{text.columns(judges)}"


VERB: Verb[_Found] = Verb(_configure, _start, _summarise)
