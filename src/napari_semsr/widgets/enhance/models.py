"""Model list with model cards; models are imported and exported from it."""

from collections.abc import Callable, Mapping
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


MODEL_FILES = "Models (*.safetensors *.onnx *.zip)"
"""File filter of the dialog."""
_EXPORT_FILES = {
    "Model with its card (*.safetensors)": ".safetensors",
    "ONNX (*.onnx)": ".onnx",
    "bioimage.io package (*.zip)": ".zip",
}

OWN_IMAGE_TIME = (
    "Training a denoiser on this image alone takes about four minutes on a computer "
    "without a GPU."
)
"""Time that *Train on this image alone* takes; see `docs/own-image.md`."""

_TOLERANCE = 0.001  # relative; pixel sizes this close are equal; chosen
_CHECK_PAGE = "models.md#does-it-show-what-is-there"
_CHOICE = '<a href="which-model.md">Which model for which image</a>'
_PREVIEW = (
    "Preview model, trained on simulated samples. For your own sample, train on an SEM "
    'image of part of it: <a href="adapt.md#in-napari">Train on SEM</a>.'
)
_NO_MODEL = "No model is installed; add a model file."
_ASKS = "choose a model"
QUESTION = (
    "The file does not state which microscope took this image: an electron microscope "
    f"({models.DEFAULT_MODEL}), or a superlens ({models.MOSAIC_MODEL})?"
)
"""Question for a model, if the image does not state its instrument."""


def format_model_card(
    card: Mapping[str, object],
    pixel_size_nm: core.PixelSize | None,
    resample: Literal["auto", "keep", "never"] = "auto",
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
        text += (
            f'<p class="warning">In validation, its output was {-gain:.2f} {core.DB} '
            "worse than its input.</p>"
        )
    if card.get("name") == models.MOSAIC_MODEL:
        text += f"<p>{_PREVIEW}</p>"
    if "name" in card:
        text += f"<p>{_format_checks(card)}</p>"
    trained_sizes = TrainedPixelSizes.from_card(card)
    fit = plan_resampling(pixel_size_nm, trained_sizes, resample)
    if fit.note:
        kind = ' class="warning"' if fit.steps is None else ""
        text += f"<p{kind}>{fit.note}{advice if fit.beyond else ''}</p>"
    return text


def _format_checks(card: Mapping[str, object]) -> str:
    """Describe the worst result of the checks that a card records."""
    link = f'<a href="{_CHECK_PAGE}">How models are checked</a>. {_CHOICE}'
    for name, figure in jobs.get_check_figures(card).items():
        return f"{name}: {figure}. {link}"
    return f"This model has not been checked with known structures. {link}"


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


def find_models_by_training_data(read: Callable[[], set[str]]) -> list[str]:
    """Return the names of models trained on an image with any of the digests.

    Digests are computed only if a model states the data it was trained on.
    """
    cards = {
        name: core.run(jobs.MODELS_INFO.job(name)).card
        for _, name in list_installed_models()
    }
    training_images = {
        name: jobs.get_training_digests(dict(card)) for name, card in cards.items()
    }
    digests = read() if any(training_images.values()) else set()
    return sorted(name for name, of in training_images.items() if of & digests)


class ModelChooser(base.Form):
    """List of installed models, with the card of the chosen one."""

    changed = Signal()
    has_settings = True

    def __init__(self, panel: base.VerbPanel) -> None:
        super().__init__()
        self._panel = panel
        self._files: list[str] = []
        self.card: dict[str, Any] = {}
        # the layer that the card is compared with
        self._field: tuple[core.PixelSize | None, Literal["auto", "keep", "never"], str]
        self._field = (None, "auto", "")
        self._layer: Layer | None = None  # the layer to enhance
        self._layer_asked: Layer | None = None  # whose instrument is unknown
        self._is_asking = False
        self.box = ComboBox(
            name="model",
            label="Model",
            tooltip="Model to run.",
            choices=self._list_model_choices,
        )
        self.file_button = base.create_button(
            "Add a model file…",
            partial(self._choose_file, self.open_model_file),
            "A .safetensors file with a model card is used in place; an ONNX file or "
            "a bioimage.io zip archive is imported first.",
        )
        self.text, self.details = base.RichTextLabel(), base.RichTextLabel()
        self.question = base.RichTextLabel()
        answers = {"sem": "SEM image", "optical": "Superlens image"}
        self.answers = base.WrappingRow(
            *(
                base.create_button(
                    text,
                    partial(self._record_instrument, kind),
                    f"Select {models.MODELS_BY_INSTRUMENT[kind]}.",
                )
                for kind, text in answers.items()
            )
        )
        self.answers.setVisible(False)
        tooltip = "Training data, limits and licence of the model; import and export."
        self.import_button = base.create_button(
            "Import…",
            partial(self._choose_file, self.import_file),
            "Copy a model file with a card, an ONNX file or a bioimage.io zip archive "
            "with ONNX weights into the model library. No code in it is executed.",
        )
        self.export_button = base.create_button(
            "Export…",
            self._choose_export,
            "Write the model into a file with its card, or as ONNX or a bioimage.io "
            "package for other programs.",
        )
        files = base.WrappingRow(self.import_button, self.export_button)
        self.more = base.CollapsibleSection("More", tooltip, self.details, files)
        self.own_button = base.create_button(
            "Train on this image alone…",
            self._open_train_panel,
            "Denoise with a network trained on this image only. Opens the Train "
            f"panel with this image selected. {OWN_IMAGE_TIME}",
        )
        self.own_button.setVisible(False)
        rows = self.question, self.answers, self.box, self.file_button
        for row in (*rows, self.text, self.own_button, self.more):
            self.add_row(row)
        self.box.reset_choices()
        self._model_proposed = self.box.value
        self.box.changed.connect(lambda _: self.refresh())
        NEWS.changed.connect(self._refresh_model_list)
        NEWS.model_imported.connect(self.choose)
        self.refresh()

    @property
    def value(self) -> str | None:
        """Name or path of the chosen model; None if no model is installed."""
        value: str | None = self.box.value
        return value

    def _list_model_choices(self, _: object) -> list[tuple[str, str | None]]:
        files = [(Path(file).name, file) for file in self._files]
        nothing = [(_ASKS, None)] if self._is_asking else []
        return [*nothing, *list_installed_models(), *files]

    def _refresh_model_list(self) -> None:
        """Update the list and the card after the model library has changed."""
        if base.is_alive(self):
            self.box.reset_choices()
            self.refresh()

    def add_file(self, path: str | Path) -> None:
        """Add a model file from outside the library to the list, and select it."""
        file = str(path)
        if file not in self._files:
            self._files.append(file)
        self.box.reset_choices()
        self.box.value = file

    def choose(self, name: str) -> None:
        """Select a model by name, if it is installed."""
        if (
            base.is_alive(self)
            and self.card.get("name") != name
            and name in self.box.choices
        ):
            self.box.value = name

    def show_model(self, name: str | None) -> None:
        """Select the model or model file that is selected in another list."""
        if name in self.box.choices:
            self.box.value = name
        elif name is not None:
            self.add_file(name)

    def propose_model(self, name: str | None, layer: Layer | None = None) -> None:
        """Select a model by name, unless the user has chosen one.

        Without a name, ask which microscope took the layer.
        """
        if self.value != self._model_proposed or not self.box.choices:
            return
        self._layer_asked = layer
        self._is_asking = name is None and layer is not None
        nothing: Any = ()
        with self.box.changed.blocked():  # magicgui would list a new choice last
            self.box.choices = nothing
            self.box.reset_choices()
        names = self.box.choices
        self._model_proposed = name if name in names else names[0]
        self.box.value = self._model_proposed
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
            msg = QUESTION if self._is_asking else _NO_MODEL
            raise core.OptionError(msg, code="model-missing")
        return self.value

    def _choose_file(self, use: Callable[[Path], None]) -> None:
        path = base.ask_existing_file(self, "Model", [MODEL_FILES])
        if path is not None:
            use(path)

    def open_model_file(self, path: Path) -> None:
        """Select a model file with a card; import other files."""
        if path.suffix.lower() == models.SUFFIX:
            self.add_file(path)
        else:
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
        if self.value is None:
            return
        name = str(self.card.get("name") or Path(self.value).stem)
        path = base.ask_output_file(self, "Export model", name, _EXPORT_FILES)
        if path is not None:
            self.export_file(path)

    def export_file(self, path: Path) -> None:
        """Write the model to a file whose suffix sets the format."""
        existing = jobs.OverwritePolicy(overwrite=True)  # the dialog has asked
        make = partial(jobs.MODELS_EXPORT.job, self.value, path, existing=existing)
        self._panel.controls.start(
            make,
            lambda _: self._panel.messages.notify(f"Exported to {path}."),
            "Export",
        )

    def compare_with_layer(
        self,
        pixel_size_nm: core.PixelSize | None,
        resample: Literal["auto", "keep", "never"],
        advice: str,
        layer: Layer | None = None,
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
        if self.value is not None:
            try:
                self.card = dict(core.run(jobs.MODELS_INFO.job(self.value)).card)
            except core.SemsrError as error:
                self.card = {"description": str(error)}
        self._update_text()
        self.changed.emit()

    def _update_text(self) -> None:
        card = self.card
        card_shown = format_model_card(card, *self._field)
        text = card_shown if card else _NO_MODEL
        is_open = self._is_asking and self.value is None
        self.question.setText(QUESTION if is_open else "", "warning")
        self.answers.setVisible(is_open)
        text = "" if is_open else text
        offers_own = self._layer is not None and not is_open
        if offers_own and "name" in card:
            from napari_semsr.inference import TrainedPixelSizes, plan_resampling

            trained_sizes = TrainedPixelSizes.from_card(card)
            offers_own = plan_resampling(self._field[0], trained_sizes).beyond
        if offers_own:
            text += (
                f"<p>If no other model fits, train on this image. {OWN_IMAGE_TIME}</p>"
            )
        self.own_button.setVisible(offers_own)
        self.text.setText(text)
        self.details.setText(format_model_card_details(card) if "name" in card else "")
        self.more.setVisible("name" in card)
