"""Figure: the visible images with a scale bar, for a paper, or the canvas as shown."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from magicgui.widgets import ComboBox
from napari.viewer import Viewer
from qtpy.QtWidgets import QMainWindow

from napari_semsr.core import OptionError
from napari_semsr.io import NETWORK_KEY, write_screenshot
from napari_semsr.jobs import FigureOptions
from napari_semsr.widgets import base

_LARGEST_PX = 4096  # chosen: minimum side of a figure for a page or slide
_MIN_PX = 16  # minimum width of a canvas for a figure
_PAPER = "paper"


class FigurePanel(base.VerbPanel):
    """Panel that saves what is seen as a figure, with its caption."""

    help_place = "figure.md"
    title, run_label = "Figure", "Save figure…"

    def build_form(self) -> None:
        """Build the form."""
        tip = "Save a figure with a scale bar, which states the network of an image."
        self.run_button.setToolTip(tip)
        self.extent = ComboBox(
            name="extent",
            label="Figure of",
            tooltip="Content of the figure.",
            choices=[
                ("images, for a paper", _PAPER),
                ("the canvas as shown", "canvas"),
                ("all visible layers, in full", "full"),
            ],
        )
        self.paper = base.OptionsForm(FigureOptions)
        tip = "Open the crop tool of the panel Open."
        crop_button = base.create_button("Crop an image…", self._open_crop, tip)
        form = base.Form(self.extent)
        self.add_group("Content", form, self.paper, base.Form(crop_button))
        self.extent.changed.connect(
            lambda extent: self.paper.setVisible(extent == _PAPER)
        )

    def _open_crop(self) -> None:
        panel: Any = base.switch_panel(self, self.viewer, "Open")
        panel.crop.set_expanded()
        panel.scroll_area.ensureWidgetVisible(panel.crop)

    def run(self) -> None:
        """Save the view as a figure, with its caption."""
        if self.extent.value == _PAPER:
            self.sharing.save_figure(self.paper.create_options)
            return
        with self.messages.show_errors():
            layers_shown = [item for item in self.viewer.layers if item.visible]
            if not layers_shown:
                msg = "A figure needs a visible layer; make one visible first."
                raise OptionError(msg, code="nothing-visible")
            name = f"{layers_shown[-1].name} figure"
            kinds = {"PNG (*.png)": ".png"}
            path = base.ask_output_file(self, "Save figure", name, kinds)
            if path is None:
                return
            with _hide_handles(self.viewer):
                shot = self._take_screenshot()
            networks = [
                f"{item.name}: output of network {item.metadata[NETWORK_KEY]['model']}"
                for item in layers_shown
                if NETWORK_KEY in item.metadata
            ]
            write_screenshot(np.asarray(shot), path, networks)
            self.messages.notify(f"Figure saved as {path}.")

    def _take_screenshot(self) -> Any:
        if self.extent.value == "full":
            extent = self.viewer.layers.extent
            sides = np.diff(extent.world[:, -2:], axis=0)[0] / extent.step[-2:]
            factor = min(1.0, _LARGEST_PX / float(max(sides)))
            return self.viewer.export_figure(scale_factor=factor, flash=False)
        window = self.window()
        canvas = window.centralWidget() if isinstance(window, QMainWindow) else None
        if canvas is not None and min(canvas.width(), canvas.height()) < _MIN_PX:
            msg = (
                f"The canvas must be at least {_MIN_PX} px wide for a figure, got "
                f"{canvas.width()} px; make the window wider."
            )
            raise OptionError(msg, code="canvas-too-small")
        return self.viewer.screenshot(canvas_only=True, flash=False)


@contextmanager
def _hide_handles(viewer: Viewer) -> Iterator[None]:
    """Hide napari's selection boxes and handles temporarily."""
    before = []
    for layer in viewer.layers:
        selection = set(getattr(layer, "selected_data", ()))
        before.append((layer, layer.mode, selection))
        layer.mode = "pan_zoom"
        if selection:
            layer.selected_data = set()
    try:
        yield
    finally:
        for layer, mode, selection in before:
            layer.mode = mode
            if selection:
                layer.selected_data = selection
