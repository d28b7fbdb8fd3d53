"""What the plugin engine calls to read files, with napari or without it."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from napari_semsr.io import get_reader as read_files, is_ours

Reader = Callable[[Any], list[Any]]  # of paths, into layers


def get_reader(path: str | Sequence[str]) -> Reader | None:
    """Offer to read what is ours; what must be shown with it is shown when added.

    Of other folders, colour images, more than three axes and complex values, which
    napari reads itself, it is None.
    """
    read = read_files(path) if is_ours(path) else None
    # The engine reads for programs that have no napari, too; nothing is shown there.
    return partial(_read, read) if read and sys.modules.get("napari") else read


def _read(read: Reader, path: Any) -> list[Any]:
    """Read layers; no keyword of theirs asks for a colour bar or a scale bar."""
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
