"""Ways to compare input and result: a box at the mouse, a line, two views."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from magicgui.widgets import CheckBox, Slider

from napari_semsr.widgets._before import BeforeAfter
from napari_semsr.widgets._form import Form
from napari_semsr.widgets._preview import MousePreview, Subject

if TYPE_CHECKING:
    import napari.components
    from napari.layers import Image

__all__ = ["Look"]


class Look(Form):
    """Controls for comparing; they work before, during and after a run.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        The viewer.
    source : callable
        Gives the layer that is enhanced.
    read : callable
        Reads the panel for a preview.
    say : callable
        Shows a sentence about what went wrong.
    """

    def __init__(
        self,
        viewer: "napari.components.ViewerModel",
        source: "Callable[[], Image | None]",
        read: Callable[[], Subject],
        say: Callable[[str], None],
    ) -> None:
        super().__init__()
        self._viewer, self._source = viewer, source
        self.pointing = CheckBox(
            name="pointing", value=False, text="Preview at the mouse"
        )
        self.split = Slider(name="split", value=0, min=0, max=100, readout=False)
        self.beside = CheckBox(name="beside", value=False, text="Side by side")
        self.preview = MousePreview(viewer, read, say, self)
        self.before = BeforeAfter(viewer, self)
        self.add(
            "pointing",
            "",
            self.pointing,
            "Enhance a small box under the mouse, to try models and options.",
        )
        self.add(
            "split",
            "Before | after",
            self.split,
            "Drag to cover the left part of the view with the layer that is enhanced.",
        )
        self.add(
            "beside",
            "",
            self.beside,
            "Show the layers beside each other; they move together.",
        )
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
