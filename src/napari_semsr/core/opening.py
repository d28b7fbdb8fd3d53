"""Files of others, opened so that none is waited for and none is read without end."""

import errno
import os
import re
import stat
from collections.abc import Iterator
from fnmatch import translate
from io import BufferedReader
from pathlib import Path

from napari_semsr.core.errors import Message, ReadError

# Names without case of what file managers, network drives, editors and office programs
# put into folders unasked. Not all hidden files: those of zarr begin with a dot.
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
    """Whether a file or folder of this name is none that a user put there."""
    return _SYSTEM_NAME.match(name.lower()) is not None


def list_folder(folder: Path) -> list[Path]:
    """List what is in a folder, without files and folders of the system."""
    return [item for item in folder.iterdir() if not is_system_file(item.name)]


def files_below(folder: Path) -> Iterator[Path]:
    """List the files of a folder and its folders, without those of the system."""
    for place, names, files in os.walk(folder):
        names[:] = [name for name in names if not is_system_file(name)]
        paths = (Path(place, name) for name in files if not is_system_file(name))
        yield from (one for one in paths if one.is_file())


def _numbers(*names: str) -> list[int]:
    return [getattr(errno, name) for name in names if hasattr(errno, name)]


_IN_USE = Message(
    "is in use by another program: close it there, then try again.", "file-in-use"
)
_FORBIDDEN = Message("cannot be opened ({}): check its permissions.", "no-permission")
_AWAY = Message(
    "could not be read ({}): check its disk or network connection, then try again.",
    "disk-unreachable",
)
_REFUSALS = {
    **dict.fromkeys(_numbers("EAGAIN", "EBUSY", "ETXTBSY", "EDEADLK"), _IN_USE),
    **dict.fromkeys(_numbers("EACCES", "EPERM"), _FORBIDDEN),
    **dict.fromkeys(
        _numbers(
            *("EIO", "ENODEV", "ENXIO", "ENOMEDIUM", "EREMOTEIO", "ESTALE"),
            *("ETIMEDOUT", "ENETDOWN", "ENETUNREACH", "ECONNRESET", "ECONNABORTED"),
            *("ENOTCONN", "EHOSTDOWN", "EHOSTUNREACH", "ESHUTDOWN"),
        ),
        _AWAY,
    ),
    **dict.fromkeys(
        _numbers("EMFILE", "ENFILE"),
        Message(
            "cannot be opened ({}): close other files or programs, then try again.",
            "too-many-open-files",
        ),
    ),
    errno.ENOENT: Message(
        "does not exist: check the path, or choose another.", "file-missing"
    ),
    errno.EISDIR: Message("is a folder: choose a file in it.", "not-a-file"),
}
# Windows has numbers of its own: of files that are shared or locked, of a drive that is
# not ready or fails, of a network that does not answer
_WINDOWS = {
    **dict.fromkeys((32, 33), _IN_USE),
    **dict.fromkeys((21, 23, 53, 55, 59, 64, 121, 1117, 1231), _AWAY),
}


def causes(error: BaseException) -> Iterator[BaseException]:
    """List an error, and those that it was raised from."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def access_refusal(path: Path, error: BaseException) -> Message | None:
    """Write a sentence if the system refuses access to a file; None of other errors.

    A decoder that finds damage may raise an `OSError`, too, without such a number.
    """
    for one in causes(error):
        if isinstance(one, OSError) and one.errno is not None:
            text = _WINDOWS.get(getattr(one, "winerror", 0)) or _REFUSALS.get(one.errno)
            if text is not None:
                name = one.filename if isinstance(one.filename, str) else path
                return Message(f"{name} {text.format(one.strerror or one)}", text.code)
    return None


def open_file(path: Path) -> BufferedReader:
    """Open a file for its bytes, and look at what was opened.

    A pipe is waited for until somebody writes into it, and a device may never end. Both
    are refused, also where a link leads to them; a folder is an `OSError`, as of
    `open`.
    """
    return open(path, "rb", opener=_open_file)


def read_bytes(path: Path, most: int) -> bytes:
    """Read a file as a whole, if it has not more bytes than can be meant."""
    with open_file(path) as stream:
        return read_rest(stream, path, most)


def read_rest(stream: BufferedReader, path: Path, most: int) -> bytes:
    """Read what is left of an open file, as `read_bytes` does."""
    size = os.fstat(stream.fileno()).st_size
    if size > most:
        msg = (
            f"{path} is too large, {size >> 20} MiB of at most {most >> 20}: see "
            "whether it is the one you mean."
        )
        raise ReadError(msg, code="file-too-large")
    return stream.read(size)


def _open_file(path: str, flags: int) -> int:
    """Open without waiting, and refuse what is no file."""
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    msg = f"{path} must be a file, not a pipe or device: copy it first."
    raise ReadError(msg, code="not-a-file")
