"""Pictures of a report: images and maps with scale bars, curves with two axes."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Curve", "bar_length", "curves_png", "image_png", "map_png"]

_DPI = 100
_BAR_SHARE = 0.28
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


def bar_length(extent: float) -> float:
    """Choose a round length for a scale bar.

    Parameters
    ----------
    extent : float
        Width of the image, in nm or px.

    Returns
    -------
    float
        The largest of 1, 2, 5 times a power of ten below 28 % of the width.
    """
    limit = extent * _BAR_SHARE
    power = 10.0 ** math.floor(math.log10(limit))
    return max(step * power for step in (1, 2, 5) if step * power <= limit)


def image_png(
    image: NDArray[Any],
    pixel_nm: tuple[float, float] | None,
    *,
    limits: tuple[float, float],
    width_px: int = 480,
) -> bytes:
    """Draw a grey image with a scale bar.

    Parameters
    ----------
    image : (Y, X) numpy.ndarray
        Grey values.
    pixel_nm : tuple of float or None
        ``(y, x)``; the bar is in pixels without it.
    limits : tuple of float
        Grey values shown as black and white.
    width_px : int, default=480
        Width of the picture.

    Returns
    -------
    bytes
        A PNG.
    """
    pitch = pixel_nm or (1.0, 1.0)
    height, width = image.shape[0] * pitch[0], image.shape[1] * pitch[1]
    figure = _figure(width_px, max(24, round(width_px * height / width)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    smooth = image.shape[1] > width_px
    axes.imshow(
        image,
        cmap="gray",
        vmin=limits[0],
        vmax=limits[1],
        interpolation="antialiased" if smooth else "nearest",
        extent=(0, width, height, 0),
        aspect="auto",
    )
    _scale_bar(axes, width, height, "px" if pixel_nm is None else "nm")
    return _png(figure)


def map_png(
    values: NDArray[Any],
    pixel_nm: tuple[float, float] | None,
    *,
    limits: tuple[float, float],
    label: str,
    width_px: int = 480,
) -> bytes:
    """Draw a map with a colour bar and a scale bar; NaN is hatched grey.

    Parameters
    ----------
    values : (Y, X) numpy.ndarray of float
        The map.
    pixel_nm : tuple of float or None
        ``(y, x)`` of the map; the bar is in pixels without it.
    limits : tuple of float
        Values at the ends of the colour bar.
    label : str
        What the values are, with their unit.
    width_px : int, default=480
        Width of the picture.

    Returns
    -------
    bytes
        A PNG.
    """
    from matplotlib import colormaps

    pitch = pixel_nm or (1.0, 1.0)
    height, width = values.shape[0] * pitch[0], values.shape[1] * pitch[1]
    tall = round(width_px * 0.78 * height / width)
    figure = _figure(width_px, max(160, tall + 16))
    axes = figure.add_axes((0.01, 0.03, 0.76, 0.94))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_facecolor("#b9bdc3")
    axes.patch.set_hatch("////")
    axes.patch.set_edgecolor("#8d939b")
    drawn = axes.imshow(
        np.ma.masked_invalid(values),
        cmap=colormaps["viridis"].reversed(),
        vmin=limits[0],
        vmax=limits[1],
        interpolation="nearest",
        extent=(0, width, height, 0),
        aspect="auto",
    )
    bar = figure.colorbar(drawn, cax=figure.add_axes((0.80, 0.05, 0.035, 0.90)))
    bar.set_label(label)
    _scale_bar(axes, width, height, "px" if pixel_nm is None else "nm")
    return _png(figure)


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
    figure = _figure(*size_px)
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
    return _png(figure)


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


def _scale_bar(axes: "Axes", width: float, height: float, unit: str) -> None:
    """Draw a white bar with a dark edge in the lower left corner."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    long = bar_length(width)
    left, thick = width * 0.035, min(height * 0.02, width * 0.015)
    low = height * 0.95
    axes.add_patch(
        Rectangle(
            (left, low - thick), long, thick, facecolor="white", edgecolor="black",
            linewidth=0.8,
        )
    )  # fmt: skip
    axes.text(
        left + long / 2, low - 1.6 * thick, f"{long:g} {unit}", color="white",
        ha="center", va="bottom", fontsize=10.5, fontweight="bold",
        path_effects=[withStroke(linewidth=2.2, foreground="black")],
    )  # fmt: skip


def _figure(width_px: int, height_px: int) -> "Figure":
    """Make a figure that no window and no global state knows."""
    from matplotlib.figure import Figure

    return Figure(
        figsize=(width_px / _DPI, height_px / _DPI), dpi=_DPI, facecolor="white"
    )


def _png(figure: "Figure") -> bytes:
    """Draw a figure into a PNG without a time stamp, so that equal is equal."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None})
    return stream.getvalue()
