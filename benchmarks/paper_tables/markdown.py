"""Markdown: numbers, tables, and what a row says of its training."""

from collections.abc import Iterable, Sequence
from typing import Any

DASH = "\N{EN DASH}"


def number(value: float | None, digits: int, *, sign: bool = False) -> str:
    """Write a number; a dash for none, and for what is not a number."""
    if value is None or value != value:
        return DASH
    rounded = round(value, digits) + 0.0  # which makes -0.0 plain
    return f"{rounded:{'+' if sign else ''}.{digits}f}"


def plus_minus(
    value: float | None, error: float | None, digits: int, *, sign: bool = False
) -> str:
    """Write a mean with its standard error, which one value alone does not have."""
    said = number(value, digits, sign=sign)
    if said == DASH or error is None:
        return said
    return f"{said} ± {number(error, digits)}"


def table(
    head: str | Sequence[str], rows: Iterable[Sequence[str]], *, text: int = 1
) -> str:
    """Write a table whose first columns are text and the others numbers.

    The head is the names of the columns, or those with bars between them; each row must
    have as many cells.
    """
    names = head.split(" | ") if isinstance(head, str) else head
    lines = [_line(names), "|" + "---|" * text + "---:|" * (len(names) - text)]
    for row in rows:
        if len(row) != len(names):
            msg = f"A row must have {len(names)} cells, got {len(row)}: {list(row)}"
            raise ValueError(msg)
        lines.append(_line(row))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def paragraphs(*parts: str) -> str:
    """Join what is not empty by empty lines."""
    return "\n\n".join(part.strip() for part in parts if part.strip())


def how_trained(record: dict[str, Any]) -> list[str]:
    """Say how a model was trained: network, weights, batch, steps, hours, device."""
    options = dict(record["options"])
    name = str(record["architecture"])
    if name == "correction":
        name = f"{options['network']}, as a correction"
        options = dict(options.get("options") or {})
    width = options.get("width", options.get("widths"))
    if width is not None:
        name += f", width {' and '.join(map(str, _listed(width)))}"
    if "blocks" in options:
        name += f", {options['blocks']} blocks"
    device = record["device"]
    if record["threads"] is not None:
        threads = record["threads"]
        device += f", {threads} thread{'s' if threads != 1 else ''}"
    return [
        name,
        f"{record['weights'] / 1e6:.3f}",
        f"{record['batch']} of {record['patch_px']} px",
        str(record["steps"]),
        number(record["minutes"] / 60, 2),
        device,
    ]


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
