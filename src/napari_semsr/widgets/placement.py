"""Position of one image on another: as registered, from a file, or otherwise."""

from pathlib import Path

from magicgui.types import FileDialogMode
from magicgui.widgets import ComboBox, FileEdit

from napari_semsr.core import OptionError
from napari_semsr.io import StoredTransform
from napari_semsr.widgets.base import Form, typed_path

_BY_IMAGES, _BY_FILE = "found", "stored"


class PlacementRows:
    """Two rows of a form for selecting a transform.

    `otherwise`: entry for a position without a transform, and its value; `remedy`: the
    same as advice in messages.
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
        self._map_given: StoredTransform | None = None
        self._is_asked = True
        self._kinds = (
            otherwise,
            ("by a saved transform …", _BY_FILE),
        )
        self.placed = ComboBox(
            name="placed", label=label, tooltip=tooltip, choices=self._kinds
        )
        moving, fixed_box = images
        self.transform = FileEdit(
            name="transform",
            label="Transform",
            tooltip=f"A .json saved by Register to SEM, with {moving} as moving and "
            f"{fixed_box} as fixed image.",
            mode=FileDialogMode.EXISTING_FILE,
            filter="*.json",
            nullable=True,
        )
        form.add(self.placed)
        form.add(self.transform)
        self.placed.changed.connect(self.show_rows)
        self.show_rows()

    def show_rows(self, _: object = None, *, is_asked: bool | None = None) -> None:
        """Show the rows if the position of the images is needed, `is_asked`.

        None keeps the last value.
        """
        self._is_asked = self._is_asked if is_asked is None else is_asked
        is_stored = self.placed.value == _BY_FILE
        self._form.show_row("placed", self._is_asked)
        self._form.show_row("transform", self._is_asked and is_stored)

    @property
    def has_map(self) -> bool:
        """Whether a transform is available, from a registration or a file."""
        return self.placed.value in (_BY_IMAGES, _BY_FILE)

    def take(self, transform_file: StoredTransform) -> None:
        """Choose a transform that was just determined by registration."""
        self._map_given = transform_file
        label = (
            f"as registered: {transform_file.moving.name} on "
            f"{transform_file.fixed.name}"
        )
        self.placed.choices = [(label, _BY_IMAGES), *self._kinds]
        self.placed.value = _BY_IMAGES

    def map(self) -> StoredTransform | Path | None:
        """Return the transform; None if there is none."""
        if self.placed.value != _BY_FILE:
            return self._map_given if self.has_map else None
        path_typed = typed_path(self.transform)
        if path_typed is None:
            msg = (
                "Choose a transform, a .json saved by Register to SEM; or "
                f"{self._remedy}."
            )
            raise OptionError(msg, code="missing-value")
        return path_typed
