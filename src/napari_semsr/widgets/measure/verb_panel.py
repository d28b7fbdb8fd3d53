"""Panel generated from a command: layer lists, a form, metrics and a map."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from magicgui.widgets import CheckBox, ComboBox, FileEdit
from napari.layers import Image, Labels, Layer
from napari.viewer import Viewer
from qtpy.QtWidgets import QWidget

from napari_semsr.core import (
    Job,
    Micrograph,
    Options,
    ShapeError,
    get_figures,
    get_plots,
    get_quantities,
)
from napari_semsr.io import HELPER_KEY
from napari_semsr.jobs import (
    ERROR_MAP,
    PANELS,
    ErrorMapReport,
    MapResult,
    Result,
    Verb,
    crop_to_gap_free_box,
    get_verb,
)
from napari_semsr.widgets.base import (
    Columns,
    Form,
    JobOutput,
    Numbers,
    OptionsForm,
    OutputTarget,
    Panel,
    PanelTask,
    add_opened_image,
    add_stack,
    choose_output_target,
    create_group_forms,
    create_store_edit,
    get_entered_store,
    run_and_open,
)
from napari_semsr.widgets.layers import (
    create_overlay_keywords,
    create_result_name,
    get_input_names,
    get_network_name,
    get_vendor,
    have_same_area,
    hide_other_maps,
    is_ground_truth,
    list_grey_layers,
    list_planes,
)
from napari_semsr.widgets.measure.regions import (
    Cell,
    Region,
    create_region_box,
    crop_to_region,
    format_measured_area_note,
    get_region_box,
    measure_regions,
    propose_partner_layer,
    read_image_pair,
    read_regions,
    show_area_outlines,
)


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """Images processed by a command, and the results."""

    images: Sequence[Micrograph]  # as they were read
    image: Micrograph  # the image made, or the first image measured
    step: str  # the step, as named in the new layer
    planes: Sequence[
        Micrograph
    ] = ()  # planes of the first image, if all were processed
    report: Any = None  # of the command
    output: JobOutput | None = None  # the image made, opened again
    is_part: bool = False  # whether gaps were cropped
    regions: Mapping[str, Columns] = field(default_factory=dict)


_MAX_PLOTS = 2  # plots that the panel's command draws below each other
_DISC_COLOUR = "#56b4e9"  # of Okabe and Ito, distinct for colour-blind users
_DISC_BORDER = 0.06  # share of the median diameter; chosen: the image stays visible


class VerbPanel(Panel):
    """Panel that runs a command on layers to create an image, a map or only metrics."""

    title = ""
    run_label = "Measure"
    verb: Verb[Any, Any]
    input_image = 0  # the image that takes the active layer
    region_help = ""  # action in each region; without it there are none
    helps = ""  # label of the tick box that shows helper layers
    helps_first = False  # whether it is ticked at first
    cuts_gaps = (
        False  # measures and outlines the part where all images have grey values
    )
    output: FileEdit | None = None  # output path of an image that takes long to make
    replace: CheckBox  # existing output

    def __init__(self, viewer: Viewer) -> None:
        first = self.verb
        self.plots |= bool(first.curves)
        super().__init__(viewer, self.title, self.run_label)
        self.titles = {item.name: item.title for item in first.images}
        boxes = self.input_layers.create_image_boxes(first, self._list_layers)
        self.boxes = {box.name: box for box in boxes}
        self.form = OptionsForm(first.options)
        # keys of a project
        self.settings: dict[str, object] = {**self.boxes, "form": self.form}
        rows: list[CheckBox | ComboBox] = [*self.boxes.values()]
        self.regions: ComboBox | None = None
        if self.region_help:
            self.regions = create_region_box(self, self.region_help)
            rows.append(self.regions)
        if first.images[0].stack:
            self.all_planes = self.input_layers.create_planes_box()
            rows.append(self.all_planes)
        self._layers = Form(*rows)
        # folded groups come last
        below: list[QWidget] = [self.form]
        if first.resumes:
            self.output = create_store_edit()
            self.replace = CheckBox(
                name="replace",
                text="Replace an existing store",
                tooltip="If unticked, an existing store is kept.",
            )
            below.append(Form(self.output, self.replace))
        self.add_group("Layers", self._layers, *below)
        self.frames = create_group_forms(first.options)
        for frame, form in self.frames.items():
            self.add_group(frame, form)
        self.add_groups()
        maps = not first.makes_image or issubclass(first.result, MapResult)
        title_below = "Figures" if maps else "Result"
        self.add_results(title_below, *self.create_result_widgets(), helpers=self.helps)
        self.helpers.value = self.helps_first
        self.input_layers.follow_active_layer(
            self.boxes[first.images[self.input_image].name]
        )

    def _list_layers(self) -> list[Layer]:
        """List grey layers, preceded by Labels layers if the command accepts them."""
        others = [
            layer
            for layer in self.viewer.layers
            if isinstance(layer, Labels) and not layer.metadata.get(HELPER_KEY)
        ]
        grey = list_grey_layers(self.viewer)
        return others + grey if "labels" in self.verb.options.model_fields else grey

    def get_output_path(self) -> Path | None:
        """Return the chosen output path."""
        if self.output is None:
            return None
        return get_entered_store(self.output, stack=self.input_layers.uses_all_planes())

    def add_groups(self) -> None:
        """Add option groups between the options and the results."""

    def create_result_widgets(self) -> Sequence[QWidget]:
        """Create the widgets above the metrics."""
        return ()

    def job(self) -> PanelTask:
        """Create the job from the form."""
        verb, layers_chosen = self.verb, [box.value for box in self.boxes.values()]
        layers = [
            layer
            for item, layer in zip(verb.images, layers_chosen, strict=True)
            if layer is not None or not item.optional
        ]
        if self.cuts_gaps:
            images = read_image_pair(self, *layers)
        else:
            images = [self.input_layers.read(layer) for layer in layers]
        for item, layer in zip(verb.images[1:], layers_chosen[1:], strict=True):
            if layer is layers_chosen[0] is not None:
                instead = ", or 'none'" if item.optional else " for one of them"
                msg = (
                    f"The layer {layer.name!r} is chosen as both "
                    f"{self.titles[item.name]} and {next(iter(self.titles.values()))}; "
                    f"choose another{instead}."
                )
                raise ShapeError(msg, code="same-image")
        more = [item for form in self.frames.values() for item in form.values().items()]
        if layers and isinstance(layers[0], Labels):
            more.append(("labels", True))
        options = self.form.create_options(**dict(more))
        planes = list_planes(layers[0]) if self.input_layers.uses_all_planes() else ()
        request = CommandOutcome(images, images[0], self.step(options), planes)
        target = None
        if verb.makes_image:
            title = create_result_name(self.viewer, images[0].name, request.step)
            replaces = self.output is not None and self.replace.value
            there = "replace" if replaces else "refuse"
            sizes = images[0].shape, 1, there
            target = choose_output_target(
                self.output, title, *sizes, planes=len(planes)
            )
        regions = []
        if self.regions is not None:
            regions = read_regions(self, self.regions.value, layers[0])
        make = partial(self._run_command, verb, request, options, target, regions)
        return PanelTask(make, partial(self.show_outcome, layers[0]))

    def _run_command(
        self,
        verb: Verb[Options, Result],
        request: CommandOutcome,
        options: Options,
        target: OutputTarget | None,
        regions: Sequence[Region],
    ) -> Job[CommandOutcome]:
        """Run the command, and measure its results in each region."""
        parts, box = request.images, None
        if self.cuts_gaps:
            parts, box = yield from crop_to_gap_free_box(*parts)
        outcome_written: JobOutput | None = None
        if target is None:
            report = yield from verb.job(*parts, options=options)
        else:
            run = verb.rerun if target.existing == "replace" else verb.job
            images = [request.planes or parts[0], *parts[1:]]
            job = run(*images, output=target.path, options=options)
            outcome_written = yield from run_and_open(job, target)
            report = outcome_written.result
        image = (
            parts[0] if outcome_written is None else outcome_written.output.micrograph
        )
        parts_of_outcome: dict[str, Any] = {
            "output": outcome_written,
            "is_part": box is not None,
        }
        outcome = replace(request, image=image, report=report, **parts_of_outcome)
        measure = partial(self.measure_region, outcome, options)
        return replace(outcome, regions=(yield from measure_regions(regions, measure)))

    def measure_region(
        self, outcome: CommandOutcome, options: Any, region: Region
    ) -> Mapping[str, Cell]:
        """Measure a region with the options of the command."""
        raise NotImplementedError

    def show_outcome(self, layer: Layer, outcome: CommandOutcome) -> Iterator[None]:
        """Add any resulting image as a layer, and show the metrics."""
        report = outcome.report
        figures: Numbers = get_figures(report)
        if isinstance(report, MapResult) and outcome.output is not None:
            map_made = outcome.output.output
            # its kind, its image, its unit in brackets
            kind, _, rest = map_made.micrograph.name.partition(" of ")
            source, _, unit = rest.rpartition(" (")
            with self.result_layers.replace_earlier(
                kind, *self.result_layers.sources
            ) as earlier:
                yield from self.result_layers.remove_earlier(earlier)
                title = create_result_name(self.viewer, source, f"{kind} ({unit}")
                layer_made = add_opened_image(self.viewer, map_made, name=title)
                hide_other_maps(self.viewer, layer_made)
                yield
        elif outcome.output is not None:
            output = outcome.output
            title = create_result_name(
                self.viewer, outcome.images[0].name, outcome.step
            )
            layer_made = (
                add_stack(self.viewer, output, layer, title)
                if output.planes
                else add_opened_image(self.viewer, output.output, name=title)
            )
            yield
            self.compare_with_source(layer_made, layer, outcome)
            if self.output is not None:
                figures = {**figures, "Store": str(report.output)}
        if self.cuts_gaps:
            part = {layer: [outcome.image]} if outcome.is_part else {}
            yield from show_area_outlines(self, part)
            if part:
                figures = {
                    **figures,
                    "Measured": format_measured_area_note(outcome.image),
                }
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

    def step(self, options: Any) -> str:
        """Return the step name that is appended to a layer's name in results."""
        del options
        return self.verb.name.replace("-", " ")

    def compare_with_source(
        self, layer: Image, source: Layer, outcome: CommandOutcome
    ) -> None:
        """Show a resulting image next to its source."""

    def add_marks(self, layer: Layer, outcome: CommandOutcome) -> Iterator[None]:
        """Add helper layers for the result, such as measured discs, step by step."""
        discs = outcome.report.discs()
        if discs is None or layer not in self.viewer.layers:
            return
        middles, diameters = discs
        with self.result_layers.replace_earlier(layer) as earlier:
            yield from self.result_layers.remove_earlier(earlier)
            if len(middles):
                # the ring of a large disc grows less than the disc
                slower = np.sqrt(np.median(diameters) / diameters)
                self.viewer.add_points(
                    middles,
                    name=f"{self.title}: {layer.name}",
                    size=diameters,
                    face_color="transparent",
                    border_color=_DISC_COLOUR,
                    border_width=np.minimum(_DISC_BORDER * slower, 1.0),
                    **create_overlay_keywords(outcome.image, self.title, layer),
                )

    def sentence(self, outcome: CommandOutcome) -> str:
        """Return a sentence with the main values, to be shown above the metrics."""
        report = outcome.report
        figures = get_figures(report)
        quantities = (q for q, _ in get_quantities(type(report)).values())
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

    def draw_plots(self, report: Any) -> Mapping[str, Columns]:
        """Draw the plots that the command declares, and return their columns."""
        if not self.plots:
            return {}
        from napari_semsr.widgets.base import draw_plot

        curves: dict[str, Columns] = {}
        canvas = self.results.clear_plot(rows=_MAX_PLOTS, height=230)
        plots = get_plots(report, self.verb.curves)
        for axes, plot in zip(canvas.axes, plots, strict=False):
            draw_plot(axes, plot)
            curves |= plot.columns
        canvas.refresh()
        return curves


class GroundTruthPanel(VerbPanel):
    """Panel that runs a command on a layer, with the ground truth if available."""

    cuts_gaps = True
    helps = "Show what was measured"

    _propose: Callable[[], None] | None = None  # before the lists exist

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer)
        self.image, self.reference = self.boxes.values()
        self.sharing.reference = self.reference
        self._propose = propose_partner_layer(
            self, self.image, self.reference, self.rank_reference
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
        if is_ground_truth(image):
            return 0
        sem = bool(get_vendor(other)) and not get_vendor(image)
        return 3 if is_ground_truth(other) else 2 * sem


_NEAR = 0.02  # share of a side: tolerance for coinciding edges; chosen


def __getattr__(name: str) -> type[VerbPanel]:
    """Return a panel class that is generated from a command."""
    titles = [title for title, verb in PANELS.items() if verb == name]
    if not titles:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    verb = get_verb(name)
    class_values: dict[str, object] = {"title": titles[0], "verb": verb}
    if verb is not None and verb.result.discs is not Result.discs:
        class_values |= {"helps": "Show what was measured", "helps_first": True}
    return type("OneVerbPanel", (VerbPanel,), class_values)


class ErrorMapPanel(VerbPanel):
    """Panel that maps differences between a layer and its reference, or two scans."""

    title, run_label = "Error map", "Map errors"
    help_place = "error_map.md"
    verb = ERROR_MAP
    input_image = 1
    region_help = (
        "the error is summarised for each of its regions. Blur, gain and offset are "
        "those of the whole field."
    )

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer)
        self.form.on_change("scans", self._update_layer_labels)
        before, after = self.boxes.values()
        after.changed.connect(partial(self._propose_layer, before, after))
        self._propose_layer(before, after)

    def _update_layer_labels(self, scans: bool) -> None:
        """Label the layers by role; if both are scans, neither is the reference."""
        titles = ("First scan", "Second scan") if scans else ("Reference", "Enhanced")
        self.titles = dict(zip(self.boxes, titles, strict=True))
        for item in self.verb.images:
            self._layers.relabel(item.name, self.titles[item.name], item.tooltip)

    def _propose_layer(
        self, before: ComboBox, after: ComboBox, _: object = None
    ) -> None:
        """Propose a layer of the same area that is not a network output."""
        before_layer, after_layer = before.value, after.value
        if after_layer is None:
            return
        is_kept = before_layer not in (None, after_layer) and have_same_area(
            after_layer, before_layer, _NEAR
        )
        if is_kept and get_network_name(before_layer) is None:
            return
        candidates: list[Layer] = [
            layer
            for layer in reversed(list_grey_layers(self.viewer))
            if layer is not after_layer and have_same_area(after_layer, layer, _NEAR)
        ]
        plain = [layer for layer in candidates if get_network_name(layer) is None]
        layers_named = [
            layer for layer in plain if layer.name in get_input_names(after_layer)
        ]
        best = next(iter([*layers_named, *plain, *candidates]), None)
        if best is not None:
            before.value = best

    def measure_region(
        self, outcome: CommandOutcome, options: Options, region: Region
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
            raise ShapeError(msg, code="no-finite-values")
        name = "RSE" if isinstance(report, ErrorMapReport) else "r.m.s."
        unit = "grey levels" if report.unit == "grey" else "%"
        return {
            "pixels": int(finite.size),
            f"{name} ({unit})": float(np.sqrt(np.square(finite).mean())),
            f"median ({unit})": float(np.median(finite)),
            f"95 % below ({unit})": float(np.percentile(finite, 95)),
        }
