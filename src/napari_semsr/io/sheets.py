"""Tables with a header: CSV as written by spreadsheets, and Parquet.

A table is read as text, with the line number of each row for error messages, and
written atomically. A text that a spreadsheet would interpret as a formula is preceded
by an apostrophe, which is removed on reading. Parquet needs ``pyarrow``, which the
extra ``[table]`` installs.
"""

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from napari_semsr import core
from napari_semsr.core import Message, ReadError, WriteError, describe_access_error
from napari_semsr.io import files

SHEET_SUFFIXES = (".csv", ".tsv", ".parquet")
"""Suffixes of readable tables."""

TABLE_SUFFIXES = (".csv", ".parquet")
"""Suffixes of writable tables."""

_PARQUET = ".parquet"

Cell = str | int | float | bool | None
"""Value of a cell; None if unknown."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """Table with text cells."""

    names: tuple[str, ...]  # names of the columns
    # line number and cells of each non-empty row; their number may differ from that of
    # names
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    mark: str = ","  # separator of cells, for recognising decimal commas

    def raise_other_header(self, path: Path, wanted: str) -> NoReturn:
        """Raise `ReadError` for a table without the `wanted` columns."""
        got = core.format_one_line(",".join(self.names)) or "nothing"
        msg = f"{path} must have the columns {wanted}, got {got}."
        raise ReadError(msg, code="table-invalid")

    def replace_decimal_comma(self, cell: str) -> str:
        """Replace a decimal comma with a point, unless commas separate cells."""
        decimal = self.mark != "," and _DECIMAL.fullmatch(cell)
        return cell.replace(",", ".") if decimal else cell

    def parse_number(self, cell: str, where: str, what: str) -> float:
        """Parse a finite number from a cell.

        The `ReadError` states the requirement `what`, in which ``{}`` is replaced by
        the cell.
        """
        try:
            value = float(self.replace_decimal_comma(cell))
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            msg = f"{where} must contain {what.format(core.shorten_value(cell))}."
            raise ReadError(msg, code="table-invalid")
        return value


def read_sheet(path: Path, what: str, text: str | None = None) -> Sheet:
    """Read a ``.parquet`` file, or comma-, semicolon- or tab-separated text.

    `what` describes the contents in messages; an empty file yields no names. `text`:
    contents of the file, if already read.
    """
    if path.suffix.lower() == _PARQUET:
        parquet = files.import_library(path, "pyarrow.parquet", "table")
        decoding = files.convert_decoding_errors(path, "Parquet")
        with decoding, core.open_file(path) as stream:
            columns = parquet.read_table(stream).to_pydict()
        text = format_csv([columns, *zip(*columns.values(), strict=True)])
    try:
        text = files.read_text(path, "utf-8-sig") if text is None else text
        header = text.partition("\n")[0]
        marks = "," if path.suffix.lower() == _PARQUET else ",;\t"
        mark = next((mark for mark in marks if mark in header), ",")
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=mark)
        rows = []
        for row in lines:
            cells = (_FORMULA_CELL.sub(r"\1", cell.strip()) for cell in row)
            rows.append((lines.line_num, tuple(cells)))
    except UnicodeDecodeError as error:
        msg = f"{path} must be a table of {what} in UTF-8: save it as CSV UTF-8."
        raise ReadError(msg, code="encoding-unknown") from error
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        text = f"{path} cannot be read as a table of {what}: {reason}."
        fault = Message(text, "table-invalid")
        raise ReadError(describe_access_error(path, error) or fault) from error
    non_empty = [(line, row) for line, row in rows[1:] if any(row)]
    return Sheet(rows[0][1] if rows else (), tuple(non_empty), mark)


def write_sheet(path: Path, columns: Mapping[str, Sequence[Cell]]) -> None:
    """Write columns atomically as ``.csv`` or ``.parquet``."""
    if path.suffix.lower() != _PARQUET:
        write_csv(path, [list(columns), *zip(*columns.values(), strict=True)])
        return
    arrow = files.import_library(path, "pyarrow", "table", WriteError)
    parquet = files.import_library(path, "pyarrow.parquet", "table", WriteError)
    columns_by_name = {}
    converter: type[float | str]
    for name, cells in columns.items():  # booleans, numbers or text, perhaps missing
        kinds = {type(cell) for cell in cells if cell is not None}
        if kinds == {bool}:
            columns_by_name[name] = arrow.array(cells)
            continue
        are_numbers = bool(kinds) and kinds <= {int, float}
        kind, converter = (arrow.float64, float) if are_numbers else (arrow.string, str)
        values = [None if cell is None else converter(cell) for cell in cells]
        columns_by_name[name] = arrow.array(values, type=kind())
    with files.replace_atomically(path) as place:
        parquet.write_table(arrow.table(columns_by_name), place)


def write_csv(
    path: Path, rows: Iterable[Iterable[Cell]], *, append: bool = False
) -> None:
    """Write rows atomically as CSV; the first row contains the column names.

    `append`: add the rows to those of the file instead.
    """
    # names of files need not be UTF-8
    data = format_csv(rows).encode("utf-8", "backslashreplace")
    if append:
        with path.open("ab") as stream:
            stream.write(data)
        return
    with files.replace_atomically(path) as place:
        place.write_bytes(data)


def format_csv(rows: Iterable[Iterable[Cell]], end: str = "\n") -> str:
    """Format rows as CSV text, escaping formulas in cells."""
    out, cells = io.StringIO(newline=""), (map(_format_cell, row) for row in rows)
    csv.writer(out, lineterminator=end).writerows(cells)
    return out.getvalue()


# Where a spreadsheet may start a cell: it may split cells differently. Full-width signs
# start formulas in Japanese versions.
_DECIMAL = re.compile(r"[+-]?\d*,\d*(?:[eE][+-]?\d+)?")
_FORMULA = re.compile(r"(^|[;\t\r\n])(?='*[=+\-@\uff1d\uff0b\uff0d\uff20])")
_FORMULA_CELL = re.compile(r"(^|[;\t\r\n])'(?='*[=+\-@\uff1d\uff0b\uff0d\uff20])")


def escape_formula(text: str) -> str:
    """Prefix text with an apostrophe if a spreadsheet would read it as a formula.

    It is removed on reading.
    """
    try:
        float(text)
    except ValueError:
        return _FORMULA.sub(r"\1'", text)
    return text


def check_sheet_path(path: Path) -> None:
    """Check in advance that a table can be written."""
    if path.suffix.lower() == _PARQUET:
        files.import_library(path, "pyarrow", "table", WriteError)


def _format_cell(cell: Cell) -> Cell:
    """Format a cell, with nine significant digits for a float."""
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, str):
        return escape_formula(cell)
    return f"{cell:.9g}" if isinstance(cell, float) else cell
