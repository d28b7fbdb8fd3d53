"""Curves of a training."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from napari_semsr.widgets.plots import PlotCanvas

__all__ = ["draw_training"]

_LOSS, _GAIN, _BEST = "#4ca3dd", "#59b368", "#f2a33a"
_SMOOTH_SHARE = 25


def draw_training(
    canvas: "PlotCanvas", losses: NDArray[np.float64], curve: dict[str, np.ndarray]
) -> None:
    """Draw the loss, and the gain on held-out fields.

    Parameters
    ----------
    canvas : PlotCanvas
        With two axes.
    losses : (K, 2) numpy.ndarray
        Step and loss, as told while it ran.
    curve : dict
        Columns of the run's ``curve.csv``.
    """
    canvas.clear()
    above, below = canvas.axes[:2]
    _draw_loss(above, losses, curve)
    _draw_gain(below, curve)
    last = max(
        [axes.get_xlim()[1] for axes in (above, below) if axes.has_data()] or [1.0]
    )
    for axes in (above, below):
        axes.set_xlim(0, last)
        axes.grid(visible=True, alpha=0.15)
    below.set_xlabel("Step")
    canvas.refresh()


def _draw_loss(
    axes: "Axes", losses: NDArray[np.float64], curve: dict[str, np.ndarray]
) -> None:
    """Draw every loss that was told, pale, and its running mean.

    Before the first of them, in a run that was resumed, those of the validations.
    """
    axes.set_ylabel("Loss")
    begun = np.inf
    if len(losses):
        step, loss = losses.T
        begun = step[0]
        axes.plot(step, loss, color=_LOSS, lw=0.8, alpha=0.35)
        width = max(1, len(loss) // _SMOOTH_SHARE)
        mean = np.convolve(loss, np.ones(width) / width, mode="valid")
        axes.plot(step[width - 1 :], mean, color=_LOSS, lw=1.5)
    if "loss" in curve:
        early = curve["step"] < begun
        axes.plot(curve["step"][early], curve["loss"][early], "o", color=_LOSS, ms=3.5)


def _draw_gain(axes: "Axes", curve: dict[str, np.ndarray]) -> None:
    """Draw the gain at each validation, and mark the best."""
    axes.set_ylabel("Held-out gain (dB)")
    gain = curve.get("gain_db", np.zeros(0))
    if not np.isfinite(gain).any():
        said = "no truth to judge by" if curve else "not yet judged"
        axes.text(0.5, 0.5, said, ha="center", color=_BEST, transform=axes.transAxes)
        axes.set_yticks([])
        return
    best = int(np.nanargmax(gain))
    axes.plot(curve["step"], gain, "o-", color=_GAIN, lw=1.5, ms=3.5)
    axes.plot(curve["step"][best], gain[best], "o", color=_BEST, ms=7, label="best")
    axes.axhline(0, color="#8d99ae", lw=1, ls="--", label="degraded")
    axes.legend(loc="lower right")
