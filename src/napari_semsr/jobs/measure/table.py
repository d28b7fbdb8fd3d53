"""Measure many images, and write a table with one row per image."""

import glob
import hashlib
import itertools
import json
import math
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from unicodedata import normalize

import numpy as np

from napari_semsr import core, io
from napari_semsr.jobs.images import (
    REPLACING,
    OverwritePolicy,
    Result,
    to_json_value,
)
from napari_semsr.jobs.index import MEASURES, describe_former_name
from napari_semsr.jobs.many import Outcome, run_each
from napari_semsr.jobs.resume import read_file_state
from napari_semsr.jobs.verb import Output, Verb, check_devices, get_verb

T = TypeVar("T")

Cells = dict[str, io.Cell]
Inputs = str | os.PathLike[str] | Sequence[Any]
"""Folder, glob or table of images, or a sequence of paths or pairs of paths."""

_PIXEL = ("pixel_size_y_nm", "pixel_size_x_nm")
_TABLE = Output("", ending=io.TABLE_SUFFIXES[0], also=io.TABLE_SUFFIXES[1:])


_Measure = Verb[core.Options, Result]


def get_measuring_command(name: str) -> _Measure:
    """Return a measuring command by name; raise an error for other names."""
    verb = get_verb(name) if name in MEASURES else None
    if former := describe_former_name(name):
        raise core.OptionError(former)
    if verb is None:
        msg = f"The measure must be one of {', '.join(MEASURES)}, got {name!r}."
        raise core.OptionError(msg, code="verb-unknown")
    return verb


# Which images: a folder, a glob, a table, or a list.

_GLOB = frozenset("*?[")
_IMAGE_END = re.compile(r"(\.ome)?\.(zarr|tiff?|png|jpe?g|bmp)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _InputRow:
    """Input images of one row of the table."""

    paths: tuple[Path | None, ...]  # one for each role
    cells: Cells = field(default_factory=dict)  # further cells of a table
    fault: str = ""  # reason why nothing can be measured


def is_image_collection(image: object) -> bool:
    """Return whether an input is a folder, a glob or a table instead of one image."""
    if not isinstance(image, (str, os.PathLike)):
        return isinstance(image, Sequence)
    path = Path(image)
    if path.is_dir():
        return io.is_scan(path)
    if path.exists():
        return _is_sheet(path)
    return bool(_GLOB & set(os.fspath(image)))


def _is_sheet(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in io.SHEET_SUFFIXES


def find_images(images: str | os.PathLike[str]) -> list[Path]:
    """List the images in a folder, images matching a glob, or a single image."""
    path = Path(images)
    if not is_image_collection(images):
        return [path]
    if path.is_dir():
        paths_found = io.list_images(path)
    else:
        names = glob.glob(os.fspath(images), recursive=True)  # noqa: PTH207 - absolute
        paths = map(Path, sorted(names, key=io.natural_sort_key))
        paths_found = [path for path in paths if not core.is_system_file(path.name)]
        if not paths_found:
            images_text = core.format_one_line(os.fspath(images), 300)
            msg = f"No file matches {images_text}; check the pattern."
            raise core.ReadError(msg, code="file-missing")
    halves = {half for one in paths_found for half in io.get_half_paths(one)}
    return [one for one in paths_found if one not in halves]


def _create_input_rows(
    measure: _Measure, images: Inputs, second: Inputs | None
) -> list[_InputRow]:
    if not isinstance(images, (str, os.PathLike)):
        items = []
        for one in images:  # an image of a list, or a pair
            parts = [one] if isinstance(one, (str, os.PathLike)) else list(one)
            parts += [second] if second is not None and len(parts) == 1 else []
            paths = [None if part is None else Path(part) for part in parts]
            items.append(_check_image_count(measure, paths))
        return items
    if _is_sheet(Path(images)):
        if second is not None:
            msg = (
                f"The table {images} already lists all images of each row: omit the "
                f"second input, got {second}."
            )
            raise core.OptionError(msg, code="options-contradict")
        rows, folder = [], Path(images).parent
        counts = measure.roles, measure.required_image_count
        for columns, cells in read_image_rows(Path(images), *counts):
            names = [cells[name] if name else "" for name in columns]
            places = (io.get_disk_spelling(folder / n) if n else None for n in names)
            own = {"", *_get_table_columns(measure), *columns}
            other: Cells = {k: v or None for k, v in cells.items() if k not in own}
            rows.append(_InputRow(tuple(places), other))
        return rows
    firsts = find_images(images)
    if second is None:
        rows = [_check_image_count(measure, [path]) for path in firsts]
        return _check_files_exist(rows)
    if not isinstance(second, (str, os.PathLike)) or _is_sheet(Path(second)):
        msg = (
            f"The second input must be an image, a folder or a glob, got {second}. To "
            "use a table, name both images in its rows and omit the second input."
        )
        raise core.OptionError(msg, code="wrong-type")
    seconds = find_images(second)
    if is_image_collection(images) and is_image_collection(second):
        return _pair_images(firsts, seconds, second)
    pairs = itertools.product(firsts, seconds)
    return _check_files_exist([_check_image_count(measure, pair) for pair in pairs])


def _check_files_exist(items: list[_InputRow]) -> list[_InputRow]:
    """Raise an error if a file is missing, before a table is written."""
    for path in dict.fromkeys(path for item in items for path in item.paths):
        if path is not None and not path.exists():
            raise io.create_missing_file_error(path)
    return items


def _check_image_count(measure: _Measure, paths: Sequence[Path | None]) -> _InputRow:
    """Raise an error for too few or too many images in a row."""
    least, most = measure.required_image_count, len(measure.roles)
    if not least <= len(paths) <= most or None in paths[:least]:
        count = f"{least}" if least == most else f"{least} or {most}"
        msg = (
            f"A row must have {count} image{'s' if most > 1 else ''} "
            f"({' and '.join(measure.image_columns)}), got {len(paths)}; pass as many, "
            "or a table with one column per image."
        )
        raise core.OptionError(msg, code="wrong-image-count")
    return _InputRow((*paths, *[None] * (most - len(paths))))


def _pair_images(
    firsts: list[Path], seconds: list[Path], where: object
) -> list[_InputRow]:
    """Pair images of two folders by name; suffixes may differ."""
    by_name = {normalize("NFC", path.name): path for path in seconds}
    by_name |= {path.name: path for path in seconds}
    by_stem = {_get_image_stem(path): path for path in reversed(seconds)}
    items = []
    for path in firsts:
        names = path.name, normalize("NFC", path.name)
        paths = filter(None, (by_name.get(name) for name in names))
        stem, fault = _get_image_stem(path), ""
        if (other := next(paths, by_stem.get(stem))) is None:
            fault = core.Message(
                f"There is no image named {stem} in {where}.", "second-image-missing"
            )
        items.append(_InputRow((path, other), fault=fault))
    if all(item.fault for item in items):
        msg = (
            "The images in both folders must have the same names, got "
            f"{firsts[0].name} and {seconds[0].name}; list pairs with different names "
            "in a table."
        )
        raise core.ReadError(msg, code="second-image-missing")
    return items


def _get_image_stem(path: Path) -> str:
    return _IMAGE_END.sub("", normalize("NFC", path.name))


def read_image_rows(
    path: Path, roles: Sequence[Sequence[str]], least_count: int = 1
) -> Iterator[tuple[list[str | None], dict[str, str]]]:
    """Yield the role columns and the cells for each row of an image table.

    The first roles are `least_count`: each must have a column, and a value in each row.
    """
    sheet = io.read_sheet(path, "images")
    columns = [next((n for n in role if n in sheet.names), None) for role in roles]
    if None in columns[:least_count]:
        names = " and ".join(role[0] for role in roles[:least_count])
        msg = (
            f"{path} must have the column{'s' if least_count > 1 else ''} {names}, got "
            f"{', '.join(sheet.names) or 'nothing'}."
        )
        raise core.ReadError(msg, code="table-invalid")
    if not sheet.rows:
        msg = f"{path} must have at least one row with an image, but has no rows."
        raise core.ReadError(msg, code="table-invalid")
    for line, row in sheet.rows:
        cells = dict(zip(sheet.names, row, strict=False))
        first = list(filter(None, columns[:least_count]))
        if len(row) != len(sheet.names) or not all(cells[name] for name in first):
            what_it_does = "name images" if least_count > 1 else "names one"
            msg = (
                f"Line {line} of {path} must have {len(sheet.names)} cells, of which "
                f"{' and '.join(first)} {what_it_does}, got {','.join(row)!r:.80}."
            )
            raise core.ReadError(msg, code="table-invalid")
        for name, cell in cells.items():
            cells[name] = sheet.replace_decimal_comma(cell)
        yield columns, cells


# Fingerprints of rows, to decide whether a row must be measured again.

_LAST = ("warnings", "error", "fingerprint")
_PAUSE_S = 2.0  # seconds between saves of a table; chosen: little work is lost
_PENDING = "Not measured yet; set `resume` to continue."


def _get_table_columns(measure: _Measure) -> tuple[str, ...]:
    """Return the table columns, without extra columns of the input table."""
    return (*measure.image_columns, *core.get_columns(measure.result), *_LAST)


def _compute_digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _compute_fingerprint(way: str, item: _InputRow) -> str:
    """Return a fingerprint of a row's options and files."""
    there = [path for path in item.paths if path is not None]
    files = [one for path in there for one in (path, *io.list_companion_files(path))]
    return f"{way}-{_compute_digest([read_file_state(one) for one in files])}"


def format_table_path(path: Path | None, table: Path | None) -> str | None:
    """Return a path, relative to the folder of the table if it is inside."""
    if path is not None and table is not None:
        path, folder = path.absolute(), table.absolute().parent
        path = path.relative_to(folder) if folder in path.parents else path
    return None if path is None else path.as_posix()


def _parse_cell(text: str, mark: str) -> io.Cell:
    """Parse a cell of a resumed table, which a spreadsheet may have reformatted."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    number = text if mark == "," else text.replace(",", ".")
    for kind in (int, float):
        with suppress(ValueError):  # another kind, or text
            return kind(number)
    return text


def _read_table_rows(path: Path, measure: _Measure) -> list[Cells]:
    """Read the rows of a table to resume."""
    sheet = io.read_sheet(path, "measured images")
    columns, measured = _get_table_columns(measure), core.get_columns(measure.result)
    missing = [name for name in columns if name not in sheet.names]
    if missing:
        msg = (
            f"{path} cannot be resumed with this measure, because it has no column "
            f"{missing[0]}; choose another name, or set `overwrite`."
        )
        raise core.WriteError(msg, code="other-run")
    rows = []
    for line, cells in sheet.rows:
        if len(cells) != len(sheet.names):
            msg = (
                f"Line {line} of {path} must have {len(sheet.names)} cells to be "
                f"resumed, got {len(cells)}; correct the line, or set `overwrite`."
            )
            raise core.WriteError(msg, code="table-invalid")
        row: Cells = {}
        for name, cell in zip(sheet.names, cells, strict=True):
            number = cell and name in measured
            row[name] = _parse_cell(cell, sheet.mark) if number else cell or None
        rows.append(row)
    return rows


# The table, and the run that fills it.


@dataclass(frozen=True, slots=True)
class MeasuredTable(Result):
    """Result of measuring many images.

    `summary` has ``mean``, ``sd`` and number of ``images`` of each column of numbers,
    over all rows; ``sd`` is None for one image.
    """

    measure: str  # name of its command
    table: str | None  # path, if it was written
    images: int  # rows
    measured: int  # of the requested images, in this run
    kept: int  # rows that were already there
    failed: int
    summary: dict[str, dict[str, float | int | None]]
    reasons: dict[str, int]  # number of images without a result, for each
    rows: list[Cells]


class _TableRows:
    """Table rows, of which only the missing ones are measured."""

    def __init__(
        self,
        measure: _Measure,
        items: Sequence[_InputRow],
        place: Path | None,
        way: str,
    ) -> None:
        self.measure, self.items, self.place, self.way = measure, items, place, way
        self.item_rows: list[Cells | None] = [None] * len(items)
        self.others: list[Cells] = []  # of images not requested
        self.dropped_rows = 0  # rows of images that no longer exist
        self.has_new_rows = False  # whether a row was measured

    def create_row(self, item: _InputRow) -> Cells:
        """Return the cells of a row that are known before its files are read."""
        paths = [format_table_path(path, self.place) for path in item.paths]
        return {
            **dict(zip(self.measure.image_columns, paths, strict=True)),
            **item.cells,
        }

    def restore_rows(self, earlier: Sequence[Cells]) -> None:
        """Keep the earlier rows that are still valid."""
        names = self.measure.image_columns
        earlier_rows = {tuple(row.get(name) for name in names): row for row in earlier}
        for number, item in enumerate(self.items):
            new_row = self.create_row(item)
            row = earlier_rows.pop(tuple(new_row.get(name) for name in names), None)
            if row is None or row.get("error"):
                continue
            if row["fingerprint"] == _compute_fingerprint(self.way, item):
                self.item_rows[number] = {**row, **new_row}
        folder = Path() if self.place is None else self.place.parent
        for row in earlier_rows.values():
            places = (folder / str(row[name]) for name in names if row.get(name))
            if all(map(io.path_exists, places)):
                self.others.append(row)
        self.dropped_rows = len(earlier_rows) - len(self.others)
        ways = [str(row["fingerprint"] or self.way) for row in self.others]
        foreign = sum(way.partition("-")[0] != self.way for way in ways)
        if foreign:
            msg = (
                f"{self.place} can only be resumed with the same options, but "
                f"{foreign} rows of other images were measured with different options; "
                "choose another name, or set `overwrite`."
            )
            raise core.WriteError(msg, code="other-run")
        if self.dropped_rows:
            rows = "row" if self.dropped_rows == 1 else "rows"
            core.warn(
                f"Dropped {self.dropped_rows} {rows} of {self.place}, because the "
                "images no longer exist.",
                "rows-dropped",
            )

    def measure_all(self, options: Mapping[str, object]) -> core.Job[int]:
        """Measure missing rows, keeping finished rows if the run is stopped."""
        todo = [number for number, row in enumerate(self.item_rows) if row is None]
        names = []
        for number in todo:  # the shortest name that distinguishes rows
            path = self.items[number].paths[self.measure.required_image_count - 1]
            names.append("" if path is None else path.name)
        verb, new_rows, written_at = self.measure, dict[int, Cells](), -math.inf

        def measure_row(index: int) -> core.Job[Result]:
            item = self.items[todo[index]]
            fingerprint = _compute_fingerprint(self.way, item)
            new_rows[index] = {**self.create_row(item), "fingerprint": fingerprint}
            if item.fault:
                raise core.ReadError(item.fault)
            files = zip(verb.images, item.paths, strict=True)
            images = {one.name: str(path) for one, path in files if path}
            return (yield from verb.start({**options, **images}))

        def add_row(index: int, outcome: Outcome[Result]) -> None:
            nonlocal written_at
            row, own = new_rows[index], ()
            if outcome.result is not None:
                row |= to_json_value(core.get_cells(outcome.result))
                own = outcome.result.to_json().get("warnings") or ()
            sentences = dict.fromkeys(
                " ".join(str(one).split()) for one in (*own, *outcome.warnings)
            )
            row |= {"warnings": " ".join(sentences) or None, "error": outcome.error}
            self.item_rows[todo[index]] = row
            self.has_new_rows = True
            if time.monotonic() - written_at >= _PAUSE_S:
                self._write_table()
                written_at = time.monotonic()

        try:
            yield from run_each(names, measure_row, add_row)
        finally:
            self._write_table()
        return len(todo)

    def _write_table(self) -> None:
        """Write the table, if a row was added or removed."""
        rows = self.list_rows()
        if self.place is not None and rows and (self.dropped_rows or self.has_new_rows):
            io.write_sheet(self.place, {k: [row[k] for row in rows] for k in rows[0]})

    def list_rows(self) -> list[Cells]:
        """Return all rows, including unmeasured ones, with columns in order."""
        rows = [
            row or {**self.create_row(item), "error": _PENDING}
            for item, row in zip(self.items, self.item_rows, strict=True)
        ]
        rows += self.others
        own = _get_table_columns(self.measure)
        names = [name for row in rows for name in row if name not in own]
        first = len(self.measure.image_columns)
        columns = [*own[:first], *dict.fromkeys(names), *own[first:]]
        return [{name: row.get(name) for name in columns} for row in rows]


def _summarise_columns(
    rows: Sequence[Cells], columns: Iterable[str]
) -> dict[str, dict[str, float | int | None]]:
    """Return the mean and standard deviation of the numeric columns."""
    numbers: dict[str, dict[str, float | int | None]] = {}
    for name in columns:
        if name in _PIXEL:  # not a result
            continue
        values = [
            float(cell)
            for cell in (row.get(name) for row in rows)
            if isinstance(cell, (int, float)) and not isinstance(cell, bool)
        ]
        if values:
            sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
            mean = float(np.mean(values))
            numbers[name] = {"mean": mean, "sd": sd, "images": len(values)}
    return numbers


def measure_table_job(
    name: str,
    images: Inputs,
    second: Inputs | None = None,
    *,
    table: str | os.PathLike[str] | None = None,
    options: core.Options | None = None,
    opening: io.ReadOptions | None = None,
    existing: OverwritePolicy | None = None,
) -> core.Job[MeasuredTable]:
    """Measure many images, and write one row per image."""
    existing = existing or OverwritePolicy()
    yield core.Progress(0, 0, "looking for images")
    measure = get_measuring_command(name)
    settings = options or measure.options.parse({})
    check_devices((settings,))
    target = _check_table(table, (images, second), existing)
    items = _create_input_rows(measure, images, second)
    if target is not None:  # a glob may match the table itself
        items = [item for item in items if target not in item.paths]
    how = {
        "options": settings.model_dump(mode="json"),
        "opening": (opening or io.ReadOptions()).model_dump(mode="json"),
    }
    way: dict[str, object] = {**how, "measure": name, "switches": {}}
    way["version"] = core.get_software_versions().get("napari-semsr")
    rows = _TableRows(measure, items, target, _compute_digest(way))
    if target is not None and target.exists() and not existing.overwrite:
        rows.restore_rows(_read_table_rows(target, measure))
    measured_count = yield from rows.measure_all(how["opening"] | how["options"])
    every = rows.list_rows()
    own_rows = every[: len(items)]
    failures = [row for row in own_rows if row["error"]]
    _warn_about_rows(own_rows, failures, target)
    has_reason = "reason" in _get_table_columns(measure)
    reasons = [str(row["reason"]) for row in every if has_reason and row["reason"]]
    return MeasuredTable(
        measure=name,
        table=None if target is None else str(target),
        images=len(every),
        measured=measured_count - len(failures),
        kept=len(items) - measured_count,
        failed=len(failures),
        summary=_summarise_columns(every, core.get_columns(measure.result)),
        reasons=dict(Counter(reasons)),
        rows=every,
    )


def _check_table(
    table: str | os.PathLike[str] | None,
    images: Sequence[Inputs | None],
    existing: OverwritePolicy,
) -> Path | None:
    """Raise an error if a table cannot or must not be written."""
    if table is None:
        if existing.resume:
            msg = "Only a table can be resumed; set `table` as well."
            raise core.OptionError(msg, code="missing-value")
        return None
    paths = [Path(one) for one in images if isinstance(one, (str, os.PathLike))]
    target = _TABLE.check_path(table, paths, REPLACING)
    if target.exists() and not (existing.resume or existing.overwrite):
        msg = (
            f"{table} exists; set `resume` to keep its rows and measure the missing "
            "ones, set `overwrite` to start again, or choose another name."
        )
        raise core.WriteError(msg, code="output-exists")
    io.check_sheet_path(target)
    io.remove_leftovers(target.parent, target.name)
    return target


def _warn_about_rows(
    requested_rows: Sequence[Cells], failures: Sequence[Cells], table: Path | None
) -> None:
    """Warn about failed rows and about rows with warnings."""
    column = "" if table is None else f" of {table.name}"
    if failures and len(requested_rows) == 1:
        raise core.ReadError(
            str(failures[0]["error"]), code=core.get_error_code(failures[0]["error"])
        )
    if failures:
        first = f"the first: {failures[0]['error']}"
        if len(failures) == len(requested_rows):
            msg = f"None of the {len(requested_rows)} images could be measured; {first}"
            raise core.ReadError(msg, code="all-images-failed")
        core.warn(
            f"{len(failures)} of {len(requested_rows)} images could not be measured "
            f"(see column error{column}); {first}",
            "images-failed",
        )
    rows_with_warnings = [row for row in requested_rows if row["warnings"]]
    if rows_with_warnings:
        core.warn(
            f"{len(rows_with_warnings)} of {len(requested_rows)} images were measured "
            f"with warnings (see column warnings{column}); the first: "
            f"{rows_with_warnings[0]['warnings']}",
            "images-with-warnings",
        )
