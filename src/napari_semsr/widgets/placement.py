"""Transform between two images: from a registration, from a file, or none."""

from pathlib import Path

from magicgui.types import FileDialogMode
from magicgui.widgets import ComboBox, FileEdit

from napari_semsr.core import OptionError
from napari_semsr.io import StoredTransform
from napari_semsr.widgets.base import Form, get_entered_path

_BY_IMAGES, _BY_FILE = "found", "stored"


class TransformSelector:
    """Two form rows for selecting the transform between two images.

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
        self.kind_box = ComboBox(
            name="placed", label=label, tooltip=tooltip, choices=self._kinds
        )
        moving, fixed_box = images
        self.transform = FileEdit(
            name="transform",
            label="Transform",
            tooltip=(
                f".json file saved by Register, with {moving} as the moving and "
                f"{fixed_box} as the fixed image."
            ),
            mode=FileDialogMode.EXISTING_FILE,
            filter="*.json",
            nullable=True,
        )
        form.add_row(self.kind_box)
        form.add_row(self.transform)
        self.kind_box.changed.connect(self.update_rows)
        self.update_rows()

    def update_rows(self, _: object = None, *, is_asked: bool | None = None) -> None:
        """Show the rows only if the relative position of the images is needed.

        None keeps the last value.
        """
        self._is_asked = self._is_asked if is_asked is None else is_asked
        is_stored = self.kind_box.value == _BY_FILE
        self._form.show_row("placed", self._is_asked)
        self._form.show_row("transform", self._is_asked and is_stored)

    @property
    def has_transform(self) -> bool:
        """Whether a transform is available, from a registration or a file."""
        return self.kind_box.value in (_BY_IMAGES, _BY_FILE)

    def select_registration(self, transform_file: StoredTransform) -> None:
        """Select the transform from a registration that has just finished."""
        self._map_given = transform_file
        label = (
            f"as registered: {transform_file.moving.name} to "
            f"{transform_file.fixed.name}"
        )
        self.kind_box.choices = [(label, _BY_IMAGES), *self._kinds]
        self.kind_box.value = _BY_IMAGES

    def get_transform(self) -> StoredTransform | Path | None:
        """Return the selected transform, or None."""
        if self.kind_box.value != _BY_FILE:
            return self._map_given if self.has_transform else None
        path_typed = get_entered_path(self.transform)
        if path_typed is None:
            msg = (
                "Choose a transform file (.json, saved by Register), or "
                f"{self._remedy}."
            )
            raise OptionError(msg, code="missing-value")
        return path_typed
