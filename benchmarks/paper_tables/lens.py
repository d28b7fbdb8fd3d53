"""Sun's and Wang's tables: superlens images brought to what an electron beam sees.

Samples, scores and sites are those of ``benchmarks/superlens.py``. All models of one
scale see the same fields, which are drawn once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _superlens_fields import DIP, Sites, series
from numpy.typing import NDArray
from superlens import (
    SIZES,
    Judge,
    held_out_pairs,
    in_focus,
    resolved,
    scores,
    site_dips,
)

from napari_semsr.models import load_model
from napari_semsr.simulation import Specimen, SsumPair
from napari_semsr.simulation.specimen import SAMPLE_KINDS
from napari_semsr.training import load_recipe
from paper_tables.plan import FOLDER
from paper_tables.spread import Bad, with_spread

Image = NDArray[np.float64]
Say = Callable[[str], None]
FORMS = ("lines", "discs")
RELIEF_NM = 60
SEED = 50
_LEARNT = FOLDER / "sun.yaml"  # whose microscope all learn from
_BAD: dict[str, Bad] = {"psnr_db": "low", "gain_db": "low"}


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


def measure_quality(
    judges: dict[str, Judge], say: Say, *, first_seed: int = 0
) -> dict[str, Any]:
    """Judge models on held-out fields of every kind, at any focus.

    By image: means of PSNR and of the gain over the optical image, with their spread
    over fields, and the number of fields.
    """
    first = next(iter(judges.values()))
    options = load_recipe(_LEARNT).data.superlens.replace(any_focus=1)
    rows: dict[str, list[dict[str, Any]]] = {}
    for kind in SAMPLE_KINDS:
        say(f"superlens: {kind}")
        for pair in held_out_pairs(kind, first, options, first_seed):
            shown = show(pair, judges)
            found = scores(shown.images, shown.scale)
            for name, psnr in found.items():
                row = {"psnr_db": psnr, "gain_db": psnr - found["optical"]}
                rows.setdefault(name, []).append(row)
    return {
        name: {**with_spread(some, _BAD), "fields": len(some)}
        for name, some in rows.items()
    }


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
