"""Compare the input and result of a panel.

The input is shown left of a line, or both side by side, or their difference as a layer;
a result can be shown, measured and saved at any strength between its input and itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from magicgui.widgets import CheckBox, Slider
from napari.components import ViewerModel
from napari.layers import Image, Layer
from napari.utils.events import Event
from qtpy.QtCore import QObject

from napari_semsr.analysis import Change
from napari_semsr.core import (
    Box,
    Figure,
    Job,
    Micrograph,
    Progress,
    Provenance,
    RealArray,
    contrast_limits,
)
from napari_semsr.io import (
    DRAWN_KEY,
    HELPER_KEY,
    SAVED_KEY,
    SINGLE_PX,
    STORE_KEY,
    STRENGTH_KEY,
    stack_planes,
)
from napari_semsr.jobs import blend_levels, derived_from, difference_of, input_levels
from napari_semsr.widgets import host
from napari_semsr.widgets.base import (
    Form,
    Opened,
    Outcome,
    Panel,
    RichLabel,
    add_opened,
    coarse_levels,
    is_alive,
    new_timer,
    push_button,
)
from napari_semsr.widgets.layers import (
    SOURCES_KEY,
    field_in_view,
    free_name,
    image_layers,
    plane_at,
    planes_of,
    shown_by,
    sources_of,
    step_before,
    without_cache,
)

_LATER_MS = (
    60  # ms from the last move of the view to an update of its left part; chosen
)
_BEFORE_NAME = "before"
_AMBER = "#e3b617"
_DIVERGING = "PiYG"  # darker is magenta, brighter is green, no difference is white
_MINUS = " \N{MINUS SIGN} "


def describe_small_change(change: Change | None) -> str:
    """Return a sentence if hardly anything was changed."""
    return f" {change.verdict}" if change is not None and change.hardly else ""


_FOLLOWS = {"scale", "translate", "affine", "contrast_limits", "colormap", "gamma"}
"""Attributes of an overlay that are kept when it is drawn again."""


class OverLayer(QObject):
    """A temporary layer over another, which is not listed in panels."""

    def __init__(self, viewer: ViewerModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self.layer: Image | None = None

    def put(self, pixels: RealArray, look: dict[str, object]) -> None:
        """Show pixels at their position, above everything else."""
        if self.layer is not None and self.layer in self._viewer.layers:
            self.layer.data = pixels
            for name in _FOLLOWS & look.keys():
                setattr(self.layer, name, look[name])
            return
        layers_chosen = list(self._viewer.layers.selection)
        look |= {"metadata": {HELPER_KEY: True}}
        self.layer = self._viewer.add_image(pixels, **look)
        box = self.layer.bounding_box  # a thin line around it
        box.line_color = _AMBER
        box.points = False
        box.visible = True
        self._viewer.layers.selection = layers_chosen

    def remove(self) -> None:
        """Remove the layer."""
        if self.layer is not None and self.layer in self._viewer.layers:
            self._viewer.layers.remove(self.layer)
        self.layer = None


class BeforeAfter(OverLayer):
    """Covers the left part of the view with another layer."""

    def __init__(self, viewer: ViewerModel, parent: QObject | None = None) -> None:
        super().__init__(viewer, parent)
        self._source: Image | None = None
        self._share = 0.0
        self._later = new_timer(self, self.draw, _LATER_MS, once=True)
        for event in (host.camera(viewer).events, viewer.dims.events.point):
            event.connect(self._on_moved)
        host.on_resize(viewer, self._on_moved)

    def show_part(self, source: Image | None, share: float) -> None:
        """Move the line."""
        self._source, self._share = source, share
        self.draw()

    def draw(self) -> None:
        """Copy the covered part, or remove the layer."""
        source = self._source
        if source is None or self._share <= 0 or source not in self._viewer.layers:
            self.remove()
            return
        view = field_in_view(self._viewer, source)
        if view is None:
            self.remove()
            return
        levels: Any = source.data if source.multiscale else [source.data]
        level = source.data_level if source.multiscale else 0
        fine, here = np.array(levels[0].shape[-2:]), np.array(levels[level].shape[-2:])
        factor = fine / here
        edge = view.x0 + self._share * (view.x1 - view.x0)
        box = Box(
            int(view.y0 / factor[0]),
            int(min(np.ceil(view.y1 / factor[0]), here[0])),
            int(view.x0 / factor[1]),
            int(min(np.ceil(edge / factor[1]), here[1])),
        )
        if min(box.shape) < 1:
            self.remove()
            return
        lead = plane_at(source, self._viewer.dims)
        pixels = np.asarray(levels[level][(*lead, *box.slices)])
        first = (np.array([box.y0, box.x0]) + 0.5) * factor - 0.5
        pitch = np.asarray(
            source.scale[-2:]
        )  # everything else, such as a rotation, is `affine`
        linear, shift = shown_by(source)
        affine = np.eye(3)
        affine[:2, :2], affine[:2, 2] = linear / pitch, shift
        look = {
            "name": _BEFORE_NAME,
            "scale": pitch * factor,
            "translate": first * pitch,
            "affine": affine,
            "units": source.units[-2:],
            "axis_labels": source.axis_labels[-2:],
            "contrast_limits": source.contrast_limits,
            "colormap": source.colormap,
            "gamma": source.gamma,
            "rgb": False,
        }
        self.put(pixels, look)

    def _on_moved(self, _: object = None) -> None:
        if is_alive(self) and self.layer is not None:
            self._later.start()


class Alone:
    """Shows some layers without the others, which are restored afterwards."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._before: dict[Layer, bool] = {}

    def show(self, *layers: Layer) -> None:
        """Show these, and hide all others except overlays."""
        of = [i for i in self._viewer.layers if i.metadata.get(HELPER_KEY) is not True]
        for item in of:  # before hiding one also hides its helper layers
            self._before.setdefault(item, item.visible)
        for item in sorted(of, key=layers.__contains__, reverse=True):
            item.visible = item in layers

    def end(self) -> None:
        """Restore the visible layers."""
        for item, visible in self._before.items():
            if item in self._viewer.layers:
                item.visible = visible
        self._before.clear()


_BLEND, _APART = "semsr_blend", "semsr_apart"
_RESULTS = ("enhance", "restore")


@dataclass(eq=False)
class _Blend:
    """A result with its input; kept with the layer."""

    layer: Image
    image: Micrograph  # the input; the first plane of a stack
    result: Micrograph  # likewise
    after: list[object]  # levels of the result, or one of all planes
    # resamples the input to the result's pixels
    prepare: Callable[[], Job[list[object]]]
    stores: list[str]  # of the input
    # the input in the result's pixels
    before: list[object] = field(default_factory=list)
    saved_path: str | None = None  # path of the full-strength result
    provenance: Provenance | None = None

    @property
    def strength(self) -> float:
        """Fraction of the result in the mixture."""
        return float(self.layer.metadata.get(STRENGTH_KEY, 1.0))

    def show(self, strength: float) -> None:
        """Show a mixture, and record it in the layer's metadata."""
        about = self.layer.metadata
        levels, record = blend_levels(self.before, self.after, strength), dict(about)
        self.layer.data = levels if self.layer.multiscale else levels[0]
        about.update(record)  # its store has full strength
        without_cache(self.layer)
        if self.strength >= 1:
            self.saved_path = about.get(SAVED_KEY)
        about.pop(SAVED_KEY, None)
        if strength < 1:
            about |= {STRENGTH_KEY: strength, DRAWN_KEY: self.stores}
        else:
            about.pop(STRENGTH_KEY, None)
            about.pop(DRAWN_KEY, None)
            about |= {SAVED_KEY: self.saved_path} if self.saved_path else {}
        history = self.result.provenance
        if strength < 1:
            if self.provenance is None:
                made_of = {"input": self.image, "result": self.result}
                self.provenance = derived_from("blend", {}, **made_of)
            history = self.provenance.model_copy(
                update={"options": {"strength": strength}}
            )
        about["micrograph"] = {
            **about.get("micrograph", {}),
            "provenance": None if history is None else history.model_dump(mode="json"),
        }


def _stores_of(source: Layer | None) -> list[str]:
    about = {} if source is None else source.metadata
    own = [str(about[STORE_KEY])] if about.get(STORE_KEY) else []
    return [*own, *about.get(DRAWN_KEY, ())]


def _draw_planes(
    images: Sequence[Micrograph], results: Sequence[Micrograph], shape: tuple[int, ...]
) -> Job[list[object]]:
    """Resample all planes of an input to the pixels of the results."""
    levels_drawn = []
    for number, (image, result) in enumerate(zip(images, results, strict=True)):
        yield Progress(number, len(images), f"drawing {image.name}")
        levels_drawn += yield from input_levels(image, (), result, [result.data])
    return [stack_planes(levels_drawn).reshape(shape)]


def _blend_of(
    layer: Image, source: Image | None, image: Micrograph, outcome: Outcome
) -> _Blend:
    """Return a result with its input, with all planes of a stack."""
    draw: Callable[[], Job[list[object]]]
    if outcome.planes and source is not None:
        images, planes = planes_of(source), outcome.planes
        draw = partial(_draw_planes, images, planes, layer.data.shape)
        image, result, after = images[0], planes[0], [layer.data]
    else:
        flat = source is not None and source.multiscale and source.ndim == 2
        coarser_levels = list(source.data)[1:] if source is not None and flat else []
        result = outcome.output.micrograph
        after = [item.data for item in outcome.output.levels]
        after = after if layer.multiscale else after[:1]
        draw = partial(input_levels, image, coarser_levels, result, after)
    return _Blend(layer, image, result, after, draw, _stores_of(source))


class CompareControls(Form):
    """Controls for comparing two layers, usable before, during and after a run."""

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        viewer = panel.viewer
        self._panel, self._viewer = panel, viewer
        panel.unread.append(self)
        self._alone = Alone(viewer)
        self._pair: tuple[Layer, ...] = ()  # the compared layers
        self.before = BeforeAfter(viewer, self)
        self._make_controls()
        self._ticks = [self.beside]  # display modes, one at a time
        for box in (self.left, self.right):
            box.changed.connect(self._again)
        self.right.changed.connect(self._show_strength)
        self.split.changed.connect(self._split)
        self.beside.changed.connect(self._put_side_by_side)
        self.strength.changed.connect(self._set_strength)
        viewer.layers.events.removed.connect(self._on_removed)
        panel.closed.connect(self.end)
        self._show_strength()

    def _make_controls(self) -> None:
        panel, viewer = self._panel, self._viewer
        images = partial(image_layers, viewer)
        self.left = panel.new_layer_box(
            "left", "Left", "Left layer: the input, or any other.", layers=images
        )
        self.right = panel.new_layer_box(
            "right", "Right", "Right layer: the result, or any other.", layers=images
        )
        self.split = Slider(
            name="split",
            label="Before | after",
            tooltip="Drag to cover the left part of the view with the left layer; "
            "the right layer is shown next to it.",
            value=0,
            min=0,
            max=100,
            readout=False,
        )
        self.beside = CheckBox(
            name="beside",
            text="Side by side",
            tooltip="Show both layers side by side; they move together. All others "
            "are hidden meanwhile.",
        )
        self.strength = Slider(
            name="strength",
            label="Strength (%)",
            tooltip="Mix the right layer with its input: 0 is the input, 100 the "
            "result. What you see is what is measured and saved.",
            value=100,
            min=0,
            max=100,
        )
        self.note = RichLabel()
        self.difference_button = push_button(
            "Difference",
            self.subtract,
            "Add the right layer minus the left one as a layer: green where it is "
            "brighter, magenta where it is darker.",
        )
        boxes = self.left, self.right, self.split, self.beside, self.strength
        for control in (*boxes, self.note, self.difference_button):
            self.add(control)

    # -- which layers ---------------------------------------------------------

    def compare(self, left: Layer | None, right: Layer | None = None) -> None:
        """Select a layer to compare; the other one stays."""
        for box, layer in ((self.left, left), (self.right, right)):
            if layer is not None and layer in box.choices:
                box.value = layer

    def finish(
        self,
        layer: Image,
        source: Image | None,
        image: Micrograph,
        outcome: Outcome,
        *,
        apart: bool = False,
    ) -> None:
        """Compare a result with its input from now on, at any strength.

        `apart`: it cannot be mixed, since its grey levels differ.
        """
        if apart:
            setattr(layer, _APART, True)
        else:
            setattr(layer, _BLEND, _blend_of(layer, source, image, outcome))
        self.compare(source, layer)
        self._show_strength()

    def _on_removed(self, event: Event) -> None:
        """Show all layers again if a compared layer is removed."""
        if is_alive(self) and event.value in self._pair:
            self.end()

    def _again(self, _: object = None) -> None:
        """Compare other layers, unless one of them was removed."""
        if any(item not in self._viewer.layers for item in self._pair):
            self.end()
        elif self.split.value:
            self._split(self.split.value)
        for tick in self._ticks:
            if tick.value:
                tick.value = False
                tick.value = True

    def _untick(self, but: CheckBox | None = None) -> None:
        """Clear all ticks, since only one display mode is active."""
        for tick in self._ticks:
            if tick is not but:
                tick.value = False

    def _two(self) -> tuple[Image, Image] | None:
        """Return both layers; show a message if they are not two."""
        left, right = self.left.value, self.right.value
        if left is right or None in (left, right):
            self._panel.show_status("Choose two different layers to compare.")
            return None
        return left, right

    # -- before | after, side by side -----------------------------------------

    def _split(self, percent: int) -> None:
        if percent:
            self._untick()
        left, right = self.left.value, self.right.value
        if percent and right is not None and right is not left:
            self._alone.show(right)
        elif not self.beside.value:
            self._alone.end()
        self._pair = tuple(
            item for item in (left, right) if item is not None and percent
        )
        self.before.show_part(left, percent / 100)

    def _choose_two(self, tick: CheckBox) -> bool:
        """Show only the compared layers; untick if they are not two."""
        both = self._two()
        if both is None:
            tick.value = False
            return False
        self._untick(tick)
        self.split.value = 0
        self._pair = both
        self._alone.show(*both)
        return True

    def _put_side_by_side(self, on: bool) -> None:
        if on and not self._choose_two(self.beside):
            return
        camera = host.camera(self._viewer)
        view = camera.center, camera.zoom
        if on:
            left, right = map(list(self._viewer.layers).index, self._pair)
            host.show_side_by_side(self._viewer, left, right)
        else:
            self._alone.end()
            self._pair = ()
            host.show_over(self._viewer)
        camera.center, camera.zoom = view

    def end(self) -> None:
        """Restore all layers as before the comparison."""
        self._pair = ()
        self.split.value = 0
        self._untick()

    # -- strength ---------------------------------------------------------------

    def _blend(self) -> _Blend | None:
        """Return the mixture of the right layer, if it is a result of a known input."""
        return getattr(self.right.value, _BLEND, None)

    def _show_strength(self, _: object = None) -> None:
        """Show the strength of the right layer, if it can be chosen."""
        blend = self._blend()
        self.strength.enabled = blend is not None
        with self.strength.changed.blocked():
            self.strength.value = 100 if blend is None else round(100 * blend.strength)
        self._report_strength(blend)

    def _report_strength(self, blend: _Blend | None) -> None:
        """Report that a mixture is shown, or why that is impossible."""
        if blend is None or blend.strength >= 1:
            self.note.setText("" if blend else self._why_no_strength())
            return
        part = f"{blend.strength:.0%}"
        self.note.setText(
            f"{blend.layer.name} is shown, measured and saved at {part} strength: the "
            f"rest is {blend.image.name}."
        )

    def _why_no_strength(self) -> str:
        """Report why the right layer, a result, has no strength."""
        layer = self.right.value
        if layer is None or step_before(layer) not in _RESULTS:
            return ""
        if getattr(layer, _APART, False):
            return (
                f"{layer.name} has no strength: the grey levels of its model are not "
                "those of the input, so a mixture of both would be meaningless."
            )
        return (
            f"The strength of {layer.name} can be set only in the session that made "
            "it; run it again to set one."
        )

    def _set_strength(self, percent: int) -> None:
        """Show the right layer at a strength, once its input is prepared."""
        blend = self._blend()
        if blend is None:
            return
        if blend.before:
            self._mix(blend, percent)
        elif percent < 100 and not self._panel.busy:
            begin = partial(self._begin, blend)
            self._panel.start(blend.prepare, begin, "Strength")
        elif percent < 100:
            self._show_strength()

    def _begin(self, blend: _Blend, before: list[object]) -> None:
        """Use the prepared input, and apply the present slider position."""
        blend.before = before
        self._panel.show_status("")
        if self._blend() is blend:
            self._mix(blend, int(self.strength.value))

    def _mix(self, blend: _Blend, percent: int) -> None:
        blend.show(percent / 100)
        self._report_strength(blend)
        self.before.draw()

    # -- difference ---------------------------------------------------------------

    def subtract(self) -> None:
        """Add the difference of both layers as a layer."""
        panel, both = self._panel, self._two()
        if both is None:
            return
        with panel.showing_errors():
            first, second = map(panel.micrograph, both)
            panel.start(
                lambda: self._subtract(first, second),
                lambda opened: self._add_difference(opened, both),
                "Difference",
            )

    def _subtract(self, first: Micrograph, second: Micrograph) -> Job[Opened]:
        """Compute the difference of two images, with an overview if it is large."""
        difference = difference_of(first, second)
        if max(difference.shape) <= SINGLE_PX or not difference.is_lazy:
            difference = difference.replace(data=difference.array())
            return Opened(difference, (difference,))
        coarse = yield from coarse_levels(difference)
        return Opened(difference, (difference, *coarse))

    def _add_difference(
        self, opened_store: Opened, layers: tuple[Layer, Layer]
    ) -> None:
        """Show a difference centred on zero, which is white."""
        low, high = contrast_limits([item.data for item in opened_store.levels])
        most = max(abs(low), abs(high))
        left, right = layers
        name = f"{right.name}{_MINUS}{left.name} difference"
        layer = add_opened(
            self._viewer,
            opened_store,
            name=free_name(self._viewer, name),
            colormap=_DIVERGING,
            contrast_limits=(-most, most),
        )
        layer.metadata[DRAWN_KEY] = [p for one in layers for p in _stores_of(one)]
        layer.metadata[SOURCES_KEY] = sources_of(layers)
        layer.colorbar.visible = True
        self._panel.show_status(
            f"Added {layer.name}: green is brighter, magenta darker, by up to "
            f"{Figure(most, 'grey levels', '.3g')}."
        )
