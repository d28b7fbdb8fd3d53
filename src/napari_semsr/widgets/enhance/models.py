"""Models: a list with their cards, and the panels that check and import them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from magicgui.types import FileDialogMode
from magicgui.widgets import CheckBox, ComboBox, FileEdit, FloatSpinBox
from napari.viewer import Viewer
from psygnal import Signal

from napari_semsr.core import (
    DB,
    OptionError,
    PixelSize,
    SemsrError,
    figures_of,
    run,
)
from napari_semsr.jobs import (
    MODEL,
    MODELS_CHECK,
    MODELS_IMPORT,
    MODELS_INFO,
    MODELS_LIST,
    MOSAIC_MODEL,
    CheckOptions,
    DiscRecord,
    ImportOptions,
    ModelCheck,
    ModelFile,
    Removals,
    learnt_from_light,
    own_gain_db,
)
from napari_semsr.widgets.base import (
    TIMES,
    Folded,
    Form,
    OptionsForm,
    Panel,
    RichLabel,
    Work,
    ask_existing,
    is_alive,
    open_panel,
    push_button,
    shorten_number,
    table,
    typed_path,
)


class _ShelfNews:
    """Tells open panels that the shelf of models has changed."""

    changed = Signal()
    arrived = Signal(str)


NEWS = _ShelfNews()
"""Emitted in the main thread: `changed` when a model came to the shelf or its card
changed, `arrived` with its name when the user has imported one."""


MODEL_FILES = "Models (*.safetensors *.onnx *.zip)"
"""What a dialog looks for."""

OWN_IMAGE_TIME = (
    "A denoiser trained on this image alone takes about four minutes on a computer "
    "without a graphics card."
)
"""What *Train on this image alone* costs; see `docs/own-image.md`."""

_TOLERANCE = 0.001  # by which pixel sizes are equal; chosen
_CHECKED = "models.md#does-it-show-what-is-there"
_CHOICE = '<a href="which-model.md">Which model for which image</a>'
_PREVIEW = (
    "A preview: it was trained on simulated samples. For this sample, train on an SEM "
    'image of a part of it: <a href="adapt.md#in-napari">Train on SEM</a>.'
)
_IMAGES = {"held_out": "real images that it had not seen", "drawn": "simulated samples"}


def card_text(
    card: dict[str, Any],
    pixel_size_nm: PixelSize | None,
    resample: Literal["auto", "keep", "never"] = "auto",
    advice: str = "",
) -> str:
    """Say in rich text what a model does, and how far that was checked.

    What is done about a pixel size that the model was not trained for stands below,
    as a warning where the model is run on it all the same, then with `advice`.
    """
    from napari_semsr.inference import TrainedPixelSizes, fit_pixels

    text = f"<p>{card.get('description') or 'No description.'}</p>"
    gain = own_gain_db(card)
    if gain is not None and gain < 0:
        text += (
            f'<p class="warning">It lost in its own validation: {-gain:.2f} {DB} worse '
            "than what it was given.</p>"
        )
    if card.get("name") == MOSAIC_MODEL:
        text += f"<p>{_PREVIEW}</p>"
    if "name" in card:
        text += f"<p>{_checked(card)}</p>"
    trained = TrainedPixelSizes.from_card(card)
    fit = fit_pixels(pixel_size_nm, trained, resample)
    if fit.note:
        kind = ' class="warning"' if fit.steps is None else ""
        text += f"<p{kind}>{fit.note}{advice if fit.beyond else ''}</p>"
    return text


def _checked(card: dict[str, Any]) -> str:
    """State what was found, of discs where the model does worst."""
    records, removals = DiscRecord.of_card(card), Removals.of_card(card)
    link = f'<a href="{_CHECKED}">How this is checked</a>. {_CHOICE}'
    if removals is not None:
        return f"{removals.sentence(MODEL)} {link}"
    if not records:
        return f"Whether it shows what is there was not checked. {link}"
    kind, record = next(iter(records.items()))  # of real images, if there are any
    name, enhanced, degraded = record.worst()
    return (
        f"Checked on {_IMAGES[kind]}: of discs put in or taken out it shows "
        f"{100 * enhanced:.0f} % rightly, its input {100 * degraded:.0f} % "
        f"({'' if len(record.found['conditions']) == 1 else 'at worst: '}{name}). "
        f"{record.verdict()} {link}"
    )


def card_details(card: dict[str, Any]) -> str:
    """Write the rest of a card as rich text."""
    from napari_semsr.inference import TrainedPixelSizes

    far = f"{card.get('receptive_field')} px each side"
    for tolerance, reach in (card.get("effective_field") or {}).items():
        if float(tolerance) == _TOLERANCE:
            far += f", {reach} px within {tolerance} of the range"
    rows = {
        "Trained on": TrainedPixelSizes.from_card(card).sentence(),
        "Scale": f"{card.get('scale', 1)} {TIMES}",
        "Looks as far as": far,
        "Network": str(card.get("architecture")),
        "Licence": str(card.get("licence")),
    }
    for kind, record in DiscRecord.of_card(card).items():
        rows[f"Discs, {kind.replace('_', ' ')} images"] = record.summary()
    removals = Removals.of_card(card)
    if removals is not None:
        shown = removals.figures(MODEL)
        rows |= {f"{name}, simulated samples": str(shown[name]) for name in shown}
    limits = card.get("limits")
    told = f"<p><i>Limits: {limits}</i></p>" if limits else ""
    return table(rows, strong=False) + told


def listed_models() -> list[tuple[str, str]]:
    """List the models of the shelf, as lists show them and by their names.

    One that lost in its own validation says so, and comes last.
    """
    try:
        rows = [row for row in run(MODELS_LIST.job()).models if not row["fault"]]
    except SemsrError:
        return []
    won, lost = [], []
    for row in rows:
        name, gain = str(row["name"]), row.get("gain_db")
        if gain is not None and gain < 0:
            loss = f"\N{MINUS SIGN}{-gain:.2f} {DB} on its own validation"
            lost.append((f"{name} ({loss})", name))
        else:
            label = f"{name} (preview)" if name == MOSAIC_MODEL else name
            won.append((label, name))
    return won + lost


def models_of_place(read: Callable[[], set[str]]) -> list[str]:
    """List the names of models that were trained on an optical image of some digests.

    Digests are only read if a model states what it was trained on.
    """
    cards = {name: run(MODELS_INFO.job(name)).card for _, name in listed_models()}
    learnt = {name: learnt_from_light(dict(card)) for name, card in cards.items()}
    digests = read() if any(learnt.values()) else set()
    return sorted(name for name, of in learnt.items() if of & digests)


class ModelChooser(Form):
    """List of the models on the shelf, with the card of the chosen one."""

    changed = Signal()
    has_settings = True

    def __init__(
        self, viewer: Viewer, check: Callable[[], object] | None = None
    ) -> None:
        super().__init__()
        self.viewer = viewer
        self._files: list[str] = []
        self.card: dict[str, Any] = {}
        self._field: tuple[Any, ...] = (None,)  # what the card is compared with
        self._layer: Any = None  # that which is to be enhanced
        self.box = ComboBox(
            name="model",
            label="Model",
            tooltip="Which model to run.",
            choices=self._choices,
        )
        self.file_button = push_button(
            "Add a model file…",
            self._choose_file,
            "A .safetensors file with a model card is used where it lies; an ONNX "
            "file or a zip of bioimage.io is imported first.",
        )
        self.text, self.details = RichLabel(), RichLabel()
        told = "What it was trained on, its limits and its licence."
        text = "Check this model…"
        said = "Ask it for discs that are put into images and taken out of them."
        buttons = [] if check is None else [push_button(text, check, said)]
        self.more = Folded("More", told, self.details, *buttons)
        self.own_button = push_button(
            "Train on this image alone…",
            self._train_alone,
            "Denoise by a network that sees no other image: Train opens with this one "
            f"chosen. {OWN_IMAGE_TIME}",
        )
        self.own_button.setVisible(False)
        for row in (self.box, self.file_button, self.text, self.own_button, self.more):
            self.add(row)
        self.box.reset_choices()
        self._proposed = self.box.value
        self.box.changed.connect(lambda _: self.refresh())
        NEWS.changed.connect(self._renew)
        NEWS.arrived.connect(self.choose)
        self.refresh()

    @property
    def value(self) -> str | None:
        """Name or path of the chosen model; None when the shelf is empty."""
        value: str | None = self.box.value
        return value

    def _choices(self, _: Any) -> list[tuple[str, str]]:
        return listed_models() + [(Path(file).name, file) for file in self._files]

    def _renew(self) -> None:
        """List a model that came to the shelf; the chosen one may have changed."""
        if is_alive(self):
            self.box.reset_choices()
            self.refresh()

    def add_file(self, path: str | Path) -> None:
        """Offer a model that is not on the shelf, and choose it."""
        file = str(path)
        if file not in self._files:
            self._files.append(file)
        self.box.reset_choices()
        self.box.value = file

    def choose(self, name: str) -> None:
        """Choose a model by its name, if the shelf has it."""
        if (
            is_alive(self)
            and self.card.get("name") != name
            and name in self.box.choices
        ):
            self.box.value = name

    def show_model(self, name: str | None) -> None:
        """Choose what another list of models has chosen, or a file of its own."""
        if name in self.box.choices:
            self.box.value = name
        elif name is not None:
            self.add_file(name)

    def propose(self, name: str | None) -> None:
        """Choose a model by its name, or the first one, unless the user has chosen."""
        names = self.box.choices
        if self.value != self._proposed or not names:
            return
        self._proposed = name if name in names else names[0]
        self.box.value = self._proposed

    def _choose_file(self) -> None:
        path = ask_existing(self, "Model", [MODEL_FILES])
        if path is not None:
            self.offer(path)

    def offer(self, path: str | Path) -> None:
        """Choose a file that has a card; open the panel that imports another one."""
        if Path(path).suffix.lower() == ".safetensors":
            self.add_file(path)
            return
        panel: Any = open_panel(self.viewer, "Import model")
        panel.choose(path)

    def show_for(
        self,
        pixel_size_nm: PixelSize | None,
        resample: Literal["auto", "keep", "never"],
        advice: str,
        layer: Any = None,
    ) -> None:
        """Compare the card with a layer's pixel size, and advise.

        If the model does not fit, training on the layer alone is offered.
        """
        self._field, self._layer = (pixel_size_nm, resample, advice), layer
        self._write()

    def _train_alone(self) -> None:
        panel: Any = open_panel(self.viewer, "Train")
        panel.take_noisy(self._layer)

    def _is_unfit(self) -> bool:
        """Whether the chosen model was trained for other pixels, or there is none."""
        from napari_semsr.inference import TrainedPixelSizes, fit_pixels

        if "name" not in self.card:
            return True
        trained = TrainedPixelSizes.from_card(self.card)
        return fit_pixels(self._field[0], trained).beyond

    def refresh(self) -> None:
        """Read the card of the chosen model."""
        self.card = {}
        if self.value is not None:
            try:
                self.card = dict(run(MODELS_INFO.job(self.value)).card)
            except SemsrError as error:
                self.card = {"description": str(error)}
        self._write()
        self.changed.emit()

    def _write(self) -> None:
        card = self.card
        known = card_text(card, *self._field)
        text = known if card else "No model is installed; add a model file."
        offers_own = self._layer is not None and self._is_unfit()
        if offers_own:
            text += (
                f"<p>If no other model fits, train on this image. {OWN_IMAGE_TIME}</p>"
            )
        self.own_button.setVisible(offers_own)
        self.text.setText(text)
        self.details.setText(card_details(card) if "name" in card else "")
        self.more.setVisible("name" in card)


class CheckPanel(Panel):
    """Checks a model on simulated samples, or on a clear layer of the user's."""

    help_place = "models.md#does-it-show-what-is-there"

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer, "Check model", "Check")
        self.model = ModelChooser(viewer)
        self.image = self.new_layer_box(
            "image",
            "On",
            "A clear grey image, into which discs are put before it is degraded; "
            "without one samples are simulated.",
            none="simulated samples",
        )
        self.form = OptionsForm(CheckOptions)
        self.add_group("Model", self.model)
        self.add_group("Objects", Form(self.image), self.form)
        self.add_results("Found")

    def job(self) -> Work:
        """Read the form."""
        model, layer = self.model.value, self.image.value
        if model is None:
            msg = "A model must be chosen, but none is installed; add a model file."
            raise OptionError(msg, code="model-missing")
        images = [] if layer is None else [self.micrograph(layer)]
        options = self.form.options()
        return Work(
            lambda: MODELS_CHECK.job(model, images=images, options=options),
            self.show_outcome,
        )

    def show_outcome(self, made: ModelCheck) -> None:
        """Write the shares, and let the cards show them."""
        if made.written:
            NEWS.changed.emit()
        more = "<p>In brackets: in the degraded image, which the model was given.</p>"
        self.show_result(
            figures_of(made),
            made.summary(),
            curves=made.tables(),
            more=more if made.conditions else "",
        )


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

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer, _TITLE, "Import")
        self.file = FileEdit(
            name="file",
            label="File",
            mode=FileDialogMode.EXISTING_FILE,
            filter=MODEL_FILES,
            tooltip="A .safetensors file with a card, an ONNX file, or a zip of "
            "bioimage.io with ONNX weights. Nothing of it is run as a program.",
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
        return path is not None and path.suffix.lower() == ".safetensors"

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

    def job(self) -> Work:
        """Read the form."""
        path = typed_path(self.file)
        if path is None or path.is_dir():  # where nothing is typed
            msg = "A model file must be chosen."
            raise OptionError(msg, code="missing-value")
        options = None
        job = MODELS_IMPORT.anew if self.overwrite.value else MODELS_IMPORT.job
        if not self._brings_card():
            scaling = self.form.values()["scaling"]
            ends = tuple(float(end.value) for end in self.ends)
            options = self.form.options(**{scaling: ends} if scaling in _RANGES else {})
        return Work(lambda: job(path, options=options), self.show_outcome)

    def show_outcome(self, made: ModelFile) -> None:
        """Show the card, and let open panels choose the model."""
        NEWS.changed.emit()
        name = str(made.card["name"])
        NEWS.arrived.emit(name)
        more = card_text(made.card, None) + card_details(made.card)
        self.show_result({}, f"{name} is installed; Enhance lists it now.", more=more)
