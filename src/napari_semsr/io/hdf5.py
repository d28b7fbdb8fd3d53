"""HDF5 reader for dataset planes, lazy if large, using h5py (extra ``[hdf5]``).

A dataset of two axes is an image, and one of three: if the last has 3 or 4 values of
uint8 it is colour, otherwise the first counts planes. External links are not followed.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_semsr.core import Message, ReadError, RealArray
from napari_semsr.io import read_image as images
from napari_semsr.io.files import choose_index, convert_decoding_errors, import_library

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


def is_emd_group(item: Any) -> bool:
    """Return whether an item is a group with an array in the NCEM layout."""
    return hasattr(item, "keys") and bool(item.attrs.get("emd_group_type", False))


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Open a file; raise `ReadError` if it is damaged or h5py is missing."""
    extra = "em" if path.suffix.lower() == ".emd" else "hdf5"
    h5py = import_library(path, "h5py", "h5py", extra)
    with convert_decoding_errors(path, "HDF5"), h5py.File(path, "r") as file:
        yield file


def check_chunks(path: Path, array: Any) -> None:
    """Raise `ReadError` if the chunks of a dataset are too large to load."""
    if math.prod(array.chunks or ()) * array.dtype.itemsize > _LARGEST_CHUNK:
        raise ReadError(
            f"{path} must have chunks of at most 512 MiB in {array.name}.",
            code="blocks-too-large",
        )


@dataclass(frozen=True, slots=True)
class DatasetPlane:
    """Plane of a dataset whose axes may be in any order."""

    path: Path
    dataset: str
    place: tuple[int, ...]  # Index on each axis; rows and columns are not used
    sides: tuple[int, int]  # Axes of rows and columns

    def read_window(self, rows: slice, columns: slice) -> RealArray:
        """Read a window (Y, X) or (Y, X, S) of the plane."""
        where: list[object] = list(self.place)
        where[self.sides[0]], where[self.sides[1]] = rows, columns
        with open_hdf5(self.path) as file:
            part = np.asarray(file[self.dataset][tuple(where)])
        return part if self.sides[0] < self.sides[1] else part.T


def raw_image(
    path: Path, options: images.ReadOptions, *, first: bool = False
) -> images.RawImage:
    """Read a plane with its pixel size; if `first`, default to the first dataset."""
    for what in ("series", "level"):
        choose_index(path, what, getattr(options, what), 1)
    with open_hdf5(path) as file:
        items: dict[str, Any] = {}
        file.visititems(lambda name, item: items.update({f"/{name}": item}))
        datasets = {name: item for name, item in items.items() if _is_image(item)}
        names, name = [*datasets], options.dataset
        # chosen: at most two lines of text
        names_text = ", ".join(names[:8]) + ", \u2026" * (len(names) > 8)
        if not names:
            raise ReadError(
                f"{path} must contain a dataset with two or three axes.",
                code="no-image",
            )
        if name and f"/{name.strip('/')}" not in names:
            raise ReadError(
                f"{path} has no image in dataset {name!r}: choose {names_text}.",
                code="dataset-missing",
            )
        if not (name or first or len(names) == 1):
            raise ReadError(
                f"{path} contains several datasets; choose one: {names_text}.",
                code="several-images",
            )
        name = f"/{name.strip('/')}" if name else names[0]
        image, dtype = datasets[name], datasets[name].dtype
        check_chunks(path, image)
        sides = image.shape[: len(image.shape) - 2 - _is_colour(image)]
        shape = image.shape[len(sides) :]
        element_size = image.attrs.get("element_size_um")
        sizes = {n: " x ".join(map(str, item.shape)) for n, item in datasets.items()}
        descriptions = {n: f"{size} {datasets[n].dtype}" for n, size in sizes.items()}
    lengths = [
        images.convert_to_nm(value, "um") for value in np.ravel(element_size)[-2:]
    ]
    pitch = images.create_pixel_size(lengths) if len(lengths) == 2 else None
    doubt = Message(
        f"element_size_um of {name} must be positive lengths (z, y, x), got "
        f"{element_size}: the pixel size is left unknown.",
        "pixel-size-invalid",
    )
    axes = ["p"] * len(sides)
    channels, planes, place = images.choose_plane(path, options, axes, sides)
    plane = DatasetPlane(path, name, (*place, 0, 0), (len(place), len(place) + 1))
    unknown = element_size is not None and pitch is None
    return images.RawImage(
        format="HDF5",
        data=images.read_plane(plane, shape, dtype),
        pixel_size_nm=pitch,
        channels=channels,
        planes=planes,
        axes=images.get_axis_sizes(axes, sides),
        name=None if len(datasets) == 1 else f"{path.stem} {name.strip('/')}",
        metadata={
            "dataset": name,
            **({"datasets": descriptions} if len(descriptions) > 1 else {}),
        },
        doubts=(doubt,) if unknown else (),
    )


def _is_image(item: Any) -> bool:
    """Return whether an item is a real-valued image stored in its own file."""
    shape = getattr(item, "shape", None) or ()
    if len(shape) not in (2, 3) or item.dtype.kind not in "buif":
        return False
    sides = shape[:2] if _is_colour(item) else shape[-2:]
    return is_self_contained(item) and min(sides) > 1


def is_self_contained(item: Any) -> bool:
    """Return whether all values of a dataset are in its own file."""
    sources = item.virtual_sources() if item.is_virtual else ()
    return not item.external and all(source.file_name == "." for source in sources)


def _is_colour(image: Any) -> bool:
    return len(image.shape) == 3 and image.shape[2] in (3, 4) and image.dtype == "u1"
