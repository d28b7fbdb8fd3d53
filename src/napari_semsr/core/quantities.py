"""Quantities of results: what they are called and how they are written, said once.

A field of a result that a person reads is annotated with its `Quantity`, and so is what
a property returns that is shown and not stored. Summaries of commands, figures of
panels, columns of tables, numbers of reports and the manual are made of that.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_origin, is_typeddict

from napari_semsr.core.types import FloatPair

_WRITTEN_OUT = 1e7  # chosen: grey levels of 16 bits and counts are read as digits
_NONE = "\N{EN DASH}"
_PLUS_MINUS = "\N{PLUS-MINUS SIGN}"
SIGMA = "\N{GREEK SMALL LETTER SIGMA}"
LEVELS = "grey levels"
"""Unit of grey values."""
DB = "dB"
"""Unit of PSNR, and of gains in it."""
FLAT = {"flat": True}
"""Metadata of a field whose own fields stand in the record as if they were its."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """What a field of a result is called, and how it is written where it is shown."""

    # as a figure of a panel bears them
    label: str
    unit: str = ""
    form: str = ".4g"  # format of a number
    help: str = ""  # what it is, where the label does not tell; for the manual
    # fields that stand beside it: the same in another unit (in place of it where it is
    # None), its standard deviation, its interval
    also: str = ""
    sd: str = ""
    interval: str = ""
    within: str = "95 %"  # what the interval holds
    # field that tells why there is none; without one, what is None is not shown
    reason: str = ""
    note: str = ""  # what stands after it wherever it is shown
    verdict: str = ""  # field that tells what is to be thought of it
    column: str = ""  # name in tables; made of the field's name and the unit by default
    # whether a panel shows it large, the first of them, and says it in its sentence
    large: bool = False
    # whether it is a figure, and whether it is a column of tables
    shown: bool = True
    tabled: bool = True


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its unit, and how it is shown; words where it is no number."""

    value: float | str | None  # None or NaN where there is none
    # unit, and format of a number
    unit: str = ""
    form: str = ".4g"
    note: str = ""  # what stands after it, such as its interval
    sd: float | None = None  # its standard deviation or error
    verdict: str = ""  # what is to be thought of it
    large: bool = False  # whether a panel shows it large

    @property
    def spread(self) -> str:
        """Its error as it stands beside it."""
        return "" if self.sd is None else f"{_PLUS_MINUS} {in_figures(self.sd, '.2g')}"

    @property
    def shown(self) -> str:
        """The number alone."""
        if isinstance(self.value, str):
            return self.value
        if self.value is None or math.isnan(self.value):
            return _NONE
        return in_figures(self.value, self.form)

    def __str__(self) -> str:
        """Write it as it is shown."""
        shown = self.shown
        if shown == _NONE:
            return f"{_NONE} {self.note}".rstrip()
        text = " ".join(filter(None, (shown, self.spread, self.unit, self.note)))
        return f"{text} {_NONE} {self.verdict}" if self.verdict else text


def in_figures(value: float, form: str = ".4g") -> str:
    """Write a number, a large one in digits rather than as 2e+04."""
    text = f"{value:{form}}"
    return f"{float(text):.0f}" if "e+" in text and abs(value) < _WRITTEN_OUT else text


def quantities_of(kind: Any) -> dict[str, tuple[Quantity, Any]]:
    """List what a dataclass of results declares, its own before those of its bases.

    Quantity and type by the names of fields and properties; those of a flat field where
    it stands.
    """
    return _quantities(kind)


@cache
def _quantities(kind: Any) -> dict[str, tuple[Quantity, Any]]:
    found: dict[str, tuple[Quantity, Any]] = {}
    known = fields(kind) if is_dataclass(kind) else ()
    flat = {item.name for item in known if item.metadata.get("flat")}
    for cls in kind.__mro__:
        told = dict(vars(cls).get("__annotations__", {}))
        for name, item in vars(cls).items():
            if isinstance(item, property) and item.fget is not None:
                told[name] = item.fget.__annotations__.get("return")
        for name, annotation in told.items():
            if name in flat:
                held = _kinds(annotation)[0]
                found |= quantities_of(held) if is_dataclass(held) else {}
            elif hasattr(annotation, "__metadata__"):
                bare, *notes = get_args(annotation)
                for note in notes:
                    if isinstance(note, Quantity):
                        found.setdefault(name, (note, bare))
    return found


def _kinds(annotation: Any) -> list[Any]:
    """Give the types that a field may have, None apart."""
    parts = get_args(annotation) if get_origin(annotation) is not tuple else ()
    return [one for one in parts or (annotation,) if one is not type(None)]


def parts_of(kind: Any) -> dict[str, Any]:
    """List the fields of a dataclass that hold records, with what declares their keys.

    A field holds one, several by name, or a list of them; of one that has the keys of
    another kind its metadata tell which.
    """
    found: dict[str, Any] = {}
    for item in fields(kind):
        held = (item.metadata.get("keys"), item.type, *get_args(item.type))
        kinds = (one for one in held if isinstance(one, type) and _is_declared(one))
        one = next(filter(quantities_of, kinds), None)
        if one is not None and not item.metadata.get("flat"):
            found[item.name] = one
    return found


def _is_declared(kind: type) -> bool:
    """Whether the fields of a type may be annotated."""
    return is_dataclass(kind) or is_typeddict(kind)


def value_of(result: Any, name: str) -> Any:
    """Look up a field or property of a result, or of what it holds flat."""
    if hasattr(result, name):
        return getattr(result, name)
    held = (item for item in fields(result) if item.metadata.get("flat"))
    parts = (getattr(result, item.name) for item in held)
    known = (p for p in parts if is_dataclass(p))
    fits = (p for p in known if hasattr(p, name) or name in quantities_of(type(p)))
    part = next(fits, None)
    return None if part is None else value_of(part, name)


def figures_of(result: Any) -> dict[str, Figure]:
    """Write a result as figures, by their labels in the order of the fields.

    What its own `figures` gives, where it has such a method.
    """
    own = getattr(result, "figures", None)
    found: dict[str, Figure] = own() if callable(own) else declared_figures(result)
    return found


def declared_figures(result: Any) -> dict[str, Figure]:
    """Write annotated fields and properties of a result as figures, by their labels."""
    declared = quantities_of(type(result))
    beside = {n for q, _ in declared.values() for n in (q.also, q.sd, q.interval) if n}
    return {
        label: figure
        for name, (quantity, _) in declared.items()
        if quantity.shown and name not in beside
        for label, figure in _figure(result, name, quantity)
    }


def _figure(result: Any, name: str, told: Quantity) -> Iterator[tuple[str, Figure]]:
    """Write a field, unless there is nothing to tell of it."""
    value, also = value_of(result, name), told.also
    if value is None and also:
        other = quantities_of(type(result))[also][0]
        if value_of(result, also) is not None:
            yield from _figure(result, also, other)
            return
    if value is None:
        reason = value_of(result, told.reason) if told.reason else None
        if reason is not None:
            note = f"({reason})"
            yield told.label, Figure(None, told.unit, told.form, note, large=told.large)
        return
    if isinstance(value, bool):
        value = "yes" if value else "no"
    verdict = (value_of(result, told.verdict) if told.verdict else None) or ""
    if isinstance(value, str):
        yield told.label, Figure(value or _NONE, verdict=verdict, large=told.large)
        return
    sd, note = value_of(result, told.sd) if told.sd else None, _note(result, told)
    form, large = told.form, told.large
    yield told.label, Figure(value, told.unit, form, note, sd, verdict, large)


def _note(result: Any, told: Quantity) -> str:
    """Say what stands beside a figure."""
    parts = []
    if told.also and value_of(result, told.also) is not None:
        other = quantities_of(type(result))[told.also][0]
        shown = Figure(value_of(result, told.also), other.unit, other.form)
        parts.append(f"({shown})")
    ends = value_of(result, told.interval) if told.interval else None
    if ends is not None:
        low, high = (in_figures(end, told.form) for end in ends)
        holds = f"{told.within}: " if told.within else ""
        parts.append(f"({holds}{low} to {high} {told.unit}".rstrip() + ")")
    parts += [told.note] if told.note else []
    return " ".join(parts)


# Columns of tables, whose names tell the unit.

_AXES = ("y", "x")
_ENDS = ("low", "high")
_UNITS = ("_nm", "_px")


def columns_of(kind: type) -> tuple[str, ...]:
    """Name the columns that a kind of result has in a table."""
    return tuple(name for name, _, _ in _columns(kind))


def cells_of(result: Any) -> dict[str, Any]:
    """Write a result as a row of a table: cells by the names of their columns."""
    row = {}
    for column, name, place in _columns(type(result)):
        value = value_of(result, name)
        value = value if place is None or value is None else value[place]
        known = not isinstance(value, float) or math.isfinite(value)
        row[column] = value if known else None
    return row


def _columns(kind: Any) -> tuple[tuple[str, str, int | None], ...]:
    """List columns, with the field of each and its place in a pair."""
    declared = quantities_of(kind)
    intervals = {told.interval for told, _ in declared.values()}
    found: list[tuple[str, str, int | None]] = []
    for name, (told, bare) in declared.items():
        if not told.tabled:
            continue
        column = told.column or name
        if told.unit == LEVELS and not told.column:
            column = f"{column}_grey"
        if any(one == FloatPair for one in _kinds(bare)):
            marks = _ENDS if name in intervals else _AXES
            stem, unit = _split(column)
            found += [(f"{stem}_{m}{unit}", name, n) for n, m in enumerate(marks)]
        else:
            found.append((column, name, None))
    return tuple(found)


def _split(column: str) -> tuple[str, str]:
    """Split the unit off a name."""
    for unit in _UNITS:
        if column.endswith(unit):
            return column.removesuffix(unit), unit
    return column, ""


# Numbers in sentences.

_IN_UM = 1e5  # nm; from there on a length is read more easily in µm


def in_digits(value: float, digits: int = 3) -> str:
    """Write a number with a few significant digits, a large one without an exponent.

    ``3040`` where a format of Python's would give ``3.04e+03``.
    """
    text = f"{value:.{digits}g}"
    return f"{float(text):.0f}" if "e+" in text else text


def shift_in_words(shift_nm: tuple[float, float]) -> str:
    """Say a shift, down and right, without signs: ``302 nm down, 41.5 nm left``."""
    down, right = shift_nm
    large = max(abs(down), abs(right)) >= _IN_UM
    unit, size = ("µm", 1e3) if large else ("nm", 1.0)
    return (
        f"{in_digits(abs(down) / size)} {unit} {'down' if down > 0 else 'up'}, "
        f"{in_digits(abs(right) / size)} {unit} {'right' if right > 0 else 'left'}"
    )


def spell_shape(shape: Sequence[int]) -> str:
    """Write the size of an image: ``480 x 640 px``, with the sign of multiplication."""
    return " \N{MULTIPLICATION SIGN} ".join(map(str, shape)) + " px"


def spell_shift(shift_px: tuple[float, float]) -> str:
    """Write a shift ``(y, x)`` without signs: ``1.25 px down, 0.50 px left``."""
    down, right = shift_px
    if not (down or right):
        return "nothing"
    return (
        f"{abs(down):.2f} px {'down' if down > 0 else 'up'}, "
        f"{abs(right):.2f} px {'right' if right > 0 else 'left'}"
    )
