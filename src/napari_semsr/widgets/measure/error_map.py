"""Error map: where a layer is not its reference, or two scans are not one another."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_semsr.core import Micrograph, ShapeError
from napari_semsr.jobs import ERROR_MAP, REPEATABILITY, ErrorMapReport
from napari_semsr.widgets.base import OptionsForm
from napari_semsr.widgets.measure.regions import Cell, Region, box_of, cut_out
from napari_semsr.widgets.measure.verb_panel import ResultPanel

if TYPE_CHECKING:
    import napari.viewer


class ErrorMapPanel(ResultPanel):
    """Maps where a layer is not its reference, or two scans are not one another."""

    help_place = "error_map.md"
    verbs = {"with its reference": ERROR_MAP, "two scans": REPEATABILITY}  # noqa: RUF012
    chooser = (
        "Compare",
        "A layer with its source, or two scans that tell how repeatable scanning is.",
    )
    region_help = (
        "the error is summed up for each of its regions. Blur, gain and offset are "
        "those of the whole field."
    )

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__(viewer, "Error map", "Map errors")
        for form in self.forms.values():
            form.on_change("align", partial(_show_search, form))

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
