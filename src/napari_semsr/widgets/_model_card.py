"""Choose a model and read its card; torch is not needed for that."""

from pathlib import Path
from typing import Any

from magicgui.widgets import ComboBox
from psygnal import Signal
from qtpy.QtWidgets import QFileDialog, QPushButton, QVBoxLayout, QWidget

from napari_semsr.core.errors import SemsrError
from napari_semsr.core.progress import run
from napari_semsr.services.shelf import list_models, model_info
from napari_semsr.widgets._form import Form
from napari_semsr.widgets._note import Note
from napari_semsr.widgets._text import TIMES, table

__all__ = ["ModelChooser", "card_text"]

_AMBER = "#e3b617"


def card_text(card: dict[str, Any], pixel_size_nm: float | None) -> str:
    """Write a card for people.

    Parameters
    ----------
    card : dict
        The model's card.
    pixel_size_nm : float or None
        Of the layer that it would be run on.

    Returns
    -------
    str
        Rich text; a pixel size outside the trained range is said in amber.
    """
    trained = card.get("pixel_size_nm")
    size = (
        "any pixel size" if trained is None else f"{trained[0]:g} to {trained[1]:g} nm"
    )
    rows = {
        "Trained on": f"{size} per pixel" if trained else size,
        "Scale": f"{card.get('scale', 1)} {TIMES}",
        "Receptive field": f"{card.get('receptive_field')} px each side",
        "Architecture": str(card.get("architecture")),
        "Licence": str(card.get("licence")),
    }
    about = card.get("description") or "No description."
    text = f"<p>{about}</p>{table(rows, strong=False)}"
    if card.get("limits"):
        text += f"<p><i>Limits: {card['limits']}</i></p>"
    if trained is not None and pixel_size_nm is not None:
        low, high = trained
        if not low <= pixel_size_nm <= high:
            text += (
                f'<p style="color:{_AMBER}">The layer has {pixel_size_nm:.4g} nm per '
                "pixel, outside what this model was trained on.</p>"
            )
    return text


class ModelChooser(QWidget):
    """List of the models on the shelf, with the card of the chosen one.

    Parameters
    ----------
    parent : QWidget, optional
        Where it lives.
    """

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._files: list[str] = []
        self.card: dict[str, Any] = {}
        self.pixel_size_nm: float | None = None
        self.box = ComboBox(name="model", choices=self._choices)
        self.box.native.setSizeAdjustPolicy(
            self.box.native.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.file_button = QPushButton("Add a model file …")
        self.file_button.clicked.connect(self._choose_file)
        self.text = Note()
        form = Form()
        form.add("model", "Model", self.box, "Which model to run.")
        form.add("file", "", self.file_button, "A .safetensors file with a model card.")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(form)
        column.addWidget(self.text)
        self.box.reset_choices()
        self.box.changed.connect(lambda _: self.refresh())
        self.refresh()

    @property
    def value(self) -> str | None:
        """Name or path of the chosen model; None when the shelf is empty."""
        value: str | None = self.box.value
        return value

    def _choices(self, _: Any) -> list[tuple[str, str]]:
        try:
            rows = run(list_models()).models
        except SemsrError:
            rows = ()
        known = [
            (str(row["name"]), str(row["name"])) for row in rows if not row["fault"]
        ]
        return known + [(Path(file).name, file) for file in self._files]

    def add_file(self, path: str | Path) -> None:
        """Offer a model that is not on the shelf, and choose it.

        Parameters
        ----------
        path : path
            A ``.safetensors`` file.
        """
        file = str(path)
        if file not in self._files:
            self._files.append(file)
        self.box.reset_choices()
        self.box.value = file

    def _choose_file(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(
            self, "Model", "", "Models (*.safetensors)"
        )
        if chosen:
            self.add_file(chosen)

    def show_for(self, pixel_size_nm: float | None) -> None:
        """Compare the card with the pixel size of a layer.

        Parameters
        ----------
        pixel_size_nm : float or None
            Of the layer that is chosen.
        """
        self.pixel_size_nm = pixel_size_nm
        self._write()

    def refresh(self) -> None:
        """Read the card of the chosen model."""
        self.card = {}
        if self.value is not None:
            try:
                self.card = dict(run(model_info(self.value)).card)
            except SemsrError as error:
                self.card = {"description": str(error)}
        self._write()
        self.changed.emit()

    def _write(self) -> None:
        if self.card:
            self.text.setText(card_text(self.card, self.pixel_size_nm))
        else:
            self.text.setText("No model is on the shelf; add a model file.")
