"""TIFF reader for plain, ImageJ, OME and microscope files, lazy if large."""

import logging
import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree as ET

import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile import TiffFile, TiffPage, TiffPageSeries

from napari_semsr import core
from napari_semsr.io import files, read_image

# The OME-XML document: physical sizes, names, our own annotation.

_DEFAULT_UNIT = "\u00b5m"
_MAX_PLANES = 1_000_000  # chosen: `tifffile` allocates an entry for each
_COUNTS = ("PlaneCount", "NumPlanes", "IFD", "FirstZ", "FirstC", "FirstT")
_DIGITS = 18  # digits of a number; chosen: enough for any number of planes
_NO_LENGTH = ("pixel", "reference frame")


def _parse_ome_xml(text: str) -> ET.Element | None:
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        return None
    plain = text.strip().rstrip("\0")
    # some writers leave control characters in names, which XML does not have
    for xml_text in (plain, core.escape_invisible_characters(plain, lines=True)):
        with suppress(ET.ParseError):  # None is reported as damaged
            return ET.fromstring(xml_text)  # noqa: S314
    return None


def _has_planes(
    image: ET.Element, is_there: Callable[[str], bool], own: str | None
) -> bool:
    """Return whether planes of an OME image are in files there or have UUID `own`.

    An image whose files are all missing does not count as a series.
    """
    uuids = (data.find("{*}UUID") for data in image.iterfind(".//{*}TiffData"))
    return any(
        uuid is None or (own and uuid.text == own) or is_there(uuid.get("FileName", ""))
        for uuid in uuids
    )


def _read_series_metadata(
    root: ET.Element, series: int, tif: TiffFile, warnings: list[str]
) -> tuple[core.PixelSize | None, str | None, str | None]:
    """Read the pixel size, name and bit depth of a series; None if missing."""
    images, count = root.findall("{*}Image"), len(tif.series)
    folder, name = Path(tif.filehandle.dirname), tif.filehandle.name
    # if the set of a file was ignored, only its own images are read
    is_there = (lambda n: (folder / n).is_file()) if tif.is_ome else name.__eq__
    if len(images) > count:
        own = [one for one in images if _has_planes(one, is_there, root.get("UUID"))]
        images = own or images
    if len(images) <= count:
        images = images[series : series + 1]
    facts = [_read_ome_image(image, warnings) for image in images]
    sizes, names, depths = ({one[i] for one in facts} for i in range(3))
    if len(sizes) > 1:
        sentence = "The OME-XML lists images with different pixel sizes: none is used."
        warnings.append(core.Message(sentence, "pixel-size-contradicts"))
    only = tuple(of.pop() if len(of) == 1 else None for of in (sizes, names, depths))
    return cast("tuple[core.PixelSize | None, str | None, str | None]", only)


# Significant bits of integers, as other programs state them in texts and tags.

_BITS_TEXT = re.compile(
    r"^[^=:\n]*\b(?:ComponentBitCount|SignificantBits|BitDepth|Bit Depth|BitsPerPixel"
    r"|Bits per (?:pixel|sample))\b[^=:\n]*[=:]\s*(\d{1,2})\s*$",
    re.IGNORECASE | re.MULTILINE,
)
_LARGEST_VALUE, _LARGEST_SAMPLE = 281, 341  # tags of the largest grey value
_MICRO_MANAGER = 51123


def _get_significant_bits(page: TiffPage, by_ome: object, text: str) -> dict[str, int]:
    """Return the number of significant bits, or an empty dictionary if unknown.

    Sources in this order: bits per sample, if fewer than those of the type; OME-XML;
    text by Micro-Manager, ImageJ or Bio-Formats; tags of the largest value, if it is
    all ones in binary, since some programs write the largest value that occurs.
    """
    if page.dtype is None or page.dtype.kind != "u":
        return {}
    width, stored_bits = 8 * page.dtype.itemsize, int(page.bitspersample)
    if 1 < stored_bits < width:
        return {core.BITS_KEY: stored_bits}
    vendor_values = page.tags.valueof(_MICRO_MANAGER)
    tags = (page.tags.valueof(tag) for tag in (_LARGEST_SAMPLE, _LARGEST_VALUE))
    largest = [value[0] if isinstance(value, tuple) else value for value in tags]
    bit_depths: list[Any] = [
        by_ome,
        vendor_values.get("BitDepth") if isinstance(vendor_values, Mapping) else None,
        *_BITS_TEXT.findall(text)[:1],
        *(n.bit_length() for n in largest if isinstance(n, int) and not n & (n + 1)),
    ]
    for value in bit_depths:
        with suppress(TypeError, ValueError):  # not a number, so that it states none
            if 1 < int(value) <= width:
                return {core.BITS_KEY: int(value)}
    return {}


def _read_ome_image(
    image: ET.Element, warnings: list[str]
) -> tuple[core.PixelSize | None, str | None, str | None]:
    """Read the pixel size ``(y, x)`` in nm, name and bit depth of an OME image."""
    pixels = image.find("{*}Pixels")
    if pixels is None:
        return None, image.get("Name"), None
    keys = ("PhysicalSizeY", "PhysicalSizeX")
    sizes = [(pixels.get(n), pixels.get(f"{n}Unit", _DEFAULT_UNIT)) for n in keys]
    lengths = [None if v is None else read_image.convert_to_nm(v, u) for v, u in sizes]
    size = read_image.create_pixel_size(lengths)
    stated = [f"{v} {u}" for v, u in sizes if v is not None and u not in _NO_LENGTH]
    if size is None and stated:
        what = "The OME physical size must be two positive lengths"
        warnings.append(read_image.create_size_warning(what, stated))
    return size, image.get("Name"), pixels.get("SignificantBits")


# Palettes and inverted scales: conversion of stored numbers to grey values.


def _apply_palette(
    data: read_image.Pixels, colormap: core.RealArray
) -> read_image.Pixels:
    """Apply a (3, N) colour table to the indices in a (Y, X) plane."""
    table = np.asarray(colormap, dtype=np.uint16)
    ramp = np.arange(table.shape[1])
    grey = bool(np.all(table == table[0]))
    wide = bool(np.any((table % 257 != 0) & (table % 256 != 0)))
    small = table if wide else (table >> 8).astype(np.uint8)
    if grey and np.array_equal(small[0], ramp):
        return data
    lut = small[0] if grey else np.ascontiguousarray(small.T)
    if isinstance(data, np.ndarray):
        return _apply_lut(data, lut)
    more = {} if grey else {"chunks": (*data.chunks, (3,)), "new_axis": 2}
    return data.map_blocks(_apply_lut, lut, dtype=lut.dtype, **more)


def _apply_lut(block: core.RealArray, lut: NDArray[np.generic]) -> core.RealArray:
    try:
        return np.asarray(lut[block])
    except IndexError as error:
        msg = f"The palette has only {len(lut)} colours: export the image in grey."
        raise core.ReadError(msg, code="file-damaged") from error


def _convert_contrast_limits(
    look: core.DisplaySettings | None, change: Callable[[float], float]
) -> core.DisplaySettings | None:
    """Apply a grey-value conversion to the contrast limits."""
    if look is None:
        return None
    low, high = sorted(change(limit) for limit in look.limits)
    return look.model_copy(update={"limits": (low, high)})


# ImageJ's calibration of grey values, as defined in `ij/measure/Calibration.java`.
# ImageJ stores signed 16-bit integers as unsigned ones with a linear calibration.

_Details = Mapping[str, str | float]
_STRAIGHT, _NO_FUNCTION = 0, 20
_SIGNED_16 = (-32768.0, 1.0)


def _read_grey_calibration(
    details: _Details, dtype: np.dtype[np.generic], warnings: list[str]
) -> tuple[float, float] | None:
    """Read ImageJ's linear calibration of grey values."""
    kind = details.get("cf", _NO_FUNCTION)
    if kind == _NO_FUNCTION or dtype.kind != "u" or dtype.itemsize > 2:
        return None  # for other types ImageJ shows the stored values
    try:
        line = float(details["c0"]), float(details["c1"])
    except (KeyError, TypeError, ValueError):
        line = math.nan, math.nan
    if kind == _STRAIGHT and np.isfinite(line).all() and line[1] != 0:
        return line
    sentence = f"ImageJ's grey-value calibration (cf={kind}) is not linear: if you "
    sentence += "need it, apply it in ImageJ and save 32-bit values."
    warnings.append(core.Message(sentence, "grey-calibration-ignored"))
    return None


_NO_DATA = 42113  # "GDAL_NODATA": the value of missing pixels in maps, as text


def _find_no_data(
    data: read_image.Pixels, page: TiffPage, warnings: list[str]
) -> read_image.Pixels | None:
    """Mark the pixels (Y, X) that have the value that a page declares as no data.

    None if there are none; whether a lazy image has any is not known.
    """
    try:
        value = float(str(page.tags.valueof(_NO_DATA)).strip(" \0").replace(",", "."))
    except ValueError:  # no value is stated, or it is not a number
        return None
    if data.dtype.kind not in "uif" or not math.isfinite(value):
        return None  # NaN and infinities are missing anyway
    missing: read_image.Pixels
    if data.dtype.kind == "f":
        with np.errstate(over="ignore"):  # rounded to the type, e.g. -3.4e38
            missing = np.isclose(data, data.dtype.type(value), rtol=1e-5, atol=0)
    elif np.iinfo(data.dtype).min <= value <= np.iinfo(data.dtype).max:
        missing = data == value
    else:
        return None
    if missing.ndim > 2:
        missing = missing[..., : 3 if missing.shape[2] > 2 else 1].all(axis=2)
    if isinstance(missing, np.ndarray) and not missing.any():
        return None
    sentence = f"Pixels with value {value:g} are missing, as GDAL_NODATA states."
    warnings.append(core.Message(sentence, "pixels-marked-missing"))
    return missing


def _convert_grey_values(
    data: Any,
    look: core.DisplaySettings | None,
    white_bits: int,
    line: tuple[float, float] | None,
    warnings: list[str],
) -> tuple[Any, core.DisplaySettings | None]:
    """Invert grey values for which zero is white, and apply their calibration.

    `white_bits` is the bit depth of values whose zero is white, or 0. Calibrated values
    and floats are not inverted: the former are measured, the latter have no white.
    """
    is_inverted = white_bits > 0
    if is_inverted and line in (None, _SIGNED_16) and data.dtype.kind != "f":
        kind, is_inverted = data.dtype.kind, False
        # for signed integers the centre is between -1 and 0
        white = 2**white_bits - 1 if kind == "u" else -1
        data = data.dtype.type(white) - data if kind == "u" else ~data
        if kind != "b":
            look = _convert_contrast_limits(look, lambda limit: white - limit)
    if line is not None:
        shift, slope = line
        look = _convert_contrast_limits(look, lambda limit: limit * slope + shift)
        ends = sorted((shift, shift + slope * np.iinfo(data.dtype).max))
        limits = {dtype: np.iinfo(dtype) for dtype in (data.dtype, np.dtype(np.int16))}
        fitting = [d for d, n in limits.items() if n.min <= ends[0] <= ends[1] <= n.max]
        if abs(slope) == 1 and shift.is_integer() and fitting:
            values = data.astype(np.int32) * int(slope) + int(shift)
            data = values.astype(fitting[0])
        else:
            data = (data * slope + shift).astype(np.float32)
        is_inverted ^= slope < 0
    if is_inverted:
        sentence = "The inverted lookup table is ignored: invert the image if needed."
        warnings.append(core.Message(sentence, "inverted-display"))
        look = look and look.model_copy(update={"colormap": "gray_r"})
    return data, look


# Private TIFF tags of scanning electron microscopes.
#
# FEI and Thermo Fisher: tags 34680 and 34682, an INI text, lengths in metres, the
# data bar below ``ResolutionY`` rows. Zeiss: tag 34118, lines of ``KEY`` followed by
# ``Name = value unit``, in the unit that the operator saw. TESCAN: tag 50431, the
# same text as in a file next to other images.

_LARGEST = 4 << 20  # bytes of a vendor's header; chosen
_SCANS = ("Scan", "EScan", "IScan", "CScan")
_FIELD_TOLERANCE = 0.01  # the field width has four digits


# The entries that describe the acquisition, by section.
_FEI_ENTRIES = {
    "System": ("SystemType", "Software"),
    "EBeam": ("HV", "BeamCurrent", "HFW", "VFW", "WD"),
    "Scan": ("Dwelltime", "PixelWidth", "PixelHeight"),
    "Image": ("ResolutionX", "ResolutionY"),
    "PrivateFei": ("DatabarHeight", "TimeOfCreation"),
    "DatabarData": ("flAccV", "flMagn", "flWD"),
}


def parse_fei_header(text: str, shape: tuple[int, int]) -> read_image.RawImage:
    """Parse FEI and Thermo Fisher INI text without reading pixels."""
    lines = "\n".join(text.splitlines())
    _, *parts = re.split(r"^\s*\[(.*)\]\s*$", lines, flags=re.MULTILINE)
    sections: dict[str, dict[str, str]] = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        sections.setdefault(name, {}).update(read_image.parse_settings(body))
    image = sections.get("Image", {})
    sides = f"{image.get('ResolutionX', shape[1])} {image.get('ResolutionY')}"
    frame = read_image.parse_rows_and_columns(sides)
    warnings: list[str] = []
    size = None
    for name in _SCANS:
        scan = sections.get(name, {})
        stated = [scan.get("PixelHeight"), scan.get("PixelWidth")]
        if not any(stated):
            continue
        lengths = [read_image.convert_to_nm(value, "m") for value in stated]
        size = read_image.create_pixel_size(lengths)
        if size is not None:
            warnings = []
            break
        what = "FEI's PixelHeight and PixelWidth must be positive lengths in metres"
        warnings.append(read_image.create_size_warning(what, stated))
    metadata = {
        f"{section}.{key}": sections[section][key]
        for section, keys in _FEI_ENTRIES.items()
        for key in keys
        if sections.get(section, {}).get(key)
    }
    about = read_image.RawImage("TIFF", size, "FEI", metadata=metadata)
    about = replace(about, warnings=tuple(warnings[:1]))
    if frame is None:
        return about
    # a page that was resampled or cropped keeps the header of the scan
    return read_image.apply_frame_metadata(about, "FEI's header", frame, shape)


def _refine_pixel_size(label: str, numbers: list[str]) -> float | None:
    """Read the pixel size, taking more digits from the header if they agree.

    The label is rounded for the screen; the fourth unnamed number is the same length
    in metres, but belongs to the live scan when the two differ.
    """
    length = read_image.parse_metadata_length_nm(label)
    if length is None or len(numbers) < 4:
        return length
    exact = read_image.convert_to_nm(numbers[3], "m")
    digits = label.split()[0].partition(".")[2]
    unit = read_image.parse_metadata_length_nm(f"1 {label.split()[-1]}") or 0.0
    half = 0.5 * 10.0 ** -len(digits) * unit
    if exact is not None and abs(exact - length) <= half * 1.001:
        return exact
    return length


def parse_zeiss_header(text: str, shape: tuple[int, int]) -> read_image.RawImage:
    """Parse Zeiss SmartSEM text without reading pixels."""
    # unnamed numbers come first, and then values, each on the line after its name
    lines = [line.strip() for line in text.splitlines()]
    numbers: list[str] = []
    values: dict[str, str] = {}
    for line, following in zip(lines, [*lines[1:], ""], strict=False):
        if line.startswith(("AP_", "DP_", "SV_")):
            values[line] = following.partition("=")[2].strip()
        elif not values:
            numbers.append(line)
    metadata = {
        key: values[key]
        for key in (
            "AP_IMAGE_PIXEL_SIZE",
            "AP_WIDTH",
            "AP_HEIGHT",
            "AP_MAG",
            "AP_WD",
            "AP_ACTUALKV",
            "AP_MANUALKV",
            "DP_IMAGE_STORE",
            "DP_DETECTOR_TYPE",
            "SV_VERSION",
        )
        if values.get(key)
    }
    image = read_image.RawImage("TIFF", None, "Zeiss", metadata=metadata)
    label = values.get("AP_IMAGE_PIXEL_SIZE")
    if label is None:
        return _add_pixel_size_from_fov(image, values, shape)
    length = _refine_pixel_size(label, numbers)
    if length is None:
        what = "Zeiss's AP_IMAGE_PIXEL_SIZE must be a positive length"
        warning = read_image.create_size_warning(what, repr(label))
        return replace(image, warnings=(warning,))
    image = replace(image, pixel_size_nm=read_image.create_pixel_size((length, length)))
    return _rescale_to_page(image, length, values, shape)


def _add_pixel_size_from_fov(
    image: read_image.RawImage, values: Mapping[str, str], shape: tuple[int, int]
) -> read_image.RawImage:
    """Compute the pixel size of an older file from its field of view.

    The live scan's ``AP_PIXEL_SIZE``, which is there too, refers to the screen:
    twice as fine as a page that was stored at half its width.
    """
    across, down = values.get("AP_WIDTH", ""), values.get("AP_HEIGHT", "")
    width = read_image.parse_metadata_length_nm(across)
    height = read_image.parse_metadata_length_nm(down)
    pitch = None if width is None else width / shape[1]
    if pitch is None:
        fault = f"AP_WIDTH is not a length ({across!r})"
        reason = f"and {fault if across else 'no AP_WIDTH'}"
        code = "pixel-size-missing"
    elif height is not None and abs(height / shape[0] / pitch - 1) > _FIELD_TOLERANCE:
        pixels = f"{shape[0]} x {shape[1]} px"
        reason = f"and the field of view of {down} x {across} does not match {pixels}"
        code = "pixel-size-contradicts"
    else:
        basis = {"pixel_size_from": f"AP_WIDTH, {across}, divided by {shape[1]} px"}
        size = read_image.create_pixel_size((pitch, pitch))
        return replace(image, pixel_size_nm=size, metadata={**image.metadata, **basis})
    text = f"The Zeiss header has no AP_IMAGE_PIXEL_SIZE, {reason}: the pixel size is"
    return replace(image, warnings=(core.Message(f"{text} left unknown.", code),))


def _rescale_to_page(
    image: read_image.RawImage,
    length: float,
    values: Mapping[str, str],
    shape: tuple[int, int],
) -> read_image.RawImage:
    """Scale the stated pixel size to the width of the stored page.

    Resampling does not change the width of the field.
    """
    field_nm = read_image.parse_metadata_length_nm(values.get("AP_WIDTH", ""))
    width = shape[1]
    if field_nm is not None and abs(length * width / field_nm - 1) < _FIELD_TOLERANCE:
        return image
    frame = read_image.parse_rows_and_columns(values.get("DP_IMAGE_STORE", ""), "*")
    if frame is not None and frame[1] != width:
        # the data bar is inside the frame, so there is none below it
        fitting = read_image.apply_frame_metadata(image, "Zeiss's header", frame, shape)
        return replace(fitting, databar_rows=0)
    pitch = length if field_nm is None else field_nm / width
    return replace(image, pixel_size_nm=read_image.create_pixel_size((pitch, pitch)))


_TESCAN_TAG = 50431
_PARSERS: dict[int, Callable[[str, core.IntPair], read_image.RawImage | None]] = {
    **dict.fromkeys((34680, 34682), parse_fei_header),
    34118: parse_zeiss_header,
    _TESCAN_TAG: partial(read_image.parse_tescan_header, name=f"tag {_TESCAN_TAG}"),
}


def _read_vendor_metadata(tif: TiffFile, page: TiffPage) -> read_image.RawImage | None:
    shape, first = (int(page.imagelength), int(page.imagewidth)), tif.pages.first
    if _is_thumbnail(first, page) and _PARSERS.keys().isdisjoint(page.tags.keys()):
        page = first  # it may hold the header of both
    for code, parse in _PARSERS.items():
        tag = page.tags.get(code)
        if tag is not None:  # its bytes, since it may have any type
            tif.filehandle.seek(tag.valueoffset)
            data = tif.filehandle.read(min(int(tag.valuebytecount), _LARGEST))
            return parse(read_image.decode_text(data).replace("\0", "\n"), shape)
    return None


# Pixel size of other TIFFs: ImageJ, resolution tags.

_INCH = 2  # TIFF's default
_TAG_UNITS = {_INCH: "inch", 3: "cm"}
_PRINT_UNITS = [*map(read_image.get_nm_per_unit, _TAG_UNITS.values())]
_NO_UNIT = ("pixel", "pixels", "px", "none", "reference frame")


def _read_pixel_pitches(
    page: TiffPage, unit: str, y_unit: str | None = None
) -> core.PixelSize | None:
    """Return the pixel size from both resolution tags; `y_unit` is for rows."""
    lengths: list[float | None] = [None, None]
    tags = (("YResolution", y_unit or unit), ("XResolution", unit))
    for index, (name, per) in enumerate(tags):
        value = page.tags.valueof(name)
        # rationals may be damaged
        with suppress(TypeError, ValueError, ArithmeticError, IndexError):
            pair = value if isinstance(value, tuple | list) else (value, 1)
            pitch = 1 / (float(pair[0]) / float(pair[1]))
            lengths[index] = read_image.convert_to_nm(pitch, per)
    return read_image.create_pixel_size(lengths)


def _read_tag_pixel_size(page: TiffPage) -> core.PixelSize | None:
    """Read the pixel size ``(y, x)`` in nm from resolution tags, except print sizes."""
    tag = page.tags.get("ResolutionUnit")
    code = _INCH if tag is None else tag.value if tag.count == 1 else 0
    unit = _TAG_UNITS.get(int(code))
    size = None if unit is None else _read_pixel_pitches(page, unit)
    return None if size is None or max(size) > read_image.LARGEST_PRINTED_NM else size


def _read_imagej_pixel_size(
    page: TiffPage, metadata: _Details, warnings: list[str]
) -> core.PixelSize | None:
    unit = str(metadata.get("unit", metadata.get("xunit", ""))).strip()
    if unit in ("", "null"):  # from Bio-Formats: the tags have their own unit
        return _read_tag_pixel_size(page)
    if unit.lower() in _NO_UNIT:
        return None
    size = _read_pixel_pitches(page, unit, str(metadata.get("yunit", unit)).strip())
    if size is None:
        resolution = page.tags.valueof("XResolution")
        what = "ImageJ's calibration must be pixels per unit of length"
        got = f"{resolution} per {unit!r}"
        warnings.append(read_image.create_size_warning(what, got))
        return None
    is_coarse = max(size) > read_image.LARGEST_PRINTED_NM
    is_print = is_coarse and read_image.get_nm_per_unit(unit) in _PRINT_UNITS
    return None if is_print else size  # ImageJ uses resolution tags as a calibration


# Pixels: one plane, in memory or lazily, never through an open handle.


@dataclass(frozen=True, slots=True)
class _PlaneSource:
    """Location of the pixels of one plane; small and picklable."""

    path: Path  # The TIFF
    # Keywords by which `tifffile` finds its series
    is_ome: bool | None
    omexml: str | None
    series: int
    level: int
    shape: tuple[int, ...]  # ``(Y, X)``, ``(Y, X, S)`` or ``(S, Y, X)`` as stored
    axes: str  # Letters of these axes
    dtype: str  # Type with byte order, as stored
    sample: int | None  # Sample to keep, if samples are channels
    page: int = 0  # Page that holds the plane
    offset: int | None = None  # First byte of a plane in one uncompressed run of bytes
    unit: core.IntPair = (1, 1)  # Rows and columns of a tile or strip, decoded at once

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def extent(self) -> tuple[int, int]:
        return self.shape[self.axes.index("Y")], self.shape[self.axes.index("X")]

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of the returned array: ``(Y, X)`` or ``(Y, X, S)``."""
        if "S" not in self.axes or self.sample is not None:
            return self.extent
        return (*self.extent, self.shape[self.axes.index("S")])

    def _reorder_samples(self, samples: core.RealArray) -> core.RealArray:
        """Move colour samples to the last axis, or select one of them."""
        if "S" not in self.axes:
            return samples
        axis = self.axes.index("S")
        if self.sample is not None:
            return np.asarray(np.take(samples, self.sample, axis=axis))
        return np.moveaxis(samples, axis, -1)

    @contextmanager
    def _open_page(self) -> Iterator[TiffPage]:
        """Open the file and find the page in it."""
        decoding, own = files.convert_decoding_errors(self.path, "TIFF"), self.is_ome
        with (
            decoding,
            TiffFile(self.path, omexml=self.omexml, is_ome=own) as tif,
        ):
            _join_pages(tif)
            page: Any = tif.series[self.series].levels[self.level].pages[self.page]
            yield page

    def read(self) -> read_image.Pixels:
        """Read the plane as an array of shape `out_shape`, lazily if it is large."""
        if self.nbytes > read_image.LAZY_BYTES:
            return read_image.create_lazy_plane(self, self.out_shape, self.dtype)
        if self.offset is not None:
            count = math.prod(self.shape)
            flat = np.fromfile(self.path, self.dtype, count, offset=self.offset)
            return self._reorder_samples(flat.reshape(self.shape))
        with self._open_page() as page:
            page.parent.filehandle.open()  # `tifffile` closes the other files of a set
            plane = np.asarray(page.asarray()).reshape(self.shape)
        return self._reorder_samples(plane)

    def read_window(self, rows: slice, columns: slice) -> core.RealArray:
        if self.offset is not None:
            parts = {"Y": rows, "X": columns, "S": slice(None)}
            index = tuple(parts[letter] for letter in self.axes)
            with files.convert_decoding_errors(self.path, "TIFF"):
                view = np.memmap(self.path, self.dtype, "r", self.offset, self.shape)
                return self._reorder_samples(np.array(view[index]))
        with self._open_page() as page:
            part = _decode_window(page, rows, columns)
        sides = {"Y": part.shape[1], "X": part.shape[2], "S": -1}
        part = part.reshape([sides[letter] for letter in self.axes])
        return self._reorder_samples(part)


def _decode_window(page: Any, rows: slice, columns: slice) -> NDArray[Any]:
    """Decode the tiles or strips of a page that a window touches.

    Returns its pixels (P, Y, X, S); samples are in planes of their own, or together.
    """
    key, file = page.keyframe, page.parent.filehandle
    file.open()  # `tifffile` closes the other files of a set
    planes, _, height, width, samples = key.shaped
    strip = key.rowsperstrip, width
    high, wide = (key.tilelength, key.tilewidth) if key.is_tiled else strip
    down, across = -(-height // high), -(-width // wide)
    touched = product(
        range(planes),
        range(rows.start // high, -(-rows.stop // high)),
        range(columns.start // wide, -(-columns.stop // wide)),
    )
    places = [(plane * down + y) * across + x for plane, y, x in touched]
    offsets, counts = page.dataoffsets, page.databytecounts
    listed = [offsets[n] for n in places], [counts[n] for n in places]
    tables = {"jpegtables": page.jpegtables, "jpegheader": key.jpegheader}
    window = core.Box(rows.start, rows.stop, columns.start, columns.stop)
    pixels = np.full((planes, *window.shape, samples), key.nodata, key.dtype)
    for data, number in file.read_segments(*listed, indices=places):
        values, (plane, _, y, x, _), _ = key.decode(data, number, **tables)
        if values is not None:
            segment = core.Box.from_shape(values.shape[1:3], (y, x))
            both = segment.intersection(window)
            inner = values[(0, *both.relative_to(segment).slices)]
            pixels[(plane, *both.relative_to(window).slices)] = inner
    return pixels


def _check_pixel_data(path: Path, page: TiffPage) -> None:
    """Raise `ReadError` if the pixels of a page are beyond the end of the file."""
    blocks = math.prod(page.chunked)
    entries = min(len(page.dataoffsets), len(page.databytecounts))
    if entries != blocks:
        msg = f"{path} lists only {entries} of {blocks} tiles or strips: export it"
        raise core.ReadError(f"{msg} again.", code="file-damaged")
    ends = (o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True))
    files.check_file_size(path, max(ends))


def _find_plane(
    path: Path,
    tif: TiffFile,
    series: int,
    level: int,
    outer: int,
    sample: int | None,
) -> _PlaneSource:
    """Locate a plane inside the pages of a series."""
    pages = tif.series[series].levels[level]
    key = pages.keyframe
    shape = tuple(n for n, a in zip(key.shape, key.axes, strict=True) if a in "YXS")
    if math.prod(shape) != math.prod(key.shape):
        msg = f"{path} stores a volume in a single page: export a stack instead."
        raise core.ReadError(msg, code="format-unsupported")
    has_own = tif.ome_metadata == tif.pages.first.description
    plane = _PlaneSource(
        path=path,
        is_ome=None if tif.is_ome else False,
        omexml=tif.ome_metadata if tif.is_ome and not has_own else None,
        series=series,
        level=level,
        shape=shape,
        axes="".join(a for a in key.axes if a in "YXS"),
        dtype=np.dtype(pages.dtype).newbyteorder(tif.byteorder).str,
        sample=sample,
    )
    # the offset refers to the file that holds the pages, perhaps another one of a set
    is_own = all(page is not None and page.parent is tif for page in pages.pages)
    if pages.dataoffset is not None and is_own:
        offset = int(pages.dataoffset) + outer * plane.nbytes
        files.check_file_size(path, offset + plane.nbytes)
        return replace(plane, offset=offset)  # can be read in any blocks
    page: Any = pages.pages[outer] if outer < len(pages.pages) else None
    if page is None:
        msg = f"{path} lacks plane {outer}: choose another, or copy the whole set."
        raise core.ReadError(msg, code="plane-missing")
    strip = min(key.rowsperstrip, key.imagelength), key.imagewidth
    sides = (key.tilelength, key.tilewidth) if key.is_tiled else strip
    if page.parent is tif:
        _check_pixel_data(path, page)
        # the decoded size of one tile or strip, including padding
        pixel_bytes = key.samplesperpixel * np.dtype(key.dtype).itemsize
        most = max(plane.nbytes, math.prod(sides) * pixel_bytes)
        files.check_claimed_size(path, most, sum(page.databytecounts))
    return replace(plane, page=outer, unit=sides)


# The file: its planes, its calibration, its dialect.

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WHITE_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 2, 3, 6
_ALPHA = ((1,), (2,))
_GREY = (_WHITE_IS_ZERO, 1, _PALETTE, 4, 32803)
_logger = logging.getLogger("tifffile")
# its messages say what is missing, also where logs are disabled, as by commands
_logger.manager = logging.Manager(logging.root)
# without any handler Python would print what tifffile logs
_logger.addHandler(logging.NullHandler())
_LONGEST = 200  # characters of a header's text that are shown; chosen
_IGNORED_MESSAGES = re.compile(
    r"OME series (failed to read|is missing|contains index out)|parsing GDAL_NODATA"
)
_JPEG = (6, 7, 33007, 34892)  # compressions whose colours `tifffile` converts to RGB
_ORIENTATION = 274
_COMPLEX_INTEGERS = 5  # sample format
_FORMER_SUBFILE, _FORMER_REDUCED = 255, 2
_THUMBNAIL = 2  # chosen: images of one series of exposures differ by less


@contextmanager
def _open_tiff(path: Path, complaints: list[str]) -> Iterator[TiffFile]:
    """Open a TIFF, converting its errors and collecting its warnings.

    tifffile looks for all files and planes of a set, of which only those of the chosen
    image matter, and for a value of no data, which here need not fit the type.
    """
    thread, listener = threading.get_ident(), logging.Handler(logging.WARNING)

    def collect(record: logging.LogRecord) -> bool:
        text = " ".join(record.getMessage().split())[:_LONGEST].rstrip(".")
        text = re.sub(r"^<[^>]*> ", "", text)  # prefix that names the file or page
        is_own = record.thread == thread and not _IGNORED_MESSAGES.match(text)
        sentence = f"The TIFF could not be read completely ({text}): export it again "
        sentence += "if anything is wrong or missing."
        if is_own and sentence not in complaints:
            complaints.append(core.Message(sentence, "partly-understood"))
        return False

    listener.addFilter(collect)
    _logger.addHandler(listener)
    decoding = files.convert_decoding_errors(path, "TIFF")
    try:
        with decoding, _open_tiff_set(path, complaints) as tif:
            if not len(tif.series):
                msg = f"{path} is a TIFF without an image: copy or export it again."
                raise core.ReadError(msg, code="file-damaged")
            _join_pages(tif)
            yield tif
    finally:
        _logger.removeHandler(listener)


def _join_pages(tif: TiffFile) -> None:
    """Join series whose pages differ only in their encoding, in page order.

    Pages beyond those that ImageJ's description counts are planes, too, as in ImageJ.
    """
    first, page = tif.series[0], tif.series[0].keyframe
    if first.kind == "imagej" and len(tif.pages) > first.size // page.size:
        planes, shape = [*tif.pages], (len(tif.pages), *page.shape)
        if all(sum(one.databytecounts) == page.nbytes for one in planes):
            joined = TiffPageSeries(planes, shape, page.dtype, f"I{page.axes}")
            joined.kind, tif.series[:] = first.kind, [joined]
            return
    alike: dict[object, list[TiffPageSeries]] = {}
    for number, one in enumerate(tif.series):
        page = one.keyframe
        content: object = (
            *(page.shape, page.axes, page.dtype, page.subfiletype, page.photometric),
            *(page.bitspersample, page.sampleformat, page.extrasamples),
        )
        is_plain = one.kind == "generic" and len(one.levels) == 1
        alike.setdefault(content if is_plain else number, []).append(one)
    for several in filter(lambda one: len(one) > 1, alike.values()):
        pages = sorted((p for one in several for p in one), key=lambda p: p.treeindex)  # type: ignore[union-attr]
        page, axes = several[0].keyframe, f"I{several[0].keyframe.axes}"
        shape = (len(pages), *page.shape)
        several[:] = [TiffPageSeries(pages, shape, page.dtype, axes, kind="generic")]
    tif.series[:] = [one for several in alike.values() for one in several]


@contextmanager
def _open_tiff_set(path: Path, warnings: list[str]) -> Iterator[TiffFile]:
    """Open a TIFF, even if its OME-XML is in another file of the set.

    OME-XML that does not list this file is ignored, as if it were missing; `warnings`
    receives the reason.
    """
    with ExitStack() as opened:
        tif = opened.enter_context(TiffFile(path))
        if (text := _read_companion_xml(path, tif, warnings)) is not None:
            tif = opened.enter_context(TiffFile(path, omexml=text))
        if fault := _explain_incomplete_set(path, tif):
            warnings.append(fault)
            tif = opened.enter_context(TiffFile(path, is_ome=False))
        yield tif


def _explain_incomplete_set(path: Path, tif: TiffFile) -> str:
    """Return why only this file's planes are read; empty if the set is complete."""
    _check_ome_references(path, tif)
    if "FileName" not in (tif.ome_metadata or "") or not tif.series:
        return ""
    own = [one for one in tif.series if _has_own_planes(tif, one)]
    several = len(_list_set_names(tif.ome_metadata)) > 1
    if not own:
        sentence = "The OME-XML lists only other files: restore the name of this one."
    elif several and any(page is None for one in own for page in one):
        sentence = (
            "Files of the image set are missing or damaged, so only the planes of "
            "this file are read: copy the other files next to it."
        )
    else:
        return ""
    return core.Message(sentence, "set-incomplete")


def _list_set_names(text: str | None) -> set[str]:
    """List the files that OME-XML refers to."""
    root = _parse_ome_xml(text or "")
    elements = () if root is None else root.iter()
    keys = ("FileName", "MetadataFile")
    return {one.get(key, "") for one in elements for key in keys} - {""}


def _has_own_planes(tif: TiffFile, series: TiffPageSeries) -> bool:
    """Return whether any plane of an image is in the opened file itself."""
    own = tif.filehandle.path
    return any(p is not None and p.parent.filehandle.path == own for p in series)


def _read_companion_xml(path: Path, tif: TiffFile, warnings: list[str]) -> str | None:
    """Read OME-XML that is in another file or contains invalid characters."""
    text = tif.ome_metadata or ""
    own = _parse_ome_xml(text)
    if own is None:
        return None
    where = own.find("{*}BinaryOnly")
    if where is None:
        is_plain = text == core.escape_invisible_characters(text, lines=True)
        return None if is_plain else ET.tostring(own, encoding="unicode")
    name = where.get("MetadataFile") or ""
    root: ET.Element | None = None
    # `with_name` refuses other folders
    with suppress(core.SemsrError, OSError, ValueError):
        companion = path.with_name(name)
        with core.open_file(companion) as stream:
            is_tiff = stream.read(4).startswith(_MAGIC)
        if is_tiff:
            decoding = files.convert_decoding_errors(companion, "TIFF")
            with decoding, TiffFile(companion) as other:
                content = str(other.ome_metadata or "")
        else:
            content = files.read_text(companion)
        root = _parse_ome_xml(content)
    if root is None:
        shown = core.format_one_line(f"{name:.80}")
        sentence = f"The OME-XML is in {shown!r}, not a readable file: copy it here."
        warnings.append(core.Message(sentence, "file-missing"))
        return None
    # identifies this file even if it was renamed
    root.set("UUID", own.get("UUID", ""))
    return ET.tostring(root, encoding="unicode")


def list_set_files(path: Path) -> list[Path]:
    """List the existing other files of an OME-TIFF's set, with that of its OME-XML."""
    if not path.is_file():
        return []
    names = set[str]()
    # no TIFF, or a damaged one, which reading reports
    with suppress(Exception), TiffFile(path) as tif:
        companion = _read_companion_xml(path, tif, [])
        names = _list_set_names(tif.ome_metadata) | _list_set_names(companion)
    names = {name for name in names if Path(name).name == name != path.name}
    return [file for file in map(path.with_name, sorted(names)) if file.is_file()]


def read_stage_positions(path: Path) -> list[core.FloatPair | None]:
    """Read the stage positions ``(y, x)`` in nm of the planes of an OME-TIFF.

    Image by image, those of the first channel in order of time and height; None if a
    plane states none, empty if they cannot be read.
    """
    places: list[core.FloatPair | None] = []
    unreadable = suppress(OSError, ValueError, tifffile.TiffFileError)
    with unreadable, TiffFile(path) as tif:
        root = _parse_ome_xml(tif.pages.first.description)
        if root is None:
            return places
        for image in root.iterfind("{*}Image"):
            if _has_planes(image, path.name.__eq__, root.get("UUID")):
                planes = image.iterfind(".//{*}Plane")
                first = [plane for plane in planes if int(plane.get("TheC", 0)) == 0]
                first.sort(key=lambda one: [int(one.get(f"The{a}", 0)) for a in "TZ"])
                for stated in (plane.get for plane in first):
                    units = [stated(f"Position{axis}Unit", "") for axis in "YX"]
                    nm = [read_image.get_nm_per_unit(n) or math.nan for n in units]
                    y, x = (float(stated(f"Position{n}", math.nan)) for n in "YX")
                    place = y * nm[0], x * nm[1]
                    places.append(place if all(map(math.isfinite, place)) else None)
    return places


def _check_ome_references(path: Path, tif: TiffFile) -> None:
    """Raise `ReadError` if OME-XML refers to other folders or too many planes.

    `tifffile` opens every part that is named, and lists every plane that is stated.
    """
    ome = tif.ome_metadata
    if not ome:
        return
    if "FileName" not in ome and ("<!DOCTYPE" in ome or "<!ENTITY" in ome):
        tif.is_ome = False  # `tifffile` would parse entities unchecked
        return
    root = _parse_ome_xml(ome)
    elements = [] if root is None else list(root.iter())
    names = [element.get("FileName") or "" for element in elements]
    away = [name for name in names if set(name) & set("/\\:") or name == ".."]
    if "FileName" in ome and "<!DOCTYPE" in ome:
        away.append("by XML entities")
    if away:
        name = core.format_one_line(f"{away[0]:.80}")
        msg = f"{path} refers to {name}, outside its folder: put all into one folder."
        raise core.ReadError(msg, code="outside-folder")
    for part in {path.parent / name for name in names if name}:
        if part.exists() and not (part.is_file() or part.is_dir()):
            core.open_file(part)  # refuses it: `tifffile` would wait for a pipe forever
    size = max(1, tif.pages.first.size)
    planes = 0
    for element in elements:
        stated = element.items()
        numbers = {key: int(n[:_DIGITS]) for key, n in stated if n.isdecimal()}
        area = math.prod(numbers.get(f"Size{axis}", 1) for axis in "XYZCT")
        counts = (numbers.get(key, 0) for key in _COUNTS)
        planes = max(planes, area // size, *counts)
    if planes > _MAX_PLANES:
        msg = f"{path} must have at most {_MAX_PLANES} planes, but states {planes:.3g}."
        raise core.ReadError(msg, code="too-many-planes")


def matches(path: Path, head: bytes) -> bool:
    """Return whether the first bytes of a file identify a TIFF."""
    return path.is_file() and head.startswith(_MAGIC)


_COLOURS = (2, 5, 6, 8)  # photometric interpretations: RGB, CMYK, YCbCr, CIE L*a*b*


def is_grey(path: Path) -> bool:
    """Return whether the first page of a file is grey with up to three axes."""
    with _open_tiff(path, []) as tif:
        page, first = tif.pages.first, tif.series[0]
        if page.photometric in _COLOURS or page.dtype is None or page.dtype.kind == "c":
            return False
        sizes = zip(first.axes, first.shape, strict=True)
        return sum(size > 1 for axis, size in sizes if axis not in "YXS") <= 1


def read_calibration(path: Path) -> read_image.RawImage:
    """Read the metadata of the first image in a file without its pixels."""
    with _open_tiff(path, []) as tif:
        return _read_metadata(tif, tif.series[0].levels[0].keyframe, 0)


def _list_own_series(tif: TiffFile) -> list[int]:
    """List the full-resolution images with planes in this file itself."""
    own = [i for i, one in enumerate(tif.series) if _has_own_planes(tif, one)] or [0]
    full = []
    for number in own:  # either tag may declare a reduced image
        page = tif.series[number].keyframe
        former = page.tags.valueof(_FORMER_SUBFILE)
        if former != _FORMER_REDUCED and not page.is_reduced:
            full.append(number)
    return full or own


def _default_series(tif: TiffFile, own: list[int]) -> int:
    """Return the image to read by default: the first, if it is not a thumbnail.

    OME-XML identifies its images; other files may begin with a preview.
    """
    pages = {number: tif.series[number].keyframe for number in own}
    if tif.is_ome or len(tif.series[own[0]]) > 1:
        return own[0]
    larger = [number for number in own if _is_thumbnail(pages[own[0]], pages[number])]
    return max(larger, key=lambda number: pages[number].size, default=own[0])


def _is_thumbnail(page: TiffPage, whole: TiffPage) -> bool:
    """Return whether a page is small enough to be a thumbnail of another page."""
    return (
        whole.imagelength >= _THUMBNAIL * page.imagelength
        and whole.imagewidth >= _THUMBNAIL * page.imagewidth
    )


def raw_image(path: Path, options: read_image.ReadOptions) -> read_image.RawImage:
    """Read the selected plane with its calibration."""
    complaints: list[str] = []
    with _open_tiff(path, complaints) as tif:
        count = len(tif.series)
        own = _list_own_series(tif)
        number = _default_series(tif, own)
        if options.series is not None:
            number = files.choose_index(path, "series", options.series, count)
        levels = tif.series[number].levels
        level = files.choose_index(path, "level", options.level, len(levels))
        counts, outer, sample = _choose_plane(path, levels[level], options)
        plane = _find_plane(path, tif, number, level, outer, sample)
        complaints += _count_missing_planes(tif.series[number])
        full, page = levels[0].keyframe, levels[level].keyframe
        image = _read_metadata(tif, full, number)
        if level:
            image = _convert_to_level(image, full, page)
        image = replace(image, orientation=_read_orientation(tif, levels[0], outer))
        for_display = tif.is_imagej or tif.pages.first.is_ome  # their palettes
        is_indexed = page.photometric == _PALETTE and not for_display
        line, lut = None, page.colormap if is_indexed else None
        details = tif.imagej_metadata or {}
        if details and image.vendor is None and page.samplesperpixel == 1:
            line = _read_grey_calibration(details, np.dtype(page.dtype), complaints)
    data: Any = plane.read()
    look, missing = image.look, _find_no_data(data, page, complaints)
    if lut is not None:
        indices, data = data, _apply_palette(data, lut)
        look = look if data is indices else None  # its limits are those of indices
    elif page.photometric == _YCBCR and page.compression not in _JPEG:
        data = read_image.convert_ycbcr(data)
    bits = int(page.bitspersample) if page.photometric == _WHITE_IS_ZERO else 0
    data, look = _convert_grey_values(data, look, bits, line, complaints)
    facts = dict(image.metadata)
    if lut is not None or line is not None:  # which change the grey values
        facts.pop(core.BITS_KEY, None)
    if count > 1:
        facts |= {read_image.SERIES_KEY: number, read_image.OWN_SERIES_KEY: len(own)}
    return replace(
        image,
        format="OME-TIFF" if tif.is_ome else "ImageJ TIFF" if tif.is_imagej else "TIFF",
        data=data,
        missing=missing,
        levels=len(levels),
        series=count,
        **counts,
        look=look,
        metadata=facts,
        warnings=tuple(complaints),
        # only the pixel size may be missing from the tags
        doubts=(*image.warnings, *image.doubts),
    )


def _choose_plane(
    path: Path, level: TiffPageSeries, options: read_image.ReadOptions
) -> tuple[core.JsonObject, int, int | None]:
    """Count channels and planes; choose a plane's page and a channel's sample."""
    page = level.keyframe
    if page.dtype is None or page.sampleformat == _COMPLEX_INTEGERS:
        kind = f"sample format {int(page.sampleformat)}, {page.bitspersample} bits"
        msg = f"{path} must store integers or floats, got {kind}: export it again."
        raise core.ReadError(msg, code="format-unsupported")
    photometric = int(page.photometric)
    samples = int(page.samplesperpixel)
    alpha = samples == 2 and tuple(page.extrasamples or ()) in _ALPHA
    by_sample = photometric in _GREY and samples > 1 and not alpha
    if photometric not in (*_GREY, _RGB, _YCBCR):
        msg = f"{path} must be grey or RGB, got photometric {photometric}: convert it."
        raise core.ReadError(msg, code="format-unsupported")
    pairs = zip(level.axes, level.shape, strict=True)
    before = [pair for pair in pairs if pair[0] not in "YXS"]
    names, shape = [a for a, _ in before], [int(n) for _, n in before]
    if shape and level[-1] is None:  # an acquisition that was stopped
        last = max(n for n, one in enumerate(level) if one is not None)
        shape[0] = last // math.prod(shape[1:]) + 1
    counts = list(shape)
    if by_sample:  # channels are samples, and a channel axis counts as 1
        counts = [1 if a == "C" else n for a, n in zip(names, shape, strict=True)]
        names, counts = [*names, "S"], [*counts, samples]
    letter = "S" if by_sample else "C"
    axes = ["c" if a == letter else a.lower().replace("c", "") for a in names]
    choices, places = read_image.choose_plane(path, options, axes, counts)
    sample = places[-1] if by_sample else None
    where = places[: len(shape)]
    outer = int(np.ravel_multi_index(where, shape)) if shape else 0
    return choices, outer, sample


def _count_missing_planes(series: TiffPageSeries) -> list[str]:
    """Return a warning if planes that the OME-XML lists have no page."""
    count = sum(page is None for page in series) if series.kind == "ome" else 0
    sentence = f"{count} of {len(series)} planes that the OME-XML lists are missing."
    return [core.Message(sentence, "partly-understood")] if count else []


def _read_metadata(tif: TiffFile, page: TiffPage, series: int) -> read_image.RawImage:
    """Read metadata from the first available source: vendor, OME, ImageJ or tags.

    Returned as an image whose pixels are not read yet.
    """
    maker = _read_vendor_metadata(tif, page)
    text, warnings = str(page.description or ""), list[str]()
    if maker is not None:
        bits = _get_significant_bits(page, None, text)
        return replace(maker, metadata={**maker.metadata, **bits})
    size: core.PixelSize | None = None
    place_doubts: list[str] = []
    name, look, depth, has_objective = None, None, None, False
    first = tif.pages.first
    ome = tif.ome_metadata or (first.description if first.is_ome else "")
    root = _parse_ome_xml(ome)
    if root is not None:
        size, name, depth = _read_series_metadata(root, series, tif, warnings)
        has_objective = root.find(".//{*}Objective") is not None
    elif tif.is_ome:
        damage = "The OME-XML is damaged: the pixel size is left unknown."
        warnings = [core.Message(damage, "metadata-damaged")]
    elif tif.is_imagej:
        details = tif.imagej_metadata or {}
        size = _read_imagej_pixel_size(page, details, warnings)
        text = str(details.get("Info", ""))
        look = _read_imagej_limits(details)
    else:
        size = _read_tag_pixel_size(page)
    record = _find_record(root, text, place_doubts)
    rows, columns = int(page.imagelength), int(page.imagewidth)
    turn_note = "" if _read_orientation(tif, tif.series[series], 0) == 1 else "turned"
    if record and (turn_note or record.shape not in (None, (rows, columns))):
        record = replace(record, origin=(0.0, 0.0))
        sentence = (
            f"{tif.filename} ({rows} x {columns} px) was "
            f"{turn_note or 'cropped or resampled'} by another program, so its "
            "position in the original image is unknown: `crop()` keeps the position."
        )
        place_doubts.append(core.Message(sentence, "place-unknown"))
    tags = {n: page.tags.valueof(n) for n in ("Software", "DateTime", "Make", "Model")}
    facts: dict[str, object] = {
        key.lower(): value for key, value in tags.items() if isinstance(value, str)
    }
    if has_objective:
        facts[core.INSTRUMENT_KEY] = "optical"
    return read_image.RawImage(
        "TIFF",
        size,
        record=record,
        name=name,
        look=look,
        metadata=facts | _get_significant_bits(page, depth, text),
        warnings=tuple(warnings),
        place_doubts=tuple(place_doubts),
    )


def _read_orientation(tif: TiffFile, series: TiffPageSeries, number: int) -> int:
    """Return the orientation of a page, which may differ within a stack.

    A page without the tag has the orientation of the first page of its stack, since
    programs do not repeat the tag.
    """
    pages: list[Any] = [series.keyframe]
    with suppress(IndexError, ValueError):  # planes without their own page
        one = series[number] if number else None
        if one is not None and one.parent is tif:
            pages.insert(0, one.aspage())
    orientations = (page.tags.valueof(_ORIENTATION) for page in pages)
    orientation = next((one for one in orientations if one is not None), 1)
    return orientation if orientation in range(1, 9) else 1


def _read_imagej_limits(details: _Details) -> core.DisplaySettings | None:
    """Read ImageJ's display range of a single-channel image."""
    if int(details.get("channels") or 1) > 1:
        return None
    try:
        limits = float(details["min"]), float(details["max"])
        return core.DisplaySettings(limits=limits)
    except (KeyError, TypeError, ValueError):
        return None  # grey values do not depend on it


def _find_record(
    root: ET.Element | None, text: str, warnings: list[str]
) -> files.Record | None:
    """Find the record of this package in OME annotations, or in a text."""
    elements = () if root is None else root.iter()
    records = [n.text for n in elements if n.get("K") == files.RECORD_KEY and n.text]
    parts = (line.partition("=") for line in text.splitlines())
    records += [value for key, mark, value in parts if key == files.RECORD_KEY and mark]
    found = (files.Record.from_json(record, warnings) for record in records)
    return next(filter(None, found), None)


def _convert_to_level(
    image: read_image.RawImage, full: TiffPage, page: TiffPage
) -> read_image.RawImage:
    """Convert calibration, position and data bar to another pyramid level."""
    sides = (full.imagelength, page.imagelength), (full.imagewidth, page.imagewidth)
    down, across = (fine / coarse for fine, coarse in sides)
    # levels are halved, and odd sides rounded
    ratio = 2 ** round(math.log2(max(down, across)))
    if all(n // ratio <= m <= -(-n // ratio) for n, m in sides):
        down = across = ratio
    record, size = image.record, image.pixel_size_nm
    spacing = (1.0, 1.0) if record is None else record.spacing_px
    start = (0.0, 0.0) if record is None else record.origin
    pitch = size or spacing
    y, x = start[0] + (down - 1) / 2 * pitch[0], start[1] + (across - 1) / 2 * pitch[1]
    return replace(
        image,
        origin=(y, x),
        spacing_px=(spacing[0] * down, spacing[1] * across),
        pixel_size_nm=size and core.PixelSize((size[0] * down, size[1] * across)),
        databar_rows=read_image.scale_row_count(image.databar_rows, down),
        coarser=(down, across),
    )
