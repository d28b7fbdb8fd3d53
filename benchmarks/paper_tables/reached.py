"""What was judged apart, of the rows that are kept, at the steps that were reached."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from _shared import standard_error

from paper_tables.markdown import DASH, number, paragraphs, plus_minus, table
from paper_tables.plan import ROOT

ROWS = ROOT / "benchmarks" / "rows"
_CAMPAIGN = ROOT / "benchmarks" / "campaign"
_HEAD = """
## Judged apart, at the steps that were reached

Each once, on images or fields that nothing of it had looked at: the gain over the input
in matched PSNR, beside the best Gaussian and the best linear filter of each image.
*Reached*: above its input by more than its standard error. Superlens fields are at any
focus; those of `campaign/sun` go through lenses. Steps are those of the state that was
judged; *before its adversary*: its discriminators had no say yet, which tests nothing
of the system and has no verdict. Later states were worse on the validation images and
were not kept.
"""


class Reached(NamedTuple):
    """Gains of a model over its input, in dB, one for each image."""

    system: str
    model: str
    data: str
    steps: int | None  # None of a bundled model
    before: Sequence[float]  # PSNR of the input
    gain: Sequence[float]
    gaussian: Sequence[float] | None
    linear: Sequence[float]
    taught: bool = True  # by discriminators, where it has such

    @property
    def reached(self) -> str:
        """Say at how many steps it was judged."""
        if self.steps is None:
            return DASH
        return f"{self.steps}" + ("" if self.taught else ", before its adversary")

    @property
    def mean(self) -> float:
        """Mean gain."""
        return sum(self.gain) / len(self.gain)

    @property
    def above(self) -> bool:
        """Whether it is above its input by more than its standard error."""
        return self.mean > (standard_error(self.gain) or 0.0)


def rows_of(name: str, folder: Path = ROWS) -> list[dict[str, Any]]:
    """Read kept rows; none where there is no such file."""
    path = folder / name
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _of_images(
    rows: Sequence[dict[str, Any]], system: str, model: str, steps: int | None
) -> list[Reached]:
    """Sum up rows of ``restorer.py``, case by case."""
    found = []
    for case in dict.fromkeys(row["case"] for row in rows):
        own = [row for row in rows if row["case"] == case]
        known = "gaussian" in own[0]
        found.append(
            Reached(
                system,
                model,
                case,
                steps,
                *([row[key] for row in own] for key in ("before", "gain")),
                [row["gaussian"] for row in own] if known else None,
                [row["oracle"] for row in own],
            )
        )
    return found


def reached(folder: Path = ROWS) -> list[Reached]:
    """Read all that was judged apart."""
    found: list[Reached] = []
    if sun := rows_of("sun.jsonl", folder):
        *_, name = sun[0]
        gains = [
            [row["optical"] for row in sun],
            [row[name]["whole"] for row in sun],
            None,
            [row["linear"]["whole"] for row in sun],
        ]
        label = "Sun, multi-residual CycleGAN"
        found.append(Reached(label, "campaign/sun", "superlens", _steps("sun"), *gains))
    last = [row for row in rows_of("gao.jsonl", folder) if row["state"] == "last"]
    found += _of_images(last, "Gao", "campaign/gao-a", _steps("gao-a"))
    for row in (apart := rows_of("reached_sets.jsonl", folder))[:1]:
        sets = _of_images(apart, "Gao", row["model"], row["steps"])
        found += [one._replace(taught=row["taught"]) for one in sets]
    fields = rows_of("reached.jsonl", folder)
    for model in dict.fromkeys(row["model"] for row in fields):
        own = [row for row in fields if row["model"] == model]
        columns = ("optical", "gain", "gaussian", "linear")
        found.append(
            Reached(
                _SYSTEMS.get(model, model),
                model,
                "superlens",
                own[0]["steps"],
                *([row[key] for row in own] for key in columns),
                taught=own[0]["taught"],
            )
        )
    sets = [r for r in rows_of("restorer.jsonl", folder) if r["case"][:3] == "set"]
    found += _of_images(sets, "bundled", "sem-restore", None)
    return found


_SYSTEMS = {"srgan-ssum": "SRGAN"}


def _steps(name: str) -> int | None:
    """Read how many steps a run of hours had."""
    path = _CAMPAIGN / name / "kept.json"
    return int(json.loads(path.read_text("utf-8"))["steps"]) if path.exists() else None


def judged_apart(rows: Sequence[Reached]) -> str:
    """Write the table of what was judged apart."""
    if not rows:
        return ""
    head = (
        "system | run | on | steps | input, dB | gain, dB | worst | best Gaussian | "
        "best linear filter | images | reached"
    )
    cells = [
        [
            row.system,
            f"`{row.model}`",
            row.data,
            row.reached,
            number(sum(row.before) / len(row.before), 2),
            plus_minus(row.mean, standard_error(row.gain), 2, sign=True),
            number(min(row.gain), 2, sign=True),
            _mean(row.gaussian),
            _mean(row.linear),
            str(len(row.gain)),
            ("yes" if row.above else "no") if row.taught else DASH,
        ]
        for row in rows
    ]
    return paragraphs(_HEAD, table(head, cells, text=3))


def _mean(values: Sequence[float] | None) -> str:
    if values is None:
        return DASH
    error = standard_error(values)
    return plus_minus(sum(values) / len(values), error, 2, sign=True)
