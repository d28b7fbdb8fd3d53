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

from napari_semsr.core import Job, Progress, SemsrError, WriteError
from napari_semsr.io import FOLDER_KEY, StoreLock, get_machine_name, read
from napari_semsr.widgets.layers import get_file_path

_PREFIX = "napari-semsr-"
_MARK = "session.json"
_OLD_S = 30 * 24 * 3600  # s; chosen: every session elsewhere writes within a month
# also those of a run's folder; a name begins with a dot until its writing ends
_RESULTS = "[!.]*.ome.zarr", "*/[!.]*.ome.zarr", "[!.]*.ome.tif"
_own_folders: dict[Path, StoreLock] = {}  # locked until this process ends
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
    """Create a folder for this process.

    `parent`: parent folder; None is the system's.
    """
    new_folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    lock = StoreLock(new_folder / _MARK)
    # at once: the search for those of crashed sessions leaves own folders alone
    _own_folders[new_folder.resolve()] = lock
    mark = {"machine": get_machine_name(), "process": os.getpid()}
    mark["locked"] = lock.is_supported
    (new_folder / _MARK).write_text(json.dumps(mark), "utf-8")
    return new_folder


def remove_temporary_folder(folder: Path) -> None:
    """Remove a folder of this process, or one that was abandoned."""
    if lock := _own_folders.get(folder.resolve()):
        lock.release()
    shutil.rmtree(folder, ignore_errors=True)


def find_abandoned_results(parent: Path | None) -> Job[dict[Path, list[Path]]]:
    """Find complete results in the folders of sessions that have crashed.

    Folders without any are removed.
    """
    found = {}
    for folder in Path(parent or tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        yield Progress(0, 0, f"looking into {folder.name}")
        if folder.is_dir() and not folder.is_symlink() and _is_abandoned(folder):
            paths = sorted(path for kind in _RESULTS for path in folder.glob(kind))
            if results := list(filter(_is_complete, paths)):
                found[folder] = results
            else:
                shutil.rmtree(folder, ignore_errors=True)
    return found


def _is_complete(path: Path) -> bool:
    """Return whether a result was written to its end."""
    try:
        read(path, plane=None if path.is_dir() else 0)
    except SemsrError:
        return False
    return True


def is_temporary(path: str) -> bool:
    """Return whether a path is in a folder that is removed when napari closes."""
    return not _own_folders.keys().isdisjoint(Path(path).resolve().parents)


def _is_abandoned(folder: Path) -> bool:
    """Return whether a folder's process has ended, or the folder is old and foreign.

    The number of a process may be that of a later one, so its lock counts. Without
    support for locks, a folder is kept until such a process ends.
    """
    if folder.resolve() in _own_folders:
        return False
    try:
        mark = json.loads((folder / _MARK).read_text("utf-8"))
        if mark["machine"] == get_machine_name():
            if not mark.get("locked"):
                return not psutil.pid_exists(mark["process"])
            StoreLock.check(folder / _MARK)
            return True
    except (FileNotFoundError, ValueError, TypeError, LookupError):
        pass  # without a readable mark, its age counts
    except (OSError, WriteError):
        return False  # of another user, or locked by its process
    try:
        times = [item.stat().st_mtime for item in (folder, *folder.iterdir())]
    except OSError:  # of another user, or removed meanwhile
        return False
    return time.time() - max(times) > _OLD_S
