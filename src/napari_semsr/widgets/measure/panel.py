"""Panel that measures with a command: layer lists, a form, figures, plots and a map."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from magicgui.widgets import ComboBox
from napari.layers import Labels, Layer
from qtpy.QtWidgets import QWidget

from napari_semsr import core, jobs
from napari_semsr.widgets import base, layers
from napari_semsr.widgets.measure import regions


@dataclass(frozen=True, slots=True)
class Call:
    """Call of a command, as its panel has read it."""

    verb: jobs.Verb[Any, Any]
    images: Mapping[str, core.Micrograph]  # by the command's names for them
    options: Any
    path: Path | None  # of the map
    areas: Sequence[regions.Region]
    more: dict[str, Any]  # what else a panel reads


@dataclass(frozen=True, slots=True)
class Measurement:
    """Result of a measurement, and what is shown of it.

    `opened` is the map, `images` and `parts` are what was read, and what was measured
    of it without gaps; `regions` is a table of what was measured in each of the
    `areas`.
    """

    report: Any  # of the command
    opened: base.OpenedImage | None = None
    more: Any = None  # what a panel measures in addition
    images: Sequence[core.Micrograph] = ()
    parts: Sequence[core.Micrograph] = ()
    areas: Sequence[regions.Region] = ()
    regions: Mapping[str, base.Columns] = field(default_factory=dict)
    figures: base.Numbers = field(default_factory=dict)
    sentence: str = ""


def describe_result(report: Any, *, is_named: bool = True) -> str:
    """Return the main values of a result with their intervals.

    Without names, there is one, and its assessment follows.
    """
    texts: dict[str, str] = {}
    for name, (quantity, _) in core.get_quantities(type(report)).items():
        label, value = quantity.label, core.get_value(report, name)
        # of nm and px, nm
        if (
            not quantity.large
            or value is None
            or (label in texts and not quantity.also)
        ):
            continue
        words = [label] if is_named else []
        words += [core.format_number(value, quantity.form), quantity.unit]
        if ends := quantity.interval and core.get_value(report, quantity.interval):
            low, high = (core.format_number(end, quantity.form) for end in ends)
            words.append(f"({low} to {high})")
        texts[label] = " ".join(filter(None, words))
        if quantity.verdict and not is_named:
            texts[label] += f", {core.get_value(report, quantity.verdict)}"
    return ", ".join(texts.values())


class MeasurePanel(base.VerbPanel):
    """Panel that measures layers, whole or by region, and may add a map."""

    plots = True
    input_image = 0  # the image that takes the active layer
    helps = ""  # label of the tick box that shows helper layers
    region_help = ""  # action in each region
    map_name = ""  # in the title of the map's layer
    on_one_grid = True  # whether the images must have the same pixels
    # measures and outlines the part where all images have grey values
    cuts_gaps = False

    def build_form(self, *rows: Any, below: Sequence[QWidget] = ()) -> None:
        """Build the form: layers, further rows, options, and results."""
        boxes = self.create_boxes()
        self.boxes = {box.name: box for box in boxes}
        self.form = base.OptionsForm(self.verb.options)
        # keys of a project
        self.settings: dict[str, object] = {**self.boxes, "form": self.form}
        self.regions = regions.create_region_box(self, self.region_help)
        self.layer_form = base.Form(*boxes, *rows, self.regions)
        self.add_group("Layers", self.layer_form, self.form)
        self.add_controls()
        self.add_results("Result", helpers=self.helps, ticks=below)
        base.FolderRun(self, self.create_options, images=boxes)
        self.input_layers.follow_active_layer(boxes[self.input_image])

    def add_controls(self) -> None:
        """Add controls between the options and the results."""

    def create_boxes(self) -> list[ComboBox]:
        """Create the lists of the layers that the command reads."""
        first = self.verb.images[self.input_image].name
        return self.input_layers.create_image_boxes(self.verb, self.list_layers, first)

    def list_layers(self) -> list[Layer]:
        """List grey layers, preceded by Labels layers if the command accepts them."""
        kinds = [Labels] if "labels" in self.verb.options.model_fields else []
        others = layers.list_user_layers(self.viewer, *kinds)
        return [*others, *layers.list_grey_layers(self.viewer)]

    def create_options(self, **more: object) -> Any:
        """Read the options of the command from the form."""
        return self.form.create_options(**more)

    def read_more(self, images: Sequence[core.Micrograph]) -> dict[str, Any]:
        """Return what else `run_command` needs of the form."""
        del images
        return {}

    def create_request(self) -> base.JobRequest:
        """Read the form, and return the request of the job that Run starts."""
        verb, boxes = self.verb, dict[str, ComboBox]()
        for item, box in zip(self.verb.images, self.boxes.values(), strict=False):
            if box.value is not None or not item.optional:
                boxes[item.name] = box
        layer, *others = chosen = [box.value for box in boxes.values()]
        images = (
            regions.read_image_pair(self, *chosen)
            if self.on_one_grid
            else [self.input_layers.read(one) for one in chosen]
        )
        if layer in others:
            first, second = (box.label for box in boxes.values())
            instead = ", or 'none'" if verb.images[1].optional else " for one of them"
            msg = (
                f"The layer {layer.name!r} is chosen as both {second} and {first}; "
                f"choose another{instead}."
            )
            raise core.ShapeError(msg, code="same-image")
        labels = {"labels": True} if isinstance(layer, Labels) else {}
        path = None
        if verb.makes_image:
            title = layers.create_result_name(
                self.viewer, images[0].name, self.map_name
            )
            path = base.choose_store_path(None, title, images[0].shape)
        call = Call(
            verb,
            dict(zip(boxes, images, strict=True)),
            self.create_options(**labels),
            path,
            regions.read_regions(self, self.regions.value, layer),
            self.read_more(images),
        )
        measure, show = self._measure, self.show_measurement
        return base.JobRequest(partial(measure, call), partial(show, layer))

    def _measure(self, call: Call) -> core.Job[Measurement]:
        """Crop gaps, run the command, and measure its results in each region."""
        images = parts = tuple(call.images.values())
        if self.cuts_gaps:
            parts, _ = yield from jobs.crop_to_gap_free_box(*images)
        given = dict(zip(call.images, parts, strict=True))
        outcome = yield from self.run_command(replace(call, images=given))
        outcome = replace(outcome, images=images, parts=parts, areas=call.areas)
        measure = partial(self.measure_region, outcome, call.options)
        rows = yield from regions.measure_regions(call.areas, measure)
        # here, as intervals take a second of ten thousand particles
        figures, sentence = self.figures_of(outcome), self.sentence(outcome)
        return replace(outcome, regions=rows, figures=figures, sentence=sentence)

    def run_command(self, call: Call, **more: Any) -> core.Job[Measurement]:
        """Run the command, and open the map that it writes."""
        given: dict[str, Any] = {**call.images, **more}
        job = call.verb.job(**given, output=call.path, options=call.options)
        if call.path is None:
            return Measurement((yield from job))
        done = yield from base.run_and_open(job, call.path)
        return Measurement(done.report, done.opened[0])

    def measure_region(
        self, outcome: Measurement, options: Any, region: regions.Region
    ) -> Mapping[str, regions.Cell]:
        """Measure a region with the options of the command."""
        raise NotImplementedError

    # -- showing -------------------------------------------------------------------

    def show_measurement(self, layer: Layer, outcome: Measurement) -> Iterator[None]:
        """Add layers, outline what was measured, draw plots, and show the results."""
        part, whole = next(zip(outcome.parts, outcome.images, strict=True))
        yield from self.add_layers(layer, outcome)
        figures = outcome.figures
        if self.cuts_gaps:
            cut = {layer: [part]} if part.shape != whole.shape else {}
            yield from regions.show_area_outlines(self, cut)
            if cut:
                note = regions.format_measured_area_note(part)
                figures = {**figures, "Measured": note}
        yield
        plots, curves = self.list_plots(outcome), dict[str, base.Columns]()
        if self.plots:
            from napari_semsr.widgets.base import draw_plot

            canvas = self.results.clear_plot(rows=2, height=230)
            for axes, plot in zip(canvas.axes, plots, strict=False):
                draw_plot(axes, plot)
                curves |= plot.columns
                yield
            canvas.refresh()
        # rows of a report are saved with its curves, as there may be thousands
        self.results.show_result(
            figures,
            f"{outcome.sentence}.",
            curves=curves | outcome.report.tables() | self.list_curves(outcome),
            tables=outcome.regions,
            more=self.format_remarks(outcome),
        )

    def add_layers(self, layer: Layer, outcome: Measurement) -> Iterator[None]:
        """Add the layers of the result, step by step."""
        del layer
        if outcome.opened is not None:
            with self.result_layers.replace_earlier(
                *self.result_layers.sources
            ) as earlier:
                yield from self.result_layers.remove_earlier(earlier)
                yield from self.add_map(outcome, outcome.opened)

    def add_map(self, outcome: Measurement, opened: base.OpenedImage) -> Iterator[None]:
        """Add the map as a layer."""
        source = outcome.report.images[self.input_image]
        # the unit in brackets
        _, bracket, unit = str(opened.micrograph.quantity).rpartition(" (")
        title = f"{self.map_name}{bracket}{unit}"
        title = layers.create_result_name(self.viewer, source, title)
        layer_made = base.add_opened_image(self.viewer, opened, name=title)
        layers.hide_other_maps(self.viewer, layer_made)
        yield

    def figures_of(self, outcome: Measurement) -> base.Numbers:
        """Return the figures of a result, the large one first."""
        return core.get_figures(outcome.report)

    def list_plots(self, outcome: Measurement) -> list[core.Plot]:
        """Return the plots of a result, of which two fit."""
        return core.get_plots(outcome.report, self.verb.curves)

    def list_curves(self, outcome: Measurement) -> dict[str, base.Columns]:
        """Return the tables that are saved with numbers and curves."""
        del outcome
        return {}

    def sentence(self, outcome: Measurement) -> str:
        """Return the sentence that answers the panel's question."""
        one, *others = outcome.report.images
        names = f"{others[0]} against {one}" if others else one
        if others and self.verb.images[1].optional:
            names = f"{one} against {others[0]}"
        result = describe_result(outcome.report)
        return f"{result}: {names}" if result else f"Measured {names}"

    def format_remarks(self, outcome: Measurement) -> str:
        """Return a legend or further remarks, as rich text."""
        del outcome
        return ""


class ReferencePanel(MeasurePanel):
    """Panel that runs a command on a layer, with the ground truth if available."""

    cuts_gaps = True
    _propose: Callable[[], None] | None = None  # before the lists exist

    def build_form(self, *rows: Any, below: Sequence[QWidget] = ()) -> None:
        """Build the form, and propose a reference."""
        super().build_form(*rows, below=below)
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
        if layer is self.boxes["reference"].value:
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
