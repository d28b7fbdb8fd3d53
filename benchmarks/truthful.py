"""Hold a superlens model against `superlens_goals.yaml`.

Run: ``python benchmarks/truthful.py --model NAME [--only PART ...] [--rows FILE]``.

``--rows`` keeps what was measured, a line for each field, scan and height; the next run
of the same model goes on after them. Parts are ``fields`` of any focus, ``microscopes``
that are not Gaussian with objects put in and taken out, ``scans`` through the commands
(those that `semsr crop --align` refuses, as it does lattices, are named and left out),
``discs`` that are put in and taken out, and ``depth``, gaps of 100 nm off the focus.
"""

import contextlib
import io
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from _shared import Rows, mean_and_error, read_options
from _superlens_fields import ODD, USUAL, chip, chip_sites
from superlens import (
    BORDER,
    FEATURE_NM,
    SIDE,
    Image,
    Judge,
    extent,
    inner,
    look,
    resolved,
    site_dips,
)

from napari_semsr.cli import main as semsr
from napari_semsr.core import run
from napari_semsr.jobs import MODELS_CHECK, CheckOptions
from napari_semsr.models import load_model
from napari_semsr.simulation import (
    KINDS,
    SsumPair,
    pair_of_surface,
    ssum_validation,
)
from napari_semsr.training.validation import affine_psnr_db

GOALS = Path(__file__).with_name("superlens_goals.yaml")
Row = dict[str, Any]


class Measured(Rows):
    """What was measured of a model, kept on file as it comes."""

    def __init__(self, path: Path | None, digest: str) -> None:
        super().__init__(path, "key", "model")
        self.digest = digest

    def get(self, key: str, measure: Callable[[], Row]) -> Row:
        """Give a row, measured unless it is there."""
        if (key, self.digest) not in self:
            self.add({"key": key, "model": self.digest, **measure()})
        return self.known[key, self.digest]


def gain(judge: Judge, pair: SsumPair) -> Row:
    """Measure PSNR of the optical and of the enhanced image."""
    images = judge.images(pair, linear=False)
    truth = inner(images["truth"], judge.scale)
    before, after = (
        affine_psnr_db(inner(images[name], judge.scale), truth)
        for name in ("optical", "enhanced")
    )
    return {"kind": pair.kind, "psnr_db": before, "gain_db": after - before}


def measure_fields(judge: Judge, rows: Measured, goals: Row, part: str) -> list[Row]:
    """Measure fields of the eight kinds, one after the other."""
    wanted, options = goals[part], ODD if part == "microscopes" else USUAL

    def one(index: int) -> Row:
        first = goals["seed"] + index
        (pair,) = ssum_validation(1, wanted["side_px"], options=options, first=first)
        return gain(judge, pair)

    return [
        rows.get(f"{part} {index}", lambda index=index: one(index))
        for index in range(wanted["count"])
    ]


def command(*words: object) -> Row:
    """Run a command, and read what it prints."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = semsr([*map(str, words), "--quiet", "--json"])
    if code:
        raise SystemExit(f"semsr {' '.join(map(str, words))} ended with {code}")
    text = said.getvalue()
    return dict(json.loads(text)) if text.strip() else {}


def chain(model: str, seed: int, kind: str) -> Row:
    """Go from a simulated scan to its figures, by commands."""
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        scan, mosaic, made = at / "scan", at / "mosaic.ome.zarr", at / "made.ome.zarr"
        truth, before, after = (at / f"{n}.ome.zarr" for n in ("truth", "in", "out"))
        how = ("--frames-grid", "3x3", "--overlap", 0.5, "--focus-nm", 80)
        command("simulate", scan, "--phantom", kind, "--sem", *how, "--seed", seed)
        command("stitch", scan, "-o", mosaic)
        command("enhance", mosaic, "-o", made, "--model", model)
        lies = ("--like", mosaic, "--align", "--gap-free", "--like-out", before)
        try:
            command("crop", scan / "sem" / "sem.ome.tif", *lies, "-o", truth)
        except SystemExit:  # a lattice looks alike a period away: not to be judged
            return {"kind": kind, "refused": True}
        command("crop", made, "--like", truth, "-o", after)
        psnr = [
            command("metrics", image, truth, "--match", "affine")["psnr_db"]
            for image in (before, after)
        ]
    return {"kind": kind, "psnr_db": psnr[0], "gain_db": psnr[1] - psnr[0]}


def measure_scans(model: str, rows: Measured, goals: Row) -> list[Row]:
    """Measure scans of the six kinds of `semsr simulate`, one after the other."""
    seeds = range(goals["seed"], goals["seed"] + goals["scans"]["count"])
    return [
        rows.get(
            f"scans {seed}",
            lambda seed=seed: chain(model, seed, KINDS[seed % len(KINDS)]),
        )
        for seed in seeds
    ]


def measure_discs(model: str, rows: Measured, goals: Row) -> list[Row]:
    """Count discs that are shown rightly, by radius and change."""
    options = CheckOptions(
        task="superlens", discs=goals["discs"]["count"], seed=goals["seed"]
    )

    def count() -> Row:
        (found,) = run(MODELS_CHECK.job(model, options=options)).conditions
        names = ("radius_px", "change", "discs", "enhanced", "degraded")
        return {"rows": [{n: getattr(r, n) for n in names} for r in found.rows]}

    return list(rows.get("discs", count)["rows"])


def measure_depth(judge: Judge, rows: Measured, goals: Row) -> list[Row]:
    """Measure the share of gaps resolved and PSNR, at heights above the focus."""

    def at(height: float) -> Row:
        found: dict[str, list[Image]] = {}
        gains = []
        for number in range(goals["depth"]["fields"]):
            surface = chip(2 * FEATURE_NM, goals["seed"] + number, 40)
            middle = float(surface.height_nm.max()) / 2
            rng = np.random.default_rng([goals["seed"], number, round(height)])
            pair = pair_of_surface(
                surface, SIDE, look(middle - height), rng, scale=judge.scale
            )
            gains.append(gain(judge, pair)["gain_db"])
            images = judge.images(pair, linear=False)
            sites = chip_sites(surface, 2 * FEATURE_NM)
            for name, dips in site_dips(images, sites, 20 / judge.scale).items():
                found.setdefault(name, []).append(dips)
        shares = {name: one["resolved"] for name, one in resolved(found).items()}
        return {"height_nm": height, "gain_db": float(np.mean(gains)), **shares}

    return [
        rows.get(f"depth {height}", lambda height=height: at(height))
        for height in goals["depth"]["heights_nm"]
    ]


def said_of_gains(found: list[Row], goal: Row) -> Iterator[str]:
    """Say mean, standard error and worst, and what is asked of them."""
    refused = [row["kind"] for row in found if row.get("refused")]
    found = [row for row in found if not row.get("refused")]
    if refused:
        yield f"{len(refused)} cannot be laid on their SEM image: {', '.join(refused)}"
    gains = np.array([row["gain_db"] for row in found])
    worst = found[int(gains.argmin())]
    least, mean = float(gains.min()), float(gains.mean())
    yield f"{mean_and_error(gains)} dB, worst {least:+.2f} ({worst['kind']})"
    if "mean_gain_db" in goal:
        wanted = goal["mean_gain_db"]
        yield verdict(f"mean {wanted:+} dB", mean >= wanted)
    for name in ("each_db", "at_least_db"):
        if name in goal:
            yield verdict(f"each {goal[name]:+} dB", least >= goal[name])


def said_of_discs(found: list[Row], goal: Row) -> Iterator[str]:
    """Say shares by radius and change, and what is asked of them."""
    least = True
    for row in found:
        enhanced, degraded = (row[n] / row["discs"] for n in ("enhanced", "degraded"))
        yield (
            f"{row['radius_px']} px {row['change']}: {enhanced:.0%} of {row['discs']}, "
            f"input {degraded:.0%}"
        )
        least &= enhanced >= degraded
    yield verdict("at each radius as its input", least)
    large = [row for row in found if row["radius_px"] > goal["above_px"]]
    share = sum(r["enhanced"] for r in large) / max(sum(r["discs"] for r in large), 1)
    yield verdict(
        f"above {goal['above_px']} px {goal['right_above']:.0%} ({share:.1%})",
        share >= goal["right_above"],
    )


def said_of_depth(found: list[Row], goal: Row) -> Iterator[str]:
    """Say ranges over which gaps stay apart, and what is asked of them."""
    for row in found:
        yield (
            f"{row['height_nm']} nm: {row['enhanced']:.0%} of gaps, input "
            f"{row['optical']:.0%}; {row['gain_db']:+.2f} dB"
        )
    heights = np.array([float(row["height_nm"]) for row in found])
    ranges = {
        name: extent(heights, np.array([r[name] for r in found]), goal["resolved"])
        for name in ("enhanced", "optical")
    }
    reached = ranges["enhanced"] >= goal["range_nm"]
    found_nm = f"{ranges['enhanced']:.0f}; input {ranges['optical']:.0f}"
    yield verdict(
        f"gaps of 100 nm over {goal['range_nm']} nm of focus ({found_nm})", reached
    )
    beyond = [r["gain_db"] for r in found if 2 * r["height_nm"] > goal["range_nm"]]
    if beyond:
        fine = min(beyond) >= -goal["worse_by_db"]
        yield verdict(
            f"beyond no worse than its input (worst {min(beyond):+.2f} dB)", fine
        )


def verdict(goal: str, reached: bool) -> str:
    """Say whether a goal is reached."""
    return f"{'reached' if reached else 'MISSED'}: {goal}"


def main() -> None:
    """Measure the parts that are asked for, and say them."""
    goals = yaml.safe_load(GOALS.read_text())
    parts = [name for name in goals if name != "seed"]
    arguments = read_options(
        __doc__,
        "--model=ssum-sem --rows=FILE",
        only={"nargs": "+", "default": parts, "choices": parts},
    )
    judge = Judge(load_model(arguments.model), 0, with_oracle=False)
    rows = Measured(arguments.rows, judge.loaded.digest)
    print(f"{judge.loaded.card.name}, {judge.loaded.digest}, border {BORDER} px")
    for part in arguments.only:
        print(f"\n## {part}", flush=True)
        goal = goals[part]
        if part in ("fields", "microscopes"):
            said = said_of_gains(measure_fields(judge, rows, goals, part), goal)
        elif part == "scans":
            said = said_of_gains(measure_scans(arguments.model, rows, goals), goal)
        elif part == "discs":
            said = said_of_discs(measure_discs(arguments.model, rows, goals), goal)
        else:
            said = said_of_depth(measure_depth(judge, rows, goals), goal)
        for line in said:
            print(line, flush=True)


if __name__ == "__main__":
    main()
