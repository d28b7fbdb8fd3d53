"""Log of failed jobs, with the details needed for a report.

It contains no images, and their names only within error messages.
"""

import platform
import traceback
from contextlib import suppress
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import platformdirs

_MAX_BYTES = 1_000_000  # size of a log before it is rotated; chosen
_PACKAGES = ("napari-semsr", "napari", "numpy", "torch", "zarr", "tifffile")


def get_error_log_path() -> Path:
    """Return the path of the error log of the panels, which may not exist."""
    folder = platformdirs.user_state_path("napari-semsr", appauthor=False)
    return folder / "errors.log"


def log_error(
    title: str, error: BaseException, path: Path | None = None
) -> Path | None:
    """Append an error with its traceback to a log, which is rotated when it is full.

    By default to the log of panels. Returns None if it cannot be written; no error is
    raised.
    """
    path = get_error_log_path() if path is None else path
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    text = "".join(traceback.format_exception(error))
    versions = [f"Python {platform.python_version()}", platform.platform()]
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):  # an extra that is not installed
            versions.append(f"{name} {version(name)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file() and path.stat().st_size > _MAX_BYTES:
            path.replace(path.with_name(f"{path.name}.1"))
        with path.open("a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(f"{now} {title}\n{', '.join(versions)}\n{text}\n")
    except OSError:
        return None
    return path
