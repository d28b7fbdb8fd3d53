"""What few runs need: memory, a narrower halo, a cluster; folded away."""

from collections.abc import Callable
from typing import Any

from magicgui.widgets import LineEdit
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import QWidget
from superqt import QCollapsible

from napari_semsr.widgets._form import Form, OptionsForm, Row

__all__ = ["Advanced"]

_ROWS = {
    "memory_gb": Row(
        "Memory (GB)",
        "Memory that a run may take, in 10^9 bytes; automatic takes what is free. A "
        "model that looks at the whole field keeps on disk what exceeds it.",
        step=0.5,
    ),
    "halo_tolerance": Row(
        "Halo tolerance",
        "Largest change that pixels beyond a tile's margin may make, over the range of "
        "the result; automatic makes none. 0.001 makes deep models faster.",
        step=0.0001,
    ),
}
_RIGHT = "\N{BLACK RIGHT-POINTING SMALL TRIANGLE}"
_DOWN = "\N{BLACK DOWN-POINTING SMALL TRIANGLE}"
_HEADER = "QPushButton { background: transparent; text-align: left; }"
_SCHEDULER = (
    "Address of a dask scheduler, such as tcp://127.0.0.1:8786, whose workers see the "
    "same files under the same paths; all of the layer is enhanced then, in no order "
    "of view. Empty runs the model in napari itself."
)


class Advanced(QCollapsible):
    """Options that are folded away until they are asked for.

    Parameters
    ----------
    parent : QWidget, optional
        Where it lives.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Advanced", parent)
        from napari_semsr.inference.options import EnhanceOptions

        self.toggleButton().setStyleSheet(_HEADER)
        for choose in (self.setExpandedIcon, self.setCollapsedIcon):
            choose(QIcon())  # the library's own are black on dark
        self.toggled.connect(self._show_state)
        self.form = OptionsForm(EnhanceOptions, _ROWS)
        self._scheduler = LineEdit(name="scheduler")
        self._scheduler.native.setPlaceholderText("none: in napari itself")
        where = Form()
        where.add("scheduler", "Scheduler", self._scheduler, _SCHEDULER)
        for part in (self.form, where):
            self.addWidget(part)
        for box in (self.layout(), self.content().layout()):
            if box is not None:
                box.setContentsMargins(0, 0, 0, 0)
        self.setToolTip("Memory, tolerance and cluster; few runs need them.")
        self.collapse(animate=False)
        self._show_state(False)

    def _show_state(self, unfolded: bool) -> None:
        """Point down where there is something below."""
        self.setText(f"{_DOWN if unfolded else _RIGHT} Advanced")

    @property
    def scheduler(self) -> str | None:
        """Address of a cluster; None where there is none."""
        return str(self._scheduler.value).strip() or None

    @scheduler.setter
    def scheduler(self, address: str | None) -> None:
        self._scheduler.value = address or ""

    def values(self) -> dict[str, Any]:
        """Read the options that are typed now.

        Returns
        -------
        dict
            Values by option name; None where *automatic* is shown.
        """
        return self.form.values()

    def set_values(self, **values: Any) -> None:
        """Type values, and unfold when one of them is not automatic.

        Parameters
        ----------
        **values : object
            By option name; those that are not shown here are left out.
        """
        shown = {name: v for name, v in values.items() if name in self.form.names}
        self.form.set_values(**shown)
        if any(value is not None for value in shown.values()):
            self.expand(animate=False)

    def on_change(self, call: Callable[[Any], None]) -> None:
        """Call something when an option changes.

        Parameters
        ----------
        call : callable
            Receives the new value.
        """
        for name in self.form.names:
            self.form.on_change(name, call)
