"""Reader functions for the plugin engine, with or without napari."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from napari_semsr.io import get_reader as read_files, is_ours

Reader = Callable[[Any], list[Any]]  # from paths to layers


def get_reader(path: str | Sequence[str]) -> Reader | None:
    """Return a reader for our files; colour bars are shown when layers are added.

    Returns None for other folders, colour images, more than three axes and complex
    values, which napari reads.
    """
    read = read_files(path) if is_ours(path) else None
    # The engine also reads for programs without napari, where nothing is shown.
    return partial(_read, read) if read and sys.modules.get("napari") else read


def _read(read: Reader, path: str | Sequence[str]) -> list[object]:
    """Read layers, without keywords for colour bar and scale bar."""
    from napari_semsr.core import capture_warnings, code_of, warn
    from napari_semsr.widgets.base import errors_in_panel_words, in_panel_words
    from napari_semsr.widgets.samples import watch_viewer

    sentences: list[str] = []
    with errors_in_panel_words(), capture_warnings(sentences.append):
        layers = read(path)
    for sentence in sentences:
        warn(in_panel_words(sentence), code_of(sentence))
    watch_viewer()
    return layers
