"""Figures for papers: images in rows with scale bars, colour bars and a caption."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_semsr.core import FloatPair, IntPair, RealArray, ShapeError
from napari_semsr.reporting import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_MM, _POINTS_IN_INCH = 25.4, 72  # per inch
_POINTS = 7.0  # journals require at least 5 to 7
_LINE_MM = 3.1  # height of a line of that size
_GAP_MM = 1.5
_COLOUR_BAR = 0.24  # share of an image's width, including the numbers
_COLOUR_BAR_MM = 9.5  # minimum for bar, numbers and label
_MIN_MM = 35.0  # minimum width of an image if `columns` is not set; chosen
_TALLEST_MM = 1000.0  # maximum height of a figure; chosen: no paper is taller
_MAX_APART = 4  # largest ratio of fields at one scale; chosen: else some are tiny
_MAX_COLUMNS = 3
_WORDS: Any = {"edge": 1.2, "fontsize": _POINTS}  # text on an image


@dataclass(frozen=True, slots=True)
class FigureOverlay:
    """Map overlaid on an image of a figure."""

    values: RealArray  # (Y, X) The map; NaN shows the image
    # ``(top, left, bottom, right)`` edges, in pixels of the image's `values`
    corners: tuple[float, float, float, float]
    limits: FloatPair  # Values at the ends of the colour map
    colours: "str | Colormap"  # Of matplotlib
    unit: str  # Label of the colour bar


@dataclass(frozen=True, slots=True)
class FigureImage:
    """One image of a figure."""

    values: RealArray  # (Y, X) Grey values or a map; NaN is a light blue-grey
    # Sides ``(y, x)`` in nm; in px if the image is not calibrated
    pixel: FloatPair
    limits: FloatPair  # Values shown darkest and brightest
    has_size: bool = True  # Whether pixels have sides in nm
    is_spectrum: bool = False  # Whether the axes are frequencies: no scale bar
    colours: "str | Colormap" = "gray"  # Of matplotlib
    unit: str | None = None  # Label of the colour bar; None for no bar
    # Edges, as `corners` of an overlay, of a part to outline and enlarge below the
    # image
    box: tuple[float, float, float, float] | None = None
    # (V, U) Pixels of that part, which may be finer than `values`
    inset: RealArray | None = None
    gamma: float = 1.0  # Exponent of the grey levels, as in napari
    # A map shown over the image; the colour bar is then that of the map
    overlay: FigureOverlay | None = None

    @property
    def size(self) -> FloatPair:
        """Height and width on the sample, in the unit of `pixel`."""
        rows, columns = self.values.shape
        return rows * self.pixel[0], columns * self.pixel[1]

    @property
    def bar_label(self) -> str | None:
        """Label of the colour bar; None if the image has none."""
        return self.unit if self.overlay is None else self.overlay.unit


class RenderedFigure(NamedTuple):
    """A rendered figure."""

    data: bytes  # of the file
    shape: IntPair  # rows and columns in pixels, for a PDF at its dpi


def choose_column_count(count: int, columns: int | None, width_mm: float) -> int:
    """Return the number of images per row; by default as many as fit, up to three."""
    room = max(1, int(width_mm // _MIN_MM))
    free = min(2 if count == 4 else _MAX_COLUMNS, room)
    return min(columns or free, count)


def draw_plate(
    images: Sequence[FigureImage],
    *,
    kind: str,
    width_mm: float,
    dpi: int,
    columns: int | None = None,
    caption: str = "",
    title: str = "",
) -> RenderedFigure:
    """Draw images in rows, with letters, scale bars, colour bars and insets."""
    from matplotlib.figure import Figure

    count = len(images)
    across = choose_column_count(count, columns, width_mm)
    width = (width_mm - _GAP_MM * (across - 1)) / across
    widths = _compute_image_widths(images, width)
    bars = _choose_scale_bar_lengths(images)
    cells: list[tuple[int, float, float, float]] = []  # image, left, top, height
    top = 0.0
    for first in range(0, count, across):
        row = range(first, min(first + across, count))
        tall = max(_compute_height(images[i], widths[i]) for i in row)
        cells += [(i, (i - first) * (width + _GAP_MM), top, tall) for i in row]
        top += tall + _GAP_MM
    lines: list[str] = []
    # longer words are not broken, nor is a number from its unit
    for word in filter(None, re.split(r"\s+(?!(?:[nµm]m|px)\b)", caption.strip())):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _measure_text_mm(longer, _POINTS, dpi) <= width_mm:
            lines[-1] = longer
        else:
            lines.append(word)
    whole = top + _LINE_MM * len(lines) + (_GAP_MM if lines else -_GAP_MM)
    if whole > _TALLEST_MM:
        msg = (
            f"A figure must be at most {_TALLEST_MM:g} mm tall, got {whole:.0f} mm at "
            f"{width_mm:g} mm width; crop long, narrow images (`crop()`)."
        )
        raise ShapeError(msg, code="image-too-large")
    size = width_mm / _MM, whole / _MM
    figure = Figure(figsize=size, dpi=dpi, facecolor="white")
    for i, left, down, _ in cells:
        letter = f"{chr(ord('a') + i)}" if count > 1 else ""
        place = left, down, widths[i]
        _draw_panel(figure, images[i], place, (width_mm, whole), letter, bars[i])
    if lines:
        figure.text(
            0, 1 - (top + 0.2 * _LINE_MM) / whole, "\n".join(lines),
            va="top", ha="left", fontsize=_POINTS, linespacing=1.25,
            parse_math=False,  # a dollar sign is literal
        )  # fmt: skip
    across_px, down_px = map(int, figure.bbox.size)  # as Matplotlib cuts them off
    data = figures.render_figure(figure, kind, dpi, {"Title": title})
    return RenderedFigure(data, (down_px, across_px))


def _measure_text_mm(text: str, points: float, dpi: float) -> float:
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.font_manager import FontProperties

    measure = RendererAgg(1, 1, dpi)  # letters start on whole pixels
    font = FontProperties(size=points)
    pixels = measure.get_text_width_height_descent(text, font, ismath=False)[0]
    return float(pixels * _MM / dpi)


def _fit_font_size(text: str, points: float, room_mm: float, dpi: float) -> float:
    """Return the font size, reduced if necessary to fit a line of text."""
    return points * min(1.0, room_mm / max(_measure_text_mm(text, points, dpi), 1e-9))


def _has_common_scale(images: Sequence[FigureImage]) -> bool:
    """Check whether all images have the same unit and similar field widths."""
    wide = [image.size[1] for image in images]
    units = {image.has_size for image in images}
    return len(units) == 1 and max(wide) <= _MAX_APART * min(wide)


def _choose_scale_bar_lengths(images: Sequence[FigureImage]) -> list[float]:
    """Choose each scale bar's length, the same for all images with a common scale."""
    wide = [image.size[1] for image in images]
    one = _has_common_scale(images)
    return [figures.choose_scale_bar_length(min(wide) if one else own) for own in wide]


def describe_scale_bars(images: Sequence[FigureImage]) -> list[str]:
    """Describe each image's scale bar for a caption; empty if it has none."""
    texts = []
    for image, long in zip(images, _choose_scale_bar_lengths(images), strict=True):
        text = figures.format_scale_bar_length(long, has_size=image.has_size)
        texts.append("" if image.is_spectrum else f"bar {text}")
    return texts


def _compute_image_widths(images: Sequence[FigureImage], width: float) -> list[float]:
    """Compute image widths, excluding colour bars, in cells of a given width."""
    bar = min(max(_COLOUR_BAR * width, _COLOUR_BAR_MM), width / 2)
    room = [width - bar * bool(image.bar_label) for image in images]
    if not _has_common_scale(images):
        return room
    wide = [image.size[1] for image in images]
    scale = min(mm / own for mm, own in zip(room, wide, strict=True))
    return [scale * own for own in wide]


def _compute_height(image: FigureImage, shown_share: float) -> float:
    """Return the height of an image drawn at a given width, including its inset."""
    tall = shown_share * image.size[0] / image.size[1]
    if image.box is not None and image.inset is not None:
        tall += _GAP_MM + shown_share * _compute_box_aspect_ratio(image)
    return tall


def _compute_box_aspect_ratio(image: FigureImage) -> float:
    y, x = image.pixel
    y0, x0, y1, x1 = image.box or (0, 0, 1, 1)
    return (y1 - y0) * y / ((x1 - x0) * x)


def _draw_panel(
    figure: "Figure",
    image: FigureImage,
    place: tuple[float, float, float],
    whole: FloatPair,
    letter: str,
    long: float,
) -> None:
    """Draw one image with its inset and colour bar; lengths are in mm."""
    left, down, shown_share = place
    tall = shown_share * image.size[0] / image.size[1]

    def add_axes(x: float, y: float, w: float, h: float) -> "Axes":
        share = (x / whole[0], 1 - (y + h) / whole[1], w / whole[0], h / whole[1])
        return figure.add_axes(share, xticks=[], yticks=[])

    axes = add_axes(left, down, shown_share, tall)
    artist = _draw_image(axes, image, image.values, image.pixel, long)
    if image.overlay is not None:
        artist = _draw_overlay(axes, image.overlay, image.pixel)
    if letter:
        look = {**_WORDS, "transform": axes.transAxes, "weight": "bold"}
        figures.write_text(axes, 0.03, 0.97, letter, ha="left", va="top", **look)
    if image.bar_label:
        thick = 0.14 * shown_share * _COLOUR_BAR / (1 - _COLOUR_BAR)
        side = add_axes(left + shown_share + 0.8, down, max(thick, 1.2), tall)
        bar = figure.colorbar(artist, cax=side)
        bar.ax.tick_params(labelsize=_POINTS - 1, length=1.5, pad=1)
        _keep_ticks_inside(bar, tall)
        bar.outline.set_linewidth(0.4)
        size = _fit_font_size(image.bar_label, _POINTS - 1, tall, figure.dpi)
        bar.set_label(image.bar_label, fontsize=size, labelpad=1)
    if image.box is None or image.inset is None:
        return
    from matplotlib.patches import Rectangle

    (y0, x0, y1, x1), (py, px) = image.box, image.pixel
    rows, columns = y1 - y0, x1 - x0
    tall_px, wide_px = image.values.shape  # without the remainder cropped when reduced
    axes.add_patch(
        Rectangle(
            (x0 * px, y0 * py), (min(x1, wide_px) - x0) * px,
            (min(y1, tall_px) - y0) * py,
            fill=False, edgecolor="white", linewidth=0.8,
        )
    )  # fmt: skip
    inset_mm = shown_share * _compute_box_aspect_ratio(image)
    below = add_axes(left, down + tall + _GAP_MM, shown_share, inset_mm)
    pixel = (rows * py / image.inset.shape[0], columns * px / image.inset.shape[1])
    length = figures.choose_scale_bar_length(columns * px)
    _draw_image(below, image, image.inset, pixel, length)
    if image.overlay is not None:
        top, left, bottom, right = image.overlay.corners
        moved_limits = top - y0, left - x0, bottom - y0, right - x0
        _draw_overlay(below, replace(image.overlay, corners=moved_limits), image.pixel)


def _keep_ticks_inside(bar: "Colorbar", tall_mm: float) -> None:
    """Keep the tick labels of a colour bar within its ends, so that none is cut off."""
    low, high = bar.ax.get_ylim()
    ticks = [tick for tick in bar.get_ticks() if low <= tick <= high]
    bar.set_ticks(ticks)
    half = (_POINTS - 1) * _MM / _POINTS_IN_INCH / (2 * tall_mm)
    for tick, label in zip(ticks, bar.ax.get_yticklabels(), strict=True):
        share = (tick - low) / (high - low)
        if share > 1 - half:
            label.set_verticalalignment("top")
        elif share < half:
            label.set_verticalalignment("bottom")


def _draw_image(
    axes: "Axes",
    image: FigureImage,
    values: RealArray,
    pixel: FloatPair,
    long: float,
) -> "AxesImage":
    """Draw an image with a scale bar in the lower left."""
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm

    y, x = pixel
    height, width = values.shape[0] * y, values.shape[1] * x
    # average down to the drawn resolution to avoid aliasing
    more = values.shape[0] > axes.bbox.height or values.shape[1] > axes.bbox.width
    artist = axes.imshow(
        np.ma.masked_invalid(values), norm=PowerNorm(image.gamma, *image.limits),
        extent=(0, width, height, 0), aspect="auto",
        interpolation="hanning" if more else "nearest",
        cmap=colormaps.get_cmap(image.colours).with_extremes(bad=figures.EMPTY),
    )  # fmt: skip
    for spine in axes.spines.values():
        spine.set_linewidth(0.4)
    if image.is_spectrum:
        return artist
    from_left, thick, low = width * 0.04, height * 0.015, height * 0.96
    figures.draw_scale_bar(axes, from_left, low, long, thick, edge=0.3)
    words = figures.format_scale_bar_length(long, has_size=image.has_size)
    dpi = axes.figure.dpi
    across = axes.bbox.width / dpi * _MM
    # equal margins on both sides
    size = _fit_font_size(words, _POINTS, 0.92 * across, dpi)
    half = _measure_text_mm(words, size, dpi) / (2 * across)
    middle = (from_left + max(long / 2, half * width)) / width
    above = 1 - (low - 2 * thick) / height
    look = {**_WORDS, "transform": axes.transAxes, "fontsize": size}
    figures.write_text(axes, middle, above, words, ha="center", va="bottom", **look)
    return artist


def _draw_overlay(
    axes: "Axes", overlay: FigureOverlay, pixel: FloatPair
) -> "AxesImage":
    """Draw a map over an image, below its letter and scale bar; keep axis limits."""
    from matplotlib import colormaps

    y, x = pixel
    top, left, bottom, right = overlay.corners
    axes.autoscale(enable=False)
    artist = axes.imshow(
        np.ma.masked_invalid(overlay.values), vmin=overlay.limits[0],
        vmax=overlay.limits[1], extent=(left * x, right * x, bottom * y, top * y),
        aspect="auto", interpolation="nearest",
        cmap=colormaps.get_cmap(overlay.colours).with_extremes(bad=(0, 0, 0, 0)),
    )  # fmt: skip
    return artist
