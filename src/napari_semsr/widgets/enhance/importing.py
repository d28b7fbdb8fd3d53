"""Import model: a network of other programs comes to the shelf, from the window."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.types import FileDialogMode
from magicgui.widgets import CheckBox, FileEdit, FloatSpinBox

from napari_semsr.core import OptionError
from napari_semsr.jobs import MODELS_IMPORT, ImportOptions, ModelFile
from napari_semsr.widgets.base import (
    Form,
    OptionsForm,
    Panel,
    Work,
    shorten_number,
    typed_path,
)
from napari_semsr.widgets.enhance.models import (
    MODEL_FILES,
    NEWS,
    card_details,
    card_text,
)

if TYPE_CHECKING:
    import napari.viewer

_TITLE = "Import model"
_MOST = 1e7  # chosen: beyond what detectors count, and no wider than a narrow dock
_ENDS = ("black", "white")
_END = "What becomes 0 (black) and 1 (white) for the network."
_RANGES = {
    "percentiles": ("Percentiles (%)", (0.1, 99.9), (0.0, 100.0)),
    "levels": ("Grey levels", (0.0, 1.0), (-_MOST, _MOST)),
}  # label, usual values, limits


class ImportPanel(Panel):
    """Puts a model file on the shelf, with what the file does not say."""

    help_place = "exchange.md#models-from-elsewhere"

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__(viewer, _TITLE, "Import")
        self.file = FileEdit(
            name="file",
            label="File",
            mode=FileDialogMode.EXISTING_FILE,
            filter=MODEL_FILES,
            tooltip="A .safetensors file with a card, an ONNX file, a zip of "
            "bioimage.io with ONNX weights, or ESRGAN weights as .pth. Nothing of it "
            "is run as a program.",
        )
        self.form = OptionsForm(ImportOptions)
        self.ends = tuple(
            FloatSpinBox(name=name, label=name, min=-_MOST, max=_MOST, tooltip=_END)
            for name in _ENDS
        )
        for end in self.ends:
            shorten_number(end.native)
        self.range = Form(*self.ends)
        self.overwrite = CheckBox(
            name="overwrite",
            text="Replace, if it exists",
            tooltip="Replace an imported model of the same name; bundled models stay.",
        )
        self.add_group("File", Form(self.file))
        self.add_group("Not in the file", self.form, self.range)
        self.add_group("Shelf", Form(self.overwrite))
        self.add_results("Imported")
        self.form.on_change("scaling", self._show_range)
        self.file.changed.connect(self._show_rows)
        self._show_range(None)
        self._show_rows(None)

    def choose(self, path: str | Path) -> None:
        """Take a file that was chosen elsewhere."""
        self.file.value = Path(path)

    def _brings_card(self) -> bool:
        """Tell whether the file says all itself."""
        path = typed_path(self.file)
        return path is not None and path.suffix.lower() in (".safetensors", ".pth")

    def _show_rows(self, _: Any) -> None:
        """Ask only where the file leaves something open."""
        self.form.setEnabled(not self._brings_card())
        self.range.setEnabled(not self._brings_card())

    def _show_range(self, scaling: str | None) -> None:
        """Ask for the two values that the scaling needs, if it needs any."""
        self.range.setVisible(scaling in _RANGES)
        if scaling not in _RANGES:
            return
        label, usual, limits = _RANGES[scaling]
        for end, value in zip(self.ends, usual, strict=True):
            end.min, end.max = limits
            end.value = value
            self.range.relabel(end.name, f"{label}, {end.name}", _END)

    def _options(self) -> ImportOptions | None:
        if self._brings_card():
            return None
        scaling = self.form.values()["scaling"]
        ends = tuple(float(end.value) for end in self.ends)
        options: ImportOptions = self.form.options(
            **({scaling: ends} if scaling in _RANGES else {})
        )
        return options

    def job(self) -> Work:
        """Read the form."""
        path = typed_path(self.file)
        if path is None or path.is_dir():  # where nothing is typed
            msg = "A model file must be chosen."
            raise OptionError(msg)
        options, overwrite = self._options(), bool(self.overwrite.value)
        return (
            lambda: MODELS_IMPORT.job(path, options=options, overwrite=overwrite),
            self.show_outcome,
        )

    def show_outcome(self, made: ModelFile) -> None:
        """Show the card, and let open panels choose the model."""
        NEWS.changed.emit()
        name = str(made.card["name"])
        NEWS.arrived.emit(name)
        more = card_text(made.card, None) + card_details(made.card)
        self.show_result({}, f"{name} is installed; Enhance lists it now.", more=more)
