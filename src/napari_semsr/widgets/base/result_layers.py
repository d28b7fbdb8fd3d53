"""Layers that a panel adds: shown step by step, replaced by a later run, and saved."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from magicgui.widgets import CheckBox
from napari.layers import Image, Layer
from napari.utils.events import Event
from qtpy.QtCore import (  # type: ignore[attr-defined]
    QObject,
    Signal as QtSignal,
)

from napari_semsr.io import FOLDER_KEY, HELPER_KEY, STORE_KEY
from napari_semsr.jobs import ConvertedFile, save_image
from napari_semsr.widgets import layers
from napari_semsr.widgets.base import runner, saving
from napari_semsr.widgets.base.form import create_button
from napari_semsr.widgets.base.history import MADE_KEY, RUN_KEY
from napari_semsr.widgets.base.results import is_saved_by_user, is_unsaved
from napari_semsr.widgets.base.session import describe_unsaved_content

if TYPE_CHECKING:
    from napari_semsr.widgets.base.panel import VerbPanel


class ResultLayers(QObject):
    """Layers that a panel adds to the viewer."""

    layers_added = QtSignal()
    """Emitted after layers of a result were added, perhaps only a part of them."""
    layers_changed = QtSignal()
    """Emitted when layers may have been added, removed or saved."""
    helpers: CheckBox  # once the panel has results

    def __init__(self, panel: "VerbPanel") -> None:
        super().__init__(panel)
        self._panel, self._viewer, self._title = panel, panel.viewer, panel.title
        self._messages = panel.messages
        self._history = panel.history
        self.own: list[Image] = []  # layers made by this panel that are in the viewer
        # planes of the layers of the result
        self.sources: dict[Image, tuple[int, ...]] = {}
        self.is_adding = False
        self._new_layers: list[Layer] = []  # while a result is being shown
        # the layer or layers that the results were made from
        self.under: Layer | list[Layer] | None = None
        self._before: dict[Layer, bool] = {}  # visibility of layers that are switched
        self.saver = runner.JobRunner(self)
        self.saver.cancelled.connect(self._report_cancelled)
        tooltip = "Save the layer created by this panel in a format of your choice."
        self.save_button = create_button("Save…", self._save, tooltip)
        self.save_button.setVisible(False)
        self.saver.busy_changed.connect(self.save_button.setDisabled)

    def _report_cancelled(self) -> None:
        self._messages.show_status("Nothing was saved.")

    def create_helper_box(self, label: str) -> CheckBox:
        """Create the tick box that shows the helper layers."""
        tooltip = "Show the layers that explain the result."
        self.helpers = CheckBox(text=label, tooltip=tooltip)
        self.helpers.changed.connect(self._show_helpers)
        return self.helpers

    def find_helpers(self) -> list[Layer]:
        """Return the helper layers of this panel."""
        layers = self._viewer.layers
        return [item for item in layers if item.metadata.get(HELPER_KEY) == self._title]

    def _show_helpers(self, is_shown: bool) -> None:
        for layer in self.find_helpers():
            layer.visible = is_shown

    def toggle_input(self) -> None:
        """Show the input instead of the result, or switch back."""
        self.toggle(self.under if isinstance(self.under, Layer) else None)

    def toggle(self, under: Layer | None = None) -> None:
        """Hide the results, or show them again."""
        layers = self._viewer.layers
        before, self._before = self._before, {}
        if before:
            for item in before.keys() & set(layers):
                item.visible = before[item]
            return
        made = (i for i in layers if i.metadata.get(MADE_KEY) == self._title)
        layers_shown = [item for item in made if item.visible]
        self._before = dict.fromkeys(layers_shown, True)
        if layers_shown and under is not None and under in layers:
            self._before[under] = under.visible
            under.visible = True
        for item in layers_shown:
            item.visible = False

    def mark_inserted(self, event: Event | None) -> None:
        """Mark an inserted layer as a result, if one is being shown."""
        if self.is_adding and event is not None and event.type == "inserted":
            sources = layers.get_source_identities(self.sources)
            marks = {MADE_KEY: self._title, layers.SOURCES_KEY: sources}
            event.value.metadata.update(marks | event.value.metadata)
            self._new_layers.append(event.value)

    @contextmanager
    def _record_added_layers(self) -> Iterator[None]:
        """Record the images that are added in this context."""
        before = list(self._new_layers)
        self.is_adding = True
        try:
            yield
        finally:
            self.is_adding = False
            self.layers_added.emit()
        new = [item for item in self._new_layers if item not in before]
        images = layers.list_image_layers(self._viewer)
        self.own += [i for i in images if i in new and FOLDER_KEY not in i.metadata]
        if any(item.metadata.get(HELPER_KEY) == self._title for item in new):
            self._show_helpers(bool(self.helpers.value))  # before they are drawn
        self.show_unsaved()

    def add_in_parts(self, act: Callable[[], runner.Parts]) -> Iterator[None]:
        """Run a function that adds layers, processing Qt events after each step."""
        self._new_layers.clear()
        with self._record_added_layers():
            parts = act() or iter(())
        more = True
        while more:
            with self._record_added_layers():
                more = next(parts, False) is None
            if more:
                yield
        self._new_layers.clear()

    @contextmanager
    def replace_earlier(
        self, *of: Layer | str, path: Path | None = None, leader: Layer | None = None
    ) -> Iterator[list[Layer]]:
        """Replace layers of an earlier run on the inputs with those added in the block.

        Yields the earlier ones, to be removed first. Layers that the user renamed or
        saved are kept, except one of the store `path`. The order of layers and the view
        are kept. `leader`: a result next to those of earlier runs, which the added
        layers explain.
        """
        layer_list = self._viewer.layers
        names = (i if isinstance(i, str) else layers.get_identity(i) for i in of)
        run = {"by": self._title, "of": " and ".join(names)}
        places = {
            item.name: place
            for place, item in enumerate(layer_list)
            if item.metadata.get(RUN_KEY) == run | {"name": item.name}
            and (
                HELPER_KEY in item.metadata
                or not is_saved_by_user(item)
                or item.metadata.get(STORE_KEY) == str(path and path.resolve())
            )
        }
        view, active = layers.get_view(self._viewer), layer_list.selection.active
        # in one go, or in parts
        layers_placed = self._new_layers if self.is_adding else layer_list
        before = list(layers_placed)
        fits = {name: layers.get_display_fit(layer_list[name]) for name in places}
        yield [layer_list[name] for name in places]
        new = [item for item in layers_placed if item not in before]
        layers_added = [item for item in new if item in layer_list]
        for item in layers_added:
            item.metadata[RUN_KEY] = run | {"name": item.name}
        if leader is not None:
            for item in layer_list:
                # the layers that explained it are replaced
                if item.metadata.get(RUN_KEY) == run:
                    del item.metadata[RUN_KEY]
            leader.metadata[RUN_KEY] = run
        # in the list and on the canvas
        for item in sorted(layers_added, key=lambda item: places.get(item.name, 0)):
            if item.name in places:
                layer_list.move(layer_list.index(item), places[item.name])
                factors = fits[item.name][0], layers.get_display_fit(item)[0]
                if any(one != 1 for one in factors) and not layers.is_calibrated(item):
                    layers.fit_layer_to_field(item, *fits[item.name])
        if places:
            layers.restore_view(self._viewer, view)
        self._show_helpers(bool(self.helpers.value))
        results = [item for item in layers_added if HELPER_KEY not in item.metadata]
        # helper layers are not the next input
        if results or active is None or active in layer_list:
            layer_list.selection.active = results[-1] if results else active

    def remove_earlier(self, earlier: Sequence[Layer]) -> Iterator[None]:
        """Remove layers of an earlier run, one at a time.

        The user can undo the removal of results that are not saved.
        """
        layer_list = self._viewer.layers
        for layer in earlier:
            is_result = layer in layer_list and HELPER_KEY not in layer.metadata
            if is_result and is_unsaved(layer):
                layer_list.remove(layer)
            self._history.remove_layers([layer])
            yield

    def show_unsaved(self) -> None:
        """List layers that would be lost when napari closes; offer to save them."""
        if not runner.is_alive(self):
            return
        self.own = [item for item in self.own if item in self._viewer.layers]
        self.save_button.setVisible(bool(self.own))
        names = [item.name for item in self.own if is_unsaved(item)]
        self._messages.unsaved_label.setText(describe_unsaved_content(names))
        self.layers_changed.emit()

    def _save(self) -> None:
        """Ask where to save the active layer or the last result, and save it."""
        active = self._viewer.layers.selection.active
        left = [item for item in self.own if is_unsaved(item)] or self.own
        self.save_as(active if active in self.own else left[-1])

    def save_as(self, layer: Image) -> None:
        """Ask where to save a layer, including all planes of a stack, and save it."""
        with self._messages.show_errors():
            look, stack = layers.get_display_settings(layer), layer.ndim > 2
            read = self._panel.input_layers.read
            planes = layers.list_planes(layer) if stack else [read(layer)]
            planes = [plane.replace(look=look) for plane in planes]
            path = saving.ask_save_path(self._panel, layer)
            if path is not None:
                runner.check_path_unused(path)
                saving.check_output_not_source(planes[0], layer.metadata, path)
                saving.check_stack_format(layer, path)
                make = partial(save_image, planes if stack else planes[0], path)
                show = partial(self._report_saved_layer, layer)
                self.saver.start(f"Save {layer.name}", runner.JobRequest(make, show))

    def _report_saved_layer(self, layer: Image, saved_file: ConvertedFile) -> None:
        saving.record_saved_path(layer.metadata, saved_file)
        self.show_unsaved()
        self._messages.notify(f"{layer.name} was saved as {saved_file.output}.")
