"""What napari calls to open and save images: npe2 readers and writers.

Discovery imports nothing; the first call imports this module, which stays light.
Layers come calibrated in nanometres, with names for their axes and with contrast
limits, so that napari has nothing to guess or to compute.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import (
    Acquisition,
    Micrograph,
    OptionError,
    Provenance,
    ReadError,
    grid_cells,
    parse_pixel_size,
    run,
)

LayerTuple = tuple[Any, dict[str, Any], str]
_SUFFIXES = (".ome.zarr", ".ome.tif", ".ome.tiff", ".tif", ".tiff")


def get_reader(
    path: str | Sequence[str],
) -> Callable[[str | Sequence[str]], list[LayerTuple]] | None:
    """Offer to read what is ours by name and by its first bytes; leave the rest."""
    if not isinstance(path, str):
        return None
    file = Path(path)
    if not path.lower().endswith(_SUFFIXES):
        # a scan differs from any other folder by the tables that it holds
        tables = (file / "positions.csv", file / "scan.json")
        return read_scan_layers if any(table.is_file() for table in tables) else None
    from napari_semsr.io.formats import find_format

    try:
        find_format(file)
    except ReadError:
        return None
    return read_layers


def read_layers(path: str | Sequence[str]) -> list[LayerTuple]:
    """Read a file as napari layers."""
    from napari_semsr.io.formats import describe, read

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
    """Make a calibrated napari layer of an image."""
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
    """Make an image of a napari layer, by the units that the layer has now."""
    from napari_semsr.io.read_image import unit_nm

    finest = data[0] if attributes.get("multiscale") or _is_pyramid(data) else data
    if attributes.get("rgb") or len(finest.shape) != 2:
        msg = (
            "A layer is saved as one grey (Y, X) image, got shape "
            f"{tuple(finest.shape)}: save one plane or channel of it."
        )
        raise OptionError(msg)
    scale = tuple(float(s) for s in attributes.get("scale") or (1, 1))[-2:]
    shift = tuple(float(t) for t in attributes.get("translate") or (0, 0))[-2:]
    # a layer's unit may be text or a pint unit
    factors = [unit_nm(str(u)) for u in tuple(attributes.get("units") or ("", ""))[-2:]]
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


def write_layer(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save an image layer, calibrated, in the format that the suffix names.

    OME-Zarr, OME-TIFF and TIFF keep its values, PNG holds 8 bits for looking. napari
    has asked about replacing.
    """
    from napari_semsr.io.formats import write

    write(micrograph_of(data, attributes), Path(path), overwrite=True)
    return [path]


# A frames folder as napari layers: every frame at its nominal place.

FOLDER_KEY = "frames_folder"
"""Entry of a layer's metadata that tells where its frames are."""

_LARGEST = 1 << 31
_EDGE = 0.008
_COLOUR = "#7fb2e5"


def nominal_corners(acquisition: Acquisition) -> NDArray[np.float64] | None:
    """Tell where frames should lie, without looking at them.

    Top-left corners in px ``(N, 2)``, from positions, or from grid and overlap; None
    where neither is known.
    """
    size = acquisition.pixel_size_nm
    if acquisition.nominal_px is not None:
        return np.asarray(acquisition.nominal_px, dtype=float)
    if acquisition.nominal_nm is not None and size is not None:
        return np.asarray(acquisition.nominal_nm / np.array(size), dtype=float)
    if acquisition.grid is None or acquisition.overlap is None:
        return None
    cells = grid_cells(len(acquisition), acquisition.grid, acquisition.order)
    step = np.array(acquisition.frame_shape) * (1 - acquisition.overlap)
    placed: NDArray[np.float64] = cells * step
    return placed


def _paste(acquisition: Acquisition, corners: NDArray[np.float64]) -> NDArray[Any]:
    """Lay frames down at whole pixels; where they overlap the brighter one shows.

    Round fields are dark at their rims, so that the brighter one is the better lit.
    """
    places = np.round(corners - corners.min(axis=0)).astype(int)
    rows, columns = acquisition.frame_shape
    down, across = (int(n) for n in places.max(axis=0))
    shape = (down + rows, across + columns)
    dtype = acquisition.dtype
    if shape[0] * shape[1] * dtype.itemsize > _LARGEST:
        msg = (
            f"Frames at their nominal places would need {shape[0]} x {shape[1]} px: "
            "check the unit of the positions and the pixel size."
        )
        raise OptionError(msg)
    canvas = np.full(shape, np.nan if dtype.kind == "f" else 0, dtype)
    for index, (y, x) in enumerate(places):
        part = canvas[y : y + rows, x : x + columns]
        np.fmax(part, acquisition.read(index), out=part)
    return canvas


def scan_layers(acquisition: Acquisition, folder: Path) -> list[LayerTuple]:
    """Show the frames of a scan where they should lie.

    Parameters
    ----------
    acquisition : Acquisition
        Frames of one scan.
    folder : pathlib.Path
        Where they are; kept in the metadata of the layers.

    Returns
    -------
    list of tuple
        One image of all frames and their outlines; a stack of frames where no places
        are known.
    """
    corners = nominal_corners(acquisition)
    size, name = acquisition.pixel_size_nm, acquisition.name
    if corners is None:
        frames: Any = np.stack(
            [acquisition.read(index) for index in range(len(acquisition))]
        )
        first = Micrograph(frames[0], size, f"{name} frames")
        layers = [layer_of(first, data=frames, coarsest=frames)]
    else:
        canvas = _paste(acquisition, corners)
        image = Micrograph(canvas, size, f"{name} frames, nominal")
        placed = corners - corners.min(axis=0)
        layers = [layer_of(image), _outline_layer(acquisition, placed, image)]
    for _, attributes, _ in layers:
        attributes.setdefault("metadata", {})[FOLDER_KEY] = str(folder)
    return layers


def _outline_layer(
    acquisition: Acquisition, corners: NDArray[np.float64], image: Micrograph
) -> LayerTuple:
    """Rectangles around all frames, calibrated as their image is."""
    rows, columns = acquisition.frame_shape
    # at the outer edges of their pixels
    box = np.array([[0, 0], [0, columns], [rows, columns], [rows, 0]]) - 0.5
    attributes = {
        "name": f"{acquisition.name} frame outlines",
        "shape_type": "rectangle",
        "edge_color": _COLOUR,
        "face_color": "transparent",
        "edge_width": max(0.5, _EDGE * min(rows, columns)),
        "opacity": 0.6,
        "features": {"frame": list(acquisition.names)},
        "scale": image.scale,
        "units": (image.unit, image.unit),
        "axis_labels": ("y", "x"),
    }
    return [box + corner for corner in corners], attributes, "shapes"


def read_scan_layers(path: str | Sequence[str]) -> list[LayerTuple]:
    """Read a frames folder as napari layers."""
    from napari_semsr.io.scans import open_frames

    folder = Path(path if isinstance(path, str) else path[0])
    return scan_layers(run(open_frames(folder)), folder)
