"""Conversion of lists, NumPy arrays, dask arrays and labelled arrays to images.

Named axes (xarray, and types based on it) identify y and x, and their coordinates give
the pixel size.
"""

from typing import Any

import numpy as np

from napari_semsr.core import Micrograph, PixelSize, ShapeError, shorten_value, warn
from napari_semsr.io.read_image import (
    convert_to_nm,
    create_pixel_size,
    get_nm_per_unit,
    measure_step,
)

_INPUTS = "An image must be a path, a Micrograph or an array (Y, X)"
_NOWHERE = (0.0, 0.0)


def array_to_image(value: object) -> Micrograph:
    """Convert an array, or a nested list of numbers, to an image.

    A dask array stays lazy. Of named axes, ``y`` and ``x`` are used, others must have
    length 1, and evenly spaced coordinates with a unit of length give the pixel size.
    Raises a `ShapeError` if it is not an array with two axes.
    """
    if isinstance(value, Micrograph):
        return value
    if hasattr(value, "dims") and hasattr(value, "coords"):
        return _convert_labelled_array(value)
    return Micrograph(value if hasattr(value, "dask") else _to_numpy(value))


def is_array(value: object) -> bool:
    """Return whether a value is an array or a nested list of numbers.

    False for a path or images; true also if the array is not an image.
    """
    if isinstance(value, (list, tuple)):
        row = value[0] if value else None
        if isinstance(row, np.ndarray):
            return row.ndim == 1
        inner = row[0] if isinstance(row, (list, tuple)) and row else None
        return isinstance(inner, (int, float, np.number))
    return hasattr(value, "shape") or isinstance(value, memoryview)


def _to_numpy(value: object) -> object:
    """Convert a value to a NumPy array, keeping masks."""
    if isinstance(value, np.ma.MaskedArray):
        return value
    try:
        return np.asarray(value)
    except Exception as error:  # libraries raise any error
        reason = " ".join(str(error).split())[:120].rstrip(".")
        msg = f"{_INPUTS}, got an unusable {type(value).__name__} ({reason})."
        raise ShapeError(msg, code="wrong-type") from error


def _convert_labelled_array(value: Any) -> Micrograph:
    if not hasattr(value, "data"):  # a collection of arrays, such as xarray's Dataset
        msg = f"{_INPUTS}, got {type(value).__name__}: choose one of its arrays."
        raise ShapeError(msg, code="several-images")
    names = [str(name).lower() for name in value.dims]
    data: Any = value.data if hasattr(value.data, "dask") else _to_numpy(value.data)
    has_axes = names.count("y") == names.count("x") == 1
    if has_axes:
        pairs = zip(names, data.shape, strict=True)
        long = [name for name, size in pairs if name not in "yx" and size != 1]
        if long:
            axis = shorten_value(long[0])
            msg = f"{_INPUTS}, got an additional axis {axis}: select one index of it."
            raise ShapeError(msg, code="too-many-axes")
        order = [i for i, name in enumerate(names) if name not in "yx"]
        order += [names.index("y"), names.index("x")]
        data = data.transpose(order)[(0,) * (len(order) - 2)]
    elif len(names) != 2 or {"y", "x"} & set(names):
        axes = ", ".join(names) or "without names"
        msg = f"{_INPUTS}, got axes {axes}: name two of them y and x."
        raise ShapeError(msg, code="axis-missing")
    size, origin = _read_coordinates(value) if has_axes else (None, _NOWHERE)
    name = getattr(value, "name", None)
    name = "image" if name is None else str(name)
    return Micrograph(data, size, name, origin=origin)


def _read_coordinates(value: Any) -> tuple[PixelSize | None, tuple[float, float]]:
    """Read the pixel size and origin from the y and x coordinates."""
    lengths: list[float | None] = []
    starts: list[float] = []
    axes = {str(axis).lower(): axis for axis in value.dims}
    for axis in (axes["y"], axes["x"]):
        if axis not in value.coords:  # xarray would return pixel numbers
            return None, _NOWHERE
        along = value.coords[axis]
        places = np.asarray(along)
        attributes = getattr(along, "attrs", {})
        unit = str(attributes.get("units", attributes.get("unit", "")))
        step, _ = measure_step(places)
        lengths.append(convert_to_nm(abs(step), unit))
        nm = get_nm_per_unit(unit)
        starts.append(float(places[0]) * nm if nm and step > 0 else 0.0)
    size = create_pixel_size(lengths)
    if size is None:
        warn(
            "Image coordinates along y and x must be evenly spaced and have a length "
            "unit (attribute units): the pixel size remains unknown.",
            "pixel-size-invalid",
        )
        return None, _NOWHERE
    return size, (starts[0], starts[1])
