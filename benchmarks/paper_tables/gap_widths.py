"""Histograms of gap widths with a Gaussian, as in de Haan's figure 3, by method."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _shared import picture

from napari_semsr.analysis.gaps import WidthFit, compute_width_histogram

BIN_NM, LAST_NM = 2.0, 80.0  # de Haan's bins are not told: these are chosen
EDGES_NM = np.arange(0, LAST_NM + BIN_NM / 2, BIN_NM)


def width_row(widths_nm: Sequence[float]) -> dict[str, Any]:
    """Give histogram and Gaussian of one image's gaps."""
    found = compute_width_histogram(widths_nm, EDGES_NM)
    return {
        "seen": len(widths_nm),
        "width_counts": list(found.counts),
        "gaussian": None if found.fit is None else _recorded(found.fit),
    }


def _recorded(fit: WidthFit) -> dict[str, float]:
    return {
        "mean_nm": fit.mean,
        "error_nm": fit.error,
        "sigma_nm": fit.sigma,
        "height": fit.height,
    }


def draw_widths(path: Path, rows: dict[str, dict[str, Any]]) -> None:
    """Draw a histogram for each method, over the truth's."""
    names = [name for name in rows if name != "truth"]
    columns = min(4, len(names))
    lines = -(-len(names) // columns)
    with picture(
        path,
        lines,
        columns,
        figsize=(2.7 * columns, 2.2 * lines),
        sharey=True,
        squeeze=False,
    ) as (figure, axes):
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
                told = (
                    fit[key] for key in ("mean_nm", "error_nm", "sigma_nm", "height")
                )
                axis.plot(fine, WidthFit(*told).evaluate(fine), "k", lw=0.8)
                title += f"\n{fit['mean_nm']:.1f} ± {fit['error_nm']:.1f} nm"
            axis.set_title(title, fontsize=8)
        for axis in axes[:, 0]:
            axis.set_ylabel("gaps", fontsize=8)
        figure.supxlabel("width of the gap, nm", fontsize=8)
