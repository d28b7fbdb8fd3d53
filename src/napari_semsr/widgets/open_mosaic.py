"""Open: inspect a file, correct its pixel size, crop its data bar, show it."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from magicgui.types import FileDialogMode
from magicgui.widgets import CheckBox, ComboBox, FileEdit, SpinBox
from napari.layers import Labels, Layer

from napari_semsr import core, io
from napari_semsr.jobs import INFO, StitchFolderOptions
from napari_semsr.widgets import base, calibrate, crop, stitch
from napari_semsr.widgets.layers import list_grey_layers, list_user_layers

_NOTHING = "Choose a file to see its shape and calibration."
_COUNTS = {"series": "series", "level": "levels"}
_AXES = {"channel": "c", "time": "t", "z": "z"}


def _describe_file(path: Path, opening: io.ReadOptions) -> core.Job[tuple[Any, bool]]:
    """Describe a file; also return whether only its luminance can be opened."""
    result = yield from INFO.job(path, opening=opening)
    shape, stored_shape = result.facts.get("shape"), result.facts.get("stored_shape")
    if not shape or len(stored_shape or ()) <= len(shape):
        return result, False
    try:
        with core.capture_warnings(lambda _: None):  # opening the file repeats them
            io.read(path, dataset=opening.dataset)
    except core.ReadError as error:
        # not a data bar's: crop that
        return result, core.get_error_code(error) == "colour-image"
    return result, False


def _describe_scan(path: Path) -> core.Job[tuple[core.Acquisition, dict[str, object]]]:
    """Read the metadata of a scan, and count its scenes and channels."""
    scenes, channels = io.count_scenes(path) if path.is_file() else (1, 1)
    of = StitchFolderOptions(channel=0 if channels > 1 else None)
    try:
        scan, _ = yield from stitch.inspect_scan(path, of)
    except core.ReadError as error:
        if scenes < 2 or core.get_error_code(error) != "frames-differ":
            raise
        of = of.model_copy(update={"series": 0})
        scan, _ = yield from stitch.inspect_scan(path, of)
    facts = {"series": scenes, "axes": {"c": channels}}
    return scan, facts | {"metadata": {io.SERIES_KEY: of.series}}


class OpenMosaicPanel(base.VerbPanel):
    """Panel that opens an image with its calibration, and calibrates open layers."""

    help_place = "first-steps.md#1-open-an-image"
    queue = None  # opening an image need not wait for computations

    title, run_label = "Open", "Open image"

    def build_form(self) -> None:
        """Build the form."""
        self.facts: dict[str, Any] = {}
        self._path_described: Path | None = None
        self._in_colour = False
        self.path = FileEdit(
            name="path",
            label="File",
            tooltip="Image, mosaic, store or CZI file to open, or a folder of frames.",
            mode=FileDialogMode.EXISTING_FILE,
        )
        text, tip = "Choose a store or folder…", "An OME-Zarr store or frames."
        choose = base.create_button(text, self._choose_folder, tip)
        self.about = base.RichTextLabel(_NOTHING)
        tip = "Image to open if the HDF5 file contains several."
        self.dataset = ComboBox(name="dataset", label="Dataset", tooltip=tip)
        text, tip = "Use its luminance", "Open a colour image as a grey one."
        self.luminance = CheckBox(name="luminance", text=text, tooltip=tip)
        self.form = base.OptionsForm(io.ReadOptions)
        self.form.show_row("colour", False)  # the tick box replaces it
        tip = "Pixel size stated by the file; correct it here if it is wrong."
        self.pixel_size = calibrate.PixelSizeEdit(tip)
        label, tip = "Data-bar rows", "Bottom rows to crop: the microscope's data bar."
        self.bar = SpinBox(name="bar", label=label, tooltip=tip, max=100_000)
        self.bar_note = base.RichTextLabel()
        tip = "Open the image without these rows, replacing its layer if it is open."
        text = "Crop these rows"
        self.bar_button = base.create_button(text, self.crop_data_bar, tip)
        self.bar_button.setVisible(False)
        self.shown_layer: Layer | None = None
        self._layer_outdated: Layer | None = None
        layer = self.input_layers.create_box(
            "layer", "Layer", "The layer to calibrate.", layers=self._list_layers
        )
        self.calibrate = calibrate.CalibrationControls(self, layer)
        self._coverage = stitch.Coverage(self, lambda: layer.value)
        self.coverage = self._coverage.tick
        self._which = base.Form(self.dataset, self.luminance)
        for name in ("dataset", "luminance"):
            self._which.show_row(name, False)
        self.add_group(
            "Image",
            base.Form(self.path, choose),
            *(self.about, self._which, self.form),
            base.Form(self.pixel_size, self.bar),
            *(self.bar_note, self.bar_button),
        )
        self.add_group("Calibrate a layer", self.calibrate)
        self.crop = crop.CropControls(self, layer)
        self.body.insertWidget(self.body.count() - 1, self.crop)
        self.over = self.add_group("Mosaic", self.coverage.native)
        self.add_results("Result")
        self._connect_controls()

    def _list_layers(self) -> list[Layer]:
        labels = list_user_layers(self.viewer, Labels)
        return [*labels, *list_grey_layers(self.viewer)]

    def _connect_controls(self) -> None:
        layer = self.calibrate.layer
        layer.changed.connect(self._show_coverage)
        layer.native.currentIndexChanged.connect(self._show_coverage)
        self.messages.translate = self._name_luminance
        self.path.changed.connect(self.inspect_file)
        self.dataset.changed.connect(self._inspect_dataset)
        self.bar.changed.connect(self._show_data_bar)
        self.luminance.changed.connect(self._set_luminance)
        self.input_layers.follow_active_layer(layer)
        self._update_index_rows({})
        self._show_coverage()

    def _show_coverage(self, _: object = None) -> None:
        """Offer to show a mosaic's coverage as an overlay, if available."""
        if base.is_alive(self):
            layer = self.calibrate.layer.value
            has_coverage = stitch.get_coverage_path(layer) is not None
            self.over.setVisible(has_coverage)
            if self.coverage.value and has_coverage:
                self._coverage.show()
            elif self.coverage.value:
                self.coverage.value = False

    def _choose_folder(self) -> None:
        if folder := base.ask_existing_folder(self, "Store or folder of frames"):
            self.path.value = folder

    # -- inspecting the file ----------------------------------------------

    def inspect_file(self, _: object = None) -> None:
        """Inspect the file, and show its description."""
        path = base.get_entered_path(self.path)
        self.facts, self._path_described, self.shown_layer = {}, None, None
        self._show_datasets({})
        self._clear_description()
        if path is None or not path.exists():
            text = _NOTHING if path is None else f"{path} does not exist."
            self.about.setText(text)
        elif io.is_scan(path):
            work, show = partial(_describe_scan, path), partial(self._show_scan, path)
            self.controls.start_inspection("Look into file", work, show)
        else:
            self._inspect_image(path)

    def _inspect_image(self, path: Path, dataset: str | None = None) -> None:
        """Inspect an image of a file, and show its description."""
        work = partial(_describe_file, path, io.ReadOptions(dataset=dataset))
        self.controls.start_inspection("Look into file", work, self._show_description)

    def _set_luminance(self, on: bool) -> None:
        """Apply the luminance tick box, and update the status."""
        self.form.set_values(colour="luminance" if on else "refuse")
        if self._path_described is not None:
            self._show_readiness()

    def _show_readiness(self) -> None:
        """Show whether the file can be opened with the current options."""
        name = "" if self._path_described is None else self._path_described.name
        sentence = f"{name} can be opened."
        if self._in_colour and not self.luminance.value:
            sentence = f"{name} is a colour image; tick 'Use its luminance' to open it."
        self.messages.show_status(sentence)

    def _name_luminance(self, text: str) -> str:
        """Replace an option name in a message with the label of its tick box."""
        option, label = "use its luminance (`colour=luminance`)", self.luminance.text
        return self.translate(text.replace(option, f"tick '{label}'"))

    def _clear_description(self) -> None:
        """Clear the description of the current image of a file."""
        self._in_colour = False
        self._which.show_row("luminance", False)
        self.luminance.value = False
        self.about.setText("")
        self.pixel_size.show_stated_size(None)
        self._update_index_rows({})
        self.bar.value = 0
        self.bar_note.setText("")
        self.bar_button.setVisible(False)

    def _inspect_dataset(self, name: str | None) -> None:
        """Inspect another dataset of the same file, and show its description."""
        if self._path_described is not None and name is not None:
            self._clear_description()
            self._inspect_image(self._path_described, name)

    def _show_datasets(self, facts: dict[str, Any]) -> None:
        metadata = facts.get("metadata") or {}
        names = list(metadata.get("datasets") or ())
        with self.dataset.changed.blocked():
            self.dataset.choices = names
            if names:
                self.dataset.value = metadata["dataset"]
        self._which.show_row("dataset", bool(names))

    def _show_description(self, facts_found: tuple[Any, bool]) -> None:
        description, self._in_colour = facts_found
        self._which.show_row("luminance", self._in_colour)
        facts = self.facts = dict(description.facts)
        self._path_described = Path(description.path)
        self._show_datasets(facts)
        size = core.parse_pixel_size(facts.get("pixel_size_nm"))
        self.pixel_size.show_stated_size(size)
        lines = [
            f"{core.format_shape(facts.get('shape') or ())}, {facts.get('dtype')}",
            f"Pixel size in the file: {core.format_pixel_size(size)}",
        ]
        if facts.get("vendor"):
            lines.append(f"Microscope: {facts['vendor']}")
        if bar_px := facts.get("suggested_bar_px"):
            lines.append(
                f"Found a printed scale bar of {bar_px:g} px. Once the image is open, "
                "use Calibrate a layer to draw a line along it."
            )
        self.about.setText("\n".join(lines))
        self._update_index_rows(facts)
        self.bar.value = int(facts.get("databar_rows") or 0)
        self._show_data_bar()
        self._show_readiness()

    def _show_scan(
        self, path: Path, scan: tuple[core.Acquisition, dict[str, object]]
    ) -> None:
        acquisition, counts = scan
        size = acquisition.pixel_size_nm
        self.pixel_size.show_stated_size(size)
        self.facts, self._path_described = {"pixel_size_nm": size, **counts}, path
        self.about.setText(stitch.describe_scan(acquisition))
        self._update_index_rows(self.facts)
        self.bar_note.setText("")
        self.messages.show_status(f"{path.name} can be opened.")

    def _update_index_rows(self, facts: dict[str, Any]) -> None:
        axes, metadata = facts.get("axes") or {}, facts.get("metadata") or {}
        counts = {name: facts.get(many) for name, many in _COUNTS.items()}
        counts |= {name: axes.get(axis) for name, axis in _AXES.items()}
        plane_sizes = (size for axis, size in axes.items() if axis.startswith("plane"))
        counts["plane"] = math.prod(plane_sizes)
        for name, count_stated in counts.items():
            count = int(count_stated or 1)
            self.form.get_widget(name).max = max(0, count - 1)
            if name != "level":
                first = metadata.get(io.SERIES_KEY, 0) if name == "series" else 0
                self.form.set_values(**{name: first if count > 1 else None})
            self.form.show_row(name, count > 1)

    def _show_data_bar(self, _: object = None) -> None:
        """Show information about the data bar, and offer to crop a likely one."""
        rows, guess = int(self.bar.value), self.facts.get("suggested_databar_rows")
        text = "" if rows else "No data bar was found."
        if self.facts.get("databar_rows"):
            text = "The data bar is stated by the file; correct its height if wrong."
        elif guess and not rows:
            text = f"The bottom {guess} rows look like a data bar."
        self.bar_note.setText(text)
        self.bar_button.setVisible(bool(guess) and not rows)

    def crop_data_bar(self) -> None:
        """Crop the rows that look like a data bar; if the image is open, reopen it."""
        self.bar.value = self.facts["suggested_databar_rows"]
        if self.shown_layer in self.viewer.layers:
            self._layer_outdated = self.shown_layer
            self.run()
        else:
            self.messages.show_status("These rows will be cropped; press Open image.")

    def focus_pixel_size(self, layer: Layer) -> None:
        """Move the focus to the pixel-size boxes for a layer."""
        self.calibrate.layer.value = layer
        self.scroll_area.ensureWidgetVisible(self.calibrate.apply_button)
        self.calibrate.pixel_size.height_box.native.setFocus()
        self.calibrate.pixel_size.height_box.native.selectAll()

    # -- opening ---------------------------------------------------------------

    def create_options(self) -> io.ReadOptions:
        """Create the reading options from the form.

        The options are validated; they have a pixel size only if it differs from the
        file's.
        """
        rows = int(self.bar.value)
        databar_rows = int(self.facts.get("databar_rows") or 0)
        return self.form.create_options(
            pixel_size_nm=self._get_corrected_pixel_size(),
            databar_rows=None if rows == databar_rows else rows,
            dataset=self.dataset.value,
        )

    def _get_corrected_pixel_size(self) -> core.PixelSize | None:
        """Return the entered pixel size; None if it equals the file's."""
        size, stated = self.pixel_size.value, self.facts.get("pixel_size_nm")
        # the boxes round to six decimals, which must not replace the file's digits
        same = size and stated and np.allclose(size, stated, rtol=1e-5, atol=0)
        return None if same else size

    def create_request(self) -> base.JobRequest:
        """Return the request of the job that opens the file, and calls no command."""
        layer_outdated, self._layer_outdated = self._layer_outdated, None
        path = base.get_entered_path(self.path)
        if path is None:
            msg = f"Choose an image under {self.path.label}."
            raise core.OptionError(msg, code="missing-value")
        if path != self._path_described:
            self.facts = {}
        if io.is_scan(path):
            choice = self.form.create_options()
            of = StitchFolderOptions(
                pixel_size_nm=self._get_corrected_pixel_size(),
                series=choice.series,
                channel=choice.channel,
            )
            make = partial(stitch.create_frame_layers, path, of)
            return base.JobRequest(make, self._show_frames)
        options, levels = self.create_options(), int(self.facts.get("levels") or 1)
        show = partial(self.show_image, layer_outdated=layer_outdated)
        make_image = partial(base.open_image_levels, path, options, levels=levels)
        return base.JobRequest(make_image, show)

    def _show_frames(self, layers: list[Any]) -> None:
        sentence = stitch.add_frame_layers(self.viewer, layers)
        self.messages.show_status(f"{sentence} Use Stitch to join them.")

    def show_image(
        self, opened_store: base.OpenedImage, layer_outdated: Layer | None = None
    ) -> None:
        """Add the opened image as a layer, replacing an outdated one."""
        is_renewed = layer_outdated in self.viewer.layers
        self.history.remove_layers([layer_outdated])
        name = opened_store.micrograph.name
        if opened_store.path is not None:
            name = io.get_display_name(opened_store.path, name)
        self.shown_layer = base.add_opened_image(self.viewer, opened_store, name=name)
        if not is_renewed:
            base.fit_view_to_image(self.viewer, self.shown_layer)
        guess = self.facts.get("suggested_databar_rows")
        if guess and not opened_store.options.databar_rows:
            # of level 0
            share = opened_store.micrograph.shape[0] / self.facts["shape"][0]
            # other panels offer to crop these rows
            self.shown_layer.metadata[io.ROWS_KEY] = round(guess * share)
        if self.shown_layer in self.calibrate.layer.choices:  # maps are not calibrated
            self.calibrate.layer.value = self.shown_layer
        shape = core.format_shape(opened_store.micrograph.shape)
        size = core.format_pixel_size(opened_store.micrograph.pixel_size_nm)
        note = calibrate.explain_missing_scale_bar(self.viewer)
        sentence = f"Opened {name}: {shape}, pixel size {size}.{note}"
        self.messages.show_status(sentence)
