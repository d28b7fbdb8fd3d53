"""Open mosaic: look into a file, correct its pixel size, crop its bar, show it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.types import FileDialogMode
from magicgui.widgets import FileEdit, SpinBox
from qtpy.QtWidgets import QFileDialog

from napari_semsr.core import OptionError
from napari_semsr.io import ReadOptions
from napari_semsr.jobs import describe_job
from napari_semsr.widgets.base import (
    TIMES,
    Form,
    Note,
    Opened,
    OptionsForm,
    Panel,
    Row,
    Work,
    add_opened,
    open_levels,
    push_button,
)
from napari_semsr.widgets.calibrate import CalibrateGroup, PixelSizeEdit, format_nm

if TYPE_CHECKING:
    import napari.viewer

_ROWS = {
    "series": Row("Series", "Image of a file that holds several; the first is 0."),
    "level": Row("Level", "Level of a pyramid; 0 is full size, shown with the rest."),
    "channel": Row("Channel", "Channel to open; the first is 0."),
    "plane": Row("Plane", "Plane of a stack or time series; the first is 0."),
    "colour": Row(
        "Colour image",
        "What to do with a file whose channels really differ.",
        {"refuse it": "refuse", "take its luminance": "luminance"},
    ),
}
_COUNTS = {
    "series": "series",
    "level": "levels",
    "channel": "channels",
    "plane": "planes",
}


class OpenMosaicPanel(Panel):
    """Opens an image with its calibration, and corrects that of open layers."""

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__(viewer, "Open mosaic", "Open")
        self.facts: dict[str, Any] = {}
        self._described: Path | None = None
        self.path = FileEdit(
            name="path",
            label="File",
            tooltip="Image, mosaic or store to open.",
            mode=FileDialogMode.EXISTING_FILE,
        )
        choose = push_button(
            "Choose a store or folder …",
            self._choose_folder,
            "For an OME-Zarr store or a folder of frames.",
        )
        self.about = Note("Choose a file to see what it says about itself.")
        self.form = OptionsForm(ReadOptions, _ROWS)
        self.pixel_size = PixelSizeEdit("As the file says; correct it here.")
        self.bar = SpinBox(
            name="bar",
            label="Data-bar rows",
            tooltip="Rows cut off at the bottom, where the microscope printed its "
            "text.",
            value=0,
            min=0,
            max=100_000,
        )
        self.bar_note = Note()
        layer = self.new_layer_box("layer", "Layer", "The layer to calibrate.")
        self.calibrate = CalibrateGroup(viewer, layer, self.show_status, self.told)
        where, how = Form(self.path, choose), Form(self.pixel_size, self.bar)
        self.add_group("Image", where, self.about, self.form, how, self.bar_note)
        self.add_group("Calibrate a layer", self.calibrate)
        for name in _COUNTS:
            self.form.show_row(name, False)
        self.path.changed.connect(self.look)

    def _choose_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Store or folder of frames")
        if folder:
            self.path.value = Path(folder)

    # -- looking into the file ----------------------------------------------

    def typed_path(self) -> Path:
        """Read the path of the form."""
        value = self.path.value
        return value if isinstance(value, Path) else Path()

    def look(self, path: Path | None = None) -> None:
        """Read what the file says about itself, and show it."""
        path = path or self.typed_path()
        if path == Path() or not path.exists():
            return
        self._described = None
        self.start(lambda: describe_job(path), self._show_facts, "Look into file")

    def _show_facts(self, description: Any) -> None:
        facts = self.facts = dict(description.facts)
        self._described = Path(description.path)
        shape = f" {TIMES} ".join(str(n) for n in facts.get("shape") or ())
        size = facts.get("pixel_size_nm")
        self.pixel_size.value = (
            None if size is None else (float(size[0]), float(size[1]))
        )
        lines = [
            f"{shape} px, {facts.get('dtype')}",
            f"Pixel size in the file: {format_nm(self.pixel_size.value)}",
        ]
        if facts.get("vendor"):
            lines.append(f"Microscope: {facts['vendor']}")
        self.about.setText("\n".join(lines))
        self._show_counts(facts)
        rows = int(facts.get("databar_rows") or 0)
        self.bar.value = rows
        self.bar_note.setText(_bar_text(rows, facts.get("suggested_databar_rows")))
        self.show_status(f"{self._described.name} can be opened.")

    def _show_counts(self, facts: dict[str, Any]) -> None:
        for name, many in _COUNTS.items():
            count = int(facts.get(many) or 1)
            self.form.widget(name).max = max(0, count - 1)
            if name in ("channel", "plane"):
                self.form.set_values(**{name: 0 if count > 1 else None})
            self.form.show_row(name, count > 1)

    # -- opening ---------------------------------------------------------------

    def options(self) -> ReadOptions:
        """Read the form.

        Gives validated; the pixel size only where it differs from the file's.
        """
        size = self.pixel_size.value
        stated = self.facts.get("pixel_size_nm")
        same = size is not None and stated is not None and tuple(stated) == tuple(size)
        rows, known = int(self.bar.value), int(self.facts.get("databar_rows") or 0)
        options: ReadOptions = self.form.options(
            pixel_size_nm=None if same else size,
            databar_rows=None if rows == known else rows,
        )
        return options

    def job(self) -> Work:
        """Read the form."""
        path = self.typed_path()
        if path == Path() or not path.exists():
            msg = f"A file must be chosen first, got {str(path)!r}."
            raise OptionError(msg)
        if path != self._described:
            self.facts = {}
        options, levels = self.options(), int(self.facts.get("levels") or 1)
        return lambda: open_levels(path, options, levels=levels), self.show_image

    def show_image(self, opened: Opened) -> None:
        """Add what was opened as a layer."""
        self.calibrate.layer.value = add_opened(self.viewer, opened)
        rows, columns = opened.micrograph.shape
        size = format_nm(opened.micrograph.pixel_size_nm)
        self.show_status(
            f"Opened {opened.micrograph.name}: {rows} {TIMES} {columns} px, "
            f"pixel size {size}.{_mixed_text(self.viewer.layers.units)}"
        )


def _mixed_text(units: object) -> str:
    """Say why the scale bar has no unit, where napari finds none in common."""
    if units is not None:
        return ""
    return (
        " The scale bar shows no nm, since another layer has no pixel size; give it "
        "one under Calibrate a layer, or remove it."
    )


def _bar_text(rows: int, guess: int | None) -> str:
    """Say what is known of the data bar."""
    if rows:
        return f"The file's header says {rows} rows; change them if they are wrong."
    if guess:
        return f"The lowest {guess} rows look like a bar; type {guess} to crop them."
    return "No data bar was found."
