"""Numbers of a report: fixed decimals, so that the columns of a table line up."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_semsr.analysis.frc import FrcResult

__all__ = ["fixed", "length", "resolution", "signed"]

_MISSING = "\N{EN DASH}"


def fixed(value: float | None, decimals: int) -> str:
    """Say a number with a fixed count of decimals.

    Parameters
    ----------
    value : float or None
        The number.
    decimals : int
        Digits after the point.

    Returns
    -------
    str
        A dash where there is no finite number.
    """
    if value is None or not math.isfinite(value):
        return _MISSING
    return f"{value:.{decimals}f}"


def signed(value: float | None, decimals: int) -> str:
    """Say a difference with its sign.

    Parameters
    ----------
    value : float or None
        The difference.
    decimals : int
        Digits after the point.

    Returns
    -------
    str
        With a true minus sign; a dash where there is no finite number.
    """
    if value is None or not math.isfinite(value):
        return _MISSING
    return f"{value:+.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def length(nm: float | None) -> str:
    """Say a length in nm with as many decimals as make sense.

    Parameters
    ----------
    nm : float or None
        The length.

    Returns
    -------
    str
        One decimal below 1000 nm.
    """
    if nm is None or not math.isfinite(nm):
        return _MISSING
    return f"{nm:.1f} nm" if nm < 1000 else f"{nm:.0f} nm"


def resolution(found: "FrcResult | None") -> str:
    """Say a resolution, or that there is none.

    Parameters
    ----------
    found : FrcResult or None
        A measurement.

    Returns
    -------
    str
        In nm.
    """
    if found is None or found.resolution_nm is None:
        return "none"
    return length(found.resolution_nm)
