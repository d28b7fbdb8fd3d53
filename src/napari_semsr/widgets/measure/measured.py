"""What is measured: layers on one grid, of a mosaic the largest part without a gap."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from magicgui.widgets import ComboBox
from napari.layers import Image, Layer

from napari_semsr.core import Grid, Micrograph, ShapeError
from napari_semsr.io import HELPER_KEY
from napari_semsr.widgets.base import TIMES, Panel
from napari_semsr.widgets.layers import grey_layers, is_truth, on_one_grid

_PART = "measured part"
_APART_PX = 0.5  # from here on another pixel is the nearest
_COLOUR = "#ff8fd8"  # which viridis has not, to any eye: it stands out on a map


def propose_truth(panel: Panel, image: ComboBox, reference: ComboBox) -> None:
    """Propose the truth of the chosen image's field as its reference, from now on."""

    def propose(_: object = None) -> None:
        layer, chosen = image.value, reference.value
        kept = chosen not in (None, layer) and on_one_grid(layer, chosen)
        if layer is None or kept:
            return
        found = [
            item
            for item in reversed(grey_layers(panel.viewer))
            if is_truth(item) and not is_truth(layer) and on_one_grid(layer, item)
        ]
        reference.value = next(iter(found), None)

    image.changed.connect(propose)
    propose()


def read_pair(panel: Panel, first: Image, second: Image | None) -> list[Micrograph]:
    """Read a layer and, where one is chosen, another of the same shape."""
    layers = [first] if second is None else [first, second]
    images = [panel.micrograph(layer) for layer in layers]
    shapes = [image.shape for image in images]
    if shapes[0] != shapes[-1]:
        msg = (
            f"Both images must have the same shape, got {shapes[0]} and {shapes[1]} "
            "px; bring them onto one grid in the panel Crop."
        )
        raise ShapeError(msg)
    pitch = np.array(images[0].scale)
    off = np.abs(np.subtract(images[-1].origin, images[0].origin)) / pitch
    if images[0].unit == images[-1].unit and off.max() > _APART_PX:
        msg = (
            f"Both images must lie at one place, but {layers[-1].name!r} is shown "
            f"{off[0]:.4g} px down or up and {off[1]:.4g} px beside "
            f"{layers[0].name!r}; bring them onto one grid in the panel Crop."
        )
        raise ShapeError(msg)
    return images


def say_part(part: Micrograph) -> str:
    """Say that only this part was measured."""
    rows, columns = part.shape
    return f"in the largest gap-free rectangle, {rows} {TIMES} {columns} px"


def show_outline(
    panel: Panel, parts: Mapping[Layer, Sequence[Micrograph]]
) -> Iterator[None]:
    """Outline the parts of layers that a panel measured, instead of its earlier ones.

    Layers that were removed in the meantime have no outline.
    """
    layers = panel.viewer.layers
    active = layers.selection.active
    with panel.in_place(_PART) as earlier:
        yield from panel.take_away(earlier)
        shown = [one for layer, of in parts.items() if layer in layers for one in of]
        if shown:
            _add_outline(panel, shown)
            yield
    layers.selection.active = active


def _add_outline(panel: Panel, shown: list[Micrograph]) -> None:
    first = shown[0]
    ends = np.array([[Grid.of(part).corner, Grid.of(part).end] for part in shown])
    panel.viewer.add_shapes(
        list((ends - first.origin) / first.scale),
        shape_type="rectangle",
        name=f"{panel.title}: {_PART}",
        edge_color=_COLOUR,
        edge_width=max(1.0, max(first.shape) / 150),
        face_color="transparent",
        metadata={HELPER_KEY: panel.title},
        scale=first.scale,
        translate=first.origin,
        units=(first.unit, first.unit),
        axis_labels=("y", "x"),
    )
