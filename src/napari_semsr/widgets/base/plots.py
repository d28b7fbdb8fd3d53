"""A matplotlib canvas that follows napari's theme, and what is drawn on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from napari.utils.theme import get_theme
from numpy.typing import NDArray
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from napari_semsr.widgets.base.runner import is_alive

if TYPE_CHECKING:
    import napari.viewer

_COLOURS = ("#4ca3dd", "#f2a33a", "#59b368", "#d9655b", "#b07cd8", "#8d99ae")
_DPI = 90
_PERIODS_NM = np.outer(10.0 ** np.arange(-2, 7), (1, 2, 5)).ravel()


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a plot."""

    label: str  # Its name in the legend
    x: NDArray[Any]  # (K,) Its points
    y: NDArray[Any]  # (K,) Its points


class PlotCanvas(QWidget):
    """One or more axes below each other, in the colours of the viewer's theme."""

    def __init__(
        self, viewer: "napari.viewer.Viewer", *, rows: int = 1, height: int = 240
    ) -> None:
        super().__init__()
        self.figure = Figure(dpi=_DPI, layout="constrained")
        self.canvas = FigureCanvasQTAgg(self.figure)
        self.axes: list[Axes] = [
            self.figure.add_subplot(rows, 1, row + 1) for row in range(rows)
        ]
        self.setMinimumHeight(height * rows)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setFixedHeight(height * rows)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.canvas)
        self._theme = str(viewer.theme)
        viewer.events.theme.connect(self.follow_theme)
        self.refresh()

    def wheelEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Leave the wheel to the panel, which scrolls."""
        event.ignore()

    def follow_theme(self, event: Any = None) -> None:
        """Take the colours of the theme that was chosen."""
        self._theme = str(getattr(event, "value", self._theme))
        if is_alive(self):
            self.refresh()

    def clear(self) -> None:
        """Empty the axes."""
        for axes in self.axes:
            axes.clear()
            for child in list(axes.child_axes):
                child.remove()

    def refresh(self) -> None:
        """Colour everything by the theme and draw."""
        theme = get_theme(self._theme)
        text, back = theme.text.as_hex(), theme.background.as_hex()
        plane = theme.foreground.as_hex()
        self.figure.set_facecolor(back)
        for axes in self.axes:
            for part in (axes, *axes.child_axes):
                _colour(part, text, plane)
        self.canvas.draw_idle()


def _colour(axes: Any, text: str, plane: str) -> None:
    """Colour one pair of axes; a secondary axis has no plane of its own."""
    axes.set_facecolor(plane)
    axes.title.set_color(text)
    axes.title.set_fontsize(9)
    axes.tick_params(colors=text, which="both", labelsize=8)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(text)
        label.set_fontsize(9)
    for spine in axes.spines.values():
        spine.set_color(text)
        spine.set_alpha(0.4)
    legend = axes.get_legend()
    if legend is not None:
        legend.get_frame().set_facecolor(plane)
        legend.get_frame().set_edgecolor("none")
        legend.get_frame().set_alpha(0.8)
        for item in legend.get_texts():
            item.set_color(text)
            item.set_fontsize(8)


def _short(text: str, length: int = 34) -> str:
    """Cut a long name in its middle."""
    half = (length - 1) // 2
    return text if len(text) <= length else f"{text[:half]}…{text[-half:]}"


def _per_um_and_back(values: Any) -> Any:
    """Period in nm of a frequency in µm⁻¹, and the other way round."""
    values = np.asarray(values, dtype=float)
    with np.errstate(divide="ignore"):
        return np.where(values > 0, 1000.0 / np.maximum(values, 1e-12), 1e12)


def _add_period_axis(axes: Axes) -> None:
    """Add a top axis with the period in nm to an axis in µm⁻¹."""
    top = axes.secondary_xaxis("top", functions=(_per_um_and_back, _per_um_and_back))
    low, high = axes.get_xlim()
    least, most = 1000.0 / high, 1000.0 / max(low, high / 12)
    ticks = [p for p in _PERIODS_NM if least <= p <= most]
    top.set_xticks(ticks)
    top.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    top.minorticks_off()
    top.set_xlabel("Period (nm)")


def draw_curves(
    canvas: PlotCanvas, curves: Sequence[Curve], *, calibrated: bool
) -> None:
    """Draw radial power spectra together.

    `curves`: power over frequency, in µm⁻¹ when calibrated, else in cycles per pixel;
    `calibrated`: whether to label the axis in µm⁻¹ and add periods in nm on top.
    """
    canvas.clear()
    axes = canvas.axes[0]
    for number, curve in enumerate(curves):
        shown = (curve.x > 0) & (curve.y > 0) & np.isfinite(curve.y)
        axes.plot(
            curve.x[shown],
            curve.y[shown],
            color=_COLOURS[number % len(_COLOURS)],
            lw=1.3,
            label=_short(curve.label),
        )
    axes.set_yscale("log")
    axes.set_ylabel("Power (arb. units)")
    if curves:
        axes.set_xlim(0, max(float(curve.x.max()) for curve in curves))
        axes.legend(loc="upper right")
    axes.set_xlabel(
        "Spatial frequency (µm⁻¹)" if calibrated else "Frequency (cycles/px)"
    )
    axes.grid(visible=True, alpha=0.15)
    if calibrated and curves:
        _add_period_axis(axes)
    canvas.refresh()


def draw_resolutions(
    axes: Axes, values: NDArray[Any], unit: str, marks: Sequence[tuple[str, float]]
) -> None:
    """Draw the distribution of block resolutions.

    `values` (K,); `unit`: ``"nm"`` or ``"px"``.
    """
    finite = values[np.isfinite(values)]
    if finite.size:
        low, high = np.percentile(finite, (0.5, 99.5))
        high = high if high > low else low + 1
        axes.hist(finite, bins=40, range=(low, high), color=_COLOURS[0], alpha=0.85)
    else:
        axes.text(0.5, 0.5, "no block has a resolution", ha="center", color=_COLOURS[3])
        axes.set_xticks([])
        axes.set_yticks([])
    for number, (label, value) in enumerate(marks):
        axes.axvline(
            value,
            color=_COLOURS[(number + 1) % len(_COLOURS)],
            lw=1.3,
            ls="--",
            label=f"{label} {value:.3g} {unit}",
        )
    if marks:
        axes.legend(loc="upper right")
    axes.set_xlabel(f"Resolution ({unit})")
    axes.set_ylabel("Blocks")


def draw_frc(
    axes: Axes,
    frequency: NDArray[Any],
    correlation: NDArray[Any],
    threshold: NDArray[Any],
    *,
    calibrated: bool,
    crossing: float | None,
    note: str,
) -> None:
    """Draw a correlation curve with its threshold and crossing.

    `frequency`, `correlation`, `threshold` (K,), the curve; frequency in µm⁻¹ when
    calibrated, else in cycles per pixel.
    """
    axes.plot(frequency, correlation, color=_COLOURS[0], lw=1.3, label="FRC")
    axes.plot(
        frequency, threshold, color=_COLOURS[1], lw=1.1, ls="--", label="threshold"
    )
    if crossing is not None:
        level = float(np.interp(crossing, frequency, threshold))
        axes.plot([crossing], [level], "o", color=_COLOURS[3], ms=6)
        axes.axvline(crossing, color=_COLOURS[3], lw=1, alpha=0.7, label=note)
    else:
        axes.plot([], [], " ", label=note)
    axes.set_xlim(0, float(frequency.max()) if len(frequency) else 1)
    axes.set_ylim(-0.2, 1.05)
    axes.set_ylabel("Whole-field FRC")
    axes.set_xlabel(
        "Spatial frequency (µm⁻¹)" if calibrated else "Frequency (cycles/px)"
    )
    axes.legend(loc="upper right")
    if calibrated:
        _add_period_axis(axes)


def draw_grey_levels(canvas: PlotCanvas, curves: Sequence[Curve]) -> None:
    """Draw grey-level distributions as steps.

    `curves`: share of pixels over grey level, at the centres of the bins.
    """
    canvas.clear()
    axes = canvas.axes[0]
    for number, curve in enumerate(curves):
        colour = _COLOURS[number % len(_COLOURS)]
        axes.fill_between(curve.x, curve.y, step="mid", alpha=0.35, color=colour, lw=0)
        axes.step(
            curve.x, curve.y, where="mid", color=colour, lw=1, label=_short(curve.label)
        )
    axes.set_xlabel("Grey level")
    axes.set_ylabel("Share of pixels")
    if curves:
        axes.legend(loc="upper right")
    canvas.refresh()
