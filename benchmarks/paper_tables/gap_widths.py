"""Histograms of gap widths with a Gaussian, as in de Haan's figure 3."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

__all__ = ["EDGES_NM", "draw_widths", "fit_gaussian", "width_row"]

BIN_NM, LAST_NM = 2.0, 80.0  # de Haan's bins are not told: these are chosen
EDGES_NM = np.arange(0, LAST_NM + BIN_NM / 2, BIN_NM)
_LEAST = 8  # gaps: fewer make no histogram of three numbers


def fit_gaussian(widths_nm: Sequence[float]) -> dict[str, float] | None:
    """Fit a Gaussian to the histogram of widths below 80 nm, by plain least squares.

    The error is that of the fit, from what it leaves of the histogram: widths have a
    long tail, which no Gaussian has.

    Parameters
    ----------
    widths_nm : sequence of float
        Widths.

    Returns
    -------
    dict or None
        ``mean_nm`` and its standard error ``error_nm``, ``sigma_nm``, ``height`` in
        gaps per bin; None where there are too few, or no Gaussian fits.
    """
    counts, _ = np.histogram(widths_nm, EDGES_NM)
    if counts.sum() < _LEAST:
        return None
    at = (EDGES_NM[:-1] + EDGES_NM[1:]) / 2
    kept = np.asarray([w for w in widths_nm if w < LAST_NM])
    start = [counts.max(), np.median(kept), max(float(kept.std()), BIN_NM)]
    try:
        best, spread = optimize.curve_fit(_gaussian, at, counts, start)
    except RuntimeError:  # no convergence
        return None
    height, mean, sigma = (float(v) for v in best)
    error = float(np.sqrt(spread[1, 1]))
    if not (np.isfinite(error) and 0 <= mean <= LAST_NM):
        return None
    return {
        "mean_nm": mean,
        "error_nm": error,
        "sigma_nm": abs(sigma),
        "height": height,
    }


def _gaussian(
    x: NDArray[np.float64], height: float, mean: float, sigma: float
) -> NDArray[np.float64]:
    return np.asarray(height * np.exp(-0.5 * ((x - mean) / sigma) ** 2))


def width_row(widths_nm: Sequence[float]) -> dict[str, Any]:
    """Give histogram and Gaussian of one image's gaps.

    Parameters
    ----------
    widths_nm : sequence of float
        Widths of the gaps that it shows.
    """
    counts, _ = np.histogram(widths_nm, EDGES_NM)
    return {
        "seen": len(widths_nm),
        "width_counts": counts.tolist(),
        "gaussian": fit_gaussian(widths_nm),
    }


def draw_widths(path: Path, rows: dict[str, dict[str, Any]]) -> None:
    """Draw a histogram for each method, over the truth's.

    Parameters
    ----------
    path : pathlib.Path
        PNG file.
    rows : dict
        By method, the truth's among them: as `width_row`, with ``undetected``, the
        number of gaps that are not shown.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = [name for name in rows if name != "truth"]
    columns = min(4, len(names))
    lines = -(-len(names) // columns)
    figure, axes = plt.subplots(
        lines,
        columns,
        figsize=(2.7 * columns, 2.2 * lines),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    fine = np.linspace(0, LAST_NM, 200)
    for axis in axes.ravel()[len(names) :]:
        axis.set_visible(False)
    for axis, name in zip(axes.ravel(), names, strict=False):
        row = rows[name]
        truth = rows["truth"]["width_counts"]
        axis.stairs(truth, EDGES_NM, color="0.8", fill=True, label="truth")
        axis.stairs(row["width_counts"], EDGES_NM, color="tab:blue")
        axis.bar(-4, row.get("undetected", 0), 4, color="tab:red")
        fit = row["gaussian"]
        title = name
        if fit:
            shape = _gaussian(fine, fit["height"], fit["mean_nm"], fit["sigma_nm"])
            axis.plot(fine, shape, "k", lw=0.8)
            title += f"\n{fit['mean_nm']:.1f} ± {fit['error_nm']:.1f} nm"
        axis.set_title(title, fontsize=8)
    for axis in axes[:, 0]:
        axis.set_ylabel("gaps", fontsize=8)
    figure.supxlabel("width of the gap, nm", fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
