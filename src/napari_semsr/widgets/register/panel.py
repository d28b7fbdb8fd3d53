"""Register: align a layer to another of the same area, with error estimate."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from magicgui.widgets import CheckBox, ComboBox
from napari.layers import Image, Layer, Points
from napari.utils.events import Event
from napari.viewer import Viewer
from qtpy.QtCore import QTimer
from qtpy.QtGui import QHideEvent

from napari_semsr import core, io, jobs
from napari_semsr.inference import TrainedPixelSizes
from napari_semsr.registration import (
    Landmarks,
    Registration,
    RegistrationRefused,
    fit_landmarks,
)
from napari_semsr.widgets import base, layers
from napari_semsr.widgets.compare import CompareControls, LayerIsolator

_MARK_COLOURS = ("#e3b617", "#4ca3dd")  # of the moving image and of the fixed one
_MARK_TEXT = {"size": 12, "anchor": "upper_left"}
_MARK_SHARE = 0.02  # of the image's longer side; chosen: a mark covers no detail
_SEEN_PX = (14, 30)  # size on the screen, at any zoom
_MIN_PAIRS = 3  # pairs needed for a transform
_PAIRS_FOR_ERROR = 4  # pairs needed to estimate the error of an affine transform
_LIST_CHANGES = ("added", "removed", "changed")
_GRID = ("units", "scale", "translate")
_TABLES = {"Table of landmarks (*.csv)": ".csv"}
_PARTNER_KEY = "semsr landmarks with"
"""Layer metadata key: the image that contains the partner landmarks."""

ImagePair = tuple[Image | None, Image | None]
"""Moving image and fixed image."""


class LandmarkControls(base.Form):
    """Controls for marking landmarks in two images, which are shown alternately."""

    def __init__(
        self,
        panel: base.VerbPanel,
        images: Callable[[], ImagePair],
        model: Callable[[], str],
        on_changed: Callable[[], None],
    ) -> None:
        super().__init__()
        self._panel, self._viewer = panel, panel.viewer
        self._images, self._model, self._on_changed = images, model, on_changed
        self._of: ImagePair = (None, None)
        self.points: tuple[Points, ...] = ()
        self._linking = False  # whether changes are ours, to be ignored
        self._alone = LayerIsolator(panel.viewer)
        tip = "Click a point in the moving image, then in the fixed one. Press to end."
        self.add_button = base.create_button("Add landmarks", self._toggle_marking, tip)
        self.add_button.setCheckable(True)
        tip = "Delete the most recent landmark."
        self.undo_button = base.create_button("Undo", self.undo, tip)
        tip = "Load landmark pairs from a CSV table."
        self.load_button = base.create_button("Load…", self.load, tip)
        tip = "Save the landmark pairs as a CSV table, in nm, or in pixels if unknown."
        self.save_button = base.create_button("Save pairs…", self.save, tip)
        self.note = base.RichTextLabel()
        buttons = (self.add_button, self.undo_button, self.load_button)
        self.add_row(base.WrappingRow(*buttons, self.save_button))
        self.add_row(self.note)
        panel.viewer.layers.events.inserted.connect(self._on_layer_inserted)
        panel.viewer.layers.events.removed.connect(self._on_layer_removed)
        panel.closed.connect(self.stop)
        self.show_fit()

    # -- the landmarks ----------------------------------------------------------

    @property
    def counts(self) -> tuple[int, int]:
        """Numbers of landmarks in the moving and fixed images; 0 for other images."""
        if not self.points or self._of != self._images():
            return 0, 0
        first, second = (len(layer.data) for layer in self.points)
        return first, second

    def landmarks(self) -> Landmarks | None:
        """Return the landmark pairs in nm or px; None if too few for a transform."""
        pairs = min(self.counts)
        if pairs < _MIN_PAIRS:
            return None
        return Landmarks(*(_get_positions_nm(layer)[:pairs] for layer in self.points))

    def show_fit(self, _: object = None) -> None:
        """Show how well the landmark pairs fit, and number the landmarks."""
        if not base.is_alive(self):
            return
        images = self._images()
        there = [image for image in images if image in self._viewer.layers]
        identities = [layers.get_identity(image) for image in there if image]
        # existing landmarks of the two images, such as those from a project
        keys = layers.MARK_KEY, _PARTNER_KEY
        marks = [
            layer
            for pair in zip(identities, reversed(identities), strict=True)
            for layer in layers.list_user_layers(self._viewer, Points)
            if pair == tuple(map(layer.metadata.get, keys))
        ]
        if len(marks) == 2 and not self.points:
            self._watch_points_layers(images, tuple(marks))
        first, second = self.counts
        pairs, sentence, off = min(first, second), "", np.zeros(0)
        try:
            landmarks = self.landmarks()
            if landmarks is not None:
                is_affine = pairs >= _PAIRS_FOR_ERROR and self._model() != "similarity"
                fit = fit_landmarks(landmarks, "affine" if is_affine else "similarity")
                rms = float(np.sqrt((fit.distances**2).mean()))
                # each residual is from the fit to the other landmarks: a fit that
                # includes the landmark itself looks too good
                far = fit.held_out_distances
                off = np.where(np.isfinite(far), far, fit.distances)
                worst, unit = int(off.argmax()), _get_position_unit(self.points[1])
                sentence = (
                    f"{len(landmarks)} pairs fit to within {core.format_rounded(rms)} "
                    f"{unit} (r.m.s.); landmark {worst + 1} is "
                    f"{core.format_rounded(off[worst])} {unit} from the position "
                    "predicted by the others."
                )
            elif pairs:
                sentence = f"{pairs} pair{'s'[: pairs != 1]}; registration starts from "
                sentence += f"{_MIN_PAIRS} or more."
        except core.SemsrError as error:
            sentence = str(error)
        if first != second:
            alone = 0 if first > second else 1
            names = [image.name for image in self._of if image is not None]
            sentence += f" Landmark {pairs + 1} in {names[alone]} has no partner yet."
        self.note.setText(self._panel.translate(sentence.strip()))
        for layer in self.points:
            labels = [str(n + 1) for n in range(len(layer.data))]
            residuals = off if layer in self.points[1:] else ()
            unit = _get_position_unit(layer)
            for place, residual in enumerate(residuals):
                labels[place] += f" ({core.format_rounded(float(residual))} {unit})"
            with _show_hidden_layer(layer):
                layer.features = {"label": labels}
        self.undo_button.setEnabled(bool(first or second))
        self.save_button.setEnabled(pairs > 0)
        self._on_changed()

    # -- marking ------------------------------------------------------------------

    def _get_image_pair(self) -> tuple[Image, Image] | None:
        """Return the two images; show a message unless they are different."""
        moving, fixed_layer = self._images()
        if moving is None or fixed_layer is None or moving is fixed_layer:
            self._panel.messages.show_status("Choose two different layers first.")
            return None
        return moving, fixed_layer

    def _toggle_marking(self, on: bool) -> None:
        if not on:
            self.stop()
            return
        pair = self._get_image_pair()
        if pair is None:
            self.add_button.setChecked(False)
            return
        self._add_points_layers(*pair)
        self._show_next_image()

    def stop(self) -> None:
        """Stop marking, and restore the previous view."""
        self.add_button.setChecked(False)
        self._alone.restore_visibility()
        for layer in self.points:
            layer.mode = "pan_zoom"

    def put_away(self) -> None:
        """Stop marking, and hide the landmarks of the previous images."""
        self.stop()
        for layer in self.points:
            layer.visible = False

    def _add_points_layers(self, moving: Image, fixed_layer: Image) -> None:
        """Add the two points layers, unless these images already have them."""
        there = self._viewer.layers
        if self._of == (moving, fixed_layer) and all(p in there for p in self.points):
            return
        active = there.selection.active
        pair = moving, fixed_layer
        ordered = zip(pair, reversed(pair), _MARK_COLOURS, strict=True)
        points = (self._add_empty_points_layer(*one) for one in ordered)
        self._watch_points_layers(pair, tuple(points))
        there.selection.active = active
        self.show_fit()

    def _watch_points_layers(
        self, images: ImagePair, points: tuple[Points, ...]
    ) -> None:
        """Use two point layers for the landmarks of two images, and watch them."""
        self._of, self.points = images, points
        for layer in points:
            layer.events.data.connect(self._on_points_changed)
            for name in _GRID:
                getattr(layer.events, name).connect(self.show_fit)

    def _on_layer_inserted(self, event: Event) -> None:
        """Show landmarks that were restored from a project or by Undo."""
        if _PARTNER_KEY in event.value.metadata:
            self.show_fit()

    def _add_empty_points_layer(
        self, image: Image, other: Image, colour: str
    ) -> Points:
        """Add an empty points layer over an image."""
        side = max(image.level_shapes[0][-2:])
        fit = layers.create_display_fit_keywords(image)
        own, its = layers.get_identity(image), layers.get_identity(other)
        marks = {layers.MARK_KEY: own, _PARTNER_KEY: its}
        return self._viewer.add_points(
            np.empty((0, 2)),
            ndim=2,
            name=layers.find_free_name(self._viewer, f"{image.name} · landmarks"),
            scale=image.scale[-2:],
            translate=image.translate[-2:],
            units=image.units[-2:],
            axis_labels=image.axis_labels[-2:],
            size=max(1.0, _MARK_SHARE * side),
            symbol="disc",
            face_color="transparent",  # the landmarks stay visible
            border_color=colour,
            border_width=0.2,
            canvas_size_limits=_SEEN_PX,
            features={"label": np.empty(0, dtype=str)},
            text={"string": "{label}", "color": colour, **_MARK_TEXT},
            **{**fit, "metadata": {**fit.get("metadata", {}), **marks}},
        )

    def _on_points_changed(self, event: Event) -> None:
        """Update the landmarks after points were added, moved or removed."""
        action = str(getattr(event.action, "value", event.action))
        is_own = base.is_alive(self) and event.source in self.points
        if not is_own or self._linking or action not in _LIST_CHANGES:
            return
        place = self.points.index(event.source)
        if action == "removed":
            other, indices_removed = self.points[1 - place], set(event.data_indices)
            kept = [n for n in range(len(other.data)) if n not in indices_removed]
            self._replace_points(other, other.data[kept])
        self.show_fit()
        if action == "added" and self.add_button.isChecked():
            # napari still handles the click
            QTimer.singleShot(0, self._show_next_image)

    def _replace_points(self, layer: Points, data: core.FloatArray) -> None:
        """Replace the points of a layer without handling the change event."""
        self._linking = True
        try:
            with _show_hidden_layer(layer):
                layer.selected_data = set()
                layer.data = data
        finally:
            self._linking = False

    def _show_next_image(self) -> None:
        """Show the image to be marked next, and activate its points layer."""
        if not (base.is_alive(self) and self.add_button.isChecked() and self.points):
            return
        first, second = self.counts
        place = 0 if first <= second else 1
        image, layer = self._of[place], self.points[place]
        if image is None or image not in self._viewer.layers:
            return
        self._alone.show_only(image, layer)
        self._viewer.layers.selection.active = layer
        self.points[1 - place].mode = "pan_zoom"
        layer.mode = "add"
        if layers.get_visible_box(self._viewer, image) is None:
            layers.fill_view(self._viewer, image)
        self._panel.messages.show_status(
            f"Click point {min(first, second) + 1} in {image.name}."
        )

    def undo(self) -> None:
        """Delete the most recent landmark."""
        first, second = self.counts
        if max(first, second):
            layer = self.points[0 if first > second else 1]
            self._replace_points(layer, layer.data[:-1])
            self.show_fit()
            self._show_next_image()

    def _on_layer_removed(self, event: Event) -> None:
        """Discard the landmarks if one of their layers is removed."""
        if base.is_alive(self) and event.value in (*self.points, *self._of):
            self.stop()
            left = self.points
            self.points, self._of = (), (None, None)
            others = [layer for layer in left if layer is not event.value]
            along = partial(self._panel.history.remove_dependents, event.value, others)
            QTimer.singleShot(0, along)
            self.show_fit()

    # -- files ------------------------------------------------------------------

    def load(self) -> None:
        """Ask for a CSV table, and show its landmark pairs."""
        pair = self._get_image_pair()
        if pair is None:
            return
        path = base.ask_existing_file(self, "Load landmarks", _TABLES)
        if path is None:
            return
        with self._panel.messages.show_errors():
            images = [self._panel.input_layers.read(layer) for layer in pair]
            places = io.read_landmarks(path, *images)
            count = len(places[0])
            self._add_points_layers(*pair)
            for layer, places_found in zip(self.points, places, strict=True):
                own = places_found / layers.get_nm_scale(layer)
                world = layers.layer_to_world(layer, own)
                there = [layer.world_to_data(place) for place in world]
                self._replace_points(layer, np.array(there).reshape(-1, 2))
            self.show_fit()
            text = f"Loaded {count} landmark pair{'s'[: count != 1]} from {path}."
            self._panel.messages.show_status(text)

    def save(self) -> None:
        """Ask for a file name, and save the landmark pairs."""
        pairs, images = min(self.counts), self._get_image_pair()
        if pairs and images is not None:
            units = [_get_position_unit(layer) for layer in self.points]
            each = zip(self.points, images, units, strict=True)
            places = [_get_positions(*one)[:pairs] for one in each]

            def write(path: Path) -> None:
                io.write_landmarks(path, *places, units=units)
                self._panel.session.mark_saved_to_file(self.points)

            sentence = f"Saved {pairs} landmark pair{'s'[: pairs != 1]} as {{}}."
            self._panel.sharing.save_file(
                "Save landmarks", "landmarks", _TABLES, write, sentence
            )


@contextmanager
def _show_hidden_layer(layer: Points) -> Iterator[None]:
    """Show a hidden layer temporarily, so that napari updates its labels."""
    was_visible, layer.visible = layer.visible, True
    try:
        yield
    finally:
        layer.visible = was_visible


def _get_positions_nm(layer: Points) -> core.FloatArray:
    """Return positions in nm, or in the layer's own unit if it is not a length."""
    world = [layer.data_to_world(point)[-2:] for point in np.asarray(layer.data)]
    own = layers.world_to_layer(layer, np.array(world, dtype=float).reshape(-1, 2))
    return np.asarray(own * layers.get_nm_scale(layer), dtype=float)


def _get_positions(layer: Points, image: Image, unit: str) -> core.FloatArray:
    """Return positions in nm, or in px from the centre of the image's first pixel."""
    places = _get_positions_nm(layer)
    if unit == "nm":
        return places
    linear, shift = layers.get_pixel_transform(image)
    return np.asarray(np.linalg.solve(linear, (places - shift).T).T, dtype=float)


def _get_position_unit(layer: Layer) -> str:
    """Return the unit of the positions in a layer."""
    return "nm" if layers.is_calibrated(layer) else "px"


_TURN_MS = 500  # one flash per second, far below what affects photosensitive people
# together they are white, also for colour-blind users
_LEFT, _RIGHT = "magenta", "green"
_LOOK = ("colormap", "blending", "opacity")  # names of layers shown in these colours
_WINDOW_PX = 1024  # chosen: quickly read, and enough to compare the grey levels
_BLOCK_PX = 8  # chosen: reduces the noise of a pixel to an eighth


def _check_common_grey_scale(
    first: core.Micrograph, second: core.Micrograph
) -> core.Job[None]:
    """Check that the grey levels of two images have a common scale.

    Without one, their difference varies more than one of the images: it shows less of
    what differs in the sample than that image itself.
    """
    difference = jobs.subtract_images(first, second)
    images_seen = []
    for image in (first, second):
        data = [difference.data]
        levels = yield from jobs.resample_levels(image, (), difference, data)
        corner = (max(0, n - _WINDOW_PX) // 2 for n in difference.shape)
        rows, columns = (slice(n, None) for n in corner)
        part = np.asarray(levels[0][rows, columns][:_WINDOW_PX, :_WINDOW_PX], float)
        down, right = (n // _BLOCK_PX for n in part.shape)
        part = part[: down * _BLOCK_PX, : right * _BLOCK_PX]
        blocks = part.reshape(down, _BLOCK_PX, right, _BLOCK_PX)
        images_seen.append(blocks.mean(axis=(1, 3)))
    finite = np.isfinite(images_seen).all(axis=0)
    old, new = (part[finite] for part in images_seen)
    if finite.any() and np.mean((new - old) ** 2) > min(old.var(), new.var()):
        msg = (
            f"The grey levels of {first.name} and {second.name} have no common scale, "
            "so their difference would show only this mismatch. Use Overlay in two "
            "colours, Flicker or Before | after instead."
        )
        raise core.OptionError(msg, code="grey-scales-differ")


class OverlayControls(CompareControls):
    """Controls for comparing layers, with a two-colour overlay and a flicker."""

    def __init__(self, panel: base.VerbPanel) -> None:
        super().__init__(panel)
        self._looks: dict[Image, dict[str, object]] = {}
        tip = "Left is magenta, right is green: matching areas are white or grey."
        text = "Overlay in two colours"
        self.overlay = CheckBox(name="overlay", text=text, tooltip=tip)
        tip = "Show left and right in turns: structures that jump are misaligned."
        self.flicker = CheckBox(name="flicker", text="Flicker", tooltip=tip)
        for control in (self.overlay, self.flicker):
            self.add_row(control)
            self._ticks.append(control)
        # images of two instruments have no common grey scale
        self.show_row("strength", False)
        self._timer = base.create_timer(self, self._toggle_upper_layer, _TURN_MS)
        self.overlay.changed.connect(self._toggle_overlay)
        self.flicker.changed.connect(self._toggle_flicker)

    def hideEvent(self, event: QHideEvent | None) -> None:  # noqa: N802 - Qt's name
        """Stop the flicker when its tick box is hidden."""
        super().hideEvent(event)
        if event is not None and not event.spontaneous():
            self.flicker.value = False

    def _compute_difference(
        self, first: core.Micrograph, second: core.Micrograph
    ) -> core.Job[base.OpenedImage]:
        """Subtract two images if their grey levels have a common scale."""
        yield from _check_common_grey_scale(first, second)
        return (yield from super()._compute_difference(first, second))

    def _get_upper_layer(self) -> Image:
        """Return the upper of the two layers."""
        upper: Image = max(self._pair, key=list(self._viewer.layers).index)
        return upper

    def _toggle_overlay(self, on: bool) -> None:
        if on and self._show_compared_layers(self.overlay):
            upper = self._get_upper_layer()
            for layer, colour in zip(self._pair, (_LEFT, _RIGHT), strict=True):
                self._looks[layer] = {name: getattr(layer, name) for name in _LOOK}
                layer.colormap, layer.opacity = colour, 1.0
                over = layer is upper  # on a light canvas, everything would be white
                layer.blending = "additive" if over else "translucent_no_depth"
        elif not on:
            for layer, look in self._looks.items():
                for name, value in look.items():
                    setattr(layer, name, value)
            self._looks.clear()
            self._show_all_layers()

    def _toggle_flicker(self, on: bool) -> None:
        if on and self._show_compared_layers(self.flicker):
            self._timer.start()
        elif not on:
            self._timer.stop()
            self._show_all_layers()

    def _show_all_layers(self) -> None:
        if not (self.overlay.value or self.flicker.value):
            self._alone.restore_visibility()
            self._pair = ()

    def _toggle_upper_layer(self) -> None:
        if any(layer not in self._viewer.layers for layer in self._pair):
            self.end_comparison()
        elif self._pair:
            upper = self._get_upper_layer()
            upper.visible = not upper.visible


_TITLE = "Register"
_TRANSFORMS = {"Transform (*.json)": ".json"}
_PAIRS = {"Store of pairs (*.zarr)": ".zarr"}
_GOOD, _BAD = "#1e90ff", "#e05d44"  # not colours of the overlay
_REACH = 0.4  # of a patch: length of most arrows; patches are half a patch apart
_SHARE = 90  # % of the arrows that are not longer; chosen
_PATCH = 128  # largest side of a patch; that of the recipe fine-tune
_THIN = 0.03  # share of a patch: width of an arrow
# share of the image: arrows this wide are visible when all of it is in view
_SEEN_SHARE = 1 / 300
_REFUSAL_TEXTS = {
    "ambiguous": "none: several positions fit",
    "no-overlap": "none: no position fits",
    "no-structure": "none: too little to compare",
}
_Result = tuple[jobs.Registered, base.JobResult] | RegistrationRefused


def _register_images(
    moving: core.Micrograph, fixed: core.Micrograph, **how: Any
) -> core.Job[_Result]:
    """Register two images and resample the moving one, or return a refusal."""
    try:
        registration = yield from jobs.REGISTER.job(moving, fixed, **how)
    except RegistrationRefused as refused:  # to list other positions that fit
        return refused
    assert registration.image is not None  # noqa: S101 - it was not written
    path = base.find_free_store_path(f"{moving.name} registered")
    job = jobs.save_image(registration.image, path)
    outcome = yield from base.run_and_open(job, path)
    return registration, outcome


class RegisterPanel(base.VerbPanel):
    """Panel that registers a layer, such as a mosaic, to another of the same area."""

    help_place = "register.md#in-napari"
    title, run_label = _TITLE, "Register"
    verb = jobs.REGISTER

    def build_form(self) -> None:
        """Build the form."""
        self.moving, self.fixed = self.input_layers.create_image_boxes(jobs.REGISTER)
        self.form = base.OptionsForm(jobs.RegisterOptions)
        self.look = OverlayControls(self)
        self.marks = LandmarkControls(
            self,
            self._get_image_layers,
            lambda: self.form.values()["model"],
            self._update_form_rows,
        )
        tip = "Apply a saved transform to these layers without registering them again."
        self.apply_button = base.create_button("Apply a transform…", self.apply, tip)
        tip = "Resample the moving layer, as displayed, onto the fixed one's pixels."
        text = "Use the transform shown"
        self.shown_button = base.create_button(text, self.take_shown, tip)
        tooltip = "Corresponding points marked in both images; rarely needed."
        self.marking = base.CollapsibleSection("Landmarks", tooltip, self.marks)
        self.add_group("Images", base.Form(self.moving, self.fixed))
        buttons = base.Form(self.apply_button, self.shown_button)
        self.add_group("Settings", self.form, self.marking, buttons)
        self.add_group("Compare", self.look)
        self._build_results()
        # and its layers
        self.last_registration: tuple[jobs.Registered, Image, Image] | None = None
        # by the user, until it is gone
        self._layers_wanted: dict[str, Layer | None] = {}
        self._proposes = False
        self._layers_chosen: dict[str, Layer | None] = {}
        for box, other in ((self.moving, self.fixed), (self.fixed, self.moving)):
            box.changed.connect(partial(self._keep_layers_different, box, other))
            box.changed.connect(self.marks.show_fit)
        self.form.on_change("model", self.marks.show_fit)
        self.marks.add_button.pressed.connect(self.look.end_comparison)
        for tick in (self.look.overlay, self.look.flicker, self.look.side_by_side):
            tick.native.pressed.connect(self.marks.stop)
        self._propose_layers()
        self._update_form_rows()

    def _build_results(self) -> None:
        create = base.create_button
        tip = "Save the transform from moving to fixed, with its error, as JSON."
        self.transform_button = create("Save transform…", self.save_transform, tip)
        tip = "Save patches of the area shown in both layers, for training."
        self.pairs_button = create("Cut pairs from here…", self.cut_pairs, tip)
        tip = "Open Train with both layers and this transform."
        self.train_button = create("Train on these", self.train, tip)
        tip = "Apply the measured pixel size to the layer that had none."
        self.take_size_button = create("Set this pixel size", self.take_size, tip)
        saving = self.transform_button, self.pairs_button
        self.further = self.take_size_button, *saving, self.train_button
        below = [base.WrappingRow(*self.further)]
        self.add_results("Result", helpers="Show residuals", below=below)

    # -- which layers -----------------------------------------------------------

    def _get_image_layers(self) -> tuple[Image | None, Image | None]:
        return self.moving.value, self.fixed.value

    def _on_layers_changed(self, event: Event | None = None) -> None:
        """Update the lists of layers, and propose newly opened layers."""
        with self._mark_changes_as_proposed():
            super()._on_layers_changed(event)
        if not self.is_busy:
            self._propose_layers()

    @contextmanager
    def _mark_changes_as_proposed(self) -> Iterator[None]:
        """Mark changes as made by the panel rather than by the user."""
        before, self._proposes = self._proposes, True
        try:
            yield
        finally:
            self._proposes = before

    def _propose_layers(self) -> None:
        """Propose a mosaic and an SEM image, unless the user has already chosen."""
        boxes = self.moving, self.fixed
        if any(
            box.value is not None and box.value is self._layers_wanted.get(box.name)
            for box in boxes
        ):
            return
        pair = find_image_pair(self.viewer, self.result_layers.own, is_unsized=True)
        if pair is not None:
            with self._mark_changes_as_proposed():
                self.moving.value, self.fixed.value = pair

    def _keep_layers_different(
        self, box: ComboBox, other: ComboBox, _: object = None
    ) -> None:
        """Keep the two layers different, swapping the choices if necessary."""
        if box.value is not None and box.value is other.value:
            left = [item for item in other.choices if item is not box.value]
            before = self._layers_chosen.get(box.name)
            if left:
                other.value = before if before in left else left[0]
        self._layers_chosen = {one.name: one.value for one in (self.moving, self.fixed)}
        if not self._proposes:
            self._layers_wanted = dict(self._layers_chosen)
        self.look.select_layers(self.fixed.value, self.moving.value)

    def _update_form_rows(self, _: object = None) -> None:
        """Offer registration by landmarks alone if there are enough of them."""
        if hasattr(self, "marks"):
            has_landmarks = self.marks.landmarks() is not None
            self.form.show_row("landmarks_only", has_landmarks)
            if not has_landmarks:
                self.form.set_values(landmarks_only=False)

    # -- running ------------------------------------------------------------------

    def _read_images(
        self, *, is_unturned: bool = False
    ) -> tuple[core.Micrograph, core.Micrograph]:
        """Read both layers, the moving one with or without its displayed transform."""
        moving, fixed_layer = self._get_image_layers()
        read = self.input_layers.read
        images = read(moving, is_unturned=is_unturned), read(fixed_layer)
        if moving is fixed_layer:
            msg = f"Layer {images[0].name!r} cannot be registered to itself: open "
            msg += "another image, and choose it under Fixed."
            raise core.ShapeError(msg, code="same-image")
        base.check_cache_space(images[1].shape, 1)
        return images

    def create_request(self) -> base.JobRequest:
        """Read the form, and return the request of the job that Run starts."""
        images = self._read_images()
        self.marks.stop()
        marks, options = self.marks.landmarks(), self.form.create_options()
        make = partial(_register_images, *images, landmarks=marks, options=options)
        show = partial(self.show_registration, *self._get_image_layers())
        return base.JobRequest(make, show)

    def apply(self) -> None:
        """Ask for a stored transform, and apply it to the chosen layers."""
        if path := base.ask_existing_file(self, "Apply a transform", _TRANSFORMS):
            self.apply_file(path)

    def apply_file(self, path: Path) -> None:
        """Apply a stored transform to the chosen layers."""
        with self.messages.show_errors():
            self._apply_transform(self._read_images(), io.read_transform(path))

    def take_shown(self) -> None:
        """Resample the moving layer onto the fixed one as displayed in napari."""
        with self.messages.show_errors():
            images = self._read_images(is_unturned=True)
            moving, fixed_side = map(io.ImageIdentity.from_image, images)
            layer = self.moving.value
            # the layer's unit, if not a length: refused later
            nm = layers.get_nm_scale(layer)
            linear, shift = layers.get_display_transform(layer)
            # without the layer's scale and translation
            linear = nm[:, None] * linear / (nm * layer.scale[-2:])
            shift = nm * shift - linear @ (nm * layer.translate[-2:])
            shown_map = core.Affine.from_matrix(linear, shift)
            stored = io.StoredTransform(shown_map, moving, fixed_side)
            self._apply_transform(images, stored)

    def _apply_transform(
        self,
        images: tuple[core.Micrograph, core.Micrograph],
        transform: io.StoredTransform,
    ) -> None:
        make = partial(_register_images, *images, transform=transform)
        show = partial(self.show_registration, *self._get_image_layers())
        self.controls.start(make, show)

    def show_registration(
        self, moving: Image, fixed_layer: Image, result: _Result
    ) -> Iterator[None]:
        """Add the resampled image, and show the error of the transform."""
        both = [moving, fixed_layer]
        self.result_layers.sources = self.input_layers.get_planes(both)
        for button in self.further:
            button.setEnabled(not isinstance(result, RegistrationRefused))
        if isinstance(result, RegistrationRefused):
            self.take_size_button.setVisible(False)
            self.results.show_result(describe_refusal(result), str(result))
            raise result
        registration, outcome = result
        self._offer_pixel_size(registration)
        self.look.end_comparison()
        layer = base.add_opened_image(
            self.viewer,
            outcome.opened[0],
            name=layers.create_result_name(self.viewer, moving.name, "registered"),
            colormap=moving.colormap,
            contrast_limits=moving.contrast_limits,
            gamma=moving.gamma,
        )
        yield
        about = registration.registration
        with self.result_layers.replace_earlier(*both, leader=layer) as earlier:
            yield from self.result_layers.remove_earlier(earlier)
            has_arrows = False
            for _ in self._add_helper_layers(about, layer, outcome.image, moving.name):
                has_arrows = True
                yield
        moving.visible = False
        aside = ""
        if 0 < min(self.marks.counts) < _MIN_PAIRS:
            aside = f" The landmarks were ignored: {_MIN_PAIRS} pairs are needed."
        self.marks.put_away()
        if layers.get_visible_box(self.viewer, fixed_layer) is None:
            layers.fill_view(self.viewer, fixed_layer)
        self.last_registration = registration, moving, fixed_layer
        self.viewer.layers.selection.active = layer
        self.look.select_layers(fixed_layer, layer)
        held_out = about.residuals
        heads = "y (nm)", "x (nm)", "off y (nm)", "off x (nm)", "reliable"
        columns = (*held_out.places_nm.T, *held_out.off_nm.T, held_out.reliable)
        residuals: base.Columns = dict(zip(heads, columns, strict=True))
        figures: base.Numbers = core.get_figures(registration)
        if has_arrows:
            arrows_note = f"enlarged {_compute_arrow_factor(about):g} {base.TIMES}"
            figures = {**figures, "Arrows": arrows_note}
        self.results.show_result(
            figures,
            f"{_describe_result(about, moving.name, fixed_layer.name)} Tick Overlay "
            f"in two colours or Flicker to check the alignment.{aside}",
            curves={"residuals": residuals},
        )

    def _offer_pixel_size(self, registration: jobs.Registered) -> None:
        """Offer the measured pixel size of an image that has none."""
        size = registration.found_pixel_size_nm
        self.take_size_button.setVisible(size is not None)
        if size is not None:
            what, nm = registration.found_size_of, core.format_pixel_size((size, size))
            text = f"Set the measured pixel size of {what}, {nm}"
            self.take_size_button.setText(text)

    def _add_helper_layers(
        self,
        registration: Registration,
        layer: Image,
        image: core.Micrograph,
        name: str,
    ) -> Iterator[None]:
        """Add arrows for the residuals, and outlines of unreliable patches."""
        residuals = registration.residuals
        finite = np.isfinite(residuals.off_nm).all(axis=1)
        if not finite.any():
            return
        pitch, origin = np.array(image.scale), np.array(image.origin)
        places = (residuals.places_nm[finite] - origin) / pitch
        off, reliable = residuals.off_nm[finite] / pitch, residuals.reliable[finite]
        side, times = residuals.side_nm / pitch, _compute_arrow_factor(registration)
        width = max(1.0, _THIN * float(side.min()), _SEEN_SHARE * max(image.shape))
        # An unreliable patch matches anywhere: it has a box, as an arrow would mislead.
        is_shown = reliable | (times * np.abs(off) <= side / 2).all(axis=1)
        look = layers.create_overlay_keywords(image, self.title, layer)
        self.viewer.add_vectors(
            np.stack([places, off], axis=1)[is_shown],
            name=layers.create_result_name(self.viewer, name, "residuals"),
            length=times,
            edge_width=width,
            vector_style="arrow",
            edge_color=np.where(reliable, _GOOD, _BAD)[is_shown].tolist(),
            features={"off_nm": np.hypot(*residuals.off_nm[finite].T)[is_shown]},
            **look,
        )
        yield
        if reliable.all():
            return
        # half a patch, the spacing of patches: larger boxes would hide the image
        box = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]]) / 4 * side
        edge = np.array(image.shape) - 0.5
        self.viewer.add_shapes(
            [np.clip(box + place, -0.5, edge) for place in places[~reliable]],
            shape_type="rectangle",
            name=layers.create_result_name(self.viewer, name, "unreliable"),
            edge_color=_BAD,
            face_color=f"{_BAD}40",
            edge_width=width / 2,
            **look,
        )
        yield

    # -- what a result offers --------------------------------------------------------

    def take_size(self) -> None:
        """Apply the measured pixel size to the layer that has none."""
        if self.last_registration is None:
            return
        registration_found, *both = self.last_registration
        for layer in (item for item in both if not layers.is_calibrated(item)):
            stored = registration_found.stored_transform
            side = stored.moving if layer is both[0] else stored.fixed
            size = side.pixel_size_nm
            origin = core.create_size_source("found by registration in napari", size)
            layers.apply_pixel_size(layer, size, origin=origin)
            self.take_size_button.setVisible(False)
            self.messages.show_status(
                f"The pixel size of {layer.name} is now {core.format_pixel_size(size)}."
            )
            self.session.changed.emit()  # it has unsaved changes now

    def save_transform(self) -> None:
        """Ask for a file name, and save the transform."""
        if self.last_registration is not None:
            transform_file = self.last_registration[0].stored_transform
            name = f"{transform_file.moving.name} to {transform_file.fixed.name}"
            write = partial(io.write_transform, transform_file=transform_file)
            sentence = "Transform saved as {}."
            self.sharing.save_file("Save transform", name, _TRANSFORMS, write, sentence)

    def _get_registered_pair(self) -> tuple[io.StoredTransform, Image, Image] | None:
        """Return the mosaic-to-SEM transform and both layers, if they are open.

        If the SEM image was moved onto the mosaic, the transform is inverted.
        """
        text = "Register two layers first; training pairs are cut from them."
        if self.last_registration is not None:
            registration, moving, fixed_layer = self.last_registration
            stored_map, there = registration.stored_transform, self.viewer.layers
            if moving in there and fixed_layer in there:
                if _compute_sem_score(moving) <= _compute_sem_score(fixed_layer):
                    return stored_map, moving, fixed_layer
                if isinstance(stored_map.transform, core.Affine):
                    quality = stored_map.quality
                    facts = {name: quality.get(name) for name in ("model", "error_nm")}
                    back = stored_map.transform.inverse()
                    sides = stored_map.fixed, stored_map.moving
                    stored_map = io.StoredTransform(back, *sides, facts)
                    return stored_map, fixed_layer, moving
                text = "A non-linear transform cannot be inverted: choose "
                text += f"{fixed_layer.name} as Moving, and press Register again."
        self.messages.show_status(text)
        return None

    def train(self) -> None:
        """Open Train with both layers and their transform."""
        if both := self._get_registered_pair():
            transform_file, low, high = both
            panel: Any = base.switch_panel(self, self.viewer, "Train")
            panel.take_registered(low, high, transform_file)

    def cut_pairs(self) -> None:
        """Ask for a store path, and write training pairs cut from both images to it."""
        both = self._get_registered_pair()
        if both is None:
            return
        transform_file, low, high = both
        path = base.ask_output_file(self, "Cut pairs", f"{low.name} pairs", _PAIRS)
        if path is not None:
            with self.messages.show_errors():
                read = self.input_layers.read
                images = read(low, is_unturned=True), read(high)
                # on the mosaic's pixels, for which networks are trained
                size = images[0].mean_pixel_size_nm
                own = TrainedPixelSizes("", None if size is None else (size, size))
                how: Any = {"patch_px": _PATCH, "scale": 1, "trained_sizes": own}
                options = jobs.choose_pair_options(*images, **how)
                how = {"options": options, "transform": transform_file}
                make = partial(jobs.PAIRS.rerun, *images, path, **how)
                self.controls.start(make, self._report_saved_pairs, "Cut pairs")

    def _report_saved_pairs(self, pairs_made: jobs.CreatedPairs) -> None:
        made = pairs_made
        self.messages.show_status(
            f"Saved {made.train} pairs for training, {made.validation} for validation "
            f"and {made.test} for testing in {made.output}, for Train."
        )


def find_image_pair(
    viewer: Viewer, layers_made: Sequence[Image], *, is_unsized: bool = False
) -> tuple[Image, Image] | None:
    """Guess which layers are an optical image and an SEM image of the same area.

    `is_unsized`: if fewer than two have a pixel size, also consider layers without
    one.
    """
    others = [i for i in layers.list_grey_layers(viewer) if i not in layers_made]
    opened = [item for item in others if not layers.is_incomplete(item)]
    sized = [item for item in opened if layers.is_calibrated(item)]
    sized = opened if is_unsized and len(sized) < 2 else sized
    acquired = filter(layers.is_acquired, sized)
    originals = (i for i in acquired if layers.get_last_job_name(i) != "register")
    exposures = [*originals] or sized
    if len(exposures) < 2:
        return None
    fixed_layer = max(reversed(exposures), key=_compute_sem_score)
    # an image of which the other is a result is no second image of the area
    fits = partial(layers.fits_beside, anywhere=True)
    rest = [item for item in reversed(exposures) if fits(item, fixed_layer)]
    return (min(rest, key=_compute_sem_score), fixed_layer) if rest else None


def _compute_sem_score(layer: Image) -> tuple[int, float]:
    """Rank a layer by its resemblance to an SEM image: instrument, small pixels."""
    kind = layers.get_instrument(layer)
    if kind is None and layers.is_stitched(layer):
        kind = "optical"
    size = layers.get_layer_pixel_size(layer)[1]
    size = float(size) if layers.is_calibrated(layer) else np.inf
    return (kind == "sem") - (kind == "optical"), -size


def _compute_arrow_factor(registration: Registration) -> float:
    """Compute the factor for enlarging arrows: 1 to 9, 10, 20 or 30.

    Only reliable patches determine it, as the others match anywhere.
    """
    residuals = registration.residuals
    off = np.hypot(*residuals.off_nm.T)
    off = off[residuals.reliable] if residuals.reliable.any() else off
    off = off[np.isfinite(off)]
    long = float(np.percentile(off, _SHARE)) if off.size else 0.0
    if not long:
        return 1.0
    factor_wanted = max(1.0, _REACH * registration.residuals.side_nm / long)
    ten = 10.0 ** np.floor(np.log10(factor_wanted))
    return float(np.floor(factor_wanted / ten) * ten)


def _describe_result(registration: Registration, moving: str, fixed_name: str) -> str:
    sentence = f"Registered {moving} to {fixed_name}"
    if np.isfinite(registration.error_nm):
        nm = core.format_rounded(registration.error_nm)
        px = f"{registration.error_px:.2g}"
        sentence += f", with an expected error of {nm} nm ({px} px)"
    if registration.search_name == "full":
        sentence += ", after a search over all rotations"
    return f"{sentence}."


def describe_refusal(refusal: RegistrationRefused) -> base.Numbers:
    """Describe why registration failed, and list positions that fit equally well."""
    numbers: dict[str, core.Figure | str] = {"Map": _REFUSAL_TEXTS[refusal.reason]}
    for number, rival in enumerate(refusal.rivals, 1):
        numbers[f"Also fits {number}"] = jobs.describe_alternative(rival)
    return numbers
