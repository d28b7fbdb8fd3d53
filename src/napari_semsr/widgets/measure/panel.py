"""Panel generated from a command: layer lists, a form, metrics and a map."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from magicgui.widgets import ComboBox
from napari.layers import Image, Layer
from napari.viewer import Viewer

from napari_semsr import core, jobs
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

_MAX_PLOTS = 2  # plots that the panel's command draws below each other


class MeasurePanel(base.VerbPanel):
    """Panel that measures layers, whole or by region, and may add a map."""

    applies_to_folder = True
    region_help = ""  # action in each region; without it there are none
    # measures and outlines the part where all images have grey values
    cuts_gaps = False

    def __init__(self, viewer: Viewer) -> None:
        self.plots |= bool(self.verb.curves)
        self.regions: ComboBox | None = None
        super().__init__(viewer)

    def create_rows(self) -> Sequence[ComboBox]:
        """Create the list of layers with regions."""
        if self.region_help:
            self.regions = create_region_box(self, self.region_help)
        return () if self.regions is None else (self.regions,)

    def read_images(self, layers: Sequence[Layer]) -> list[core.Micrograph]:
        """Read the chosen layers, which have the same grid if gaps are cropped."""
        return (
            read_image_pair(self, *layers)
            if self.cuts_gaps
            else super().read_images(layers)
        )

    def create_work(
        self,
        outcome: base.CommandOutcome,
        options: core.Options,
        layer: Layer,
        target: base.OutputTarget | None,
    ) -> Callable[[base.PanelCall], core.Job[base.CommandOutcome]]:
        """Return what a job does: crop gaps, run the call, and measure the regions."""
        regions = (
            read_regions(self, self.regions.value, layer)
            if self.regions is not None
            else []
        )
        return partial(self._measure, outcome, options, regions, target)

    def _measure(
        self,
        outcome: base.CommandOutcome,
        options: core.Options,
        regions: Sequence[Region],
        target: base.OutputTarget | None,
        request: base.PanelCall,
    ) -> core.Job[base.CommandOutcome]:
        """Run the call, and measure its results in each region."""
        images: dict[str, Any] = dict(request.values)
        if self.cuts_gaps:
            parts, box = yield from jobs.crop_to_gap_free_box(*outcome.images)
            images |= zip(request.values, parts, strict=True)
            outcome = replace(outcome, image=parts[0], is_part=box is not None)
        outcome = yield from base.run_command(outcome, target, request, **images)
        measure = partial(self.measure_region, outcome, options)
        return replace(outcome, regions=(yield from measure_regions(regions, measure)))

    def measure_region(
        self, outcome: base.CommandOutcome, options: Any, region: Region
    ) -> Mapping[str, Cell]:
        """Measure a region with the options of the command."""
        raise NotImplementedError

    def add_image(self, layer: Image, outcome: base.CommandOutcome) -> Iterator[None]:
        """Add the map as a layer, replacing an earlier map of the same images."""
        del layer
        assert outcome.output is not None  # noqa: S101 - checked by the caller
        map_made = outcome.output.output
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

    def show_figures(
        self, layer: Layer, outcome: base.CommandOutcome, figures: base.Numbers
    ) -> Iterator[None]:
        """Outline what was measured, mark it, and show metrics, plots and tables."""
        report = outcome.report
        if self.cuts_gaps:
            part = {layer: [outcome.image]} if outcome.is_part else {}
            yield from show_area_outlines(self, part)
            if part:
                note = format_measured_area_note(outcome.image)
                figures = {**figures, "Measured": note}
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

    def add_marks(self, layer: Layer, outcome: base.CommandOutcome) -> Iterator[None]:
        """Add helper layers for the result, step by step."""
        del layer, outcome
        return iter(())

    def sentence(self, outcome: base.CommandOutcome) -> str:
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

    def build_form(self) -> None:
        """Build the form, and propose a reference."""
        super().build_form()
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

    def build_form(self) -> None:
        """Build the form, and propose a reference."""
        super().build_form()
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
        self, outcome: base.CommandOutcome, options: core.Options, region: Region
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
