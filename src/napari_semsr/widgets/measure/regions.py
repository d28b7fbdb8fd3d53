"""Regions drawn or labelled by the user, and measurements in each region."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from magicgui.widgets import ComboBox
from napari.layers import Image, Labels, Layer, Shapes

from napari_semsr import core
from napari_semsr.jobs import crop_to_gap_free_box
from napari_semsr.widgets import layers
from napari_semsr.widgets.base import Columns, VerbPanel

_MAX_REGIONS = 200  # labels and shapes of one layer; chosen: a readable table


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """Copy of a region at the time of the request, in nm or viewer pixels."""

    name: str
    kind: str  # polygon, ellipse or label
    # vertices (N, 2); of a label, the matrix to pixels, (3, 2)
    vertices: core.FloatArray
    labels: core.RealArray | None = None
    label: int = 0

    def get_extent(self) -> tuple[core.FloatArray, core.FloatArray]:
        """Return the smallest and largest ``(y, x)`` of the region."""
        corners = self.vertices
        if self.labels is not None:
            at = np.nonzero(self.labels == self.label)
            low, high = np.min(at, axis=1) - 0.5, np.max(at, axis=1) + 0.5
            ends = np.array(list(product(*zip(low, high, strict=True))))
            to_places = np.linalg.inv(self.vertices[:2])
            corners = ends @ to_places.T + self.vertices[2]
        return corners.min(axis=0), corners.max(axis=0)

    def contains(self, places: core.FloatArray) -> core.BoolArray:
        """Return a mask (N,) of the positions (N, 2) that are inside the region."""
        if self.labels is not None:
            at = np.rint((places - self.vertices[2]) @ self.vertices[:2].T).astype(int)
            size = np.array(self.labels.shape)
            there = np.all((at >= 0) & (at < size), axis=1)
            is_inside = np.zeros(len(places), bool)
            is_inside[there] = self.labels[tuple(at[there].T)] == self.label
            return is_inside
        if self.kind == "ellipse":
            middle = self.vertices.mean(axis=0)
            axes = (self.vertices[[1, 3]] - self.vertices[0]) / 2
            along = (places - middle) @ np.linalg.inv(axes)
            return np.asarray(np.square(along).sum(axis=1) <= 1)
        from skimage.measure import points_in_poly  # slow to import

        return np.asarray(points_in_poly(places, self.vertices))


def create_region_box(panel: VerbPanel, what: str) -> ComboBox:
    """Add a list of layers with regions; `what` describes their use in the tooltip."""
    return panel.input_layers.create_box(
        "regions",
        "Regions",
        f"A Shapes or Labels layer: {what}",
        layers=lambda: layers.list_user_layers(panel.viewer, Shapes, Labels),
        none="none: whole field",
    )


def read_regions(panel: VerbPanel, layer: Layer | None, image: Image) -> list[Region]:
    """Read all regions of a layer in the plane of an image."""
    if layer is None:
        return []
    scale = layers.get_drawing_scale(layer, image)
    if isinstance(layer, Labels):
        here = layers.get_displayed_plane(layer, panel.viewer.dims)
        plane = np.asarray(layers.get_finest_level(layer)[here])
        linear, shift = layers.get_display_transform(layer)
        to_places = scale[:, None] * linear / layers.get_display_fit(image)[0]
        shift = layers.world_to_layer(image, shift) * scale
        place = np.vstack([np.linalg.inv(to_places), shift])
        names = np.unique(plane)
        regions = [
            Region(f"label {name}", "label", place, plane, int(name))
            for name in names[names != 0].tolist()
        ]
    else:
        regions = []
        for index in layers.find_visible_shapes(layer, panel.viewer.dims):
            kind, shape = layer.shape_type[index], layer.data[index]
            world = [layer.data_to_world(vertex)[-2:] for vertex in shape]
            vertices = layers.world_to_layer(image, world)
            area = "ellipse" if kind == "ellipse" else "polygon"
            # lines and paths are ignored
            if kind in {"rectangle", "ellipse", "polygon"} and len(vertices) > 2:
                regions.append(Region(f"{kind} {index + 1}", area, vertices * scale))
    if not 0 < len(regions) <= _MAX_REGIONS:
        msg = (
            f"Regions must be 1 to {_MAX_REGIONS} rectangles, ellipses, polygons or "
            f"labels, got {len(regions)} in the displayed plane of {layer.name!r}; "
            "draw some there, or choose 'none'."
        )
        raise core.OptionError(
            msg, code="out-of-range" if regions else "regions-missing"
        )
    return regions


# Pixels inside regions.

_EDGE = 1e-6  # px; tolerance of rounding; chosen
_BAND = 1 << 20  # pixels tested at a time; chosen: 30 MB
Cell = float | int | str | None


def get_region_box(region: Region, image: core.Micrograph) -> core.Box:
    """Return the pixel box that contains a region of an image.

    Raises `ShapeError` if the region is outside the image.
    """
    low, high = ((end - image.origin) / image.scale for end in (region.get_extent()))
    first = np.maximum(np.ceil(low - _EDGE), 0).astype(int)
    last = np.minimum(np.floor(high + _EDGE) + 1, image.shape).astype(int)
    if np.any(last <= first):
        msg = f"Region {region.name} is outside {image.name}; move it onto the image."
        raise core.ShapeError(msg, code="outside-image")
    return core.Box(int(first[0]), int(last[0]), int(first[1]), int(last[1]))


def crop_to_region(
    region: Region, image: core.Micrograph, box: core.Box
) -> core.Micrograph:
    """Crop an image to a box; set pixels centred outside the region to NaN."""
    part = core.crop_to_box(image, box)
    values = np.array(part.data, dtype=np.float64)
    columns = np.arange(part.shape[1])
    step = max(1, _BAND // len(columns))
    for start in range(0, len(values), step):
        rows = np.arange(start, min(start + step, len(values)))
        at = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
        places = np.asarray(at * part.scale + part.origin, dtype=np.float64)
        is_inside = region.contains(places)
        band = values[start : start + step]
        band[~is_inside.reshape(band.shape)] = np.nan
    return part.replace(data=values)


def crop_to_inner_rectangle(
    region: Region, *images: core.Micrograph
) -> tuple[core.Micrograph, ...]:
    """Crop images on a common grid to the largest rectangle inside a region."""
    box = get_region_box(region, images[0])
    _, inner = core.run(
        crop_to_gap_free_box(*(crop_to_region(region, image, box) for image in images))
    )
    inner = core.Box.from_shape(box.shape) if inner is None else inner
    there = core.Box.from_shape(inner.shape, (box.y0 + inner.y0, box.x0 + inner.x0))
    return tuple(core.crop_to_box(image, there) for image in images)


def measure_regions(
    regions: Sequence[Region], measure: Callable[[Region], Mapping[str, Cell]]
) -> core.Job[Mapping[str, Columns]]:
    """Measure each region; on failure, note the reason in its row."""
    if not regions:
        return {}
    rows: list[Mapping[str, Cell]] = []
    for number, region in enumerate(regions):
        yield core.Progress(number, len(regions), f"measuring in {region.name}")
        try:
            cells = measure(region)
        except core.SemsrError as error:
            cells = {"note": str(error)}
        rows.append({"region": region.name, **cells})
    heads = list(dict.fromkeys(name for row in rows for name in row))
    heads.sort(key="note".__eq__)
    return {"Regions": {name: [row.get(name) for row in rows] for name in heads}}


_PART = "measured part"
_APART_PX = 0.5  # beyond this, another pixel is the nearest
_COLOUR = "#ff8fd8"  # does not occur in viridis: visible on a map


def read_image_pair(
    panel: VerbPanel, first: Image, second: Image | None = None
) -> list[core.Micrograph]:
    """Read a layer and, if given, a second one of the same shape and position."""
    pair = [first] if second is None else [first, second]
    images = [panel.input_layers.read(layer) for layer in pair]
    shapes = [image.shape for image in images]
    if shapes[0] != shapes[-1]:
        msg = (
            f"Both images must have the same shape, got {core.format_shape(shapes[0])} "
            f"and {core.format_shape(shapes[1])}; crop them to a common grid in the "
            "panel Open, under Crop."
        )
        raise core.ShapeError(msg, code="sizes-differ")
    pitch = np.array(images[0].scale)
    off = np.abs(np.subtract(images[-1].origin, images[0].origin)) / pitch
    if images[0].unit == images[-1].unit and off.max() > _APART_PX:
        msg = (
            f"Both images must be at the same position, but {pair[-1].name!r} is "
            f"shifted by {core.format_number(off[0])} px vertically and "
            f"{core.format_number(off[1])} px horizontally from {first.name!r}; "
            "align them on a common grid in the panel Open, under Crop."
        )
        raise core.ShapeError(msg, code="origins-differ")
    return images


def format_measured_area_note(part: core.Micrograph) -> str:
    """Return a note that states the shape of the measured part."""
    return f"in the largest gap-free rectangle, {core.format_shape(part.shape)}"


def show_area_outlines(
    panel: VerbPanel, parts: Mapping[Layer, Sequence[core.Micrograph]]
) -> Iterator[None]:
    """Outline the measured areas of layers, replacing the panel's earlier outlines.

    Layers removed in the meantime get no outline.
    """
    with panel.result_layers.replace_earlier(_PART) as earlier:
        yield from panel.result_layers.remove_earlier(earlier)
        present = [(layer, of) for layer, of in parts.items() if of]
        there = dict(one for one in present if one[0] in panel.viewer.layers)
        outlines = [one for of in there.values() for one in of]
        if outlines:
            first = outlines[0]
            grids = map(core.Grid.from_image, outlines)
            ends = np.array([[grid.corner, grid.end] for grid in grids])
            panel.viewer.add_shapes(
                list((ends - first.origin) / first.scale),
                shape_type="rectangle",
                name=f"{panel.title}: {_PART}",
                edge_color=_COLOUR,
                edge_width=max(1.0, max(first.shape) / 150),
                face_color="transparent",
                **layers.create_overlay_keywords(first, panel.title, next(iter(there))),
            )
            yield
