"""The text file that JEOL microscopes write beside an image.

Lines are ``$KEY value``; the micron bar's length on screen and in the specimen gives
the pixel size, the frame's size tells where the data bar begins.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from napari_semsr.core.micrograph import PixelSize
from napari_semsr.io.lengths import parse_length_nm, pixel_size

__all__ = ["Sidecar", "read_sidecar"]

_LARGEST = 1 << 20
_BAR, _MARKER, _FRAME = "$$SM_MICRON_BAR", "$$SM_MICRON_MARKER", "$CM_FULL_SIZE"


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What a JEOL text file says.

    Attributes
    ----------
    pixel_size_nm : tuple of float or None
        ``(y, x)``, in pixels of the image that was asked about.
    databar_rows : int
        Rows below the frame.
    keys : mapping
        Every line.
    warnings : tuple of str
        What could not be used.
    """

    pixel_size_nm: PixelSize | None
    databar_rows: int
    keys: Mapping[str, str]
    warnings: tuple[str, ...] = ()


def _find(path: Path) -> Path | None:
    """Find the text file of an image, whatever the case of its suffix."""
    if path.is_dir():
        return None
    for suffix in (".txt", ".TXT", ".Txt"):
        beside = path.with_suffix(suffix)
        if beside.is_file() and beside != path:
            return beside
    return None


def _frame(keys: Mapping[str, str]) -> tuple[int, int] | None:
    """Rows and columns of the frame, without the data bar."""
    parts = keys.get(_FRAME, "").split()
    if len(parts) != 2 or not all(part.isdigit() and int(part) for part in parts):
        return None
    return int(parts[1]), int(parts[0])


def read_sidecar(path: Path, shape: tuple[int, int]) -> Sidecar | None:
    """Read the text file beside a JEOL image.

    Parameters
    ----------
    path : pathlib.Path
        The image.
    shape : tuple of int
        Its stored rows and columns.

    Returns
    -------
    Sidecar or None
        None when there is no such file, or it is not JEOL's.
    """
    beside = _find(path)
    if beside is None:
        return None
    try:
        with beside.open("rb") as stream:
            text = stream.read(_LARGEST).decode("utf-8", errors="replace")
    except OSError:
        return None
    keys: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("$"):
            key, _, value = line.partition(" ")
            keys[key.strip()] = value.strip()
    if not any(key.startswith(("$CM_", "$$SM_")) for key in keys):
        return None
    frame = _frame(keys)
    stretch = 1.0 if frame is None else frame[1] / shape[1]
    rows = 0 if frame is None else shape[0] - round(frame[0] / stretch)
    length, warnings = _pitch_nm(keys, beside)
    if length is not None:
        length *= stretch
    return Sidecar(
        pixel_size_nm=pixel_size((length, length)),
        databar_rows=rows if 0 <= rows < shape[0] else 0,
        keys=keys,
        warnings=warnings,
    )


def _pitch_nm(
    keys: Mapping[str, str], beside: Path
) -> tuple[float | None, tuple[str, ...]]:
    """Divide the marker's length by its pixels."""
    bar, marker = keys.get(_BAR), keys.get(_MARKER)
    if bar is None or marker is None:
        return None, ()
    length = parse_length_nm(marker)
    try:
        pixels = float(bar)
    except ValueError:
        pixels = 0.0
    if length is None or not 0 < pixels < 1e6:
        text = (
            f"The micron bar in {beside.name} must be a length over pixels, got "
            f"{marker!r} over {bar!r}: the pixel size is left unknown."
        )
        return None, (text,)
    return length / pixels, ()
