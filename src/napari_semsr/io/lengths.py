"""Lengths as files state them, turned into nanometres.

Nothing here guesses: what is not a finite positive number with a known unit
becomes None, and the caller decides what to say about it.
"""

import math
import re
from collections.abc import Sequence
from decimal import Decimal

from napari_semsr.core.micrograph import PixelSize

__all__ = [
    "LARGEST_NM",
    "SMALLEST_NM",
    "parse_length_nm",
    "pixel_size",
    "to_nm",
    "unit_nm",
]

_NM_PER_UNIT = {
    "fm": 1e-6,
    "pm": 1e-3,
    "nm": 1.0,
    "um": 1e3,
    "mm": 1e6,
    "cm": 1e7,
    "dm": 1e8,
    "m": 1e9,
    "angstrom": 0.1,
    "inch": 2.54e7,
}
_SYNONYMS = {
    "femtometer": "fm",
    "picometer": "pm",
    "nanometer": "nm",
    "micrometer": "um",
    "micron": "um",
    "millimeter": "mm",
    "centimeter": "cm",
    "decimeter": "dm",
    "meter": "m",
    "å": "angstrom",
    "ångström": "angstrom",
    "ångstrom": "angstrom",
    "in": "inch",
    "inches": "inch",
    '"': "inch",
}
SMALLEST_NM, LARGEST_NM = 1e-5, 1e9
_LENGTH = re.compile(r"^\s*([-+0-9.,eE]+)\s*(\S+)\s*$")
# micro sign, Greek mu, their UTF-8 bytes read as Latin-1, an undecodable byte
_MICRO = ("\u00b5", "\u03bc", "\u00c2\u00b5", "\u00ce\u00bc", "\ufffd")


def _canonical(unit: str) -> str:
    """Reduce the many spellings of a unit to one."""
    text = unit.strip().replace("\\u00B5", "\u00b5").replace("\\u00b5", "\u00b5")
    text = text.replace("\\u00C5", "\u00c5").replace("\u212b", "\u00c5").lower()
    for prefix in _MICRO:
        if text.startswith(prefix.lower()):
            text = "u" + text[len(prefix) :]
            break
    text = text.replace("metre", "meter")
    if text.endswith(("meters", "microns", "angstroms")):
        text = text[:-1]
    return _SYNONYMS.get(text, text)


def unit_nm(unit: str) -> float | None:
    """Size of a unit of length.

    Parameters
    ----------
    unit : str
        Any usual spelling: ``"nm"``, ``"\u00b5m"``, ``"micron"``, ``"nanometer"``.

    Returns
    -------
    float or None
        Nanometres in one unit; None when the unit is no known length.
    """
    return _NM_PER_UNIT.get(_canonical(unit))


def to_nm(value: object, unit: str) -> float | None:
    """Turn a number and its unit into nanometres.

    Parameters
    ----------
    value : object
        What the file gives: a number, or text that should hold one.
    unit : str
        Unit of length.

    Returns
    -------
    float or None
        Nanometres, or None when the value is not a usable length.
    """
    size = unit_nm(unit)
    if size is None or isinstance(value, bool):
        return None
    try:
        # decimal, so that 7.70833e-9 m is 7.70833 nm and not 7.708329999999999
        number = float(Decimal(str(value).strip()) * Decimal(repr(size)))
    except (ArithmeticError, ValueError):
        return None
    # the bounds exclude zeros, infinities and corrupt floats alike
    if not math.isfinite(number) or not SMALLEST_NM <= number <= LARGEST_NM:
        return None
    return number


def parse_length_nm(text: str) -> float | None:
    """Turn text such as ``"55.82 nm"`` into nanometres.

    Parameters
    ----------
    text : str
        A number and a unit, with or without a space between them.

    Returns
    -------
    float or None
        Nanometres, or None when the text is not a usable length.
    """
    found = _LENGTH.match(re.sub(r"(?<=[0-9.])(?=[^0-9.eE+\-,\s])", " ", text, count=1))
    if found is None:
        return None
    return to_nm(found.group(1).replace(",", "."), found.group(2))


def pixel_size(lengths_nm: Sequence[float | None]) -> PixelSize | None:
    """Make a pixel size of two lengths that were already checked.

    Parameters
    ----------
    lengths_nm : sequence of float or None
        ``(y, x)``.

    Returns
    -------
    tuple of float or None
        The pixel size; None unless both lengths are known.
    """
    y, x = lengths_nm
    return None if y is None or x is None else PixelSize((float(y), float(x)))
