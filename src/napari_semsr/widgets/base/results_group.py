"""Results group of a panel: numbers and plot, with buttons that copy and save them."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, cast

from napari.layers import Image
from napari.viewer import Viewer
from qtpy.QtCore import Qt
from qtpy.QtGui import QAction  # type: ignore[attr-defined]
from qtpy.QtWidgets import QGroupBox, QScrollArea, QVBoxLayout, QWidget

from napari_semsr.core import Figure, Micrograph, OptionError, Provenance
from napari_semsr.io import NETWORK_KEY
from napari_semsr.jobs import FIGURE, FigureOptions
from napari_semsr.widgets import layers
from napari_semsr.widgets.base import findings, folding
from napari_semsr.widgets.base.controls import RunControls
from napari_semsr.widgets.base.form import create_button
from napari_semsr.widgets.base.messages import Messages
from napari_semsr.widgets.base.places import is_temporary
from napari_semsr.widgets.base.result_layers import ResultLayers
from napari_semsr.widgets.base.saving import ask_output_file

if TYPE_CHECKING:
    from napari_semsr.widgets.base.plots import PlotCanvas

GROUP_MARGINS = (8, 12, 8, 8)
_ESTIMATE = "The image content is an estimate, not a measurement."
TABLE_FILTERS = {"Table for spreadsheets (*.csv)": ".csv"}
_PICTURES = {"PNG, 300 dpi (*.png)": ".png", "SVG, text as text (*.svg)": ".svg"}
_PAPERS = {"PDF (*.pdf)": ".pdf", "PNG (*.png)": ".png", "TIFF (*.tif)": ".tif"}


class SharingBar(folding.WrappingRow):
    """Buttons that copy and save the results of a panel; figures of layers.

    `read`: returns the latest results.
    """

    def __init__(
        self,
        panel: QWidget,
        viewer: Viewer,
        messages: Messages,
        controls: RunControls,
        layers: ResultLayers,
        read: Callable[[], findings.Findings],
        save_figure: Callable[[], None],
    ) -> None:
        super().__init__()
        self.setParent(panel)
        self.setVisible(False)
        self._panel, self._viewer, self._messages = panel, viewer, messages
        self._controls, self._layers = controls, layers
        self._read = read
        self.copy_button = create_button(
            "Copy",
            self._copy_numbers,
            "Copy the numbers for pasting into a spreadsheet.",
        )
        self.save_button = create_button(
            "Save numbers…",
            self._save_numbers,
            "Save the numbers, and all curves of the plot, as a CSV table with units.",
        )
        self.plot_button = create_button(
            "Save plot…",
            self._save_plot,
            "Save the plot on a white background, as PNG (300 dpi) or SVG.",
        )
        self.figure_button = create_button(
            "Save figure…",
            save_figure,
            "Save all visible images as one figure for a paper, with scale bar, "
            "colour bar and caption.",
        )
        sharing = self.copy_button, self.save_button, self.plot_button
        for place, button in enumerate((*sharing, self.figure_button)):
            self.insert_widget(place, button)

    def refresh(self) -> None:
        """Show the buttons that apply to the current results."""
        findings = self._read()
        self.setVisible(bool(findings.numbers or findings.curves))
        self.plot_button.setVisible(findings.plot is not None)

    def _copy_numbers(self) -> None:
        self._messages.show_status(findings.copy_to_clipboard(self._read().to_text()))

    def _save_numbers(self) -> None:
        """Ask for a file name, and write numbers and curves."""
        findings = self._read()
        kinds, write = TABLE_FILTERS, findings.write_csv
        self.save_file("Save numbers", findings.title, kinds, write)

    def _save_plot(self) -> None:
        """Ask for a file name, and save the plot."""
        findings = self._read()
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

    def add_table_menu(self, sheet: findings.SelectableTable) -> None:
        """Offer to copy and save a table by a right click on it."""

        def copy() -> None:
            self._messages.show_status(findings.copy_to_clipboard(sheet.to_text()))

        def save() -> None:
            origin, tables = self._read().origin, {sheet.title: sheet.columns}
            rows = findings.Findings(sheet.title, origin, tables=tables)
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
            images = [
                item for item in layers.list_image_layers(self._viewer) if item.visible
            ]
            if not images:
                msg = "A figure needs a visible image layer; show one first."
                raise OptionError(msg, code="nothing-visible")
            name = f"{images[-1].name} figure"
            path = ask_output_file(self._panel, "Save figure", name, _PAPERS)
            if path is not None:
                parts = [self._read_displayed_layer(layer) for layer in images]
                options = (
                    FigureOptions() if create_options is None else create_options()
                )
                self._controls.start(
                    partial(FIGURE.rerun, parts, path, options=options),
                    lambda figure: self._messages.notify(
                        f"The figure is saved as {figure.path}."
                    ),
                    "Save figure",
                )

    def _read_displayed_layer(self, layer: Image) -> Micrograph:
        """Read a layer with its displayed contrast and colours.

        From a stack, read the plane that was measured, or the one that is shown.
        """
        layers.disable_cache(layer)
        plane = self._layers.sources.get(layer) or layers.get_displayed_plane(
            layer, self._viewer.dims
        )
        image = layers.micrograph_from_layer(layer, plane=plane, colour=True)
        layer_name = layers.format_layer_and_plane(layer, plane)
        image = image.replace(look=layers.get_display_settings(layer), name=layer_name)
        about = layer.metadata.get(NETWORK_KEY)
        before = image.provenance
        if about is None or (before is not None and before.last_network()):
            return image
        digest = about.get("digest") or "digest not known"
        history = Provenance(
            job="shown", model_name=about["model"], model_digest=digest
        )
        return image.replace(provenance=history)


def _add_menu(part: QWidget, calls: Mapping[str, Callable[[], None]]) -> None:
    """Call functions from the context menu of a widget."""
    part.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)
    for text, call in calls.items():
        action = QAction(text, part)
        action.triggered.connect(call)
        part.addAction(action)


class ResultsGroup(QGroupBox):
    """Group of the results of a panel, hidden until there are some.

    `above`, `below`: widgets above and below the numbers.
    """

    def __init__(
        self,
        viewer: Viewer,
        heading: str,
        layers: ResultLayers,
        messages: Messages,
        sharing: SharingBar,
        scroll_area: QScrollArea,
        above: Iterable[QWidget],
        below: Iterable[QWidget],
    ) -> None:
        super().__init__(heading)
        self.heading, self._layers, self._messages = heading, layers, messages
        self._viewer, self.sharing, self._scroll_area = viewer, sharing, scroll_area
        self.plot: PlotCanvas | None = None
        self.findings = findings.Findings(messages.title)
        self.headline, self.remarks = folding.RichTextLabel(), folding.RichTextLabel()
        self.figures = folding.RichTextLabel()
        tooltip = "Show all numbers of the result with their methods."
        self.all_figures = folding.CollapsibleSection(
            "All numbers", tooltip, self.figures
        )
        self._sheets = QWidget()
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

            self.plot = PlotCanvas(self._viewer, rows=rows, height=height)
            # below the answer
            cast("QVBoxLayout", self.layout()).insertWidget(1, self.plot)
            self.sharing.add_plot_menu(self.plot)
        self.plot.clear()
        return self.plot

    def show_result(
        self,
        numbers: findings.Numbers,
        sentence: str,
        *,
        curves: Mapping[str, findings.Columns] | None = None,
        tables: Mapping[str, findings.Columns] | None = None,
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
        messages, translate = self._messages, self._messages.translate
        planes_measured = self._layers.sources.items()
        networks_known = {
            layers.format_layer_and_plane(*one): layers.get_network_name(one[0])
            for one in planes_measured
        }
        origin = [
            f"{k}, {findings.MADE_BY} {v}" if v else k
            for k, v in networks_known.items()
        ]
        if network:
            origin.append(f"{findings.MADE_BY} {network}")
        networks = (
            [network]
            if network
            else filter(None, dict.fromkeys(networks_known.values()))
        )
        names = ", ".join(networks)
        note = f"<p>Made by a network: <b>{names}</b>. {_ESTIMATE}</p>" if names else ""
        numbers = {
            name: translate(number) if isinstance(number, str) else number
            for name, number in numbers.items()
            if not is_temporary(str(number))  # a path that moves, or disappears
        }
        large_figures = [
            (k, v) for k, v in numbers.items() if isinstance(v, Figure) and v.large
        ]
        known_figures = [one for one in large_figures if one[1].value is not None]
        first = next(iter(known_figures + large_figures), None)
        large = escape(sentence)
        if first is not None:
            large = findings.format_headline(*first)
        self.headline.setText(translate(large))
        self.remarks.setText(f"{note}{translate(more)}")
        self.figures.setText(findings.format_value_table(numbers) if numbers else "")
        self.all_figures.setVisible(bool(numbers))
        # a plot without data is hidden
        plot = None if self.plot is None or self.plot.isHidden() else self.plot
        number = (numbers, curves or {}, plot, tables or {})
        self.findings = findings.Findings(messages.title, tuple(origin), *number)
        self._show_tables(tables or {})
        planes = dict.fromkeys(
            layers.format_plane_name(*one) for one in planes_measured
        )
        self.setTitle(": ".join(filter(None, (self.heading, *planes))))
        if reveal:
            self.reveal()
        messages.show_status(sentence)

    def _show_tables(self, tables: Mapping[str, findings.Columns]) -> None:
        """Show tables in place of earlier ones."""
        while (item := self._sheet_column.takeAt(0)) is not None:
            if (widget := item.widget()) is not None:
                widget.hide()
                widget.deleteLater()
        for title, columns in tables.items():
            sheet = findings.SelectableTable("Right-click to copy or save.", title)
            self.sharing.add_table_menu(sheet)
            for part in (folding.RichTextLabel(title), sheet):
                self._sheet_column.addWidget(part)
            sheet.fill(columns)  # in the style of its parent, which sets its height

    def reveal(self) -> None:
        """Show the group and scroll to its top."""
        self.setVisible(True)
        box = self._layers.helpers
        box.native.setVisible(bool(box.text and self._layers.find_helpers()))
        self.sharing.refresh()
        content, bar = self._scroll_area.widget(), self._scroll_area.verticalScrollBar()
        if content is not None and bar is not None:
            width = content.width()
            content.resize(width, content.heightForWidth(width))
            bar.setValue(self.y())
