"""Turn whatever a decoding library raises into one sentence for the user."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_semsr.core.errors import ReadError, SemsrError

__all__ = ["choose", "decoding"]

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
