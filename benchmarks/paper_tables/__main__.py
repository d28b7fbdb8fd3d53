"""Train what the papers' tables need, judge it, and write docs/results.md.

Run: ``make tables``, or in two steps, with ``PYTHONPATH=benchmarks``:
``python -m paper_tables train --minutes 60`` and ``python -m paper_tables evaluate``.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from paper_tables.evaluate import PARTS, Extent, evaluate, records_of, results_of
from paper_tables.page import page
from paper_tables.plan import ABLATION_WEIGHT, ROOT, RUNS, key_of, plan
from paper_tables.profiles import draw_profiles
from paper_tables.runs import train_all, train_one

DEFAULT_MINUTES = 60.0
DEFAULT_JOBS = 2
MADE = "made.json"


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
    _evaluate(given)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("train", "one", "evaluate"))
    parser.add_argument("names", nargs="*", help="runs, or beginnings of their names")
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument(
        "--minutes",
        type=float,
        help="of the clock for all trainings; without a GPU 60, with one as the "
        "recipes say",
    )
    parser.add_argument("--jobs", type=int, default=DEFAULT_JOBS)
    parser.add_argument("--narrow", action="store_true", default=None)
    parser.add_argument("--full", action="store_false", dest="narrow")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--none", action="store_true", help="only write the page anew")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "results.md")
    extent = Extent()
    for name in ("side", "fields", "gold_fields", "gold_side"):
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=int, default=getattr(extent, name))
    return parser


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _minutes(given: argparse.Namespace) -> float | None:
    if given.minutes is None and given.narrow:
        return DEFAULT_MINUTES
    minutes: float | None = given.minutes
    return minutes


def _say(text: str) -> None:
    print(text, flush=True)


def _train(given: argparse.Namespace) -> int:
    """Train what is planned; 1 if something failed."""
    planned = plan(narrow=given.narrow, only=tuple(given.names))
    minutes = _minutes(given)
    command = "make tables"
    if given.minutes is not None:
        command += f" MINUTES={given.minutes:g}"
    made = {"command": command, "minutes": minutes, "jobs": given.jobs}
    _keep(given.runs, made)
    failed = train_all(planned, given.runs, minutes=minutes, jobs=given.jobs, say=_say)
    return 1 if failed else 0


def _one(given: argparse.Namespace) -> int:
    """Train one recipe, in a process that `train` started."""
    (name,) = given.names
    (planned,) = (p for p in plan(narrow=given.narrow) if p.name == name)
    key = key_of(planned, given.minutes)
    train_one(planned, given.runs / name, key=key)
    return 0


def _evaluate(given: argparse.Namespace) -> None:
    """Measure, and write the page."""
    extent = Extent(given.side, given.fields, given.gold_fields, given.gold_side)
    if not given.none:
        evaluate(given.runs, tuple(given.parts), extent, _say)
        sizes = {name: getattr(extent, name) for name in Extent.__dataclass_fields__}
        _keep(given.runs, sizes)
    made = {
        "command": "make tables",
        "edge_share": ABLATION_WEIGHT,
        **_kept(given.runs),
    }
    results = results_of(given.runs)
    text = page(results, records_of(given.runs), made)
    given.page.write_text(text, encoding="utf-8")
    if "profiles" in results:
        folder = given.page.parent / "images"
        folder.mkdir(exist_ok=True)
        draw_profiles(folder / "results-superlens.png", results["profiles"])
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
