"""Gaps: particles in a layer, their sizes, and the gaps between them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from napari.layers import Layer, Points
from qtpy.QtWidgets import QHeaderView, QWidget

from napari_semsr.analysis import Gap, Gaps, Particle
from napari_semsr.core import Options, RealArray
from napari_semsr.jobs import GAPS, GapReport
from napari_semsr.widgets import base, host
from napari_semsr.widgets.layers import create_overlay_keywords, pixels_to_view
from napari_semsr.widgets.measure.panel import GroundTruthPanel
from napari_semsr.widgets.measure.regions import Cell, Region, get_region_box

# Colours of Okabe and Ito, distinct for colour-blind users; the shapes mean the same
LOOKS = {
    "found": ("#56b4e9", "disc", "\N{BLACK CIRCLE}"),
    "missed": ("#d55e00", "x", "\N{MULTIPLICATION X}"),
    "invented": ("#f0e442", "triangle_up", "\N{BLACK UP-POINTING TRIANGLE}"),
}
_DISC_BORDER = 0.06  # share of the median diameter; chosen: the image stays visible
_MARK_PX = 4  # size of a point, in pixels of the image
_MARK_SHARE = 0.01  # the same, as a fraction of the longer side, for large images
_TABLE_HEIGHT = 170


class GapsPanel(GroundTruthPanel):
    """Panel that measures particles and gaps, optionally against a reference layer."""

    title, run_label = "Gaps", "Find gaps"
    verb = GAPS
    plots = True
    help_place = "gaps.md"
    helps = "Show gaps and what was measured"
    region_help = "gaps are counted for each region that contains their centre."
    _marks: Points | None = None  # of the last result

    def build_form(self, *above: QWidget) -> None:
        """Build the form, with a table of gaps and a button to copy it."""
        tooltip = "Select a row to centre the view on its gap."
        self.rows = base.SelectableTable(tooltip, _TABLE_HEIGHT)
        self.rows.setSelectionBehavior(self.rows.SelectionBehavior.SelectRows)
        self.rows.setSelectionMode(self.rows.SelectionMode.SingleSelection)
        heads = self.rows.horizontalHeader()
        if heads is not None:
            heads.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.rows.itemSelectionChanged.connect(self._centre_view_on_gap)
        self.copy_button = base.create_button(
            "Copy table",
            self.copy_table,
            "Copy one row per gap, to paste into a spreadsheet.",
        )
        super().build_form(self.rows, self.copy_button, *above)
        self.helpers.value = True

    def measure_region(
        self, outcome: base.JobResult, options: Options, region: Region
    ) -> Mapping[str, Cell]:
        """Count the gaps and particles whose centres are inside a region."""
        del options
        report, image = outcome.report, outcome.parts[0]
        get_region_box(region, image)

        def select_inside(items: Sequence[Gap] | Sequence[Particle]) -> list[Any]:
            places = np.array([item.place_px for item in items]).reshape(-1, 2)
            is_inside = region.contains(places * image.scale + image.origin)
            return [item for item, there in zip(items, is_inside, strict=True) if there]

        result, unit = report.result, report.unit
        gaps = select_inside(result.found_gaps)
        invented_gaps = select_inside(result.invented_gaps)
        part = replace(
            result, found_gaps=tuple(gaps), invented_gaps=tuple(invented_gaps)
        )
        widths = [width for gap in gaps if (width := getattr(gap, f"width_{unit}"))]
        row: dict[str, Cell] = {
            "particles": len(select_inside(result.sizes)),
            "gaps": len(gaps),
            f"median width ({unit})": float(np.median(widths)) if widths else None,
        }
        if result.reference_background is not None:
            share = part.undetected_fraction
            errors = np.abs(part.compute_width_errors(unit))
            row |= {
                "not seen (%)": None if share is None else 100 * share,
                "invented": len(invented_gaps),
                f"mean error ({unit})": float(errors.mean()) if errors.size else None,
            }
        return row

    def sentence(self, outcome: base.JobResult) -> str:
        """Return a sentence that states the number of gaps."""
        gaps = outcome.report.result
        count = len(gaps.found_gaps)
        return f"Found {count} gap{'s'[: count != 1]} between {gaps.count_text}."

    def format_legend(self, report: GapReport) -> str:
        """Return a legend of the marks with their counts, as rich text."""
        gaps = report.result
        counts = {
            "found": gaps.detected,
            "missed": len(gaps.found_gaps) - gaps.detected,
            "invented": len(gaps.invented_gaps),
        }
        counts_shown = counts if gaps.own is not None else {"found": gaps.detected}
        sentences = []
        for kind, count in counts_shown.items():
            colour, _, mark = LOOKS[kind]
            sentences.append(
                f'<span style="color:{colour}">{mark}</span> {kind} {count}'
            )
        return f"<p>Marks: {', '.join(sentences)}</p>" if any(counts.values()) else ""

    def copy_table(self) -> None:
        """Copy the table to the clipboard."""
        findings = self.findings()
        if "gaps" in findings.curves:
            rows = {"gap": findings.curves["gaps"]}
            text = base.Findings(self.title, findings.origin, curves=rows).to_text()
            self.messages.show_status(base.copy_to_clipboard(text))

    def _centre_view_on_gap(self) -> None:
        """Centre the view on the gap of the selected row."""
        marks, row = self._marks, self.rows.get_selected_row()
        if marks is None or marks not in self.viewer.layers or row is None:
            return
        self.helpers.value = True
        marks.selected_data = {row}
        camera = host.get_camera(self.viewer)
        (place,) = pixels_to_view(self.viewer, marks, marks.data[[row], -2:])
        camera.center = (camera.center[0], *place)

    def add_marks(self, layer: Layer, outcome: base.JobResult) -> Iterator[None]:
        """Mark each particle with a ring, each gap with a line along its width.

        A point holds the data of a gap; its colour and shape show its kind.
        """
        if layer not in self.viewer.layers:
            return
        result, part = outcome.report.result, outcome.parts[0]
        gaps = (*result.found_gaps, *result.invented_gaps)
        looks = [LOOKS[gap.kind] for gap in gaps]
        size = max(_MARK_PX, _MARK_SHARE * max(part.shape))
        self._marks = None
        with self.result_layers.replace_earlier(layer) as earlier:
            yield from self.result_layers.remove_earlier(earlier)
            middles, diameters = outcome.report.discs()
            if len(middles):
                # the ring of a large disc grows less than the disc
                slower = np.sqrt(np.median(diameters) / diameters)
                self.viewer.add_points(
                    middles,
                    name=f"{self.title}: {layer.name}, particles",
                    size=diameters,
                    face_color="transparent",
                    border_color=LOOKS["found"][0],
                    border_width=np.minimum(_DISC_BORDER * slower, 1.0),
                    **create_overlay_keywords(part, self.title, layer),
                )
                yield
            if gaps:
                ends = np.array([gap.ends_px for gap in gaps])
                self.viewer.add_vectors(
                    np.stack([ends[:, 0], ends[:, 1] - ends[:, 0]], axis=1),
                    name=f"{self.title}: {layer.name}, widths",
                    edge_color=[look[0] for look in looks],
                    edge_width=size / 4,
                    vector_style="line",
                    **create_overlay_keywords(part, self.title, layer),
                )
                self._marks = self.viewer.add_points(
                    np.array([gap.place_px for gap in gaps]),
                    name=f"{self.title}: {layer.name}",
                    size=size,
                    face_color=[look[0] for look in looks],
                    border_color="black",
                    symbol=[look[1] for look in looks],
                    features={
                        name: np.asarray(of)
                        for name, of in _create_gap_table(result).items()
                    },
                    **create_overlay_keywords(part, self.title, layer),
                )

    def draw_plots(self, report: Any) -> Mapping[str, base.Columns]:
        """Draw the plots, and fill the table of gaps."""
        result, unit = report.result, report.unit
        table, digits = result.create_table(), 1 if unit == "nm" else 2
        heads = {
            "kind": "Gap",
            f"reference_width_{unit}": f"Ref. ({unit})",
            f"width_{unit}": f"Width ({unit})",
            f"error_{unit}": f"Error ({unit})",
            f"y_{unit}": f"y ({unit})",
            f"x_{unit}": f"x ({unit})",
        }
        if result.reference_background is None:
            del heads[f"reference_width_{unit}"], heads[f"error_{unit}"]
        rows = {
            head: [round(x, digits) if isinstance(x, float) else x for x in table[key]]
            for key, head in heads.items()
        }
        self.rows.fill(rows, sorts=True)
        self.rows.setVisible(bool(self.rows.rowCount()))
        super().draw_plots(report)
        curves: dict[str, base.Columns] = {}
        if result.found_gaps or result.invented_gaps:
            image, reference = report.histograms
            columns: dict[str, Sequence[float] | RealArray] = {
                f"from ({unit})": image.edges[:-1],
                f"to ({unit})": image.edges[1:],
                "image": image.counts,
            }
            if reference is not None:
                columns["reference"] = reference.counts
            curves |= {"gaps": _create_gap_table(result), "widths": columns}
        return curves


def _create_gap_table(gaps: Gaps) -> Mapping[str, list[float | str]]:
    """Return table columns with one row per gap, using NaN for missing widths."""
    rows = {}
    for name, values in gaps.create_table().items():
        word, _, unit = name.replace("reference_width", "reference").rpartition("_")
        head = f"{word} ({unit})" if word else name
        rows[head] = [float("nan") if value is None else value for value in values]
    return rows
