"""Spectrum and quality: metrics, grey levels and spectra of layers; Compare."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from magicgui.widgets import CheckBox
from magicgui.widgets.bases import Widget
from napari.layers import Layer
from napari.viewer import Viewer
from qtpy.QtWidgets import QWidget

from napari_semsr import core, jobs
from napari_semsr.analysis import Histogram, measure_histogram
from napari_semsr.io import HELPER_KEY
from napari_semsr.widgets import layers
from napari_semsr.widgets.compare import CompareControls
from napari_semsr.widgets.measure import panel

# The centred spectrum as a layer, and its labelled rings.
#
# A spectrum's axes are frequencies, but a viewer has one unit: a layer in µm⁻¹, or one
# in pixels, would switch off the scale bar of all layers. So the spectrum is placed
# next to its image, with the image's size and unit, and its scale is drawn onto it:
# rings labelled with their period.

_GAP = 1.06  # image widths from an image to its spectrum; chosen
_RADII = (0.85, 0.5, 0.25)  # of the rings that are drawn; chosen
_NICE = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)  # periods that a ring may have; chosen
_STEPS = np.outer(10.0 ** np.arange(-3, 8), _NICE).ravel()
_MIN_RADIUS_PX = 6  # of a ring; chosen
_COLOUR = "#ffd400"


def _add_spectrum_layers(
    viewer: Viewer, image: core.Micrograph, plane: core.RealArray, place: int
) -> Iterator[None]:
    """Add a centred spectrum (Y, X) as a layer to the right of its image, with rings.

    It is as large as the image; `place` is its index among several. Its metadata hold
    the frequency of one pixel.
    """
    has_size = image.pixel_size_nm is not None
    unit = "nm" if has_size else "px"
    own = image.scale if has_size else (1.0, 1.0)
    extent, shape = np.multiply(image.shape, own), np.array(plane.shape)
    pitch = tuple((np.multiply(image.scale, image.shape) / shape).tolist())
    y, x = image.origin
    size: Any = {"pixel_size_nm" if has_size else "spacing_px": pitch}
    grid = image.replace(
        data=plane,
        look=jobs.create_spectrum_display(plane),
        origin=(y, x + place * _GAP * image.shape[1] * image.scale[1]),
        provenance=jobs.compose_derived_provenance("spectrum", {}, image=image),
        **size,
    )
    name = layers.create_result_name(viewer, image.name, "spectrum")
    keywords = layers.create_layer_keywords(grid, name=name)
    keywords["metadata"]["spectrum"] = {
        f"frequency_step_per_{unit}": tuple((1 / (shape * own)).tolist()),
        "quantity": "log10 power",
    }
    layer = viewer.add_image(plane, **keywords)
    yield
    # up to three rounded periods, finest first
    finest, coarsest = 2 * max(own), extent.min() / _MIN_RADIUS_PX
    periods = [float(_STEPS[0.999 * finest / radius <= _STEPS][0]) for radius in _RADII]
    periods = [period for period in periods if period <= coarsest]
    if not periods:
        return
    fit = layers.create_display_fit_keywords(layer)
    text = {"string": "{period}", "anchor": "upper_left", "color": _COLOUR, "size": 10}
    viewer.add_shapes(
        [np.stack([shape // 2, extent / period]) for period in periods],
        shape_type="ellipse",
        name=layers.create_result_name(viewer, image.name, "periods"),
        **{**fit, "metadata": {**fit.get("metadata", {}), HELPER_KEY: "rings"}},
        features={"period": [f"{one:g} {unit}" for one in periods]},
        text=text,
        edge_color=_COLOUR,
        edge_width=max(1.0, shape[0] / 250),
        face_color="transparent",
        opacity=1.0,
        scale=layer.scale,
        translate=layer.translate,
        units=layer.units,
        axis_labels=("y", "x"),
    )
    yield


_LIST_HEIGHT = 70  # of the list of further layers; chosen
# figures of the whole region, or of all regions
_ELSEWHERE = {quantity.label for quantity, _ in core.get_quantities(Histogram).values()}
_ELSEWHERE.add("Data range")


class QualityPanel(panel.ReferencePanel):
    """Panel of metrics and spectra of a layer, a reference and further layers."""

    title = "Spectrum and quality"
    verb = jobs.METRICS
    help_place = "metrics.md"
    helps = "Show what was measured"
    region_help = (
        "each of its regions gets a row and a spectrum, of the largest rectangle "
        "inside it, but for the grey levels."
    )

    def create_rows(self) -> Sequence[Widget | QWidget]:
        """Create the list of further layers, and the tick box of 2-D spectra."""
        tip, label = "Layers whose spectra are also plotted", "Further spectra"
        self.layers = self.input_layers.create_list(tip, _LIST_HEIGHT, label=label)
        tip = "Add log power spectra next to their images, with rings of given periods."
        self.planes = CheckBox(name="planes", text="2-D spectra as layers", tooltip=tip)
        return self.layers, self.planes

    def read_more(self, images: Sequence[core.Micrograph]) -> dict[str, Any]:
        """Read the further layers."""
        chosen = [box.value for box in self.boxes.values()]
        others = [layer for layer in self.layers.value if layer not in chosen]
        read = [self.input_layers.read(layer) for layer in others]
        layers.get_common_unit([*images, *read])
        sources = [*(one for one in chosen if one is not None), *others]
        shown = sources if self.planes.value and self.regions.value is None else []
        return {"others": read, "shown": shown}

    def run_command(self, call: panel.Call, **_: object) -> core.Job[panel.Measurement]:
        """Measure the image, and transform all images, or the regions of each."""
        outcome = yield from super().run_command(call)
        sources = [*call.images.values(), *call.more["others"]]
        if call.areas:
            pairs, sources = product(sources, call.areas), []
            for image, area in pairs:
                with suppress(core.ShapeError):  # the row of the region says why
                    (part,) = panel.crop_to_inner_rectangle(area, image)
                    sources.append(part.replace(name=f"{area.name}, {image.name}"))
        parts, reports = list[core.Micrograph](), list[jobs.SpectrumReport]()
        for number, image in enumerate(sources):
            about: Any = {"message": f"transforming {image.name}"}
            change = partial(replace, done=number, total=len(sources), **about)
            opened = jobs.open_image(image)  # which marks fill values
            parts += (yield from jobs.crop_to_gap_free_box(opened))[0]
            job = jobs.SPECTRUM.job(parts[-1])
            reports.append((yield from core.map_progress(job, change)))
        more = parts, reports, call.more["shown"], call.options
        return replace(outcome, more=more)

    def measure_region(
        self, outcome: panel.Measurement, region: panel.Region
    ) -> Mapping[str, panel.Cell]:
        """Measure grey levels in the whole region, the rest in its inner rectangle."""
        # one range for all regions, so that their PSNR can be compared
        *_, options = outcome.more
        how = options.replace(data_range=outcome.report.result.data_range)
        box = panel.get_region_box(region, outcome.images[0])
        within = [panel.crop_to_region(region, image, box) for image in outcome.images]
        levels = measure_histogram(*within, bins=how.bins)
        row: dict[str, panel.Cell] = {
            "pixels": int(np.isfinite(within[0].array()).sum()),
            "mean (grey levels)": levels.mean,
            "SD (grey levels)": levels.sd,
        }
        if levels.emd is not None:
            row["distance (grey levels)"] = levels.emd
        parts = panel.crop_to_inner_rectangle(region, *outcome.images)
        figures = core.get_figures(core.run(jobs.METRICS.job(*parts, options=how)))
        row["rectangle"] = core.format_shape(parts[0].shape)
        for label, figure in figures.items():
            if label not in _ELSEWHERE:
                row[f"{label} ({figure.unit})" if figure.unit else label] = figure.value
        return row

    def sentence(self, outcome: panel.Measurement) -> str:
        """Return the metrics, or what a reference would add."""
        text = super().sentence(outcome)
        has_reference = len(outcome.report.images) > 1
        return text if has_reference else f"{text}; a reference adds PSNR and SSIM"

    def add_layers(self, _: Layer, outcome: panel.Measurement) -> Iterator[None]:
        """Add the 2-D spectra to the right of their images."""
        is_new = False
        parts, reports, shown, _options = outcome.more
        spectra = zip(shown, parts, reports, strict=False)
        for place, (of, part, report) in enumerate(spectra, start=1):
            plane = report.plane.array()
            with self.result_layers.replace_earlier(of) as earlier:
                yield from self.result_layers.remove_earlier(earlier)
                yield from _add_spectrum_layers(self.viewer, part, plane, place)
            is_new |= not earlier
        if is_new:
            self.viewer.reset_view()
            yield

    def list_plots(self, outcome: panel.Measurement) -> list[core.Plot]:
        """Return the histograms of grey levels, and the radial spectra."""
        parts, reports, *_ = outcome.more
        lines = []
        for part, report in zip(parts, reports, strict=True):
            x, y = report.radial.frequency_per_px, np.asarray(report.radial.power)
            line = core.Line(f"spectrum of {part.name}", x, y)
            lines.append(line.convert_to_per_um(part.mean_pixel_size_nm))
        if not lines:
            return super().list_plots(outcome)
        has_size = parts[0].pixel_size_nm is not None
        radial = jobs.SPECTRUM.curves[0].combine(lines, has_size=has_size)
        return [*super().list_plots(outcome), radial]


_NEAR = 0.02  # share of a side: tolerance for coinciding edges; chosen


class ComparePanel(panel.MeasurePanel):
    """Panel that shows two layers together, subtracts them, and maps their errors."""

    title, run_label = "Compare", "Map errors"
    help_place = "error_map.md"
    verb = jobs.ERROR_MAP
    plots = on_one_grid = False
    input_image = 1
    map_name = "error map"
    region_help = "the error is summarised in each; the rest is of the whole field."

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
        self, outcome: panel.Measurement, region: panel.Region
    ) -> Mapping[str, panel.Cell]:
        """Summarise the errors in one region."""
        if outcome.opened is None:
            return {}
        error_map = outcome.opened.micrograph
        box = panel.get_region_box(region, error_map)
        values = panel.crop_to_region(region, error_map, box).array()
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
