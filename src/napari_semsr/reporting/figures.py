"""Figures of pages as PNG: images, maps and curves; scale bars and rendering."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_semsr.core import FloatArray, Line, Plot, RealArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import LineStyleType
    from numpy.typing import ArrayLike

_DPI = 100  # resolution of figures; chosen
_BAR_SHARE = 0.28  # largest share of the width for a scale bar; chosen
_NM_IN_UM = 1000.0
_PERIODS = np.outer(10.0 ** np.arange(-2, 7), (1, 2, 5)).ravel()
_COARSEST = 8  # labelled periods: longest over shortest; chosen: more crowd
EMPTY = "#c9d2dc"  # where an image has no value
CURVE_COLOURS = ("#1b1f24", "#874b0f", "#960fff", "#1e8778", "#a5a500")
_DASHES: tuple["LineStyleType", ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), "-", "-.")
_BOLD: Any = {
    "edge": 2.2, "ha": "center", "va": "bottom", "fontsize": 10.5, "fontweight": "bold",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class CurveStyle:
    """Style of plotted curves."""

    colours: Sequence[str]
    dashes: "Sequence[LineStyleType]" = ("-",)
    width: float = 1.3
    threshold: str | None = None  # colour of thresholds; by default the next one


_PAGE = CurveStyle(CURVE_COLOURS, _DASHES, 1.7, "#6b7280")


def draw_image_png(
    image: RealArray,
    pixel_nm: tuple[float, float] | None,
    *,
    limits: tuple[float, float],
    width_px: int = 480,
) -> bytes:
    """Draw a grey image with a scale bar; NaN is light blue-grey."""
    from matplotlib import colormaps

    y, x = pixel_nm or (1.0, 1.0)
    height, width = image.shape[0] * y, image.shape[1] * x
    figure = _create_figure(width_px, max(24, round(width_px * height / width)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    smooth = image.shape[1] > width_px
    axes.imshow(
        np.ma.masked_invalid(image), vmin=limits[0], vmax=limits[1],
        extent=(0, width, height, 0), aspect="auto",
        cmap=colormaps["gray"].with_extremes(bad=EMPTY),
        interpolation="antialiased" if smooth else "nearest",
    )  # fmt: skip
    length = choose_scale_bar_length(width)
    words = format_scale_bar_length(length, has_size=pixel_nm is not None)
    left, thick = width * 0.035, min(height * 0.02, width * 0.015)
    low = height * 0.95
    draw_scale_bar(axes, left, low, length, thick, edge=0.8)
    write_text(axes, left + length / 2, low - 1.6 * thick, words, **_BOLD)
    return render_figure(figure, "png", _DPI, {})


def draw_plot_png(plot: Plot, size_px: tuple[int, int] = (860, 440)) -> bytes:
    """Draw the curves of a plot as PNG."""
    figure = _create_figure(*size_px)
    left, low = 82 / size_px[0], 64 / size_px[1]
    high = 0.865 if plot.period else 1 - 0.05
    axes = figure.add_axes((left, low, 0.98 - left, high - low))
    draw_curves(axes, plot, _PAGE)
    axes.grid(color="#e3e6ea", linewidth=0.8)
    axes.set_axisbelow(True)
    if axes.get_legend_handles_labels()[1]:
        for text in axes.legend(frameon=False, fontsize=9.5).get_texts():
            text.set_parse_math(False)  # a dollar sign in a name is literal
    return render_figure(figure, "png", _DPI, {})


def draw_curves(axes: "Axes", plot: Plot, pen: CurveStyle) -> None:
    """Draw curves with their markers, and label the axes."""
    for place, line in enumerate(plot.lines):
        index = place if line.colour is None else line.colour
        below = (other for other in plot.lines[place:] if other.kind == "threshold")
        _draw_line(axes, line, pen, index, next(below, line))
    labels = [text for text in axes.get_legend_handles_labels()[1] if text]
    if labels == [plot.title]:  # a single curve needs no name
        for item in axes.get_lines():
            item.set_label("")
    if plot.log and any((line.y > 0).any() for line in plot.lines):
        axes.set_yscale("log")
    if plot.ylim is not None:
        axes.set_ylim(plot.ylim)
    if not any(line.kind == "points" for line in plot.lines):
        axes.margins(x=0)
    axes.set_xlabel(plot.xlabel)
    axes.set_ylabel(plot.ylabel)
    ends = [line.x[np.isfinite(line.x)] for line in plot.lines]
    high = float(np.concatenate(ends).max(initial=0.0))
    if plot.period and high > 0:
        axes.set_xlim(0, high)
        _add_period_axis(axes, plot.period)
    elif any(line.is_histogram for line in plot.lines):
        axes.set_ylim(bottom=0)


def _draw_line(
    axes: "Axes", line: Line, pen: CurveStyle, index: int, other_line: Line
) -> None:
    """Draw a line, with its marker on the curve that the line crosses.

    That curve, `other_line`, is the threshold that follows, or the line itself.
    """
    colour = pen.colours[index % len(pen.colours)]
    x, y, dash = line.x, line.y, pen.dashes[index % len(pen.dashes)]
    look: Any = {"linewidth": pen.width, "linestyle": dash}
    if line.is_histogram:
        y = np.append(y, y[-1:])
        axes.fill_between(x, y, step="post", alpha=0.35, color=colour, linewidth=0)
        look |= {"linewidth": 1, "drawstyle": "steps-post"}
    elif "threshold" in line.kind:
        colour = pen.threshold or colour
        is_threshold = line.kind == "threshold"
        look = {
            "linewidth": 1.4 if is_threshold else 1.2,
            "linestyle": "--" if is_threshold else ":",
        }
    elif not x.size:  # text for the legend only
        look = {"linestyle": "none"}
    elif line.kind == "points":
        look |= {"marker": "o", "markersize": 3}
    label = ", ".join(filter(None, (line.label, line.mark_label)))
    axes.plot(x, y, color=colour, label=label, **look)
    if line.mark is not None:
        level = np.interp(line.mark, other_line.abscissa, other_line.y)
        axes.plot([line.mark], [level], "o", color=colour, markersize=6, alpha=0.85)
        if line.mark_label:
            axes.axvline(line.mark, color=colour, linewidth=1, alpha=0.7)


def _add_period_axis(axes: "Axes", unit: str) -> None:
    """Add a top axis of periods with well-spaced round numbers."""
    scale = _NM_IN_UM if unit == "nm" else 1.0

    def invert(values: "ArrayLike") -> FloatArray:
        """Convert frequency to period, or period to frequency."""
        with np.errstate(divide="ignore"):
            many = np.asarray(values, dtype=float)
            return np.where(many > 0, scale / np.maximum(many, 1e-12), 1e12)

    top = axes.secondary_xaxis("top", functions=(invert, invert))
    _, high = axes.get_xlim()
    least, most = scale / high, _COARSEST * scale / high
    top.set_xticks([one for one in _PERIODS if least <= one <= most])
    top.xaxis.set_major_formatter("{x:g}")
    top.minorticks_off()
    top.set_xlabel(f"period ({unit})")


def draw_position_errors(axes: "Axes", offsets: FloatArray, colour: str) -> None:
    """Plot position errors (N, 2); y points down, as in an image."""
    finite = offsets[np.isfinite(offsets).all(axis=1)]
    reach = 1.15 * float(np.abs(finite).max(initial=1e-6))
    axes.axhline(0, color="#9aa2ad", linewidth=0.8)
    axes.axvline(0, color="#9aa2ad", linewidth=0.8)
    axes.plot(finite[:, 1], finite[:, 0], "o", color=colour, markersize=5, alpha=0.8)
    axes.set(xlim=(-reach, reach), ylim=(reach, -reach), aspect="equal")


def choose_grey_limits(image: RealArray) -> tuple[float, float]:
    """Choose the display limits: the 0.5 and 99.5 percentiles of the grey values."""
    low, high = (float(v) for v in np.nanpercentile(image, (0.5, 99.5)))
    # a constant image still needs a range above 0
    return low, high if high > low else low + max(1e-6 * abs(low), 1e-6)


def choose_scale_bar_length(extent: float) -> float:
    """Choose a bar length of 1, 2 or 5 times a power of ten, below 28 % of a width."""
    limit = extent * _BAR_SHARE
    power = 10.0 ** math.floor(math.log10(limit))
    return max(step * power for step in (1, 2, 5) if step * power <= limit)


def format_scale_bar_length(length: float, *, has_size: bool) -> str:
    """Format the length of a scale bar, given in nm if calibrated, otherwise in px."""
    if not has_size:
        return f"{length:g} px"
    for unit, nm in (("mm", 1e6), ("µm", 1e3)):
        if length >= nm:
            return f"{length / nm:g} {unit}"
    return f"{length:g} nm"


def _create_figure(width_px: int, height_px: int) -> "Figure":
    """Create an empty white figure that is not registered with pyplot."""
    from matplotlib.figure import Figure

    size = (width_px / _DPI, height_px / _DPI)
    return Figure(figsize=size, dpi=_DPI, facecolor="white")


def draw_scale_bar(
    axes: "Axes", left: float, low: float, length: float, thick: float, *, edge: float
) -> None:
    """Draw a white bar with a dark edge."""
    from matplotlib.patches import Rectangle

    look: Any = {"facecolor": "white", "edgecolor": "black", "linewidth": edge}
    axes.add_patch(Rectangle((left, low - thick), length, thick, **look))


def write_text(
    axes: "Axes", x: float, y: float, words: str, *, edge: float, **look: Any
) -> None:
    """Write text on an image, in white with a dark edge."""
    from matplotlib.patheffects import withStroke

    effects = [withStroke(linewidth=edge, foreground="black")]
    axes.text(x, y, words, color="white", path_effects=effects, **look)


def render_figure(
    figure: "Figure", kind: str, dpi: int, texts: Mapping[str, str]
) -> bytes:
    """Render a figure in a file format, undated for reproducibility."""
    stream = io.BytesIO()
    if kind == "pdf":
        from matplotlib.backends.backend_pdf import FigureCanvasPdf

        metadata = {**texts, "CreationDate": None}
        FigureCanvasPdf(figure).print_pdf(stream, metadata=metadata)
        return stream.getvalue()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    picture = Image.fromarray(pixels)
    if kind == "png" and (pixels == pixels[..., :1]).all():
        picture = picture.getchannel(0)  # grey only: a third of the size
    settings: dict[str, Any] = {"dpi": (dpi, dpi)}
    if kind == "tif":
        settings["compression"] = "tiff_deflate"
    picture.save(stream, "TIFF" if kind == "tif" else "PNG", **settings)
    return stream.getvalue()
