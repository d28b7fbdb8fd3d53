"""Error map: where a layer is not its reference, or two scans are not one another."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Layer

from napari_semsr.core import FloatArray, Micrograph, ShapeError
from napari_semsr.jobs import ERROR_MAP, REPEATABILITY, ErrorMapReport
from napari_semsr.widgets.base import OptionsForm
from napari_semsr.widgets.layers import grey_layers, network_of
from napari_semsr.widgets.measure.regions import Cell, Region, box_of, cut_out
from napari_semsr.widgets.measure.verb_panel import VerbPanel

if TYPE_CHECKING:
    import napari.viewer

_NEAR = 0.02  # of a side: what two edges that lie on each other differ by; chosen


class ErrorMapPanel(VerbPanel):
    """Maps where a layer is not its reference, or two scans are not one another."""

    help_place = "error_map.md"
    verbs = {"with its reference": ERROR_MAP, "two scans": REPEATABILITY}  # noqa: RUF012
    chooser = (
        "Compare",
        "A layer with its source, or two scans that tell how repeatable scanning is.",
    )
    input_image = 1
    region_help = (
        "the error is summed up for each of its regions. Blur, gain and offset are "
        "those of the whole field."
    )

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__(viewer, "Error map", "Map errors")
        for form in self.forms.values():
            form.on_change("align", partial(_show_search, form))
        self.boxes["enhanced"].changed.connect(self._propose)
        self._propose()

    def _propose(self, _: object = None) -> None:
        """Propose the layer of the same place that no network made."""
        chosen, enhanced = (box.value for box in self.boxes.values())
        kept = chosen not in (None, enhanced) and _on_one_place(enhanced, chosen)
        if enhanced is None or (kept and network_of(chosen) is None):
            return
        found: list[Layer] = [
            layer
            for layer in reversed(grey_layers(self.viewer))
            if layer is not enhanced and _on_one_place(enhanced, layer)
        ]
        plain = [layer for layer in found if network_of(layer) is None]
        best = next(iter([*plain, *found]), None)
        if best is not None:
            self.boxes["reference"].value = best

    def in_region(
        self, report: Any, shown: Micrograph, region: Region
    ) -> Mapping[str, Cell]:
        """Sum up the errors in one region."""
        values = cut_out(region, shown, box_of(region, shown)).array()
        kept = values[np.isfinite(values)]
        if not kept.size:
            msg = "no pixel is known there"
            raise ShapeError(msg)
        name = "RSE" if isinstance(report, ErrorMapReport) else "r.m.s."
        unit = "grey levels" if report.unit == "grey" else "%"
        return {
            "pixels": int(kept.size),
            f"{name} ({unit})": float(np.sqrt(np.square(kept).mean())),
            f"median ({unit})": float(np.median(kept)),
            f"95 % below ({unit})": float(np.percentile(kept, 95)),
        }


def _show_search(form: OptionsForm, align: Any) -> None:
    form.show_row("search", bool(align))


def _on_one_place(first: Layer, second: Layer) -> bool:
    """Whether two layers cover the same area, whatever their pixels."""
    (low, high), (other_low, other_high) = map(_edges, (first, second))
    apart = np.abs([other_low - low, other_high - high]).max()
    alike = first.units[-2:] == second.units[-2:]
    return alike and bool(apart <= _NEAR * np.abs(high - low).max())


def _edges(layer: Layer) -> tuple[FloatArray, FloatArray]:
    """Find where the outer corners of a layer are shown."""
    low, high = np.zeros(layer.ndim), np.zeros(layer.ndim)
    low[-2:] = -0.5
    high[-2:] = layer.extent.data[1][-2:] + 0.5
    first, last = (np.asarray(layer.data_to_world(end)) for end in (low, high))
    return first[-2:], last[-2:]
