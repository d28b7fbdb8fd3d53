"""Tables of cells with a header: CSV as spreadsheets write it, and Parquet.

A table is read as text, with the line of each row for whoever must complain of it, and
written whole or not at all. Parquet goes by ``pyarrow``, which the extra ``[table]``
installs.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from napari_semsr.core import ReadError, WriteError, open_file
from napari_semsr.io.files import decoding, read_text, replacing

SHEET_SUFFIXES = (".csv", ".tsv", ".parquet")
"""Endings of the tables that can be read."""

TABLE_SUFFIXES = (".csv", ".parquet")
"""Endings of those that can be written."""

_PARQUET = ".parquet"

Cell = str | int | float | bool | None
"""What a cell holds; None where nothing is known."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table as text."""

    names: tuple[str, ...]  # what the columns are called
    # line and cells of each row that is not empty, as many or more or fewer than names
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    mark: str = ","  # what stands between cells: decimal commas are told by it


def read_sheet(path: Path, what: str) -> Sheet:
    """Read a table.

    Parameters
    ----------
    path : pathlib.Path
        ``.parquet``, or text whose cells are parted by comma, semicolon or tab.
    what : str
        What it should hold, for messages.

    Returns
    -------
    Sheet
        Names and cells; without any where the file is empty.
    """
    if path.suffix.lower() == _PARQUET:
        return _read_parquet(path)
    try:
        text = read_text(path, "utf-8-sig")
        header = text.partition("\n")[0]
        mark = next((mark for mark in ",;\t" if mark in header), ",")
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=mark)
        rows = [(lines.line_num, tuple(cell.strip() for cell in row)) for row in lines]
    except UnicodeDecodeError as error:
        msg = (
            f"{path} must be text in UTF-8 to be read as a table of {what}, got "
            "another encoding: save it as CSV UTF-8."
        )
        raise ReadError(msg) from error
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        msg = f"{path} cannot be read as a table of {what}: {reason}."
        raise ReadError(msg) from error
    filled = [(line, row) for line, row in rows[1:] if any(row)]
    return Sheet(rows[0][1] if rows else (), tuple(filled), mark)


def write_sheet(path: Path, columns: Mapping[str, Sequence[Cell]]) -> None:
    """Write a table, whole or not at all; what is there is replaced.

    Parameters
    ----------
    path : pathlib.Path
        Ends in ``.csv`` or ``.parquet``.
    columns : dict
        Cells of each column by its name, all of one length.
    """
    if path.suffix.lower() == _PARQUET:
        _write_parquet(path, columns)
        return
    with replacing(path) as place, place.open("w", encoding="utf-8", newline="") as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerow(columns)
        table.writerows(
            [_said(cell) for cell in row] for row in zip(*columns.values(), strict=True)
        )


def check_sheet(path: Path) -> None:
    """Refuse a table that could not be written later.

    Parameters
    ----------
    path : pathlib.Path
        Where it shall go.
    """
    if path.suffix.lower() == _PARQUET:
        _library(path, "written", WriteError)


def _said(cell: Cell) -> Cell:
    """Write a cell; nine digits of a number are more than any measure has."""
    if isinstance(cell, bool):
        return str(cell).lower()
    return f"{cell:.9g}" if isinstance(cell, float) else cell


def _library(path: Path, done: str, kind: type[ReadError | WriteError]) -> Any:
    """Import pyarrow's Parquet, or say how to get it."""
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        msg = (
            f"{path} needs pyarrow to be {done}: pip install 'napari-semsr[table]', or "
            "take a .csv file."
        )
        raise kind(msg) from error


def _read_parquet(path: Path) -> Sheet:
    """Read a table whose columns have types, as text."""
    _, parquet = _library(path, "read", ReadError)
    with decoding(path, "Parquet"), open_file(path) as stream:
        columns = parquet.read_table(stream).to_pydict()
    cells = zip(*columns.values(), strict=True)
    rows = (
        tuple("" if cell is None else str(_said(cell)) for cell in row) for row in cells
    )
    filled = tuple(item for item in enumerate(rows, start=2) if any(item[1]))
    return Sheet(tuple(columns), filled)


def _write_parquet(path: Path, columns: Mapping[str, Sequence[Cell]]) -> None:
    """Write columns of truths, of numbers or of texts, the same whatever is unknown."""
    arrow, parquet = _library(path, "written", WriteError)
    typed = {}
    made: type[float | str]
    for name, cells in columns.items():
        kinds = {type(cell) for cell in cells if cell is not None}
        if kinds == {bool}:
            typed[name] = arrow.array(cells)
            continue
        are_numbers = bool(kinds) and kinds <= {int, float}
        kind, made = (arrow.float64, float) if are_numbers else (arrow.string, str)
        filled = [None if cell is None else made(cell) for cell in cells]
        typed[name] = arrow.array(filled, type=kind())
    with replacing(path) as place:
        parquet.write_table(arrow.table(typed), place)
