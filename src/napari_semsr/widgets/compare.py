"""Compare two layers, such as the input and result of a panel.

The left one is shown left of a line, or both side by side, or their difference as a
layer; a result can be shown, measured and saved at any strength between its input and
itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from magicgui.widgets import CheckBox, ComboBox, Slider
from napari.components import ViewerModel
from napari.layers import Image, Layer
from napari.utils.events import Event
from qtpy.QtCore import QObject

from napari_semsr import core, io, jobs
from napari_semsr.widgets import base, host, layers

# ms from the last move of the view to an update of its left part; chosen
_LATER_MS = 60
_AMBER = "#e3b617"
_SAMPLE_PX = 1024  # per side, of a difference whose size is stated; chosen: 10 ms
_SHOWN_PERCENT = 99.9  # of its pixels are not clipped; as in the view of an image
# attributes of an overlay that are updated on each redraw
_FOLLOWS = {"scale", "translate", "affine", "contrast_limits", "colormap", "gamma"}


class OverlayLayer(QObject):
    """Temporary overlay layer, not listed in panels."""

    def __init__(self, viewer: ViewerModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self.layer: Image | None = None

    def show_pixels(self, pixels: core.RealArray, look: dict[str, object]) -> None:
        """Show pixels at their position, above all other layers."""
        if self.layer is not None and self.layer in self._viewer.layers:
            self.layer.data = pixels
            for name in _FOLLOWS & look.keys():
                setattr(self.layer, name, look[name])
            return
        layers_chosen = list(self._viewer.layers.selection)
        look |= {"metadata": {io.HELPER_KEY: True}}
        self.layer = self._viewer.add_image(pixels, **look)
        box = self.layer.bounding_box  # a thin line around it
        box.line_color, box.points, box.visible = _AMBER, False, True
        self._viewer.layers.selection = layers_chosen

    def remove(self) -> None:
        """Remove the layer."""
        if self.layer is not None and self.layer in self._viewer.layers:
            self._viewer.layers.remove(self.layer)
        self.layer = None


class BeforeAfterOverlay(OverlayLayer):
    """Overlay that covers the left part of the view with another layer."""

    def __init__(self, viewer: ViewerModel, parent: QObject | None = None) -> None:
        super().__init__(viewer, parent)
        self._source: Image | None = None
        self._share = 0.0
        self._later = base.create_timer(self, self.update_overlay, _LATER_MS, once=True)
        for event in (host.get_camera(viewer).events, viewer.dims.events.point):
            event.connect(self._schedule_overlay_update)
        host.connect_to_resize(viewer, self._schedule_overlay_update)

    def move_divider(self, source: Image | None, share: float) -> None:
        """Move the divider between the two layers."""
        self._source, self._share = source, share
        self.update_overlay()

    def update_overlay(self) -> None:
        """Copy the area left of the divider to the overlay, or remove the overlay."""
        source = self._source
        is_shown = source in self._viewer.layers and self._share > 0
        view = layers.get_visible_box(self._viewer, source) if is_shown else None
        if source is None or view is None:
            self.remove()
            return
        level = source.data_level if source.multiscale else 0
        data: Any = source.data[level] if source.multiscale else source.data
        here = np.array(data.shape[-2:])
        factor = layers.get_finest_level(source).shape[-2:] / here
        edge = view.x0 + self._share * (view.x1 - view.x0)
        start = (np.array([view.y0, view.x0]) / factor).astype(int)
        stop = np.minimum(np.ceil(np.array([view.y1, edge]) / factor), here).astype(int)
        if np.any(stop <= start):
            self.remove()
            return
        lead = layers.get_displayed_plane(source, self._viewer.dims)
        pixels = np.asarray(data[(*lead, *map(slice, start, stop))])
        # everything else, such as a rotation, is `affine`
        pitch = np.asarray(source.scale[-2:])
        linear, shift = layers.get_display_transform(source)
        affine = np.eye(3)
        affine[:2, :2], affine[:2, 2] = linear / pitch, shift
        look = {
            "name": "before",
            "scale": pitch * factor,
            "translate": ((start + 0.5) * factor - 0.5) * pitch,
            "affine": affine,
            "units": source.units[-2:],
            "axis_labels": source.axis_labels[-2:],
            "rgb": False,
        }
        same = ("contrast_limits", "colormap", "gamma")
        self.show_pixels(pixels, look | {name: getattr(source, name) for name in same})

    def _schedule_overlay_update(self, _: object = None) -> None:
        if base.is_alive(self) and self.layer is not None:
            self._later.start()


class LayerIsolator:
    """Helper that shows only some layers, and restores the others afterwards."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._before: dict[Layer, bool] = {}

    def show_only(self, *layers_shown: Layer) -> None:
        """Show the given layers, and hide all others except overlays."""
        every = self._viewer.layers
        of = [i for i in every if i.metadata.get(io.HELPER_KEY) is not True]
        for item in of:  # before hiding one also hides its helper layers
            self._before.setdefault(item, item.visible)
        for item in sorted(of, key=layers_shown.__contains__, reverse=True):
            item.visible = item in layers_shown

    def restore_visibility(self) -> None:
        """Restore the former visibility of all layers."""
        for item, visible in self._before.items():
            if item in self._viewer.layers:
                item.visible = visible
        self._before.clear()


_BLEND, _APART = "semsr_blend", "semsr_apart"
_RESULTS = ("enhance", "restore")


@dataclass(eq=False)
class _BlendedResult:
    """Mixture of a result with its input, stored with the layer."""

    layer: Image
    image: core.Micrograph  # the input; the first plane of a stack
    result: core.Micrograph  # likewise
    after: list[object]  # levels of the result, or one of all planes
    # resamples the input to the result's pixels
    prepare: Callable[[], core.Job[list[object]]]
    stores: list[str]  # of the input
    # the input in the result's pixels
    before: list[object] = field(default_factory=list)
    saved_path: str | None = None  # path of the full-strength result
    provenance: core.Provenance | None = None

    @property
    def strength(self) -> float:
        """Fraction of the result in the mixture."""
        return float(self.layer.metadata.get(io.STRENGTH_KEY, 1.0))

    def show_mixture(self, strength: float) -> None:
        """Show a mixture, and record it in the layer's metadata."""
        about = self.layer.metadata
        before = dict(about)
        levels = jobs.blend_levels(self.before, self.after, strength)
        self.layer.data = levels if self.layer.multiscale else levels[0]
        about.update(before)  # its store has full strength
        layers.disable_cache(self.layer)
        if self.strength >= 1:
            self.saved_path = about.get(io.SAVED_KEY)
        for key in (io.SAVED_KEY, io.STRENGTH_KEY, io.DRAWN_KEY):
            about.pop(key, None)
        history = self.result.provenance
        if strength < 1:
            about |= {io.STRENGTH_KEY: strength, io.DRAWN_KEY: self.stores}
            if self.provenance is None:
                of = {"input": self.image, "result": self.result}
                self.provenance = jobs.compose_derived_provenance("blend", {}, **of)
            options = {"options": {"strength": strength}}
            history = self.provenance.model_copy(update=options)
        elif self.saved_path:
            about[io.SAVED_KEY] = self.saved_path
        record = None if history is None else history.model_dump(mode="json")
        about["micrograph"] = {**about.get("micrograph", {}), "provenance": record}


def _get_store_paths(source: Layer | None) -> list[str]:
    about = {} if source is None else source.metadata
    own = [str(about[io.STORE_KEY])] if about.get(io.STORE_KEY) else []
    return [*own, *about.get(io.DRAWN_KEY, ())]


def _resample_planes(
    images: Sequence[core.Micrograph],
    results: Sequence[core.Micrograph],
    shape: tuple[int, ...],
) -> core.Job[list[object]]:
    """Resample all planes of an input onto the pixel grids of the results."""
    levels_drawn = []
    for number, (image, result) in enumerate(zip(images, results, strict=True)):
        yield core.Progress(number, len(images), f"drawing {image.name}")
        levels = [result.data]
        levels_drawn += yield from jobs.resample_levels(image, (), result, levels)
    return [io.stack_planes(levels_drawn).reshape(shape)]


class CompareControls(base.Form):
    """Controls for comparing two layers, usable before, during and after a run.

    `boxes`: lists of the left and the right layer that the panel has; otherwise they
    are rows of the controls.
    """

    def __init__(self, panel: base.VerbPanel, *boxes: ComboBox) -> None:
        super().__init__()
        viewer = panel.viewer
        self._panel, self._viewer = panel, viewer
        panel.unread.append(self)
        self._alone = LayerIsolator(viewer)
        self._pair: tuple[Layer, ...] = ()  # the compared layers
        self.before = BeforeAfterOverlay(viewer, self)
        images = partial(layers.list_image_layers, viewer)
        create = partial(
            panel.input_layers.create_box, layers=images, none=base.NO_CHOICE
        )
        self.left, self.right = boxes or (
            create("left", "Left", "Left layer: the input or any other image."),
            create("right", "Right", "Right layer: the result or any other image."),
        )
        tip = "Drag to show the left layer in the left part of the view."
        self.split = Slider(
            name="split", label="Before | after", max=100, readout=False, tooltip=tip
        )
        tip = "Show only both layers, side by side with a shared view."
        self.side_by_side = CheckBox(name="beside", text="Side by side", tooltip=tip)
        tip = "Mix the result with its input (0). The mixture is measured and saved."
        self.strength = Slider(
            name="strength", label="Strength (%)", value=100, max=100, tooltip=tip
        )
        self.note = base.RichTextLabel()
        tip = "Add right minus left as a layer: green is brighter, magenta darker."
        self.difference_button = base.create_button("Difference", self.subtract, tip)
        own = () if boxes else (self.left, self.right)
        rows = self.split, self.side_by_side, self.strength, self.note
        for control in (*own, *rows, self.difference_button):
            self.add_row(control)
        self._ticks = [self.side_by_side]  # display modes, one at a time
        for box in (self.left, self.right):
            box.changed.connect(self._restart_comparison)
        self.right.changed.connect(self._show_strength)
        self.split.changed.connect(self._show_split_view)
        self.side_by_side.changed.connect(self._show_side_by_side)
        self.strength.changed.connect(self._set_strength)
        viewer.layers.events.removed.connect(self._on_layer_removed)
        panel.closed.connect(self.end_comparison)
        self._show_strength()

    # -- which layers ---------------------------------------------------------

    def select_layers(self, left: Layer | None, right: Layer | None = None) -> None:
        """Select the layers to compare; None keeps all but a result of another left."""
        made = self.right.value
        is_result = made is not None and layers.get_last_job_name(made) in _RESULTS
        if left and not right and is_result and not layers.is_made_from(made, left):
            self.right.value = None
        for box, layer in ((self.left, left), (self.right, right)):
            if layer is not None and layer in box.choices:
                box.value = layer

    def set_result(
        self,
        layer: Image,
        source: Image | None,
        image: core.Micrograph,
        outcome: base.JobResult,
        *,
        apart: bool = False,
    ) -> None:
        """Set up the comparison of a result with its input, at any strength.

        `apart`: it cannot be mixed, since its grey levels differ.
        """
        if apart:
            setattr(layer, _APART, True)
        else:
            draw: Callable[[], core.Job[list[object]]]
            if outcome.planes and source is not None:
                images, planes = layers.list_planes(source), outcome.planes
                draw = partial(_resample_planes, images, planes, layer.data.shape)
                image, result, after = images[0], planes[0], [layer.data]
            else:
                flat = source is not None and source.multiscale and source.ndim == 2
                coarser = [] if source is None or not flat else list(source.data)[1:]
                result = outcome.image
                after = [item.data for item in outcome.opened[0].levels]
                after = after if layer.multiscale else after[:1]
                draw = partial(jobs.resample_levels, image, coarser, result, after)
            stores = _get_store_paths(source)
            blend = _BlendedResult(layer, image, result, after, draw, stores)
            setattr(layer, _BLEND, blend)
        self.select_layers(source, layer)
        self._show_strength()

    def _on_layer_removed(self, event: Event) -> None:
        """End the comparison if a compared layer is removed."""
        if base.is_alive(self) and event.value in self._pair:
            self.end_comparison()

    def _restart_comparison(self, _: object = None) -> None:
        """Restart the comparison with other layers, or end it if one was removed."""
        if any(item not in self._viewer.layers for item in self._pair):
            self.end_comparison()
        elif self.split.value:
            self._show_split_view(self.split.value)
        for tick in self._ticks:
            if tick.value:
                tick.value = False
                tick.value = True

    def _clear_ticks(self, but: CheckBox | None = None) -> None:
        """Untick all other boxes, since only one display mode can be active."""
        for tick in self._ticks:
            if tick is not but:
                tick.value = False

    def _get_compared_layers(self) -> tuple[Image, Image] | None:
        """Return the two layers; show a message unless they are different."""
        left, right = self.left.value, self.right.value
        if left is right or None in (left, right):
            self._panel.messages.show_status("Choose two different layers to compare.")
            return None
        return left, right

    # -- before | after, side by side -----------------------------------------

    def _show_split_view(self, percent: int) -> None:
        if percent:
            self._clear_ticks()
        left, right = self.left.value, self.right.value
        if percent and right is not None and right is not left:
            self._alone.show_only(right)
        elif not self.side_by_side.value:
            self._alone.restore_visibility()
        pair = (left, right) if percent else ()
        self._pair = tuple(item for item in pair if item is not None)
        self.before.move_divider(left, percent / 100)

    def _show_compared_layers(self, tick: CheckBox) -> bool:
        """Show only the compared layers; untick the box unless they are different."""
        both = self._get_compared_layers()
        if both is None:
            tick.value = False
            return False
        self._clear_ticks(tick)
        self.split.value = 0
        self._pair = both
        self._alone.show_only(*both)
        return True

    def _show_side_by_side(self, on: bool) -> None:
        if on and not self._show_compared_layers(self.side_by_side):
            return
        camera = host.get_camera(self._viewer)
        view = camera.center, camera.zoom
        if on:
            left, right = map(list(self._viewer.layers).index, self._pair)
            host.show_side_by_side(self._viewer, left, right)
        else:
            self._alone.restore_visibility()
            self._pair = ()
            host.disable_grid_view(self._viewer)
        camera.center, camera.zoom = view

    def end_comparison(self) -> None:
        """Restore the layer visibility from before the comparison."""
        self._pair = ()
        self.split.value = 0
        self._clear_ticks()

    # -- strength ---------------------------------------------------------------

    def _get_blend(self) -> _BlendedResult | None:
        """Return the mixture of the right layer, if it is a result of a known input."""
        return getattr(self.right.value, _BLEND, None)

    def _show_strength(self, _: object = None) -> None:
        """Show the strength of the right layer, if it can be set, or why not."""
        blend, layer, note = self._get_blend(), self.right.value, ""
        strength = 1.0 if blend is None else blend.strength
        self.strength.enabled = blend is not None
        with self.strength.changed.blocked():
            self.strength.value = round(100 * strength)
        if blend is not None and strength < 1:
            percent, rest = f"{100 * strength:.0f} %", blend.image.name
            note = f"It is shown, measured and saved at {percent}; the rest is {rest}."
        elif getattr(layer, _APART, False):
            note = "The strength cannot be set: grey levels differ from the input's."
        elif blend is None and layer and layers.get_last_job_name(layer) in _RESULTS:
            note = "The strength can only be set in the session of its run: run again."
        self.note.setText(note)

    def _set_strength(self, percent: int) -> None:
        """Show the right layer at the given strength once its input is prepared."""
        blend = self._get_blend()
        if blend is None or (not blend.before and percent == 100):
            return
        if not (blend.before or self._panel.is_busy):
            begin = partial(self._use_prepared_input, blend)
            self._panel.controls.start(blend.prepare, begin, "Strength")
            return
        if blend.before:
            blend.show_mixture(percent / 100)
            self.before.update_overlay()
        self._show_strength()

    def _use_prepared_input(self, blend: _BlendedResult, before: list[object]) -> None:
        """Use the prepared input, and apply the current slider position."""
        blend.before = before
        self._panel.messages.show_status("")
        if self._get_blend() is blend:
            self._set_strength(int(self.strength.value))

    # -- difference ---------------------------------------------------------------

    def subtract(self) -> None:
        """Add the difference between the two layers as a new layer."""
        panel, both = self._panel, self._get_compared_layers()
        if both is None:
            return
        with panel.messages.show_errors():
            first, second = map(panel.input_layers.read, both)
            _, _, unit = (second.quantity or "grey levels").rpartition("(")
            make = partial(self._compute_difference, first, second)
            show = partial(self._add_difference, both, unit.rstrip(")"))
            panel.controls.start(make, show, "Difference")

    def _compute_difference(
        self, first: core.Micrograph, second: core.Micrograph
    ) -> core.Job[base.OpenedImage]:
        """Compute the difference of two images, with coarser levels if it is large."""
        difference = jobs.subtract_images(first, second)
        if max(difference.shape) <= io.SINGLE_PX or not difference.is_lazy:
            difference = difference.replace(data=difference.array())
            return base.OpenedImage(difference, (difference,))
        coarse = yield from base.create_coarse_levels(difference)
        return base.OpenedImage(difference, (difference, *coarse))

    def _add_difference(
        self, both: tuple[Layer, Layer], unit: str, opened: base.OpenedImage
    ) -> None:
        """Show a difference with a diverging colour map that is white at zero."""
        coarse = opened.levels[-1].array()
        every = 1 + max(coarse.shape) // _SAMPLE_PX
        sample = coarse[::every, ::every]
        sample = sample[np.isfinite(sample)]
        size = np.abs(sample) if sample.size else np.zeros(1)
        most = float(np.percentile(size, _SHOWN_PERCENT))
        left, right = both
        name = f"{right.name} \N{MINUS SIGN} {left.name} difference"
        layer = base.add_opened_image(
            self._viewer,
            opened,
            name=layers.find_free_name(self._viewer, name),
            # darker is magenta, brighter is green, no difference is white
            colormap="PiYG",
            contrast_limits=(-(most or 1), most or 1),
        )
        stores = [path for one in both for path in _get_store_paths(one)]
        about = {io.DRAWN_KEY: stores, io.BAR_KEY: True}
        about[layers.SOURCES_KEY] = layers.get_source_identities(both)
        layer.metadata.update(about)  # napari would clear it before "|="
        layers.show_colour_bar(layer)
        sentence = "the two layers hardly differ"
        if most:
            middle = core.format_number(float(np.median(sample)), "+.3g")
            largest = core.Figure(most, unit, ".3g")
            sentence = f"median {middle}, at most {largest}; green is larger"
        self._panel.messages.show_status(f"Added {layer.name}: {sentence}.")
