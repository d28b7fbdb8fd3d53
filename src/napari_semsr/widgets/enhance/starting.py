"""Torch, imported in threads: ahead of the first run where there is time for it."""

import importlib
from contextlib import suppress
from threading import Event, Thread

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QWidget

from napari_semsr.core import Job, Progress, in_background, load_torch_libraries
from napari_semsr.widgets.base import is_alive

# Chosen: napari has then drawn the panel, and whoever passed through it is gone.
_AHEAD_MS = 1000

_imported, _begun = Event(), Event()


def start_torch() -> Job[None]:
    """Import torch in the thread of a job, if that has not been done."""
    if not _imported.is_set():
        yield Progress(0, 0, "Starting torch (some seconds, once after napari starts)")
        _import_torch()


def _import_torch() -> None:
    load_torch_libraries()
    importlib.import_module("torch")
    _imported.set()


def start_torch_ahead(panel: QWidget) -> None:
    """Import torch while a panel that has come into view is only looked at."""
    QTimer.singleShot(_AHEAD_MS, lambda: _start_for(panel))


def _start_for(panel: QWidget) -> None:
    if is_alive(panel) and panel.isVisible() and not _begun.is_set():
        _begun.set()
        # no daemon: Python must not end within the import
        Thread(target=_try_import, name="semsr-torch").start()


def _try_import() -> None:
    with in_background(), suppress(Exception):  # a run says what is wrong with it
        _import_torch()
