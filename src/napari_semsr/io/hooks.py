"""What napari calls to open and save images: npe2 readers and writers.

Discovery imports nothing; the first call imports this module, which stays light.
Layers come calibrated in nanometres, with names for their axes and with contrast
limits, so that napari has nothing to guess or to compute.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_semsr.core.errors import OptionError, ReadError
from napari_semsr.core.micrograph import Micrograph, parse_pixel_size
from napari_semsr.core.provenance import Provenance

__all__ = ["get_reader", "layer_of", "write_ome_zarr", "write_png", "write_tiff"]

LayerTuple = tuple[Any, dict[str, Any], str]
_SUFFIXES = (".ome.zarr", ".ome.tif", ".ome.tiff", ".tif", ".tiff")


def get_reader(
    path: str | Sequence[str],
) -> Callable[[str | Sequence[str]], list[LayerTuple]] | None:
    """Offer to read a path, or leave it to others.

    Parameters
    ----------
    path : str or sequence of str
        What was dropped; several files at once are left to others.

    Returns
    -------
    callable or None
        The reader, when the file is one of ours by name and by its first bytes. An
        unfinished store is accepted, so that the reader can say what to do. A folder is
        ours when ``positions.csv`` or ``scan.json`` say that it is a scan.
    """
    if not isinstance(path, str):
        return None
    if not path.lower().endswith(_SUFFIXES):
        return _scan_reader(Path(path))
    from napari_semsr.io.registry import find_format

    try:
        find_format(Path(path))
    except ReadError:
        return None
    return read_layers


def _scan_reader(
    folder: Path,
) -> Callable[[str | Sequence[str]], list[LayerTuple]] | None:
    """Offer to read a frames folder."""
    if not folder.is_dir():
        return None
    from napari_semsr.io.scan_layers import is_frames_folder, read_scan_layers

    return read_scan_layers if is_frames_folder(folder) else None


def read_layers(path: str | Sequence[str]) -> list[LayerTuple]:
    """Read a file as napari layers.

    Parameters
    ----------
    path : str or sequence of str
        One file or store.

    Returns
    -------
    list of tuple
        One layer for each channel; a pyramid becomes a multiscale layer, planes become
        a slider.

    Raises
    ------
    ReadError
        If it cannot be read.
    """
    from napari_semsr.io.registry import describe, read

    file = Path(path if isinstance(path, str) else path[0])
    info = describe(file)
    layers = []
    for channel in range(info.channels):
        levels = [
            [
                read(file, level=level, channel=channel, plane=plane)
                for plane in range(info.planes)
            ]
            for level in range(info.levels)
        ]
        name = levels[0][0].name
        if info.channels > 1:
            name = f"{name} channel {channel}"
        layers.append(_stacked(levels, name))
    return layers


def layer_of(
    image: Micrograph, *, data: Any = None, coarsest: Any = None
) -> LayerTuple:
    """Make a calibrated napari layer of an image.

    Parameters
    ----------
    image : Micrograph
        Finest level.
    data : array or list of array, optional
        What the layer shows in place of the image's own data: levels of a pyramid, or
        planes stacked along a first axis.
    coarsest : array, optional
        Where to take the contrast limits from; the data by default.

    Returns
    -------
    tuple
        Data, attributes and ``"image"``.
    """
    shown = image.data if data is None else data
    first = shown[0] if isinstance(shown, list) else shown
    extra = first.ndim - 2
    attributes = {
        "name": image.name,
        "scale": (*(1.0,) * extra, *image.scale),
        "translate": (*(0.0,) * extra, *image.origin),
        "units": (*("pixel",) * extra, image.unit, image.unit),
        "axis_labels": (*("plane",) * extra, "y", "x"),
        "contrast_limits": _limits(first if coarsest is None else coarsest),
        "rgb": False,
        "multiscale": isinstance(shown, list),
        "metadata": {"micrograph": _remembered(image)},
    }
    return shown, attributes, "image"


def _stacked(levels: list[list[Micrograph]], name: str) -> LayerTuple:
    """Put planes and levels into one layer."""
    finest = levels[0][0].replace(name=name)
    data = [_pile([plane.data for plane in planes]) for planes in levels]
    coarsest = levels[-1][0].data
    return layer_of(finest, data=data if len(data) > 1 else data[0], coarsest=coarsest)


def _pile(planes: list[Any]) -> Any:
    """Stack planes along a first axis, unless there is only one."""
    if len(planes) == 1:
        return planes[0]
    if any(hasattr(plane, "dask") for plane in planes):
        import dask.array as da

        return da.stack(planes)
    return np.stack(planes)


def _limits(data: Any) -> tuple[float, float]:
    """Choose contrast limits: all of 8 bits, else what a sample of pixels spans."""
    dtype = np.dtype(data.dtype)
    if dtype == np.uint8:
        return 0.0, 255.0
    if dtype.kind == "b":
        return 0.0, 1.0
    rows, columns = data.shape[-2:]
    high, wide = min(rows, 1024), min(columns, 1024)
    top, left = (rows - high) // 2, (columns - wide) // 2
    sample = np.asarray(data[..., top : top + high, left : left + wide])
    finite = sample[np.isfinite(sample)]
    if not finite.size:
        return 0.0, 1.0
    low, limit = float(finite.min()), float(finite.max())
    return (low, limit) if limit > low else (low, low + 1.0)


def _remembered(image: Micrograph) -> dict[str, Any]:
    """Keep what a layer itself cannot say, for saving and for the panels."""
    made = image.provenance
    return {
        "pixel_size_nm": image.pixel_size_nm,
        "origin": image.origin,
        "spacing_px": image.spacing_px,
        "provenance": None if made is None else made.model_dump(mode="json"),
        "metadata": dict(image.metadata),
    }


def micrograph_of(data: Any, attributes: Mapping[str, Any]) -> Micrograph:
    """Make an image of a napari layer, by the units that the layer has now.

    Parameters
    ----------
    data : array or sequence of array
        The layer's data; of a pyramid the finest level is taken.
    attributes : mapping
        The layer's attributes, as napari hands them to writers.

    Returns
    -------
    Micrograph
        Calibrated when the layer's units are lengths.

    Raises
    ------
    OptionError
        If the layer is a stack or in colour.
    """
    finest = data[0] if attributes.get("multiscale") or _is_pyramid(data) else data
    if attributes.get("rgb") or len(finest.shape) != 2:
        msg = (
            "A layer is saved as one grey (Y, X) image, got shape "
            f"{tuple(finest.shape)}: save one plane or channel of it."
        )
        raise OptionError(msg)
    scale = tuple(float(s) for s in attributes.get("scale") or (1, 1))[-2:]
    shift = tuple(float(t) for t in attributes.get("translate") or (0, 0))[-2:]
    factors = [_unit_nm(u) for u in tuple(attributes.get("units") or ("", ""))[-2:]]
    calibrated = all(factor is not None for factor in factors)
    grow = [factor or 1.0 for factor in factors] if calibrated else [1.0, 1.0]
    pitch = (scale[0] * grow[0], scale[1] * grow[1])
    made = (attributes.get("metadata") or {}).get("micrograph", {}).get("provenance")
    return Micrograph(
        data=finest if hasattr(finest, "dask") else np.asarray(finest),
        pixel_size_nm=parse_pixel_size(pitch) if calibrated else None,
        name=str(attributes.get("name") or "image"),
        provenance=None if made is None else Provenance.model_validate(made),
        origin=(shift[0] * grow[0], shift[1] * grow[1]),
        spacing_px=(1.0, 1.0) if calibrated else pitch,
    )


def _is_pyramid(data: Any) -> bool:
    """Tell levels from one array."""
    return not hasattr(data, "dtype") or type(data).__name__ == "MultiScaleData"


def _unit_nm(unit: object) -> float | None:
    """Nanometres in a layer's unit, which may be text or a pint unit."""
    from napari_semsr.io.lengths import unit_nm

    return unit_nm(str(unit))


def _save(path: str, data: Any, attributes: Mapping[str, Any]) -> list[str]:
    """Write a layer by the suffix of the path; napari has asked about replacing."""
    from napari_semsr.io.registry import write

    write(micrograph_of(data, attributes), Path(path), overwrite=True)
    return [path]


def write_ome_zarr(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save an image layer as a calibrated OME-Zarr store.

    Parameters
    ----------
    path : str
        Where to write, ending in ``.ome.zarr``.
    data : array or sequence of array
        The layer's data.
    attributes : dict
        The layer's attributes.

    Returns
    -------
    list of str
        What was written.

    Raises
    ------
    WriteError
        If it cannot be written.
    """
    return _save(path, data, attributes)


def write_tiff(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save an image layer as a calibrated TIFF or OME-TIFF.

    Parameters
    ----------
    path : str
        Where to write, ending in ``.tif``, ``.tiff`` or ``.ome.tif``.
    data : array or sequence of array
        The layer's data.
    attributes : dict
        The layer's attributes.

    Returns
    -------
    list of str
        What was written.

    Raises
    ------
    WriteError
        If it cannot be written.
    """
    return _save(path, data, attributes)


def write_png(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save an image layer as an 8-bit PNG for looking.

    Parameters
    ----------
    path : str
        Where to write, ending in ``.png``.
    data : array or sequence of array
        The layer's data.
    attributes : dict
        The layer's attributes.

    Returns
    -------
    list of str
        What was written.

    Raises
    ------
    WriteError
        If it cannot be written.
    """
    return _save(path, data, attributes)
