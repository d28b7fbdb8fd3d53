"""The layer of a run: there at once, sharper wherever a tile lands.

A timer of twenty ticks a second joins viewer and run. It tells the run what is looked
at, and draws the layer anew where it changed. Nothing here waits.
"""

import shutil
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer

from napari_semsr.core import Box, Micrograph, contrast_limits
from napari_semsr.io import LIVE_KEY, NETWORK_KEY, SINGLE_PX, STORE_KEY
from napari_semsr.widgets.base import is_alive
from napari_semsr.widgets.layers import (
    field_in_view,
    layer_keywords,
    without_cache,
)

if TYPE_CHECKING:
    import napari.components

    from napari_semsr.inference import LiveField
    from napari_semsr.widgets.base import Target

_TICK_MS = 50
_SMALL_PX = 1 << 20
_BEGUN = "semsr_begun"
_INCOMPLETE = " (incomplete)"


def live_field(
    micrograph: Micrograph,
    layer: Image | None,
    card: dict[str, Any],
    options: Any,
    *,
    name: str,
    whole: bool,
) -> tuple["LiveField", dict[str, Any]]:
    """Make what is drawn while an image is enhanced, and the keywords to show it.

    It is calibrated as the result will be, and as bright as the layer.
    """
    from napari_semsr.inference import LiveField, plan_output

    output = plan_output(micrograph, card, options)
    sources = _in_memory(micrograph, layer)
    own = card.get("grey", "input") != "input"  # its grey levels are the model's
    grey = contrast_limits(sources) if own else None
    live = LiveField(output, sources, grey=grey, whole=whole)
    result = Micrograph(
        data=live.levels[-1][:, :],
        pixel_size_nm=output.frame.pixel_size_nm,
        name=name,
        origin=output.frame.origin,
        spacing_px=output.frame.spacing_px,
    )
    look: dict[str, Any] = {}
    if own:
        look["contrast_limits"] = (0.0, 1.0)
    elif layer is not None:
        look["contrast_limits"] = tuple(layer.contrast_limits)
    keywords = layer_keywords(result, **look)
    mark = {"model": str(card.get("name")), "digest": None}  # not known yet
    keywords["metadata"][NETWORK_KEY] = mark
    return live, keywords


def _in_memory(micrograph: Micrograph, layer: Image | None) -> list[NDArray[Any]]:
    """Collect what of an image can be drawn without computing anything."""
    levels: list[Any] = [micrograph.data]
    if layer is not None and layer.multiscale and layer.ndim == micrograph.data.ndim:
        levels += list(layer.data)[1:]
    found = [item for item in levels if isinstance(item, np.ndarray)]
    coarsest = levels[-1]
    if not found and coarsest.shape[0] * coarsest.shape[1] <= _SMALL_PX:
        found = [np.asarray(coarsest)]
    # else a grey that is shown as neither dark nor bright
    middle = 0.0 if layer is None else float(np.mean(layer.contrast_limits))
    return found or [np.full((1, 1), middle)]


def half_done(viewer: "napari.components.ViewerModel") -> "list[LiveLayer]":
    """Find what was begun in a viewer and is not finished, the newest first."""
    found = [getattr(layer, _BEGUN, None) for layer in reversed(viewer.layers)]
    return [live for live in found if live is not None and live.begun]


class LiveLayer(QObject):
    """A layer that is being enhanced; it outlives the panel that began it."""

    def __init__(
        self,
        viewer: "napari.components.ViewerModel",
        live: "LiveField",
        keywords: dict[str, Any],
        store: "Target",
        removed: Callable[[], None],
        made: tuple[Any, ...] = (),
    ) -> None:
        super().__init__()
        self.live = live
        self.store = store
        self.made = made  # source, model and options
        self.wanted = True  # else what is done of the store goes when its run ends
        self._viewer = viewer
        self._removed = removed
        self._view: Box | None = None
        many = len(live.levels) > 1 and max(live.shape) > SINGLE_PX
        data: Any = live.levels if many else live.levels[0]
        self.layer = viewer.add_image(data, multiscale=many, **keywords)
        self.layer.metadata[LIVE_KEY] = True
        setattr(self.layer, _BEGUN, self)
        viewer.layers.events.removed.connect(self._on_removed)
        seen = field_in_view(self.layer)
        if seen is not None and seen.shape > (1, 1):  # else it was not drawn yet
            self._view = seen
            live.look_at(seen)
        self._timer = QTimer(self)
        self._timer.setInterval(_TICK_MS)
        self._timer.timeout.connect(self.tick)
        self._timer.start()

    @property
    def shown(self) -> bool:
        """Whether the layer is still in the viewer."""
        return self.layer in self._viewer.layers

    @property
    def begun(self) -> bool:
        """Whether some of the layer has yet to be enhanced."""
        return bool(self.layer.metadata.get(LIVE_KEY))

    def tick(self) -> None:
        """Tell the run what is looked at, and draw what is new of it."""
        view = field_in_view(self.layer)
        if view != self._view:  # then napari has just read all of it anew
            self._view = view
            self.live.look_at(view)
            return
        news = self.live.take_news()
        if news is not None and view is not None and news.overlap(view):
            self.layer.refresh(extent=False, thumbnail=False, highlight=False)

    def resume(self, removed: Callable[[], None]) -> None:
        """Draw again, because the run goes on."""
        self._removed = removed
        self._name(complete=True)
        self._timer.start()

    def pause(self) -> None:
        """Draw a last time, because the run has stopped; the layer stays."""
        self._timer.stop()
        if self.shown:
            self._name(complete=False)
            self.live.take_news()
            self.layer.refresh(extent=False, highlight=False)

    def _name(self, *, complete: bool) -> None:
        """Say in the layer's name whether it was left half done."""
        name = self.layer.name.removesuffix(_INCOMPLETE)
        self.layer.name = name if complete else f"{name}{_INCOMPLETE}"

    def finish(self, micrograph: Micrograph, levels: Sequence[Any]) -> None:
        """Show the finished store in place of the live levels."""
        self._timer.stop()
        if not self.shown:
            return
        self.layer.metadata.pop(LIVE_KEY, None)
        delattr(self.layer, _BEGUN)
        self.layer.metadata.update(layer_keywords(micrograph)["metadata"])
        self.layer.metadata[STORE_KEY] = str(self.store.path.resolve())
        self.layer.data = list(levels) if self.layer.multiscale else levels[0]
        without_cache(self.layer)

    def discard(self) -> None:
        """Take the layer out of the viewer."""
        self._timer.stop()
        self.wanted = False
        if self.shown:
            self._viewer.layers.remove(self.layer)

    def forget_store(self) -> None:
        """Remove the store, if it was a temporary one."""
        if self.store.temporary:
            shutil.rmtree(self.store.path, ignore_errors=True)

    def _on_removed(self, event: Any) -> None:
        if is_alive(self) and event.value == self.layer:
            self._timer.stop()
            self.wanted = False
            self._removed()
