"""Flags made from the frozen option models, so that nothing is said twice."""

import argparse
import inspect
import types
from collections.abc import Collection
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from napari_semsr.core.options import Options

__all__ = ["add_options", "options_from"]

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

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Receives a group of flags.
    model : type of Options
        Its field descriptions become the help.
    title : str, default="options"
        Heading of the group.
    exclude : collection of str, optional
        Fields that another flag or a positional argument serves.
    """
    group = parser.add_argument_group(title)
    told = _attributes_of(model)
    for name, info in model.model_fields.items():
        if name not in exclude:
            _add_field(group, name, info, info.description or told.get(name, ""))


def options_from(arguments: argparse.Namespace, model: type[O], **changes: Any) -> O:
    """Make options of what was typed.

    Parameters
    ----------
    arguments : argparse.Namespace
        Parsed arguments; a flag that was not typed is absent.
    model : type of Options
        The model whose flags `add_options` added.
    **changes : object
        Values that come from elsewhere; they win over flags.

    Returns
    -------
    Options
        Validated options; fields that nobody gave have their defaults.

    Raises
    ------
    OptionError
        If a value is out of range or of the wrong kind.
    """
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
