"""A pixel size as two numbers and a unit, shown in nanometres below."""

import math

from magicgui.widgets import ComboBox, FloatSpinBox
from psygnal import Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_semsr.core.micrograph import PixelSize, parse_pixel_size
from napari_semsr.widgets._note import Note
from napari_semsr.widgets._text import TIMES

__all__ = ["UNITS_NM", "PixelSizeEdit", "format_nm"]

UNITS_NM = {"pm": 1e-3, "Å": 0.1, "nm": 1.0, "µm": 1e3, "mm": 1e6}
"""Nanometres in each unit that is offered."""
_DECIMALS = 6


def format_nm(size: tuple[float, float] | None) -> str:
    """Write a pixel size for people.

    Parameters
    ----------
    size : tuple of float or None
        ``(y, x)`` in nm.

    Returns
    -------
    str
        One number when both are equal; ``"unknown"`` for None.
    """
    if size is None:
        return "unknown"
    y, x = size
    if math.isclose(y, x, rel_tol=1e-6):
        return f"{y:.6g} nm"
    return f"{y:.6g} {TIMES} {x:.6g} nm (y {TIMES} x)"


class PixelSizeEdit(QWidget):
    """Controls for a pixel size; zero stands for unknown.

    Changing the unit keeps the numbers: that is how a wrong unit is corrected.

    Parameters
    ----------
    parent : QWidget, optional
        Where it lives.
    """

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.height_box = self._number("y", "Height of a pixel; 0 when unknown.")
        self.width_box = self._number("x", "Width of a pixel; 0 when unknown.")
        self.unit_box = ComboBox(name="unit", choices=list(UNITS_NM), value="nm")
        self.unit_box.native.setToolTip(
            "Unit of both numbers; choosing another keeps the numbers."
        )
        self.note = Note()
        row = QHBoxLayout()
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(QLabel("Pixel size  y"))
        row.addWidget(self.height_box.native, stretch=1)
        row.addWidget(QLabel("x"))
        row.addWidget(self.width_box.native, stretch=1)
        row.addWidget(self.unit_box.native)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(row)
        column.addWidget(self.note)
        self._linked = True
        self.height_box.changed.connect(self._on_y)
        self.width_box.changed.connect(self._on_x)
        self.unit_box.changed.connect(self._on_change)
        self._on_change()

    @staticmethod
    def _number(name: str, tooltip: str) -> FloatSpinBox:
        box = FloatSpinBox(name=name, value=0.0, min=0.0, max=1e9, step=0.1)
        box.native.setDecimals(_DECIMALS)
        box.native.setSpecialValueText("unknown")
        box.native.setToolTip(tooltip)
        box.native.setButtonSymbols(box.native.ButtonSymbols.NoButtons)
        box.native.setMinimumWidth(75)
        return box

    @property
    def value(self) -> PixelSize | None:
        """``(y, x)`` in nm, or None when either number is zero."""
        k = UNITS_NM[self.unit_box.value]
        if self.height_box.value <= 0 or self.width_box.value <= 0:
            return None
        return parse_pixel_size((self.height_box.value * k, self.width_box.value * k))

    @value.setter
    def value(self, size: tuple[float, float] | None) -> None:
        self._linked = size is None or math.isclose(*size, rel_tol=1e-6)
        unit = "nm"
        if size is not None:
            unit = "µm" if min(size) >= 1e3 else "nm" if max(size) >= 0.1 else "pm"
        y, x = (0.0, 0.0) if size is None else size
        for control in (self.height_box, self.width_box, self.unit_box):
            control.changed.block()
        self.unit_box.value = unit
        self.height_box.value = round(y / UNITS_NM[unit], _DECIMALS)
        self.width_box.value = round(x / UNITS_NM[unit], _DECIMALS)
        for control in (self.height_box, self.width_box, self.unit_box):
            control.changed.unblock()
        self._on_change()

    def _on_y(self, value: float) -> None:
        if self._linked and self.width_box.value != value:
            self.width_box.value = value
            return
        self._on_change()

    def _on_x(self, value: float) -> None:
        self._linked = self.height_box.value == value
        self._on_change()

    def _on_change(self) -> None:
        size = self.value
        text = "Unknown: results will be in pixels." if size is None else ""
        self.note.setText(text or f"= {format_nm(size)} per pixel")
        self.changed.emit()
