"""Metrics and histogram: one layer against another, in numbers and grey levels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_semsr.analysis import MetricsOptions
from napari_semsr.core import Job, Micrograph, ShapeError
from napari_semsr.jobs import (
    HistogramOptions,
    HistogramReport,
    MetricsReport,
    histogram_job,
    metrics_job,
)
from napari_semsr.widgets.base import Form, OptionsForm, Panel, Row, Work, table

if TYPE_CHECKING:
    import napari.viewer

_ROWS = {
    "match": Row(
        "Grey levels",
        "Compare them as they are, or after the best gain and offset.",
        {"as they are": None, "fit gain and offset": "affine"},
    ),
    "data_range": Row(
        "Data range (grey levels)",
        "Span of PSNR and SSIM; automatic: 255, 65535 or the reference's own.",
    ),
}
_BINS = {"bins": Row("Histogram bins", "Number of grey-level bins.")}
_NAMES = {
    "psnr_db": ("PSNR", "{:.2f} dB"),
    "ssim": ("SSIM", "{:.4f}"),
    "nrmse": ("NRMSE", "{:.4f}"),
    "average_gradient": ("Average gradient", "{:.3f}"),
    "contrast": ("Contrast", "{:.2f}"),
    "spatial_frequency": ("Spatial frequency", "{:.3f}"),
    "data_range": ("Data range", "{:g}"),
}


@dataclass(frozen=True, slots=True)
class GreyOutcome:
    """Figures and distributions of the same layers."""

    metrics: MetricsReport
    histogram: HistogramReport


def _compare(
    image: Micrograph,
    reference: Micrograph | None,
    *,
    options: MetricsOptions,
    bins: HistogramOptions,
) -> Job[GreyOutcome]:
    """Measure an image, against a reference where there is one."""
    figures = yield from metrics_job(image, reference, options=options)
    levels = yield from histogram_job(image, reference, options=bins)
    return GreyOutcome(figures, levels)


class MetricsPanel(Panel):
    """Measures a layer, against a reference layer where there is one."""

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__(viewer, "Metrics", "Measure")
        self.image = self.new_layer_box("image", "Image", "The layer to measure.")
        self.reference = self.new_layer_box(
            "reference",
            "Reference",
            "The truth, of the same shape; without one only sharpness is measured.",
            none="none",
        )
        self.form = OptionsForm(MetricsOptions, _ROWS)
        self.bins = OptionsForm(HistogramOptions, _BINS)
        which = Form(self.image, self.reference)
        self.add_group("Layers", which, self.form, self.bins)
        self.add_results("Figures")

    def job(self) -> Work:
        """Read the form."""
        image = self.micrograph(self.image.value)
        reference = None
        if self.reference.value is not None:
            reference = self.micrograph(self.reference.value)
            if reference.shape != image.shape:
                msg = (
                    f"The reference must have the image's shape {image.shape}, got "
                    f"{reference.shape}; bring them onto one grid in the panel Crop."
                )
                raise ShapeError(msg)
        options, bins = self.form.options(), self.bins.options()
        return (
            lambda: _compare(image, reference, options=options, bins=bins),
            self.show_outcome,
        )

    def show_outcome(self, outcome: GreyOutcome) -> None:
        """Write the figures and draw the distributions."""
        self._draw(outcome.histogram)
        said = f"Measured {' against '.join(outcome.metrics.images)}."
        self.show_result(table(_figures(outcome)), said)

    def _draw(self, histogram: HistogramReport) -> None:
        """Draw shares of pixels over grey level as steps."""
        from napari_semsr.widgets.base import COLOURS, short_label

        found, canvas = histogram.result, self.clear_plot()
        edges, axes = np.asarray(found.bins, dtype=float), canvas.axes[0]
        x = (edges[:-1] + edges[1:]) / 2
        counts = (found.counts, found.reference_counts)
        for name, count, colour in zip(histogram.images, counts, COLOURS, strict=False):
            if count is not None:
                y = np.asarray(count) / max(1, int(np.sum(count)))
                axes.fill_between(x, y, step="mid", alpha=0.35, color=colour, lw=0)
                label = short_label(name)
                axes.step(x, y, where="mid", color=colour, lw=1, label=label)
        axes.set_xlabel("Grey level")
        axes.set_ylabel("Share of pixels")
        axes.legend(loc="upper right")
        canvas.refresh()


def _figures(outcome: GreyOutcome) -> Mapping[str, str]:
    record = outcome.metrics.to_json()
    rows = {
        label: text.format(record[key])
        for key, (label, text) in _NAMES.items()
        if record.get(key) is not None
    }
    distance = outcome.histogram.result.emd
    if distance is not None:
        rows["Histogram distance"] = f"{distance:.3f} grey levels"
    return rows
