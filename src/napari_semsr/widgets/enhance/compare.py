"""A small enhanced box that follows the mouse while options change."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import CheckBox
from napari.layers import Image
from psygnal import Signal
from qtpy.QtCore import QObject, QTimer

from napari_semsr.core import Box, Job, Micrograph, SemsrError
from napari_semsr.jobs import PreviewDesk, preview_job
from napari_semsr.widgets.base import JobRunner, Panel
from napari_semsr.widgets.compare import CompareControls, OverLayer
from napari_semsr.widgets.enhance.starting import start_torch
from napari_semsr.widgets.layers import layer_keywords

if TYPE_CHECKING:
    import napari.components

_TICK_MS = 100
_SIDE_PX = 192
_NAME = "preview"
Subject = tuple[Image, Micrograph, str, Any]
"""Layer, its image, model and options."""


class MousePreview(OverLayer):
    """Shows what a model makes of the place under the mouse."""

    found = Signal(object)  # the blur that the model goes by, in px, or None

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

        def make() -> Job[None]:
            yield from start_torch()
            yield from preview_job(image, desk, model=model, options=options)

        self.runner.start("Preview", make)
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
            if self._subject[3].blur_px is None:
                self.found.emit(self._desk.blur_px)

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


class EnhanceCompare(CompareControls):
    """Controls for comparing, and for trying models at the mouse."""

    def __init__(self, panel: Panel, read: Callable[[], Subject]) -> None:
        super().__init__(panel)
        self.pointing = CheckBox(
            name="pointing",
            text="Preview at the mouse",
            tooltip="Enhance a small box under the mouse, to try models and options.",
        )
        self.add(self.pointing)
        self.preview = MousePreview(panel.viewer, read, panel.show_problem, self)
        self.pointing.changed.connect(self._point)
        self.preview.runner.failed.connect(self.stop_preview)

    def start_preview(self, _: Any = None) -> None:
        """Show a preview, because an option was chosen that wants to be looked at."""
        self.pointing.value = True

    def stop_preview(self, _: Any = None) -> None:
        """Take the preview away, because a run begins or it failed."""
        self.pointing.value = False

    def _point(self, on: bool) -> None:
        if on:
            self.preview.start()
        else:
            self.preview.stop()
