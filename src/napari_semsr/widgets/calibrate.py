"""Set the pixel size of a layer: typed, from a line of known length, or a grating."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import product

import numpy as np
from magicgui.widgets import ComboBox, FloatSpinBox
from magicgui.widgets.bases import Widget
from napari.layers import Image, Layer, Shapes
from napari.viewer import Viewer
from numpy.typing import NDArray
from psygnal import Signal
from qtpy.QtWidgets import QWidget

from napari_semsr.analysis import CalibrateOptions
from napari_semsr.core import (
    Calibration,
    OptionError,
    PixelSize,
    SemsrError,
    figures_of,
    format_number,
    format_pixel_size,
    parse_pixel_size,
    size_origin,
)
from napari_semsr.io import HELPER_KEY, write_calibration
from napari_semsr.jobs import CALIBRATE, CalibrationReport, ScaleBarReport
from napari_semsr.widgets import host
from napari_semsr.widgets.base import (
    FoldingRow,
    Form,
    Panel,
    RichLabel,
    check_unread,
    explaining,
    history_of,
    is_alive,
    lay_below,
    push_button,
    shorten_number,
    take_either_mark,
)
from napari_semsr.widgets.layers import (
    MARK_KEY,
    SOURCES_KEY,
    TYPED_SIZE,
    apply_pixel_size,
    draw_lines,
    file_of,
    fitted_as,
    gain_of,
    grey_layers,
    identity_of,
    image_layers,
    is_calibrated,
    micrograph_from_layer,
    note_size_facts,
    pitch_of,
    pixels_at,
    placed_by,
    provenance_of,
    resize_pixels,
    show_scale_bar,
    shown_by,
    size_facts_of,
    to_shared_units,
)

_UNITS_NM = {"pm": 1e-3, "Å": 0.1, "nm": 1.0, "µm": 1e3, "mm": 1e6}
"""Nanometres per unit."""
_DECIMALS = 6  # of a pixel size; chosen
PLUS_MINUS = "\N{PLUS-MINUS SIGN}"
_CALIBRATIONS = {"Calibration (*.json)": ".json"}


class PixelSizeEdit(QWidget):
    """Controls for a pixel size; zero means unknown.

    Changing the unit keeps the numbers, which corrects a wrong unit.
    """

    changed = Signal()

    def __init__(self, tooltip: str = "") -> None:
        super().__init__()
        self.name, self.label, self.tooltip = "pixel_size_nm", "Pixel size", tooltip
        self.height_box = self._number("y", "Height of a pixel; 0 when unknown.")
        self.width_box = self._number("x", "Width of a pixel; 0 when unknown.")
        self.unit_box = ComboBox(
            name="unit",
            tooltip="Unit of both numbers; choosing another keeps the numbers.",
            choices=list(_UNITS_NM),
            value="nm",
        )
        self.note = RichLabel()
        boxes = (self.height_box, self.width_box, self.unit_box)
        lay_below(self, FoldingRow(*(box.native for box in boxes)), self.note)
        self._are_linked = True
        self.height_box.changed.connect(self._on_y)
        self.width_box.changed.connect(self._on_x)
        self.unit_box.changed.connect(self._on_change)
        self._on_change()

    @staticmethod
    def _number(name: str, tooltip: str) -> FloatSpinBox:
        box = FloatSpinBox(
            name=name, tooltip=tooltip, value=0.0, min=0.0, max=1e9, step=0.1
        )
        box.native.setDecimals(_DECIMALS)
        shorten_number(box.native)
        take_either_mark(box.native)
        box.native.setPrefix(f"{name} ")
        box.native.setSpecialValueText(f"{name} unknown")
        box.native.setButtonSymbols(box.native.ButtonSymbols.NoButtons)
        return box

    @property
    def value(self) -> PixelSize | None:
        """``(y, x)`` in nm, or None when either number is zero."""
        k = _UNITS_NM[self.unit_box.value]
        if self.height_box.value <= 0 or self.width_box.value <= 0:
            return None
        return parse_pixel_size((self.height_box.value * k, self.width_box.value * k))

    @value.setter
    def value(self, size: tuple[float, float] | None) -> None:
        self._are_linked = size is None or math.isclose(*size, rel_tol=1e-6)
        unit = "nm"
        if size is not None:
            unit = "µm" if min(size) >= 1e3 else "nm" if max(size) >= 0.1 else "pm"
        numbers = [round(n / _UNITS_NM[unit], _DECIMALS) for n in size or (0.0, 0.0)]
        controls = (self.height_box, self.width_box, self.unit_box)
        for control, value_shown in zip(controls, (*numbers, unit), strict=True):
            if control.value == value_shown:  # else Qt shows all decimals
                continue
            with control.changed.blocked():
                control.value = value_shown
        self._on_change()

    def _on_y(self, value: float) -> None:
        if self._are_linked and self.width_box.value != value:
            self.width_box.value = value
            return
        self._on_change()

    def _on_x(self, value: float) -> None:
        self._are_linked = self.height_box.value == value
        self._on_change()

    def _on_change(self) -> None:
        size = self.value
        text = "Pixel size unknown: results are in pixels." if not size else ""
        self.note.setText(text or f"= {format_pixel_size(size)} per pixel")
        self.changed.emit()


_LINE_LAYER = "Scale line"
_GRID = ("units", "scale", "translate", "affine")
_Facts = dict[Layer, dict[str, object]]
_FormerSize = tuple[Image, _Facts, _Facts, Sequence[Layer]]
"""A calibrated layer, earlier grids and origins, and layers that were hidden."""
_MAX_SIZES = 10  # chosen: older sizes are forgotten, as each keeps its layers alive


def _grid_seen(viewer: Viewer, layer: Layer) -> NDArray[np.float64]:
    """Return scale and translation in the common unit, which the camera uses."""
    linear, shift = shown_by(layer)
    return np.array([np.diag(linear), shift]) * to_shared_units(viewer, layer)[-2:]


@contextmanager
def _view_kept(viewer: Viewer, layer: Layer) -> Iterator[None]:
    """Context that keeps the same pixels of a layer in view while its grid changes."""
    old, start = _grid_seen(viewer, layer)
    yield
    new, corner = _grid_seen(viewer, layer)
    camera = host.camera(viewer)
    place = corner + (np.array(camera.center[-2:]) - start) * new / old
    camera.center = (*camera.center[:-2], *place)
    camera.zoom *= math.sqrt(np.prod(old / new))


def mixed_text(viewer: Viewer) -> str:
    """Explain why there is no scale bar, if layers have no common unit."""
    if viewer.layers.units is not None:
        return ""
    bare = [item.name for item in grey_layers(viewer) if not is_calibrated(item)]
    whose = bare[-1] if bare else "another layer"
    return (
        f" There is no scale bar, since {whose} has no pixel size but others do: it "
        "is shown at the size of the field in view. Set it under Calibrate a layer, "
        "or remove that layer."
    )


def line_length(line: Shapes | None, size: tuple[float, float]) -> float:
    """Return the length of the last line of a Shapes layer.

    `line`: its last shape is a line; vertices are in pixels of the image below.
    """
    start, end = _last_line(line)
    length = math.hypot(*((end - start) * np.asarray(size)))
    if length <= 0:
        msg = "The line must have two different ends; draw it again."
        raise OptionError(msg, code="line-without-length")
    return length


def _last_line(line: Shapes | None) -> NDArray[np.float64]:
    """Return both ends ``(y, x)`` of the last line of a Shapes layer, (2, 2)."""
    shapes = [] if line is None else line.data
    lines = [np.asarray(d, dtype=float)[:, -2:] for d in shapes if len(d) == 2]
    if not lines:
        msg = "A line over the known distance is needed; press Draw a line."
        raise OptionError(msg, code="line-missing")
    return lines[-1]


def _lies_on(item: Layer, layer: Layer) -> bool:
    """Whether two layers share one pixel grid."""
    pairs = zip(shown_by(item), shown_by(layer), strict=True)
    alike = tuple(item.units[-2:]) == tuple(layer.units[-2:])
    return alike and all(np.allclose(one, other) for one, other in pairs)


def _lying_on(viewer: Viewer, image: Image) -> list[Layer]:
    """Return the layers that explain or mark an image or a part of it.

    If they name no open image, return all layers on its pixel grid.
    """
    own = explaining(viewer, image)
    names = {name for item in viewer.layers for name in (item.name, identity_of(item))}
    layers = []
    for item in viewer.layers:
        of = item.metadata.get(MARK_KEY)
        if of in names:
            alike = is_calibrated(item) == is_calibrated(image)
            lies = of in (image.name, identity_of(image)) and alike
            lies = lies and np.allclose(pitch_of(item), pitch_of(image))
        else:
            helps = item in own or of or item.metadata.get(HELPER_KEY)
            lies = bool(helps) and _lies_on(item, image)
        layers += [item] if lies else []
    return layers


def _made_of(viewer: Viewer, source: Image) -> tuple[list[Image], list[Image]]:
    """Return the images that were made from another and share its pixel grid.

    A registered image has the grid of another. Maps of lengths in the earlier
    pixel size are returned separately, for either input.
    """
    own, layers_found, layers_outdated = provenance_of(source), [], []
    path = file_of(source)  # of layers read from files, which identify them
    identities = identity_of(source), path and (source.name, path)
    for layer in image_layers(viewer):
        history = provenance_of(layer)
        steps = () if history is None else tuple(history.steps())
        lengths = history is not None and history.depends_on_pixel_size
        sources = layer.metadata.get(SOURCES_KEY, {})
        is_known = any(
            (item.provenance is not None and item.provenance == own)
            or sources.get(item.name, (item.name, item.path)) in identities
            for step in steps
            for item in step.inputs[: None if lengths else 1]
        )
        is_moved = any(step.job == "register" for step in steps)
        if layer is source or not is_known or is_moved:
            continue
        if lengths:
            layers_outdated.append(layer)
            continue
        if is_calibrated(layer) != is_calibrated(source):
            continue
        one, other = pitch_of(layer), pitch_of(source)
        shapes = [np.array(item.extent.data[1][-2:]) + 1 for item in (layer, source)]
        if np.allclose(one, other) or np.allclose(one * shapes[0], other * shapes[1]):
            layers_found.append(layer)
    return layers_found, layers_outdated


class CalibrateGroup(Form):
    """Controls that calibrate an open layer."""

    def __init__(self, panel: Panel, layer: ComboBox) -> None:
        super().__init__()
        self._panel, self.layer = panel, layer
        viewer = self._viewer = panel.viewer
        self._calibration: Calibration | None = None
        self._history = history_of(viewer)
        self._sizes: list[_FormerSize] = []
        self.pixel_size = PixelSizeEdit(
            "Pixel size of the layer, in nm; every length follows from it."
        )
        self.apply_button = push_button(
            "Apply pixel size", self.apply, "Set the pixel size above for the layer."
        )
        self.undo_button = push_button(
            "Undo", self.undo, "Restore the previous pixel size."
        )
        line, grating = self._build_line(), self._build_grating()
        for row in (
            *(layer, self.pixel_size, self.apply_button),
            *(*line, *grating, self.undo_button),
        ):
            self.add(row)
        self._history.changed.connect(self._show_undo)
        viewer.layers.events.inserted.connect(self._show_undo)
        self._show_undo()
        layer.changed.connect(self._show_size)
        self._show_size(layer.value)

    def _build_line(self) -> list[Widget | QWidget]:
        self.distance = FloatSpinBox(
            name="distance",
            label="Known distance",
            tooltip="True length of the drawn line, for example of the scale bar.",
            value=0,
            min=0,
            max=1e9,
            step=1,
        )
        self.distance.native.setDecimals(_DECIMALS)
        shorten_number(self.distance.native)
        self.distance_unit = ComboBox(
            name="distance_unit",
            label="in",
            tooltip="Unit of the known distance.",
            choices=list(_UNITS_NM),
            value="nm",
        )
        self.length = RichLabel()
        self.draw_button = push_button(
            "Draw a line",
            self.draw,
            "Add a Shapes layer: drag from one end of the distance to the other",
        )
        self.bar_button = push_button(
            "Find the printed bar",
            self.find_bar,
            "Find the microscope's scale bar and place the line over it; type its "
            "label as the known distance.",
        )
        self.measure_button = push_button(
            "Set scale from line",
            self.measure,
            "Pixel size = known distance / length of the last line drawn.",
        )
        return [
            self.draw_button,
            self.bar_button,
            self.length,
            self.distance,
            self.distance_unit,
            self.measure_button,
        ]

    def _build_grating(self) -> list[Widget | QWidget]:
        self.pitch = FloatSpinBox(
            name="pitch",
            label="Grating period (nm)",
            tooltip="Known period of a grating in the layer: lines, or dots on a "
            "square or hexagonal lattice.",
            value=0,
            min=0,
            max=1e9,
            step=10,
        )
        shorten_number(self.pitch.native)
        self.grating_button = push_button(
            "Calibrate from a grating",
            self.measure_grating,
            "Measure the pixel size from the grating that fills the layer, with its "
            "error, and skew and distortion of the field.",
        )
        self.grating = RichLabel()
        self.save_button = push_button(
            "Save calibration…",
            self.save,
            "Write pixel size, skew and distortion with their errors, for Stitch "
            "mosaic.",
        )
        return [self.pitch, self.grating_button, self.grating, self.save_button]

    def _show_size(self, layer: Image | None) -> None:
        try:
            size = micrograph_from_layer(layer).pixel_size_nm
        except SemsrError:
            size = None
        self.pixel_size.value = size
        self._show_found(None)
        self._show_length()

    def _show_length(self, event: object = None) -> None:
        """Show the length of the last line; its layer keeps a weak reference."""
        if not is_alive(self):
            return
        line, size, text = self._line_layer(), self.pixel_size.value, ""
        if line is not None and self._owner_of(line) not in (None, self.layer.value):
            line = None
        with suppress(OptionError):
            text = f"The line is {line_length(line, (1, 1)):.1f} px long"
            text += (
                f", {format_number(line_length(line, size), '.5g')} nm" if size else ""
            )
        self.length.setText(text)

    def _line_layer(self) -> Shapes | None:
        """Return the layer of lines of the selected image, or the topmost."""
        layers = [
            item
            for item in reversed(list(self._viewer.layers))
            if isinstance(item, Shapes) and item.name.startswith(_LINE_LAYER)
        ]
        layer_chosen = self.layer.value
        own = [
            i
            for i in layers
            if layer_chosen is not None and self._owner_of(i) is layer_chosen
        ]
        return next(iter(own or layers), None)

    def apply(self) -> None:
        """Set the typed pixel size for the selected layer."""
        with self._panel.showing_errors():
            if self.pixel_size.value is None:
                msg = "Type a pixel size first: both numbers above zero."
                raise OptionError(msg, code="missing-value")
            self._calibrate(self.pixel_size.value)

    def _calibrate(
        self,
        size: tuple[float, float],
        error: tuple[float, float] | None = None,
        how: str = TYPED_SIZE,
    ) -> None:
        layer, origin = self.layer.value, size_origin(how, size)
        before = micrograph_from_layer(layer)
        ratios, layers_outdated = self._along(layer)
        check_unread(ratios)
        old = {item: {name: getattr(item, name) for name in _GRID} for item in ratios}
        errors = {item: size_facts_of(item) for item in ratios}
        layers_hidden = [item for item in layers_outdated if item.visible]
        self._sizes.append((layer, old, errors, layers_hidden))
        self._show_undo()
        with _view_kept(self._viewer, layer):
            for item, ratio in ratios.items():
                share = None if error is None else np.array(error) * ratio
                new_size = np.array(size) * ratio
                apply_pixel_size(item, new_size, share, origin=origin)
        for item in layers_outdated:
            item.visible = False
        self._show_changed(ratios, before.pixel_size_nm, layers_outdated)

    def _along(
        self, layer: Image
    ) -> tuple[dict[Layer, NDArray[np.float64]], list[Image]]:
        """Return the layers that also get the new size, with their pixel ratios.

        `layer` is first; layers that become outdated are returned separately.
        """
        line, (layers_made, layers_outdated) = (
            self._line_layer(),
            _made_of(self._viewer, layer),
        )
        ratios: dict[Layer, NDArray[np.float64]] = {}
        for one in (layer, *layers_made):
            lying = _lying_on(self._viewer, one)
            free = line is not None and self._owner_of(line) is None
            if free and one is layer and _lies_on(line, one):
                lying.append(line)
            ratios |= dict.fromkeys((one, *lying), pitch_of(one) / pitch_of(layer))
        return ratios, layers_outdated

    def undo(self) -> None:
        """Undo the last change."""
        with self._panel.showing_errors():
            there = self._viewer.layers
            at = [n for n, size in enumerate(self._sizes) if size[0] in there]
            if at:
                self._give_back(*self._sizes[at[-1]])
                del self._sizes[at[-1]]
                self._show_undo()

    def _give_back(
        self,
        layer: Image,
        grids: _Facts,
        errors: _Facts,
        layers_hidden: Sequence[Layer],
    ) -> None:
        """Restore the grids that layers had at an earlier size of `layer`.

        Later results change with it or become outdated; `layers_hidden` are not
        outdated any more.
        """
        before = micrograph_from_layer(layer)
        ratios, layers_outdated = self._along(layer)
        check_unread([*grids, *ratios])
        since = [item for item in ratios if item not in grids]
        layers_outdated = [
            item for item in layers_outdated if item not in layers_hidden
        ]
        with _view_kept(self._viewer, layer):
            for item, name in product(grids, _GRID):
                setattr(item, name, grids[item][name])
            size = layer.scale[-2:] * gain_of(layer)
            for item in since:
                resize_pixels(item, size * ratios[item], layer.units[-2:])
        for item, facts in (errors | dict.fromkeys(since, errors[layer])).items():
            note_size_facts(item, facts)
        for item in (*layers_hidden, *layers_outdated):
            item.visible = item in layers_hidden
        self._show_changed([*grids, *since], before.pixel_size_nm, layers_outdated)

    def _show_changed(
        self,
        layers: Iterable[Layer],
        before: tuple[float, float] | None,
        layers_outdated: Sequence[Layer] = (),
    ) -> None:
        layer: Image
        layer, *others = (item for item in layers if isinstance(item, Image))
        self.layer.value = layer
        self._show_size(layer)
        show_scale_bar(self._viewer)
        self._panel.session.changed.emit()  # it has unsaved changes now
        now, mixed_note = self.pixel_size.value, mixed_text(self._viewer)
        names = ", ".join(item.name for item in others)
        along = f" Also applied to its results: {names}." if others else ""
        if layers_outdated:
            names = ", ".join(item.name for item in layers_outdated)
            along += f" Outdated and hidden, compute again: {names}."
        self._panel.show_status(
            f"{layer.name}: pixel size {format_pixel_size(before)} → "
            f"{format_pixel_size(now)}.{along}{mixed_note}"
        )

    def _show_undo(self, event: object = None) -> None:
        """Offer the undo while the layer exists."""
        if is_alive(self):
            there, history = self._viewer.layers, self._history
            self._sizes = [
                size
                for size in self._sizes[-_MAX_SIZES:]
                if size[0] in there or history.holds(size[0])
            ]
            self.undo_button.setEnabled(any(size[0] in there for size in self._sizes))

    def draw(self) -> None:
        """Add the layer to draw on, and select its line tool."""
        with self._panel.showing_errors():
            self._draw()

    def _draw(self) -> None:
        layer: Image = self.layer.value
        micrograph = micrograph_from_layer(layer)
        line = self._line_layer()
        linear, shift = placed_by(layer)
        units = layer.units[-2:]
        grid = {"units": units, "scale": np.diag(linear), "translate": shift}
        fit = fitted_as(layer)
        grid["affine"] = fit.get("affine", np.eye(3))
        if line is None:
            width = max(micrograph.shape) / 300
            line = draw_lines(self._viewer, _LINE_LAYER, width, **grid)
        elif self._owner_of(line) is not layer or not _lies_on(line, layer):
            line.data = []
            for name, value in grid.items():
                setattr(line, name, value)
        marks = {MARK_KEY: identity_of(layer), **fit.get("metadata", {})}
        line.metadata.update(marks)
        line.events.data.connect(self._show_length)
        self._show_length()
        self._viewer.layers.selection.active = line
        line.mode = "add_line"
        self._panel.show_status(
            "Drag over a known distance in the image, then type its length."
        )

    def find_bar(self) -> None:
        """Place the line over the scale bar that is printed in the layer."""
        with self._panel.showing_errors():
            layer = self.layer.value
            image, options = micrograph_from_layer(layer), CalibrateOptions(bar=True)
            make = partial(CALIBRATE.job, image, options=options)
            self._panel.start(
                make, partial(self._show_bar, layer), "Find the printed bar"
            )

    def _choose(self, layer: Layer) -> None:
        """Select the inspected layer again, if it still exists."""
        if layer not in self._viewer.layers:
            msg = "The layer was removed; open it again and calibrate it."
            raise OptionError(msg, code="layer-missing")
        self.layer.value = layer

    def _show_bar(self, layer: Layer, report: ScaleBarReport) -> None:
        """Draw the line from one end of the bar to the other."""
        self._choose(layer)
        self._draw()
        line: Shapes = self._line_layer()
        top, left, bottom, right = report.box
        y, x = (top + bottom - 1) / 2, (left + right - 1) / 2
        half = report.bar_px / 2
        line.add_lines(np.array([[y, x - half], [y, x + half]]))
        line.mode = "pan_zoom"
        self._panel.show_status(
            f"The printed bar is {report.bar_px:g} px long: check that the line is "
            "over it and type the length on its label, then press Set scale from "
            "line."
        )
        for part in (self.measure_button, self.distance.native):
            self._panel.scroll_area.ensureWidgetVisible(part)
        self.distance.native.setFocus()
        self.distance.native.selectAll()

    def measure_grating(self) -> None:
        """Measure the pixel size of the layer from its grating."""
        with self._panel.showing_errors():
            layer: Image = self.layer.value
            image = micrograph_from_layer(layer)
            if self.pitch.value <= 0:
                msg = "The grating's period must be above 0; type the true one in nm."
                raise OptionError(msg, code="out-of-range")
            options = CalibrateOptions(pitch_nm=self.pitch.value)
            make = partial(CALIBRATE.job, image, options=options)
            show = partial(self._show_grating, layer)
            self._panel.start(make, show, "Calibrate from a grating")

    def _show_grating(self, layer: Layer, report: CalibrationReport) -> None:
        """Set the pixel size of the layer, and report its error."""
        calibration = report.calibration
        self._choose(layer)
        how = f"from a grating with a period of {self.pitch.value:g} nm"
        self._calibrate(calibration.pixel_size_nm, calibration.pixel_size_sd_nm, how)
        lines = [f"{name}: {figure}" for name, figure in figures_of(report).items()]
        lines += report.warnings
        self._show_found(calibration, "\n".join(lines))

    def _show_found(self, calibration: Calibration | None, sentence: str = "") -> None:
        """Show the result of a grating, which can then be saved."""
        self._calibration = calibration
        self.grating.setText(sentence)
        self.save_button.setVisible(calibration is not None)

    def save(self) -> None:
        """Ask for a file name, and write the calibration."""
        calibration = self._calibration
        if calibration is not None:
            self._panel.save_file(
                "Save calibration",
                "calibration",
                _CALIBRATIONS,
                lambda path: write_calibration(path, calibration),
                "Saved {}; use it as Calibration in Stitch mosaic.",
            )

    def measure(self) -> None:
        """Compute the pixel size from the line and the known distance."""
        with self._panel.showing_errors():
            y, x = micrograph_from_layer(self.layer.value).scale
            line, layer = self._line_layer(), self.layer.value
            if line is not None and len(line.data) and isinstance(layer, Image):
                self._check_line(line, layer)
            length = line_length(line, (y, x))
            if self.distance.value <= 0:
                msg = "The known distance must be above 0; type the true length."
                raise OptionError(msg, code="out-of-range")
            true_nm = self.distance.value * _UNITS_NM[self.distance_unit.value]
            k = true_nm / length
            how = f"from a scale line of {true_nm:g} nm over "
            how += f"{line_length(line, (1, 1)):.1f} px"
            self._calibrate((y * k, x * k), how=how)

    def _check_line(self, line: Shapes, layer: Image) -> None:
        """Raise an error if a line may belong to another image."""
        if not _lies_on(line, layer):
            msg = "The line is on the grid of another layer; press Draw a line again."
            raise OptionError(msg, code="line-of-other-image")
        owner = self._owner_of(line)
        if owner is None:
            alike = [i for i in grey_layers(self._viewer) if _lies_on(line, i)]
            owner = layer if alike in ([], [layer]) else None
        if owner is None or owner is not layer:
            whose = "for no image" if owner is None else f"for {owner.name}"
            more = (
                "" if owner is None else f"select {owner.name} to calibrate that, or "
            )
            msg = (
                f"The line was drawn {whose} and cannot calibrate another: "
                f"{more}press Draw a line to draw one for {layer.name}."
            )
            raise OptionError(msg, code="line-of-other-image")
        ends = _last_line(line)
        most = layer.extent.data[1][-2:]
        if (ends < -1).any() or (ends > most + 1).any():
            msg = (
                f"The line ends outside {layer.name}: draw it from end to end of the "
                "known distance, within the image."
            )
            raise OptionError(msg, code="outside-image")
        cover = self._covering(line, layer)
        if cover is not None:
            msg = (
                f"The line was drawn for {layer.name}, but {cover.name} covers it "
                f"there: hide {cover.name} and check the line, or select {cover.name} "
                "and press Draw a line."
            )
            raise OptionError(msg, code="ambiguous")

    def _owner_of(self, line: Shapes) -> Image | None:
        """Return the image that a line was drawn for, if it is still open."""
        of = line.metadata.get(MARK_KEY)
        images = image_layers(self._viewer)
        return next((i for i in images if of and of == identity_of(i)), None)

    def _covering(self, line: Shapes, layer: Image) -> Image | None:
        """Return the image that hides another at a line, unless made from that."""
        viewer, dims = self._viewer, self._viewer.dims
        places = np.tile(np.array(dims.point, dtype=float), (2, 1))
        ends = np.array([line.data_to_world(end)[-2:] for end in _last_line(line)])
        places[:, -2:] = ends * to_shared_units(viewer, line)[-2:]
        own = [layer, *_made_of(viewer, layer)[0]]
        for item in reversed(grey_layers(viewer)):
            if item.visible and item in own:
                return None
            at = pixels_at(item, places, dims)[:, -2:]
            size = item.extent.data[1][-2:] + 0.5
            if item.visible and ((at > -0.5) & (at < size)).all():
                return item
        return None
