"""Reader functions for the plugin engine, with or without napari."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from napari_semsr.io import get_reader as read_files, is_preferred_reader

Reader = Callable[[Any], list[Any]]  # from paths to layers


def get_reader(path: str | Sequence[str]) -> Reader | None:
    """Return a reader for this plugin's files, which also shows colour bars.

    Returns None for other folders, colour images, more than three axes and complex
    values, which napari reads.
    """
    read = read_files(path) if is_preferred_reader(path) else None
    # The engine also reads for programs without napari, where nothing is shown.
    return partial(_read_layers, read) if read and sys.modules.get("napari") else read


def _read_layers(read: Reader, path: str | Sequence[str]) -> list[object]:
    """Read layers, report warnings and errors as panels do, and set up the viewer."""
    from napari_semsr.core import capture_warnings, get_error_code, warn
    from napari_semsr.widgets.base import convert_names_to_panel_labels, relabel_errors
    from napari_semsr.widgets.samples import watch_viewer

    sentences: list[str] = []
    with relabel_errors(), capture_warnings(sentences.append):
        layers = read(path)
    for sentence in sentences:
        warn(convert_names_to_panel_labels(sentence), get_error_code(sentence))
    watch_viewer()
    return layers
