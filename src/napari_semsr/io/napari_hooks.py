"""What napari calls to open files: the reader that the manifest names.

Discovery imports nothing; the first call imports this module, which stays light.
"""

from collections.abc import Callable
from pathlib import Path

from napari_semsr.io.layers import LayerTuple, Paths, is_readable, read_layers
from napari_semsr.io.project import is_project, read_project_layers


def get_reader(path: Paths) -> Callable[[Paths], list[LayerTuple]] | None:
    """Offer to read what is ours by name and by its first bytes; leave the rest."""
    paths = [path] if isinstance(path, str) else path
    if len(paths) == 1 and is_project(Path(paths[0])):
        return read_project_layers
    return read_layers if paths and all(is_readable(Path(p)) for p in paths) else None
