"""What can be taken back: one list for each viewer, its removals of layers included."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, finalize, ref

from napari.components import ViewerModel
from napari.layers import Layer
from psygnal import Signal

from napari_semsr.io import HELPER_KEY, LIVE_KEY
from napari_semsr.widgets.base.results import drop_store

MADE_KEY = "semsr made"
"""Entry of a layer's metadata: title of the panel that made it."""

_MOST = 10  # chosen: more steps back are lost count of, and layers are kept for each


Removed = tuple[int, Layer]
"""A layer, and where it was in the list when it was removed."""


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One thing that can be taken back; it must hold the viewer only weakly."""

    text: str  # what was done, as in "removal of mosaic"
    undo: Callable[[], object]
    possible: Callable[[], bool] = lambda: True  # it is passed over where not
    forget: Callable[[], object] = lambda: None  # when it is too late for it
    owner: str = ""  # panel that has an Undo button of its own
    removed: list[Removed] = field(default_factory=list)  # first removed, last put back


class UndoList:
    """What was done in a viewer, the last thing last."""

    changed = Signal()
    removed = Signal(str)
    """Emits the name of a layer whose removal can be taken back."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = ref(viewer)
        self._steps: list[Step] = []
        self._removing = False  # whether the next removal goes into the last step
        self._quiet = False
        viewer.layers.events.removed.connect(self._on_removed)
        finalize(viewer, _forget, self._steps).atexit = False

    @property
    def layers(self) -> list[Layer]:
        """Layers of the viewer, for steps that must not hold it."""
        viewer = self._viewer()
        return [] if viewer is None else list(viewer.layers)

    def add(self, step: Step) -> None:
        """Note a step; the oldest of many is forgotten."""
        self._removing = bool(step.removed)
        self._steps.append(step)
        if len(self._steps) > _MOST:
            self._steps.pop(0).forget()
        self.changed.emit()

    def note_added(
        self, text: str, added: Sequence[Layer], hidden: Sequence[Layer]
    ) -> None:
        """Let added layers be taken back, and what they hid be shown again."""

        def undo() -> None:
            self.remove(added)
            for layer in hidden:
                layer.visible = True

        self.add(Step(text, undo, lambda: any(item in self.layers for item in added)))

    def remove(self, layers: Sequence[Layer]) -> None:
        """Remove those of some layers that are still there, for a step taken back."""
        viewer = self._viewer()
        for layer in layers:
            if viewer is not None and layer in viewer.layers:
                viewer.layers.remove(layer)

    @property
    def is_quiet(self) -> bool:
        """Whether what is removed now is removed for good, by a panel."""
        return self._quiet

    def remove_along(self, layer: Layer, others: Sequence[Layer]) -> None:
        """Remove what goes with a layer that was removed; one step brings all back."""
        steps = [step for step in self._steps if _removes(step, layer)]
        for item in filter(self.layers.__contains__, others):
            for step in steps[-1:]:
                step.removed.append((self.layers.index(item), item))
            with self.quiet():
                self.remove([item])

    def holds(self, layer: Layer | None) -> bool:
        """Whether the removal of a layer can be taken back."""
        return any(_removes(step, layer) for step in self._steps)

    def end_removal(self) -> None:
        """Let the next removal be a step of its own."""
        self._removing = False

    def last(self, owner: str | None = None) -> Step | None:
        """Give the step that `undo` takes back: the last, or the last of a panel."""
        for step in reversed(self._steps):
            if owner in (None, step.owner) and step.possible():
                return step
        return None

    def undo(self, owner: str | None = None) -> str:
        """Take the last step back, and say which; an empty text when there is none.

        One that refuses to be taken back stays.
        """
        step = self.last(owner)
        if step is None:
            return ""
        self.end_removal()
        with self.quiet():
            step.undo()
        self._steps.remove(step)
        self.changed.emit()
        return step.text

    def clear(self) -> None:
        """Forget all steps, since other layers are open now."""
        self.end_removal()
        _forget(self._steps)
        self.changed.emit()

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Let removals within be for good."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def _put_back(self, removed: Sequence[Removed]) -> None:
        viewer = self._viewer()
        for index, layer in reversed(removed):
            if viewer is not None and layer not in viewer.layers:
                viewer.layers.insert(min(index, len(viewer.layers)), layer)

    def _on_removed(self, event: Any) -> None:
        """Note that a layer was removed; all that go at once come back at once."""
        layer, viewer = event.value, self._viewer()
        if viewer is None:
            return
        if (
            self._quiet
            or layer.metadata.get(HELPER_KEY) is True  # which lay there for a moment
            or layer.metadata.get(LIVE_KEY)  # what is done of it is gone with its run
        ):
            drop_store(layer, viewer.layers)
        else:
            self._add_removal(event.index, layer)
            self.removed.emit(layer.name)
        self.changed.emit()

    def _add_removal(self, index: int, layer: Layer) -> None:
        """Note a removal in the step of those before, or in a step of its own."""
        if self._removing and self._steps:
            step = self._steps.pop()
            step.removed.append((index, layer))
            self.add(replace(step, text=f"removal of {len(step.removed)} layers"))
            return
        removed = [(index, layer)]

        def possible() -> bool:
            there, alive = self.layers, self._viewer() is not None
            return alive and any(item not in there for _, item in removed)

        def forget() -> None:
            for _, item in removed:
                drop_store(item, self.layers)

        undo, text = partial(self._put_back, removed), f"removal of {layer.name}"
        self.add(Step(text, undo, possible, forget, removed=removed))


def _removes(step: Step, layer: Layer | None) -> bool:
    """Whether a step is the removal of a layer, and others perhaps."""
    return any(item is layer for _, item in step.removed)


def _forget(steps: list[Step]) -> None:
    """Make all steps final."""
    while steps:
        steps.pop().forget()


def bare(viewer: ViewerModel) -> ViewerModel:
    """Give the viewer itself: napari hands a proxy to panels, each time another."""
    return getattr(viewer, "__wrapped__", viewer)


_histories: WeakKeyDictionary[Any, UndoList] = WeakKeyDictionary()


def history_of(viewer: ViewerModel) -> UndoList:
    """Give what can be taken back in a viewer."""
    viewer = bare(viewer)
    if viewer not in _histories:
        _histories[viewer] = UndoList(viewer)
    return _histories[viewer]
