"""What the plugin engine calls to read files, with napari or without it."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from napari_semsr.io import BAR_KEY, get_reader as read_files

Reader = Callable[[Any], list[Any]]  # of paths, into layers


def get_reader(path: str | Sequence[str]) -> Reader | None:
    """Offer to read what is ours; layers that need a colour bar get it when added."""
    read = read_files(path)
    # The engine reads for programs that have no napari, too; nothing is shown there.
    return partial(_read, read) if read and sys.modules.get("napari") else read


def _read(read: Reader, path: Any) -> list[Any]:
    """Read layers; no keyword of theirs asks for a colour bar."""
    from napari import current_viewer

    layers, viewer = read(path), current_viewer()
    if viewer and any(about["metadata"].get(BAR_KEY) for _, about, _ in layers):
        viewer.layers.events.inserted.connect(_on_inserted)
    return layers


def _on_inserted(event: Any) -> None:
    from napari_semsr.widgets.layers import show_colour_bar

    show_colour_bar(event.value)
