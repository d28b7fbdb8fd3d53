"""Opening of files without blocking on pipes and without unlimited reading."""

import errno
import os
import re
import stat
from collections.abc import Iterator
from fnmatch import translate
from io import BufferedReader
from pathlib import Path

from napari_semsr.core.errors import Message, ReadError

# Lower-case names of files that file managers, network drives, editors and office
# programs create in folders. Not all hidden files: those of zarr begin with a dot.
_SYSTEM_NAMES = (
    *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"),
    *("$recycle.bin", "system volume information", "@eadir", "#recycle", "__macosx"),
    *(".ds_store", "._*", ".localized", ".apdisk", ".appledouble", ".fseventsd"),
    *(".spotlight-v100", ".trashes", ".temporaryitems", ".documentrevisions-v100"),
    *(".directory", ".trash-*", ".nfs*", ".fuse_hidden*", ".goutputstream-*"),
    *("*~", "~$*", ".~lock.*", ".#*", "#*#", ".*.sw?", "*.tmp", "*.temp", "*.lock"),
)
_SYSTEM_NAME = re.compile("|".join(map(translate, _SYSTEM_NAMES)))


def is_system_file(name: str) -> bool:
    """Return whether a file or folder name belongs to the operating system."""
    return _SYSTEM_NAME.match(name.lower()) is not None


def list_folder(folder: Path) -> list[Path]:
    """List the contents of a folder without system files and folders."""
    return [item for item in folder.iterdir() if not is_system_file(item.name)]


def list_files_recursively(folder: Path) -> Iterator[Path]:
    """List the files of a folder and its subfolders, without system files."""
    for place, names, files in os.walk(folder):
        names[:] = [name for name in names if not is_system_file(name)]
        paths = (Path(place, name) for name in files if not is_system_file(name))
        yield from (one for one in paths if one.is_file())


def _get_error_numbers(*names: str) -> list[int]:
    return [getattr(errno, name) for name in names if hasattr(errno, name)]


_IN_USE = Message(
    "is in use by another program: close it there, then try again.", "file-in-use"
)
_FORBIDDEN = Message("cannot be opened ({}): check its permissions.", "no-permission")
_UNREACHABLE = Message(
    "could not be read ({}): check its disk or network connection, then try again.",
    "disk-unreachable",
)
_REFUSALS = {
    **dict.fromkeys(
        _get_error_numbers("EAGAIN", "EBUSY", "ETXTBSY", "EDEADLK"), _IN_USE
    ),
    **dict.fromkeys(_get_error_numbers("EACCES", "EPERM"), _FORBIDDEN),
    **dict.fromkeys(
        _get_error_numbers(
            *("EIO", "ENODEV", "ENXIO", "ENOMEDIUM", "EREMOTEIO", "ESTALE"),
            *("ETIMEDOUT", "ENETDOWN", "ENETUNREACH", "ECONNRESET", "ECONNABORTED"),
            *("ENOTCONN", "EHOSTDOWN", "EHOSTUNREACH", "ESHUTDOWN"),
        ),
        _UNREACHABLE,
    ),
    **dict.fromkeys(
        _get_error_numbers("EMFILE", "ENFILE"),
        Message(
            "cannot be opened ({}): close other files or programs, then try again.",
            "too-many-open-files",
        ),
    ),
    errno.ENOENT: Message("does not exist: check the path.", "file-missing"),
    errno.EISDIR: Message("is a folder: choose a file in it.", "not-a-file"),
}
# Windows has its own error numbers: for files that are shared or locked, for a drive
# that is not ready or fails, for a network that does not respond
_WINDOWS = {
    **dict.fromkeys((32, 33), _IN_USE),
    **dict.fromkeys((21, 23, 53, 55, 59, 64, 121, 1117, 1231), _UNREACHABLE),
}


def iter_exception_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and its chain of causes."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def describe_access_error(path: Path, error: BaseException) -> Message | None:
    """Return a message if the system denied access to a file, or else None.

    A decoder may also raise `OSError` for damaged data, but without an error number.
    """
    for one in iter_exception_causes(error):
        if isinstance(one, OSError) and one.errno is not None:
            text = _WINDOWS.get(getattr(one, "winerror", 0)) or _REFUSALS.get(one.errno)
            if text is not None:
                name = one.filename if isinstance(one.filename, str) else path
                return Message(f"{name} {text.format(one.strerror or one)}", text.code)
    return None


def open_file(path: Path) -> BufferedReader:
    """Open a regular file for reading in binary mode.

    Opening a pipe blocks until another program writes to it, and a device may never
    end: both raise `ReadError`, also through a link. A folder raises `OSError`, like
    `open`.
    """
    return open(path, "rb", opener=_open_file)


def read_bytes(path: Path, most: int) -> bytes:
    """Read a whole file; raise `ReadError` if it has more than `most` bytes."""
    with open_file(path) as stream:
        return read_remaining_bytes(stream, path, most)


def read_remaining_bytes(stream: BufferedReader, path: Path, most: int) -> bytes:
    """Read the rest of an open file, with the same limit as `read_bytes`."""
    size = os.fstat(stream.fileno()).st_size
    if size > most:
        msg = (
            f"{path} has a size of {size / 2**20:.3g} MiB, above the limit of "
            f"{most >> 20} MiB; check that it is the intended file."
        )
        raise ReadError(msg, code="file-too-large")
    return stream.read(size)


def _open_file(path: str, flags: int) -> int:
    """Open a file without blocking; raise `ReadError` for pipes and devices."""
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    msg = f"{path} must be a regular file, not a pipe or device; copy it to a file"
    raise ReadError(f"{msg} first.", code="not-a-file")
