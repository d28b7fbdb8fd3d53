"""Ways to compare input and result: a box at the mouse, a line, two views.

Left of the line lies the input: only what is on the canvas is copied, at the resolution
that is shown, so that it costs little on any field.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import CheckBox, Slider
from napari.layers import Image
from qtpy.QtCore import QObject, QTimer

from napari_semsr.core import Box, Micrograph, SemsrError
from napari_semsr.io import HELPER_KEY
from napari_semsr.jobs import PreviewDesk, preview_job
from napari_semsr.widgets.base import Form, JobRunner, is_alive
from napari_semsr.widgets.enhance.live import field_in_view
from napari_semsr.widgets.layers import layer_keywords

if TYPE_CHECKING:
    import napari.components

_LATER_MS = 60
_BEFORE_NAME = "before"
_AMBER = "#e3b617"


class _OverLayer(QObject):
    """A layer that lies over another for a while, in no list of the panels."""

    def __init__(
        self, viewer: "napari.components.ViewerModel", parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self.layer: Image | None = None

    def put(self, pixels: Any, look: dict[str, Any]) -> None:
        """Show pixels at their place, above everything else."""
        if self.layer is not None and self.layer in self._viewer.layers:
            self.layer.data = pixels
            self.layer.scale, self.layer.translate = look["scale"], look["translate"]
            return
        chosen = list(self._viewer.layers.selection)
        look |= {"metadata": {HELPER_KEY: True}}
        self.layer = self._viewer.add_image(pixels, **look)
        box = self.layer.bounding_box  # a thin line around it
        box.line_color = _AMBER
        box.points = False
        box.visible = True
        self._viewer.layers.selection = chosen

    def remove(self) -> None:
        """Take the layer away."""
        if self.layer is not None and self.layer in self._viewer.layers:
            self._viewer.layers.remove(self.layer)
        self.layer = None


class BeforeAfter(_OverLayer):
    """Covers the left part of the view with another layer."""

    def __init__(
        self, viewer: "napari.components.ViewerModel", parent: QObject | None = None
    ) -> None:
        super().__init__(viewer, parent)
        self._source: Image | None = None
        self._share = 0.0
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(_LATER_MS)
        self._later.timeout.connect(self.draw)
        scene = getattr(viewer, "scene", viewer)  # before napari 0.9
        scene.camera.events.connect(self._on_moved)

    def show_part(self, source: Image | None, share: float) -> None:
        """Move the line."""
        self._source, self._share = source, share
        self.draw()

    def draw(self) -> None:
        """Copy what is covered, or take the layer away."""
        source = self._source
        if source is None or self._share <= 0 or source not in self._viewer.layers:
            self.remove()
            return
        view = field_in_view(source)
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
        lead = self._viewer.dims.current_step[-source.ndim : -2]
        pixels = np.asarray(levels[level][(*lead, *box.slices)])
        first = (np.array([box.y0, box.x0]) + 0.5) * factor - 0.5
        look = {
            "name": _BEFORE_NAME,
            "scale": np.asarray(source.scale[-2:]) * factor,
            "translate": np.asarray(source.translate[-2:]) + first * source.scale[-2:],
            "units": source.units[-2:],
            "axis_labels": source.axis_labels[-2:],
            "contrast_limits": source.contrast_limits,
            "colormap": source.colormap,
            "gamma": source.gamma,
            "rgb": False,
        }
        self.put(pixels, look)

    def _on_moved(self, _: Any = None) -> None:
        if is_alive(self) and self.layer is not None:
            self._later.start()


# A small enhanced box that follows the mouse while options change.

_TICK_MS = 100
_SIDE_PX = 192
_NAME = "preview"
Subject = tuple[Image, Micrograph, str, Any]
"""Layer, its image, model and options."""


class MousePreview(_OverLayer):
    """Shows what a model makes of the place under the mouse."""

    def __init__(
        self,
        viewer: "napari.components.ViewerModel",
        read: Callable[[], Subject],
        say: Callable[[str], None],
        parent: QObject,
    ) -> None:
        super().__init__(viewer, parent)
        self._read, self._say = read, say
        self._wanted = False
        self.side_px = _SIDE_PX
        self._subject: Subject | None = None
        self._place: tuple[float, ...] = ()
        self._desk = PreviewDesk()
        self.runner = JobRunner(self)
        self.runner.failed.connect(self._fail)
        self.runner.busy_changed.connect(self._start_again)
        self._timer = QTimer(self)
        self._timer.setInterval(_TICK_MS)
        self._timer.timeout.connect(self.tick)

    def start(self) -> None:
        """Begin with what the panel says now, or begin anew."""
        self._wanted = True
        if self.runner.busy:
            self.runner.cancel()
            return
        try:
            subject = self._read()
        except SemsrError as error:
            self._fail(str(error))
            return
        _, image, model, options = subject
        self._subject, self._desk, self._place = subject, PreviewDesk(), ()
        desk = self._desk
        self.runner.start(
            "Preview", lambda: preview_job(image, desk, model=model, options=options)
        )
        self._timer.start()

    def change(self, _: Any = None) -> None:
        """Begin anew, because something in the panel changed; nothing when off."""
        if self._wanted:
            self.start()

    def stop(self) -> None:
        """End, and take the box away."""
        self._wanted = False
        self._timer.stop()
        self.runner.cancel()
        self.remove()

    def tick(self) -> None:
        """Ask for the box under the mouse, and show what has come."""
        if self._subject is None or self._subject[0] not in self._viewer.layers:
            self.stop()
            return
        place = tuple(self._viewer.cursor.position)
        if place != self._place:
            self._place = place
            self._desk.ask(self._box(self._subject[0], place))
        answer = self._desk.take()
        if answer is not None:
            self._show(*answer)

    def _box(self, layer: Image, place: tuple[float, ...]) -> Box:
        """Centre a box on a point of the world."""
        count = min(layer.ndim, len(place))
        found = layer.world_to_data(place[-count:])[-2:]
        y, x = (round(float(value)) - self.side_px // 2 for value in found)
        return Box.of((self.side_px, self.side_px), (y, x))

    def _show(self, box: Box, pixels: Any) -> None:
        """Put the pixels where they belong."""
        if self._subject is None:
            return
        source, image, _, _ = self._subject
        pitch = np.asarray(image.scale) * np.asarray(box.shape) / pixels.shape
        corner = np.asarray(image.origin) + (
            (np.array([box.y0, box.x0]) - 0.5) * np.asarray(image.scale) + pitch / 2
        )
        limits = tuple(source.contrast_limits)
        look = layer_keywords(image, contrast_limits=limits, name=_NAME)
        self.put(pixels, look | {"scale": pitch, "translate": corner})

    def _start_again(self, busy: bool) -> None:
        if self._wanted and not busy:
            self.start()

    def _fail(self, text: str) -> None:
        self._wanted = False
        self.stop()
        self._say(text)


class CompareControls(Form):
    """Controls for comparing; they work before, during and after a run."""

    def __init__(
        self,
        viewer: "napari.components.ViewerModel",
        source: "Callable[[], Image | None]",
        read: Callable[[], Subject],
        say: Callable[[str], None],
    ) -> None:
        super().__init__()
        self.pointing = CheckBox(
            name="pointing",
            text="Preview at the mouse",
            tooltip="Enhance a small box under the mouse, to try models and options.",
        )
        self.split = Slider(
            name="split",
            label="Before | after",
            tooltip="Drag to cover the left part of the view with the layer that is "
            "enhanced.",
            value=0,
            min=0,
            max=100,
            readout=False,
        )
        self.beside = CheckBox(
            name="beside",
            text="Side by side",
            tooltip="Show the layers beside each other; they move together.",
        )
        for control in (self.pointing, self.split, self.beside):
            self.add(control)
        self._viewer, self._source = viewer, source
        self.preview = MousePreview(viewer, read, say, self)
        self.before = BeforeAfter(viewer, self)
        self.pointing.changed.connect(self._point)
        self.split.changed.connect(self._split)
        self.beside.changed.connect(self._put_beside)
        self.preview.runner.failed.connect(self.stop_preview)

    def stop_preview(self, _: Any = None) -> None:
        """Take the preview away, because a run begins or it failed."""
        self.pointing.value = False

    def _point(self, on: bool) -> None:
        if on:
            self.preview.start()
        else:
            self.preview.stop()

    def _split(self, percent: int) -> None:
        if percent and self.beside.value:
            self.beside.value = False
        self.before.show_part(self._source(), percent / 100)

    def _put_beside(self, on: bool) -> None:
        if on:
            self.split.value = 0
        canvas = getattr(self._viewer, "canvas", self._viewer)  # before napari 0.9
        canvas.grid.enabled = on
