"""What all pictures of a report share: the canvas, the scale bar, the PNG."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from napari_semsr.core import Acquisition

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


# Curves of a report, over spatial frequency and period.

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


# Images and maps of a report, with scale bars.

_EMPTY = "#c9d2dc"


def image_png(
    image: NDArray[Any],
    pixel_nm: tuple[float, float] | None,
    *,
    limits: tuple[float, float],
    width_px: int = 480,
) -> bytes:
    """Draw a grey image with a scale bar; NaN is a light blue-grey.

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
    from matplotlib import colormaps

    pitch = pixel_nm or (1.0, 1.0)
    height, width = image.shape[0] * pitch[0], image.shape[1] * pitch[1]
    figure = new_figure(width_px, max(24, round(width_px * height / width)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    smooth = image.shape[1] > width_px
    axes.imshow(
        np.ma.masked_invalid(image),
        cmap=colormaps["gray"].with_extremes(bad=_EMPTY),
        vmin=limits[0],
        vmax=limits[1],
        interpolation="antialiased" if smooth else "nearest",
        extent=(0, width, height, 0),
        aspect="auto",
    )
    draw_scale_bar(axes, width, height, "px" if pixel_nm is None else "nm")
    return to_png(figure)


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
    figure = new_figure(width_px, max(160, tall + 16))
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
    draw_scale_bar(axes, width, height, "px" if pixel_nm is None else "nm")
    return to_png(figure)


# Pictures of a scan: frames laid side by side, joints, errors of the positions.

_REJECTED, _AMBIGUOUS = "#e05d44", "#ff9f1c"
_BEFORE, _AFTER = "#c2572b", "#16836a"


@dataclass(frozen=True, slots=True)
class Joint:
    """A joint between two frames, for a picture.

    Attributes
    ----------
    ends : (2, 2) numpy.ndarray
        Centres ``(y, x)`` of both frames in px of the mosaic.
    quality : float
        Correlation on the overlap.
    used, ambiguous : bool
        Whether the positions rest on it, and whether another shift fits as well.
    """

    ends: FloatArray
    quality: float
    used: bool
    ambiguous: bool


def lay_frames(
    frames: "Acquisition",
    corners: FloatArray,
    lit: NDArray[np.bool_],
    shape: tuple[int, int],
) -> NDArray[np.float32]:
    """Lay raw frames on one another at whole pixels, the last one on top.

    Parameters
    ----------
    frames : Acquisition
        The frames.
    corners : (N, 2) numpy.ndarray
        Top-left corners ``(y, x)`` in px; NaN leaves a frame away.
    lit : (Y, X) numpy.ndarray of bool
        Part of a frame that shows the sample.
    shape : tuple of int
        Rows and columns of the picture.

    Returns
    -------
    (Y, X) numpy.ndarray of float32
        Raw counts; NaN where no frame lies.
    """
    found = np.full(shape, np.nan, np.float32)
    rows, columns = frames.frame_shape
    for index in np.flatnonzero(np.isfinite(corners).all(axis=1)):
        y, x = (int(v) for v in np.rint(corners[index]))
        top, left = max(0, -y), max(0, -x)
        bottom, right = min(rows, shape[0] - y), min(columns, shape[1] - x)
        if top >= bottom or left >= right:
            continue
        inner = (slice(top, bottom), slice(left, right))
        place = found[y + top : y + bottom, x + left : x + right]
        np.copyto(place, frames.read(int(index))[inner], where=lit[inner])
    return found


def joints_png(
    mosaic: NDArray[Any],
    joints: Sequence[Joint],
    pixel_nm: tuple[float, float] | None,
    *,
    limits: tuple[float, float],
    width_px: int = 720,
) -> bytes:
    """Draw a mosaic with its joints, coloured by how well both frames agree.

    Parameters
    ----------
    mosaic : (Y, X) numpy.ndarray
        Grey values.
    joints : sequence of Joint
        Lines from centre to centre.
    pixel_nm : tuple of float or None
        ``(y, x)``; the bar is in pixels without it.
    limits : tuple of float
        Grey values shown as black and white.
    width_px : int, default=720
        Width of the picture.

    Returns
    -------
    bytes
        A PNG.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    pitch = pixel_nm or (1.0, 1.0)
    height, width = (n * p for n, p in zip(mosaic.shape, pitch, strict=True))
    figure = new_figure(width_px, round(width_px * 0.86 * height / width))
    axes = figure.add_axes((0.0, 0.0, 0.86, 1.0))
    axes.set_axis_off()
    axes.imshow(
        np.ma.masked_invalid(mosaic), cmap="gray", vmin=limits[0], vmax=limits[1],
        extent=(0, width, height, 0), aspect="auto", alpha=0.45,
    )  # fmt: skip
    kept = [joint.quality for joint in joints if joint.used] or [0.0, 1.0]
    norm = Normalize(min(kept), max(*kept, min(kept) + 1e-3))
    colours = ScalarMappable(norm, "viridis")
    viridis = colours.get_cmap()
    for joint in sorted(joints, key=lambda item: item.used):
        colour: Any = _AMBIGUOUS if joint.ambiguous else viridis(norm(joint.quality))
        colour = colour if joint.used else _REJECTED
        y, x = ((joint.ends + 0.5) * pitch).T
        style = "-" if joint.used else ":"
        axes.plot(x, y, style, color=colour, linewidth=3 if joint.used else 1.5)
        axes.plot(x, y, "o", color="#1d2126", markersize=4)
    bar = figure.colorbar(colours, cax=figure.add_axes((0.88, 0.08, 0.025, 0.84)))
    bar.set_label("correlation on the overlap")
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    draw_scale_bar(axes, width, height, "px" if pixel_nm is None else "nm")
    return to_png(figure)


def errors_png(
    nominal_px: FloatArray, solved_px: FloatArray, *, width_px: int = 860
) -> bytes:
    """Draw how far frames lie from the truth, before and after, each on its own scale.

    Parameters
    ----------
    nominal_px, solved_px : (N, 2) numpy.ndarray
        Errors ``(y, x)`` in px; NaN is left away.
    width_px : int, default=860
        Width of the picture.

    Returns
    -------
    bytes
        A PNG.
    """
    figure = new_figure(width_px, round(width_px * 0.47))
    both = (
        ("nominal less true", nominal_px, _BEFORE),
        ("solved less true", solved_px, _AFTER),
    )
    for index, (title, errors, colour) in enumerate(both):
        axes = figure.add_axes((0.09 + 0.5 * index, 0.14, 0.39, 0.76))
        _draw_errors(axes, errors, colour)
        axes.set_title(title, fontsize=10.5)
    return to_png(figure)


def _draw_errors(axes: "Axes", errors: FloatArray, colour: str) -> None:
    """Draw one cloud of errors, y pointing down as in an image."""
    known = errors[np.isfinite(errors).all(axis=1)]
    reach = 1.15 * float(np.abs(known).max(initial=1e-6))
    axes.axhline(0, color="#9aa2ad", linewidth=0.8)
    axes.axvline(0, color="#9aa2ad", linewidth=0.8)
    axes.plot(known[:, 1], known[:, 0], "o", color=colour, markersize=5, alpha=0.8)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(reach, -reach)
    axes.set_aspect("equal")
    axes.set_xlabel("x (px)")
    axes.set_ylabel("y (px)")
    axes.grid(color="#e3e6ea", linewidth=0.8)
    axes.set_axisbelow(True)
