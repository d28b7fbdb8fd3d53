"""Curves of a report, over spatial frequency and period."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.services.report_canvas import new_figure, to_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Curve", "curves_png"]

_COLOURS = ("#1b1f24", "#c2572b", "#8a63b8", "#16836a", "#2f6db5")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), "-", "-.")


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a plot.

    Attributes
    ----------
    label : str
        Name in the legend.
    frequency_per_px, value : (N,) numpy.ndarray
        Abscissa and ordinate.
    mark_per_px : float or None
        Frequency to mark on the curve, such as its crossing.
    colour : int
        Index of the colour, so that one thing has one colour in all plots.
    """

    label: str
    frequency_per_px: NDArray[Any]
    value: NDArray[Any]
    mark_per_px: float | None = None
    colour: int = 0


def curves_png(
    curves: Sequence[Curve],
    pixel_nm: float | None,
    *,
    ylabel: str,
    log: bool = False,
    threshold: tuple[str, float] | None = None,
    size_px: tuple[int, int] = (860, 440),
) -> bytes:
    """Plot curves over spatial frequency, with the period on the upper axis.

    Parameters
    ----------
    curves : sequence of Curve
        What to draw.
    pixel_nm : float or None
        Pixel size; frequencies are in 1/px without it.
    ylabel : str
        What the ordinate is.
    log : bool, default=False
        Logarithmic ordinate.
    threshold : tuple of (str, float), optional
        A named horizontal line.
    size_px : tuple of int, default=(860, 440)
        Width and height of the picture.

    Returns
    -------
    bytes
        A PNG.
    """
    factor = 1.0 if pixel_nm is None else 1000.0 / pixel_nm
    figure = new_figure(*size_px)
    axes = figure.add_axes((0.095, 0.145, 0.885, 0.72))
    for curve in curves:
        _draw_curve(axes, curve, factor, None if threshold is None else threshold[1])
    if threshold is not None:
        name, value = threshold
        axes.axhline(value, color="#6b7280", linewidth=1, linestyle=(0, (2, 2)))
        axes.text(
            0.995, value, name, transform=axes.get_yaxis_transform(),
            ha="right", va="bottom", color="#4b5563", fontsize=9,
        )  # fmt: skip
    if log:
        axes.set_yscale("log")
    axes.set_xlim(0, 0.5 * factor)
    axes.set_xlabel(
        "spatial frequency (µm⁻¹)" if pixel_nm else "spatial frequency (1/px)"
    )
    axes.set_ylabel(ylabel)
    axes.grid(color="#e3e6ea", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=9.5, loc="upper right")
    _period_axis(axes, factor, pixel_nm)
    return to_png(figure)


def _draw_curve(axes: "Axes", curve: Curve, factor: float, level: float | None) -> None:
    """Draw one curve and its mark, which lies on the threshold where there is one."""
    colour = _COLOURS[curve.colour % len(_COLOURS)]
    style = _DASHES[curve.colour % len(_DASHES)]
    x = np.asarray(curve.frequency_per_px, dtype=float) * factor
    y = np.asarray(curve.value, dtype=float)
    axes.plot(x, y, color=colour, linestyle=style, linewidth=1.7, label=curve.label)
    if curve.mark_per_px is not None:
        at = curve.mark_per_px * factor
        height = np.interp(at, x, y) if level is None else level
        axes.plot([at], [height], "o", color=colour, markersize=7, alpha=0.85)


def _period_axis(axes: "Axes", factor: float, pixel_nm: float | None) -> None:
    """Put the period on the upper axis, at round numbers that stay apart."""
    finest = 2.0 * (pixel_nm or 1.0)
    scale = 1.0 if pixel_nm is None else 1000.0
    chosen: list[float] = []
    for ratio in (1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 25.0):
        period = _round_up(finest * ratio)
        place = scale / period / (0.5 * factor)
        if all(abs(place - scale / p / (0.5 * factor)) > 0.05 for p in chosen):
            chosen.append(period)
    top = axes.secondary_xaxis("top")
    top.set_xticks([scale / period for period in chosen])
    top.set_xticklabels([f"{period:g}" for period in chosen])
    top.set_xlabel("period (nm)" if pixel_nm else "period (px)")


def _round_up(value: float) -> float:
    """Round up to two significant digits."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return round(math.ceil(value / unit - 1e-9) * unit, 12)
