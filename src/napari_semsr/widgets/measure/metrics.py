"""Metrics and histogram: one layer against another, in numbers and grey levels."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import figures_of, run
from napari_semsr.jobs import HISTOGRAM, METRICS, HistogramReport
from napari_semsr.widgets.base import TIMES, Columns
from napari_semsr.widgets.measure.regions import (
    Cell,
    Region,
    box_of,
    cut_out,
    largest_part,
)
from napari_semsr.widgets.measure.verb_panel import TruthPanel, VerbOutcome

if TYPE_CHECKING:
    import napari.viewer


class MetricsPanel(TruthPanel):
    """Measures a layer, against a reference layer where there is one."""

    verbs = {"metrics": METRICS}  # noqa: RUF012
    beside = (HISTOGRAM,)
    plots = True
    help_place = "first-steps.md#3-measure-it"
    region_help = (
        "each of its regions gets a row. Grey levels are those of the whole region, "
        "all else is measured in the largest rectangle within."
    )

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__(viewer, "Metrics", "Measure")
        (self.bins,) = self.beside_forms

    def in_region(
        self, found: VerbOutcome, options: Sequence[Any], region: Region
    ) -> Mapping[str, Cell]:
        """Measure in one region: grey levels of all of it, the rest in a rectangle."""
        how, bins = options
        # one range for all, so that the PSNR of regions can be compared
        how = how.replace(data_range=found.reports[0].result.data_range)
        box = box_of(region, found.images[0])
        within = [cut_out(region, image, box) for image in found.images]
        levels = run(HISTOGRAM.job(*within, options=bins)).result
        row: dict[str, Cell] = {
            "pixels": int(np.isfinite(within[0].array()).sum()),
            "mean (grey levels)": levels.mean,
            "SD (grey levels)": levels.sd,
        }
        if levels.emd is not None:
            row["distance (grey levels)"] = levels.emd
        parts = largest_part(region, *found.images)
        rows, columns = parts[0].shape
        figures = figures_of(run(METRICS.job(*parts, options=how)))
        row["rectangle"] = f"{rows} {TIMES} {columns} px"
        for label, figure in figures.items():
            if label != "Data range":
                row[f"{label} ({figure.unit})" if figure.unit else label] = figure.value
        return row

    def draw(self, reports: Sequence[Any]) -> Mapping[str, Columns]:
        """Draw shares of pixels over grey level as steps."""
        from napari_semsr.widgets.base import COLOURS, short_label, show_legend

        canvas, curves = self.clear_plot(), _curves(reports[1])
        axes = canvas.axes[0]
        for (name, curve), colour in zip(curves.items(), COLOURS, strict=False):
            x, y = curve.values()
            axes.fill_between(x, y, step="mid", alpha=0.35, color=colour, lw=0)
            label = short_label(name)
            axes.step(x, y, where="mid", color=colour, lw=1, label=label)
        axes.set_xlabel("Grey level")
        axes.set_ylabel("Share of pixels")
        show_legend(axes)
        canvas.refresh()
        return curves


def _curves(histogram: HistogramReport) -> Mapping[str, dict[str, NDArray[Any]]]:
    """Shares of pixels over the middle of each bin."""
    found = histogram.result
    edges = np.asarray(found.bins, dtype=float)
    middle = (edges[:-1] + edges[1:]) / 2
    counts = (found.counts, found.reference_counts)
    return {
        name: {
            "grey level": middle,
            "share of pixels": np.asarray(count) / max(1, int(np.sum(count))),
        }
        for name, count in zip(histogram.images, counts, strict=False)
        if count is not None
    }
