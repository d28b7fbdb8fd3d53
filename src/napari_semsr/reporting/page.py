"""A self-contained HTML page of pictures, tables and facts: no script, no request.

A report is a jinja2 template that imports the tags of ``page.html``, which lies beside
this module with the style sheet ``page.css``. Everything that a user or a file could
have named is escaped. The filters `fixed`, `signed`, `spread`, `length` and
`resolution` say numbers, so that the columns of a table line up.
"""

import base64
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_semsr.analysis import FrcResult

_MISSING = "\N{EN DASH}"


def render(template: str, **values: Any) -> str:
    """Set a page in HTML: a whole document that needs nothing beside itself."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("napari_semsr.reporting", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {
        "base64": lambda png: base64.b64encode(png).decode("ascii"),
        # width and height of a PNG, so that the page does not jump while it loads
        "width": lambda png: int.from_bytes(png[16:20], "big"),
        "height": lambda png: int.from_bytes(png[20:24], "big"),
        "fixed": fixed,
        "signed": signed,
        "spread": spread,
        "length": length,
        "resolution": resolution,
    }
    return environment.from_string(template).render(values).lstrip()


def write_page(path: Path, template: str, **values: Any) -> None:
    """Write a page, whole or not at all.

    Parameters
    ----------
    path : pathlib.Path
        An ``.html`` file; replaced if it exists.
    template : str
        Source in jinja2, as for `render`.
    **values : object
        What the template names.

    Raises
    ------
    WriteError
        If the system refuses.
    """
    from napari_semsr.io import replacing

    text = render(template, **values)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def fixed(value: float | None, decimals: int) -> str:
    """Say a number with a fixed count of decimals, or a dash for none.

    Parameters
    ----------
    value : float or None
        What is said.
    decimals : int
        Digits behind the point.

    Returns
    -------
    str
        The number, or a dash for none.
    """
    if value is None or not math.isfinite(value):
        return _MISSING
    return f"{value:.{decimals}f}"


def signed(value: float | None, decimals: int) -> str:
    """Say a difference with its sign, a true minus sign.

    Parameters
    ----------
    value : float or None
        What is said.
    decimals : int
        Digits behind the point.

    Returns
    -------
    str
        The difference, or a dash for none.
    """
    if value is None or not math.isfinite(value):
        return _MISSING
    return f"{value:+.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def spread(found: tuple[float | None, float | None], decimals: int = 2) -> str:
    """Say a difference with its standard error, where that is known.

    Parameters
    ----------
    found : tuple of float or None
        The difference and its error.
    decimals : int, default=2
        Digits behind the point.

    Returns
    -------
    str
        As ``+4.71 ± 0.12``, or a dash for none.
    """
    value, error = found
    said = signed(value, decimals)
    if value is None or error is None or not math.isfinite(error):
        return said
    return f"{said} ± {fixed(error, decimals)}"


def length(nm: float | None) -> str:
    """Say a length in nm, with one decimal below 1000 nm."""
    if nm is None or not math.isfinite(nm):
        return _MISSING
    return f"{nm:.1f} nm" if nm < 1000 else f"{nm:.0f} nm"


def resolution(found: "FrcResult | None") -> str:
    """Say a resolution in nm, or that there is none.

    Parameters
    ----------
    found : FrcResult or None
        A measurement.

    Returns
    -------
    str
        In nm, or ``none``.
    """
    if found is None or found.resolution_nm is None:
        return "none"
    return length(found.resolution_nm)
