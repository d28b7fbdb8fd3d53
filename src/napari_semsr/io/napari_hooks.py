"""Reader hook for napari, as registered in the manifest.

Discovery imports nothing; the first call imports this module, which stays light.
"""

from collections.abc import Callable
from pathlib import Path

from napari_semsr.core import ReadError, describe_access_error
from napari_semsr.io.layers import (
    LayerTuple,
    Paths,
    can_read_more_than_napari,
    is_readable,
    is_too_short,
    read_layers,
)
from napari_semsr.io.project import is_project, read_project_layers


def is_preferred_reader(path: Paths) -> bool:
    """Return whether to prefer this package over napari's own readers for paths."""
    paths = [Path(one) for one in ([path] if isinstance(path, str) else path)]
    if len(paths) == 1 and is_project(paths[0]):
        return True
    try:
        return bool(paths) and all(map(can_read_more_than_napari, paths))
    except (ReadError, OSError, ValueError, TypeError):  # also for damaged headers
        return False


def get_reader(path: Paths) -> Callable[[Paths], list[LayerTuple]] | None:
    """Return a reader if all paths are supported by name and content, else None."""
    paths = [Path(one) for one in ([path] if isinstance(path, str) else path)]
    if len(paths) == 1 and is_project(paths[0]):
        return read_paths
    can_read = (is_readable(one) or is_too_short(one) for one in paths)
    return read_paths if paths and all(can_read) else None


def read_paths(path: Paths) -> list[LayerTuple]:
    """Read a project, a scan, an image, or a stack of images as layers.

    Parameters
    ----------
    path : str or sequence of str
        One path, or the files of a stack.

    Returns
    -------
    list of tuple
        Values, attributes and kind of each layer.

    Raises
    ------
    ReadError
        If nothing here can be read.
    """
    paths = [Path(one) for one in ([path] if isinstance(path, str) else path)]
    try:
        if len(paths) == 1 and is_project(paths[0]):
            return read_project_layers(path)
        return read_layers(path)
    except OSError as error:
        message = describe_access_error(paths[0], error)
        if message is None:
            raise
        raise ReadError(message) from error
