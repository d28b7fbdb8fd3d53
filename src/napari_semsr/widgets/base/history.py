"""Undo of layer removals, and helper layers that follow their result."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary, finalize, ref

import numpy as np
import psutil
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer
from napari.utils.events import Event
from psygnal import Signal
from qtpy.QtCore import QObject

from napari_semsr.io import FOLDER_KEY, HELPER_KEY, LIVE_KEY, STORE_KEY
from napari_semsr.widgets.base.places import is_temporary
from napari_semsr.widgets.base.results import remove_layer_store
from napari_semsr.widgets.base.runner import create_timer, is_alive
from napari_semsr.widgets.layers import get_finest_level

MADE_KEY = "semsr made"
"""Layer metadata key for the title of the panel that created the layer."""

RUN_KEY = "semsr run"
"""Layer metadata key: the run that created the layer, and its original name."""

_HIDDEN_KEY = "semsr hidden"
"""Layer metadata key: whether the layer was hidden along with its result."""


@dataclass(slots=True)
class _Removal:
    """Layers that were removed together, in order, with their former indices."""

    layers: list[tuple[int, Layer]] = field(default_factory=list)
    text: str = ""


class RemovedLayers:
    """Removals of layers from a viewer, which are undone from the last to the first.

    The oldest become final when the pixels of removed layers, in memory or in the
    folder of the session, take more than the memory that is free.
    """

    changed = Signal()
    removed = Signal(str)
    """Emits the name of a layer whose removal can be undone."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = ref(viewer)
        self._removals: list[_Removal] = []
        self._removing = False  # whether further removals belong to the same step
        self._quiet = False
        viewer.layers.events.removed.connect(self._on_layer_removed)
        finalize(viewer, _finalise_removals, self._removals, []).atexit = False

    @property
    def layers(self) -> list[Layer]:
        """Layers of the viewer, without keeping the viewer alive."""
        viewer = self._viewer()
        return [] if viewer is None else list(viewer.layers)

    @property
    def _layers_removed(self) -> list[Layer]:
        return [layer for removal in self._removals for _, layer in removal.layers]

    def remove_layers(self, layers: Iterable[Layer | None]) -> None:
        """Remove the given layers that still exist; this cannot be undone."""
        viewer = self._viewer()
        with self.make_removals_final():
            for layer in layers:
                if viewer is not None and layer in viewer.layers:
                    viewer.layers.remove(layer)

    @property
    def is_quiet(self) -> bool:
        """Whether removals are currently final because a panel performs them."""
        return self._quiet

    def remove_dependents(self, layer: Layer, others: Sequence[Layer]) -> None:
        """Remove layers that depend on a removed layer; undo restores all of them."""
        removal = self._find_removal(layer)
        for item in filter(self.layers.__contains__, others):
            if removal is not None:
                removal.layers.append((self.layers.index(item), item))
            self.remove_layers([item])

    def _find_removal(self, layer: Layer | None) -> _Removal | None:
        """Return the last removal of a layer that can be undone, or None."""
        for removal in reversed(self._removals):
            if any(item is layer for _, item in removal.layers):
                return removal
        return None

    def can_restore(self, layer: Layer | None) -> bool:
        """Return whether the removal of a layer can be undone."""
        return self._find_removal(layer) is not None

    def end_removal(self) -> None:
        """End the current removal, so that the next one is undone separately."""
        self._removing = False

    @property
    def undo_text(self) -> str:
        """Removal that undo restores next, such as "removal of mosaic", or empty."""
        there = self.layers
        texts = (
            removal.text
            for removal in reversed(self._removals)
            if any(item not in there for _, item in removal.layers)
        )
        return next(texts, "") if self._viewer() is not None else ""

    def undo(self) -> str:
        """Restore the last removed layers; return the undo text, empty if none."""
        text, viewer, restored = self.undo_text, self._viewer(), False
        while text and viewer is not None and not restored:
            for index, layer in reversed(self._removals.pop().layers):
                if layer not in viewer.layers:
                    viewer.layers.insert(min(index, len(viewer.layers)), layer)
                    restored = True
        self.end_removal()
        self.changed.emit()
        return text

    def clear(self) -> None:
        """Make all removals final."""
        self.end_removal()
        _finalise_removals(self._removals, self.layers)
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
        # an overlay was only temporary, results were removed with their run
        is_passing = layer.metadata.get(HELPER_KEY) is True
        if self._quiet or is_passing or layer.metadata.get(LIVE_KEY):
            remove_layer_store(layer, [*viewer.layers, *self._layers_removed])
        else:
            if not self._removing or not self._removals:
                self._removals.append(_Removal())
            self._removing, last = True, self._removals[-1]
            last.layers.append((event.index, layer))
            many = len(last.layers)
            last.text = f"removal of {layer.name if many == 1 else f'{many} layers'}"
            free = psutil.virtual_memory().available
            while (
                len(self._removals) > 1
                and sum(map(_measure_kept_bytes, self._layers_removed)) > free
            ):
                oldest = self._removals.pop(0)
                others = [*viewer.layers, *self._layers_removed]
                _finalise_removals([oldest], others)
            self.removed.emit(layer.name)
        self.changed.emit()


def _measure_kept_bytes(layer: Layer) -> int:
    """Return the bytes of the pixels that a removed layer keeps."""
    if not isinstance(layer, Image | Labels):
        return 0
    data, store = get_finest_level(layer), str(layer.metadata.get(STORE_KEY, ""))
    is_kept = isinstance(data, np.ndarray) or is_temporary(store)
    return int(data.nbytes) if is_kept else 0


def _finalise_removals(removals: list[_Removal], others: Sequence[Layer]) -> None:
    """Make removals final, keeping stores that other layers still show."""
    while removals:
        removal = removals.pop()
        while removal.layers:
            remove_layer_store(removal.layers.pop()[1], others)


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


def _get_result_group(layer: Layer) -> tuple[str, str] | None:
    """Return the group of a result, or None."""
    return _get_layer_group(layer) if _is_result_layer(layer) else None


def _find_members(
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
    group = _get_result_group(layer)
    return [] if group is None else _find_members(viewer.layers, group, lead=False)


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
        group, layers = _get_result_group(event.source), self._history.layers
        if group is None or not is_alive(self):
            return
        is_shown = any(item.visible for item in _find_members(layers, group, lead=True))
        for item in _find_members(layers, group, lead=False):
            if not is_shown and item.visible:
                item.metadata[_HIDDEN_KEY] = True  # as kept by a project
                item.visible = False
            elif is_shown and item.metadata.pop(_HIDDEN_KEY, False):
                item.visible = True

    def _on_layer_removed(self, event: Event) -> None:
        """Record a result that the user removed."""
        group = _get_result_group(event.value)
        if group and is_alive(self) and not self._history.is_quiet:
            self._layers_gone.append((event.value, group))
            self._later.start()

    def _remove_helper_layers(self) -> None:
        """Remove the helper layers of removed results; undo restores both."""
        layers_gone, self._layers_gone = self._layers_gone, []
        for layer, group in layers_gone:
            left = self._history.layers
            if not _find_members(left, group, lead=True):
                others = _find_members(left, group, lead=False)
                self._history.remove_dependents(layer, others)
