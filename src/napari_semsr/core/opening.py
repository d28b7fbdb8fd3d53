"""Files of others, opened so that none is waited for and none is read without end."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

from napari_semsr.core.errors import ReadError


def open_file(path: Path) -> BufferedReader:
    """Open a file for its bytes, and look at what was opened.

    A pipe is waited for until somebody writes into it, and a device may never end. Both
    are refused, also where a link leads to them; a folder is an `OSError`, as of
    `open`.
    """
    return open(path, "rb", opener=_checked)


def read_bytes(path: Path, most: int) -> bytes:
    """Read a file as a whole, if it has not more bytes than can be meant."""
    with open_file(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > most:
            msg = (
                f"{path} is too large, {size >> 20} MiB of at most {most >> 20}: see "
                "whether it is the one you mean."
            )
            raise ReadError(msg)
        return stream.read(size)


def _checked(path: str, flags: int) -> int:
    """Open without waiting, and refuse what is no file."""
    opened = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(opened).st_mode
    if stat.S_ISREG(mode):
        return opened
    os.close(opened)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    msg = f"{path} must be a file, not a pipe or device: copy it first."
    raise ReadError(msg)
