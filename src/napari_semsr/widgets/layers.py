"""Between napari layers and micrographs: calibration travels both ways."""

import itertools
import re
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from napari.components import Dims, ViewerModel
from napari.layers import Image, Labels, Layer, Shapes
from numpy.typing import ArrayLike, NDArray

from napari_semsr.core import (
    BITS_KEY,
    ORIGIN_KEY,
    SIZE_ERROR_KEY,
    Box,
    DisplaySettings,
    InputRecord,
    Micrograph,
    OptionError,
    Provenance,
    ShapeError,
    contrast_limits,
    parse_pixel_size,
    size_origin,
    software_versions,
)
from napari_semsr.io import (
    BAR_KEY,
    HELPER_KEY,
    LIVE_KEY,
    NETWORK_KEY,
    READ_KEY,
    SAVED_KEY,
    STORE_KEY,
    as_grey,
    layer_attributes,
    luminance,
)
from napari_semsr.widgets import host

_EDIT = "edit"  # a step of another program's, in whatever way
_MADE_OF_ANOTHER = ("enhance", "restore", "degrade", "blend", _EDIT)
_DRAWN = "specimen"
_TRUTH = re.compile(r"truth|reference|\bgt\b|\bclean\b", re.IGNORECASE)

NO_IMAGE = "An image layer must be chosen; open one with Open mosaic or a sample."
"""What a panel says where none is."""
_TOLERANCE = 1e-6  # by which scales are equal; chosen
_FILLED = 0.95  # of the canvas, as napari's own button fills it
_MOST_CLASSES = 256  # chosen: a record of some kilobytes


_DOT = " \N{MIDDLE DOT} "
_LEFT_OUT = "\N{HORIZONTAL ELLIPSIS}"
_LAST = 2  # steps that a name tells, with the image that all began with


def result_name(viewer: ViewerModel, source: str, step: str) -> str:
    """Name what a step makes of a layer, as no layer is named yet.

    A model or method follows the name of the source (``mosaic · ssum-sem``), then a
    number from 2 where there is such a layer. Of many steps the last two are told; the
    history of a layer has all.
    """
    first, *steps = f"{source}{_DOT}{step}".split(_DOT)
    if len(steps) > _LAST:
        steps = [_LEFT_OUT, *steps[-_LAST:]]
    return free_name(viewer, _DOT.join([first, *steps]))


def free_name(viewer: ViewerModel, name: str) -> str:
    """Give a name that no layer has: this one, or with a number from 2."""
    names_in_use = {item.name for item in viewer.layers}
    names = itertools.chain([name], (f"{name} {n}" for n in itertools.count(2)))
    return next(item for item in names if item not in names_in_use)


def nm_per_unit(unit: object) -> float | None:
    """Convert a layer's unit to nanometres.

    Gives nanometres in one unit; None when it is no length (``pixel``).
    """
    import pint

    registry: Any = pint.get_application_registry()  # type: ignore[no-untyped-call]
    quantity = registry.Quantity(1.0, str(unit))
    if not quantity.check("[length]"):
        return None
    return float(f"{quantity.to('nm').magnitude:.12g}")  # a µm is 1000 nm to pint


def nm_of(layer: Layer) -> NDArray[np.float64]:
    """Give the nm in one unit of a layer along y and x; 1 where that is no length."""
    return np.array([nm_per_unit(unit) or 1.0 for unit in layer.units[-2:]])


def gain_of(layer: Layer) -> NDArray[Any]:
    """How many times as large as its scale says pixels are, by napari's transform."""
    gain: NDArray[Any] = np.linalg.norm(layer.affine.linear_matrix[-2:, -2:], axis=0)
    return gain / fit_of(layer)[0]


_FIT_KEY = "semsr fit to the field"
"""Entry of a layer's metadata: factor and shift (y, x) of `fit_to_field`."""


def fit_to_field(layer: Layer, factor: float, shift: ArrayLike) -> None:
    """Enlarge and move a layer without a pixel size for the eye alone.

    Its place is ``factor * place + shift`` in the units of the world. No size, place or
    measure of the layer changes: they are read by `placed_by` and `gain_of`.
    """
    release_fit(layer)
    layer.affine = _enlarging(layer, factor, shift) @ layer.affine.affine_matrix
    layer.metadata[_FIT_KEY] = [float(factor), *map(float, np.asarray(shift))]


def release_fit(layer: Layer) -> None:
    """Show a layer by its own pixels again."""
    factor, shift = fit_of(layer)
    if layer.metadata.pop(_FIT_KEY, None) is not None:
        fit = _enlarging(layer, factor, shift)
        layer.affine = np.linalg.inv(fit) @ layer.affine.affine_matrix


def fit_of(layer: Layer) -> tuple[float, NDArray[np.float64]]:
    """Factor and shift (y, x) by which `fit_to_field` shows a layer; 1 and 0 if none.

    What napari's button *Reset transform* resets is not fitted any more.
    """
    fit = layer.metadata.get(_FIT_KEY)
    plain = np.array_equal(layer.affine.affine_matrix, np.eye(layer.ndim + 1))
    if fit is None or plain or is_calibrated(layer):
        return 1.0, np.zeros(2)
    factor, *shift = fit
    return float(factor), np.array(shift, dtype=float)


def _enlarging(layer: Layer, factor: float, shift: ArrayLike) -> NDArray[np.float64]:
    matrix = np.eye(layer.ndim + 1)
    matrix[[-3, -2], [-3, -2]] = factor
    matrix[-3:-1, -1] = shift
    return matrix


def fitted_as(layer: Layer) -> dict[str, Any]:
    """Keywords of a plane that is shown where a layer is, fitted or not."""
    if fit_of(layer)[0] == 1:
        return {}
    fit = layer.metadata[_FIT_KEY]
    plane = np.eye(3)
    plane[[0, 1], [0, 1]], plane[:2, 2] = fit[0], fit[1:]
    return {"affine": plane, "metadata": {_FIT_KEY: list(fit)}}


def own_places(layer: Layer, world: ArrayLike) -> NDArray[np.float64]:
    """Turn places (N, 2) of the world into those of a layer as if it was not fitted."""
    factor, shift = fit_of(layer)
    return (np.asarray(world, dtype=float) - shift) / factor


def world_places(layer: Layer, own: ArrayLike) -> NDArray[np.float64]:
    """Turn places (N, 2) of a layer back into those of the world it is shown in."""
    factor, shift = fit_of(layer)
    return np.asarray(own, dtype=float) * factor + shift


def placed_by(layer: Layer) -> tuple[NDArray[Any], NDArray[Any]]:
    """Map from the pixels of a plane to its own places: (2, 2) and (2,).

    It is `shown_by` but for what `fit_to_field` did.
    """
    linear, shift = shown_by(layer)
    return linear / fit_of(layer)[0], own_places(layer, shift)


def pitch_of(layer: Layer) -> NDArray[Any]:
    """Pixel size of a layer in nm, or in the pixels that it counts in."""
    pitch: NDArray[Any] = layer.scale[-2:] * gain_of(layer) * nm_of(layer)
    return pitch


def image_layers(viewer: ViewerModel) -> list[Image]:
    """Image layers but for our helpers, in the order of the list."""
    return [
        item
        for item in viewer.layers
        if isinstance(item, Image) and not item.metadata.get(HELPER_KEY)
    ]


def grey_layers(viewer: ViewerModel) -> list[Image]:
    """Image layers that are to be measured: no spectra and maps of images."""
    return [item for item in image_layers(viewer) if not is_map(item)]


def is_map(layer: Layer) -> bool:
    """Whether a layer is a map of an image, or its spectrum.

    Its history tells, which goes with it into every file.
    """
    history = provenance_of(layer) if isinstance(layer, Image) else None
    return history is not None and history.quantity("nm") is not None


def step_before(layer: Layer) -> str | None:
    """Name the job that a layer comes from, but for crops and copies."""
    history = provenance_of(layer)
    return None if history is None else history.essence().job


def jobs_of(layer: Layer) -> set[str]:
    """Name the jobs that made a layer of what was taken, but for crops and copies."""
    history = provenance_of(layer)
    jobs = set() if history is None else {step.job for step in history.steps()}
    return jobs - {"crop", "convert"}


def is_stitched(layer: Layer) -> bool:
    """Whether a layer, or what it was made of, was blended from frames."""
    history = provenance_of(layer)
    return history is not None and any(step.job == "stitch" for step in history.steps())


def is_superlens(layer: Layer) -> bool:
    """Whether a layer shows what frames of a superlens show, however it was moved.

    What a network made of that is another kind of image.
    """
    return is_stitched(layer) and network_of(layer) is None


def is_truth(layer: Layer) -> bool:
    """Whether a layer is what others are to be compared with, by name or history."""
    return step_before(layer) == _DRAWN or bool(_TRUTH.search(layer.name))


def is_exposure(layer: Layer) -> bool:
    """Whether a layer was taken, and not made of another one or drawn."""
    is_derived = step_before(layer) in _MADE_OF_ANOTHER or layer.metadata.get(LIVE_KEY)
    return not is_derived and not is_truth(layer)


def on_one_grid(first: Layer, second: Layer) -> bool:
    """Whether two layers have the same pixels at the same place, as they are shown."""
    sizes = (layer.extent.data[:, -2:] for layer in (first, second))
    return np.array_equal(*sizes) and on_one_place(first, second, _TOLERANCE)


def on_one_place(first: Layer, second: Layer, near: float) -> bool:
    """Whether two layers cover the same area, whatever their pixels.

    `near`: by which share of a side corners that lie on each other may differ.
    """
    places, others = map(_corners, (first, second))
    apart = np.abs(places - others).max()
    alike = first.units[-2:] == second.units[-2:]
    return alike and bool(apart <= near * np.ptp(places, axis=0).max())


def _corners(layer: Layer) -> NDArray[Any]:
    """Find where three outer corners of a plane are shown, (3, 2)."""
    ends = np.zeros((3, layer.ndim))
    ends[1:, -2:] = np.diag(layer.extent.data[1][-2:] + 1)
    ends[:, -2:] -= 0.5
    return np.array([layer.data_to_world(end)[-2:] for end in ends])


def shown_by(layer: Layer) -> tuple[NDArray[Any], NDArray[Any]]:
    """Map from the pixels of a plane to where they are shown: (2, 2) and (2,)."""
    shift = np.asarray(layer.data_to_world(np.zeros(layer.ndim)), dtype=float)
    ends = [np.asarray(layer.data_to_world(axis)) for axis in np.eye(layer.ndim)[-2:]]
    return np.stack(ends, axis=1)[-2:] - shift[-2:, None], shift[-2:]


def is_turned(layer: Layer) -> bool:
    """Whether a layer is shown turned, sheared or flipped."""
    linear, _ = shown_by(layer)
    scale = np.diag(linear)
    off = np.abs(linear - np.diag(scale)).max()
    return bool(off > _TOLERANCE * np.abs(linear).max() or np.any(scale <= 0))


def _plain_transform(layer: Layer) -> tuple[NDArray[Any], NDArray[Any]]:
    """Scale and translation of a layer, unless it is turned, sheared or flipped."""
    if is_turned(layer):
        msg = (
            f"Layer {layer.name!r} must not be rotated, sheared or flipped to be "
            "measured or saved, since its pixels do not lie where they are shown: "
            "choose it as Moving in Register to SEM and press Take it as it is shown, "
            "or reset its transform."
        )
        raise ShapeError(msg, code="layer-turned")
    linear, shift = placed_by(layer)
    scale = np.diag(linear)
    if np.allclose(scale, layer.scale[-2:], rtol=1e-9, atol=0):
        scale = np.asarray(layer.scale[-2:], dtype=float)  # which has all digits
    if fit_of(layer)[0] != 1 and np.allclose(shift, layer.translate[-2:]):
        shift = np.asarray(layer.translate[-2:], dtype=float)
    return scale, shift


def finest(layer: Layer) -> Any:
    """Level 0 of a layer, of one that has no levels its data."""
    return layer.data[0] if getattr(layer, "multiscale", False) else layer.data


def pixels_at(layer: Layer, places: Any, dims: Dims) -> NDArray[Any]:
    """Give the pixels of a layer at places of its viewer, in the units all share."""
    import pint

    points, own = np.array(places, dtype=float)[:, -layer.ndim :], layer.units
    units = (dims.units or ())[-layer.ndim :]
    if len(units) == layer.ndim:
        registry: Any = pint.get_application_registry()  # type: ignore[no-untyped-call]
        base = registry.get_base_units
        points *= [base(x)[0] / base(y)[0] for x, y in zip(units, own, strict=True)]
    return np.array([layer.world_to_data(point) for point in points])


def _place_shown(layer: Layer, dims: Dims | None) -> NDArray[Any]:
    """Where a viewer stands along the leading axes of a layer; 0 where unknown."""
    lead = layer.ndim - 2
    if dims is None or dims.ndim < layer.ndim:
        return np.zeros(lead, dtype=int)
    place: NDArray[Any] = np.rint(pixels_at(layer, [dims.point], dims)[0, :lead])
    return place.astype(int)


def plane_at(layer: Image | Labels, dims: Dims | None) -> tuple[int, ...]:
    """Place of the plane of a layer that a viewer shows, of the first where unknown."""
    if layer.ndim < 2:
        msg = f"Layer {layer.name!r} must be an image of two or more axes, got one."
        raise ShapeError(msg, code="axis-missing")
    last = np.array(finest(layer).shape[: layer.ndim - 2], dtype=int) - 1
    return tuple(np.clip(_place_shown(layer, dims), 0, last).tolist())


def shapes_in_view(shapes: Shapes, dims: Dims) -> list[int]:
    """Give the indices of shapes on the plane in view; flat ones lie on all."""
    place = _place_shown(shapes, dims)
    return [
        index
        for index, vertices in enumerate(shapes.data)
        if np.all(np.rint(vertices[:, :-2]) == place)
    ]


def say_plane(layer: Image, place: Sequence[int]) -> str:
    """Name a plane of a stack, such as ``plane t = 3 of 10``; no other layer's."""
    counts = finest(layer).shape[: layer.ndim - 2]
    places_text = ", ".join(
        f"{axis + ' = ' if axis.isalpha() and axis != 'plane' else ''}{i + 1} of {n}"
        for axis, i, n in zip(layer.axis_labels, place, counts, strict=False)
    )
    return f"plane {places_text}" if places_text else ""


def named_with_plane(layer: Image, place: Sequence[int]) -> str:
    """Name a layer and, of a stack, its plane."""
    return ", ".join(filter(None, (layer.name, say_plane(layer, place))))


def _grey(layer: Layer, plane: Any) -> Any:
    """Take a plane ``(Y, X)`` or ``(Y, X, 3)`` as grey; refuse colour."""
    grey = as_grey(plane)
    if grey is None:
        msg = (
            f"Layer {layer.name!r} must be a grey image, got colour; right-click it in "
            "the list of layers and take Split RGB, or open its file with Open mosaic "
            "and take its luminance there."
        )
        raise ShapeError(msg, code="colour-image")
    return grey


class _Luminance:
    """Luminance of a plane ``(Y, X, S)``, of the parts of it that are read."""

    def __init__(self, samples: Any) -> None:
        self._samples = samples
        self.shape, self.dtype = samples.shape[:2], samples.dtype

    @property
    def chunks(self) -> Any:
        """Chunks of both axes; None where it has none."""
        chunks = getattr(self._samples, "chunks", None)
        return None if chunks is None else chunks[:2]

    def __getitem__(self, part: Any) -> Any:
        return luminance(self._samples[part][..., :3])


def record_of(layer: Layer) -> dict[str, Any]:
    """Read what a layer carries of the image that it shows; of others' layers nothing.

    Another program may have put anything there.
    """
    record = layer.metadata.get("micrograph")
    return record if isinstance(record, dict) else {}


def vendor_of(layer: Layer) -> str | None:
    """Name the maker of the electron microscope, where a layer's file did."""
    return record_of(layer).get("vendor")


def inputs_of(layer: Layer) -> set[str]:
    """Names of the images that a layer was made of."""
    history = provenance_of(layer)
    return (
        set() if history is None else {item.name for item in history.essence().inputs}
    )


def provenance_of(layer: Layer) -> Provenance | None:
    """Read the history that a layer carries."""
    record = record_of(layer).get("provenance")
    if isinstance(record, Provenance) or record is None:
        return record
    try:
        return Provenance.model_validate(record)
    except ValueError:
        return None


def note_edit(layer: Layer, *, of: Layer | None = None) -> None:
    """Say in the history of an image that its pixels were replaced by another.

    Our own results write theirs afterwards. `of`: the layer that they were made of, if
    it is another one.
    """
    source = layer if of is None else of
    history = provenance_of(source)
    helper = not isinstance(layer, Image) or layer.metadata.get(HELPER_KEY)
    if helper or (history and history.job == _EDIT):
        return
    before = {"name": source.name, "provenance": history, "path": file_of(source)}
    edit_history = Provenance(
        job=_EDIT,
        inputs=(InputRecord(role="image", **before),),
        versions=software_versions(),
    )
    metadata = {"provenance": edit_history.model_dump(mode="json")}
    layer.metadata["micrograph"] = record_of(layer) | metadata


def network_of(layer: Layer) -> str | None:
    """Name the model that made a layer, or anything upstream of it; None if none."""
    history = provenance_of(layer)
    network = None if history is None else history.network()
    if network is not None:
        return network[0]
    mark = layer.metadata.get(NETWORK_KEY)
    return str(mark["model"]) if isinstance(mark, dict) and "model" in mark else None


def planes_of(layer: Image | Labels) -> list[Micrograph]:
    """Read all planes of a layer, one after another."""
    counts = finest(layer).shape[: layer.ndim - 2]
    return [micrograph_from_layer(layer, plane=place) for place in np.ndindex(counts)]


def micrograph_from_layer(
    layer: Image | Labels | None,
    dims: Dims | None = None,
    *,
    plane: tuple[int, ...] | None = None,
    is_unturned: bool = False,
    colour: bool = False,
) -> Micrograph:
    """Read a layer as it is shown: its plane, its calibration, its history.

    Gives level 0, lazy when the layer is; uncalibrated when the layer's units are
    pixels. `is_unturned`: by scale and translation alone, whatever else is done to it;
    `colour`: one in colour as its luminance, which is read in parts.
    """
    if layer is None:
        raise ShapeError(NO_IMAGE, code="missing-value")
    if layer.metadata.get(LIVE_KEY):
        msg = (
            f"Layer {layer.name!r} is only partly enhanced; let Enhance finish the "
            "whole field first."
        )
        raise ShapeError(msg, code="incomplete")
    if is_unturned:
        scale, shift = layer.scale[-2:], layer.translate[-2:]
    else:
        scale, shift = _plain_transform(layer)
    has_size = is_calibrated(layer)
    k = nm_of(layer) if has_size else np.ones(2)
    pitch, origin = scale * k, shift * k
    plane_values = finest(layer)[plane_at(layer, dims) if plane is None else plane]
    if not hasattr(plane_values, "dask"):
        plane_values = np.asanyarray(plane_values)  # with its mask
    as_colour = colour and isinstance(layer, Image) and layer.rgb
    bits = {k: v for k, v in record_of(layer).items() if k == BITS_KEY}
    return Micrograph(
        data=_Luminance(plane_values) if as_colour else _grey(layer, plane_values),
        pixel_size_nm=parse_pixel_size(tuple(pitch)) if has_size else None,
        name=layer.name,
        provenance=provenance_of(layer),
        origin=(float(origin[0]), float(origin[1])),
        spacing_px=(1.0, 1.0) if has_size else (float(pitch[0]), float(pitch[1])),
        metadata=size_facts_of(layer) | bits,
        path=file_of(layer),
    )


def size_facts_of(layer: Layer) -> dict[str, Any]:
    """Read the error of a layer's pixel size and what stated it.

    Another program, or napari's own controls, may have given it a scale since.
    """
    about = record_of(layer)
    facts = {k: about[k] for k in (SIZE_ERROR_KEY, ORIGIN_KEY) if k in about}
    if not is_calibrated(layer):
        return {k: v for k, v in facts.items() if k != ORIGIN_KEY}
    pitch, origin_record = pitch_of(layer), about.get(ORIGIN_KEY) or {}
    sizes = (origin_record.get("pixel_size_nm"), about.get("pixel_size_nm"))
    if not any(size and np.allclose(size, pitch) for size in sizes):
        size = float(pitch[0]), float(pitch[1])
        facts[ORIGIN_KEY] = size_origin("by the scale of its layer in napari", size)
    return facts


def file_of(layer: Layer) -> str | None:
    """File that a layer shows as it is, if there is one that stays."""
    about = layer.metadata
    store_opened = about.get(STORE_KEY) if READ_KEY in about else None
    file_name = about.get(SAVED_KEY) or store_opened
    if file_name is None and step_before(layer) != _EDIT:
        file_name = layer.source.path
    return None if file_name is None else Path(file_name).absolute().as_posix()


TYPED_SIZE = "typed by the user in napari"


def apply_pixel_size(
    layer: Layer,
    size_nm: ArrayLike,
    error_nm: ArrayLike | None = None,
    *,
    origin: dict[str, Any] | None = None,
) -> None:
    """Calibrate a layer in place; layers over it must be calibrated alike.

    `origin`: what stated the size, as of `size_origin`; typed here if not given.
    """
    share = None if error_nm is None else np.divide(error_nm, size_nm).tolist()
    size = np.asarray(size_nm, dtype=float)
    size_source = origin or size_origin(TYPED_SIZE, (float(size[0]), float(size[1])))
    note_size_facts(layer, {SIZE_ERROR_KEY: share, ORIGIN_KEY: size_source})
    resize_pixels(layer, size_nm, ("nm", "nm"))


def resize_pixels(layer: Layer, size: ArrayLike, units: Sequence[Any]) -> None:
    """Give a layer pixels of a size in some units; its first one keeps its place."""
    fit = layer.metadata.get(_FIT_KEY)
    release_fit(layer)
    if fit is not None:  # has no effect with a pixel size; undoing the size needs it
        layer.metadata[_FIT_KEY] = fit
    old = np.asarray(layer.scale, dtype=float)
    scale, translate = old.copy(), np.asarray(layer.translate, dtype=float).copy()
    scale[-2:] = size / gain_of(layer)
    ratio = scale[-2:] / old[-2:]
    translate[-2:] *= ratio
    affine = np.array(layer.affine.affine_matrix)
    affine[-3:-1, -1] *= ratio
    layer.scale, layer.translate, layer.affine = scale, translate, affine
    layer.units = (*layer.units[:-2], *units)


def note_size_facts(layer: Layer, facts: dict[str, Any]) -> None:
    """Note how sure a layer's pixel size is and what stated it, or nothing of both."""
    keys = (SIZE_ERROR_KEY, ORIGIN_KEY)
    known = {k: v for k, v in record_of(layer).items() if k not in keys}
    layer.metadata["micrograph"] = known | facts


def layer_keywords(
    micrograph: Micrograph, *, levels: Sequence[Any] | None = None, **extra: Any
) -> dict[str, Any]:
    """Keywords with which ``viewer.add_image`` shows a micrograph calibrated."""
    keywords = layer_attributes(micrograph)
    data = micrograph.data if levels is None else list(levels)
    if any(hasattr(item, "dask") for item in levels or [micrograph.data]):
        keywords["cache"] = False
    keywords |= extra
    if "contrast_limits" not in keywords:
        keywords["contrast_limits"] = contrast_limits(data)
    return keywords


def look_of(layer: Image | Labels) -> DisplaySettings:
    """Read how a layer is shown."""
    if isinstance(layer, Labels):
        return _look_of_labels(layer)
    from napari.utils.colormaps import ALL_COLORMAPS, Colormap

    colormap: Any = layer.colormap
    is_known = colormap.name.startswith("#") or colormap.name in ALL_COLORMAPS
    even = colormap == Colormap(colormap.colors, name=colormap.name)
    low, high = layer.contrast_limits
    return DisplaySettings(
        limits=(float(low), float(high)),
        colormap=colormap.name,
        colours=() if is_known else colormap.colors.tolist(),
        places=() if is_known or even else colormap.controls.tolist(),
        gamma=float(layer.gamma),
        opacity=float(layer.opacity),
        blending=str(layer.blending),
        interpolation=str(layer.interpolation2d),
        colour_bar=bool(layer.colorbar.visible),
    )


def _look_of_labels(layer: Labels) -> DisplaySettings:
    """Read colours and meanings of the values that a layer has."""
    values = np.unique(np.asarray(layer.data))
    if len(values) > _MOST_CLASSES:
        msg = (
            f"Layer {layer.name!r} must have up to {_MOST_CLASSES} values to be saved "
            f"with their colours, got {len(values)}; right-click it and take Convert "
            "to Image."
        )
        raise OptionError(msg, code="too-many-values")
    features = layer.features.drop(columns="index", errors="ignore")
    index = layer.features.get("index", layer.features.index)
    rows = zip(
        index, features.iloc[:, 0] if len(features.columns) else [], strict=False
    )
    meanings = {int(value): str(text) for value, text in rows}
    label_values, classes = sorted({*values.tolist(), *meanings}), []
    for value in label_values:
        colour = layer.get_color(value)  # RGBA from 0 to 1, or None for none
        parts = np.zeros(4) if colour is None else np.asarray(colour)
        spelt = "".join(f"{round(255 * float(part)):02x}" for part in parts)
        classes.append((value, f"#{spelt}", meanings.get(value, "")))
    return DisplaySettings(
        limits=(0.0, float(max(1, *label_values))),
        classes=tuple(classes),
        opacity=float(layer.opacity),
        blending=str(layer.blending),
    )


def show_colour_bar(layer: Layer) -> None:
    """Show the bar of a layer that is read by one, and above it its name and unit."""
    for _ in colour_bar_parts(layer):
        pass


def colour_bar_parts(layer: Layer) -> Iterator[None]:
    """Do the same in two parts: napari draws each letter anew when it is first used."""
    if isinstance(layer, Image) and layer.metadata.get(BAR_KEY):
        layer.colorbar.visible = True
        yield
        layer.name_overlay.position = layer.colorbar.position
        layer.name_overlay.visible = True


def settle_colour_bars(viewer: ViewerModel) -> None:
    """Show the bar of the topmost map in view alone: they lie in one corner.

    A map that an image covers wholly is not in view.
    """
    maps = [
        item
        for item in viewer.layers
        if isinstance(item, Image) and item.metadata.get(BAR_KEY)
    ]
    images = [item for item in viewer.layers if isinstance(item, Image)]

    def is_in_view(item: Image) -> bool:
        above = images[images.index(item) + 1 :]
        return item.visible and not any(_covers(other, item) for other in above)

    top = next(filter(is_in_view, reversed(maps)), None)
    for item in maps:
        if item is top:
            show_colour_bar(item)
        elif item.colorbar.visible:
            item.colorbar.visible = item.name_overlay.visible = False


def _covers(image: Image, item: Image) -> bool:
    """Whether nothing of an item is seen through an image above it."""
    low, high = image.extent.world[:, -2:]
    start, end = item.extent.world[:, -2:]
    is_opaque = image.visible and image.opacity == 1
    mixes = str(image.blending) in ("additive", "minimum", "multiplicative")
    inside = np.all(low <= start) and np.all(end <= high)
    return bool(is_opaque and not mixes and inside)


def hide_other_maps(viewer: ViewerModel, layer_shown: Layer) -> None:
    """Hide the maps that lie where one is shown; through each other none is read."""
    low, high = layer_shown.extent.world[:, -2:]
    # napari may hand out proxies, alike but not the same
    for item in image_layers(viewer):
        if item != layer_shown and item.visible and is_map(item):
            start, end = item.extent.world[:, -2:]
            if np.all(np.minimum(high, end) > np.maximum(low, start)):
                item.visible = False


def without_cache(layer: Layer) -> None:
    """Let a lazy layer be computed in a thread while napari draws it.

    napari keeps computed chunks in a dask cache that two threads corrupt (dask issue
    10396: `KeyError` in both); from now on the layer is drawn without it.
    """
    if hasattr(finest(layer), "dask"):
        layer.dask_optimized_slicing = nullcontext


def field_in_view(viewer: ViewerModel, layer: Image) -> Box | None:
    """Find what of a layer is on the canvas, whatever units other layers have.

    In pixels of its finest level; None when it is off the canvas.
    """
    dims, camera = viewer.dims, host.camera(viewer)
    half = host.viewbox_size(viewer) / camera.zoom / 2
    corners = np.tile(np.array(dims.point, dtype=float), (4, 1))
    signs = np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)])
    corners[:, list(dims.displayed[-2:])] = camera.center[-2:] + signs * half
    # a pixel ends half a pixel from its middle, but for the last digits
    ends = pixels_at(layer, corners, dims)[:, -2:] + 0.5
    low = np.floor(ends.min(axis=0) + _TOLERANCE)
    high = np.ceil(ends.max(axis=0) - _TOLERANCE)
    (y0, x0), (y1, x1) = np.clip([low, high], 0, layer.level_shapes[0][-2:]).astype(int)
    return Box(int(y0), int(y1), int(x0), int(x1)) if y0 < y1 and x0 < x1 else None


def fill_view(viewer: ViewerModel, layer: Layer) -> None:
    """Fill the view with a layer, wherever the others lie."""
    viewer.reset_view()
    if layer.ndim != viewer.dims.ndim or viewer.dims.ndisplay != 2:
        return
    axes = list(viewer.dims.displayed)
    factor = to_shared_units(viewer, layer)[axes]
    low, high = layer.extent.world[:, axes] * factor
    side = high - low + layer.extent.step[axes] * factor  # to the edges of its pixels
    camera = host.camera(viewer)
    camera.center = tuple((low + high) / 2)
    camera.zoom = _FILLED * np.min(host.viewbox_size(viewer) / side)


def to_shared_units(viewer: ViewerModel, layer: Layer) -> NDArray[np.float64]:
    """Factors from the units of a layer to those that layers share, as the camera."""
    units = (viewer.layers.units or layer.units)[-layer.ndim :]
    pairs = zip(layer.units, units, strict=True)
    return np.array([(nm_per_unit(u) or 1) / (nm_per_unit(v) or 1) for u, v in pairs])


def show_scale_bar(viewer: ViewerModel) -> None:
    """Switch the scale bar on; napari takes its unit from the layers.

    One that is switched on here lies where notifications do not: they cover its usual
    corner.
    """
    bar = host.scale_bar(viewer)
    if not bar.visible:
        bar.position = "bottom_left"
    bar.visible = True
    bar.font_size = 14
    settle_scale_bar(viewer)


def settle_scale_bar(viewer: ViewerModel) -> bool:
    """Take the scale bar away while images have no unit in common; tell whether so."""
    is_mixed = len({is_calibrated(item) for item in grey_layers(viewer)}) > 1
    # not hidden: vispy crashes where that comes before it is drawn
    host.scale_bar(viewer).opacity = float(not is_mixed)
    host.label_scale_bar(viewer)
    return is_mixed


def is_calibrated(layer: Layer) -> bool:
    """Tell whether a layer's pixels have a length."""
    return all(nm_per_unit(unit) is not None for unit in layer.units[-2:])


MARK_KEY = "semsr landmarks"
"""Entry of a layer's metadata: the image on whose pixels it marks something.

Its identity; its name where an earlier version wrote it.
"""
IDENTITY_KEY = "semsr identity"
"""Entry of a layer's metadata: what tells it from all others."""
SOURCES_KEY = "semsr sources"
"""Entry of a layer's metadata: what it was made of, by the names in its history."""


def identity_of(layer: Layer) -> str:
    """Tell a layer from all others, whatever they are called; a project keeps it."""
    return str(layer.metadata.setdefault(IDENTITY_KEY, uuid.uuid4().hex))


def sources_of(layers: Collection[Layer]) -> dict[str, str]:
    """Give the identities of layers, and of what they were made of, by their names."""
    before = [layer.metadata.get(SOURCES_KEY, {}) for layer in layers]
    sources = {name: source for one in before for name, source in one.items()}
    return sources | {layer.name: identity_of(layer) for layer in layers}


def lying_over(image: Micrograph, panel: str, of: Layer) -> dict[str, Any]:
    """Keywords of a layer that lies over an image, and explains a panel's result.

    `of`: the layer that shows the image, or that it is a part of.
    """
    fit = fitted_as(of)
    return {
        **fit,
        "metadata": {
            **fit.get("metadata", {}),
            HELPER_KEY: panel,
            MARK_KEY: identity_of(of),
        },
        "scale": image.scale,
        "translate": image.origin,
        "units": (image.unit, image.unit),
        "axis_labels": ("y", "x"),
    }


def drawn_layers(viewer: ViewerModel, *kinds: type[Layer]) -> list[Any]:
    """Layers of some kinds that the user drew; none that explains a result."""
    return [
        item
        for item in viewer.layers
        if isinstance(item, kinds) and not item.metadata.get(HELPER_KEY)
    ]


DRAWING_KEY = "semsr drawing"
"""Entry of a layer's metadata: it is drawn on, and stays above images that come."""


def draw_lines(viewer: ViewerModel, name: str, width: float, **grid: Any) -> Shapes:
    """Add a layer that lines are drawn on."""
    lines: Shapes = viewer.add_shapes(
        None,
        ndim=2,
        name=name,
        axis_labels=("y", "x"),
        edge_color="#ffd400",
        edge_width=max(1.0, width),
        face_color="transparent",
        metadata={DRAWING_KEY: True},
        **grid,
    )
    return lines


def draw_over(viewer: ViewerModel, image: Layer, name: str) -> Shapes:
    """Add a layer to draw on, in the viewer's plane and the unit of an image."""
    linear, _ = shown_by(image)
    pitch = float(np.sqrt(abs(np.linalg.det(linear))))
    width = (float(np.max(image.extent.data[1][-2:])) + 1) / 400
    grid = {"scale": (pitch, pitch), "units": image.units[-2:]}
    return draw_lines(viewer, free_name(viewer, name), width, **grid)


def nm_of_drawn(layer: Layer, image: Layer) -> NDArray[np.float64]:
    """Factors that turn places of a drawn layer into nm, or px of the viewer.

    napari shows what has no length unit by its bare numbers, as if it had the image's.
    """
    theirs = [nm_per_unit(unit) for unit in image.units[-2:]]
    own = [nm_per_unit(unit) for unit in layer.units[-2:]]
    return np.array(
        [1.0 if k is None else one or k for one, k in zip(own, theirs, strict=True)]
    )


def same_unit(micrographs: Sequence[Micrograph]) -> str:
    """Find the unit that images to be compared share: ``"nm"`` or ``"pixel"``."""
    units = {item.unit for item in micrographs}
    if len(units) > 1:
        bare = [item.name for item in micrographs if item.unit == "pixel"]
        msg = (
            f"Layers shown together must all be calibrated or none, but {bare[0]!r} "
            "has no pixel size; give it one in Open mosaic, under Calibrate a layer."
        )
        raise OptionError(msg, code="pixel-size-missing")
    return units.pop()
