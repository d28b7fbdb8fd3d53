"""A panel generated from a command: lists of layers, a form, figures, a map."""

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
    figures_of,
    plots_of,
    quantities_of,
)
from napari_semsr.io import HELPER_KEY
from napari_semsr.jobs import (
    ERROR_MAP,
    PANELS,
    ErrorMapReport,
    MapMade,
    Result,
    Verb,
    cut_gaps,
    verb_of,
)
from napari_semsr.widgets.base import (
    Columns,
    Form,
    Numbers,
    Opened,
    OptionsForm,
    Outcome,
    Panel,
    Target,
    Work,
    add_opened,
    add_stack,
    frames_of,
    store_edit,
    store_target,
    typed_store,
    write_outcome,
)
from napari_semsr.widgets.layers import (
    grey_layers,
    hide_other_maps,
    inputs_of,
    is_truth,
    lying_over,
    network_of,
    on_one_place,
    planes_of,
    result_name,
    vendor_of,
)
from napari_semsr.widgets.measure.regions import (
    Cell,
    Region,
    box_of,
    cut_out,
    new_region_box,
    part_note,
    propose_partner,
    read_pair,
    read_regions,
    region_table,
    show_outline,
)


@dataclass(frozen=True, slots=True)
class VerbOutcome:
    """Results of a command for the same images."""

    images: Sequence[Micrograph]  # as they were read
    image: Micrograph  # the image made, or the first image measured
    step: str  # the step, as named in the new layer
    planes: Sequence[
        Micrograph
    ] = ()  # planes of the first image, if all were processed
    report: Any = None  # of the command
    output: Outcome | None = None  # the image made, opened again
    is_part: bool = False  # whether gaps were cropped
    regions: Mapping[str, Columns] = field(default_factory=dict)


_MAX_PLOTS = 2  # plots that the panel's command draws below each other
_DISC_COLOUR = "#56b4e9"  # of Okabe and Ito, distinct for colour-blind users
_DISC_BORDER = 0.06  # share of the median diameter; chosen: the image stays visible


class VerbPanel(Panel):
    """Runs a command on layers; it makes an image, a map or only figures."""

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
        super().__init__(viewer, self.title, self.run_label)
        first = self.verb
        self.plots |= bool(first.curves)
        self.titles = {item.name: item.title for item in first.images}
        self.boxes = {
            item.name: self.new_layer_box(
                item.name,
                item.title,
                item.tooltip,
                layers=self._listed,
                none="none" if item.optional else None,
            )
            for item in first.images
        }
        self.form = OptionsForm(first.options)
        # keys of a project
        self.settings: dict[str, object] = {**self.boxes, "form": self.form}
        rows: list[CheckBox | ComboBox] = [*self.boxes.values()]
        self.regions: ComboBox | None = None
        if self.region_help:
            self.regions = new_region_box(self, self.region_help)
            rows.append(self.regions)
        if first.images[0].stack:
            rows.append(self.new_planes_box())
        self._layers = Form(*rows)
        # folded groups come last
        below: list[QWidget] = [self.form]
        if first.resumes:
            below.append(self._ask_place())
        self.add_group("Layers", self._layers, *below)
        self.frames = frames_of(first.options)
        for frame, form in self.frames.items():
            self.add_group(frame, form)
        self.add_groups()
        maps = not first.makes_image or issubclass(first.result, MapMade)
        title_below = "Figures" if maps else "Result"
        self.add_results(title_below, *self.result_widgets(), helpers=self.helps)
        self.helpers.value = self.helps_first
        self.take_input(self.boxes[first.images[self.input_image].name])

    def _listed(self) -> list[Layer]:
        """List grey layers, after Labels layers if the command accepts them."""
        others = [
            layer
            for layer in self.viewer.layers
            if isinstance(layer, Labels) and not layer.metadata.get(HELPER_KEY)
        ]
        grey = grey_layers(self.viewer)
        return others + grey if "labels" in self.verb.options.model_fields else grey

    def writes(self) -> Path | None:
        """Return the chosen output path."""
        if self.output is None:
            return None
        return typed_store(self.output, stack=self.takes_stack())

    def _ask_place(self) -> Form:
        self.output = store_edit()
        self.replace = CheckBox(
            name="replace",
            text="Replace an existing store",
            tooltip="If unticked, an existing store is kept.",
        )
        return Form(self.output, self.replace)

    def add_groups(self) -> None:
        """Add groups between the options and the results."""

    def result_widgets(self) -> Sequence[QWidget]:
        """Return the widgets above the figures."""
        return ()

    def job(self) -> Work:
        """Read the form."""
        verb, layers_chosen = self.verb, [box.value for box in self.boxes.values()]
        layers = [
            layer
            for item, layer in zip(verb.images, layers_chosen, strict=True)
            if layer is not None or not item.optional
        ]
        if self.cuts_gaps:
            images = read_pair(self, *layers)
        else:
            images = [self.micrograph(layer) for layer in layers]
        for item, layer in zip(verb.images[1:], layers_chosen[1:], strict=True):
            if layer is layers_chosen[0] is not None:
                instead = ", or 'none'" if item.optional else " for one of them"
                msg = (
                    f"{self.titles[item.name]} and {next(iter(self.titles.values()))} "
                    f"are both the layer {layer.name!r}; choose another{instead}."
                )
                raise ShapeError(msg, code="same-image")
        more = [item for form in self.frames.values() for item in form.values().items()]
        if layers and isinstance(layers[0], Labels):
            more.append(("labels", True))
        options = self.form.options(**dict(more))
        planes = planes_of(layers[0]) if self.takes_stack() else ()
        request = VerbOutcome(images, images[0], self.step(options), planes)
        target = None
        if verb.makes_image:
            title = result_name(self.viewer, images[0].name, request.step)
            replaces = self.output is not None and self.replace.value
            there = "replace" if replaces else "refuse"
            sizes = images[0].shape, 1, there
            target = store_target(self.output, title, *sizes, planes=len(planes))
        regions = []
        if self.regions is not None:
            regions = read_regions(self, self.regions.value, layers[0])
        make = partial(self._run_verbs, verb, request, options, target, regions)
        return Work(make, partial(self.show_outcome, layers[0]))

    def _run_verbs(
        self,
        verb: Verb[Options, Result],
        request: VerbOutcome,
        options: Options,
        target: Target | None,
        regions: Sequence[Region],
    ) -> Job[VerbOutcome]:
        """Run the command, and summarise its results in regions."""
        parts, box = request.images, None
        if self.cuts_gaps:
            parts, box = yield from cut_gaps(*parts)
        outcome_written: Outcome | None = None
        if target is None:
            report = yield from verb.job(*parts, options=options)
        else:
            run = verb.anew if target.existing == "replace" else verb.job
            images = [request.planes or parts[0], *parts[1:]]
            job = run(*images, output=target.path, options=options)
            outcome_written = yield from write_outcome(job, target)
            report = outcome_written.result
        image = (
            parts[0] if outcome_written is None else outcome_written.output.micrograph
        )
        parts_of_outcome: dict[str, Any] = {
            "output": outcome_written,
            "is_part": box is not None,
        }
        outcome = replace(request, image=image, report=report, **parts_of_outcome)
        measure = partial(self.in_region, outcome, options)
        return replace(outcome, regions=(yield from region_table(regions, measure)))

    def in_region(
        self, outcome: VerbOutcome, options: Any, region: Region
    ) -> Mapping[str, Cell]:
        """Measure in a region; `options` are those of the command."""
        raise NotImplementedError

    def show_outcome(self, layer: Layer, outcome: VerbOutcome) -> Iterator[None]:
        """Add the image made as a layer, and show the figures."""
        report = outcome.report
        figures: Numbers = figures_of(report)
        if isinstance(report, MapMade) and outcome.output is not None:
            yield from self._add_map(outcome.output.output)
        elif outcome.output is not None:
            yield from self._add_image(layer, outcome, outcome.output)
            if self.output is not None:
                figures = {**figures, "Store": str(report.output)}
        if self.cuts_gaps:
            part = {layer: [outcome.image]} if outcome.is_part else {}
            yield from show_outline(self, part)
            if part:
                figures = {**figures, "Measured": part_note(outcome.image)}
        yield from self.mark(layer, outcome)
        yield
        # rows of a report are saved with its curves, as there may be thousands
        curves = {**self.draw(report), **report.tables()}
        yield
        self.show_result(
            figures,
            self.sentence(outcome),
            curves=curves,
            tables=outcome.regions,
            more=self.legend(report),
        )

    def _add_map(self, opened_store: Opened) -> Iterator[None]:
        """Add a map over the images, replacing the previous one."""
        # its kind, its image, its unit in brackets
        kind, _, rest = opened_store.micrograph.name.partition(" of ")
        source, _, unit = rest.rpartition(" (")
        with self.in_place(kind, *self._source_planes) as earlier:
            yield from self.take_away(earlier)
            title = result_name(self.viewer, source, f"{kind} ({unit}")
            layer = add_opened(self.viewer, opened_store, name=title)
            hide_other_maps(self.viewer, layer)
            yield

    def _add_image(
        self, source: Layer, outcome: VerbOutcome, outcome_made: Outcome
    ) -> Iterator[None]:
        """Add an image, or a stack of all planes, as a further layer."""
        title = result_name(self.viewer, outcome.images[0].name, outcome.step)
        if outcome_made.planes:
            layer = add_stack(self.viewer, outcome_made, source, title)
        else:
            layer = add_opened(self.viewer, outcome_made.output, name=title)
        yield
        self.compare(layer, source, outcome)

    def step(self, options: Any) -> str:
        """Return the text that follows a layer's name in the name of a result."""
        del options
        return self.verb.name.replace("-", " ")

    def compare(self, layer: Image, source: Layer, outcome: VerbOutcome) -> None:
        """Show an image next to its source."""

    def mark(self, layer: Layer, outcome: VerbOutcome) -> Iterator[None]:
        """Add layers that explain the result, step by step: its discs, if any."""
        discs = outcome.report.discs()
        if discs is None or layer not in self.viewer.layers:
            return
        middles, diameters = discs
        with self.in_place(layer) as earlier:
            yield from self.take_away(earlier)
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
                    **lying_over(outcome.image, self.title, layer),
                )

    def sentence(self, outcome: VerbOutcome) -> str:
        """Return the sentence above the figures, and its main value."""
        report = outcome.report
        figures = figures_of(report)
        quantities = (q for q, _ in quantities_of(type(report)).values())
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

    def legend(self, report: Any) -> str:
        """Return a legend of the marks, as rich text."""
        del report
        return ""

    def draw(self, report: Any) -> Mapping[str, Columns]:
        """Draw the plots that the command declares, and return their columns."""
        if not self.plots:
            return {}
        from napari_semsr.widgets.base import draw_plot

        curves: dict[str, Columns] = {}
        canvas = self.clear_plot(rows=_MAX_PLOTS, height=230)
        plots = plots_of(report, self.verb.curves)
        for axes, plot in zip(canvas.axes, plots, strict=False):
            draw_plot(axes, plot)
            curves |= plot.columns
        canvas.refresh()
        return curves


class TruthPanel(VerbPanel):
    """Runs a command on a layer, compared with the ground truth if there is one."""

    cuts_gaps = True
    helps = "Show what was measured"

    _propose: Callable[[], None] | None = None  # before the lists exist

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer)
        self.image, self.reference = self.boxes.values()
        self._propose = propose_partner(self, self.image, self.reference, self.rank)
        image = self.image.value
        if image is not None and self.reference.value is None:
            worse = (one for one in self.image.choices if self.rank(one, image))
            self.image.value = next(worse, image)

    def _take_active(self, event: object = None) -> None:
        """Choose the newly active layer, unless it is the reference."""
        active = self.viewer.layers.selection.active
        if self._propose is not None and active in self.reference.choices:
            self._propose()
            if active is self.reference.value:
                self._active = active
                return
        super()._take_active(event)

    @staticmethod
    def rank(image: Layer, other: Layer) -> int:
        """Rank a layer as reference of an image: its ground truth, then SEM."""
        if is_truth(image):
            return 0
        sem = bool(vendor_of(other)) and not vendor_of(image)
        return 3 if is_truth(other) else 2 * sem


_NEAR = 0.02  # share of a side: tolerance for coinciding edges; chosen


def __getattr__(name: str) -> type[VerbPanel]:
    """Return the panel class that is generated from a command alone."""
    titles = [title for title, verb in PANELS.items() if verb == name]
    if not titles:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    verb = verb_of(name)
    class_values: dict[str, object] = {"title": titles[0], "verb": verb}
    if verb is not None and verb.result.discs is not Result.discs:
        class_values |= {"helps": "Show what was measured", "helps_first": True}
    return type("OneVerbPanel", (VerbPanel,), class_values)


class ErrorMapPanel(VerbPanel):
    """Maps where a layer differs from its reference, or two scans from each other."""

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
        self.form.on_change("scans", self._name_layers)
        before, after = self.boxes.values()
        after.changed.connect(partial(self._propose, before, after))
        self._propose(before, after)

    def _name_layers(self, scans: bool) -> None:
        """Label the layers by their role: neither of two scans is the reference."""
        titles = ("First scan", "Second scan") if scans else ("Reference", "Enhanced")
        self.titles = dict(zip(self.boxes, titles, strict=True))
        for item in self.verb.images:
            self._layers.relabel(item.name, self.titles[item.name], item.tooltip)

    def _propose(self, before: ComboBox, after: ComboBox, _: object = None) -> None:
        """Propose the layer of the same area that is not a network's output."""
        before_layer, after_layer = before.value, after.value
        if after_layer is None:
            return
        is_kept = before_layer not in (None, after_layer) and on_one_place(
            after_layer, before_layer, _NEAR
        )
        if is_kept and network_of(before_layer) is None:
            return
        candidates: list[Layer] = [
            layer
            for layer in reversed(grey_layers(self.viewer))
            if layer is not after_layer and on_one_place(after_layer, layer, _NEAR)
        ]
        plain = [layer for layer in candidates if network_of(layer) is None]
        layers_named = [
            layer for layer in plain if layer.name in inputs_of(after_layer)
        ]
        best = next(iter([*layers_named, *plain, *candidates]), None)
        if best is not None:
            before.value = best

    def in_region(
        self, outcome: VerbOutcome, options: Options, region: Region
    ) -> Mapping[str, Cell]:
        """Summarise the errors in one region."""
        del options
        report, error_map = outcome.report, outcome.image
        values = cut_out(region, error_map, box_of(region, error_map)).array()
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
