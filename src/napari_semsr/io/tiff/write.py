"""TIFF out: OME-TIFF, and TIFF calibrated as ImageJ reads it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import Micrograph, WriteError, legible
from napari_semsr.io.files import (
    RECORD_KEY,
    Record,
    output_kind,
    record_of,
    replacing,
)
from napari_semsr.io.tiff.read import read_calibration
from napari_semsr.io.zarr import halve, level_shapes

_IMAGEJ_TYPES = ("uint8", "uint16", "float32")
_UNKNOWN_TO_OME = ("float16", "int64", "uint64")
_TILE = 256
_BAND = 2048
_LARGEST_IMAGEJ = 2**31
_PYRAMID_FROM = 4096
_FEI_TAG = 34682


def _resolution(image: Micrograph) -> dict[str, Any]:
    """Arguments that write pixels per unit; ImageJ's unit stands in its description."""
    if image.pixel_size_nm is None:
        return {"resolution": (1, 1), "resolutionunit": 1}
    y, x = image.pixel_size_nm
    return {"resolution": (1 / x, 1 / y), "resolutionunit": 1}


def write_imagej(image: Micrograph, path: Path) -> None:
    """Write a TIFF whose calibration ImageJ and Fiji understand.

    The record goes where Fiji shows it (Image > Show Info), so that all digits of the
    pixel size, the origin and the provenance survive.
    """
    import tifffile

    nbytes = image.shape[0] * image.shape[1] * image.dtype.itemsize
    if nbytes >= _LARGEST_IMAGEJ:
        msg = (
            f"ImageJ's TIFF holds less than 2 GB, got {nbytes / 2**30:.1f} GB for "
            f"{path}: write .ome.tif or .ome.zarr."
        )
        raise WriteError(msg)
    dtype = image.dtype.newbyteorder("=")
    options: dict[str, Any] = {"photometric": "minisblack", **_resolution(image)}
    metadata = _imagej_metadata(image, "YX")
    imagej = image.dtype.name in _IMAGEJ_TYPES
    if imagej:
        options["metadata"] = metadata
    else:
        options |= {"metadata": None, "description": metadata["Info"]}
        if image.pixel_size_nm is not None:  # for readers that know no ImageJ
            y, x = image.pixel_size_nm
            options |= {"resolution": (1e7 / x, 1e7 / y), "resolutionunit": 3}
    with (
        _read_back(path, image) as temporary,
        tifffile.TiffWriter(temporary, imagej=imagej) as tif,
    ):
        tif.write(np.ascontiguousarray(image.array(), dtype=dtype), **options)


@contextmanager
def _read_back(path: Path, image: Micrograph) -> Iterator[Path]:
    """Rename what is written once it says name, pixel size and history again."""
    with replacing(path) as place:
        yield place
        found, meant = read_calibration(place), record_of(image)
        if found.record != Record.from_json(meant.to_json()) or found.warnings:
            msg = (
                f"{path} could not be written so that its name, pixel size and history "
                "are read again: give the image another name, or write .ome.zarr."
            )
            raise WriteError(msg)


def write_fei(image: Micrograph, path: Path) -> None:
    """Write a TIFF as an electron microscope of FEI or Thermo Fisher would.

    The image is calibrated, of unsigned integers. A private tag tells field and pixel
    size in metres, and who wrote it; there is no data bar. Name, origin and history
    have no place in it.
    """
    import tifffile

    (rows, columns), (y, x) = image.shape, image.scale
    told: dict[str, dict[str, Any]] = {
        "System": {"SystemType": "simulated", "Software": "napari-semsr"},
        "EBeam": {"HFW": columns * x * 1e-9, "VFW": rows * y * 1e-9},
        "Scan": {"PixelWidth": x * 1e-9, "PixelHeight": y * 1e-9},
        "Image": {"ResolutionX": columns, "ResolutionY": rows},
        "PrivateFei": {"DatabarHeight": 0},
    }
    lines = []
    for section, values in told.items():
        lines += [f"[{section}]", *(f"{k}={_plain(v)}" for k, v in values.items()), ""]
    tag = (_FEI_TAG, 2, 0, "\r\n".join(lines), True)
    dtype = image.dtype.newbyteorder("=")
    with replacing(path) as temporary, tifffile.TiffWriter(temporary) as tif:
        tif.write(
            np.ascontiguousarray(image.array(), dtype=dtype),
            photometric="minisblack",
            metadata=None,
            extratags=[tag],
        )


def _plain(value: Any) -> str:
    """Write a number with all digits that it has, and no more."""
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _imagej_metadata(image: Micrograph, axes: str) -> dict[str, Any]:
    """Collect what ImageJ shows: unit, contrast, and the record in its information."""
    shown: dict[str, Any] = {}
    if image.look is not None:
        shown["min"], shown["max"] = image.look.limits
    return shown | {
        "unit": image.unit,
        "Info": f"{RECORD_KEY}={record_of(image).to_json()}",
        "axes": axes,
    }


def _ome_metadata(image: Micrograph, axes: str) -> dict[str, Any]:
    """OME-XML attributes: sizes with units, and the record as a map annotation."""
    found: dict[str, Any] = {
        "axes": axes,
        "Name": legible(image.name),  # XML holds no control characters
        "MapAnnotation": {RECORD_KEY: record_of(image).to_json()},
    }
    if image.pixel_size_nm is not None:
        y, x = image.pixel_size_nm
        found |= {"PhysicalSizeY": y, "PhysicalSizeYUnit": "nm"}
        found |= {"PhysicalSizeX": x, "PhysicalSizeXUnit": "nm"}
    return found


def _tiles(data: Any, dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    """Cut an image into whole tiles, computing it band by band.

    Tiles at the edge are filled up here: left to tifffile, an image one pixel wide is
    predicted before it is filled, and comes back changed.
    """
    rows, columns = data.shape
    for top in range(0, rows, _BAND):
        band = np.asarray(data[top : top + _BAND]).astype(dtype, copy=False)
        for y in range(0, band.shape[0], _TILE):
            for x in range(0, columns, _TILE):
                part = band[y : y + _TILE, x : x + _TILE]
                missing = [(0, _TILE - n) for n in part.shape]
                yield np.pad(part, missing, mode="edge")


def write_ome(image: Micrograph, path: Path) -> None:
    """Write an OME-TIFF: tiled, compressed without loss, with levels when large."""
    import tifffile

    if image.dtype.name in _UNKNOWN_TO_OME:
        msg = (
            f"OME-TIFF has no {image.dtype.name}, as {path} would need: write float32 "
            "(--dtype), or .ome.zarr."
        )
        raise WriteError(msg)
    dtype = image.dtype.newbyteorder("=")
    shapes = [image.shape]
    if max(image.shape) >= _PYRAMID_FROM:
        shapes = level_shapes(image.shape, smallest=1024)
    options: dict[str, Any] = {
        "dtype": dtype,
        "tile": (_TILE, _TILE),
        "photometric": "minisblack",
    }
    if dtype.kind != "b":
        options |= {"compression": "zlib", "predictor": dtype.kind in "uif"}
    nbytes = image.shape[0] * image.shape[1] * dtype.itemsize
    with (
        _read_back(path, image) as temporary,
        tifffile.TiffWriter(temporary, ome=True, bigtiff=nbytes >= 2**31) as tif,
    ):
        tif.write(
            _tiles(image.data, dtype),
            shape=image.shape,
            subifds=len(shapes) - 1,
            metadata=_ome_metadata(image, "YX"),
            **options,
        )
        coarse = image.data
        for shape in shapes[1:]:
            tops = range(0, coarse.shape[0], _BAND)
            bands = (np.asarray(coarse[top : top + _BAND]) for top in tops)
            coarse = np.concatenate([halve(band) for band in bands])
            tif.write(
                _tiles(coarse, dtype),
                shape=shape,
                subfiletype=1,
                metadata=None,
                **options,
            )


def write_pages(
    first: Micrograph, planes: int, pages: Iterable[NDArray[Any]], path: Path
) -> None:
    """Write the planes (Y, X) of a stack as the pages of one ``.ome.tif`` or ``.tif``.

    The first plane tells name, calibration and history of all.
    """
    import tifffile

    ome = output_kind(path) == "ome-tiff"
    if not ome and first.dtype.name not in _IMAGEJ_TYPES:
        msg = (
            f"ImageJ's stacks hold {', '.join(_IMAGEJ_TYPES)}, got {first.dtype} for "
            f"{path}: write .ome.tif."
        )
        raise WriteError(msg)
    options: dict[str, Any] = {} if ome else _resolution(first)
    size = planes * first.shape[0] * first.shape[1] * first.dtype.itemsize
    with (
        _read_back(path, first) as temporary,
        tifffile.TiffWriter(
            temporary, ome=ome, imagej=not ome, bigtiff=ome and size >= 2**31
        ) as tif,
    ):
        tif.write(
            (np.ascontiguousarray(page) for page in pages),
            shape=(planes, *first.shape),
            dtype=first.dtype,
            photometric="minisblack",
            metadata=(_ome_metadata if ome else _imagej_metadata)(first, "ZYX"),
            **options,
        )
