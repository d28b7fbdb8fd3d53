"""Hallucination check recorded in a model card, as table rows and sentences."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import hypot, sqrt
from typing import Any, Self

from napari_semsr.core import Figure, FloatPair

CHANGES = ("inserted", "erased")
"""Changes made to discs."""

_APART = 2  # standard errors of a significant difference
_KINDS = ("held_out", "given", "drawn")


@dataclass(frozen=True, slots=True)
class DiscRecord:
    """Disc check recorded in a model card."""

    content: Mapping[str, Any]  # as returned by `ModelCheck.to_card`

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> dict[str, Self]:
        """Read the valid disc records from a model card."""
        records: Any = (card.get("checks") or {}).get("discs")
        card_record = {}
        for kind in _KINDS if isinstance(records, dict) else ():
            record = cls(records.get(kind))
            try:
                if all(
                    (
                        list(record.rows()),
                        list(record.lines()),
                        record.worst_condition(),
                    )
                ):
                    card_record[kind] = record
            except (KeyError, TypeError, ValueError, AttributeError):
                continue
        return card_record

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Yield table rows: a header, then one row for each condition and radius."""
        yield ("condition", "radius", "inserted", "erased", "together")
        for name, shares in self.content["conditions"].items():
            for row in shares["radii"]:
                radius = f"{row['radius_px']} px"
                cells = (_format_cell(row[change]) for change in (*CHANGES, "together"))
                yield (name, radius if row["resolved"] else f"({radius})", *cells)
            cells = (
                _format_cell(shares["resolved"][c]) for c in (*CHANGES, "together")
            )
            yield (name, "resolved", *cells)

    def lines(self) -> Iterator[str]:
        """Yield one line for each condition."""
        for name, shares in self.content["conditions"].items():
            wide = shares["resolved"]
            parts = (f"{change} {_format_cell(wide[change])}" for change in CHANGES)
            yield f"{name}: {', '.join(parts)}"

    def worst_condition(self) -> tuple[str, float, float]:
        """Return the condition with the smallest fraction of correct discs."""
        pairs = {
            name: (both["enhanced"], both["degraded"])
            for name, both in self._iterate_resolved_totals()
        }
        name = min(pairs, key=lambda name: pairs[name])
        return name, *pairs[name]

    def _iterate_resolved_totals(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the totals over all resolved discs, for conditions that have any."""
        for name, shares in self.content["conditions"].items():
            both = shares["resolved"]["together"]
            if both["discs"]:
                yield name, both

    def verdict(self) -> str:
        """Compare a model with its input in one sentence.

        They differ if the shares are two standard errors apart.
        """
        name, enhanced_share, degraded_share = self.worst_condition()
        discs = self.content["conditions"][name]["resolved"]["together"]["discs"]
        error = sqrt(
            sum(share * (1 - share) for share in (enhanced_share, degraded_share))
            / discs
        )
        if enhanced_share - degraded_share > _APART * error:
            return "It reproduces small objects better than its input."
        if degraded_share - enhanced_share > _APART * error:
            return (
                "It reproduces small objects worse than its input: it removes or "
                "invents some objects. Check them in the input."
            )
        return "It reproduces small objects as well as its input, but not better."

    def headline(self) -> dict[str, Figure]:
        """Return the fraction for the worst condition, if known, with a verdict."""
        if not self.summary():
            return {}
        name, enhanced_share, degraded_share = self.worst_condition()
        figure = Figure(
            100 * enhanced_share,
            "% of the discs",
            ".0f",
            f"(input: {100 * degraded_share:.0f} %; worst case: {name})",
            verdict=self.verdict().rstrip("."),
            large=True,
        )
        return {"Shown correctly": figure}

    def resolved_figures(self) -> dict[str, Figure]:
        """Return the fractions for radii that are resolved despite the blur."""
        shares = {
            f"{name}, {change}": figures["resolved"][change]
            for name, figures in self.content["conditions"].items()
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
        """Return the table of all radii, column by column."""
        head, *rows = self.rows()
        return dict(zip(head, zip(*rows, strict=True), strict=True))

    def summary(self) -> str:
        """Return a short summary for the resolved discs."""
        return ", ".join(
            f"{name} {100 * both['enhanced']:.1f} %"
            for name, both in self._iterate_resolved_totals()
        )


def _format_cell(shares: Mapping[str, Any]) -> str:
    """Format the fractions for an image and its input, with the number of discs."""
    if not shares["discs"]:
        return "\N{EN DASH}"
    enhanced_percent, degraded_percent = (
        100 * shares["enhanced"],
        100 * shares["degraded"],
    )
    return f"{enhanced_percent:.1f} % ({degraded_percent:.1f} %) of {shares['discs']}"


# The paired test of removed objects.

MODEL, LIGHT, LINEAR = "model", "light", "linear filter"
INPUT = "input"  # the unprocessed image, where images are compared
"""Rows of the paired test: the checked model, its input and the best linear filter."""
# chosen: J of the linear filter is 69 points from there on and 9 below
TELLS_SD = 9.0
"""Change of the optical image in standard deviations of its noise that shows an
object.
"""
_MIN_REMOVED = 40  # below, the 95 % interval of a share is up to 30 points wide


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovalCount:
    """Counts of positions imaged with and without an object.

    Shares are in per cent, intervals 95 % ones; all are None below 40 positions.
    """

    objects: int  # positions
    shown: int  # positions where the image with the object shows it
    drawn: int  # positions where the image without the object still shows it

    def __add__(self, other: "RemovalCount") -> "RemovalCount":
        """Add two counts."""
        mine, others = asdict(self), asdict(other)
        return RemovalCount(**{name: mine[name] + others[name] for name in mine})

    @property
    def is_sufficient(self) -> bool:
        """Whether there are enough object positions to give a percentage."""
        return self.objects >= _MIN_REMOVED

    @property
    def shown_percent(self) -> float | None:
        """Percentage of present objects that are shown."""
        return 100 * self.shown / self.objects if self.is_sufficient else None

    @property
    def drawn_percent(self) -> float | None:
        """Percentage of removed objects that are still shown."""
        return 100 * self.drawn / self.objects if self.is_sufficient else None

    @property
    def difference(self) -> float | None:
        """Youden's J in percentage points: `shown_percent` minus `drawn_percent`."""
        percent = 100 * (self.shown - self.drawn) / max(self.objects, 1)
        return percent if self.is_sufficient else None

    @property
    def drawn_interval(self) -> FloatPair | None:
        """95 % Wilson interval of `drawn_percent`."""
        return self._compute_interval(self.drawn)

    @property
    def difference_interval(self) -> FloatPair | None:
        """95 % interval of `difference` (Newcombe's score interval [1]_).

        It assumes independent shares, and is too wide for shares of the same positions.

        References
        ----------
        .. [1] R. G. Newcombe, Stat. Med. 17, 873 (1998), method 10.
        """
        middle, shown_interval, drawn_interval = (
            self.difference,
            self._compute_interval(self.shown),
            self.drawn_interval,
        )
        if middle is None or shown_interval is None or drawn_interval is None:
            return None
        one, other = (100 * n / self.objects for n in (self.shown, self.drawn))
        down = hypot(one - shown_interval[0], drawn_interval[1] - other)
        up = hypot(shown_interval[1] - one, other - drawn_interval[0])
        return middle - down, middle + up

    def _compute_interval(self, count: int) -> FloatPair | None:
        from napari_semsr.analysis import compute_percent_interval  # rarely needed

        return (
            compute_percent_interval(count, self.objects)
            if self.is_sufficient
            else None
        )

    def to_json(self) -> dict[str, object]:
        """Return counts, percentages and intervals."""
        return asdict(self) | {
            "shown_percent": _round_values(self.shown_percent),
            "shown_interval": _round_values(self._compute_interval(self.shown)),
            "drawn_percent": _round_values(self.drawn_percent),
            "drawn_interval": _round_values(self.drawn_interval),
            "j_points": _round_values(self.difference),
            "j_interval": _round_values(self.difference_interval),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Create counts from a record."""
        names = ("objects", "shown", "drawn")
        return cls(**{name: int(record[name]) for name in names})

    def cells(self) -> tuple[str, ...]:
        """Return the number of positions, percentages and difference as table cells."""
        if not self.is_sufficient:
            return str(self.objects), *("\N{EN DASH}",) * 3
        low, high = self.drawn_interval or (0.0, 0.0)
        least, most = self.difference_interval or (0.0, 0.0)
        return (
            str(self.objects),
            f"{self.shown_percent:.0f} %",
            f"{self.drawn_percent:.0f} % ({low:.0f} to {high:.0f})",
            f"{self.difference:.0f} ({least:.0f} to {most:.0f})",
        )


def _round_values(value: Any) -> object:
    if isinstance(value, tuple):
        return tuple(_round_values(one) for one in value)
    return None if value is None else round(value, 2)


_GROUPS = {
    "light_tells": f"{TELLS_SD:g} or more",
    "light_cannot_tell": f"below {TELLS_SD:g}",
    "all": "any",
}  # change of the optical image in standard deviations of its noise


@dataclass(frozen=True, slots=True)
class RemovalTest:
    """Counts of present and removed objects shown, in the same simulated samples.

    `light_tells` and `light_cannot_tell` count positions for each image, by its name:
    those where the object changes the optical image by 9 standard deviations of its
    noise or more, and those where by less.
    """

    fields: int  # simulated fields
    light_tells: Mapping[str, RemovalCount]
    light_cannot_tell: Mapping[str, RemovalCount]

    def get_counts(self, name: str) -> dict[str, RemovalCount]:
        """Return the counts for one image, by optical visibility of the objects."""
        tells, cannot = self.light_tells[name], self.light_cannot_tell[name]
        return dict(zip(_GROUPS, (tells, cannot, tells + cannot), strict=True))

    def to_json(self) -> dict[str, object]:
        """Return a JSON record for the model card."""
        rows = {
            name: {
                group: count.to_json() for group, count in self.get_counts(name).items()
            }
            for name in self.light_tells
        }
        return {"fields": self.fields, "light_tells_from_sd": TELLS_SD, "rows": rows}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Create an object from the output of `to_json`."""
        tells, cannot = (
            {
                name: RemovalCount.from_json(row[group])
                for name, row in record["rows"].items()
            }
            for group in ("light_tells", "light_cannot_tell")
        )
        return cls(int(record["fields"]), tells, cannot)

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> Self | None:
        """Read the record from a model card, or return None if it has no valid one."""
        try:
            return cls.from_json((card.get("checks") or {})["removals"])
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Yield table rows: a header, then one row for each image and group."""
        yield ("image", "light changes by (sd)", "removed", "shown", "drawn", "J")
        for name in self.light_tells:
            for group, count in self.get_counts(name).items():
                yield (name, _GROUPS[group], *count.cells())

    def table(self) -> dict[str, tuple[str, ...]]:
        """Return the table column by column."""
        head, *rows = self.rows()
        return dict(zip(head, zip(*rows, strict=True), strict=True))

    def describe(self, name: str) -> str:
        """Describe the percentage of removed objects still shown in an image."""
        groups = self.get_counts(name)
        tells, cannot = groups["light_tells"], groups["light_cannot_tell"]
        if not tells.is_sufficient:
            return (
                f"In simulated samples, only {tells.objects} removed objects were "
                f"optically visible, but at least {_MIN_REMOVED} are needed for a "
                "percentage."
            )
        low, high = tells.drawn_interval or (0.0, 0.0)
        linear = self.light_tells[LINEAR].drawn_percent
        text = (
            "Optically visible objects were removed from simulated samples, but "
            f"{tells.drawn_percent:.0f} % of them still appear in the output (95 % "
            f"interval {low:.0f} to {high:.0f} %; linear filter: {linear:.0f} %)"
        )
        if cannot.is_sufficient:
            text += (
                f"; of the optically invisible objects, {cannot.drawn_percent:.0f} %"
            )
        return f"{text}."

    def figures(self, name: str) -> dict[str, Figure]:
        """Return the percentages for one image."""
        tells, cannot, whole = self.get_counts(name).values()
        linear = self.light_tells[LINEAR].drawn_percent
        linear_text = "" if linear is None else f"(linear filter {linear:.0f} %)"

        def create_figure(
            value: float | None, count: RemovalCount, **more: Any
        ) -> Figure:
            note = f"of {count.objects} {more.pop('note', '')}".rstrip()
            return Figure(value, "%", ".0f", note, **more)

        return {
            "Drawn though removed, if light can show it": create_figure(
                tells.drawn_percent, tells, note=linear_text, large=True
            ),
            "Shown, if light can show it": create_figure(tells.shown_percent, tells),
            "Drawn though removed, if light cannot show it": create_figure(
                cannot.drawn_percent, cannot
            ),
            "Shown, if light cannot show it": create_figure(
                cannot.shown_percent, cannot
            ),
            "Shown minus drawn though removed": create_figure(whole.difference, whole),
        }
