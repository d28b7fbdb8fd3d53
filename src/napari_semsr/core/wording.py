"""Numbers for reading, and sentences in the words of a panel instead of a command."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from napari_semsr.core.errors import SemsrError

Labels = Mapping[str, tuple[str, Mapping[str, str]]]
"""What a panel calls an option, and each of the option's values, by their names."""

# A job's sentence names what remedies it by an option's flag. Most flags are rows of a
# panel, too. These remedies are others there: pattern, and what stands for it.
_REMEDIES = {
    r", take larger images, or cut pairs for fewer sets \([^)]*\)": ", or take larger "
    "layers",
    r", or let them overlap \(--step\)": ", or take larger layers",
    r"cut them with --validation above 0": "take larger layers",
    r"make one with `semsr pairs`": "learn from two layers instead",
    r"make it again with --overwrite": "make it again",
    r"make the store with --scale \w+": "choose another store or model",
    r"give --low-pixel-nm and --high-pixel-nm": "give both theirs in Open mosaic",
    r"; (both are brought to one pixel|--scale 1 brings both to one pixel)"
    r"(; --scale N keeps N to 1)?": "; both are brought to one pixel",
    r"run the same command again with --resume": "enhance its image again with "
    "'Save as' this store and 'If it exists: resume it'",
    r"\(--pixel-size-nm, or Open mosaic in napari\)": "in Open mosaic",
    r"give --(like-|moving-|fixed-)?pixel-size-nm, or Open mosaic in napari": "give it "
    "one in Open mosaic",
    r"write float32 \(--dtype\)": "save it as .ome.zarr",
    r", or choose one plane with --plane": "",
    r"semsr crop --gap-free": "Crop",
    r": write that part of it with --like-out to compare the two": "",
    r"lower --frames-grid, --frame-px or --oversampling": "take fewer frames",
}
_OTHER_NAMES = {
    "overwrite": ("existing", "replace"),
    "resume": ("existing",),
    "pairs": ("store",),
    "start_from": ("start",),
    "anew": ("start",),
}
_ENTRIES = {"overwrite": ("replace", "True"), "resume": ("resume",)}
_NOT_HERE = {
    "overwrite": "'Replace'",
    "resume": "'Resume'",
    "pixel_size_nm": "a pixel size (in Open mosaic)",
    "like_pixel_size_nm": "its pixel size (in Open mosaic)",
    "transform_out": "'Save transform'",
    "halves": "'Also its halves' (in Stitch mosaic)",
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
    r"(?:affine|auto|cpu|elastic|exact|frozen|full|max|tile)\b"
)
_FLAG = re.compile(rf"(?<![\w-])--([a-z]+(?:-[a-z]+)*)(?: ({_VALUE}))?")
_VERB = re.compile(r"`?(?<![\w.-])semsr ([a-z]+(?:-[a-z]+)*)`?")
_OPTION = re.compile(r"^(?:Option|Unknown option) (\w+)")


_IN_UM = 1e5  # nm; from there on a length is read more easily in µm


def in_digits(value: float, digits: int = 3) -> str:
    """Write a number with a few significant digits, a large one without an exponent.

    Parameters
    ----------
    value : float
        Finite.
    digits : int, default=3
        How many of them say something.

    Returns
    -------
    str
        ``3040`` where a format of Python's would give ``3.04e+03``.
    """
    text = f"{value:.{digits}g}"
    return f"{float(text):.0f}" if "e+" in text else text


def shift_in_words(shift_nm: tuple[float, float]) -> str:
    """Say a shift without signs.

    Parameters
    ----------
    shift_nm : tuple of float
        Down and right.

    Returns
    -------
    str
        As ``302 nm down, 41.5 nm left``.
    """
    down, right = shift_nm
    large = max(abs(down), abs(right)) >= _IN_UM
    unit, size = ("µm", 1e3) if large else ("nm", 1.0)
    return (
        f"{in_digits(abs(down) / size)} {unit} {'down' if down > 0 else 'up'}, "
        f"{in_digits(abs(right) / size)} {unit} {'right' if right > 0 else 'left'}"
    )


def in_panel_words(text: str, read: Callable[[], Labels] = dict) -> str:
    """Say a sentence without words of the command line.

    Parameters
    ----------
    text : str
        What a job says.
    read : callable
        Gives what the panel that shows it calls its options; called when needed.

    Returns
    -------
    str
        The same where it has no such word.
    """
    if not (_FLAG.search(text) or _VERB.search(text) or _OPTION.match(text)):
        return text
    labels = read()
    for pattern, words in _REMEDIES.items():
        text = re.sub(pattern, words, text)
    text = _FLAG.sub(lambda found: _row(found[1], found[2] or "", labels), text)
    text = _VERB.sub(lambda found: _PANELS.get(found[1], f"'{found[1]}'"), text)
    return _OPTION.sub(lambda found: _option(found, labels), text)


def _row(flag: str, value: str, labels: Labels) -> str:
    """Name the row of a panel that stands for a flag, and the entry to be chosen."""
    name = flag.replace("-", "_")
    value = "" if value.isupper() else value
    for known in (name, *_OTHER_NAMES.get(name, ())):
        if known in labels:
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


def spell_shape(shape: Sequence[int]) -> str:
    """Write the size of an image.

    Parameters
    ----------
    shape : sequence of int
        Planes, if there are several, rows and columns.

    Returns
    -------
    str
        As ``480 x 640 px``, with the sign of multiplication.
    """
    return " \N{MULTIPLICATION SIGN} ".join(map(str, shape)) + " px"


def spell_shift(shift_px: tuple[float, float]) -> str:
    """Write a shift without signs.

    Parameters
    ----------
    shift_px : tuple of float
        ``(y, x)`` in pixels.

    Returns
    -------
    str
        As ``1.25 px down, 0.50 px left``.
    """
    down, right = shift_px
    if not (down or right):
        return "nothing"
    return (
        f"{abs(down):.2f} px {'down' if down > 0 else 'up'}, "
        f"{abs(right):.2f} px {'right' if right > 0 else 'left'}"
    )
