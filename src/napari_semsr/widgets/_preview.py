"""A small enhanced box that follows the mouse while options change."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from qtpy.QtCore import QObject, QTimer

from napari_semsr.core.errors import SemsrError
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.tiling import Box
from napari_semsr.services.preview import PreviewDesk, preview
from napari_semsr.widgets._layers import HELPER, layer_keywords, outline
from napari_semsr.widgets._runner import JobRunner

if TYPE_CHECKING:
    import napari.components

__all__ = ["MousePreview", "Subject"]

_TICK_MS = 100
_SIDE_PX = 192
_NAME = "preview"
Subject = tuple[Image, Micrograph, str, Any]
"""Layer, its image, model and options."""


class MousePreview(QObject):
    """Shows what a model makes of the place under the mouse.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        The viewer.
    read : callable
        Reads the panel: layer, image, model and options.
    say : callable
        Shows a sentence about what went wrong.
    parent : QObject
        The panel.
    """

    def __init__(
        self,
        viewer: "napari.components.ViewerModel",
        read: Callable[[], Subject],
        say: Callable[[str], None],
        parent: QObject,
    ) -> None:
        super().__init__(parent)
        self._viewer, self._read, self._say = viewer, read, say
        self._wanted = False
        self._side_px = _SIDE_PX
        self._subject: Subject | None = None
        self._place: tuple[float, ...] = ()
        self._desk = PreviewDesk()
        self.layer: Image | None = None
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
            "Preview", lambda: preview(image, desk, model=model, options=options)
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
        if self.layer is not None and self.layer in self._viewer.layers:
            self._viewer.layers.remove(self.layer)
        self.layer = None

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
        y, x = (round(float(value)) - self._side_px // 2 for value in found)
        return Box(y, y + self._side_px, x, x + self._side_px)

    def _show(self, box: Box, pixels: Any) -> None:
        """Put the pixels where they belong."""
        if self._subject is None:
            return
        source, image, _, _ = self._subject
        pitch = np.asarray(image.scale) * np.asarray(box.shape) / pixels.shape
        corner = np.asarray(image.origin) + (
            (np.array([box.y0, box.x0]) - 0.5) * np.asarray(image.scale) + pitch / 2
        )
        if self.layer is None or self.layer not in self._viewer.layers:
            chosen = list(self._viewer.layers.selection)
            keywords = layer_keywords(
                image, contrast_limits=tuple(source.contrast_limits), name=_NAME
            )
            self.layer = self._viewer.add_image(
                pixels,
                **keywords
                | {"scale": pitch, "translate": corner, "metadata": {HELPER: True}},
            )
            outline(self.layer)
            self._viewer.layers.selection = chosen
            return
        self.layer.data = pixels
        self.layer.scale, self.layer.translate = pitch, corner

    def _start_again(self, busy: bool) -> None:
        if self._wanted and not busy:
            self.start()

    def _fail(self, text: str) -> None:
        self._wanted = False
        self.stop()
        self._say(text)
