"""Writing OME-TIFF, and TIFF with an ImageJ calibration."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from napari_semsr import core
from napari_semsr.core import Micrograph, PixelSize, RealArray, WriteError
from napari_semsr.io import files
from napari_semsr.io.read_image import Pixels
from napari_semsr.io.tiff_read import read_calibration
from napari_semsr.io.zarr_store import compute_pyramid_shapes, downsample_block

# An output has the first of these types that holds all its values. Bio-Formats reads
# no other types, and ImageJ's own decoder only the first three.
_IMAGEJ_TYPES = ("uint8", "uint16", "float32")
_OME_TYPES = (
    *("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"),
)
_MAX_EXACT = 2**53  # float64 is exact for whole numbers up to this
# ImageJ rounds resolutions to millionths when it saves again, which is imprecise if a
# pixel has many units, so a pixel has at most a hundred of them.
_UNITS = {"nm": 1, "um": 10**3, "mm": 10**6}
_MAX_OF = 100
_MAX_RATIONAL = 2**31 - 1  # older versions of ImageJ read signed numbers
_TILE = 256  # side of a TIFF tile; chosen
_BAND = 2048  # rows written at once; chosen
_LARGEST_IMAGEJ = 2**31
_PYRAMID_FROM = 4096  # side from which an OME-TIFF has levels; chosen
_FEI_TAG = 34682


_Rational = tuple[int, int]


def _choose_resolution(
    size: PixelSize | None, units: Mapping[str, int]
) -> tuple[str, tuple[_Rational, _Rational]]:
    """Choose a unit and return it with the resolution ``(x, y)`` in pixels per unit.

    The unit is ``"pixel"`` if the size is unknown, or no tag can hold it.
    """
    if size is not None:
        fits = (name for name, per in units.items() if max(size) <= _MAX_OF * per)
        unit = next(fits, list(units)[-1])
        per_unit = [Fraction(units[unit]) / Fraction(pitch) for pitch in size]
        if all(1 / _MAX_RATIONAL <= value <= _MAX_RATIONAL for value in per_unit):
            # the closest numerators and denominators that fit into a tag
            y, x = (
                value.limit_denominator(int(_MAX_RATIONAL / max(value, Fraction(1))))
                for value in per_unit
            )
            return unit, ((x.numerator, x.denominator), (y.numerator, y.denominator))
    return "pixel", ((1, 1), (1, 1))


def _create_resolution_tags(image: Micrograph) -> dict[str, Any]:
    """Return resolution tags for readers that ignore ImageJ and OME metadata."""
    unit, per_unit = _choose_resolution(image.pixel_size_nm, {"cm": 10**7})
    return {"resolution": per_unit, "resolutionunit": 3 if unit == "cm" else 1}


def _find_lossless_type(
    dtype: np.dtype[np.generic], types: tuple[str, ...]
) -> np.dtype[np.generic] | None:
    """Return the first type that can hold all values of another type."""
    return next((np.dtype(t) for t in types if np.can_cast(dtype, t)), None)


def convert_to_ome_type(data: RealArray, path: Path) -> RealArray:
    """Convert grey values to a type supported by OME, or raise `WriteError`."""
    if data.dtype.kind in "iu" and data.dtype.itemsize > 4:
        for value in (data.min(), data.max()):
            if not -_MAX_EXACT <= int(value) <= _MAX_EXACT:
                msg = f"{path} stores integers up to 2**53, got {value}: use .ome.zarr."
                raise WriteError(msg, code="out-of-range")
    return data.astype(_get_ome_type(data.dtype), copy=False)


def _get_ome_type(dtype: np.dtype[np.generic]) -> np.dtype[np.generic]:
    return _find_lossless_type(dtype, _OME_TYPES) or np.dtype(np.float64)


def _convert_to_imagej_type(data: RealArray, path: Path) -> RealArray:
    """Convert grey values to a type supported by ImageJ, or to float64.

    Fiji opens float64 through Bio-Formats.
    """
    kind = _find_lossless_type(data.dtype, _IMAGEJ_TYPES)
    if kind is not None:
        return data.astype(kind, copy=False)
    wide = convert_to_ome_type(data, path).astype(np.float64, copy=False)
    with np.errstate(over="ignore"):
        narrow = wide.astype(np.float32)
    return narrow if np.array_equal(narrow, wide, equal_nan=True) else wide


def write_imagej(image: Micrograph, path: Path) -> None:
    """Write a TIFF with a calibration for ImageJ and Fiji.

    The record is stored where Fiji shows it (Image > Show Info), so that all digits of
    the pixel size, the origin and the provenance survive.
    """
    kind = _find_lossless_type(image.dtype, _IMAGEJ_TYPES) or np.dtype(np.float64)
    nbytes = image.shape[0] * image.shape[1] * kind.itemsize
    if nbytes >= _LARGEST_IMAGEJ:
        size = f"{nbytes / 2**30:.1f} GB"
        msg = f"{path} must be smaller than 2 GB, got {size}: write .ome.tif."
        raise WriteError(msg, code="image-too-large")
    data = np.ascontiguousarray(_convert_to_imagej_type(image.array(), path))
    imagej = data.dtype.name in _IMAGEJ_TYPES
    record = files.create_image_record(image).to_json()
    options = _create_imagej_options(image, "YX", record)
    if not imagej:
        options = {"metadata": None, "description": f"{files.RECORD_KEY}={record}"}
        options |= _create_resolution_tags(image)
    verified = _rename_verified_file(path, record)
    with verified as place, tifffile.TiffWriter(place, imagej=imagej) as tif:
        tif.write(data, photometric="minisblack", **options)


@contextmanager
def _rename_verified_file(path: Path, record: str) -> Iterator[Path]:
    """Rename a file after checking that its metadata can be read."""
    with files.replace_atomically(path) as place:
        yield place
        stored, expected = read_calibration(place), files.Record.from_json(record, [])
        if stored.record != expected or stored.warnings:
            what = f"{path} cannot store the name, pixel size and history of the image"
            msg = f"{what}: rename the image, or write .ome.zarr."
            raise WriteError(msg, code="record-not-kept")


def write_fei_tiff(image: Micrograph, path: Path) -> None:
    """Write a TIFF like those of FEI and Thermo Fisher electron microscopes.

    The image must be calibrated and have unsigned integers. A private tag states field
    and pixel size in metres and the program; there is no data bar. Name, origin and
    history are not stored.
    """
    (rows, columns), (y, x) = image.shape, image.scale
    sections: dict[str, dict[str, object]] = {
        "System": {"SystemType": "simulated", "Software": "napari-semsr"},
        "EBeam": {"HFW": columns * x * 1e-9, "VFW": rows * y * 1e-9},
        "Scan": {"PixelWidth": x * 1e-9, "PixelHeight": y * 1e-9},
        "Image": {"ResolutionX": columns, "ResolutionY": rows},
        "PrivateFei": {"DatabarHeight": 0},
    }
    lines = []
    for section, values in sections.items():
        lines.append(f"[{section}]")
        for key, value in values.items():
            text = f"{value:.12g}" if isinstance(value, float) else value
            lines.append(f"{key}={text}")
        lines.append("")
    tag = (_FEI_TAG, 2, 0, "\r\n".join(lines), True)
    pixels = np.ascontiguousarray(image.array(), dtype=image.dtype.newbyteorder("="))
    with files.replace_atomically(path) as place, tifffile.TiffWriter(place) as tif:
        tif.write(pixels, photometric="minisblack", metadata=None, extratags=[tag])


def _create_imagej_options(image: Micrograph, axes: str, record: str) -> dict[str, Any]:
    """Return the ImageJ options: scale, contrast limits, and the metadata record."""
    unit, per_unit = _choose_resolution(image.pixel_size_nm, _UNITS)
    keywords = {"unit": unit, "Info": f"{files.RECORD_KEY}={record}", "axes": axes}
    limits = None if image.look is None else image.look.limits
    if limits is None and image.dtype.kind == "b":
        limits = 0, 1  # otherwise Fiji shows 0 and 1 of 255, both black
    range_shown = {} if limits is None else {"min": limits[0], "max": limits[1]}
    return {"metadata": {**range_shown, **keywords}, "resolution": per_unit}


def _create_ome_metadata(
    image: Micrograph, axes: str, record: str
) -> dict[str, object]:
    """Return OME-XML attributes: sizes with units, and the metadata record."""
    name = core.escape_invisible_characters(image.name)  # which XML does not hold
    metadata: dict[str, object] = {"axes": axes, "Name": name}
    metadata["MapAnnotation"] = {files.RECORD_KEY: record}
    if image.significant_bits is not None:
        metadata["SignificantBits"] = image.significant_bits
    if image.pixel_size_nm is not None:
        y, x = image.pixel_size_nm
        metadata |= {"PhysicalSizeY": y, "PhysicalSizeYUnit": "nm"}
        metadata |= {"PhysicalSizeX": x, "PhysicalSizeXUnit": "nm"}
    return metadata


def _iterate_tiles(data: Pixels, path: Path) -> Iterator[RealArray]:
    """Yield full tiles of an image in an OME type, computed in bands.

    Tiles at the edge are padded here: tifffile would apply the predictor of a
    one-pixel-wide image before padding, which changes its values.
    """
    rows, columns = data.shape
    for top in range(0, rows, _BAND):
        band = convert_to_ome_type(np.asarray(data[top : top + _BAND]), path)
        for y in range(0, band.shape[0], _TILE):
            for x in range(0, columns, _TILE):
                part = band[y : y + _TILE, x : x + _TILE]
                missing = [(0, _TILE - n) for n in part.shape]
                yield np.pad(part, missing, mode="edge")


def write_ome(image: Micrograph, path: Path) -> None:
    """Write a tiled, losslessly compressed OME-TIFF, with a pyramid if large."""
    dtype = _get_ome_type(image.dtype)
    shapes = [image.shape]
    if max(image.shape) >= _PYRAMID_FROM:
        shapes = compute_pyramid_shapes(image.shape, smallest=1024)
    options: dict[str, Any] = {
        "dtype": dtype,
        "tile": (_TILE, _TILE),
        "photometric": "minisblack",
        "compression": "zlib",
        "predictor": dtype.kind in "ui",  # Bio-Formats supports none for floats
    }
    nbytes = image.shape[0] * image.shape[1] * dtype.itemsize
    record = files.create_image_record(image).to_json()
    verified, is_big = _rename_verified_file(path, record), nbytes >= 2**31
    with verified as place, tifffile.TiffWriter(place, ome=True, bigtiff=is_big) as tif:
        tif.write(
            _iterate_tiles(image.data, path),
            shape=image.shape,
            subifds=len(shapes) - 1,
            metadata=_create_ome_metadata(image, "YX", record),
            **_create_resolution_tags(image),
            **options,
        )
        coarse = image.data
        for shape in shapes[1:]:
            tops = range(0, coarse.shape[0], _BAND)
            bands = (np.asarray(coarse[top : top + _BAND]) for top in tops)
            coarse = np.concatenate([downsample_block(band) for band in bands])
            options |= {"subfiletype": 1, "metadata": None}
            tif.write(_iterate_tiles(coarse, path), shape=shape, **options)


def get_page_axes(axes: Mapping[str, int]) -> dict[str, int]:
    """Return the TIFF axes of a stack: T for times, Z for all others.

    If times are between other axes, all are combined into one.
    """
    sizes_by_axis: dict[str, int] = {}
    long = {axis: size for axis, size in axes.items() if size > 1}
    outermost = "t" in (*[*long][:1], *[*long][-1:])
    for axis, size in long.items():
        letter = "T" if axis == "t" and outermost else "Z"
        sizes_by_axis[letter] = sizes_by_axis.get(letter, 1) * size
    return sizes_by_axis


def check_page_axes(axes: Mapping[str, int], path: Path) -> None:
    """Raise `WriteError` if a file cannot hold the axes of a stack in their order."""
    is_tiff = files.get_output_format(path) == "tiff"
    if is_tiff and [*get_page_axes(axes)] == ["Z", "T"]:
        msg = f"{path} would have times within heights: write .ome.tif instead."
        raise WriteError(msg, code="axis-order")


def write_pages(
    first: Micrograph,
    axes: Mapping[str, int],
    pages: Iterable[RealArray],
    path: Path,
) -> None:
    """Write the planes (Y, X) of a stack as pages of an ``.ome.tif`` or ``.tif``.

    `axes` are their sizes by name, the last fastest, as in `check_pages`. Name,
    calibration and history are those of the first plane.
    """
    sizes_by_axis = get_page_axes(axes)
    planes = math.prod(sizes_by_axis.values())
    ome = files.get_output_format(path) == "ome-tiff"
    kind = _find_lossless_type(first.dtype, _IMAGEJ_TYPES)
    kind = _get_ome_type(first.dtype) if ome else kind
    if kind is None:
        types = core.format_alternatives(_IMAGEJ_TYPES)
        msg = f"{path} must be of type {types}, got {first.dtype}: write .ome.tif."
        raise WriteError(msg, code="grey-type-unsupported")
    convert = convert_to_ome_type if ome else _convert_to_imagej_type
    letters = f"{''.join(sizes_by_axis)}YX"
    record = files.create_image_record(first).to_json()
    options = _create_imagej_options(first, letters, record)
    if ome:  # ImageJ opens it by its tags alone
        options = _create_resolution_tags(first)
        options["metadata"] = _create_ome_metadata(first, letters, record)
    size = planes * first.shape[0] * first.shape[1] * kind.itemsize
    is_big = ome and size >= 2**31
    with (
        _rename_verified_file(path, record) as place,
        tifffile.TiffWriter(place, ome=ome, imagej=not ome, bigtiff=is_big) as tif,
    ):
        tif.write(
            (np.ascontiguousarray(convert(page, path)) for page in pages),
            shape=(*sizes_by_axis.values(), *first.shape),
            dtype=kind,
            photometric="minisblack",
            **options,
        )
