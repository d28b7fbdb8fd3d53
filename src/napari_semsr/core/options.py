"""Options: what a user edits and a store records, frozen and validated once."""

import difflib
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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

from napari_semsr.core.errors import Message, OptionError, one_line, shorten
from napari_semsr.core.progress import warn

_WORDS = {
    "missing": "must be given",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "finite_number": "must be a finite number",
    "literal_error": "must be {expected}",
    "too_short": "must have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
}
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
_DEVICE = r"^(auto|cpu|mps|(cuda|xpu)(:\d{1,3})?)$"
_TRAINING_DEVICE = r"^(auto|cpu|mps|cuda(:\d{1,3})?)$"  # Lightning has no xpu
_PATTERNS = {
    _DEVICE: "must be auto, cpu, cuda, mps or xpu, or cuda:1 for the second card",
    _TRAINING_DEVICE: "must be auto, cpu, cuda or mps, or cuda:1 for the second card",
    r"^[\w.+-]+$": "must be made of letters, digits, '_', '-', '+' and '.'",
}
_KEY = "[key]"
_MOST_NAMED = 8  # chosen: a longer list of names is not read


def _code(first: ErrorDetails) -> str | None:
    """Name the cause of a fault; None where only its class is known."""
    kind, context = first["type"], first.get("ctx", {})
    if kind == "value_error":
        message = next(iter(context["error"].args), None)
        return message.code if isinstance(message, Message) else None
    return _CODES.get(kind) or ("out-of-range" if kind in _WORDS else "wrong-type")


def _first_fault(first: ErrorDetails, model: type[BaseModel]) -> str:
    if first["type"] == "extra_forbidden":
        return _unknown(first, model)
    where = _spelt(first["loc"])
    message = _message(first)
    table = isinstance(first["input"], (Mapping, BaseModel))
    if first["type"] == "value_error" and (table or not where):
        return _rule(message, where, model)
    if first["type"] != "missing" and " got " not in message:
        message = f"{message}, got {shorten(first['input'])}"
    if first["loc"][-1:] == (_KEY,):
        return f"A key of option {_spelt(first['loc'][:-2])} {message}."
    joint = " " if message.startswith("must ") else ": "
    return f"Option {where}{joint}{message}."


def _message(first: ErrorDetails) -> str:
    kind, context = first["type"], first.get("ctx", {})
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(context["pattern"], "must be of another form")
    group = re.split(r"_(?:type|parsing|from|attributes|instance)", kind)[0]
    words = _WORDS.get(kind) or (_KINDS.get(group) if group != kind else None)
    context = {k: f"{v:g}" if isinstance(v, float) else v for k, v in context.items()}
    if words is not None:
        sentence = words.format(**context).replace(
            "at least 1 items", "at least 1 item"
        )
        return sentence.replace("at least 1 characters", "a character")
    sentence = first["msg"].removeprefix("Value error, ").rstrip(".")
    plain = sentence[:1].isupper() and not sentence[1:2].isupper()
    return sentence[:1].lower() + sentence[1:] if plain else sentence


def _rule(message: str, where: str, model: type[BaseModel]) -> str:
    """Say a rule between options, which names them itself."""
    if where:
        return f"In {where}: {message}."
    word = re.split(r"[\s:,]", message)[0]
    if word in model.model_fields:
        return f"Option {message}."
    return f"{message[:1].upper()}{message[1:]}."


def _unknown(first: ErrorDetails, model: type[BaseModel]) -> str:
    """Say that there is no such option, and which may be meant."""
    *above, name = first["loc"]
    table: type[BaseModel] | None = model
    for part in above:
        if table is not None and isinstance(part, str):
            info = table.model_fields.get(part)
            table = None if info is None else _model_in(info.annotation)
    known_names = [] if table is None else list(table.model_fields)
    near = difflib.get_close_matches(str(name), known_names, n=1)
    sentence = f"Unknown option '{_spelt(first['loc'])}'"
    if near:
        return f"{sentence}; did you mean {_spelt((*above, near[0]))}?"
    if 0 < len(known_names) <= _MOST_NAMED:
        return f"{sentence}; there are {', '.join(known_names)}."
    return f"{sentence}."


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Give the option set that a field holds, alone or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    models = (_model_in(part) for part in get_args(annotation))
    return next((part for part in models if part is not None), None)


def _spelt(place: tuple[Any, ...]) -> str:
    """Write where an option is: ``data.train[0].file``."""
    parts = (f"[{p}]" if isinstance(p, int) else f".{p}" for p in place)
    return one_line("".join(parts).removeprefix("."))


def _kinds_of(annotation: Any) -> frozenset[Any]:
    """List the types that an annotation is made of."""
    own = frozenset([get_origin(annotation) or annotation])
    return own.union(*map(_kinds_of, get_args(annotation)))


_RENAMED = {"norm": {"exact": "whole", "frozen": "sampled"}}


def current_value(name: str, value: Any) -> Any:
    """Read a stored value of an option that had another name when it was stored."""
    return _RENAMED.get(name, {}).get(value, value) if isinstance(value, str) else value


class Options(BaseModel):
    """Base of all option sets; panels are built from it and stores record it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _current_value(cls, value: Any, info: ValidationInfo) -> Any:
        return current_value(str(info.field_name), value)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_is_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        kinds = _kinds_of(cls.model_fields[str(info.field_name)].annotation)
        parts = value if isinstance(value, (list, tuple)) else (value,)
        has_truth = any(isinstance(part, bool) for part in parts)  # 1 for Python
        if bool not in kinds and {int, float} & kinds and has_truth:
            msg = "must be a number" if isinstance(value, bool) else "must be numbers"
            raise ValueError(Message(msg, "wrong-type"))
        return value

    def settle(self) -> Self:
        """Copy in which what has no part is as usual; a warning names it."""
        usual = {}
        for name, other, choices in self._idle(self.__dict__):
            needed_values, now = (
                " or ".join(map(str, some)).lower()
                for some in (choices, [getattr(self, other)])
            )
            warn(
                f"{name} changes nothing where {other} is {now}, only with "
                f"{needed_values}.",
                "option-without-effect",
            )
            usual[name] = type(self).model_fields[name].default
        return self.replace(**usual) if usual else self

    @classmethod
    def _idle(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
        """Find values other than usual of no part, by what option, and its values."""
        fields = cls.model_fields
        for name, info in fields.items():
            if values.get(name, info.default) == info.default:
                continue
            for other, choices in (words_of(info).when or {}).items():
                if values.get(other, fields[other].default) not in choices:
                    yield name, other, choices

    @classmethod
    def recall(cls, values: Mapping[str, Any]) -> Self:
        """Validate what a history says, which may hold values that had no part."""
        idle = {name for name, *_ in cls._idle(values)}
        own = cls.model_fields.keys() & values.keys() - idle
        return cls.parse({name: values[name] for name in own})

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        """Validate what a user or file says; an `OptionError` tells the first fault."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            sentence = _first_fault(first, cls)
            raise OptionError(sentence, code=_code(first)) from None

    def replace(self, **changes: Any) -> Self:
        """Return a validated copy with some values changed."""
        return self.parse({**self.model_dump(), **changes})


@dataclass(frozen=True, slots=True)
class OptionWords:
    """How an option is shown in a form, and who may give it."""

    # what its row is called
    label: str = ""
    unit: str = ""
    # entries of a closed list as they read, and their values
    choices: Mapping[str, Any] | None = None
    step: float | None = None  # of a spin box
    by_person: bool = False  # whether a person alone gives it, never a file
    # what the command's help calls its value; several for a list of so many words
    metavar: str | tuple[str, ...] = ""
    group: str = ""  # frame of a panel that it stands in
    # further names of it, each for one value
    flags: Mapping[str, Any] | None = None
    # values of other options with which alone it has a part, by their names
    when: Mapping[str, Sequence[Any]] | None = None

    @property
    def row(self) -> str:
        """The label with its unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


MORE = "More settings"
"""Group of options that a panel folds away below the others."""


def option(
    default: Any,
    label: str = "",
    description: str = "",
    *,
    unit: str = "",
    choices: Mapping[str, Any] | None = None,
    step: float | None = None,
    by_person: bool = False,
    metavar: str | tuple[str, ...] = "",
    group: str = "",
    flags: Mapping[str, Any] | None = None,
    when: Mapping[str, Sequence[Any]] | None = None,
    **bounds: Any,
) -> Any:
    """Declare an option: what it does, what a form calls it, who may give it.

    What the words say stands in `OptionWords`; `description` is for help, tooltip and
    manual, `bounds` are those of `pydantic.Field`. What connects to an address or
    another process, or writes where it likes, is `by_person`.
    """
    words = OptionWords(
        label, unit, choices, step, by_person, metavar, group, flags, when
    )
    return Field(
        default=default,
        description=description or None,
        json_schema_extra={"words": words},  # type: ignore[dict-item]
        **bounds,
    )


_DEVICES = {
    "automatic": "auto",
    "CPU": "cpu",
    "NVIDIA or AMD GPU (cuda)": "cuda",
    "Apple GPU (mps)": "mps",
    "Intel GPU (xpu)": "xpu",
}
_WHERE_IT_RUNS = (
    "Where the model runs: auto, which takes a GPU that computes as the CPU does, cpu, "
    "cuda (NVIDIA or AMD), mps (Apple) or xpu (Intel); cuda:1 is the second card."
)


def device_option(description: str = _WHERE_IT_RUNS, *, trains: bool = False) -> Any:
    """Declare the device that a model runs on, or one that it can be trained on."""
    pattern = _TRAINING_DEVICE if trains else _DEVICE
    choices = {k: name for k, name in _DEVICES.items() if re.match(pattern, name)}
    return option("auto", "Device", description, choices=choices, pattern=pattern)


def _known_type(value: str | None) -> str | None:
    """Accept integer and floating types by name."""
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


GreyType = Annotated[str | None, AfterValidator(_known_type)]
"""Type of the grey values in an output, by its name; None for float32."""


def words_of(info: FieldInfo) -> OptionWords:
    """Look up how an option is shown; empty for a field not declared by `option`."""
    extra: Any = info.json_schema_extra
    words = extra.get("words") if isinstance(extra, dict) else None
    return words if isinstance(words, OptionWords) else OptionWords()


def as_text(info: FieldInfo, value: Any) -> Any:
    """Write a number of a file, or a list, as text where an option takes nothing else.

    A command has nothing but text to give, so that a file may say as much.
    """
    kinds = _kinds_of(info.annotation)
    if isinstance(value, list):
        several = {list, tuple} & kinds
        return value if several else ",".join(map(str, value))
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return str(value) if number and not {int, float, bool} & kinds else value


def persons_options(model: type[BaseModel]) -> frozenset[str]:
    """Name the options of a set that a person alone gives."""
    fields = model.model_fields.items()
    return frozenset(name for name, info in fields if words_of(info).by_person)


def refuse_persons(
    options: Iterable[str], persons: Collection[str], place: str
) -> None:
    """Refuse, by an `OptionError`, options of a file that a person alone gives.

    `place` is what gives them, as the sentence calls it.
    """
    for name in options:
        if name in persons:
            msg = (
                f"{place} must leave {name} to a person, since it connects to another "
                "process or writes elsewhere: take it out, and give it to the command."
            )
            raise OptionError(msg, code="unsafe-content")


def count_values(value: Any) -> float:
    """Count what a text held as if written out: aliases repeat parts of it.

    Tables and lists within each other, as YAML gives them; infinity for what holds
    itself.
    """
    counts: dict[int, float] = {}

    def count_value(value: Any) -> float:
        if not isinstance(value, dict | list):
            return 1
        if id(value) not in counts:
            counts[id(value)] = math.inf  # of what holds itself
            inside = value.values() if isinstance(value, dict) else value
            counts[id(value)] = 1 + sum(map(count_value, inside))
        return counts[id(value)]

    return count_value(value)
