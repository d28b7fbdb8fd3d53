"""Write the tables of the record that are computed from the committed rows alone.

``python benchmarks/record.py`` prints them; a test compares them with the pages in
``docs/validation``. Gains are decibels of PSNR over the input, after the best gain and
offset of grey levels. *Worse* counts fields that lose more than 0.1 dB.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gold
import numpy as np
from _shared import mean_and_error
from adapt import markdown

ROWS = Path(__file__).resolve().parent / "rows"
MINUS = "\N{MINUS SIGN}"
LOSS_DB = 0.1  # a field that loses less is not called worse; chosen
SPREAD = ("mean", "median", "worse", "worst")
FAULTS = {
    "noise 5": "noise 5 of 255",
    "noise 15": "noise 15",
    "shot 5": "shot noise 5",
    "blur 0.4": "blur 0.4 px",
    "blur 1": "blur 1 px",
    "set B": "blur, haze",
    "set C": "three blurs, haze",
}


def read_rows(name: str) -> list[dict[str, Any]]:
    """Read the rows of a file in ``benchmarks/rows``."""
    text = (ROWS / name).read_text("utf-8")
    if name.endswith(".json"):
        rows: list[dict[str, Any]] = json.loads(text)
        return rows
    return [json.loads(line) for line in text.splitlines()]


def spread(gains: Sequence[float]) -> list[str]:
    """Write mean with standard error, median, number of worse fields, and the worst."""
    worse = sum(gain < -LOSS_DB for gain in gains)
    values = [mean_and_error(gains), f"{np.median(gains):+.2f}"]
    cells = [*values, f"{worse}/{len(gains)}", f"{min(gains):+.2f}"]
    return [cell.replace("-", MINUS) for cell in cells]


def superlens() -> str:
    """Write the gains of `ssum-sem` through lenses, by focus and by set of fields."""
    rows = [row for row in read_rows("by_focus.jsonl") if "lens" in row["optics"]]
    larger = [row for row in rows if row["optics"] == "lens"]
    sets = {
        "all": rows,
        "larger set alone": larger,
        "in focus": [row for row in rows if abs(row["defocus"]) <= 1],
        "out of focus": [row for row in rows if abs(row["defocus"]) > 1],
    }
    lines = []
    for name, some in sets.items():
        gains = [row["ssum-sem"]["whole"] for row in some]
        over = [row["ssum-sem"]["whole"] - row["linear"]["whole"] for row in some]
        ahead = mean_and_error(over).replace("-", MINUS)
        lines.append([name, *spread(gains), ahead])
    return markdown(["fields", *SPREAD, "over the linear filter"], lines)


def restoration() -> str:
    """Write the gains of `sem-restore` on seven real images with simulated faults."""
    rows = read_rows("restorer.jsonl")
    lines = []
    for case, words in FAULTS.items():
        some = [row for row in rows if row["case"] == case]
        best = np.mean([row["oracle"] for row in some])
        lines.append([words, *spread([row["gain"] for row in some]), f"{best:+.2f}"])
    given = read_rows("told_blur.json")
    for width in ("0.7", "1.4"):  # farthest from the filter, least gain
        some = [row for row in given if row["case"] == f"told {width}"]
        best = np.mean([row["oracle"] for row in some])
        gains = [row["gain"] for row in some]
        lines.append([f"blur {width} px, stated", *spread(gains), f"{best:+.2f}"])
    real = read_rows("real_pairs.json")
    best = np.mean([row["oracle"] for row in real])
    gains = [row["gain"] for row in real]
    lines.append(["real noise", *spread(gains), f"{best:+.2f}"])
    return markdown(["fault", *SPREAD, "best linear filter"], lines)


def magnification() -> str:
    """Write the gains of `sem-2x` on tiles of real pictures, over splines and more."""
    psnr: dict[str, dict[tuple[int, int], float]] = {}
    for row in read_rows("pictures.jsonl"):
        tiles = psnr.setdefault(row["method"], {})
        tiles[row["picture"], row["tile"]] = row["psnr_db"]
    lines = []
    for other in ("cubic splines", "best Gaussian", "best linear filter"):
        gains = [psnr["sem-2x"][tile] - value for tile, value in psnr[other].items()]
        lines.append([other, *spread(gains)[1:]])
    return markdown(["over", *SPREAD[1:]], lines)


def gaps() -> str:
    """Write how `sem-2x`, splines and the best linear filter read simulated gaps."""
    methods = gold.by_method(read_rows("gold.jsonl"))
    lines = []
    for name in ("cubic splines (input)", "best linear filter", "sem-2x"):
        one = gold.pooled(methods[name])
        missed = f"{one['undetected_percent']:.1f} ± "
        missed += f"{one['undetected_spread_percent']:.1f}"
        widths = f"{one['width_error_nm']:.2f}"
        lines.append([name, missed, widths, f"{one['invented_percent']:.1f}"])
    head = ["method", "missed gaps, %", "width error, nm", "invented gaps, %"]
    return markdown(head, lines)


def own_place() -> str:
    """Write the gains of a network of one place, there, at other foci and elsewhere."""
    rows = read_rows("adapt.jsonl")
    parts = {
        "another area": "samples",
        "another focus": "focus",
        "another sample": "elsewhere",
    }
    lines = []
    for words, part in parts.items():
        some = [row for row in rows if row["part"] == part and "adapted" in row]
        lines += [
            [words if own else "", name, *spread([row[name] for row in some])]
            for name, own in (("adapted", True), ("ssum-sem", False), ("linear", False))
        ]
    return markdown(["image", "by", *SPREAD], lines)


def fine_tuning() -> str:
    """Write the gains of fine-tuned models over the optical image."""
    rows = [
        row
        for row in read_rows("finetuning.jsonl")
        if row["off_px"] == 0 and row.get("sem")
    ]
    within = ("chip", "pits", "lattice", "shards")
    sets = {
        "outside the training of `ssum-sem`": [
            row for row in rows if row["name"] not in within
        ],
        "within it": [row for row in rows if row["name"] in within],
    }
    lines = []
    for words, some in sets.items():
        for name, key in (
            ("fine-tuned", "trained"),
            ("`ssum-sem`", "untouched"),
            ("linear filter", "linear filter"),
        ):
            before = [row["sem"]["input"]["psnr_db"] for row in some]
            after = [row["sem"][key]["psnr_db"] for row in some]
            gains = [
                after - before for before, after in zip(before, after, strict=True)
            ]
            lines.append([words, name, *spread(gains)])
    return markdown(["samples", "by", *SPREAD], lines)


def clean_truths() -> str:
    """Write the gains of `sem-restore` and of methods told the noise, twelve images."""
    rows = [row for row in read_rows("denoising.jsonl") if row["group"] == "others"]
    rows, lines = [row for row in rows if "gain" in row], []
    for case in dict.fromkeys(row["case"] for row in rows):
        some = [row for row in rows if row["case"] == case]
        over = [row["gain"] - row["bm3d"] for row in some]
        cells = [f"{np.mean([row['gain'] for row in some]):+.2f}"]
        cells += [mean_and_error(over), f"{min(over):+.2f}"]
        cells.append(f"{np.mean([row['oracle'] for row in some]):+.2f}")
        lines.append([case, *(cell.replace("-", MINUS) for cell in cells)])
    head = ["noise", "gain", "over BM3D", "worst", "best linear filter"]
    return markdown(head, lines)


TABLES = {
    "model-ssum-sem.md": (superlens,),
    "model-sem-restore.md": (restoration, clean_truths),
    "model-sem-2x.md": (magnification, gaps),
    "model-own-place.md": (own_place,),
    "training.md": (fine_tuning,),
}


def main() -> None:
    """Print all tables."""
    for page, tables in TABLES.items():
        for write in tables:
            print(f"{page}\n\n{write()}\n")


if __name__ == "__main__":
    main()
