"""Tables on Gao's own system, of the rows that ``restorer.py --json`` writes."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
from _restoration import BAND
from _shared import mean_and_error

EVERY = 10_000  # steps between lines of the curve

Rows = list[dict[str, Any]]


def states(rows: Rows) -> str:
    """Write gains of each state, and of the best filters in hindsight."""
    lines = ["| | gain, dB | worst image |", "|---|---:|---:|"]
    of_last = [row for row in rows if row["state"] == "last"]
    cases = [
        ("last state", of_last, "gain"),
        (
            "best by the expected gain",
            [r for r in rows if r["state"] == "best"],
            "gain",
        ),
        ("best Gaussian of each image", of_last, "gaussian"),
        ("best linear filter of each image", of_last, "oracle"),
    ]
    for name, own, what in cases:
        gains = [row[what] for row in own]
        lines.append(f"| {name} | {mean_and_error(gains)} | {min(gains):+.2f} |")
    return "\n".join(lines)


def spectra(rows: Rows) -> str:
    """Write what of the truth is there by spatial frequency, means over images."""
    own = [row for row in rows if row["state"] == "last"]
    before, kept, drawn = (
        np.mean([row[which][what] for row in own], axis=0)
        for which, what in (
            ("input by frequency", "kept"),
            ("by frequency", "kept"),
            ("by frequency", "drawn"),
        )
    )
    lines = [
        "| cycles a pixel | amplitude in the input | in the output | drawn besides |",
        "|---|---:|---:|---:|",
    ]
    for number, values in enumerate(zip(before, kept, drawn, strict=True), start=1):
        band = f"{number * BAND:.2f} to {(number + 1) * BAND:.2f}"
        lines.append(f"| {band} | {' | '.join(f'{value:.2f}' for value in values)} |")
    return "\n".join(lines)


def curve(path: Path) -> str:
    """Write gains by step: the first, the last, and those nearest to round numbers."""
    points = list(csv.DictReader(path.read_text().splitlines()))
    steps = np.array([int(point["step"]) for point in points])
    rounds = range(EVERY, int(steps[-1]), EVERY)
    near = {0, len(points) - 1, *(int(abs(steps - n).argmin()) for n in rounds)}
    lines = ["| step | gain, dB | expected gain, dB |", "|---:|---:|---:|"]
    for at in sorted(near):
        point = points[at]
        expected = point["expected_gain_db"]
        told = f"{float(expected):+.2f}" if expected else ""
        lines.append(f"| {steps[at]} | {float(point['gain_db']):+.2f} | {told} |")
    return "\n".join(lines)
