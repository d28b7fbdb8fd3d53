"""Matplotlib canvas that follows napari's theme, and shared plotting functions."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.figure import Figure
from napari.utils.events import Event
from napari.utils.theme import get_theme
from napari.viewer import Viewer
from qtpy.QtGui import QPaintEvent, QWheelEvent
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_semsr.core import Line, Plot
from napari_semsr.io import replace_atomically
from napari_semsr.reporting import CurveStyle, draw_curves
from napari_semsr.widgets.base.folding import COLOURS, stack_widgets
from napari_semsr.widgets.base.runner import is_alive

_DPI = 90  # of plots; chosen
_PRINT_DPI = 300
_INK = "#222222"
_NO_ROOM = 1e-3  # height of an empty row: the layout needs some
_WIDTH_IN, _ROW_IN = 6.0, 3.4  # size of a saved plot: one and a half columns of a page
_ABREAST = 38  # characters of two names side by side; chosen: for a panel of 320 px
_ABOVE_TICKS = 4.2  # character heights above an upper axis; chosen


def warm_up_plotting() -> None:
    """Draw a plot off screen to load fonts before the first plot is shown."""
    figure = Figure(dpi=_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    x = np.array([1.0, 10.0])
    plot = Plot("", "µm⁻¹", "", (Line("plot", x, x),), log=True, period="nm")
    draw_plot(axes, plot)
    canvas.draw()


class _Canvas(FigureCanvasQTAgg):
    """Canvas drawn only on paint events: once for many requests, only if visible."""

    def __init__(self, figure: Figure) -> None:
        super().__init__(figure)  # type: ignore[no-untyped-call]
        self._stale = True

    def wheelEvent(self, event: QWheelEvent) -> None:  # noqa: N802 - Qt's name
        """Pass wheel events on to scroll the panel; matplotlib would consume them."""
        event.ignore()

    def draw_idle(self) -> None:
        """Draw at the next paint event."""
        self._stale = True
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw changes, and paint the widget."""
        if self._stale:
            self._stale = False
            self.draw()  # type: ignore[no-untyped-call]
        super().paintEvent(event)  # type: ignore[no-untyped-call]


class PlotCanvas(QWidget):
    """Widget with one or more stacked axes, in the colours of the viewer's theme."""

    def __init__(self, viewer: Viewer, *, rows: int = 1, height: int = 240) -> None:
        super().__init__()
        self.figure = Figure(dpi=_DPI, layout="constrained")
        self.canvas = _Canvas(self.figure)
        self._grid = self.figure.add_gridspec(rows)
        add = self.figure.add_subplot
        self.axes: list[Axes] = [add(self._grid[row]) for row in range(rows)]
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._height = height
        stack_widgets(self, self.canvas)
        self._theme = str(viewer.theme)
        viewer.events.theme.connect(self.apply_theme)
        self.refresh()

    def apply_theme(self, event: Event | None = None) -> None:
        """Use the colours of the selected theme."""
        self._theme = str(getattr(event, "value", self._theme))
        if is_alive(self):
            self.refresh()

    def clear(self) -> None:
        """Clear the axes."""
        for axes in self.axes:
            axes.clear()
            for child in list(axes.child_axes):
                child.remove()

    def refresh(self) -> None:
        """Apply the theme colours and redraw, collapsing empty axes."""
        axes_in_use = [axes for axes in self.axes if axes.has_data()]
        for axes in self.axes:
            axes.set_visible(axes in axes_in_use)
        ratios = [1.0 if axes in axes_in_use else _NO_ROOM for axes in self.axes]
        self._grid.set_height_ratios(ratios)
        self.setVisible(bool(axes_in_use))
        self.setFixedHeight(self._height * max(1, len(axes_in_use)))
        theme = get_theme(self._theme)
        self.figure.set_facecolor(theme.background.as_hex())
        self._set_colours(theme.text.as_hex(), theme.foreground.as_hex())
        self.canvas.draw_idle()

    def save(self, path: Path, origin: Sequence[str] = (), caption: str = "") -> None:
        """Save the plot as PNG or SVG, dark on white, at a fixed size.

        `origin` becomes the file's title, `caption` is below the plot.
        """
        wide, high = self.figure.get_size_inches()
        rows = sum(axes.get_visible() for axes in self.axes)
        note = self.figure.text(0.01, -0.01, caption, va="top", color=_INK, fontsize=8)
        try:
            self.figure.set_size_inches(_WIDTH_IN, rows * _ROW_IN, forward=False)
            self._set_colours(_INK, "white")
            text = rc_context({"svg.fonttype": "none"})
            with text, replace_atomically(path) as place:
                self.figure.savefig(
                    place,
                    format=path.suffix[1:].lower(),
                    dpi=_PRINT_DPI,
                    facecolor="white",
                    bbox_inches="tight",
                    metadata={"Title": "; ".join(origin)},
                )
        finally:
            note.remove()
            self.figure.set_size_inches(wide, high, forward=False)
            self.refresh()

    def _set_colours(self, text: str, plane: str) -> None:
        """Set the colours of text and background."""
        # secondary axes have no background
        for axes in [part for own in self.axes for part in (own, *own.child_axes)]:
            axes.set_facecolor(plane)
            axes.title.set(color=text, fontsize=9)
            axes.tick_params(colors=text, which="both", labelsize=8)
            for label in (axes.xaxis.label, axes.yaxis.label):
                label.set(color=text, fontsize=9)
            axes.spines[:].set(color=text, alpha=0.4)
            legend = axes.get_legend()
            if legend is not None:
                legend.get_frame().set(facecolor=plane, edgecolor="none", alpha=0.8)
                for item in legend.get_texts():
                    item.set(color=text, fontsize=8)


def add_legend(axes: Axes) -> None:
    """Add a legend above the axes, where it covers no curve."""
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    half = -(-len(labels) // 2)
    parts = labels[:half], labels[half:]
    widths = [max(map(len, part), default=0) for part in parts]
    axes.legend(
        handles,
        labels,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=2 if len(labels) > 1 and sum(widths) <= _ABREAST else 1,
        fontsize=8,
        handlelength=1.3,
        columnspacing=1.0,
        labelspacing=0.3,
        borderpad=0.2,
        borderaxespad=_ABOVE_TICKS if axes.child_axes else 0.3,
    )


def shorten_label(text: str) -> str:
    """Shorten a long name by eliding its middle."""
    return text if len(text) <= 34 else f"{text[:16]}…{text[-16:]}"


_PEN = CurveStyle(COLOURS)


def draw_plot(axes: Axes, plot: Plot) -> None:
    """Draw curves in panel style, with axis labels and a legend above the axes."""
    lines = (replace(line, label=shorten_label(line.label)) for line in plot.lines)
    draw_curves(axes, replace(plot, lines=tuple(lines)), _PEN)
    for part in (axes, *axes.child_axes):
        part.set_xlabel(format_label(part.get_xlabel()))
    axes.set_ylabel(format_label(axes.get_ylabel()))
    if not any(line.is_histogram for line in plot.lines):
        axes.grid(visible=True, alpha=0.15)
    add_legend(axes)


def format_label(text: str) -> str:
    """Return an axis label in the style of panels."""
    return f"{text[:1].upper()}{text[1:]}"
