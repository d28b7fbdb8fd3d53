"""Electron microscope formats: Gatan DM3 and DM4, TIA SER, EMD, and MRC.

Each kind lists the images of a file and where the pixels of each plane are; pixels are
then read by NumPy or h5py, a plane at a time. Data other than images of the sample,
such as spectra or diffraction patterns, are listed with their names and refused.

DM and SER are parsed by ``rosettasciio`` (GPL-3.0-or-later, the extra ``[em]``). Its
pixels are not used: it reads those of a big-endian DM file in the wrong order. EMD, of
Velox or of NCEM, is HDF5. An MRC header is parsed here: ``rosettasciio`` needs its byte
order and reads bytes as unsigned, and ``ncempy`` interprets the symmetry records of
every extended header as a pixel size. Formats: emdatasets.com/format, MRC2014 (Cheng et
al., J. Struct. Biol. 192, 146, 2015), IMOD's ``mrc_format.txt``.
"""

import json
import math
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import DTypeLike

from napari_semsr.core import JsonObject, ReadError, RealArray, open_file
from napari_semsr.io import files, hdf5, read_image as images

if TYPE_CHECKING:
    import h5py

_MRC_HEADER = 1024
# from MRC2014; 16, three bytes per colour pixel, from IMOD
_MODES = {0: "i1", 1: "i2", 2: "f4", 3: "V4", 4: "c8", 6: "u2", 12: "f2", 16: "V3"}
_LONGEST = 1 << 20  # px on a side; chosen: other formats have larger numbers there
_IMOD = 1146047817  # stamp of IMOD, followed by a flag for signed bytes
_FEI_RECORDS = 1 << 17  # bytes of FEI's first extended header, 32 floats a record
_DM_TYPES = {1: "i2", 2: "f4", 6: "u1", 7: "i4", 8: "u1", 9: "i1", 10: "u2"}
_DM_TYPES |= {11: "u4", 12: "f8", 14: "u1", 23: "u1"}
_DM_COLOUR, _DM_COMPLEX = (8, 23), (3, 5, 13, 27, 28)
_RECIPROCAL = re.compile(r"^1\s*/|\^\s*-|\u207b|\w-1$|^m?rad|^deg")
_ENERGY = ("ev", "kev")
_DIFFRACTION, _SPECTRUM = "a diffraction pattern", "a spectrum"
_COMPLEX = "an array of complex numbers, such as a Fourier transform"
_FEI = "FEI/Thermo"


@dataclass(frozen=True, slots=True)
class _MappedPlane:
    """Uncompressed pixels of a plane, stored row by row."""

    path: Path
    offset: int  # Offset in bytes
    shape: tuple[int, ...]  # Rows, columns and, in colour, samples
    dtype: str  # With its byte order
    is_flipped: bool = False  # The lowest row is stored first
    samples: tuple[int, ...] = ()  # Positions of red, green and blue
    unit = 1, 1

    def __post_init__(self) -> None:
        end = self.offset + math.prod(self.shape) * np.dtype(self.dtype).itemsize
        files.check_file_size(self.path, end)

    def read_window(self, rows: slice, columns: slice) -> RealArray:
        """Read a window (Y, X) or (Y, X, S) of the plane."""
        with files.convert_decoding_errors(self.path, "an image"):
            whole = np.memmap(self.path, self.dtype, "r", self.offset, self.shape)
        part = np.array((whole[::-1] if self.is_flipped else whole)[rows, columns])
        return part[..., list(self.samples)] if self.samples else part


@dataclass(frozen=True, slots=True)
class _Axis:
    """Axis of an array, as described in a file."""

    size: int
    step: float | None = None  # Distance of its pixels in its unit
    unit: str = ""

    @property
    def step_nm(self) -> float | None:
        unit = "angstrom" if self.unit == "A" else self.unit
        return None if self.step is None else images.convert_to_nm(self.step, unit)

    @property
    def axis_letter(self) -> str:
        """Letter that identifies the axis in `choose_plane`."""
        if self.unit in ("s", "ms", "min"):
            return "t"
        return "p" if images.get_nm_per_unit(self.unit) is None else "z"


@dataclass(frozen=True, slots=True)
class _Image:
    """Image or other data item in a file."""

    name: str
    axes: tuple[_Axis, ...] = ()  # Axes of planes, then rows and columns
    dtype: str = ""
    # Location of the pixels of a plane by its number, the last axis fastest
    plane: Callable[[int], images.PlaneReader] | None = None
    is_colour: bool = False
    refusal: str = ""  # Kind of data, if it is not an image of the sample

    @property
    def shape(self) -> tuple[int, ...]:
        sides = (self.axes[-2].size, self.axes[-1].size)
        return (*sides, 3) if self.is_colour else sides


def matches(path: Path, head: bytes) -> bool:
    """Return whether a file starts like one of these formats; MRC needs more bytes."""
    return path.is_file() and bool(_detect_format(path, head))


def _detect_format(path: Path, head: bytes) -> str:
    """Return the format of a file, or an empty string for other formats."""
    start = head.ljust(16, b"\0")
    version = int.from_bytes(start[:4], "big")
    order = start[8:12] if version == 3 else start[12:16]
    if version in (3, 4) and int.from_bytes(order, "big") in (0, 1):
        return f"DM{version}"
    if start[:4] == b"II\x97\x01":
        return "SER"
    if hdf5.is_hdf5(path, head):
        return hdf5.detect_emd_kind(path)
    with open_file(path) as stream:
        header = stream.read(_MRC_HEADER)
    is_named = path.suffix.lower() in images.MRC_SUFFIXES
    is_plausible = is_named and any(_find_plausible_byte_orders(header, "<>"))
    return "MRC" if is_plausible or header[208:211] == b"MAP" else ""


def raw_image(path: Path, options: images.ReadOptions) -> images.RawImage:
    """Read one image plane from the file, with its pixel size."""
    files.choose_index(path, "level", options.level, 1)
    with open_file(path) as stream:
        kind = _detect_format(path, stream.read(16))
    with files.convert_decoding_errors(path, kind):
        listed, vendor = _LISTS[kind](path)
    number = _choose_image(path, options, listed)
    image = listed[number]
    assert image.plane is not None  # noqa: S101 - data without it are refused
    outer = image.axes[:-2]
    several = [axis for axis in outer if axis.size > 1]
    axes, counts = [one.axis_letter for one in several], [one.size for one in several]
    choices, place = images.choose_plane(path, options, axes, counts)
    plane = image.plane(int(np.ravel_multi_index(place, counts)) if counts else 0)
    descriptions: list[str] = []
    for one in listed:
        sizes = " x ".join(str(axis.size) for axis in one.axes if axis.size > 1)
        what = one.refusal or f"{sizes} {np.dtype(one.dtype).name}"
        descriptions.append(f"{one.name}: {what}" if one.name else what)
    lengths = [axis.step_nm for axis in image.axes[-2:]]
    return images.RawImage(
        format=kind,
        data=images.read_plane(plane, image.shape, image.dtype),
        pixel_size_nm=images.create_pixel_size(lengths),
        vendor=vendor,
        series=len(listed),
        name=f"{path.stem} {image.name}".strip() if len(listed) > 1 else None,
        metadata=images.create_series_record(number, descriptions),
        **choices,
    )


def _choose_image(
    path: Path, options: images.ReadOptions, listed: Sequence[_Image]
) -> int:
    """Choose one of several images, by default the first that shows the sample."""
    if not listed:
        raise ReadError(f"{path} contains no image: export one.", code="no-image")
    usable = [n for n, image in enumerate(listed) if not image.refusal]
    number = usable[0] if usable else 0
    if options.series is not None:
        number = files.choose_index(path, "series", options.series, len(listed))
    refusal, name = listed[number].refusal, listed[number].name
    if refusal:
        refusal += f" ({name})" if name else ""
        others = ", ".join(map(str, usable))
        what = f"series {number}" if len(listed) > 1 else "it"
        remedy = f"choose series {others}" if usable else "open another file"
        msg = f"{path} must contain an image of the sample, but {what} is {refusal}"
        raise ReadError(f"{msg}: {remedy}.", code="format-unsupported")
    return number


def _find_rejection_reason(axes: Sequence[_Axis], dtype: DTypeLike) -> str:
    """Return why an array is not an image of the sample, or an empty string."""
    if any(axis.unit.lower() in _ENERGY for axis in axes):
        return _SPECTRUM
    if np.dtype(dtype).kind in "cV":
        return _COMPLEX
    # one axis of planes may be angles, of a tilted sample or of a detector
    angular = [bool(_RECIPROCAL.search(axis.unit)) for axis in axes]
    if any(angular[-2:]) or sum(angular) > 1:
        return _DIFFRACTION
    if len(axes) < 2 or min(axis.size for axis in axes[-2:]) < 2:
        return "a spectrum or a line profile"
    return ""


# Gatan DM3 and DM4


def _list_dm_images(path: Path) -> tuple[list[_Image], str | None]:
    """List the images in a DM file, except the thumbnail."""
    module = files.import_library(path, "rsciio.digitalmicrograph._api", "em")
    with open_file(path) as stream:
        reader = module.DigitalMicrographReader(stream)
        reader.parse_file()
        dictionaries = reader.get_image_dictionaries() or []
    return [_describe_dm_image(path, tags) for tags in dictionaries], "Gatan"


def _describe_dm_image(path: Path, tags: JsonObject) -> _Image:
    data, more = tags["ImageData"], tags.get("ImageTags") or {}
    name = tags.get("Name") or ""
    sizes = [int(n) for n in data["Dimensions"].values()]
    calibrations = list(data.get("Calibrations", {}).get("Dimension", {}).values())
    calibrations += [{}] * (len(sizes) - len(calibrations))
    axes: list[_Axis] = []
    for n, one in zip(sizes, calibrations, strict=False):
        step = images.round_to_fewest_digits(one.get("Scale", 0.0))
        axes.insert(0, _Axis(n, step, _to_text(one.get("Units"))))  # columns are first
    about, kind = more.get("Meta Data") or {}, int(data["DataType"])
    form = _to_text(about.get("Format")) if isinstance(about, dict) else ""
    microscope = more.get("Microscope Info") or {}
    is_calibrated = images.get_nm_per_unit(axes[-1].unit) is not None
    refusal = _find_rejection_reason(axes, "c8" if kind in _DM_COMPLEX else "u1")
    if form.startswith("Spectrum") or "spim" in more:
        refusal = _SPECTRUM
    elif form.startswith("Diffraction") or (
        microscope.get("Operation Mode") == "DIFFRACTION" and not is_calibrated
    ):
        refusal = refusal or _DIFFRACTION
    elif kind not in _DM_TYPES:
        refusal = refusal or f"an array of an unsupported type (number {kind})"
    if refusal:
        return _Image(name, refusal=refusal)
    order = "<" if data["Data"]["endian"] == "little" else ">"
    colour = kind in _DM_COLOUR
    dtype = np.dtype(order + _DM_TYPES[kind])
    shape = (axes[-2].size, axes[-1].size, *((4,) if colour else ()))
    samples = ((2, 1, 0) if order == "<" else (1, 2, 3)) if colour else ()
    start, step = int(data["Data"]["offset"]), math.prod(shape) * dtype.itemsize

    def locate_plane(number: int) -> images.PlaneReader:
        where = start + number * step
        return _MappedPlane(path, where, shape, dtype.str, samples=samples)

    return _Image(name, tuple(axes), dtype.str, locate_plane, colour)


def _to_text(value: object) -> str:
    """Convert a value from a file to text; empty if it is neither bytes nor text."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value.strip() if isinstance(value, str) else ""


# TIA's series


def _list_ser_images(path: Path) -> tuple[list[_Image], str | None]:
    """Describe the image of a SER file with all its recorded planes."""
    module = files.import_library(path, "rsciio.tia._api", "em")
    with open_file(path) as stream:
        # reading the header takes minutes if the number of axes is damaged
        head = stream.read(30)
        version, kind, _, _, count = struct.unpack_from("<H4I", head, 4)
        if module.guess_record_by(kind) == "spectrum":
            return [_Image("", refusal=_SPECTRUM)], _FEI
        width = "<u4" if version <= 528 else "<u8"
        stream.seek(int(np.frombuffer(head, width, 1, 22)[0]))
        most = path.stat().st_size // np.dtype(width).itemsize
        offsets = np.fromfile(stream, width, min(most, count))
        if not offsets.size:
            return [], _FEI
        start = int(offsets[0])
        fields, _ = module.get_data_dtype_list(stream, start, "image")
        stream.seek(start)
        first = np.fromfile(stream, np.dtype(fields[:-1]), 1)[0]
    steps = [float(first[f"CalibrationDelta{side}"]) for side in "YX"]
    shape = (int(first["ArraySizeY"]), int(first["ArraySizeX"]))
    # for a diffraction pattern the unit is 1/m, which the file does not state
    unit = "1/m" if max(map(abs, steps)) >= 1 else "m"
    axes = [_Axis(n, step, unit) for n, step in zip(shape, steps, strict=True)]
    dtype = np.dtype(fields[-1][1][0]).newbyteorder("<").str
    if refusal := _find_rejection_reason(axes, dtype):
        return [_Image("", refusal=refusal)], _FEI
    before = np.dtype(fields[:-1]).itemsize

    def locate_plane(number: int) -> images.PlaneReader:
        where = int(offsets[number]) + before
        return _MappedPlane(path, where, shape, dtype, is_flipped=True)

    return [_Image("", (_Axis(offsets.size), *axes), dtype, locate_plane)], _FEI


# EMD of Velox and of NCEM's programs


def _list_velox_images(path: Path) -> tuple[list[_Image], str | None]:
    """List the images in a Velox file, followed by its other data."""
    images: list[_Image] = []
    with hdf5.open_hdf5(path) as file:
        data = file["Data"]
        # Titles of displays tell images apart: sums and elements have the detector of
        # the images that they were made from. From version 11 a display names another
        # object, which names the image that it shows.
        labels: dict[str, str] = {}
        place = "Displays/ImageDisplay"
        for item in file.get(place, file.get(f"Presentation/{place}", {})).values():
            about = _read_velox_object(item)
            if at := _to_text(about.get("data")):
                about |= _read_velox_object(file.get(at))
            title, display = about.get("title"), about.get("display")
            if isinstance(display, dict):
                title = display.get("label")
            key = _to_text(about.get("dataPath")).rpartition("/")[2]
            labels[key] = _to_text(title)
        for key, group in data.get("Image", {}).items():
            about = _read_velox_object(group.get("Metadata"), np.s_[:, 0])
            result = about.get("BinaryResult") or {}
            array, sizes = group["Data"], result.get("PixelSize") or {}
            axes = [_Axis(int(n)) for n in array.shape]
            for n, (side, letter) in enumerate((("height", "Y"), ("width", "X"))):
                unit = _to_text(result.get(f"PixelUnit{letter}"))
                axes[n] = _Axis(axes[n].size, sizes.get(side), unit)
            name = labels.get(key) or _to_text(result.get("Detector")) or key
            images.append(_describe_array(path, array, axes, (0, 1), name))
        for kind in ("Spectrum", "SpectrumStream", "SpectrumImage"):
            what = _SPECTRUM if kind == "Spectrum" else "a spectrum image"
            images += [_Image(kind, refusal=what)] * min(len(data.get(kind, ())), 1)
    return images, _FEI


def _read_velox_object(item: "h5py.Dataset", where: object = 0) -> JsonObject:
    """Read a zero-padded JSON object; return an empty one if it is damaged."""
    try:
        text = item[where]
        text = text if isinstance(text, bytes) else np.asarray(text).tobytes()
        values = json.loads(text.split(b"\0")[0].decode("utf-8", "replace"))
    except (TypeError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _describe_array(
    path: Path,
    array: "h5py.Dataset",
    axes: Sequence[_Axis],
    sides: tuple[int, int],
    name: str,
) -> _Image:
    """Describe an HDF5 dataset whose row and column axes are `sides`."""
    outer = [n for n in range(array.ndim) if n not in sides]
    axes_in_order = [axes[n] for n in (*outer, *sides)] if array.ndim > 1 else axes
    refusal = _find_rejection_reason(axes_in_order, array.dtype)
    if refusal or not hdf5.is_self_contained(array):
        return _Image(name, refusal=refusal or "an array in another file")
    hdf5.check_chunks(path, array)
    dataset, chunks, counts = array.name, array.chunks, [axes[n].size for n in outer]

    def locate_plane(number: int) -> images.PlaneReader:
        where = [0] * len(axes)
        for n, at in zip(outer, np.unravel_index(number, counts or 1), strict=False):
            where[n] = int(at)
        return hdf5.DatasetPlane(path, dataset, chunks, tuple(where), sides)

    return _Image(name, tuple(axes_in_order), array.dtype.str, locate_plane)


def _list_ncem_images(path: Path) -> tuple[list[_Image], str | None]:
    """List the arrays in an EMD file with the NCEM layout."""
    images: list[_Image] = []
    groups: list[h5py.Group] = []
    with hdf5.open_hdf5(path) as file:
        file.visititems(lambda _, item: groups.append(item))
        for group in filter(hdf5.is_emd_group, groups):
            # an array whose axes are dim1, dim2, …
            arrays = {
                name: item
                for name, item in group.items()
                if hasattr(item, "shape") and not re.fullmatch(r"dim\d+", name)
            }
            largest = max(arrays.values(), key=lambda a: a.ndim, default=None)
            array = arrays.get("data", largest)
            if array is None or array.dtype.kind not in "buifcV" or not array.ndim:
                continue
            first = 0 if "dim0" in group else 1
            dims = [group.get(f"dim{n + first}") for n in range(array.ndim)]
            axes = [*map(_read_ncem_axis, dims, array.shape)]
            stated = [_to_text(_read_attribute(dim, "name")) for dim in dims]
            names = [name.lower()[-1:] for name in stated]
            sides = (array.ndim - 2, array.ndim - 1)
            if names.count("y") == names.count("x") == 1:
                sides = (names.index("y"), names.index("x"))
            name = group.name.rpartition("/")[2]
            images.append(_describe_array(path, array, axes, sides, name))
    return images, None


def _read_attribute(item: "h5py.Dataset | None", name: str) -> object:
    value = None if item is None else item.attrs.get(name)
    return value.flat[0] if isinstance(value, np.ndarray) and value.size else value


def _read_ncem_axis(dim: "h5py.Dataset | None", size: int) -> _Axis:
    """Read an axis and the step of its evenly spaced coordinates."""
    # as in "[n_m]"
    unit = _to_text(_read_attribute(dim, "units")).strip("[]").replace("_", "")
    measured = images.measure_step(np.asarray(() if dim is None else dim[()]))
    return _Axis(size, images.round_to_fewest_digits(*measured), unit)


# MRC


def _find_plausible_byte_orders(header: bytes, orders: str) -> list[str]:
    """Return the byte orders for which the sizes and mode in a header are valid."""
    layouts = {n: struct.unpack_from(f"{n}4i", header.ljust(16, b"\0")) for n in orders}
    return [
        order
        for order, (*sides, mode) in layouts.items()
        if mode in _MODES and all(0 < n <= _LONGEST for n in sides)
    ]


def _list_mrc_images(path: Path) -> tuple[list[_Image], str | None]:
    """Describe an MRC file, keeping the stored order of its rows."""
    file_bytes = path.stat().st_size
    with open_file(path) as stream:
        header = stream.read(_MRC_HEADER)
        if len(header) < _MRC_HEADER:
            msg = f"its header must be {_MRC_HEADER} bytes long, got {len(header)}"
            raise ValueError(msg)
        # the stamp is often wrong, so the size of the file is checked first
        byte_orders = "><" if header[212] == 0x11 else "<>"
        orders = _find_plausible_byte_orders(header, byte_orders)
        if not orders:
            mode = struct.unpack_from(f"{byte_orders[0]}i", header, 12)[0]
            msg = f"mode {mode} is not supported"
            raise NotImplementedError(msg)
        read = {order: _read_mrc_layout(header, order) for order in orders}
        order = next((one for one in orders if read[one][-1] <= file_bytes), orders[0])
        dtype, shape, depth, start, _ = read[order]
        more = stream.read(min(_FEI_RECORDS, start - _MRC_HEADER))
    if dtype.kind == "c" or dtype.str == "|V4":
        return [_Image("", refusal=_COMPLEX)], None
    colour, step = dtype.kind == "V", math.prod(shape) * dtype.itemsize
    if colour:
        dtype, shape = np.dtype("u1"), (*shape, 3)
    is_volume = struct.unpack_from(f"{order}i", header, 88)[0] == 1

    def locate_plane(number: int) -> images.PlaneReader:
        return _MappedPlane(path, start + number * step, shape, dtype.str)

    heights = _Axis(depth, unit="nm" if is_volume else "")
    steps = _read_mrc_pixel_sizes(header, more, order)
    axes = [_Axis(n, *one) for n, one in zip(shape, steps, strict=False)]
    return [_Image("", (heights, *axes), dtype.str, locate_plane, colour)], None


def _read_mrc_layout(
    header: bytes, order: str
) -> tuple[np.dtype[np.generic], tuple[int, ...], int, int, int]:
    """Return the data type, shape, number of planes and byte range of the pixels."""
    columns, rows, depth, mode = struct.unpack_from(f"{order}4i", header)
    dtype = np.dtype(order + _MODES[mode])
    if mode == 0:  # bytes are signed in MRC2014, but not in older files
        stamp, flags = struct.unpack_from(f"{order}2i", header, 152)
        lowest, highest = struct.unpack_from(f"{order}2f", header, 76)
        beyond = 0 <= lowest <= highest and highest > np.iinfo(np.int8).max
        is_signed = bool(flags & 1) if stamp == _IMOD else not beyond
        dtype = dtype if is_signed else np.dtype("u1")
    start = _MRC_HEADER + max(0, struct.unpack_from(f"{order}i", header, 92)[0])
    end = start + columns * rows * depth * dtype.itemsize
    return dtype, (rows, columns), depth, start, end


def _read_mrc_pixel_sizes(
    header: bytes, more: bytes, order: str
) -> list[tuple[float, str]]:
    """Read the pixel sizes of rows and columns with their units.

    FEI's files state them in metres in their extended header. A step or cell of exactly
    1 angstrom is what writers state that know no pixel size.
    """
    if header[104:108] in (b"FEI1", b"FEI2") and len(more) >= 172:
        return [(one, "m") for one in struct.unpack_from("<2d", more, 156)[::-1]]
    numbers = struct.unpack_from(f"{order}2h", header, 128)
    if numbers == (0, 32) and len(more) == _FEI_RECORDS:
        (step,) = struct.unpack_from(f"{order}f", more, 44)
        return [(images.round_to_fewest_digits(step), "m")] * 2
    counts = struct.unpack_from(f"{order}3i", header, 28)
    lengths = struct.unpack_from(f"{order}3f", header, 40)
    starts = struct.unpack_from(f"{order}2i", header, 64)
    steps = []
    for axis in starts if set(starts) < {1, 2, 3} else (1, 2):  # columns, then rows
        count, length = counts[axis - 1], lengths[axis - 1]
        step = length / count if count > 0 else 0.0
        within = abs(step) * float(np.finfo(np.float32).eps) / 2
        steps.append((images.round_to_fewest_digits(step, within or 1e-9), "angstrom"))
    if {step for step, _ in steps} == {1.0} or set(lengths[:2]) == {1.0}:
        return [(0.0, "angstrom")] * 2
    return steps[::-1]


_LISTS = {
    "DM3": _list_dm_images,
    "DM4": _list_dm_images,
    "SER": _list_ser_images,
    "EMD (Velox)": _list_velox_images,
    "EMD (NCEM)": _list_ncem_images,
    "MRC": _list_mrc_images,
}
"""Functions that list the images and, if known, the vendor of a file, by format."""
