"""What napari calls to open images: npe2 readers; and what all layers carry.

Discovery imports nothing; the first call imports this module, which stays light.
Layers come calibrated in nanometres, with names for their axes and with contrast
limits, so that napari has nothing to guess or to compute.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import (
    Acquisition,
    Micrograph,
    OptionError,
    ReadError,
    grid_cells,
    run,
)

LayerTuple = tuple[Any, dict[str, Any], str]
_SUFFIXES = (".ome.zarr", ".ome.tif", ".ome.tiff", ".tif", ".tiff")

LIVE_KEY = "semsr live"
"""Entry of a layer's metadata while it is being enhanced."""

STORE_KEY = "semsr store"
"""Entry of a layer's metadata that tells what file or store it is drawn from."""

SAVED_KEY = "semsr saved"
"""Entry of a layer's metadata that tells where all its values were saved last."""

SINGLE_PX = 2048
"""Longest side up to which an image is shown without a pyramid, from memory.

Writers of other plugins save one array and fail on a list of levels; 16 MB of float32
need neither levels nor chunks.
"""


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
    small = max(info.shape) <= SINGLE_PX
    for channel in range(info.channels):
        levels = [
            [
                read(file, level=level, channel=channel, plane=plane)
                for plane in range(info.planes)
            ]
            for level in range(1 if small else info.levels)
        ]
        if small and info.planes == 1:
            levels = [[levels[0][0].replace(data=levels[0][0].array())]]
        name = levels[0][0].name
        if info.channels > 1:
            name = f"{name} channel {channel}"
        layers.append(_stacked(levels, name))
        layers[-1][1]["metadata"][STORE_KEY] = str(file.resolve())
    return layers


def layer_of(
    image: Micrograph, *, data: Any = None, coarsest: Any = None
) -> LayerTuple:
    """Make a calibrated napari layer of an image."""
    shown = image.data if data is None else data
    first = shown[0] if isinstance(shown, list) else shown
    attributes = layer_attributes(image, extra=first.ndim - 2) | {
        "contrast_limits": _limits(first if coarsest is None else coarsest),
        "multiscale": isinstance(shown, list),
    }
    return shown, attributes, "image"


def layer_attributes(image: Micrograph, *, extra: int = 0) -> dict[str, Any]:
    """Say how napari shows an image calibrated, and what it cannot say itself.

    Parameters
    ----------
    image : Micrograph
        What is shown.
    extra : int, default=0
        Axes of the layer before y and x.

    Returns
    -------
    dict
        Keywords of a layer.
    """
    made = image.provenance
    about = {
        "pixel_size_nm": image.pixel_size_nm,
        "provenance": None if made is None else made.model_dump(mode="json"),
        **dict(image.metadata),
    }
    return {
        "name": image.name,
        "scale": (*(1.0,) * extra, *image.scale),
        "translate": (*(0.0,) * extra, *image.origin),
        "units": (*("pixel",) * extra, image.unit, image.unit),
        "axis_labels": (*("plane",) * extra, "y", "x"),
        "rgb": False,
        "metadata": {"micrograph": about},
    }


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
