"""Command-palette commands, each of which opens the panel that has what it names."""

from collections.abc import Callable
from functools import partial
from typing import Any

from napari import current_viewer

from napari_semsr.widgets import base


def __getattr__(name: str) -> Callable[[], None]:
    """Return the command that opens a panel, named ``open_`` plus one of its names."""
    title = base.find_title(name.removeprefix("open_"))
    if title is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return partial(_open_panel, title)


def _open_panel(panel: str) -> Any:
    viewer = current_viewer()
    return None if viewer is None else base.open_panel(viewer, panel)


def denoise() -> None:
    """Open the Train panel to train a denoiser on the active layer only."""
    panel = _open_panel("Train")
    if panel is not None:
        panel.take_noisy(panel.viewer.layers.selection.active)
