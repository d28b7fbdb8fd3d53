"""Crop a layer to a drawn rectangle, or to the area of another layer."""

from collections.abc import Iterator
from functools import partial

import numpy as np
from magicgui.widgets import CheckBox, ComboBox
from napari.components import Dims
from napari.layers import Image, Layer, Shapes

from napari_semsr import core
from napari_semsr.jobs import CROP, CropOptions, Cropped
from napari_semsr.widgets import base, layers

_DRAWN_LAYER = "rectangle to crop"


def _read_drawn_box(
    shapes: Shapes, layer: Image, image: core.Micrograph, dims: Dims
) -> CropOptions:
    """Return the bounds of the last shape in nm, or in px for an uncalibrated image."""
    indices = layers.find_visible_shapes(shapes, dims)
    if not indices:
        msg = (
            f"Layer {shapes.name!r} needs a rectangle in the displayed plane; draw one "
            "first."
        )
        raise core.ShapeError(msg, code="rectangle-missing")
    points = np.asarray(shapes.data[indices[-1]])
    shown_at = [shapes.data_to_world(point)[-2:] for point in points]
    world = layers.world_to_layer(layer, shown_at)
    low, high = world.min(axis=0), world.max(axis=0)
    if image.pixel_size_nm is not None:
        factors = layers.get_drawing_scale(shapes, layer)
        corners = (*(low * factors).tolist(), *(high * factors).tolist())
        return CropOptions.parse({"box_nm": corners})
    if any(layers.get_nm_per_unit(unit) for unit in shapes.units[-2:]):
        msg = (
            f"Layer {image.name!r} has no pixel size, but {shapes.name!r} was drawn in "
            "nm; set a pixel size in Open, under Calibrate a layer."
        )
        raise core.ShapeError(msg, code="pixel-size-missing")
    box = core.Grid.from_image(image).nearest_box(low.tolist(), high.tolist())
    return CropOptions.parse({"box": (box.y0, box.x0, box.y1, box.x1)})


class CropControls(base.CollapsibleSection):
    """Part of a panel that crops its layer to a rectangle, or to another's area."""

    has_settings = True

    def __init__(self, panel: base.VerbPanel, layer: ComboBox) -> None:
        self.panel, self.layer, self._viewer = panel, layer, panel.viewer
        self.like = panel.input_layers.create_box(
            "like",
            "To the area of",
            "An image: both are cropped to their common area, on its pixels. Or a "
            "Shapes layer: crop to its last rectangle in the displayed plane. None: "
            "crop to the largest rectangle without empty pixels.",
            layers=lambda: [
                *layers.list_user_layers(self._viewer, Shapes),
                *layers.list_grey_layers(self._viewer),
            ],
            none="none: exclude empty areas",
        )
        tip = "Select the rectangle tool of a Shapes layer; drag over the area to keep."
        text, draw = "Draw rectangle", self.select_rectangle_tool
        self.draw_button = base.create_button(text, draw, tip)
        self.form = base.OptionsForm(CropOptions)
        text, tip = "Hide the cropped layers", "Only the crops stay visible."
        self.keep = CheckBox(name="keep", text=text, tooltip=tip)
        tip = "Add the crop of the layer above as a new layer."
        self.crop_button = base.create_button("Crop", self.crop, tip)
        which = base.Form(self.like, self.draw_button)
        rest = base.Form(self.keep, self.crop_button)
        tooltip = "Crop the layer above to a rectangle, or to the area of another."
        super().__init__("Crop", tooltip, which, self.form, rest)
        # not magicgui's signal, which does not report None
        self.like.native.currentIndexChanged.connect(self._update_form_rows)
        self.form.on_change("align", self._update_form_rows)
        self._layer_offered: Layer | None = None
        layer.changed.connect(self._propose_image)
        self._propose_image()
        self._update_form_rows()

    def select_rectangle_tool(self) -> None:
        """Select the rectangle tool, on a Shapes layer over the image to crop."""
        messages, inputs = self.panel.messages, self.panel.input_layers
        with messages.show_errors():
            inputs.read(self.layer.value)  # an error if it cannot be cropped
            shapes = self.like.value
            if not isinstance(shapes, Shapes):
                shapes = layers.add_drawing_layer(
                    self._viewer, self.layer.value, _DRAWN_LAYER
                )
                self.like.value = shapes
            self._viewer.layers.selection.active = shapes
            shapes.mode = "add_rectangle"
            messages.show_status("Drag over the area to keep, then press Crop.")

    def _propose_image(self, _: object = None) -> None:
        """Propose another opened image, unless the user has chosen one."""
        layer, like = self.layer.value, self.like.value
        if like is self._layer_offered or like is layer:
            # images without a pixel size cannot be aligned
            can_align = layer is not None and layers.is_calibrated(layer)
            own = self.panel.result_layers.own
            images = layers.list_grey_layers(self._viewer)
            others = [i for i in images if can_align and i not in own]
            fits = (i for i in reversed(others) if layers.fits_beside(layer, i))
            self._layer_offered = next(fits, None)
            self.like.value = self._layer_offered

    def _update_form_rows(self, _: object = None) -> None:
        image = isinstance(self.like.value, Image)
        self.form.show_row("gap_free", self.like.value is not None)
        self.form.show_row("align", image)
        self.form.show_row("search", image and bool(self.form.values()["align"]))

    def crop(self) -> None:
        """Crop the layer, and the image whose area it is cropped to."""
        panel = self.panel
        with panel.messages.show_errors():
            panel.input_layers.planes_read.clear()
            request = self._create_request()
            panel.result_layers.sources = dict(panel.input_layers.planes_read)
            panel.messages.clear_warnings()
            panel.controls.start(request.make, request.show, "Crop")

    def _create_request(self) -> base.JobRequest:
        layer, like, reference = self.layer.value, self.like.value, None
        image = self.panel.input_layers.read(layer)
        values = self.form.values()
        if like is layer:
            msg = (
                f"Layer {layer.name!r} cannot be cropped to its own area: choose "
                "another image, a Shapes layer with a rectangle, or 'none: exclude "
                "empty areas'."
            )
            raise core.ShapeError(msg, code="same-image")
        if like is None:
            values |= {"align": False, "gap_free": True}
        elif isinstance(like, Shapes):
            box = _read_drawn_box(like, layer, image, self._viewer.dims)
            values |= {"align": False, "box": box.box, "box_nm": box.box_nm}
        else:
            reference = self.panel.input_layers.read(like)
        if not values["align"]:
            del values["search"]  # its row is hidden then
        options = CropOptions.parse(values)
        path = base.choose_store_path(None, f"{image.name} crop", image.shape)
        beside = None
        if reference is not None:
            title = f"{reference.name} crop"
            beside = base.choose_store_path(None, title, reference.shape)
        job = partial(CROP.job, image, path, like=reference, like_output=beside)
        return base.JobRequest(
            lambda: base.run_and_open(job(options=options), path, beside=beside),
            partial(self._show_crops, layer, like),
        )

    def _show_crops(
        self, layer: Layer, like: Layer | None, cut: base.JobResult
    ) -> Iterator[None]:
        """Add the crops as layers, and report their positions."""
        result: Cropped = cut.report
        pairs = [*zip(cut.opened, (layer, like), strict=False)]
        for opened_store, source in reversed(pairs):
            base.add_opened_image(
                self._viewer,
                opened_store,
                name=layers.create_result_name(self._viewer, source.name, "crop"),
                colormap=source.colormap,
                contrast_limits=source.contrast_limits,
                gamma=source.gamma,
            )
            yield
        for _, source in pairs if self.keep.value else ():
            source.visible = False
        sentence = f"Cropped {layer.name} to {core.format_shape(result.shape)}."
        if like is None and result.area == (0, 0, *layer.data.shape[-2:]):
            sentence = f"Copied {layer.name}: it has no empty areas."
        figures = core.get_figures(result)
        figures.pop("Reference", None)  # a temporary store, of the second layer
        self.panel.results.show_result(figures, sentence)
