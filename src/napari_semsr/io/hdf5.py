"""HDF5 in: one plane of one dataset, lazy when large, by h5py (the extra ``[hdf5]``).

A dataset is an image when it has two axes of more than one pixel or further ones before
them. Axes are named by ilastik's ``axistags`` or HDF5's dimension labels; elsewhere the
last two are rows and columns, and what stands before them counts planes. Links out of
the file are not followed, and what is stored in another file is no image.

HDF5's library comes to no end of some damaged files, and is ended by others. So a file
is read by a process of its own first, once in a session.
"""

import json
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import PixelSize, ReadError
from napari_semsr.io.files import choose, decoding
from napari_semsr.io.read_image import (
    LAZY_BYTES,
    RawImage,
    ReadOptions,
    choose_plane,
    named_axes,
    pixel_size,
    plan_blocks,
    to_nm,
)

_MAGIC = b"\x89HDF\r\n\x1a\n"
_BLOCK = 2048  # px; chosen: 16 MB of float32
_LARGEST_CHUNK = 1 << 29  # bytes, which are unpacked as a whole; as of a zarr store
_MOST = 1000  # datasets; chosen: more than anyone chooses from
_NAMED = 8  # datasets that a refusal names; chosen: two lines of text
_EVEN = 1e-3  # departure of NeXus's coordinates from even steps, of a step; chosen


_REHEARSAL_S = 60.0  # chosen: a slow disk's
_BUSY_S = 3  # of one item, where a system counts it; chosen: a thousand times the usual
_REHEARSED = 1 << 24  # bytes of pixels; chosen: unpacked in 0.2 s
_REHEARSAL = f"""
import signal
import sys
import h5py
left = {_REHEARSED}
def live():
    if hasattr(signal, "ITIMER_PROF"):
        signal.setitimer(signal.ITIMER_PROF, {_BUSY_S})
def lies_here(item):
    if item.is_virtual:
        return all(part.file_name == "." for part in item.virtual_sources())
    return not item.external
def visit(name, item):
    global left
    live()
    dict(item.attrs)
    if isinstance(item, h5py.Dataset) and item.dtype.kind in "buif":
        if not lies_here(item):
            return
        [axis.label for axis in item.dims]
        if item.shape and item.nbytes <= left:
            left -= item.nbytes
            item[...]
live()
with h5py.File(sys.argv[1], "r") as file:
    visit("", file)
    file.visititems(visit)
"""


def matches(path: Path, head: bytes) -> bool:
    """Tell HDF5 by its first bytes."""
    return path.is_file() and head.startswith(_MAGIC)


def _rehearse(path: Path) -> None:
    """Refuse a file by which the library is ended, or of which it comes to no end."""
    with suppress(OSError):
        told = path.stat()
        if not _survived(path.resolve(), told.st_size, told.st_mtime_ns):
            msg = (
                f"{path} cannot be read as HDF5 (its library did not come to the end "
                "of it): the file is damaged or cut short, copy or export it again."
            )
            raise ReadError(msg)


@lru_cache(maxsize=256)
def _survived(path: Path, _size: int, _changed: int) -> bool:
    """Whether a process that reads a file lives to its end; errors are no deaths."""
    words = [sys.executable, "-P", "-c", _REHEARSAL, str(path)]
    none = subprocess.DEVNULL
    hidden = getattr(subprocess, "CREATE_NO_WINDOW", 0)
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter
            words, stdin=none, stdout=none, stderr=none, check=False,
            timeout=_REHEARSAL_S, creationflags=hidden,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    return done.returncode in (0, 1)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file, or say how to get h5py; faults become sentences."""
    try:
        library = import_module("h5py")
    except ImportError as error:
        msg = f"{path} needs h5py to be read: pip install 'napari-semsr[hdf5]'."
        raise ReadError(msg) from error
    with decoding(path, "HDF5"), library.File(path, "r") as file:
        yield file


@dataclass(frozen=True, slots=True)
class _Axes:
    """What the axes of a dataset are."""

    names: str  # a letter each: x, y, c for channels, s for colour, others for planes
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Source:
    """Where the pixels of a plane lie; small, and can be sent to a worker."""

    path: Path
    dataset: str
    index: tuple[int | slice, ...]
    names: str  # of the axes that are left

    def window(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Read a part, (Y, X) or (Y, X, S)."""
        cut = {"y": rows, "x": columns, "s": slice(None)}
        left = iter(self.names)
        index = tuple(
            cut[next(left)] if isinstance(item, slice) else item for item in self.index
        )
        with _opened(self.path) as file:
            data = np.asarray(file[self.dataset][index])
        order = [self.names.index(name) for name in "yxs" if name in self.names]
        return data.transpose(order)


def raw_image(path: Path, options: ReadOptions, *, first: bool = False) -> RawImage:
    """Find a plane, its calibration and its pixels.

    Of several datasets the `first` is taken, if none is named.
    """
    for what in ("series", "level"):
        choose(path, what, getattr(options, what), 1)
    with suppress(ImportError):
        import_module("h5py")
        _rehearse(path)
    with _opened(path) as file:
        found = _datasets(file)
        name = _chosen(path, file, found, options.dataset, first=first)
        dataset = file[name]
        axes = found[name]
        pairs = list(zip(axes.names, axes.shape, strict=True))
        outer = [pair for pair in pairs if pair[0] not in "yxs"]
        channels, planes, places = choose_plane(
            path, options, [name for name, _ in outer], [size for _, size in outer]
        )
        chunk = math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
        if chunk > _LARGEST_CHUNK:
            msg = (
                f"{path} must have chunks of at most {_LARGEST_CHUNK >> 20} MiB, got "
                f"{chunk >> 20} MiB in {name}: store it in smaller ones."
            )
            raise ReadError(msg)
        warnings: list[str] = []
        size = _pixel_size(dataset, axes, warnings)
        sizes = dict(pairs)
        dtype = np.dtype(dataset.dtype)
        told = {
            key: f"{' x '.join(map(str, item.shape))} {file[key].dtype}"
            for key, item in found.items()
        }
        place = iter(places)
        index = tuple(
            slice(None) if name in "yxs" else next(place) for name, _ in pairs
        )
    left = "".join(letter for letter in axes.names if letter in "yxs")
    source = _Source(path, name, index, left)
    shape = tuple(sizes[letter] for letter in "yxs" if letter in sizes)
    small = math.prod(shape) * dtype.itemsize <= LAZY_BYTES
    everything = slice(None)
    return RawImage(
        format="HDF5",
        data=(
            source.window(everything, everything)
            if small
            else plan_blocks(source, shape, dtype, (_BLOCK, _BLOCK))
        ),
        pixel_size_nm=size,
        channels=channels,
        planes=planes,
        axes=named_axes(*zip(*outer, strict=True)) if outer else {},
        name=None if len(found) == 1 else f"{path.stem} {name.strip('/')}",
        metadata={"dataset": name, **({"datasets": told} if len(told) > 1 else {})},
        doubts=tuple(warnings),
    )


# Which dataset, and what its axes are.


def _datasets(file: Any) -> dict[str, _Axes]:
    library = import_module("h5py")
    found: dict[str, _Axes] = {}

    def visit(name: str, item: Any) -> bool | None:
        if isinstance(item, library.Dataset):
            axes = _axes(item)
            if axes is not None:
                found[f"/{name}"] = axes
        return True if len(found) >= _MOST else None

    file.visititems(visit)
    return found


def _axes(dataset: Any) -> _Axes | None:
    """Name the axes of a dataset; None where it is no image."""
    if dataset.dtype.kind not in "buif" or not _lies_here(dataset):
        return None
    shape = tuple(int(n) for n in dataset.shape or ())
    if len(shape) < 2:
        return None
    labels = [str(axis.label).lower()[:1] for axis in dataset.dims]
    names = _tagged(dataset, len(shape)) or ("".join(labels) if all(labels) else "")
    if (
        sorted(names).count("y") != 1
        or names.count("x") != 1
        or len(names) != len(shape)
    ):
        is_colour = len(shape) == 3 and shape[2] in (3, 4) and dataset.dtype == np.uint8
        names = "yxs" if is_colour else "p" * (len(shape) - 2) + "yx"
    sizes = dict(zip(names, shape, strict=True))
    return _Axes(names, shape) if min(sizes["y"], sizes["x"]) > 1 else None


def _lies_here(dataset: Any) -> bool:
    """Whether the values of a dataset are in its own file."""
    if dataset.is_virtual:
        return all(part.file_name == "." for part in dataset.virtual_sources())
    return not dataset.external


def _within(group: Any, name: str) -> Any:
    """Find what a path leads to by hard links alone; None where there is none.

    Another link may lead into another file, also from the middle of a path.
    """
    library = import_module("h5py")
    found = group.file if name.startswith("/") else group
    for part in name.split("/"):
        if part in ("", "."):
            continue
        if not isinstance(found, library.Group):
            return None
        if not isinstance(found.get(part, getlink=True), library.HardLink):
            return None
        found = found[part]
    return found


def _tagged(dataset: Any, count: int) -> str | None:
    try:
        axes = json.loads(_text(dataset.attrs.get("axistags")))["axes"]
        names = "".join(str(axis["key"])[:1] for axis in axes)
    except (ValueError, LookupError, TypeError):
        return None
    return names.lower() if len(names) == count else None


def _text(value: Any) -> str:
    """Read an attribute that is text."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return value if isinstance(value, str) else ""


def _chosen(
    path: Path,
    file: Any,
    found: Mapping[str, _Axes],
    wanted: str | None,
    *,
    first: bool,
) -> str:
    """Choose the dataset: the one that is asked for, the only one, NeXus's default."""
    if not found:
        msg = f"{path} must hold a dataset of two axes or more, and holds none."
        raise ReadError(msg)
    names = ", ".join(list(found)[:_NAMED]) + (
        ", \u2026" if len(found) > _NAMED else ""
    )
    if wanted is not None:
        name = f"/{wanted.strip('/')}"
        if name in found:
            return name
        msg = f"{path} has no dataset {wanted!r} that is an image: give one of {names}."
        raise ReadError(msg)
    default = _nexus_default(file)
    if len(found) == 1 or default in found or first:
        return default if default in found else next(iter(found))
    msg = (
        f"{path} holds {len(found)} datasets and one must be chosen: give dataset "
        f"{names}."
    )
    raise ReadError(msg)


def _nexus_default(file: Any) -> str:
    """Follow NeXus's ``default`` to the signal that a file names; else nothing."""
    library = import_module("h5py")
    group, steps = file, 0
    while "default" in group.attrs and steps < _NAMED:
        name, steps = _text(group.attrs["default"]), steps + 1
        group = _within(group, name) if name else None
        if not isinstance(group, library.Group) or group == file:
            return ""
    signal = _text(group.attrs.get("signal"))
    return f"{group.name}/{signal}" if steps and signal else ""


# Pixel size.


def _pixel_size(dataset: Any, axes: _Axes, warnings: list[str]) -> PixelSize | None:
    """Read ``element_size_um`` or NeXus's axes, ``(y, x)`` in nm."""
    stated = dataset.attrs.get("element_size_um")
    if stated is None:
        return _nexus_size(dataset, axes, warnings)
    values = np.atleast_1d(np.asarray(stated)).reshape(-1).tolist()[-2:]
    size = None
    if len(values) == 2:
        size = pixel_size([to_nm(value, "um") for value in values])
    if size is None:
        warnings.append(
            f"element_size_um of {dataset.name} must be positive lengths (z, y, x), "
            f"got {values}: the pixel size is left unknown."
        )
    return size


def _nexus_size(dataset: Any, axes: _Axes, warnings: list[str]) -> PixelSize | None:
    """Read the coordinates beside the signal of a NeXus group."""
    told = dataset.parent.attrs.get("axes")
    names = [_text(name) for name in np.atleast_1d(told)] if told is not None else []
    if len(names) != len(axes.names):
        return None
    steps = []
    for letter in "yx":
        coordinates = _coordinates(dataset.parent, names[axes.names.index(letter)])
        if coordinates is None:
            return None
        step = even_step(coordinates)
        unit = _text(coordinates.attrs.get("units"))
        steps.append(None if step is None else to_nm(abs(step), unit))
    size = pixel_size(steps)
    if size is None:
        warnings.append(
            f"The axes {names} of {dataset.name} must be even lengths with a unit: the "
            "pixel size is left unknown."
        )
    return size


def _coordinates(group: Any, name: str) -> Any:
    """Find the coordinates along an axis; None where there are none in this file."""
    item = _within(group, name)
    if not isinstance(item, import_module("h5py").Dataset) or not _lies_here(item):
        return None
    if len(item.shape or ()) != 1:
        return None
    return item if item.dtype.kind in "uif" and item.size > 1 else None


def even_step(coordinates: Any) -> float | None:
    """Distance of coordinates; None where they are not even."""
    values = np.asarray(coordinates, dtype=np.float64)
    step = float(values[-1] - values[0]) / (values.size - 1)
    if not math.isfinite(step) or step == 0:
        return None
    off = np.abs(values - values[0] - step * np.arange(values.size)).max()
    return step if off <= _EVEN * abs(step) else None
