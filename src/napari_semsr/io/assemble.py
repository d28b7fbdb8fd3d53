"""The last steps that all formats share: grey, data bar, calibration, record."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_semsr.core.errors import ReadError
from napari_semsr.core.micrograph import Micrograph, PixelSize, parse_pixel_size
from napari_semsr.io import jeol
from napari_semsr.io.databar import suggest_databar
from napari_semsr.io.grey import native, to_grey
from napari_semsr.io.options import FileInfo, ReadOptions, Source

__all__ = ["LAZY_BYTES", "to_info", "to_micrograph"]

LAZY_BYTES = 64 * 2**20
_SUFFIXES = (".ome", ".zarr", ".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp")


def _display_name(path: Path) -> str:
    """File name without the suffixes that are ours to read."""
    name = path.name
    while name.lower().endswith(_SUFFIXES):
        stem, _, _ = name.rpartition(".")
        if not stem:
            break
        name = stem
    return name


def _with_sidecar(path: Path, source: Source) -> Source:
    """Take calibration and data bar from a JEOL text file beside the image."""
    if source.vendor is not None or source.record is not None:
        return source
    found = jeol.read_sidecar(path, (source.data.shape[0], source.data.shape[1]))
    if found is None:
        return source
    return replace(
        source,
        vendor="JEOL",
        pixel_size_nm=found.pixel_size_nm or source.pixel_size_nm,
        databar_rows=found.databar_rows,
        metadata={**source.metadata, "jeol": found.keys},
        warnings=source.warnings + found.warnings,
    )


def _bar(path: Path, source: Source, options: ReadOptions) -> int:
    """Rows to cut off at the bottom."""
    height = source.data.shape[0]
    if options.databar_rows is not None:
        if options.databar_rows >= height:
            msg = (
                f"{path} has {height} rows, of which {options.databar_rows} cannot all "
                "be data bar: give fewer databar_rows."
            )
            raise ReadError(msg)
        return options.databar_rows
    return source.databar_rows if options.crop_databar else 0


def _is_close(a: PixelSize, b: PixelSize) -> bool:
    """Whether two pixel sizes are one, up to what a rational tag can hold."""
    return bool(np.allclose(a, b, rtol=1e-6, atol=0))


def _calibration(source: Source) -> PixelSize | None:
    """Prefer the record's digits, unless someone recalibrated the file since."""
    own = None if source.record is None else source.record.pixel_size_nm
    stated = source.pixel_size_nm
    if own is not None and (stated is None or _is_close(own, stated)):
        return own
    return stated


def _metadata(source: Source, data: Any, bar: int) -> dict[str, Any]:
    """Collect what the file said, and what was done to it."""
    found = {**source.metadata, "format": source.format, "databar_rows_cropped": bar}
    if source.vendor is not None:
        found["vendor"] = source.vendor
    if source.warnings:
        found["warnings"] = list(source.warnings)
    if isinstance(data, np.ndarray) and data.dtype.kind == "f":
        finite = int(np.count_nonzero(np.isfinite(data)))
        if finite != data.size:
            found["nonfinite_pixels"] = data.size - finite
    return found


def to_micrograph(path: Path, source: Source, options: ReadOptions) -> Micrograph:
    """Make the micrograph that a user asked for.

    Parameters
    ----------
    path : pathlib.Path
        File that was read.
    source : Source
        What its format module found.
    options : ReadOptions
        What the user asked for.

    Returns
    -------
    Micrograph
        Grey, its data bar cropped, calibrated where the file or the user says how.

    Raises
    ------
    ReadError
        If the image is in colour, complex or empty.
    """
    source = _with_sidecar(path, source)
    bar = _bar(path, source, options)
    samples = native(path, source.data)[: source.data.shape[0] - bar]
    data = to_grey(path, samples, colour=options.colour)
    record = source.record
    size = parse_pixel_size(options.pixel_size_nm) or _calibration(source)
    name = source.name or (record.name if record is not None else _display_name(path))
    origin = source.origin or (record.origin if record is not None else (0.0, 0.0))
    spacing = source.spacing_px or (record.spacing_px if record is not None else (1, 1))
    return Micrograph(
        data=data,
        pixel_size_nm=size,
        name=name,
        provenance=None if record is None else record.provenance,
        origin=origin,
        spacing_px=(float(spacing[0]), float(spacing[1])),
        metadata=_metadata(source, data, bar),
    )


def to_info(path: Path, source: Source) -> FileInfo:
    """Describe a file.

    Parameters
    ----------
    path : pathlib.Path
        File that was read.
    source : Source
        What its format module found.

    Returns
    -------
    FileInfo
        Shape, calibration and everything there is to choose from.
    """
    source = _with_sidecar(path, source)
    stored = tuple(int(n) for n in source.data.shape)
    suggested = 0
    if not source.databar_rows and source.record is None:
        suggested = _suggested(source.data)
    metadata = dict(source.metadata)
    if source.warnings:
        metadata["warnings"] = list(source.warnings)
    return FileInfo(
        format=source.format,
        shape=(stored[0] - source.databar_rows, stored[1]),
        stored_shape=stored,
        dtype=np.dtype(source.data.dtype).name,
        pixel_size_nm=_calibration(source),
        vendor=source.vendor,
        levels=source.levels,
        series=source.series,
        channels=source.channels,
        planes=source.planes,
        databar_rows=source.databar_rows,
        suggested_databar_rows=suggested,
        metadata=metadata,
    )


def _suggested(data: Any) -> int:
    """Look for a data bar, but only where the pixels are at hand."""
    if not isinstance(data, np.ndarray) or data.dtype.kind not in "buif":
        return 0
    return suggest_databar(data if data.ndim == 2 else data[..., 0])
