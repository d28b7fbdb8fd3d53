"""Convert between napari layers and micrographs, including their calibration."""

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

from napari_semsr import core, io
from napari_semsr.widgets import host

_EDIT = "edit"  # a step of another program
_MADE_OF_ANOTHER = ("adapt", "enhance", "restore", "degrade", "blend", _EDIT)
_SPECIMEN_STEP = "specimen"
_TRUTH = re.compile(r"truth|reference|\bgt\b|\bclean\b", re.IGNORECASE)

_TOLERANCE = 1e-6  # relative tolerance between equal scales; chosen
_FILL_SHARE = 0.95  # share of the canvas, as with napari's Home button
_MAX_CLASSES = 256  # chosen: a record of a few kilobytes


_DOT = " \N{MIDDLE DOT} "
_LEFT_OUT = "\N{HORIZONTAL ELLIPSIS}"
_LAST = 2  # steps in a name, after the original image


def create_result_name(viewer: ViewerModel, source: str, step: str) -> str:
    """Return an unused name for the result of applying a step to a layer.

    A model or method is appended to the source's name (``mosaic · ssum-sem``), then a
    number from 2 if the name exists. Only the last two steps are named; the history of
    a layer has all.
    """
    first, *steps = f"{source}{_DOT}{step}".split(_DOT)
    if len(steps) > _LAST:
        steps = [_LEFT_OUT, *steps[-_LAST:]]
    return find_free_name(viewer, _DOT.join([first, *steps]))


def find_free_name(viewer: ViewerModel, name: str) -> str:
    """Return an unused layer name, appending a number (2 or higher) if needed."""
    names = itertools.chain([name], (f"{name} {n}" for n in itertools.count(2)))
    return next(item for item in names if item not in viewer.layers)


def get_nm_per_unit(unit: object) -> float | None:
    """Return the length of a layer unit in nm, or None if it is not a length.

    Returns nanometres per unit; None if it is not a length (``pixel``).
    """
    import pint

    registry: Any = pint.get_application_registry()  # type: ignore[no-untyped-call]
    quantity = registry.Quantity(1.0, str(unit))
    if not quantity.check("[length]"):
        return None
    return float(f"{quantity.to('nm').magnitude:.12g}")  # a µm is 1000 nm to pint


def get_nm_scale(layer: Layer) -> NDArray[np.float64]:
    """Return nm per layer unit along y and x, or 1 if the unit is not a length."""
    return np.array([get_nm_per_unit(unit) or 1.0 for unit in layer.units[-2:]])


def get_enlargement_factors(layer: Layer) -> core.FloatArray:
    """Return the factors (y, x) by which a layer's affine transform scales pixels."""
    gain: core.FloatArray = np.linalg.norm(layer.affine.linear_matrix[-2:, -2:], axis=0)
    return gain / get_display_fit(layer)[0]


_FIT_KEY = "semsr fit to the field"
"""Layer metadata key: factor and shift (y, x) of `fit_layer_to_field`."""


def fit_layer_to_field(layer: Layer, factor: float, shift: ArrayLike) -> None:
    """Scale and shift an uncalibrated layer for display only.

    Its displayed position is ``factor * position + shift`` in world units. Size,
    position and measurements of the layer do not change: they are read by functions
    such as `get_enlargement_factors`, which leave the fit out.
    """
    remove_display_fit(layer)
    fit = _create_enlargement_matrix(layer, factor, shift)
    layer.affine = fit @ layer.affine.affine_matrix
    layer.metadata[_FIT_KEY] = [float(factor), *map(float, np.asarray(shift))]


def remove_display_fit(layer: Layer) -> None:
    """Remove the scaling and shift that `fit_layer_to_field` applied for display."""
    factor, shift = get_display_fit(layer)
    if layer.metadata.pop(_FIT_KEY, None) is not None:
        fit = _create_enlargement_matrix(layer, factor, shift)
        layer.affine = np.linalg.inv(fit) @ layer.affine.affine_matrix


def get_display_fit(layer: Layer) -> tuple[float, NDArray[np.float64]]:
    """Return factor and shift (y, x) of `fit_layer_to_field`; 1 and 0 if not fitted.

    A layer reset by napari's button *Reset transform* is not fitted any more.
    """
    fit = layer.metadata.get(_FIT_KEY)
    plain = np.array_equal(layer.affine.affine_matrix, np.eye(layer.ndim + 1))
    if fit is None or plain or is_calibrated(layer):
        return 1.0, np.zeros(2)
    factor, *shift = fit
    return float(factor), np.array(shift, dtype=float)


def _create_enlargement_matrix(
    layer: Layer, factor: float, shift: ArrayLike
) -> NDArray[np.float64]:
    matrix = np.eye(layer.ndim + 1)
    matrix[[-3, -2], [-3, -2]] = factor
    matrix[-3:-1, -1] = shift
    return matrix


def create_display_fit_keywords(layer: Layer) -> dict[str, Any]:
    """Return layer keywords that apply the same display fit to a plane."""
    if get_display_fit(layer)[0] == 1:
        return {}
    fit = layer.metadata[_FIT_KEY]
    plane = np.eye(3)
    plane[[0, 1], [0, 1]], plane[:2, 2] = fit[0], fit[1:]
    return {"affine": plane, "metadata": {_FIT_KEY: list(fit)}}


def world_to_layer(layer: Layer, world: ArrayLike) -> NDArray[np.float64]:
    """Convert world positions (N, 2) to layer positions, without the display fit."""
    factor, shift = get_display_fit(layer)
    return (np.asarray(world, dtype=float) - shift) / factor


def layer_to_world(layer: Layer, own: ArrayLike) -> NDArray[np.float64]:
    """Convert layer positions (N, 2) to world positions, including the display fit."""
    factor, shift = get_display_fit(layer)
    return np.asarray(own, dtype=float) * factor + shift


def get_pixel_transform(layer: Layer) -> tuple[core.FloatArray, core.FloatArray]:
    """Return matrix (2, 2) and offset (2,) that map plane pixels to layer positions.

    It is `get_display_transform` without `fit_layer_to_field`.
    """
    linear, shift = get_display_transform(layer)
    return linear / get_display_fit(layer)[0], world_to_layer(layer, shift)


def get_layer_pixel_size(layer: Layer) -> core.FloatArray:
    """Return the pixel size of a layer in nm, or in pixels if uncalibrated."""
    pitch: core.FloatArray = layer.scale[-2:] * get_enlargement_factors(layer)
    return pitch * get_nm_scale(layer)


def list_image_layers(viewer: ViewerModel) -> list[Image]:
    """Return the image layers, except helper layers, in list order."""
    return list_user_layers(viewer, Image)


def list_grey_layers(viewer: ViewerModel) -> list[Image]:
    """Return the image layers that can be measured, excluding spectra and maps."""
    return [item for item in list_image_layers(viewer) if not is_map(item)]


def is_map(layer: Layer) -> bool:
    """Return whether a layer is a map or a spectrum of an image.

    Determined from its history, which is saved in every file.
    """
    history = get_provenance(layer) if isinstance(layer, Image) else None
    return history is not None and history.quantity("nm") is not None


def get_last_job_name(layer: Layer) -> str | None:
    """Return the name of the job that made a layer, ignoring crops and copies."""
    history = get_provenance(layer)
    return None if history is None else history.defining_step().job


def get_job_names(layer: Layer) -> set[str]:
    """Return the names of all jobs that led to a layer, ignoring crops and copies."""
    history = get_provenance(layer)
    jobs = set() if history is None else {step.job for step in history.steps()}
    return jobs - {"crop", "convert"}


def is_stitched(layer: Layer) -> bool:
    """Return whether a layer or its input was stitched from frames."""
    return "stitch" in get_job_names(layer)


def is_ground_truth(layer: Layer) -> bool:
    """Return whether a layer is a ground truth, by name or history."""
    return get_last_job_name(layer) == _SPECIMEN_STEP or bool(_TRUTH.search(layer.name))


def is_acquired(layer: Layer) -> bool:
    """Return whether a layer was acquired rather than computed or simulated."""
    is_derived = get_last_job_name(layer) in _MADE_OF_ANOTHER or is_incomplete(layer)
    return not is_derived and not is_ground_truth(layer)


def is_incomplete(layer: Layer) -> bool:
    """Return whether a layer is growing, or its run was stopped."""
    return bool(layer.metadata.get(io.LIVE_KEY))


def is_made_from(layer: Layer, source: Layer) -> bool:
    """Return whether a layer was made from another one, in any number of steps.

    By the identities of its inputs; of files, by their path, history or name.
    """
    identities = layer.metadata.get(SOURCES_KEY, {})
    history, path = get_provenance(source), get_file_path(source)
    names = {source.name, Path(path).name if path else source.name}
    return any(
        identities[item.name] == source.metadata.get(IDENTITY_KEY)
        if item.name in identities
        else item.name in names
        or (path is not None and item.path == path)
        or (history is not None and item.provenance == history)
        for item in _list_inputs(get_provenance(layer))
    )


def _list_inputs(history: core.Provenance | None) -> Iterator[core.InputRecord]:
    """Yield the records of all images and files that a history starts from or uses."""
    for item in () if history is None else history.inputs:
        yield item
        yield from _list_inputs(item.provenance)


def is_from_tiff(layer: Layer) -> bool:
    """Return whether a layer is a TIFF file, or was made from one."""
    inputs = _list_inputs(get_provenance(layer))
    paths = [get_file_path(layer), *(item.path for item in inputs)]
    return any(str(path).lower().endswith((".tif", ".tiff")) for path in paths)


def fits_beside(
    layer: Layer, other: Layer, *, anywhere: bool = False, of_source: bool = False
) -> bool:
    """Return whether to propose another layer to be compared with a layer.

    Not if it is incomplete, a map, a network's output or of another place, or if one
    was made from the other. Excepted are a ground truth, from which images are
    simulated, with `of_source` the source of the layer, and with `anywhere` the place.
    """
    is_source = is_made_from(layer, other) and not is_ground_truth(other)
    is_result = is_made_from(other, layer) and not is_ground_truth(layer)
    return not (
        other is layer
        or is_incomplete(other)
        or is_map(other)
        or get_network_name(other) is not None
        or is_result
        or (is_source and not of_source)
        or not (anywhere or have_common_area(layer, other))
    )


def have_common_area(first: Layer, second: Layer) -> bool:
    """Return whether two layers overlap; a calibrated and a bare one do not."""
    ends = np.stack([_get_corners(layer) for layer in (first, second)])
    low, high = ends.min(axis=1), ends.max(axis=1)
    overlap = np.all(low.max(axis=0) < high.min(axis=0))
    return is_calibrated(first) == is_calibrated(second) and bool(overlap)


def have_same_grid(first: Layer, second: Layer) -> bool:
    """Return whether two layers are displayed on the same pixel grid."""
    sizes = (layer.extent.data[:, -2:] for layer in (first, second))
    return np.array_equal(*sizes) and have_same_area(first, second, _TOLERANCE)


def have_same_area(first: Layer, second: Layer, near: float) -> bool:
    """Return whether two layers cover the same area, regardless of pixel size.

    `near`: tolerance of corners, as a share of a side.
    """
    places, others = map(_get_corners, (first, second))
    apart = np.abs(places - others).max()
    alike = is_calibrated(first) == is_calibrated(second)
    return alike and bool(apart <= near * np.ptp(places, axis=0).max())


def _get_corners(layer: Layer) -> core.FloatArray:
    """Return where three outer corners of a plane are displayed, (3, 2), in nm."""
    ends = np.zeros((3, layer.ndim))
    ends[1:, -2:] = np.diag(layer.extent.data[1][-2:] + 1)
    ends[:, -2:] -= 0.5
    shown = np.array([layer.data_to_world(end)[-2:] for end in ends])
    return shown * get_nm_scale(layer)  # of another reader's layers, in µm


def get_display_transform(layer: Layer) -> tuple[core.FloatArray, core.FloatArray]:
    """Return matrix (2, 2) and offset (2,) that map plane pixels to world positions."""
    shift = np.asarray(layer.data_to_world(np.zeros(layer.ndim)), dtype=float)
    ends = [np.asarray(layer.data_to_world(axis)) for axis in np.eye(layer.ndim)[-2:]]
    return np.stack(ends, axis=1)[-2:] - shift[-2:, None], shift[-2:]


def _get_scale_and_translation(layer: Layer) -> tuple[core.FloatArray, core.FloatArray]:
    """Return scale and translation; raise an error for any other transform."""
    linear, shift = get_pixel_transform(layer)
    scale = np.diag(linear)
    off = np.abs(linear - np.diag(scale)).max()
    if off > _TOLERANCE * np.abs(linear).max() or np.any(scale <= 0):
        msg = (
            f"Layer {layer.name!r} cannot be measured or saved while it is rotated, "
            "sheared or flipped, because its pixels are not at their displayed "
            "positions. Choose it as Moving in Register and press Use the "
            "transform shown, or reset its transform."
        )
        raise core.ShapeError(msg, code="layer-turned")
    if np.allclose(scale, layer.scale[-2:], rtol=1e-9, atol=0):
        scale = np.asarray(layer.scale[-2:], dtype=float)  # which has all digits
    if get_display_fit(layer)[0] != 1 and np.allclose(shift, layer.translate[-2:]):
        shift = np.asarray(layer.translate[-2:], dtype=float)
    return scale, shift


def count_items(layer: Layer) -> int:
    """Return the number of points or shapes of a layer, or of rows of its pixels."""
    has_shape = hasattr(layer.data, "shape")  # arrays of zarr have no length
    return int(layer.data.shape[0] if has_shape else len(layer.data))


def get_finest_level(layer: Layer) -> Any:
    """Return level 0 of a multiscale layer, or the data of any other layer."""
    return layer.data[0] if getattr(layer, "multiscale", False) else layer.data


def world_to_pixels(layer: Layer, places: ArrayLike, dims: Dims) -> core.FloatArray:
    """Convert world positions in the viewer's units to pixel positions of a layer."""
    import pint

    points, own = np.array(places, dtype=float)[:, -layer.ndim :], layer.units
    units = (dims.units or ())[-layer.ndim :]
    if len(units) == layer.ndim:
        registry: Any = pint.get_application_registry()  # type: ignore[no-untyped-call]
        base = registry.get_base_units
        points *= [base(x)[0] / base(y)[0] for x, y in zip(units, own, strict=True)]
    return np.array([layer.world_to_data(point) for point in points])


def _get_displayed_indices(layer: Layer, dims: Dims | None) -> core.FloatArray:
    """Return the viewer's indices along the leading axes of a layer; 0 if unknown."""
    lead = layer.ndim - 2
    if dims is None or dims.ndim < layer.ndim:
        return np.zeros(lead, dtype=int)
    place = world_to_pixels(layer, [dims.point], dims)[0, :lead]
    return np.rint(place).astype(int)


def get_displayed_plane(layer: Image | Labels, dims: Dims | None) -> tuple[int, ...]:
    """Return the index of the displayed plane of a layer; the first if unknown."""
    if layer.ndim < 2:
        msg = f"Layer {layer.name!r} must have two or more axes, got one."
        raise core.ShapeError(msg, code="axis-missing")
    last = np.array(get_finest_level(layer).shape[: layer.ndim - 2], dtype=int) - 1
    return tuple(np.clip(_get_displayed_indices(layer, dims), 0, last).tolist())


def find_visible_shapes(shapes: Shapes, dims: Dims) -> list[int]:
    """Return the indices of shapes in the displayed plane; 2-D shapes are in all."""
    place = _get_displayed_indices(shapes, dims)
    places = [np.rint(vertices[:, :-2]) for vertices in shapes.data]
    return [index for index, own in enumerate(places) if np.all(own == place)]


def format_plane_name(layer: Image, place: Sequence[int]) -> str:
    """Return a plane's name, e.g. ``plane t = 3 of 10``; empty if not a stack."""
    counts = get_finest_level(layer).shape[: layer.ndim - 2]
    places = []
    for axis, index, count in zip(layer.axis_labels, place, counts, strict=False):
        start = f"{axis} = " if axis.isalpha() and axis != "plane" else ""
        places.append(f"{start}{index + 1} of {count}")
    return f"plane {', '.join(places)}" if places else ""


def format_layer_and_plane(layer: Image, place: Sequence[int]) -> str:
    """Return the layer name, followed by the plane name for a stack."""
    return ", ".join(filter(None, (layer.name, format_plane_name(layer, place))))


class _LuminanceArray:
    """Luminance of a colour plane ``(Y, X, S)``, computed lazily."""

    def __init__(self, samples: Any) -> None:
        self._samples = samples
        self.shape, self.dtype = samples.shape[:2], samples.dtype

    @property
    def chunks(self) -> object:
        """Chunk sizes along both axes; None if the array is not chunked."""
        chunks = getattr(self._samples, "chunks", None)
        return None if chunks is None else chunks[:2]

    def __getitem__(self, part: object) -> object:
        return io.luminance(self._samples[part][..., :3])


def get_image_record(layer: Layer) -> dict[str, Any]:
    """Return a layer's image record; empty for layers from other programs.

    Another program may have written anything there.
    """
    record = layer.metadata.get("micrograph")
    return record if isinstance(record, dict) else {}


def get_instrument(layer: Layer) -> str | None:
    """Return the kind of microscope that took a layer, as `Micrograph.instrument`."""
    facts: Any = {"metadata": get_image_record(layer)}
    facts["provenance"] = get_provenance(layer)
    return core.Micrograph(np.zeros((1, 1)), **facts).instrument


def is_sem_image(layer: Layer) -> bool:
    """Return whether a layer was taken by an electron microscope, as far as known."""
    return get_instrument(layer) == "sem"


def record_instrument(layer: Layer, kind: str) -> None:
    """Record the kind of microscope that the user stated."""
    layer.metadata["micrograph"] = get_image_record(layer) | {core.INSTRUMENT_KEY: kind}


def get_provenance(layer: Layer) -> core.Provenance | None:
    """Return the processing history of a layer, or None."""
    record = get_image_record(layer).get("provenance")
    if isinstance(record, core.Provenance) or record is None:
        return record
    try:
        return core.Provenance.model_validate(record)
    except ValueError:  # of another plugin; that of a file is checked when read
        return None


def record_edit(layer: Layer, *, of: Layer | None = None) -> None:
    """Record in a layer's history that its pixels were replaced.

    Our results write their history afterwards. `of`: the layer that they were made
    from, if it is another one.
    """
    source = layer if of is None else of
    history = get_provenance(source)
    helper = not isinstance(layer, Image) or layer.metadata.get(io.HELPER_KEY)
    if helper or (history and history.job == _EDIT):
        return
    before = {"name": source.name, "provenance": history, "path": get_file_path(source)}
    inputs = (core.InputRecord(role="image", **before),)
    versions = core.get_software_versions()
    edit_history = core.Provenance(job=_EDIT, inputs=inputs, versions=versions)
    metadata = {"provenance": edit_history.model_dump(mode="json")}
    layer.metadata["micrograph"] = get_image_record(layer) | metadata


def get_network_name(layer: Layer) -> str | None:
    """Return the name of the model that made a layer or one of its inputs, or None."""
    history = get_provenance(layer)
    if history is not None and (network := history.last_network()) is not None:
        return network[0]
    mark = layer.metadata.get(io.NETWORK_KEY)
    return str(mark["model"]) if isinstance(mark, dict) and "model" in mark else None


def list_planes(layer: Image | Labels) -> list[core.Micrograph]:
    """Return all planes of a layer as micrographs."""
    counts = get_finest_level(layer).shape[: layer.ndim - 2]
    return [micrograph_from_layer(layer, plane=place) for place in np.ndindex(counts)]


def micrograph_from_layer(
    layer: Image | Labels | None,
    dims: Dims | None = None,
    *,
    plane: tuple[int, ...] | None = None,
    is_unturned: bool = False,
    colour: bool = False,
    row: str = "",
) -> core.Micrograph:
    """Convert a layer to a micrograph: displayed plane, calibration and history.

    Returns level 0, lazy if the layer is; uncalibrated if the layer's unit is the
    pixel. `is_unturned`: ignore everything except scale and translation; `colour`: read
    a colour layer as its luminance, in parts; `row`: label of the list of layers.
    """
    if layer is None:
        where = f" under {row}" if row else ""
        msg = f"Choose an image layer{where}; to open one, use Open or a sample."
        raise core.ShapeError(msg, code="missing-value")
    if layer.metadata.get(io.LIVE_KEY):
        msg = (
            f"Layer {layer.name!r} is still growing or only partly enhanced; let "
            "Stitch or Enhance finish it first."
        )
        raise core.ShapeError(msg, code="incomplete")
    if is_unturned:
        scale, shift = layer.scale[-2:], layer.translate[-2:]
    else:
        scale, shift = _get_scale_and_translation(layer)
    has_size = is_calibrated(layer)
    k = get_nm_scale(layer) if has_size else np.ones(2)
    pitch, origin = scale * k, shift * k
    plane = get_displayed_plane(layer, dims) if plane is None else plane
    plane_values = get_finest_level(layer)[plane]
    if not hasattr(plane_values, "dask"):
        plane_values = np.asanyarray(plane_values)  # with its mask
    as_colour = colour and isinstance(layer, Image) and layer.rgb
    record = get_image_record(layer)
    facts = {k: v for k, v in record.items() if k == core.BITS_KEY}
    if kind := core.find_instrument(record):
        facts[core.INSTRUMENT_KEY] = kind
    convert: Any = _LuminanceArray if as_colour else io.try_convert_to_grey
    grey = convert(plane_values)
    if grey is None:
        msg = (
            f"Layer {layer.name!r} must be a grey image, got a colour image. "
            "Right-click it in the layer list and choose Split RGB, or open its file "
            "with Open and use its luminance."
        )
        raise core.ShapeError(msg, code="colour-image")
    return core.Micrograph(
        data=grey,
        pixel_size_nm=core.parse_pixel_size(tuple(pitch)) if has_size else None,
        name=layer.name,
        provenance=get_provenance(layer),
        origin=(float(origin[0]), float(origin[1])),
        spacing_px=(1.0, 1.0) if has_size else (float(pitch[0]), float(pitch[1])),
        metadata=get_pixel_size_metadata(layer) | facts,
        path=get_file_path(layer),
    )


def get_pixel_size_metadata(layer: Layer) -> dict[str, object]:
    """Return the relative error and the source of a layer's pixel size.

    Another program, or napari's controls, may have changed its scale since.
    """
    about = get_image_record(layer)
    facts = {k: about[k] for k in (core.SIZE_ERROR_KEY, core.ORIGIN_KEY) if k in about}
    if not is_calibrated(layer):
        return {k: v for k, v in facts.items() if k != core.ORIGIN_KEY}
    pitch, origin_record = get_layer_pixel_size(layer), about.get(core.ORIGIN_KEY) or {}
    sizes = (origin_record.get("pixel_size_nm"), about.get("pixel_size_nm"))
    if not any(size and np.allclose(size, pitch) for size in sizes):
        how, (y, x) = "by the scale of its layer in napari", pitch.tolist()
        facts[core.ORIGIN_KEY] = core.create_size_source(how, (y, x))
    return facts


def get_file_path(layer: Layer) -> str | None:
    """Return the path of the permanent file that holds exactly a layer's pixels."""
    about = layer.metadata
    store_opened = about.get(io.STORE_KEY) if io.READ_KEY in about else None
    file_name = about.get(io.SAVED_KEY) or store_opened
    if file_name is None and get_last_job_name(layer) != _EDIT:
        file_name = layer.source.path
    return None if file_name is None else Path(file_name).absolute().as_posix()


TYPED_SIZE = "typed by the user in napari"


def apply_pixel_size(
    layer: Layer,
    size_nm: ArrayLike,
    error_nm: ArrayLike | None = None,
    *,
    origin: dict[str, object] | None = None,
) -> None:
    """Set a layer's pixel size in nm; layers over it need the same calibration.

    `origin`: source of the size, as in `create_size_source`; by default the user.
    """
    share = None if error_nm is None else np.divide(error_nm, size_nm).tolist()
    y, x = np.asarray(size_nm, dtype=float).tolist()
    origin = origin or core.create_size_source(TYPED_SIZE, (y, x))
    facts: dict[str, object] = {core.SIZE_ERROR_KEY: share, core.ORIGIN_KEY: origin}
    record_pixel_size_metadata(layer, facts)
    resize_pixels(layer, size_nm, ("nm", "nm"))


def resize_pixels(layer: Layer, size: ArrayLike, units: Sequence[object]) -> None:
    """Set the pixel size of a layer in any unit, and scale its position accordingly."""
    fit = layer.metadata.get(_FIT_KEY)
    remove_display_fit(layer)
    if fit is not None:  # without effect with a pixel size; undoing the size needs it
        layer.metadata[_FIT_KEY] = fit
    old = np.asarray(layer.scale, dtype=float)
    scale, translate = old.copy(), np.asarray(layer.translate, dtype=float).copy()
    scale[-2:] = np.divide(size, get_enlargement_factors(layer))
    ratio = scale[-2:] / old[-2:]
    translate[-2:] *= ratio
    affine = np.array(layer.affine.affine_matrix)
    affine[-3:-1, -1] *= ratio
    layer.scale, layer.translate, layer.affine = scale, translate, affine
    layer.units = (*layer.units[:-2], *units)


def record_pixel_size_metadata(layer: Layer, facts: dict[str, object]) -> None:
    """Record the error and source of a layer's pixel size, or remove both."""
    keys = (core.SIZE_ERROR_KEY, core.ORIGIN_KEY)
    known_facts = {k: v for k, v in get_image_record(layer).items() if k not in keys}
    layer.metadata["micrograph"] = known_facts | facts


def create_layer_keywords(
    micrograph: core.Micrograph,
    *,
    levels: Sequence[object] | None = None,
    **extra: object,
) -> dict[str, Any]:
    """Return keywords for ``viewer.add_image`` to show a calibrated micrograph."""
    keywords = io.create_layer_attributes(micrograph)
    data = micrograph.data if levels is None else list(levels)
    if any(hasattr(item, "dask") for item in levels or [micrograph.data]):
        keywords["cache"] = False
    keywords |= extra
    if "contrast_limits" not in keywords:
        keywords["contrast_limits"] = core.contrast_limits(data)
    return keywords


_GAP_SHARE = 0.04  # of the width of all other layers; chosen


def add_image_beside(
    viewer: ViewerModel, image: core.Micrograph, name: str, helper: object
) -> Image:
    """Add a helper image to the right of all other layers.

    Without a pixel size among calibrated layers, it is displayed at their height.
    """
    low, high = place = np.zeros((2, 2))
    if len(viewer.layers):
        place = np.asarray(viewer.layers.extent.world)[:, -2:]
        low, high = place = place * (get_nm_of_viewer(viewer) or 1)
    corner = low[0], high[1] + _GAP_SHARE * float(np.ptp(place[:, 1]))
    keywords = create_layer_keywords(image.replace(origin=corner), name=name)
    keywords["metadata"] = {**keywords["metadata"], io.HELPER_KEY: helper}
    layer: Image = viewer.add_image(image.data, **keywords)
    if not is_calibrated(layer) and have_mixed_units(viewer):
        layer.translate = np.zeros(2)
        fit_layer_to_field(layer, (high[0] - low[0]) / layer.data.shape[-2], corner)
    return layer


def get_display_settings(layer: Image | Labels) -> core.DisplaySettings:
    """Return the display settings of a layer."""
    if isinstance(layer, Labels):
        return _get_label_settings(layer)
    from napari.utils.colormaps import ALL_COLORMAPS, Colormap

    colormap: Any = layer.colormap
    is_known = colormap.name.startswith("#") or colormap.name in ALL_COLORMAPS
    even = colormap == Colormap(colormap.colors, name=colormap.name)
    low, high = layer.contrast_limits
    return core.DisplaySettings(
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


def _get_label_settings(layer: Labels) -> core.DisplaySettings:
    """Return display settings with the colours and names of a layer's labels."""
    values = np.unique(np.asarray(layer.data))
    if len(values) > _MAX_CLASSES:
        msg = (
            f"Layer {layer.name!r} must have at most {_MAX_CLASSES} values to be saved "
            f"with their colours, got {len(values)}; right-click it and choose Convert "
            "to Image."
        )
        raise core.OptionError(msg, code="too-many-values")
    features = layer.features.drop(columns="index", errors="ignore")
    index = layer.features.get("index", layer.features.index)
    texts = features.iloc[:, 0] if len(features.columns) else []
    rows = zip(index, texts, strict=False)
    meanings = {int(value): str(text) for value, text in rows}
    label_values, classes = sorted({*values.tolist(), *meanings}), []
    for value in label_values:
        colour = layer.get_color(value)  # RGBA from 0 to 1, or None if it has none
        parts = np.zeros(4) if colour is None else np.asarray(colour)
        spelt = "".join(f"{round(255 * float(part)):02x}" for part in parts)
        classes.append((value, f"#{spelt}", meanings.get(value, "")))
    return core.DisplaySettings(
        limits=(0.0, float(max(1, *label_values))),
        classes=tuple(classes),
        opacity=float(layer.opacity),
        blending=str(layer.blending),
    )


def show_colour_bar(layer: Layer) -> None:
    """Show the colour bar of a map, with its name and unit above it."""
    if isinstance(layer, Image) and layer.metadata.get(io.BAR_KEY):
        layer.colorbar.visible = True
        layer.name_overlay.position = layer.colorbar.position
        layer.name_overlay.visible = True


def update_colour_bars(viewer: ViewerModel) -> None:
    """Show only the colour bar of the topmost map in view, as all share a corner.

    A map of which images cover all that would be in view is not in view.
    """
    images = [item for item in viewer.layers if isinstance(item, Image)]
    maps = [item for item in images if item.metadata.get(io.BAR_KEY)]
    if not maps:
        return
    view = np.array([[-np.inf] * 2, [np.inf] * 2])
    if _shows_plane(viewer) and not host.get_grid(viewer).enabled:
        camera = host.get_camera(viewer)
        half = host.get_viewbox_size(viewer) / camera.zoom / 2
        view = np.array(camera.center[-2:]) + np.array([-half, half])

    def get_area(item: Image) -> NDArray[np.float64]:
        world = np.asarray(item.extent.world, dtype=float)[:, -2:]
        return world * get_unit_factors(viewer, item)[-2:]

    def covers(item: Image, low: core.FloatArray, high: core.FloatArray) -> bool:
        start, end = get_area(item)
        is_opaque = item.visible and item.opacity == 1
        mixes = str(item.blending) in ("additive", "minimum", "multiplicative")
        inside = np.all(start <= low) and np.all(high <= end)
        return bool(is_opaque and not mixes and inside)

    def is_in_view(item: Image) -> bool:
        start, end = get_area(item)
        low, high = np.maximum(start, view[0]), np.minimum(end, view[1])
        above = images[images.index(item) + 1 :]
        is_inside = item.visible and bool(np.all(low <= high))
        return is_inside and not any(covers(other, low, high) for other in above)

    top = next(filter(is_in_view, reversed(maps)), None)
    for item in maps:
        if item is top:
            show_colour_bar(item)
        elif item.colorbar.visible:
            item.colorbar.visible = item.name_overlay.visible = False


def hide_other_maps(viewer: ViewerModel, layer_shown: Layer) -> None:
    """Hide other maps of the same area, because overlapping maps are unreadable."""
    low, high = layer_shown.extent.world[:, -2:]
    # napari may pass proxies, equal but not identical
    for item in list_image_layers(viewer):
        if item != layer_shown and item.visible and is_map(item):
            start, end = item.extent.world[:, -2:]
            if np.all(np.minimum(high, end) > np.maximum(low, start)):
                item.visible = False


def disable_cache(layer: Layer) -> None:
    """Disable the dask cache, so that threads can compute a lazy layer during drawing.

    napari keeps computed chunks in a dask cache that two threads corrupt (dask issue
    10396: `KeyError` in both); the layer is drawn without it from now on.
    """
    if hasattr(get_finest_level(layer), "dask"):
        layer.dask_optimized_slicing = nullcontext


def get_nm_of_viewer(viewer: ViewerModel) -> float | None:
    """Return nm per unit of the viewer, which is nm if units are mixed."""
    return get_nm_per_unit((viewer.dims.units or ("nm",))[-1])


def get_view(viewer: ViewerModel) -> NDArray[np.float64]:
    """Return the view's centre (3,) in nm, its zoom per nm, and 1; in px: and 0."""
    camera, nm = host.get_camera(viewer), get_nm_of_viewer(viewer)
    center = np.array(camera.center) * (nm or 1)
    return np.array([*center, camera.zoom / (nm or 1), nm is not None])


def restore_view(viewer: ViewerModel, view: NDArray[np.float64]) -> None:
    """Restore a view that `get_view` returned, if it applies to the present unit."""
    nm = get_nm_of_viewer(viewer)
    if view[-1] == (nm is not None):
        camera = host.get_camera(viewer)
        camera.center, camera.zoom = tuple(view[:3] / (nm or 1)), view[3] * (nm or 1)


def get_visible_box(viewer: ViewerModel, layer: Image) -> core.Box | None:
    """Return the box of layer pixels that is visible on the canvas.

    In pixels of its finest level; None if it is off the canvas.
    """
    dims, camera = viewer.dims, host.get_camera(viewer)
    half = host.get_viewbox_size(viewer) / camera.zoom / 2
    corners = np.tile(np.array(dims.point, dtype=float), (4, 1))
    signs = np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)])
    corners[:, list(dims.displayed[-2:])] = camera.center[-2:] + signs * half
    # a pixel ends half a pixel from its centre, up to rounding
    ends = world_to_pixels(layer, corners, dims)[:, -2:] + 0.5
    low = np.floor(ends.min(axis=0) + _TOLERANCE)
    high = np.ceil(ends.max(axis=0) - _TOLERANCE)
    (y0, x0), (y1, x1) = np.clip([low, high], 0, layer.level_shapes[0][-2:]).astype(int)
    return core.Box(int(y0), int(y1), int(x0), int(x1)) if y0 < y1 and x0 < x1 else None


def fill_view(viewer: ViewerModel, layer: Layer) -> None:
    """Fill the view with a layer, regardless of other layers."""
    viewer.reset_view()
    first, last = layer.extent.data[:, -2:]
    show_box(viewer, layer, (first - 0.5, last + 0.5), _FILL_SHARE)


def show_box(
    viewer: ViewerModel, layer: Layer, box: Sequence[core.FloatArray], share: float
) -> None:
    """Fill a share of the view with a box of a layer's pixels, (2,) to (2,)."""
    if not _shows_plane(viewer):
        return
    corners = pixels_to_view(viewer, layer, list(itertools.product(*np.transpose(box))))
    low, high = corners.min(axis=0), corners.max(axis=0)
    camera = host.get_camera(viewer)
    camera.center = tuple((low + high) / 2)
    camera.zoom = share * np.min(host.get_viewbox_size(viewer) / (high - low))


def _shows_plane(viewer: ViewerModel) -> bool:
    """Return whether the canvas shows the last two axes."""
    dims = viewer.dims
    return tuple(dims.displayed) == (dims.ndim - 2, dims.ndim - 1)


def pixels_to_view(
    viewer: ViewerModel, layer: Layer, pixels: ArrayLike
) -> NDArray[np.float64]:
    """Convert positions (N, 2) in pixels of a layer to positions of the camera.

    These are as displayed, in the viewer's common units.
    """
    points = np.zeros((len(np.asarray(pixels)), layer.ndim))
    points[:, -2:] = pixels
    ends = [layer.data_to_world(point)[-2:] for point in points]
    places = np.asarray(ends, dtype=float)
    return places * get_unit_factors(viewer, layer)[-2:]


def get_unit_factors(viewer: ViewerModel, layer: Layer) -> NDArray[np.float64]:
    """Return the factors that convert a layer's units to the viewer's common units."""
    units = (viewer.layers.units or layer.units)[-layer.ndim :]
    own, common = ([get_nm_per_unit(u) or 1 for u in us] for us in (layer.units, units))
    return np.divide(own, common)


def show_scale_bar(viewer: ViewerModel) -> None:
    """Show the scale bar, which uses the unit of the layers.

    It is placed where notifications do not cover it.
    """
    bar = host.get_scale_bar(viewer)
    if not bar.visible:
        bar.position = "bottom_left"
    bar.visible = True
    bar.font_size = 14
    update_scale_bar(viewer)


def update_scale_bar(viewer: ViewerModel) -> bool:
    """Hide the scale bar if layers have no common unit; return whether that is so."""
    is_mixed = have_mixed_units(viewer)
    # not hidden: vispy crashes if that happens before it is drawn
    bar = host.get_scale_bar(viewer)
    bar.opacity = float(not is_mixed)
    bar.box_color = "transparent" if is_mixed else None
    host.set_scale_bar_unit(viewer)
    return is_mixed


def have_mixed_units(viewer: ViewerModel) -> bool:
    """Return whether some layers have a length unit and others have none."""
    return len(viewer.layers) > 0 and viewer.layers.units is None


def use_comparable_units(viewer: ViewerModel) -> bool:
    """Convert lengths to nm if units are mixed; return False if there is no layer.

    napari then ignores all units: an image in mm would not lie on its result in nm, and
    more of its pixels would fit along them than Qt can count.
    """
    if have_mixed_units(viewer):
        for layer in filter(is_calibrated, viewer.layers):
            if np.any(get_nm_scale(layer) != 1):
                resize_pixels(layer, get_layer_pixel_size(layer), ("nm", "nm"))
    return len(viewer.layers) > 0


def is_calibrated(layer: Layer) -> bool:
    """Return whether a layer has a pixel size."""
    return all(get_nm_per_unit(unit) is not None for unit in layer.units[-2:])


MARK_KEY = "semsr landmarks"
"""Entry of a layer's metadata: the image that it marks or explains.

Its identity; its name if written by an earlier version.
"""
IDENTITY_KEY = "semsr identity"
"""Layer metadata key: the layer's unique identity."""
SOURCES_KEY = "semsr sources"
"""Layer metadata key: the layer's inputs, by their names in its history."""


def get_identity(layer: Layer) -> str:
    """Return the unique identity of a layer, which is saved in projects."""
    return str(layer.metadata.setdefault(IDENTITY_KEY, uuid.uuid4().hex))


def get_source_identities(layers: Collection[Layer]) -> dict[str, str]:
    """Return the identities of layers and their inputs, by name."""
    before = [layer.metadata.get(SOURCES_KEY, {}) for layer in layers]
    sources = {name: source for one in before for name, source in one.items()}
    return sources | {layer.name: get_identity(layer) for layer in layers}


def create_overlay_keywords(
    image: core.Micrograph, panel: str, of: Layer
) -> dict[str, Any]:
    """Return keywords for a helper layer of a result, shown over an image.

    `of`: the layer of the image, or one that contains it.
    """
    fit = create_display_fit_keywords(of)
    marks = {io.HELPER_KEY: panel, MARK_KEY: get_identity(of)}
    return {
        **fit,
        "metadata": fit.get("metadata", {}) | marks,
        "scale": image.scale,
        "translate": image.origin,
        "units": (image.unit, image.unit),
        "axis_labels": ("y", "x"),
    }


def list_user_layers(viewer: ViewerModel, *kinds: type[Layer]) -> list[Any]:
    """Return the layers of the given types, excluding helper layers."""
    chosen = [item for item in viewer.layers if isinstance(item, kinds)]
    return [item for item in chosen if not item.metadata.get(io.HELPER_KEY)]


DRAWING_KEY = "semsr drawing"
"""Layer metadata key: marks a drawing layer, which stays above new images."""


def add_line_layer(
    viewer: ViewerModel, name: str, width: float, **grid: object
) -> Shapes:
    """Add a layer for drawing lines, marked by its name without a number."""
    lines: Shapes = viewer.add_shapes(
        None,
        ndim=2,
        name=find_free_name(viewer, name),
        axis_labels=("y", "x"),
        edge_color="#ffd400",
        edge_width=max(1.0, width),
        face_color="transparent",
        metadata={DRAWING_KEY: name},
        **grid,
    )
    return lines


def add_drawing_layer(viewer: ViewerModel, image: Layer, name: str) -> Shapes:
    """Add a drawing layer over an image, in the same unit."""
    linear, _ = get_display_transform(image)
    pitch = float(np.sqrt(abs(np.linalg.det(linear))))
    width = (float(np.max(image.extent.data[1][-2:])) + 1) / 400
    units = image.units[-2:]
    return add_line_layer(viewer, name, width, scale=(pitch, pitch), units=units)


def get_drawing_scale(layer: Layer, image: Layer) -> NDArray[np.float64]:
    """Return the factors from positions in a drawing layer to nm or viewer pixels.

    napari displays layers without a length unit as if they had the image's.
    """
    sizes = (map(get_nm_per_unit, item.units[-2:]) for item in (layer, image))
    pairs = zip(*sizes, strict=True)
    return np.array([1.0 if k is None else one or k for one, k in pairs])


def get_common_unit(micrographs: Sequence[core.Micrograph]) -> str:
    """Return the common unit of images to be compared: ``"nm"`` or ``"pixel"``."""
    units = {item.unit for item in micrographs}
    if len(units) > 1:
        bare = [item.name for item in micrographs if item.unit == "pixel"]
        msg = (
            "Layers shown together must be either all calibrated or all uncalibrated, "
            f"but {bare[0]!r} has no pixel size; set one in Open, under "
            "Calibrate a layer."
        )
        raise core.OptionError(msg, code="pixel-size-missing")
    return units.pop()
