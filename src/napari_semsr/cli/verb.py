"""What the verbs of ``semsr`` share: their flags, their words, and what a verb is."""

import argparse
import inspect
import types
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

from pydantic.fields import FieldInfo

from napari_semsr.core import Job, Options, legible, persons_options, words_of
from napari_semsr.io import ReadOptions, with_calibration

if TYPE_CHECKING:
    from napari_semsr.jobs import Result

# Flags made from the frozen option models, so that nothing is said twice.

O = TypeVar("O", bound=Options)  # noqa: E741


def add_options(
    parser: argparse.ArgumentParser,
    model: type[Options],
    *,
    title: str = "options",
    exclude: Collection[str] = (),
    prefix: str = "",
) -> None:
    """Add one flag for each field of an option model, with a prefix before its name.

    Values are handed on as typed: the model itself checks them, so that a command, a
    panel and a store refuse the same values in the same words.
    """
    group = parser.add_argument_group(title)
    told, persons = _attributes_of(model), persons_options(model)
    for name, info in model.model_fields.items():
        if name not in exclude:
            text = info.description or told.get(name, "")
            action = _add_field(group, name, info, text, prefix)
            vars(action)["by_person"] = name in persons  # batch files must not give it
    known = set(model.model_fields) - set(exclude)
    if "pixel_size_sd_nm" in known:
        group.add_argument(
            f"--{prefix.replace('_', '-')}calibration",
            metavar="JSON",
            default=argparse.SUPPRESS,
            help="pixel size and its standard deviation, as `semsr calibrate` wrote "
            "them",
        )


def options_from(arguments: argparse.Namespace, model: type[O], **changes: Any) -> O:
    """Make options of what was typed."""
    given = vars(arguments)
    names = [*model.model_fields, "calibration"]
    values = {name: given[name] for name in names if name in given}
    if "pixel_size_sd_nm" in model.model_fields:
        values = with_calibration(values, [model])
    if "calibration" not in model.model_fields:  # a file, told by now
        values.pop("calibration", None)
    return model.parse({**values, **changes})


def _add_field(
    group: argparse._ArgumentGroup,
    name: str,
    info: FieldInfo,
    description: str,
    prefix: str,
) -> argparse.Action:
    """Add the flag of one field."""
    kind = _without_none(info.annotation)
    text = _help(info, description)
    dest = prefix + name
    flag = "--" + dest.replace("_", "-")
    for other, value in (words_of(info).flags or {}).items():
        same = f"the same as {flag} {value}"
        how = {"action": "store_const", "const": value, "default": argparse.SUPPRESS}
        group.add_argument(other, dest=dest, help=same, **how)
    if kind is bool:
        action: Any = argparse.BooleanOptionalAction if info.default else "store_true"
        return group.add_argument(
            flag, dest=dest, action=action, default=argparse.SUPPRESS, help=text
        )
    told = words_of(info).metavar
    extra: dict[str, Any] = {"metavar": told or _metavar(name, kind)}
    if isinstance(told, tuple):
        extra["nargs"] = len(told)
    if bool in get_args(info.annotation):  # it may stand without a value
        extra |= {"nargs": "?", "const": True}
    if get_origin(kind) is Literal:
        extra = {"choices": [str(item) for item in get_args(kind)]}
    return group.add_argument(
        flag, dest=dest, default=argparse.SUPPRESS, help=text, **extra
    )


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
    shown = (
        not info.is_required() and default not in (None, "") and default is not False
    )
    if isinstance(default, tuple):  # of rows and columns, as they are typed
        default = "x".join(map(str, default))
    text = f"{text} (default: {default})" if shown else text
    return text.replace("%", "%%")


# Arguments that several verbs share: how to open an image, how to write one.


def add_image(
    parser: argparse.ArgumentParser,
    name: str,
    text: str,
    *,
    optional: bool = False,
    many: bool = False,
    metavar: str = "",
) -> None:
    """Add the positional path of an image, or of several."""
    nargs = "+" if many else "?" if optional else None
    said = metavar or name.upper()
    parser.add_argument(name, metavar=said, type=path_word, nargs=nargs, help=text)


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


def add_openings(parser: argparse.ArgumentParser, **sides: str) -> None:
    """Add the flags that say how to read two images, for both and for each alone."""
    add_opening(parser)
    for side, name in sides.items():
        add_options(
            parser,
            ReadOptions,
            title=f"reading {name} alone, over what is given for both",
            prefix=f"{side}_",
        )


def path_word(text: str) -> str:
    """Refuse an empty path, which would mean the current folder."""
    if not text.strip():
        msg = "a path must not be empty"
        raise argparse.ArgumentTypeError(msg)
    return text


# What a verb is: arguments, a job, and a summary of its result.

R = TypeVar("R", bound="Result")


def _nothing() -> None:
    """Prepare nothing."""


@dataclass(frozen=True, slots=True)
class Command(Generic[R]):
    """One sub-command of ``semsr``."""

    # Adds the verb's arguments to its parser
    configure: Callable[[argparse.ArgumentParser], None]
    # Makes the job of parsed arguments, without running it
    start: Callable[[argparse.Namespace], Job[R]]
    summarise: Callable[[R], str]  # Says a result in one or more lines
    # Sets up a process that does nothing else; not where another program runs the job
    prepare: Callable[[], object] = _nothing


def columns(rows: Iterable[tuple[str, str]]) -> str:
    """Set names and values in two columns."""
    pairs = [(legible(name), legible(value)) for name, value in rows]
    width = max((len(name) for name, _ in pairs), default=0)
    return "\n".join(f"{name:<{width}}  {value}".rstrip() for name, value in pairs)
