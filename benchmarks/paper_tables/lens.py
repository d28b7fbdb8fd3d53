"""Sun's and Wang's tables: superlens images brought to what an electron beam sees.

Samples, scores and sites are those of ``benchmarks/superlens.py``. All models of one
scale see the same fields, which are drawn once.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _superlens_fields import DIP, Sites, chip, series, sharp
from numpy.typing import NDArray
from superlens import (
    SIZES,
    Judge,
    held_out_pairs,
    in_focus,
    inner,
    median,
    resolved,
    scores,
    site_dips,
)

from napari_semsr.analysis import (
    FrcMapOptions,
    fit_gain_and_offset,
    measure_frc_map,
    measure_histogram,
)
from napari_semsr.core import Micrograph, parse_pixel_size, run
from napari_semsr.models import load_model
from napari_semsr.simulation import Specimen, SsumPair
from napari_semsr.simulation.samples import SAMPLE_KINDS
from napari_semsr.training import load_recipe
from paper_tables.plan import FOLDER
from paper_tables.spread import Bad, with_spread, worst

Image = NDArray[np.float64]
Say = Callable[[str], None]
PIXEL_NM = 20.0
CHIP_PITCH_NM, CHIP_RELIEF_NM = 160.0, 60.0
BLOCK, STEP = 64, 32  # of a resolution map
FORMS = ("lines", "discs")
RELIEF_NM = 60
SEED = 50
MIN_CHIPS = 4  # one field has no standard error
_LEARNT = FOLDER / "sun.yaml"  # whose microscope all learn from
_BAD: dict[str, Bad] = {
    "psnr_db": "low",
    "gain_db": "low",
    "ssim": "low",
    "emd": "high",
    "map_answered": "low",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """One field as everything shows it."""

    images: dict[str, Image]  # optical, the oracle's, that of each model, the truth
    pixel_nm: float
    scale: int  # their pixels per pixel of the optical image


def judges_of(models: dict[str, Path | str], fields: int) -> dict[str, Judge]:
    """Load models; the first one's judge fits the oracle too."""
    return {
        name: Judge(load_model(model), fields, number == 0)
        for number, (name, model) in enumerate(models.items())
    }


def show(pair: SsumPair, judges: dict[str, Judge]) -> Shown:
    """Enhance a field by all models."""
    images: dict[str, Image] = {}
    base: dict[str, Image] = {}
    for name, judge in judges.items():
        made = judge.images(pair)
        base = base or {k: made[k] for k in ("optical", "linear") if k in made}
        images[name], truth = made["enhanced"], made["truth"]
    scale = next(iter(judges.values())).scale
    everything = {**base, **images, "truth": truth}
    return Shown(everything, pair.pixel_nm / scale, scale)


def _fields(judge: Judge, first_seed: int) -> Iterable[tuple[str, str, SsumPair]]:
    """Yield held-out fields by group and kind: in focus, in any focus, and chips."""
    learnt = load_recipe(_LEARNT).data.superlens
    for group, options in (
        ("in focus", sharp(learnt)),
        ("any focus", learnt.replace(any_focus=1)),
    ):
        for kind in SAMPLE_KINDS:
            for pair in held_out_pairs(kind, judge, options, first_seed):
                yield group, kind, pair
    for seed in chips(judge, first_seed):
        surface = chip(CHIP_PITCH_NM, seed, CHIP_RELIEF_NM)
        yield "chip", "80 nm lines", in_focus(surface, judge, seed)


def chips(judge: Judge, first_seed: int) -> range:
    """Seeds of the fields that are of one kind only."""
    return range(first_seed, first_seed + max(judge.fields, MIN_CHIPS))


def measure_quality(
    judges: dict[str, Judge], say: Say, *, first_seed: int = 0
) -> dict[str, Any]:
    """Judge models on held-out fields.

    By group of fields (``in focus``, ``any focus``, ``chip``) and image: means of PSNR,
    SSIM and the earth mover's distance of grey levels; medians of the resolution, of
    the whole field and over the blocks of a map.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    for group, kind, pair in _fields(next(iter(judges.values())), first_seed):
        say(f"superlens, {group}: {kind}")
        shown = show(pair, judges)
        found = scores(shown.images, shown.pixel_nm, shown.scale)
        for name, row in found.items():
            row["emd"] = grey_distance(shown, name)
            row |= sharpness_map(shown, name)
        rows.setdefault(group, []).append(found)
    return {group: summary(found) for group, found in rows.items()}


def matched(shown: Shown, name: str) -> tuple[Image, Image]:
    """Bring an image's greys to those of the truth; leave out the border of both."""
    image, truth = (inner(shown.images[n], shown.scale) for n in (name, "truth"))
    gain, offset = fit_gain_and_offset(image, truth)
    return np.clip(gain * image + offset, 0, 255), truth


def grey_distance(shown: Shown, name: str) -> float:
    """Earth mover's distance of grey levels from the truth's, of 255."""
    image, truth = (
        Micrograph(np.rint(part).astype(np.uint8)) for part in matched(shown, name)
    )
    return float(measure_histogram(image, truth).emd or 0.0)


def sharpness_map(shown: Shown, name: str) -> dict[str, float | None]:
    """Median resolution over the blocks of a map, and the share with an answer."""
    size = parse_pixel_size(shown.pixel_nm)
    image, truth = (Micrograph(part, size) for part in matched(shown, name))
    scale = shown.scale
    options = FrcMapOptions(block=BLOCK * scale, step=STEP * scale, reference=True)
    found = run(measure_frc_map(image, truth, options))
    answered = 100 * (1 - found.failed / found.blocks)
    return {"map_median_nm": found.median_nm, "map_answered": answered}


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Put the scores of several fields together.

    By image: means with standard error and worst field (`with_spread`), medians of the
    resolutions with the worst field's, and the number of fields.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in rows[0]:
        mine = [
            {**row[name], "gain_db": row[name]["psnr_db"] - row["optical"]["psnr_db"]}
            for row in rows
        ]
        found[name] = with_spread(mine, _BAD)
        found[name]["worst_gain_db"] = min(row["gain_db"] for row in mine)
        for measure in ("resolution_nm", "map_median_nm"):
            values = [row[measure] for row in mine]
            found[name][measure] = median(values)
            if len(values) > 1:
                found[name]["worst"][measure] = worst(values, "high")
        found[name]["fields"] = len(rows)
    return found


def series_at(
    size_nm: float, form: str, side: int, seed: int
) -> tuple[Specimen, Sites]:
    """Draw lines or discs of one size; the seed lays them otherwise on the pixels."""
    y, x = np.random.default_rng([SEED, seed]).uniform(300, 800, 2)
    return series(size_nm, form, RELIEF_NM, side, (float(y), float(x)))


def measure_sizes(
    judges: dict[str, Judge],
    say: Say,
    *,
    fields: int = 8,
    side: int = 256,
    first_seed: int = 0,
) -> dict[str, Any]:
    """Measure the gaps between lines and discs of 50 to 300 nm.

    By form, size and image: as `dip_rows`.
    """
    table: dict[str, Any] = {}
    first = next(iter(judges.values()))
    for form in FORMS:
        for size in SIZES:
            say(f"superlens, {form} of {size} nm")
            found: dict[str, list[Image]] = {}
            for seed in range(first_seed, first_seed + fields):
                surface, sites = series_at(size, form, side, seed)
                pair = in_focus(surface, first, SEED + seed, side)
                shown = show(pair, judges)
                dips = site_dips(shown.images, sites, shown.pixel_nm, side)
                for name, values in dips.items():
                    found.setdefault(name, []).append(values)
            table.setdefault(form, {})[str(size)] = dip_rows(found)
    return table


def dip_rows(found: dict[str, list[Image]]) -> dict[str, dict[str, Any]]:
    """Put the dips of several fields together.

    By image: mean dip, share of gaps resolved and number of gaps of all fields
    together; standard errors over fields and the worst field of the first two.
    """
    rows = resolved(found)
    for name, fields in found.items():
        by_field = [
            {"dip": float(dips.mean()), "resolved": float(np.mean(dips >= DIP))}
            for dips in fields
            if dips.size
        ]
        spread = with_spread(by_field, {"dip": "low", "resolved": "low"})
        rows[name] |= {"se": spread["se"], "worst": spread["worst"]}
        rows[name]["fields"] = len(by_field)
    return rows
