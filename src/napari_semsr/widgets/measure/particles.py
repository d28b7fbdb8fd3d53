"""Particles: sizes of particles in a layer, and the gaps between them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from typing import Any, TypeVar

import numpy as np
from napari.layers import Labels, Layer, Points
from qtpy.QtWidgets import QWidget

from napari_semsr import core
from napari_semsr.analysis import Gap, Gaps, Particle
from napari_semsr.jobs import GAPS
from napari_semsr.widgets import base, host
from napari_semsr.widgets.layers import (
    create_overlay_keywords,
    list_user_layers,
    pixels_to_view,
)
from napari_semsr.widgets.measure import panel

# Colours of Okabe and Ito, distinct for colour-blind users; the shapes mean the same
LOOKS = {
    "found": ("#56b4e9", "disc", "\N{BLACK CIRCLE}"),
    "missed": ("#d55e00", "x", "\N{MULTIPLICATION X}"),
    "invented": ("#f0e442", "triangle_up", "\N{BLACK UP-POINTING TRIANGLE}"),
}
_DISC_BORDER = 0.06  # share of the median diameter; chosen: the image stays visible
_MARK_PX = 4  # size of a point, in pixels of the image
_MARK_SHARE = 0.01  # the same, as a fraction of the longer side, for large images
_SIZE = "Mean diameter"
_Item = TypeVar("_Item", Gap, Particle)


class ParticlesPanel(panel.ReferencePanel):
    """Panel that measures particles and gaps, optionally against a reference layer."""

    title, run_label = "Particles", "Find particles"
    verb = GAPS
    help_place = "gaps.md"
    helps = "Show particles, gaps and what was measured"
    region_help = "particles and gaps are counted in each region that has their centre."
    _marks: Points | None = None  # of the last result

    def build_form(self) -> None:
        """Build the form, and show the marks."""
        super().build_form()
        self.form.show_row("labels", False)  # the kind of the layer decides
        self.helpers.value = True

    def list_layers(self) -> list[Layer]:
        """List grey layers, preceded by Labels layers."""
        return [*list_user_layers(self.viewer, Labels), *super().list_layers()]

    def create_options(self, **more: object) -> Any:
        """Read the options; labels are not segmented."""
        is_labels = isinstance(self.image.value, Labels)
        return super().create_options(labels=is_labels, **more)

    def create_tables(self) -> Sequence[QWidget]:
        """Create the table of gaps."""
        tooltip = "Select a row to centre the view on its gap."
        self.rows = base.SelectableTable(tooltip, "Gaps")
        self.rows.itemSelectionChanged.connect(self._centre_view_on_gap)
        self.sharing.add_table_menu(self.rows)
        return (self.rows,)

    def measure_region(
        self, outcome: panel.Measurement, region: panel.Region
    ) -> Mapping[str, panel.Cell]:
        """Count the gaps and particles whose centres are inside a region."""
        report, image = outcome.report, outcome.parts[0]
        panel.get_region_box(region, image)

        def select_inside(items: Sequence[_Item]) -> tuple[_Item, ...]:
            places = np.array([item.place_px for item in items]).reshape(-1, 2)
            is_inside = region.contains(places * image.scale + image.origin)
            return tuple(compress(items, is_inside))

        gaps, unit = report.result, report.unit
        names = "found_gaps", "invented_gaps", "sizes"
        inside: Any = {name: select_inside(getattr(gaps, name)) for name in names}
        part = replace(gaps, **inside)
        sizes, (widths, _) = part.get_diameters(unit), part.get_widths(unit)
        row: dict[str, panel.Cell] = {
            "particles": len(part.sizes),
            f"mean diameter ({unit})": float(sizes.mean()) if sizes.size else None,
            "gaps": part.gaps,
            f"median width ({unit})": float(np.median(widths)) if widths.size else None,
        }
        if gaps.reference_background is not None:
            share = part.undetected_fraction
            errors = np.abs(part.compute_width_errors(unit))
            row |= {
                "not seen (%)": None if share is None else 100 * share,
                "invented": len(part.invented_gaps),
                f"mean error ({unit})": float(errors.mean()) if errors.size else None,
            }
        return row

    def figures_of(self, outcome: panel.Measurement) -> base.Numbers:
        """Return the figures of a result, the size of the particles first and large."""
        figures, gaps = core.get_figures(outcome.report), outcome.report.result
        size = figures.pop(_SIZE, None)
        if size is None:
            return figures
        note = f"of {gaps.particles - gaps.cut} particles {size.note}"
        size = replace(size, note=note, verdict=describe_outlines(gaps), large=True)
        return {_SIZE: size, **figures}

    def sentence(self, outcome: panel.Measurement) -> str:
        """Return a sentence with the size of the particles, and the number of gaps."""
        report, gaps = outcome.report, outcome.report.result
        whole = gaps.particles - gaps.cut
        number = f"{len(gaps.found_gaps)} gap{'s'[: len(gaps.found_gaps) != 1]}"
        values = gaps.get_diameters(report.unit)
        if not values.size:
            return f"{gaps.particles} particles, none of them whole, and {number}"
        ends = gaps.compute_interval(values, report.unit)
        texts = [core.format_number(n, ".3g") for n in (values.mean(), *(ends or ()))]
        interval = f" ({texts[1]} to {texts[2]})" if ends else ""
        outlines = describe_outlines(gaps)
        return (
            f"{texts[0]} {report.unit}{interval} across, mean of {whole} particles"
            f"{outlines and f', {outlines}'}; {number}"
        )

    def format_remarks(self, outcome: panel.Measurement) -> str:
        """Return a legend of the marks with their counts, as rich text."""
        gaps = outcome.report.result
        counts = {
            "found": gaps.detected,
            "missed": len(gaps.found_gaps) - gaps.detected,
            "invented": len(gaps.invented_gaps),
        }
        kinds = counts if gaps.own is not None else ["found"]
        texts = [
            f'<span style="color:{LOOKS[kind][0]}">{LOOKS[kind][2]}</span> '
            f"{kind} {counts[kind]}"
            for kind in kinds
        ]
        return f"<p>Gaps: {', '.join(texts)}</p>" if any(counts.values()) else ""

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

    def add_layers(self, layer: Layer, outcome: panel.Measurement) -> Iterator[None]:
        """Mark each particle with a ring, each gap with a line along its width.

        A point holds the data of a gap; its colour and shape show its kind.
        """
        result, part = outcome.report.result, outcome.parts[0]
        table, unit = _create_gap_table(result), f"({outcome.report.unit})"
        shown = {k: v for k, v in table.items() if k.endswith(unit) and {*v} - {None}}
        if result.own is not None:
            shown = {"kind": table["kind"], **shown}
        self.rows.fill({f"gap {k}": v for k, v in shown.items()}, sorts=True)
        self.rows.setVisible(bool(self.rows.rowCount()))
        if layer not in self.viewer.layers:
            return
        gaps = (*result.found_gaps, *result.invented_gaps)
        looks = [LOOKS[gap.kind] for gap in gaps]
        size = max(_MARK_PX, _MARK_SHARE * max(part.shape))
        shared = create_overlay_keywords(part, self.title, layer)
        self._marks = None
        with self.result_layers.replace_earlier(layer) as earlier:
            yield from self.result_layers.remove_earlier(earlier)
            middles, diameters = outcome.report.discs()
            if len(middles):
                # the ring of a large disc grows less than the disc
                slower = np.sqrt(np.median(diameters) / diameters)
                self.viewer.add_points(
                    middles,
                    name=f"{self.title}: {layer.name}",
                    size=diameters,
                    face_color="transparent",
                    border_color=LOOKS["found"][0],
                    border_width=np.minimum(_DISC_BORDER * slower, 1.0),
                    **shared,
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
                    **shared,
                )
                self._marks = self.viewer.add_points(
                    np.array([gap.place_px for gap in gaps]),
                    name=f"{self.title}: {layer.name}, gaps",
                    size=size,
                    face_color=[look[0] for look in looks],
                    border_color="black",
                    symbol=[look[1] for look in looks],
                    features=table,
                    **shared,
                )

    def list_plots(self, outcome: panel.Measurement) -> list[core.Plot]:
        """Return the distributions, that of the diameters first."""
        return super().list_plots(outcome)[::-1]

    def list_curves(self, outcome: panel.Measurement) -> dict[str, base.Columns]:
        """Return the table of gaps, and the histogram of their widths."""
        result, unit = outcome.report.result, outcome.report.unit
        if not (result.found_gaps or result.invented_gaps):
            return {}
        image, reference = outcome.report.histograms
        columns: dict[str, Sequence[float]] = {
            f"from ({unit})": image.edges[:-1],
            f"to ({unit})": image.edges[1:],
            "image": image.counts,
        }
        if reference is not None:
            columns["reference"] = reference.counts
        return {"gaps": _create_gap_table(result), "widths": columns}


def describe_outlines(gaps: Gaps) -> str:
    """Return how many outlines are clear, and a warning if most are not."""
    if gaps.clear is None:
        return ""
    share = f"{100 * gaps.clear:.0f} % clearly outlined"
    return share if gaps.clear >= 0.5 else f"only {share}: do not trust the outlines"


def _create_gap_table(gaps: Gaps) -> dict[str, list[float | str | None]]:
    """Return table columns with one row per gap; missing values are None."""
    columns = {}
    for name, values in gaps.create_table().items():
        word, _, unit = name.replace("reference_width", "reference").rpartition("_")
        columns[f"{word} ({unit})" if word else name] = values
    return columns
