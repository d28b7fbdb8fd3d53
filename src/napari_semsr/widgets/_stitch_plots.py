"""Plots of a stitched scan: how joints disagree, and how the stage missed."""

from typing import TYPE_CHECKING

import numpy as np

from napari_semsr.services.stitch import StitchedFile
from napari_semsr.widgets._stitch_layers import aligned_nominal
from napari_semsr.widgets._text import SIGMA

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from napari_semsr.widgets.plots import PlotCanvas

__all__ = ["draw_residuals", "draw_stage", "draw_stitching"]

_JOINT, _LINE, _STAGE, _NONE = "#4ca3dd", "#f2a33a", "#59b368", "#d9655b"


def _empty(axes: "Axes", text: str) -> None:
    """Say in the plot that there is nothing to draw."""
    axes.text(0.5, 0.5, text, ha="center", color=_NONE, transform=axes.transAxes)
    axes.set_xticks([])
    axes.set_yticks([])


def draw_residuals(axes: "Axes", made: StitchedFile) -> None:
    """Draw the residual of each joint over what noise alone would leave.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    made : StitchedFile
        A stitched scan.
    """
    rows = [
        (pair.sigma_px, pair.residual_px, pair.used)
        for pair in made.solution.pairs
        if np.isfinite([pair.sigma_px, pair.residual_px]).all()
    ]
    if not rows:
        _empty(axes, "no joint was refined")
        return
    table = np.array(rows, dtype=float)
    sigma, residual = np.maximum(table[:, :2].T, 1e-4)
    used = table[:, 2] > 0
    axes.plot(
        sigma[used], residual[used], "o", ms=4, color=_JOINT, alpha=0.8, label="used"
    )
    if not used.all():
        axes.plot(
            sigma[~used], residual[~used], "x", ms=4, color=_NONE, label="not used"
        )
    ends = np.array([sigma.min() / 1.5, sigma.max() * 1.5])
    axes.plot(ends, 2 * ends, "--", lw=1, color=_LINE, label=f"2 {SIGMA} of noise")
    axes.set_xscale("log")
    axes.set_yscale("log")
    from matplotlib.ticker import FuncFormatter

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    axes.set_xlabel(f"{SIGMA} of the joint by noise (px)")
    axes.set_ylabel("Residual (px)")
    axes.legend(loc="best")


def draw_stage(axes: "Axes", made: StitchedFile) -> None:
    """Draw how far each frame lies from its nominal place.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    made : StitchedFile
        A stitched scan.
    """
    nominal = aligned_nominal(made)
    if nominal is None:
        _empty(axes, "no nominal positions")
        return
    missed = (made.solution.positions_px - nominal)[made.solution.placed]
    axes.plot(missed[:, 1], missed[:, 0], "o", ms=4, color=_STAGE, alpha=0.8)
    axes.axhline(0, lw=0.8, alpha=0.4, color=_LINE)
    axes.axvline(0, lw=0.8, alpha=0.4, color=_LINE)
    reach = 1.15 * float(np.nanmax(np.abs(missed))) or 1.0
    axes.set_xlim(-reach, reach)
    axes.set_ylim(reach, -reach)  # y points down, as in the image
    axes.set_aspect("equal")
    axes.set_xlabel("Solved less nominal, x (px)")
    axes.set_ylabel("y (px)")


def draw_stitching(canvas: "PlotCanvas", made: StitchedFile) -> None:
    """Draw both plots of a scan.

    Parameters
    ----------
    canvas : PlotCanvas
        With two axes.
    made : StitchedFile
        A stitched scan.
    """
    canvas.clear()
    draw_residuals(canvas.axes[0], made)
    draw_stage(canvas.axes[1], made)
    canvas.refresh()
