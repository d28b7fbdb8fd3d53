"""Where results go that were given no path: a folder that lives as long as napari."""

import atexit
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import Job, Micrograph, OptionError, Progress, WriteError
from napari_semsr.widgets.base.panel import preference

_GIB = 2**30
_PYRAMID = 4 / 3
_FLOAT = 4
_folder: list[Path] = []


def _cache_folder() -> Path:
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


def new_store_path(name: str) -> Path:
    """Give a path in the cache folder that does not exist yet."""
    return _unused(name, ".ome.zarr")


def new_folder_path(name: str) -> Path:
    """Give the path of a folder in the cache folder that does not exist yet."""
    return _unused(name, "")


def _unused(name: str, suffix: str) -> Path:
    """Find a name that is not taken."""
    stem = re.sub(r"[^\w.-]+", "_", name).strip("_.") or "result"
    folder = _cache_folder()
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


# Coarse levels of a large image that has none, so that the viewer need not read all.
#
# napari computes every chunk of a single-scale lazy layer when it is added. With coarse
# levels made beforehand, in the thread, it reads only what is looked at.

FACTOR = 4
_STRIP_PX = 1 << 24
_SMALL = 2048


def _shrink(part: NDArray[Any]) -> NDArray[Any]:
    """Mean of blocks of `FACTOR` by `FACTOR` pixels, in the image's own type."""
    rows, columns = (n // FACTOR for n in part.shape)
    cut = part[: rows * FACTOR, : columns * FACTOR]
    blocks = cut.reshape(rows, FACTOR, columns, FACTOR)
    mean = blocks.mean(axis=(1, 3), dtype=np.float64)
    if part.dtype.kind in "iu":
        mean = np.rint(mean)
    shrunk: NDArray[Any] = mean.astype(part.dtype)
    return shrunk


def coarse_levels(micrograph: Micrograph) -> Job[list[Micrograph]]:
    """Shrink a lazy image strip by strip.

    Gives levels in memory, each `FACTOR` times coarser, down to about 2048 px.
    """
    rows, columns = micrograph.shape
    step = max(1, _STRIP_PX // (columns * FACTOR)) * FACTOR
    starts = range(0, rows - rows % FACTOR, step)
    strips = []
    for number, start in enumerate(starts):
        yield Progress(number, len(starts), f"making an overview of {micrograph.name}")
        part = micrograph.data[start : min(start + step, rows)]
        # Without callbacks: napari's dask cache is not made for two threads.
        strips.append(_shrink(np.asarray(part.compute(callbacks=()))))
    levels = [np.concatenate(strips)]
    while max(levels[-1].shape) > _SMALL and min(levels[-1].shape) >= FACTOR:
        levels.append(_shrink(levels[-1]))
    return [micrograph.replace(data=level) for level in levels]
