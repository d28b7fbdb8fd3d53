"""Panel that measures layers with a command, whole or in regions that the user drew.

It has layer lists, a form, figures, plots and perhaps a map.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from magicgui.widgets import ComboBox
from magicgui.widgets.bases import Widget
from napari.layers import Image, Labels, Layer, Shapes
from qtpy.QtWidgets import QWidget

from napari_semsr import core, jobs
from napari_semsr.widgets import base, layers

_MAX_REGIONS = 200  # labels and shapes of one layer; chosen: a readable table


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """Copy of a region at the time of the request, in nm or viewer pixels."""

    name: str
    kind: str  # polygon, ellipse or label
    # vertices (N, 2); of a label, the matrix to pixels, (3, 2)
    vertices: core.FloatArray
    labels: core.RealArray | None = None
    label: int = 0

    def get_extent(self) -> tuple[core.FloatArray, core.FloatArray]:
        """Return the smallest and largest ``(y, x)`` of the region."""
        corners = self.vertices
        if self.labels is not None:
            at = np.nonzero(self.labels == self.label)
            low, high = np.min(at, axis=1) - 0.5, np.max(at, axis=1) + 0.5
            ends = np.array(list(product(*zip(low, high, strict=True))))
            to_places = np.linalg.inv(self.vertices[:2])
            corners = ends @ to_places.T + self.vertices[2]
        return corners.min(axis=0), corners.max(axis=0)

    def contains(self, places: core.FloatArray) -> core.BoolArray:
        """Return a mask (N,) of the positions (N, 2) that are inside the region."""
        if self.labels is not None:
            at = np.rint((places - self.vertices[2]) @ self.vertices[:2].T).astype(int)
            size = np.array(self.labels.shape)
            there = np.all((at >= 0) & (at < size), axis=1)
            is_inside = np.zeros(len(places), bool)
            is_inside[there] = self.labels[tuple(at[there].T)] == self.label
            return is_inside
        if self.kind == "ellipse":
            middle = self.vertices.mean(axis=0)
            axes = (self.vertices[[1, 3]] - self.vertices[0]) / 2
            along = (places - middle) @ np.linalg.inv(axes)
            return np.asarray(np.square(along).sum(axis=1) <= 1)
        from skimage.measure import points_in_poly  # slow to import

        return np.asarray(points_in_poly(places, self.vertices))


def create_region_box(panel: base.VerbPanel, what: str) -> ComboBox:
    """Add a list of layers with regions; `what` describes their use in the tooltip."""
    return panel.input_layers.create_box(
        "regions",
        "Regions",
        f"A Shapes or Labels layer: {what}",
        layers=lambda: layers.list_user_layers(panel.viewer, Shapes, Labels),
        none="none: whole field",
    )


def read_regions(
    panel: base.VerbPanel, layer: Layer | None, image: Image
) -> list[Region]:
    """Read all regions of a layer in the plane of an image."""
    if layer is None:
        return []
    scale = layers.get_drawing_scale(layer, image)
    if isinstance(layer, Labels):
        here = layers.get_displayed_plane(layer, panel.viewer.dims)
        plane = np.asarray(layers.get_finest_level(layer)[here])
        linear, shift = layers.get_display_transform(layer)
        to_places = scale[:, None] * linear / layers.get_display_fit(image)[0]
        shift = layers.world_to_layer(image, shift) * scale
        place = np.vstack([np.linalg.inv(to_places), shift])
        names = np.unique(plane)
        regions = [
            Region(f"label {name}", "label", place, plane, int(name))
            for name in names[names != 0].tolist()
        ]
    else:
        regions = []
        for index in layers.find_visible_shapes(layer, panel.viewer.dims):
            kind, shape = layer.shape_type[index], layer.data[index]
            world = [layer.data_to_world(vertex)[-2:] for vertex in shape]
            vertices = layers.world_to_layer(image, world)
            area = "ellipse" if kind == "ellipse" else "polygon"
            # lines and paths are ignored
            if kind in {"rectangle", "ellipse", "polygon"} and len(vertices) > 2:
                regions.append(Region(f"{kind} {index + 1}", area, vertices * scale))
    if not 0 < len(regions) <= _MAX_REGIONS:
        msg = (
            f"Regions must be 1 to {_MAX_REGIONS} rectangles, ellipses, polygons or "
            f"labels, got {len(regions)} in the displayed plane of {layer.name!r}; "
            "draw some there, or choose 'none'."
        )
        if not regions:
            raise core.OptionError(msg, code="regions-missing")
        raise core.OptionError(msg, code="out-of-range")
    return regions


# Pixels inside regions.

_EDGE = 1e-6  # px; tolerance of rounding; chosen
_BAND = 1 << 20  # pixels tested at a time; chosen: 30 MB
Cell = float | int | str | None


def get_region_box(region: Region, image: core.Micrograph) -> core.Box:
    """Return the pixel box that contains a region of an image.

    Raises `ShapeError` if the region is outside the image.
    """
    low, high = ((end - image.origin) / image.scale for end in (region.get_extent()))
    first = np.maximum(np.ceil(low - _EDGE), 0).astype(int)
    last = np.minimum(np.floor(high + _EDGE) + 1, image.shape).astype(int)
    if np.any(last <= first):
        msg = f"Region {region.name} is outside {image.name}; move it onto the image."
        raise core.ShapeError(msg, code="outside-image")
    return core.Box(int(first[0]), int(last[0]), int(first[1]), int(last[1]))


def crop_to_region(
    region: Region, image: core.Micrograph, box: core.Box
) -> core.Micrograph:
    """Crop an image to a box; set pixels centred outside the region to NaN."""
    part = core.crop_to_box(image, box)
    values = np.array(part.data, dtype=np.float64)
    columns = np.arange(part.shape[1])
    step = max(1, _BAND // len(columns))
    for start in range(0, len(values), step):
        rows = np.arange(start, min(start + step, len(values)))
        at = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
        places = np.asarray(at * part.scale + part.origin, dtype=np.float64)
        is_inside = region.contains(places)
        band = values[start : start + step]
        band[~is_inside.reshape(band.shape)] = np.nan
    return part.replace(data=values)


def crop_to_inner_rectangle(
    region: Region, *images: core.Micrograph
) -> tuple[core.Micrograph, ...]:
    """Crop images on a common grid to the largest rectangle inside a region."""
    box = get_region_box(region, images[0])
    parts = [crop_to_region(region, image, box) for image in images]
    _, inner = core.run(jobs.crop_to_gap_free_box(*parts))
    inner = core.Box.from_shape(box.shape) if inner is None else inner
    there = core.Box.from_shape(inner.shape, (box.y0 + inner.y0, box.x0 + inner.x0))
    return tuple(core.crop_to_box(image, there) for image in images)


def measure_regions(
    regions: Sequence[Region], measure: Callable[[Region], Mapping[str, Cell]]
) -> core.Job[Mapping[str, base.Columns]]:
    """Measure each region; on failure, note the reason in its row."""
    if not regions:
        return {}
    rows: list[Mapping[str, Cell]] = []
    for number, region in enumerate(regions):
        yield core.Progress(number, len(regions), f"measuring in {region.name}")
        try:
            cells = measure(region)
        except core.SemsrError as error:
            cells = {"note": str(error)}
        rows.append({"region": region.name, **cells})
    heads = list(dict.fromkeys(name for row in rows for name in row))
    heads.sort(key="note".__eq__)
    return {"Regions": {name: [row.get(name) for row in rows] for name in heads}}


_PART = "measured part"
_CROP = "crop them to a common grid in the panel Open, under Crop."
_APART_PX = 0.5  # beyond this, another pixel is the nearest
_COLOUR = "#ff8fd8"  # does not occur in viridis: visible on a map


def read_image_pair(
    panel: base.VerbPanel, first: Image, second: Image | None = None
) -> list[core.Micrograph]:
    """Read a layer and, if given, a second one of the same shape and position."""
    pair = [first] if second is None else [first, second]
    images = [panel.input_layers.read(layer) for layer in pair]
    shapes = [image.shape for image in images]
    if shapes[0] != shapes[-1]:
        texts = " and ".join(map(core.format_shape, shapes))
        msg = f"Both images must have the same shape, got {texts}; {_CROP}"
        raise core.ShapeError(msg, code="sizes-differ")
    pitch = np.array(images[0].scale)
    off = np.abs(np.subtract(images[-1].origin, images[0].origin)) / pitch
    if images[0].unit == images[-1].unit and off.max() > _APART_PX:
        y, x = map(core.format_number, off)
        msg = (
            f"Both images must be at the same position, but {pair[-1].name!r} is off "
            f"{first.name!r} by {y} px vertically and {x} px horizontally; {_CROP}"
        )
        raise core.ShapeError(msg, code="origins-differ")
    return images


def format_measured_area_note(part: core.Micrograph) -> str:
    """Return a note that states the shape of the measured part."""
    return f"in the largest gap-free rectangle, {core.format_shape(part.shape)}"


def show_area_outlines(
    panel: base.VerbPanel, parts: Mapping[Layer, Sequence[core.Micrograph]]
) -> Iterator[None]:
    """Outline the measured areas of layers, replacing the panel's earlier outlines.

    Layers removed in the meantime get no outline.
    """
    with panel.result_layers.replace_earlier(_PART) as earlier:
        yield from panel.result_layers.remove_earlier(earlier)
        present = [(layer, of) for layer, of in parts.items() if of]
        there = dict(one for one in present if one[0] in panel.viewer.layers)
        outlines = [one for of in there.values() for one in of]
        if outlines:
            first = outlines[0]
            grids = map(core.Grid.from_image, outlines)
            ends = np.array([[grid.corner, grid.end] for grid in grids])
            panel.viewer.add_shapes(
                list((ends - first.origin) / first.scale),
                shape_type="rectangle",
                name=f"{panel.title}: {_PART}",
                edge_color=_COLOUR,
                edge_width=max(1.0, max(first.shape) / 150),
                face_color="transparent",
                **layers.create_overlay_keywords(first, panel.title, next(iter(there))),
            )
            yield


Command = jobs.Verb[Any, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """Call of a command, as its panel has read it."""

    verb: Command
    images: Mapping[str, core.Micrograph]  # by the command's names for them
    options: Any
    path: Path | None  # of the map
    areas: Sequence[Region]
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
    areas: Sequence[Region] = ()
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
        is_other_unit = label in texts and not quantity.also  # px beside nm
        if not quantity.large or value is None or is_other_unit:
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

    def build_form(self) -> None:
        """Build the form: layers, further rows, options, and results."""
        boxes = self.create_boxes()
        self.boxes = {box.name: box for box in boxes}
        self.form = base.OptionsForm(self.verb.options)
        # keys of a project
        self.settings: dict[str, object] = {**self.boxes, "form": self.form}
        self.regions = create_region_box(self, self.region_help)
        self.layer_form = base.Form(*boxes, *self.create_rows(), self.regions)
        self.add_group("Layers", self.layer_form, self.form)
        self.add_controls()
        self.add_results("Result", helpers=self.helps, ticks=self.create_tables())
        base.FolderRun(self, self.create_options, images=boxes)
        self.input_layers.follow_active_layer(boxes[self.input_image])

    def create_rows(self) -> Sequence[Widget | QWidget]:
        """Create the rows below the lists of layers."""
        return ()

    def create_tables(self) -> Sequence[QWidget]:
        """Create the tables above the buttons of the results."""
        return ()

    def add_controls(self) -> None:
        """Add controls between the options and the results."""

    def create_boxes(self) -> list[ComboBox]:
        """Create the lists of the layers that the command reads."""
        first = self.verb.images[self.input_image].name
        return self.input_layers.create_image_boxes(self.verb, self.list_layers, first)

    def list_layers(self) -> list[Layer]:
        """List the layers that can be measured."""
        return list(layers.list_grey_layers(self.viewer))

    def create_options(self, **more: object) -> Any:
        """Read the options of the command from the form."""
        return self.form.create_options(**more)

    def read_more(self, _: Sequence[core.Micrograph]) -> dict[str, Any]:
        """Return what else `run_command` needs of the form and the images."""
        return {}

    def create_request(self) -> base.JobRequest:
        """Read the form, and return the request of the job that Run starts."""
        verb, boxes = self.verb, dict[str, ComboBox]()
        for item, box in zip(self.verb.images, self.boxes.values(), strict=False):
            if box.value is not None or not item.optional:
                boxes[item.name] = box
        layer, *others = chosen = [box.value for box in boxes.values()]
        if self.on_one_grid:
            images = read_image_pair(self, *chosen)
        else:
            images = [self.input_layers.read(one) for one in chosen]
        if layer in others:
            labels_chosen = " and ".join(box.label for box in boxes.values())
            instead = ", or 'none'" if verb.images[1].optional else " for one of them"
            msg = f"The layer {layer.name!r} is chosen as {labels_chosen}; "
            msg += f"choose another{instead}."
            raise core.ShapeError(msg, code="same-image")
        path = None
        if verb.makes_image:
            name, shape = images[0].name, images[0].shape
            title = layers.create_result_name(self.viewer, name, self.map_name)
            path = base.choose_store_path(None, title, shape)
        call = Call(
            verb,
            dict(zip(boxes, images, strict=True)),
            self.create_options(),
            path,
            read_regions(self, self.regions.value, layer),
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
        measure = partial(self.measure_region, outcome)
        rows = yield from measure_regions(call.areas, measure)
        # here, as intervals take a second of ten thousand particles
        figures, sentence = self.figures_of(outcome), self.sentence(outcome)
        return replace(outcome, regions=rows, figures=figures, sentence=sentence)

    def run_command(self, call: Call, **more: object) -> core.Job[Measurement]:
        """Run the command, and open the map that it writes."""
        more |= {**call.images, "output": call.path, "options": call.options}
        job = call.verb.job(**more)
        if call.path is None:
            return Measurement((yield from job))
        done = yield from base.run_and_open(job, call.path)
        return Measurement(done.report, done.opened[0])

    def measure_region(
        self, outcome: Measurement, region: Region
    ) -> Mapping[str, Cell]:
        """Measure a region."""
        raise NotImplementedError

    # -- showing -------------------------------------------------------------------

    def show_measurement(self, layer: Layer, outcome: Measurement) -> Iterator[None]:
        """Add layers, outline what was measured, draw plots, and show the results."""
        part, whole = next(zip(outcome.parts, outcome.images, strict=True))
        yield from self.add_layers(layer, outcome)
        figures = outcome.figures
        if self.cuts_gaps:
            cut = {layer: [part]} if part.shape != whole.shape else {}
            yield from show_area_outlines(self, cut)
            if cut:
                figures = {**figures, "Measured": format_measured_area_note(part)}
        yield
        plots, curves = self.list_plots(outcome), dict[str, base.Columns]()
        if self.plots:
            canvas = self.results.clear_plot(rows=2, height=230)
            for axes, plot in zip(canvas.axes, plots, strict=False):
                base.draw_plot(axes, plot)
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

    def add_layers(self, _: Layer, outcome: Measurement) -> Iterator[None]:
        """Add the layers of the result, step by step."""
        layers_made = self.result_layers
        if outcome.opened is not None:
            with layers_made.replace_earlier(*layers_made.sources) as earlier:
                yield from layers_made.remove_earlier(earlier)
                yield from self.add_map(outcome, outcome.opened)

    def add_map(self, outcome: Measurement, opened: base.OpenedImage) -> Iterator[None]:
        """Add the map as a layer."""
        source = outcome.report.images[self.input_image]
        # the unit in brackets
        _, bracket, unit = str(opened.micrograph.quantity).rpartition(" (")
        step = f"{self.map_name}{bracket}{unit}"
        title = layers.create_result_name(self.viewer, source, step)
        layer_made = base.add_opened_image(self.viewer, opened, name=title)
        layers.hide_other_maps(self.viewer, layer_made)
        yield

    def figures_of(self, outcome: Measurement) -> base.Numbers:
        """Return the figures of a result, the large one first."""
        return core.get_figures(outcome.report)

    def list_plots(self, outcome: Measurement) -> list[core.Plot]:
        """Return the plots of a result, of which two fit."""
        return core.get_plots(outcome.report, self.verb.curves)

    def list_curves(self, _: Measurement) -> dict[str, base.Columns]:
        """Return the tables that are saved with numbers and curves."""
        return {}

    def sentence(self, outcome: Measurement) -> str:
        """Return the sentence that answers the panel's question."""
        one, *others = outcome.report.images
        names = f"{others[0]} against {one}" if others else one
        if others and self.verb.images[1].optional:
            names = f"{one} against {others[0]}"
        result = describe_result(outcome.report)
        return f"{result}: {names}" if result else f"Measured {names}"

    def format_remarks(self, _: Measurement) -> str:
        """Return a legend or further remarks, as rich text."""
        return ""


class ReferencePanel(MeasurePanel):
    """Panel that runs a command on a layer, with the ground truth if available."""

    cuts_gaps = True
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
            worse = (i for i in self.image.choices if self.rank_reference(i, image))
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
