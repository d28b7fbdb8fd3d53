"""How the validation gain of every run grew: read, told and drawn."""

import csv
import math
from pathlib import Path
from typing import Any

from _shared import picture

from paper_tables.markdown import DASH, number
from paper_tables.plan import before_adversary

Curve = list[tuple[int, float]]
_COLOURS = 20  # of the map


def read_curve(folder: Path) -> Curve:
    """Read steps and validation gains in dB from a run's ``curve.csv``."""
    path = folder / "curve.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        rows = [(row.get("step"), row.get("gain_db")) for row in csv.DictReader(stream)]
    found = [(round(float(step)), float(gain)) for step, gain in rows if step and gain]
    return [(step, gain) for step, gain in found if math.isfinite(gain)]


def best_gain(record: dict[str, Any]) -> str:
    """Say the best validation gain of a run, and at which step."""
    curve: Curve = record.get("curve") or []
    if not curve:
        return DASH
    if before_adversary(record):
        kept = record["validation"]["step"]
        return f"none: that of step {kept} is from before the adversarial part"
    step, gain = max(curve, key=lambda point: point[1])
    return f"{number(gain, 2, sign=True)} dB at {step}"


def draw_curves(path: Path, records: dict[str, dict[str, Any]]) -> bool:
    """Draw validation gains against hours, which are shared evenly among the steps."""
    curves = {n: r for n, r in records.items() if r.get("curve") and r["steps"]}
    if not curves:
        return False
    from matplotlib import colormaps

    with picture(path, 1, 1, dpi=90, figsize=(9, 4)) as (figure, axis):
        colours = colormaps["tab20"]
        for index, (name, record) in enumerate(curves.items()):
            pace = record["minutes"] / 60 / record["steps"]
            hours = [step * pace for step, _ in record["curve"]]
            gains = [gain for _, gain in record["curve"]]
            # more runs than colours: the second round is dashed
            line = "-" if index < _COLOURS else "--"
            colour = colours(index % _COLOURS)
            axis.plot(hours, gains, f".{line}", ms=3, lw=1.0, label=name, color=colour)
        axis.axhline(0, color="0.6", lw=0.6)
        axis.set_xlabel("hours")
        axis.set_ylabel("validation gain, dB")
        figure.legend(loc="outside right upper", fontsize=6, ncols=2)
    return True
