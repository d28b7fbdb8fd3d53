"""Sentences in the words of a panel, or of a function, instead of a command."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from napari_semsr.core.errors import SemsrError

Labels = Mapping[str, tuple[str, Mapping[str, str]]]
"""What a panel calls an option, and each of the option's values, by their names."""

# A sentence names an option as a command does. A panel calls it as its row; within
# brackets, what it has no row for is left out.
_OTHER_NAMES = {
    "overwrite": ("existing", "replace"),
    "resume": ("existing",),
    "pairs": ("store",),
    "start_from": ("start",),
    "from_scratch": ("start",),
}
_ENTRIES = {"overwrite": ("replace", "True"), "resume": ("resume",)}
_NOT_HERE = {
    "overwrite": "'Replace'",
    "resume": "'Resume'",
    "pixel_size_nm": "a pixel size (in Open mosaic)",
    "like_pixel_size_nm": "its pixel size (in Open mosaic)",
    "transform_out": "'Save transform'",
    "halves": "'Two halves for FRC' (in Stitch mosaic)",
}
_PANELS = {
    "crop": "Crop",
    "frc-map": "FRC map",
    "stitch": "Stitch mosaic",
    "pairs": "Train",
    "register": "Register to SEM",
    "judge": "Judge by SEM",
}
_VALUE = (
    r"[A-Z]{2,}\b|\d+(?:\.\d+)?\b|"
    r"(?:affine|auto|cpu|elastic|full|max|sampled|tile|whole)\b"
)
_FLAG = re.compile(rf"(?<![\w-])--([a-z]+(?:-[a-z]+)*)(?: ({_VALUE}))?")
_VERB = re.compile(r"`?(?<![\w.-])semsr ([a-z]+(?:-[a-z]+)*)(?: --[\w-]+)*`?")
_BRACKETS = re.compile(r" \(([^()]*--[^()]*)\)")
_BETWEEN = re.compile(r", or | or | and |, |; ")
_OPTION = re.compile(r"^(?:Option|Unknown option) (\w+)")


def in_panel_words(text: str, read: Callable[[], Labels] = dict) -> str:
    """Say a sentence of a job without words of the command line.

    `read` gives what the panel that shows it calls its options, when that is needed.
    """
    if not (_FLAG.search(text) or _VERB.search(text) or _OPTION.match(text)):
        return text
    labels = read()
    text = _VERB.sub(lambda found: _PANELS.get(found[1], f"'{found[1]}'"), text)
    text = _BRACKETS.sub(lambda found: _kept(found[1], labels), text)
    text = _FLAG.sub(lambda found: _row(found[1], found[2] or "", labels), text)
    return _OPTION.sub(lambda found: _option(found, labels), text)


def in_argument_words(text: str, names: Mapping[str, str] | None = None) -> str:
    """Say a sentence of a job to who calls a function: ``tile=256`` for ``--tile 256``.

    `names` has arguments by flags that are called otherwise.
    """
    known = names or {}

    def argument(found: re.Match[str]) -> str:
        flag, value = found[1], found[2] or ""
        name = known.get(f"--{flag}", flag.replace("-", "_"))
        return f"{name}={value}" if value and not value.isupper() else name

    text = _VERB.sub(lambda found: found[1].replace("-", "_"), text)
    return _FLAG.sub(argument, text)


def _kept(remedies: str, labels: Labels) -> str:
    """Leave out of brackets what a panel has no row for."""
    parts = [
        part
        for part in _BETWEEN.split(remedies)
        if all(_known(found[1], labels) for found in _FLAG.finditer(part))
    ]
    return f" ({', '.join(parts)})" if parts else ""


def _known(flag: str, labels: Labels) -> str | None:
    """Find what a panel has an option under."""
    name = flag.replace("-", "_")
    names = (name, *_OTHER_NAMES.get(name, ()))
    return next((one for one in names if one in labels), None)


def _row(flag: str, value: str, labels: Labels) -> str:
    """Name the row of a panel that stands for a flag, and the entry to be chosen."""
    name = flag.replace("-", "_")
    value = "" if value.isupper() else value
    known = _known(flag, labels)
    if known is not None:
        label, choices = labels[known]
        entries = (value, *_ENTRIES.get(name, ()))
        entry = next((choices[one] for one in entries if one in choices), value)
        return f"'{label}: {entry}'" if entry else f"'{label}'"
    if name in _NOT_HERE:
        return _NOT_HERE[name]
    return f"'{name.replace('_', ' ')}{f': {value}' if value else ''}'"


def _option(found: re.Match[str], labels: Labels) -> str:
    label, _ = labels.get(found[1], ("", {}))
    return f"'{label}'" if label else found[0]


@contextmanager
def told_in_panel_words() -> Iterator[None]:
    """Let errors that napari shows say what they say without words of the command."""
    try:
        yield
    except SemsrError as error:
        error.args = (in_panel_words(str(error)),)
        raise
