"""Before | after: the input over the left part of the view, up to a movable line.

Only what is on the canvas is copied, at the resolution that is shown, so that it costs
little on any field.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from qtpy.QtCore import QObject, QTimer

from napari_semsr.core.tiling import Box
from napari_semsr.widgets._layers import HELPER, outline
from napari_semsr.widgets._live import field_in_view
from napari_semsr.widgets._runner import is_alive

if TYPE_CHECKING:
    import napari.components

__all__ = ["BeforeAfter"]

_LATER_MS = 60
_NAME = "before"


class BeforeAfter(QObject):
    """Covers the left part of the view with another layer.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        The viewer.
    parent : QObject, optional
        When it is destroyed, the view is no longer followed.
    """

    def __init__(
        self, viewer: "napari.components.ViewerModel", parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._source: Image | None = None
        self._share = 0.0
        self.layer: Image | None = None
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(_LATER_MS)
        self._later.timeout.connect(self.draw)
        scene = getattr(viewer, "scene", viewer)  # before napari 0.9
        scene.camera.events.connect(self._on_moved)

    def show_part(self, source: Image | None, share: float) -> None:
        """Move the line.

        Parameters
        ----------
        source : napari.layers.Image or None
            The layer shown on the left.
        share : float
            Share of the view that it covers; 0 takes it away.
        """
        self._source, self._share = source, share
        self.draw()

    def draw(self) -> None:
        """Copy what is covered, or take the layer away."""
        source = self._source
        if source is None or self._share <= 0 or source not in self._viewer.layers:
            self._remove()
            return
        view = field_in_view(source)
        if view is None:
            self._remove()
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
            self._remove()
            return
        lead = self._viewer.dims.current_step[-source.ndim : -2]
        pixels = np.asarray(levels[level][(*lead, *box.slices)])
        self._put(source, pixels, box, factor)

    def _put(self, source: Image, pixels: Any, box: Box, factor: Any) -> None:
        """Show pixels at their place, above everything else."""
        pitch = np.asarray(source.scale[-2:]) * factor
        first = (np.array([box.y0, box.x0]) + 0.5) * factor - 0.5
        corner = np.asarray(source.translate[-2:]) + first * source.scale[-2:]
        if self.layer is None or self.layer not in self._viewer.layers:
            chosen = list(self._viewer.layers.selection)
            self.layer = self._viewer.add_image(
                pixels,
                name=_NAME,
                scale=pitch,
                translate=corner,
                units=source.units[-2:],
                axis_labels=source.axis_labels[-2:],
                contrast_limits=source.contrast_limits,
                colormap=source.colormap,
                gamma=source.gamma,
                rgb=False,
                metadata={HELPER: True},
            )
            outline(self.layer)
            self._viewer.layers.selection = chosen
            return
        self.layer.data = pixels
        self.layer.scale, self.layer.translate = pitch, corner

    def _remove(self) -> None:
        if self.layer is not None and self.layer in self._viewer.layers:
            self._viewer.layers.remove(self.layer)
        self.layer = None

    def _on_moved(self, _: Any = None) -> None:
        if is_alive(self) and self.layer is not None:
            self._later.start()
