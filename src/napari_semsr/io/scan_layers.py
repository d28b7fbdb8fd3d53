"""A frames folder as napari layers: every frame at its nominal place."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.acquisition import Acquisition, grid_cells
from napari_semsr.core.errors import OptionError
from napari_semsr.core.micrograph import Micrograph

__all__ = [
    "FOLDER_KEY",
    "is_frames_folder",
    "nominal_corners",
    "read_scan_layers",
    "scan_layers",
]

LayerTuple = tuple[Any, dict[str, Any], str]
FOLDER_KEY = "frames_folder"
"""Entry of a layer's metadata that tells where its frames are."""

_LARGEST = 1 << 31
_EDGE = 0.008
_COLOUR = "#7fb2e5"


def is_frames_folder(path: Path) -> bool:
    """Tell a scan from any other folder by the tables that it holds.

    Parameters
    ----------
    path : pathlib.Path
        A folder.

    Returns
    -------
    bool
        Whether it has ``positions.csv`` or ``scan.json``.
    """
    tables = ("positions.csv", "scan.json")
    return path.is_dir() and any((path / name).is_file() for name in tables)


def nominal_corners(acquisition: Acquisition) -> NDArray[np.float64] | None:
    """Tell where frames should lie, without looking at them.

    Parameters
    ----------
    acquisition : Acquisition
        Frames of one scan.

    Returns
    -------
    (N, 2) numpy.ndarray or None
        Top-left corners in px, from positions, or from grid and overlap; None where
        neither is known.
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


def _outlines(corners: NDArray[np.float64], shape: tuple[int, int]) -> list[Any]:
    """Rectangles around frames, at the outer edges of their pixels."""
    rows, columns = shape
    box = np.array([[0, 0], [0, columns], [rows, columns], [rows, 0]]) - 0.5
    return [box + corner for corner in corners]


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
    from napari_semsr.io.hooks import layer_of

    corners = nominal_corners(acquisition)
    size, name = acquisition.pixel_size_nm, acquisition.name
    if corners is None:
        frames: Any = np.stack(
            [acquisition.read(index) for index in range(len(acquisition))]
        )
        first = Micrograph(frames[0], size, f"{name} frames")
        layer = layer_of(first, data=frames, coarsest=frames)
        layer[1]["metadata"][FOLDER_KEY] = str(folder)
        return [layer]
    canvas = _paste(acquisition, corners)
    image = Micrograph(canvas, size, f"{name} frames, nominal")
    layer = layer_of(image)
    layer[1]["metadata"][FOLDER_KEY] = str(folder)
    placed = corners - corners.min(axis=0)
    outlines = _outline_layer(acquisition, placed, image)
    outlines[1]["metadata"] = {FOLDER_KEY: str(folder)}
    return [layer, outlines]


def _outline_layer(
    acquisition: Acquisition, corners: NDArray[np.float64], image: Micrograph
) -> LayerTuple:
    """Outlines of all frames, calibrated as their image is."""
    names: Sequence[str] = acquisition.names
    attributes = {
        "name": f"{acquisition.name} frame outlines",
        "shape_type": "rectangle",
        "edge_color": _COLOUR,
        "face_color": "transparent",
        "edge_width": max(0.5, _EDGE * min(acquisition.frame_shape)),
        "opacity": 0.6,
        "features": {"frame": list(names)},
        "scale": image.scale,
        "units": (image.unit, image.unit),
        "axis_labels": ("y", "x"),
    }
    return _outlines(corners, acquisition.frame_shape), attributes, "shapes"


def read_scan_layers(path: str | Sequence[str]) -> list[LayerTuple]:
    """Read a frames folder as napari layers.

    Parameters
    ----------
    path : str or sequence of str
        One folder.

    Returns
    -------
    list of tuple
        As `scan_layers` gives them.

    Raises
    ------
    ReadError
        If the frames cannot be read.
    """
    from napari_semsr.io.frames import read_frames

    folder = Path(path if isinstance(path, str) else path[0])
    return scan_layers(read_frames(folder), folder)
