"""Means over fields with their standard error and the worst field, and in words."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
from _shared import standard_error

from paper_tables.markdown import number

Bad = Literal["low", "high"]


def worst(values: Sequence[float | None], bad: Bad) -> float | None:
    """Worst value; a missing one is worse than any, and gives None."""
    if any(v is None for v in values):
        return None
    pick: Callable[[Iterable[Any]], Any] = min if bad == "low" else max
    return float(pick(values))


def with_spread(
    rows: Sequence[dict[str, Any]], measures: dict[str, Bad]
) -> dict[str, Any]:
    """Give means over fields, and under ``se`` and ``worst`` how sure they are."""
    found: dict[str, Any] = {"se": {}, "worst": {}}
    for measure, bad in measures.items():
        values = [row[measure] for row in rows]
        known = [v for v in values if v is not None]
        found[measure] = float(np.mean(known)) if known else None
        found["se"][measure] = standard_error(values)
        if len(values) > 1:  # of one field the worst is that one
            found["worst"][measure] = worst(values, bad)
    return found


def cells(row: dict[str, Any], *columns: str) -> list[str]:
    """Write several: of each the measure, its digits, and ``+`` where it has a sign."""
    told = (column.split() for column in columns)
    return [
        written(row, measure, int(digits.strip("+")), sign="+" in digits)
        for measure, digits in told
    ]


def written(
    row: dict[str, Any], measure: str, digits: int, *, sign: bool = False
) -> str:
    """Write ``mean ± standard error (worst)``, leaving out what is not known."""
    text = number(row.get(measure), digits, sign=sign)
    error = row.get("se", {}).get(measure)
    if error is not None:
        text += f" ± {number(error, digits)}"
    if measure in row.get("worst", {}):
        text += f" ({number(row['worst'][measure], digits, sign=sign)})"
    return text
