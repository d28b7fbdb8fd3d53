"""Results of a panel: numbers, curves, tables and a plot, to show, copy and save."""

import html
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from napari.layers import Image
from qtpy import QtWidgets
from qtpy.QtCore import Qt
from qtpy.QtGui import QAction, QKeyEvent, QKeySequence  # type: ignore[attr-defined]

from napari_semsr import __version__, io
from napari_semsr.core import Figure, Micrograph, OptionError, Provenance
from napari_semsr.jobs import FIGURE, FigureOptions
from napari_semsr.widgets import layers
from napari_semsr.widgets.base import folding
from napari_semsr.widgets.base.form import create_button
from napari_semsr.widgets.base.places import is_temporary
from napari_semsr.widgets.base.saving import ask_output_file

if TYPE_CHECKING:
    from napari_semsr.widgets.base.panel import VerbPanel
    from napari_semsr.widgets.base.plots import PlotCanvas

GROUP_MARGINS = (8, 12, 8, 8)
_ESTIMATE = "The image content is an estimate, not a measurement."
TABLE_FILTERS = {"Table for spreadsheets (*.csv)": ".csv"}
_PICTURES = {"PNG, 300 dpi (*.png)": ".png", "SVG, text as text (*.svg)": ".svg"}
_PAPERS = {"PDF (*.pdf)": ".pdf", "PNG (*.png)": ".png", "TIFF (*.tif)": ".tif"}
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
        lines = (f"{self.title} by napari-semsr {__version__}", *self.origin)
        # not quoted: readers recognise comments by the #
        text = "".join(f"# {' '.join(line.split())}\r\n" for line in lines)
        heads = [["quantity", "value", "unit", "note"]] if self.numbers else []
        curves = [[], *self._create_curve_rows()] if self.curves else []
        numbers, tables = self._create_number_rows(), self._create_table_rows()
        text += io.format_csv([*heads, *numbers, *tables, *curves], "\r\n")
        with io.replace_atomically(path) as place:
            place.write_text(text, "utf-8-sig", "backslashreplace", newline="")

    def _create_number_rows(self) -> list[list[str]]:
        rows = []
        for name, number in self.numbers.items():
            if isinstance(number, Figure):
                notes = filter(None, (number.error_text, number.note, number.verdict))
                cells = _format_cell(number.value), number.unit, " ".join(notes)
                rows.append([name, *cells])
            else:
                rows.append([name, number, "", ""])
        return rows

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
    clipboard = QtWidgets.QApplication.clipboard()
    if clipboard is not None:
        clipboard.setText(text)
    return "Copied. Paste the text into a spreadsheet."


_WIDEST_PX = 240  # of a column of a table; chosen: two columns are in view
_MOST_ROWS = 8  # rows in view of a table; chosen: as high as a plot


class SelectableTable(QtWidgets.QTableWidget):
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
        # a word a line, so that a table fits a dock
        heads_wrapped = [re.sub(r" (?!%)", "\n", head) for head in self.columns]
        self.setHorizontalHeaderLabels(heads_wrapped)
        count = max(map(len, self.columns.values()), default=0)
        self.setRowCount(count)
        for place, column in enumerate(self.columns.values()):
            for row, value in enumerate(column):
                item = QtWidgets.QTableWidgetItem()
                item.setData(Qt.ItemDataRole.DisplayRole, _round_cell(value))
                item.setData(Qt.ItemDataRole.UserRole, row)
                item.setToolTip(value if isinstance(value, str) else "")
                self.setItem(row, place, item)
        self.resizeColumnsToContents()
        self.setSortingEnabled(sorts)
        heads, bar = self.horizontalHeader(), self.horizontalScrollBar()
        if heads is not None and bar is not None:
            parts = heads.sizeHint().height() + bar.sizeHint().height()
            self.setFixedHeight(parts + self.rowHeight(0) * min(count, _MOST_ROWS) + 4)

    def get_selected_row(self) -> int | None:
        """Return the index of the selected row, in the order passed to `fill`."""
        items = self.selectedItems()
        return int(items[0].data(Qt.ItemDataRole.UserRole)) if items else None

    def to_text(self) -> str:
        """Return the selected rows, or all, with their heads as tab-separated text."""
        role = Qt.ItemDataRole.UserRole
        chosen = {item.data(role): None for item in self.selectedItems()}
        columns = {
            head: [v for row, v in enumerate(column) if row in (chosen or [row])]
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


class SharingBar(folding.WrappingRow):
    """Buttons that copy and save the results of a panel; figures of layers."""

    def __init__(self, panel: "VerbPanel") -> None:
        super().__init__()
        self.setParent(panel)
        self.setVisible(False)
        self._panel, self._viewer, self._messages = panel, panel.viewer, panel.messages
        tip = "Copy the numbers for pasting into a spreadsheet."
        self.copy_button = create_button("Copy", self._copy_numbers, tip)
        tip = "Save the numbers, and all curves of the plot, as a CSV table with units."
        self.save_button = create_button("Save numbers…", self._save_numbers, tip)
        tip = "Save the plot on a white background, as PNG (300 dpi) or SVG."
        self.plot_button = create_button("Save plot…", self._save_plot, tip)
        tip = "Save all visible images as one figure with scale bar and caption."
        self.figure_button = create_button("Save figure…", self.save_figure, tip)
        sharing = self.copy_button, self.save_button, self.plot_button
        for place, button in enumerate((*sharing, self.figure_button)):
            self.insert_widget(place, button)

    def refresh(self) -> None:
        """Show the buttons that apply to the current results."""
        findings = self._panel.findings()
        self.setVisible(bool(findings.numbers or findings.curves))
        self.plot_button.setVisible(findings.plot is not None)

    def _copy_numbers(self) -> None:
        self._messages.show_status(copy_to_clipboard(self._panel.findings().to_text()))

    def _save_numbers(self) -> None:
        """Ask for a file name, and write numbers and curves."""
        findings = self._panel.findings()
        kinds, write = TABLE_FILTERS, findings.write_csv
        self.save_file("Save numbers", findings.title, kinds, write)

    def _save_plot(self) -> None:
        """Ask for a file name, and save the plot."""
        findings = self._panel.findings()
        if findings.plot is not None:
            write = partial(
                findings.plot.save, origin=findings.origin, caption=findings.caption
            )
            self.save_file("Save plot", findings.title, _PICTURES, write)

    def add_plot_menu(self, plot: "PlotCanvas") -> None:
        """Offer to save a plot and its numbers by a right click on it."""
        plot.setToolTip("Right-click to save the plot or its numbers.")
        calls = {"Save plot…": self._save_plot, "Save numbers…": self._save_numbers}
        _add_menu(plot, calls)

    def add_table_menu(self, sheet: SelectableTable) -> None:
        """Offer to copy and save a table by a right click on it."""

        def copy() -> None:
            self._messages.show_status(copy_to_clipboard(sheet.to_text()))

        def save() -> None:
            origin, tables = self._panel.findings().origin, {sheet.title: sheet.columns}
            rows = Findings(sheet.title, origin, tables=tables)
            kinds = TABLE_FILTERS
            self.save_file("Save table", sheet.title, kinds, rows.write_csv)

        _add_menu(sheet, {"Copy table": copy, "Save table…": save})

    def save_file(
        self,
        title: str,
        name: str,
        kinds: Mapping[str, str],
        write: Callable[[Path], object],
        sentence: str = "Saved as {}.",
    ) -> None:
        """Ask for a file name, write the file, and report its path as ``{}``."""
        path = ask_output_file(self._panel, title, name, kinds)
        if path is not None:
            with self._messages.show_errors():
                write(path)
                self._messages.show_status(sentence.format(path))

    def save_figure(
        self, create_options: Callable[[], FigureOptions] | None = None
    ) -> None:
        """Ask for a file name, and save the visible images as a figure for a paper."""
        with self._messages.show_errors():
            images = layers.list_image_layers(self._viewer)
            images = [item for item in images if item.visible]
            if not images:
                msg = "A figure needs a visible image layer; show one first."
                raise OptionError(msg, code="nothing-visible")
            name = f"{images[-1].name} figure"
            path = ask_output_file(self._panel, "Save figure", name, _PAPERS)
            if path is not None:
                parts = [self._read_displayed_layer(layer) for layer in images]
                options = create_options() if create_options else FigureOptions()
                make = partial(FIGURE.rerun, parts, path, options=options)
                left = [one for one in self._viewer.layers if one not in images]
                shown = [o for o in left if o.visible and layers.count_items(o)]
                text = f"The figure is saved as {path}."
                if names := ", ".join(one.name for one in shown):
                    text += f" Left out: {names}; choose the canvas as shown."
                notify = self._messages.notify
                self._panel.controls.start(make, lambda _: notify(text), "Save figure")

    def _read_displayed_layer(self, layer: Image) -> Micrograph:
        """Read a layer with its displayed contrast and colours.

        From a stack, read the plane that was measured, or the one that is shown.
        """
        layers.disable_cache(layer)
        plane = self._panel.result_layers.sources.get(layer)
        plane = plane or layers.get_displayed_plane(layer, self._viewer.dims)
        image = layers.micrograph_from_layer(layer, plane=plane, colour=True)
        layer_name = layers.format_layer_and_plane(layer, plane)
        image = image.replace(look=layers.get_display_settings(layer), name=layer_name)
        about = layer.metadata.get(io.NETWORK_KEY)
        before = image.provenance
        if about is None or (before is not None and before.last_network()):
            return image
        digest = about.get("digest") or "digest not known"
        history = Provenance(
            job="shown", model_name=about["model"], model_digest=digest
        )
        return image.replace(provenance=history)


def _add_menu(part: QtWidgets.QWidget, calls: Mapping[str, Callable[[], None]]) -> None:
    """Call functions from the context menu of a widget."""
    part.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)
    for text, call in calls.items():
        action = QAction(text, part)
        action.triggered.connect(call)
        part.addAction(action)


class ResultsGroup(QtWidgets.QGroupBox):
    """Group of the results of a panel, hidden until there are some.

    `above`, `below`: widgets above and below the numbers.
    """

    def __init__(
        self,
        panel: "VerbPanel",
        heading: str,
        above: Iterable[QtWidgets.QWidget],
        below: Iterable[QtWidgets.QWidget],
    ) -> None:
        super().__init__(heading)
        self.heading, self._panel, self._layers = heading, panel, panel.result_layers
        self.plot: PlotCanvas | None = None
        self.findings = Findings(panel.title)
        self.headline, self.remarks = folding.RichTextLabel(), folding.RichTextLabel()
        self.figures = folding.RichTextLabel()
        tooltip = "Show all numbers of the result with their methods."
        self.all_figures = folding.CollapsibleSection(
            "All numbers", tooltip, self.figures
        )
        self._sheets = QtWidgets.QWidget()
        self._sheet_column = folding.stack_widgets(self._sheets)
        numbers = self.remarks, self._sheets, self.all_figures
        column = folding.stack_widgets(self, self.headline, *above, *numbers, *below)
        column.setContentsMargins(*GROUP_MARGINS)
        self.setVisible(False)

    def show_as_earlier(self) -> None:
        """State in the title that the results are of an earlier run."""
        if self.heading:
            self.setTitle(f"{self.heading}: earlier run")

    def clear_plot(self, *, rows: int = 1, height: int = 240) -> "PlotCanvas":
        """Return the cleared results plot, creating it on first use."""
        if self.plot is None:
            from napari_semsr.widgets.base.plots import PlotCanvas

            self.plot = PlotCanvas(self._panel.viewer, rows=rows, height=height)
            # below the answer
            cast("QtWidgets.QVBoxLayout", self.layout()).insertWidget(1, self.plot)
            self._panel.sharing.add_plot_menu(self.plot)
        self.plot.clear()
        return self.plot

    def show_result(
        self,
        numbers: Numbers,
        sentence: str,
        *,
        curves: Mapping[str, Columns] | None = None,
        tables: Mapping[str, Columns] | None = None,
        more: str = "",
        network: str | None = None,
        reveal: bool = True,
    ) -> None:
        """Show numbers and rich text in the results, and set the status.

        The first large number, or the sentence, comes first, and all are folded.
        `curves` are saved with the numbers, which state the `network` that made the
        result; `tables` are shown and copied, too. Results that follow the mouse do not
        `reveal` the group.
        """
        messages = self._panel.messages
        translate = messages.translate
        planes_measured = self._layers.sources.items()
        networks_known = {
            layers.format_layer_and_plane(*one): layers.get_network_name(one[0])
            for one in planes_measured
        }
        origin = [f"{k}, {MADE_BY} {v}" if v else k for k, v in networks_known.items()]
        if network:
            origin.append(f"{MADE_BY} {network}")
        networks = dict.fromkeys(filter(None, networks_known.values()))
        names = network or ", ".join(networks)
        note = f"<p>Made by a network: <b>{names}</b>. {_ESTIMATE}</p>" if names else ""
        numbers = {
            name: translate(number) if isinstance(number, str) else number
            for name, number in numbers.items()
            if not is_temporary(str(number))  # a path that moves, or disappears
        }
        figures = [(k, v) for k, v in numbers.items() if isinstance(v, Figure)]
        large_figures = [
            one for one in figures if one[1].large and one[1].value is not None
        ]
        large = html.escape(sentence)
        if large_figures:
            large = format_headline(*large_figures[0])
        self.headline.setText(translate(large))
        self.remarks.setText(f"{note}{translate(more)}")
        self.figures.setText(format_value_table(numbers) if numbers else "")
        self.all_figures.setVisible(bool(numbers))
        # a plot without data is hidden
        plot = None if self.plot is None or self.plot.isHidden() else self.plot
        number = (numbers, curves or {}, plot, tables or {})
        self.findings = Findings(messages.title, tuple(origin), *number)
        self._show_tables(tables or {})
        planes = dict.fromkeys(
            layers.format_plane_name(*one) for one in planes_measured
        )
        self.setTitle(": ".join(filter(None, (self.heading, *planes))))
        if reveal:
            self.reveal()
        messages.show_status(sentence)

    def _show_tables(self, tables: Mapping[str, Columns]) -> None:
        """Show tables in place of earlier ones."""
        while (item := self._sheet_column.takeAt(0)) is not None:
            if (widget := item.widget()) is not None:
                widget.hide()
                widget.deleteLater()
        for title, columns in tables.items():
            sheet = SelectableTable("Right-click to copy or save.", title)
            self._panel.sharing.add_table_menu(sheet)
            for part in (folding.RichTextLabel(title), sheet):
                self._sheet_column.addWidget(part)
            sheet.fill(columns)  # in the style of its parent, which sets its height

    def reveal(self) -> None:
        """Show the group and scroll to its top."""
        self.setVisible(True)
        box = self._layers.helpers
        box.native.setVisible(bool(box.text and self._layers.find_helpers()))
        self._panel.sharing.refresh()
        area = self._panel.scroll_area
        content, bar = area.widget(), area.verticalScrollBar()
        if content is not None and bar is not None:
            width = content.width()
            content.resize(width, content.heightForWidth(width))
            bar.setValue(self.y())
