"""Layers that a panel reads: their lists, the active layer, planes of stacks."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from magicgui.widgets import CheckBox, ComboBox, Select
from magicgui.widgets.bases import CategoricalWidget
from napari.layers import Image, Layer
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QSizePolicy

from napari_semsr import core
from napari_semsr.jobs import Verb
from napari_semsr.widgets.base import results
from napari_semsr.widgets.base.form import create_button
from napari_semsr.widgets.base.runner import is_alive
from napari_semsr.widgets.base.session import get_session
from napari_semsr.widgets.layers import (
    disable_cache,
    fits_beside,
    format_plane_name,
    get_displayed_plane,
    get_network_name,
    have_same_grid,
    is_incomplete,
    is_made_from,
    is_map,
    list_grey_layers,
    micrograph_from_layer,
)

if TYPE_CHECKING:
    from napari_semsr.widgets.base.panel import VerbPanel

NO_CHOICE = "choose an image"
"""Choice of a second image that is required, if none fits."""
_EMPTY = "", NO_CHOICE
_Box = CategoricalWidget[Any]
Planes = dict[Image, tuple[int, ...]]


def _list_values(boxes: Sequence[_Box]) -> list[Layer | None]:
    """Return the values of layer lists, of which some select several layers."""
    values = (box.value for box in boxes)
    return [*chain(*(v if isinstance(v, list | tuple) else [v] for v in values))]


def _refresh_layer_choices(box: _Box) -> None:
    """Update a layer list, keeping the selection even if a layer was renamed.

    magicgui identifies the choice by its name.
    """
    before, many = box.value, isinstance(box, Select)
    with box.changed.blocked():
        box.reset_choices()
        left = [item for item in (before if many else [before]) if item in box.choices]
        if many:
            box.value = left
        elif box.choices:  # not the neighbour of a removed one, as Qt does
            box.value = (*left, *box.choices)[0]
    if box.value != before:
        box.changed.emit(box.value)


class InputLayers(QObject):
    """Layers that a panel reads, and offers to improve those that are selected."""

    def __init__(self, panel: "VerbPanel") -> None:
        super().__init__(panel)
        self._panel, self._messages = panel, panel.messages
        viewer = self._viewer = panel.viewer
        self._boxes: list[_Box] = []
        self._followed_box: _Box | None = None
        self.active: Layer | None = None  # the last active one
        self.all_planes: CheckBox | None = None
        self.planes_read: Planes = {}  # planes of the layers that were read
        self.databar_button = create_button(
            "Crop the data bar",
            self._crop_databar,
            "Remove the rows that look like a data bar.",
        )
        self.size_button = create_button(
            "Use the stated pixel size",
            self._apply_stated_sizes,
            "Set the pixel sizes of the layers to those stated in their files.",
        )
        text, tip = "Use the luminance", "Add the luminance of the layer as a grey one."
        self.grey_button = create_button(text, self._select_luminance, tip)
        self.offers = self.databar_button, self.size_button, self.grey_button
        for button in self.offers:
            button.setVisible(False)
            # its text wraps and never widens the panel
            vertical = button.sizePolicy().verticalPolicy()
            button.setSizePolicy(QSizePolicy.Policy.Ignored, vertical)
        viewer.dims.events.connect(self._show_plane)

    def create_box(
        self,
        name: str,
        label: str,
        tooltip: str,
        *,
        layers: Callable[[], Sequence[Layer]] | None = None,
        none: str | None = None,
    ) -> ComboBox:
        """Create a layer list that follows the viewer, by default of grey layers.

        The last image is first and is proposed; maps and incomplete images are last.
        """
        viewer = self._viewer

        def list_choices(_: object) -> list[tuple[str, Layer | None]]:
            of = reversed(list_grey_layers(viewer) if layers is None else layers())
            first: list[tuple[str, Layer | None]] = [(none, None)] if none else []
            rows = sorted(of, key=lambda item: is_map(item) or is_incomplete(item))
            return first + [(item.name, item) for item in rows]

        box = ComboBox(name=name, label=label, tooltip=tooltip, choices=list_choices)
        self._register_box(box)
        return box

    def create_image_boxes(
        self,
        verb: Verb[Any, Any],
        layers: Callable[[], Sequence[Layer]] | None = None,
        first: str | None = None,
    ) -> list[ComboBox]:
        """Create a layer list for each image that a command reads.

        `first`: the image that is selected first; then none of the others is.
        """
        boxes = []
        for item in verb.images:
            none = NO_CHOICE if first and item.name != first else None
            about = item.name, item.title, item.tooltip
            none = "none" if item.optional else none
            boxes.append(self.create_box(*about, layers=layers, none=none))
        return boxes

    def create_list(
        self,
        tooltip: str,
        height: int,
        *,
        name: str = "layers",
        label: str = "",
        accepts: Callable[[Layer], bool] = lambda _: True,
    ) -> Select:
        """Create a multiple-selection list of the grey layers that it accepts."""
        rows = Select(
            name=name,
            label=label or None,
            tooltip=f"{tooltip}; hold Ctrl to select several.",
            choices=lambda _: [
                (item.name, item)
                for item in reversed(list_grey_layers(self._viewer))
                if accepts(item)
            ],
        )
        rows.native.setFixedHeight(height)
        self._register_box(rows)
        return rows

    def _register_box(self, box: _Box) -> None:
        """Keep a list of layers up to date."""
        box.reset_choices()
        self._boxes.append(box)
        box.changed.connect(self._show_plane)
        box.changed.connect(self._update_offers)
        self._show_plane()

    def refresh(self) -> None:
        """Update the lists, the plane and the offers after a change of the layers."""
        for box in self._boxes:
            _refresh_layer_choices(box)
        self._show_plane()
        self._update_offers()

    def create_planes_box(self) -> CheckBox:
        """Create the all-planes tick box, shown if the input is a stack."""
        tip = "Process all planes into a stack, not only the displayed one."
        self.all_planes = CheckBox(name="all_planes", text="All planes", tooltip=tip)
        self.all_planes.changed.connect(self._show_plane)
        return self.all_planes

    def uses_all_planes(self) -> bool:
        """Return whether to process all planes of the input."""
        takes_all = self.all_planes is not None and bool(self.all_planes.value)
        return takes_all and bool(self._get_stacks())

    def _get_stacks(self) -> list[Image]:
        """Return the chosen layers with more than one plane."""
        if not is_alive(self):
            return []
        boxes = self._boxes
        if self.all_planes is not None:  # other lists hold layers that are only shown
            boxes = [] if self._followed_box is None else [self._followed_box]
        images = dict.fromkeys(i for i in _list_values(boxes) if isinstance(i, Image))
        return [item for item in images if item.ndim > 2]

    def _show_plane(self, _: object = None) -> None:
        stacks = self._get_stacks()
        if self.all_planes is not None:
            self.all_planes.native.setVisible(bool(stacks))
        dims = self._viewer.dims
        planes = [format_plane_name(i, get_displayed_plane(i, dims)) for i in stacks]
        pairs = zip(planes, stacks, strict=True)
        sentences = [f"{plane} of {item.name} is used" for plane, item in pairs]
        if self.uses_all_planes():
            sentences = [f"all planes of {stacks[0].name} are used"]
        text = "; ".join(sentences)
        label = self._messages.plane
        label.setText(f"{text[:1].upper()}{text[1:]}." if text else "")

    def read(
        self, layer: Image | None, *, is_unturned: bool = False, colour: bool = False
    ) -> core.Micrograph:
        """Read the displayed plane of a layer, optionally ignoring its rotation.

        With `colour`, colour layers are read as their luminance.
        """
        dims = self._viewer.dims
        if layer is not None:
            disable_cache(layer)
            plane = () if self.uses_all_planes() else get_displayed_plane(layer, dims)
            self.planes_read[layer] = plane
        lists = (box for box in self._boxes if isinstance(box, ComboBox))
        rows = (box.label for box in lists if box.native.currentText() in _EMPTY)
        how: Any = {"is_unturned": is_unturned, "colour": colour, "row": next(rows, "")}
        try:
            return micrograph_from_layer(layer, dims, **how)
        except core.ShapeError as error:
            code = core.get_error_code(error)
            if isinstance(layer, Image) and code == "colour-image":
                results.mark_as_coloured(layer)
                self._update_offers()
            raise

    def get_planes(self, layers: Sequence[Image]) -> Planes:
        """Return the plane of each layer that was read or is displayed."""
        dims = self._viewer.dims
        shown = {item: get_displayed_plane(item, dims) for item in layers}
        return shown | {k: v for k, v in self.planes_read.items() if k in shown}

    def follow_active_layer(self, box: _Box) -> None:
        """Select the active layer in a box, now and whenever it changes."""
        self._followed_box = box
        self._viewer.layers.selection.events.active.connect(self.select_active_layer)
        self.select_active_layer()
        if self.active is None:
            choices = [item for item in box.choices if item is not None]
            if candidates := list(filter(self._panel.accepts_layer, choices)):
                self.choose(candidates[0])
        self._show_plane()

    def propose_partner(
        self,
        image: ComboBox,
        partner: ComboBox,
        fits: Callable[[Image, Image], int],
        keeps: Callable[[Image, Image], bool] = lambda *_: True,
        lies: Callable[[Image, Image], bool] = have_same_grid,
        may: Callable[[Image, Image], bool] = fits_beside,
    ) -> Callable[..., None]:
        """Keep proposing the best-matching layer at the place of the chosen image.

        `fits`: 0 for one that does not fit, more for a better fit; of equal ones the
        last is proposed. `may`: the rule for all proposals. The current choice is kept
        if it `lies` at the place of the image and `keeps` agrees, unless it was
        proposed and another fits better. Returns a function to call when layers were
        added or removed: it changes no choice of the user, unless with `is_own`.
        """
        proposal: list[object] = [partner.value]

        def update_proposal(_: object = None, *, is_own: bool = True) -> None:
            layer, layer_chosen = image.value, partner.value
            former = proposal[0]
            if isinstance(former, Layer) and former not in self._viewer.layers:
                proposal[0] = None
            is_proposed = layer_chosen is proposal[0]
            if not is_proposed:
                proposal[0] = update_proposal  # not a layer: the user has chosen
            if layer is None or not (is_proposed or is_own):
                return
            others = [one for one in partner.choices if one not in (None, layer)]
            near = [one for one in others if lies(layer, one)]
            fit = {one: int(may(layer, one) and fits(layer, one)) for one in near}
            best = max(
                fit, key=lambda one: (fit[one], one is layer_chosen), default=None
            )
            is_kept = layer_chosen in fit and keeps(layer, layer_chosen)
            is_kept = is_kept and not (is_proposed and not fit[layer_chosen])
            if not is_kept or (is_proposed and best and fit[best] > fit[layer_chosen]):
                proposal[0] = best if best is not None and fit[best] else None
                partner.value = proposal[0]

        image.changed.connect(update_proposal)
        update_proposal()
        return partial(update_proposal, is_own=False)

    @property
    def value(self) -> Layer | list[Layer] | None:
        """Layer or layers selected in the list that follows the active layer."""
        return None if self._followed_box is None else self._followed_box.value

    def choose(self, layer: Layer) -> None:
        """Select a layer as the panel's only input."""
        if self._followed_box is not None:
            many = isinstance(self._followed_box, Select)
            self._followed_box.value = [layer] if many else layer

    def select_active_layer(self, _: object = None) -> None:
        """Select the layer that became active, if nothing is running.

        Instead of a network's output, or an incomplete one, that a panel does not
        accept, the image that it was made from is selected.
        """
        box, active = self._followed_box, self._viewer.layers.selection.active
        if not is_alive(self) or box is None or active is None:
            return
        # napari passes a new proxy, the list has the layer itself
        layer = next((item for item in box.choices if item == active), None)
        is_choice = layer is not None and self._panel.accepts_layer(layer)
        if layer is not None and not is_choice and get_network_name(layer):
            choices = filter(self._panel.accepts_layer, filter(None, box.choices))
            sources = [item for item in choices if is_made_from(layer, item)]
            layer, is_choice = next(iter(sources), layer), bool(sources)
        is_busy = self._panel.is_busy or self._panel.result_layers.is_adding
        if is_choice and layer != self.active and not is_busy:
            self.active = layer
            self.choose(layer)

    def ignore_active_layer(self) -> None:
        """Select no layer until another one becomes active."""
        self.active = self._viewer.layers.selection.active

    def _get_selected_layers(self) -> list[Layer]:
        """Return the selected layers that are in the viewer."""
        layers = dict.fromkeys(_list_values(self._boxes))
        return [item for item in layers if item in self._viewer.layers]

    def _find_databar_layer(self) -> Layer | None:
        """Return the selected image if its lowest rows look like a data bar."""
        boxes = [] if self._followed_box is None else [self._followed_box]
        return next(filter(results.get_databar_row_count, _list_values(boxes)), None)

    def _update_offers(self, _: object = None) -> None:
        """Offer to improve the selected layers.

        Their data bar is cropped, or their stated pixel sizes or luminance are used.
        """
        if not is_alive(self):
            return
        layer = self._find_databar_layer()
        self.databar_button.setVisible(layer in self._viewer.layers)
        if layer is not None:
            self.databar_button.setText(f"{results.describe_databar(layer)}: crop it")
        layers_chosen = self._get_selected_layers()
        sizes = {item: results.get_stated_pixel_size(item) for item in layers_chosen}
        lacking = {item: size for item, size in sizes.items() if size}
        self.size_button.setVisible(bool(lacking))
        text = f"The files of {len(lacking)} layers state pixel sizes: use them"
        if len(lacking) == 1:
            [(item, size)] = lacking.items()
            stated = core.format_pixel_size(size)
            text = f"The file of {item.name} states {stated} per pixel: use it"
        self.size_button.setText(text)
        colour_layer = next(filter(results.is_coloured, layers_chosen), None)
        self.grey_button.setVisible(colour_layer is not None)
        if colour_layer is not None:
            text = f"{colour_layer.name} is a colour image: use its luminance"
            self.grey_button.setText(text)

    def _crop_databar(self) -> None:
        """Replace the selected image by one without its data bar."""
        layer = self._find_databar_layer()
        if layer is not None:
            with self._messages.show_errors():
                results.crop_databar(self._viewer, layer)

    def _apply_stated_sizes(self) -> None:
        """Set the pixel sizes of the selected layers from their files."""
        for layer in self._get_selected_layers():
            results.apply_stated_pixel_size(self._viewer, layer)
        for box in self._boxes:  # the proposed layers may depend on it
            box.changed.emit(box.value)
        get_session(self._viewer).changed.emit()  # it has unsaved changes now

    def _select_luminance(self) -> None:
        """Select the luminance of the first selected colour layer."""
        selected = self._get_selected_layers()
        colour_layer = next(filter(results.is_coloured, selected), None)
        if not isinstance(colour_layer, Image):
            return
        values = [(box, box.value) for box in self._boxes]
        grey_layer = results.add_luminance_layer(self._viewer, colour_layer)
        for box, value in values:
            if isinstance(value, list) and colour_layer in value:
                box.value = [grey_layer if n is colour_layer else n for n in value]
            elif value is colour_layer:
                box.value = grey_layer
