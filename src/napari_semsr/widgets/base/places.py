"""Folders: where file dialogs start, and temporary ones of this session."""

import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import psutil
from napari import current_viewer
from napari.utils.history import get_save_history, update_save_history

from napari_semsr.io import FOLDER_KEY, get_machine_name
from napari_semsr.widgets.layers import get_file_path

_PREFIX = "napari-semsr-"
_MARK = "session.json"
_OLD_S = 30 * 24 * 3600  # s; chosen: every session elsewhere writes within a month
_own_folders: set[Path] = set()
_output_folders: dict[Path, Path] = {}  # last output folder of data in a folder


def get_start_folder() -> Path:
    """Return a dialog's start folder: the data folder or the last one chosen for it.

    Frames have their own folder; their results go next to it.
    """
    data = _find_data_folder()
    if data is None:
        return Path(get_save_history()[0])
    folder_chosen = _output_folders.get(data, data)
    return folder_chosen if folder_chosen.is_dir() else data


def _find_data_folder() -> Path | None:
    """Return the folder of the topmost layer that shows a user's file."""
    viewer = current_viewer()
    for layer in reversed([] if viewer is None else list(viewer.layers)):
        folder = layer.metadata.get(FOLDER_KEY) or get_file_path(layer)
        if folder and not is_temporary(str(folder)) and Path(folder).parent.is_dir():
            return Path(folder).parent
    return None


def remember_output_folder(path: Path) -> None:
    """Remember an output folder for later results of the same data."""
    update_save_history(str(path))
    data = _find_data_folder()
    if data is not None:
        _output_folders[data] = path.parent


def create_temporary_folder(parent: Path | None) -> Path:
    """Create a folder for this process, and remove folders of dead processes.

    `parent`: parent folder; None is the system's.
    """
    for folder in Path(parent or tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if folder.is_dir() and not folder.is_symlink() and _is_abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)
    new_folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    mark = {"machine": get_machine_name(), "process": os.getpid()}
    (new_folder / _MARK).write_text(json.dumps(mark), "utf-8")
    _own_folders.add(new_folder.resolve())
    return new_folder


def is_temporary(path: str) -> bool:
    """Return whether a path is in a folder that is removed when napari closes."""
    return not _own_folders.isdisjoint(Path(path).resolve().parents)


def _is_abandoned(folder: Path) -> bool:
    """Return whether a folder's process has ended, or the folder is old and foreign.

    A reused process number keeps the folder until that process ends.
    """
    try:
        mark = json.loads((folder / _MARK).read_text("utf-8"))
        if mark["machine"] == get_machine_name():
            return not psutil.pid_exists(int(mark["process"]))
    except (FileNotFoundError, ValueError, TypeError, LookupError):
        pass
    except OSError:
        return False  # of another user
    try:
        times = [item.stat().st_mtime for item in (folder, *folder.iterdir())]
    except OSError:
        return False
    return time.time() - max(times) > _OLD_S
