"""Errors that a user can resolve.

Each message is one sentence: what is required, what was given, and how to fix it.
None derives from `RuntimeError`, which Qt generator workers swallow.
"""

import re
import reprlib
from collections.abc import Callable, Sequence

_HALF = 1000  # characters; chosen: the ends hold the given value and the remedy


class SemsrError(Exception):
    """Base class of the errors that this package reports to users.

    Parameters
    ----------
    *args : object
        The sentence.
    code : str, optional
        Stable name of the cause, such as ``"pairs-uncorrelated"``; by default that of
        the sentence if it is a `Message`, else that of the class. Programs and tests
        use it, since the sentence may change.
    """

    code = "refused"

    def __init__(self, *args: object, code: str | None = None) -> None:
        super().__init__(*args)
        if code is None and args and isinstance(args[0], Message):
            code = args[0].code
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        """Return the sentence, shortened in the middle if it is very long."""
        text = super().__str__()
        return text if len(text) <= 2 * _HALF else f"{text[:_HALF]}…{text[-_HALF:]}"

    def to_json(self) -> dict[str, object]:
        """Return additional data for other programs, without code and message."""
        return {}


class ReadError(SemsrError):
    """A file cannot be read in its stated format."""

    code = "unreadable"


class IncompleteError(ReadError):
    """A store is unfinished because the run was interrupted."""

    code = "incomplete"


class WriteError(SemsrError):
    """An output cannot be written to the given path."""

    code = "not-writable"


class ShapeError(SemsrError):
    """An array has an unsuitable shape for the operation."""

    code = "wrong-shape"


class RegistrationError(SemsrError):
    """Images cannot be registered."""

    code = "not-registered"


class OptionError(SemsrError):
    """An option is out of range or contradicts another option."""

    code = "wrong-option"


class CheckpointError(SemsrError):
    """A model file is damaged, unsafe, or of an unknown architecture."""

    code = "model-unusable"


class DeviceMemoryError(SemsrError):
    """A device ran out of memory even with the smallest tiles."""

    code = "device-memory"


class Cancelled(SemsrError):  # noqa: N818 - not a fault
    """The user cancelled the work; finished parts are kept."""

    code = "cancelled"


class Message(str):
    """A message for the user, such as a warning, with a stable code."""

    __slots__ = ("code",)

    code: str

    def __new__(cls, sentence: str, code: str) -> "Message":
        """Create a message from a sentence and its code."""
        message = super().__new__(cls, sentence)
        message.code = code
        return message

    def __reduce__(self) -> tuple[type["Message"], tuple[str, str]]:
        """Keep the code when a message is pickled."""
        return Message, (str(self), self.code)


_OTHER_CODE = "note"  # of a warning by Python or another library


def get_error_code(problem: object) -> str:
    """Return the stable code of an error or a warning."""
    if isinstance(problem, SemsrError | Message):
        return problem.code
    if isinstance(problem, MemoryError):
        return "memory"
    if isinstance(problem, OSError):
        return "system"
    return "unexpected" if isinstance(problem, Exception) else _OTHER_CODE


_LONGEST = 60  # chosen: the value fits into one line of the message


def shorten_value(value: object) -> str:
    """Format a value for one line of a message, shortening long values."""
    brief = reprlib.Repr()
    brief.maxlevel = 4
    brief.maxlist = brief.maxtuple = brief.maxdict = brief.maxset = 8
    brief.maxstring = brief.maxlong = brief.maxother = 2 * _LONGEST
    text = brief.repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


_OPTION_REFERENCE = re.compile(r"`(?=[a-z])(?:(\w+)\()?(\w*…?)(?:=([^`)]*))?\)?`")


def replace_option_names(text: str, say: Callable[[str, str, str], str]) -> str:
    """Replace option and command names in a sentence with interface-specific ones.

    A sentence names them as Python does, in backticks: ```tile```, ```tile=256```,
    ```crop()```, ```crop(gap_free=True)```. `say` returns the text for a command or a
    panel from command, option and value, all but one of which may be empty.
    """
    return _OPTION_REFERENCE.sub(
        lambda match: say(*(part or "" for part in match.groups())), text
    )


# Control characters, direction marks, zero-width characters, surrogates from file names
# that are not UTF-8, and what XML does not allow. Joiners stay: some scripts need them.
_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f]"
)


def escape_invisible_characters(text: str, *, lines: bool = False) -> str:
    """Escape invisible characters and terminal control characters.

    The result is safe in any terminal, UTF-8 and XML. With `lines`, line feeds and tabs
    are not escaped.
    """
    whitespace = "\n\t" if lines else ""
    return _INVISIBLE.sub(
        lambda at: (
            at[0] if at[0] in whitespace else at[0].encode("unicode_escape").decode()
        ),
        text,
    )


def format_one_line(text: str, longest: int = _LONGEST) -> str:
    """Format a name from a user or a file for a message, as one line without quotes.

    It is truncated to `longest` characters.
    """
    plain = escape_invisible_characters(text)
    return plain if len(plain) <= longest else f"{plain[: longest - 1]}…"


def format_alternatives(names: Sequence[str]) -> str:
    """Join names for a message: ``a, b or c``."""
    return " or ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def describe_error(error: Exception) -> str:
    """Describe any exception in one sentence."""
    if isinstance(error, SemsrError):
        return str(error)
    if isinstance(error, MemoryError):
        return (
            "Not enough memory for this image: set `level` or `plane`, or convert the "
            "image to .ome.zarr."
        )
    if isinstance(error, OSError):
        what = error.strerror or str(error)
        where = f" ({error.filename})" if error.filename else ""
        return f"Reading or writing failed: {what}{where}."
    return (
        f"Unexpected {type(error).__name__}: {str(error) or 'no message'}; run again "
        "with `debug` to see the traceback, and please report the error."
    )
