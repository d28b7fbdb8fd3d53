"""Where results go that were given no path: a folder that lives as long as napari."""

import atexit
import re
import shutil
import tempfile
from pathlib import Path

from napari_semsr.core import OptionError, WriteError
from napari_semsr.widgets.base.panel import preference

_GIB = 2**30
_PYRAMID = 4 / 3
_FLOAT = 4
_folder: list[Path] = []


def cache_folder() -> Path:
    """Make the folder at its first use; it is removed when napari ends."""
    if not _folder or not _folder[0].is_dir():
        parent = str(preference("storage", "cache_folder")).strip() or None
        try:
            made = Path(tempfile.mkdtemp(prefix="napari-semsr-", dir=parent))
        except OSError as error:
            msg = (
                f"The cache folder {parent} must exist and be writable "
                f"({error.strerror}); choose another under Preferences, Storage."
            )
            raise WriteError(msg) from error
        _folder[:] = [made]
        atexit.register(remove_cache)
    return _folder[0]


def remove_cache() -> None:
    """Remove the folder and all that is in it."""
    for folder in _folder:
        shutil.rmtree(folder, ignore_errors=True)
    _folder.clear()


def new_store_path(name: str, suffix: str = ".ome.zarr") -> Path:
    """Give a path in the cache folder that does not exist yet."""
    stem = re.sub(r"[^\w.-]+", "_", name).strip("_.") or "result"
    folder = cache_folder()
    path, number = folder / f"{stem}{suffix}", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}{suffix}"
    return path


def require_room(shape: tuple[int, int], scale: int) -> None:
    """Refuse to keep a large result in the cache folder.

    `scale`: output pixels per input pixel along each axis.
    """
    need = shape[0] * shape[1] * scale**2 * _FLOAT * _PYRAMID / _GIB
    limit = float(preference("storage", "cache_gib"))
    if need > limit:
        msg = (
            f"A result of {need:.1f} GiB needs a chosen output path, since the cache "
            f"holds {limit:g} GiB; choose a path, or raise it under Preferences."
        )
        raise OptionError(msg)
