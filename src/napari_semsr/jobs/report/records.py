"""JSON files of the measuring verbs, as numbers of a report."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_semsr.core import (
    DB,
    Curve,
    Figure,
    Quantity,
    ReadError,
    digest_path,
    parts_of,
    quantities_of,
    shown,
)
from napari_semsr.io import ReadOptions, decoding, read_text
from napari_semsr.jobs.index import MEASURES, verb_of
from napari_semsr.jobs.report.numbers import Number, number_of
from napari_semsr.reporting import NO_VALUE, written

_LARGEST = 64 << 20  # bytes; chosen: a histogram of 65 536 bins has 2 MB
_MOST_ROWS = 40  # of a table on the page; chosen: two thirds of a sheet
_MOST_CELLS = 6  # columns of such a table; chosen: what fits on a sheet
_SHORT = 4  # values of a list that are written out; chosen: a box, a line

KINDS = {
    "frc": "criterion correlation resolution_px",
    "frc-map": "blocks failed reasons median_px block step",
    "decorrelation": "resolution_px filtered correlation values_px",
    "spectrum": "frequency_per_px power",
    "error-map": "rse rsp sigma_px alpha beta",
    "repeatability": "sd noise rest noise_share",
    "trust": "shown kinds share familiar",
    "metrics": "psnr_db ssim average_gradient data_range",
    "gaps": "particles pairs undetected_fraction widths_px",
    "profile": "distance_px intensity fwhm_px",
    "histogram": "bins counts",
    "calibrate": "pixel_size_nm pixel_size_sd_nm pitch_nm lattice",
    "register": "transform mutual_information_after residual_median_nm",
    "judge": "baselines models registration",
}
"""Keys that the JSON of verbs has had from the first; older files tell no verb."""
_KNOWN = tuple(dict.fromkeys((*KINDS, *MEASURES)))

_UNITS = {
    "_nm": "nm",
    "_px": "px",
    "_db": DB,
    "_percent": "%",
    "_deg": "°",
    "_per_um": "µm⁻¹",
}
# intervals and errors of other entries
_OF_ANOTHER = re.compile(r"_interval$|_sd$|_interval_|^interval_|^pixel_size_sd")
_WORDS = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "nrmse": "NRMSE",
    "rse": "RSE",
    "rsp": "RSP",
    "emd": "Distance of grey levels",
    "fwhm": "FWHM",
    "sd": "standard deviation",
    "sem": "SEM",
}
# curves and texts that are no numbers, or stand elsewhere on the page
_ELSEWHERE = frozenset(
    {
        *("kind", "image", "images", "optical", "sem", "name", "method"),
        *("criterion", "reason"),
        *("warnings", "note", "output", "path", "table", "centred", "map", "numbers"),
        *("seconds", "seed", "resamples", "provenance", "look", "shape", "edges"),
        *("frequency_per_px", "frequency_per_um", "correlation", "filtered", "power"),
        *("threshold", "samples", "distance_nm", "distance_px", "intensity", "bins"),
        *("counts", "reference_counts", "values_px", "places_px", "tukey"),
    }
)


@dataclass(frozen=True, slots=True)
class NumbersTable:
    """Rows of a JSON file as a table."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class StoredNumbers:
    """What a JSON file of ours holds."""

    name: str
    digest: str
    verb: str  # that wrote it
    images: tuple[str, ...]  # that were measured
    numbers: list[Number]
    sheets: list[NumbersTable]
    notes: list[str]  # what it warns of
    content: dict[str, Any]


def curves_of(name: str) -> tuple[Curve, ...]:
    """Give the curves that a verb declares."""
    verb = verb_of(name)
    return () if verb is None else verb.curves


def is_record(path: Path) -> bool:
    """Tell whether an input is a JSON file by its name."""
    return path.suffix.lower() == ".json"


def read_record(path: Path) -> StoredNumbers:
    """Read what a measuring verb wrote."""
    try:
        if path.stat().st_size > _LARGEST:
            msg = f"{path} is too large for the numbers of a measurement."
            raise ReadError(msg)
        content = json.loads(
            read_text(path, "utf-8-sig"),
            parse_constant=_number,
            parse_float=_number,
            parse_int=_number,
        )
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "it is no JSON"
        msg = f"{path} cannot be read: {reason}."
        raise ReadError(msg) from error
    verb = _verb(content)
    if verb is None:
        msg = (
            f"{path.name} must be JSON of a measuring verb, got another: take what "
            f"semsr {', '.join(_KNOWN)} wrote with --json."
        )
        raise ReadError(msg)
    with decoding(path, "numbers of a measurement"):
        _check_curves(content, curves_of(verb))
        return _told(path, verb, content)


def _number(text: str) -> int | float:
    """Read a number that is one; JSON of ours holds neither NaN nor infinity."""
    value = float(text)
    if not math.isfinite(value):
        msg = f"{shown(text)} is no number"
        raise ValueError(msg)
    return int(text) if text.lstrip("-").isdigit() else value


def _check_curves(content: Mapping[str, Any], declared: Sequence[Curve]) -> None:
    """Refuse curves that cannot be drawn: no numbers, or not as many of both axes."""
    for curve in declared:
        unit = "px" if content.get(curve.x.format(unit="nm")) is None else "nm"
        at, *names = (name.format(unit=unit) for name in (curve.x, *curve.ordinates))
        x = _checked(at, content)
        for name in names:
            y = _checked(name, content)
            more = int(curve.shares)  # there are more edges than counts
            if None not in (x, y) and len(x) != len(y) + more:
                msg = f"{at} and {name} must be of one length"
                raise ValueError(msg)
    if content.get("pixel_size_nm") is not None:
        ReadOptions.parse({"pixel_size_nm": content["pixel_size_nm"]})


def _checked(name: str, content: Mapping[str, Any]) -> Any:
    """Give a list of numbers, or none."""
    item = content.get(name)
    kinds = {type(value) for value in item} if isinstance(item, list) else {str}
    known = kinds <= {int, float, type(None)} and kinds & {int, float}
    if item is not None and not known:
        msg = f"{name} must be a list of numbers, got {shown(item)}"
        raise ValueError(msg)
    return item


def _told(path: Path, verb: str, content: dict[str, Any]) -> StoredNumbers:
    """Put what a record holds in order."""
    numbers: list[Number] = []
    sheets: list[NumbersTable] = []
    value_verb = verb_of(verb)
    declared = {} if value_verb is None else quantities_of(value_verb.result)
    parts = {} if value_verb is None else parts_of(value_verb.result)
    beside = {n for q, _ in declared.values() for n in (q.also, q.sd, q.interval)}
    drawn = {key for curve in curves_of(verb) for key in curve.fields}
    for key, value in content.items():
        text = key in _ELSEWHERE and isinstance(value, str | bool | None)
        if key in drawn:
            continue
        if key in declared and not text and not isinstance(value, Mapping):
            if key not in beside:
                numbers.append(_plain(number_of(declared, key, content.get)))
        elif key in _ELSEWHERE or _OF_ANOTHER.search(key):
            continue
        elif key in parts and isinstance(value, Mapping):
            more, laid = _part(_words(key), parts[key], value)
            numbers, sheets = [*numbers, *more], [*sheets, *laid]
        elif isinstance(value, list) and {*map(type, value)} == {dict}:
            sheets += [one for one in [_sheet(_words(key), value)] if one.heads]
        else:
            numbers += _numbers(key, value)
    method, threshold, reason = (
        str(content.get(key) or "") for key in ("method", "criterion", "reason")
    )
    for place, number in enumerate(numbers):
        numbers[place] = replace(number, method=method)
        if number.name.startswith("Resolution"):
            why = f"{reason}." if reason and number.value is None else number.reason
            numbers[place] = replace(numbers[place], threshold=threshold, reason=why)
    notes = [*(content.get("warnings") or []), content.get("note")]
    return StoredNumbers(
        name=path.name,
        digest=digest_path(path),
        verb=verb,
        images=_images(content),
        numbers=[one for one in numbers if one.value is not None or one.reason],
        sheets=sheets,
        notes=[str(note) for note in notes if note],
        content=content,
    )


def _verb(content: Any) -> str | None:
    """Tell which verb wrote a record."""
    if not isinstance(content, dict):
        return None
    if content.get("kind") in _KNOWN:
        return str(content["kind"])
    fits = (name for name, keys in KINDS.items() if content.keys() >= {*keys.split()})
    return next(fits, None)


def _images(content: Mapping[str, Any]) -> tuple[str, ...]:
    """Name what was measured."""
    found = content.get("images") or content.get("image") or []
    if isinstance(found, str):
        return (found,)
    told = [str(item) for item in found] if isinstance(found, list) else []
    told += [str(content[key]) for key in ("optical", "sem") if content.get(key)]
    return tuple(told)


def _part(
    title: str, kind: Any, part: Mapping[str, Any]
) -> tuple[list[Number], list[NumbersTable]]:
    """Give the numbers of a record within a record, or those of several by name."""
    rows = {name: row for name, row in part.items() if isinstance(row, dict)}
    if len(rows) == len(part):
        return [], [_declared_rows(title, kind, rows)] if rows else []
    declared = quantities_of(kind)
    beside = {n for q, _ in declared.values() for n in (q.also, q.sd, q.interval)}
    numbers = (
        number_of(declared, key, part.get)
        for key in part
        if key in declared and key not in beside
    )
    told = (replace(one, name=f"{title}, {one.name.lower()}") for one in numbers)
    return [_plain(one) for one in told], []


def _declared_rows(
    title: str, kind: Any, rows: Mapping[str, Mapping[str, Any]]
) -> NumbersTable:
    """Lay records by name under each other, as their keys are declared."""
    declared = quantities_of(kind)
    names = [
        name
        for name in getattr(kind, "ROWS", declared)
        if any(row.get(name) is not None for row in rows.values())
    ][:_MOST_CELLS]
    told = [declared[name][0] for name in names]
    heads = [f"{one.label} ({one.unit})" if one.unit else one.label for one in told]
    cells = [
        (name, *(_figure(one, key, row) for key, one in zip(names, told, strict=True)))
        for name, row in rows.items()
    ]
    left_out = max(0, len(cells) - _MOST_ROWS)
    return NumbersTable(title, ("", *heads), tuple(cells[:_MOST_ROWS]), left_out)


def _figure(told: Quantity, key: str, row: Mapping[str, Any]) -> str:
    """Write a cell with the digits that are declared."""
    value, sd = row.get(key), row.get(told.sd) if told.sd else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _cell(value)
    known = isinstance(sd, (int, float))
    return str(Figure(float(value), "", told.form, sd=sd if known else None))


def _numbers(key: str, value: Any) -> Iterator[Number]:
    """Give the numbers of an entry that no verb declares, by its key."""
    name, unit = _named(key)
    if not isinstance(value, Mapping):
        yield _undeclared(name, value, unit)
        return
    for inner, item in value.items():
        if isinstance(item, (int, float, str)):
            unit_of = _named(inner)[1] or unit
            yield _undeclared(f"{name}, {_words(inner)}", item, unit_of)


def _undeclared(name: str, value: Any, unit: str) -> Number:
    whole = isinstance(value, int) and abs(value) < 10**15
    return _plain(Number(name, value, unit, form="d" if whole else ".4g"))


def _plain(number: Number) -> Number:
    """Write out what is true or false, and a list, a long one by its mean."""
    values: Any = number.value
    if isinstance(values, bool):
        return replace(number, value="yes" if values else "no")
    if not isinstance(values, list):
        return number
    plain = [v for v in values if isinstance(v, (int, float)) and v == v]
    if not plain or len(plain) + values.count(None) < len(values):
        return replace(number, value=None)  # of no numbers
    said = ", ".join(NO_VALUE if v is None else written(v) for v in values)
    if len(values) > _SHORT:
        mean, spread = (written(float(part(plain))) for part in (np.mean, np.std))
        said = f"{len(plain)} values, mean {mean} ± {spread} (s.d.)"
    return replace(number, value=said, also="")


def _named(key: str) -> tuple[str, str]:
    """Give name and unit of a key."""
    ends = ((end, unit) for end, unit in _UNITS.items() if key.endswith(end))
    ending, unit = next(ends, ("", ""))
    return _words(key.removesuffix(ending)), unit


def _words(key: str) -> str:
    """Write a key as words."""
    words = [_WORDS.get(word, word) for word in key.replace("-", "_").split("_")]
    text = " ".join(filter(None, words))
    return text[:1].upper() + text[1:]


def _sheet(title: str, rows: list[dict[str, Any]]) -> NumbersTable:
    """Lay rows of a record under each other, columns without a value left away."""
    keys = [
        key
        for key in rows[0]
        if any(isinstance(row.get(key), (int, float, str)) for row in rows)
    ][:_MOST_CELLS]
    heads = tuple(
        " ".join(filter(None, (name, f"({unit})" if unit else "")))
        for name, unit in map(_named, keys)
    )
    cells = tuple(
        tuple(_cell(row.get(key)) for key in keys) for row in rows[:_MOST_ROWS]
    )
    return NumbersTable(title, heads, cells, max(0, len(rows) - _MOST_ROWS))


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return written(float(value))
    return NO_VALUE if value is None else str(value)
