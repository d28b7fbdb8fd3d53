"""Gaps: how many gaps between particles a layer shows, and how wide they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image

from napari_semsr.analysis import Gap, GapOptions
from napari_semsr.core import Job, Micrograph
from napari_semsr.io import HELPER_KEY
from napari_semsr.jobs import GapReport, cut_gaps, gaps_job
from napari_semsr.widgets.base import (
    Columns,
    Form,
    Numbers,
    OptionsForm,
    Panel,
    Quantity,
    Row,
    Work,
)
from napari_semsr.widgets.measure.measured import (
    propose_truth,
    read_pair,
    say_part,
    show_outline,
)

if TYPE_CHECKING:
    import napari.viewer

_ROWS = {
    "dark": Row(
        "Particles are dark", "Tick it where they are darker than what lies around."
    ),
    "min_diameter_px": Row("Least diameter (px)", "Smaller particles are left out."),
    "reach": Row(
        "Reach (diameters)",
        "Neighbours are no further apart, outline to outline, than this times their "
        "mean diameter.",
        step=0.1,
    ),
}
_SEEN, _MISSED = "#35c07a", "#e0559b"
_MARK_PX = 6  # of a point, in pixels of the image


@dataclass(frozen=True, slots=True)
class GapOutcome:
    """Gaps of a layer, and the part that was measured where others were cut off."""

    report: GapReport
    measured: Micrograph
    is_part: bool


def _measure(images: Sequence[Micrograph], options: GapOptions) -> Job[GapOutcome]:
    """Look for gaps in an image, or for those of a reference."""
    parts, box = yield from cut_gaps(*images)
    report = yield from gaps_job(*parts, options=options)
    return GapOutcome(report, parts[0], box is not None)


class GapsPanel(Panel):
    """Counts and measures gaps, against a reference layer where there is one."""

    plots = True
    help_place = "gaps.md"

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__(viewer, "Gaps", "Find gaps")
        self.image = self.new_layer_box("image", "Image", "An image of particles.")
        self.reference = self.new_layer_box(
            "reference",
            "Reference",
            "A better image of the same field: its gaps are looked for in the image. "
            "Without one the image's own are measured.",
            none="none",
        )
        self.form = OptionsForm(GapOptions, _ROWS)
        self.add_group("Layers", Form(self.image, self.reference), self.form)
        self.add_results("Gaps", helpers="Show gaps and what was measured")
        propose_truth(self, self.image, self.reference)
        self.take_input(self.image)

    def job(self) -> Work:
        """Read the form."""
        layer = self.image.value
        images = read_pair(self, layer, self.reference.value)
        return (
            partial(_measure, images, self.form.options()),
            partial(self.show_outcome, layer),
        )

    def show_outcome(self, layer: Image, outcome: GapOutcome) -> None:
        """Mark the gaps, draw their widths, write the figures."""
        report = outcome.report
        show_outline(self, {layer: outcome.measured} if outcome.is_part else {})
        if layer in self.viewer.layers:
            self._mark(layer, outcome)
        table = _table(report.result.found)
        self._draw(report, table)
        count, particles = len(report.result.found), report.result.particles
        said = f"Found {count} gap{'s'[: count != 1]} between {particles} particles."
        numbers = _figures(outcome)
        self.show_result(numbers, said, curves={"gaps": table} if count else {})

    def _mark(self, layer: Image, outcome: GapOutcome) -> None:
        """Mark each gap by a point: those of a reference that are missed in red."""
        found, part = outcome.report.result.found, outcome.measured
        active = self.viewer.layers.selection.active
        with self.in_place(layer.name):
            if found:
                self.viewer.add_points(
                    np.array([gap.place_px for gap in found]),
                    name=f"{self.title}: {layer.name}",
                    size=_MARK_PX,
                    face_color=[_SEEN if gap.detected else _MISSED for gap in found],
                    features={
                        name: np.asarray(of) for name, of in _table(found).items()
                    },
                    metadata={HELPER_KEY: self.title},
                    scale=part.scale,
                    translate=part.origin,
                    units=(part.unit, part.unit),
                    axis_labels=("y", "x"),
                )
        self.viewer.layers.selection.active = active

    def _draw(self, report: GapReport, table: Columns) -> None:
        """Draw the distribution of the widths."""
        from napari_semsr.widgets.base import COLOURS, short_label

        canvas = self.clear_plot()
        axes = canvas.axes[0]
        unit = _unit(report)
        for name, of, colour in zip(
            report.images, ("width", "reference"), COLOURS, strict=False
        ):
            values = np.array(list(table[f"{of} ({unit})"]), dtype=float)
            values = values[np.isfinite(values)]
            if values.size:
                label = short_label(name)
                axes.hist(values, bins=20, color=colour, alpha=0.6, label=label)
        axes.set_xlabel(f"Width of gaps ({unit})")
        axes.set_ylabel("Gaps")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper right")
        canvas.refresh()


def _unit(report: GapReport) -> str:
    return "px" if report.pixel_size_nm is None else "nm"


def _table(found: Sequence[Gap]) -> Mapping[str, Sequence[Any]]:
    """One row for each gap; NaN where there is no width."""

    def widths(name: str) -> list[float]:
        values = [getattr(gap, name) for gap in found]
        return [float("nan") if value is None else value for value in values]

    return {
        "y (px)": [gap.place_px[0] for gap in found],
        "x (px)": [gap.place_px[1] for gap in found],
        "seen": [int(gap.detected) for gap in found],
        "width (px)": widths("width_px"),
        "width (nm)": widths("width_nm"),
        "reference (px)": widths("reference_px"),
        "reference (nm)": widths("reference_nm"),
    }


def _figures(outcome: GapOutcome) -> Numbers:
    report, found = outcome.report, outcome.report.result
    unit, record = _unit(report), report.to_json()
    widths = [width for width in record[f"widths_{unit}"] if width is not None]
    apart = f"{found.excluded} left out for unequal brightness"
    rows: dict[str, Quantity | str] = {
        "Particles": Quantity(found.particles),
        "Neighbours": Quantity(
            found.pairs, note=f"({apart})" if found.excluded else ""
        ),
        "Gaps": Quantity(len(found.found)),
    }
    if found.undetected_fraction is not None:
        rows |= {
            "Seen in the image": Quantity(found.detected),
            "Not seen": Quantity(100 * found.undetected_fraction, "%", ".1f"),
        }
    if widths:
        rows["Median width"] = Quantity(float(np.median(widths)), unit)
    for name, key in (
        ("Mean error of widths", f"mean_width_error_{unit}"),
        ("Signed error", f"mean_signed_width_error_{unit}"),
    ):
        if record[key] is not None:
            rows[name] = Quantity(record[key], unit, ".3g")
    if outcome.is_part:
        rows["Measured"] = say_part(outcome.measured)
    return rows
