"""Metrics and histogram: one layer against another, in numbers and grey levels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from napari.viewer import Viewer

from napari_semsr.core import figures_of, run, spell_shape
from napari_semsr.jobs import HISTOGRAM, METRICS
from napari_semsr.widgets.measure.regions import (
    Cell,
    Region,
    box_of,
    cut_out,
    largest_part,
)
from napari_semsr.widgets.measure.verb_panel import TruthPanel, VerbOutcome


class MetricsPanel(TruthPanel):
    """Measures a layer, against a reference layer where there is one."""

    title = "Metrics"
    verbs = {"metrics": METRICS}  # noqa: RUF012
    beside = (HISTOGRAM,)
    help_place = "first-steps.md#3-measure-it"
    region_help = (
        "each of its regions gets a row. Grey levels are those of the whole region, "
        "all else is measured in the largest rectangle within."
    )

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer)
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
        figures = figures_of(run(METRICS.job(*parts, options=how)))
        row["rectangle"] = spell_shape(parts[0].shape)
        for label, figure in figures.items():
            if label != "Data range":
                row[f"{label} ({figure.unit})" if figure.unit else label] = figure.value
        return row
