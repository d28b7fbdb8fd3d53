"""What a check of a model found, as a record for its card and as a table."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from napari_semsr.analysis.presence import PresenceRow
from napari_semsr.services.results import Result

__all__ = [
    "ConditionCheck",
    "ModelCheck",
    "check_lines",
    "check_rows",
    "check_summary",
    "disc_records",
]

_CHANGES = ("inserted", "erased")
_KINDS = ("held_out", "given", "drawn")
_DIGITS = 4


@dataclass(frozen=True, slots=True)
class ConditionCheck:
    """What was found in images that were degraded in one way.

    Attributes
    ----------
    condition : str
        How they were degraded.
    blur_px : float
        Width at half maximum of the blur, in pixels of the result.
    truths : int
        Number of truths.
    rows : tuple of PresenceRow
        By radius and change.
    """

    condition: str
    blur_px: float
    truths: int
    rows: tuple[PresenceRow, ...]

    def resolved(self, radius_px: int) -> bool:
        """Tell whether a disc is as wide as the blur.

        Parameters
        ----------
        radius_px : int
            Its radius.

        Returns
        -------
        bool
            Whether two radii are the blur's width or more.
        """
        return 2 * radius_px >= self.blur_px

    def to_record(self) -> dict[str, Any]:
        """Give shares of discs that are right, by radius and over the resolved ones.

        Returns
        -------
        dict
            ``enhanced`` and ``degraded`` are None where there was no disc.
        """
        by_radius = []
        for radius in sorted({row.radius_px for row in self.rows}):
            own = [row for row in self.rows if row.radius_px == radius]
            by_radius.append(
                {
                    "radius_px": radius,
                    "resolved": self.resolved(radius),
                    **_by_change(own),
                }
            )
        wide = [row for row in self.rows if self.resolved(row.radius_px)]
        return {
            "blur_width_px": round(self.blur_px, 2),
            "truths": self.truths,
            "radii": by_radius,
            "resolved": _by_change(wide),
        }


@dataclass(frozen=True, slots=True)
class ModelCheck(Result):
    """Whether a model shows what is there.

    Attributes
    ----------
    model : str
        Its name.
    path : str
        Its file.
    digest : str
        Of the file, its new card included where that was written.
    images : {"drawn", "given", "held_out"}
        What the truths were.
    seed : int
        Of the discs' places.
    conditions : tuple of ConditionCheck
        What was found.
    written : bool
        Whether the card holds it now.
    seconds : float
        How long it took.
    """

    model: str
    path: str
    digest: str
    images: str
    seed: int
    conditions: tuple[ConditionCheck, ...]
    written: bool
    seconds: float

    def to_card(self) -> dict[str, Any]:
        """Give what a card keeps.

        Returns
        -------
        dict
            Seed, and a record for each condition.
        """
        found = {one.condition: one.to_record() for one in self.conditions}
        return {"seed": self.seed, "conditions": found}

    def to_json(self) -> dict[str, Any]:
        """Give the record that a command prints.

        Returns
        -------
        dict
            What the card keeps, with the model and its file.
        """
        return {
            "model": self.model,
            "path": self.path,
            "digest": self.digest,
            "images": self.images,
            **self.to_card(),
            "written": self.written,
            "seconds": round(self.seconds, 2),
        }


def _by_change(rows: Sequence[PresenceRow]) -> dict[str, Any]:
    """Sum rows by change, and over both."""
    found = {
        change: _shares([row for row in rows if row.change == change])
        for change in _CHANGES
    }
    return {**found, "together": _shares(rows)}


def _shares(rows: Sequence[PresenceRow]) -> dict[str, Any]:
    discs = sum(row.discs for row in rows)

    def share(right: int) -> float | None:
        return round(right / discs, _DIGITS) if discs else None

    return {
        "discs": discs,
        "enhanced": share(sum(row.enhanced for row in rows)),
        "degraded": share(sum(row.degraded for row in rows)),
    }


def check_rows(record: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Give a table of a check: a head, then a row for each condition and radius.

    Parameters
    ----------
    record : mapping
        Of `ModelCheck.to_card`, or from a card.

    Yields
    ------
    tuple of str
        Condition, radius, and for inserted discs, erased ones, and both: how many, and
        the shares that are right in the enhanced and in the degraded image. A radius
        in brackets is one that the blur does not resolve.
    """
    yield ("condition", "radius", "inserted", "erased", "together")
    for name, found in record["conditions"].items():
        for row in found["radii"]:
            radius = f"{row['radius_px']} px"
            yield (
                name,
                radius if row["resolved"] else f"({radius})",
                *(_cell(row[change]) for change in (*_CHANGES, "together")),
            )
        cells = (_cell(found["resolved"][c]) for c in (*_CHANGES, "together"))
        yield (name, "resolved", *cells)


def check_lines(record: Mapping[str, Any]) -> Iterator[str]:
    """Say a check in one line for each condition.

    Parameters
    ----------
    record : mapping
        Of `ModelCheck.to_card`, or from a card.

    Yields
    ------
    str
        Over the radii that the blur resolves.
    """
    for name, found in record["conditions"].items():
        wide = found["resolved"]
        parts = (f"{change} {_cell(wide[change])}" for change in _CHANGES)
        yield f"{name}: {', '.join(parts)}"


def disc_records(card: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Give the records of a card that can be told.

    Parameters
    ----------
    card : mapping
        A model's card, from a file that anybody may have written.

    Returns
    -------
    dict
        By kind of images, those on real images first; what is no such record is left
        out.
    """
    records = (card.get("checks") or {}).get("discs")
    found = {}
    for kind in _KINDS:
        record = records.get(kind) if isinstance(records, dict) else None
        try:
            if record and list(check_rows(record)) and list(check_lines(record)):
                found[kind] = record
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
    return found


def check_summary(card: Mapping[str, Any]) -> str:
    """Say in a few words what a card tells of discs.

    Parameters
    ----------
    card : mapping
        A model's card.

    Returns
    -------
    str
        Share of discs that are right over the radii that the blur resolves, for each
        condition, on real images where there are any; empty for a model that was not
        checked.
    """
    records = disc_records(card)
    if not records:
        return ""
    kind, record = next(iter(records.items()))
    parts = []
    for name, found in record["conditions"].items():
        both = found["resolved"]["together"]
        if both["discs"]:
            parts.append(f"{name} {100 * both['enhanced']:.1f} %")
    return f"{', '.join(parts)} ({kind.replace('_', ' ')} images)"


def _cell(shares: Mapping[str, Any]) -> str:
    """Say a share, that of the degraded image, and how many discs there were."""
    if not shares["discs"]:
        return "\N{EN DASH}"
    enhanced, degraded = 100 * shares["enhanced"], 100 * shares["degraded"]
    return f"{enhanced:.1f} % ({degraded:.1f} %) of {shares['discs']}"
