"""What all pictures of a report share: the canvas, the scale bar, the PNG."""

import io
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["bar_length", "draw_scale_bar", "new_figure", "to_png"]

_DPI = 100
_BAR_SHARE = 0.28


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


def draw_scale_bar(axes: "Axes", width: float, height: float, unit: str) -> None:
    """Draw a white bar with a dark edge in the lower left corner.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Whose data coordinates are lengths, y pointing down from 0.
    width, height : float
        Of the picture, in `unit`.
    unit : str
        ``"nm"`` or ``"px"``.
    """
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


def new_figure(width_px: int, height_px: int) -> "Figure":
    """Make a figure that no window and no global state knows.

    Parameters
    ----------
    width_px, height_px : int
        Size of the picture.

    Returns
    -------
    matplotlib.figure.Figure
        Empty and white.
    """
    from matplotlib.figure import Figure

    return Figure(
        figsize=(width_px / _DPI, height_px / _DPI), dpi=_DPI, facecolor="white"
    )


def to_png(figure: "Figure") -> bytes:
    """Draw a figure into a PNG without a time stamp, so that equal is equal.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure.

    Returns
    -------
    bytes
        The PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None})
    return stream.getvalue()
