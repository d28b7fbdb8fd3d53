"""What explains a result hides, shows and goes with it."""

from collections.abc import Iterable
from typing import Any

from napari.components import ViewerModel
from napari.layers import Image, Layer
from qtpy.QtCore import QObject

from napari_semsr.io import FOLDER_KEY, HELPER_KEY
from napari_semsr.widgets.base.history import RemovedLayers
from napari_semsr.widgets.base.runner import is_alive, new_timer

RUN_KEY = "semsr run"
"""Entry of a layer's metadata: of what run it is, and its first name."""

_HIDDEN_KEY = "semsr hidden"
"""Entry of a layer's metadata: it was hidden with the result that it explains."""


def _group(layer: Layer) -> tuple[str, str] | None:
    """Name what a layer belongs to: a run on some input, or a folder of frames."""
    run = layer.metadata.get(RUN_KEY)
    if isinstance(run, dict):
        return str(run.get("by")), str(run.get("of"))
    folder = layer.metadata.get(FOLDER_KEY)
    return None if folder is None else ("frames", str(folder))


def _leads(layer: Layer) -> bool:
    """Whether a layer is a result itself, or frames, and explains no other."""
    return isinstance(layer, Image) and not layer.metadata.get(HELPER_KEY)


def _members(
    layers: Iterable[Layer], group: tuple[str, str], *, lead: bool
) -> list[Layer]:
    """List the layers of a group: results, or what explains them."""
    return [item for item in layers if _leads(item) == lead and _group(item) == group]


def explaining(viewer: ViewerModel, layer: Layer) -> list[Layer]:
    """List the layers that explain a result, such as the outlines of its frames."""
    group = _group(layer) if _leads(layer) else None
    return [] if group is None else _members(viewer.layers, group, lead=False)


class Together(QObject):
    """Lets layers follow the result that they explain; of several the last one."""

    def __init__(
        self, parent: QObject, viewer: ViewerModel, history: RemovedLayers
    ) -> None:
        super().__init__(parent)
        self._history = history
        self._layers_gone: list[tuple[Layer, tuple[str, str]]] = []
        # napari may be removing several
        self._later = new_timer(self, self._remove_followers, 0, once=True)
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removed.connect(self._on_removed)
        for layer in viewer.layers:
            layer.events.visible.connect(self._on_visible)

    def _on_inserted(self, event: Any) -> None:
        event.value.events.visible.connect(self._on_visible)

    def _on_visible(self, event: Any) -> None:
        """Hide what explains a result that is hidden, and show it with that."""
        layer = event.source
        group = _group(layer) if is_alive(self) and _leads(layer) else None
        if group is None:
            return
        layers = self._history.layers
        is_shown = any(item.visible for item in _members(layers, group, lead=True))
        for item in _members(layers, group, lead=False):
            if not is_shown and item.visible:
                item.metadata[_HIDDEN_KEY] = True  # as a project keeps it
                item.visible = False
            elif is_shown and item.metadata.pop(_HIDDEN_KEY, False):
                item.visible = True

    def _on_removed(self, event: Any) -> None:
        """Note a result that a person removed."""
        layer = event.value
        group = _group(layer)
        if is_alive(self) and group and _leads(layer) and not self._history.is_quiet:
            self._layers_gone.append((layer, group))
            self._later.start()

    def _remove_followers(self) -> None:
        """Remove what explains the results that are gone; it comes back with them."""
        layers_gone, self._layers_gone = self._layers_gone, []
        for layer, group in layers_gone:
            left = self._history.layers
            if not _members(left, group, lead=True):
                others = _members(left, group, lead=False)
                self._history.remove_along(layer, others)
