"""Signs and small tables of the texts that panels show."""

from collections.abc import Mapping

__all__ = ["DASH", "SIGMA", "TIMES", "table"]

TIMES = "\N{MULTIPLICATION SIGN}"
DASH = "\N{EN DASH}"
SIGMA = "\N{GREEK SMALL LETTER SIGMA}"


def table(rows: Mapping[str, str], *, strong: bool = True) -> str:
    """Write names and values as rich text.

    Parameters
    ----------
    rows : mapping of str to str
        Names and values.
    strong : bool, default=True
        Print the values bold.

    Returns
    -------
    str
        An HTML table.
    """
    left, right = ("<b>", "</b>") if strong else ("", "")
    cells = "".join(
        f"<tr><td>{name}&nbsp;&nbsp;</td><td>{left}{value}{right}</td></tr>"
        for name, value in rows.items()
    )
    return f"<table>{cells}</table>"
