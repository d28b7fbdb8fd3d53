"""Two images on one grid compared by eye: added in two colours, or shown in turn."""

from typing import Any

from magicgui.widgets import CheckBox
from napari.layers import Image
from qtpy.QtCore import QTimer
from qtpy.QtGui import QHideEvent

from napari_semsr.widgets.base import Panel
from napari_semsr.widgets.compare import CompareControls

_TURN_MS = 500  # a flash a second, far below what troubles sensitive people
_LEFT, _RIGHT = "magenta", "green"  # together they are white, for every eye


class OverlayControls(CompareControls):
    """Controls for comparing, with an overlay in two colours and a flicker."""

    def __init__(self, panel: Panel) -> None:
        super().__init__(panel)
        self._looks: dict[Image, dict[str, Any]] = {}
        self.overlay = CheckBox(
            name="overlay",
            text="Overlay in two colours",
            tooltip="Add the left layer in magenta and the right one in green: what "
            "both show alike is white or grey, and a fringe tells of a shift. The "
            "colours that they had come back.",
        )
        self.flicker = CheckBox(
            name="flicker",
            text="Flicker",
            tooltip="Show the left and the right layer in turn, each for half a "
            "second: what jumps does not fit.",
        )
        for control in (self.overlay, self.flicker):
            self.add(control)
        self.show_row("strength", False)  # two instruments have no common grey scale
        self._timer = QTimer(self)
        self._timer.setInterval(_TURN_MS)
        self._timer.timeout.connect(self._turn)
        self.overlay.changed.connect(self._put_over)
        self.flicker.changed.connect(self._put_in_turn)

    @property
    def flickers(self) -> bool:
        """Whether the layers are being shown in turn."""
        return self._timer.isActive()

    def hideEvent(self, event: QHideEvent | None) -> None:  # noqa: N802 - Qt's name
        """Stop the flicker where nobody could untick it."""
        super().hideEvent(event)
        if event is not None and not event.spontaneous():
            self.flicker.value = False

    def end(self) -> None:
        """Show all layers as they were before they were compared."""
        super().end()
        self.overlay.value = self.flicker.value = False

    def _again(self, _: Any = None) -> None:
        """Show other layers as the ones before, unless one of these was removed."""
        super()._again()
        for tick in (self.overlay, self.flicker):
            if tick.value:
                tick.value = False
                tick.value = True

    def _split(self, percent: int) -> None:
        if percent:
            self.overlay.value = self.flicker.value = False
        super()._split(percent)

    def _put_beside(self, on: bool) -> None:
        if on:
            self.overlay.value = self.flicker.value = False
        super()._put_beside(on)

    def _choose_two(self, tick: CheckBox) -> bool:
        """Show what is compared, and nothing else; untick where it is not two."""
        left, right = self.left.value, self.right.value
        if left is right or None in (left, right):
            self._panel.show_status("Choose two different layers to compare.")
            tick.value = False
            return False
        for other in (self.overlay, self.flicker, self.beside):
            if other is not tick:
                other.value = False
        self.split.value = 0
        self._pair = (left, right)
        self._alone.show(left, right)
        return True

    def _upper(self) -> Image:
        """Whichever lies above the other."""
        upper: Image = max(self._pair, key=list(self._viewer.layers).index)
        return upper

    def _put_over(self, on: bool) -> None:
        if on and self._choose_two(self.overlay):
            for layer, colour in zip(self._pair, (_LEFT, _RIGHT), strict=True):
                self._colour(layer, colour)
        elif not on:
            for layer, look in self._looks.items():
                for name, value in look.items():
                    setattr(layer, name, value)
            self._looks.clear()
            self._show_all()

    def _colour(self, layer: Any, colour: str) -> None:
        """Draw a layer in one colour, the upper one added to the lower."""
        names = ("colormap", "blending", "opacity")
        self._looks[layer] = {name: getattr(layer, name) for name in names}
        layer.colormap, layer.opacity = colour, 1.0
        over = layer is self._upper()  # a light canvas would add up to white
        layer.blending = "additive" if over else "translucent_no_depth"

    def _put_in_turn(self, on: bool) -> None:
        if on and self._choose_two(self.flicker):
            self._timer.start()
        elif not on:
            self._timer.stop()
            self._show_all()

    def _show_all(self) -> None:
        if not (self.overlay.value or self.flicker.value):
            self._alone.end()
            self._pair = ()

    def _turn(self) -> None:
        """Show the other one."""
        if any(layer not in self._viewer.layers for layer in self._pair):
            self.end()
        elif self._pair:
            upper = self._upper()
            upper.visible = not upper.visible
