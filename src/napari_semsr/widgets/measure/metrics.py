"""Metrics and histogram: compare a layer with another, in numbers and grey levels."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from napari.layers import Layer

from napari_semsr.analysis import Histogram, measure_histogram
from napari_semsr.core import figures_of, format_shape, quantities_of, run
from napari_semsr.jobs import METRICS
from napari_semsr.widgets.layers import inputs_of, is_truth
from napari_semsr.widgets.measure.regions import (
    Cell,
    Region,
    box_of,
    cut_out,
    largest_part,
)
from napari_semsr.widgets.measure.verb_panel import TruthPanel, VerbOutcome

_ELSEWHERE = frozenset(
    {
        "Data range",
        *(quantity.label for quantity, _ in quantities_of(Histogram).values()),
    }
)  # figures of the whole region, or of all regions


class MetricsPanel(TruthPanel):
    """Measures a layer, compared with a reference layer if one is chosen."""

    title = "Metrics"
    verb = METRICS
    help_place = "first-steps.md#3-measure-it"
    region_help = (
        "each of its regions gets a row. Grey levels are those of the whole region; "
        "all other figures are measured in the largest rectangle inside it."
    )

    @staticmethod
    def rank(image: Layer, other: Layer) -> int:
        """Rank a layer as reference: the source of an image, if there is no better."""
        made_of = not is_truth(image) and other.name in inputs_of(image)
        return TruthPanel.rank(image, other) or int(made_of)

    def in_region(
        self, outcome: VerbOutcome, options: Any, region: Region
    ) -> Mapping[str, Cell]:
        """Measure in one region: grey levels in all of it, the rest in a rectangle."""
        # one range for all regions, so that their PSNR can be compared
        how = options.replace(data_range=outcome.report.result.data_range)
        box = box_of(region, outcome.images[0])
        within = [cut_out(region, image, box) for image in outcome.images]
        levels = measure_histogram(*within, bins=how.bins)
        row: dict[str, Cell] = {
            "pixels": int(np.isfinite(within[0].array()).sum()),
            "mean (grey levels)": levels.mean,
            "SD (grey levels)": levels.sd,
        }
        if levels.emd is not None:
            row["distance (grey levels)"] = levels.emd
        parts = largest_part(region, *outcome.images)
        figures = figures_of(run(METRICS.job(*parts, options=how)))
        row["rectangle"] = format_shape(parts[0].shape)
        for label, figure in figures.items():
            if label not in _ELSEWHERE:
                row[f"{label} ({figure.unit})" if figure.unit else label] = figure.value
        return row
