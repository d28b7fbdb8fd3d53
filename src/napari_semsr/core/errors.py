"""Errors that a user can act on.

Each message is one sentence: what was required, what was given, and the remedy
when it is known. None derives from `RuntimeError`: Qt generator workers swallow it.
"""

import re
import reprlib
from collections.abc import Callable
from typing import Any

_HALF = 1000  # letters; chosen: what was given, and the remedy, stand at either end


class SemsrError(Exception):
    """Base of every error that this package raises for its user.

    Parameters
    ----------
    *args : object
        The sentence.
    code : str, optional
        Stable name of the cause, such as ``"pairs-uncorrelated"``; by default that of
        the sentence if it is a `Message`, else that of the class. Programs and tests
        use it, and the sentence is free to improve.
    """

    code = "refused"

    def __init__(self, *args: object, code: str | None = None) -> None:
        super().__init__(*args)
        if code is None and args and isinstance(args[0], Message):
            code = args[0].code
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        """Give the sentence; of a name without end its middle is left out."""
        text = super().__str__()
        return text if len(text) <= 2 * _HALF else f"{text[:_HALF]}…{text[-_HALF:]}"

    def to_json(self) -> dict[str, Any]:
        """Give what a program may want to know besides code and sentence."""
        return {}


class ReadError(SemsrError):
    """A file cannot be read as what it claims to be."""

    code = "unreadable"


class IncompleteError(ReadError):
    """A store was left unfinished by an interrupted run."""

    code = "incomplete"


class WriteError(SemsrError):
    """An output cannot be written where it was asked for."""

    code = "not-writable"


class ShapeError(SemsrError):
    """Arrays have a shape that the operation cannot use."""

    code = "wrong-shape"


class RegistrationError(SemsrError):
    """Images cannot be brought onto each other."""

    code = "not-registered"


class OptionError(SemsrError):
    """An option has a value outside its range, or contradicts another."""

    code = "wrong-option"


class CheckpointError(SemsrError):
    """A model file is damaged, unsafe, or of an unknown architecture."""

    code = "model-unusable"


class DeviceMemoryError(SemsrError):
    """A device ran out of memory although the work was cut as small as it goes."""

    code = "device-memory"


class Cancelled(SemsrError):  # noqa: N818 - not a fault
    """The user stopped the work; what was finished is kept."""

    code = "cancelled"


class Message(str):
    """A sentence for the user with a stable code, as a warning has it."""

    __slots__ = ("code",)

    code: str

    def __new__(cls, sentence: str, code: str) -> "Message":
        """Join sentence and code."""
        message = super().__new__(cls, sentence)
        message.code = code
        return message

    def __reduce__(self) -> tuple[type["Message"], tuple[str, str]]:
        """Keep the code from one process to another."""
        return Message, (str(self), self.code)


_OTHER_CODE = "note"  # of a warning of Python's or of another library


def code_of(problem: object) -> str:
    """Give the stable code of an error or a warning."""
    if isinstance(problem, SemsrError | Message):
        return problem.code
    if isinstance(problem, MemoryError):
        return "memory"
    if isinstance(problem, OSError):
        return "system"
    return "unexpected" if isinstance(problem, Exception) else _OTHER_CODE


_LONGEST = 60  # chosen: what was given fits into one line of the message


def shorten(value: object) -> str:
    """Write what was given, however long or deep, for one line of a message."""
    brief = reprlib.Repr()
    brief.maxlevel = 4
    brief.maxlist = brief.maxtuple = brief.maxdict = brief.maxset = 8
    brief.maxstring = brief.maxlong = brief.maxother = 2 * _LONGEST
    text = brief.repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


_NAMED = re.compile(r"`(?=[a-z])(?:(\w+)\()?(\w*…?)(?:=([^`)]*))?\)?`")


def rename_options(text: str, say: Callable[[str, str, str], str]) -> str:
    """Write the options and verbs that a sentence names as a command or a panel does.

    A sentence names them as Python does, in backticks: ```tile```, ```tile=256```,
    ```crop()```, ```crop(gap_free=True)```. `say` gives the words for the verb, the
    option and its value, of which each but one may be empty.
    """
    return _NAMED.sub(lambda named: say(*(part or "" for part in named.groups())), text)


# Controls, marks that turn the direction of writing, what has no width, halves of
# letters as of file names that are no UTF-8, and what XML may not hold. Joiners stay:
# some scripts need them.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f]"
)


def legible(text: str, *, lines: bool = False) -> str:
    """Write what cannot be seen, or commands a terminal, as its number.

    What comes back any terminal, UTF-8 and XML can hold. With `lines`, line feeds and
    tabs stay.
    """
    whitespace = "\n\t" if lines else ""
    return _UNSEEN.sub(
        lambda at: (
            at[0] if at[0] in whitespace else at[0].encode("unicode_escape").decode()
        ),
        text,
    )


def one_line(text: str, longest: int = _LONGEST) -> str:
    """Write a name that a user or a file chose for a message: in one line, no quotes.

    What is longer than so many letters is cut.
    """
    plain = legible(text)
    return plain if len(plain) <= longest else f"{plain[: longest - 1]}…"


def sentence_of(error: Exception) -> str:
    """Say any error, ours or one that nobody foresaw, as one sentence."""
    if isinstance(error, SemsrError):
        return str(error)
    if isinstance(error, MemoryError):
        return "Not enough memory for this image; try `level`, `plane` or .ome.zarr."
    if isinstance(error, OSError):
        what = error.strerror or str(error)
        where = f" ({error.filename})" if error.filename else ""
        return f"The system refused to read or write: {what}{where}."
    return (
        f"Unexpected {type(error).__name__}: {str(error) or 'no message'}; "
        "run again with `debug` to see where, and report it."
    )
