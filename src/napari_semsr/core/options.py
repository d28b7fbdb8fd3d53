"""Options: immutable, validated settings that users edit and stores record.

`Options` is the base class of a set of options. `option` declares one that a form
shows, `pydantic.Field` one without a row in a form. At the end, the faults that
pydantic finds become sentences.
"""

import difflib
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Self, get_args, get_origin

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from napari_semsr.core.errors import (
    Message,
    OptionError,
    format_alternatives,
    format_one_line,
    shorten_value,
)
from napari_semsr.core.progress import warn


class Options(BaseModel):
    """Base class of all option sets, which define panels and are recorded in stores."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _check_value(cls, value: object, info: ValidationInfo) -> object:
        """Update an outdated value, and reject a boolean in place of a number."""
        if isinstance(value, str):
            return _OLD_VALUES.get(str(info.field_name), {}).get(value, value)
        kinds = _collect_types(cls.model_fields[str(info.field_name)].annotation)
        parts = value if isinstance(value, (list, tuple)) else (value,)
        has_boolean = any(isinstance(part, bool) for part in parts)  # 1 for Python
        if bool not in kinds and {int, float} & kinds and has_boolean:
            msg = "must be a number" if isinstance(value, bool) else "must be numbers"
            raise ValueError(Message(msg, "wrong-type"))
        return value

    def reset_unused_options(self) -> Self:
        """Return a copy with unused options reset to their defaults, with warnings."""
        defaults = {}
        for name, other, choices in self._find_unused_options(self.__dict__):
            needed_values, now = (
                format_alternatives([*map(str, some)]).lower()
                for some in (choices, [getattr(self, other)])
            )
            warn(
                f"`{name}` has an effect only if `{other}` is {needed_values}, but it "
                f"is {now}.",
                "option-without-effect",
            )
            defaults[name] = type(self).model_fields[name].default
        return self.replace(**defaults) if defaults else self

    @classmethod
    def _find_unused_options(
        cls, values: Mapping[str, object]
    ) -> Iterator[tuple[str, str, Iterable[object]]]:
        """Yield each unused option, the option it depends on, and required values."""
        fields = cls.model_fields
        for name, info in fields.items():
            if values.get(name, info.default) == info.default:
                continue
            for other, choices in (get_display(info).when or {}).items():
                if values.get(other, fields[other].default) not in choices:
                    yield name, other, choices

    @classmethod
    def from_history(cls, values: Mapping[str, object]) -> Self:
        """Validate options from a history without its unused options."""
        idle = {name for name, *_ in cls._find_unused_options(values)}
        own = cls.model_fields.keys() & values.keys() - idle
        return cls.parse({name: values[name] for name in own})

    @classmethod
    def parse(cls, values: dict[str, object]) -> Self:
        """Validate values from a user or file; the error names the first bad value."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            kind = first["type"]
            usual = "wrong-type" if _TYPE_FAULT.match(kind) else "out-of-range"
            code: str | None = _CODES.get(kind, usual)
            if kind == "value_error":
                message = next(iter(first["ctx"]["error"].args), None)
                code = message.code if isinstance(message, Message) else None
            raise OptionError(_format_fault(first, cls), code=code) from None

    def replace(self, **changes: object) -> Self:
        """Return a validated copy with changed values."""
        return self.parse({**self.model_dump(), **changes})


_OLD_VALUES = {"norm": {"exact": "whole", "frozen": "sampled"}}


def update_value_name(name: str, value: object) -> Any:
    """Replace an outdated option value with its current name."""
    old = _OLD_VALUES.get(name, {})
    return old.get(value, value) if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class OptionDisplay:
    """Display settings of an option, and whether it can only be set by a user."""

    label: str = ""
    unit: str = ""
    # labels of the entries of a drop-down list, and their values
    choices: Mapping[str, object] | None = None
    step: float | None = None  # of a spin box
    user_only: bool = False  # whether only a user may set it, never a file
    # placeholder of its value in the command's help; several for a list of values
    metavar: str | tuple[str, ...] = ""
    group: str = ""  # group box of the panel
    # flags of the command, each for one value
    flags: Mapping[str, Any] | None = None
    # values of other options, by their names, with which it has an effect
    when: Mapping[str, Sequence[object]] | None = None

    @property
    def full_label(self) -> str:
        """Label with its unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


MORE = "More settings"
"""Name of the collapsible option group of a panel."""


def option(
    default: object, label: str = "", description: str = "", **settings: Any
) -> Any:
    """Declare an option with its display settings.

    The settings are those of `OptionDisplay`, and bounds as in `pydantic.Field`;
    without a `label` no form has a row for it. `description` is for help, tooltip and
    manual. Use `user_only` for what connects to an address or another process, or
    writes to any path.
    """
    names = {item.name for item in fields(OptionDisplay)} & settings.keys()
    display = OptionDisplay(label, **{name: settings.pop(name) for name in names})
    return Field(
        default=default,
        description=description or None,
        json_schema_extra={"display": display},  # type: ignore[dict-item]
        **settings,
    )


_DEVICE = r"^(auto|cpu|mps|(cuda|xpu)(:\d{1,3})?)$"
_TRAINING_DEVICE = r"^(auto|cpu|mps|cuda(:\d{1,3})?)$"  # Lightning has no xpu
_DEVICES = {
    "automatic": "auto",
    "CPU": "cpu",
    "NVIDIA or AMD GPU (cuda)": "cuda",
    "Apple GPU (mps)": "mps",
    "Intel GPU (xpu)": "xpu",
}
_DEVICE_DESCRIPTION = (
    "Device that runs the model: auto (a GPU if its results agree with the CPU), cpu, "
    "cuda (NVIDIA or AMD), mps (Apple) or xpu (Intel); cuda:1 is the second GPU."
)


def declare_device_option(
    description: str = _DEVICE_DESCRIPTION, *, trains: bool = False
) -> Any:
    """Declare the device for running or training a model."""
    pattern = _TRAINING_DEVICE if trains else _DEVICE
    choices = {k: name for k, name in _DEVICES.items() if re.match(pattern, name)}
    return option("auto", "Device", description, choices=choices, pattern=pattern)


def _check_type_name(value: str | None) -> str | None:
    """Check the name of an integer or float type."""
    if value is None:
        return None
    try:
        dtype = np.dtype(value)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind not in "uif":
        msg = "must name an integer or floating type such as uint8 or float32"
        raise ValueError(Message(msg, "unknown-value"))
    return dtype.name


GreyType = Annotated[str | None, AfterValidator(_check_type_name)]
"""Data type name of the grey values in an output; None for float32."""


def get_display(info: FieldInfo) -> OptionDisplay:
    """Return the display settings of an option; empty if not declared by `option`."""
    extra = info.json_schema_extra
    display: object = extra.get("display") if isinstance(extra, dict) else None
    return display if isinstance(display, OptionDisplay) else OptionDisplay()


def to_text(info: FieldInfo, value: object) -> object:
    """Convert a number or list from a file to text for an option that needs text.

    So a file may hold the same values as a command, which only passes text.
    """
    kinds = _collect_types(info.annotation)
    if isinstance(value, list):
        several = {list, tuple} & kinds
        return value if several else ",".join(map(str, value))
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return str(value) if number and not {int, float, bool} & kinds else value


def get_user_only_options(model: type[BaseModel]) -> frozenset[str]:
    """Return the names of the options of a set that only a user may set."""
    fields = model.model_fields.items()
    return frozenset(name for name, info in fields if get_display(info).user_only)


def check_user_only_options(
    options: Iterable[str], persons: Collection[str], place: str
) -> None:
    """Raise `OptionError` if a file sets options that only a user may set.

    `place` is the name of the file in the message.
    """
    for name in options:
        if name in persons:
            msg = (
                f"{place} must not set {name}, which connects to another process or "
                "writes elsewhere; remove it from the file and pass it to the command."
            )
            raise OptionError(msg, code="unsafe-content")


def count_values(value: object) -> float:
    """Count values in nested tables and lists, with YAML aliases expanded.

    Infinity if a table or list contains itself.
    """
    counts: dict[int, float] = {}

    def count_value(value: object) -> float:
        if not isinstance(value, dict | list):
            return 1
        if id(value) not in counts:
            counts[id(value)] = math.inf  # until counted: it may contain itself
            inside = value.values() if isinstance(value, dict) else value
            counts[id(value)] = 1 + sum(map(count_value, inside))
        return counts[id(value)]

    return count_value(value)


# One sentence for the first fault that pydantic finds in a set of options.

_TYPE_FAULT = re.compile(r"(\w+?)_(?:type|parsing|from|attributes|instance)")
_CODES = {
    "extra_forbidden": "unknown-option",
    "missing": "missing-value",
    "literal_error": "unknown-value",
    "string_pattern_mismatch": "unknown-value",
}
_KINDS = {
    "int": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
    "string": "must be a text",
    "tuple": "must be a list",
    "list": "must be a list",
    "dict": "must be a table of options",
    "model": "must be a table of options",
}
_PATTERNS = {
    _DEVICE: "must be auto, cpu, cuda, mps or xpu, or cuda:1 for the second card",
    _TRAINING_DEVICE: "must be auto, cpu, cuda or mps, or cuda:1 for the second card",
    r"^[\w.+-]+$": "must be made of letters, digits, '_', '-', '+' and '.'",
}
_KEY = "[key]"
_MAX_NAMES = 8  # chosen: a longer list of names is not read


def _format_fault(first: ErrorDetails, model: type[BaseModel]) -> str:
    if first["type"] == "extra_forbidden":
        return _format_unknown_option(first, model)
    where = _format_location(first["loc"])
    message = _format_message(first)
    table = isinstance(first["input"], (Mapping, BaseModel))
    if first["type"] == "value_error" and (table or not where):
        # a rule that involves several options
        if where:
            return f"In {where}: {message}."
        word = re.split(r"[\s:,]", message)[0]
        if word in model.model_fields:
            return f"Option `{word}`{message.removeprefix(word)}."
        return f"{message[:1].upper()}{message[1:]}."
    if first["type"] != "missing" and " got " not in message:
        message = f"{message}, got {shorten_value(first['input'])}"
    if first["loc"][-1:] == (_KEY,):
        return f"A key of option {_format_location(first['loc'][:-2])} {message}."
    joint = " " if message.startswith("must ") else ": "
    name = f"`{where}`" if where.isidentifier() else where
    return f"Option {name}{joint}{message}."


def _format_message(first: ErrorDetails) -> str:
    kind = first["type"]
    if kind == "missing":
        return "must be given"
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(first["ctx"]["pattern"], "must have another format")
    wrong = _TYPE_FAULT.match(kind)
    if wrong and wrong[1] in _KINDS:
        return _KINDS[wrong[1]]
    # pydantic's own: "Tuple should have at most 2 items after validation, not 3"
    sentence = re.sub(r"^\w+ should ", "must ", first["msg"]).rstrip(".")
    sentence = sentence.removeprefix("Value error, ").split(" after validation")[0]
    sentence = sentence.replace("greater than or equal to", "at least")
    sentence = sentence.replace("less than or equal to", "at most")
    plain = sentence[:1].isupper() and not sentence[1:2].isupper()
    return sentence[:1].lower() + sentence[1:] if plain else sentence


def _format_unknown_option(first: ErrorDetails, model: type[BaseModel]) -> str:
    """Format the message for an unknown option, with a suggestion."""
    *above, name = first["loc"]
    table: type[BaseModel] | None = model
    for part in above:
        if table is not None and isinstance(part, str):
            info = table.model_fields.get(part)
            table = None if info is None else _find_option_model(info.annotation)
    known_names = [] if table is None else list(table.model_fields)
    near = difflib.get_close_matches(str(name), known_names, n=1)
    sentence = f"Unknown option '{_format_location(first['loc'])}'"
    if near:
        return f"{sentence}; did you mean {_format_location((*above, near[0]))}?"
    if 0 < len(known_names) <= _MAX_NAMES:
        return f"{sentence}; choose one of {', '.join(known_names)}."
    return f"{sentence}."


def _find_option_model(annotation: object) -> type[BaseModel] | None:
    """Find the option set in the annotation of a field, alone or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    models = (_find_option_model(part) for part in get_args(annotation))
    return next((part for part in models if part is not None), None)


def _format_location(place: tuple[object, ...]) -> str:
    """Format the location of an option: ``data.train[0].file``."""
    parts = (f"[{p}]" if isinstance(p, int) else f".{p}" for p in place)
    return format_one_line("".join(parts).removeprefix("."))


def _collect_types(annotation: object) -> frozenset[object]:
    """Return all types contained in an annotation."""
    own = frozenset([get_origin(annotation) or annotation])
    return own.union(*map(_collect_types, get_args(annotation)))
