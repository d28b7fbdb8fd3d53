"""Values of a report: the records of measuring commands, run now or from JSON files."""

import json
import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from napari_semsr.core import (
    CurveDeclaration,
    Figure,
    FloatPair,
    Message,
    Quantity,
    ReadError,
    declare_quantity,
    describe_access_error,
    describe_pixel_size,
    digest_path,
    get_display,
    get_record_quantities,
    shorten_value,
)
from napari_semsr.io import ReadOptions, convert_decoding_errors, read_text
from napari_semsr.jobs.images import to_json_value
from napari_semsr.jobs.index import MEASURES, get_verb
from napari_semsr.reporting import NO_VALUE, format_value

_LARGEST = 64 << 20  # bytes; chosen: a histogram of 65 536 bins has 2 MB
_MAX_ROWS = 40  # rows of a table on the page; chosen: two thirds of a sheet
_MAX_CELLS = 6  # columns of such a table; chosen: as many as fit on a page
_SIZES = ("pixel_size_nm", "pixel_size_sd_nm")
_PLUS_MINUS = "\N{PLUS-MINUS SIGN}"
_SHORT = 4  # values of a list written in full; chosen: enough for a box or a line

KINDS = {
    "frc": "criterion correlation resolution_px",
    "frc-map": "blocks failed reasons median_px block step",
    "decorrelation": "resolution_px filtered correlation values_px",
    "spectrum": "frequency_per_px power",
    "error-map": "rse rsp sigma_px alpha beta",
    "repeatability": "sd noise rest noise_share",
    "metrics": "psnr_db ssim average_gradient data_range",
    "gaps": "particles pairs undetected_fraction widths_px",
    "profile": "distance_px intensity fwhm_px",
    "histogram": "bins counts",
    "calibrate": "pixel_size_nm pixel_size_sd_nm pitch_nm lattice",
    "register": "transform mutual_information_after residual_median_nm",
    "judge": "baselines models registration",
}
"""Keys that identify the command in older JSON files, which do not name it."""
_CURRENT_VERBS = {"histogram": "metrics", "repeatability": "error-map"}
"""Mapping from former commands to the current commands that use their keys."""
_KNOWN_KINDS = tuple(dict.fromkeys((*KINDS, *MEASURES)))

# texts that are shown elsewhere on the page
_ELSEWHERE = frozenset(
    {"method", "criterion", "reason", "note", "image", "name", "table", "centred"}
)


@dataclass(frozen=True, slots=True)
class Number:
    """Measured value, or the reason why it is missing."""

    name: str
    value: float | str | None  # None if it could not be measured
    unit: str = ""  # of the value and of its interval
    also: str = ""  # in another unit, or a restriction
    interval: FloatPair | None = None
    within: str = "95 %"  # coverage of the interval
    threshold: str = ""
    method: str = ""
    reason: str = ""
    form: str = ".4g"
    sd: float | None = None  # standard deviation

    @property
    def text(self) -> str:
        """Value with its unit as text."""
        if self.value is None:
            return "refused" if self.reason else NO_VALUE
        if isinstance(self.value, str):
            return self.value
        also = f" ({self.also})" if self.also else ""
        error = (
            "" if self.sd is None else f" {_PLUS_MINUS} {format_value(self.sd, '.2g')}"
        )
        return (
            f"{format_value(self.value, self.form)}{error} {self.unit}".rstrip() + also
        )

    @property
    def interval_text(self) -> str:
        """Interval with its unit, and its coverage if it is not 95 %."""
        if self.interval is None:
            return NO_VALUE
        low, high = (format_value(end, self.form) for end in self.interval)
        interval_text = f"{low} to {high} {self.unit}".rstrip()
        return (
            interval_text
            if self.within == "95 %"
            else f"{interval_text} ({self.within})"
        )

    @property
    def explanation(self) -> str:
        """Method, preceded by the reason if there is no value."""
        return f"{self.reason} {self.method}".strip() if self.reason else self.method

    def to_json(self) -> dict[str, Any]:
        """Return the number as a record, without formatting fields."""
        record = to_json_value(self)
        for name in ("form", "also"):
            del record[name]
        if self.interval is None:
            del record["within"]
        if self.sd is None:
            del record["sd"]
        return {key: value for key, value in record.items() if value != ""}


@dataclass(frozen=True, slots=True)
class NumbersTable:
    """Rows of a JSON file as a table."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class RecordSummary:
    """Values, tables and notes of the record of a command, from a call or a file."""

    name: str  # of the call or the file
    verb: str
    numbers: list[Number]
    images: tuple[str, ...] = ()  # measured images
    sheets: list[NumbersTable] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # its warnings
    content: dict[str, Any] = field(default_factory=dict)  # empty if the call failed
    digest: str = ""  # of the file

    def has_value(self, key: str) -> bool:
        """Return whether a value exists, for one image or for any in a table."""
        many = _is_table(self.content)
        return (self.content["summary"] if many else self.content).get(key) is not None


@dataclass(slots=True)
class Measurements:
    """Measurements of an image or a pair."""

    calls: list[RecordSummary] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def numbers(self) -> list[Number]:
        """Values of all calls."""
        return [number for call in self.calls for number in call.numbers]

    @property
    def refusals(self) -> list[Number]:
        """Values that could not be measured, with reasons."""
        return [item for item in self.numbers if item.reason]

    def find_number(self, name: str) -> Number | None:
        """Find a number by its name."""
        return next((item for item in self.numbers if item.name == name), None)

    def get_content(self, name: str) -> dict[str, Any]:
        """Return the record of a call, empty if it failed or did not run."""
        return next((item.content for item in self.calls if item.name == name), {})


def get_curves(name: str) -> tuple[CurveDeclaration, ...]:
    """Return the curves that a command declares."""
    verb = get_verb(name)
    return () if verb is None else verb.curves


def is_record_file(path: Path) -> bool:
    """Return whether a path has the suffix of a JSON file."""
    return path.suffix.lower() == ".json"


def read_record(path: Path) -> RecordSummary:
    """Read the JSON file of a measuring command."""
    try:
        if path.stat().st_size > _LARGEST:
            msg = f"{path} is too large to contain measurements."
            raise ReadError(msg, code="file-too-large")
        content = json.loads(
            read_text(path, "utf-8-sig"),
            parse_constant=_parse_number,
            parse_float=_parse_number,
            parse_int=_parse_number,
        )
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "it is not JSON"
        fault = f"{path} cannot be read: {reason}."
        raise ReadError(
            describe_access_error(path, error) or Message(fault, "content-invalid")
        ) from error
    verb = None
    if isinstance(content, dict) and content.get("kind") in _KNOWN_KINDS:
        verb = str(content["kind"])
    elif isinstance(content, dict):
        fits = (name for name, k in KINDS.items() if content.keys() >= {*k.split()})
        verb = next(fits, None)
    verb = _CURRENT_VERBS.get(verb or "", verb)
    if verb is None:
        msg = (
            f"{path.name} is not the JSON file of a measuring command: use the output "
            f"of semsr {', '.join(_KNOWN_KINDS)} with `json`."
        )
        raise ReadError(msg, code="format-unknown")
    with convert_decoding_errors(path, "numbers of a measurement"):
        _check_curves(content, get_curves(verb))
        return describe_record(path.name, verb, content, digest=digest_path(path))


def _parse_number(text: str) -> int | float:
    """Parse a number; raise an error for NaN and infinity."""
    value = float(text)
    if not math.isfinite(value):
        msg = f"{shorten_value(text)} is not a number"
        raise ValueError(msg)
    return int(text) if text.lstrip("-").isdigit() else value


def _check_curves(
    content: Mapping[str, Any], curves: Sequence[CurveDeclaration]
) -> None:
    """Raise an error for curves without numbers, or with axes of different lengths."""
    for curve in curves:
        unit = "px" if content.get(curve.x.format(unit="nm")) is None else "nm"
        at, *names = (name.format(unit=unit) for name in (curve.x, *curve.y_names))
        x = _check_numbers(at, content)
        for name in names:
            y = _check_numbers(name, content)
            more = int(curve.shares)  # there are more edges than counts
            if None not in (x, y) and len(x) != len(y) + more:
                msg = f"{at} and {name} must have equal lengths"
                raise ValueError(msg)
    if content.get("pixel_size_nm") is not None:
        ReadOptions.parse({"pixel_size_nm": content["pixel_size_nm"]})


def _check_numbers(name: str, content: Mapping[str, Any]) -> Any:
    """Return a list of numbers, or None: an image may be too small for a curve."""
    item = content.get(name)
    if item == []:
        return None
    kinds = {type(value) for value in item} if isinstance(item, list) else {str}
    are_numbers = kinds <= {int, float, type(None)} and kinds & {int, float}
    if item is not None and not are_numbers:
        msg = f"{name} must be a list of numbers, got {shorten_value(item)}"
        raise ValueError(msg)
    return item


def describe_record(
    name: str,
    verb: str,
    content: dict[str, Any],
    values: Mapping[str, str] | None = None,
    *,
    digest: str = "",
) -> RecordSummary:
    """Convert the record of a command to numbers and tables.

    `values` limits it to some keys, each with a suffix of its label; otherwise all
    declared keys are shown.
    """
    quantities, record = declare_keys(verb), content
    if _is_table(content):
        quantities, record = _declare_columns(verb, content)
    if values is None:
        curve_keys = {key for curve in get_curves(verb) for key in curve.field_names}
        values = _select_values(quantities, record, curve_keys | _ELSEWHERE)
    numbers, sheets = _list_numbers(quantities, record, values)
    notes = [str(one) for one in content.get("warnings") or []]
    note = str(content.get("note") or "")
    for sentence in notes:  # which a note may repeat
        note = note.replace(sentence, "").strip()
    images = content.get("images") or content.get("image") or []
    if isinstance(images, str):
        images = [images]
    else:
        images = list(map(str, images)) if isinstance(images, list) else []
        images += [str(content[k]) for k in ("optical", "sem") if content.get(k)]
    return RecordSummary(
        name=name,
        verb=verb,
        images=tuple(images),
        numbers=[one for one in numbers if one.value is not None or one.reason],
        sheets=sheets,
        notes=[one for one in (*notes, note) if one],
        content=content,
        digest=digest,
    )


def declare_keys(verb: str) -> dict[str, Quantity]:
    """Return the quantities in a command's records: of its options and results."""
    command = get_verb(verb)
    if command is None:
        return {}
    words = {k: get_display(info) for k, info in command.options.model_fields.items()}
    quantities = {k: declare_quantity(q.label, q.unit) for k, q in words.items()}
    instead = command.result.INSTEAD.values()
    for kind in (*get_args(command.gives), *instead, command.result):
        quantities |= get_record_quantities(kind)
    return {key: q for key, q in quantities.items() if q.label}


def _is_table(content: Mapping[str, Any]) -> bool:
    """Return whether the content is a table of images, not a single measurement."""
    rows, summary = content.get("rows"), content.get("summary")
    return "measure" in content and isinstance(rows, list) and isinstance(summary, dict)


def _declare_columns(
    name: str, content: Mapping[str, Any]
) -> tuple[dict[str, Quantity], dict[str, Any]]:
    """Declare the columns of a table, and name its rows by number and images."""
    verb, total = get_verb(name), content["summary"]
    images = [] if verb is None else [one.column or one.name for one in verb.images]
    rows = {}
    for place, row in enumerate(content["rows"], start=1):
        if isinstance(row, dict):
            names_text = ", ".join(str(row[key]) for key in images if row.get(key))
            rows[f"{place}. {names_text}"] = row
    why = ("reason", "error")
    columns = [*[*total][: _MAX_CELLS - len(why)], *why]
    over = {"mean": "Mean", "sd": "Standard deviation", "images": "Images"}
    quantities = {
        "summary": Quantity(
            "Over all images",
            keys={key: Quantity(label) for key, label in over.items()},
        ),
        "rows": Quantity("Each image", keys={key: Quantity(key) for key in columns}),
    }
    return quantities, {"summary": total, "rows": rows}


def _list_numbers(
    quantities: Mapping[str, Quantity],
    record: Mapping[str, Any],
    values: Mapping[str, str],
) -> tuple[list[Number], list[NumbersTable]]:
    """Return values of a record, with suffixes of their labels, and nested tables."""
    numbers: list[Number] = []
    sheets: list[NumbersTable] = []
    for key, suffix in values.items():
        quantity, value = quantities[key], record.get(key)
        if isinstance(value, list) and quantity.keys is not None:
            value = {str(place): row for place, row in enumerate(value, start=1)}
        if not isinstance(value, dict):
            number = _format_number(_create_number(quantities, key, record))
            if key == "pixel_size_nm" and value is not None:
                read = ReadOptions.parse({k: record.get(k) for k in _SIZES})
                size_text = describe_pixel_size(
                    read.pixel_size_nm, read.pixel_size_sd_nm
                )
                number = replace(number, value=size_text)
            numbers.append(replace(number, name=f"{number.name}{suffix}"))
            continue
        rows = {name: row for name, row in value.items() if isinstance(row, dict)}
        several = len(rows) + [*value.values()].count(None) == len(value)
        if rows and several and quantity.keys is not None:
            sheets.append(_create_table(quantity, rows))
            continue
        plain = {name: Quantity(name) for name in value if name not in rows}
        inner = get_record_quantities(quantity.keys or plain)
        more, inner_tables = _list_numbers(inner, value, _select_values(inner, value))
        for one in more:
            first = one.name[:1].lower() if one.name[1:2].islower() else one.name[:1]
            name = f"{quantity.label}, {first}{one.name[1:]}"
            method = one.method or str(record.get("method") or "")
            numbers.append(replace(one, name=name, method=method))
        sheets += inner_tables
    return numbers, sheets


def _create_number(
    quantities: Mapping[str, Quantity], name: str, record: Mapping[str, Any]
) -> Number:
    """Create a number from a declared value, or from the reason if it is missing.

    A value that exists only in another unit is returned in that unit.
    """
    quantity, value = quantities[name], record.get(name)
    other = record.get(quantity.also) if quantity.also else None
    in_px = bool(quantity.also) and record.get("pixel_size_nm", ()) is None
    if value is None and (in_px or other is not None):
        return _create_number(quantities, quantity.also, record)
    also, interval, threshold, reason = [], None, "", ""
    ends: Any = record.get(quantity.interval) if quantity.interval else None
    if isinstance(other, int | float):
        second = quantities[quantity.also]
        also = [f"{format_value(other, second.form)} {second.unit}".rstrip()]
    if isinstance(ends, list | tuple) and len(ends) == 2 and None not in ends:
        interval = (float(ends[0]), float(ends[1]))
    if quantity.reason:  # older files have only its code
        reason = str(record.get(quantity.reason) or record.get("reason") or "")
        threshold = str(record.get("criterion") or "")
    sd = record.get(quantity.sd) if quantity.sd else None
    method = record.get(quantity.method) if quantity.method else None
    return Number(
        quantity.label,
        value,
        quantity.unit,
        "; ".join([*also, reason] if reason and value is not None else also),
        interval,
        quantity.within or "one step, not 95 %",
        threshold,
        "; ".join(str(one) for one in (method, quantity.definition) if one),
        f"{reason}." if reason and value is None else "",
        quantity.form,
        sd=float(sd) if isinstance(sd, int | float) else None,
    )


def _select_values(
    quantities: Mapping[str, Quantity],
    record: Mapping[str, Any],
    elsewhere: Set[str] = frozenset(),
) -> dict[str, str]:
    """Return the declared keys of a record that are not shown with other keys."""
    beside = elsewhere | _get_companion_keys(quantities)
    keys = (key for key in record if key in quantities and key not in beside)
    return dict.fromkeys(keys, "")


def _get_companion_keys(quantities: Mapping[str, Quantity]) -> set[str]:
    """Return the keys that are shown together with other keys."""
    return {
        name
        for q in quantities.values()
        for name in (q.also, q.sd, q.interval, q.reason, q.method)
    }


def _create_table(
    quantity: Quantity, rows: Mapping[str, Mapping[str, Any]]
) -> NumbersTable:
    """Tabulate named records with the declared columns."""
    quantities = get_record_quantities(quantity.keys)
    beside = _get_companion_keys(quantities)

    def is_known(name: str) -> bool:
        return any(row.get(name) is not None for row in rows.values())

    names = [
        name if is_known(name) else quantities[name].also
        for name in getattr(quantity.keys, "ROWS", quantities)
        if name not in beside
    ]
    names = [name for name in names if name and is_known(name)][:_MAX_CELLS]
    columns = {name: quantities[name] for name in names}
    heads = (f"{q.label} ({q.unit})" if q.unit else q.label for q in columns.values())
    cells = []
    for name, row in [*rows.items()][:_MAX_ROWS]:
        texts = [name]
        for key, q in columns.items():
            value, sd = row.get(key), row.get(q.sd) if q.sd else None
            if isinstance(value, bool):
                texts.append("yes" if value else "no")
            elif not isinstance(value, (int, float)):
                texts.append(NO_VALUE if value is None else str(value))
            else:  # with the declared number of digits
                sd = sd if isinstance(sd, (int, float)) else None
                texts.append(str(Figure(float(value), "", q.form, sd=sd)))
        cells.append(tuple(texts))
    left_out = max(0, len(rows) - _MAX_ROWS)
    return NumbersTable(quantity.label, ("", *heads), tuple(cells), left_out)


def _format_number(number: Number) -> Number:
    """Format a boolean or a list, summarising a long list by its mean."""
    values: Any = number.value
    if isinstance(values, bool):
        return replace(number, value="yes" if values else "no")
    if isinstance(values, dict):
        return replace(number, value=None)
    if not isinstance(values, list):
        return number
    plain = [v for v in values if isinstance(v, (int, float)) and v == v]
    if not plain or len(plain) + values.count(None) < len(values):
        return replace(number, value=None)  # if it has no numbers
    form = number.form
    text = ", ".join(NO_VALUE if v is None else format_value(v, form) for v in values)
    sd = "" if number.sd is None else f" {_PLUS_MINUS} {format_value(number.sd, '.2g')}"
    text = f"{text}{sd} {number.unit}".rstrip()
    if len(values) > _SHORT:
        mean, spread = (format_value(float(part(plain))) for part in (np.mean, np.std))
        error = f"{mean} ± {spread} {number.unit}".rstrip()
        text = f"{len(plain)} values, mean {error} (s.d.)"
    return replace(number, value=text, unit="", also="", sd=None)
