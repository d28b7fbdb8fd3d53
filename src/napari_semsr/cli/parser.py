"""The parser of ``semsr``: verbs are named here and configured by their own modules."""

import argparse
import inspect
import types
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib import import_module
from typing import (
    Any,
    Generic,
    Literal,
    NoReturn,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

from pydantic.fields import FieldInfo

from napari_semsr.core import Job, OptionError, Options
from napari_semsr.io import ReadOptions
from napari_semsr.jobs import Result

# Flags made from the frozen option models, so that nothing is said twice.

O = TypeVar("O", bound=Options)  # noqa: E741


def add_options(
    parser: argparse.ArgumentParser,
    model: type[Options],
    *,
    title: str = "options",
    exclude: Collection[str] = (),
) -> None:
    """Add one flag for each field of an option model.

    Values are handed on as typed: the model itself checks them, so that a command, a
    panel and a store refuse the same values in the same words.
    """
    group = parser.add_argument_group(title)
    told = _attributes_of(model)
    for name, info in model.model_fields.items():
        if name not in exclude:
            _add_field(group, name, info, info.description or told.get(name, ""))


def options_from(arguments: argparse.Namespace, model: type[O], **changes: Any) -> O:
    """Make options of what was typed."""
    given = vars(arguments)
    values = {name: given[name] for name in model.model_fields if name in given}
    return model.parse({**values, **changes})


def _add_field(
    group: argparse._ArgumentGroup, name: str, info: FieldInfo, description: str
) -> None:
    """Add the flag of one field."""
    kind = _without_none(info.annotation)
    text = _help(info, description)
    flag = "--" + name.replace("_", "-")
    if kind is bool:
        action: Any = argparse.BooleanOptionalAction if info.default else "store_true"
        group.add_argument(
            flag, dest=name, action=action, default=argparse.SUPPRESS, help=text
        )
        return
    extra: dict[str, Any] = {"metavar": _metavar(name, kind)}
    if get_origin(kind) is Literal:
        extra = {"choices": [str(item) for item in get_args(kind)]}
    group.add_argument(flag, dest=name, default=argparse.SUPPRESS, help=text, **extra)


def _without_none(annotation: Any) -> Any:
    """Return the type of an optional field without its None."""
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not types.NoneType]
        return kinds[0] if len(kinds) == 1 else str
    return annotation


def _metavar(name: str, kind: Any) -> str:
    """Choose a short word for a value."""
    if kind is int:
        return "N"
    if kind is float:
        return "X"
    return name.split("_")[0].upper()


def _attributes_of(model: type[Options]) -> dict[str, str]:
    """Read what a model's docstring tells of its attributes."""
    lines = inspect.cleandoc(model.__doc__ or "").splitlines()
    found: dict[str, str] = {}
    names: list[str] = []
    for line in lines[lines.index("Attributes") + 2 :] if "Attributes" in lines else []:
        if line[:1].strip():
            names = [name.strip() for name in line.partition(" : ")[0].split(",")]
        elif line.strip():
            text = line.strip().replace("``", "")
            found.update(
                {name: f"{found.get(name, '')} {text}".strip() for name in names}
            )
    return found


def _help(info: FieldInfo, description: str) -> str:
    """Join a field's description and its default."""
    text = description.rstrip(".")
    text = text[:1].lower() + text[1:] if text[1:2].islower() else text
    default = info.get_default(call_default_factory=False)
    shown = not info.is_required() and default is not None and default is not False
    text = f"{text} (default: {default})" if shown else text
    return text.replace("%", "%%")


# Arguments that several verbs share: how to open an image, how to write one.


def add_image(parser: argparse.ArgumentParser, name: str, text: str) -> None:
    """Add the positional path of an image."""
    parser.add_argument(name, metavar=name.upper(), type=_path, help=text)


def add_second(parser: argparse.ArgumentParser, name: str, text: str) -> None:
    """Add the positional path of a second image that may be left out."""
    parser.add_argument(name, metavar=name.upper(), type=_path, nargs="?", help=text)


def add_output(
    parser: argparse.ArgumentParser, text: str, *, required: bool = True
) -> None:
    """Add ``-o`` and ``--overwrite``."""
    parser.add_argument(
        "-o", "--output", metavar="OUT", type=_path, required=required, help=text
    )
    add_overwrite(parser)


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add ``--overwrite``."""
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an existing output"
    )


def add_opening(
    parser: argparse.ArgumentParser, *, exclude: Collection[str] = ()
) -> None:
    """Add the flags that say how to read an image."""
    add_options(parser, ReadOptions, title="reading", exclude=exclude)


def opening_from(arguments: argparse.Namespace) -> ReadOptions:
    """Make reading options of what was typed."""
    return options_from(arguments, ReadOptions)


def _path(text: str) -> str:
    """Refuse an empty path, which would mean the current folder."""
    if not text.strip():
        msg = "a path must not be empty"
        raise argparse.ArgumentTypeError(msg)
    return text


VERBS = {
    "info": "say what a file is: size, type, pixel size, vendor, metadata",
    "convert": "write any readable image in any writable format",
    "crop": "cut out a box, or what another image shows, on the grid of that image",
    "simulate": "make a folder of superlens frames whose truth is known",
    "stitch": "join a folder of frames to one calibrated mosaic",
    "degrade": "blur and haze an image as published test sets do, add noise and drift",
    "pairs": "cut aligned patches into disjoint training, validation and test sets",
    "train": "train a model from a recipe",
    "enhance": "sharpen and clean an image tile by tile with a model",
    "restore": "undo blur by a classical method: Wiener, Richardson-Lucy and others",
    "frc": "measure resolution by Fourier ring correlation",
    "frc-map": "map the resolution block by block",
    "spectrum": "radially averaged and 2-D power spectrum",
    "metrics": "compare an image with a reference: PSNR, SSIM, NRMSE and more",
    "gaps": "count and measure the gaps between particles",
    "histogram": "grey-level distributions and their distance",
    "models": "list, describe, export, import and check models",
    "demo": "frames to mosaic, enhanced and measured on drawn samples, with a report",
}
"""What each verb does, in the order of the help."""

_FAMILIES = {
    "info": "files",
    "convert": "files",
    "frc": "measure",
    "frc-map": "measure",
    "spectrum": "measure",
    "metrics": "measure",
    "gaps": "measure",
    "histogram": "measure",
}
"""Modules that serve several verbs; every other bears its verb's name."""


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one sentence, raised and not printed."""

    def error(self, message: str) -> NoReturn:
        sentence = message[:1].upper() + message[1:].rstrip(".")
        msg = f"{sentence}; see `{self.prog} --help`."
        raise OptionError(msg)


def load_verb(name: str) -> "Verb[Any]":
    """Import the module that serves a verb."""
    word = name.replace("-", "_")
    module = import_module(f"napari_semsr.cli.verbs.{_FAMILIES.get(name, word)}")
    verb: Verb[Any] = getattr(module, word.upper())
    return verb


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """Build the parser, with the arguments of one verb or of all."""
    parser = _Parser(
        prog="semsr",
        description="Enhance and measure SEM and superlens images.",
        epilog="Lengths are nanometres; `semsr VERB --help` lists a verb's options.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    _add_common(parser)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    for name, text in VERBS.items():
        one = verbs.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            allow_abbrev=False,
        )
        if only is None or only == name:
            load_verb(name).configure(one)
            _add_common(one)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    """Add what every verb understands, before the verb or after it."""
    group = parser.add_argument_group("output")
    told = {
        "--json": "print one JSON object on stdout",
        "--quiet": "no progress and no warnings on stderr",
        "--debug": "show the traceback of an error",
    }
    for flag, text in told.items():
        group.add_argument(
            flag, action="store_true", default=argparse.SUPPRESS, help=text
        )


# What a verb is: arguments, a job, and a summary of its result.

R = TypeVar("R", bound=Result)


@dataclass(frozen=True, slots=True)
class Verb(Generic[R]):
    """One sub-command of ``semsr``."""

    # Adds the verb's arguments to its parser
    configure: Callable[[argparse.ArgumentParser], None]
    # Makes the job of parsed arguments, without running it
    start: Callable[[argparse.Namespace], Job[R]]
    summarise: Callable[[R], str]  # Says a result in one or more lines
