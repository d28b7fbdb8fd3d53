"""Outputs: checked before the work, written beside, renamed when whole."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_semsr.core.errors import WriteError

__all__ = ["SUFFIXES", "check_target", "output_kind", "remove_target", "replacing"]

SUFFIXES = {
    ".ome.zarr": "ome-zarr",
    ".zarr": "ome-zarr",
    ".ome.tif": "ome-tiff",
    ".ome.tiff": "ome-tiff",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".png": "png",
}
_ZARR_MARKS = ("zarr.json", ".zgroup", ".zattrs", ".zarray")


def output_kind(path: Path) -> str:
    """Tell the output format from the suffix.

    Parameters
    ----------
    path : pathlib.Path
        Where to write.

    Returns
    -------
    str
        ``"ome-zarr"``, ``"ome-tiff"``, ``"tiff"`` or ``"png"``.

    Raises
    ------
    WriteError
        If the suffix names no format that can be written.
    """
    name = path.name.lower()
    for suffix, kind in SUFFIXES.items():
        if name.endswith(suffix) and path.name.lower() not in SUFFIXES:
            return kind
    known = ".ome.zarr, .ome.tif, .tif or .png"
    msg = f"An image is written as {known}, got {path.name!r}: change the suffix."
    raise WriteError(msg)


def check_target(path: Path, *, overwrite: bool) -> None:
    """Refuse an output early that could not be written late.

    Parameters
    ----------
    path : pathlib.Path
        Where to write.
    overwrite : bool
        Whether an existing image may be replaced.

    Raises
    ------
    WriteError
        If the suffix is unknown, the folder is missing, or something is there that
        must not be replaced.
    """
    kind = output_kind(path)
    if not path.parent.is_dir():
        msg = f"The folder {path.parent} of the output does not exist: make it first."
        raise WriteError(msg)
    if not path.exists():
        return
    if not overwrite:
        msg = f"{path} exists already: choose another name, or use --overwrite."
        raise WriteError(msg)
    if path.is_dir() and (kind != "ome-zarr" or not _is_store(path)):
        msg = f"{path} is a folder but no image store, so it is not replaced: move it."
        raise WriteError(msg)


def _is_store(path: Path) -> bool:
    """Tell a zarr store, or an empty folder, from a folder of other things."""
    names = {entry.name for entry in path.iterdir()}
    return not names or not names.isdisjoint(_ZARR_MARKS)


def remove_target(path: Path) -> None:
    """Remove an output that `check_target` allowed to be replaced.

    Parameters
    ----------
    path : pathlib.Path
        File or store; nothing happens when there is none.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file under a temporary name and rename it when it is whole.

    Parameters
    ----------
    path : pathlib.Path
        The final name, already checked.

    Yields
    ------
    pathlib.Path
        A name in the same folder, with the same suffixes.

    Raises
    ------
    WriteError
        If the system refuses: no space, no permission.
    """
    stem, dot, suffixes = path.name.partition(".")
    temporary = path.with_name(f".{stem}-{uuid.uuid4().hex[:8]}{dot}{suffixes}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        msg = f"{path} could not be written ({reason}): check space and permissions."
        raise WriteError(msg) from error
    finally:
        temporary.unlink(missing_ok=True)
