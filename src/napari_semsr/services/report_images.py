"""Images and maps of a report, with scale bars."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.services.report_canvas import draw_scale_bar, new_figure, to_png

__all__ = ["image_png", "map_png"]

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
