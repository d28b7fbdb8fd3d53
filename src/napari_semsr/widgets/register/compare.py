"""Two images on one grid compared by eye: added in two colours, or shown in turn."""

from typing import Any

import numpy as np
from magicgui.widgets import CheckBox
from napari.layers import Image
from qtpy.QtCore import QTimer
from qtpy.QtGui import QHideEvent

from napari_semsr.core import Job, Micrograph, OptionError
from napari_semsr.jobs import difference_of, input_levels
from napari_semsr.widgets.base import Opened, Panel
from napari_semsr.widgets.compare import CompareControls

_TURN_MS = 500  # a flash a second, far below what troubles sensitive people
_LEFT, _RIGHT = "magenta", "green"  # together they are white, for every eye
_WINDOW_PX = 1024  # chosen: read in a moment, and enough to know the grey levels
_BLOCK_PX = 8  # chosen: averages the noise of a pixel to an eighth


def _require_one_scale(first: Micrograph, second: Micrograph) -> Job[None]:
    """Refuse to subtract images whose grey levels have no common scale.

    Their difference varies more than one of them does: it shows less of what differs
    in the sample than that image itself.
    """
    made = difference_of(first, second)
    seen = []
    for image in (first, second):
        levels = yield from input_levels(image, (), made, [made.data])
        rows, columns = (slice(max(0, n - _WINDOW_PX) // 2, None) for n in made.shape)
        part = np.asarray(levels[0][rows, columns][:_WINDOW_PX, :_WINDOW_PX], float)
        down, right = (n // _BLOCK_PX for n in part.shape)
        blocks = part[: down * _BLOCK_PX, : right * _BLOCK_PX].reshape(
            down, _BLOCK_PX, right, _BLOCK_PX
        )
        seen.append(blocks.mean(axis=(1, 3)))
    known = np.isfinite(seen).all(axis=0)
    old, new = (part[known] for part in seen)
    if known.any() and np.mean((new - old) ** 2) > min(old.var(), new.var()):
        msg = (
            f"The grey levels of {first.name} and {second.name} have no common scale, "
            "as of two instruments: their difference would show that alone. Take "
            "Overlay in two colours, Flicker or Before | after."
        )
        raise OptionError(msg)


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

    def _subtracted(self, first: Micrograph, second: Micrograph) -> Job[Opened]:
        """Subtract images of one scale of grey levels; refuse others."""
        yield from _require_one_scale(first, second)
        return (yield from super()._subtracted(first, second))

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
