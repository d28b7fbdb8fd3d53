"""Metrics and histogram: compare the values and grey levels of two layers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from napari_semsr.analysis import Histogram, measure_histogram
from napari_semsr.core import format_shape, get_figures, get_quantities, run
from napari_semsr.jobs import METRICS
from napari_semsr.widgets.base import JobResult
from napari_semsr.widgets.measure import regions
from napari_semsr.widgets.measure.panel import GroundTruthPanel

_ELSEWHERE = frozenset(
    {
        "Data range",
        *(quantity.label for quantity, _ in get_quantities(Histogram).values()),
    }
)  # figures of the whole region, or of all regions


class MetricsPanel(GroundTruthPanel):
    """Panel that measures a layer, optionally compared with a reference layer."""

    title = "Metrics"
    verb = METRICS
    help_place = "first-steps.md#3-measure-it"
    region_help = (
        "each of its regions gets a row. Grey levels are those of the whole region; "
        "all other figures are measured in the largest rectangle inside it."
    )

    def measure_region(
        self, outcome: JobResult, options: Any, region: regions.Region
    ) -> Mapping[str, regions.Cell]:
        """Measure grey levels in the whole region, the rest in its inner rectangle."""
        # one range for all regions, so that their PSNR can be compared
        how = options.replace(data_range=outcome.report.result.data_range)
        box = regions.get_region_box(region, outcome.images[0])
        within = [
            regions.crop_to_region(region, image, box) for image in outcome.images
        ]
        levels = measure_histogram(*within, bins=how.bins)
        row: dict[str, regions.Cell] = {
            "pixels": int(np.isfinite(within[0].array()).sum()),
            "mean (grey levels)": levels.mean,
            "SD (grey levels)": levels.sd,
        }
        if levels.emd is not None:
            row["distance (grey levels)"] = levels.emd
        parts = regions.crop_to_inner_rectangle(region, *outcome.images)
        figures = get_figures(run(METRICS.job(*parts, options=how)))
        row["rectangle"] = format_shape(parts[0].shape)
        for label, figure in figures.items():
            if label not in _ELSEWHERE:
                row[f"{label} ({figure.unit})" if figure.unit else label] = figure.value
        return row
