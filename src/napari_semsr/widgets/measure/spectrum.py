"""Spectrum: radial power spectra and centred 2-D spectra of several layers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from magicgui.widgets import CheckBox
from napari.layers import Image, Layer
from napari.viewer import Viewer

from napari_semsr import core, jobs
from napari_semsr.io import HELPER_KEY
from napari_semsr.widgets import base
from napari_semsr.widgets.layers import (
    create_display_fit_keywords,
    create_layer_keywords,
    create_result_name,
    get_common_unit,
    list_grey_layers,
)
from napari_semsr.widgets.measure.regions import (
    Region,
    create_region_box,
    crop_to_inner_rectangle,
    format_measured_area_note,
    read_regions,
    show_area_outlines,
)

# The centred spectrum as a layer, and its labelled rings.
#
# A spectrum's axes are frequencies, but a viewer has one unit: a layer in µm⁻¹, or one
# in pixels, would switch off the scale bar of all layers. So the spectrum is placed
# next to its image, with the image's size and unit, and its scale is drawn onto it:
# rings labelled with their period.

_GAP = 1.06  # distance of a ring's label from it; chosen
_RADII = (0.85, 0.5, 0.25)  # of the rings that are drawn; chosen
_NICE = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)  # periods that a ring may have; chosen
_STEPS = np.outer(10.0 ** np.arange(-3, 8), _NICE).ravel()
_MIN_RADIUS_PX = 6  # of a ring; chosen
_COLOUR = "#ffd400"


def choose_ring_periods(image: core.Micrograph) -> list[float]:
    """Return up to three rounded periods for rings in a spectrum, finest first.

    In nm if calibrated, otherwise in pixels.
    """
    pitch = image.scale if image.pixel_size_nm is not None else (1.0, 1.0)
    finest = 2 * max(pitch)
    coarsest = min(p * n for p, n in zip(pitch, image.shape, strict=True))
    coarsest /= _MIN_RADIUS_PX
    periods = [float(_STEPS[0.999 * finest / radius <= _STEPS][0]) for radius in _RADII]
    return [period for period in periods if period <= coarsest]


def _add_spectrum_layer(
    viewer: Viewer, image: core.Micrograph, plane: core.RealArray, place: int
) -> Image:
    """Add the centred log power spectrum of an image as a layer to the right of it.

    It is as large as the image; `place` is its index among several. `plane` is (Y, X).
    Returns the layer; its metadata hold the frequency of one pixel.
    """
    has_size = image.pixel_size_nm is not None
    pitch = tuple(
        p * n / m for p, n, m in zip(image.scale, image.shape, plane.shape, strict=True)
    )
    y, x = image.origin
    size: Any = {"pixel_size_nm" if has_size else "spacing_px": pitch}
    grid = image.replace(
        data=plane,
        look=jobs.create_spectrum_display(plane),
        origin=(y, x + place * _GAP * image.shape[1] * image.scale[1]),
        provenance=jobs.compose_derived_provenance("spectrum", {}, image=image),
        **size,
    )
    name = create_result_name(viewer, image.name, "spectrum")
    keywords = create_layer_keywords(grid, name=name)
    own = image.scale if has_size else (1.0, 1.0)
    keywords["metadata"]["spectrum"] = {
        f"frequency_step_per_{'nm' if has_size else 'px'}": tuple(
            1.0 / (n * p) for n, p in zip(plane.shape, own, strict=True)
        ),
        "quantity": "log10 power",
    }
    return viewer.add_image(plane, **keywords)


def _add_rings(viewer: Viewer, image: core.Micrograph, layer: Image) -> None:
    periods = choose_ring_periods(image)
    if not periods:
        return
    has_size = image.pixel_size_nm is not None
    pitch = image.scale if has_size else (1.0, 1.0)
    rows, columns = layer.data.shape[-2:]
    centre = np.array([rows // 2, columns // 2], dtype=float)
    extent = np.array([n * p for n, p in zip(image.shape, pitch, strict=True)])
    ellipses = [np.stack([centre, extent / period]) for period in periods]
    labels = [f"{period:g} {'nm' if has_size else 'px'}" for period in periods]
    fit = create_display_fit_keywords(layer)
    viewer.add_shapes(
        ellipses,
        shape_type="ellipse",
        name=create_result_name(viewer, image.name, "periods"),
        **{**fit, "metadata": {**fit.get("metadata", {}), HELPER_KEY: "rings"}},
        features={"period": labels},
        text={
            "string": "{period}",
            "anchor": "upper_left",
            "color": _COLOUR,
            "size": 10,
        },
        edge_color=_COLOUR,
        edge_width=max(1.0, rows / 250),
        face_color="transparent",
        opacity=1.0,
        scale=layer.scale,
        translate=layer.translate,
        units=layer.units,
        axis_labels=("y", "x"),
    )


_LIST_HEIGHT = 110  # of the list of layers; chosen
_NOTE = (
    "The 2-D spectrum is shown to the right of its image at the same size, so that the "
    "viewer can keep its scale bar in nm. The scale bar does not apply to the "
    "spectrum; its yellow rings are labelled with their periods."
)


@dataclass(frozen=True, slots=True)
class Spectra:
    """Spectra of several images: radial curves and, if requested, planes (Y, X).

    Parts are the measured areas: the whole images if no pixels are missing. Planes hold
    the logarithm of the centred power.
    """

    images: tuple[core.Micrograph, ...]
    parts: tuple[core.Micrograph, ...]
    radial: core.Plot
    planes: tuple[core.RealArray, ...]


def _compute_spectra(
    images: Sequence[core.Micrograph],
    regions: Sequence[Sequence[Region]],
    *,
    planes: bool,
) -> core.Job[Spectra]:
    """Compute the radial and centred spectra of several images or their regions."""

    def measure(
        image: core.Micrograph, step: core.Progress
    ) -> core.Job[jobs.SpectrumReport]:
        return core.map_progress(jobs.SPECTRUM.job(image), lambda _: step)

    images = [jobs.open_image(image) for image in images]  # which marks fill values
    has_size = get_common_unit(images) == "nm"
    lines, centred_spectra = [], []
    if any(regions):
        cut = []
        pairs = zip(images, regions, strict=True)
        for image, region in [(image, one) for image, own in pairs for one in own]:
            yield core.Progress(0, 0, f"cutting {region.name}")
            (part,) = crop_to_inner_rectangle(region, image)
            cut.append(part.replace(name=f"{region.name}, {image.name}"))
        images = parts = tuple(cut)
        planes = False
    else:
        valid_parts: dict[int, core.Micrograph] = {}
        grids = [core.Grid.from_image(image) for image in images]
        for grid in dict.fromkeys(grids):  # images on the same grid get the same crop
            alike = [place for place, other in enumerate(grids) if other == grid]
            of_grid = [images[place] for place in alike]
            crops, _ = yield from jobs.crop_to_gap_free_box(*of_grid)
            valid_parts |= zip(alike, crops, strict=True)
        parts = tuple(valid_parts[place] for place in range(len(images)))
    for number, image in enumerate(parts):
        step = core.Progress(number, len(images), f"transforming {image.name}")
        report = yield from measure(image, step)
        curve = report.radial
        line = core.Line(image.name, curve.frequency_per_px, np.asarray(curve.power))
        lines.append(line.convert_to_per_um(image.mean_pixel_size_nm))
        if planes:
            centred_spectra.append(report.plane.array())
    yield core.Progress(len(images), len(images), "done")
    radial = jobs.SPECTRUM.curves[0].combine(lines, has_size=has_size)
    return Spectra(tuple(images), parts, radial, tuple(centred_spectra))


class SpectrumPanel(base.VerbPanel):
    """Panel that plots radial spectra of layers together, and adds 2-D spectra."""

    plots = applies_to_folder = True
    help_place = "first-steps.md#3-measure-it"
    title, run_label = "Spectrum", "Transform"
    verb = jobs.SPECTRUM

    def build_form(self) -> None:
        """Build the form."""
        self.spectra: Spectra | None = None
        tooltip = "Layers whose spectra are plotted together"
        self.layers = self.input_layers.create_list(tooltip, _LIST_HEIGHT)
        self.planes = CheckBox(
            value=True,
            text="2-D spectrum as a layer",
            tooltip="Add the centred log power spectrum as a layer.",
        )
        self.rings = CheckBox(
            value=True,
            text="Rings with their period",
            tooltip="Draw rings with rounded periods on the spectrum.",
        )
        self.regions = create_region_box(
            self,
            "instead of the whole image, the largest rectangle inside each of its "
            "regions is measured, without a 2-D spectrum.",
        )
        form = base.Form(self.layers.native, self.regions, self.planes, self.rings)
        self.add_group("Layers", form, base.RichTextLabel(_NOTE))
        self.add_results("Radial spectra", helpers="Show what was measured")
        self.input_layers.follow_active_layer(self.layers)
        self.viewer.layers.selection.events.changed.connect(self._use_selected_layers)

    def _use_selected_layers(self, event: object = None) -> None:
        """Choose all selected layers if there are several, as none is active then."""
        if base.is_alive(self) and not self.is_busy:
            selection = self.viewer.layers.selection
            layers_chosen = [item for item in self.layers.choices if item in selection]
            if len(layers_chosen) > 1:
                self.layers.value = layers_chosen

    def create_request(self) -> base.JobRequest:
        """Read the form, and return the request of the job that Run starts."""
        layers_chosen = list(self.layers.value)
        if not layers_chosen:
            layers_chosen = list_grey_layers(self.viewer)[-1:]
        images = [self.input_layers.read(layer) for layer in layers_chosen or [None]]
        get_common_unit(images)
        regions_layer = self.regions.value
        regions = [read_regions(self, regions_layer, layer) for layer in layers_chosen]
        work = partial(
            _compute_spectra, images, regions, planes=bool(self.planes.value)
        )
        show = partial(self.show_spectra, layers_chosen)
        if regions_layer is not None:
            pairs = zip(layers_chosen, regions, strict=True)
            owners = [layer for layer, own in pairs for _ in own]
            show = partial(self.show_spectra, owners, in_regions=True)
        return base.JobRequest(work, show)

    def show_spectra(
        self, layers: Sequence[Layer], spectra: Spectra, *, in_regions: bool = False
    ) -> Iterator[None]:
        """Draw the curves, add the layers, and outline the measured parts.

        Each 2-D spectrum is one layer.
        """
        from napari_semsr.widgets.base import draw_plot

        self.spectra = spectra
        canvas = self.results.clear_plot(height=300)
        yield
        draw_plot(canvas.axes[0], spectra.radial)
        canvas.refresh()
        yield
        is_replaced = True
        images = zip(layers, spectra.images, spectra.parts, strict=True)
        planes = zip(images, spectra.planes, strict=False)
        for place, ((of, image, part), plane) in enumerate(planes, start=1):
            with self.result_layers.replace_earlier(of) as earlier:
                yield from self.result_layers.remove_earlier(earlier)
                layer = _add_spectrum_layer(self.viewer, image, plane, place)
                yield
                if self.rings.value:
                    _add_rings(self.viewer, part, layer)
                    yield
            is_replaced &= bool(earlier)
        trios = zip(layers, spectra.images, spectra.parts, strict=True)
        cut: dict[Layer, list[core.Micrograph]] = {}
        for layer, image, part in trios:
            if in_regions or part is not image:
                cut.setdefault(layer, []).append(part)
        yield from show_area_outlines(self, cut)
        if spectra.planes and not is_replaced:
            self.viewer.reset_view()
            yield
        has_size = get_common_unit(spectra.images) == "nm"
        unit = "µm⁻¹" if has_size else "cycles per pixel (no pixel size)"
        count = len(spectra.images)
        many = "spectrum" if count == 1 else "spectra"
        regions_measured = [one for own in cut.values() for one in own]
        where = "<br>".join(
            f"{part.name} {format_measured_area_note(part)}"
            for part in regions_measured
        )
        several = count > 1
        sizes = {
            "Pixel "
            f"size{f' of {image.name}' if several else ''}": core.describe_pixel_size(
                image.pixel_size_nm, image.pixel_size_sd_nm
            )
            for image in spectra.images
        }
        sentence = f"{count} radial {many} with frequencies in {unit}."
        self.results.show_result(
            sizes, sentence, curves=spectra.radial.columns, more=where
        )
