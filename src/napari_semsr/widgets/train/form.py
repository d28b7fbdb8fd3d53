"""What is learnt from, by which recipe, and what it begins with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from magicgui.types import FileDialogMode
from magicgui.widgets import ComboBox, FileEdit, FloatSpinBox
from psygnal import Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_semsr.core import OptionError, SemsrError, run
from napari_semsr.jobs import (
    RecipeFacts,
    bundled_recipes,
    list_models_job,
    model_info_job,
    recipe_facts,
)
from napari_semsr.widgets.base import Form, Note, is_alive
from napari_semsr.widgets.enhance import NEWS

_STORE, _LAYERS, _OWN = "store", "layers", "recipe"
_SOURCES = [
    ("two layers", _LAYERS),
    ("a store of pairs", _STORE),
    ("what the recipe names", _OWN),
]
_FILE = "a YAML file …"
_AS_IT_SAYS, _FRESH = "<recipe>", "<fresh>"  # no names of models
_FIRST = "fine-tune"
_LARGEST_PATCH = 2048


def _narrow(box: ComboBox) -> ComboBox:
    """Let a list be narrower than its longest entry."""
    box.native.setSizeAdjustPolicy(
        box.native.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
    )
    return box


def count_box(name: str, *, most: int, step: int) -> FloatSpinBox:
    """Make a box for a number that the recipe knows, too."""
    box = FloatSpinBox(name=name, min=0, max=most, step=step, value=0)
    box.native.setDecimals(0)
    box.native.setSpecialValueText("as the recipe says")
    return box


class PairsForm(Form):
    """Two layers, or a store of pairs."""

    def __init__(self, layer_box: Callable[[str], ComboBox]) -> None:
        super().__init__()
        self.source = ComboBox(name="source", choices=_SOURCES)
        self.low, self.high = layer_box("low"), layer_box("high")
        self.patch = count_box("patch", most=_LARGEST_PATCH, step=16)
        self.store = FileEdit(
            name="store", mode=FileDialogMode.EXISTING_DIRECTORY, nullable=True
        )
        self.add("source", "Learn from", self.source, "Where the pairs come from.")
        self.add("low", "Low", self.low, "The image to be improved.")
        self.add(
            "high",
            "High",
            self.high,
            "What it should look like: the same field, on the same grid or calibrated.",
        )
        self.add("store", "Store", self.store, "A .zarr that `semsr pairs` made.")
        self.add(
            "patch",
            "Patch (px)",
            self.patch,
            "Side of the patches; smaller ones give more of them.",
        )
        self.source.changed.connect(self._show_rows)
        self._show_rows(self.source.value)

    def _show_rows(self, source: str) -> None:
        for name in ("low", "high"):
            self.show_row(name, source == _LAYERS)
        self.show_row("store", source == _STORE)

    @property
    def cuts(self) -> bool:
        """Whether pairs are to be cut from layers."""
        return bool(self.source.value == _LAYERS)

    def stored(self) -> str | None:
        """Give the path of the store."""
        if self.source.value == _OWN:
            return None
        typed = str(self.store.value or "").strip()
        if typed in ("", "."):
            msg = "A store of pairs must be chosen, a .zarr that `semsr pairs` made."
            raise OptionError(msg)
        return typed


class RecipeForm(QWidget):
    """List of recipes, what the chosen one says, and what training begins with."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.facts: RecipeFacts | None = None
        self.fault = ""
        self.box = _narrow(
            ComboBox(name="recipe", choices=[*bundled_recipes(), _FILE], value=_FIRST)
        )
        self.file = FileEdit(
            name="file", mode=FileDialogMode.EXISTING_FILE, filter="*.yaml *.yml"
        )
        self.start = _narrow(ComboBox(name="start", choices=[]))
        self.text = Note()
        form, below = Form(), Form()
        form.add("recipe", "Recipe", self.box, "How the model is made.")
        form.add("file", "File", self.file, "A recipe of your own.")
        below.add(
            "start",
            "Begin with",
            self.start,
            "Fine-tune a model, or start with fresh weights.",
        )
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for part in (form, self.text, below):
            column.addWidget(part)
        self._form = form
        self.box.changed.connect(lambda _: self.refresh())
        self.file.changed.connect(lambda _: self.refresh())
        NEWS.changed.connect(self._renew)
        self.refresh()

    @property
    def value(self) -> str:
        """Name or path of the chosen recipe."""
        return str(self.file.value if self.box.value == _FILE else self.box.value)

    def _renew(self) -> None:
        """List a model that came to the shelf."""
        if is_alive(self):
            self._list_starts(self.start.value)

    def _list_starts(self, chosen: str) -> None:
        """List anew, in this order: a list that is changed keeps what it had first."""
        self.start.choices = []
        self.start.choices = self._starts()
        self.start.value = chosen

    def _starts(self) -> list[tuple[str, str]]:
        own = self.facts.start_from if self.facts else None
        first = "fresh weights, as the recipe says"
        if own is not None:
            first = f"{Path(own).stem}, as the recipe says"
        rows = [] if own is None else [("fresh weights", _FRESH)]
        try:
            models = run(list_models_job()).models
        except SemsrError:
            models = ()
        known = [str(row["name"]) for row in models if not row["fault"]]
        return [(first, _AS_IT_SAYS), *rows, *((name, name) for name in known)]

    def refresh(self) -> None:
        """Read the chosen recipe."""
        self._form.show_row("file", self.box.value == _FILE)
        self.facts, self.fault = None, ""
        if self.box.value != _FILE or Path(self.value).is_file():
            try:
                self.facts = recipe_facts(self.value)
            except SemsrError as error:
                self.fault = str(error)
        else:
            self.fault = "A recipe must be chosen, a YAML file."
        self.text.setText(_about(self.facts) if self.facts else self.fault)
        self._list_starts(_AS_IT_SAYS)
        self.changed.emit()

    def required(self) -> RecipeFacts:
        """Give the facts of the chosen recipe."""
        if self.facts is None:
            raise OptionError(self.fault)
        return self.facts

    def begins(self) -> dict[str, Any]:
        """Give what training begins with, as `train` takes it."""
        chosen = self.start.value
        model = None if chosen in (_AS_IT_SAYS, _FRESH) else str(chosen)
        return {"start_from": model, "anew": chosen == _FRESH}

    def scale(self) -> int:
        """Clear pixels for each degraded one."""
        facts, model = self.required(), self.begins()["start_from"]
        if facts.architecture == "same" and model is not None:
            return int(run(model_info_job(model)).card["scale"])
        return facts.scale


def _about(facts: RecipeFacts) -> str:
    """Say what a recipe makes, and how."""
    own = facts.architecture == "same"
    network = "the model's own network" if own else facts.architecture
    how = (
        f"{facts.kind}, {network}, {facts.steps} steps, patches of {facts.patch_px} px"
    )
    return f"<p>{facts.description or 'No description.'}</p><p>{how}</p>"
