"""Model list with model cards, and the panels that check and import models."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from magicgui.types import FileDialogMode
from magicgui.widgets import CheckBox, ComboBox, FileEdit, FloatSpinBox
from napari.layers import Layer
from napari.viewer import Viewer
from psygnal import Signal

from napari_semsr.core import (
    DB,
    OptionError,
    PixelSize,
    SemsrError,
    get_figures,
    run,
)
from napari_semsr.jobs import (
    MODEL,
    MODELS_CHECK,
    MODELS_IMPORT,
    MODELS_INFO,
    MODELS_LIST,
    CheckOptions,
    DiscRecord,
    ImportOptions,
    ModelCheck,
    ModelFile,
    OverwritePolicy,
    RemovalTest,
    get_training_digests,
    get_validation_gain_db,
)
from napari_semsr.models import DEFAULT_MODEL, MODELS_BY_INSTRUMENT, MOSAIC_MODEL
from napari_semsr.widgets.base import (
    TIMES,
    CollapsibleSection,
    Form,
    OptionsForm,
    PanelCall,
    RichTextLabel,
    VerbPanel,
    WrappingRow,
    ask_existing_file,
    create_button,
    format_value_table,
    get_entered_path,
    hide_trailing_zeros,
    is_alive,
    open_panel,
)
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
    f"({DEFAULT_MODEL}), or a superlens ({MOSAIC_MODEL})?"
)
"""Question for a model, if the image does not state its instrument."""
_IMAGES = {
    "held_out": "real images that it was not trained on",
    "drawn": "simulated samples",
}


def format_model_card(
    card: Mapping[str, object],
    pixel_size_nm: PixelSize | None,
    resample: Literal["auto", "keep", "never"] = "auto",
    advice: str = "",
) -> str:
    """Describe in rich text what a model does, and how it was checked.

    A note below states how a pixel size that the model was not trained for is handled;
    it is a warning, with `advice`, if the model is used as it is.
    """
    from napari_semsr.inference import TrainedPixelSizes, plan_resampling

    text = f"<p>{card.get('description') or 'No description.'}</p>"
    gain = get_validation_gain_db(card)
    if gain is not None and gain < 0:
        text += (
            f'<p class="warning">In validation, its output was {-gain:.2f} {DB} worse '
            "than its input.</p>"
        )
    if card.get("name") == MOSAIC_MODEL:
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
    """Describe the check results; for discs, report the worst condition."""
    records, removals = DiscRecord.from_card(card), RemovalTest.from_card(card)
    link = f'<a href="{_CHECK_PAGE}">How this is checked</a>. {_CHOICE}'
    if removals is not None:
        return f"{removals.describe(MODEL)} {link}"
    if not records:
        return f"This model has not been checked with known structures. {link}"
    kind, record = next(iter(records.items()))  # of real images, if available
    name, enhanced_share, degraded_share = record.worst_condition()
    prefix = "" if len(record.content["conditions"]) == 1 else "worst case: "
    return (
        f"Checked on {_IMAGES[kind]} with discs added or removed: "
        f"{100 * enhanced_share:.0f} % of the discs are reproduced correctly in its "
        f"output, {100 * degraded_share:.0f} % in its input "
        f"({prefix}{name}). "
        f"{record.verdict()} {link}"
    )


def format_model_card_details(card: Mapping[str, Any]) -> str:
    """Return the details of a model card as rich text."""
    from napari_semsr.inference import TrainedPixelSizes

    far = f"{card.get('receptive_field')} px on each side"
    for tolerance, reach in (card.get("effective_field") or {}).items():
        if float(tolerance) == _TOLERANCE:
            far += f", effectively {reach} px (within {tolerance} of the range)"
    rows = {
        "Trained on": TrainedPixelSizes.from_card(card).describe(),
        "Scale": f"{card.get('scale', 1)} {TIMES}",
        "Receptive field": far,
        "Network": str(card.get("architecture")),
        "Licence": str(card.get("licence")),
    }
    for kind, record in DiscRecord.from_card(card).items():
        rows[f"Discs, {kind.replace('_', ' ')} images"] = record.summary()
    removals = RemovalTest.from_card(card)
    if removals is not None:
        figures = removals.figures(MODEL)
        rows |= {f"{name}, simulated samples": str(figures[name]) for name in figures}
    limits = card.get("limits")
    limits_text = f"<p><i>Limits: {limits}</i></p>" if limits else ""
    return format_value_table(rows, strong=False) + limits_text


def list_installed_models() -> list[tuple[str, str]]:
    """Return the installed models as (label, name) pairs.

    A model that was worse than its input in validation is marked, and listed last.
    """
    try:
        rows = [row for row in run(MODELS_LIST.job()).models if not row["fault"]]
    except SemsrError:
        return []
    better, worse = [], []
    for row in rows:
        name, gain = str(row["name"]), row.get("gain_db")
        if gain is not None and gain < 0:
            loss = f"\N{MINUS SIGN}{-gain:.2f} {DB} in validation"
            worse.append((f"{name} ({loss})", name))
        else:
            label = f"{name} (preview)" if name == MOSAIC_MODEL else name
            better.append((label, name))
    return better + worse


def find_models_by_training_data(read: Callable[[], set[str]]) -> list[str]:
    """Return the names of models trained on an image with any of the digests.

    Digests are computed only if a model states the data it was trained on.
    """
    cards = {
        name: run(MODELS_INFO.job(name)).card for _, name in list_installed_models()
    }
    training_images = {
        name: get_training_digests(dict(card)) for name, card in cards.items()
    }
    digests = read() if any(training_images.values()) else set()
    return sorted(name for name, of in training_images.items() if of & digests)


class ModelChooser(Form):
    """List of installed models, with the card of the chosen one."""

    changed = Signal()
    has_settings = True

    def __init__(
        self, viewer: Viewer, check: Callable[[], object] | None = None
    ) -> None:
        super().__init__()
        self.viewer = viewer
        self._files: list[str] = []
        self.card: dict[str, Any] = {}
        # the layer that the card is compared with
        self._field: tuple[PixelSize | None, Literal["auto", "keep", "never"], str]
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
        self.file_button = create_button(
            "Add a model file…",
            self._choose_file,
            "A .safetensors file with a model card is used in place; an ONNX file or "
            "a bioimage.io zip archive is imported first.",
        )
        self.text, self.details = RichTextLabel(), RichTextLabel()
        self.question = RichTextLabel()
        answers = {"sem": "SEM image", "optical": "Superlens image"}
        self.answers = WrappingRow(
            *(
                create_button(
                    text,
                    partial(self._record_instrument, kind),
                    f"Select {MODELS_BY_INSTRUMENT[kind]}.",
                )
                for kind, text in answers.items()
            )
        )
        self.answers.setVisible(False)
        tooltip = "Training data, limits and licence of the model."
        text = "Check this model…"
        check_tooltip = (
            "Check whether the model shows discs that were added to images, and omits "
            "discs that were removed."
        )
        buttons = [] if check is None else [create_button(text, check, check_tooltip)]
        self.more = CollapsibleSection("More", tooltip, self.details, *buttons)
        self.own_button = create_button(
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
        if is_alive(self):
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
            is_alive(self)
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
        self.propose_model(MODELS_BY_INSTRUMENT[kind], self._layer_asked)

    def require_model(self) -> str:
        """Return the chosen model, or raise an error if none is."""
        if self.value is None:
            msg = QUESTION if self._is_asking else _NO_MODEL
            raise OptionError(msg, code="model-missing")
        return self.value

    def _choose_file(self) -> None:
        path = ask_existing_file(self, "Model", [MODEL_FILES])
        if path is not None:
            self.open_model_file(path)

    def open_model_file(self, path: str | Path) -> None:
        """Select a model file with a card; open the import panel for other files."""
        if Path(path).suffix.lower() == ".safetensors":
            self.add_file(path)
            return
        panel: Any = open_panel(self.viewer, "Import model")
        panel.choose(path)

    def compare_with_layer(
        self,
        pixel_size_nm: PixelSize | None,
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
        panel: Any = open_panel(self.viewer, "Train")
        panel.take_noisy(self._layer)

    def refresh(self) -> None:
        """Read the card of the chosen model."""
        self.card = {}
        if self.value is not None:
            try:
                self.card = dict(run(MODELS_INFO.job(self.value)).card)
            except SemsrError as error:
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


class CheckPanel(VerbPanel):
    """Panel that checks a model on simulated samples, or on a sharp layer."""

    help_place = "models.md#does-it-show-what-is-there"
    title, run_label = "Check model", "Check"
    verb = MODELS_CHECK

    def build_form(self) -> None:
        """Build the form."""
        self.model = ModelChooser(self.viewer)
        self.image = self.input_layers.create_box(
            "image",
            "On",
            "Sharp grey image to which discs are added before it is degraded. If "
            "none is chosen, samples are simulated.",
            none="simulated samples",
        )
        self.form = OptionsForm(CheckOptions)
        self.add_group("Model", self.model)
        self.add_group("Objects", Form(self.image), self.form)
        self.add_results("Results")

    def create_call(self) -> PanelCall:
        """Read the form, and return the call that Run starts."""
        model, layer = self.model.value, self.image.value
        if model is None:
            msg = "No model is installed; add a model file."
            raise OptionError(msg, code="model-missing")
        images = [] if layer is None else [self.input_layers.read(layer)]
        options = self.form.create_options()
        return self.compose_call(
            {"model": model, "images": images}, self.show_check, options=options
        )

    def show_check(self, check: ModelCheck) -> None:
        """Show the fractions of correct discs, and update the cards."""
        if check.written:
            NEWS.changed.emit()
        more = "<p>In brackets: the share in the degraded image, its input.</p>"
        self.results.show_result(
            get_figures(check),
            check.summary(),
            curves=check.tables(),
            more=more if check.conditions else "",
        )


_TITLE = "Import model"
_MOST = 1e7  # chosen: beyond the values of detectors, and narrow enough for the dock
_ENDS = ("black", "white")
_END = "Input values mapped to 0 (black) and 1 (white) for the network."
_RANGES = {
    "percentiles": ("Percentiles (%)", (0.1, 99.9), (0.0, 100.0)),
    "levels": ("Grey levels", (0.0, 1.0), (-_MOST, _MOST)),
}  # label, usual values, limits


class ImportPanel(VerbPanel):
    """Panel that imports a model file and asks for details that the file lacks."""

    help_place = "exchange.md#models-from-elsewhere"
    title, run_label = _TITLE, "Import"
    verb = MODELS_IMPORT

    def build_form(self) -> None:
        """Build the form."""
        self.file = FileEdit(
            name="file",
            label="File",
            mode=FileDialogMode.EXISTING_FILE,
            filter=MODEL_FILES,
            tooltip=(
                "A .safetensors file with a model card, an ONNX file, or a bioimage.io "
                "zip archive with ONNX weights. No code in the file is executed."
            ),
        )
        self.form = OptionsForm(ImportOptions)
        self.ends = tuple(
            FloatSpinBox(name=name, label=name, min=-_MOST, max=_MOST, tooltip=_END)
            for name in _ENDS
        )
        for end in self.ends:
            hide_trailing_zeros(end.native)
        self.range = Form(*self.ends)
        self.overwrite = CheckBox(
            name="overwrite",
            text="Overwrite if it exists",
            tooltip=(
                "Overwrite an imported model with the same name; bundled models are "
                "never overwritten."
            ),
        )
        self.add_group("File", Form(self.file))
        self.add_group("Not in the file", self.form, self.range)
        self.add_group("Library", Form(self.overwrite))
        self.add_results("Imported")
        self.form.on_change("scaling", self._update_scaling_rows)
        self.file.changed.connect(self._update_form_rows)
        self._update_scaling_rows(None)
        self._update_form_rows(None)

    def choose(self, path: str | Path) -> None:
        """Use a file that was chosen elsewhere."""
        self.file.value = Path(path)

    def _has_model_card(self) -> bool:
        """Return whether the file has a complete model card."""
        path = get_entered_path(self.file)
        return path is not None and path.suffix.lower() == ".safetensors"

    def _update_form_rows(self, _: object) -> None:
        """Enable the detail rows only if the file has no model card."""
        self.form.setEnabled(not self._has_model_card())
        self.range.setEnabled(not self._has_model_card())

    def _update_scaling_rows(self, scaling: str | None) -> None:
        """Show the two scaling values, if the scaling method needs them."""
        self.range.setVisible(scaling in _RANGES)
        if scaling not in _RANGES:
            return
        label, usual, limits = _RANGES[scaling]
        for end, value in zip(self.ends, usual, strict=True):
            end.min, end.max = limits
            end.value = value
            self.range.relabel(end.name, f"{label}, {end.name}", _END)

    def create_call(self) -> PanelCall:
        """Read the form, and return the call that Run starts."""
        path = get_entered_path(self.file)
        if path is None or path.is_dir():  # if nothing is entered
            msg = "Choose a model file."
            raise OptionError(msg, code="missing-value")
        options = None
        if not self._has_model_card():
            scaling = self.form.values()["scaling"]
            ends = tuple(float(end.value) for end in self.ends)
            options = self.form.create_options(
                **{scaling: ends} if scaling in _RANGES else {}
            )
        existing = OverwritePolicy(overwrite=bool(self.overwrite.value))
        return self.compose_call(
            {"file": path}, self.show_import, existing=existing, options=options
        )

    def show_import(self, model_file: ModelFile) -> None:
        """Show the card, and select the model in open panels."""
        NEWS.changed.emit()
        name = str(model_file.card["name"])
        NEWS.model_imported.emit(name)
        more = format_model_card(model_file.card, None) + format_model_card_details(
            model_file.card
        )
        self.results.show_result(
            {}, f"{name} is installed and listed in Enhance.", more=more
        )
