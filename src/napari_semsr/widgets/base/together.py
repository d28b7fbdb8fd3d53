"""Helper layers that are hidden, shown and removed together with their result."""

from collections.abc import Iterable

from napari.components import ViewerModel
from napari.layers import Image, Layer
from napari.utils.events import Event
from qtpy.QtCore import QObject

from napari_semsr.io import FOLDER_KEY, HELPER_KEY
from napari_semsr.widgets.base.history import RemovedLayers
from napari_semsr.widgets.base.runner import create_timer, is_alive

RUN_KEY = "semsr run"
"""Layer metadata key: the run that created the layer, and its original name."""

_HIDDEN_KEY = "semsr hidden"
"""Layer metadata key: whether the layer was hidden along with its result."""


def _get_layer_group(layer: Layer) -> tuple[str, str] | None:
    """Return the group of a layer: a run on a given input, or a folder of frames."""
    run = layer.metadata.get(RUN_KEY)
    if isinstance(run, dict):
        return str(run.get("by")), str(run.get("of"))
    folder = layer.metadata.get(FOLDER_KEY)
    return None if folder is None else ("frames", str(folder))


def _is_result_layer(layer: Layer) -> bool:
    """Return whether a layer is a result or contains frames, and is not a helper."""
    return isinstance(layer, Image) and not layer.metadata.get(HELPER_KEY)


def _find_group_members(
    layers: Iterable[Layer], group: tuple[str, str], *, lead: bool
) -> list[Layer]:
    """Return either the results or the helper layers of a group."""
    return [
        item
        for item in layers
        if _is_result_layer(item) == lead and _get_layer_group(item) == group
    ]


def find_helper_layers(viewer: ViewerModel, layer: Layer) -> list[Layer]:
    """Return the helper layers of a result, such as frame outlines."""
    group = _get_layer_group(layer) if _is_result_layer(layer) else None
    return (
        [] if group is None else _find_group_members(viewer.layers, group, lead=False)
    )


class LayerLinker(QObject):
    """Linker that hides, shows and removes helper layers along with their result."""

    def __init__(
        self, parent: QObject, viewer: ViewerModel, history: RemovedLayers
    ) -> None:
        super().__init__(parent)
        self._history = history
        self._layers_gone: list[tuple[Layer, tuple[str, str]]] = []
        # napari may remove several at once
        self._later = create_timer(self, self._remove_helper_layers, 0, once=True)
        viewer.layers.events.inserted.connect(self._on_layer_inserted)
        viewer.layers.events.removed.connect(self._on_layer_removed)
        for layer in viewer.layers:
            layer.events.visible.connect(self._on_visibility_changed)

    def _on_layer_inserted(self, event: Event) -> None:
        event.value.events.visible.connect(self._on_visibility_changed)

    def _on_visibility_changed(self, event: Event) -> None:
        """Hide or show helper layers with their result."""
        layer = event.source
        group = (
            _get_layer_group(layer)
            if is_alive(self) and _is_result_layer(layer)
            else None
        )
        if group is None:
            return
        layers = self._history.layers
        is_shown = any(
            item.visible for item in _find_group_members(layers, group, lead=True)
        )
        for item in _find_group_members(layers, group, lead=False):
            if not is_shown and item.visible:
                item.metadata[_HIDDEN_KEY] = True  # as kept by a project
                item.visible = False
            elif is_shown and item.metadata.pop(_HIDDEN_KEY, False):
                item.visible = True

    def _on_layer_removed(self, event: Event) -> None:
        """Record a result that the user removed."""
        layer = event.value
        group = _get_layer_group(layer)
        if (
            is_alive(self)
            and group
            and _is_result_layer(layer)
            and not self._history.is_quiet
        ):
            self._layers_gone.append((layer, group))
            self._later.start()

    def _remove_helper_layers(self) -> None:
        """Remove the helper layers of removed results; undo restores both."""
        layers_gone, self._layers_gone = self._layers_gone, []
        for layer, group in layers_gone:
            left = self._history.layers
            if not _find_group_members(left, group, lead=True):
                others = _find_group_members(left, group, lead=False)
                self._history.remove_dependents(layer, others)
