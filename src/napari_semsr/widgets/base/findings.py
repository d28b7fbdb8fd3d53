"""Results of a panel as data: numbers and curves to copy and save."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QTableWidget, QTableWidgetItem

from napari_semsr import __version__
from napari_semsr.core import Figure
from napari_semsr.io import (
    csv_text,
    guarded_cell,
    replacing,
)

if TYPE_CHECKING:
    from napari_semsr.widgets.base.plots import PlotCanvas

MADE_BY = "made by the network"


Numbers = Mapping[str, Figure | str]
"""Results by name: numbers or text."""
Columns = Mapping[str, Iterable[float | str | None]]
"""Columns of a curve or table by their headers, which end in the unit in brackets."""


@dataclass(frozen=True, slots=True)
class Findings:
    """Results of a panel."""

    title: str
    origin: Sequence[str] = ()  # files and layers of the results, and their networks
    numbers: Numbers = field(default_factory=dict)
    curves: Mapping[str, Columns] = field(default_factory=dict)
    plot: "PlotCanvas | None" = None
    tables: Mapping[str, Columns] = field(
        default_factory=dict
    )  # copied with the numbers

    @property
    def caption(self) -> str:
        """Caption that every plot of the results must have."""
        return "; ".join(line for line in self.origin if MADE_BY in line)

    def text(self) -> str:
        """Return the numbers, or the curves if there are none, separated by tabs."""
        rows = self._number_rows() if self.numbers else self._curve_rows()
        marks = [[self.caption]] if self.caption else []
        return join_with_tabs([*rows, *self._table_rows(), *marks])

    def write(self, path: Path) -> None:
        """Write the numbers, and the curves below them, as CSV."""
        # with a byte-order mark, else Excel misreads µ
        with (
            replacing(path) as place,
            place.open(
                "w", encoding="utf-8-sig", newline="", errors="backslashreplace"
            ) as stream,
        ):
            lines = (f"{self.title} by napari-semsr {__version__}", *self.origin)
            for line in lines:  # not quoted: readers recognise comments by the #
                stream.write(f"# {' '.join(line.split())}\r\n")
            heads = [["quantity", "value", "unit", "note"]] if self.numbers else []
            curves = [[], *self._curve_rows()] if self.curves else []
            rows = [*heads, *self._number_rows(), *self._table_rows(), *curves]
            stream.write(csv_text(rows, "\r\n"))

    def _number_rows(self) -> list[list[str]]:
        return [
            [
                name,
                _cell(number.value),
                number.unit,
                " ".join(filter(None, (number.spread, number.note, number.verdict))),
            ]
            if isinstance(number, Figure)
            else [name, number, "", ""]
            for name, number in self.numbers.items()
        ]

    def _table_rows(self) -> list[list[str]]:
        """Yield the rows of each table, after an empty line."""
        rows: list[list[str]] = []
        for columns in self.tables.values():
            cells = [list(map(_cell, values)) for values in columns.values()]
            rows += [[], list(columns), *map(list, zip(*cells, strict=True))]
        return rows

    def _curve_rows(self) -> list[list[str]]:
        """Yield all columns of all curves side by side; short ones are padded."""
        columns = [
            [f"{name}: {head}", *map(_cell, values)]
            for name, columns in self.curves.items()
            for head, values in columns.items()
        ]
        return [list(row) for row in zip_longest(*columns, fillvalue="")]


def _cell(value: object) -> str:
    """Format a number in full, and None as empty."""
    if value is None or value != value:
        return ""
    return str(value) if isinstance(value, str | bool | np.bool_) else f"{value:.10g}"


def join_with_tabs(rows: Iterable[Iterable[object]]) -> str:
    """Join rows with tabs for spreadsheets; None becomes empty."""
    cells = (["" if cell is None else str(cell) for cell in row] for row in rows)
    return "\n".join("\t".join(map(guarded_cell, row)) for row in cells)


def copy_text(text: str) -> str:
    """Copy a text; return the message to show."""
    clipboard = QApplication.clipboard()
    if clipboard is not None:
        clipboard.setText(text)
    return "Copied; paste it into a spreadsheet."


_WIDEST_PX = 240  # of a column of a table; chosen: two columns are in view


class RowTable(QTableWidget):
    """A read-only table with a selected row."""

    def __init__(self, tooltip: str, height: int) -> None:
        super().__init__()
        self.setToolTip(tooltip)
        self.setFixedHeight(height)
        self.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        rows, heads = self.verticalHeader(), self.horizontalHeader()
        if rows is not None and heads is not None:
            rows.setVisible(False)
            heads.setMaximumSectionSize(_WIDEST_PX)
            heads.setStretchLastSection(True)

    def fill(self, columns: Columns, *, sorts: bool = False) -> None:
        """Show columns by their headers; numbers sort numerically if it `sorts`."""
        self.setSortingEnabled(False)
        self.clear()
        cells = [list(column) for column in columns.values()]
        self.setColumnCount(len(cells))
        self.setHorizontalHeaderLabels(list(columns))
        self.setRowCount(max(map(len, cells), default=0))
        for place, column in enumerate(cells):
            for row, value in enumerate(column):
                item = QTableWidgetItem()
                item.setData(Qt.ItemDataRole.DisplayRole, value)
                item.setData(Qt.ItemDataRole.UserRole, row)
                self.setItem(row, place, item)
        self.resizeColumnsToContents()
        self.setSortingEnabled(sorts)

    def chosen_row(self) -> int | None:
        """Return the index of the selected row, in the order passed to `fill`."""
        items = self.selectedItems()
        return int(items[0].data(Qt.ItemDataRole.UserRole)) if items else None
