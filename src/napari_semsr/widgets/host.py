"""Compatibility layer for the supported versions of napari.

napari 0.9 moved camera, grid and scale bar from the viewer to `viewer.scene` and
`viewer.canvas`; before, the size of the canvas was private.
"""

import inspect
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari.components import Camera, ViewerModel
    from napari.components.grid import GridCanvas
    from napari.components.overlays import ScaleBarOverlay
    from napari.utils.events import Event

LOWEST_NAPARI = "0.7"
"""Minimum napari version; a test checks it against the README, manual and packaging."""
_LARGEST_STRIDE = 50  # accepted by napari
_UNIT_OF_LAYERS = (0, 7, 1)  # from which the scale bar uses the layers' unit


def check_napari(context: object = None) -> None:
    """Raise an error with upgrade instructions if napari is too old.

    The plugin engine calls this on activation. Programs without napari, which only read
    files, do not raise it.

    Raises
    ------
    ImportError
        If the running napari is older than `LOWEST_NAPARI`.
    """
    version_running = _get_napari_version()
    if () < version_running < _parse_version(LOWEST_NAPARI):
        version = ".".join(map(str, version_running))
        msg = (
            f"napari-semsr requires napari {LOWEST_NAPARI} or newer, but this is "
            f'napari {version}; upgrade with pip install "napari>={LOWEST_NAPARI}"'
        )
        raise ImportError(msg)


def _get_napari_version() -> tuple[int, ...]:
    return _parse_version(str(getattr(sys.modules.get("napari"), "__version__", "")))


def _parse_version(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def get_camera(viewer: "ViewerModel") -> "Camera":
    """Return the camera of a viewer."""
    return getattr(viewer, "scene", viewer).camera


def get_grid(viewer: "ViewerModel") -> "GridCanvas":
    """Return the grid that a viewer uses to show layers side by side."""
    return getattr(viewer, "canvas", viewer).grid


def show_side_by_side(viewer: "ViewerModel", left: int, right: int) -> None:
    """Show the two layers with the given indices side by side.

    Before napari 0.9, hidden layers occupy grid cells, counted modulo the columns: the
    fewest columns that place the left layer on the left are used.
    """
    cells, count = get_grid(viewer), len(viewer.layers)
    if hasattr(viewer, "canvas"):
        # the lowest layer is first, with a negative stride the highest
        cells.stride = 1 if left < right else -1
    else:
        cells.shape, cells.stride = next(
            ((1, columns), stride)
            for columns in range(2, count + 1)
            for size in range(1, min(count, _LARGEST_STRIDE) + 1)
            for stride in (size, -size)
            if _get_grid_column(left, count, stride, columns)
            < _get_grid_column(right, count, stride, columns)
        )
    cells.enabled = True


def _get_grid_column(index: int, count: int, stride: int, columns: int) -> int:
    first = index if stride > 0 else count - index - 1
    return first // abs(stride) % columns


def disable_grid_view(viewer: "ViewerModel") -> None:
    """Show layers on top of each other again, without a grid."""
    cells = get_grid(viewer)
    cells.enabled, cells.stride = False, 1
    if not hasattr(viewer, "canvas"):
        cells.shape = (-1, -1)  # as many as there are layers


def get_scale_bar(viewer: "ViewerModel") -> "ScaleBarOverlay":
    """Return the scale bar of a viewer."""
    canvas = getattr(viewer, "canvas", None)
    return viewer.scale_bar if canvas is None else canvas.overlays.scale_bar


def set_scale_bar_unit(viewer: "ViewerModel") -> None:
    """Set the scale-bar unit to the layer unit, unless napari does so itself."""
    if () < _get_napari_version() < _UNIT_OF_LAYERS:
        units = viewer.layers.units
        get_scale_bar(viewer).unit = None if units is None else str(units[-1])


def get_viewbox_size(viewer: "ViewerModel") -> NDArray[np.float64]:
    """Return the height and width of a layer's view box, in screen pixels."""
    canvas = getattr(viewer, "canvas", None)
    if canvas is not None:
        return np.array(canvas.viewbox_size(viewer.layers), dtype=float)
    model = getattr(viewer, "__wrapped__", viewer)
    size = model._get_viewbox_size()  # noqa: SLF001 - no public way
    return np.array(size, dtype=float)


def is_on_screen(viewer: "ViewerModel") -> bool:
    """Return whether part of the canvas is visible; True if there is no window."""
    model = getattr(viewer, "__wrapped__", viewer)
    if not hasattr(model, "window"):
        return True
    canvas = model.window._qt_viewer.canvas.native  # noqa: SLF001 - no public way
    return not (canvas.visibleRegion().isEmpty() or canvas.window().isMinimized())


def connect_to_resize(viewer: "ViewerModel", call: Callable[["Event"], None]) -> None:
    """Connect a method, held by weak reference, to canvas resizing."""
    canvas = getattr(viewer, "canvas", None)
    model = getattr(viewer, "__wrapped__", viewer)
    if canvas is not None:
        canvas.events.size.connect(call)
    elif hasattr(model, "window"):
        canvas_native = model.window._qt_viewer.canvas  # noqa: SLF001 - no public way
        canvas_native._scene_canvas.events.resize.connect(call)  # noqa: SLF001


def is_opening_from_window() -> bool:
    """Return whether napari is opening files for its window, not for a script.

    That is by its menu, a drop, or the command ``napari PATH``; it shows an exception
    that a reader raises then with its traceback.
    """
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_name != "_qt_open":
        frame = frame.f_back
    return frame is not None
