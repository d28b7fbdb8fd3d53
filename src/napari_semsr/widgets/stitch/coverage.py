"""Coverage: the number of frames at each pixel, as a layer over the mosaic."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from magicgui.widgets import CheckBox
from napari.layers import Image, Layer
from napari.utils.colormaps import Colormap, ensure_colormap
from qtpy.QtCore import QObject

from napari_semsr.io import BAR_KEY, COVERAGE, HELPER_KEY, STORE_KEY, get_label_path
from napari_semsr.widgets import base
from napari_semsr.widgets.layers import MARK_KEY, get_identity, show_colour_bar

_NAME = COVERAGE


def get_coverage_path(layer: Layer | None) -> Path | None:
    """Return the path of the coverage stored with a mosaic, or None."""
    store = None if layer is None else layer.metadata.get(STORE_KEY)
    path = get_label_path(Path(store), _NAME) if store else None
    return path if path is not None and path.exists() else None


class Coverage(QObject):
    """Tick box that shows the coverage of a panel's mosaic as an overlay."""

    def __init__(
        self, panel: base.VerbPanel, mosaic: Callable[[], Image | None]
    ) -> None:
        super().__init__(panel)
        self._panel, self._mosaic = panel, mosaic
        tip = "Overlay the mosaic with the number of frames at each pixel."
        self.tick = CheckBox(name=_NAME, text="Show coverage", tooltip=tip)
        self._of: Image | None = None
        self._runner = base.JobRunner(self)
        self._runner.failed.connect(panel.messages.show_problem)
        self.tick.changed.connect(self.show)

    def show(self, _: object = None) -> None:
        """Show the coverage over the mosaic, or remove it if the box is unticked."""
        layers, mosaic = self._panel.viewer.layers, self._mosaic()
        earlier = [item for item in layers if item.metadata.get(HELPER_KEY) == _NAME]
        self._panel.history.remove_layers(earlier)
        if not self.tick.value or mosaic is None:
            return
        path = get_coverage_path(mosaic)
        if mosaic not in layers or path is None:
            self.tick.value = False
            reason = "was removed" if mosaic not in layers else "has no coverage"
            self._panel.messages.show_status(f"The mosaic {reason}; stitch it again.")
            return
        self._of = mosaic
        make, show = partial(base.open_store, path), self._add_coverage_layer
        self._runner.start("Show coverage", base.JobRequest(make, show))

    def _add_coverage_layer(self, opened_store: base.OpenedImage) -> None:
        """Add a layer with one colour per frame count, transparent where uncovered."""
        viewer, mosaic = self._panel.viewer, self._of
        is_off = not base.is_alive(self) or not self.tick.value
        if is_off or mosaic is None or mosaic not in viewer.layers:
            return
        levels = [item.data for item in opened_store.levels]
        most = max(1, int(np.max(np.asarray(levels[-1]))))
        colours = ensure_colormap("viridis").map(np.linspace(0.2, 1, most))
        active = viewer.layers.selection.active
        many = len(levels) > 1
        layer = viewer.add_image(
            levels if many else levels[0],
            multiscale=many,
            name=f"{mosaic.name} \N{MIDDLE DOT} {_NAME}",
            colormap=Colormap([(0, 0, 0, 0), *colours], name="frames"),
            contrast_limits=(0, most),
            interpolation2d="nearest",
            opacity=0.5,  # over the mosaic
            blending="translucent",
            scale=mosaic.scale,
            translate=mosaic.translate,
            units=mosaic.units,
            axis_labels=mosaic.axis_labels,
            metadata={HELPER_KEY: _NAME, BAR_KEY: True, MARK_KEY: get_identity(mosaic)},
            cache=False,
        )
        show_colour_bar(layer)
        viewer.layers.selection.active = active
