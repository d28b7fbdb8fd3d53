"""Train what the papers' tables need, judge it, and write tables.md.

Run: ``make tables``, or in two steps, with ``PYTHONPATH=benchmarks``:
``python -m paper_tables train --hours 4`` and ``python -m paper_tables evaluate``.
With ``--final`` the finished runs are judged on the data that is kept for it, once:
whoever looks twice chooses among results.
"""

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from paper_tables.evaluate import (
    PARTS,
    Extent,
    evaluate,
    judged,
    records_of,
    results_of,
)
from paper_tables.gold_pairs import make_gold_pairs
from paper_tables.page import page
from paper_tables.plan import GOLD_PAIRS, RUNS, plan
from paper_tables.runs import train_all, train_one

DEFAULT_MINUTES = 60.0
DEFAULT_JOBS = 2
HOUR = 60.0  # minutes
MADE = "made.json"
SIZES = ("side", "fields", "gold_fields", "gold_side")


def main(argv: list[str] | None = None) -> int:
    """Run one of the steps; give the exit status."""
    given = _parser().parse_args(argv)
    given.runs.mkdir(parents=True, exist_ok=True)
    if given.narrow is None:
        given.narrow = not _has_gpu()
    if given.step == "train":
        return _train(given)
    if given.step == "one":
        return _one(given)
    if given.final and (refused := _refused(given)):
        print(refused, file=sys.stderr)
        return 2
    _evaluate(given)
    return 0


def _refused(given: argparse.Namespace) -> str:
    """Say why a final judgement cannot be; nothing if it can."""
    if given.none:
        return ""
    if not records_of(given.runs):
        return (
            f"A final judgement must be of finished runs, got none in {given.runs}; "
            "train them first."
        )
    again = [part for part in given.parts if part in judged(given.runs)]
    if again and not given.again:
        return (
            f"A final judgement of {', '.join(again)} is already kept in {given.runs}, "
            "and a second look at the same data would choose among results; add "
            "--again only if the first was in error."
        )
    return ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("train", "one", "evaluate"))
    parser.add_argument("names", nargs="*", help="runs, or beginnings of their names")
    parser.add_argument("--runs", type=Path, default=RUNS)
    clock = parser.add_mutually_exclusive_group()
    clock.add_argument(
        "--minutes",
        type=float,
        help="of the clock for all trainings; without a GPU 60, with one as the "
        "recipes say",
    )
    clock.add_argument("--hours", type=float, help="the same, in hours")
    parser.add_argument("--jobs", type=int, default=DEFAULT_JOBS)
    parser.add_argument("--narrow", action="store_true", default=None)
    parser.add_argument("--full", action="store_false", dest="narrow")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--none", action="store_true", help="only write the page anew")
    record = Path(__file__).parent / "tables.md"
    parser.add_argument("--page", type=Path, default=record)
    parser.add_argument(
        "--final", action="store_true", help="judge on the data kept for it, once"
    )
    parser.add_argument(
        "--again", action="store_true", help="judge finally where that was done before"
    )
    for name in SIZES:
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=int, help="in place of goals.yaml's")
    return parser


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _minutes(given: argparse.Namespace) -> float | None:
    """Give the minutes of all trainings; None for those of the recipes."""
    if given.hours is not None:
        return float(given.hours * HOUR)
    if given.minutes is None and given.narrow:
        return DEFAULT_MINUTES
    minutes: float | None = given.minutes
    return minutes


def _say(text: str) -> None:
    print(text, flush=True)


def _train(given: argparse.Namespace) -> int:
    """Train what is planned; 1 if something failed."""
    planned = plan(narrow=given.narrow, only=tuple(given.names))
    real = [p for p in planned if p.name == "gold-real"]
    if real and not make_gold_pairs(GOLD_PAIRS, _say):
        planned = [p for p in planned if p not in real]
    minutes = _minutes(given)
    command = "make tables"
    for name in ("hours", "minutes"):
        if (asked := getattr(given, name)) is not None:
            command += f" {name.upper()}={asked:g}"
    made = {"command": command, "minutes": minutes, "jobs": given.jobs}
    _keep(given.runs, made)
    failed = train_all(planned, given.runs, minutes=minutes, jobs=given.jobs, say=_say)
    return 1 if failed else 0


def _one(given: argparse.Namespace) -> int:
    """Train one recipe, in a process that `train` started."""
    (name,) = given.names
    (planned,) = (p for p in plan(narrow=given.narrow) if p.name == name)
    train_one(planned, given.runs / name)
    return 0


def _evaluate(given: argparse.Namespace) -> None:
    """Measure, and write the page."""
    extent = Extent.planned(final=given.final)
    asked = {n: getattr(given, n) for n in SIZES if getattr(given, n) is not None}
    extent = replace(extent, **asked)
    which = "final" if given.final else "develop"
    if not given.none:
        evaluate(given.runs, tuple(given.parts), extent, _say)
        _keep(given.runs, {which: asdict(extent)})
    kept = _kept(given.runs)
    made = {
        "command": "make tables",
        **asdict(extent),
        **kept,
        **kept.get(which, {}),
    }
    results = results_of(given.runs, final=given.final)
    records = records_of(given.runs)
    given.page.write_text(page(results, records, made), encoding="utf-8")
    _say(f"wrote {given.page}")


def _kept(runs: Path) -> dict[str, Any]:
    path = runs / MADE
    if not path.exists():
        return {}
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _keep(runs: Path, values: dict[str, Any]) -> None:
    """Add to the settings that the page states."""
    text = json.dumps({**_kept(runs), **values}, indent=1)
    (runs / MADE).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
