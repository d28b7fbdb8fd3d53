"""Pictures of a report, drawn as PNG: fields, maps, curves, joints and errors."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import Box, FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

    from napari_semsr.analysis import FrcResult
    from napari_semsr.core import Acquisition
    from napari_semsr.stitching import PairReport

_DPI = 100
_WIDE_PX, _MAP_PX = 720, 480
_BAR_SHARE = 0.28
_APART_PX = 43  # between two numbers of an upper axis; chosen
_EMPTY = "#c9d2dc"
CURVE_COLOURS = ("#1b1f24", "#874b0f", "#960fff", "#1e8778", "#a5a500")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), "-", "-.")
_REJECTED, _AMBIGUOUS = "#c00000", "#ff8fd8"  # which viridis has not, to any eye
_BOLD: Any = {
    "edge": 2.2, "ha": "center", "va": "bottom", "fontsize": 10.5, "fontweight": "bold",
}  # fmt: skip

AGAINST_TRUTH: Any = {"ylabel": "correlation", "threshold": ("√(1/7)", (1 / 7) ** 0.5)}
"""How `curves_png` draws correlations with an image that counts as free of noise."""

POWER: Any = {"ylabel": "power (grey levels² px²)", "log": True}
"""How it draws power spectra."""


@dataclass(frozen=True, slots=True)
class FrequencyCurve:
    """One line of a plot over spatial frequency."""

    label: str  # Name in the legend
    # (N,) Abscissa and ordinate
    frequency_per_px: NDArray[Any]
    value: NDArray[Any]
    # Period to mark on the curve, such as that of its crossing
    mark_px: float | None = None
    # Index of the colour, so that one thing has one colour in all plots
    colour: int = 0

    @classmethod
    def of(
        cls, label: str, found: "FrcResult", colour: int = 0, *, marked: bool = True
    ) -> Self:
        """Take the curve of a ring correlation, marked at its crossing."""
        at = found.resolution_px if marked else None
        return cls(label, found.frequency_per_px, found.correlation, at, colour)


def image_png(
    image: NDArray[Any],
    pixel_nm: tuple[float, float] | None,
    *,
    limits: tuple[float, float],
    width_px: int = 480,
) -> bytes:
    """Draw a grey image with a scale bar; NaN is a light blue-grey."""
    from matplotlib import colormaps

    height, width = _extent(image, pixel_nm)
    figure = _figure(width_px, max(24, round(width_px * height / width)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    smooth = image.shape[1] > width_px
    _show(
        axes,
        image,
        pixel_nm,
        limits,
        cmap=colormaps["gray"].with_extremes(bad=_EMPTY),
        interpolation="antialiased" if smooth else "nearest",
    )
    return _png(figure)


def overlay_png(
    first: NDArray[Any],
    second: NDArray[Any],
    pixel_nm: tuple[float, float] | None,
    *,
    boxes: Mapping[str, Box],
) -> bytes:
    """Draw two images over each other, in magenta and in green; NaN is black.

    What both show alike is grey; `boxes` are outlined and named.
    """
    from matplotlib.patches import Rectangle

    magenta, green = (
        np.nan_to_num(np.clip((image - low) / (high - low), 0, 1))
        for image, (low, high) in ((i, grey_limits(i)) for i in (first, second))
    )
    height, width = _extent(first, pixel_nm)
    figure = _figure(_WIDE_PX, max(24, round(_WIDE_PX * height / width)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    _show(axes, np.stack([magenta, green, magenta], axis=-1), pixel_nm, (0, 1))
    down, across = pixel_nm or (1.0, 1.0)
    for name, box in boxes.items():
        corner = box.x0 * across, box.y0 * down
        rows, columns = box.shape
        axes.add_patch(
            Rectangle(
                corner, columns * across, rows * down, fill=False, edgecolor="white",
                linewidth=2, linestyle=(0, (4, 2)),
            )
        )  # fmt: skip
        middle = corner[0] + columns * across / 2
        write_over(axes, middle, corner[1] + 0.06 * height, name, **_BOLD)
    return _png(figure)


def map_png(
    values: NDArray[Any],
    pixel_nm: tuple[float, float] | None,
    *,
    limits: tuple[float, float],
    label: str,
    finer: NDArray[np.bool_],
) -> bytes:
    """Draw a map with a colour bar and a scale bar; NaN is hatched grey.

    Where it is `finer` than the pixels can tell, it is white.
    """
    height, width = _extent(values, pixel_nm)
    tall = round(_MAP_PX * 0.78 * height / width)
    figure = _figure(_MAP_PX, max(160, tall + 16))
    axes = figure.add_axes((0.01, 0.03, 0.76, 0.94), xticks=[], yticks=[])
    axes.patch.set(facecolor="#b9bdc3", hatch="////", edgecolor="#8d939b")
    drawn = _show(
        axes, values, pixel_nm, limits, cmap="viridis_r", interpolation="nearest"
    )
    if finer.any():
        white = np.ma.masked_where(~finer, np.ones(finer.shape))
        axes.imshow(
            white, vmin=0, vmax=1, extent=drawn.get_extent(), aspect="auto",
            cmap="gray", interpolation="nearest",
        )  # fmt: skip
    bar = figure.colorbar(drawn, cax=figure.add_axes((0.80, 0.05, 0.035, 0.90)))
    bar.set_label(label)
    return _png(figure)


def curves_png(
    curves: Sequence[FrequencyCurve],
    pixel_nm: float | None,
    *,
    ylabel: str,
    log: bool = False,
    threshold: tuple[str, float] | None = None,
    size_px: tuple[int, int] = (860, 440),
) -> bytes:
    """Plot curves over spatial frequency, with the period on the upper axis.

    Marks lie on the threshold, a named horizontal line, where there is one.
    """
    factor = 1.0 if pixel_nm is None else 1000.0 / pixel_nm
    figure = _figure(*size_px)
    left, low = 82 / size_px[0], 64 / size_px[1]
    axes = figure.add_axes((left, low, 0.98 - left, 0.865 - low))
    for curve in curves:
        index = curve.colour % len(CURVE_COLOURS)
        x = np.asarray(curve.frequency_per_px, dtype=float) * factor
        y = np.asarray(curve.value, dtype=float)
        look = {"color": CURVE_COLOURS[index], "linestyle": _DASHES[index]}
        axes.plot(x, y, linewidth=1.7, label=curve.label, **look)
        if curve.mark_px is not None:
            at = 1 / curve.mark_px * factor
            level = threshold[1] if threshold else np.interp(at, x, y)
            colour = CURVE_COLOURS[index]
            axes.plot([at], [level], "o", color=colour, markersize=7, alpha=0.85)
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
    axes.set_xlabel(f"spatial frequency ({'µm⁻¹' if pixel_nm else '1/px'})")
    axes.set_ylabel(ylabel)
    _grid(axes)
    _legend(axes, loc="upper right")
    _period_axis(axes, pixel_nm, apart=_APART_PX / size_px[0])
    return _png(figure)


def lines_png(
    curves: Mapping[str, tuple[NDArray[Any], NDArray[Any]]],
    *,
    xlabel: str,
    ylabel: str,
    filled: bool = False,
    size_px: tuple[int, int] = (860, 440),
) -> bytes:
    """Plot curves over anything, such as a profile; one alone has no legend."""
    figure = _figure(*size_px)
    left, low = 78 / size_px[0], 58 / size_px[1]
    axes = figure.add_axes((left, low, 1 - left - 0.025, 1 - low - 0.05))
    for index, (name, (x, y)) in enumerate(curves.items()):
        colour = CURVE_COLOURS[index % len(CURVE_COLOURS)]
        dash = _DASHES[index % len(_DASHES)]
        if filled:
            axes.fill_between(x, y, step="mid", alpha=0.3, color=colour, linewidth=0)
        axes.plot(
            x, y, color=colour, linestyle=dash, linewidth=1.5, label=name,
            drawstyle="steps-mid" if filled else "default",
        )  # fmt: skip
    if filled:
        axes.set_ylim(bottom=0)
    axes.margins(x=0)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    _grid(axes)
    if len(curves) > 1:
        _legend(axes)
    return _png(figure)


def _period_axis(axes: "Axes", pixel_nm: float | None, *, apart: float) -> None:
    """Put the period on the upper axis, at round numbers that stay apart."""
    finest, scale = (2.0, 1.0) if pixel_nm is None else (2.0 * pixel_nm, 1000.0)
    chosen: list[float] = []
    for ratio in (1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 25.0):
        unit = 10.0 ** (math.floor(math.log10(finest * ratio)) - 1)  # of two digits
        period = round(math.ceil(finest * ratio / unit - 1e-9) * unit, 12)
        if all(abs(finest / period - finest / other) > apart for other in chosen):
            chosen.append(period)
    top = axes.secondary_xaxis("top")
    top.set_xticks([scale / period for period in chosen])
    top.set_xticklabels([f"{period:g}" for period in chosen])
    top.set_xlabel("period (nm)" if pixel_nm else "period (px)")


def lay_frames(
    frames: "Acquisition",
    corners: FloatArray,
    lit: NDArray[np.bool_],
    shape: tuple[int, int],
) -> NDArray[np.float32]:
    """Lay raw frames on one another at whole pixels, the last one on top.

    `corners` are the top-left ones in px, (N, 2); NaN leaves a frame away. `lit` is the
    part of a frame that shows the sample.
    """
    laid = np.full(shape, np.nan, np.float32)
    seen = np.argwhere(lit)
    for index in np.flatnonzero(np.isfinite(corners).all(axis=1)):
        places = seen + np.rint(corners[index]).astype(int)
        inside = ((places >= 0) & (places < shape)).all(axis=1)
        grey = frames.read(int(index))[tuple(seen[inside].T)]
        laid[tuple(places[inside].T)] = grey
    return laid


def joints_png(
    mosaic: NDArray[Any],
    centres_px: FloatArray,
    joints: "Sequence[PairReport]",
    pixel_nm: tuple[float, float] | None,
) -> bytes:
    """Draw a mosaic with its joints, coloured by how well both frames agree."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    height, width = _extent(mosaic, pixel_nm)
    figure = _figure(_WIDE_PX, round(_WIDE_PX * 0.86 * height / width))
    axes = figure.add_axes((0.0, 0.0, 0.86, 1.0))
    axes.set_axis_off()
    _show(axes, mosaic, pixel_nm, grey_limits(mosaic), cmap="gray", alpha=0.45)
    kept = [joint.quality for joint in joints if joint.used] or [0.0, 1.0]
    norm = Normalize(min(kept), max(*kept, min(kept) + 1e-3))
    colours = ScalarMappable(norm, "viridis")
    for joint in sorted(joints, key=lambda item: item.used):
        colour: Any = colours.to_rgba(joint.quality)  # type: ignore[arg-type]
        if not joint.used or joint.ambiguous:
            colour = _AMBIGUOUS if joint.used else _REJECTED
        ends = centres_px[[joint.first, joint.second]]
        y, x = ((ends + 0.5) * (pixel_nm or 1.0)).T
        style, thick = ("-", 3.0) if joint.used else (":", 1.5)
        axes.plot(x, y, style, color=colour, linewidth=thick)
        axes.plot(x, y, "o", color="#1d2126", markersize=4)
    bar = figure.colorbar(colours, cax=figure.add_axes((0.88, 0.08, 0.025, 0.84)))
    bar.set_label("correlation on the overlap")
    axes.set(xlim=(0, width), ylim=(height, 0))
    return _png(figure)


def errors_png(nominal_px: FloatArray, solved_px: FloatArray) -> bytes:
    """Draw how far frames lie from the truth, before and after, each on its scale."""
    figure = _figure(860, 404)
    both = (
        (0.09, "nominal less true", nominal_px, CURVE_COLOURS[1]),
        (0.59, "solved less true", solved_px, CURVE_COLOURS[3]),
    )
    for left, title, errors, colour in both:
        axes = figure.add_axes((left, 0.14, 0.39, 0.76))
        known = errors[np.isfinite(errors).all(axis=1)]
        reach = 1.15 * float(np.abs(known).max(initial=1e-6))
        axes.axhline(0, color="#9aa2ad", linewidth=0.8)
        axes.axvline(0, color="#9aa2ad", linewidth=0.8)
        axes.plot(known[:, 1], known[:, 0], "o", color=colour, markersize=5, alpha=0.8)
        # y points down, as in an image
        axes.set(xlim=(-reach, reach), ylim=(reach, -reach), aspect="equal")
        axes.set(xlabel="x (px)", ylabel="y (px)")
        axes.set_title(title, fontsize=10.5)
        _grid(axes)
    return _png(figure)


def grey_limits(image: NDArray[Any]) -> tuple[float, float]:
    """Choose the grey values shown as black and white: 0.5 and 99.5 percentiles."""
    low, high = (float(v) for v in np.nanpercentile(image, (0.5, 99.5)))
    return low, max(high, low + 1e-6)


def bar_length(extent: float) -> float:
    """Choose the largest of 1, 2, 5 times a power of ten below 28 % of a width."""
    limit = extent * _BAR_SHARE
    power = 10.0 ** math.floor(math.log10(limit))
    return max(step * power for step in (1, 2, 5) if step * power <= limit)


def bar_words(length: float, *, calibrated: bool) -> str:
    """Say the length of a bar, which is in nm where it is calibrated, else in px."""
    if not calibrated:
        return f"{length:g} px"
    for unit, nm in (("mm", 1e6), ("µm", 1e3)):
        if length >= nm:
            return f"{length / nm:g} {unit}"
    return f"{length:g} nm"


def _extent(
    image: NDArray[Any], pixel_nm: tuple[float, float] | None
) -> tuple[float, float]:
    """Height and width of an image in nm, or in px without a pixel size."""
    y, x = pixel_nm or (1.0, 1.0)
    return image.shape[0] * y, image.shape[1] * x


def _figure(width_px: int, height_px: int) -> "Figure":
    """Make an empty white figure that no window and no global state knows."""
    from matplotlib.figure import Figure

    size = (width_px / _DPI, height_px / _DPI)
    return Figure(figsize=size, dpi=_DPI, facecolor="white")


def _show(
    axes: "Axes",
    image: NDArray[Any],
    pixel_nm: tuple[float, float] | None,
    limits: tuple[float, float],
    **look: Any,
) -> "AxesImage":
    """Draw an image, and a white scale bar with a dark edge in its lower left."""
    from matplotlib.patches import Rectangle

    height, width = _extent(image, pixel_nm)
    drawn = axes.imshow(
        np.ma.masked_invalid(image), vmin=limits[0], vmax=limits[1],
        extent=(0, width, height, 0), aspect="auto", **look,
    )  # fmt: skip
    long = bar_length(width)
    words = bar_words(long, calibrated=pixel_nm is not None)
    left, thick = width * 0.035, min(height * 0.02, width * 0.015)
    low = height * 0.95
    axes.add_patch(
        Rectangle(
            (left, low - thick), long, thick, facecolor="white", edgecolor="black",
            linewidth=0.8,
        )
    )  # fmt: skip
    write_over(axes, left + long / 2, low - 1.6 * thick, words, **_BOLD)
    return drawn


def write_over(
    axes: "Axes", x: float, y: float, words: str, *, edge: float, **look: Any
) -> None:
    """Write over an image, in white with a dark edge."""
    from matplotlib.patheffects import withStroke

    effects = [withStroke(linewidth=edge, foreground="black")]
    axes.text(x, y, words, color="white", path_effects=effects, **look)


def _legend(axes: "Axes", **look: Any) -> None:
    """Name the curves, by names of images too: a dollar sign in one is no formula."""
    for text in axes.legend(frameon=False, fontsize=9.5, **look).get_texts():
        text.set_parse_math(False)


def _grid(axes: "Axes") -> None:
    """Draw faint lines behind the curves."""
    axes.grid(color="#e3e6ea", linewidth=0.8)
    axes.set_axisbelow(True)


def _png(figure: "Figure") -> bytes:
    """Draw a figure as PNG."""
    return draw_file(figure, "png", _DPI, {})


def draw_file(figure: "Figure", kind: str, dpi: int, told: Mapping[str, Any]) -> bytes:
    """Draw a figure as one of the formats, without the time: equal ones are equal."""
    stream = io.BytesIO()
    if kind == "pdf":
        from matplotlib.backends.backend_pdf import FigureCanvasPdf

        metadata = {**told, "CreationDate": None}
        FigureCanvasPdf(figure).print_pdf(stream, metadata=metadata)
        return stream.getvalue()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[..., :3]
    picture = Image.fromarray(drawn)
    if kind == "png" and (drawn == drawn[..., :1]).all():
        picture = picture.getchannel(0)  # a third of the size
    settings: dict[str, Any] = {"dpi": (dpi, dpi)}
    if kind == "tif":
        settings["compression"] = "tiff_deflate"
    picture.save(stream, "TIFF" if kind == "tif" else "PNG", **settings)
    return stream.getvalue()
