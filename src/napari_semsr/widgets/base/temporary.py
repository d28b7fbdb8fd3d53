"""Temporary folders of sessions: marked while one lives, swept when it has died."""

import json
import os
import platform
import shutil
import tempfile
import time
from pathlib import Path

import psutil

_PREFIX = "napari-semsr-"
_MARK = "session.json"
_OLD_S = 30 * 24 * 3600  # chosen: no session elsewhere writes nothing for a month
_made: set[Path] = set()


def make_temporary(parent: Path | None) -> Path:
    """Make a folder for this process; what dead ones left beside it is removed.

    `parent`: where; None takes the system's folder.
    """
    for folder in Path(parent or tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if folder.is_dir() and not folder.is_symlink() and _is_dead(folder):
            shutil.rmtree(folder, ignore_errors=True)
    new_folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    mark = {"machine": _machine(), "process": os.getpid()}
    (new_folder / _MARK).write_text(json.dumps(mark), "utf-8")
    _made.add(new_folder.resolve())
    return new_folder


def is_temporary(path: str) -> bool:
    """Whether something lies where all goes when napari ends."""
    return not _made.isdisjoint(Path(path).resolve().parents)


def _machine() -> str:
    """Name where process numbers mean the same: a host, or a container on it."""
    try:
        return f"{platform.node()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return platform.node()


def _is_dead(folder: Path) -> bool:
    """Whether nobody uses a folder: its process is gone, or it is old and from afar.

    A number that another process has by now keeps the folder till that ends.
    """
    try:
        mark = json.loads((folder / _MARK).read_text("utf-8"))
        if mark["machine"] == _machine():
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
