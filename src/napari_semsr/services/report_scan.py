"""Pictures of a scan: frames laid side by side, joints, errors of the positions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.services.report_canvas import draw_scale_bar, new_figure, to_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from napari_semsr.core.acquisition import Acquisition

__all__ = ["Joint", "errors_png", "joints_png", "lay_frames"]

FloatArray = NDArray[np.float64]
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
