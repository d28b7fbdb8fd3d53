"""Command-palette commands, each of which opens a panel not in the plugin menu."""

from collections.abc import Callable
from functools import partial
from typing import Any

from napari import current_viewer
from napari.utils.notifications import show_error

from napari_semsr.core import Message, OptionError
from napari_semsr.jobs import describe_former_name
from napari_semsr.widgets import base

_PANELS = {
    **{title.lower().replace(" ", "_"): title for title in base.ASIDE},
    "enhance": "Enhance",
    "frc_map": "FRC map",
    "mosaic": "Open mosaic",
    "save": "Save",
    "train": "Train",
}


def __getattr__(name: str) -> Callable[[], None]:
    """Return the command that opens a panel, named ``open_`` plus the panel name."""
    called = name.removeprefix("open_")
    title = _PANELS.get(called)
    if title is None:
        shown = f"napari-semsr.{called}"
        words = called.replace("_", " ").capitalize()
        for former in (f"panel {words}", called):
            if sentence := describe_former_name(former, shown):
                return partial(_refuse, sentence)
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return partial(_open_panel, title)


def _refuse(sentence: Message) -> None:
    """Refuse a command that left: in the window, which would show a traceback."""
    text = base.convert_names_to_panel_labels(sentence)
    if current_viewer() is None:
        raise OptionError(text, code=sentence.code)
    show_error(text)


def _open_panel(panel: str) -> Any:
    viewer = current_viewer()
    return None if viewer is None else base.open_panel(viewer, panel)


def denoise() -> None:
    """Open the Train panel to train a denoiser on the active layer only."""
    panel = _open_panel("Train")
    if panel is not None:
        panel.take_noisy(panel.viewer.layers.selection.active)
