"""Commands of palette and menus: each opens a panel that the plugin menu has not."""

from collections.abc import Callable
from functools import partial

from napari import current_viewer

from napari_semsr.jobs import PANELS
from napari_semsr.widgets.base import open_panel


def __getattr__(name: str) -> Callable[[], None]:
    """Give the command of a panel that a verb's value alone makes."""
    for title, verb in PANELS.items():
        if name == f"open_{verb.replace('-', '_')}":
            return partial(_open, title)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def _open(panel: str) -> None:
    viewer = current_viewer()
    if viewer is not None:
        open_panel(viewer, panel)


open_batch = partial(_open, "Batch")
open_check_model = partial(_open, "Check model")
open_degrade = partial(_open, "Degrade")
open_demo = partial(_open, "Demonstration")
open_enhance = partial(_open, "Enhance")
open_error_map = partial(_open, "Error map")
open_frc_map = partial(_open, "FRC map")
open_import_model = partial(_open, "Import model")
open_mosaic = partial(_open, "Open mosaic")
open_save = partial(_open, "Save and project")
open_spectrum = partial(_open, "Spectrum")
open_train = partial(_open, "Train")
open_trust = partial(_open, "Trust")
