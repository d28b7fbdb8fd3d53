"""Pixel size of a layer: typed in, from a line of known length, or from a grating."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import product

import numpy as np
from magicgui.widgets import ComboBox, FloatSpinBox
from napari.layers import Image, Labels, Layer, Shapes
from napari.viewer import Viewer
from numpy.typing import NDArray
from psygnal import Signal
from qtpy.QtWidgets import QWidget

from napari_semsr import core
from napari_semsr.analysis import CalibrateOptions
from napari_semsr.io import HELPER_KEY, write_calibration
from napari_semsr.jobs import CALIBRATE, CalibrationReport, ScaleBarReport
from napari_semsr.widgets import base, host, layers

_UNITS_NM = {"pm": 1e-3, "Å": 0.1, "nm": 1.0, "µm": 1e3, "mm": 1e6}
"""Nanometres per unit."""
_DECIMALS = 6  # of a pixel size; chosen
PLUS_MINUS = "\N{PLUS-MINUS SIGN}"
_GRATING = "Calibrate from a grating"
_CALIBRATIONS = {"Calibration (*.json)": ".json"}


def _create_number_box(
    name: str, tooltip: str, label: str = "", step: float = 1.0
) -> FloatSpinBox:
    """Create a box of a length; 0 is unknown."""
    box = FloatSpinBox(
        name=name, label=label, tooltip=tooltip, value=0.0, min=0.0, max=1e9, step=step
    )
    box.native.setDecimals(_DECIMALS)
    base.hide_trailing_zeros(box.native)
    return box


class PixelSizeEdit(QWidget):
    """Controls for a pixel size; zero means unknown.

    Changing the unit keeps the numbers, which corrects a wrong unit.
    """

    changed = Signal()

    def __init__(self, tooltip: str = "") -> None:
        super().__init__()
        self.name, self.label, self.tooltip = "pixel_size_nm", "Pixel size", tooltip
        self.height_box, self.width_box = (
            _create_number_box(name, f"{what} of a pixel; 0 if unknown.", step=0.1)
            for name, what in (("y", "Height"), ("x", "Width"))
        )
        for box in (self.height_box, self.width_box):
            base.accept_decimal_separators(box.native)
            box.native.setPrefix(f"{box.name} ")
            box.native.setSpecialValueText(f"{box.name} unknown")
            box.native.setButtonSymbols(box.native.ButtonSymbols.NoButtons)
        tip, units = "Unit of both values, which it does not convert.", list(_UNITS_NM)
        self.unit_box = ComboBox(name="unit", tooltip=tip, choices=units, value="nm")
        self._size_stated: core.PixelSize | None = None
        self.note = base.RichTextLabel()
        boxes = (self.height_box, self.width_box, self.unit_box)
        base.stack_widgets(
            self, base.WrappingRow(*(box.native for box in boxes)), self.note
        )
        self._are_linked = True
        self.height_box.changed.connect(self._on_height_changed)
        self.width_box.changed.connect(self._on_width_changed)
        self.unit_box.changed.connect(self._on_change)
        self._on_change()

    @property
    def value(self) -> core.PixelSize | None:
        """Pixel size ``(y, x)`` in nm, or None if either value is zero."""
        k = _UNITS_NM[self.unit_box.value]
        if self.height_box.value <= 0 or self.width_box.value <= 0:
            return None
        return core.parse_pixel_size(
            (self.height_box.value * k, self.width_box.value * k)
        )

    @value.setter
    def value(self, size: tuple[float, float] | None) -> None:
        self._are_linked = size is None or math.isclose(*size, rel_tol=1e-6)
        unit = "nm"
        if size is not None:
            unit = "µm" if min(size) >= 1e3 else "nm" if max(size) >= 0.1 else "pm"
        numbers = [round(n / _UNITS_NM[unit], _DECIMALS) for n in size or (0.0, 0.0)]
        controls = (self.height_box, self.width_box, self.unit_box)
        for control, value_shown in zip(controls, (*numbers, unit), strict=True):
            if control.value != value_shown:  # else Qt shows all decimals
                with control.changed.blocked():
                    control.value = value_shown
        self._on_change()

    def show_stated_size(self, size: core.PixelSize | None) -> None:
        """Show a size that is also used if no other one is entered."""
        self._size_stated = size
        self.value = size

    def _on_height_changed(self, value: float) -> None:
        if self._are_linked and self.width_box.value != value:
            self.width_box.value = value
            return
        self._on_change()

    def _on_width_changed(self, value: float) -> None:
        self._are_linked = self.height_box.value == value
        self._on_change()

    def _on_change(self) -> None:
        size, text = self.value, "Pixel size unknown: results are in pixels."
        if size:
            text = f"= {core.format_pixel_size(size)} per pixel"
        elif self._size_stated:
            usual = core.format_pixel_size(self._size_stated)
            text = f"No other size entered: the stated one is used, {usual} per pixel."
        self.note.setText(text)
        self.changed.emit()


_LINE_LAYER = "Scale line"
_GRID = ("units", "scale", "translate", "affine")
_Facts = dict[Layer, dict[str, object]]
_FormerSize = tuple[Image, _Facts, _Facts, Sequence[Layer]]
"""Calibrated layer, previous grids and pixel-size metadata, and layers that were
hidden.
"""
_MAX_SIZES = 10  # chosen: older sizes are forgotten, as each keeps its layers alive


def _get_displayed_grid(viewer: Viewer, layer: Layer) -> NDArray[np.float64]:
    """Return the scale and translation of a layer in the viewer's common unit."""
    linear, shift = layers.get_display_transform(layer)
    grid = np.array([np.diag(linear), shift])
    return grid * layers.get_unit_factors(viewer, layer)[-2:]


@contextmanager
def _keep_view(viewer: Viewer, layer: Layer) -> Iterator[None]:
    """Keep the same pixels of a layer in view while its grid changes."""
    old, start = _get_displayed_grid(viewer, layer)
    camera = host.get_camera(viewer)
    center, zoom = camera.center, camera.zoom
    yield
    new, corner = _get_displayed_grid(viewer, layer)
    place = corner + (np.array(center[-2:]) - start) * new / old
    camera.center = (*center[:-2], *place)
    camera.zoom = zoom * math.sqrt(np.prod(old / new))


def explain_missing_scale_bar(viewer: Viewer) -> str:
    """Explain why the scale bar is missing, if layers have no common unit."""
    if not layers.have_mixed_units(viewer):
        return ""
    images = reversed(layers.list_grey_layers(viewer))
    bare = (item.name for item in images if not layers.is_calibrated(item))
    whose = next(bare, "another layer")
    return (
        f" There is no scale bar, since {whose} has no pixel size but others do: it "
        "is shown at the size of the field in view. Set it under Calibrate a layer, "
        "or remove that layer."
    )


def measure_line_length(line: Shapes | None, size: tuple[float, float]) -> float:
    """Return the length of the last line of a Shapes layer.

    `line`: its last shape is a line; vertices are in pixels of the image below.
    """
    start, end = _get_last_line(line)
    length = math.hypot(*((end - start) * np.asarray(size)))
    if length <= 0:
        msg = "The line has zero length; draw it again."
        raise core.OptionError(msg, code="line-without-length")
    return length


def _get_last_line(line: Shapes | None) -> NDArray[np.float64]:
    """Return both ends ``(y, x)`` of the last line of a Shapes layer, (2, 2)."""
    shapes = [] if line is None else line.data
    lines = [np.asarray(d, dtype=float)[:, -2:] for d in shapes if len(d) == 2]
    if not lines:
        msg = "No line is drawn over the known distance; press Draw a line."
        raise core.OptionError(msg, code="line-missing")
    return lines[-1]


def _have_same_pixel_grid(item: Layer, layer: Layer) -> bool:
    """Return whether two layers share a pixel grid."""
    one, other = (
        np.vstack(layers.get_display_transform(i)) * layers.get_nm_scale(i)
        for i in (item, layer)
    )
    alike = layers.is_calibrated(item) == layers.is_calibrated(layer)
    return alike and np.allclose(one, other)


def _find_dependent_layers(viewer: Viewer, image: Image) -> list[Layer]:
    """Return the helper and annotation layers that belong to an image.

    If they name no open image, return all layers on its pixel grid.
    """
    own = base.find_helper_layers(viewer, image)
    names = {item.name for item in viewer.layers}
    names |= {layers.get_identity(item) for item in viewer.layers}
    found = []
    for item in viewer.layers:
        of = item.metadata.get(layers.MARK_KEY)
        if of in names:
            alike = layers.is_calibrated(item) == layers.is_calibrated(image)
            lies = of in (image.name, layers.get_identity(image)) and alike
            lies = lies and np.allclose(
                layers.get_layer_pixel_size(item), layers.get_layer_pixel_size(image)
            )
        else:
            helps = item in own or of or item.metadata.get(HELPER_KEY)
            lies = bool(helps) and _have_same_pixel_grid(item, image)
        found += [item] if lies else []
    return found


def _find_derived_images(
    viewer: Viewer, source: Image
) -> tuple[list[Image], list[Image]]:
    """Return the images derived from another image that share its pixel grid.

    A registered image has the grid of another. Maps of lengths in the earlier
    pixel size are returned separately, for either input.
    """
    own, layers_found, layers_outdated = layers.get_provenance(source), [], []
    path = layers.get_file_path(source)  # identifies layers that are read from files
    identities = layers.get_identity(source), path and (source.name, path)
    for layer in layers.list_image_layers(viewer):
        history = layers.get_provenance(layer)
        steps = () if history is None else tuple(history.steps())
        lengths = history is not None and history.depends_on_pixel_size
        sources = layer.metadata.get(layers.SOURCES_KEY, {})
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
        if layers.is_calibrated(layer) != layers.is_calibrated(source):
            continue
        one, other = map(layers.get_layer_pixel_size, (layer, source))
        shapes = [np.array(item.extent.data[1][-2:]) + 1 for item in (layer, source)]
        if np.allclose(one, other) or np.allclose(one * shapes[0], other * shapes[1]):
            layers_found.append(layer)
    return layers_found, layers_outdated


class CalibrationControls(base.Form):
    """Controls that calibrate an open layer."""

    def __init__(self, panel: base.VerbPanel, layer: ComboBox) -> None:
        super().__init__()
        self._panel, self.layer = panel, layer
        viewer = self._viewer = panel.viewer
        self._calibration: core.Calibration | None = None
        self._history = base.get_removed_layers(viewer)
        self._sizes: list[_FormerSize] = []
        tip = "Pixel size of the layer, in nm; all lengths are computed from it."
        self.pixel_size = PixelSizeEdit(tip)
        tip, apply = "Set the pixel size of the layer to it.", self.apply_typed_size
        self.apply_button = base.create_button("Apply pixel size", apply, tip)
        tip = "Restore the previous pixel size."
        self.undo_button = base.create_button("Undo", self.undo, tip)
        self._build_line_controls()
        self._build_grating_controls()
        for row in (
            *(layer, self.pixel_size, self.apply_button, self.draw_button),
            *(self.bar_button, self.length, self.distance, self.distance_unit),
            *(self.measure_button, self.pitch, self.grating_button, self.grating),
            *(self.save_button, self.undo_button),
        ):
            self.add_row(row)
        self._history.changed.connect(self._update_undo_button)
        viewer.layers.events.inserted.connect(self._update_undo_button)
        self._update_undo_button()
        layer.changed.connect(self._show_pixel_size)
        self._show_pixel_size(layer.value)

    def _build_line_controls(self) -> None:
        create, units = base.create_button, list(_UNITS_NM)
        tip = "True length of the drawn line, for example of the scale bar."
        self.distance = _create_number_box("distance", tip, "Known distance")
        tip = "Unit of the known distance."
        self.distance_unit = ComboBox(
            name="distance_unit", label="in", tooltip=tip, choices=units, value="nm"
        )
        self.length = base.RichTextLabel()
        tip = "Add a Shapes layer: drag from one end of the distance to the other"
        self.draw_button = create("Draw a line", self.start_drawing, tip)
        tip = "Place the line over the printed scale bar; then enter its known length."
        self.bar_button = create("Find the printed bar", self.find_bar, tip)
        tip = "Pixel size = known distance / length of the last line drawn."
        self.measure_button = create(
            "Set scale from line", self.set_scale_from_line, tip
        )

    def _build_grating_controls(self) -> None:
        tip = "Known period of lines, or of dots on a square or hexagonal lattice."
        self.pitch = _create_number_box("pitch", tip, "Grating period (nm)", 10)
        tip = (
            "Measure pixel size, skew and distortion from a grating over all the layer."
        )
        self.grating_button = base.create_button(_GRATING, self.measure_grating, tip)
        self.grating = base.RichTextLabel()
        tip = "Save pixel size, skew and distortion with their errors, for Stitch."
        text, save = "Save calibration…", self.save_calibration
        self.save_button = base.create_button(text, save, tip)

    def _show_pixel_size(self, layer: Image | None) -> None:
        try:
            size = layers.micrograph_from_layer(layer).pixel_size_nm
        except core.SemsrError:  # which measuring reports
            size = None
        self.pixel_size.value = size
        self._show_grating_result(None)
        self._show_line_length()

    def _show_line_length(self, event: object = None) -> None:
        """Show the last line's length; the line layer holds this method weakly."""
        if not base.is_alive(self):
            return
        line, size, text = self._find_line_layer(), self.pixel_size.value, ""
        of = None if line is None else self._find_line_image(line)
        line = line if of in (None, self.layer.value) else None
        with suppress(core.OptionError):  # not a line yet
            text = f"The line is {measure_line_length(line, (1, 1)):.1f} px long"
            if size:
                nm = core.format_number(measure_line_length(line, size), ".5g")
                text += f", {nm} nm"
        self.length.setText(text)

    def _find_line_layer(self) -> Shapes | None:
        """Return the line layer of the selected image, or the topmost one."""
        lines = [
            item
            for item in reversed(list(self._viewer.layers))
            if isinstance(item, Shapes) and item.name.startswith(_LINE_LAYER)
        ]
        wanted = self.layer.value
        own = (i for i in lines if self._find_line_image(i) is wanted)
        first = next(iter(lines), None)
        return first if wanted is None else next(own, first)

    def apply_typed_size(self) -> None:
        """Set the pixel size of the selected layer to the entered value."""
        with self._panel.messages.show_errors():
            if self.pixel_size.value is None:
                msg = "Enter a pixel size first; both values must be greater than zero."
                raise core.OptionError(msg, code="missing-value")
            self._calibrate_pixel_size(self.pixel_size.value)

    def _calibrate_pixel_size(
        self,
        size: tuple[float, float],
        error: tuple[float, float] | None = None,
        how: str = layers.TYPED_SIZE,
    ) -> None:
        layer, origin = self.layer.value, core.create_size_source(how, size)
        before = layers.micrograph_from_layer(layer, row=self.layer.label)
        ratios, layers_outdated = self._find_affected_layers(layer)
        base.check_layers_unused(ratios)
        old = {item: {name: getattr(item, name) for name in _GRID} for item in ratios}
        errors = {item: layers.get_pixel_size_metadata(item) for item in ratios}
        layers_hidden = [item for item in layers_outdated if item.visible]
        self._sizes.append((layer, old, errors, layers_hidden))
        self._update_undo_button()
        with _keep_view(self._viewer, layer):
            for item, ratio in ratios.items():
                share = None if error is None else np.array(error) * ratio
                new_size = np.array(size) * ratio
                layers.apply_pixel_size(item, new_size, share, origin=origin)
        for item in layers_outdated:
            item.visible = False
        self._show_changed_layers(ratios, before.pixel_size_nm, layers_outdated)

    def _find_affected_layers(
        self, layer: Image
    ) -> tuple[dict[Layer, NDArray[np.float64]], list[Image]]:
        """Return the layers affected by a new pixel size, with pixel-size ratios.

        `layer` is first; layers that become outdated are returned separately.
        """
        line = self._find_line_layer()
        layers_made, layers_outdated = _find_derived_images(self._viewer, layer)
        ratios: dict[Layer, NDArray[np.float64]] = {}
        for one in (layer, *layers_made):
            lying = _find_dependent_layers(self._viewer, one)
            free = line is not None and self._find_line_image(line) is None
            if free and one is layer and _have_same_pixel_grid(line, one):
                lying.append(line)
            ratios |= dict.fromkeys(
                (one, *lying),
                layers.get_layer_pixel_size(one) / layers.get_layer_pixel_size(layer),
            )
        return ratios, layers_outdated

    def undo(self) -> None:
        """Undo the last pixel-size change."""
        with self._panel.messages.show_errors():
            there = self._viewer.layers
            at = [n for n, size in enumerate(self._sizes) if size[0] in there]
            if at:
                self._restore_pixel_sizes(*self._sizes[at[-1]])
                del self._sizes[at[-1]]
                self._update_undo_button()

    def _restore_pixel_sizes(
        self,
        layer: Image,
        grids: _Facts,
        errors: _Facts,
        layers_hidden: Sequence[Layer],
    ) -> None:
        """Restore the layer grids from before a pixel-size change of `layer`.

        Later results change with it or become outdated; `layers_hidden` are not
        outdated any more.
        """
        before = layers.micrograph_from_layer(layer)
        ratios, layers_outdated = self._find_affected_layers(layer)
        base.check_layers_unused([*grids, *ratios])
        since = [item for item in ratios if item not in grids]
        layers_outdated = [i for i in layers_outdated if i not in layers_hidden]
        with _keep_view(self._viewer, layer):
            for item, name in product(grids, _GRID):
                setattr(item, name, grids[item][name])
            size = layer.scale[-2:] * layers.get_enlargement_factors(layer)
            for item in since:
                layers.resize_pixels(item, size * ratios[item], layer.units[-2:])
        for item, facts in (errors | dict.fromkeys(since, errors[layer])).items():
            layers.record_pixel_size_metadata(item, facts)
        for item in (*layers_hidden, *layers_outdated):
            item.visible = item in layers_hidden
        self._show_changed_layers(
            [*grids, *since], before.pixel_size_nm, layers_outdated
        )

    def _show_changed_layers(
        self,
        changed: Iterable[Layer],
        before: tuple[float, float] | None,
        layers_outdated: Sequence[Layer] = (),
    ) -> None:
        layer: Image
        layer, *others = (item for item in changed if isinstance(item, Image | Labels))
        self.layer.value = layer
        self._show_pixel_size(layer)
        layers.show_scale_bar(self._viewer)
        self._panel.session.changed.emit()  # it has unsaved changes now
        now, mixed_note = self.pixel_size.value, explain_missing_scale_bar(self._viewer)
        names = ", ".join(item.name for item in others)
        along = f" Also applied to its results: {names}." if others else ""
        if layers_outdated:
            names = ", ".join(item.name for item in layers_outdated)
            along += f" Outdated and hidden, compute again: {names}."
        self._panel.messages.show_status(
            f"{layer.name}: pixel size {core.format_pixel_size(before)} → "
            f"{core.format_pixel_size(now)}.{along}{mixed_note}"
        )

    def _update_undo_button(self, event: object = None) -> None:
        """Enable Undo while a recalibrated layer exists."""
        if base.is_alive(self):
            there, history = self._viewer.layers, self._history
            self._sizes = [
                size
                for size in self._sizes[-_MAX_SIZES:]
                if size[0] in there or history.can_restore(size[0])
            ]
            self.undo_button.setEnabled(any(size[0] in there for size in self._sizes))

    def start_drawing(self) -> None:
        """Add the line layer if needed, and select its line tool."""
        with self._panel.messages.show_errors():
            self._select_line_tool()

    def _select_line_tool(self) -> None:
        layer: Image = self.layer.value
        micrograph = layers.micrograph_from_layer(layer, row=self.layer.label)
        line = self._find_line_layer()
        linear, shift = layers.get_pixel_transform(layer)
        units = layer.units[-2:]
        grid = {"units": units, "scale": np.diag(linear), "translate": shift}
        fit = layers.create_display_fit_keywords(layer)
        grid["affine"] = fit.get("affine", np.eye(3))
        if line is None:
            width = max(micrograph.shape) / 300
            line = layers.add_line_layer(self._viewer, _LINE_LAYER, width, **grid)
        elif not (
            self._find_line_image(line) is layer and _have_same_pixel_grid(line, layer)
        ):
            line.data = []
            for name, value in grid.items():
                setattr(line, name, value)
        marks = {layers.MARK_KEY: layers.get_identity(layer), **fit.get("metadata", {})}
        line.metadata.update(marks)
        line.events.data.connect(self._show_line_length)
        self._show_line_length()
        self._viewer.layers.selection.active = line
        line.mode = "add_line"
        self._panel.messages.show_status(
            "Drag along a known distance in the image, then enter its length."
        )

    def find_bar(self) -> None:
        """Place the line over the scale bar printed in the image."""
        options = CalibrateOptions(bar=True)
        self._start(options, self._draw_scale_bar_line, "Find the printed bar")

    def _start(
        self, options: CalibrateOptions, show: Callable[..., None], title: str
    ) -> None:
        """Start the command on the layer, which `show` receives with its report."""
        with self._panel.messages.show_errors():
            layer = self.layer.value
            image = layers.micrograph_from_layer(layer, row=self.layer.label)
            make = partial(CALIBRATE.job, image, options=options)
            self._panel.messages.clear_warnings()
            self._panel.controls.start(make, partial(show, layer), title)

    def _select_layer(self, layer: Layer) -> None:
        """Reselect the inspected layer; raise an error if it was removed."""
        if layer not in self._viewer.layers:
            msg = "The layer was removed; open it again and calibrate it."
            raise core.OptionError(msg, code="layer-missing")
        self.layer.value = layer

    def _draw_scale_bar_line(self, layer: Layer, report: ScaleBarReport) -> None:
        """Draw the line from one end of the bar to the other."""
        self._select_layer(layer)
        self._select_line_tool()
        line: Shapes = self._find_line_layer()
        top, left, bottom, right = report.box
        y, x = (top + bottom - 1) / 2, (left + right - 1) / 2
        half = report.bar_px / 2
        line.add_lines(np.array([[y, x - half], [y, x + half]]))
        line.mode = "pan_zoom"
        self._panel.messages.show_status(
            f"The printed bar is {report.bar_px:g} px long. Check that the line covers "
            "it, enter the length on its label, and press Set scale from line."
        )
        for part in (self.measure_button, self.distance.native):
            self._panel.scroll_area.ensureWidgetVisible(part)
        self.distance.native.setFocus()
        self.distance.native.selectAll()

    def measure_grating(self) -> None:
        """Measure the pixel size of the layer from its grating."""
        with self._panel.messages.show_errors():
            if self.pitch.value <= 0:
                msg = "The grating period must exceed 0; enter the true one in nm."
                raise core.OptionError(msg, code="out-of-range")
            options = CalibrateOptions(pitch_nm=self.pitch.value)
            self._start(options, self._apply_grating_calibration, _GRATING)

    def _apply_grating_calibration(
        self, layer: Layer, report: CalibrationReport
    ) -> None:
        """Set the pixel size of the layer, and report its error."""
        calibration = report.calibration
        self._select_layer(layer)
        how = f"from a grating with a period of {self.pitch.value:g} nm"
        size, sd = calibration.pixel_size_nm, calibration.pixel_size_sd_nm
        self._calibrate_pixel_size(size, sd, how)
        figures = core.get_figures(report).items()
        lines = [f"{name}: {figure}" for name, figure in figures]
        lines += report.warnings
        self._show_grating_result(calibration, "\n".join(lines))

    def _show_grating_result(
        self, calibration: core.Calibration | None, sentence: str = ""
    ) -> None:
        """Show the result of a grating calibration, and offer to save it."""
        self._calibration = calibration
        self.grating.setText(sentence)
        self.save_button.setVisible(calibration is not None)

    def save_calibration(self) -> None:
        """Ask for a file name, and write the calibration."""
        calibration = self._calibration
        if calibration is not None:
            write = partial(write_calibration, calibration=calibration)
            sentence = "Saved {}; use it as Calibration in Stitch."
            about = "Save calibration", "calibration", _CALIBRATIONS
            self._panel.sharing.save_file(*about, write, sentence)

    def set_scale_from_line(self) -> None:
        """Compute the pixel size from the line and the known distance."""
        with self._panel.messages.show_errors():
            y, x = layers.micrograph_from_layer(self.layer.value).scale
            line, layer = self._find_line_layer(), self.layer.value
            if line is not None and len(line.data) and isinstance(layer, Image):
                self._check_line_image(line, layer)
            length = measure_line_length(line, (y, x))
            if self.distance.value <= 0:
                msg = "The known distance must exceed 0; enter the true length."
                raise core.OptionError(msg, code="out-of-range")
            true_nm = self.distance.value * _UNITS_NM[self.distance_unit.value]
            k = true_nm / length
            how = f"from a scale line of {true_nm:g} nm over "
            how += f"{measure_line_length(line, (1, 1)):.1f} px"
            self._calibrate_pixel_size((y * k, x * k), how=how)

    def _check_line_image(self, line: Shapes, layer: Image) -> None:
        """Raise an error if a line may belong to another image."""
        if not _have_same_pixel_grid(line, layer):
            msg = "The line is on the grid of another layer; press Draw a line again."
            raise core.OptionError(msg, code="line-of-other-image")
        owner = self._find_line_image(line)
        if owner is None:
            images = layers.list_grey_layers(self._viewer)
            alike = [i for i in images if _have_same_pixel_grid(line, i)]
            owner = layer if alike in ([], [layer]) else None
        if owner is None or owner is not layer:
            whose = "for no image" if owner is None else f"for {owner.name}"
            more = "" if owner is None else f"select {owner.name} to calibrate it, or "
            msg = (
                f"The line was drawn {whose} and cannot calibrate another image: "
                f"{more}press Draw a line to draw one for {layer.name}."
            )
            raise core.OptionError(msg, code="line-of-other-image")
        ends = _get_last_line(line)
        most = layer.extent.data[1][-2:]
        if (ends < -1).any() or (ends > most + 1).any():
            msg = (
                f"The line extends beyond {layer.name}; draw it along the whole known "
                "distance, within the image."
            )
            raise core.OptionError(msg, code="outside-image")
        cover = self._find_covering_image(line, layer)
        if cover is not None:
            msg = (
                f"The line was drawn for {layer.name}, but {cover.name} covers that "
                f"area: hide {cover.name} and check the line, or select {cover.name} "
                "and press Draw a line."
            )
            raise core.OptionError(msg, code="ambiguous")

    def _find_line_image(self, line: Shapes) -> Image | None:
        """Return the image for which a line was drawn, if it is still open."""
        of = line.metadata.get(layers.MARK_KEY)
        images = layers.list_image_layers(self._viewer)
        return next((i for i in images if of and of == layers.get_identity(i)), None)

    def _find_covering_image(self, line: Shapes, layer: Image) -> Image | None:
        """Return an unrelated image that covers an image at the line, if any."""
        viewer, dims = self._viewer, self._viewer.dims
        places = np.tile(np.array(dims.point, dtype=float), (2, 1))
        ends = np.array([line.data_to_world(end)[-2:] for end in _get_last_line(line)])
        places[:, -2:] = ends * layers.get_unit_factors(viewer, line)[-2:]
        own = [layer, *_find_derived_images(viewer, layer)[0]]
        for item in reversed(layers.list_grey_layers(viewer)):
            if item.visible and item in own:
                return None
            at = layers.world_to_pixels(item, places, dims)[:, -2:]
            size = item.extent.data[1][-2:] + 0.5
            if item.visible and ((at > -0.5) & (at < size)).all():
                return item
        return None
