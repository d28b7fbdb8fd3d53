"""How one image lies on another: as it was registered, by a file, or otherwise."""

from pathlib import Path

from magicgui.types import FileDialogMode
from magicgui.widgets import ComboBox, FileEdit

from napari_semsr.core import OptionError
from napari_semsr.io import StoredTransform
from napari_semsr.widgets.base import Form, typed_path

_FOUND, _STORED = "found", "stored"


class PlacementRows:
    """Two rows of a form, and the map that they stand for.

    `otherwise`: how the images lie without a map, as the list says it, by its value;
    `remedy`: the same in a message.
    """

    def __init__(
        self,
        form: Form,
        label: str,
        tooltip: str,
        images: tuple[str, str],
        otherwise: tuple[str, str],
        remedy: str,
    ) -> None:
        self._form, self._remedy = form, remedy
        self._given: StoredTransform | None = None
        self._asked = True
        self._kinds = (
            otherwise,
            ("by a stored transform …", _STORED),
        )
        self.placed = ComboBox(
            name="placed", label=label, tooltip=tooltip, choices=self._kinds
        )
        moving, fixed = images
        self.transform = FileEdit(
            name="transform",
            label="Transform",
            tooltip=f"A .json that Register to SEM has saved, {moving} its moving "
            f"image and {fixed} its fixed one.",
            mode=FileDialogMode.EXISTING_FILE,
            filter="*.json",
            nullable=True,
        )
        form.add(self.placed)
        form.add(self.transform)
        self.placed.changed.connect(self.show_rows)
        self.show_rows()

    def show_rows(self, _: object = None, *, asked: bool | None = None) -> None:
        """Show what is to be chosen, where it is `asked` how the images lie.

        None: where it was asked before.
        """
        self._asked = self._asked if asked is None else asked
        stored = self.placed.value == _STORED
        self._form.show_row("placed", self._asked)
        self._form.show_row("transform", self._asked and stored)

    @property
    def given(self) -> bool:
        """Whether there is a map, found before or stored."""
        return self.placed.value in (_FOUND, _STORED)

    def take(self, found: StoredTransform) -> None:
        """Choose a map that was found just now."""
        self._given = found
        said = f"as registered: {found.moving.name} on {found.fixed.name}"
        self.placed.choices = [(said, _FOUND), *self._kinds]
        self.placed.value = _FOUND

    def map(self) -> StoredTransform | Path | None:
        """Give the map; None where there is none."""
        if self.placed.value != _STORED:
            return self._given if self.given else None
        typed = typed_path(self.transform)
        if typed is None:
            msg = (
                "A transform must be chosen, a .json that Register to SEM has saved; "
                f"or {self._remedy}."
            )
            raise OptionError(msg, code="missing-value")
        return typed
