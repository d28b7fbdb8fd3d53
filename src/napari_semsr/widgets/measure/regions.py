"""Regions that a user drew or labelled, and which places lie within."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer, Shapes
from numpy.typing import NDArray

from napari_semsr.core import BoolArray, FloatArray, OptionError
from napari_semsr.io import HELPER_KEY
from napari_semsr.widgets.base import Panel
from napari_semsr.widgets.layers import nm_per_unit, plane_at, shown_by

_MOST = 200  # labels and shapes of one layer; chosen: a table that can be read


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A region as it lay when it was asked for, in nm, or px of the viewer."""

    name: str
    kind: str  # polygon, ellipse or label
    vertices: FloatArray  # (N, 2); of a label how places become pixels, (3, 2)
    labels: NDArray[Any] | None = None
    label: int = 0

    def holds(self, places: FloatArray) -> BoolArray:
        """Tell which of some places (N, 2) lie within."""
        if self.labels is not None:
            at = np.rint((places - self.vertices[2]) @ self.vertices[:2].T).astype(int)
            size = np.array(self.labels.shape)
            there = np.all((at >= 0) & (at < size), axis=1)
            held = np.zeros(len(places), bool)
            held[there] = self.labels[tuple(at[there].T)] == self.label
            return held
        if self.kind == "ellipse":
            middle = self.vertices.mean(axis=0)
            axes = (self.vertices[[1, 3]] - self.vertices[0]) / 2
            along = (places - middle) @ np.linalg.inv(axes)
            return np.asarray(np.square(along).sum(axis=1) <= 1)
        from skimage.measure import points_in_poly  # takes long to import

        return np.asarray(points_in_poly(places, self.vertices))


def region_layers(panel: Panel) -> list[Layer]:
    """Layers of a viewer that can hold regions."""
    return [
        item
        for item in panel.viewer.layers
        if isinstance(item, Shapes | Labels) and not item.metadata.get(HELPER_KEY)
    ]


def read_regions(panel: Panel, layer: Layer | None, image: Image) -> list[Region]:
    """Read all regions of a layer, in the plane that an image is measured in."""
    if layer is None:
        return []
    scale = []
    for own, theirs in zip(layer.units[-2:], image.units[-2:], strict=True):
        factor = nm_per_unit(theirs)
        # napari shows what has no length unit by its bare numbers
        scale.append(1.0 if factor is None else nm_per_unit(own) or factor)
    found = list(
        _labelled(panel, layer, np.array(scale))
        if isinstance(layer, Labels)
        else _drawn(layer, np.array(scale))
    )
    if not 0 < len(found) <= _MOST:
        msg = (
            f"Regions must be 1 to {_MOST} rectangles, ellipses, polygons or labels, "
            f"got {len(found)} in {layer.name!r}; draw some there, or choose 'none'."
        )
        raise OptionError(msg)
    return found


def _drawn(layer: Layer, scale: FloatArray) -> Iterator[Region]:
    """Give the areas of a layer of shapes; lines and paths have none."""
    for number, (kind, shape) in enumerate(
        zip(layer.shape_type, layer.data, strict=True), start=1
    ):
        vertices = np.array([layer.data_to_world(vertex)[-2:] for vertex in shape])
        area = "ellipse" if kind == "ellipse" else "polygon"
        if kind in {"rectangle", "ellipse", "polygon"} and len(vertices) > 2:
            yield Region(f"{kind} {number}", area, vertices * scale)


def _labelled(panel: Panel, layer: Labels, scale: FloatArray) -> Sequence[Region]:
    """Give the labels of the plane that is shown."""
    data = layer.data[0] if layer.multiscale else layer.data
    plane = np.asarray(data[plane_at(layer, tuple(panel.viewer.dims.point))])
    linear, shift = shown_by(layer)
    to_pixels = np.linalg.inv(scale[:, None] * linear)
    place = np.vstack([to_pixels, shift * scale])
    names = np.unique(plane)
    return [
        Region(f"label {name}", "label", place, plane, int(name))
        for name in names[names != 0].tolist()
    ]
