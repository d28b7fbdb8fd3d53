"""Choose a model and read its card; torch is not needed for that."""

from pathlib import Path
from typing import Any, Literal

from magicgui.widgets import ComboBox
from psygnal import Signal
from qtpy.QtWidgets import QFileDialog, QVBoxLayout, QWidget

from napari_semsr.core import PixelSize, SemsrError, run
from napari_semsr.jobs import DiscRecord, list_models_job, model_info_job
from napari_semsr.widgets.base import TIMES, Form, Note, is_alive, push_button, table


class _ShelfNews:
    """Tells open panels that the shelf of models has changed."""

    changed = Signal()


NEWS = _ShelfNews()
"""Its `changed` is emitted, in the main thread, when a model came to the shelf."""


_AMBER = "#e3b617"
_TOLERANCE = 0.001


def card_text(
    card: dict[str, Any],
    pixel_size_nm: PixelSize | None,
    resample: Literal["auto", "keep", "never"] = "auto",
) -> str:
    """Write a card for people.

    Gives rich text; what is done about a pixel size that the model was not trained for
    stands below, in amber where the model is run on it all the same.
    """
    from napari_semsr.inference import TrainedPixelSizes, fit_pixels

    trained = TrainedPixelSizes.from_card(card)
    rows = {
        "Trained on": trained.sentence(),
        "Scale": f"{card.get('scale', 1)} {TIMES}",
        "Receptive field": _field(card),
        "Architecture": str(card.get("architecture")),
        "Licence": str(card.get("licence")),
    }
    if records := DiscRecord.of_card(card):
        kind, record = next(iter(records.items()))  # of real images, if there are any
        said = f"{record.summary()} ({kind.replace('_', ' ')} images)"
        rows["Discs shown rightly"] = said
    about = card.get("description") or "No description."
    text = f"<p>{about}</p>{table(rows, strong=False)}"
    if card.get("limits"):
        text += f"<p><i>Limits: {card['limits']}</i></p>"
    fit = fit_pixels(pixel_size_nm, trained, resample)
    if fit.note:
        colour = f' style="color:{_AMBER}"' if fit.steps is None else ""
        text += f"<p{colour}>{fit.note}</p>"
    return text


def _field(card: dict[str, Any]) -> str:
    """Say how far a model looks: exactly, and in effect."""
    said = f"{card.get('receptive_field')} px each side"
    for tolerance, reach in (card.get("effective_field") or {}).items():
        if float(tolerance) == _TOLERANCE:
            said += f", {reach} px within {tolerance} of the range"
    return said


class ModelChooser(QWidget):
    """List of the models on the shelf, with the card of the chosen one."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._files: list[str] = []
        self.card: dict[str, Any] = {}
        self.pixel_size_nm: PixelSize | None = None
        self.resample: Literal["auto", "keep", "never"] = "auto"
        self.box = ComboBox(
            name="model",
            label="Model",
            tooltip="Which model to run.",
            choices=self._choices,
        )
        self.file_button = push_button(
            "Add a model file…",
            self._choose_file,
            "A .safetensors file with a model card.",
        )
        self.text = Note()
        form = Form(self.box, self.file_button)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(form)
        column.addWidget(self.text)
        self.box.reset_choices()
        self._proposed = self.box.value
        self.box.changed.connect(lambda _: self.refresh())
        NEWS.changed.connect(self._renew)
        self.refresh()

    @property
    def value(self) -> str | None:
        """Name or path of the chosen model; None when the shelf is empty."""
        value: str | None = self.box.value
        return value

    def _choices(self, _: Any) -> list[tuple[str, str]]:
        try:
            rows = run(list_models_job()).models
        except SemsrError:
            rows = ()
        known = [
            (str(row["name"]), str(row["name"])) for row in rows if not row["fault"]
        ]
        return known + [(Path(file).name, file) for file in self._files]

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
        if self.card.get("name") != name and name in self.box.choices:
            self.box.value = name

    def propose(self, name: str | None) -> None:
        """Choose a model by its name, or the first one, unless the user has chosen."""
        names = self.box.choices
        if self.value != self._proposed or not names:
            return
        self._proposed = name if name in names else names[0]
        self.box.value = self._proposed

    def _choose_file(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(
            self, "Model", "", "Models (*.safetensors)"
        )
        if chosen:
            self.add_file(chosen)

    def show_for(
        self,
        pixel_size_nm: PixelSize | None,
        resample: Literal["auto", "keep", "never"] = "auto",
    ) -> None:
        """Compare the card with the pixel size of a layer."""
        self.pixel_size_nm, self.resample = pixel_size_nm, resample
        self._write()

    def refresh(self) -> None:
        """Read the card of the chosen model."""
        self.card = {}
        if self.value is not None:
            try:
                self.card = dict(run(model_info_job(self.value)).card)
            except SemsrError as error:
                self.card = {"description": str(error)}
        self._write()
        self.changed.emit()

    def _write(self) -> None:
        if self.card:
            self.text.setText(card_text(self.card, self.pixel_size_nm, self.resample))
        else:
            self.text.setText("No model is on the shelf; add a model file.")
