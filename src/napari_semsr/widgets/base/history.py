"""Undo of the last layer removal in a viewer."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from weakref import WeakKeyDictionary, finalize, ref

from napari.components import ViewerModel
from napari.layers import Layer
from napari.utils.events import Event
from psygnal import Signal

from napari_semsr.io import HELPER_KEY, LIVE_KEY
from napari_semsr.widgets.base.results import remove_layer_store

MADE_KEY = "semsr made"
"""Layer metadata key for the title of the panel that created the layer."""

_Removal = list[tuple[int, Layer]]
"""Removed layers in order, with their former indices in the layer list."""


class RemovedLayers:
    """Layers that were most recently removed from a viewer."""

    changed = Signal()
    removed = Signal(str)
    """Emits the name of a layer whose removal can be undone."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = ref(viewer)
        self._last: _Removal = []
        self._text = ""
        self._removing = False  # whether further removals belong to the same step
        self._quiet = False
        viewer.layers.events.removed.connect(self._on_layer_removed)
        finalize(viewer, _finalise_removal, self._last, []).atexit = False

    @property
    def layers(self) -> list[Layer]:
        """Layers of the viewer, without keeping the viewer alive."""
        viewer = self._viewer()
        return [] if viewer is None else list(viewer.layers)

    def remove_layers(self, layers: Sequence[Layer]) -> None:
        """Remove the given layers that still exist."""
        viewer = self._viewer()
        for layer in layers:
            if viewer is not None and layer in viewer.layers:
                viewer.layers.remove(layer)

    @property
    def is_quiet(self) -> bool:
        """Whether removals are currently final because a panel performs them."""
        return self._quiet

    def remove_dependents(self, layer: Layer, others: Sequence[Layer]) -> None:
        """Remove layers that depend on a removed layer; undo restores all of them."""
        for item in filter(self.layers.__contains__, others):
            if self.can_restore(layer):
                self._last.append((self.layers.index(item), item))
            with self.make_removals_final():
                self.remove_layers([item])

    def can_restore(self, layer: Layer | None) -> bool:
        """Return whether the removal of a layer can be undone."""
        return any(item is layer for _, item in self._last)

    def end_removal(self) -> None:
        """End the current removal, so that the next one is undone separately."""
        self._removing = False

    @property
    def undo_text(self) -> str:
        """Removal that can be undone, such as "removal of mosaic", or empty."""
        there = self.layers
        is_gone = self._viewer() and any(item not in there for _, item in self._last)
        return self._text if is_gone else ""

    def undo(self) -> str:
        """Restore the last removed layers; return the undo text, empty if none."""
        text, viewer = self.undo_text, self._viewer()
        if text and viewer is not None:
            for index, layer in reversed(self._last):
                if layer not in viewer.layers:
                    viewer.layers.insert(min(index, len(viewer.layers)), layer)
            self.clear()
        return text

    def clear(self) -> None:
        """Make the last removal final."""
        self.end_removal()
        _finalise_removal(self._last, self.layers)
        self.changed.emit()

    @contextmanager
    def make_removals_final(self) -> Iterator[None]:
        """Make removals in this context final."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def _on_layer_removed(self, event: Event) -> None:
        """Record a removed layer; layers removed together are restored together."""
        layer, viewer = event.value, self._viewer()
        if viewer is None:
            return
        if (
            self._quiet
            or layer.metadata.get(HELPER_KEY) is True  # which was only temporary
            or layer.metadata.get(LIVE_KEY)  # its results were removed with its run
        ):
            remove_layer_store(layer, viewer.layers)
        else:
            if not self._removing:
                _finalise_removal(self._last, [*viewer.layers, layer])
            self._removing = True
            self._last.append((event.index, layer))
            many = len(self._last)
            self._text = f"removal of {layer.name if many == 1 else f'{many} layers'}"
            self.removed.emit(layer.name)
        self.changed.emit()


def _finalise_removal(removal: _Removal, others: Sequence[Layer]) -> None:
    """Make a removal final, keeping stores that other layers still show."""
    while removal:
        remove_layer_store(removal.pop()[1], others)


def unwrap_viewer(viewer: ViewerModel) -> ViewerModel:
    """Return the viewer behind the proxy that napari passes to panels."""
    return getattr(viewer, "__wrapped__", viewer)


_histories: WeakKeyDictionary[ViewerModel, RemovedLayers] = WeakKeyDictionary()


def get_removed_layers(viewer: ViewerModel) -> RemovedLayers:
    """Return the removed layers of a viewer."""
    viewer = unwrap_viewer(viewer)
    if viewer not in _histories:
        _histories[viewer] = RemovedLayers(viewer)
    return _histories[viewer]
