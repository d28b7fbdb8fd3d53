"""Results of a panel as data: numbers and curves to show, copy and save."""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtGui import QKeyEvent, QKeySequence
from qtpy.QtWidgets import QApplication, QTableWidget, QTableWidgetItem

from napari_semsr import __version__, io
from napari_semsr.core import Figure

if TYPE_CHECKING:
    from napari_semsr.widgets.base.plots import PlotCanvas

MADE_BY = "made by the network"


Numbers = Mapping[str, Figure | str]
"""Results (numbers or text), keyed by name."""
Columns = Mapping[str, Iterable[float | str | None]]
"""Columns of a curve or table, keyed by headers that end in the unit in brackets."""


@dataclass(frozen=True, slots=True)
class Findings:
    """Results of a panel."""

    title: str
    origin: Sequence[str] = ()  # files and layers of the results, and their networks
    numbers: Numbers = field(default_factory=dict)
    curves: Mapping[str, Columns] = field(default_factory=dict)
    plot: "PlotCanvas | None" = None
    # copied with the numbers
    tables: Mapping[str, Columns] = field(default_factory=dict)

    @property
    def caption(self) -> str:
        """Caption that every plot of the results must have."""
        return "; ".join(line for line in self.origin if MADE_BY in line)

    def to_text(self) -> str:
        """Return the numbers, or else the curves, as tab-separated text."""
        rows = self._create_number_rows() if self.numbers else self._create_curve_rows()
        marks = [[self.caption]] if self.caption else []
        return "\n".join(
            "\t".join(map(io.escape_formula, row))
            for row in (*rows, *self._create_table_rows(), *marks)
        )

    def write_csv(self, path: Path) -> None:
        """Write the numbers, and the curves below them, as CSV."""
        # with a byte-order mark, else Excel misreads µ
        with (
            io.replace_atomically(path) as place,
            place.open(
                "w", encoding="utf-8-sig", newline="", errors="backslashreplace"
            ) as stream,
        ):
            lines = (f"{self.title} by napari-semsr {__version__}", *self.origin)
            for line in lines:  # not quoted: readers recognise comments by the #
                stream.write(f"# {' '.join(line.split())}\r\n")
            heads = [["quantity", "value", "unit", "note"]] if self.numbers else []
            curves = [[], *self._create_curve_rows()] if self.curves else []
            rows = [
                *heads,
                *self._create_number_rows(),
                *self._create_table_rows(),
                *curves,
            ]
            stream.write(io.format_csv(rows, "\r\n"))

    def _create_number_rows(self) -> list[list[str]]:
        return [
            [
                name,
                _format_cell(number.value),
                number.unit,
                " ".join(
                    filter(None, (number.error_text, number.note, number.verdict))
                ),
            ]
            if isinstance(number, Figure)
            else [name, number, "", ""]
            for name, number in self.numbers.items()
        ]

    def _create_table_rows(self) -> list[list[str]]:
        """Return the rows of each table, preceded by an empty row."""
        rows: list[list[str]] = []
        for columns in self.tables.values():
            cells = [list(map(_format_cell, values)) for values in columns.values()]
            rows += [[], list(columns), *map(list, zip(*cells, strict=True))]
        return rows

    def _create_curve_rows(self) -> list[list[str]]:
        """Return the columns of all curves side by side, padding shorter ones."""
        columns = [
            [f"{name}: {head}", *map(_format_cell, values)]
            for name, columns in self.curves.items()
            for head, values in columns.items()
        ]
        return [list(row) for row in zip_longest(*columns, fillvalue="")]


def _format_cell(value: object) -> str:
    """Format a number with all digits, or None as an empty cell."""
    if value is None or value != value:
        return ""
    return str(value) if isinstance(value, str | bool | np.bool_) else f"{value:.10g}"


def copy_to_clipboard(text: str) -> str:
    """Copy text to the clipboard, and return a message to show."""
    clipboard = QApplication.clipboard()
    if clipboard is not None:
        clipboard.setText(text)
    return "Copied. Paste the text into a spreadsheet."


_WIDEST_PX = 240  # of a column of a table; chosen: two columns are in view
_MOST_ROWS = 8  # rows in view of a table; chosen: as high as a plot


class SelectableTable(QTableWidget):
    """Read-only table; Ctrl+C copies the selected rows with their heads."""

    def __init__(self, tooltip: str, title: str) -> None:
        super().__init__()
        self.title = title
        self.columns: dict[str, list[float | str | None]] = {}
        self.setToolTip(f"{tooltip} Ctrl+C copies selected rows with their units.")
        self.setEditTriggers(self.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(self.SelectionBehavior.SelectRows)
        rows, heads = self.verticalHeader(), self.horizontalHeader()
        if rows is not None and heads is not None:
            rows.setVisible(False)
            heads.setMaximumSectionSize(_WIDEST_PX)
            heads.setStretchLastSection(True)

    def fill(self, columns: Columns, *, sorts: bool = False) -> None:
        """Fill the table with columns keyed by header, sortable if `sorts` is set."""
        self.columns = {head: list(column) for head, column in columns.items()}
        self.setSortingEnabled(False)
        self.clear()
        self.setColumnCount(len(self.columns))
        self.setHorizontalHeaderLabels(list(self.columns))
        count = max(map(len, self.columns.values()), default=0)
        self.setRowCount(count)
        for place, column in enumerate(self.columns.values()):
            for row, value in enumerate(column):
                item = QTableWidgetItem()
                item.setData(Qt.ItemDataRole.DisplayRole, _round_cell(value))
                item.setData(Qt.ItemDataRole.UserRole, row)
                item.setToolTip(value if isinstance(value, str) else "")
                self.setItem(row, place, item)
        self.resizeColumnsToContents()
        self.setSortingEnabled(sorts)
        heads, bar = self.horizontalHeader(), self.horizontalScrollBar()
        if heads is not None and bar is not None:
            parts = heads.sizeHint().height(), bar.sizeHint().height()
            self.setFixedHeight(
                sum(parts) + self.rowHeight(0) * min(count, _MOST_ROWS) + 4
            )

    def get_selected_row(self) -> int | None:
        """Return the index of the selected row, in the order passed to `fill`."""
        items = self.selectedItems()
        return int(items[0].data(Qt.ItemDataRole.UserRole)) if items else None

    def to_text(self) -> str:
        """Return the selected rows, or all, with their heads as tab-separated text."""
        role = Qt.ItemDataRole.UserRole
        chosen = {item.data(role): None for item in self.selectedItems()}
        columns = {
            head: [
                value for row, value in enumerate(column) if row in (chosen or [row])
            ]
            for head, column in self.columns.items()
        }
        return Findings(self.title, tables={self.title: columns}).to_text().strip()

    def keyPressEvent(self, event: QKeyEvent | None) -> None:  # noqa: N802 - Qt's name
        """Copy the selected rows."""
        if event is not None and event.matches(QKeySequence.StandardKey.Copy):
            copy_to_clipboard(self.to_text())
        else:
            super().keyPressEvent(event)


def _round_cell(value: object) -> object:
    """Return a value as a table shows it: four digits, or all of a whole number."""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    return float(f"{value:.4g}") if abs(value) < 1e4 else round(value)


TIMES = "\N{MULTIPLICATION SIGN}"
DASH = "\N{EN DASH}"


_LARGE = 20  # font size of the large number; chosen: twice that of other text


def format_headline(name: str, figure: Figure) -> str:
    """Format a number in large type, with its unit and verdict."""
    beside = " ".join(filter(None, (figure.error_text, figure.unit)))
    number = f"<b>{html.escape(figure.value_text)}</b>"
    lines = [
        html.escape(name),
        f'<span style="font-size:{_LARGE}pt">{number}</span> {html.escape(beside)}',
        html.escape(figure.note, quote=False),
        f"<b>{html.escape(figure.verdict, quote=False)}</b>" if figure.verdict else "",
    ]
    return "".join(f"<div>{line}</div>" for line in lines if line)


def format_legend(colours: Mapping[str, str]) -> str:
    """Return a legend of coloured squares as rich text."""
    rows = (
        f'<span style="color:{colour}">\N{BLACK SQUARE}</span> {html.escape(text)}'
        for colour, text in colours.items()
    )
    return f"<p>{'<br>'.join(rows)}</p>" if colours else ""


def format_value_table(rows: Mapping[str, object], *, strong: bool = True) -> str:
    """Format names and values as a rich text table."""
    left, right = ("<b>", "</b>") if strong else ("", "")
    cells = "".join(
        f"<tr><td>{name}&nbsp;&nbsp;</td><td>{left}{value}{right}</td></tr>"
        for name, value in rows.items()
    )
    return f"<table>{cells}</table>"
