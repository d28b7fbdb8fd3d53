"""Numbers for reading: sensible digits, units, tables that line up."""

import math
from collections.abc import Iterable, Sequence

_MISSING = "\N{EN DASH}"


def number(value: float | None, digits: int = 3) -> str:
    """Say a number with a few significant digits."""
    if value is None or not math.isfinite(value):
        return _MISSING
    if value == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    if -6 <= decimals <= 9:
        return f"{round(value, decimals):.{max(0, decimals)}f}"
    return f"{value:.{digits - 1}e}"


def length(nm: float | None, px: float | None = None) -> str:
    """Say a length in nm, or in pixels where no calibration is known.

    Gives for instance ``"41.2 nm (4.12 px)"``.
    """
    if nm is None:
        return f"{number(px)} px" if px is not None else _MISSING
    return f"{number(nm)} nm" + (f" ({number(px)} px)" if px is not None else "")


def pixel_size(value: Sequence[float] | None) -> str:
    """Say a pixel size; `value`: ``(y, x)`` in nm."""
    if value is None:
        return "unknown"
    y, x = value
    if math.isclose(y, x, rel_tol=1e-9):
        return f"{y:.6g} nm"
    return f"{y:.6g} \N{MULTIPLICATION SIGN} {x:.6g} nm (y \N{MULTIPLICATION SIGN} x)"


def shape(value: Sequence[int]) -> str:
    """Say the size of an image."""
    return " \N{MULTIPLICATION SIGN} ".join(str(item) for item in value) + " px"


def columns(rows: Iterable[tuple[str, str]]) -> str:
    """Set names and values in two columns."""
    pairs = list(rows)
    width = max((len(name) for name, _ in pairs), default=0)
    return "\n".join(f"{name:<{width}}  {value}".rstrip() for name, value in pairs)
