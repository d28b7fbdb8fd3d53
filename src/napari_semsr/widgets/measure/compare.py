"""Compare: where two layers differ, and by how much."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from napari.layers import Layer
from qtpy.QtWidgets import QWidget

from napari_semsr import core, jobs
from napari_semsr.widgets import layers
from napari_semsr.widgets.compare import CompareControls
from napari_semsr.widgets.measure import panel, regions

_NEAR = 0.02  # share of a side: tolerance for coinciding edges; chosen


class ComparePanel(panel.MeasurePanel):
    """Panel that shows two layers together, subtracts them, and maps their errors."""

    title, run_label = "Compare", "Map errors"
    help_place = "error_map.md"
    verb = jobs.ERROR_MAP
    plots = on_one_grid = False
    input_image = 1
    map_name = "error map"
    region_help = (
        "the error is summarised for each of its regions. Blur, gain and offset are "
        "those of the whole field."
    )

    def build_form(self, *rows: Any, below: Sequence[QWidget] = ()) -> None:
        """Build the form, and propose a reference."""
        super().build_form(*rows, below=below)
        before, after = self.boxes.values()
        # usually the source, unless there is another image of the area
        self.input_layers.propose_partner(
            after,
            before,
            lambda image, other: 1 + layers.fits_beside(image, other),
            lies=partial(layers.have_same_area, near=_NEAR),
            may=partial(layers.fits_beside, of_source=True),
        )

    def list_layers(self) -> list[Layer]:
        """List all images, of which maps may be subtracted too."""
        return list(layers.list_image_layers(self.viewer))

    def accepts_layer(self, layer: Layer) -> bool:
        """Reject maps, which the user may choose."""
        return super().accepts_layer(layer) and not layers.is_map(layer)

    def add_controls(self) -> None:
        """Add the controls that show both layers, or their difference."""
        self.look = CompareControls(self, *self.boxes.values())
        self.add_group("View", self.look)

    def measure_region(
        self, outcome: panel.Measurement, options: Any, region: regions.Region
    ) -> Mapping[str, regions.Cell]:
        """Summarise the errors in one region."""
        del options
        if outcome.opened is None:
            return {}
        error_map = outcome.opened.micrograph
        box = regions.get_region_box(region, error_map)
        values = regions.crop_to_region(region, error_map, box).array()
        finite = values[np.isfinite(values)]
        if not finite.size:
            msg = "there are no valid pixels there"
            raise core.ShapeError(msg, code="no-finite-values")
        unit = "grey levels" if outcome.report.unit == "grey" else "%"
        return {
            "pixels": int(finite.size),
            f"RSE ({unit})": float(np.sqrt(np.square(finite).mean())),
            f"median ({unit})": float(np.median(finite)),
            f"95 % below ({unit})": float(np.percentile(finite, 95)),
        }
