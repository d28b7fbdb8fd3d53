"""List of models and classical methods, with the card of the chosen one."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from magicgui.widgets import ComboBox
from napari.layers import Layer
from psygnal import Signal

from napari_semsr import core, jobs, models
from napari_semsr.widgets import base
from napari_semsr.widgets.layers import record_instrument


class _LibraryEvents:
    """Signals that notify open panels of changes in the model library."""

    changed = Signal()
    model_imported = Signal(str)


NEWS = _LibraryEvents()
"""Emitted in the main thread: `changed` when a model was added to the library or its
card changed, `model_imported` with its name when the user has imported one.
"""

OWN_IMAGE_TIME = (
    "Training a denoiser on this image alone takes about four minutes on a computer "
    "without a GPU."
)
"""Time that a training on one image takes; see `docs/own-image.md`."""

_IMPORTED = ["Models (*.safetensors *.onnx *.zip)"]
_EXPORTED = {
    "Model with its card (*.safetensors)": ".safetensors",
    "ONNX (*.onnx)": ".onnx",
    "bioimage.io package (*.zip)": ".zip",
}
_CLASSICAL = "classical: "  # before the name of a method, as no model is named
_HEADINGS = ("Models", "<models>"), ("Classical methods", "<methods>")
_METHOD = jobs.RESTORE.options.model_fields["method"]
_TOLERANCE = 0.001  # relative; pixel sizes this close are equal; chosen
_LINKS = (
    '<a href="models.md#does-it-show-what-is-there">How models are checked</a>. '
    '<a href="which-model.md">Which model for which image</a>'
)
_PREVIEW = (
    "Preview model, trained on simulated samples. For your own sample, train on an SEM "
    'image of part of it: <a href="adapt.md#in-napari">Train</a>.'
)
_ASKS = "choose a model"
_Resample = Literal["auto", "keep", "never"]
QUESTION = (
    "The file does not state which microscope took this image: an electron microscope "
    f"({models.DEFAULT_MODEL}), or a superlens ({models.MOSAIC_MODEL})?"
)
"""Question for a model, if the image does not state its instrument."""


def format_model_card(
    card: Mapping[str, object],
    pixel_size_nm: core.PixelSize | None,
    resample: _Resample = "auto",
    advice: str = "",
) -> str:
    """Describe in rich text what a model does, and how it was checked.

    A note below states how a pixel size that the model was not trained for is handled;
    it is a warning, with `advice`, if the model is used as it is.
    """
    from napari_semsr.inference import TrainedPixelSizes, plan_resampling

    text = f"<p>{card.get('description') or 'No description.'}</p>"
    gain = jobs.get_validation_gain_db(card)
    if gain is not None and gain < 0:
        worse = f"In validation, it was {-gain:.2f} {core.DB} worse than its input."
        text += f'<p class="warning">{worse}</p>'
    if card.get("name") == models.MOSAIC_MODEL:
        text += f"<p>{_PREVIEW}</p>"
    if "name" in card:
        checked = bool(jobs.get_check_figures(card))
        lack = "This model has not been checked with known structures. "
        text += f"<p>{'' if checked else lack}{_LINKS}</p>"
    trained_sizes = TrainedPixelSizes.from_card(card)
    fit = plan_resampling(pixel_size_nm, trained_sizes, resample)
    if fit.note:
        kind = ' class="warning"' if fit.steps is None else ""
        text += f"<p{kind}>{fit.note}{advice if fit.beyond else ''}</p>"
    return text


def format_model_card_details(card: Mapping[str, Any]) -> str:
    """Return the details of a model card as rich text."""
    from napari_semsr.inference import TrainedPixelSizes

    far = f"{card.get('receptive_field')} px on each side"
    for tolerance, reach in (card.get("effective_field") or {}).items():
        if float(tolerance) == _TOLERANCE:
            far += f", effectively {reach} px (within {tolerance} of the range)"
    rows = {
        "Trained on": TrainedPixelSizes.from_card(card).describe(),
        "Scale": f"{card.get('scale', 1)} {base.TIMES}",
        "Receptive field": far,
        "Network": str(card.get("architecture")),
        "Licence": str(card.get("licence")),
    }
    rows |= {name: str(figure) for name, figure in jobs.get_check_figures(card).items()}
    limits = card.get("limits")
    limits_text = f"<p><i>Limits: {limits}</i></p>" if limits else ""
    return base.format_value_table(rows, strong=False) + limits_text


def list_installed_models() -> list[tuple[str, str]]:
    """Return the installed models as (label, name) pairs.

    A model that was worse than its input in validation is marked, and listed last.
    """
    rows = core.run(jobs.MODELS_LIST.job()).models
    better, worse = [], []
    for row in filter(lambda row: not row["fault"], rows):
        name, gain = str(row["name"]), row.get("gain_db")
        if gain is not None and gain < 0:
            loss = f"\N{MINUS SIGN}{-gain:.2f} {core.DB} in validation"
            worse.append((f"{name} ({loss})", name))
        else:
            label = f"{name} (preview)" if name == models.MOSAIC_MODEL else name
            better.append((label, name))
    return better + worse


def read_training_digests() -> dict[str, set[str]]:
    """Return the digests of training images of the installed models that state them."""
    training_images = {}
    for _, name in list_installed_models():
        card = models.read_card(models.find_model(name)).model_dump()
        if digests := jobs.get_training_digests(card):
            training_images[name] = digests
    return training_images


class ModelChooser(base.Form):
    """List of installed models and classical methods, with the card of the choice."""

    changed = Signal()
    has_settings = True

    def __init__(self, panel: base.VerbPanel) -> None:
        super().__init__()
        self._panel = panel
        self._files: list[str] = []
        self.card: dict[str, Any] = {}
        # the layer that the card is compared with
        self._field: tuple[core.PixelSize | None, _Resample, str] = (None, "auto", "")
        self._layer: Layer | None = None  # the layer to enhance
        self._layer_asked: Layer | None = None  # whose instrument is unknown
        self._is_asking = False
        tip = "Model to run, or classical method."
        self.box = ComboBox(name="model", label="Model or method", tooltip=tip)
        self.text, self.details = base.RichTextLabel(), base.RichTextLabel()
        self.question = base.RichTextLabel()
        answers = {"sem": "SEM image", "optical": "Superlens image"}
        buttons = []
        for kind, text in answers.items():
            tip = f"Select {models.MODELS_BY_INSTRUMENT[kind]}."
            record = partial(self._record_instrument, kind)
            buttons.append(base.create_button(text, record, tip))
        self.answers = base.WrappingRow(*buttons)
        tip = "Add a model file, ONNX file or bioimage.io archive; its code is not run."
        self.import_button = base.create_button("Import…", self._choose_import, tip)
        tip = "Write the model with its card, or as ONNX or bioimage.io package."
        self.export_button = base.create_button("Export…", self._choose_export, tip)
        tooltip = "Training data, limits and licence of the model; import and export."
        files = base.WrappingRow(self.import_button, self.export_button)
        self.more = base.CollapsibleSection("More", tooltip, self.details, files)
        tip = f"Open Train with this image selected. {OWN_IMAGE_TIME}"
        text, show = "Train on this image alone…", self._open_train_panel
        self.own_button = base.create_button(text, show, tip)
        rows = self.question, self.answers, self.box, self.text, self.own_button
        for row in (*rows, self.more):
            self.add_row(row)
        self._fill_list()
        self._model_proposed = self.box.value
        self.box.changed.connect(lambda _: self.refresh())
        NEWS.changed.connect(self._refresh_model_list)
        NEWS.model_imported.connect(self.choose)
        self.refresh()

    @property
    def value(self) -> str | None:
        """Name or path of the chosen model, or the entry of a classical method.

        None if no model is installed, or none is chosen.
        """
        value: str | None = self.box.value
        return value

    @property
    def method(self) -> str | None:
        """Classical method that is chosen instead of a model."""
        is_classical = str(self.value).startswith(_CLASSICAL)
        return str(self.value).removeprefix(_CLASSICAL) if is_classical else None

    def _fill_list(self) -> None:
        """List models and methods below their headings, keeping the choice."""
        before, (models_title, methods_title) = self.box.value, _HEADINGS
        first: list[tuple[str, str | None]] = [(_ASKS, None)] if self._is_asking else []
        known = [*list_installed_models(), *((Path(f).name, f) for f in self._files)]
        methods = (core.get_display(_METHOD).choices or {}).items()
        rows = [*first, models_title, *known, methods_title]
        rows += [(label, f"{_CLASSICAL}{method}") for label, method in methods]
        with self.box.changed.blocked():
            self.box.choices = ()  # magicgui would list a new one last
            self.box.choices = rows
            for title in _HEADINGS:
                self.box.native.model().item(rows.index(title)).setEnabled(False)
            names = [row[1] for row in rows if row not in _HEADINGS]
            self.box.value = before if before in names else names[0]

    def _refresh_model_list(self) -> None:
        """Update the list and the card after the model library has changed."""
        if base.is_alive(self):
            self._fill_list()
            self.refresh()

    def add_file(self, path: str | Path) -> None:
        """Add a model file from outside the library to the list, and select it."""
        file = str(path)
        if file not in self._files:
            self._files.append(file)
        self._fill_list()
        self.box.value = file

    def choose(self, name: str) -> None:
        """Select a model by name, if it is installed."""
        is_other = base.is_alive(self) and self.card.get("name") != name
        if is_other and name in self.box.choices:
            self.box.value = name

    def show_model(self, name: str | None) -> None:
        """Select the model, method or file that is selected in another list."""
        if name in self.box.choices:
            self.box.value = name
        elif name is not None:
            self.add_file(name)

    def propose_model(self, name: str | None, layer: Layer | None = None) -> None:
        """Select a model by name, unless the user has chosen one.

        Without a name, ask which microscope took the layer.
        """
        if self.value != self._model_proposed:
            return
        self._layer_asked = layer
        self._is_asking = name is None and layer is not None
        with self.box.changed.blocked():
            self.box.choices = ()
        self._fill_list()
        if name in self.box.choices:
            with self.box.changed.blocked():
                self.box.value = name
        self._model_proposed = self.box.value
        self.refresh()  # magicgui does not emit a change to None

    def _record_instrument(self, kind: str) -> None:
        """Record the user's answer in the layer, and select the model for it."""
        if self._layer_asked is not None:
            record_instrument(self._layer_asked, kind)
        self._model_proposed = self.value
        self.propose_model(models.MODELS_BY_INSTRUMENT[kind], self._layer_asked)

    def require_model(self) -> str:
        """Return the chosen model, or raise an error if none is."""
        if self.value is None:
            msg = f"Choose one under {self.box.label}. {QUESTION}"
            raise core.OptionError(msg, code="model-missing")
        return self.value

    def _choose_import(self) -> None:
        if path := base.ask_existing_file(self, "Model", _IMPORTED):
            self.import_file(path)

    def import_file(self, path: Path) -> None:
        """Import a model file into the library, and select the model."""
        make = partial(jobs.MODELS_IMPORT.job, path)
        self._panel.controls.start(make, self._show_import, "Import")

    def _show_import(self, model_file: jobs.ModelFile) -> None:
        name = str(model_file.card["name"])
        NEWS.changed.emit()
        NEWS.model_imported.emit(name)
        self._panel.messages.notify(f"{name} is installed and listed in Enhance.")

    def _choose_export(self) -> None:
        name = str(self.card.get("name") or Path(str(self.value)).stem)
        if path := base.ask_output_file(self, "Export model", name, _EXPORTED):
            self.export_file(path)

    def export_file(self, path: Path) -> None:
        """Write the model to a file whose suffix sets the format."""
        existing = jobs.OverwritePolicy(overwrite=True)  # the dialog has asked
        make = partial(jobs.MODELS_EXPORT.job, self.value, path, existing=existing)
        notify = self._panel.messages.notify
        sentence = f"Exported to {path}."
        self._panel.controls.start(make, lambda _: notify(sentence), "Export")

    def compare_with_layer(
        self,
        pixel_size_nm: core.PixelSize | None,
        resample: _Resample,
        advice: str,
        layer: Layer | None,
    ) -> None:
        """Compare the card with a layer's pixel size, and show advice.

        If the model does not fit, offer to train on the layer alone.
        """
        self._field, self._layer = (pixel_size_nm, resample, advice), layer
        self._update_text()

    def _open_train_panel(self) -> None:
        panel: Any = base.open_panel(self._panel.viewer, "Train")
        panel.take_noisy(self._layer)

    def refresh(self) -> None:
        """Read the card of the chosen model."""
        self.card = {}
        if self.value is not None and self.method is None:
            try:
                # not by the command, which hashes the file
                card = models.read_card(models.find_model(self.value))
                self.card = jobs.to_json_value(card)
            except core.SemsrError as error:
                self.card = {"description": str(error)}
        self._update_text()
        self.changed.emit()

    def _update_text(self) -> None:
        from napari_semsr.inference import TrainedPixelSizes, plan_resampling

        card, is_model = self.card, "name" in self.card
        is_open = self._is_asking and self.value is None
        self.question.setText(QUESTION if is_open else "", "warning")
        self.answers.setVisible(is_open)
        text = format_model_card(card, *self._field) if card else ""
        if self.method is not None:
            text = f'{_METHOD.description} <a href="restore.md">Classical methods</a>'
        self.text.setText(text)
        trained_sizes = TrainedPixelSizes.from_card(card)
        fit = plan_resampling(self._field[0], trained_sizes) if is_model else None
        is_beyond = self._layer is not None and fit is not None and fit.beyond
        self.own_button.setVisible(is_beyond)
        self.details.setText(format_model_card_details(card) if is_model else "")
        self.export_button.setVisible(is_model)
