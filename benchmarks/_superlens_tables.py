"""Tables of `superlens.py` in Markdown."""

from collections.abc import Callable
from typing import Any

import numpy as np
from _shared import mean_and_error
from paper_tables.markdown import number


def print_quality(table: dict[str, Any], say: Callable[[str], None]) -> None:
    """Print PSNR, SSIM and resolution by kind."""
    say(
        "\n| sample | PSNR optical | linear | enhanced | gain | worst | SSIM optical "
        "| linear | enhanced | cross-FRC nm: optical | linear | enhanced | ratio |"
    )
    say("|---|" + "---:|" * 12)
    for kind, row in table.items():
        names = ("optical", "linear", "enhanced")
        parts = [row.get(name, {}) for name in names]
        cells = [number(p.get("psnr_db"), 2) for p in parts]
        gain = row["enhanced"]["psnr_db"] - row["optical"]["psnr_db"]
        cells += [f"{gain:+.2f}", f"{row['worst_gain_db']:+.2f}"]
        cells += [number(p.get("ssim"), 3) for p in parts]
        cells += [number(p.get("resolution_nm"), 0) for p in parts]
        cells.append(number(row["resolution_ratio"], 2))
        say(f"| {kind} ({row['fields']}) | " + " | ".join(cells) + " |")


def print_sizes(table: dict[str, Any], say: Callable[[str], None]) -> None:
    """Print dips and shares of resolved gaps by size."""
    for form, rows in table.items():
        names = [n for n in next(iter(rows.values())) if n != "truth"]
        say(f"\nGaps between {form}: mean dip (share of gaps resolved)\n")
        say("| size nm | " + " | ".join([*names, "truth"]) + " |")
        say("|---|" + "---:|" * (len(names) + 1))
        for size, row in rows.items():
            cells = [
                f"{row[n]['dip']:.2f} ({100 * row[n]['resolved']:.0f} %)"
                for n in (*names, "truth")
            ]
            say(f"| {size} | " + " | ".join(cells) + " |")


def print_depth(found: dict[str, Any], say: Callable[[str], None]) -> None:
    """Print resolution and dips by height."""
    names = list(found["range_nm"])
    say("\nHeight above the focus: cross-FRC nm, share of 100 nm gaps resolved\n")
    say("| height nm | " + " | ".join(names) + " |")
    say("|---|" + "---:|" * len(names))
    for height, row in found["heights"].items():
        cells = [
            f"{number(row[n]['resolution_nm'], 0)}, {100 * row[n]['resolved']:.0f} %"
            for n in names
        ]
        say(f"| {height} | " + " | ".join(cells) + " |")
    for measure in next(iter(found["range_nm"].values())):
        cells = [f"{found['range_nm'][n][measure]:.0f}" for n in names]
        say(f"| range, {measure.replace('_', ' ')} | " + " | ".join(cells) + " |")


DISTANCES = {
    "to a half": (0.0, 0.5),
    "a half to 1": (0.5, 1.0),
    "1 to 2": (1.0, 2.0),
    "2 to 3": (2.0, 3.0),
    "in focus": (0.0, 1.0),
    "out of focus": (1.0, 3.0),
    "any focus": (0.0, 3.0),
}
"""Distances from the focus over that at which a point is √2 as wide as at best."""


def print_light(rows: list[dict[str, Any]], say: Callable[[str], None]) -> None:
    """Print gains in dB with standard error and worst, by distance from the focus."""
    names = [n for n, value in rows[0].items() if isinstance(value, dict)]
    groups = {
        name: [row for row in rows if low <= abs(row["defocus"]) <= high]
        for name, (low, high) in DISTANCES.items()
    }
    for band in rows[0][names[0]]:
        say(f"\n| {band}: focus (fields) | optical, dB | " + " | ".join(names) + " |")
        say("|---|" + "---:|" * (len(names) + 1))
        for group, some in groups.items():
            if not some:
                continue
            cells = [number(float(np.mean([row["optical"] for row in some])), 2)]
            for name in names:
                gains = [row[name][band] for row in some]
                cells.append(f"{mean_and_error(gains)}, worst {min(gains):+.2f}")
            say(f"| {group} ({len(some)}) | " + " | ".join(cells) + " |")
