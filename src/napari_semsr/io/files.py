"""Turn whatever a decoding library raises into one sentence for the user."""

import shutil
import struct
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_semsr.core import ReadError, SemsrError, WriteError

# Damaged files make decoders fail in every way there is; RuntimeError is the base of
# imagecodecs' own errors.
_FAULTS = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


@contextmanager
def decoding(path: Path, kind: str) -> Iterator[None]:
    """Translate the faults of a decoder.

    Parameters
    ----------
    path : pathlib.Path
        File that is being read.
    kind : str
        What it is read as.

    Yields
    ------
    None
        Nothing.

    Raises
    ------
    ReadError
        If the block raised anything but an error of this package.
    """
    try:
        yield
    except SemsrError:
        raise
    except _FAULTS as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        msg = (
            f"{path} cannot be read as {kind} ({reason.rstrip('.')}): the file is "
            "damaged or cut short, copy or export it again."
        )
        raise ReadError(msg) from error


def choose(path: Path, what: str, wanted: int | None, count: int) -> int:
    """Pick one of several images in a file.

    Parameters
    ----------
    path : pathlib.Path
        File that is being read.
    what : str
        ``"series"``, ``"level"``, ``"channel"`` or ``"plane"``.
    wanted : int or None
        The user's choice.
    count : int
        How many there are.

    Returns
    -------
    int
        The choice, or 0 when there is nothing to choose.

    Raises
    ------
    ReadError
        If the choice is missing or out of range.
    """
    if wanted is None and count == 1:
        return 0
    if wanted is None:
        msg = (
            f"{path} holds {count} {what}s and one must be chosen: give {what} 0 to "
            f"{count - 1}."
        )
        raise ReadError(msg)
    if wanted >= count:
        plural = what if what == "series" else f"{what}s"
        msg = f"{path} has no {what} {wanted}, its {plural} count 0 to {count - 1}."
        raise ReadError(msg)
    return wanted


# Outputs: checked before the work, written beside, renamed when whole.

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
