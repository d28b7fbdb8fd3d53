"""Panel generated from a command: layer lists, a form, metrics and a map."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels, Layer
from napari.viewer import Viewer
from qtpy.QtWidgets import QWidget

from napari_semsr import core, jobs
from napari_semsr.io import HELPER_KEY
from napari_semsr.widgets import base, layers
from napari_semsr.widgets.measure.regions import (
    Cell,
    Region,
    create_region_box,
    crop_to_region,
    format_measured_area_note,
    get_region_box,
    measure_regions,
    read_image_pair,
    read_regions,
    show_area_outlines,
)

if TYPE_CHECKING:
    from magicgui.widgets import ComboBox

_MAX_PLOTS = 2  # plots that the panel's command draws below each other


class MeasurePanel(base.VerbPanel):
    """Panel that measures layers, whole or by region, and may add a map."""

    applies_to_folder = True
    input_image = 0  # the image that takes the active layer
    helps = ""  # label of the tick box that shows helper layers
    region_help = ""  # action in each region; without it there are none
    # measures and outlines the part where all images have grey values
    cuts_gaps = False
    regions: "ComboBox | None" = None

    def __init__(self, viewer: Viewer) -> None:
        self.plots |= bool(self.verb.curves)
        super().__init__(viewer)

    def build_form(self, *above: QWidget) -> None:
        """Build the form: layers, options, and results with widgets above them."""
        verb = self.verb
        first = verb.images[self.input_image].name
        boxes = self.input_layers.create_image_boxes(verb, self._list_layers, first)
        self.boxes = {box.name: box for box in boxes}
        self.form = base.OptionsForm(verb.options)
        # keys of a project
        self.settings: dict[str, object] = {**self.boxes, "form": self.form}
        if self.region_help:
            self.regions = create_region_box(self, self.region_help)
            boxes.append(self.regions)
        self.layer_form = base.Form(*boxes)
        self.add_group("Layers", self.layer_form, self.form)
        self.add_results("Figures", *above, helpers=self.helps)
        self.helpers.value = False
        self.input_layers.follow_active_layer(self.boxes[first])

    def _list_layers(self) -> list[Layer]:
        """List grey layers, preceded by Labels layers if the command accepts them."""
        others = [
            layer
            for layer in self.viewer.layers
            if isinstance(layer, Labels) and not layer.metadata.get(HELPER_KEY)
        ]
        grey = layers.list_grey_layers(self.viewer)
        return others + grey if "labels" in self.verb.options.model_fields else grey

    def create_request(self) -> base.JobRequest:
        """Read the form, and return the request of the job that Run starts."""
        items = [
            (item, layer)
            for item, box in zip(self.verb.images, self.boxes.values(), strict=True)
            if (layer := box.value) is not None or not item.optional
        ]
        chosen = [layer for _, layer in items]
        layer = chosen[0]
        images = (
            read_image_pair(self, *chosen)
            if self.cuts_gaps
            else [self.input_layers.read(one) for one in chosen]
        )
        for item, other in items[1:]:
            if other is layer is not None:
                instead = ", or 'none'" if item.optional else " for one of them"
                msg = (
                    f"The layer {layer.name!r} is chosen as both {item.title} and "
                    f"{items[0][0].title}; choose another{instead}."
                )
                raise core.ShapeError(msg, code="same-image")
        more = {"labels": True} if isinstance(layer, Labels) else {}
        options = self.form.create_options(**more)
        path = None
        if self.verb.makes_image:
            step = self.verb.name.replace("-", " ")
            title = layers.create_result_name(self.viewer, images[0].name, step)
            path = base.choose_store_path(None, title, images[0].shape)
        regions = (
            read_regions(self, self.regions.value, layer)
            if self.regions is not None
            else []
        )
        inputs = {
            item.name: image for (item, _), image in zip(items, images, strict=True)
        }
        return base.JobRequest(
            partial(self._measure, inputs, options, path, regions),
            partial(self.show_measurement, layer),
        )

    def _measure(
        self,
        inputs: Mapping[str, core.Micrograph],
        options: core.Options,
        path: Path | None,
        regions: Sequence[Region],
    ) -> core.Job[base.JobResult]:
        """Crop gaps, run the command, and measure its results in each region."""
        images = parts = tuple(inputs.values())
        if self.cuts_gaps:
            parts, _ = yield from jobs.crop_to_gap_free_box(*images)
        given: dict[str, Any] = dict(zip(inputs, parts, strict=True))
        job = self.verb.job(**given, output=path, options=options)
        if path is None:
            outcome = base.JobResult((yield from job))
        else:
            outcome = yield from base.run_and_open(job, path)
        outcome = replace(outcome, images=images, parts=parts)
        measure = partial(self.measure_region, outcome, options)
        return replace(outcome, regions=(yield from measure_regions(regions, measure)))

    def measure_region(
        self, outcome: base.JobResult, options: Any, region: Region
    ) -> Mapping[str, Cell]:
        """Measure a region with the options of the command."""
        raise NotImplementedError

    def show_measurement(self, layer: Layer, outcome: base.JobResult) -> Iterator[None]:
        """Add the map, outline what was measured, mark it, and show the results."""
        for map_made in outcome.opened:
            yield from self._add_map(map_made)
        report, part = outcome.report, outcome.parts[0]
        figures: base.Numbers = core.get_figures(report)
        if self.cuts_gaps:
            is_cut = part.shape != outcome.images[0].shape
            yield from show_area_outlines(self, {layer: [part]} if is_cut else {})
            if is_cut:
                figures = {**figures, "Measured": format_measured_area_note(part)}
        yield from self.add_marks(layer, outcome)
        yield
        # rows of a report are saved with its curves, as there may be thousands
        curves = {**self.draw_plots(report), **report.tables()}
        yield
        self.results.show_result(
            figures,
            self.sentence(outcome),
            curves=curves,
            tables=outcome.regions,
            more=self.format_legend(report),
        )

    def _add_map(self, map_made: base.OpenedImage) -> Iterator[None]:
        """Add a map as a layer, replacing an earlier map of the same images."""
        # its kind, its image, its unit in brackets
        kind, _, rest = map_made.micrograph.name.partition(" of ")
        source, _, unit = rest.rpartition(" (")
        with self.result_layers.replace_earlier(
            kind, *self.result_layers.sources
        ) as earlier:
            yield from self.result_layers.remove_earlier(earlier)
            title = layers.create_result_name(self.viewer, source, f"{kind} ({unit}")
            layer_made = base.add_opened_image(self.viewer, map_made, name=title)
            layers.hide_other_maps(self.viewer, layer_made)
            yield

    def add_marks(self, layer: Layer, outcome: base.JobResult) -> Iterator[None]:
        """Add helper layers for the result, step by step."""
        del layer, outcome
        return iter(())

    def sentence(self, outcome: base.JobResult) -> str:
        """Return a sentence with the main values, to be shown above the metrics."""
        report = outcome.report
        figures = core.get_figures(report)
        quantities = (q for q, _ in core.get_quantities(type(report)).values())
        # nm and px count as one
        labels = dict.fromkeys(q.label for q in quantities if q.large)
        large = ", ".join(
            f"{name} {figures[name]}" for name in labels if name in figures
        )
        one, *others = report.images
        sentence_done = (
            f"Compared {others[0]} with {one}" if others else f"Measured {one}"
        )
        if others and self.verb.images[1].optional:
            sentence_done = f"Measured {one} against {others[0]}"
        return f"{sentence_done}: {large}." if large else f"{sentence_done}."

    def format_legend(self, report: Any) -> str:
        """Return a legend of the marks, as rich text."""
        del report
        return ""

    def draw_plots(self, report: Any) -> Mapping[str, base.Columns]:
        """Draw the plots that the command declares, and return their columns."""
        if not self.plots:
            return {}
        from napari_semsr.widgets.base import draw_plot

        curves: dict[str, base.Columns] = {}
        canvas = self.results.clear_plot(rows=_MAX_PLOTS, height=230)
        plots = core.get_plots(report, self.verb.curves)
        for axes, plot in zip(canvas.axes, plots, strict=False):
            draw_plot(axes, plot)
            curves |= plot.columns
        canvas.refresh()
        return curves


class GroundTruthPanel(MeasurePanel):
    """Panel that runs a command on a layer, with the ground truth if available."""

    cuts_gaps = True
    helps = "Show what was measured"

    _propose: Callable[[], None] | None = None  # before the lists exist

    def build_form(self, *above: QWidget) -> None:
        """Build the form, and propose a reference."""
        super().build_form(*above)
        self.image, self.reference = self.boxes.values()
        self._propose = self.input_layers.propose_partner(
            self.image, self.reference, self.rank_reference
        )
        image = self.image.value
        if image is not None and self.reference.value is None:
            worse = (
                one for one in self.image.choices if self.rank_reference(one, image)
            )
            self.image.value = next(worse, image)

    def accepts_layer(self, layer: Layer) -> bool:
        """Reject the reference, which is proposed again before."""
        if self._propose is not None:
            self._propose()
            if layer is self.reference.value:
                self.input_layers.ignore_active_layer()
                return False
        return super().accepts_layer(layer)

    @staticmethod
    def rank_reference(image: Layer, other: Layer) -> int:
        """Rank a layer as a reference for an image: ground truth first, then SEM."""
        if layers.is_ground_truth(image):
            return 0
        sem = layers.is_sem_image(other) and not layers.is_sem_image(image)
        return 3 if layers.is_ground_truth(other) else 2 * sem


_NEAR = 0.02  # share of a side: tolerance for coinciding edges; chosen


class ErrorMapPanel(MeasurePanel):
    """Panel that maps differences between a layer and its reference."""

    title, run_label = "Error map", "Map errors"
    help_place = "error_map.md"
    verb = jobs.ERROR_MAP
    input_image = 1
    region_help = (
        "the error is summarised for each of its regions. Blur, gain and offset are "
        "those of the whole field."
    )

    def build_form(self, *above: QWidget) -> None:
        """Build the form, and propose a reference."""
        super().build_form(*above)
        before, after = self.boxes.values()
        # usually the source, unless there is another image of the area
        self.input_layers.propose_partner(
            after,
            before,
            lambda image, other: 1 + layers.fits_beside(image, other),
            lies=partial(layers.have_same_area, near=_NEAR),
            may=partial(layers.fits_beside, of_source=True),
        )

    def measure_region(
        self, outcome: base.JobResult, options: core.Options, region: Region
    ) -> Mapping[str, Cell]:
        """Summarise the errors in one region."""
        del options
        report, error_map = outcome.report, outcome.image
        values = crop_to_region(
            region, error_map, get_region_box(region, error_map)
        ).array()
        finite = values[np.isfinite(values)]
        if not finite.size:
            msg = "there are no valid pixels there"
            raise core.ShapeError(msg, code="no-finite-values")
        unit = "grey levels" if report.unit == "grey" else "%"
        return {
            "pixels": int(finite.size),
            f"RSE ({unit})": float(np.sqrt(np.square(finite).mean())),
            f"median ({unit})": float(np.median(finite)),
            f"95 % below ({unit})": float(np.percentile(finite, 95)),
        }
