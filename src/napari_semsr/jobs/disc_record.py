"""What a model's card keeps of a check, as rows and sentences."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any, Self

from napari_semsr.core import Figure

CHANGES = ("inserted", "erased")
"""What is done with discs."""

_APART = 2  # standard errors
_KINDS = ("held_out", "given", "drawn")


@dataclass(frozen=True, slots=True)
class DiscRecord:
    """What a card keeps of a check."""

    found: Mapping[str, Any]  # as `ModelCheck.to_card` gives it

    @classmethod
    def of_card(cls, card: Mapping[str, Any]) -> dict[str, Self]:
        """Give the records of a card that can be told."""
        records: Any = (card.get("checks") or {}).get("discs")
        found = {}
        for kind in _KINDS if isinstance(records, dict) else ():
            record = cls(records.get(kind))
            try:
                if all((list(record.rows()), list(record.lines()), record.worst())):
                    found[kind] = record
            except (KeyError, TypeError, ValueError, AttributeError):
                continue
        return found

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Give a table: a head, then a row for each condition and radius."""
        yield ("condition", "radius", "inserted", "erased", "together")
        for name, found in self.found["conditions"].items():
            for row in found["radii"]:
                radius = f"{row['radius_px']} px"
                cells = (_cell(row[change]) for change in (*CHANGES, "together"))
                yield (name, radius if row["resolved"] else f"({radius})", *cells)
            cells = (_cell(found["resolved"][c]) for c in (*CHANGES, "together"))
            yield (name, "resolved", *cells)

    def lines(self) -> Iterator[str]:
        """Say it in one line for each condition."""
        for name, found in self.found["conditions"].items():
            wide = found["resolved"]
            parts = (f"{change} {_cell(wide[change])}" for change in CHANGES)
            yield f"{name}: {', '.join(parts)}"

    def worst(self) -> tuple[str, float, float]:
        """Find the condition in which the fewest discs are right."""
        pairs = {
            name: (both["enhanced"], both["degraded"])
            for name, both in self._together()
        }
        name = min(pairs, key=lambda name: pairs[name])
        return name, *pairs[name]

    def _together(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Give the shares over all resolved discs, of conditions that have some."""
        for name, found in self.found["conditions"].items():
            both = found["resolved"]["together"]
            if both["discs"]:
                yield name, both

    def verdict(self) -> str:
        """Say what it means that a model shows so many rightly, and its input so many.

        They differ where the shares are two standard errors apart.
        """
        name, enhanced, degraded = self.worst()
        discs = self.found["conditions"][name]["resolved"]["together"]["discs"]
        error = sqrt(sum(share * (1 - share) for share in (enhanced, degraded)) / discs)
        if enhanced - degraded > _APART * error:
            return "It shows small things better than its input does."
        if degraded - enhanced > _APART * error:
            return (
                "It shows small things worse than its input does: it drops some, or "
                "draws some that are not there. Look for them in the input."
            )
        return "It shows small things as well as its input does, no better."

    def headline(self) -> dict[str, Figure]:
        """Write the share of the worst condition, if known, and what it means."""
        if not self.summary():
            return {}
        name, enhanced, degraded = self.worst()
        told = Figure(
            100 * enhanced,
            "% of the discs",
            ".0f",
            f"(its input {100 * degraded:.0f} %; at worst: {name})",
            verdict=self.verdict().rstrip("."),
            large=True,
        )
        return {"Shown rightly": told}

    def resolved(self) -> dict[str, Figure]:
        """Write the shares over the radii that the blur resolves."""
        shares = {
            f"{name}, {change}": found["resolved"][change]
            for name, found in self.found["conditions"].items()
            for change in CHANGES
        }
        return {
            name: Figure(
                100 * both["enhanced"],
                "%",
                ".0f",
                f"({100 * both['degraded']:.0f} %) of {both['discs']}",
            )
            for name, both in shares.items()
            if both["discs"]
        }

    def table(self) -> dict[str, tuple[str, ...]]:
        """Give all radii as columns."""
        head, *rows = self.rows()
        return dict(zip(head, zip(*rows, strict=True), strict=True))

    def summary(self) -> str:
        """Say it in a few words."""
        return ", ".join(
            f"{name} {100 * both['enhanced']:.1f} %" for name, both in self._together()
        )


def _cell(shares: Mapping[str, Any]) -> str:
    """Say a share, that of the degraded image, and how many discs there were."""
    if not shares["discs"]:
        return "\N{EN DASH}"
    enhanced, degraded = 100 * shares["enhanced"], 100 * shares["degraded"]
    return f"{enhanced:.1f} % ({degraded:.1f} %) of {shares['discs']}"
