"""Places that someone marks in both images, as two linked layers of points."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image, Points
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFileDialog

from napari_semsr.core import FloatArray, SemsrError, in_digits
from napari_semsr.io import read_landmarks, write_landmarks
from napari_semsr.registration import Landmarks, fit_landmarks
from napari_semsr.widgets.base import (
    FoldingRow,
    Form,
    Panel,
    RichLabel,
    ask_file,
    is_alive,
    push_button,
)
from napari_semsr.widgets.compare import Alone
from napari_semsr.widgets.layers import fill_view, free_name, is_in_view, nm_per_unit

MARK_KEY = "semsr landmarks"
"""Entry of a layer's metadata: of which image its points are landmarks."""

_COLOURS = ("#e3b617", "#4ca3dd")  # of the moving image and of the fixed one
_SHARE = 0.02  # of the image's longer side; chosen: a mark covers no detail
_SEEN_PX = (14, 30)  # on the screen, at any zoom
_LEAST = 3  # pairs from which on a map follows
_SPARE = 4  # pairs from which on an affine map leaves a number to judge it
_DOTS = "\N{HORIZONTAL ELLIPSIS}"
_DONE = ("added", "removed", "changed")
_TABLES = {"Table of landmarks (*.csv)": ".csv"}

Chosen = tuple[Image | None, Image | None]
"""The moving image and the fixed one."""


class LandmarkControls(Form):
    """Marks pairs of places, the view going from one image to the other."""

    def __init__(
        self,
        panel: Panel,
        images: Callable[[], Chosen],
        model: Callable[[], str],
        changed: Callable[[], None],
    ) -> None:
        super().__init__()
        self._panel, self._viewer = panel, panel.viewer
        self._images, self._model, self._changed = images, model, changed
        self._of: Chosen = (None, None)
        self.points: tuple[Points, ...] = ()
        self._linking = False  # a change that must not be followed
        self._alone = Alone(panel.viewer)
        self._make_controls()
        panel.viewer.layers.events.removed.connect(self._on_removed)
        panel.closed.connect(self.stop)
        self.show_fit()

    def _make_controls(self) -> None:
        self.add_button = push_button(
            "Add landmarks",
            self._set,
            "Click a place in the moving image, then the same in the fixed one: the "
            "view goes from one to the other. Press again to end. Marks can be moved "
            "and deleted as any points.",
        )
        self.add_button.setCheckable(True)
        self.undo_button = push_button(
            "Undo", self.undo, "Take the last mark away, in the image that has it."
        )
        self.load_button = push_button(
            f"Load{_DOTS}", self.load, "Read pairs of places from a CSV table."
        )
        self.save_button = push_button(
            f"Save marks{_DOTS}", self.save, "Write the pairs as a CSV table in nm."
        )
        self.note = RichLabel()
        buttons = (self.add_button, self.undo_button, self.load_button)
        self.add(FoldingRow(*buttons, self.save_button))
        self.add(self.note)

    # -- what is marked ---------------------------------------------------------

    @property
    def counts(self) -> tuple[int, int]:
        """Marks in the moving image and in the fixed one, if they are of these."""
        if not self.points or self._of != self._images():
            return 0, 0
        first, second = (len(layer.data) for layer in self.points)
        return first, second

    def landmarks(self) -> Landmarks | None:
        """Give the pairs in nm; None below the number that decides a map."""
        pairs = min(self.counts)
        if pairs < _LEAST:
            return None
        moving, fixed = (_places_nm(layer)[:pairs] for layer in self.points)
        return Landmarks(moving, fixed)

    def left_aside(self) -> str:
        """Say that there are marks, but too few of them."""
        pairs = min(self.counts)
        if not 0 < pairs < _LEAST:
            return ""
        return f" Fewer than {_LEAST} pairs of landmarks decide nothing: left aside."

    def show_fit(self, _: object = None) -> None:
        """Say how well the pairs fit, and number them."""
        first, second = self.counts
        pairs = min(first, second)
        said, off = f"{pairs} pairs" if pairs != 1 else "1 pair", np.zeros(0)
        if pairs < _LEAST:
            said = f"{said}; from {_LEAST} on they are the start." if pairs else ""
        else:
            try:
                said, off = self._fitted()
            except SemsrError as error:
                said = str(error)
        if first != second:
            alone = 0 if first > second else 1
            names = [image.name for image in self._of if image is not None]
            said = f"{said} Mark {pairs + 1} of {names[alone]} waits for its partner: "
            said += f"click the same place in {names[1 - alone]}."
        self.note.setText(self._panel.translate(said.strip()))
        for layer in self.points:
            self._number(layer, off if layer in self.points[1:] else ())
        self.undo_button.setEnabled(bool(first or second))
        self.save_button.setEnabled(pairs > 0)
        self._changed()

    def _number(self, layer: Points, off: Iterable[float]) -> None:
        """Write at each mark its number, and how far it lies off in nm."""
        labels = [str(n + 1) for n in range(len(layer.data))]
        for place, nm in enumerate(off):
            labels[place] += f" ({in_digits(nm)} nm)"
        with _in_view(layer):
            layer.features = {"label": labels}

    def _fitted(self) -> tuple[str, FloatArray]:
        """Fit the pairs; say how far they lie off, and by how much each."""
        found = self.landmarks()
        if found is None:
            return "", np.zeros(0)
        stiff = self._model() == "similarity" or len(found) < _SPARE
        fit = fit_landmarks(found, "similarity" if stiff else "affine")
        rms = float(np.sqrt((fit.distances**2).mean()))
        # what the others say of a mark: its own fit flatters it
        off = np.where(np.isfinite(fit.left_out), fit.left_out, fit.distances)
        worst = int(off.argmax())
        return (
            f"{len(found)} pairs fit to {in_digits(rms)} nm; mark {worst + 1} lies "
            f"{in_digits(off[worst])} nm from where the others say."
        ), off

    # -- marking ------------------------------------------------------------------

    def _pair(self) -> tuple[Image, Image] | None:
        """Give the two images; where there are none, say so."""
        moving, fixed = self._images()
        if moving is None or fixed is None or moving is fixed:
            self._panel.show_status("Choose two different layers first.")
            return None
        return moving, fixed

    def _set(self, on: bool) -> None:
        if not on:
            self.stop()
            return
        pair = self._pair()
        if pair is None:
            self.add_button.setChecked(False)
            return
        self._make_layers(*pair)
        self._go_on()

    def stop(self) -> None:
        """End marking, and show what was shown before."""
        self.add_button.setChecked(False)
        self._alone.end()
        for layer in self.points:
            layer.mode = "pan_zoom"

    def put_away(self) -> None:
        """End marking, and hide the marks, which lie on the images as they were."""
        self.stop()
        for layer in self.points:
            layer.visible = False

    def _make_layers(self, moving: Image, fixed: Image) -> None:
        """Add the two layers of points, unless these images have theirs."""
        there = self._viewer.layers
        if self._of == (moving, fixed) and all(p in there for p in self.points):
            return
        self._of = (moving, fixed)
        active = there.selection.active
        self.points = tuple(
            self._new_points(image, colour)
            for image, colour in zip((moving, fixed), _COLOURS, strict=True)
        )
        there.selection.active = active
        self.show_fit()

    def _new_points(self, image: Image, colour: str) -> Points:
        """Add an empty layer of points over an image."""
        side = max(image.level_shapes[0][-2:])
        layer: Points = self._viewer.add_points(
            np.empty((0, 2)),
            ndim=2,
            name=free_name(self._viewer, f"{image.name} · landmarks"),
            scale=image.scale[-2:],
            translate=image.translate[-2:],
            units=image.units[-2:],
            axis_labels=image.axis_labels[-2:],
            size=max(1.0, _SHARE * side),
            symbol="disc",
            face_color="transparent",  # what is marked stays in sight
            border_color=colour,
            border_width=0.2,
            canvas_size_limits=_SEEN_PX,
            features={"label": np.empty(0, dtype=str)},
            text={
                "string": "{label}",
                "color": colour,
                "size": 12,
                "anchor": "upper_left",
            },
            metadata={MARK_KEY: image.name},
        )
        layer.events.data.connect(self._on_data)
        return layer

    def _on_data(self, event: Any) -> None:
        """Follow what is done to one of the layers."""
        action = str(getattr(event.action, "value", event.action))
        known = is_alive(self) and event.source in self.points
        if not known or self._linking or action not in _DONE:
            return
        place = self.points.index(event.source)
        if action == "removed":
            other, removed = self.points[1 - place], set(event.data_indices)
            kept = [n for n in range(len(other.data)) if n not in removed]
            self._replace(other, other.data[kept])
        self.show_fit()
        if action == "added" and self.add_button.isChecked():
            QTimer.singleShot(0, self._go_on)  # napari still handles the click

    def _replace(self, layer: Points, data: FloatArray) -> None:
        """Give a layer other points without following that."""
        self._linking = True
        try:
            with _in_view(layer):
                layer.selected_data = set()
                layer.data = data
        finally:
            self._linking = False

    def _go_on(self) -> None:
        """Show the image that is to be marked next, and let its layer take clicks."""
        if not (is_alive(self) and self.add_button.isChecked() and self.points):
            return
        first, second = self.counts
        place = 0 if first <= second else 1
        image, layer = self._of[place], self.points[place]
        if image is None or image not in self._viewer.layers:
            return
        self._alone.show(image, layer)
        self._viewer.layers.selection.active = layer
        self.points[1 - place].mode = "pan_zoom"
        layer.mode = "add"
        if not is_in_view(image):
            fill_view(self._viewer, image)
        self._panel.show_status(
            f"Click place {min(first, second) + 1} in {image.name}."
        )

    def undo(self) -> None:
        """Take the last mark away."""
        first, second = self.counts
        if max(first, second):
            layer = self.points[0 if first > second else 1]
            self._replace(layer, layer.data[:-1])
            self.show_fit()
            self._go_on()

    def _on_removed(self, event: Any) -> None:
        """Forget the marks when a layer of theirs is taken away."""
        if is_alive(self) and event.value in (*self.points, *self._of):
            self.stop()
            left = self.points
            self.points, self._of = (), (None, None)
            for layer in left:
                if layer is not event.value and layer in self._viewer.layers:
                    QTimer.singleShot(0, partial(self._take_away, layer))
            self.show_fit()

    def _take_away(self, layer: Points) -> None:
        if is_alive(self) and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    # -- files ------------------------------------------------------------------

    def load(self) -> None:
        """Ask for a table, and show its pairs."""
        pair = self._pair()
        if pair is None:
            return
        chosen, _ = QFileDialog.getOpenFileName(
            self, "Load landmarks", "", ";;".join(_TABLES)
        )
        if not chosen:
            return
        with self._panel.told():
            images = [self._panel.micrograph(layer) for layer in pair]
            places = read_landmarks(Path(chosen), *images)
            self._make_layers(*pair)
            for layer, image, found in zip(self.points, images, places, strict=True):
                self._replace(layer, (found - image.origin) / np.array(image.scale))
            self.show_fit()
            self._panel.show_status(f"Read {len(places[0])} pairs of {chosen}.")

    def save(self) -> None:
        """Ask for a name, and write the pairs."""
        pairs = min(self.counts)
        if not pairs:
            return
        path = ask_file(self, "Save landmarks", "landmarks", _TABLES)
        if path is not None:
            with self._panel.told():
                moving, fixed = (_places_nm(layer)[:pairs] for layer in self.points)
                write_landmarks(path, moving, fixed)
                self._panel.show_status(f"Saved {pairs} pairs as {path}.")


@contextmanager
def _in_view(layer: Points) -> Iterator[None]:
    """Let napari look at a layer anew: it draws texts of a hidden one's old marks."""
    shown, layer.visible = layer.visible, True
    try:
        yield
    finally:
        layer.visible = shown


def _places_nm(layer: Points) -> FloatArray:
    """Places of points in nm; in the unit of the world where that is no length."""
    world = [layer.data_to_world(point)[-2:] for point in np.asarray(layer.data)]
    factors = [nm_per_unit(unit) or 1.0 for unit in layer.units[-2:]]
    places: FloatArray = np.array(world, dtype=float).reshape(-1, 2) * factors
    return places
