"""Metrics and histogram: one layer against another, in numbers and grey levels."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from numpy.typing import NDArray

from napari_semsr.analysis import MetricsOptions
from napari_semsr.core import (
    Job,
    Micrograph,
    ShapeError,
    declared_figures,
    figures_of,
    run,
)
from napari_semsr.jobs import (
    HISTOGRAM,
    METRICS,
    HistogramOptions,
    HistogramReport,
    MetricsReport,
    cut_gaps,
)
from napari_semsr.widgets.base import (
    TIMES,
    Columns,
    Form,
    Numbers,
    OptionsForm,
    Panel,
    Work,
)
from napari_semsr.widgets.measure.regions import (
    Cell,
    Region,
    box_of,
    cut_out,
    largest_part,
    new_region_box,
    propose_truth,
    read_pair,
    read_regions,
    region_table,
    say_part,
    show_outline,
)

if TYPE_CHECKING:
    import napari.viewer


@dataclass(frozen=True, slots=True)
class GreyOutcome:
    """Figures and distributions of the same layers."""

    metrics: MetricsReport
    histogram: HistogramReport
    part: Micrograph | None  # of the image, where gaps were cut off
    regions: Mapping[str, Columns] = field(default_factory=dict)


def _compare(
    images: Sequence[Micrograph],
    options: MetricsOptions,
    bins: HistogramOptions,
    regions: Sequence[Region] = (),
) -> Job[GreyOutcome]:
    """Measure an image, against a reference where there is one, and in regions."""
    parts, box = yield from cut_gaps(*images)
    figures = yield from METRICS.job(*parts, options=options)
    levels = yield from HISTOGRAM.job(*parts, options=bins)
    # one range for all, so that the PSNR of regions can be compared
    alike = options.replace(data_range=figures.result.data_range)
    rows = yield from region_table(regions, partial(_compare_in, images, alike, bins))
    return GreyOutcome(figures, levels, parts[0] if box else None, rows)


def _compare_in(
    images: Sequence[Micrograph],
    options: MetricsOptions,
    bins: HistogramOptions,
    region: Region,
) -> Mapping[str, Cell]:
    """Measure in one region: grey levels of all of it, the rest in a rectangle."""
    box = box_of(region, images[0])
    within = [cut_out(region, image, box) for image in images]
    levels = run(HISTOGRAM.job(*within, options=bins)).result
    row: dict[str, Cell] = {
        "pixels": int(np.isfinite(within[0].array()).sum()),
        "mean (grey levels)": levels.mean,
        "SD (grey levels)": levels.sd,
    }
    if levels.emd is not None:
        row["distance (grey levels)"] = levels.emd
    parts = largest_part(region, *images)
    rows, columns = parts[0].shape
    figures = figures_of(run(METRICS.job(*parts, options=options)))
    row["rectangle"] = f"{rows} {TIMES} {columns} px"
    for label, figure in figures.items():
        if label != "Data range":
            row[f"{label} ({figure.unit})" if figure.unit else label] = figure.value
    return row


class MetricsPanel(Panel):
    """Measures a layer, against a reference layer where there is one."""

    plots = True
    help_place = "first-steps.md#3-measure-it"

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__(viewer, "Metrics", "Measure")
        self.image = self.new_layer_box("image", "Image", "The layer to measure.")
        self.reference = self.new_layer_box(
            "reference",
            "Reference",
            "The truth, of the same shape; without one only sharpness is measured.",
            none="none",
        )
        self.form = OptionsForm(MetricsOptions)
        self.bins = OptionsForm(HistogramOptions)
        self.regions = new_region_box(
            self,
            "each of its regions gets a row. Grey levels are those of the whole "
            "region, all else is measured in the largest rectangle within.",
        )
        which = Form(self.image, self.reference, self.regions)
        self.add_group("Layers", which, self.form, self.bins)
        self.add_results("Figures", helpers="Show what was measured")
        propose_truth(self, self.image, self.reference)
        self.take_input(self.image)

    def job(self) -> Work:
        """Read the form."""
        layer, reference = self.image.value, self.reference.value
        if layer is reference is not None:
            msg = (
                f"The reference is the layer {layer.name!r} itself; choose another, "
                "or 'none'."
            )
            raise ShapeError(msg)
        images = read_pair(self, layer, reference)
        make = partial(
            _compare,
            images,
            self.form.options(),
            self.bins.options(),
            read_regions(self, self.regions.value, layer),
        )
        return make, partial(self.show_outcome, layer)

    def show_outcome(self, layer: Image, outcome: GreyOutcome) -> Iterator[None]:
        """Write the figures, draw the distributions, outline what was measured."""
        yield from self._draw(outcome.histogram)
        part = outcome.part
        yield from show_outline(self, {layer: [part]} if part else {})
        said = f"Measured {' against '.join(outcome.metrics.images)}."
        curves = _curves(outcome.histogram)
        tables = outcome.regions
        figures: Numbers = {
            **figures_of(outcome.metrics),
            **declared_figures(outcome.histogram),
            **({"Measured": say_part(part)} if part else {}),
        }
        self.show_result(figures, said, curves=curves, tables=tables)

    def _draw(self, histogram: HistogramReport) -> Iterator[None]:
        """Draw shares of pixels over grey level as steps."""
        from napari_semsr.widgets.base import COLOURS, short_label, show_legend

        canvas = self.clear_plot()
        axes = canvas.axes[0]
        yield
        for (name, curve), colour in zip(
            _curves(histogram).items(), COLOURS, strict=False
        ):
            x, y = curve.values()
            axes.fill_between(x, y, step="mid", alpha=0.35, color=colour, lw=0)
            label = short_label(name)
            axes.step(x, y, where="mid", color=colour, lw=1, label=label)
        axes.set_xlabel("Grey level")
        axes.set_ylabel("Share of pixels")
        show_legend(axes)
        canvas.refresh()
        yield


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
