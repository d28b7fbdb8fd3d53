"""HDF5 reader for dataset planes, lazy if large, using h5py (extra ``[hdf5]``).

Axes that a dataset states are followed. Otherwise a dataset of two axes is an image,
and one of three: if the last has 3 or 4 values of uint8 it is colour, otherwise the
first counts planes. External links are not followed.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from napari_semsr.core import PixelSize, ReadError, RealArray
from napari_semsr.io import read_image as images
from napari_semsr.io.files import choose_index, convert_decoding_errors, import_library

if TYPE_CHECKING:
    import h5py

    Item: TypeAlias = h5py.Dataset | h5py.Group

_LARGEST_CHUNK = 1 << 29  # bytes, decoded as a whole; as for a zarr store


def matches(path: Path, head: bytes) -> bool:
    """Return whether the first bytes identify an HDF5 file other than EMD."""
    return is_hdf5(path, head) and not detect_emd_kind(path)


def is_hdf5(path: Path, head: bytes) -> bool:
    """Return whether the first bytes identify an HDF5 file."""
    return path.is_file() and head.startswith(b"\x89HDF\r\n\x1a\n")


def detect_emd_kind(path: Path) -> str:
    """Return the EMD variant of an HDF5 file, or an empty string for others.

    Arrays of NCEM's kind can also be read as in any HDF5 file, so the file name
    decides.
    """
    is_named = path.suffix.lower() == ".emd"
    try:
        with open_hdf5(path) as file:
            data, version = file.get("Data"), file.get("Version")
            is_group = hasattr(data, "keys") and not hasattr(data, "shape")
            if hasattr(version, "shape") and is_group:
                return "EMD (Velox)"
            marks: list[bool] = []
            if is_named:
                file.visititems(lambda _, item: marks.append(is_emd_group(item)))
            return "EMD (NCEM)" if any(marks) else ""
    except ReadError:
        return "EMD (NCEM)" if is_named else ""  # its reader reports the error


def is_emd_group(item: "Item") -> bool:
    """Return whether an item is a group with an array in the NCEM layout."""
    return hasattr(item, "keys") and bool(item.attrs.get("emd_group_type", False))


@contextmanager
def open_hdf5(path: Path) -> "Iterator[h5py.File]":
    """Open a file; raise `ReadError` if it is damaged or h5py is missing."""
    extra = "em" if path.suffix.lower() == ".emd" else "hdf5"
    h5py = import_library(path, "h5py", extra)
    with convert_decoding_errors(path, "HDF5"), h5py.File(path, "r") as file:
        yield file


def check_chunks(path: Path, array: "h5py.Dataset") -> None:
    """Raise `ReadError` if the chunks of a dataset are too large to load."""
    if math.prod(array.chunks or ()) * array.dtype.itemsize > _LARGEST_CHUNK:
        msg = f"{path} must have chunks of at most 512 MiB in {array.name}."
        raise ReadError(msg, code="blocks-too-large")


@dataclass(frozen=True, slots=True)
class DatasetPlane:
    """Plane of a dataset whose axes may be in any order."""

    path: Path
    dataset: str
    chunks: tuple[int, ...] | None  # None if it is stored in one piece
    place: tuple[int, ...]  # Index on each axis; rows and columns are not used
    sides: tuple[int, int]  # Axes of rows and columns

    @property
    def unit(self) -> tuple[int, int]:
        """Rows and columns of a chunk."""
        lengths = self.chunks or (1,) * len(self.place)
        return lengths[self.sides[0]], lengths[self.sides[1]]

    def read_window(self, rows: slice, columns: slice) -> RealArray:
        """Read a window (Y, X) or (Y, X, S) of the plane."""
        where: list[object] = list(self.place)
        where[self.sides[0]], where[self.sides[1]] = rows, columns
        with open_hdf5(self.path) as file:
            array = file[self.dataset]
            part: RealArray = np.asarray(array[tuple(where)]).view(_get_dtype(array))
        return part if self.sides[0] < self.sides[1] else part.swapaxes(0, 1)


def raw_image(
    path: Path, options: images.ReadOptions, *, first: bool = False
) -> images.RawImage:
    """Read a plane with its pixel size; if `first`, default to the first dataset."""
    for what in ("series", "level"):
        choose_index(path, what, getattr(options, what), 1)
    with open_hdf5(path) as file:
        items: dict[str, Item] = {}
        file.visititems(lambda name, item: items.update({f"/{name}": item}))
        datasets = {name: item for name, item in items.items() if _is_image(item)}
        names, name = [*datasets], options.dataset
        # chosen: at most two lines of text
        names_text = ", ".join(names[:8]) + ", \u2026" * (len(names) > 8)
        if not names:
            msg = f"{path} must contain a dataset with two or three axes."
            raise ReadError(msg, code="no-image")
        if name and f"/{name.strip('/')}" not in names:
            msg = f"{path} has no image in dataset {name!r}: choose {names_text}."
            raise ReadError(msg, code="dataset-missing")
        if not (name or first or len(names) == 1):
            msg = f"{path} contains several datasets; choose one: {names_text}."
            raise ReadError(msg, code="several-images")
        name = f"/{name.strip('/')}" if name else names[0]
        image, dtype = datasets[name], _get_dtype(datasets[name])
        check_chunks(path, image)
        axes, lengths = _find_axes(image), _get_shape(image)
        pitch, doubts = _read_pixel_size(image, axes)
        descriptions = {
            n: f"{' x '.join(map(str, _get_shape(item)))} {_get_dtype(item)}"
            for n, item in datasets.items()
        }
    inner = [axes.index(axis) for axis in "yxs" if axis in axes]
    outer = [n for n in range(len(axes)) if n not in inner]
    outer_axes, counts = [axes[n] for n in outer], [lengths[n] for n in outer]
    choices, index = images.choose_plane(path, options, outer_axes, counts)
    place = dict(zip(outer, index, strict=True))
    where = tuple(place.get(n, 0) for n, axis in enumerate(axes) if axis != "s")
    plane = DatasetPlane(path, name, image.chunks, where, (inner[0], inner[1]))
    shape = tuple(lengths[n] for n in inner)
    return images.RawImage(
        format="HDF5",
        data=images.read_plane(plane, shape, dtype),
        pixel_size_nm=pitch,
        name=None if len(datasets) == 1 else f"{path.stem} {name.strip('/')}",
        metadata={"dataset": name}
        | ({"datasets": descriptions} if len(descriptions) > 1 else {}),
        doubts=doubts,
        **choices,
    )


def _is_image(item: "Item") -> bool:
    """Return whether an item is a real-valued image stored in its own file."""
    if not getattr(item, "shape", None) or item.dtype.kind not in "buif":
        return False
    pairs = zip(_find_axes(item), item.shape, strict=False)
    is_plane = min((n for axis, n in pairs if axis in "yx"), default=0) > 1
    is_table = re.fullmatch(r"/s\d+/(resolutions|subdivisions)", item.name)  # BDV's
    return is_plane and not is_table and is_self_contained(item)


def _find_axes(image: "h5py.Dataset") -> list[str]:
    """Return the axes of a dataset: y, x, s of colour samples, t, z, c, otherwise p.

    Empty if it states none and does not have two or three.
    """
    has_samples = image.ndim > 2 and image.shape[-1] in (3, 4) and image.dtype == "u1"
    names = [str(name).lower() for name in _read_axis_names(image)]
    axes = [name if name in {*"tczyx"} else "p" for name in names]
    if len(axes) == image.ndim and axes.count("y") == axes.count("x") == 1:
        return [*axes[:-1], "s" if has_samples and axes[-1] == "c" else axes[-1]]
    usual = "yxs" if has_samples else "pyx"[-image.ndim :]
    return [*usual] if image.ndim in (2, 3) else []


def _read_axis_names(image: "h5py.Dataset") -> list[object]:
    """Read the names of axes as stated by vigra and ilastik, HDF5 or NeXus."""
    if "axistags" in image.attrs:
        return [axis["key"] for axis in json.loads(image.attrs["axistags"])["axes"]]
    labels, group = [side.label for side in image.dims], image.parent.attrs
    signal = np.ravel(group.get("signal", "")).astype(str)
    if any(labels) or image.name.rpartition("/")[2] not in signal:
        return labels
    return [*np.ravel(group.get("axes", "")).astype(str)]


def _read_pixel_size(
    image: "h5py.Dataset", axes: Sequence[str]
) -> tuple[PixelSize | None, tuple[str, ...]]:
    """Read the pixel size as many programs, NeXus or Imaris state it."""
    sides = axes.index("y"), axes.index("x")
    if (stated := image.attrs.get("element_size_um")) is None:
        return images.create_pixel_size([_read_step_nm(image, n) for n in sides]), ()
    steps = [images.convert_to_nm(value, "um") for value in np.ravel(stated)[-2:]]
    size = images.create_pixel_size(steps) if len(steps) == 2 else None
    what = f"element_size_um of {image.name} must be positive lengths (z, y, x)"
    return size, () if size else (images.create_size_warning(what, stated),)


def _read_step_nm(image: "h5py.Dataset", axis: int) -> float | None:
    """Read the pixel size along an axis from its coordinates or its extent."""
    names = [*_read_axis_names(image), *[""] * image.ndim]
    places = image.parent.get(names[axis]) if names[axis] else None
    if places is not None and hasattr(places, "shape"):
        step, within = images.measure_step(places[()])
        unit = _join_text(places.attrs.get("units", ""))
        step = images.round_to_fewest_digits(abs(step), within)
        return images.convert_to_nm(step, unit)
    about = getattr(image.file.get("DataSetInfo/Image"), "attrs", {})
    number, size = image.ndim - 1 - axis, _get_shape(image)[axis]  # x is the first
    ends = [about.get(f"Ext{end}{number}") for end in ("Min", "Max")]
    if "ImageSizeX" not in image.parent.attrs or any(end is None for end in ends):
        return None
    low, high = (float(_join_text(end)) for end in ends)
    step = images.round_to_fewest_digits((high - low) / size, 1e-15 * abs(high - low))
    return images.convert_to_nm(step, _join_text(about.get("Unit", "um")))


def _join_text(value: Any) -> str:
    """Join a text that may be stored as single characters."""
    parts = (n if isinstance(n, bytes) else str(n).encode() for n in np.ravel(value))
    return b"".join(parts).decode("utf-8", "replace")


def _get_shape(image: "h5py.Dataset") -> tuple[int, ...]:
    """Return the shape of an image, which Imaris pads to whole chunks and states."""
    stated = [image.parent.attrs.get(f"ImageSize{axis}") for axis in "ZYX"]
    if len(image.shape) != len(stated) or any(size is None for size in stated):
        return tuple(image.shape)
    return tuple(map(min, image.shape, (int(_join_text(size)) for size in stated)))


def _get_dtype(array: "h5py.Dataset") -> np.dtype[np.generic]:
    """Return the type of values, in BigDataViewer's files uint16 by default."""
    dtype: np.dtype[np.generic] = array.dtype
    cells = re.fullmatch(r"/t\d+/(s\d+)/\d+/cells", array.name)
    if cells is None or dtype.str[1:] != "i2":
        return dtype
    stated = getattr(array.file.get(cells[1]), "attrs", {}).get("dataType", b"uint16")
    is_signed = stated not in ("uint16", b"uint16")
    return dtype if is_signed else np.dtype(dtype.str.replace("i", "u"))


def is_self_contained(item: "h5py.Dataset") -> bool:
    """Return whether all values of a dataset are in its own file."""
    sources = item.virtual_sources() if item.is_virtual else ()
    return not item.external and all(source.file_name == "." for source in sources)
